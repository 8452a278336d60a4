// Package viewlog holds the changes of one view, compacts them, and answers any
// number of readers from any position.
//
// A [Log] is the buffer between the upstream and everybody who follows a view.
// There is no queue per reader: a reader is a position, a [core.Token], and
// what it gets next is the sum of everything since, as one net batch. Whoever
// asks often gets small batches, whoever asks rarely gets one larger batch, and
// nobody waits for anybody.
//
// A log consists of a base (the sum of everything below Since) and of spans
// after it. A span is either exact, the changes of one timestamp, or solid: the
// net change of a longer interval, of which only the ends can be read.
// Compaction is merging adjacent spans, nothing else; what is merged into the
// base is gone as history and stays as contents.
//
// Where to begin: [New], then [Log.Reset], [Log.Append] and [Log.Rebase] for
// the one who writes, [Log.Follow] and [Log.Read] for those who read.
package viewlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
)

// Options are the settings of a [Log]. The zero value is good.
type Options struct {
	// Retain is how long a change can be read exactly after it arrived; 0: ten
	// minutes. It is measured in the daemon's time, not the upstream's, which
	// need not be a clock.
	Retain time.Duration
}

// DefaultRetain is how long exact history is kept unless the options say more.
const DefaultRetain = 10 * time.Minute

// Log is the log of one view. One goroutine writes (Reset, Append, Rebase,
// Compact); any number of goroutines read at the same time.
//
// A log keeps everything in memory, so what its readers may see is as durable
// as it ever gets: [Log.Durable] equals the frontier.
type Log struct {
	retain time.Duration

	// mu guards everything below. What the slices point to is immutable: a
	// reader takes slices under the lock and adds them up outside.
	mu         sync.Mutex
	view       *core.View
	generation core.Generation // empty until the first Reset
	base       []core.Update   // the contents below since
	since      core.Time
	spans      spans
	upper      core.Time
	changed    chan struct{} // closed and replaced when the frontier moves
	holds      map[*Hold]core.Time
	stats      Stats
	latest     core.Batch // the last base that was read at upper: readers share it
}

// Stats are figures about a log, for metrics and status.
type Stats struct {
	Upper       core.Time // everything below is known
	Since       core.Time // from here on history is kept
	Rows        int64     // rows in the view at Upper, copies counted
	Bytes       int64     // memory held for rows, base and history, about
	Updates     int64     // updates appended since the log was made
	Spans       int       // pieces of history
	Compactions int64     // merges done
}

// New returns the empty log of the view called name. It knows no columns and
// its readers wait until the first [Log.Reset].
func New(name string, o Options) *Log {
	if o.Retain <= 0 {
		o.Retain = DefaultRetain
	}
	return &Log{
		retain:  o.Retain,
		view:    &core.View{Name: name},
		changed: make(chan struct{}),
		holds:   make(map[*Hold]core.Time),
	}
}

// ErrGap means that a batch does not begin where the log ends (I1).
var ErrGap = errors.New("batch does not continue the log")

// Reset begins a new history: contents is the whole view at upper, its times
// are ignored. Every position of the old history is void from now on, and all
// readers get a base. It is called for the first snapshot, and when positions
// have lost their meaning: another upstream, changed columns, times that went
// backwards.
//
// Reset takes over contents.
func (l *Log) Reset(view *core.View, upper core.Time, contents []core.Update) error {
	if upper == 0 {
		return fmt.Errorf("reset log of %s to time 0: %w", view.Name, ErrGap)
	}
	base := solid(upper, contents)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view, l.generation = view, core.NewGeneration()
	l.base, l.since = base, endOfSolid(0, upper)
	l.spans = spans{}
	clear(l.holds)
	l.stats.Rows, l.stats.Bytes = 0, 0
	l.count(base)
	l.advance(upper)
	return nil
}

