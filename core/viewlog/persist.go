package viewlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
)

// Open opens the log of the view called name in a directory of its own, which
// it makes if there is none. What was durable is there again, under a new
// generation: tokens that were given away before still work as far as the log
// has come back.
//
// A file that is not what was written is a [*DamageError]; an error that wraps
// [ErrNewer] says that the directory belongs to a later version. Open starts
// nothing: without [Log.Run] nothing becomes durable.
func Open(dir, name string, o Options) (*Log, error) {
	l := New(name, o)
	disk, c, fresh, err := openStore(dir, name, o.complete())
	if err != nil {
		return nil, fmt.Errorf("open the log of view %s: %w", name, err)
	}
	l.disk = disk
	if fresh {
		return l, nil
	}
	m := disk.manifest
	l.view, l.identity = &core.View{Name: name, Columns: m.Columns, Key: m.Key}, m.Identity
	l.contents, l.at, l.since, l.upper, l.durable = c.base, c.since, c.since, c.upper, c.upper
	_, l.stats.Rows, l.spans.before = c.base.count()
	l.spans.push(summed(c.spans))
	for _, sp := range c.spans {
		l.count(sp.run)
	}
	l.stats.Updates = 0 // of this process
	l.falls = l.falls || c.base.below > 0
	m.Generations = slices.DeleteFunc(slices.Clone(m.Generations), func(g generation) bool {
		return g.End != 0 && g.End < c.since // none of its tokens can be read
	})
	m.Generations[len(m.Generations)-1].End = c.upper
	m.Generations = append(m.Generations, generation{ID: core.NewGeneration()})
	m.Segments = slices.Clone(m.Segments)
	m.Segments[len(m.Segments)-1].Bytes = disk.synced
	if err := disk.saveManifest(m); err != nil {
		return nil, fmt.Errorf("open the log of view %s: %w", name, err)
	}
	l.generations = m.Generations
	l.stats.DiskBytes = disk.total()
	return l, nil
}

// Run writes the log to disk until ctx ends; then it writes what is left and
// closes the files. While the disk does not take anything, what is to be written
// is merged in memory, the durable frontier stands, and everything else goes on;
// [Stats] says why. Run of a log in memory only waits for ctx.
func (l *Log) Run(ctx context.Context) error {
	if l.disk == nil {
		<-ctx.Done()
		return nil
	}
	for {
		select {
		case <-l.dirty:
		case <-ctx.Done():
			return errors.Join(l.flush(), l.disk.close())
		}
		retry := backoff.Backoff{Min: 50 * time.Millisecond, Max: 5 * time.Second}
		for err := l.flush(); err != nil; err = l.flush() {
			if backoff.Wait(ctx, retry.Next()) != nil {
				return errors.Join(l.flush(), l.disk.close())
			}
		}
	}
}

