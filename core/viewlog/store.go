package viewlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
)

// store is a log on disk: a manifest and the segments that it names. It belongs
// to one goroutine.
type store struct {
	fs   durable.FS
	dir  string
	view string // its name

	manifest manifest
	// unsure is set when saving a manifest failed: the one on disk may be that
	// one or s.manifest. Nothing counts as durable until one is saved again.
	unsure    bool
	number    int          // the largest that a segment has had: none is used twice
	file      durable.File // the last segment; nil: the next write begins another
	size      int64        // of what is written of it
	synced    int64        // of what is durable
	torn      int64        // what opening has cut off of it
	upper     core.Time    // of what is durable
	rewritten int64        // how much was written when all was written anew
	grace     int64        // how much more than twice that is written before it is done again
	buf       []byte

	observe func(took time.Duration) // told about syncs of segments
}

// manifest says what a log consists of. It is replaced as a whole.
type manifest struct {
	Format      int           `json:"format"`
	Name        string        `json:"name"`
	Columns     []core.Column `json:"columns"`
	Key         []int         `json:"key,omitempty"`
	Identity    string        `json:"identity"`
	Generations []generation  `json:"generations"` // the last one is current
	Segments    []segment     `json:"segments"`    // in the order of their times
	Rewritten   int64         `json:"rewritten"`   // how much was written when all was written anew
}

// generation is a history, or the part of it between two openings.
type generation struct {
	ID  core.Generation `json:"id"`
	End core.Time       `json:"end,string"` // the log's frontier when the next one began; of the current one: 0
}

// segment is a file of the log.
type segment struct {
	Number int   `json:"number"`
	Bytes  int64 `json:"bytes"` // how much of it counts; of the last: how much is known to be durable
}

const manifestName = "manifest"

func (s segment) file() string { return fmt.Sprintf("%08d.log", s.Number) }

// DamageError says that a file of a log is not what was written. mzd never
// guesses what it was.
type DamageError struct {
	File   string
	Offset int64
	Err    error
	// OnlyCopy says that the log is a [Journal], or was one: what it had is
	// nowhere else.
	OnlyCopy bool
}

func damaged(file string, offset int64, err error) *DamageError {
	return &DamageError{File: file, Offset: offset, Err: err}
}

// Error says what, where, and what to do.
func (e *DamageError) Error() string {
	instead := "to begin again from the database"
	if e.OnlyCopy {
		instead = "to begin again without what it had, which is nowhere else"
	}
	return fmt.Sprintf("%s is damaged at offset %d: %v; restore it from a backup, or remove the directory %s %s",
		e.File, e.Offset, e.Err, filepath.Dir(e.File), instead)
}

// Unwrap returns what is wrong at the offset.
func (e *DamageError) Unwrap() error { return e.Err }

// ErrNewer is wrapped by the error of [Open] for a directory that was written by
// a newer version of mzd.
var ErrNewer = errors.New("written by a newer version of mzd; run that one")

func (s *store) path(name string) string { return filepath.Join(s.dir, name) }

// encode writes the manifest as its file: a line of JSON and one with its
// checksum.
func (m manifest) encode() []byte {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers
	}
	text = append(text, '\n')
	return fmt.Appendf(text, "crc32c %08x\n", crc32.Checksum(text, castagnoli))
}

func decodeManifest(data []byte) (manifest, error) {
	var m manifest
	text, sum, ok := bytes.Cut(data, []byte{'\n'})
	if !ok || string(sum) != fmt.Sprintf("crc32c %08x\n", crc32.Checksum(data[:len(text)+1], castagnoli)) {
		return m, errors.New("the checksum does not fit")
	}
	var version struct{ Format int }
	if err := json.Unmarshal(text, &version); err != nil {
		return m, err
	}
	if version.Format > formatVersion {
		return m, fmt.Errorf("format %d: %w", version.Format, ErrNewer)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, err
	}
	if len(m.Generations) == 0 || len(m.Segments) == 0 {
		return m, errors.New("no generations, or no segments")
	}
	return m, nil
}

// saveManifest makes the manifest durable.
func (s *store) saveManifest(m manifest) error {
	if err := durable.ReplaceIn(s.fs, s.path(manifestName), m.encode()); err != nil {
		s.unsure = true
		return fmt.Errorf("save the manifest: %w", err)
	}
	s.manifest, s.unsure = m, false
	return nil
}

