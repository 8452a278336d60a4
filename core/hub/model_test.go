package hub_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable/durabletest"
	"github.com/mzdio/mzd/core/hub"
	"github.com/mzdio/mzd/core/modeltest"
)

var (
	seed  = flag.Uint64("seed", 0, "run this seed of the model only; 0: the first -seeds")
	seeds = flag.Uint64("seeds", 20, "how many seeds of the model to run")
)

// TestModel plays with everything at once: changes upstream, streams that
// break, histories that are gone, other databases, sinks that fail before or
// after they have applied a cut, full disks, processes that stop, are killed or
// lose what was not synced. The sinks check every write against what they may
// see; in the end all of them hold what the upstream does. Of a script that
// fails it prints the operations that matter.
func TestModel(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed > 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last; n++ {
		t.Run(fmt.Sprint("seed ", n), func(t *testing.T) {
			script := randomScript(n, 300)
			play := func(script []operation) (err error) {
				synctest.Test(t, func(t *testing.T) { err = newWorld(n).play(script) })
				return err
			}
			if err := play(script); err != nil {
				shrunk, err := modeltest.Shrink(script, err, 300, play)
				t.Errorf("seed %d: %d of %d operations fail:\n%v", n, len(shrunk), len(script), err)
			}
		})
	}
}

// operation is something that happens. What it does exactly follows from its
// seed and from the world as it is.
type operation struct {
	do   func(*world)
	seed uint64
}

// operations are all there are, each as often as it is to happen.
var operations = slices.Concat(
	slices.Repeat([]func(*world){(*world).advance}, 60),
	slices.Repeat([]func(*world){(*world).interrupt}, 6),
	slices.Repeat([]func(*world){(*world).forget}, 3),
	slices.Repeat([]func(*world){(*world).replace}, 2),
	slices.Repeat([]func(*world){(*world).seal}, 1),
	slices.Repeat([]func(*world){(*world).change}, 11),
	slices.Repeat([]func(*world){(*world).kill}, 3),
	slices.Repeat([]func(*world){(*world).fill}, 3),
	slices.Repeat([]func(*world){(*world).heal}, 3),
	slices.Repeat([]func(*world){(*world).crash}, 3),
	slices.Repeat([]func(*world){(*world).stop}, 3),
	slices.Repeat([]func(*world){(*world).end}, 3),
	slices.Repeat([]func(*world){(*world).configure}, 2),
	slices.Repeat([]func(*world){(*world).restore}, 2),
)

// randomScript makes n operations by chance, and waits between them.
func randomScript(seed uint64, n int) []operation {
	r := rand.New(rand.NewPCG(seed, 0))
	var script []operation
	for range n {
		script = append(script, operation{operations[r.IntN(len(operations))], r.Uint64()})
		if r.IntN(3) > 0 {
			script = append(script, operation{(*world).wait, r.Uint64()})
		}
		if r.IntN(40) == 0 {
			script = append(script, operation{(*world).waitLong, 0})
		}
	}
	return script
}

// contents is a view: rows and their copies.
type contents map[core.Row]core.Diff

// checksum is that of a view.
func (c contents) checksum() uint64 {
	var sum uint64
	for row, n := range c {
		sum += uint64(n) * row.Hash()
	}
	return sum
}

func (c contents) add(updates []core.Update) {
	for _, u := range updates {
		if c[u.Row] += u.Diff; c[u.Row] == 0 {
			delete(c, u.Row)
		}
	}
}

// table is a view upstream, of all epochs: each begins when another database
// takes the place of the one before.
type table struct {
	name   string
	epochs []*epoch

	moved chan struct{} // closed and replaced when anything happens
	broke chan struct{} // closed and replaced to end the streams
}

type epoch struct {
	first   core.Time // it can be seen from here on
	upper   core.Time
	since   core.Time // history before it is gone
	rows    contents
	updates []core.Update
}

// begin begins an epoch. A row that only it has tells it from the others.
func (tb *table) begin(upper core.Time, rows contents) {
	rows[mark(len(tb.epochs))] = 1
	e := &epoch{first: upper, upper: upper, since: upper, rows: rows}
	if upper == core.EndOfTime {
		e.first = 1 // a constant has always been
	}
	for row, n := range rows {
		e.updates = append(e.updates, core.Update{Time: e.first - 1, Row: row, Diff: n})
	}
	tb.epochs = append(tb.epochs, e)
}

