// Package watch is the process around the IKE core: it turns what happens on
// this host (datagrams, the data plane's events, deadlines, commands) into
// events for ike.Endpoint, and carries out the actions that come back.
//
// One goroutine owns the endpoint of a tunnel; others only read sockets, ask the
// resolver or talk to the control socket, and hand over what they got.
//
// The loop may die at any point. What it depends on lies in the tunnel's
// directory (see dir.go), the data plane goes on without it, and starting again
// is the same as starting: Up itself negotiates in its own process, then ends
// that loop as if it had died, and a process in the background recovers it.
package watch
