package wire

// Config is a Configuration payload (RFC 7296, Section 3.15).
type Config struct {
	Kind       ConfigType
	Attributes []ConfigAttribute
}

// Type returns PayloadConfig.
func (Config) Type() PayloadType { return PayloadConfig }

// ConfigAttribute is one attribute of a Configuration payload
// (RFC 7296, Section 3.15.1). Unrecognized ones are ignored.
type ConfigAttribute struct {
	Kind  ConfigAttributeType // 15 bits
	Value []byte              // empty in a request: whatever the peer has
}

// ConfigType is the kind of a Configuration payload (RFC 7296, Section 3.15).
type ConfigType uint8

// Configuration payload types.
const (
	ConfigRequest ConfigType = 1
	ConfigReply   ConfigType = 2
	ConfigSet     ConfigType = 3
	ConfigAck     ConfigType = 4
)

var configNames = map[ConfigType]string{
	ConfigRequest: "CFG_REQUEST",
	ConfigReply:   "CFG_REPLY",
	ConfigSet:     "CFG_SET",
	ConfigAck:     "CFG_ACK",
}

// String returns the registry's name, such as CFG_REQUEST.
func (t ConfigType) String() string { return registryName(configNames, "CFG", t) }

// ConfigAttributeType is the kind of a configuration attribute
// (RFC 7296, Section 3.15.1).
type ConfigAttributeType uint16

// Configuration attribute types.
const (
	ConfigIP4Address          ConfigAttributeType = 1
	ConfigIP4Netmask          ConfigAttributeType = 2
	ConfigIP4DNS              ConfigAttributeType = 3
	ConfigIP4NBNS             ConfigAttributeType = 4
	ConfigIP4DHCP             ConfigAttributeType = 6
	ConfigApplicationVersion  ConfigAttributeType = 7
	ConfigIP6Address          ConfigAttributeType = 8 // address and prefix length
	ConfigIP6DNS              ConfigAttributeType = 10
	ConfigIP6DHCP             ConfigAttributeType = 12
	ConfigIP4Subnet           ConfigAttributeType = 13 // address and mask
	ConfigSupportedAttributes ConfigAttributeType = 14
	ConfigIP6Subnet           ConfigAttributeType = 15 // address and prefix length
	ConfigDNSDomain           ConfigAttributeType = 25 // RFC 8598
	ConfigDNSSECTA            ConfigAttributeType = 26 // RFC 8598
)

var configAttributeNames = map[ConfigAttributeType]string{
	ConfigIP4Address:          "INTERNAL_IP4_ADDRESS",
	ConfigIP4Netmask:          "INTERNAL_IP4_NETMASK",
	ConfigIP4DNS:              "INTERNAL_IP4_DNS",
	ConfigIP4NBNS:             "INTERNAL_IP4_NBNS",
	ConfigIP4DHCP:             "INTERNAL_IP4_DHCP",
	ConfigApplicationVersion:  "APPLICATION_VERSION",
	ConfigIP6Address:          "INTERNAL_IP6_ADDRESS",
	ConfigIP6DNS:              "INTERNAL_IP6_DNS",
	ConfigIP6DHCP:             "INTERNAL_IP6_DHCP",
	ConfigIP4Subnet:           "INTERNAL_IP4_SUBNET",
	ConfigSupportedAttributes: "SUPPORTED_ATTRIBUTES",
	ConfigIP6Subnet:           "INTERNAL_IP6_SUBNET",
	16:                        "MIP6_HOME_PREFIX",
	17:                        "INTERNAL_IP6_LINK",
	18:                        "INTERNAL_IP6_PREFIX",
	19:                        "HOME_AGENT_ADDRESS",
	20:                        "P_CSCF_IP4_ADDRESS",
	21:                        "P_CSCF_IP6_ADDRESS",
	22:                        "FTT_KAT",
	23:                        "EXTERNAL_SOURCE_IP4_NAT_INFO",
	24:                        "TIMEOUT_PERIOD_FOR_LIVENESS_CHECK",
	ConfigDNSDomain:           "INTERNAL_DNS_DOMAIN",
	ConfigDNSSECTA:            "INTERNAL_DNSSEC_TA",
	27:                        "ENCDNS_IP4",
	28:                        "ENCDNS_IP6",
	29:                        "ENCDNS_DIGEST_INFO",
}

// String returns the registry's name, such as INTERNAL_IP4_ADDRESS.
func (t ConfigAttributeType) String() string {
	return registryName(configAttributeNames, "ATTRIBUTE", t)
}

// configReservedBit is the top bit of an attribute type, zero when sent and
// ignored when received (RFC 7296, Section 3.15.1).
const configReservedBit = 1 << 15

func (r *reader) config() Config {
	var p Config
	p.Kind = ConfigType(r.u8())
	r.reserved(3)
	for r.more() {
		r.require(len(p.Attributes) < MaxAttributes, TooMany)
		var a ConfigAttribute
		a.Kind = ConfigAttributeType(r.u16() &^ configReservedBit)
		a.Value = r.take(int(r.u16()))
		p.Attributes = append(p.Attributes, a)
	}
	return p
}

func (p Config) appendBody(b []byte) []byte {
	b = append(b, uint8(p.Kind))
	b = appendReserved(b, 3)
	for _, a := range p.Attributes {
		start := len(b)
		b = append16(b, uint16(a.Kind)&^configReservedBit)
		b = append16(b, 0)
		b = append(b, a.Value...)
		setLength16(b, start, len(a.Value))
	}
	return b
}
