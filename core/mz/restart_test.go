package mz_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/hub"
	"github.com/mzdio/mzd/core/mz"
	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/pgwire"
)

var (
	seed  = flag.Uint64("seed", 0, "run this seed of TestRestarts only; 0: the first -seeds")
	seeds = flag.Uint64("seeds", 24, "how many seeds of TestRestarts to run")
)

// TestRestarts follows views of an engine that is cut off, killed, restarted,
// replaced by another one at the same address, and whose views are dropped and
// created again, all while rows change. Every state that a reader passes through
// must be one that its view has had, after the one it passed through before, and
// all readers end with what the view is.
func TestRestarts(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed != 0 {
		first, last = *seed, *seed
	}
	var mu sync.Mutex
	happened := map[string]int{} // how often the streams began in which way
	t.Run("seeds", func(t *testing.T) {
		for seed := first; seed <= last; seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				counts := restarts(t, seed)
				mu.Lock()
				defer mu.Unlock()
				for why, n := range counts {
					happened[why] += n
				}
			})
		}
	})
	if t.Failed() || *seed != 0 {
		return
	}
	for _, why := range slices.Sorted(maps.Keys(happened)) {
		t.Logf("%6d streams began: %s", happened[why], why)
	}
	for _, why := range []string{"resumed", "forgotten", "upstream is another one", "created anew"} {
		if happened[why] == 0 {
			t.Errorf("no stream began because of: %s", why)
		}
	}
}

// restarts plays one seed and counts in which ways streams began.
func restarts(t *testing.T, seed uint64) map[string]int {
	const (
		steps   = 20
		readers = 20
	)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := newWorld(t, ctx, seed)
	views := []string{"v", "q"}
	h, err := hub.New(hub.Options{
		Views:     []hub.View{{Name: "v"}, {Name: "q", Query: "SELECT max(seq) AS seq, count(*) AS n FROM t"}},
		Subscribe: w.subscribe,
	})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Errorf("seed %d: hub: %v", seed, err)
		}
	})
	ended := make(chan error, readers)
	for i := range readers {
		r := &follower{
			rnd: rand.New(rand.NewPCG(seed, uint64(i)+100)), view: views[i%len(views)], world: w,
			state: map[core.Row]core.Diff{}, last: -1,
		}
		go func() {
			err := r.follow(ctx, h.Reader(r.view))
			if err != nil {
				cancel() // nobody need wait for it
			}
			ended <- err
		}()
	}
	for range steps {
		w.step()
	}
	w.finish()
	for range readers {
		if err := <-ended; err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	return w.began
}

// world is an engine, the address where it is reached, and what its views say.
// What it does is called by one goroutine.
type world struct {
	t      *testing.T
	ctx    context.Context
	seed   uint64
	rnd    *rand.Rand
	client *mz.Client
	dir    string // of the engine that runs
	kill   func()

	seq  int      // of the last row that was inserted, in any engine
	rows [][3]int // of the table t: seq, id, n
	sums bool     // v has sums; otherwise numbers of rows

	mu     sync.Mutex // guards what follows
	addr   string
	up     chan struct{} // closed while an engine is there
	conns  map[net.Conn]bool
	states map[string][]string // of each view, one after the other
	seen   map[string]int      // the last of them that a reader has come to
	moved  *sync.Cond          // seen has
	final  bool                // there will be no more states
	began  map[string]int
}

func newWorld(t *testing.T, ctx context.Context, seed uint64) *world {
	w := &world{
		t: t, ctx: ctx, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)),
		conns: map[net.Conn]bool{}, states: map[string][]string{}, seen: map[string]int{}, began: map[string]int{}, up: make(chan struct{}),
	}
	w.moved = sync.NewCond(&w.mu)
	context.AfterFunc(ctx, w.moved.Broadcast)
	var err error
	w.client, err = mz.New(mz.Config{URL: "postgres://u@db/materialize?sslmode=disable", Dial: w.dial})
	if err != nil {
		t.Fatal(err)
	}
	w.replace()
	t.Cleanup(func() { w.kill() })
	return w
}

