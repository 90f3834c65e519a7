package watch

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// spellings are the ways in which a key could come out of a print.
func spellings(k string) []string {
	b := []byte(k)
	return []string{
		k, hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), base64.StdEncoding.EncodeToString(b),
		base64.RawURLEncoding.EncodeToString(b), fmt.Sprint(b), fmt.Sprintf("% x", b), fmt.Sprintf("%#v", b), fmt.Sprintf("%q", k),
	}
}
