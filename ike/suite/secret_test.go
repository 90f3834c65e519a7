package suite

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"ipsec-quick/ike/wire"
)

// TestSecretPrints looks for the octets, in each form that a print could give them, in all that
// fmt, log/slog and encoding/json make of a secret and of what holds one.
func TestSecretPrints(t *testing.T) {
	key := Secret("Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7Zq7")[:36]
	forms := []string{"Zq7", "5a7137", "5A7137", "90 113 55", "0x5a, 0x71", "WnE3", "132 161", `Z\x`}
	c := Choice{Encr: wire.Transform{Type: wire.TransformENCR, ID: wire.EncrAESGCM16, KeyLength: 256}}
	cipher, err := NewCipher(c, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	cbc, err := NewCipher(choose(t, ike(t, "aes256-sha256-x25519"), wire.ProtocolIKE), key[:32], key[:32])
	if err != nil {
		t.Fatal(err)
	}
	ke, err := GenerateKE(wire.KECurve25519, strings.NewReader(string(key)))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{
		key, &key, []Secret{key}, map[string]Secret{"a": key},
		IKEKeys{D: key, Ei: key}, &IKEKeys{Pr: key}, ChildKeys{Ei: key},
		ke, *ke, []*PrivateKE{ke}, cipher, *cipher, cbc, *cbc,
	} {
		var all strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%c", "%U"} {
			fmt.Fprintf(&all, verb+"\n", v)
		}
		fmt.Fprintln(&all, v)
		for _, h := range []slog.Handler{slog.NewTextHandler(&all, nil), slog.NewJSONHandler(&all, nil)} {
			slog.New(h).Info("a", "secret", v)
		}
		if b, err := json.Marshal(v); err == nil {
			all.Write(b)
		}
		for _, form := range forms {
			if strings.Contains(all.String(), form) {
				t.Errorf("%T prints the key as %q", v, form)
			}
		}
	}
	if got := fmt.Sprint(ke); got != "{x25519 <hidden>}" {
		t.Errorf("a PrivateKE prints as %s", got)
	}
	text, err := key.MarshalText()
	if string(text) != redacted || err != nil || key.String() != redacted || key.GoString() != redacted {
		t.Error("the text of a secret")
	}
}

func TestSecretGob(t *testing.T) {
	type state struct {
		Keys  IKEKeys
		Empty Secret
	}
	in := state{Keys: IKEKeys{D: Secret("one"), Pr: Secret("two")}}
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(in); err != nil {
		t.Fatal(err)
	}
	var out state
	if err := gob.NewDecoder(&buf).Decode(&out); err != nil {
		t.Fatal(err)
	}
	if !sameIKE(in.Keys, out.Keys) || len(out.Empty) != 0 {
		t.Errorf("keys differ after gob: %q %q", []byte(out.Keys.D), []byte(out.Keys.Pr))
	}
}

func TestSecretEqualWipe(t *testing.T) {
	a, b := Secret("0123"), Secret("0123")
	if !a.Equal(b) || a.Equal(b[:3]) || a.Equal(Secret("0124")) || !Secret(nil).Equal(Secret{}) {
		t.Error("Equal")
	}
	a.Wipe()
	if !bytes.Equal(a, make([]byte, 4)) {
		t.Error("Wipe")
	}
}
