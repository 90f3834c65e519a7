# make build     bin/ipsec-quick
# make demo      a tunnel between two namespaces, rekeyed while it is in use
# make test      vet, lint, unit tests, then the tests with a real kernel and peer
# make install   the command, its manual pages and its completions, below PREFIX
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
FUZZTIME ?= 10s
FUZZ     ?= ...
LABTIME  ?= 1100
SOAK     ?= ^Test(Soak|StrongSwanRekeys|Kill|ManyExpires|ClockStep)$$
SOAKTIME ?= 14400
NATIVE   ?= ^Test(Interop|Ourselves|FullRate|CountedRekeys|KillTraffic|Kill|Soak|SoftLimits|FrozenPeer|TwoTunnels|FailedUp|Interrupted|Secrets|OnDemand|Examples|Status|Export|Reload)$$
SOAKNATIVE ?= ^Test(Interop|Ourselves|FullRate|CountedRekeys|KillTraffic|Reload)$$

BENCHRUNS  ?= 5
BENCHTIME  ?= 3s
BENCHLIMIT ?= 3600
BENCH      ?= .
BENCHWHAT  ?= .
BENCHJSON  ?=

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO      ?= go

# Built once into a cache outside the tree, by the Go release in use: a linter
# refuses code that is newer than the release it was built with.
LINT_VERSION := v2.15.0
CACHE_DIR    := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ipsec-quick
LINT_DIR      = $(CACHE_DIR)/golangci-lint-$(LINT_VERSION)-$(shell $(GO) env GOVERSION)
LINT          = $(LINT_DIR)/golangci-lint

WIREGUARD_VERSION := v0.0.0-20260522210424-ecfc5a8d5446
WIREGUARD          = $(CACHE_DIR)/wireguard-go-$(WIREGUARD_VERSION)/wireguard

SCRIPTS := .ci/need .ci/run examples/demo test/lab/guest test/lab/run test/lab/setup \
           cmd/ipsec-quick/completion/ipsec-quick.bash
PAGES   := man/ipsec-quick.8 man/ipsec-quick.toml.5 man/ipsec-quick-expire.7

.PHONY: build demo test vet lint unit native lab lab-tests soak soak-native bench install uninstall fuzz clean need need-lab

# ---- The command -----------------------------------------------------------

# The tag leaves out what writes manual pages from the command line's help.
build:
	@CGO_ENABLED=0 $(GO) build -tags urfave_cli_no_docs -trimpath -ldflags '-s -w -X ipsec-quick/watch.buildVersion=$(VERSION)' -o bin/ipsec-quick ./cmd/ipsec-quick

install: build
	@install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(MANDIR)'/man{5,7,8}
	install -m 755 bin/ipsec-quick '$(DESTDIR)$(PREFIX)/bin/ipsec-quick'
	install -m 644 man/*.5 '$(DESTDIR)$(MANDIR)/man5/'
	install -m 644 man/*.7 '$(DESTDIR)$(MANDIR)/man7/'
	install -m 644 man/*.8 '$(DESTDIR)$(MANDIR)/man8/'
	install -D -m 644 man/status.schema.json '$(SHARE)/ipsec-quick/status.schema.json'
	install -D -m 644 cmd/ipsec-quick/completion/ipsec-quick.bash '$(SHARE)/bash-completion/completions/ipsec-quick'
	install -D -m 644 cmd/ipsec-quick/completion/ipsec-quick.zsh '$(SHARE)/zsh/site-functions/_ipsec-quick'
	install -D -m 644 cmd/ipsec-quick/completion/ipsec-quick.fish '$(SHARE)/fish/vendor_completions.d/ipsec-quick.fish'

uninstall:
	@rm -f '$(DESTDIR)$(PREFIX)/bin/ipsec-quick'
	for page in $(notdir $(PAGES)); do
		rm -f '$(DESTDIR)$(MANDIR)'/man[578]/"$$page"
	done
	rm -f '$(SHARE)'/{bash-completion/completions/ipsec-quick,zsh/site-functions/_ipsec-quick,fish/vendor_completions.d/ipsec-quick.fish}
	rm -rf '$(SHARE)/ipsec-quick'

demo: build
	@examples/demo

# ---- Tests -----------------------------------------------------------------

test:
	@$(MAKE) --no-print-directory need
	$(MAKE) --no-print-directory -j2 need-lab '$(LINT)'
	$(MAKE) --no-print-directory vet
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

vet:
	@echo '== vet'
	$(GO) vet ./...
	$(GO) vet -tags lab ./...

$(CACHE_DIR)/%/golangci-lint:
	@echo 'building golangci-lint $(LINT_VERSION) (minutes, once)'
	GOBIN='$(@D)' CGO_ENABLED=0 $(GO) install -trimpath github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

lint: $(LINT)
	@echo '== lint'
	$(LINT) run ./...
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	! mandoc -Tlint $(PAGES) 2>&1 | grep -v 'referenced manual not found\|outdated mandoc.db'
	shellcheck -S warning -x -e SC2054 $(SCRIPTS)

unit:
	@echo '== unit tests'
	CGO_ENABLED=1 $(GO) test -race ./...
	CGO_ENABLED=0 $(GO) test ./ike -run 'Simulation$$' -seeds 2000 -v

# The tests that need root, a kernel with ESP and strongSwan. They are compiled
# here and run in the lab, a VM where this kernel has no ESP.
lab: lab-tests
	@echo '== lab: the data plane of the kernel'
	test/lab/run -t $(LABTIME) bin/xfrm.test -test.failfast
	echo '== lab: tunnels to strongSwan'
	test/lab/run -t $(LABTIME) bin/lab.test
	echo '== lab: the demo'
	test/lab/run -t 300 examples/demo

# Those of them that say something of ESP in user space, on this kernel.
native: lab-tests
	@echo '== native: ESP in user space'
	test/lab/run -t 300 bin/lab.test -dataplane userspace -test.parallel 12 -test.run '$(NATIVE)'

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
bench: build $(WIREGUARD)
	@test/lab/setup
	CGO_ENABLED=0 $(GO) test -c -tags lab -o bin/bench.test ./test/bench
	install -m 755 '$(WIREGUARD)' bin/wireguard-go
	test/lab/run -t $(BENCHLIMIT) bin/bench.test -runs $(BENCHRUNS) -span $(BENCHTIME) -only '$(BENCH)' -what '$(BENCHWHAT)' -raw '$(BENCHJSON)'

$(WIREGUARD):
	@echo 'building wireguard-go $(WIREGUARD_VERSION)'
	GOBIN='$(@D)' CGO_ENABLED=0 $(GO) install -trimpath golang.zx2c4.com/wireguard@$(WIREGUARD_VERSION)

lab-tests: build
	@CGO_ENABLED=0 $(GO) test -c -tags lab -o bin/xfrm.test ./apply/xfrm
	CGO_ENABLED=0 $(GO) test -c -tags lab -o bin/lab.test ./test

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