// current is the manifest with what is known to be durable by now.
func (s *store) current() manifest {
	m := s.manifest
	m.Segments = slices.Clone(m.Segments)
	if n := len(m.Segments); n > 0 {
		m.Segments[n-1].Bytes = s.synced
	}
	return m
}

// stored is what a log holds, as it comes from disk.
type stored struct {
	base  contents
	since core.Time // 0: nothing
	spans []span
	upper core.Time
}

// openStore reads what is there. fresh is true if there was nothing. The options
// are complete.
func openStore(dir, view string, o Options) (s *store, c stored, fresh bool, err error) {
	s = &store{fs: o.FS, dir: dir, view: view, grace: o.RewriteBytes, observe: o.Synced}
	if err := s.fs.MkdirAll(dir); err != nil {
		return nil, c, false, err
	}
	data, err := s.fs.ReadFile(s.path(manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.neverUsed(); err != nil {
			return nil, c, false, err
		}
		return s, c, true, s.removeStrangers()
	}
	if err != nil {
		return nil, c, false, err
	}
	if s.manifest, err = decodeManifest(data); err != nil {
		if errors.Is(err, ErrNewer) {
			return nil, c, false, fmt.Errorf("%s: %w", s.path(manifestName), err)
		}
		return nil, c, false, damaged(s.path(manifestName), 0, err)
	}
	if s.manifest.Name != view {
		return nil, c, false, damaged(s.path(manifestName), 0, fmt.Errorf("it is the log of view %q, not of %q", s.manifest.Name, view))
	}
	for i, seg := range s.manifest.Segments {
		s.number = max(s.number, seg.Number)
		last := i == len(s.manifest.Segments)-1
		if err := s.load(&c, seg, last); err != nil {
			return nil, c, false, err
		}
	}
	if c.since == 0 {
		return nil, c, false, damaged(s.path(manifestName), 0, errors.New("its segments have no base"))
	}
	s.upper, s.rewritten = c.upper, s.manifest.Rewritten
	if err := s.removeStrangers(); err != nil {
		return nil, c, false, err
	}
	err = s.reopen()
	if err == nil && s.torn > 0 {
		o.Logger.Info("cut off the end of a log that was not written to the end: nothing of it was durable",
			"view", view, "file", s.path(s.last().file()), "offset", s.size, "bytes", s.torn)
	}
	return s, c, false, err
}

// load reads a segment into c. Of the last segment it finds out where it ends.
func (s *store) load(c *stored, seg segment, last bool) error {
	path := s.path(seg.file())
	data, err := s.fs.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return damaged(path, 0, errors.New("it is named by the manifest, and is not there"))
		}
		return err
	}
	if int64(len(data)) < seg.Bytes {
		return damaged(path, int64(len(data)), fmt.Errorf("it ends here, and had %d bytes", seg.Bytes))
	}
	if !last {
		data = data[:seg.Bytes]
	}
	end, err := scan(data, s.view, seg.Number, c.add)
	if errors.Is(err, ErrNewer) {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		// What was never known to be durable may be torn: a process or a
		// machine died while it was written. What comes after a place that was
		// durable, or says that it was, is no such end.
		if !last || end < max(seg.Bytes, syncedAfter(data[end:])) {
			return damaged(path, end, err)
		}
	}
	if last {
		s.size, s.synced, s.torn = end, end, int64(len(data))-end
	}
	return nil
}

// scan reads the frames of a segment. end is where the last batch that is
// complete ends; err says what is wrong behind it, if anything is there.
func scan(data []byte, view string, number int, add func(r record, pieces [][]core.Update) error) (end int64, err error) {
	payload, rest, err := nextFrame(data)
	if err != nil {
		return 0, err
	}
	h, err := parseHeader(payload)
	if err != nil {
		return 0, err
	}
	if h.version > formatVersion {
		return 0, fmt.Errorf("format %d: %w", h.version, ErrNewer)
	}
	if h.view != view || h.number != number {
		return 0, fmt.Errorf("it is segment %d of view %q, not %d of %q", h.number, h.view, number, view)
	}
	end = int64(len(data) - len(rest))
	var first record
	var pieces [][]core.Update // of a batch, so far
	for open := false; len(rest) > 0 || open; {
		if len(rest) == 0 {
			return end, fmt.Errorf("%w: a batch is cut off", errFrame)
		}
		if payload, rest, err = nextFrame(rest); err != nil {
			return end, err
		}
		r, err := parseRecord(payload)
		if err != nil {
			return end, err
		}
		if open && (r.lower != first.lower || r.upper != first.upper) {
			return end, fmt.Errorf("%w: a piece of another batch", errFrame)
		}
		first, pieces = r, append(pieces, r.updates)
		if open = r.flags&flagMore != 0; open {
			continue
		}
		if err := add(r, pieces); err != nil {
			return end, err
		}
		pieces = nil
		end = int64(len(data) - len(rest))
	}
	return end, nil
}