func (e *epoch) String() string { return fmt.Sprint(e.upper, e.rows) }

func mark(epoch int) core.Row { return core.Row(fmt.Sprintf(`["epoch %d"]`, epoch)) }

func (tb *table) now() *epoch { return tb.epochs[len(tb.epochs)-1] }

// at returns the contents at a time of an epoch.
func (e *epoch) at(t core.Time) contents {
	c := contents{}
	for _, u := range e.updates {
		if u.Time < t {
			c.add([]core.Update{u})
		}
	}
	return c
}

// world is the upstream, the disk and the receivers; it outlives processes.
type world struct {
	r     *rand.Rand // of the operation
	bytes int64      // of exact history, at most

	mu        sync.Mutex // guards what follows, and what it points to
	tables    map[string]*table
	fs        *durabletest.FS
	process   int
	receivers []*receiver
	p         *process
	story     []string // what was done
	problem   string   // the first
}

func newWorld(seed uint64) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 0)), bytes: []int64{0, 1000}[seed%2], fs: durabletest.New(), tables: make(map[string]*table)}
	for _, name := range []string{"a", "b", "c"} {
		tb := &table{name: name, moved: make(chan struct{}), broke: make(chan struct{})}
		tb.begin(100, contents{})
		w.tables[name] = tb
	}
	for _, c := range []hub.Sink{
		{Name: "separate", Views: []string{"a", "b"}},
		{Name: "together", Views: []string{"a", "b", "c"}, Together: true},
		{Name: "late", Views: []string{"b"}, SkipSnapshot: true},
		{Name: "own", Views: []string{"c"}},
	} {
		rc := &receiver{w: w, config: c, views: make(map[string]*received)}
		for _, v := range c.Views {
			rc.views[v] = &received{}
		}
		w.receivers = append(w.receivers, rc)
	}
	w.launch()
	return w
}

func (w *world) launch() {
	w.process++
	var sinks []hub.Sink
	for _, rc := range w.receivers {
		c := rc.config
		c.Sink = link{rc, w.fs, w.process}
		if c.Name == "own" {
			c.Sink = ownLink{link{rc, w.fs, w.process}}
		}
		sinks = append(sinks, c)
	}
	var err error
	w.p, err = newProcess(hub.Options{
		Views: []hub.View{{Name: "a"}, {Name: "b"}, {Name: "c"}}, Sinks: sinks, FS: w.fs,
		Subscribe: w.subscribe, Retain: 5 * time.Second, RetainBytes: w.bytes, RewriteBytes: 500, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.wrong("start process %d: %v", w.process, err)
	}
}

// play does the operations, and compares everything in the end. The error tells
// what was done, and what was wrong then.
func (w *world) play(script []operation) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range script {
		w.r = rand.New(rand.NewPCG(o.seed, 0))
		o.do(w)
		if w.problem == "" && w.fs.Dead() {
			w.restart(false)
		}
		if w.problem != "" {
			break
		}
	}
	if w.problem == "" {
		w.finish()
	}
	if w.p != nil {
		w.mu.Unlock()
		w.p.end()
		err := <-w.p.done
		w.mu.Lock()
		if err != nil {
			w.wrong("the last process ended with %v", err)
		}
	}
	if w.problem == "" {
		return nil
	}
	return errors.New(strings.Join(append(w.story, w.problem), "\n"))
}

// tell adds a line to the story. The caller holds mu.
func (w *world) tell(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf(format, args...))
}

// wrong notes what is wrong. The caller holds mu.
func (w *world) wrong(format string, args ...any) {
	if w.problem == "" {
		w.problem = fmt.Sprintf(format, args...)
	}
}

// The operations. Their caller holds mu.

func (w *world) wait()     { w.pass(time.Duration(w.r.IntN(300)) * time.Millisecond) }
func (w *world) waitLong() { w.pass(time.Minute) } // for whoever waits, and for compaction

func (w *world) pass(d time.Duration) {
	w.tell("wait %s", d)
	w.mu.Unlock()
	<-time.After(d)
	w.mu.Lock()
}

