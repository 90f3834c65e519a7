# Sourced by setup and run: where the lab lives and what the host can do.
# shellcheck shell=bash

cache=${IPSEC_QUICK_CACHE:-/var/cache/ipsec-quick}

# Debian release of the root, and what is installed in it.
suite=trixie
guest_packages=(
	# the peer: IKE daemon, its command line, the plugins of all algorithms
	strongswan-charon strongswan-swanctl libstrongswan-standard-plugins
	libstrongswan-extra-plugins libcharon-extra-plugins
	# the network
	iproute2 iputils-ping nftables iperf3 tcpdump conntrack
	# the rest of a host
	kmod procps util-linux less xz-utils strace
	# the service manager and the packages of a host
	systemd rpm
	# wg-quick, to compare with, and the resolvconf that it needs for DNS
	wireguard-tools openresolv
)

# What boots the VM, from the same release: QEMU before 8.1 translates code that
# the kernel is just patching, and the kernel crashes under load.
vm_packages=(qemu-system-x86 virtiofsd)

# What the kernel must offer to the tests, as modules or built in. Algorithms
# are left out: the kernel loads them when the first SA asks for them.
kernel_modules=(
	esp4 esp6 xfrm_user veth bridge dummy tun sch_netem overlay wireguard
	nf_tables nft_chain_nat nft_masq
)

die() { echo "${0##*/}: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The kernel only says whether it has ESP when an SA is added; try it where
# nobody is disturbed. Set IPSEC_QUICK_LAB=vm or native to decide otherwise.
host_has_esp() {
	case ${IPSEC_QUICK_LAB:-} in
	vm) return 1 ;;
	native) return 0 ;;
	esac
	[[ $(id -u) == 0 ]] || return 1
	have ip || return 1
	modprobe -qa esp4 xfrm_user 2>/dev/null
	unshare --net ip xfrm state add src 192.0.2.1 dst 192.0.2.2 \
		proto esp spi 0xc0000001 mode tunnel \
		aead 'rfc4106(gcm(aes))' "0x$(printf '00%.0s' {1..20})" 128 \
		2>/dev/null
}

# The root for a mode, native or vm: the VM's has all that the other has and
# serves both once it is there. Its name has the recipe's fingerprint: another
# recipe is another root.
root_dir() {
	local sum mode=$1
	sum=$({ cat "$lab/setup"; echo "$suite" "${guest_packages[@]}" "${vm_packages[@]}"; } | sha256sum)
	[[ ! -e $cache/root-$suite-vm-${sum:0:12}/.complete ]] || mode=vm
	echo "$cache/root-$suite-$mode-${sum:0:12}"
}
