package ingest

// Disk is what a File needs of a file.
type Disk = diskFile

// WithDisk makes a File write through wrap.
func WithDisk(o FileOptions, wrap func(Disk) Disk) FileOptions {
	o.wrap = wrap
	return o
}

// WaitingCalls returns how many calls of Land wait for the one that commits.
func WaitingCalls(f *File) int {
	f.waitMu.Lock()
	defer f.waitMu.Unlock()
	return len(f.waiting)
}
