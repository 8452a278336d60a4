package viewlog_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable/durabletest"
	"github.com/mzdio/mzd/core/modeltest"
	"github.com/mzdio/mzd/core/viewlog"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed of the model test")
	seeds     = flag.Uint64("seeds", 20, "number of seeds of the model test")
)

// TestModel runs random histories against a plain list of updates.
func TestModel(t *testing.T) {
	everything := mix{
		{550, (*model).append}, {20, (*model).rebase}, {1, (*model).reset}, {80, (*model).wait}, {90, (*model).compact},
		{50, (*model).hold}, {20, (*model).crash}, {80, (*model).readBetween}, {100, (*model).read},
		{4, (*model).seal}, {25, (*model).fill}, {15, (*model).hang}, {50, (*model).stand}, {20, (*model).impossible},
	}
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { everything.play(t, seed, 800, false) })
		t.Run(fmt.Sprint("disk/seed=", seed), func(t *testing.T) { everything.play(t, seed, 800, true) })
	}
}

// mix says what happens to a log in a script, and how often.
type mix []struct {
	weight int
	do     func(*model)
}

// operation is something that happens. What it does exactly follows from its
// seed and from the log as it is, so that it also means something without the
// operations before it.
type operation struct {
	do   func(*model)
	seed uint64
}

// play does n operations by chance. If they fail, it prints those that matter.
func (x mix) play(t *testing.T, seed uint64, n int, disk bool) {
	r := rand.New(rand.NewPCG(seed, 0))
	var all []func(*model)
	for _, o := range x {
		all = append(all, slices.Repeat([]func(*model){o.do}, o.weight)...)
	}
	var script []operation
	for range n {
		script = append(script, operation{all[r.IntN(len(all))], r.Uint64()})
	}
	play := func(script []operation) (err error) {
		synctest.Test(t, func(t *testing.T) { err = newModel(t, seed, disk).play(script) })
		return err
	}
	if err := play(script); err != nil {
		shrunk, err := modeltest.Shrink(script, err, 300, play)
		t.Errorf("seed %d: %d of %d operations fail:\n%v", seed, len(shrunk), n, err)
	}
}

const retain = time.Minute

// model is the oracle: every update that the log was told, and every token that
// it gave away.
type model struct {
	t       *testing.T
	r       *rand.Rand // of the operation
	story   []string   // what was done
	log     *viewlog.Log
	fs      *durabletest.FS // nil: in memory
	stop    func()          // ends Run
	updates []core.Update   // of this history, times as told
	upper   core.Time
	tokens  []core.Token // of all histories
	holds   []*held
	stands  []*held // where a restart must be able to go on
	full    bool    // the disk
	wake    func()  // ends a sync that hangs, and all that would; nil: none does
	size    int     // of the view, about: small, so that updates meet, or of many chunks
	bytes   int64   // of exact history, at most

	history   int                     // the number of this one
	histories [][]core.Update         // what was told of each, in the end
	ends      map[core.Generation]end // of generations that are not current
	historyOf map[core.Generation]int // of every generation seen
	durable   map[int]core.Time       // the largest durable frontier seen, by history
}

// end is where a generation ended, and the history that it was part of.
type end struct {
	history int
	upper   core.Time
}

type held struct {
	*viewlog.Hold
	at core.Token
}

func newModel(t *testing.T, seed uint64, disk bool) *model {
	m := &model{
		t:         t,
		r:         rand.New(rand.NewPCG(seed, 0)),
		stop:      func() {},
		ends:      map[core.Generation]end{},
		durable:   map[int]core.Time{},
		historyOf: map[core.Generation]int{},
	}
	m.size = []int{8, 8, 500}[seed%3]
	m.bytes = []int64{0, 1000}[seed/3%2]
	if disk {
		m.fs = durabletest.New()
	}
	return m
}

// play does the operations, and checks everything in the end. The error tells
// what was done, and what was wrong then.
func (m *model) play(script []operation) (err error) {
	defer func() {
		if m.wake != nil {
			m.wake()
		}
		m.stop()
	}()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = fmt.Errorf("%s\n%s", strings.Join(m.story, "\n"), p)
		default:
			err = fmt.Errorf("%s\npanic: %v\n%s", strings.Join(m.story, "\n"), p, debug.Stack())
		}
	}()
	m.open()
	m.reset()
	for _, o := range script {
		m.r = rand.New(rand.NewPCG(o.seed, 0))
		o.do(m)
	}
	m.checkEverything()
	return nil
}

// failure ends a script; see fail.
type failure string

