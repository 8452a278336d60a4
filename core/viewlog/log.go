// Package viewlog holds the changes of one view, compacts them, and answers any
// number of readers from any position.
//
// A [Log] is the buffer between the upstream and everybody who follows a view.
// There is no queue per reader: a reader is a position, a [core.Token], and
// what it gets next is the sum of everything since, as one net batch. Whoever
// asks often gets small batches, whoever asks rarely gets one larger batch, and
// nobody waits for anybody.
//
// A log consists of the contents of the view at one time and of the spans of its
// history, on both sides of that time: a later state is the contents and what
// came after, an earlier one is the contents without what came before. A span is
// either exact, the changes of one timestamp, or solid: the net change of a
// longer interval, of which only the ends can be read. Compaction is merging
// adjacent spans, nothing else; the first ones merge with everything that was
// before history began, which is to forget them.
//
// The contents are kept in chunks that are shared by all states in which they
// are the same. So a reader that begins with the whole view costs what changed
// since the last one did, and a new snapshot of the upstream costs a mark for
// each row and what it changes, never a second view.
//
// A log that was opened in a directory is durable. Its writer never waits for
// the disk: [Log.Run] writes behind it, and everything that came in while the
// disk was busy shares one sync. So a log has two frontiers. Readers who can
// start over follow the one in memory ([Log.Follow]); positions that are kept
// anywhere must come from the other one ([Log.Durable], [Log.DurableReader]).
//
// Where to begin: [Open] or [New], then [Log.Reset], [Log.Append] and
// [Log.Rebase] for the one who writes, [Log.Follow] and [Log.Read] for those who
// read.
package viewlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
)

// Options are the settings of a [Log]. The zero value is good.
type Options struct {
	// Retain is how long a change can be read exactly after it arrived; 0: ten
	// minutes. It is measured in the daemon's time, not the upstream's, which
	// need not be a clock.
	Retain time.Duration
	// RetainBytes bounds the memory of exact history, about: beyond it the
	// oldest is merged before its time. What waits for the disk is merged beyond
	// it too. 0: 256 MiB.
	RetainBytes int64
	// RewriteBytes is how much the files may grow beyond twice what is in them
	// before they are written anew: less costs more writing, more costs disk
	// space and time to open; 0: 4 MiB.
	RewriteBytes int64
	// Synced is called with how long each sync of a segment took, whether it
	// worked or not. It must not block; nil: nobody is told.
	Synced func(took time.Duration)
	// Logger gets what happens to the files; nil: nobody.
	Logger *slog.Logger
	// FS is where the files are; nil: [durable.OS].
	FS durable.FS
}

// What the options are unless they say otherwise.
const (
	DefaultRetain       = 10 * time.Minute
	DefaultRetainBytes  = 256 << 20
	defaultRewriteBytes = 4 << 20
)

// complete fills the defaults in.
func (o Options) complete() Options {
	if o.Retain <= 0 {
		o.Retain = DefaultRetain
	}
	if o.RetainBytes <= 0 {
		o.RetainBytes = DefaultRetainBytes
	}
	if o.RewriteBytes <= 0 {
		o.RewriteBytes = defaultRewriteBytes
	}
	if o.Synced == nil {
		o.Synced = func(time.Duration) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = durable.OS
	}
	return o
}

// Log is the log of one view. One goroutine writes (Reset, Append, Rebase,
// Compact), one runs (Run), and any number of goroutines read at the same time.
type Log struct {
	retain      time.Duration
	retainBytes int64
	log         *slog.Logger
	disk        *store        // belongs to Run; nil: there is none
	dirty       chan struct{} // has an element when there is something to write

	// mu guards everything below. What the slices point to is immutable: a
	// reader takes slices under the lock and adds them up outside.
	mu          sync.Mutex
	view        *core.View
	identity    string       // of the upstream
	generations []generation // the last is current; none until the first Reset
	begun       int          // how many histories have: a copy begins anew under the same generation
	contents    contents     // the view at the time at
	at          core.Time    // since <= at <= upper, and readable
	since       core.Time
	spans       spans // from since on
	upper       core.Time
	changed     chan struct{} // closed and replaced when the frontier moves
	holds       map[*Hold]core.Time
	falls       bool      // rows have gone since the last [Log.Check]
	checkAgain  time.Time // not before
	stats       Stats

	pending  backlog  // appended and not taken by Run yet
	coarse   []record // intervals, without updates, that are on disk in one piece, and in memory in many
	rewrite  bool     // the files are to be written anew, of what is in memory
	durable  core.Time
	hardened chan struct{} // closed and replaced when durable moves
	trouble  error         // of the disk, while it lasts
}

