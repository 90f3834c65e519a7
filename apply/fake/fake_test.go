package fake

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"ipsec-quick/apply"
)

var us, peer = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

func outbound(spi uint32) apply.SA {
	return apply.SA{SPI: spi, Direction: apply.Out, Src: us, Dst: peer, ReqID: 1,
		Encryption: apply.Algorithm{Name: apply.AESGCM16, Key: make(apply.Key, 20)}, Soft: apply.Limits{Packets: 1}}
}

func protect(spi uint32) apply.Policy {
	return apply.Policy{Action: apply.Protect, Local: us, Remote: peer, ReqID: 1, SPI: spi, Selector: apply.Selector{
		Local: netip.MustParsePrefix("10.1.0.0/16"), Remote: netip.MustParsePrefix("10.2.0.0/16")}}
}

func TestInvariants(t *testing.T) {
	d := New()
	if err := d.SetPolicy(protect(300)); !errors.Is(err, apply.ErrAbsent) {
		t.Errorf("a policy without its SA: %v", err)
	}
	if err := d.InstallSA(outbound(300)); err != nil {
		t.Fatal(err)
	}
	if err := d.InstallSA(outbound(300)); !errors.Is(err, apply.ErrExists) {
		t.Errorf("installed twice: %v", err)
	}
	if err := d.SetPolicy(protect(300)); err != nil {
		t.Fatal(err)
	}
	if err := d.SwitchOutbound(protect(301)); !errors.Is(err, apply.ErrAbsent) {
		t.Errorf("switched to nothing: %v", err)
	}
	if n := len(d.Violations()); n != 2 {
		t.Errorf("%d violations", n)
	}
	if err := d.RemoveSA(outbound(300).ID()); err != nil || len(d.Violations()) != 3 {
		t.Errorf("removed under the policy: %v, %v", err, d.Violations())
	}
}

func TestReservationAndExpiry(t *testing.T) {
	d := New()
	spi, err := d.AllocSPI(1, peer, us, apply.Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	in := outbound(spi)
	in.Direction, in.Src, in.Dst = apply.In, peer, us
	d.Lapse()
	if err := d.InstallSA(in); err != nil {
		t.Fatal(err)
	}
	d.SetUsage(in.ID(), apply.Usage{Packets: 5})
	if u, err := d.Query(in.ID()); err != nil || u.Packets != 5 || u.Soft.Packets != 1 {
		t.Errorf("%+v, %v", u, err)
	}
	if !d.Expire(in.ID(), false) || !d.Expire(in.ID(), true) || d.Expire(in.ID(), true) {
		t.Error("expiry")
	}
	want := apply.Expire{SAID: in.ID(), ReqID: 1}
	if ev := <-d.Events(); ev != want {
		t.Errorf("%+v", ev)
	}
	want.Hard = true
	if ev := <-d.Events(); ev != want {
		t.Errorf("%+v", ev)
	}
	boom := errors.New("boom")
	d.Fail("InstallSA", boom)
	if err := d.InstallSA(in); !errors.Is(err, boom) {
		t.Error(err)
	}
	if err := d.InstallSA(in); err != nil {
		t.Error(err)
	}
}

func TestReceiveESP(t *testing.T) {
	d := New()
	spi, err := d.AllocSPI(1, peer, us, apply.Tunnel)
	if err != nil {
		t.Fatal(err)
	}
	to, from := netip.AddrPortFrom(us, 4500), netip.AddrPortFrom(peer, 4500)
	d.ReceiveESP(to, from, binary.BigEndian.AppendUint32(nil, spi))
	d.ReceiveESP(to, from, binary.BigEndian.AppendUint32(nil, spi+1))
	if len(d.ESP()) != 2 || d.Unknown() != 1 {
		t.Errorf("%d packets, %d unknown", len(d.ESP()), d.Unknown())
	}
}
