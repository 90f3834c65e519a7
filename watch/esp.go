package watch

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/time/rate"

	"ipsec-quick/apply"
	"ipsec-quick/ike"
)

// Where ESP is done in user space, ESP in UDP comes to the data plane's sockets,
// each connected to a peer. What comes before there is one, or from where a NAT
// has moved a peer to, comes to the loop's: to that of any tunnel of the host, for
// they share the port. So each tunnel enters the SPIs of its inbound SAs beside
// those of its IKE SAs, and such a packet is handed over to the one whose it is.

const (
	// espLookups is how many SPIs a second are looked for at other tunnels:
	// anybody can send any.
	espLookups = 100
	// espOwners is how many are remembered.
	espOwners = 64
)

// espRouter gives the ESP that comes to the loop's sockets to a data plane. Its
// methods may be called from several goroutines.
type espRouter struct {
	dp   apply.Dataplane
	dir  *dir
	ours set[apply.SAID]
	exch *espExchange

	limit  *rate.Limiter
	mu     sync.Mutex
	owners map[uint32]string // tunnels, by SPI
}

func newESPRouter(dp apply.Dataplane, d *dir) (*espRouter, error) {
	e := &espRouter{dp: dp, dir: d, limit: rate.NewLimiter(espLookups, espLookups), owners: map[uint32]string{}}
	var err error
	e.exch, err = newESPExchange(d, dp.ReceiveESP)
	return e, err
}

// route reports whether it could give a packet to anyone.
func (e *espRouter) route(local, remote netip.AddrPort, data []byte) bool {
	if e.ours.has(apply.SAID{Dst: local.Addr(), SPI: binary.BigEndian.Uint32(data)}) {
		e.dp.ReceiveESP(local, remote, data)
		return true
	}
	return e.handOver(local, remote, data)
}

// handOver gives a packet that is not ours to another tunnel, if it is one's.
func (e *espRouter) handOver(local, remote netip.AddrPort, data []byte) bool {
	owner := e.owner(binary.BigEndian.Uint32(data))
	return owner != "" && e.exch.give(owner, ike.Datagram{Local: local, Remote: remote, Data: data}) == nil
}

// owner is the other tunnel that has an inbound SA; empty: none, or there were too
// many to look for.
func (e *espRouter) owner(spi uint32) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if name := e.owners[spi]; name != "" || !e.limit.Allow() {
		return name
	}
	names, _ := tunnels(e.dir.root)
	for _, name := range names {
		if name == e.dir.name {
			continue
		}
		if _, err := os.Lstat(filepath.Join(e.dir.root, name, dirSPI, spiString(spi))); err == nil {
			if len(e.owners) == espOwners {
				clear(e.owners)
			}
			e.owners[spi] = name
			return name
		}
	}
	return ""
}

// enter enters the SPI of an inbound SA of ours, or one that is reserved for it.
func (e *espRouter) enter(id apply.SAID) error {
	f, err := os.OpenFile(e.file(id.SPI), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	e.ours.add(id)
	return f.Close()
}

// leave takes it out. One that was not entered does not matter.
func (e *espRouter) leave(id apply.SAID) {
	if e.ours.has(id) {
		e.ours.remove(id)
		_ = os.Remove(e.file(id.SPI)) // at worst a packet is handed to us in vain
	}
}

func (e *espRouter) file(spi uint32) string { return e.dir.file(dirSPI + "/" + spiString(spi)) }

// recover enters what a loop before us had installed, and takes out the rest.
func (e *espRouter) recover(installed []apply.Installed) error {
	entries, err := os.ReadDir(e.dir.file(dirSPI))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if len(entry.Name()) == len(spiString(0)) {
			_ = os.Remove(e.dir.file(dirSPI + "/" + entry.Name()))
		}
	}
	err = nil
	for _, sa := range installed {
		if sa.Direction == apply.In {
			err = errors.Join(err, e.enter(sa.SAID))
		}
	}
	return err
}