func (w *world) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	w.mu.Lock()
	addr := w.addr
	w.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

// subscribe waits until there is an engine, so that the hub need not, and counts
// how streams begin.
func (w *world) subscribe(ctx context.Context, r hub.Request) (hub.Stream, error) {
	for {
		w.mu.Lock()
		up := w.up
		w.mu.Unlock()
		select {
		case <-up:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s, err := w.client.Subscribe(ctx, mz.Request(r))
		var e *mz.Error
		if errors.As(err, &e) && e.Reason() != mz.Protocol && ctx.Err() == nil {
			continue // it has just been killed, or the view has just been dropped
		}
		if err != nil {
			return nil, err
		}
		w.count(r, s)
		return soon{s}, nil
	}
}

func (w *world) count(r hub.Request, s *mz.Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch why := s.Restarted(); {
	case s.Resumed():
		w.began["resumed"]++
	case r.Upper == 0:
		w.began["first"]++
	default:
		for _, word := range []string{"forgotten", "upstream is another one", "created anew"} {
			if strings.Contains(why, word) {
				w.began[word]++
				return
			}
		}
		w.began[why]++
	}
}

// soon makes the hub try again at once where it would wait for somebody to act.
type soon struct{ *mz.Stream }

func (s soon) Next(ctx context.Context) (core.Batch, error) {
	b, err := s.Stream.Next(ctx)
	return b, retried(err)
}

func (s soon) Snapshot(ctx context.Context, add func([]byte, core.Diff)) (core.Time, error) {
	at, err := s.Stream.Snapshot(ctx, add)
	return at, retried(err)
}

func retried(err error) error {
	var e *mz.Error
	if errors.As(err, &e) && e.Reason() == mz.Dropped {
		return errors.New(err.Error())
	}
	return err
}

// step does something at random.
func (w *world) step() {
	if w.t.Failed() {
		return
	}
	if w.rnd.IntN(3) == 0 {
		w.wait()
	}
	switch n := w.rnd.IntN(20); {
	case n < 12:
		w.write(func() {})
	case n < 14:
		w.cut()
	case n < 15:
		w.write(w.kill)
		w.start(w.dir)
	case n < 17:
		w.kill()
		w.start(w.dir)
	case n < 18:
		w.kill()
		w.replace()
	default:
		w.sums = !w.sums
		w.say()
		w.exec("DROP VIEW v", w.view())
	}
}

// wait waits until some reader of each view is up to date.
func (w *world) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for view, states := range w.states { // which may come back to what they were
		for states[w.seen[view]] != states[len(states)-1] && w.ctx.Err() == nil {
			w.moved.Wait()
		}
	}
}

// finish makes a last state that is like no other.
func (w *world) finish() {
	w.seq++
	w.rows = append(w.rows, [3]int{w.seq, -1, 0})
	w.say()
	w.exec(w.insert(w.rows[len(w.rows)-1:]))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.final = true
}

