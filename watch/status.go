package watch

import (
	"fmt"
	"os"
	"time"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
	"ipsec-quick/ike"
	"ipsec-quick/ike/wire"
)

// Status is one tunnel, as `status --json` prints it.
type Status struct {
	Tunnel    string       `json:"tunnel"`
	Dataplane string       `json:"dataplane"`
	Interface string       `json:"interface,omitempty"` // of a route-based tunnel
	WatchPID  int          `json:"watch_pid"`           // 0: the loop has died
	Version   string       `json:"version"`             // of the loop; empty: it has died
	Peers     []PeerStatus `json:"peers"`
	Dropped   Dropped      `json:"dropped"`
}

// PeerStatus is one peer. Fields that are not known yet are empty.
type PeerStatus struct {
	Name      string        `json:"name"`
	State     string        `json:"state"`
	Local     string        `json:"local"`
	Remote    string        `json:"remote"`
	NAT       bool          `json:"nat"`
	IKE       IKEStatus     `json:"ike"`
	Children  []ChildStatus `json:"children"`
	Rekeys    RekeyCount    `json:"rekeys"`
	Expires   ExpireCount   `json:"expires"`
	LastError string        `json:"last_error,omitempty"`
}

// IKEStatus is the IKE SA with a peer. Times are in RFC 3339.
type IKEStatus struct {
	SPIi        string `json:"spi_i"`
	SPIr        string `json:"spi_r"`
	Proposal    string `json:"proposal"`
	Established string `json:"established"`
	RekeyAt     string `json:"rekey_at"`
	Lifetime    struct {
		Time Seconds `json:"time"`
	} `json:"lifetime"`
}

// ChildStatus is one Child SA.
type ChildStatus struct {
	SPIIn      string   `json:"spi_in"`
	SPIOut     string   `json:"spi_out"`
	Proposal   string   `json:"proposal"`
	Mode       string   `json:"mode"`
	LocalTS    []string `json:"local_ts"`
	RemoteTS   []string `json:"remote_ts"`
	BytesIn    uint64   `json:"bytes_in"`
	BytesOut   uint64   `json:"bytes_out"`
	PacketsIn  uint64   `json:"packets_in"`
	PacketsOut uint64   `json:"packets_out"`
	LastIn     string   `json:"last_in,omitempty"`  // when the last packet came
	Retiring   bool     `json:"retiring,omitempty"` // only receives what is under way
	Encap      bool     `json:"encap"`              // ESP goes in UDP
	Dropped    ESPDrops `json:"dropped"`
	Lifetime   Lifetime `json:"lifetime"`
}

// ESPDrops counts the packets that came for a Child SA and were not let through,
// by reason.
type ESPDrops struct {
	Integrity uint64 `json:"bad_integrity"`
	Replayed  uint64 `json:"replayed"`
	Malformed uint64 `json:"malformed"`
	Selectors uint64 `json:"selectors"` // decrypted, and not what was negotiated
}

// Lifetime is what a Child SA has lived of its limits; a limit of 0 is none. Of
// bytes and packets the direction with more of them counts.
type Lifetime struct {
	Time    Seconds `json:"time"`
	Use     Seconds `json:"use"`
	Bytes   Count   `json:"bytes"`
	Packets Count   `json:"packets"`
}

// Seconds is a lifetime by time.
type Seconds struct {
	Soft int64 `json:"soft_s"`
	Hard int64 `json:"hard_s"`
	Used int64 `json:"used_s"`
}

// Count is a lifetime by bytes or packets.
type Count struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
	Used uint64 `json:"used"`
}

// RekeyCount counts finished rekeys, and ours that failed.
type RekeyCount struct {
	Child  uint64 `json:"child"`
	IKE    uint64 `json:"ike"`
	Failed uint64 `json:"failed"`
	Last   string `json:"last"` // when one was finished
}

// ExpireCount counts the limits that the data plane reported.
type ExpireCount struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Dropped counts received datagrams that came to nothing, by reason.
type Dropped struct {
	Malformed  uint64 `json:"malformed"`
	UnknownSPI uint64 `json:"unknown_spi"`
	Integrity  uint64 `json:"bad_integrity"`
	MessageID  uint64 `json:"bad_message_id"`
	Replayed   uint64 `json:"replayed"`
	Unexpected uint64 `json:"unexpected"`
	Flooded    uint64 `json:"flooded"`
	ESP        uint64 `json:"esp"`      // for no SA
	Handover   uint64 `json:"handover"` // another tunnel's, which did not take it
}

