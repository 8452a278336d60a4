package hub

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
	"github.com/mzdio/mzd/core/viewlog"
)

// State says what a view is doing.
type State string

// The states of a view.
const (
	Connecting State = "connecting"  // to the upstream, for the first time or again
	CatchingUp State = "catching_up" // connected; the first complete batch has not come yet
	Live       State = "live"
	Failed     State = "failed" // waiting to try again; what was known is still served
	Sealed     State = "sealed" // constant: it will never change, unless another view takes its place
)

var states = []State{Connecting, CatchingUp, Live, Failed, Sealed}

// view follows one view of the upstream. Its goroutine is the only writer of
// its log.
type view struct {
	View
	data      *viewlog.Log
	subscribe Subscribe
	maxRows   int64 // 0: any number
	log       *slog.Logger
	metrics   viewMetrics
	afresh    bool // the log holds what cannot be; belongs to run

	mu         sync.Mutex // guards what follows
	state      State
	trouble    trouble
	reconnects int
}

func newView(c View, data *viewlog.Log, o Options, m *metrics) *view {
	state := Connecting
	if upper, _ := data.Frontier(); upper.Time == core.EndOfTime {
		state = Sealed
	}
	return &view{
		View:      c,
		data:      data,
		subscribe: o.Subscribe,
		maxRows:   o.MaxRows,
		log:       o.Logger.With("view", c.Name),
		metrics:   m.ofView(c.Name, o.Reasons),
		state:     state,
	}
}

// close closes a log that is not going to run.
func (v *view) close() {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	v.data.Run(ended) // nothing came in, so that there is nothing to lose
}

// run follows the view until ctx ends.
func (v *view) run(ctx context.Context) {
	retry := retryWait
	for {
		err := v.follow(ctx, &retry)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			v.enter(Sealed)
			retry.Reset()
			if v.watch(ctx) != nil {
				return
			}
			continue
		}
		wait := retry.Next()
		if !retryable(err) {
			wait = longestWait
		}
		wait = max(wait, retryAfter(err))
		v.fail(err, wait)
		if backoff.Wait(ctx, wait) != nil {
			return
		}
	}
}

// watch looks at a view that is sealed, now and then, and returns nil when it is
// to be followed again, if only to say what is wrong. A constant never changes, but
// it may be dropped, or another view may take its name, and the stream that would
// tell has ended. The first time it reads all of it once more: that the upstream
// said by mistake that a view is complete must not make it stand still for ever.
func (v *view) watch(ctx context.Context) error {
	for confirmed := false; ; confirmed = true {
		if err := backoff.Wait(ctx, longestWait); err != nil {
			return err
		}
		if replaced, err := v.replaced(ctx, confirmed); replaced || err != nil {
			return ctx.Err()
		}
	}
}

// replaced reports whether the upstream has another view than the one that the log
// holds, or, unless that is confirmed, other contents. An upstream that cannot tell
// never says the same twice.
func (v *view) replaced(ctx context.Context, confirmed bool) (bool, error) {
	var told [2]string
	for i := range told {
		s, err := v.subscribe(ctx, Request{Name: v.Name, Query: v.Query})
		if err != nil {
			return false, err
		}
		defer s.Close()
		told[i] = s.Identity()
		switch {
		case told[i] != v.data.Identity():
		case confirmed:
			return false, nil
		default:
			snapshot, at, err := v.snapshot(ctx, s)
			return at < core.EndOfTime || !snapshot.Same(), err
		}
	}
	return told[0] == told[1], nil
}

