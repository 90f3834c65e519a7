package conf

import (
	"fmt"
	"strings"
	"testing"
)

func TestDNS(t *testing.T) {
	const neither = "is neither; write a server's address or a domain"
	for text, want := range map[string]string{
		`[]`: "[] []",
		`["10.2.0.53", "corp.example.org", "2001:db8::53"]`: "[10.2.0.53 2001:db8::53] [corp.example.org]",
		`["~corp.example.org.", "::ffff:10.2.0.53", "lab"]`: "[10.2.0.53] [~corp.example.org lab]",
		`["10.2.0.53", "~."]`:                               "[10.2.0.53] [~.]",
		`["corp.example.org"]`:                              "there are domains, and no server is asked for them",
		`["10.2.0.53", "."]`:                                neither,
		`["10.2.0.53", "~"]`:                                neither,
		`["10.2.0.53", "~~lab"]`:                            neither,
		`["10.2.0.53", "10.2.0.300"]`:                       neither,
		`["fe80::53%eth0"]`:                                 neither,
		`["lab;reboot"]`:                                    neither,
		`["it's"]`:                                          neither,
		`[53]`:                                              "not text in quotes",
		`"10.2.0.53"`:                                       "not a list",
	} {
		tunnel, err := parseText(t, "[interface]\ndns = "+text+"\n"+hookPeer+"local_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.0.0/16\"]\n")
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprint(tunnel.Interface.DNS, tunnel.Interface.Domains)
		}
		if !strings.Contains(got, want) || strings.Count(got, "interface.dns") > 1 {
			t.Errorf("dns = %s: %s", text, got)
		}
	}
}