// table returns any table.
func (w *world) table() *table { return w.tables[[]string{"a", "b", "c"}[w.r.IntN(3)]] }

// receiver returns any receiver.
func (w *world) receiver() *receiver { return w.receivers[w.r.IntN(len(w.receivers))] }

// interrupt breaks the streams of a view.
func (w *world) interrupt() {
	tb := w.table()
	w.tell("break the stream of %s", tb.name)
	tb.interrupt()
}

// forget makes a view forget its history, and breaks its streams.
func (w *world) forget() {
	tb := w.table()
	w.tell("forget the history of %s until %d", tb.name, tb.now().upper)
	tb.now().since = tb.now().upper
	tb.interrupt()
}

// replace puts another database in the place of a view's.
func (w *world) replace() {
	tb := w.table()
	upper := core.Time(1 + w.r.IntN(int(2*min(tb.now().upper, 1000))))
	rows := contents{"[9]": 1}
	if w.r.IntN(2) == 0 {
		rows = maps.Clone(tb.now().rows)
		delete(rows, mark(len(tb.epochs)-1))
	}
	w.tell("another database has %s, at %d: %v", tb.name, upper, rows)
	tb.begin(upper, rows)
	tb.interrupt()
}

// seal puts a constant in the place of a view.
func (w *world) seal() {
	tb := w.table()
	rows := contents{core.Row(fmt.Sprintf("[%d]", w.r.IntN(8))): 1}
	w.tell("%s is a constant: %v", tb.name, rows)
	tb.begin(core.EndOfTime, rows)
	tb.interrupt()
}

// change changes the mood of a receiver.
func (w *world) change() {
	rc := w.receiver()
	rc.mood = mood(w.r.IntN(3))
	w.tell("from now on %s %s", rc.config.Name, rc.mood)
}

// kill has a receiver kill the process.
func (w *world) kill() {
	rc := w.receiver()
	rc.killer = 1 + w.r.IntN(3)
	w.tell("%s kills at its write %d", rc.config.Name, rc.killer)
}

// fill fails writes or syncs, all or some of them.
func (w *world) fill() {
	op, every := []string{"write", "sync"}[w.r.IntN(2)], 1+w.r.IntN(3)
	w.tell("the disk is full: 1 %s in %d fails", op, every)
	w.fs.Fail(func(call int, o string) error {
		if o == op && call%every == 0 {
			return syscall.ENOSPC
		}
		return nil
	})
}

// heal ends whatever is wrong with the disk.
func (w *world) heal() {
	w.tell("the disk is well")
	w.fs.Fail(nil)
}

// crash ends the machine at some operation on the disk.
func (w *world) crash() {
	n := w.r.IntN(100)
	w.tell("crash at operation %d on the disk", n)
	at := w.fs.Calls() + n
	w.fs.Fail(func(call int, _ string) error {
		if call >= at {
			return durabletest.ErrCrashed
		}
		return nil
	})
}

func (w *world) stop() { w.restart(true) }
func (w *world) end()  { w.restart(false) }

// configure changes whether the views of a sink move together. What is under way then
// may come again in other cuts, or as bases.
func (w *world) configure() {
	rc := w.receivers[w.r.IntN(2)]
	rc.config.Together = !rc.config.Together
	w.tell("from the next process on %s gets its views together: %v", rc.config.Name, rc.config.Together)
	w.restart(w.r.IntN(2) == 0)
	for _, v := range rc.views {
		v.pending, v.taken, v.loose = "", "", true
	}
}

// restore puts what a receiver had at some time in the place of what it has, if it
// keeps its own position.
func (w *world) restore() {
	rc := w.receivers[len(w.receivers)-1]
	v := rc.views["c"]
	if rc.backup == nil || w.r.IntN(2) == 0 {
		w.tell("back up what own has, at %s", v.at)
		b := *v
		b.rows = maps.Clone(v.rows)
		rc.backup = &b
		return
	}
	w.tell("own has what it had at %s again", rc.backup.at)
	w.restart(w.r.IntN(2) == 0)
	*v, rc.backup = *rc.backup, nil
	v.loose = true // what came after that may be forgotten
}

