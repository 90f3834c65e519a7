package ike

import (
	"errors"
	"fmt"
	"net/netip"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// PeerError is a NOTIFY of the peer that refuses something.
type PeerError struct {
	Exchange wire.ExchangeType
	Kind     wire.NotifyType
	Detail   string // what we asked for
}

// Error says what was refused and what to compare.
func (e *PeerError) Error() string {
	var text string
	switch e.Kind {
	case wire.NotifyAuthenticationFailed:
		text = "the peer refused our authentication (AUTHENTICATION_FAILED): compare the secret or key and the ids on both sides"
	case wire.NotifyNoProposalChosen:
		text = "the peer accepts none of our proposals (NO_PROPOSAL_CHOSEN)"
	case wire.NotifyTSUnacceptable:
		text = "the peer does not accept our selectors (TS_UNACCEPTABLE): local_ts and remote_ts must be the peer's remote_ts and local_ts"
	case wire.NotifyInvalidKEPayload:
		text = "the peer wants a key exchange that we do not allow (INVALID_KE_PAYLOAD)"
	default:
		text = fmt.Sprintf("the peer answered %s", e.Kind)
	}
	if e.Detail != "" {
		text += "; " + e.Detail
	}
	return fmt.Sprintf("%s: %s", e.Exchange, text)
}

// TimeoutError is a peer that does not answer.
type TimeoutError struct {
	Exchange wire.ExchangeType
	Remote   netip.AddrPort
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("%s: no answer from %s", e.Exchange, e.Remote)
}

// IdentityError is a peer whose proof or name is not the configured one.
type IdentityError struct {
	What string // "identity", "authentication"
	Err  error
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("the peer's %s does not match: %v", e.What, e.Err)
}

// Unwrap is the reason.
func (e *IdentityError) Unwrap() error { return e.Err }

// LocalError is something on this host that kept a Child SA from being made.
type LocalError struct{ Err error }

func (e *LocalError) Error() string { return fmt.Sprintf("install the Child SA: %v", e.Err) }

// Unwrap is the reason.
func (e *LocalError) Unwrap() error { return e.Err }

// The ends of an IKE SA that are nobody's failure.
var (
	errPeerDeleted  = errors.New("the peer deleted the IKE SA")
	errExpired      = errors.New("the IKE SA reached its hard lifetime")
	errReconfigured = errors.New("it is set up otherwise now")
	errReplaced     = errors.New("the peer opened a new IKE SA")
	errChildDeleted = errors.New("the peer deleted the new Child SA before its answer came")
	errNoChild      = errors.New("the peer answered IKE_AUTH without a Child SA")
	errEAP          = errors.New("it wants EAP, which is not supported here")
	errMode         = errors.New("the peer insists on tunnel mode: set mode = \"tunnel\" here or transport mode there")
)

// Refused reports whether an error is a peer's refusal, or ours of the peer:
// trying again without a change on one side will not help.
func Refused(err error) bool {
	var peer *PeerError
	var id *IdentityError
	var none *suite.NoProposal
	var answer *suite.AnswerError
	var mismatch *auth.Mismatch
	return errors.As(err, &peer) || errors.As(err, &id) || errors.As(err, &none) ||
		errors.As(err, &answer) || errors.As(err, &mismatch) ||
		errors.Is(err, errMode) || errors.Is(err, errNoChild) || errors.Is(err, errSyntax)
}

// TimedOut reports whether an error is a peer that does not answer.
func TimedOut(err error) bool {
	var t *TimeoutError
	return errors.As(err, &t)
}