func (m *model) fail(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// tell adds a line to the story.
func (m *model) tell(format string, args ...any) {
	m.story = append(m.story, fmt.Sprintf(format, args...))
}

// text writes updates as "[r1]+2@17".
func text(updates []core.Update) string {
	var s []string
	for _, u := range updates {
		s = append(s, fmt.Sprintf("[%s]%+d@%d", u.Row[2:len(u.Row)-2], u.Diff, u.Time))
	}
	return strings.Join(s, " ")
}

func (m *model) open() {
	o := viewlog.Options{Retain: retain, RetainBytes: m.bytes, RewriteBytes: 500} // so that files are written anew all the time
	if m.fs == nil {
		m.log = viewlog.New("v", o)
		return
	}
	o.FS = m.fs
	var err error
	if m.log, err = viewlog.Open("dir", "v", o); err != nil {
		m.fail("%v", err)
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.log.Run(ctx)
	}()
	m.stop = func() {
		cancel()
		<-done
	}
}

// crash ends the process, or the machine, and begins again with what is left.
func (m *model) crash() {
	if m.fs == nil {
		return
	}
	flushed, how := m.r.IntN(2) == 0, m.r.IntN(3)
	wake := func() {}
	if m.wake != nil {
		wake, m.wake = m.wake, nil
	}
	if flushed {
		synctest.Wait() // everything has become durable
	}
	if d, _ := m.log.Durable(); !d.IsZero() {
		m.durable[m.history] = d.Time
	}
	m.histories[m.history] = m.updates
	m.tell("%s (durable until %d)", []string{"stop and open", "kill and open", "crash and open"}[how], m.durable[m.history])
	m.full = false
	switch how {
	case 0:
		m.fs.Fail(nil) // and it stops as it should
	case 1:
		m.fs = m.fs.Kill()
	default:
		m.fs = m.fs.Crash(m.r)
	}
	wake()
	m.stop()
	m.open()
	m.holds = nil
	upper, _ := m.log.Frontier()
	if upper.IsZero() {
		if len(m.durable) > 0 {
			m.fail("nothing is left of %v", m.durable)
		}
		m.reset()
		return
	}
	before := m.history
	fmt.Sscanf(m.log.View().Columns[0].Name, "c%d", &m.history)
	if m.history > before || upper.Time < m.durable[m.history] {
		m.fail("history %d at %d came back at %s of history %d, of which %d was durable", before, m.upper, upper, m.history, m.durable[m.history])
	}
	for i := m.history + 1; i <= before; i++ {
		if m.durable[i] > 0 {
			m.fail("history %d came back, and of history %d was durable until %d", m.history, i, m.durable[i])
		}
	}
	for _, k := range m.tokens { // what was given away of this history and is lost
		if e, ended := m.ends[k.Generation]; m.historyOf[k.Generation] == m.history && (!ended || e.upper > upper.Time) {
			m.ends[k.Generation] = end{m.history, upper.Time}
		}
	}
	m.updates = slices.DeleteFunc(slices.Clone(m.histories[m.history]), func(u core.Update) bool { return u.Time >= upper.Time })
	m.histories[m.history] = m.updates
	m.durable[m.history] = upper.Time
	m.moved(upper.Time)
	m.check(core.Token{}, upper.Time)
	stands := m.stands
	m.stands = nil
	for _, s := range stands {
		if m.historyOf[s.at.Generation] == m.history {
			m.standAt(s.at)
		}
	}
}

// stand is what a sink does that keeps its position: it moves to what it may read,
// if that is on disk.
func (m *model) stand() {
	if m.fs == nil {
		return
	}
	r := m.log.DurableReader()
	frontier, _ := r.Frontier()
	at, ok := r.Readable(frontier.Time - min(frontier.Time, core.Time(m.r.IntN(40))))
	if !ok || frontier.IsZero() {
		return
	}
	if len(m.stands) > 2 {
		m.stands[0].Release()
		m.stands = m.stands[1:]
	}
	m.standAt(core.Token{Time: at, Generation: frontier.Generation})
}

func (m *model) standAt(at core.Token) {
	m.tell("stand at %s", at)
	h, err := m.log.Hold(at)
	if err != nil {
		m.fail("stand: %v", err)
	}
	m.stands = append(m.stands, &held{h, at})
}

func (m *model) wait() {
	d := time.Duration(m.r.IntN(20)) * time.Second
	m.tell("wait %s", d)
	pass(d)
}

func (m *model) compact() { m.tell("compact: %v", m.log.Compact()) }

func pass(d time.Duration) { <-time.After(d) }

func (m *model) row() core.Row { return core.Row(fmt.Sprintf(`["r%d"]`, m.r.IntN(m.size*3/2))) }

// seal ends all change.
func (m *model) seal() {
	if m.upper == core.EndOfTime {
		return
	}
	batch := core.Consolidate([]core.Update{{Time: m.upper, Diff: 1, Row: m.row()}, {Time: m.upper, Diff: -1, Row: m.row()}})
	m.tell("append [%d, the end): %s", m.upper, text(batch))
	m.updates = append(m.updates, batch...)
	if err := m.log.Append(m.upper, core.EndOfTime, slices.Clone(batch)); err != nil {
		m.fail("%v", err)
	}
	m.moved(core.EndOfTime)
}

// fill fills the disk, or makes room on it again.
func (m *model) fill() {
	if m.fs == nil {
		return
	}
	if m.full = !m.full; !m.full {
		m.tell("room on the disk")
		m.fs.Fail(nil)
		return
	}
	left := m.r.IntN(3)
	m.tell("no room on the disk after %d writes", left)
	m.fs.Fail(func(_ int, op string) error {
		if op != "write" {
			return nil
		}
		if left--; left < 0 {
			return syscall.ENOSPC
		}
		return nil
	})
}

// hang has syncs hang, or ends that.
func (m *model) hang() {
	if m.fs == nil {
		return
	}
	if m.wake != nil {
		m.tell("syncs end")
		m.wake()
		m.wake = nil
		return
	}
	m.tell("syncs hang")
	m.wake = m.fs.Hang()
}

func (m *model) append() {
	if m.upper == core.EndOfTime {
		if m.r.IntN(60) == 0 {
			m.reset()
		}
		return
	}
	lower := m.upper
	upper := lower + 1 + core.Time(m.r.IntN(5))
	var batch []core.Update
	for range m.r.IntN(6) + m.r.IntN(m.size/8) {
		batch = append(batch, core.Update{
			Time: lower + core.Time(m.r.Uint64N(uint64(upper-lower))), Diff: core.Diff(m.r.IntN(5) - 2), Row: m.row(),
		})
	}
	batch = core.Consolidate(batch)
	m.tell("append [%d, %d): %s", lower, upper, text(batch))
	m.updates = append(m.updates, batch...)
	if err := m.log.Append(lower, upper, slices.Clone(batch)); err != nil {
		m.fail("%v", err)
	}
	m.moved(upper)
}

// impossible takes a row away and asks whether the view is a collection, which it
// mostly is not.
func (m *model) impossible() {
	if m.upper == core.EndOfTime {
		return
	}
	pass(2 * time.Second)
	batch := []core.Update{{Time: m.upper, Diff: -1, Row: m.row()}}
	m.updates = append(m.updates, batch...)
	if err := m.log.Append(m.upper, m.upper+1, slices.Clone(batch)); err != nil {
		m.fail("%v", err)
	}
	m.moved(m.upper + 1)
	is, below := contentsAt(m.updates, m.upper), false
	for _, copies := range is {
		below = below || copies < 0
	}
	err := m.log.Check()
	m.tell("take away %s: %v", batch[0].Row, err)
	var e *viewlog.ImpossibleError
	if errors.As(err, &e) != below || below && (e.Copies != is[e.Row] || e.Copies >= 0 || e.Time != m.upper-1) {
		m.fail("check: %v; the view is %v", err, is)
	}
}

func (m *model) randomContents() []core.Update {
	var contents []core.Update
	for range m.r.IntN(m.size + 2) {
		contents = append(contents, core.Update{Diff: 1, Row: m.row()})
	}
	return contents
}

func (m *model) rebase() {
	if m.upper == core.EndOfTime {
		return
	}
	upper := m.upper + 1 + core.Time(m.r.IntN(10))
	contents := m.randomContents()
	m.tell("rebase to %d: %s", upper, text(contents))
	if err := m.log.Rebase(upper, snapshot(m.log, contents)); err != nil {
		m.fail("%v", err)
	}
	sum := contentsAt(m.updates, m.upper)
	for _, u := range contents {
		m.updates = append(m.updates, core.Update{Time: upper - 1, Diff: 1, Row: u.Row})
	}
	for row, n := range sum {
		m.updates = append(m.updates, core.Update{Time: upper - 1, Diff: -n, Row: row})
	}
	m.moved(upper)
}

func (m *model) reset() {
	upper := 1 + core.Time(m.r.IntN(50))
	contents := m.randomContents()
	m.tell("reset to %d: %s", upper, text(contents))
	if len(m.histories) > 0 {
		m.histories[m.history] = m.updates
	}
	m.history = len(m.histories)
	m.histories = append(m.histories, nil)
	view := &core.View{Name: "v", Columns: []core.Column{{Name: fmt.Sprint("c", m.history), Type: "text"}}}
	if err := m.log.Reset(view, "upstream", upper, snapshot(m.log, contents)); err != nil {
		m.fail("%v", err)
	}
	m.updates, m.holds = nil, nil
	for _, u := range contents {
		m.updates = append(m.updates, core.Update{Time: upper - 1, Diff: 1, Row: u.Row})
	}
	m.moved(upper)
}

func (m *model) moved(upper core.Time) {
	m.upper = upper
	token, _ := m.log.Frontier()
	if token.Time != upper {
		m.fail("frontier: got %s, want time %d", token, upper)
	}
	m.tokens = append(m.tokens, token)
	m.historyOf[token.Generation] = m.history
}

func (m *model) hold() {
	if len(m.holds) > 0 && m.r.IntN(2) == 0 {
		i := m.r.IntN(len(m.holds))
		m.tell("release %d", m.holds[i].at.Time)
		m.holds[i].Release()
		m.holds = slices.Delete(m.holds, i, i+1)
		return
	}
	token := m.tokens[len(m.tokens)-1]
	m.tell("hold %d", token.Time)
	h, err := m.log.Hold(token)
	if err != nil {
		m.fail("%v", err)
	}
	m.holds = append(m.holds, &held{h, token})
}

// read reads from a token, true or made up, at a random readable time.
func (m *model) read() {
	from := m.tokens[m.r.IntN(len(m.tokens))]
	switch m.r.IntN(6) {
	case 0:
		from = core.Token{}
	case 1:
		from.Time += core.Time(m.r.IntN(20))
	case 2:
		from.Generation = core.NewGeneration()
	}
	at, ok := m.log.Readable(m.upper - min(m.upper, core.Time(m.r.IntN(40))))
	if !ok {
		at = m.upper
	}
	m.check(from, at)
}

func (m *model) check(from core.Token, at core.Time) {
	m.tell("read from %q at %d", from, at)
	b, err := m.log.Read(from, at)
	if err != nil {
		m.fail("read from %s at %d: %v", from, at, err)
	}
	m.verify(b, from, at)
}

// verify checks what was read from a token at a time.
func (m *model) verify(b core.Batch, from core.Token, at core.Time) {
	current := m.tokens[len(m.tokens)-1]
	if want := (core.Token{Time: at, Generation: current.Generation}); b.Upper != want {
		m.fail("read from %s at %d: upper %s, want %s", from, at, b.Upper, want)
	}
	ended, before := m.ends[from.Generation]
	legal := from.Generation == current.Generation || before && ended.history == m.history && from.Time <= ended.upper
	if !b.IsBase() && (b.Lower != from || !legal || from.Time > at) {
		m.fail("read from %s at %d: delta from %s in history %s", from, at, b.Lower, current)
	}
	if b.View.Columns[0].Name != fmt.Sprint("c", m.history) {
		m.fail("read from %s at %d: columns of another history: %v", from, at, b.View.Columns)
	}
	want := contentsAt(m.updates, at)
	if sum := sumOf(want); b.Sum != sum {
		m.fail("read from %s at %d: checksum %016x, want %016x", from, at, b.Sum, sum)
	}
	for row, n := range contentsAt(m.updates, b.Lower.Time) {
		if want[row] -= n; want[row] == 0 {
			delete(want, row)
		}
	}
	got := make(map[core.Row]core.Diff)
	last := core.Row("")
	for u := range b.Updates.All() {
		if got[u.Row] = u.Diff; u.Time != at-1 || u.Diff == 0 || last >= u.Row {
			m.fail("read from %s at %d: not a net batch: %v", from, at, b.Updates)
		}
		last = u.Row
	}
	if !maps.Equal(got, want) {
		m.fail("read from %s at %d (base %v): got %v, want %v", from, at, b.IsBase(), got, want)
	}
}

// readBetween reads between two tokens that were given away: the same bytes
// each time, whatever became of the log meanwhile.
func (m *model) readBetween() {
	from, to := m.tokens[m.r.IntN(len(m.tokens))], m.tokens[m.r.IntN(len(m.tokens))]
	m.tell("read between %q and %q", from, to)
	b, err := m.log.Between(from, to)
	if err != nil {
		if !errors.Is(err, core.ErrNotReadable) {
			m.fail("between %s and %s: %v", from, to, err)
		}
		return
	}
	if b.Lower != from || b.Upper != to {
		m.fail("between %s and %s: got from %s to %s", from, to, b.Lower, b.Upper)
	}
	want := contentsAt(m.updates, to.Time)
	if sum := sumOf(want); b.Sum != sum {
		m.fail("between %s and %s: checksum %016x, want %016x", from, to, b.Sum, sum)
	}
	for row, n := range contentsAt(m.updates, from.Time) {
		if want[row] -= n; want[row] == 0 {
			delete(want, row)
		}
	}
	got := make(map[core.Row]core.Diff)
	for u := range b.Updates.All() {
		got[u.Row] = u.Diff
	}
	if !maps.Equal(got, want) {
		m.fail("between %s and %s: got %v, want %v", from, to, got, want)
	}
}

func (m *model) checkEverything() {
	m.check(core.Token{}, m.upper)
	for _, h := range m.holds {
		b, err := m.log.Read(h.at, m.upper)
		if err != nil || b.IsBase() {
			m.fail("held %s: base %v, %v", h.at, b.IsBase(), err)
		}
		m.check(h.at, m.upper)
	}
	rows := int64(0)
	for _, n := range contentsAt(m.updates, m.upper) {
		rows += int64(n)
	}
	if got := m.log.Stats().Rows; got != rows {
		m.fail("rows: got %d, want %d", got, rows)
	}
	for _, h := range m.holds {
		h.Release()
	}
	pass(2 * retain)
	for m.log.Compact() {
	}
	m.check(core.Token{}, m.upper)
}

// contentsAt sums the updates below t.
func contentsAt(updates []core.Update, t core.Time) map[core.Row]core.Diff {
	sum := make(map[core.Row]core.Diff)
	for _, u := range updates {
		if u.Time >= t {
			continue
		}
		if sum[u.Row] += u.Diff; sum[u.Row] == 0 {
			delete(sum, u.Row)
		}
	}
	return sum
}

// sumOf is the checksum of a view.
func sumOf(rows map[core.Row]core.Diff) uint64 {
	var sum uint64
	for row, n := range rows {
		sum += uint64(n) * row.Hash()
	}
	return sum
}

func begun(t *testing.T, upper core.Time, rows ...core.Row) *viewlog.Log {
	t.Helper()
	l := viewlog.New("v", viewlog.Options{Retain: retain})
	var contents []core.Update
	for _, r := range rows {
		contents = append(contents, core.Update{Diff: 1, Row: r})
	}
	if err := l.Reset(&core.View{Name: "v"}, "upstream", upper, snapshot(l, contents)); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAppendRefusesGaps(t *testing.T) {
	l := viewlog.New("v", viewlog.Options{})
	if err := l.Append(0, 5, nil); !errors.Is(err, viewlog.ErrGap) {
		t.Errorf("append before the first snapshot: got %v, want ErrGap", err)
	}
	l = begun(t, 10)
	for _, c := range []struct {
		lower, upper core.Time
		updates      []core.Update
	}{
		{9, 12, nil}, {11, 12, nil}, {10, 10, nil}, {10, 9, nil},
		{10, 12, []core.Update{{Time: 12, Diff: 1, Row: "[]"}}},
		{10, 12, []core.Update{{Time: 9, Diff: 1, Row: "[]"}}},
	} {
		if err := l.Append(c.lower, c.upper, c.updates); !errors.Is(err, viewlog.ErrGap) {
			t.Errorf("append [%d, %d) %v to a log that ends at 10: got %v, want ErrGap", c.lower, c.upper, c.updates, err)
		}
	}
	if got, _ := l.Frontier(); got.Time != 10 {
		t.Errorf("frontier after refused batches: got %d, want 10", got.Time)
	}
}

// TestFollow checks what one reader sees: a base, then nets of what happened
// while it was away, progress, and a base again after a reset.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := viewlog.New("v", viewlog.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		batches := make(chan core.Batch)
		go func() {
			defer close(batches)
			for b, err := range l.Follow(ctx, core.Token{}) {
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("follow ended with %v", err)
					}
					return
				}
				batches <- b
			}
		}()
		synctest.Wait() // the reader waits for the first snapshot
		must(t, l.Reset(&core.View{Name: "v"}, "upstream", 10, snapshot(l, []core.Update{{Diff: 2, Row: `["a"]`}})))
		expect(t, <-batches, "base 10: [a]+2")

		must(t, l.Append(10, 11, []core.Update{{Time: 10, Diff: 1, Row: `["b"]`}}))
		synctest.Wait() // the reader holds this batch while the log moves on
		must(t, l.Append(11, 12, []core.Update{{Time: 11, Diff: -1, Row: `["a"]`}}))
		must(t, l.Append(12, 13, []core.Update{{Time: 12, Diff: 1, Row: `["a"]`}}))
		must(t, l.Append(13, 20, []core.Update{{Time: 15, Diff: 5, Row: `["c"]`}}))
		expect(t, <-batches, "delta 10-11: [b]+1")
		expect(t, <-batches, "delta 11-20: [c]+5")

		must(t, l.Append(20, 30, nil))
		expect(t, <-batches, "delta 20-30:")

		must(t, l.Rebase(40, snapshot(l, []core.Update{{Diff: 1, Row: `["z"]`}, {Diff: 5, Row: `["c"]`}})))
		expect(t, <-batches, "delta 30-40: [a]-2 [b]-1 [z]+1")

		must(t, l.Reset(&core.View{Name: "v"}, "upstream", 7, snapshot(l, nil)))
		expect(t, <-batches, "base 7:")
		cancel()
		if b, ok := <-batches; ok {
			t.Errorf("after cancel: got %v", b)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, b core.Batch, want string) {
	t.Helper()
	got := fmt.Sprintf("delta %d-%d:", b.Lower.Time, b.Upper.Time)
	if b.IsBase() {
		got = fmt.Sprintf("base %d:", b.Upper.Time)
	}
	for u := range b.Updates.All() {
		got += fmt.Sprintf(" [%s]%+d", u.Row[2:len(u.Row)-2], u.Diff)
	}
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// expectCut checks the batches of a cut.
func expectCut(t *testing.T, cut []core.Batch, want ...string) {
	t.Helper()
	if len(cut) != len(want) {
		t.Fatalf("got a cut of %d, want %d", len(cut), len(want))
	}
	for i, b := range cut {
		expect(t, b, want[i])
	}
}

// TestCut follows two logs as one picture.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := begun(t, 10, `["a"]`), viewlog.New("w", viewlog.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cuts := make(chan []core.Batch)
		go func() {
			defer close(cuts)
			for cut, err := range core.FollowCut(ctx, []core.CutReader{a, b}, nil) {
				if err != nil {
					return
				}
				cuts <- cut
			}
		}()
		must(t, a.Append(10, 20, []core.Update{{Time: 15, Diff: 1, Row: `["x"]`}}))
		must(t, b.Reset(&core.View{Name: "w"}, "upstream", 12, snapshot(b, nil)))
		cut := <-cuts
		expect(t, cut[0], "base 12: [a]+1")
		expect(t, cut[1], "base 12:")

		// A solid span is never cut in two: the cut waits at its beginning.
		must(t, b.Append(12, 14, nil))
		cut = <-cuts
		expect(t, cut[0], "delta 12-14:")
		expect(t, cut[1], "delta 12-14:")
		must(t, b.Rebase(30, snapshot(b, []core.Update{{Diff: 1, Row: `["y"]`}})))
		must(t, a.Append(20, 25, nil))
		synctest.Wait()
		select {
		case cut = <-cuts:
			t.Errorf("cut inside of a solid span: %v", cut)
		default:
		}
		must(t, a.Append(25, 31, nil))
		cut = <-cuts
		expect(t, cut[0], "delta 14-30: [x]+1")
		expect(t, cut[1], "delta 14-30: [y]+1")

		// A sealed view delays nobody.
		must(t, b.Rebase(core.EndOfTime, snapshot(b, []core.Update{{Diff: 1, Row: `["end"]`}})))
		cut = <-cuts
		expect(t, cut[0], "delta 30-31:")
		expect(t, cut[1], "delta 30-31: [end]+1 [y]-1")
		must(t, a.Append(31, 40, nil))
		cut = <-cuts
		expect(t, cut[1], "delta 31-40:")
		cancel()
		<-cuts
	})
}

