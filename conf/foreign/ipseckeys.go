package foreign

// libreswanOnly are keys that only libreswan's ipsec.conf has, here and below
// with left for both sides.
var libreswanOnly = []string{
	"ikev2", "salifetime", "ipsec-lifetime", "leftrsasigkey", "leftpubkey", "leftecdsakey", "lefteddsakey", "leftckaid", "leftsubnets",
	"ipsec-interface", "leftinterface-ip", "narrowing", "encapsulation", "replay-window", "virtual-private", "virtual_private", "protostack",
	"logfile", "leftaddresspool", "leftmodecfgserver", "leftmodecfgclient", "phase2alg", "phase2", "ipsec-max-bytes", "ipsec-max-packets",
	"retransmit-timeout", "vti-interface", "vti-routing", "leftvti", "mark-in", "mark-out", "nic-offload", "failureshunt", "negotiationshunt",
}

// quietKeys are those that change nothing here.
var quietKeys = []string{
	"auto", "authby", "keyexchange", "ikev2", "leftauth", "leftnexthop", "leftallowany", "leftsendcert", "leftcert", "leftca", "leftckaid",
	"lefthostaccess", "leftgroups2", "keyingtries", "closeaction", "dpdtimeout", "dpdaction", "installpolicy", "narrowing", "retransmit-interval",
	"retransmit-timeout", "nat-keepalive", "initial-contact", "overlapip", "failureshunt", "negotiationshunt", "nat-ikev1-method", "ikepad",
	"inactivity_timeout", "reqid", "clientaddrfamily", "hostaddrfamily", "connaddrfamily", "reauth", "debug", "pfs", "leftsourceif", "metric",
	"nopmtudisc", "copy_dscp", "nic-offload", "hw_offload", "sendca", "decap-dscp", "encap-dscp", "vti-interface", "vti-routing", "vti-shared",
	"fake-strongswan", "send-vendorid", "intermediate", "accept-redirect", "send-redirect", "redirect-to", "ms-dh-downgrade", "dns-match-id",
	"require-id-on-certificate", "charondebug", "leftvti", "priority", "uniqueids",
}

// ipsecReasons is why keys of an ipsec.conf are not carried over.
var ipsecReasons = map[string]string{
	"mobike":            noMOBIKE,
	"compress":          "packets are not compressed here",
	"leftupdown":        noUpdown,
	"leftfirewall":      "no firewall rules are made here; commands go into [hooks]",
	"leftgroups":        "groups are told by certificates or by EAP, which are not there yet",
	"leftcertpolicy":    noCertificates,
	"leftauth2":         "a second round of authentication is not there; it was left out",
	"leftcert2":         "a second round of authentication is not there; it was left out",
	"leftid2":           "a second round of authentication is not there; it was left out",
	"eap_identity":      noEAP,
	"aaa_identity":      noEAP,
	"leftautheap":       noEAP,
	"leftdns":           "a peer is given no name servers; our own go into [interface] dns",
	"modecfgdns":        "a peer is given no name servers; our own go into [interface] dns",
	"modecfgdomains":    "a peer is given no name servers; our own go into [interface] dns",
	"leftaddresspool":   noPool,
	"leftmodecfgserver": noPool,
	"leftmodecfgclient": noVirtualIP,
	"modecfgpull":       noVirtualIP,
	"modeconfig":        "it is of IKEv1",
	"aggressive":        "the aggressive mode is of IKEv1",
	"aggrmode":          "the aggressive mode is of IKEv1",
	"xauth":             "XAuth is of IKEv1",
	"xauth_identity":    "XAuth is of IKEv1",
	"leftxauthserver":   "XAuth is of IKEv1",
	"leftxauthclient":   "XAuth is of IKEv1",
	"leftusername":      "XAuth is of IKEv1, and EAP is not there yet",
	"ppk":               noPPK,
	"ppk-ids":           noPPK,
	"ah":                swanReasons["ah_proposals"],
	"sha2-truncbug":     swanReasons["sha256_96"],
	"inactivity":        swanReasons["inactivity"],
	"tfc":               swanReasons["tfc_padding"],
	"enable-tcp":        "IKE and ESP are not carried in TCP here",
	"tcp-remoteport":    "IKE and ESP are not carried in TCP here",
	"iptfs":             "IP-TFS (RFC 9347) is not there",
	"policy-label":      "there are no security labels here",
	"mtu":               "the device's MTU is computed; [interface] mtu sets another one",
	"mark_in":           noMark,
	"mark_out":          noMark,
	"mark-in":           noMark,
	"mark-out":          noMark,
	"mediation":         swanReasons["mediation"],
	"leftsubnetwithin":  "this key is not known here, and was left out; write remote_ts",
}
