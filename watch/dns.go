package watch

import (
	"net"
	"reflect"
	"time"

	"ipsec-quick/apply/link/dns"
	"ipsec-quick/conf"
)

// dnsFacts say who resolves this host's names for a tunnel.
type dnsFacts struct {
	Manager dns.Manager `json:"manager"`
	Set     bool        `json:"set"` // it was told the servers, perhaps
}

// dnsConfig is what a tunnel file has names resolved with; nil: what there is.
func dnsConfig(t *conf.Tunnel) *dns.Config {
	if t.Interface == nil || len(t.Interface.DNS) == 0 {
		return nil
	}
	return &dns.Config{Servers: t.Interface.DNS, Domains: t.Interface.Domains}
}

// takeDNS finds who is to resolve names, before anything is changed. With a tunnel
// that is up it stays who it is.
func (f *facts) takeDNS(t *conf.Tunnel) error {
	c := dnsConfig(t)
	switch {
	case c == nil:
		return nil
	case f.DNS != nil:
		return f.DNS.Manager.Check(*c)
	}
	m, err := dns.Find(*c)
	if err == nil {
		f.DNS = &dnsFacts{Manager: m}
	}
	return err
}

// sameDNS refuses a tunnel file with other servers where a loop cannot have them
// asked: what it runs was settled when it started.
func (l *loop) sameDNS(t *conf.Tunnel) error {
	if reflect.DeepEqual(dnsConfig(t), dnsConfig(l.tunnel)) {
		return nil
	}
	after := *l.facts
	if err := after.takeDNS(t); err != nil {
		return err
	}
	if after.DNS.Manager != dns.Resolved {
		return &Fixed{"interface.dns"}
	}
	return nil
}

// reloadDNS goes over to another tunnel file that sameDNS has let pass.
func (l *loop) reloadDNS(before *conf.Tunnel) {
	if reflect.DeepEqual(dnsConfig(before), dnsConfig(l.tunnel)) {
		return
	}
	if err := l.facts.takeDNS(l.tunnel); err != nil {
		l.log.Error("dns", "err", err)
		return
	}
	for _, p := range l.peers {
		if p.up {
			l.syncDNS()
			return
		}
	}
}

// syncDNS has the servers asked, once a peer is established: its own name is
// looked up before without them. They stay until the tunnel is taken down.
func (l *loop) syncDNS() {
	f, c := l.facts.DNS, dnsConfig(l.tunnel)
	switch {
	case f == nil || l.closing != nil || l.ending:
		return
	case c == nil:
		l.revertDNS(nil)
		return
	case !f.Set:
		f.Set = true
		if err := l.dir.writeFacts(l.facts); err != nil {
			l.failedDNS(err)
			return
		}
	}
	l.runDNS(dnsSet, func(m dns.Manager, index int, change func(string)) error {
		return m.Set(l.facts.Interface, index, *c, change)
	}, l.failedDNS)
}

// failedDNS is an error of `up`; later it is logged.
func (l *loop) failedDNS(err error) {
	if err == nil {
		return
	}
	l.log.Error("names are resolved without the tunnel's servers", "err", err)
	if !l.settled {
		l.fault = err
	}
}

// revertDNS takes that back; done may be nil.
func (l *loop) revertDNS(done func()) {
	if l.facts.DNS == nil || !l.facts.DNS.Set {
		if done != nil {
			done()
		}
		return
	}
	l.runDNS(dnsRevert, func(m dns.Manager, index int, change func(string)) error {
		return m.Revert(l.facts.Interface, index, change)
	}, func(err error) {
		if err != nil {
			l.log.Error("the tunnel's name servers may still be asked", "err", err)
		}
		if l.facts.DNS.Set = false; l.closing == nil {
			if err := l.dir.writeFacts(l.facts); err != nil {
				l.log.Error("run directory", "err", err)
			}
		}
		if done != nil {
			done()
		}
	})
}

// runDNS queues what talks to the manager, which may take a while. A program is run
// by whoever runs hooks: the loop may not.
func (l *loop) runDNS(at int, do func(m dns.Manager, index int, change func(string)) error, done func(error)) {
	m := l.facts.DNS.Manager
	if m == dns.Resolvconf {
		l.hookJobs = append(l.hookJobs, &hookJob{hook: hookResolvconf, at: at, end: at + 1, done: done})
		return
	}
	var changes []string
	device := l.facts.Interface
	l.hookJobs = append(l.hookJobs, &hookJob{
		do: func() error {
			return do(m, deviceIndex(device), func(s string) { changes = append(changes, s) })
		},
		done: func(err error) {
			for _, c := range changes {
				l.changed(c)
			}
			done(err)
		},
	})
}

// deviceIndex is the index of a device; 0: there is none.
func deviceIndex(name string) int {
	d, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return d.Index
}

// resolvconfTimeout is how long it may take, unless the hooks have another timeout.
const resolvconfTimeout = 10 * time.Second

// hookResolvconf is, for whoever runs hooks, what resolvconf is run with.
const hookResolvconf = "resolvconf"

// Its commands.
const (
	dnsSet = iota
	dnsRevert
)

// resolvconfLines are they; none: something else resolves names.
func resolvconfLines(f *facts, t *conf.Tunnel) []string {
	if f.DNS == nil || f.DNS.Manager != dns.Resolvconf {
		return nil
	}
	set := ""
	if c := dnsConfig(t); c != nil {
		set = dns.ResolvconfSet(f.Interface, *c)
	}
	return []string{dnsSet: set, dnsRevert: dns.ResolvconfRevert(f.Interface)}
}

// revertDNS is that of a tunnel without a loop.
func (p *parts) revertDNS() {
	f := p.facts
	if f == nil || f.DNS == nil || !f.DNS.Set {
		return
	}
	if err := f.DNS.Manager.Revert(f.Interface, deviceIndex(f.Interface), p.obs.Change); err != nil {
		p.log.Error("the tunnel's name servers may still be asked", "err", err)
	}
}
