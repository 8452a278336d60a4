//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package durable

import "os"

// Lock does nothing where the system has no flock: there people have to see to
// it that one process uses a file.
func Lock(*os.File) error { return nil }