// Stats are figures about a log, for metrics and status.
type Stats struct {
	Upper       core.Time // everything below is known
	Since       core.Time // from here on history is kept
	Rows        int64     // rows in the view at Upper, copies counted
	Bytes       int64     // memory held for rows, contents and history, about
	History     int64     // of it for history
	Updates     int64     // updates appended since the log was made
	Spans       int       // pieces of history
	Compactions int64     // merges done
	Durable     core.Time // everything below is on disk
	DiskBytes   int64     // size of the segments; 0: nothing is on disk
	Trouble     error     // why writing to disk does not work now; nil: it does
}

// New returns the empty log of the view called name, in memory only. It knows no
// columns and its readers wait until the first [Log.Reset]. Nothing of it
// survives the process, so that its durable frontier is as good as its other
// one.
func New(name string, o Options) *Log {
	o = o.complete()
	return &Log{
		retain:      o.Retain,
		retainBytes: o.RetainBytes,
		log:         o.Logger,
		dirty:       make(chan struct{}, 1),
		view:        &core.View{Name: name},
		changed:     make(chan struct{}),
		hardened:    make(chan struct{}),
		holds:       make(map[*Hold]core.Time),
	}
}

// generation returns the name of the current history; empty before the first
// Reset.
func (l *Log) generation() core.Generation {
	if n := len(l.generations); n > 0 {
		return l.generations[n-1].ID
	}
	return ""
}

// ErrGap means that a batch does not begin where the log ends (I1).
var ErrGap = errors.New("batch does not continue the log")

// Reset begins a new history: the snapshot, of [Log.Snapshot], is the whole view
// at upper, and identity is that of the upstream. Every position of the old
// history is void from now on, and all readers get a base. It is called for the
// first snapshot, and when positions have lost their meaning: another upstream,
// changed columns, times that went backwards. The error is an [*ImpossibleError],
// or wraps [ErrGap]; then the log is as it was.
func (l *Log) Reset(view *core.View, identity string, upper core.Time, snapshot *Snapshot) error {
	if upper == 0 {
		return fmt.Errorf("reset log of %s to time 0: %w", view.Name, ErrGap)
	}
	whole, err := snapshot.contents()
	if err != nil {
		return err
	}
	l.begin(view, identity, generation{ID: core.NewGeneration()}, upper, whole)
	return nil
}

// begin begins a new history with the whole view at upper.
func (l *Log) begin(view *core.View, identity string, g generation, upper core.Time, whole contents) {
	rows, copies, sum := whole.count()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view, l.identity, l.generations = view, identity, []generation{g}
	l.begun++
	l.pending, l.coarse, l.rewrite, l.durable = backlog{}, nil, true, 0
	l.contents, l.since = whole, endOfSolid(0, upper)
	l.at = l.since
	l.spans = spans{before: sum}
	clear(l.holds)
	l.falls = false
	l.stats.Updates += rows
	l.stats.Rows, l.stats.History = copies, 0
	l.advance(upper)
}

