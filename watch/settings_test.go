package watch

import (
	"crypto"
	"crypto/ed25519"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"ipsec-quick/conf"
	"ipsec-quick/ike/suite"
)

// TestSettingsComplete: each field of a peer is a setting, so that no change of the
// tunnel file goes unseen.
func TestSettingsComplete(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	proposals := func(parse func(string) (suite.Proposal, error), s string) []suite.Proposal {
		p, err := parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return []suite.Proposal{p}
	}
	ts := []conf.TS{{Prefix: netip.MustParsePrefix("10.9.0.0/16"), ToPort: 65535}}
	changes := map[string]func(*conf.Peer){
		"Endpoint.Host":        func(p *conf.Peer) { p.Endpoint.Host = "other.example" },
		"Endpoint.Addr":        func(p *conf.Peer) { p.Endpoint.Addr, p.Endpoint.Host = netip.MustParseAddr("192.0.2.9"), "192.0.2.9" },
		"Endpoint.Port":        func(p *conf.Peer) { p.Endpoint = conf.Endpoint{Host: "host.example", Port: 501} },
		"Address":              func(p *conf.Peer) { p.Address = netip.MustParseAddr("192.0.2.8") },
		"LocalID.Kind":         func(p *conf.Peer) { p.LocalID = conf.IDOf(netip.MustParseAddr("192.0.2.8")) },
		"LocalID.Data":         func(p *conf.Peer) { p.LocalID = conf.IDOf(netip.MustParseAddr("192.0.2.7")) },
		"RemoteID.Kind":        func(p *conf.Peer) { p.RemoteID = conf.IDOf(netip.MustParseAddr("192.0.2.8")) },
		"RemoteID.Data":        func(p *conf.Peer) { p.RemoteID = conf.IDOf(netip.MustParseAddr("192.0.2.7")) },
		"Local.PSK":            func(p *conf.Peer) { p.Local.PSK = suite.Secret("another") },
		"Local.Key":            func(p *conf.Peer) { p.Local.Key = key },
		"Remote.PSK":           func(p *conf.Peer) { p.Remote.PSK = suite.Secret("another") },
		"Remote.Keys":          func(p *conf.Peer) { p.Remote.Keys = []crypto.PublicKey{key.Public()} },
		"LocalTS":              func(p *conf.Peer) { p.LocalTS = ts },
		"RemoteTS":             func(p *conf.Peer) { p.RemoteTS = ts },
		"Mode":                 func(p *conf.Peer) { p.Mode = conf.ModeTransport },
		"Start":                func(p *conf.Peer) { p.Start = conf.StartPassive },
		"IKE.Proposals":        func(p *conf.Peer) { p.IKE.Proposals = proposals(suite.ParseIKE, "aes128gcm16-prfsha256-x25519") },
		"IKE.Soft":             func(p *conf.Peer) { p.IKE.Soft = time.Minute },
		"IKE.Hard":             func(p *conf.Peer) { p.IKE.Hard = time.Minute },
		"IKE.DPD":              func(p *conf.Peer) { p.IKE.DPD = time.Minute },
		"IKE.Encap":            func(p *conf.Peer) { p.IKE.Encap = conf.EncapYes },
		"IKE.Fragment":         func(p *conf.Peer) { p.IKE.Fragment = 1000 },
		"ESP.Proposals":        func(p *conf.Peer) { p.ESP.Proposals = proposals(suite.ParseESP, "aes128gcm16") },
		"ESP.PFS":              func(p *conf.Peer) { p.ESP.PFS = conf.PFSNo },
		"ESP.ESN":              func(p *conf.Peer) { p.ESP.ESN = true },
		"ESP.ReplayWindow":     func(p *conf.Peer) { p.ESP.ReplayWindow = 1 },
		"Lifetime.SoftTime":    func(p *conf.Peer) { p.Lifetime.SoftTime = time.Minute },
		"Lifetime.HardTime":    func(p *conf.Peer) { p.Lifetime.HardTime = time.Minute },
		"Lifetime.SoftUse":     func(p *conf.Peer) { p.Lifetime.SoftUse = time.Minute },
		"Lifetime.HardUse":     func(p *conf.Peer) { p.Lifetime.HardUse = time.Minute },
		"Lifetime.SoftBytes":   func(p *conf.Peer) { p.Lifetime.SoftBytes = 1 },
		"Lifetime.HardBytes":   func(p *conf.Peer) { p.Lifetime.HardBytes = 1 },
		"Lifetime.SoftPackets": func(p *conf.Peer) { p.Lifetime.SoftPackets = 1 },
		"Lifetime.HardPackets": func(p *conf.Peer) { p.Lifetime.HardPackets = 1 },
		"Lifetime.Jitter":      func(p *conf.Peer) { p.Lifetime.Jitter = 0.5 },
	}
	var walk func(name string, of reflect.Type)
	walk = func(name string, of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			full := f.Name
			if name != "" {
				full = name + "." + f.Name
			}
			if f.Type.Kind() == reflect.Struct && f.Type.NumField() > 0 && f.Type.Field(0).IsExported() {
				walk(full, f.Type)
			} else if changes[full] == nil && full != "Name" {
				t.Errorf("no test changes %s", full)
			}
		}
	}
	walk("", reflect.TypeFor[conf.Peer]())
	seen := map[string]bool{}
	for field, change := range changes {
		before, after := &conf.Peer{}, &conf.Peer{}
		change(after)
		c := compare(before, after)
		if len(c.Keys) == 0 {
			t.Errorf("%s changes unseen", field)
		}
		if same := compare(after, after); len(same.Keys) > 0 {
			t.Errorf("%s: %v differ from themselves", field, same.Keys)
		}
		for _, k := range c.Keys {
			seen[k] = true
		}
	}
	for _, s := range settings {
		if !seen[s.key] {
			t.Errorf("nothing changes %s", s.key)
		}
	}
}

// TestChanges: of several keys that change, the one that asks for the most counts.
func TestChanges(t *testing.T) {
	change := func(keys ...string) PeerChange {
		a, b := &conf.Peer{Name: "x"}, &conf.Peer{Name: "x"}
		for _, k := range keys {
			switch k {
			case "dpd":
				b.IKE.DPD = time.Second
			case "lifetime":
				b.Lifetime.HardBytes = 1
			case "mode":
				b.Mode = conf.ModeTransport
			}
		}
		return compare(a, b)
	}
	for want, keys := range map[Effect][]string{
		EffectNow: {"dpd"}, EffectRekey: {"dpd", "lifetime"}, EffectNegotiate: {"dpd", "lifetime", "mode"},
	} {
		if c := change(keys...); c.Effect != want || len(c.Keys) != len(keys) {
			t.Errorf("%v: %+v", keys, c)
		}
	}
	two := &conf.Tunnel{Peers: []conf.Peer{{Name: "a"}, {Name: "b"}}}
	other := &conf.Tunnel{Peers: []conf.Peer{{Name: "c"}, {Name: "b"}}}
	want := []PeerChange{{Peer: "c", Added: true}, {Peer: "a", Removed: true}}
	if got := changesOf(two, other); !slices.EqualFunc(got, want, func(a, b PeerChange) bool { return reflect.DeepEqual(a, b) }) {
		t.Errorf("%+v", got)
	}
}