// write changes some rows, while something else happens.
func (w *world) write(meanwhile func()) {
	before := slices.Clone(w.rows)
	var sql string
	switch n := w.rnd.IntN(4); {
	case n == 0 && len(w.rows) > 0:
		id := w.rows[w.rnd.IntN(len(w.rows))][1]
		w.rows = slices.DeleteFunc(w.rows, func(r [3]int) bool { return r[1] == id })
		sql = fmt.Sprintf("DELETE FROM t WHERE id = %d", id)
	case n == 1 && len(w.rows) > 0:
		id := w.rows[w.rnd.IntN(len(w.rows))][1]
		for i := range w.rows {
			if w.rows[i][1] == id {
				w.rows[i][2]++
			}
		}
		sql = fmt.Sprintf("UPDATE t SET n = n + 1 WHERE id = %d", id)
	default:
		had := len(w.rows)
		for range 1 + w.rnd.IntN(30) {
			w.seq++
			w.rows = append(w.rows, [3]int{w.seq, w.rnd.IntN(8), w.rnd.IntN(100)})
		}
		sql = w.insert(w.rows[had:])
	}
	unsay := w.say()
	written := make(chan error)
	go func() { written <- w.client.Exec(w.ctx, sql) }()
	meanwhile()
	if err := <-written; err == nil {
		return
	}
	// Nobody knows whether it was done. The engine of the directory does.
	w.start(w.dir)
	if now := w.read(); !slices.Equal(now, w.rows) {
		if w.rows = before; !slices.Equal(now, before) {
			w.t.Errorf("seed %d: after %s the table has neither what it had nor what it should have", w.seed, sql)
		}
		unsay()
	}
}

func (w *world) insert(rows [][3]int) string {
	var values []string
	for _, r := range rows {
		values = append(values, fmt.Sprintf("(%d, %d, %d)", r[0], r[1], r[2]))
	}
	return "INSERT INTO t VALUES " + strings.Join(values, ", ")
}

// view is the statement that makes v. Its columns are always the same.
func (w *world) view() string {
	n := "count(*)"
	if w.sums {
		n = "sum(n)"
	}
	return "CREATE MATERIALIZED VIEW v AS SELECT id, max(seq) AS seq, " + n + " AS n FROM t GROUP BY id"
}

func (w *world) exec(statements ...string) {
	if err := w.client.Exec(w.ctx, strings.Join(statements, ";")); err != nil {
		w.t.Errorf("seed %d: %v", w.seed, err)
	}
}

// read returns the rows of the table.
func (w *world) read() [][3]int {
	c, err := pgconn.ParseConfig("postgres://u@db/materialize?sslmode=disable")
	if err != nil {
		w.t.Fatal(err)
	}
	c.DialFunc = w.dial
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	pg, err := pgconn.ConnectConfig(w.ctx, c)
	if err != nil {
		w.t.Errorf("seed %d: %v", w.seed, err)
		return nil
	}
	defer pg.Close(w.ctx)
	results, err := pg.Exec(w.ctx, "SELECT seq, id, n FROM t").ReadAll()
	if err != nil {
		w.t.Errorf("seed %d: %v", w.seed, err)
		return nil
	}
	var rows [][3]int
	for _, r := range results[0].Rows {
		var row [3]int
		for i := range row {
			row[i], _ = strconv.Atoi(string(r[i]))
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b [3]int) int { return cmp.Compare(a[0], b[0]) })
	return rows
}

// say notes what the views are about to be. It returns what takes that back.
func (w *world) say() (unsay func()) {
	byID := map[int][2]int{}
	for _, r := range w.rows {
		g, n := byID[r[1]], 1
		if w.sums {
			n = r[2]
		}
		byID[r[1]] = [2]int{max(g[0], r[0]), g[1] + n}
	}
	v, seq := map[core.Row]core.Diff{}, "null"
	for id, g := range byID {
		v[core.Row(fmt.Sprintf("[%d,%d,%d]", id, g[0], g[1]))] = 1
	}
	if n := len(w.rows); n > 0 {
		seq = fmt.Sprint(w.rows[n-1][0])
	}
	q := map[core.Row]core.Diff{core.Row(fmt.Sprintf("[%s,%d]", seq, len(w.rows))): 1}
	w.mu.Lock()
	defer w.mu.Unlock()
	before := maps.Clone(w.states)
	for view, state := range map[string]string{"v": picture(v), "q": picture(q)} {
		if n := len(w.states[view]); n == 0 || w.states[view][n-1] != state {
			w.states[view] = append(w.states[view], state)
		}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.states = before
	}
}

