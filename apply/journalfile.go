package apply

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// record is one line of the journal: something that Undo has to remove, or, with
// Gone, that it need not any more. Exactly one of the pointers is set.
type record struct {
	Gone   bool         `json:"gone,omitempty"`
	Alloc  *allocation  `json:"alloc,omitempty"`
	SA     *association `json:"sa,omitempty"`
	Policy *Policy      `json:"policy,omitempty"`
}

// allocation is an AllocSPI whose outcome is not known.
type allocation struct {
	ReqID    uint32
	Src, Dst netip.Addr
}

// association is an SA, or a reservation.
type association struct {
	SAID
	ReqID uint32
}

// policyID is what tells two policies of a journal apart.
type policyID struct {
	Selector
	Guard bool
	IfID  uint32
}

// key is the same for records about the same thing; nil: about nothing.
func (r record) key() any {
	switch {
	case r.Alloc != nil:
		return *r.Alloc
	case r.SA != nil:
		return r.SA.SAID
	case r.Policy != nil:
		return policyID{r.Policy.Selector, r.Policy.Guard, r.Policy.IfID}
	}
	return nil
}

// records are those that are live, by key.
type records struct {
	byKey map[any]numbered
	next  int
}

// numbered is a record and its place in the order in which they were made.
type numbered struct {
	record
	place int
}

// replay takes in one more record. A policy that is renewed moves to the end,
// behind the SA it was switched to, so that it is removed before that; a guard
// stays in front of what it guards.
func (l *records) replay(r record) {
	key := r.key()
	if r.Gone {
		delete(l.byKey, key)
		return
	}
	place := l.next
	if old, ok := l.byKey[key]; ok && r.Policy != nil && r.Policy.Guard {
		place = old.place
	}
	l.byKey[key] = numbered{r, place}
	l.next++
}

func (l *records) has(key any) bool {
	_, ok := l.byKey[key]
	return ok
}

// list is all of them, in their order.
func (l *records) list() []record {
	ordered := slices.SortedFunc(maps.Values(l.byKey), func(a, b numbered) int { return a.place - b.place })
	list := make([]record, 0, len(ordered))
	for _, n := range ordered {
		list = append(list, n.record)
	}
	return list
}

// compactAt is the least size at which the journal is written anew, without what
// is gone: a rekey adds about a kilobyte.
const compactAt = 64 << 10

// journalFile appends lines of JSON, each with one write. It does not sync: what
// is in the page cache survives the death of the process, and the death of the
// kernel takes along what the journal names.
type journalFile struct {
	path  string
	file  *os.File // nil: to be opened
	size  int
	limit int // size at which it is written anew
}

// openJournalFile reads what is recorded and writes it anew, which also gets rid
// of a torn last line.
func openJournalFile(path string) (*journalFile, *records, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	live, err := parseJournal(b)
	if err != nil {
		return nil, nil, fmt.Errorf("journal %s: %w", path, err)
	}
	j := &journalFile{path: path, limit: compactAt}
	if len(b) > 0 {
		if err := j.rewrite(live); err != nil {
			return nil, nil, err
		}
	}
	return j, live, nil
}

// parseJournal replays the lines. The last one is whole only if it has its
// newline; if not, what it announces has not been done.
func parseJournal(b []byte) (*records, error) {
	live := &records{byKey: map[any]numbered{}}
	for n := 1; ; n++ {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			return live, nil
		}
		b = rest
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if r.key() == nil {
			return nil, fmt.Errorf("line %d: nothing recorded", n)
		}
		live.replay(r)
	}
}

// append writes one line; live is what a rewritten journal has besides.
func (j *journalFile) append(r record, live *records) error {
	if j.size > j.limit {
		if err := j.rewrite(live); err != nil {
			return err
		}
	}
	if j.file == nil {
		f, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		j.file = f
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	n, err := j.file.Write(append(line, '\n'))
	if err != nil {
		// Part of a line must not stay in front of the next one.
		if n > 0 {
			err = errors.Join(err, j.rewrite(live))
		}
		return fmt.Errorf("journal: %w", err)
	}
	j.size += n
	return nil
}

// rewrite replaces the file in one step by one with only what is live.
func (j *journalFile) rewrite(live *records) error {
	var b bytes.Buffer
	for _, r := range live.list() {
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		b.Write(append(line, '\n'))
	}
	f, err := os.OpenFile(j.temporary(), os.O_WRONLY|os.O_TRUNC|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("journal: %w", err)
	}
	_ = j.close() // the old file; the next append opens the new one
	j.size = b.Len()
	j.limit = max(compactAt, 2*j.size)
	return nil
}

// temporary is what a rewrite that was cut short leaves; the next one replaces it.
func (j *journalFile) temporary() string { return j.path + ".new" }

// discard removes the file.
func (j *journalFile) discard() error {
	err := j.close()
	for _, name := range []string{j.path, j.temporary()} {
		if rerr := os.Remove(name); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	j.size = 0
	return err
}

func (j *journalFile) close() error {
	if j.file == nil {
		return nil
	}
	f := j.file
	j.file = nil
	return f.Close()
}