// TestCutNoticesNewHistories lets a view of a cut begin again, at a time before
// the cut, while the view that is furthest behind stands still.
func TestCutNoticesNewHistories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		still := begun(t, 1, `["s"]`)
		must(t, still.Append(1, 10, []core.Update{{Time: 7, Diff: 1, Row: `["t"]`}}))
		ahead, other := begun(t, 1, `["a"]`), begun(t, 1, `["o"]`)
		must(t, ahead.Append(1, 100, nil))
		must(t, other.Append(1, 50, nil))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cuts := make(chan []core.Batch)
		go func() {
			defer close(cuts)
			for cut, err := range core.FollowCut(ctx, []core.CutReader{still, ahead, other}, nil) {
				if err == nil {
					cuts <- cut
				}
			}
		}()
		expectCut(t, <-cuts, "base 10: [s]+1 [t]+1", "base 10: [a]+1", "base 10: [o]+1")

		must(t, ahead.Reset(&core.View{Name: "v"}, "another", 5, snapshot(ahead, []core.Update{{Diff: 1, Row: `["b"]`}})))
		synctest.Wait()
		select {
		case cut := <-cuts:
			expectCut(t, cut, "base 5: [s]+1", "base 5: [b]+1", "base 5: [o]+1")
		default:
			t.Fatal("no cut of the new history")
		}
		must(t, ahead.Append(5, 30, nil))
		expectCut(t, <-cuts, "delta 5-10: [t]+1", "delta 5-10:", "delta 5-10:")
	})
}