// picture writes the state of a view.
func picture(state map[core.Row]core.Diff) string {
	var lines []string
	for row, copies := range state {
		lines = append(lines, fmt.Sprintf("%s*%d", row, copies))
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// replace starts another engine, with an empty directory.
func (w *world) replace() {
	w.rows = nil
	w.say()
	w.start(w.t.TempDir(), "CREATE TABLE t (seq int NOT NULL, id int NOT NULL, n int NOT NULL)", w.view())
}

// start opens an engine, runs its first statements, and lets others in.
func (w *world) start(dir string, statements ...string) {
	select {
	case <-w.up:
		return
	default:
	}
	e, err := engine.Open(engine.Options{DataDir: dir, TickInterval: time.Millisecond})
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	var running sync.WaitGroup
	run := func(f func() error) {
		running.Go(func() {
			if err := f(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
				w.t.Errorf("seed %d: %v", w.seed, err)
			}
		})
	}
	run(func() error { return e.Run(ctx) })
	run(func() error { return pgwire.New(e, pgwire.Options{}).Serve(ctx, tracked{ln, w}) })
	w.mu.Lock()
	w.dir, w.addr = dir, ln.Addr().String()
	w.mu.Unlock()
	if len(statements) > 0 {
		w.exec(statements...)
	}
	w.mu.Lock()
	close(w.up)
	w.mu.Unlock()
	w.kill = sync.OnceFunc(func() {
		w.mu.Lock()
		w.up = make(chan struct{})
		w.mu.Unlock()
		ln.Close()
		w.cut()
		cancel()
		running.Wait()
	})
}

// cut ends all connections without a word.
func (w *world) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	clear(w.conns)
}

// tracked is a listener whose connections can be cut.
type tracked struct {
	net.Listener
	world *world
}

func (l tracked) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.world.mu.Lock()
		defer l.world.mu.Unlock()
		l.world.conns[c] = true
	}
	return c, err
}

// follower is a reader of a view, which leaves and comes back at random.
type follower struct {
	rnd   *rand.Rand
	view  string
	world *world

	state map[core.Row]core.Diff
	last  int // which of the view's states it is
}

func (f *follower) follow(ctx context.Context, r core.Reader) error {
	var token core.Token
	for {
		for b, err := range r.Follow(ctx, token) {
			if err != nil {
				return fmt.Errorf("a reader of %s waits for its last state and has %s: %w", f.view, picture(f.state), err)
			}
			if err := f.apply(b, token); err != nil {
				return err
			}
			if token = b.Upper; f.done() {
				return nil
			}
			if f.rnd.IntN(8) == 0 {
				break
			}
		}
		if f.rnd.IntN(4) == 0 { // it forgets all it knows
			token = core.Token{}
		}
	}
}

func (f *follower) apply(b core.Batch, from core.Token) error {
	if b.IsBase() {
		clear(f.state)
	} else if b.Lower != from {
		return fmt.Errorf("a reader of %s at %s got a batch from %s", f.view, from, b.Lower)
	}
	for u := range b.Updates.All() {
		if f.state[u.Row] += u.Diff; f.state[u.Row] == 0 {
			delete(f.state, u.Row)
		}
	}
	is := picture(f.state)
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	had := f.world.states[f.view]
	if f.last >= len(had) {
		return fmt.Errorf("a reader of %s came to a state that was never written", f.view)
	}
	for i := max(f.last, 0); i < len(had); i++ {
		if had[i] == is {
			f.last = i
			f.world.seen[f.view] = max(f.world.seen[f.view], i)
			f.world.moved.Broadcast()
			return nil
		}
	}
	return fmt.Errorf("a reader of %s, state %d of %d, came to %s at %s, which the view has not been since; it was %s",
		f.view, f.last, len(had), is, b.Upper, strings.Join(had[max(f.last, 0):], "\n  "))
}

// done reports whether nothing will follow.
func (f *follower) done() bool {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	return f.world.final && f.last == len(f.world.states[f.view])-1
}