// Append continues the log: updates is everything that happened in [lower,
// upper), consolidated; none is progress. lower must be the log's frontier,
// otherwise the error wraps [ErrGap]. Append takes over updates.
func (l *Log) Append(lower, upper core.Time, updates []core.Update) error {
	arrived := time.Now()
	added := summed(appendExact(nil, arrived, updates))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.continues(lower, upper); err != nil {
		return err
	}
	if n := len(updates); n > 0 && (updates[0].Time < lower || updates[n-1].Time >= upper) {
		return fmt.Errorf("append updates of [%d, %d] to %s as [%d, %d): %w",
			updates[0].Time, updates[n-1].Time, l.view.Name, lower, upper, ErrGap)
	}
	l.count(updates)
	l.spans.push(added)
	l.later(record{arrived: arrived.UnixMilli(), lower: lower, upper: upper, updates: updates})
	l.advance(upper)
	return nil
}

// Rebase continues the log where the upstream's history of [frontier, upper) is
// lost but the whole view at upper is known, the snapshot of [Log.Snapshot]: the
// difference to what the log holds is appended as one solid span. Readers see an
// ordinary change. upper must lie above the frontier, and that must not have moved
// since the snapshot was begun. The error is an [*ImpossibleError], or wraps
// [ErrGap]; then the log is as it was.
func (l *Log) Rebase(upper core.Time, snapshot *Snapshot) error {
	difference, err := snapshot.difference(upper)
	if err != nil {
		return err
	}
	arrived := time.Now()
	sum := core.ChecksumOf(difference)
	l.mu.Lock()
	defer l.mu.Unlock()
	lower := l.upper
	if err := l.continues(lower, upper); err != nil {
		return err
	}
	if snapshot.at != l.frontier() {
		return fmt.Errorf("rebase %s, which is at %s, with a snapshot begun at %q: %w", l.view.Name, l.frontier(), snapshot.at, ErrGap)
	}
	l.appendSolid(upper, difference, sum, arrived)
	return nil
}

// appendSolid appends what happened up to upper as one span of the checksum sum.
// It is called with the lock held.
func (l *Log) appendSolid(upper core.Time, difference []core.Update, sum uint64, arrived time.Time) {
	lower := l.upper
	l.count(difference)
	if len(difference) > 0 || upper > lower+1 {
		sp := spanOf(lower, endOfSolid(lower, upper), arrived, difference)
		sp.sum = sum
		l.spans.push([]span{sp})
	}
	l.later(record{flags: flagSolid, arrived: arrived.UnixMilli(), lower: lower, upper: upper, updates: difference})
	l.advance(upper)
}

// continues tells whether [lower, upper) can be appended.
func (l *Log) continues(lower, upper core.Time) error {
	if len(l.generations) == 0 || lower != l.upper || upper <= lower {
		return fmt.Errorf("append [%d, %d) to %s, which ends at %d: %w", lower, upper, l.view.Name, l.upper, ErrGap)
	}
	return nil
}

// advance moves the frontier and wakes the readers, once each, and whoever
// writes to disk.
func (l *Log) advance(upper core.Time) {
	l.upper = upper
	close(l.changed)
	l.changed = make(chan struct{})
	if l.disk == nil {
		l.harden(upper)
		return
	}
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

// harden moves the durable frontier.
func (l *Log) harden(upper core.Time) {
	l.durable = upper
	close(l.hardened)
	l.hardened = make(chan struct{})
}

// count counts updates that are appended.
func (l *Log) count(updates []core.Update) {
	for _, u := range updates {
		l.stats.Rows += int64(u.Diff)
		l.falls = l.falls || u.Diff < 0
	}
	l.stats.History += size(updates)
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
	return l.frontier(), l.changed
}

func (l *Log) frontier() core.Token { return core.Token{Time: l.upper, Generation: l.generation()} }

// Identity returns the identity of the upstream whose history the log holds.
func (l *Log) Identity() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity
}

// Durable returns the token up to which the log would survive a crash, zero if
// nothing would, and a channel that is closed when it has moved. No position
// that is kept anywhere may pass it.
func (l *Log) Durable() (core.Token, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.durable == 0 {
		return core.Token{}, l.hardened
	}
	return core.Token{Time: l.durable, Generation: l.generation()}, l.hardened
}

