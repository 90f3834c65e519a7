// Package packet knows the inner packets of ESP: IPv4 and IPv6 headers, the
// flow a packet belongs to, ICMP errors, fragments, checksums. It is pure.
package packet
