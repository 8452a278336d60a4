package durable

import (
	"io"
	"io/fs"
	"os"
)

// FS is the part of the file system that logs are written through. [OS] is the
// real one; tests use others to fail each call in turn.
type FS interface {
	MkdirAll(dir string) error
	// Open opens a file as [os.OpenFile] does, with mode 0644.
	Open(name string, flag int) (File, error)
	ReadFile(name string) ([]byte, error)
	Rename(from, to string) error
	Remove(name string) error
	ReadDir(dir string) ([]fs.DirEntry, error)
	// SyncDir makes the entries of a directory durable.
	SyncDir(dir string) error
}

// File is an open file of an [FS].
type File interface {
	io.Writer
	io.Closer
	Sync() error
	Truncate(size int64) error
	Seek(offset int64, whence int) (int64, error)
}

// OS is the file system of the operating system.
var OS FS = osFS{}

type osFS struct{}

func (osFS) MkdirAll(dir string) error                 { return os.MkdirAll(dir, 0o755) }
func (osFS) ReadFile(name string) ([]byte, error)      { return os.ReadFile(name) }
func (osFS) Rename(from, to string) error              { return os.Rename(from, to) }
func (osFS) Remove(name string) error                  { return os.Remove(name) }
func (osFS) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }
func (osFS) SyncDir(dir string) error                  { return SyncDir(dir) }
func (osFS) Open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		return nil, err // and not a nil file inside an interface that is not
	}
	return f, nil
}
