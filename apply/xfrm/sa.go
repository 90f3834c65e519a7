package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// SPIs are taken from where strongSwan takes them too, so that people recognise
// an IKE daemon's.
const (
	lowestSPI  = 0xc0000000
	highestSPI = 0xcfffffff
)

func opName(verb string, id apply.SAID) string {
	return fmt.Sprintf("%s SA %08x to %v", verb, id.SPI, id.Dst)
}

// aside is the ReqID of a reservation for an SA of a ReqID, and the other way round.
//
// For each outbound packet the kernel walks a list of the SAs between the two
// addresses, of either direction, that have the policy's ReqID. When one is removed
// at the moment at which a walk is at it, the walk ends there (struct xfrm_state has
// one field for this list and for that of what is to be freed), and the packet is
// refused with EEXIST if its SA would have come later. Newer SAs come first. So those
// that were replaced go behind the one in use, but a reservation would go in front
// of it, in each rekey. One that differs in the lowest bit is in another list.
func aside(reqID uint32) uint32 { return reqID ^ 1 }

// AllocSPI is apply.Dataplane's. The kernel keeps the reservation, a larval SA,
// for net.core.xfrm_acq_expires seconds.
func (k *Kernel) AllocSPI(reqID uint32, src, dst netip.Addr, mode apply.Mode) (uint32, error) {
	sa := apply.SA{SPI: lowestSPI, Direction: apply.In, Src: src.Unmap(), Dst: dst.Unmap(), ReqID: reqID, Mode: mode}
	if err := sa.Check(); err != nil {
		return 0, err
	}
	if err := k.proveESP(sa.Dst.Is6()); err != nil {
		return 0, err
	}
	k.own(reqID)
	sa.SPI, sa.ReqID = 0, aside(reqID)
	spi, err := k.allocSPI(sa)
	if err != nil {
		return 0, explain(err, sa)
	}
	k.setReserved(apply.SAID{Dst: sa.Dst, SPI: spi}, true)
	return spi, nil
}

func (k *Kernel) allocSPI(sa apply.SA) (uint32, error) {
	var spi uint32
	err := k.conn.request(fmt.Sprintf("allocate an SPI from %v to %v", sa.Src, sa.Dst), msgAllocSPI, unix.NLM_F_ACK,
		allocSPI(sa, lowestSPI, highestSPI, k.quirks), func(kind uint16, body []byte) error {
			s, err := readState(body, false)
			spi = s.id.SPI
			return err
		})
	if err == nil && spi == 0 {
		err = errors.New("the kernel allocated no SPI")
	}
	return spi, err
}

// InstallSA is apply.Dataplane's.
func (k *Kernel) InstallSA(sa apply.SA) error {
	sa.Src, sa.Dst = sa.Src.Unmap(), sa.Dst.Unmap()
	if err := errors.Join(sa.Check(), sa.CheckAlgorithms()); err != nil {
		return err
	}
	k.own(sa.ReqID)
	err := k.install(sa)
	if err != nil {
		return explain(err, sa)
	}
	k.setReserved(sa.ID(), false)
	return nil
}

// install promotes the reservation, or adds the SA where there is none (it
// lapsed, or the SA is outbound).
func (k *Kernel) install(sa apply.SA) error {
	if k.isReserved(sa.ID()) {
		err := k.putSA(msgUpdSA, sa)
		if !isErrno(err, unix.ESRCH) {
			return err
		}
	}
	err := k.putSA(msgNewSA, sa)
	if !isErrno(err, unix.EEXIST) {
		return err
	}
	// What has the SPI may be larval: a reservation by a process that is gone,
	// or one that a packet made which met the policy before the SA was there.
	found, ferr := k.get(sa.ID(), false)
	if ferr != nil || !found.larval {
		return err
	}
	if err := k.RemoveSA(sa.ID()); err != nil && !errors.Is(err, apply.ErrAbsent) {
		return err
	}
	return k.putSA(msgNewSA, sa)
}

func (k *Kernel) putSA(kind uint16, sa apply.SA) error {
	m, err := newSA(sa, k.quirks)
	if err != nil {
		return err
	}
	return k.conn.request(opName("install", sa.ID()), kind, unix.NLM_F_ACK, m, nil)
}

// RemoveSA is apply.Dataplane's.
func (k *Kernel) RemoveSA(id apply.SAID) error {
	id.Dst = id.Dst.Unmap()
	k.setReserved(id, false)
	return k.conn.request(opName("remove", id), msgDelSA, unix.NLM_F_ACK, saID(id), nil)
}

// Query is apply.Dataplane's.
func (k *Kernel) Query(id apply.SAID) (apply.Usage, error) {
	id.Dst = id.Dst.Unmap()
	s, err := k.get(id, false)
	return s.usage, err
}

// get reads one SA.
func (k *Kernel) get(id apply.SAID, keys bool) (state, error) {
	var s state
	err := k.conn.request(opName("read", id), msgGetSA, unix.NLM_F_ACK, saID(id),
		func(_ uint16, body []byte) (err error) {
			s, err = readState(body, keys)
			return err
		})
	return s, err
}

// List is apply.Dataplane's.
func (k *Kernel) List(reqIDs []uint32) ([]apply.Installed, error) {
	k.own(reqIDs...)
	var list []apply.Installed
	err := k.dump(func(s state) {
		if slices.Contains(reqIDs, s.reqID&^apply.TrapBit) && s.id.SPI != 0 {
			list = append(list, s.installed())
		}
	})
	return list, err
}

// dump visits all ESP SAs. A list that changed while it was read is read again.
func (k *Kernel) dump(visit func(state)) error {
	const attempts = 5
	var err error
	for range attempts {
		var all []state
		m := newMessage()
		m.attrU8(attrProto, protoESP)
		err = k.conn.request("list SAs", msgGetSA, unix.NLM_F_DUMP, m, func(_ uint16, body []byte) error {
			s, err := readState(body, false)
			if err == nil && s.proto == protoESP {
				all = append(all, s)
			}
			return err
		})
		if err == nil {
			for _, s := range all {
				visit(s)
			}
			return nil
		}
		if !errors.Is(err, errInterrupted) {
			return err
		}
	}
	return err
}
