package ingest

import (
	"errors"
	"os"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE of fallocate(2): the file gets blocks behind
// its end, but does not grow.
const keepSize = 1

// reserve takes n bytes of disk for the file from off on, so that a write there
// cannot run out of space or quota half-way. It changes nothing that a reader
// of the file could see. File systems that cannot do it are left to find out in
// the write.
func reserve(file *os.File, off, n int64) error {
	for {
		switch err := syscall.Fallocate(int(file.Fd()), keepSize, off, n); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return nil
		default:
			return os.NewSyscallError("fallocate", err)
		}
	}
}
