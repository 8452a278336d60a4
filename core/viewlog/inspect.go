package viewlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
)

// DirName returns the name of the directory, among those of other views, that
// holds the log of the view: its name with everything escaped that a path could
// mistake. [ViewName] is the way back.
func DirName(view string) string {
	if view == "." || view == ".." {
		return strings.ReplaceAll(view, ".", "%2E")
	}
	return url.PathEscape(view)
}

// ViewName returns the view whose log is in a directory of this name, and an
// error if [DirName] gives no view such a directory.
func ViewName(dir string) (string, error) {
	view, err := url.PathUnescape(dir)
	if err != nil || view == "" || DirName(view) != dir {
		return "", fmt.Errorf("%q is not the directory of a view", dir)
	}
	return view, nil
}

// Inspection is a look at the files of a log. It is for tools: it writes
// nothing, takes no lock, and may be made while a daemon writes the log, of
// which it then shows the state at the time of [Inspect]; compaction does not
// disturb it, because it keeps open what it has found.
//
// An Inspection belongs to one goroutine.
type Inspection struct {
	View        *core.View
	Identity    string           // of the upstream
	Generations []GenerationInfo // the last one is current
	Segments    []SegmentInfo    // in the order of their times

	manifestPath string
	progress     func(read, total int64)
	files        []*os.File // one for each segment
}

// InspectOptions are the settings of an [Inspection]. The zero value is good.
type InspectOptions struct {
	// Progress is called while the log is read, about once for each megabyte,
	// with the bytes that were read and all that there are.
	Progress func(read, total int64)
}

// GenerationInfo is a part of a log's history: its tokens are good up to End.
type GenerationInfo struct {
	ID  core.Generation
	End core.Time // 0: it is current
}

// SegmentInfo is a file of a log.
type SegmentInfo struct {
	Path   string
	Bytes  int64 // of the last one: as many as it had; of the others: how many count
	number int
	synced int64 // known to be durable
}

// maxInspectAttempts is how often the manifest is read when segments that it
// names are gone. A compaction in between explains one attempt, and they are far
// apart.
const maxInspectAttempts = 100

// Inspect opens the log of the view in a directory for reading. The error wraps
// [fs.ErrNotExist] if there is no log, which is also how it looks until the
// first snapshot is durable; [ErrNewer] if a later version has written it; and
// it is a [*DamageError] if the manifest is not what was written, or names what
// is not there.
func Inspect(dir, view string, o InspectOptions) (*Inspection, error) {
	if o.Progress == nil {
		o.Progress = func(_, _ int64) {}
	}
	path := filepath.Join(dir, manifestName)
	var before []byte
	for range maxInspectAttempts {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		m, err := decodeManifest(data)
		switch {
		case errors.Is(err, ErrNewer):
			return nil, fmt.Errorf("%s: %w", path, err)
		case err != nil:
			return nil, damaged(path, 0, err)
		case m.Name != view:
			return nil, damaged(path, 0, fmt.Errorf("it is the log of view %q, not of %q", m.Name, view))
		}
		// A segment that is gone has been replaced, if the manifest has.
		i, err := inspect(dir, path, m, o)
		if err == nil || bytes.Equal(data, before) {
			return i, err
		}
		before = data
	}
	return nil, fmt.Errorf("%s changed %d times while its segments were opened; try again", path, maxInspectAttempts)
}

// inspect opens the segments that a manifest names.
func inspect(dir, manifestPath string, m manifest, o InspectOptions) (*Inspection, error) {
	i := &Inspection{
		View:         &core.View{Name: m.Name, Columns: m.Columns, Key: m.Key},
		Identity:     m.Identity,
		manifestPath: manifestPath,
		progress:     o.Progress,
	}
	for _, g := range m.Generations {
		i.Generations = append(i.Generations, GenerationInfo(g))
	}
	for n, seg := range m.Segments {
		s := SegmentInfo{Path: filepath.Join(dir, seg.file()), Bytes: seg.Bytes, number: seg.Number, synced: seg.Bytes}
		if err := i.open(s, n == len(m.Segments)-1); err != nil {
			i.Close()
			return nil, err
		}
	}
	return i, nil
}