// syncedAfter looks for intact frames behind a damaged place, and returns the
// largest size that they know to have been durable.
func syncedAfter(data []byte) int64 {
	var synced int64
	for i := 1; i+frameHeader < len(data); i++ {
		n := int64(binary.LittleEndian.Uint32(data[i:]))
		if n > int64(len(data)-i-frameHeader) || data[i+frameHeader] != kindBatch {
			continue // most places end here
		}
		payload, _, err := nextFrame(data[i:])
		if err != nil {
			continue
		}
		if r, err := parseRecord(payload); err == nil {
			synced = max(synced, r.synced)
			i += frameHeader + len(payload) - 1
		}
	}
	return synced
}

// neverUsed checks that the segments of a directory without a manifest are of a
// process that died over its first snapshot. A batch that knows of a sync was
// written under a manifest.
func (s *store) neverUsed() error {
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".log") {
			continue
		}
		data, err := s.fs.ReadFile(s.path(e.Name()))
		if err != nil {
			return err
		}
		if syncedAfter(data) > 0 {
			return damaged(s.path(manifestName), 0, fmt.Errorf("it is missing, and %s was named by it", e.Name()))
		}
	}
	return nil
}

// add puts a batch behind the others.
func (c *stored) add(r record, pieces [][]core.Update) error {
	if r.lower != c.upper {
		return fmt.Errorf("%w: a batch from %d where the log ends at %d", errFrame, r.lower, c.upper)
	}
	c.upper = r.upper
	if r.lower == 0 {
		c.base, c.since = contentsInOrder(pieces), endOfSolid(0, r.upper)
		return nil
	}
	if len(pieces) > 1 {
		r.updates = slices.Concat(pieces...)
	}
	if r.flags&flagSolid != 0 {
		c.spans = append(c.spans, spanOf(r.lower, endOfSolid(r.lower, r.upper), timeOf(r.arrived), r.updates))
	} else {
		c.spans = appendExact(c.spans, timeOf(r.arrived), r.updates)
	}
	return nil
}

// reopen opens the last segment to go on writing, without what is torn.
func (s *store) reopen() error {
	last := s.manifest.Segments[len(s.manifest.Segments)-1]
	f, err := s.fs.Open(s.path(last.file()), os.O_WRONLY)
	if err != nil {
		return err
	}
	err = f.Truncate(s.size)
	if err == nil {
		_, err = f.Seek(s.size, io.SeekStart)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		return err
	}
	s.file = f
	return nil
}

