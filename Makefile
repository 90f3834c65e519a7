# make build     bin/ipsec-quick, and bin/ipsec-quick-exporter for its metrics
# make demo      a tunnel between two namespaces, rekeyed while it is in use
# make test      lint with vet, unit tests, then the tests with a real kernel and peer
# make install   the commands, their manual pages and completions, below PREFIX;
#                with UNITDIR=/etc/systemd/system the units too
# make packages  deb and rpm of ARCHS into bin/packages; make reproducible:
#                whether two builds of a commit are the same, minutes
# make bench     ESP in user space beside wireguard-go, strongSwan's kernel-libipsec
#                and no tunnel; BENCHRUNS=1 BENCHTIME=1s for a quick look
# make soak      the long forms of the lab's tests of rekeys and crashes, hours;
#                soak-native those of ESP in user space
# make fuzz      each fuzz target for FUZZTIME; FUZZ=ike/wire: of one package
# make clean
#
# demo, test and bench install what they need when root on Debian; otherwise they
# list what is missing.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SUFFIXES:
.DEFAULT_GOAL := build

PREFIX   ?= /usr/local
DESTDIR  ?=
MANDIR   ?= $(PREFIX)/share/man
SHARE    := $(DESTDIR)$(PREFIX)/share
UNITDIR  ?=
BINDIR   ?= bin
ARCHS    ?= amd64 arm64
FUZZTIME ?= 10s
FUZZ     ?= ...
LABTIME  ?= 1100
SOAK     ?= ^Test(Speed|SoftLimits|RekeyCommand|Soak|StrongSwanRekeys|Kill|ManyExpires|ClockStep)$$
SOAKTIME ?= 14400
# Tests to which it makes no difference which data plane there is.
EITHER   := EndpointName|ManyTunnels|Systemd|Hooks|HooksFail|DNS|Habits|Examples|Export|Import
# What is run natively too and says as much there, or is for a quiet machine.
LABSKIP  ?= ^Test($(EITHER)|Status|Speed)$$|^TestSecrets$$/raw|^TestTwoTunnels$$/different|^TestSoftLimits$$/.*/ipsec-quick|^TestInterop$$/shared/^(PSK|raw|AES|ChaCha|ECP|MODP|first|selectors)/responder
NATIVE   ?= ^Test(Interop|Ourselves|FullRate|CountedRekeys|KillTraffic|Kill|Soak|SoftLimits|FrozenPeer|TwoTunnels|FailedUp|Interrupted|Secrets|OnDemand|Status|Reload|$(EITHER))$$
SOAKNATIVE ?= ^Test(SoftLimits|Interop|Ourselves|FullRate|CountedRekeys|KillTraffic|Reload|ManyTunnels)$$

BENCHRUNS  ?= 5
BENCHTIME  ?= 3s
BENCHLIMIT ?= 3600
BENCH      ?= .
BENCHWHAT  ?= .
BENCHJSON  ?=

# The number of digits is fixed: else it depends on what else a clone has.
VERSION := $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null || echo unknown)
GO      ?= go

# All is built in one way, so that a fresh machine compiles a package once; once
# more for the race detector, which needs C.
export CGO_ENABLED := 0
export GOFLAGS     := $(filter-out -trimpath,$(shell $(GO) env GOFLAGS)) -trimpath

# Built once into a cache outside the tree, by the Go release in use: a linter
# refuses code that is newer than the release it was built with.
LINT_VERSION := v2.15.0
CACHE_DIR    := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ipsec-quick
LINT_DIR      = $(CACHE_DIR)/golangci-lint-$(LINT_VERSION)-$(shell $(GO) env GOVERSION)
LINT          = $(LINT_DIR)/golangci-lint

NFPM_VERSION := v2.45.2
NFPM          = $(CACHE_DIR)/nfpm-$(NFPM_VERSION)-$(shell $(GO) env GOVERSION)/nfpm

WIREGUARD_VERSION := v0.0.0-20260522210424-ecfc5a8d5446
WIREGUARD          = $(CACHE_DIR)/wireguard-go-$(WIREGUARD_VERSION)/wireguard

SCRIPTS := .ci/need .ci/run .ci/nfpm/postinstall .ci/nfpm/preremove .ci/nfpm/postremove .ci/nfpm/version examples/demo \
           test/lab/guest test/lab/run test/lab/setup cmd/ipsec-quick/completion/ipsec-quick.bash
PAGES   := man/ipsec-quick.8 man/ipsec-quick-exporter.8 man/ipsec-quick.toml.5 man/ipsec-quick-expire.7
UNITS   := ipsec-quick@.service ipsec-quick.target ipsec-quick-exporter.service

.PHONY: build demo test lint unit native lab lab-tests soak soak-native bench install uninstall packages \
        reproducible fuzz clean need need-lab

# ---- The command -----------------------------------------------------------

