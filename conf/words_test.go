package conf

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"ipsec-quick/ike/wire"
)

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "50m": 50 * time.Minute, "1h30m": 90 * time.Minute, "1d": 24 * time.Hour,
		"1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute, "90s": 90 * time.Second, "0s": 0, "0d": 0,
		"36500d": maxDuration,
		"":       -1, "d": -1, "1": -1, "-1s": -1, "+1s": -1, "1d-1h": -1, "1.5d": -1, "1 h": -1, "1w": -1, "1h1d": -1,
		"36500d1s": -1, "999999d": -1, "9999999999h": -1, "1dd": -1, ".5h": -1,
	} {
		got, err := parseDuration(s)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q = %v, %v", s, got, err)
		}
		if err != nil {
			continue
		}
		if again, err := parseDuration(FormatDuration(got)); err != nil || again != got {
			t.Errorf("%v is shown as %q", got, FormatDuration(got))
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{
		"4096": 4096, "1B": 1, "512KiB": 512 << 10, "100MB": 100e6, "90GiB": 90 << 30, "1.5GiB": 3 << 29, "1 kB": 1000,
		"1_000": 1000, "8191PiB": 8191 << 50, "0.5KiB": 512, "0": 0,
		"": -1, "GiB": -1, "-1": -1, "1e3": -1, "90G": -1, "90gb": -1, "0.3B": -1, "8192PiB": -1, "1.5.5MB": -1, "1/2MB": -1,
	} {
		got, err := parseSize(s)
		if (err != nil) != (want < 0) || err == nil && got != uint64(want) {
			t.Errorf("%q = %v, %v", s, got, err)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, c := range []struct {
		text  string
		kind  wire.IDType // 0: refused
		data  string
		shown string
	}{
		{"192.0.2.1", wire.IDIPv4Addr, "\xc0\x00\x02\x01", "192.0.2.1"},
		{"2001:db8::1", wire.IDIPv6Addr, "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", "2001:db8::1"},
		{"hq.example.org", wire.IDFQDN, "hq.example.org", "hq.example.org"},
		{"@hq", wire.IDFQDN, "hq", "hq"},
		{"alice@example.org", wire.IDRFC822Addr, "alice@example.org", "alice@example.org"},
		{"@@alice@example.org", wire.IDRFC822Addr, "alice@example.org", "alice@example.org"},
		{"@#00fF", wire.IDKeyID, "\x00\xff", "@#00ff"},
		{"@#00:ff", wire.IDKeyID, "\x00\xff", "@#00ff"},
		{"keyid:Office", wire.IDKeyID, "Office", "@#4f6666696365"},
		{"KEYID:ȺȺȺȺȺȺȺ", wire.IDKeyID, "ȺȺȺȺȺȺȺ", "@#" + strings.Repeat("c8ba", 7)}, // longer in lower case
		{"FQDN:192.0.2.1", wire.IDFQDN, "192.0.2.1", "192.0.2.1"},
		{"email:a@b", wire.IDRFC822Addr, "a@b", "a@b"},
		{"ipv4:192.0.2.1", wire.IDIPv4Addr, "\xc0\x00\x02\x01", "192.0.2.1"},
		{"", 0, "", ""},
		{"%any", 0, "", ""},
		{"@#", 0, "", ""},
		{"@", 0, "", ""},
		{"::ffff:192.0.2.1", 0, "", ""},
		{"fe80::1%eth0", 0, "", ""},
		{"192.0.2", 0, "", ""},
		{"CN=hq", 0, "", ""},
	} {
		id, err := ParseID(c.text)
		if id.Kind != c.kind || string(id.Data) != c.data || (err != nil) != (c.kind == 0) || id.String() != c.shown {
			t.Errorf("%q = %v %q %q, %v", c.text, id.Kind, id.Data, id, err)
		}
		if w := id.Wire(true); w.Kind != c.kind || !w.Responder {
			t.Errorf("%q on the wire: %+v", c.text, w)
		}
	}
	if a, b := mustID(t, "HQ.example.org"), mustID(t, "hq.EXAMPLE.org"); !a.Equal(b) || a.Equal(mustID(t, "keyid:HQ.example.org")) {
		t.Error("names are compared without case, and by kind")
	}
	if id := IDOf(netip.MustParseAddr("::ffff:192.0.2.1")); !id.Equal(mustID(t, "192.0.2.1")) {
		t.Errorf("a mapped address is %v", id)
	}
}

func mustID(t *testing.T, s string) ID {
	t.Helper()
	id, err := ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSelectors(t *testing.T) {
	for _, c := range []struct{ text, shown, from, to string }{
		{"10.1.0.0/16", "10.1.0.0/16", "10.1.0.0", "10.1.255.255"},
		{"10.1.2.3", "10.1.2.3/32", "10.1.2.3", "10.1.2.3"},
		{"0.0.0.0/0[TCP]", "0.0.0.0/0[tcp]", "0.0.0.0", "255.255.255.255"},
		{"10.1.0.0/23[tcp/443]", "10.1.0.0/23[tcp/443]", "10.1.0.0", "10.1.1.255"},
		{"2001:db8::/47[udp/1-2]", "2001:db8::/47[udp/1-2]", "2001:db8::", "2001:db8:1:ffff:ffff:ffff:ffff:ffff"},
		{"10.0.0.1 - 10.0.0.9", "10.0.0.1-10.0.0.9", "10.0.0.1", "10.0.0.9"},
		{"10.0.0.0/8[icmp/8]", "10.0.0.0/8[icmp/8]", "10.0.0.0", "10.255.255.255"},
		{"10.0.0.0/8[icmp/5-5]", "10.0.0.0/8[icmp/5-5]", "10.0.0.0", "10.255.255.255"},
		{"10.0.0.0/8[icmp/2049]", "10.0.0.0/8[icmp/2049]", "10.0.0.0", "10.255.255.255"},
		{"10.0.0.0/8[200]", "10.0.0.0/8[200]", "10.0.0.0", "10.255.255.255"},
		{"::/0[ipv6-icmp]", "::/0[icmpv6]", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		ts, err := ParseTS(c.text)
		from, to := ts.Bounds()
		if err != nil || ts.String() != c.shown || from.String() != c.from || to.String() != c.to {
			t.Errorf("%q = %s, %v to %v, %v", c.text, ts, from, to, err)
		}
	}
	own := netip.MustParseAddr("192.0.2.1")
	dynamic, err := ParseTS("dynamic[tcp/443]")
	if err != nil || !dynamic.Dynamic() {
		t.Fatal(dynamic, err)
	}
	if got := ResolveTS([]TS{dynamic}, own); len(got) != 1 || got[0].String() != "192.0.2.1/32[tcp/443]" {
		t.Errorf("resolved: %v", got)
	}
	if got := ResolveTS(nil, own); len(got) != 1 || got[0].String() != "192.0.2.1/32" || got[0].ToPort != maxPort {
		t.Errorf("resolved: %v", got)
	}
	for _, bad := range []string{"", "10.0.0.0/8[", "10.0.0.0/8[]", "10.0.0.0/8[0]", "10.0.0.0/8[tcp/]", "10.0.0.0/8[tcp/1-]", "10.0.0.0/8]", "a.example", "10.0.0.1-fd00::1", "256", "10.0.0.0/8[256]"} {
		if ts, err := ParseTS(bad); err == nil {
			t.Errorf("%q = %v", bad, ts)
		}
	}
}

func TestNearest(t *testing.T) {
	for got, want := range map[string]string{
		"endpont": "endpoint", "psk-file": "psk_file", "remotets": "remote_ts", "pulbic_key": "public_key", "idd": "id", "completely_else": "", "": "",
	} {
		if w := nearest(got, keys["peer"]); w != want && got != "" {
			t.Errorf("%q is near %q, want %q", got, w, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if d := distance(c.a, c.b); d != c.want || distance(c.b, c.a) != c.want {
			t.Errorf("%q to %q: %d", c.a, c.b, d)
		}
	}
}
