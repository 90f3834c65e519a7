package watch

import (
	"maps"
	"path/filepath"

	"ipsec-quick/apply/link/dns"
	"ipsec-quick/conf"
)

// facts are what other processes need to know of a tunnel that is up.
type facts struct {
	Path      string            `json:"path"`  // of the tunnel file, absolute
	Netns     string            `json:"netns"` // the network namespace
	Dataplane string            `json:"dataplane"`
	Port      uint16            `json:"port"`
	NATPort   uint16            `json:"nat_port"`
	ReqIDs    map[string]uint32 `json:"reqids"`  // by peer
	Guards    []string          `json:"guards"`  // selectors of the guard policies
	IDs       []string          `json:"ids"`     // who we are to our peers, see idText
	Sockets   []uint64          `json:"sockets"` // on those ports, by inode
	Hooks     *hookFacts        `json:"hooks,omitempty"`

	Interface   string    `json:"interface,omitempty"`    // of a route-based tunnel
	InterfaceID uint32    `json:"interface_id,omitempty"` // see link.FirstID
	DNS         *dnsFacts `json:"dns,omitempty"`
}

// before is what a loop before us left, if anything.
func (p *parts) before() (*facts, error) {
	f, err := p.dir.facts()
	if err != nil {
		return nil, nil // nothing, or half written: as if nothing was here
	}
	gone, err := elsewhere(f)
	if err != nil || !gone {
		return f, err
	}
	return nil, p.dir.forget()
}

// newFacts are those of a tunnel that comes up.
func (u *upRun) newFacts(before *facts) (*facts, error) {
	d, t := u.parts.dir, u.o.Tunnel
	path, err := filepath.Abs(t.Path)
	if err != nil {
		return nil, err
	}
	f := &facts{Path: path, Netns: networkNamespace(), Port: t.Port, NATPort: t.NATPort, IDs: ownIDs(t)}
	var ids map[string]uint32
	if before != nil {
		ids, f.Guards, f.Dataplane, f.Hooks = before.ReqIDs, before.Guards, before.Dataplane, before.Hooks
		f.Interface, f.InterfaceID, f.DNS = before.Interface, before.InterfaceID, before.DNS
		err = f.sameInterface(t)
	} else {
		err = f.takeInterface(t, d)
	}
	if err == nil && !u.again { // else what runs hooks and resolvconf knows no others
		if err = f.takeDNS(t); err == nil {
			f.Hooks = newHookFacts(f.runs(t), f.Hooks, u.revived)
		}
	}
	if err != nil {
		return nil, err
	}
	f.ReqIDs = chooseReqIDs(t, ids, d.others(""))
	return f, d.writeFacts(f)
}

// runs are the hooks of a tunnel file, or none where something else is to be run.
func (f *facts) runs(t *conf.Tunnel) *conf.Hooks {
	if t.Hooks == nil && f.DNS != nil && f.DNS.Manager == dns.Resolvconf {
		return &conf.Hooks{Timeout: resolvconfTimeout}
	}
	return t.Hooks
}

// hookFacts are the hooks of a tunnel that is up, and how far they have come.
// Whoever goes on with the tunnel, or takes it down, goes on with them: from
// `up` to `down` each command of the four hooks of the tunnel begins once.
type hookFacts struct {
	conf.Hooks
	Begun map[string]int  `json:"begun"`          // how many commands of each of the four
	Up    bool            `json:"up"`             // post_up may have begun, so pre_down has to
	Told  map[string]bool `json:"told,omitempty"` // peers for which the last to begin was established
}

// newHookFacts are those of a tunnel that comes up, or goes on: after hooks that
// were undone the others run again.
func newHookFacts(h *conf.Hooks, before *hookFacts, revived bool) *hookFacts {
	if h == nil {
		return nil
	}
	f := &hookFacts{Hooks: *h, Begun: map[string]int{}, Told: map[string]bool{}, Up: revived}
	if before != nil {
		f.Begun, f.Told, f.Up = maps.Clone(before.Begun), maps.Clone(before.Told), before.Up
	}
	switch {
	case f.Begun[conf.HookPostDown] > 0:
		f.Begun, f.Up = map[string]int{}, false
	case f.Begun[conf.HookPreDown] > 0:
		delete(f.Begun, conf.HookPreDown)
		delete(f.Begun, conf.HookPostUp)
	case revived:
		for _, up := range []string{conf.HookPreUp, conf.HookPostUp} {
			f.Begun[up] = len(f.Commands[up])
		}
	}
	if f.Begun == nil {
		f.Begun = map[string]int{}
	}
	if f.Told == nil {
		f.Told = map[string]bool{}
	}
	return f
}
