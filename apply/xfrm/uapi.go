package xfrm

// Numbers of include/uapi/linux/xfrm.h. The names are the kernel's, without
// their common prefix.

// Message types.
const (
	msgNewSA      = 0x10
	msgDelSA      = 0x11
	msgGetSA      = 0x12
	msgNewPolicy  = 0x13
	msgDelPolicy  = 0x14
	msgGetPolicy  = 0x15
	msgAllocSPI   = 0x16
	msgAcquire    = 0x17
	msgExpire     = 0x18
	msgUpdPolicy  = 0x19
	msgUpdSA      = 0x1a
	msgGetSADInfo = 0x23
	msgMapping    = 0x26
)

// Attributes.
const (
	attrAlgAuth      = 1
	attrAlgCrypt     = 2
	attrEncap        = 4
	attrTmpl         = 5
	attrLtimeVal     = 9
	attrReplayVal    = 10
	attrLastUsed     = 15
	attrAlgAEAD      = 18
	attrAlgAuthTrunc = 20
	attrReplayESNVal = 23
	attrProto        = 25
	attrSetMark      = 29
	attrIfID         = 31
	attrMtimerThresh = 32
	attrSADir        = 33

	attrSADHashInfo = 2 // of the answer to msgGetSADInfo
)

// Multicast groups. AEVENTS (5) is left alone: a listener makes the kernel
// send replay events.
const (
	groupAcquire = 1
	groupExpire  = 2
	groupMapping = 8
)

// Sizes of structures. 64-bit members are aligned to 8 octets, as on every
// architecture Linux has but i386, and trailing padding counts.
const (
	sizeSelector    = 56
	sizeLifetimeCur = 32
	sizeUserSAInfo  = 224
	sizeUserSAID    = 24
	sizeUserSPIInfo = 232
	sizePolicyInfo  = 168
	sizePolicyID    = 64
	sizeTmpl        = 64
	sizeUserExpire  = 232
	sizeUserAcquire = 280
	sizeUserMapping = 64
	sizeAlgo        = 68 // and the key
	sizeAlgoAuth    = 72 // and the key; struct xfrm_algo_aead has the same layout
	sizeEncapTmpl   = 24
	sizeReplayState = 12
	sizeReplayESN   = 24 // and the bitmap
)

// Flags of struct xfrm_usersa_info.
const (
	stateICMP     = 16
	stateAFUnspec = 32
	stateESN      = 128
)

// Directions: of a policy, and of an SA (XFRM_SA_DIR_*).
const (
	policyIn  = 0
	policyOut = 1
	policyFwd = 2

	saDirIn  = 1
	saDirOut = 2
)

// Actions of a policy.
const (
	policyAllow = 0
	policyBlock = 1
)

const (
	modeTransport = 0
	modeTunnel    = 1

	infinite = ^uint64(0) // XFRM_INF: no limit of octets or packets

	protoESP         = 50
	encapESPinUDP    = 2 // UDP_ENCAP_ESPINUDP, include/uapi/linux/udp.h
	algNameLen       = 64
	maxMessage       = 64 << 10 // the kernel fills dumps into at most 32 KiB
	typicalSAMessage = 2048     // holds the largest NEWSA, so that no key is copied by append
)