// restart ends the process and begins another. The caller holds mu.
func (w *world) restart(inOrder bool) {
	p, fs := w.p, w.fs
	switch {
	case inOrder && !fs.Dead():
		w.tell("stop mzd, and start it")
		fs.Fail(nil)
		for _, rc := range w.receivers {
			rc.killer = 0
		}
		w.mu.Unlock()
		p.end()
		err := <-p.done
		w.mu.Lock()
		if err != nil {
			w.wrong("process %d ended with %v", w.process, err)
		}
		for _, rc := range w.receivers {
			for _, v := range rc.views {
				if v.by == w.process { // its acknowledgements were saved on the way down
					v.taken = ""
				}
			}
		}
	default:
		if w.r.IntN(2) == 0 {
			w.tell("kill mzd, and start it")
			w.fs = fs.Kill()
		} else {
			w.tell("crash, and start mzd")
			w.fs = fs.Crash(w.r)
		}
		w.mu.Unlock()
		p.end()
		<-p.done
		w.mu.Lock()
	}
	w.fs.Fail(nil)
	w.launch()
}

// advance changes a view, or only its time.
func (w *world) advance() {
	tb := w.table()
	e := tb.now()
	if e.upper == core.EndOfTime {
		return
	}
	upper := e.upper + core.Time(1+w.r.IntN(10))
	var updates []core.Update
	for range w.r.IntN(4) {
		row := core.Row(fmt.Sprintf("[%d]", w.r.IntN(8)))
		d := core.Diff(1)
		if e.rows[row] > 0 && w.r.IntN(2) == 0 {
			d = -1
		}
		u := core.Update{Time: e.upper + core.Time(w.r.IntN(int(upper-e.upper))), Row: row, Diff: d}
		updates = append(updates, u)
		e.rows.add([]core.Update{u})
	}
	// What was drawn in one order must stay a collection in that of time.
	for i := range updates {
		updates[i].Time = max(updates[i].Time, updates[max(i-1, 0)].Time)
	}
	updates = core.Consolidate(updates)
	w.tell("%s goes on to %d: %v", tb.name, upper, updates)
	e.updates = append(e.updates, updates...)
	e.upper = upper
	close(tb.moved)
	tb.moved = make(chan struct{})
}

func (tb *table) interrupt() {
	close(tb.broke)
	tb.broke = make(chan struct{})
	close(tb.moved)
	tb.moved = make(chan struct{})
}

// subscribe is the upstream.
func (w *world) subscribe(_ context.Context, r hub.Request) (hub.Stream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tb := w.tables[r.Name]
	e := tb.now()
	f := &flow{w: w, table: tb, epoch: e, broke: tb.broke, identity: fmt.Sprint(r.Name, len(tb.epochs))}
	if f.identity == r.Identity {
		f.resumed = r.Upper >= e.since && r.Upper <= e.upper && r.Upper > 0
		f.at = r.Upper
	}
	return f, nil
}

// flow is a stream of the upstream.
type flow struct {
	w        *world
	table    *table
	epoch    *epoch
	broke    chan struct{}
	identity string
	resumed  bool
	begun    bool
	at       core.Time
}

func (f *flow) Columns() []core.Column { return oneColumn }
func (f *flow) Identity() string       { return f.identity }
func (f *flow) Resumed() bool          { return f.resumed }
func (f *flow) Restarted() string      { return "" }
func (f *flow) Close()                 {}

func (f *flow) Next(ctx context.Context) (core.Batch, error) {
	for {
		f.w.mu.Lock()
		moved := f.table.moved
		b, ok := f.next()
		f.w.mu.Unlock()
		select {
		case <-f.broke:
			return core.Batch{}, unreachable("connection reset")
		default:
		}
		if ok {
			return b, nil
		}
		select {
		case <-moved:
		case <-f.broke:
		case <-ctx.Done():
			return core.Batch{}, ctx.Err()
		}
	}
}

func (f *flow) Snapshot(ctx context.Context, add func([]byte, core.Diff)) (core.Time, error) {
	return snapshotOf(ctx, f, add)
}

