package conf

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ipsec-quick/ike/auth"
	"ipsec-quick/ike/suite"
)

// A file is one that was read, with what says who else can.
type file struct {
	path string
	data []byte
	mode fs.FileMode
	uid  int // owner; -1: unknown
}

// maxSecret bounds a file with a key: an RSA key of 16384 bits has 13 KB.
const maxSecret = 64 << 10

// errTooLong is a file that is longer than the limit.
var errTooLong = errors.New("the file is too long")

// readFile reads a regular file of at most limit octets, and who may read it
// from the same open file.
func readFile(path string, limit int64) (file, error) {
	// Without O_NONBLOCK a named pipe would be waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return file{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return file{}, err
	}
	if !info.Mode().IsRegular() {
		return file{}, fmt.Errorf("%s is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return file{}, err
	}
	if int64(len(data)) > limit {
		return file{}, fmt.Errorf("%w: more than %d octets", errTooLong, limit)
	}
	uid := -1
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		uid = int(stat.Uid)
	}
	return file{path, data, info.Mode(), uid}, nil
}

// deniedHint explains why not even root may read a file; "" if that is not it.
func deniedHint(err error) string {
	if !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	return "a loop that runs only reads files of its own user, in the folders that were named when it began: see Privileges in ipsec-quick(8)"
}

// exposed says who else than root and we could read a secret in the file, and
// the command against it; two empty strings: nobody.
func (f file) exposed() (problem, hint string) {
	switch {
	case f.mode.Perm()&0o077 != 0:
		return fmt.Sprintf("can be read by others (mode %04o)", f.mode.Perm()), "run: chmod 600 " + shellWord(f.path)
	case f.uid > 0 && f.uid != os.Geteuid():
		return fmt.Sprintf("belongs to user %d, who can read it", f.uid), "run: chown root " + shellWord(f.path)
	}
	return "", ""
}

// shellWord is s as a shell takes it for one word.
func shellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+=.,/@-"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// A secret file of this prefix is a credential that the service manager hands
// over, in the folder that the variable names (systemd.exec(5), LoadCredential=).
const (
	credentialPrefix    = "credential:"
	credentialsVariable = "CREDENTIALS_DIRECTORY"
)

// secretPath is the file that v names: relative to the tunnel file, or a credential.
func (d *decoder) secretPath(v value) (string, bool) {
	path, ok := v.text(`"office.psk"`)
	if !ok {
		return "", false
	}
	if strings.ContainsAny(path, "\r\n\x00") {
		v.wrong("write the name of a file that holds it", "this is no file name; the key itself may stand here")
		return "", false
	}
	credential, isCredential := strings.CutPrefix(path, credentialPrefix)
	folder := os.Getenv(credentialsVariable)
	switch {
	case !isCredential && filepath.IsAbs(path):
		return path, true
	case !isCredential:
		return filepath.Join(filepath.Dir(d.file), path), true
	case credential == "" || credential != filepath.Base(credential) || credential == "..":
		v.wrong(`write the credential's ID behind it, such as "credential:office.psk"`, "%q is no credential", path)
		return "", false
	case folder == "":
		v.wrong("its unit has LoadCredential="+credential+":FILE, see systemd in ipsec-quick(8)", "only systemd hands over the credential %s, to the unit that it starts", credential)
		return "", false
	}
	return filepath.Join(folder, credential), true
}

// secretFile is the text of the file that v names.
func (d *decoder) secretFile(v value) ([]byte, bool) {
	path, ok := d.secretPath(v)
	if !ok {
		return nil, false
	}
	d.files = append(d.files, path)
	f, err := d.open(path, maxSecret)
	var pathError *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.wrong("a relative path starts at the tunnel file's folder", "there is no file %s", path)
		return nil, false
	case errors.As(err, &pathError):
		v.wrong(deniedHint(err), "%s cannot be read: %v", path, pathError.Err)
		return nil, false
	case err != nil:
		v.wrong("", "%s cannot be used: %v", path, err)
		return nil, false
	}
	if problem, hint := f.exposed(); problem != "" {
		v.wrong(hint, "the secret file %s %s", path, problem)
		return nil, false
	}
	return f.data, true
}

// shortPSK is the length below which a pre-shared key can be guessed by one
// who recorded a handshake with a forged peer: 20 random letters and digits
// are some 119 bits.
const shortPSK = 20

// readPSKFile is the key in a file of its own, without the line's end.
func (d *decoder) readPSKFile(v value) (suite.Secret, bool) {
	data, ok := d.secretFile(v)
	if !ok {
		return nil, false
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	return v.psk(string(bytes.TrimSuffix(data, []byte("\r"))))
}

// readPSK is the key in the tunnel file itself.
func (d *decoder) readPSK(v value) (suite.Secret, bool) {
	if problem, hint := d.self.exposed(); problem != "" {
		v.wrong(hint, "this file holds a secret and %s", problem)
	}
	text, ok := v.raw.(string)
	if !ok {
		v.wrong("write it in quotes, or the name of a file with it as psk_file", "a pre-shared key is text")
		return nil, false
	}
	return v.psk(text)
}

// psk is the key that text stands for: the text itself, base64 after "0s" or
// hexadecimal after "0x", as in strongSwan's swanctl.conf.
func (v value) psk(text string) (suite.Secret, bool) {
	secret, kind, err := suite.Secret(text), "", error(nil)
	switch {
	case strings.HasPrefix(text, "0x"):
		kind = "hexadecimal"
		secret, err = hex.DecodeString(text[2:])
	case strings.HasPrefix(text, "0s"):
		kind = "base64"
		secret, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text[2:], "="))
	}
	switch {
	case err != nil:
		// The decoders' errors tell characters of the key.
		v.wrong("as with strongSwan, 0x begins hexadecimal and 0s base64; choose a key that begins otherwise", "the pre-shared key begins with %s and is not %s", text[:2], kind)
		return nil, false
	case len(secret) == 0:
		v.wrong("make one with: ipsec-quick genpsk", "the pre-shared key is empty")
		return nil, false
	case len(secret) < shortPSK:
		v.warn(v.at, "make a longer one with: ipsec-quick genpsk", "a pre-shared key of %d octets can be guessed by who records a handshake", len(secret))
	}
	return secret, true
}

// readKeyFile is our private key.
func (d *decoder) readKeyFile(v value) (crypto.Signer, bool) {
	data, ok := d.secretFile(v)
	if !ok {
		return nil, false
	}
	key, err := auth.ParsePrivateKey(data)
	if err != nil {
		v.wrong("make one with: ipsec-quick genkey", "no private key can be read from the file: %v", err)
		return nil, false
	}
	return key, true
}

// readPublicKey is the peer's raw public key.
func readPublicKey(v value) (crypto.PublicKey, bool) {
	text, ok := v.text(`"ed25519:...", as ipsec-quick pubkey prints it`)
	if !ok {
		return nil, false
	}
	if strings.Contains(text, "PRIVATE KEY") {
		v.wrong("write what ipsec-quick pubkey prints", "this is a private key; the peer's public key belongs here")
		return nil, false
	}
	key, err := auth.ParsePublicKey(strings.TrimSpace(text))
	if err != nil {
		v.wrong("write what ipsec-quick pubkey prints at the peer", "%v", err)
		return nil, false
	}
	return key, true
}
