package userspace

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// transfer sends octets by TCP to the other end and back.
func transfer(from, to *end, local, remote netip.Addr, octets int) {
	t := from.t
	t.Helper()
	var listener *net.TCPListener
	var conn *net.TCPConn
	var err error
	to.do(func() {
		listener, err = net.ListenTCP("tcp", &net.TCPAddr{IP: remote.AsSlice()})
		must(t, err)
	})
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			c.Close()
		}
		done <- err
	}()
	from.do(func() {
		conn, err = net.DialTCP("tcp", &net.TCPAddr{IP: local.AsSlice()}, listener.Addr().(*net.TCPAddr))
		must(t, err)
	})
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(60*time.Second)))
	data := make([]byte, octets)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	go func() {
		_, _ = conn.Write(data)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	must(t, err)
	must(t, <-done)
	if !bytes.Equal(got, data) {
		t.Fatalf("%d octets came back, not those %d that were sent", len(got), len(data))
	}
}

func TestTraffic(t *testing.T) {
	one, two := twoEnds(t)
	connect(one, two, gcm)
	transfer(one, two, inner4(1), inner4(2), 30<<20)
	transfer(two, one, inner6(2), inner6(1), 30<<20)
}
