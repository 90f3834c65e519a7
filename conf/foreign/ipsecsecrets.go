package foreign

import (
	"errors"
	"io/fs"
	"regexp"
	"strings"
)

// separator stands between the owners of a secret and the secret.
var separator = regexp.MustCompile(`(?:^|[ \t]):|:[ \t]`)

// ipsecSecrets reads the pre-shared keys of an ipsec.secrets, if there is one.
func (im *importer) ipsecSecrets(name string) ([]secret, error) {
	text, err := im.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		im.remark(place{file: name}, "", "this file was not read: %v", pathless(err))
		return nil, nil
	}
	return im.parseSecrets(nil, name, text, 0)
}

// parseSecrets reads lines "OWNER OWNER : PSK "KEY"", which may go on in indented
// ones.
func (im *importer) parseSecrets(list []secret, name, text string, depth int) ([]secret, error) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		at, line := place{name, i + 1}, strings.TrimSpace(lines[i])
		if line == "" || line[0] == '#' {
			continue
		}
		for i+1 < len(lines) && strings.TrimLeft(lines[i+1], " \t") != lines[i+1] {
			i++
			line += " " + strings.TrimSpace(lines[i])
		}
		if err := im.count(1); err != nil {
			return nil, refuse(at, "", "%v", err)
		}
		if pattern, ok := strings.CutPrefix(line, "include "); ok {
			err := im.include(at, depth, strings.TrimSpace(pattern), func(name, text string) (err error) {
				list, err = im.parseSecrets(list, name, text, depth+1)
				return err
			})
			if err != nil {
				return nil, err
			}
			continue
		}
		split := separator.FindStringIndex(line)
		if split == nil {
			im.remark(at, "", "this line has no : between whose the secret is and the secret; it was left out")
			continue
		}
		owners, rest := line[:split[0]], strings.TrimSpace(line[split[1]:])
		kind, value, _ := strings.Cut(strings.ReplaceAll(rest, "\t", " "), " ")
		switch strings.ToUpper(kind) {
		case "PSK":
			list = append(list, secret{strings.Fields(strings.Trim(owners, " ,")), secretValue(strings.TrimSpace(value)), at})
		case "EAP", "XAUTH", "NTLM":
			im.remark(at, kind, "%s", noEAP)
		case "PPKS", "PPK":
			im.remark(at, kind, "%s", noPPK)
		case "RSA", "ECDSA", "PKCS8", "BLISS", "P12", "PIN":
			im.remark(at, kind, "the private key was not carried over: put it into the file local.key beside the tunnel file, in PEM and without a password, if a peer has a public_key")
		default:
			im.remark(at, "", "this kind of secret is not there; it was left out")
		}
	}
	return list, nil
}

// secretValue is the key of a line: text in quotes, or 0x and 0s as they are.
func secretValue(s string) string {
	for _, quote := range []string{`"`, "'"} {
		if text, ok := strings.CutPrefix(s, quote); ok {
			text, _, _ = strings.Cut(text, quote)
			return secretText(text)
		}
	}
	s, _, _ = strings.Cut(s, " ")
	if !plain(s) {
		return secretText(s)
	}
	return s
}