// TestCompactionForgets checks that a position that nobody holds gets a base
// after the retention, and a held one its delta, for one merged span.
func TestCompactionForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := begun(t, 1)
		token, _ := l.Frontier()
		hold, err := l.Hold(token)
		must(t, err)
		for i := core.Time(1); i <= 5000; i++ {
			must(t, l.Append(i, i+1, []core.Update{{Time: i, Diff: 1, Row: core.Row(fmt.Sprintf("[%d]", i%100))}}))
			pass(time.Second)
			l.Compact()
		}
		if s := l.Stats(); s.Spans > 2*int(retain/time.Second) || s.Since > token.Time {
			t.Errorf("held log: %d spans since %d, want few spans since %d", s.Spans, s.Since, token.Time)
		}
		if b, err := l.Read(token, 5001); err != nil || b.IsBase() || b.Updates.Len() != 100 {
			t.Errorf("held position: base %v, %d updates, %v; want a delta of 100", b.IsBase(), b.Updates.Len(), err)
		}
		hold.Release()
		pass(2 * retain)
		l.Compact()
		if b, err := l.Read(token, 5001); err != nil || !b.IsBase() {
			t.Errorf("forgotten position: base %v, %v; want a base", b.IsBase(), err)
		}
		if s := l.Stats(); s.Spans != 0 || s.Rows != 5000 {
			t.Errorf("compacted log: %d spans, %d rows; want 0 and 5000", s.Spans, s.Rows)
		}
		if _, err := l.Read(core.Token{}, 17); !errors.Is(err, core.ErrNotReadable) {
			t.Errorf("read of a forgotten time: got %v, want ErrNotReadable", err)
		}
	})
}

