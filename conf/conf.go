// Package conf reads a tunnel file: strict TOML in, a validated Tunnel out.
//
// Everything that is wrong with a file is reported at once, each error with
// its line and column, the key, and what to write instead. What a Tunnel says
// is complete: defaults are filled in, the peers' overrides merged, secrets
// read and keys parsed. Nothing is printed, and no error holds a secret.
package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Dir is where tunnels are looked for by name.
const Dir = "/etc/ipsec-quick"

// maxFile bounds a tunnel file: some thousand peers.
const maxFile = 256 << 10

// names are those that can be an interface, a folder and a file at once.
var names = regexp.MustCompile(`^[a-zA-Z0-9_=+.-]{1,15}$`)

const nameRule = "a name is 1 to 15 of the characters a-z A-Z 0-9 _ = + . -"

// Find is the file of a tunnel and the tunnel's name. An argument with a
// slash, or that ends in .toml, is the file itself; anything else is the name
// of a file in Dir. It does not look whether the file exists.
func Find(nameOrPath string) (path, name string, err error) {
	if strings.Contains(nameOrPath, "/") || strings.HasSuffix(nameOrPath, ".toml") {
		name, err = nameOf(nameOrPath)
		return nameOrPath, name, err
	}
	if err := checkName(nameOrPath); err != nil {
		return "", "", err
	}
	return filepath.Join(Dir, nameOrPath+".toml"), nameOrPath, nil
}

// Files are the tunnel files in a folder, by the tunnels' names. A folder that is
// not there has none.
func Files(folder string) (map[string]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files := map[string]string{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".toml") || e.IsDir() {
			continue
		}
		if name, err := nameOf(e.Name()); err == nil {
			files[name] = filepath.Join(folder, e.Name())
		}
	}
	return files, nil
}

// nameOf is the tunnel's name by its file.
func nameOf(path string) (string, error) {
	name := strings.TrimSuffix(filepath.Base(path), ".toml")
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("the file %s names its tunnel: %w; rename it", path, err)
	}
	return name, nil
}

func checkName(name string) error {
	if !names.MatchString(name) || name == "." || name == ".." {
		return fmt.Errorf("%q is no tunnel name: %s", name, nameRule)
	}
	return nil
}

// Load reads a tunnel file and the files of secrets that it names. The error
// is Errors when the file is wrong, and wraps that of os when it cannot be
// read.
func Load(path string) (*Tunnel, error) {
	name, err := nameOf(path)
	if err != nil {
		return nil, Errors{{File: path, Message: err.Error()}}
	}
	f, err := readFile(path, maxFile)
	if errors.Is(err, errTooLong) {
		return nil, Errors{{File: path, Message: err.Error()}}
	}
	if err != nil {
		if hint := deniedHint(err); hint != "" {
			err = fmt.Errorf("%w; %s", err, hint)
		}
		return nil, fmt.Errorf("read the tunnel file: %w", err)
	}
	return parse(name, f, readFile)
}
