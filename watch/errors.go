package watch

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"ipsec-quick/ike"
)

// Running: the tunnel is up, or another process is bringing it up.
type Running struct {
	Name     string
	PID      int  // of its loop; 0: not known
	Starting bool // `up` is at it
	Path     string
}

// Error says which process has the tunnel.
func (e *Running) Error() string {
	switch {
	case e.Starting:
		return fmt.Sprintf("%s is being brought up by process %d", e.Name, e.PID)
	case e.PID != 0:
		return fmt.Sprintf("%s is up already (process %d)", e.Name, e.PID)
	}
	return e.Name + " is up already"
}

// ErrNotUp: there is no such tunnel on this host.
var ErrNotUp = errors.New("is not up")

// ErrNoLoop: the tunnel is up, and its loop is dead.
var ErrNoLoop = errors.New("the loop has died; the tunnel goes on until its lifetimes end, " +
	"`up` revives the loop and `down` removes the tunnel")

// NoAnswer: the time to bring the tunnel up is over.
type NoAnswer struct {
	After   time.Duration
	Peers   []string // those that are not established
	Last    error    // what kept the last attempt from succeeding; may be nil
	Revived bool     // the tunnel was up before, so it stays
}

// Error names the peers that did not answer.
func (e *NoAnswer) Error() string {
	s := fmt.Sprintf("not established after %v: %s", e.After, strings.Join(e.Peers, ", "))
	if e.Last != nil {
		s += ": " + e.Last.Error()
	}
	if e.Revived {
		s += "; the tunnel stays up and its loop keeps trying"
	}
	return s
}

// Unwrap is the reason of the last attempt.
func (e *NoAnswer) Unwrap() error { return e.Last }

// ErrNoAnswer: a peer did not answer a command in time.
var ErrNoAnswer = errors.New("no answer")

// Failed: a peer cannot be brought up, and waiting would not help.
type Failed struct {
	Peer string
	Err  error
}

// Error is the peer and the reason.
func (e *Failed) Error() string { return e.Peer + ": " + e.Err.Error() }

// Unwrap is the reason.
func (e *Failed) Unwrap() error { return e.Err }

// ErrInterrupted: a signal ended `up` before it was done.
var ErrInterrupted = errors.New("interrupted")

// PortHeld: a UDP port that IKE needs belongs to a program that is not ours.
type PortHeld struct {
	Port uint16
	PID  int    // 0: not found
	Name string // of the program; empty: not found
}

// Error names the program and says what to do.
func (e *PortHeld) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("UDP port %d is held by another program, which cannot be seen from here (`ss -lunp sport = %d`): "+
			"stop it, or set ike.port and ike.nat_port", e.Port, e.Port)
	}
	return fmt.Sprintf("UDP port %d is held by %s (process %d): stop it, or set ike.port and ike.nat_port", e.Port, e.Name, e.PID)
}

// Conflict: another tunnel of this host covers the same traffic.
type Conflict struct{ Tunnel, Selector string }

// Error names both.
func (e *Conflict) Error() string {
	return fmt.Sprintf("the tunnel %s covers %s already: take it down, or give one of the two other selectors", e.Tunnel, e.Selector)
}

// decisive reports whether trying again would end the same way.
func decisive(err error) bool {
	var local *ike.LocalError
	var dns *net.DNSError
	return ike.Refused(err) || errors.As(err, &local) || errors.As(err, &dns) && dns.IsNotFound
}
