package watch

import (
	"fmt"
	"os"
	"path/filepath"

	"ipsec-quick/ike"
	"ipsec-quick/ike/wire"
)

// The tunnels of a host share the UDP ports, and the kernel picks one of their
// sockets by a hash of the addresses. Each loop therefore enters the IKE SPIs on
// its side into its directory, and a datagram that came to the wrong loop is
// handed over, once, to the one that entered the SPI.

// register brings the entries in line with the core's IKE SAs.
func (l *loop) register() {
	spis := l.core.LocalSPIs()
	for _, spi := range spis {
		if l.in.spis.has(spi) {
			continue
		}
		f, err := os.OpenFile(l.spiFile(spi), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			l.log.Error("cannot register an SPI: datagrams for it may not reach us", "err", err)
			continue
		}
		_ = f.Close()
		l.in.spis.add(spi)
	}
	if len(spis) == len(l.in.spis.all) {
		return
	}
	for spi := range l.in.spis.all {
		if !l.core.Owns(spi) {
			_ = os.Remove(l.spiFile(spi)) // at worst a datagram is handed to us in vain
			l.in.spis.remove(spi)
		}
	}
}

func (l *loop) spiFile(spi wire.SPI) string { return l.dir.file(dirSPI + "/" + spi.String()) }

// registered reads what a loop before us entered.
func (l *loop) registered() error {
	entries, err := os.ReadDir(l.dir.file(dirSPI))
	if err != nil {
		return err
	}
	for _, e := range entries {
		var spi wire.SPI
		if _, err := fmt.Sscanf(e.Name(), "%016x", (*uint64)(&spi)); err == nil && spi.String() == e.Name() {
			l.in.spis.add(spi)
		}
	}
	return nil
}

// route gives a datagram to the core, or hands it over if another tunnel owns
// its SPI and it was not handed over before.
func (l *loop) route(d ike.Datagram, fresh bool) {
	if fresh {
		if owner := l.owner(d.Data); owner != "" {
			l.handOver(owner, d)
			return
		}
	}
	l.push(d)
}

// owner is the other tunnel that the datagram is for; empty: none, or ours.
func (l *loop) owner(data []byte) string {
	h, err := wire.ParseHeader(data)
	if err != nil {
		return "" // the core counts it
	}
	spi := ourSPI(h)
	if spi == 0 || l.core.Owns(spi) {
		return ""
	}
	names, err := tunnels(l.dir.root)
	if err != nil {
		return ""
	}
	for _, name := range names {
		if name == l.dir.name {
			continue
		}
		if _, err := os.Lstat(filepath.Join(l.dir.root, name, dirSPI, spi.String())); err == nil {
			return name
		}
	}
	return ""
}

// ourSPI is the SPI on the receiver's side: the I flag says that the sender is
// the original initiator (RFC 7296, Section 3.1).
func ourSPI(h wire.Header) wire.SPI {
	if h.Initiator {
		return h.SPIr
	}
	return h.SPIi
}