// Append continues the log: updates is everything that happened in [lower,
// upper), consolidated; none is progress. lower must be the log's frontier,
// otherwise the error wraps [ErrGap]. Append takes over updates.
func (l *Log) Append(lower, upper core.Time, updates []core.Update) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.continues(lower, upper); err != nil {
		return err
	}
	if n := len(updates); n > 0 && (updates[0].Time < lower || updates[n-1].Time >= upper) {
		return fmt.Errorf("append updates of [%d, %d] to %s as [%d, %d): %w",
			updates[0].Time, updates[n-1].Time, l.view.Name, lower, upper, ErrGap)
	}
	arrived := time.Now()
	l.count(updates)
	for len(updates) > 0 {
		t, n := updates[0].Time, 1
		for n < len(updates) && updates[n].Time == t {
			n++
		}
		l.spans.push(span{lower: t, upper: t + 1, arrived: arrived, run: updates[:n:n]})
		updates = updates[n:]
	}
	l.advance(upper)
	return nil
}

// Rebase continues the log where the upstream's history of [frontier, upper) is
// lost but its contents at upper are known: the difference to what the log
// holds is appended as one solid span. Readers see an ordinary change. upper
// must lie above the frontier. Rebase takes over contents.
func (l *Log) Rebase(upper core.Time, contents []core.Update) error {
	l.mu.Lock()
	lower, held := l.upper, l.spans.pieces(0, len(l.spans.list))
	base := l.base
	err := l.continues(lower, upper)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	// Nobody else writes, so that the log stands still while this adds up.
	difference := subtract(upper, solid(upper, contents), append(flatten(held), base))

	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(difference)
	if len(difference) > 0 || upper > lower+1 {
		l.spans.push(span{lower: lower, upper: endOfSolid(lower, upper), arrived: time.Now(), run: difference})
	}
	l.advance(upper)
	return nil
}

// continues tells whether [lower, upper) can be appended.
func (l *Log) continues(lower, upper core.Time) error {
	if l.generation == "" || lower != l.upper || upper <= lower {
		return fmt.Errorf("append [%d, %d) to %s, which ends at %d: %w", lower, upper, l.view.Name, l.upper, ErrGap)
	}
	return nil
}

// advance moves the frontier and wakes the readers, once each.
func (l *Log) advance(upper core.Time) {
	l.upper, l.latest = upper, core.Batch{}
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Log) count(updates []core.Update) {
	for _, u := range updates {
		l.stats.Rows += int64(u.Diff)
	}
	l.stats.Bytes += size(updates)
	l.stats.Updates += int64(len(updates))
}

// View returns the view as it is now. Before the first snapshot it has no
// columns.
func (l *Log) View() *core.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view
}

// Frontier returns the token up to which the log is complete, zero before the
// first snapshot, and a channel that is closed when it has moved.
func (l *Log) Frontier() (core.Token, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return core.Token{Time: l.upper, Generation: l.generation}, l.changed
}

// Durable returns the token up to which the log would survive a crash of the
// daemon as far as positions are concerned: no durable position may pass it.
func (l *Log) Durable() core.Token {
	upper, _ := l.Frontier()
	return upper
}

// Stats returns figures about the log as of now.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Upper, s.Since, s.Spans = l.upper, l.since, len(l.spans.list)
	return s
}

// Readable returns the largest time <= t at which the log can be read, and
// false if there is none.
func (l *Log) Readable(t core.Time) (core.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readable(t)
}

func (l *Log) readable(t core.Time) (core.Time, bool) {
	t = min(t, l.upper)
	if l.generation == "" || t < l.since {
		return 0, false
	}
	return l.spans.readable(t), true
}

