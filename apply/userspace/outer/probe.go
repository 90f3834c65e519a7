package outer

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Probe tells which offloads of those wanted do no harm here: it sends trains
// over the loopback, also the one whose last packet is as long as the others,
// which some kernels garble, and compares what arrives. Where nothing arrives
// nothing can be told, and the wanted ones are returned.
func Probe(want Offloads) (Offloads, error) {
	if want.Segment {
		ok, err := probe(Offloads{Segment: true})
		if err != nil {
			return want, err
		}
		want.Segment = ok
	}
	if want.Join {
		ok, err := probe(want)
		if err != nil {
			return want, err
		}
		want.Join = ok
	}
	return want, nil
}

// probeTimeout is how long a train over the loopback may take.
const probeTimeout = 100 * time.Millisecond

var errProbe = errors.New("nothing comes back over the loopback")

// probe exchanges trains with itself and reports whether they arrive unharmed.
func probe(o Offloads) (unharmed bool, err error) {
	c, err := loop(o)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	b, r := NewBatch(), NewReceiver()
	const size, n = 1300, 7
	for _, octets := range []int{size, n * size, n*size - 1, n*size + 1, MaxTrain * 1000} {
		want := make([]byte, octets)
		for i := range want {
			want[i] = byte(i ^ i>>8)
		}
		for rest := want; len(rest) > 0; {
			k := copy(b.Next()[:min(size, len(rest))], rest)
			b.Add(k, 0, false)
			rest = rest[k:]
		}
		if err := c.Send(b); err != nil {
			return false, err
		}
		if o.Segment && !c.segment.Load() {
			return false, nil
		}
		if same, err := c.compare(r, want, size); !same || err != nil {
			return false, err
		}
	}
	return true, nil
}

// loop is a socket that is connected to itself.
func loop(o Offloads) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &Conn{fd: fd, Local: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)}
	err = unix.Bind(fd, sockaddr(c.Local))
	if err == nil {
		var self unix.Sockaddr
		if self, err = unix.Getsockname(fd); err == nil {
			err = unix.Connect(fd, self)
		}
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	c.enable(o)
	return c, nil
}

// compare receives what was sent, in datagrams of size octets.
func (c *Conn) compare(r *Receiver, want []byte, size int) (bool, error) {
	for deadline := time.Now().Add(probeTimeout); len(want) > 0; {
		n, err := c.Receive(r)
		if errors.Is(err, unix.EAGAIN) {
			left := time.Until(deadline)
			if left <= 0 {
				return false, errProbe
			}
			wait := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(wait, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, err
		}
		for i := range n {
			m := c.Message(r, i)
			if m.Size != min(size, len(want)) || len(m.Data) > len(want) || !bytes.Equal(m.Data, want[:len(m.Data)]) {
				return false, nil
			}
			want = want[len(m.Data):]
		}
	}
	return true, nil
}
