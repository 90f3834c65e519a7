package userspace

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A table is a file of records of one kind, mapped into memory. What is stored in
// a record is in the file at once, in the kernel's memory: it outlives this
// process however that ends, though not the boot.
//
// The file grows by chunks, each a mapping of its own, so that a record never
// moves. It is made with the first record. A table is for one goroutine at a time.
type table[T any] struct {
	path   string
	file   *os.File // nil: there is none
	chunks [][]byte
	slots  []*slot[T]
	free   []*slot[T]
	order  uint64 // the highest there is
	boot   [36]byte
}

// newTable is the table at a path. Nothing is opened.
func newTable[T any](path string) table[T] { return table[T]{path: path, boot: bootID()} }

// A slot is the place of one record.
type slot[T any] struct {
	state atomic.Uint32
	_     uint32
	// order tells which of two records is newer. What is changed is written anew
	// and the old record freed, so that a kill in between leaves one or both, and
	// none that is half changed.
	order uint64
	body  T
}

// States of a slot. Zero is free, or being written.
const (
	slotLarval    = 1
	slotInstalled = 2
)

const (
	// headerLen is that of the file's header, a page.
	headerLen = 4096
	// chunkRecords are the records of a chunk.
	chunkRecords = 16
	// maxChunks bounds what is mapped of a file: a host has some hundred thousand
	// SAs at most.
	maxChunks = 1 << 14
)

// magic is what the file begins with. Layout, size of a record and boot follow.
const magic = "ipsec-quick esp\n"

// bootID tells boots apart: what was written before a power failure may be older
// than what was sent. It is zero where it cannot be read, as in a program that took
// the place of one that had given up its rights; that has seen no other boot.
func bootID() (id [36]byte) {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	copy(id[:], text)
	return id
}

// header is what a file of this boot begins with.
func (t *table[T]) header() []byte {
	b := binary.NativeEndian.AppendUint32([]byte(magic), layout)
	b = binary.NativeEndian.AppendUint64(b, uint64(t.slotSize()))
	return append(b, t.boot[:]...)
}

// ours reports whether a file begins as one of this boot does.
func (t *table[T]) ours(header []byte) bool {
	want := t.header()
	if t.boot == ([36]byte{}) {
		want, header = want[:len(want)-len(t.boot)], header[:len(want)-len(t.boot)]
	}
	return bytes.Equal(header, want)
}

// slotSize and chunkSize are in octets; a chunk is whole pages, as a mapping is.
func (t *table[T]) slotSize() uintptr { return unsafe.Sizeof(slot[T]{}) }

func (t *table[T]) chunkSize() int {
	page := os.Getpagesize()
	return (int(t.slotSize())*chunkRecords + page - 1) &^ (page - 1)
}

// errLayout: the file is another version's, another boot's or not ours at all.
var errLayout = errors.New("it has another layout, or is from another boot")

// open maps what is at the path, if anything. An error that wraps errLayout leaves
// an empty table, and the file is gone.
func (t *table[T]) open() error {
	f, err := os.OpenFile(t.path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	t.file = f
	n, err := t.chunksOf(f)
	if err != nil {
		err = fmt.Errorf("%s: %w", t.path, err)
		if errors.Is(err, errLayout) {
			return errors.Join(err, t.discard())
		}
		return errors.Join(err, t.close())
	}
	// What is behind the last whole chunk was never used.
	if err := f.Truncate(headerLen + int64(n)*int64(t.chunkSize())); err != nil {
		return errors.Join(err, t.close())
	}
	for range n {
		if err := t.mapChunk(); err != nil {
			return errors.Join(err, t.close())
		}
	}
	return nil
}

// chunksOf looks at the header and counts whole chunks.
func (t *table[T]) chunksOf(f *os.File) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	got := make([]byte, len(t.header()))
	if _, err := f.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if !info.Mode().IsRegular() || !t.ours(got) {
		return 0, errLayout
	}
	return int(min(max(0, info.Size()-headerLen)/int64(t.chunkSize()), maxChunks)), nil
}