// TestRetainBytes checks that history is bounded in bytes too.
func TestRetainBytes(t *testing.T) {
	const bound = 100_000
	l := viewlog.New("v", viewlog.Options{RetainBytes: bound})
	must(t, l.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(l, nil)))
	for i := core.Time(1); i <= 5000; i++ {
		must(t, l.Append(i, i+1, core.Consolidate([]core.Update{
			{Time: i, Diff: 1, Row: core.Row(fmt.Sprintf("[%d]", i))}, {Time: i, Diff: -1, Row: core.Row(fmt.Sprintf("[%d]", i-100))},
		})))
		l.Compact()
		if s := l.Stats(); s.History > 2*bound {
			t.Fatalf("after %d changes: %d bytes of history, want about %d", i, s.History, bound)
		}
	}
	s := l.Stats()
	if s.Since < 1000 || s.Since > 4900 || s.Bytes < s.History {
		t.Errorf("history since %d of 5000, %+v", s.Since, s)
	}
}

// TestBasesAreShared reads a large view while it changes: a base at a new time
// must cost what has changed, whether the time is later or earlier, and a
// snapshot that brings nothing new a mark for each row.
func TestBasesAreShared(t *testing.T) {
	const rows = 100_000
	l := viewlog.New("v", viewlog.Options{})
	var updates []core.Update
	for i := range rows {
		updates = append(updates, core.Update{Diff: 1, Row: core.Row(fmt.Sprintf(`["row %06d"]`, i))})
	}
	must(t, l.Reset(&core.View{Name: "v"}, "upstream", 10, snapshot(l, updates)))
	whole := l.Stats().Bytes
	cost := func(f func()) float64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc-before.TotalAlloc) / float64(whole)
	}
	var kept []core.Batch
	read := func(at core.Time, want int) {
		t.Helper()
		c := cost(func() {
			b, err := l.Read(core.Token{}, at)
			must(t, err)
			if b.Updates.Len() != want {
				t.Errorf("at %d: %d rows, want %d", at, b.Updates.Len(), want)
			}
			kept = append(kept, b)
		})
		if c > 0.1 {
			t.Errorf("reading the view at %d allocated %.2f of what it holds", at, c)
		}
	}
	for n := range core.Time(50) {
		row := core.Row(fmt.Sprintf(`["new %d"]`, n*7919%1000))
		must(t, l.Append(10+n, 11+n, []core.Update{{Time: 10 + n, Diff: 1, Row: row}}))
	}
	read(60, rows+50)
	read(60, rows+50)
	read(35, rows+25)
	read(10, rows)
	if c := cost(func() { must(t, l.Rebase(70, snapshot(l, kept[0].Updates.Slice()))) }); c > 1 {
		t.Errorf("a snapshot that changes nothing allocated %.2f of what the view holds", c)
	}
	if b, err := l.Read(core.Token{Time: 60, Generation: kept[0].Upper.Generation}, 70); err != nil || b.IsBase() || b.Updates.Len() != 0 {
		t.Errorf("a snapshot that changes nothing changed %v, %v", b, err)
	}
}

