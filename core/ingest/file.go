package ingest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
)

// FileOptions are the options of [OpenFile].
type FileOptions struct {
	// MaxBytes is the size that the file is not to exceed; 0: no limit. At the
	// limit Land returns errors that wrap [ErrFull].
	MaxBytes int64
	// Identifier tells the IDs of events as they were landed (without the
	// newline). With it, repeats are told apart over restarts too. nil: there is
	// none.
	Identifier core.Identifier
	// Window is the number of IDs to remember; 0: 100,000. It must be larger
	// than the number of events that a source may repeat after a resume.
	Window int
	// Logger gets warnings about repairs; nil: none.
	Logger *slog.Logger

	wrap func(diskFile) diskFile // for tests: a disk that fails
}

// File is a [Landing] that appends events to a file, one a line, and keeps the
// cursor beside it in a file of the same name with ".cursor" added.
//
// Calls of Land that come while another one syncs are written and synced
// together. The cursor is saved after the data it belongs to was synced, about
// once a second, so that it may be old but never ahead; the events that a
// source repeats from an old cursor are recognised by their IDs, for which
// [OpenFile] reads the end of the file.
type File struct {
	path     string
	maxBytes int64
	log      *slog.Logger
	position atomic.Pointer[Position]

	waitMu  sync.Mutex // guards waiting
	waiting []*landing

	mu     sync.Mutex // held during a commit; guards everything below and the results in landings
	disk   diskFile
	size   int64 // complete lines, all synced
	cursor string
	recent *window
	broken error // why nothing can be landed any more
	closed bool

	// Of one commit, kept to be used again.
	buf    []byte
	fresh  map[idHash]struct{}
	staged []idHash

	savedCursor string
	savedAt     time.Time
	unsaved     int // events landed since the cursor was saved
}

