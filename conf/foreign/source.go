package foreign

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Bounds of a source: some thousand connections.
const (
	maxText  = 1 << 20 // of one file, octets
	maxFiles = 64      // that it includes
	maxKeys  = 20_000  // in all, those that are inherited counted each time
	maxDepth = 16      // of includes, and of sections
)

// A source is a folder with configuration files.
type source struct {
	root  fs.FS
	dir   string   // its absolute path, if that is known
	files []string // that were read, in this order
	keys  int      // that were read
}

// errTooMany is a source beyond the bounds.
var errTooMany = errors.New("this is more than a configuration has")

// count counts keys, and fails beyond the bound.
func (s *source) count(n int) error {
	if s.keys += n; s.keys > maxKeys {
		return fmt.Errorf("%w: %d keys", errTooMany, maxKeys)
	}
	return nil
}

// open reads a file of the folder.
func (s *source) open(name string) (string, error) {
	if len(s.files) >= maxFiles {
		return "", fmt.Errorf("%w: %d files", errTooMany, maxFiles)
	}
	text, err := s.peek(name)
	if err == nil {
		s.files = append(s.files, name)
	}
	return text, err
}

// peek is open for a file that is no configuration, such as a key.
func (s *source) peek(name string) (string, error) {
	info, err := fs.Stat(s.root, name) // a pipe would be waited for
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", name)
	}
	f, err := s.root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxText {
		return "", fmt.Errorf("%s is longer than %d octets", name, maxText)
	}
	return strings.TrimPrefix(string(data), "\ufeff"), nil
}

// rank is the place of a file in the order in which they were read.
func (s *source) rank(name string) int { return slices.Index(s.files, name) }

// below is the path in the folder of a file that another one names; empty for one
// outside.
func (s *source) below(from, name string) string {
	if path.IsAbs(name) {
		rest, ok := strings.CutPrefix(path.Clean(name), strings.TrimSuffix(s.dir, "/")+"/")
		if s.dir == "" || !ok {
			return ""
		}
		return rest
	}
	name = path.Join(path.Dir(from), name)
	if !fs.ValidPath(name) {
		return ""
	}
	return name
}

// include reads what an include of a file stands for and gives each file to use.
func (im *importer) include(at place, depth int, pattern string, use func(name, text string) error) error {
	pattern = strings.Trim(pattern, `"`)
	inside := im.below(at.file, pattern)
	if inside == "" {
		im.remark(at, "include", "%s is outside of the folder of the first file, and was not read; import it by itself", pattern)
		return nil
	}
	names, err := fs.Glob(im.root, inside)
	switch {
	case err != nil:
		im.remark(at, "include", "%q is no pattern", pattern)
		return nil
	case len(names) == 0 && strings.ContainsAny(pattern, "*?["):
		return nil
	case len(names) == 0:
		im.remark(at, "include", "there is no %s, so nothing of it is here", pattern)
		return nil
	case depth >= maxDepth:
		return refuse(at, "include", "files include each other more than %d deep", maxDepth)
	}
	for _, name := range names {
		text, err := im.open(name)
		if errors.Is(err, errTooMany) {
			return refuse(at, "include", "%v", err)
		}
		if err != nil {
			im.remark(at, "include", "%s was not read: %v", name, pathless(err))
			continue
		}
		if err := use(name, text); err != nil {
			return err
		}
	}
	return nil
}

// pathless is an error without the path that is said already.
func pathless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
