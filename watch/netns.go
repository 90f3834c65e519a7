package watch

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errElsewhere: what a dead loop left can only be undone where it was done.
var errElsewhere = errors.New("its loop has died, and ran in another network namespace: go on there")

// networkNamespace names the namespace that this process is in.
func networkNamespace() string { return namespaceAt("/proc/self/ns/net") }

// namespaceAt names a namespace by a file that stands for it; empty: none.
func namespaceAt(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// elsewhere reports whether a dead loop's namespace is gone, with all that was
// installed in it: a container was started anew with an old /run. The error is
// errElsewhere if the namespace is another one, and there.
func elsewhere(f *facts) (gone bool, err error) {
	if f.Netns == networkNamespace() {
		return false, nil
	}
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/run/netns/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return false, err
		}
		for _, path := range paths {
			if namespaceAt(path) == f.Netns {
				return false, errElsewhere
			}
		}
	}
	return true, nil
}