// TestCheck takes away what is not there. It is noticed at once, but not looked for
// more often than once a second, wherever the log's own contents are meanwhile, also
// by the next process; and a snapshot puts it right.
func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		o := open(t, fs)
		must(t, o.Reset(&core.View{Name: "v"}, "upstream", 10, snapshot(o, []core.Update{{Diff: 1, Row: `["a"]`}})))
		take := func(at core.Time, row core.Row) { // and let somebody read it at once
			t.Helper()
			must(t, o.Append(at, at+1, []core.Update{{Time: at, Diff: -1, Row: row}}))
			_, err := o.Read(core.Token{}, at+1)
			must(t, err)
		}
		check := func(want string) {
			t.Helper()
			got := "<nil>"
			var e *viewlog.ImpossibleError
			if err := o.Check(); errors.As(err, &e) {
				got = fmt.Sprintf("%s%+d@%d", e.Row, e.Copies, e.Time)
			}
			if got != want {
				t.Errorf("check: %s, want %s", got, want)
			}
		}
		take(10, `["a"]`)
		check("<nil>")
		take(11, `["b"]`)
		check("<nil>") // not yet
		pass(time.Second)
		must(t, o.Append(12, 13, nil))
		check(`["b"]-1@12`)
		check("<nil>") // nothing new

		o.stop()
		o = open(t, fs)
		must(t, o.Append(13, 14, nil))
		check(`["b"]-1@13`)

		must(t, o.Rebase(20, snapshot(o, []core.Update{{Diff: 1, Row: `["c"]`}})))
		b, err := o.Read(core.Token{}, 20)
		must(t, err)
		expect(t, b, `base 20: [c]+1`)
		pass(time.Second)
		take(20, `["c"]`)
		check("<nil>")
		must(t, o.Append(21, core.EndOfTime, []core.Update{{Time: 21, Diff: -1, Row: `["c"]`}}))
		check(fmt.Sprintf(`["c"]-1@%d`, core.EndOfTime-1))
		o.stop()
	})
}

