package ike

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// BenchmarkHandshake makes an IKE SA with a Child SA, both ends in this process:
// pre-shared key, curve25519, AES-GCM. One operation is one tunnel, from
// IKE_SA_INIT to the Child SA of both ends. What a Persist costs on top is
// [BenchmarkSnapshot]'s.
func BenchmarkHandshake(b *testing.B) {
	b.ReportAllocs()
	n := newNetwork(b, 1, nil)
	source := rand.NewChaCha8([32]byte{1})
	configs := [2]Config{n.a().cfg, n.b().cfg}
	for i := range configs {
		configs[i].Rand = source
	}
	b.ResetTimer()
	for range b.N {
		ends := [2]*Endpoint{New(configs[0]), New(configs[1])}
		if connectEnds(&ends) != 2 {
			b.Fatal("no Child SA on both ends")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handshakes/s")
}

// connectEnds carries out what two endpoints say until they are silent, and
// counts the Child SAs that carry packets.
func connectEnds(ends *[2]*Endpoint) (up int) {
	type input struct {
		to int
		ev Event
	}
	spi := uint32(minSPI)
	for queue := []input{{0, Tick{}}}; len(queue) > 0; queue = queue[1:] {
		to := queue[0].to
		for _, a := range ends[to].Step(start, queue[0].ev) {
			switch a := a.(type) {
			case Resolve:
				queue = append(queue, input{to, Initiate{Peer: a.Peer, Local: netip.AddrPortFrom(addrA, 500), Remote: netip.AddrPortFrom(addrB, 500)}})
			case AllocSPI:
				spi++
				queue = append(queue, input{to, SPIAllocated{Ref: a.Ref, SPI: spi}})
			case InstallChild:
				queue = append(queue, input{to, Installed{Ref: a.Ref}})
			case Send:
				queue = append(queue, input{1 - to, Datagram{Local: a.Remote, Remote: a.Local, NATT: a.NATT, Data: a.Data}})
			case SwitchOutbound:
				up++
			}
		}
	}
	return up
}

// BenchmarkSnapshot encodes the state of an endpoint with one tunnel.
func BenchmarkSnapshot(b *testing.B) {
	n := newNetwork(b, 1, nil)
	n.up()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := n.a().e.Snapshot("b"); err != nil {
			b.Fatal(err)
		}
	}
}
