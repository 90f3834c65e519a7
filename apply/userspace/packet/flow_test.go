package packet

import "testing"

func TestFlowString(t *testing.T) {
	four := Flow{Src: [16]byte{10, 1, 0, 1}, Dst: [16]byte{10, 2, 0, 1}, SrcPort: 7, DstPort: 9, Protocol: 17}
	six := Flow{Src: [16]byte{0x20, 1, 15: 1}, Dst: [16]byte{0x20, 1, 15: 2}, Protocol: 50, IPv6: true}
	for f, want := range map[Flow]string{
		four: "10.1.0.1:7 > 10.2.0.1:9 [17]",
		six:  "[2001::1]:0 > [2001::2]:0 [50]",
	} {
		if got := f.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