// Read returns the net batch from the token to at, as [core.CutReader] says.
// All its updates have the time at-1. The error wraps [core.ErrNotReadable].
func (l *Log) Read(from core.Token, at core.Time) (core.Batch, error) {
	l.mu.Lock()
	if t, ok := l.readable(at); !ok || t != at {
		err := fmt.Errorf("read %s at %d (kept from %d, complete to %d): %w", l.view.Name, at, l.since, l.upper, core.ErrNotReadable)
		l.mu.Unlock()
		return core.Batch{}, err
	}
	b := core.Batch{View: l.view, Upper: core.Token{Time: at, Generation: l.generation}}
	var first int
	var base []core.Update
	switch continues := l.knows(from) && from.Time <= at; {
	case continues:
		b.Lower = from
		first = l.spans.at(from.Time)
	case l.latest.Upper == b.Upper:
		// Many new readers come at once, after a restart for one; they cost
		// one copy.
		b = l.latest
		l.mu.Unlock()
		return b, nil
	default:
		base = l.base
	}
	pieces, compactions := l.spans.pieces(first, l.spans.at(at)), l.stats.Compactions
	l.mu.Unlock()

	merged := false
	for i := range pieces {
		if p := &pieces[i]; len(p.runs) > 1 {
			p.runs, merged = [][]core.Update{net(0, p.runs...)}, true
		}
	}
	if merged {
		l.mu.Lock()
		if l.generation == b.Upper.Generation && l.stats.Compactions == compactions {
			l.spans.keep(pieces)
		}
		l.mu.Unlock()
	}
	b.Updates = net(at-1, append(flatten(pieces), base)...)
	if b.IsBase() {
		l.mu.Lock()
		if b.Upper == (core.Token{Time: l.upper, Generation: l.generation}) {
			l.latest = b
		}
		l.mu.Unlock()
	}
	return b, nil
}

// knows reports whether the log can continue from the token.
func (l *Log) knows(from core.Token) bool {
	if from.IsZero() || from.Generation != l.generation {
		return false
	}
	t, ok := l.readable(from.Time)
	return ok && t == from.Time
}

// Follow returns the batches after from, as [core.Reader] says.
func (l *Log) Follow(ctx context.Context, from core.Token) iter.Seq2[core.Batch, error] {
	return func(yield func(core.Batch, error) bool) {
		for cut, err := range core.FollowCut(ctx, []core.CutReader{l}, []core.Token{from}) {
			if err != nil {
				yield(core.Batch{}, err)
				return
			}
			if !yield(cut[0], nil) {
				return
			}
		}
	}
}

var _ core.CutReader = (*Log)(nil)

// Hold keeps a position readable beyond the retention of the log. Sinks that
// must not miss a change hold where they stand; compaction merges around held
// positions, so that a hold costs one merged span, however old it is.
type Hold struct{ log *Log }

// Hold holds the position of the token until it is released. The error wraps
// [core.ErrNotReadable] when the log cannot continue from there.
func (l *Log) Hold(at core.Token) (*Hold, error) {
	h := &Hold{log: l}
	return h, h.Move(at)
}

// Move makes the hold keep another position instead. On an error it keeps the
// one it had.
func (h *Hold) Move(to core.Token) error {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	if !h.log.knows(to) {
		return fmt.Errorf("hold %s at %s: %w", h.log.view.Name, to, core.ErrNotReadable)
	}
	h.log.holds[h] = to.Time
	return nil
}

// Release gives the position up. It is safe to call it twice.
func (h *Hold) Release() {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	delete(h.log.holds, h)
}

// Compact merges what is older than the retention, when there is enough of it
// to be worth the work, and reports whether it merged anything. The writer calls
// it after appending; most calls return at once.
func (l *Log) Compact() bool {
	l.mu.Lock()
	old, oldBase, held := l.spans.arrivedBefore(time.Now().Add(-l.retain)), l.base, l.heldTimes()
	l.mu.Unlock()
	if !worthMerging(oldBase, old, held) {
		return false
	}

	// Readers go on meanwhile; they hold the old slices.
	base, since, rest := merge(oldBase, old, held)
	freed := sizeOf(old) - sizeOf(rest)
	if since > 0 {
		freed += size(oldBase) - size(base)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if len(rest) == len(old) || !slices.Equal(held, l.heldTimes()) {
		return false // all of it is held, or somebody moved a hold in between: the next call sees it
	}
	l.base, l.since = base, max(l.since, since)
	l.spans.replaceFirst(len(old), rest)
	l.stats.Bytes -= freed
	l.stats.Compactions++
	return true
}

func (l *Log) heldTimes() []core.Time {
	var times []core.Time
	for _, t := range l.holds {
		times = append(times, t)
	}
	slices.Sort(times)
	return slices.Compact(times)
}