# The tag leaves out what writes manual pages from the command line's help.
build:
	@$(GO) build -tags urfave_cli_no_docs -ldflags '-s -w -X ipsec-quick/watch.buildVersion=$(VERSION)' -o '$(BINDIR)/' ./cmd/...

install: build
	@umask 022
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(MANDIR)'/man{5,7,8}
	install -m 755 '$(BINDIR)'/{ipsec-quick,ipsec-quick-exporter} '$(DESTDIR)$(PREFIX)/bin/'
	install -m 644 man/*.5 '$(DESTDIR)$(MANDIR)/man5/'
	install -m 644 man/*.7 '$(DESTDIR)$(MANDIR)/man7/'
	install -m 644 man/*.8 '$(DESTDIR)$(MANDIR)/man8/'
	install -D -m 644 man/status.schema.json '$(SHARE)/ipsec-quick/status.schema.json'
	install -D -m 644 cmd/ipsec-quick/completion/ipsec-quick.bash '$(SHARE)/bash-completion/completions/ipsec-quick'
	install -D -m 644 cmd/ipsec-quick/completion/ipsec-quick.zsh '$(SHARE)/zsh/site-functions/_ipsec-quick'
	install -D -m 644 cmd/ipsec-quick/completion/ipsec-quick.fish '$(SHARE)/fish/vendor_completions.d/ipsec-quick.fish'
	[[ -n '$(UNITDIR)' ]] || exit 0
	install -d '$(DESTDIR)$(UNITDIR)'
	for unit in $(UNITS); do
		sed 's,=/usr/bin/,=$(PREFIX)/bin/,' "examples/systemd/$$unit" >'$(DESTDIR)$(UNITDIR)'/"$$unit"
	done

uninstall:
	@rm -f '$(DESTDIR)$(PREFIX)'/bin/{ipsec-quick,ipsec-quick-exporter}
	for page in $(notdir $(PAGES)); do
		rm -f '$(DESTDIR)$(MANDIR)'/man[578]/"$$page"
	done
	rm -f '$(SHARE)'/{bash-completion/completions/ipsec-quick,zsh/site-functions/_ipsec-quick,fish/vendor_completions.d/ipsec-quick.fish}
	rm -rf '$(SHARE)/ipsec-quick'
	[[ -z '$(UNITDIR)' ]] || rm -f $(UNITS:%='$(DESTDIR)$(UNITDIR)'/%)

# Packages have what install installs. Times are the commit's, so that the same
# commit gives the same packages, bit by bit.
packages: $(NFPM)
	@umask 022
	rm -rf bin/packages
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct)
	VERSION=$$(.ci/nfpm/version '$(VERSION)')
	export SOURCE_DATE_EPOCH VERSION
	for ARCH in $(ARCHS); do
		export ARCH STAGE=bin/packages/$$ARCH
		GOARCH=$$ARCH $(MAKE) --no-print-directory install BINDIR="$$STAGE.programs" \
			DESTDIR="$$STAGE" PREFIX=/usr UNITDIR=/usr/lib/systemd/system >/dev/null
		doc=$$STAGE/usr/share/doc/ipsec-quick
		mkdir -p "$$doc"
		cp -R examples README.md CHANGELOG.md "$$doc"
		gzip -9n "$$doc/CHANGELOG.md" "$$STAGE"/usr/share/man/man?/*
		find "$$STAGE" -exec touch -hd "@$$SOURCE_DATE_EPOCH" {} +
		for format in deb rpm; do
			'$(NFPM)' package --config .ci/nfpm/nfpm.yaml --packager $$format --target bin/packages >/dev/null
		done
		rm -rf "$$STAGE" "$$STAGE.programs"
	done
	ls bin/packages

$(NFPM):
	@echo 'building nfpm $(NFPM_VERSION)'
	GOBIN='$(@D)' $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)

# Builds HEAD in two folders, with nothing of one in the other.
reproducible: $(NFPM)
	@work=$$(mktemp -d)
	trap 'chmod -R u+w "$$work"; rm -rf "$$work"' EXIT
	commit=$$(git rev-parse HEAD)
	for copy in one some/where/else; do
		git clone -q . "$$work/$$copy"
		git -C "$$work/$$copy" -c advice.detachedHead=false checkout -q "$$commit"
		GOCACHE="$$work/$$copy.cache" $(MAKE) --no-print-directory -C "$$work/$$copy" build packages
		(cd "$$work/$$copy/bin" && sha256sum ipsec-quick ipsec-quick-exporter packages/*) >"$$work/sums-$${copy##*/}"
	done
	cat "$$work/sums-one"
	cmp "$$work/sums-one" "$$work/sums-else" && echo 'reproducible: twice the same'

demo: build
	@examples/demo

# ---- Tests -----------------------------------------------------------------

test:
	@$(MAKE) --no-print-directory need
	$(MAKE) --no-print-directory -j2 need-lab '$(LINT)' '$(NFPM)'
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory native
	$(MAKE) --no-print-directory lab

