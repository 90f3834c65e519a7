package foreign

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"ipsec-quick/conf"
)

// A settingsWriter writes strongSwan's format.
type settingsWriter struct {
	strings.Builder
	depth int
}

func (w *settingsWriter) indent() { w.WriteString(strings.Repeat("    ", w.depth)) }

// set writes a key; an empty value is none.
func (w *settingsWriter) set(key, value string) {
	if value != "" {
		w.indent()
		fmt.Fprintf(w, "%s = %s\n", key, value)
	}
}

// section writes a section.
func (w *settingsWriter) section(name string, content func()) {
	w.indent()
	w.WriteString(name + " {\n")
	w.depth++
	content()
	w.depth--
	w.indent()
	w.WriteString("}\n")
}

// swanQuote is a value that may hold anything.
func swanQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// swanValue is a value in quotes where it needs them.
func swanValue(s string) string {
	if strings.ContainsAny(s, " \t#{}=\"\\,:") {
		return swanQuote(s)
	}
	return s
}

// farIfID is the interface ID of the far end's device, one that no other is likely
// to have.
const farIfID = "4500"

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int64(d/time.Second)) }

// swanctl is the far end's swanctl.conf.
func (x *far) swanctl() (string, error) {
	p := x.peer
	w := &settingsWriter{}
	fmt.Fprintf(w, "# %s\n# For a file in /etc/swanctl/conf.d, mode 0600; then: swanctl --load-all\n", x.heading())
	own, ours := x.publicKeys()
	method := "psk"
	if ours != nil {
		method = "pubkey"
		if err := x.swanKeys(w, own, ours); err != nil {
			return "", err
		}
	}
	w.WriteByte('\n')
	w.section("connections", func() {
		w.section(x.name, func() {
			w.set("version", "2")
			w.set("remote_addrs", x.endpoint)
			if x.tunnel.Port != 500 {
				w.set("remote_port", strconv.Itoa(int(x.tunnel.Port)))
			}
			w.set("proposals", strings.Join(proposals(p.IKE.Proposals), ", "))
			w.set("rekey_time", seconds(p.IKE.Soft))
			w.set("over_time", seconds(p.IKE.Hard-p.IKE.Soft))
			if p.IKE.DPD > 0 {
				w.set("dpd_delay", seconds(p.IKE.DPD))
			}
			if p.IKE.Encap == conf.EncapYes {
				w.set("encap", "yes")
			}
			if p.IKE.Fragment == 0 {
				w.set("fragmentation", "no")
			}
			w.set("mobike", "no")
			if x.routed() {
				w.set("if_id_in", farIfID)
				w.set("if_id_out", farIfID)
				x.notes = append(x.notes, fmt.Sprintf("traffic gets into the tunnel there by a device and its routes: ip link add %s type xfrm if_id %s", x.name, farIfID))
			}
			if x.starts {
				w.set("keyingtries", "0")
			}
			w.section("local", func() {
				w.set("auth", method)
				w.set("id", swanValue(spellID(x.ourID)))
				if ours != nil {
					w.set("pubkeys", x.name+"-local.pem")
				}
			})
			w.section("remote", func() {
				w.set("auth", method)
				w.set("id", swanValue(spellID(x.theirID)))
				if ours != nil {
					w.set("pubkeys", x.name+"-remote.pem")
				}
			})
			w.section("children", func() { w.section("net", func() { x.swanChild(w) }) })
		})
	})
	if ours == nil {
		w.section("secrets", func() {
			w.section("ike-"+x.name, func() {
				if !x.ourID.Empty() && !x.theirID.Empty() {
					w.set("id-local", swanValue(spellID(x.ourID)))
					w.set("id-remote", swanValue(spellID(x.theirID)))
				}
				secret := x.secret
				if secret == "" {
					secret = x.placeholder()
				}
				w.set("secret", swanQuote(secret))
			})
		})
	}
	if p.Endpoint.Port != 500 {
		x.notes = append(x.notes, fmt.Sprintf("the far end's port for IKE is %d: write charon.port = %d into its strongswan.conf", p.Endpoint.Port, p.Endpoint.Port))
	}
	return w.String(), nil
}

// swanKeys are the raw public keys, for files of their own, as comments.
func (x *far) swanKeys(w *settingsWriter, own, ours any) error {
	for _, k := range []struct {
		what, file string
		key        any
	}{
		{"The far end's public key, whose private one is in private/", x.name + "-local.pem", own},
		{"Our public key", x.name + "-remote.pem", ours},
	} {
		lines, err := pemLines(k.key)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "#\n# %s, is /etc/swanctl/pubkey/%s:\n#\n", k.what, k.file)
		for _, line := range lines {
			fmt.Fprintf(w, "# %s\n", line)
		}
	}
	x.notes = append(x.notes, "the public keys are comments at the top: each is a file of its own")
	return nil
}

func (x *far) swanChild(w *settingsWriter) {
	p := x.peer
	w.set("local_ts", strings.Join(selectors(p.RemoteTS, swanSelector), ", "))
	w.set("remote_ts", strings.Join(selectors(p.LocalTS, swanSelector), ", "))
	w.set("esp_proposals", strings.Join(proposals(p.ESP.Proposals), ", "))
	if p.Mode == conf.ModeTransport {
		w.set("mode", "transport")
	}
	l := p.Lifetime
	if l.HardTime > 0 {
		w.set("rekey_time", seconds(l.SoftTime))
		w.set("life_time", seconds(l.HardTime))
		w.set("rand_time", seconds(time.Duration(float64(l.SoftTime)*l.Jitter)))
	} else {
		w.set("rekey_time", "0")
		w.set("life_time", "0")
	}
	w.set("rekey_bytes", counted(l.SoftBytes))
	w.set("life_bytes", counted(l.HardBytes))
	w.set("rekey_packets", counted(l.SoftPackets))
	w.set("life_packets", counted(l.HardPackets))
	if l.HardUse > 0 {
		x.notes = append(x.notes, "lifetime.use has no key there, and was left out")
	}
	if p.ESP.ReplayWindow != 32 {
		w.set("replay_window", strconv.FormatUint(uint64(p.ESP.ReplayWindow), 10))
	}
	if x.starts {
		w.set("start_action", "start")
		w.set("close_action", "start")
		w.set("dpd_action", "restart")
	}
}

// swanSelector is a selector as strongSwan spells it. Types of ICMP are numbers
// with the code there, and the names of protocols are those of the far end's
// /etc/protocols.
func swanSelector(ts conf.TS) string {
	s, _, _ := strings.Cut(ts.String(), "[")
	if ts.Protocol == 0 {
		return s
	}
	s += "[" + strconv.Itoa(int(ts.Protocol))
	switch {
	case ts.FromPort == 0 && ts.ToPort == 65535:
	case ts.FromPort == ts.ToPort:
		s += fmt.Sprintf("/%d", ts.FromPort)
	default:
		s += fmt.Sprintf("/%d-%d", ts.FromPort, ts.ToPort)
	}
	return s + "]"
}
