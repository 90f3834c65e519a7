package xfrm

import (
	"encoding/binary"
	"math"
	"slices"
)

// rawState is what has to be handed back unchanged when an SA is moved.
type rawState struct {
	algorithms []rawAttr
	replay     rawAttr
	current    []byte // struct xfrm_lifetime_cur
}

type rawAttr struct {
	kind  uint16
	value []byte
}

// wipe overwrites the keys.
func (s *rawState) wipe() {
	for _, a := range s.algorithms {
		clear(a.value)
	}
}

// redacted reports whether the key is all zeros, as the kernel shows it under
// lockdown (xfrm_redact in net/xfrm/xfrm_user.c). The key is at the end.
func (a rawAttr) redacted() bool {
	header := sizeAlgoAuth
	if a.kind == attrAlgCrypt {
		header = sizeAlgo
	}
	if len(a.value) <= header {
		return true
	}
	return !slices.ContainsFunc(a.value[header:], func(b byte) bool { return b != 0 })
}

// skipAhead advances an outbound sequence number by more than the number of
// packets that can leave between the reading of an SA and its removal: no
// sequence number may be used twice, since IVs are made from them.
func (a rawAttr) skipAhead() {
	const gap = 1 << 16
	const offsetLow, offsetHigh = 4, 12 // struct xfrm_replay_state_esn: oseq, oseq_hi
	low := a.value
	if a.kind == attrReplayESNVal {
		if len(a.value) < sizeReplayESN {
			return
		}
		low = a.value[offsetLow:]
	}
	if len(low) < 4 {
		return
	}
	seq := uint64(binary.NativeEndian.Uint32(low)) + gap
	if seq > math.MaxUint32 && a.kind == attrReplayESNVal {
		high := a.value[offsetHigh:]
		binary.NativeEndian.PutUint32(high, binary.NativeEndian.Uint32(high)+1)
	} else if seq > math.MaxUint32 {
		seq = math.MaxUint32 // the next packet is refused, as it has to be
	}
	binary.NativeEndian.PutUint32(low, uint32(seq))
}
