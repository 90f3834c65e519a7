// Package ike is IKEv2 (RFC 7296) as a function: an [Endpoint] takes one
// [Event] at a time and answers with the [Action] list that its caller has to
// carry out, in that order.
//
// The package opens no socket, reads no clock, starts no goroutine and touches
// no file or kernel. Time and randomness come in as arguments, so that every
// interleaving of messages, losses, kernel answers and crashes can be written
// down as a test.
//
// Reading order: endpoint.go (Step, the dispatch), sa.go (what an IKE SA is),
// transport.go (Message IDs, retransmission, the response cache), then one file
// an exchange: sa_init.go, ike_auth.go, create_child.go, rekey_child.go,
// rekey_ike.go, delete.go, dpd.go, and what happens when both ends begin at once:
// unite.go. Then what others may cost us: cookie.go, quota.go.
package ike