// next returns what there is. The caller holds the world's mu.
func (f *flow) next() (core.Batch, bool) {
	if f.epoch.upper <= f.at {
		return core.Batch{}, false
	}
	b := core.Batch{Lower: core.Token{Time: f.at}, Upper: core.Token{Time: f.epoch.upper}}
	var list []core.Update
	if !f.begun && !f.resumed {
		b.Lower = core.Token{}
		for row, n := range f.epoch.at(f.epoch.upper) {
			list = append(list, core.Update{Time: f.epoch.upper - 1, Row: row, Diff: n})
		}
	} else {
		for _, u := range f.epoch.updates {
			if u.Time >= f.at {
				list = append(list, u)
			}
		}
	}
	b.Updates = core.UpdatesOf(core.Consolidate(list))
	f.begun, f.at = true, f.epoch.upper
	return b, true
}

// mood is what a receiver does with what it is written.
type mood int

const (
	takes   mood = iota
	refuses      // without applying it
	forgets      // applies it and fails
)

func (m mood) String() string {
	return []string{"takes what it is written", "refuses what it is written", "applies what it is written, and fails"}[m]
}

// receiver is the other end of a sink. It outlives processes.
type receiver struct {
	w      *world
	config hub.Sink
	views  map[string]*received
	mood   mood
	killer int // kill the process at that write from now; 0: at none
	backup *received
}

// received is what a receiver has of a view.
type received struct {
	at    core.Token // what it acknowledged, or for "own" what it applied
	start core.Time  // where rows begin; not 0 for one that skipped the snapshot
	epoch int        // of which the rows are, as far as anybody can tell
	rows  contents   // since start
	loose bool       // its cuts or its place have been changed since: a base may come

	// Of the cuts that begin with this view:
	pending string // the one that it did not acknowledge; empty: none
	taken   string // the one that it acknowledged last, if mzd may not know
	by      int    // the process that wrote taken
}

// link is a receiver as one process sees it.
type link struct {
	*receiver
	fs      *durabletest.FS
	process int
}

func (l link) Close() error { return nil }

func (l link) Write(_ context.Context, cut []core.Batch) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.fs.Dead() {
		return durabletest.ErrCrashed // there is no such process any more
	}
	rc := l.receiver
	if rc.killer > 0 {
		if rc.killer--; rc.killer == 0 {
			l.fs.Fail(func(int, string) error { return durabletest.ErrCrashed })
		}
	}
	text := cutText(cut)
	group := rc.views[cut[0].View.Name]
	if text == group.taken && group.by != l.process {
		return nil // the process that wrote it died before it knew
	}
	if problem := rc.check(cut, text); problem != "" {
		l.w.wrong("%s, process %d: %s\n got %s\npending %s\ntaken %s", rc.config.Name, l.process, problem, text, group.pending, group.taken)
	}
	if rc.mood == takes || rc.mood == forgets && rc.config.Name == "own" {
		rc.apply(cut, text, l.process)
	}
	if rc.mood != takes {
		if rc.config.Name != "own" {
			group.pending = text
		}
		return errors.New("away")
	}
	return nil
}

// ownLink is a receiver that keeps its own position.
type ownLink struct{ link }

func (l ownLink) Position(_ context.Context, v *core.View) (core.Token, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.mood == refuses {
		return core.Token{}, errors.New("away")
	}
	return l.views[v.Name].at, nil
}

// check says what is wrong with a cut.
func (rc *receiver) check(cut []core.Batch, text string) string {
	if pending := rc.views[cut[0].View.Name].pending; pending != "" && text != pending {
		// Bases replace whatever was applied of it; a history must have ended.
		for _, b := range cut {
			if !b.IsBase() {
				return "an attempt changed"
			}
		}
		if !rc.mayRestart(cut) {
			return "bases for no reason"
		}
	}
	for _, b := range cut {
		v := rc.views[b.View.Name]
		if b.Upper.Time != cut[0].Upper.Time {
			return "a cut of several times"
		}
		switch {
		case rc.config.Name == "own" && b.Upper == v.at:
			return "" // again, as it was applied and not acknowledged
		case v.loose && (b.IsBase() || b.Upper == v.at):
		case b.IsBase() && !v.at.IsZero() && !rc.mayRestart(cut):
			return "a base for no reason"
		case !b.IsBase() && b.Lower != v.at && (!rc.config.SkipSnapshot || !v.at.IsZero()):
			return fmt.Sprintf("%s goes on at %s, not at %s", b.View.Name, b.Lower, v.at)
		}
		before := core.Row("")
		for u := range b.Updates.All() {
			if u.Time != b.Upper.Time-1 || u.Diff == 0 || u.Row <= before {
				return "not a net batch"
			}
			before = u.Row
		}
	}
	return ""
}

