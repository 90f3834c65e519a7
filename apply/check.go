package apply

import (
	"errors"
	"fmt"
)

// MaxReplayWindow is the largest replay window, in packets
// (XFRMA_REPLAY_ESN_MAX, include/uapi/linux/xfrm.h).
const MaxReplayWindow = 4096

// MaxReqID is the largest ReqID; the bit above it is TrapBit.
const MaxReqID = 1<<31 - 1

// TrapBit is set in the ReqID of a trap's template in the kernel, which makes it
// one that no SA has. With the pair's own the kernel would find the pair's SA
// for packets that its narrowed selectors do not cover, and send them on it.
// Events have it cleared.
const TrapBit = 1 << 31

// Check refuses what no data plane can install.
func (s SA) Check() error {
	if s.SPI < 256 {
		return fmt.Errorf("SPI %#x is reserved (RFC 4303, Section 2.1)", s.SPI)
	}
	if s.Direction != In && s.Direction != Out {
		return errors.New("SA without direction")
	}
	if err := checkOuter(s.Src.Is4(), s.Src.IsValid(), s.Dst.Is4(), s.Dst.IsValid()); err != nil {
		return err
	}
	if s.ReqID > MaxReqID {
		return fmt.Errorf("ReqID %d is above %d", s.ReqID, MaxReqID)
	}
	if s.ReplayWindow > MaxReplayWindow {
		return fmt.Errorf("replay window of %d packets is above %d", s.ReplayWindow, MaxReplayWindow)
	}
	if s.Selector != nil {
		if err := s.Selector.Check(); err != nil {
			return err
		}
	}
	return nil
}

// CheckAlgorithms refuses unknown algorithms, keys of a wrong length, and a
// cipher without integrity (RFC 8221, Section 4).
func (s SA) CheckAlgorithms() error {
	encryption, err := s.Encryption.Kernel()
	if err != nil {
		return err
	}
	if encryption.AEAD {
		if s.Integrity.Name != "" {
			return fmt.Errorf("%s with %s: an AEAD has its own integrity", s.Encryption.Name, s.Integrity.Name)
		}
		return nil
	}
	integrity, err := s.Integrity.Kernel()
	if err != nil {
		return err
	}
	if encryption.ICVBits != 0 || integrity.ICVBits == 0 {
		return fmt.Errorf("%s with %s is no pair of cipher and integrity", s.Encryption.Name, s.Integrity.Name)
	}
	return nil
}

// checkTemplate looks at what a Protect or Trap needs to find its SA.
func (p Policy) checkTemplate() error {
	switch p.Action {
	case Block, Bypass:
		return nil
	case Protect, Trap:
	default:
		return errors.New("policy without action")
	}
	if p.ReqID == 0 || p.ReqID > MaxReqID {
		return fmt.Errorf("ReqID %d of a policy is not within 1 and %d", p.ReqID, MaxReqID)
	}
	return checkOuter(p.Local.Is4(), p.Local.IsValid(), p.Remote.Is4(), p.Remote.IsValid())
}

func checkOuter(src4, srcValid, dst4, dstValid bool) error {
	if !srcValid || !dstValid {
		return errors.New("outer address missing")
	}
	if src4 != dst4 {
		return errors.New("outer addresses of different families")
	}
	return nil
}
