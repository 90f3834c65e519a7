package xfrm

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

// room is how many buckets the kernel's table of SAs is to have, those of 32 pairs
// and more.
const room = 64

// growTime is what the kernel needs to double it: it does so in the background.
const growTime = time.Millisecond

// makeRoom lets the table of SAs grow to a size that it keeps. It begins with 8
// buckets and doubles when there are more SAs than that, and a packet that looks for
// its SA meanwhile is dropped (xfrm_state_find: EAGAIN, counted as XfrmOutNoStates):
// one of the first rekeys would lose it. So there are some reservations for a moment;
// if this process dies they lapse. Nothing depends on it, and so no error does.
func (k *Kernel) makeRoom() {
	var made []apply.SAID
	for range 2 * room {
		n, err := k.buckets()
		if err != nil || n >= room {
			break
		}
		spi, err := k.allocSPI(apply.SA{Direction: apply.In, Src: loopback(false), Dst: loopback(false), ReqID: apply.MaxReqID})
		if err != nil {
			break
		}
		made = append(made, apply.SAID{Dst: loopback(false), SPI: spi})
		if len(made) > int(n) {
			time.Sleep(growTime)
		}
	}
	for _, id := range made {
		_ = k.RemoveSA(id)
	}
}

// buckets is how many there are in the table of SAs.
func (k *Kernel) buckets() (n uint32, err error) {
	m := newMessage()
	m.u32(0) // flags
	err = k.conn.request("read the size of the table of SAs", msgGetSADInfo, unix.NLM_F_ACK, m, func(_ uint16, body []byte) error {
		r := &reader{b: body}
		r.skip(4) // flags
		return r.attrs(func(kind uint16, value []byte) {
			if kind == attrSADHashInfo {
				v := &reader{b: value}
				n = v.u32()
			}
		})
	})
	if err == nil && n == 0 {
		err = errors.New("the kernel does not tell the size of the table of SAs")
	}
	return n, err
}
