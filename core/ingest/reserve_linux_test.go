package ingest_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/ingest"
)

// TestReserve checks what the system does when it is asked for space: the file
// has the blocks before the write, and has not grown.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	needFallocate(t, dir)
	path := filepath.Join(dir, "events")
	const size = 1 << 20
	d := &disk{}
	f := openFile(t, path, ingest.WithDisk(ingest.FileOptions{}, d.use))
	looked := false
	d.write = func() error {
		looked = true
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			return nil
		}
		if info.Size() != 0 {
			t.Errorf("a reader sees %d bytes before the write", info.Size())
		}
		if got := info.Sys().(*syscall.Stat_t).Blocks * 512; got < size {
			t.Errorf("%d bytes of disk are reserved for a write of %d", got, size)
		}
		return nil
	}
	data := bytes.Repeat([]byte("x"), size-1)
	land(t, f, core.Event{Data: data})
	if !looked {
		t.Error("nothing was written")
	}
	if got := content(t, path); got != string(data)+"\n" {
		t.Errorf("landed %d bytes, want %d", len(got), size)
	}
}

// needFallocate skips the test where the file system cannot reserve space.
func needFallocate(t *testing.T, dir string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const keepSize = 1
	err = syscall.Fallocate(int(file.Fd()), keepSize, 0, 4096)
	if err == nil {
		return
	}
	if !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.ENOSYS) || os.Getenv("CI") == "true" {
		t.Fatalf("reserve space in %s: %v", dir, err)
	}
	t.Skipf("the file system of %s cannot reserve space", dir)
}