// flush makes durable what the log holds now.
func (l *Log) flush() error {
	l.mu.Lock()
	if len(l.generations) == 0 || !l.rewrite && len(l.pending.records) == 0 {
		l.mu.Unlock()
		return nil
	}
	begun, rewrite, records, upper := l.begun, l.rewrite, l.pending.records, l.upper
	var everything func() iter.Seq[record]
	if rewrite || l.disk.grown() {
		everything = l.everything()
	}
	m := manifest{Columns: l.view.Columns, Key: l.view.Key, Identity: l.identity, Generations: l.generations}
	l.pending, l.rewrite = backlog{}, false
	l.mu.Unlock()

	err := errNothing
	if everything != nil {
		err = l.disk.rewrite(m, everything(), upper)
	}
	rewritten := err == nil
	if err != nil && !rewrite {
		// There may be room for what is new, if not for all of it once more.
		err = l.disk.write(records)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(err)
	l.stats.DiskBytes = l.disk.total()
	if begun != l.begun {
		return err // a new history has begun meanwhile, and is to be written anew
	}
	if rewritten { // as it is in memory, but for what has come since
		l.coarse = slices.DeleteFunc(l.coarse, func(r record) bool { return r.lower < upper })
	}
	switch {
	case err == nil:
		l.harden(l.disk.upper)
	case rewrite:
		l.rewrite = true
	default:
		l.mergePending(records)
	}
	return err
}

// errNothing is no error: nothing was tried yet.
var errNothing = errors.New("nothing written")

// mergePending makes one record of what waits, and of what was taken before it
// and could not be written.
func (l *Log) mergePending(before []record) {
	records := mergeRecords(append(before, l.pending.records...))
	l.pending = backlog{}
	for _, r := range records {
		l.pending.add(r)
	}
	l.coarsen(records[0])
}

// coarsen notes that an interval comes to disk in one piece, if the record is
// solid: after a restart no time inside of it can be read. What waits while the disk is full is merged
// again and again, so that mostly the last interval grows.
func (l *Log) coarsen(r record) {
	if r.flags&flagSolid == 0 {
		return
	}
	if n := len(l.coarse); n > 0 && l.coarse[n-1].lower == r.lower {
		l.coarse = l.coarse[:n-1]
	}
	l.coarse = append(l.coarse, record{lower: r.lower, upper: endOfSolid(r.lower, r.upper)})
}

// note keeps and logs the state of the disk.
func (l *Log) note(err error) {
	switch before := l.trouble; {
	case err != nil && (before == nil || cause(before) != cause(err)):
		l.log.Error("the log cannot be written; views go on, sinks that keep positions wait", "view", l.view.Name, "error", err)
	case err == nil && before != nil:
		l.log.Info("the log can be written again", "view", l.view.Name)
	}
	l.trouble = err
}

// cause is the innermost text of an error: what failed, and not which file, of which
// every try may have begun another.
func cause(err error) string {
	for e := err; e != nil; e = errors.Unwrap(e) {
		err = e
	}
	return err.Error()
}

// later keeps a record for Run. A disk that takes nothing, not even an error, or
// less than comes in must not cost more and more memory.
func (l *Log) later(r record) {
	if l.disk == nil || l.rewrite {
		return
	}
	l.pending.add(r)
	if l.pending.rest > max(l.pending.first, l.retainBytes) {
		l.mergePending(nil)
	}
}

// backlog is records that wait to be written.
type backlog struct {
	records []record
	first   int64 // bytes in memory of the first record, which may be many that were merged
	rest    int64 // and of all others
}

// recordBytes is about what a record takes in memory beside its updates.
const recordBytes = 96

// add adds a record. Progress after progress is one.
func (b *backlog) add(r record) {
	n := len(b.records)
	if n > 0 && b.records[n-1].isProgress() && r.isProgress() {
		b.records[n-1].upper = r.upper
		return
	}
	b.records = append(b.records, r)
	if bytes := recordBytes + size(r.updates); n == 0 {
		b.first = bytes
	} else {
		b.rest += bytes
	}
}

// everything prepares to tell the log as records. It is called like changes.
func (l *Log) everything() func() iter.Seq[record] {
	base, since := l.whole(l.since), l.since
	history := l.history()
	return func() iter.Seq[record] {
		return func(yield func(record) bool) {
			for r := range base().records(since) {
				if !yield(r) {
					return
				}
			}
			for _, r := range history {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// history returns what came after the first batch as records.
func (l *Log) history() []record {
	var records []record
	end := l.since
	upTo := func(t core.Time, flags byte) {
		if end < t {
			records = append(records, record{flags: flags, lower: end, upper: t})
			end = t
		}
	}
	for _, sp := range l.spans.list {
		upTo(sp.lower, 0)
		r := record{arrived: sp.arrived.UnixMilli(), lower: sp.lower, upper: sp.upper, updates: sp.run}
		if sp.upper-sp.lower > 1 || len(sp.run) > 0 && sp.run[0].Time != sp.lower {
			r.flags = flagSolid
		}
		records = append(records, r)
		end = sp.upper
	}
	if l.upper == core.EndOfTime {
		upTo(l.upper, flagSolid) // sealed: one piece to the end
	} else {
		upTo(l.upper, 0)
	}
	return records
}

// isProgress reports whether the record says that nothing happened, at any time
// of its interval. A solid one that is empty says less: what came and went inside
// of it nobody knows.
func (r record) isProgress() bool { return r.flags == 0 && len(r.updates) == 0 }

// mergeRecords makes one solid record of several. One that seals the view stays
// by itself: a solid record up to the end of time could be read all over, and
// readers stand between the changes that it would hide.
func mergeRecords(records []record) []record {
	if n := len(records); n == 1 {
		return records
	} else if records[n-1].upper == core.EndOfTime {
		return append(mergeRecords(records[:n-1]), records[n-1])
	}
	last := records[len(records)-1]
	var runs [][]core.Update
	for _, r := range records {
		for _, sp := range appendExact(nil, time.Time{}, r.updates) {
			runs = append(runs, sp.run)
		}
	}
	return []record{{
		flags: flagSolid, arrived: last.arrived, lower: records[0].lower, upper: last.upper,
		updates: net(last.upper-1, runs...),
	}}
}

func timeOf(ms int64) time.Time { return time.UnixMilli(ms) }

// DurableReader reads a log as far as it is durable: what a sink must follow
// that keeps its position, or whose receiver does.
func (l *Log) DurableReader() core.CutReader { return durableReader{l} }

type durableReader struct{ *Log }

// Frontier returns the durable frontier.
func (r durableReader) Frontier() (core.Token, <-chan struct{}) { return r.Durable() }

// Readable is that of the log as it is on disk: below the durable frontier, and
// where a restart could still read it. Memory and disk may be merged differently,
// so that what one of them can be read at may lie inside of a piece of the other.
func (r durableReader) Readable(t core.Time) (core.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.readable(min(t, r.durable))
	for ok {
		onDisk := t
		for _, c := range r.coarse {
			if c.lower < onDisk && onDisk < c.upper {
				onDisk = c.lower
			}
		}
		if onDisk == t {
			break
		}
		t, ok = r.readable(onDisk)
	}
	return t, ok
}

// Follow is that of the log, below the durable frontier.
func (r durableReader) Follow(ctx context.Context, from core.Token) iter.Seq2[core.Batch, error] {
	return follow(ctx, r, from)
}