# The race detector needs a C compiler, the linters of pages and scripts are
# programs of their own, unit tests of apply/xfrm make namespaces, tshark reads
# what apply/userspace/esp has sealed, and each shell completes command lines. Who
# is not root is told all that is missing at once.
need:
	@missing=0
	.ci/need gcc=gcc /usr/include/stdlib.h=libc6-dev mandoc=mandoc shellcheck=shellcheck ip=iproute2 tshark=tshark zsh=zsh fish=fish || missing=1
	[[ $$(id -u) == 0 ]] || test/lab/setup || missing=1
	exit $$missing

# Builds the lab's root the first time.
need-lab:
	@test/lab/setup

$(CACHE_DIR)/%/golangci-lint:
	@echo 'building golangci-lint $(LINT_VERSION) (minutes, once)'
	GOBIN='$(@D)' $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

# golangci-lint runs vet, with the tests of the lab.
lint: $(LINT)
	@echo '== lint'
	$(LINT) run ./...
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	if mandoc -Tlint $(PAGES) 2>&1 | grep -v 'referenced manual not found\|outdated mandoc.db'; then exit 1; fi
	shellcheck -S warning -x -e SC2054 $(SCRIPTS)

# Tests that are timed do not run beside the compiler of what all need, and the
# loop's, which wait the most, begin first. ike starts no goroutine.
unit:
	@echo '== unit tests'
	CGO_ENABLED=1 $(GO) build -race ./...
	CGO_ENABLED=1 $(GO) test -race $$($(GO) list ./watch/... ./... | grep -v '/ike\>')
	$(GO) test ./ike/...
	$(GO) test ./ike -run 'Simulation$$' -seeds 2000 -v

# The tests that need root, a kernel with ESP and strongSwan. They are compiled
# here and run in the lab, a VM where this kernel has no ESP. What `make native`
# runs as well is left out there, if it says nothing of the kernel's data plane.
lab: lab-tests
	@echo '== lab: the data plane of the kernel'
	test/lab/run -t $(LABTIME) bin/xfrm.test -test.failfast
	echo '== lab: tunnels to strongSwan'
	test/lab/run -t $(LABTIME) bin/lab.test -test.skip '$(LABSKIP)'
	echo '== lab: the demo'
	test/lab/run -t 300 examples/demo

# Those of them that say something of ESP in user space, on this kernel.
native: lab-tests
	@echo '== native: ESP in user space'
	test/lab/run -t 480 bin/lab.test -dataplane userspace -test.parallel 8 -test.run '$(NATIVE)'

# Their long forms: with each cipher, mode and address family 1,000,000 packets,
# 100 rekeys at 20,000 packets a second, TCP at full rate, 50 kills.
soak-native: lab-tests
	@test/lab/run -t $(SOAKTIME) bin/lab.test -dataplane userspace -full -test.parallel 1 -test.timeout 0 -test.v -test.run '$(SOAKNATIVE)'

native soak-native bench: export IPSEC_QUICK_LAB = native

# The tests that have a long form, in that form and one at a time, so that none
# starves another. SOAK=REGEXP chooses some, such as SOAK=TestKill.
soak: lab-tests
	@test/lab/run -m 2048 -t $(SOAKTIME) bin/lab.test -full -test.parallel 1 -test.timeout 0 -test.v -test.run '$(SOAK)'

# Runs in the lab's root, for its strongSwan and iperf3, but always on this
# kernel. BENCH=REGEXP chooses contestants, BENCHWHAT=REGEXP of tcp, udp, latency
# and memory; BENCHJSON=FILE gets all figures.
bench: build bin/wireguard-go
	@test/lab/setup
	$(GO) test -c -tags lab -o bin/bench.test ./test/bench
	test/lab/run -t $(BENCHLIMIT) bin/bench.test -runs $(BENCHRUNS) -span $(BENCHTIME) -only '$(BENCH)' -what '$(BENCHWHAT)' -raw '$(BENCHJSON)'

bin/wireguard-go: $(WIREGUARD)
	@install -D -m 755 '$<' '$@'

$(WIREGUARD):
	@echo 'building wireguard-go $(WIREGUARD_VERSION)'
	GOBIN='$(@D)' $(GO) install golang.zx2c4.com/wireguard@$(WIREGUARD_VERSION)

lab-tests: build bin/wireguard-go
	@$(MAKE) --no-print-directory packages ARCHS="$$($(GO) env GOARCH)" >/dev/null
	$(GO) test -c -tags lab -o bin/xfrm.test ./apply/xfrm
	$(GO) test -c -tags lab -o bin/lab.test ./test

# Minimizing an input that is only interesting may take all of a short FUZZTIME.
fuzz:
	@targets=0
	for package in $$($(GO) list './$(FUZZ)'); do
		for target in $$($(GO) test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do
			echo "== $$package $$target"
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$package"
			targets=$$((targets + 1))
		done
	done
	echo "fuzz: $$targets targets, $(FUZZTIME) each, no finding"
	[[ $$targets -gt 0 ]]

clean:
	@rm -rf bin
