// Package durable has the few operations on files that must be right for a
// crash at any instruction to lose nothing.
package durable

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Replace gives the file at path a new content: after a crash it has the old
// one or the new one, whole, and after Replace returned nil the new one.
// Concurrent calls for one path are not allowed. It leaves path + ".tmp" behind
// if the process dies in the middle; the next call replaces that too.
func Replace(path string, data []byte) error { return ReplaceIn(OS, path, data) }

// ReplaceIn is [Replace] in a file system.
func ReplaceIn(fs FS, path string, data []byte) error {
	temp := path + ".tmp"
	file, err := fs.Open(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if e := file.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = fs.Rename(temp, path)
	}
	if err != nil {
		fs.Remove(temp)
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}

// SyncDir makes the entries of a directory durable: without it a crash may
// forget that a file was created or renamed.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// ErrLocked is wrapped by the errors of [LockDir], and returned by [Lock], when
// another process has the lock.
var ErrLocked = errors.New("in use by another process")

// LockDir makes the directory, if there is none, and takes it for this process
// until the returned file is closed or the process ends, however it ends. The
// error names the process that has it.
func LockDir(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := Lock(file); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(file, 20))
		file.Close()
		return nil, fmt.Errorf("directory %s: %w (pid %s); stop that one, or use another directory",
			dir, err, cmp.Or(strings.TrimSpace(string(pid)), "not known yet"))
	}
	// The number is for people who find the directory locked; what counts is
	// the lock, so that an old number does no harm.
	if err := file.Truncate(0); err == nil {
		fmt.Fprintln(file, os.Getpid())
	}
	return file, nil
}