// diskFile is the file that a File writes.
type diskFile interface {
	// Check returns why this is not the file any more that has the name, or has
	// another size.
	Check(size int64) error
	// Reserve takes disk for n bytes from off on, and changes nothing that a
	// reader of the file could see.
	Reserve(off, n int64) error
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// osFile is the diskFile of the operating system.
type osFile struct{ *os.File }

func (f osFile) Reserve(off, n int64) error { return reserve(f.File, off, n) }

func (f osFile) Check(size int64) error {
	open, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(f.Name())
	switch {
	case err != nil:
		return fmt.Errorf("it was removed or renamed: %w", err)
	case !os.SameFile(open, named):
		return errors.New("it was replaced by another file")
	case open.Size() != size:
		return fmt.Errorf("somebody changed it: it has %d bytes, not %d", open.Size(), size)
	}
	return nil
}

// landing is one call of Land.
type landing struct {
	events []core.Event
	done   bool
	result Landed
	err    error
}

var _ Landing = (*File)(nil)

// saveEvery is how old the saved cursor may be while events arrive.
const saveEvery = time.Second

// maxKeptBuffer is the largest buffer that a File keeps between commits.
const maxKeptBuffer = 1 << 20

// OpenFile opens the file at path for landing, creates it and its directory if
// they do not exist, and takes it for this process: while it is open, the error
// of another OpenFile wraps [durable.ErrLocked].
//
// A crash may leave an incomplete line at the end. It was never acknowledged,
// so OpenFile cuts it off and logs that it did. It keeps complete lines, also
// those that nobody knows to be durable, and makes them so. A file that is
// shorter than its saved cursor says has lost acknowledged events; it is
// refused.
func OpenFile(path string, o FileOptions) (*File, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Window <= 0 {
		o.Window = defaultWindow
	}
	f := &File{
		path:     path,
		maxBytes: o.MaxBytes,
		log:      o.Logger.With("file", path),
		recent:   newWindow(o.Window),
		fresh:    make(map[idHash]struct{}),
	}
	file, err := openLocked(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f.disk = osFile{file}
	if o.wrap != nil {
		f.disk = o.wrap(f.disk)
	}
	if err := f.recover(file, o.Identifier); err != nil {
		f.disk.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f.publish()
	return f, nil
}

// openLocked opens and locks the file. Its directory entry is durable when it
// returns.
func openLocked(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err == nil && !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case err == nil:
		err = durable.Lock(file)
	}
	if err == nil {
		err = durable.SyncDir(dir)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// recover finds out where the file ends and what was landed last. All of that
// is durable when it returns: from then on repeats of it are acknowledged and
// the cursor moves past them.
func (f *File) recover(file *os.File, identifier core.Identifier) error {
	saved, err := loadCursor(cursorPath(f.path))
	if err != nil {
		return err
	}
	f.size, err = repair(file, f.disk, saved, f.log)
	if err != nil {
		return err
	}
	f.cursor, f.savedCursor = saved.Cursor, saved.Cursor
	if identifier == nil {
		return nil
	}
	return eachIDOfTail(file, f.size, cap(f.recent.ring), identifier, func(id string) {
		if h := f.recent.hash(id); !f.recent.has(h) {
			f.recent.add(h)
		}
	})
}

// Land implements [Landing]. A write that fails, a full disk for one, is taken
// back and may be tried again. When a sync fails nobody knows what the disk
// holds: that error and all later ones wrap [core.ErrPermanent].
func (f *File) Land(ctx context.Context, events []core.Event) (Landed, error) {
	if err := ctx.Err(); err != nil {
		return Landed{}, err
	}
	l := &landing{events: events}
	f.waitMu.Lock()
	f.waiting = append(f.waiting, l)
	f.waitMu.Unlock()

	// Whoever gets the lock first commits for all who wait for it.
	f.mu.Lock()
	defer f.mu.Unlock()
	if !l.done {
		f.waitMu.Lock()
		group := f.waiting
		f.waiting = nil
		f.waitMu.Unlock()
		f.commit(group)
	}
	return l.result, l.err
}

// commit lands a group of calls with one write and one sync, and finishes each
// of them.
func (f *File) commit(group []*landing) {
	clear(f.fresh)
	f.staged = f.staged[:0]
	buf, cursor, fail := f.buf[:0], f.cursor, f.usable()
	staged := 0 // calls that buf holds
	for _, l := range group {
		if fail != nil {
			break
		}
		start, keys := len(buf), len(f.staged)
		buf = f.stage(buf, l)
		if f.maxBytes > 0 && len(buf) > start && f.size+int64(len(buf)) > f.maxBytes {
			// Later calls wait with this one, or their cursors would pass it.
			buf, f.staged = buf[:start], f.staged[:keys]
			fail = f.full()
			break
		}
		cursor = cmp.Or(lastCursor(l.events), cursor)
		staged++
	}
	if cap(buf) <= maxKeptBuffer {
		f.buf = buf
	} else {
		f.buf = nil
	}
	if err := f.write(buf); err != nil {
		fail, staged = err, 0
	}
	for i, l := range group {
		l.done = true
		if i >= staged {
			l.result, l.err = Landed{}, fail
		}
	}
	if staged == 0 {
		return
	}
	for _, h := range f.staged {
		f.recent.add(h)
	}
	f.cursor = cursor
	f.unsaved += len(f.staged)
	f.publish()
	f.saveCursorIfOld()
}

// stage appends to buf what is to be written of the call, and counts the rest.
func (f *File) stage(buf []byte, l *landing) []byte {
	for i := range l.events {
		e := &l.events[i]
		if reason := unfit(e.Data); reason != "" {
			if l.result.Rejected == nil {
				l.result.Rejected = make(map[string]int)
			}
			l.result.Rejected[reason]++
			continue
		}
		if e.ID != "" {
			h := f.recent.hash(e.ID)
			if _, again := f.fresh[h]; again || f.recent.has(h) {
				l.result.Duplicates++
				continue
			}
			f.fresh[h] = struct{}{}
			f.staged = append(f.staged, h)
		}
		buf = append(buf, e.Data...)
		buf = append(buf, '\n')
		l.result.Events++
		l.result.Bytes += int64(len(e.Data)) + 1
	}
	return buf
}

// unfit returns why data cannot be a line of the file, or "". A NUL byte is
// what a disk leaves where a write was lost, and no text; see repair.
func unfit(data []byte) string {
	switch {
	case bytes.IndexByte(data, '\n') >= 0:
		return RejectedNewline
	case bytes.IndexByte(data, 0) >= 0:
		return RejectedNUL
	}
	return ""
}

// usable returns why nothing can be landed, or nil.
func (f *File) usable() error {
	switch {
	case f.broken != nil:
		return f.broken
	case f.closed:
		return fmt.Errorf("land in %s: %w", f.path, os.ErrClosed)
	case f.unsaved >= cap(f.recent.ring)/2:
		// With a cursor any older, a crash could repeat more events than the
		// window tells apart.
		return f.saveCursor()
	}
	return nil
}

// write appends lines and syncs them.
//
// Others may be reading the file: the engine tails it. What a write leaves on a
// full disk they would take for events, and then lose their place when it is
// taken back. So the space comes first, before there is anything to see.
func (f *File) write(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if err := f.disk.Check(f.size); err != nil {
		f.broken = fmt.Errorf("land in %s: %w; what comes now would be lost: bring the file back as it was and restart mzd: %w", f.path, err, core.ErrPermanent)
		return f.broken
	}
	if err := f.disk.Reserve(f.size, int64(len(lines))); err != nil {
		return fmt.Errorf("land in %s: %w", f.path, err)
	}
	if _, err := f.disk.WriteAt(lines, f.size); err != nil {
		err = fmt.Errorf("land in %s: %w", f.path, err)
		if undo := f.disk.Truncate(f.size); undo != nil {
			f.broken = fmt.Errorf("%w; taking the incomplete write back: %w; restart mzd to repair the file: %w", err, undo, core.ErrPermanent)
			return f.broken
		}
		return err
	}
	if err := f.disk.Sync(); err != nil {
		f.broken = fmt.Errorf("sync %s: %w; the disk may have lost what was written: check it, then restart mzd: %w", f.path, err, core.ErrPermanent)
		return f.broken
	}
	f.size += int64(len(lines))
	return nil
}

func (f *File) full() error {
	return fmt.Errorf("land in %s: %w: it has %d bytes and the limit is %d; raise max_bytes, or stop mzd, move the file and its .cursor away and start over",
		f.path, ErrFull, f.size, f.maxBytes)
}

// publish makes the state that others may see.
func (f *File) publish() {
	f.position.Store(&Position{Target: f.path, Bytes: f.size, Cursor: f.cursor})
}

// Position implements [Landing].
func (f *File) Position() Position { return *f.position.Load() }

// Close saves the cursor and closes the file. Calls of Land after it fail.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	var err error
	if f.broken == nil {
		err = f.saveCursor()
	}
	return errors.Join(err, f.disk.Close())
}

// lastCursor returns the last cursor that the events carry.
func lastCursor(events []core.Event) string {
	for i := len(events) - 1; i >= 0; i-- {
		if c := events[i].Cursor; c != "" {
			return c
		}
	}
	return ""
}
