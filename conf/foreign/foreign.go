// Package foreign reads what other IPsec programs are configured with as
// tunnel files, and writes for them what the other end of a tunnel needs.
//
// Nothing is left out in silence: each key that a tunnel file has no word for
// is a Remark with its line, and what to do instead. Sources are untrusted:
// they are bounded, nothing in them is executed, and no file is read but
// those below the folder of the first one. No Remark and no error holds a
// secret.
package foreign

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// The values of Options.From.
const (
	StrongSwan = "strongswan" // its swanctl.conf or its ipsec.conf
	Libreswan  = "libreswan"  // its ipsec.conf
	AWS        = "aws"        // the generic text for a Site-to-Site VPN connection
)

// Options say how to read a source.
type Options struct {
	From string       // StrongSwan, Libreswan or AWS; empty: by the content
	Conn string       // the one connection that is wanted; empty: all that fit into one tunnel file
	Dir  string       // the absolute path of the folder that is read; empty: not known
	Own  []netip.Addr // addresses of this host, which tell the ends of an ipsec.conf apart
}

// A Remark is what a tunnel file cannot say as the source does, or what has to
// be added to it.
type Remark struct {
	File    string // below the folder that is read
	Line    int    // from 1; 0: the file as a whole
	Key     string // as the source spells it; may be empty
	Message string // why, and what to do instead
}

// String is "swanctl.conf:12: connections.gw.vips: why; what to do instead".
func (r Remark) String() string {
	s := r.File
	if r.Line > 0 {
		s += fmt.Sprintf(":%d", r.Line)
	}
	if r.Key != "" {
		s += ": " + r.Key
	}
	return s + ": " + r.Message
}

// A Tunnel is a tunnel file made of a source.
type Tunnel struct {
	Text    string   // TOML
	Remarks []Remark // by file and line
}

// An Error is a source that no tunnel file can be made of.
type Error struct {
	Remark
	Remarks []Remark // what else there was to say
}

// Error is the remark.
func (e *Error) Error() string { return e.String() }

// Import makes a tunnel file of the file of this name in root, and of those that
// it includes. The error is an *Error, or that of reading the file.
func Import(root fs.FS, name string, o Options) (*Tunnel, error) {
	im := &importer{Options: o, source: source{root: root, dir: o.Dir}}
	t, err := im.read(name)
	im.sort()
	var bad *Error
	if errors.As(err, &bad) {
		bad.Remarks = im.remarks
	}
	if err != nil {
		return nil, err
	}
	return &Tunnel{Text: t.String(), Remarks: im.remarks}, nil
}

// A place is a line of a source.
type place struct {
	file string
	line int
}

// An importer makes one tunnel file.
type importer struct {
	Options
	source
	remarks []Remark
	names   []string // of all connections
}

// remark says what is not carried over.
func (im *importer) remark(at place, key, format string, args ...any) {
	r := Remark{at.file, at.line, key, fmt.Sprintf(format, args...)}
	if !slices.Contains(im.remarks, r) {
		im.remarks = append(im.remarks, r)
	}
}

// sort puts the remarks in the order of the files' lines.
func (im *importer) sort() {
	slices.SortStableFunc(im.remarks, func(a, b Remark) int {
		return cmp.Or(im.rank(a.File)-im.rank(b.File), cmp.Compare(a.Line, b.Line))
	})
}

func refuse(at place, key, format string, args ...any) error {
	return &Error{Remark: Remark{at.file, at.line, key, fmt.Sprintf(format, args...)}}
}

// read finds out what the file is and reads it.
func (im *importer) read(name string) (*tunnel, error) {
	text, err := im.open(name)
	if err != nil {
		return nil, err
	}
	from, sections := recognise(text)
	if im.From != "" && im.From != from {
		from, sections = im.From, sections || im.From == Libreswan
	}
	var list []*tunnel
	switch {
	case from == AWS:
		list, err = im.aws(name, text)
	case from == "":
		return nil, refuse(place{file: name}, "", "this is neither a swanctl.conf, nor an ipsec.conf, nor the generic text of AWS; say which with --from")
	case sections:
		list, err = im.ipsecConf(name, text, from == Libreswan)
	default:
		list, err = im.swanctl(name, text)
	}
	if err != nil {
		return nil, err
	}
	return im.unite(name, list)
}

// libreswanSpelling is what only its proposals have.
var libreswanSpelling = regexp.MustCompile(`[;+]|aes_|chacha20_`)

// recognise says by its content which program a file is of, and whether it has
// the sections of an ipsec.conf.
func recognise(text string) (from string, sections bool) {
	braces, libreswan := false, false
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		key, value, isKey := strings.Cut(strings.TrimSpace(line), "=")
		switch key = strings.TrimSpace(key); {
		case strings.HasPrefix(word, "IPSec") && strings.HasPrefix(rest, "Tunnel #"):
			return AWS, false
		case strings.HasPrefix(word, "#"):
		case line[0] != ' ' && line[0] != '\t' && (word == "conn" || word == "config" && strings.HasPrefix(rest, "setup")):
			sections = true
		case isKey && (slices.Contains(libreswanOnly, unsided(key)) || (key == "ike" || key == "esp") && libreswanSpelling.MatchString(value)):
			libreswan = true
		case strings.Contains(line, "{"):
			braces = true
		}
	}
	switch {
	case sections && libreswan:
		return Libreswan, true
	case sections || braces:
		return StrongSwan, sections
	}
	return "", false
}

// convert makes a tunnel of a connection, unless another one is asked for. Its
// remarks are its own until it is known to be in the tunnel file. fill says whether
// it can be there at all, and has told why not.
func (im *importer) convert(list []*tunnel, name string, at place, fill func(*tunnel) bool) []*tunnel {
	im.names = append(im.names, name)
	if im.Conn != "" && im.Conn != name {
		return list
	}
	before := im.remarks
	im.remarks = nil
	t := &tunnel{name: name, at: at}
	if !fill(t) {
		im.remarks = append(before, im.remarks...)
		return list
	}
	t.remarks, im.remarks = im.remarks, before
	return append(list, t)
}

// unite puts the connections of a source into one tunnel file, as far as they
// have our end in common.
func (im *importer) unite(name string, list []*tunnel) (*tunnel, error) {
	switch {
	case im.Conn != "" && !slices.Contains(im.names, im.Conn):
		return nil, refuse(place{file: name}, "", "there is no connection %q; there are: %s", im.Conn, strings.Join(im.names, ", "))
	case len(list) == 0:
		return nil, refuse(place{file: name}, "", "there is no connection in it that a tunnel file can be made of")
	}
	first := list[0]
	im.remarks = append(im.remarks, first.remarks...)
	for _, t := range list[1:] {
		why, p := first.apart(t), t.peers[0]
		at := slices.IndexFunc(first.peers, p.same)
		switch {
		case why != "":
			im.remark(t.at, t.name, "not in this tunnel file, for it has %s %s; import it into a file of its own with --conn %s", why, first.peers[0].name, t.name)
		case at < 0:
			first.peers = append(first.peers, p)
			for _, r := range t.remarks {
				im.remark(place{r.File, r.Line}, r.Key, "%s", r.Message)
			}
		case first.peers[at].join(p):
			im.remark(t.at, t.name, "a peer has one Child SA here: these selectors are in that of %s, and the other end needs one connection with all of them too", first.peers[at].name)
		default:
			im.remark(t.at, t.name, "not in this tunnel file: its peer is that of %s, a peer has one Child SA here, and these selectors or settings do not fit into it", first.peers[at].name)
		}
	}
	return first, nil
}