// follow runs one subscription. It returns nil when the view is sealed.
func (v *view) follow(ctx context.Context, retry *backoff.Backoff) error {
	v.enter(Connecting)
	s, err := v.subscribe(ctx, v.request())
	if err != nil {
		return err
	}
	defer s.Close()
	v.enter(CatchingUp)
	opened := time.Now()
	for begun := s.Resumed(); ; begun = true {
		var upper core.Time
		if begun {
			upper, err = v.append(ctx, s)
		} else {
			upper, err = v.restart(ctx, s)
		}
		if err == nil {
			err = v.check()
		}
		if err != nil {
			return err
		}
		if upper == core.EndOfTime {
			return nil
		}
		v.enter(Live)
		if time.Since(opened) > longestWait {
			retry.Reset() // and not before: some streams die of their snapshot, again and again
		}
		v.data.Compact()
	}
}

// check looks whether what the upstream counts can be. If not, what the log holds is put
// right by a snapshot, once the upstream has one that can be.
func (v *view) check() error {
	err := v.data.Check()
	v.afresh = v.afresh || err != nil
	return err
}

// request asks for what comes after the log. Where nothing can come, because the
// view was sealed, or where it would be of no use, because the configured key is
// another one now, it asks for the whole view.
func (v *view) request() Request {
	r := Request{Name: v.Name, Query: v.Query}
	upper, _ := v.data.Frontier()
	held := v.data.View()
	if described, err := v.describe(held.Columns); err == nil && slices.Equal(described.Key, held.Key) && upper.Time < core.EndOfTime {
		r.Upper, r.Identity, r.Afresh = upper.Time, v.data.Identity(), v.afresh
	}
	return r
}

// append continues the log with the next batch. A stream that resumed may repeat
// progress that the log has already.
func (v *view) append(ctx context.Context, s Stream) (core.Time, error) {
	b, err := s.Next(ctx)
	if err != nil {
		return 0, err
	}
	upper, _ := v.data.Frontier()
	if b.Upper.Time <= upper.Time && b.Updates.Len() == 0 {
		return upper.Time, nil
	}
	rows := v.data.Stats().Rows
	for u := range b.Updates.All() {
		rows += int64(u.Diff)
	}
	if err := v.checkRows(rows); err != nil {
		return 0, err
	}
	return b.Upper.Time, v.data.Append(b.Lower.Time, b.Upper.Time, b.Updates.Slice())
}

// restart takes a snapshot over, and returns its time. If it belongs to the
// history that the log holds, readers see the difference as an ordinary change;
// otherwise the log begins anew.
func (v *view) restart(ctx context.Context, s Stream) (core.Time, error) {
	described, err := v.describe(s.Columns())
	if err != nil {
		return 0, err
	}
	snapshot, at, err := v.snapshot(ctx, s)
	if err != nil {
		return 0, err
	}
	upper, _ := v.data.Frontier()
	held := v.data.View()
	same := !upper.IsZero() && s.Identity() == v.data.Identity() &&
		slices.Equal(described.Columns, held.Columns) && slices.Equal(described.Key, held.Key)
	if same && upper.Time == core.EndOfTime && at == core.EndOfTime && snapshot.Same() {
		return at, nil // a constant, and the log has it already
	}
	if !upper.IsZero() {
		v.metrics.resnapshots.Inc()
	}
	because := s.Restarted()
	if v.afresh {
		because = "what the upstream counted could not be"
	}
	switch {
	case same && at > upper.Time:
		v.log.Info("continuing with the difference to a new snapshot", "because", because, "from", upper.Time, "to", at)
		err = v.data.Rebase(at, snapshot)
		v.afresh = v.afresh && err != nil
		return at, err
	case same && upper.Time < core.EndOfTime:
		because = "the upstream's times have gone back"
	case because == "": // the hub asked for no resumption; see request
		because = "the view's key is another one, or it was constant, and is not, or not the same"
	}
	if !upper.IsZero() {
		v.log.Warn("starting a new history: readers begin again", "because", because, "from", upper.Time, "to", at)
	}
	err = v.data.Reset(described, s.Identity(), at, snapshot)
	v.afresh = v.afresh && err != nil
	return at, err
}

