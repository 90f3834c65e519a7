// Package harness builds small networks out of Linux namespaces and runs IKE
// daemons, packet streams and captures in them. It is for tests that run as
// root in the lab (test/lab/run).
//
// A Net is a set of Hosts around a switch, or around a router that masquerades.
// Each Host has a network namespace and a mount namespace of its own, with its
// own /run, /etc/swanctl and /etc/ipsec-quick, so that two daemons of one kind
// do not meet. Nothing outlives the test: what was started is stopped by its
// process id, and namespaces go with the last process in them.
package harness