// mapChunk maps the next chunk, which the file has.
func (t *table[T]) mapChunk() error {
	size := t.chunkSize()
	offset := headerLen + int64(len(t.chunks))*int64(size)
	b, err := unix.Mmap(int(t.file.Fd()), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap "+t.path, err)
	}
	_ = unix.Mlock(b) // keys should not be swapped out; without the right to it they may
	t.chunks = append(t.chunks, b)
	for i := range chunkRecords {
		last := uintptr(chunkRecords-1-i) * t.slotSize() // the first is used first
		s := (*slot[T])(unsafe.Pointer(&b[last]))
		t.slots = append(t.slots, s)
		if s.state.Load() == 0 {
			t.recycle(s)
		}
		t.order = max(t.order, s.order)
	}
	return nil
}

// peek reads the records of a table that another process has open. Those that it
// is changing may be half old.
func (t *table[T]) peek() ([]*slot[T], error) {
	f, err := os.OpenFile(t.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := t.chunksOf(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.path, err)
	}
	var found []*slot[T]
	for i := range n {
		for j := range chunkRecords {
			s := new(slot[T])
			b := unsafe.Slice((*byte)(unsafe.Pointer(s)), t.slotSize())
			at := headerLen + int64(i)*int64(t.chunkSize()) + int64(j)*int64(t.slotSize())
			if _, err := f.ReadAt(b, at); err != nil {
				return found, nil // it has just been removed
			}
			if s.state.Load() != 0 {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

// used are the records that were committed, in the order in which they were.
func (t *table[T]) used() []*slot[T] {
	var used []*slot[T]
	for _, s := range t.slots {
		if s.state.Load() != 0 {
			used = append(used, s)
		}
	}
	slices.SortFunc(used, func(a, b *slot[T]) int { return cmp.Compare(a.order, b.order) })
	return used
}

// take returns a free slot, zeroed. It has to be committed to last.
func (t *table[T]) take() (*slot[T], error) {
	if len(t.free) == 0 {
		if err := t.grow(); err != nil {
			return nil, err
		}
	}
	s := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.order++
	s.order = t.order
	return s, nil
}

// commit makes a record count.
func (s *slot[T]) commit(state uint32) { s.state.Store(state) }

// recycle wipes a slot, and makes it free.
func (t *table[T]) recycle(s *slot[T]) {
	s.state.Store(0)
	s.order = 0
	clear(unsafe.Slice((*byte)(unsafe.Pointer(&s.body)), unsafe.Sizeof(s.body)))
	t.free = append(t.free, s)
}

// grow adds a chunk. It is written first: memory that the file system has not
// given yet would be an error of a later store, which ends the process.
func (t *table[T]) grow() error {
	if len(t.chunks) >= maxChunks {
		return fmt.Errorf("%s: there are %d records", t.path, len(t.slots))
	}
	if t.file == nil {
		if err := t.create(); err != nil {
			return err
		}
	}
	size := t.chunkSize()
	if _, err := t.file.WriteAt(make([]byte, size), headerLen+int64(len(t.chunks)*size)); err != nil {
		return err
	}
	return t.mapChunk()
}

// create makes the file with its header, in one step for whoever opens it.
func (t *table[T]) create() error {
	name := t.path + ".new"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	b := make([]byte, headerLen)
	copy(b, t.header())
	if _, err = f.Write(b); err == nil {
		err = os.Rename(name, t.path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(name))
	}
	t.file = f
	return nil
}

// discard removes the file. No record may be in use.
func (t *table[T]) discard() error {
	if t.file == nil {
		return nil
	}
	for _, s := range t.slots {
		if s.state.Load() != 0 {
			t.recycle(s)
		}
	}
	err := t.close()
	if rerr := os.Remove(t.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// close unmaps the file, which stays.
func (t *table[T]) close() error {
	var err error
	for _, b := range t.chunks {
		err = errors.Join(err, unix.Munmap(b))
	}
	if t.file != nil {
		err = errors.Join(err, t.file.Close())
	}
	t.file, t.chunks, t.slots, t.free, t.order = nil, nil, nil, nil, 0
	return err
}