// mayRestart reports whether a view of the cut has had another history since.
func (rc *receiver) mayRestart(cut []core.Batch) bool {
	return slices.ContainsFunc(cut, func(b core.Batch) bool {
		return rc.views[b.View.Name].epoch < len(rc.w.tables[b.View.Name].epochs)-1
	})
}

// apply adds a cut, and compares the sums with the views as they were.
func (rc *receiver) apply(cut []core.Batch, text string, process int) {
	group := rc.views[cut[0].View.Name]
	group.pending, group.taken, group.by = "", text, process
	for _, b := range cut {
		v := rc.views[b.View.Name]
		epochs := rc.w.tables[b.View.Name].epochs
		loose := v.loose
		v.loose = false
		switch {
		case b.Upper == v.at && (rc.config.Name == "own" || loose && !b.IsBase()):
			continue
		case b.IsBase():
			v.rows, v.start = contents{}, 0
		case v.at.IsZero():
			v.rows, v.start = contents{}, b.Lower.Time
		}
		v.rows.add(b.Updates.Slice())
		v.at = b.Upper
		v.epoch = slices.IndexFunc(epochs, v.fits)
		if v.epoch < 0 {
			v.epoch = 0
			rc.w.wrong("%s has %s at %s: %v, since %d; want one of %v", rc.config.Name, b.View.Name, b.Upper, v.rows, v.start, epochs)
		}
		if whole := epochs[v.epoch].at(v.at.Time); b.Sum != whole.checksum() {
			rc.w.wrong("%s got %s at %s with the checksum %016x, want that of %v", rc.config.Name, b.View.Name, b.Upper, b.Sum, whole)
		}
	}
}

// fits reports whether the rows are those of an epoch.
func (v *received) fits(e *epoch) bool {
	rows := maps.Clone(v.rows)
	if v.start > 0 {
		for row, n := range e.at(v.start) {
			rows.add([]core.Update{{Row: row, Diff: n}})
		}
	}
	return v.at.Time >= e.first && v.at.Time <= e.upper && maps.Equal(rows, e.at(v.at.Time))
}

func cutText(cut []core.Batch) string {
	var parts []string
	for _, b := range cut {
		parts = append(parts, fmt.Sprintf("%s %q..%q %v %016x", b.View.Name, b.Lower, b.Upper, b.Updates, b.Sum))
	}
	return strings.Join(parts, " | ")
}

// finish heals everything, and compares. The caller holds mu.
func (w *world) finish() {
	for _, rc := range w.receivers {
		rc.mood, rc.killer = takes, 0
	}
	w.fs.Fail(nil)
	if w.fs.Dead() {
		if w.restart(false); w.problem != "" {
			return
		}
	}
	top, moving := core.Time(0), []*table{}
	for _, tb := range w.tables {
		for _, e := range tb.epochs {
			if e.upper < core.EndOfTime {
				top = max(top, e.upper)
			}
		}
		if tb.now().upper < core.EndOfTime {
			moving = append(moving, tb)
		}
	}
	// Time goes on, so that the views have a time in common, which is after all that
	// a sink has seen of a constant.
	for i := range core.Time(2) {
		for _, tb := range moving {
			tb.now().upper = top + 5 + i
			close(tb.moved)
			tb.moved = make(chan struct{})
		}
		w.pass(5 * time.Minute)
	}
	for _, rc := range w.receivers {
		for name, v := range rc.views {
			started := !rc.config.SkipSnapshot || !v.at.IsZero()
			e, upper := w.tables[name].now(), w.tables[name].now().upper
			moves := func(name string) bool { return slices.Contains(moving, w.tables[name]) }
			if rc.config.Together && slices.ContainsFunc(rc.config.Views, moves) {
				upper = min(upper, top+6)
			}
			if started && (v.at.Time != upper || !v.fits(e)) {
				w.wrong("in the end %s has %s at %s: %v; want %d: %v", rc.config.Name, name, v.at, v.rows, upper, e.rows)
			}
		}
	}
}