// open opens a segment and keeps it.
func (i *Inspection) open(s SegmentInfo, last bool) error {
	f, err := os.Open(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return damaged(s.Path, 0, errors.New("it is named by the manifest, and is not there"))
	}
	if err != nil {
		return err
	}
	i.files = append(i.files, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < s.Bytes {
		return damaged(s.Path, info.Size(), fmt.Errorf("it ends here, and had %d bytes", s.Bytes))
	}
	if last {
		s.Bytes = info.Size()
	}
	i.Segments = append(i.Segments, s)
	return nil
}

// Close closes the files.
func (i *Inspection) Close() error {
	var errs []error
	for _, f := range i.files {
		errs = append(errs, f.Close())
	}
	i.files = nil
	return errors.Join(errs...)
}

// Bytes returns the size of all segments.
func (i *Inspection) Bytes() int64 {
	var n int64
	for _, s := range i.Segments {
		n += s.Bytes
	}
	return n
}

// StoredBatch is a batch as it stands on disk, or a piece of a large one.
type StoredBatch struct {
	Lower, Upper core.Time
	Solid        bool      // only the ends of the interval can be read, not the times inside
	Arrived      time.Time // when the daemon got it; zero: not known any more
	First, More  bool      // it is the first piece; another one follows
	Updates      []core.Update
}

// IsBase reports whether the batch is the first of the log, the contents of the
// view at its Upper.
func (b StoredBatch) IsBase() bool { return b.Lower == 0 }

// solid reports whether only the ends of the batch can be read.
func (b StoredBatch) solid() bool { return b.Solid || b.IsBase() }

// end is where the batch ends for those who read at a time.
func (b StoredBatch) end() core.Time {
	if b.solid() {
		return endOfSolid(b.Lower, b.Upper)
	}
	return b.Upper
}

// Summary is what [Inspection.Scan] has found.
type Summary struct {
	Since   core.Time // the log can be read from here on
	Upper   core.Time // everything below is there
	Durable core.Time // everything below was durable when something later was written
	Rows    int64     // in the view at Upper, copies counted
	Batches int64
	Updates int64
	Torn    *TornTail // nil: the log ends with a whole batch
}

// TornTail is the end of a log that is not a whole batch and was never known to
// be durable. It is no damage: it is being written, or whoever wrote it died
// meanwhile, and the next opening of the log cuts it off.
type TornTail struct {
	File          string
	Offset, Bytes int64
	Reason        error
}

// Scan reads the log from its first batch to its last, checks everything that
// opening the log checks, and calls each with every batch, large ones in pieces.
// A batch of which the end is missing is not shown. A file that is not what was
// written is a [*DamageError]; an error of each ends the scan and is returned.
func (i *Inspection) Scan(ctx context.Context, each func(StoredBatch) error) (Summary, error) {
	total, reported := i.Bytes(), int64(0)
	s := scanner{each: each}
	s.read = func(n int64) error {
		if n += s.before; n-reported >= pieceBytes {
			i.progress(n, total)
			reported = n
		}
		return ctx.Err()
	}
	for n, seg := range i.Segments {
		if err := s.segment(i.files[n], seg, i.View.Name, n == len(i.Segments)-1); err != nil {
			return s.summary, err
		}
		s.before += seg.Bytes
	}
	if s.summary.Since == 0 {
		return s.summary, damaged(i.manifestPath, 0, errors.New("its segments have no base"))
	}
	return s.summary, nil
}

// Net returns the net change between two positions of the view; with the zero
// Token for from, the contents at the other one, and with the zero Token for to,
// up to all that there is. A token without a generation is a time of the history
// that is there. The error wraps [core.ErrNotReadable] and says what can be read.
func (i *Inspection) Net(ctx context.Context, from, to core.Token) (core.Batch, error) {
	open := to.IsZero()
	if open {
		to.Time = core.EndOfTime
	}
	var sum []core.Update
	var checksum uint64
	limit := 1 << 16                   // updates to collect before they are added up
	merged := map[core.Time]interval{} // what from and to lie inside of
	s, err := i.Scan(ctx, func(b StoredBatch) error {
		for _, t := range []core.Time{from.Time, to.Time} {
			if b.solid() && b.Lower < t && t < b.end() {
				merged[t] = interval{b.Lower, b.end()}
			}
		}
		for _, u := range b.Updates {
			if b.solid() {
				u.Time = b.end() - 1
			}
			if u.Time >= to.Time {
				continue
			}
			checksum += uint64(u.Diff) * u.Row.Hash()
			if from.Time <= u.Time {
				u.Time = 0
				sum = append(sum, u)
			}
		}
		if len(sum) > limit {
			sum = core.Consolidate(sum)
			limit = max(limit, 2*len(sum))
		}
		return nil
	})
	if err != nil {
		return core.Batch{}, err
	}
	if open {
		to.Time = s.Upper
	}
	for _, k := range []*core.Token{&from, &to} {
		if *k == (core.Token{}) {
			continue // from, of a base
		}
		problem := i.resolve(k)
		inside, isInside := merged[k.Time]
		switch {
		case problem != nil:
		case k.Time < s.Since || k.Time > s.Upper:
			problem = fmt.Errorf("%d is outside", k.Time)
		case isInside:
			problem = fmt.Errorf("%d lies inside of a merged batch, of which the ends can be read, %d and %d", k.Time, inside.lower, inside.upper)
		case k.Time < from.Time:
			problem = fmt.Errorf("%d comes after %d", from.Time, k.Time)
		}
		if problem != nil {
			return core.Batch{}, fmt.Errorf("%w: %w; on disk are the times from %d to %d", core.ErrNotReadable, problem, s.Since, s.Upper)
		}
	}
	sum = core.Consolidate(sum)
	return core.Batch{View: i.View, Lower: from, Upper: to, Updates: core.NetUpdates(to.Time-1, sum), Sum: checksum}, nil
}

type interval struct{ lower, upper core.Time }

// resolve checks that the token is one of this log, and completes one that is
// only a time.
func (i *Inspection) resolve(k *core.Token) error {
	last := len(i.Generations) - 1
	if k.Generation == "" {
		k.Generation = i.Generations[last].ID
	}
	n := slices.IndexFunc(i.Generations, func(g GenerationInfo) bool { return g.ID == k.Generation })
	switch {
	case n < 0:
		return fmt.Errorf("%s is of a history that is not in this log", k)
	case n < last && k.Time > i.Generations[n].End:
		return fmt.Errorf("%s was never durable: its generation ended at %d", k, i.Generations[n].End)
	}
	return nil
}
