package wire

// Limits on what is taken in. Memory is bounded by MaxMessage alone, as no
// more is allocated than octets have come; the counts bound the work that one
// message, which may come from anyone, can ask of what reads it.
const (
	// MaxMessage is the longest message in octets, header included. The
	// header's length field has 32 bits, but what carries a message counts in
	// 16: UDP and the framing over TCP (RFC 9329, Section 3).
	MaxMessage = 65535

	// MaxPayload is the longest payload in octets, generic header included:
	// its length field has 16 bits (RFC 7296, Section 3.2).
	MaxPayload = 65535

	// MaxPayloads is how many payloads one chain may have. A full IKE_AUTH
	// with a certificate chain and a notification for each address of a
	// multihomed peer (RFC 4555) has about fifty.
	MaxPayloads = 128

	// MaxProposals is how many proposals an SA payload may have. Peers that
	// send one for each combination they support send up to a few dozen; the
	// one-octet Proposal Num could count to 255.
	MaxProposals = 128

	// MaxTransforms is how many transforms a proposal may have. Everything in
	// the registry with all key lengths and seven additional key exchanges
	// stays below it; the one-octet Num Transforms could count to 255.
	MaxTransforms = 128

	// MaxSelectors is how many selectors a Traffic Selector payload can have:
	// their number has one octet (RFC 7296, Section 3.13).
	MaxSelectors = 255

	// MaxSPIs is how many SAs a Delete payload may name. One peer has a
	// handful of Child SAs; a sender with more may use several payloads.
	MaxSPIs = 1024

	// MaxAttributes is how many attributes a Configuration payload may have.
	// Split DNS (RFC 8598) lists a domain in each.
	MaxAttributes = 512

	// MinNonce and MaxNonce bound a nonce in octets (RFC 7296, Section 3.9).
	MinNonce = 16
	MaxNonce = 256
)
