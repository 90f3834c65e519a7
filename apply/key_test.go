package apply

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestKeyIsHidden(t *testing.T) {
	sa := SA{Encryption: Algorithm{Name: AESCBC, Key: Key("0123456789abcdef")}, Integrity: Algorithm{Name: HMACSHA256, Key: Key("secretsecretsecretsecretsecretse")}}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb, sa)
		fmt.Fprintf(&out, verb, sa.Integrity.Key)
		fmt.Fprintf(&out, verb, &sa)
	}
	j, err := json.Marshal(sa)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "sa", sa, "key", sa.Encryption.Key)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "sa", sa, "key", sa.Encryption.Key)
	out.WriteString(sa.InstallCommand())
	for _, leak := range []string{"0123", "secret", "30313233", "736563", "MDEyMz", "48 49 50", "c2VjcmV0"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q in output", leak)
		}
	}
	sa.Encryption.Key.Wipe()
	if !bytes.Equal(sa.Encryption.Key, make([]byte, 16)) {
		t.Error("not wiped")
	}
}

func TestCheckAlgorithms(t *testing.T) {
	key := func(n int) Key { return make(Key, n) }
	for _, c := range []struct {
		encryption string
		keyLen     int
		integrity  string
		intLen     int
		ok         bool
	}{
		{AESGCM16, 20, "", 0, true},
		{AESGCM16, 36, "", 0, true},
		{AESGCM16, 16, "", 0, false}, // without salt
		{AESGCM16, 20, HMACSHA256, 32, false},
		{ChaCha20Poly1305, 36, "", 0, true},
		{AESCBC, 16, HMACSHA256, 32, true},
		{AESCBC, 32, HMACSHA384, 48, true},
		{AESCBC, 32, HMACSHA512, 64, true},
		{AESCBC, 32, HMACSHA512, 32, false},
		{AESCBC, 16, "", 0, false},
		{AESCBC, 16, AESCBC, 16, false},
		{HMACSHA256, 32, HMACSHA256, 32, false},
		{"3des", 24, HMACSHA256, 32, false},
	} {
		sa := SA{Encryption: Algorithm{c.encryption, key(c.keyLen)}, Integrity: Algorithm{c.integrity, key(c.intLen)}}
		if err := sa.CheckAlgorithms(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