// removeStrangers removes segments that the manifest does not name: they were
// replaced, or never came to be used.
func (s *store) removeStrangers() error {
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	named := map[string]bool{manifestName: true}
	for _, seg := range s.manifest.Segments {
		named[seg.file()] = true
	}
	for _, e := range entries {
		ours := strings.HasSuffix(e.Name(), ".log") || strings.HasSuffix(e.Name(), ".tmp")
		if ours && !named[e.Name()] {
			if err := s.fs.Remove(s.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// write appends records and makes them durable. After an error nothing of them
// counts, and the same may be written again.
func (s *store) write(records []record) error {
	if s.file == nil {
		if err := s.roll(); err != nil {
			return err
		}
	}
	if s.unsure {
		if err := s.saveManifest(s.current()); err != nil {
			return err
		}
		s.removeStrangers() // what the other manifest named
	}
	written, err := s.writeTo(s.file, s.synced, slices.Values(records))
	if err != nil {
		// What was written of it must not stay in front of what comes next.
		if e := errors.Join(s.file.Truncate(s.size), seekTo(s.file, s.size)); e != nil {
			s.abandon()
		}
		return fmt.Errorf("write %s: %w", s.path(s.last().file()), err)
	}
	if err := s.sync(s.file); err != nil {
		// The kernel may have dropped the pages and forgotten about it: this
		// file is never trusted again beyond what was durable before.
		s.abandon()
		return fmt.Errorf("sync %s: %w", s.path(s.last().file()), err)
	}
	s.size += written
	s.synced = s.size
	s.upper = records[len(records)-1].upper
	return nil
}

// writeTo writes records as frames, about a piece at a time.
func (s *store) writeTo(w io.Writer, synced int64, records iter.Seq[record]) (written int64, err error) {
	buf := s.buf[:0]
	flush := func() bool {
		n, e := w.Write(buf)
		written, err, buf = written+int64(n), e, buf[:0]
		return err == nil
	}
	for r := range records {
		if err := checkRows(r); err != nil {
			return written, err
		}
		r.synced = synced
		for more := true; more; more = len(r.updates) > 0 {
			if buf, r = appendPiece(buf, r); len(buf) >= pieceBytes && !flush() {
				return written, err
			}
		}
	}
	if len(buf) > 0 {
		flush()
	}
	s.buf = buf
	return written, err
}

// sync makes durable what is written of a segment.
func (s *store) sync(f durable.File) error {
	begun := time.Now()
	err := f.Sync()
	s.observe(time.Since(begun))
	return err
}

func seekTo(f durable.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

func (s *store) last() segment {
	if n := len(s.manifest.Segments); n > 0 {
		return s.manifest.Segments[n-1]
	}
	return segment{}
}

// abandon gives the last segment up, as far as it is not durable.
func (s *store) abandon() {
	s.file.Close()
	s.file = nil
}

// roll begins a new segment behind the last one.
func (s *store) roll() error {
	m := s.current()
	number, f, size, err := s.create()
	if err != nil {
		return err
	}
	m.Segments = append(m.Segments, segment{number, size})
	if err := s.saveManifest(m); err != nil {
		f.Close()
		return err
	}
	s.file, s.size, s.synced = f, size, size
	s.removeStrangers() // of tries before this one
	return nil
}

// create makes the file of a segment, with its header, and makes it durable.
func (s *store) create() (number int, f durable.File, size int64, err error) {
	s.number++
	number = s.number
	path := s.path(segment{Number: number}.file())
	f, err = s.fs.Open(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return 0, nil, 0, err
	}
	h := appendHeader(nil, header{formatVersion, number, s.view})
	_, err = f.Write(h)
	if err == nil {
		err = s.sync(f)
	}
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		s.discard(number, f)
		return 0, nil, 0, fmt.Errorf("create %s: %w", path, err)
	}
	return number, f, int64(len(h)), nil
}

// discard removes the file of a segment that no manifest names: on a full disk
// it would take the space that what comes next needs.
func (s *store) discard(number int, f durable.File) {
	f.Close()
	s.fs.Remove(s.path(segment{Number: number}.file()))
}

// rewrite puts the records, which end at upper, into a new segment that takes
// the place of all others, under the manifest m. It is how a history begins, and
// how a log is compacted on disk. After an error the log is what it was.
func (s *store) rewrite(m manifest, records iter.Seq[record], upper core.Time) error {
	number, f, size, err := s.create()
	if err != nil {
		return err
	}
	written, err := s.writeTo(f, 0, records)
	size += written
	if err == nil {
		err = s.sync(f)
	}
	if err != nil {
		s.discard(number, f)
	} else {
		m.Format, m.Name, m.Segments, m.Rewritten = formatVersion, s.view, []segment{{number, size}}, size
		if err = s.saveManifest(m); err != nil {
			f.Close() // and no more: the manifest on disk may name it
		}
	}
	if err != nil {
		s.rewritten = max(s.rewritten, s.total()) // not again at once
		return fmt.Errorf("rewrite the log as %s: %w", s.path(segment{Number: number}.file()), err)
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.size, s.synced, s.rewritten = f, size, size, size
	s.upper = upper
	s.removeStrangers() // what stays now is removed at the next opening
	return nil
}

// grown reports whether the files have become so much larger than they were
// when they were last written anew that it is time to do it again.
func (s *store) grown() bool {
	return s.total() > 2*s.rewritten+s.grace
}

// total is the size of all segments.
func (s *store) total() int64 {
	total := s.size
	for _, seg := range s.manifest.Segments {
		if seg.Number != s.last().Number {
			total += seg.Bytes
		}
	}
	return total
}

// close notes how far the log is durable, and closes its file.
func (s *store) close() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.saveManifest(s.current()), s.file.Close())
	s.file = nil
	return err
}
