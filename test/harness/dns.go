//go:build linux

package harness

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// NameServer answers DNS questions in a host: for A and AAAA with the addresses
// that it was told, for all other names that there is none.
type NameServer struct {
	mu        sync.Mutex
	addresses map[string][]netip.Addr
	asked     int
}

// StartNameServer listens on UDP port 53 of one of a host's addresses until the test
// ends.
func StartNameServer(t testing.TB, h *Host, at netip.Addr) *NameServer {
	t.Helper()
	s := &NameServer{addresses: map[string][]netip.Addr{}}
	var conn *net.UDPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 53)))
		return err
	})
	if err != nil {
		t.Fatalf("%s: name server: %v", h.Name, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if answer, err := s.answer(buf[:n]); err == nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	return s
}

// Set says which addresses a name has.
func (s *NameServer) Set(name string, addresses ...netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses[name+"."] = addresses
}

// Asked is how many questions came.
func (s *NameServer) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *NameServer) answer(question []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
	m.RCode = dnsmessage.RCodeNameError
	for _, q := range m.Questions {
		list, known := s.addresses[q.Name.String()]
		if known {
			m.RCode = dnsmessage.RCodeSuccess
		}
		for _, a := range list {
			r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}}
			switch {
			case q.Type == dnsmessage.TypeA && a.Is4():
				r.Body = &dnsmessage.AResource{A: a.As4()}
			case q.Type == dnsmessage.TypeAAAA && a.Is6():
				r.Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
			default:
				continue
			}
			m.Answers = append(m.Answers, r)
		}
	}
	return m.Pack()
}

// UseNameServer makes a host ask another one for names.
func (h *Host) UseNameServer(at netip.Addr) {
	h.t.Helper()
	h.WriteFile("/run/resolv.conf", "nameserver "+at.String()+"\noptions timeout:1 attempts:1\n")
	h.Run("mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf")
}
