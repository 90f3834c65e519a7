package foreign

import "strings"

// swanSecrets reads the pre-shared keys of a swanctl.conf. Its other secrets
// are the passwords of keys, of EAP and XAuth, and tokens.
func (im *importer) swanSecrets(s *section) []secret {
	if s == nil {
		return nil
	}
	var list []secret
	for _, b := range s.sections {
		kind := strings.TrimRight(b.name, "0123456789")
		if before, _, ok := strings.Cut(b.name, "-"); ok {
			kind = before
		}
		switch kind {
		case "ike":
		case "eap", "xauth", "ntlm":
			im.remark(b.at, "secrets."+b.name, "%s", noEAP)
			continue
		case "ppk":
			im.remark(b.at, "secrets."+b.name, "%s", noPPK)
			continue
		case "private", "rsa", "ecdsa", "pkcs8":
			im.remark(b.at, "secrets."+b.name, "a key file has no password here: openssl pkey -in FILE -out local.key takes it off")
			continue
		default:
			im.remark(b.at, "secrets."+b.name, "this kind of secret is not there; it was left out")
			continue
		}
		one := secret{at: b.at}
		for _, e := range b.entries {
			switch {
			case e.key == "secret":
				one.key, one.at = e.value, e.at
				if !plain(e.value) {
					one.key = secretText(e.value)
				}
			case strings.HasPrefix(e.key, "id"):
				one.owners = append(one.owners, e.value)
			}
		}
		list = append(list, one)
	}
	return list
}
