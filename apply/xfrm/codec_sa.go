package xfrm

import "ipsec-quick/apply"

// quirks are the kernel's ways with outbound SAs, found out by probing.
type quirks struct {
	direction bool // XFRMA_SA_DIR is known (Linux 6.10)
	// What an outbound ESN SA must have as replay window and as length of its
	// bitmap: newer kernels want none, older ones at least 1.
	outWindow, outBitmap uint32
}

// saInfo is a struct xfrm_usersa_info. With zero Limits there are none.
func (m *message) saInfo(s apply.SA) {
	if s.Mode == apply.Transport && s.Selector != nil {
		m.selector(*s.Selector, s.Direction, 0)
	} else {
		m.pad(sizeSelector)
	}
	m.addr(s.Dst)
	m.be32(s.SPI)
	m.u8(protoESP)
	m.pad(3)
	m.addr(s.Src)
	m.limits(s.Soft, s.Hard)
	m.pad(sizeLifetimeCur)
	m.pad(12) // struct xfrm_stats
	m.u32(0)  // seq: of an Acquire that is answered
	m.u32(s.ReqID)
	m.u16(family(s.Dst))
	m.u8(kernelMode(s.Mode))
	window := uint8(0)
	if s.Direction == apply.In && !needsReplayESN(s) {
		window = uint8(s.ReplayWindow)
	}
	m.u8(window)
	m.u8(flags(s))
	m.pad(7)
}

func kernelMode(m apply.Mode) uint8 {
	if m == apply.Transport {
		return modeTransport
	}
	return modeTunnel
}

// flags of an SA: AF_UNSPEC lets one tunnel carry IPv4 and IPv6; ICMP lets
// errors about tunnelled packets in, which come from addresses that no selector
// has (RFC 4301, Section 6.2).
func flags(s apply.SA) uint8 {
	f := uint8(0)
	if s.Mode == apply.Tunnel {
		f |= stateAFUnspec
	}
	if s.Direction == apply.In {
		f |= stateICMP
	}
	if s.ESN {
		f |= stateESN
	}
	return f
}

// needsReplayESN: extended sequence numbers and windows of more than 32 packets
// have their replay state in an attribute.
func needsReplayESN(s apply.SA) bool {
	return s.ESN || s.Direction == apply.In && s.ReplayWindow > 32
}

// limits is a struct xfrm_lifetime_cfg.
func (m *message) limits(soft, hard apply.Limits) {
	count := func(n uint64) {
		if n == 0 {
			n = infinite
		}
		m.u64(n)
	}
	count(soft.Bytes)
	count(hard.Bytes)
	count(soft.Packets)
	count(hard.Packets)
	m.u64(apply.SoftSeconds(soft.Time))
	m.u64(apply.HardSeconds(hard.Time))
	m.u64(apply.SoftSeconds(soft.Use))
	m.u64(apply.HardSeconds(hard.Use))
}

// algorithms are the attributes with the keys.
func (m *message) algorithms(s apply.SA) error {
	encryption, err := s.Encryption.Kernel()
	if err != nil {
		return err
	}
	keyBits := uint32(len(s.Encryption.Key)) * 8
	if encryption.AEAD { // struct xfrm_algo_aead
		m.attr(attrAlgAEAD, func() {
			m.name(encryption.Name)
			m.u32(keyBits)
			m.u32(encryption.ICVBits)
			m.bytes(s.Encryption.Key)
		})
		return nil
	}
	integrity, err := s.Integrity.Kernel()
	if err != nil {
		return err
	}
	m.attr(attrAlgCrypt, func() { // struct xfrm_algo
		m.name(encryption.Name)
		m.u32(keyBits)
		m.bytes(s.Encryption.Key)
	})
	m.attr(attrAlgAuthTrunc, func() { // struct xfrm_algo_auth
		m.name(integrity.Name)
		m.u32(uint32(len(s.Integrity.Key)) * 8)
		m.u32(integrity.ICVBits)
		m.bytes(s.Integrity.Key)
	})
	return nil
}

// options are the attributes of an SA besides its algorithms and replay state.
func (m *message) options(s apply.SA, q quirks) {
	if s.Encap != nil {
		m.attr(attrEncap, func() { // struct xfrm_encap_tmpl
			m.u16(encapESPinUDP)
			m.be16(s.Encap.SrcPort)
			m.be16(s.Encap.DstPort)
			m.pad(2)
			m.pad(16) // original address
		})
		if s.Direction == apply.In {
			// Else a Mapping is sent for every packet until it is answered.
			m.attrU32(attrMtimerThresh, 1)
		}
	}
	if s.Mark != 0 {
		m.attrU32(attrSetMark, s.Mark)
	}
	m.ifID(s.IfID)
	if q.direction {
		m.attrU8(attrSADir, saDir(s.Direction))
	}
}

// ifID is the attribute with the number of an xfrm interface, if there is one.
func (m *message) ifID(id uint32) {
	if id != 0 {
		m.attrU32(attrIfID, id)
	}
}

func saDir(d apply.Direction) uint8 {
	if d == apply.Out {
		return saDirOut
	}
	return saDirIn
}

// replay is the initial replay state (struct xfrm_replay_state_esn), if the SA
// needs one.
func (m *message) replay(s apply.SA, q quirks) {
	if !needsReplayESN(s) {
		return
	}
	window, bitmap := q.outWindow, q.outBitmap
	if s.Direction == apply.In {
		window = s.ReplayWindow
		if window == 0 {
			// The upper half of an ESN is inferred from the window (RFC 4303,
			// Appendix A), so there has to be one.
			window = 32
		}
		bitmap = (window + 31) / 32
	}
	m.attr(attrReplayESNVal, func() {
		m.u32(bitmap)
		m.pad(16) // oseq, seq, oseq_hi, seq_hi
		m.u32(window)
		m.pad(int(bitmap) * 4)
	})
}

// newSA is the body of NEWSA and UPDSA.
func newSA(s apply.SA, q quirks) (*message, error) {
	m := newMessage()
	m.saInfo(s)
	if err := m.algorithms(s); err != nil {
		m.wipe()
		return nil, err
	}
	m.options(s, q)
	m.replay(s, q)
	return m, nil
}

// saID is the body of DELSA and GETSA (struct xfrm_usersa_id).
func saID(id apply.SAID) *message {
	m := newMessage()
	m.addr(id.Dst)
	m.be32(id.SPI)
	m.u16(family(id.Dst))
	m.u8(protoESP)
	m.pad(1)
	return m
}

// allocSPI is the body of ALLOCSPI (struct xfrm_userspi_info).
func allocSPI(s apply.SA, low, high uint32, q quirks) *message {
	m := newMessage()
	m.saInfo(s)
	m.u32(low)
	m.u32(high)
	m.ifID(s.IfID)
	if q.direction {
		m.attrU8(attrSADir, saDir(s.Direction))
	}
	return m
}
