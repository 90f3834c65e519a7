package xfrm

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// NoPermission: the process may not configure IPsec.
type NoPermission struct{}

// Error says which capability is needed.
func (*NoPermission) Error() string {
	return "no permission to configure IPsec: CAP_NET_ADMIN is needed in the user namespace " +
		"that owns this network namespace (run as root, or give a container this capability)"
}

// NoESP: the kernel does not do ESP, or has no netlink interface to it.
type NoESP struct {
	Options []string // of the kernel's configuration, all needed
	Modules []string // that bring them
}

// Error names the options and the modules.
func (e *NoESP) Error() string {
	return fmt.Sprintf("this kernel does no ESP: it lacks %s. Try `modprobe -a %s`; in a container that has to be "+
		"done on the host. If there are no such modules the kernel must be built with these options",
		strings.Join(e.Options, " and "), strings.Join(e.Modules, " "))
}

// NoAlgorithm: the kernel does ESP, but without this algorithm.
type NoAlgorithm struct {
	Name    string // as in apply
	Kernel  string // as in /proc/crypto
	Options []string
}

// Error names the algorithm and the kernel's options for it.
func (e *NoAlgorithm) Error() string {
	return fmt.Sprintf("this kernel has no %s (%s): choose another ESP proposal, or use a kernel with %s",
		e.Name, e.Kernel, strings.Join(e.Options, ", "))
}

// OpError is a request that the kernel refused.
type OpError struct {
	Op     string // what was asked for
	Errno  unix.Errno
	Detail string // the kernel's own words, if any (NLMSGERR_ATTR_MSG)
}

// Error joins what was tried and why it failed.
func (e *OpError) Error() string {
	s := e.Op + ": " + e.Errno.Error()
	if e.Detail != "" {
		s += " (kernel: " + e.Detail + ")"
	}
	return s
}

// Unwrap makes errors.Is work with the errno, and with apply.ErrAbsent and
// apply.ErrExists.
func (e *OpError) Unwrap() []error {
	switch e.Errno {
	case unix.ESRCH, unix.ENOENT:
		return []error{e.Errno, apply.ErrAbsent}
	case unix.EEXIST:
		return []error{e.Errno, apply.ErrExists}
	}
	return []error{e.Errno}
}

func isErrno(err error, no unix.Errno) bool { return errors.Is(err, no) }

// noESP is the error for one address family.
func noESP(ipv6 bool) *NoESP {
	if ipv6 {
		return &NoESP{Options: []string{"CONFIG_INET6_ESP"}, Modules: []string{"esp6"}}
	}
	return &NoESP{Options: []string{"CONFIG_INET_ESP"}, Modules: []string{"esp4"}}
}

// configOptions are the kernel's options that bring an algorithm.
var configOptions = map[string][]string{
	apply.AESGCM16:         {"CONFIG_CRYPTO_AES", "CONFIG_CRYPTO_GCM", "CONFIG_CRYPTO_SEQIV"},
	apply.ChaCha20Poly1305: {"CONFIG_CRYPTO_CHACHA20POLY1305", "CONFIG_CRYPTO_SEQIV"},
	apply.AESCBC:           {"CONFIG_CRYPTO_AES", "CONFIG_CRYPTO_CBC", "CONFIG_CRYPTO_ECHAINIV", "CONFIG_CRYPTO_AUTHENC"},
	apply.HMACSHA256:       {"CONFIG_CRYPTO_HMAC", "CONFIG_CRYPTO_SHA256"},
	apply.HMACSHA384:       {"CONFIG_CRYPTO_HMAC", "CONFIG_CRYPTO_SHA512"},
	apply.HMACSHA512:       {"CONFIG_CRYPTO_HMAC", "CONFIG_CRYPTO_SHA512"},
}

// explain turns the kernel's answer to an SA into what is missing.
func explain(err error, sa apply.SA) error {
	var op *OpError
	if !errors.As(err, &op) {
		return err
	}
	switch op.Errno {
	case unix.EPERM:
		return &NoPermission{}
	case unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT:
		return noESP(sa.Dst.Is6())
	case unix.ENOSYS, unix.ENOENT:
		// ENOSYS: xfrm_algo.c has no such algorithm; ENOENT: crypto has not
		// (a template like seqiv may be missing). The kernel says of what kind.
		a := sa.Encryption
		if sa.Integrity.Name != "" && strings.Contains(op.Detail, "AUTH") {
			a = sa.Integrity
		}
		k, _ := a.Kernel()
		return &NoAlgorithm{Name: a.Name, Kernel: k.Name, Options: configOptions[a.Name]}
	}
	return err
}
