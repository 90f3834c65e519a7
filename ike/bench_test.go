package ike

import "testing"

// BenchmarkHandshake makes an IKE SA with a Child SA, both ends in this process:
// pre-shared key, curve25519, AES-GCM. One operation is one tunnel.
func BenchmarkHandshake(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		n := newNetwork(b, 1, nil)
		n.step(n.a(), Tick{})
		n.settle()
		if n.a().active == nil || n.b().active == nil {
			b.Fatal("no Child SA")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handshakes/s")
}