// snapshot reads the snapshot that a stream begins with, and its time. It reads no
// further than the view may be large.
func (v *view) snapshot(ctx context.Context, s Stream) (*viewlog.Snapshot, core.Time, error) {
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	snapshot, rows := v.data.Snapshot(), int64(0)
	at, err := s.Snapshot(reading, func(row []byte, copies core.Diff) {
		rows += int64(copies)
		if err := v.checkRows(rows); err != nil {
			stop(err)
			return
		}
		snapshot.Add(row, copies)
	})
	if cause := context.Cause(reading); cause != nil {
		err = cause
	}
	return snapshot, at, err
}

// checkRows checks a number of rows, copies counted.
func (v *view) checkRows(rows int64) error {
	if v.maxRows > 0 && rows > v.maxRows {
		return tooManyRowsError(v.maxRows)
	}
	return nil
}

// tooManyRowsError says that the view has more rows than it may. Receivers get a
// row as often as it is there, so that a few rows can be too many.
type tooManyRowsError int64

func (e tooManyRowsError) Error() string {
	return fmt.Sprintf("the view has more than %d rows, equal ones counted one by one; narrow it, make one row of equal ones with GROUP BY and count(*), or raise max_rows", int64(e))
}

func (e tooManyRowsError) Reason() string  { return "too_large" }
func (e tooManyRowsError) Retryable() bool { return false }

// RetryAfter leaves the database time for others: to find out again is to read as
// many rows again.
func (e tooManyRowsError) RetryAfter() time.Duration { return time.Minute }

// describe makes the view of columns and the configured key.
func (v *view) describe(columns []core.Column) (*core.View, error) {
	d := &core.View{Name: v.Name, Columns: columns}
	for _, name := range v.Key {
		i := d.ColumnIndex(name)
		if i < 0 {
			var names []string
			for _, c := range columns {
				names = append(names, c.Name)
			}
			return nil, keyError(fmt.Sprintf("key: view %s has no column %s; its columns: %s", v.Name, name, strings.Join(names, ", ")))
		}
		d.Key = append(d.Key, i)
	}
	return d, nil
}

// keyError says that the configured key does not fit the view.
type keyError string

func (e keyError) Error() string   { return string(e) }
func (e keyError) Reason() string  { return "bad_key" }
func (e keyError) Retryable() bool { return false }

// Trouble returns why the view has stopped; nil: it has not. What is sealed has nowhere
// to go.
func (v *view) Trouble() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state == Sealed {
		return nil
	}
	return v.trouble.err
}

// enter notes a new state.
func (v *view) enter(s State) {
	complete := s == Live || s == Sealed
	v.mu.Lock()
	was, after := v.state, v.trouble
	if complete || was != Sealed { // what is sealed stays so while it is looked at again
		v.state = s
	}
	if complete {
		v.trouble = trouble{}
	}
	v.mu.Unlock()
	if complete && s != was {
		stats := v.data.Stats()
		args := []any{"state", s, "rows", stats.Rows, "timestamp", stats.Upper}
		if after.err != nil {
			args = append(args, "after", time.Since(after.since).Round(time.Millisecond).String())
		}
		v.log.Info("view is complete", args...)
	}
}

// fail notes that the stream ended. The same trouble is logged once.
func (v *view) fail(err error, wait time.Duration) {
	why := reason(err)
	v.metrics.reconnects(why).Inc()
	upper, _ := v.data.Frontier()
	state, what := Failed, "view stopped; trying again until it works"
	if upper.Time == core.EndOfTime && away(err) { // it is right as it is
		state, what = Sealed, "nobody can be asked whether the view is still the constant that it was; trying again"
	}
	v.mu.Lock()
	v.state = state
	v.reconnects++
	news := v.trouble.set(err, time.Now().Add(wait))
	v.mu.Unlock()
	level := slog.LevelDebug
	if news {
		level = slog.LevelWarn
	}
	v.log.Log(context.Background(), level, what, "reason", why, "error", err)
}
