package foreign

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestTimes(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90": 90 * time.Second, "90s": 90 * time.Second, "1h": time.Hour, "1.5h": 90 * time.Minute, " 2 m ": 2 * time.Minute, "1d": 24 * time.Hour,
		"1w": 7 * 24 * time.Hour, "1500ms": time.Second, "0": 0,
		"": -1, "h": -1, "-1": -1, "1y": -1, "soon": -1, "1e99": -1, "NaN": -1, "Inf": -1, "99999w": -1,
	} {
		got, ok := parseTime(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q is %v, %v", text, got, ok)
		}
	}
	for d, want := range map[time.Duration]string{
		time.Hour: `"1h"`, 90 * time.Minute: `"1h30m"`, 61 * time.Second: `"1m1s"`, 24 * time.Hour: `"24h"`, 10 * time.Second: `"10s"`, 10 * time.Minute: `"10m"`,
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
	}
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string]uint64{
		"1000": 1000, "1k": 1024, "2KiB": 2048, "3Gi": 3 << 30, "1EiB": 1 << 60, "0": 0, "": 0,
		"9EiB": 0, "18446744073709551615": 0, // more than an SA carries
	} {
		im := &importer{}
		got := block{im: im, entries: entries{{key: "k", value: text}}}.number("k")
		if got != want || len(im.remarks) > 0 {
			t.Errorf("%q is %d, %v", text, got, im.remarks)
		}
	}
	im := &importer{}
	if got := (block{im: im, entries: entries{{key: "k", value: "many"}}}).number("k"); got != 0 || len(im.remarks) != 1 {
		t.Errorf("many is %d, %v", got, im.remarks)
	}
}

func TestLibreswanWords(t *testing.T) {
	for text, want := range map[string]string{
		"aes_gcm256-sha2_512-dh19":          "aes256gcm16 sha512 ecp256",
		"aes_gcm_16_128":                    "aes128gcm16",
		"aes_gcm":                           "aes256gcm16 aes128gcm16",
		"aes_gcm_a256":                      "aes256gcm8",
		"aes_ccm_b":                         "aes256ccm12 aes128ccm12",
		"aes_ctr128":                        "aes128ctr",
		"aes_cbc192+aes-sha2;modp2048+dh31": "aes192 aes256 aes128 sha256 modp2048 x25519",
		"chacha20_poly1305-null":            "chacha20poly1305",
		"null-sha1":                         "null sha1",
		"aes128-hmac_sha2_384-ecp_521+dh21+dh999": "aes128 sha384 ecp521 ecp521 dh999",
	} {
		if got := strings.Join(spellings(text, proposalKind{libreswan: true}), " "); got != want {
			t.Errorf("%s is %s", text, got)
		}
	}
}

func TestSelectors(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.0.0/16":            "10.1.0.0/16",
		"10.1.0.0/255.255.252.0": "10.1.0.0/22",
		"10.1.0.0/16/tcp":        "10.1.0.0/16[tcp]",
		"10.1.0.0/16/tcp/22":     "10.1.0.0/16[tcp/22]",
		"2001:db8::/32/17":       "2001:db8::/32[17]",
		"%dynamic":               "dynamic",
		"%dynamic[udp/l2tp]":     "dynamic[udp/l2tp]",
		"0/0":                    "0.0.0.0/0",
		"192.0.2.1":              "192.0.2.1",
	} {
		if got := selectorOf(text); got != want {
			t.Errorf("%s is %s", text, got)
		}
	}
	for text, want := range map[string]string{
		"10.0.0.0/8[icmp/8]":      "10.0.0.0/8[icmp/8-8]",
		"10.0.0.0/8[icmp]":        "10.0.0.0/8[icmp]",
		"::/0[ipv6-icmp/128]":     "::/0[ipv6-icmp/128-128]",
		"10.0.0.0/8[tcp/8]":       "10.0.0.0/8[tcp/8]",
		"10.0.0.0/8[icmp/1-2049]": "10.0.0.0/8[icmp/1-2049]",
	} {
		if got := swanPorts(text); got != want {
			t.Errorf("%s is %s", text, got)
		}
	}
}

func TestRecognise(t *testing.T) {
	for text, want := range map[string]string{
		"connections {\n}\n":                      StrongSwan,
		"# IPSec Tunnel #1 {\nconn a\n\tleft=x\n": StrongSwan + " ipsec.conf",
		"config setup\nconn a\n\tikev2=yes\n":     Libreswan + " ipsec.conf",
		"conn a\n\tike=aes256-sha2;dh14\n":        Libreswan + " ipsec.conf",
		"conn a\n\trightsubnets=x\n":              Libreswan + " ipsec.conf",
		"words\nIPSec Tunnel #1\n====\nconn a\n":  AWS,
		"":                                        "",
		"[[peer]]\nname = \"a\"\n":                "",
	} {
		from, sections := recognise(text)
		if sections {
			from += " ipsec.conf"
		}
		if from != want {
			t.Errorf("%q is of %q, not %q", text, from, want)
		}
	}
}

// TestBounds gives sources that grow beyond reason when they are read.
func TestBounds(t *testing.T) {
	doubling := "a0 { x = y }\n"
	for i := range 40 {
		doubling += fmt.Sprintf("a%d { l : a%d { }\n r : a%d { } }\n", i+1, i, i)
	}
	loop := "connections { c : connections { } }\na : b { }\nb : a { }\n"
	for name, files := range map[string]map[string]string{
		"deep":     {"x.conf": strings.Repeat("s {\n", 10_000)},
		"keys":     {"x.conf": "s {\n" + strings.Repeat("k { }\n", maxKeys) + "}\n"},
		"doubling": {"x.conf": doubling + "connections { c : a40 { } }\n"},
		"loop":     {"x.conf": loop},
		"itself":   {"x.conf": "include x.conf\n"},
		"each":     {"x.conf": "include y.conf\n", "y.conf": "include x.conf\ninclude x.conf\n"},
		"conns":    {"x.conf": "conn a\n" + strings.Repeat("\talso=a\n", maxKeys)},
		"include":  {"x.conf": "conn a\n\tleft=x\ninclude x.conf\n"},
		"long":     {"x.conf": strings.Repeat("#", maxText+1)},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			start := time.Now()
			tunnel, err := Import(root, "x.conf", Options{From: StrongSwan})
			if err == nil {
				t.Errorf("it gives\n%s", tunnel.Text)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it takes %v", took)
			}
			var bad *Error
			if name != "long" && !errors.As(err, &bad) {
				t.Errorf("%T: %v", err, err)
			}
		})
	}
}