// Stats returns figures about the log as of now.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Upper, s.Since, s.Spans = l.upper, l.since, len(l.spans.list)
	s.History += l.spans.places
	s.Bytes = l.contents.bytes + s.History
	s.Durable, s.Trouble = l.durable, l.trouble
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
	if len(l.generations) == 0 || t < l.since {
		return 0, false
	}
	return l.spans.readable(t), true
}

// Read returns the net batch from the token to at, as [core.CutReader] says.
// All its updates have the time at-1. The error wraps [core.ErrNotReadable].
func (l *Log) Read(from core.Token, at core.Time) (core.Batch, error) {
	l.mu.Lock()
	return l.read(from, core.Token{Time: at, Generation: l.generation()})
}

// Between returns the net batch between two tokens, of which from may be zero.
// It is a pure function of the log's history and the tokens: whoever asked
// before a restart of mzd gets the same bytes after it. The error wraps
// [core.ErrNotReadable] when the log cannot continue from one of them.
func (l *Log) Between(from, to core.Token) (core.Batch, error) {
	l.mu.Lock()
	if !l.knows(to) || !from.IsZero() && (!l.knows(from) || from.Time > to.Time) {
		defer l.mu.Unlock()
		return core.Batch{}, fmt.Errorf("read %s from %q to %q: %w", l.view.Name, from, to, core.ErrNotReadable)
	}
	return l.read(from, to)
}

// read reads up to a token whose generation belongs to the log's history. It is
// called with the lock held, and gives it up.
func (l *Log) read(from, to core.Token) (core.Batch, error) {
	at := to.Time
	if t, ok := l.readable(at); !ok || t != at {
		err := fmt.Errorf("read %s at %d (kept from %d, complete to %d): %w", l.view.Name, at, l.since, l.upper, core.ErrNotReadable)
		l.mu.Unlock()
		return core.Batch{}, err
	}
	b := core.Batch{View: l.view, Upper: to, Sum: l.spans.checksum(l.spans.at(at))}
	if l.knows(from) && from.Time <= at {
		b.Lower = from
		changes := l.changes(from.Time, at)
		l.mu.Unlock()
		b.Updates = core.NetUpdates(at-1, changes())
		return b, nil
	}
	whole := l.whole(at)
	l.mu.Unlock()
	b.Updates = core.NetUpdates(at-1, whole().chunks...)
	return b, nil
}

// changes prepares to add up what happened between two readable times. It is
// called with the lock held; what it returns does the work, and is called
// without the lock. The times of the sum mean nothing.
func (l *Log) changes(from, to core.Time) func() []core.Update {
	pieces := l.spans.pieces(l.spans.at(from), l.spans.at(to))
	begun, compactions := l.begun, l.stats.Compactions
	return func() []core.Update {
		merged := false
		for i := range pieces {
			if p := &pieces[i]; len(p.runs) > 1 {
				p.runs, merged = [][]core.Update{net(0, p.runs...)}, true
			}
		}
		if merged {
			l.mu.Lock()
			if l.begun == begun && l.stats.Compactions == compactions {
				l.spans.keep(pieces, l.retainBytes/2)
			}
			l.mu.Unlock()
		}
		runs := flatten(pieces)
		if len(runs) == 1 { // by far the most common: who is up to date shares the change with the log
			return runs[0]
		}
		return net(to-1, runs...)
	}
}

// whole prepares to tell what the view was at a readable time. It is called like
// changes. The log's own contents move along to later times, because whoever
// comes next will rather ask for those.
func (l *Log) whole(at core.Time) func() contents {
	begun, c, held := l.begun, l.contents, l.at
	if at < held {
		changes := l.changes(at, held)
		return func() contents { return c.minus(changes()) }
	}
	changes := l.changes(held, at)
	return func() contents {
		c := c.plus(changes())
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.begun == begun && l.at == held {
			l.contents, l.at = c, at
		}
		return c
	}
}