// TestCheckAfterCompaction opens a log of which no change takes anything away any
// more, because it was merged into what was before history.
func TestCheckAfterCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := viewlog.Options{FS: durabletest.New(), Retain: retain, RewriteBytes: 1}
		o := openWith(t, options)
		must(t, o.Reset(&core.View{Name: "v"}, "upstream", 10, snapshot(o, nil)))
		must(t, o.Append(10, 11, []core.Update{{Time: 10, Diff: -1, Row: `["a"]`}}))
		for at := range core.Time(100) {
			must(t, o.Append(11+at, 12+at, []core.Update{{Time: 11 + at, Diff: 1, Row: `["b"]`}}))
			synctest.Wait() // until it is written
		}
		pass(2 * retain)
		if !o.Compact() {
			t.Fatal("nothing was merged")
		}
		for at := range core.Time(100) {
			must(t, o.Append(111+at, 112+at, []core.Update{{Time: 111 + at, Diff: 1, Row: `["c"]`}}))
			synctest.Wait()
		}
		o.stop()
		o = openWith(t, options)
		if since := o.Stats().Since; since < 111 {
			t.Fatalf("the log on disk begins at %d", since)
		}
		must(t, o.Append(211, 212, nil))
		var e *viewlog.ImpossibleError
		if err := o.Check(); !errors.As(err, &e) || e.Row != `["a"]` || e.Copies != -1 {
			t.Errorf("check: %v, want the row", err)
		}
		o.stop()
	})
}

// TestRebaseRefusesOldSnapshots holds a snapshot against a log that has moved
// since: the difference would be to something that the log is not any more.
func TestRebaseRefusesOldSnapshots(t *testing.T) {
	l := begun(t, 10, `["a"]`)
	old := l.Snapshot()
	old.Add([]byte(`["b"]`), 1)
	must(t, l.Append(10, 11, []core.Update{{Time: 10, Diff: 1, Row: `["c"]`}}))
	before := l.Stats()
	if err := l.Rebase(20, old); !errors.Is(err, viewlog.ErrGap) {
		t.Errorf("rebase with a snapshot from before an append: got %v, want ErrGap", err)
	}
	if after := l.Stats(); after != before {
		t.Errorf("a refused rebase changed %+v to %+v", before, after)
	}
	s := snapshot(l, []core.Update{{Diff: 1, Row: `["b"]`}})
	must(t, l.Rebase(20, s))
	if err := l.Rebase(30, s); !errors.Is(err, viewlog.ErrGap) {
		t.Errorf("rebase with a snapshot for the second time: got %v, want ErrGap", err)
	}
}

// TestResetToOtherRows begins a new history with a view of which no row is what
// was held, as it is when a column is added: that must not cost a difference too.
func TestResetToOtherRows(t *testing.T) {
	const rows = 100_000
	fill := func(l *viewlog.Log, prefix string) *viewlog.Snapshot {
		s := l.Snapshot()
		for i := range rows {
			s.Add(fmt.Appendf(nil, `["%s %06d"]`, prefix, i), 1)
		}
		return s
	}
	l := viewlog.New("v", viewlog.Options{})
	cost := func(s *viewlog.Snapshot) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		must(t, l.Reset(&core.View{Name: "v"}, "upstream", 10, s))
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	first := cost(fill(l, "old"))
	if again := cost(fill(l, "new")); again > first*3/2 {
		t.Errorf("the first history allocated %d bytes, another one of other rows %d", first, again)
	}
	if s := l.Stats(); s.Rows != rows {
		t.Errorf("got %d rows, want %d", s.Rows, rows)
	}
}

