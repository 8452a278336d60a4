// Package durabletest has a file system for tests of what must survive a crash.
package durabletest

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing/fstest"

	"github.com/mzdio/mzd/core/durable"
)

// FS is a file system in memory that forgets what was not synced when it
// crashes, as the worst of real ones do: bytes of files, and the entries of
// directories. It can be told to fail calls. It may be used concurrently.
type FS struct {
	mu    sync.Mutex
	now   map[string]*file // the entries as programs see them
	disk  map[string]*file // the entries that a crash leaves
	calls int
	dead  bool

	fail func(call int, op string) error
	hang chan struct{} // what syncs wait for; nil: they do not
}

type file struct {
	data   []byte
	synced []byte
}

// New returns an empty file system.
func New() *FS {
	return &FS{now: map[string]*file{}, disk: map[string]*file{}}
}

// ErrCrashed is what every call returns after the end of a file system.
var ErrCrashed = errors.New("the machine has crashed")

// Fail makes calls fail from now on for which f returns an error; nil: none.
// call counts all calls, and op is one of mkdir, open, read, write, sync,
// truncate, seek, close, rename, remove, readdir and syncdir. Half of a write
// that fails has happened. f is not called concurrently, and must not use the
// file system. An error that wraps [ErrCrashed] ends it.
func (m *FS) Fail(f func(call int, op string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// Hang makes syncs hang from now on, until wake is called. Whoever crashes or kills
// meanwhile finds nothing of what they were to sync, and must call it too.
func (m *FS) Hang() (wake func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	hang := make(chan struct{})
	m.hang = hang
	return sync.OnceFunc(func() { close(hang) })
}

// waitHang waits as long as syncs hang.
func (m *FS) waitHang() {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	if hang != nil {
		<-hang
	}
}

// Calls returns how many calls there were.
func (m *FS) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// Dead reports whether the file system has ended.
func (m *FS) Dead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// check counts a call and decides whether it fails. The caller holds mu.
func (m *FS) check(op string) error {
	if m.dead {
		return ErrCrashed
	}
	m.calls++
	if m.fail == nil {
		return nil
	}
	err := m.fail(m.calls, op)
	m.dead = errors.Is(err, ErrCrashed)
	return err
}

// Crash ends this file system, and returns what a new process finds: what was
// synced, and of the rest as much as chance has it.
func (m *FS) Crash(r *rand.Rand) *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	after := New()
	for name, f := range m.disk {
		data := slices.Clone(f.synced)
		// Unsynced bytes survive only behind the synced ones, and some of them
		// as garbage.
		if extra := len(f.data) - len(data); extra > 0 && strings.HasPrefix(string(f.data), string(data)) {
			data = append(data, f.data[len(data):len(data)+r.IntN(extra+1)]...)
			if n := len(data) - len(f.synced); n > 0 && r.IntN(2) == 0 {
				data[len(f.synced)+r.IntN(n)] ^= byte(1 + r.IntN(255))
			}
		}
		kept := &file{data: data, synced: slices.Clone(data)}
		after.now[name], after.disk[name] = kept, kept
	}
	return after
}

// Kill ends this file system as the death of the process alone does: the kernel
// has everything.
func (m *FS) Kill() *FS {
	after := m.Copy()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	return after
}

// Copy returns what a new process would find if this one were killed now. Both
// live on.
func (m *FS) Copy() *FS {
	after := New()
	for name, data := range m.Files() {
		after.Put(name, data)
	}
	return after
}

// Files returns a copy of what the files have, by name.
func (m *FS) Files() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := make(map[string][]byte)
	for name, f := range m.now {
		files[name] = slices.Clone(f.data)
	}
	return files
}

// Put makes a file, durably, and with a copy of the data.
func (m *FS) Put(name string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &file{data: slices.Clone(data), synced: slices.Clone(data)}
	m.now[name], m.disk[name] = f, f
}

func (m *FS) MkdirAll(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.check("mkdir")
}

func (m *FS) Open(name string, flag int) (durable.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("open"); err != nil {
		return nil, err
	}
	f := m.now[name]
	switch {
	case f == nil && flag&os.O_CREATE == 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case f == nil:
		f = &file{}
		m.now[name] = f
	}
	if flag&os.O_TRUNC != 0 {
		f.data = nil
	}
	return &handle{m, f, 0}, nil
}

func (m *FS) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("read"); err != nil {
		return nil, err
	}
	f := m.now[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(f.data), nil
}

func (m *FS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("rename"); err != nil {
		return err
	}
	m.now[to] = m.now[from]
	delete(m.now, from)
	return nil
}

func (m *FS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("remove"); err != nil {
		return err
	}
	delete(m.now, name)
	return nil
}

func (m *FS) ReadDir(dir string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("readdir"); err != nil {
		return nil, err
	}
	listing := fstest.MapFS{}
	for name := range m.now {
		if entry, ok := strings.CutPrefix(name, dir+string(filepath.Separator)); ok {
			listing[filepath.ToSlash(entry)] = &fstest.MapFile{}
		}
	}
	return listing.ReadDir(".")
}

func (m *FS) SyncDir(dir string) error {
	m.waitHang()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("syncdir"); err != nil {
		return err
	}
	for name := range m.disk {
		if filepath.Dir(name) == dir && m.now[name] == nil {
			delete(m.disk, name)
		}
	}
	for name, f := range m.now {
		if filepath.Dir(name) == dir {
			m.disk[name] = f
		}
	}
	return nil
}

// handle is an open file.
type handle struct {
	fs     *FS
	file   *file
	offset int
}

func (h *handle) Write(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	err := h.fs.check("write")
	if err != nil {
		p = p[:len(p)/2] // what fails has often half happened
	}
	if h.fs.dead {
		return 0, ErrCrashed
	}
	h.file.data = append(h.file.data[:min(h.offset, len(h.file.data))], p...)
	h.offset += len(p)
	return len(p), err
}

func (h *handle) Sync() error {
	h.fs.waitHang()
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.check("sync"); err != nil {
		return err
	}
	h.file.synced = slices.Clone(h.file.data)
	return nil
}

func (h *handle) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.check("truncate"); err != nil {
		return err
	}
	h.file.data = h.file.data[:size]
	return nil
}

func (h *handle) Seek(offset int64, whence int) (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.check("seek"); err != nil || whence != io.SeekStart {
		return 0, err
	}
	h.offset = int(offset)
	return offset, nil
}

func (h *handle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.fs.check("close")
}
