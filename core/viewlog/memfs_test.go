package viewlog_test

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
	"syscall"
	"testing/fstest"

	"github.com/mzdio/mzd/core/durable"
)

// memFS is a file system that forgets what was not synced when it crashes, as
// the worst of real ones do: bytes of files, and the entries of directories. It
// can be told to fail a call.
type memFS struct {
	mu    sync.Mutex
	now   map[string]*memFile // the entries as programs see them
	disk  map[string]*memFile // the entries that a crash leaves
	calls int
	fail  func(call int, op string) error // nil: nothing fails
	dead  bool
}

type memFile struct {
	data   []byte
	synced []byte
}

func newMemFS() *memFS {
	return &memFS{now: map[string]*memFile{}, disk: map[string]*memFile{}}
}

var errCrashed = errors.New("the machine has crashed")

// check counts a call and decides whether it fails. The caller holds mu.
func (m *memFS) check(op string) error {
	if m.dead {
		return errCrashed
	}
	m.calls++
	if m.fail != nil {
		return m.fail(m.calls, op)
	}
	return nil
}

// crash ends this file system, and returns what a new process finds: what was
// synced, and of the rest as much as chance has it.
func (m *memFS) crash(r *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	after := newMemFS()
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
		kept := &memFile{data: data, synced: slices.Clone(data)}
		after.now[name], after.disk[name] = kept, kept
	}
	return after
}

// kill ends this file system as the death of the process alone does: the kernel
// has everything.
func (m *memFS) kill() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	after := newMemFS()
	for name, f := range m.now {
		kept := &memFile{data: slices.Clone(f.data), synced: slices.Clone(f.data)}
		after.now[name], after.disk[name] = kept, kept
	}
	return after
}

func (m *memFS) MkdirAll(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.check("mkdir")
}

func (m *memFS) Open(name string, flag int) (durable.File, error) {
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
		f = &memFile{}
		m.now[name] = f
	}
	if flag&os.O_TRUNC != 0 {
		f.data = nil
	}
	return &memHandle{m, f, 0}, nil
}

func (m *memFS) ReadFile(name string) ([]byte, error) {
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

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("rename"); err != nil {
		return err
	}
	m.now[to] = m.now[from]
	delete(m.now, from)
	return nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("remove"); err != nil {
		return err
	}
	delete(m.now, name)
	return nil
}

func (m *memFS) ReadDir(dir string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("readdir"); err != nil {
		return nil, err
	}
	listing := fstest.MapFS{}
	for name := range m.now {
		if filepath.Dir(name) == dir {
			listing[filepath.Base(name)] = &fstest.MapFile{}
		}
	}
	return listing.ReadDir(".")
}

func (m *memFS) SyncDir(dir string) error {
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

// memHandle is an open file.
type memHandle struct {
	fs     *memFS
	file   *memFile
	offset int
}

func (h *memHandle) Write(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	err := h.fs.check("write")
	if err != nil {
		p = p[:len(p)/2] // what fails has often half happened
	}
	if h.fs.dead {
		return 0, errCrashed
	}
	h.file.data = append(h.file.data[:min(h.offset, len(h.file.data))], p...)
	h.offset += len(p)
	return len(p), err
}

func (h *memHandle) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.check("sync"); err != nil {
		return err
	}
	h.file.synced = slices.Clone(h.file.data)
	return nil
}

func (h *memHandle) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.check("truncate"); err != nil {
		return err
	}
	h.file.data = h.file.data[:size]
	return nil
}

func (h *memHandle) Seek(offset int64, whence int) (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.check("seek"); err != nil || whence != io.SeekStart {
		return 0, err
	}
	h.offset = int(offset)
	return offset, nil
}

func (h *memHandle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.fs.check("close")
}

var errDiskFull = &fs.PathError{Op: "write", Path: "somewhere", Err: syscall.ENOSPC}