// knows reports whether the log can continue from the token.
func (l *Log) knows(from core.Token) bool {
	i := slices.IndexFunc(l.generations, func(g generation) bool { return g.ID == from.Generation })
	if from.IsZero() || i < 0 {
		return false
	}
	if i < len(l.generations)-1 && from.Time > l.generations[i].End {
		return false // lost with the process that gave the token away
	}
	t, ok := l.readable(from.Time)
	return ok && t == from.Time
}

// Follow returns the batches after from, as [core.Reader] says.
func (l *Log) Follow(ctx context.Context, from core.Token) iter.Seq2[core.Batch, error] {
	return follow(ctx, l, from)
}

// follow is a cut of one.
func follow(ctx context.Context, r core.CutReader, from core.Token) iter.Seq2[core.Batch, error] {
	return func(yield func(core.Batch, error) bool) {
		for cut, err := range core.FollowCut(ctx, []core.CutReader{r}, []core.Token{from}) {
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.knows(at) {
		return nil, fmt.Errorf("hold %s at %s: %w", l.view.Name, at, core.ErrNotReadable)
	}
	h := &Hold{log: l}
	l.holds[h] = at.Time
	return h, nil
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
	old, chunks := l.spans.old(time.Now().Add(-l.retain), l.stats.History+l.spans.places-l.retainBytes), len(l.contents.chunks)
	var end core.Time
	if n := len(old); n > 0 {
		end = old[n-1].upper
	}
	held := l.heldTimes(end)
	l.mu.Unlock()
	if !worthMerging(chunks, old, held) {
		return false
	}
	l.leave(end)

	// Readers go on meanwhile; they have the runs of the old spans.
	since, rest := merge(old, held)
	before, after := sizeOf(old), sizeOf(rest)

	l.mu.Lock()
	defer l.mu.Unlock()
	if len(rest) == len(old) || l.at < end || !slices.Equal(held, l.heldTimes(end)) {
		return false // all of it is held, or somebody moved a hold in between: the next call sees it
	}
	l.since = max(l.since, since)
	l.coarse = slices.DeleteFunc(l.coarse, func(r record) bool { return r.upper <= l.since })
	l.spans.before = l.spans.checksum(l.spans.at(l.since))
	l.spans.replaceFirst(len(old), rest)
	l.stats.History += after - before
	l.stats.Compactions++
	return true
}

// Check reports, as an [*ImpossibleError], a row of which there are fewer copies than
// none since something was appended: the upstream is wrong, and what follows from it means
// nothing. The writer calls it after appending. It moves the log's own contents along
// with the frontier, which readers gain by, and so seldom that it takes no more than a
// fiftieth of the writer's time; other calls return at once. What it has found is there,
// and goes with a [Log.Rebase].
func (l *Log) Check() error {
	begun := time.Now()
	l.mu.Lock()
	if !l.falls || begun.Before(l.checkAgain) && l.upper < core.EndOfTime {
		l.mu.Unlock()
		return nil
	}
	l.falls = false
	upper, whole := l.upper, l.whole(l.upper)
	l.mu.Unlock()
	c := whole()
	l.mu.Lock()
	l.checkAgain = begun.Add(max(checkEvery, 50*time.Since(begun)))
	l.mu.Unlock()
	if c.below > 0 {
		return c.impossible(upper - 1)
	}
	return nil
}

// checkEvery is how often [Log.Check] looks at most.
const checkEvery = time.Second

// leave moves the log's own contents past a time, because what is before is
// going to be merged.
func (l *Log) leave(end core.Time) {
	move := func() contents { return contents{} }
	l.mu.Lock()
	if l.at < end {
		move = l.whole(end)
	}
	l.mu.Unlock()
	move()
}

// heldTimes returns the times below end that somebody holds, in order.
func (l *Log) heldTimes(end core.Time) []core.Time {
	var times []core.Time
	for _, t := range l.holds {
		if t < end {
			times = append(times, t)
		}
	}
	slices.Sort(times)
	return slices.Compact(times)
}