// status is that of a living loop.
func (l *loop) status() *Status {
	s := describe(l.tunnel, l.core, l.dp, l.now())
	s.WatchPID, s.Version, s.Interface = os.Getpid(), Version(), l.facts.Interface
	s.Dropped.ESP = l.in.drops.esp.Load() + l.dp.Unknown()
	s.Dropped.Malformed += l.in.drops.runt.Load() + l.in.drops.noAddr.Load()
	s.Dropped.Flooded += l.in.drops.flood.Load()
	s.Dropped.Handover = l.drops.dropped
	return s
}

// counters are what a status wants to know of a data plane.
type counters interface {
	Name() string
	Query(apply.SAID) (apply.Usage, error)
}

// describe is what the core and the data plane say; dp may be nil, now is on the
// loop's clock.
func describe(t *conf.Tunnel, core endpoint, dp counters, now time.Time) *Status {
	st := core.Stats()
	s := &Status{Tunnel: t.Name, Peers: []PeerStatus{}, Dropped: Dropped{
		Malformed: st.Malformed, UnknownSPI: st.UnknownSPI, Integrity: st.BadIntegrity,
		MessageID: st.BadMessageID, Replayed: st.Replayed, Unexpected: st.Unexpected, Flooded: st.Flooded,
	}}
	if dp != nil {
		s.Dataplane = dp.Name()
	}
	for _, p := range core.Status() {
		s.Peers = append(s.Peers, describePeer(p, dp, now))
	}
	return s
}

func describePeer(p ike.PeerStatus, dp counters, now time.Time) PeerStatus {
	out := PeerStatus{
		Name: p.Name, State: p.State, NAT: p.NAT, LastError: p.LastError,
		IKE:      IKEStatus{Proposal: p.Proposal, Established: rfc3339(wallTime(p.Established)), RekeyAt: rfc3339(wallTime(p.RekeyAt))},
		Children: []ChildStatus{},
		Rekeys:   RekeyCount{p.Rekeys.Child, p.Rekeys.IKE, p.Rekeys.Failed, rfc3339(wallTime(p.Rekeys.Last))},
		Expires:  ExpireCount{p.Expires.Soft, p.Expires.Hard},
	}
	out.IKE.Lifetime.Time = Seconds{age(p.Established, p.RekeyAt), age(p.Established, p.ExpireAt), age(p.Established, now)}
	if p.Local.IsValid() {
		out.Local = p.Local.String()
	}
	if p.Remote.IsValid() {
		out.Remote = p.Remote.String()
	}
	if p.SPIi != 0 {
		out.IKE.SPIi, out.IKE.SPIr = p.SPIi.String(), p.SPIr.String()
	}
	for _, c := range p.Children {
		out.Children = append(out.Children, describeChild(c, dp, now))
	}
	return out
}

func describeChild(c ike.ChildStatus, dp counters, now time.Time) ChildStatus {
	sa := &c.Child
	var in, out apply.Usage
	if dp != nil {
		// An SA that has just gone counts nothing.
		in, _ = dp.Query(apply.SAID{Dst: sa.InID().Dst, SPI: sa.SPIIn})
		out, _ = dp.Query(apply.SAID{Dst: sa.OutID().Dst, SPI: sa.SPIOut})
	}
	s := ChildStatus{
		SPIIn: spiString(sa.SPIIn), SPIOut: spiString(sa.SPIOut),
		Proposal: sa.Choice.String(), Mode: mode(sa.Transport).String(),
		LocalTS: tsStrings(sa.LocalTS), RemoteTS: tsStrings(sa.RemoteTS),
		BytesIn: in.Bytes, BytesOut: out.Bytes, PacketsIn: in.Packets, PacketsOut: out.Packets,
		LastIn: rfc3339(in.LastUsed), Retiring: c.Retiring, Encap: sa.Encap,
		Dropped: ESPDrops{Integrity: in.Drops.Forged, Replayed: in.Drops.Replayed, Malformed: in.Drops.Malformed, Selectors: in.Drops.Selectors},
		Lifetime: Lifetime{
			Time:    Seconds{int64(sa.Soft.Time.Seconds()), int64(sa.Hard.Time.Seconds()), age(sa.Created, now)},
			Use:     Seconds{int64(sa.Soft.Use.Seconds()), int64(sa.Hard.Use.Seconds()), age(earliest(in.Used, out.Used), time.Now())},
			Bytes:   Count{sa.Soft.Bytes, sa.Hard.Bytes, max(in.Bytes, out.Bytes)},
			Packets: Count{sa.Soft.Packets, sa.Hard.Packets, max(in.Packets, out.Packets)},
		},
	}
	return s
}

func age(since, now time.Time) int64 {
	if since.IsZero() {
		return 0
	}
	return max(0, int64(now.Sub(since).Seconds()))
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

func tsStrings(list []wire.Selector) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, tsString(s))
	}
	return out
}

// spiString is an SPI of ESP as `ip xfrm state` has it, without the 0x.
func spiString(spi uint32) string { return fmt.Sprintf("%08x", spi) }