// TestLatestChangeIsShared lets readers that are up to date read one large
// change: they must not each get a copy.
func TestLatestChangeIsShared(t *testing.T) {
	const rows, readers = 10_000, 100
	l := begun(t, 1)
	from, _ := l.Frontier()
	var updates []core.Update
	for i := range rows {
		updates = append(updates, core.Update{Time: 1, Diff: 1, Row: core.Row(fmt.Sprintf("[%05d]", i))})
	}
	must(t, l.Append(1, 5, updates))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range readers {
		b, err := l.Read(from, 5)
		must(t, err)
		n := 0
		for u := range b.Updates.All() {
			if n++; u.Time != 4 {
				t.Fatalf("an update at %d, want 4", u.Time)
			}
		}
		if n != rows {
			t.Fatalf("got %d updates, want %d", n, rows)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > readers*rows {
		t.Errorf("%d readers of %d rows allocated %d bytes", readers, rows, got)
	}
}

// TestMergedHistoryIsBounded lets readers with many lags read a history of
// insertions only, of which every merge is as large as what it merges: what is
// kept for the next reader counts as history, and is bounded with it.
func TestMergedHistoryIsBounded(t *testing.T) {
	const bound = 4 << 20
	inUse := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	empty := inUse()
	l := viewlog.New("v", viewlog.Options{RetainBytes: bound})
	must(t, l.Reset(&core.View{Name: "v"}, "upstream", 1, snapshot(l, nil)))
	first, _ := l.Frontier()
	largest := int64(0)
	for n := core.Time(1); n <= 10_000; n++ {
		var updates []core.Update
		for i := range core.Time(10) {
			updates = append(updates, core.Update{Time: n, Diff: 1, Row: core.Row(fmt.Sprintf(`["row %06d"]`, n*10+i))})
		}
		must(t, l.Append(n, n+1, updates))
		l.Compact()
		if n%100 == 0 {
			for _, lag := range []core.Time{17, 300, 3000} {
				from := core.Token{Time: n - min(n-1, lag), Generation: first.Generation}
				if b, err := l.Read(from, n+1); err != nil || b.Updates.Len() == 0 {
					t.Fatalf("read from %s: %v, %v", from, b, err)
				}
			}
			largest = max(largest, l.Stats().History)
		}
	}
	s := l.Stats()
	if largest > bound*5/4 || s.Since == 1 {
		t.Errorf("history of %d bytes, want %d at most; kept since %d", largest, bound, s.Since)
	}
	if got := inUse() - empty; got > 2*s.Bytes {
		t.Errorf("%d bytes in use, said to be %d", got, s.Bytes)
	}
	runtime.KeepAlive(l)
}

// TestHeldHistoryIsCheap appends single rows while somebody holds a position
// behind a large span: they must not be merged into it one by one.
func TestHeldHistoryIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := begun(t, 1)
		token, _ := l.Frontier()
		_, err := l.Hold(token)
		must(t, err)
		var large []core.Update
		for i := range 10_000 {
			large = append(large, core.Update{Time: 1, Diff: 1, Row: core.Row(fmt.Sprintf("[%d]", i))})
		}
		must(t, l.Append(1, 2, core.Consolidate(large)))
		for i := core.Time(2); i < 202; i++ {
			must(t, l.Append(i, i+1, []core.Update{{Time: i, Diff: 1, Row: `["x"]`}}))
			pass(2 * retain)
			l.Compact()
		}
		if n := l.Stats().Compactions; n > 5 {
			t.Errorf("200 changes of one row: %d merges of 10,000 rows", n)
		}
	})
}

// TestConcurrentReaders lets readers of all speeds follow one busy writer; each
// of them adds up what it gets and must agree with the log at each step.
func TestConcurrentReaders(t *testing.T) {
	const last = 3000
	l := begun(t, 1)
	done := make(chan error)
	const readers = 8
	for n := range readers {
		go func() {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			state, position := map[core.Row]core.Diff{}, core.Token{}
			for {
				for b, err := range l.Follow(context.Background(), position) {
					if err != nil {
						done <- err
						return
					}
					if b.IsBase() {
						clear(state)
					} else if b.Lower != position {
						done <- fmt.Errorf("reader %d at %s got a delta from %s", n, position, b.Lower)
						return
					}
					for u := range b.Updates.All() {
						if state[u.Row] += u.Diff; state[u.Row] == 0 {
							delete(state, u.Row)
						}
					}
					position = b.Upper
					if b.Sum != sumOf(state) {
						done <- fmt.Errorf("reader %d at %s: checksum %016x of %v", n, position, b.Sum, state)
						return
					}
					if want := map[core.Row]core.Diff{core.Row(fmt.Sprintf("[%d]", position.Time-1)): 1}; position.Time > 1 && !maps.Equal(state, want) {
						done <- fmt.Errorf("reader %d at %s: got %v, want %v", n, position, state, want)
						return
					}
					if position.Time == last+1 {
						done <- nil
						return
					}
					if r.IntN(10) == 0 {
						break // resume
					}
				}
			}
		}()
	}
	for i := core.Time(1); i <= last; i++ {
		updates := []core.Update{{Time: i, Diff: 1, Row: core.Row(fmt.Sprintf("[%d]", i))}}
		if i > 1 {
			updates = append(updates, core.Update{Time: i, Diff: -1, Row: core.Row(fmt.Sprintf("[%d]", i-1))})
		}
		must(t, l.Append(i, i+1, core.Consolidate(updates)))
		l.Compact()
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// snapshot makes a snapshot of rows, of which only the diffs count.
func snapshot(l interface{ Snapshot() *viewlog.Snapshot }, rows []core.Update) *viewlog.Snapshot {
	s := l.Snapshot()
	for _, u := range rows {
		s.Add([]byte(u.Row), u.Diff)
	}
	return s
}
