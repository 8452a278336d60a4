package engine

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// stream is a TAIL or SUBSCRIBE. It reads the history of a view by position: what it has not read yet is kept by the view, not for it.
// It belongs to the session's goroutine.
type stream struct {
	e        *Engine
	view     *view
	own      bool // view exists for this stream
	building bool // and has been given to the engine to be built
	tail     bool // the statement is TAIL
	snapshot bool
	shape
	bounds

	stage   stage
	next    uint64       // all times below have been sent, once nothing is pending
	pending []flow.Keyed // of the time before next, to be sent before anything else happens
	owed    bool         // there may be some, or a progress that follows them
}

// stage is what a stream does next.
type stage uint8

const (
	opening   stage = iota // chooses its time, and says it
	first                  // sends what is there
	following              // sends what changes
	ended
)

// endOfTime is the time of what never changes, as Materialize has it.
const endOfTime = math.MaxUint64

// streamRows is about how many rows are put into one chunk: a reader who is slow holds no more. Under an envelope those of one time stay
// together.
const streamRows = 10_000

// newStream resolves what a TAIL or SUBSCRIBE reads and the shape of its rows, but not its times.
func (e *Engine) newStream(s *sql.Subscribe, params plan.Params) (t *stream, err error) {
	t = &stream{e: e, tail: s.Tail, snapshot: s.Snapshot}
	if t.view, err = e.relation(s, params); err != nil {
		return nil, err
	}
	t.own = t.view.id == ""
	t.shape, err = newShape(t.view.columns, s)
	return t, err
}

// relation is the view that a stream reads: a maintained one, or one of its own for a query.
func (e *Engine) relation(s *sql.Subscribe, params plan.Params) (*view, error) {
	query := s.Query
	cat := e.catalog()
	if s.Name != nil {
		if o := cat.lookup(*s.Name); o != nil && o.view != nil {
			return o.view, nil
		}
		query = &sql.Query{At: s.Name.At, Body: &sql.Select{
			At: s.Name.At, Items: []sql.Item{{Expr: &sql.Star{At: s.Name.At}}}, From: []sql.TableExpr{&sql.Table{Name: *s.Name}},
		}}
	}
	if query.AsOf != nil {
		return nil, sql.Errorf(query.Pos(), "42601", "AS OF belongs behind the parentheses")
	}
	p, err := plan.Query(cat.env(params), query)
	if err != nil {
		return nil, err
	}
	df := p.Maintained()
	v := newView("", "the query", p.Columns, df, cat.bind(df))
	v.uses = p.Uses
	return v, nil
}

// subscribe begins a stream that the client reads as it comes.
func (s *Session) subscribe(n *sql.Subscribe, params plan.Params) (*Result, error) {
	if err := s.begins(n); err != nil {
		return nil, err
	}
	t, err := s.e.newStream(n, params)
	if err != nil {
		return nil, err
	}
	var notices []Notice
	if t.bounds, notices, err = s.e.bounds(n, params); err != nil {
		return nil, err
	}
	verb := "SUBSCRIBE"
	if n.Tail {
		verb = "TAIL"
	}
	notices = append(notices, Notice{"NOTICE", "01000", "streaming " + verb + " rows directly requires a client that does not buffer output"})
	count := 0
	return &Result{
		Fields: t.fields(), Notices: notices, Close: t.Close,
		Next: func(ctx context.Context) ([]flow.Row, error) {
			rows, err := t.Next(ctx)
			count += len(rows)
			return rows, err
		},
		Tag: func() string { return fmt.Sprintf("SELECT %d", count) },
	}, nil
}

// copyOut is COPY of a query or stream TO STDOUT.
func (s *Session) copyOut(ctx context.Context, n *sql.Copy, params plan.Params) (*Result, error) {
	var r *Result
	var err error
	switch of := n.Of.(type) {
	case *sql.Query:
		r, err = s.selectQuery(ctx, of, params)
	case *sql.Subscribe:
		r, err = s.subscribe(of, params)
	}
	if err != nil {
		return nil, err
	}
	tag := r.Tag
	r.Copy = n.Format
	r.Notices = slices.DeleteFunc(r.Notices, func(n Notice) bool { return n.Code == "01000" })
	r.Tag = func() string { return "COPY" + strings.TrimPrefix(tag(), "SELECT") }
	return r, nil
}

// errFellBehind ends a stream that was not read for longer than the history reaches.
var errFellBehind = &Error{
	Code: "XX000", Message: "SUBSCRIBE fell behind: the client did not read results fast enough, and the history it would need is gone",
	Hint: "Subscribe again.",
}

// Next returns the rows that are to be sent together. It takes what is there before it asks the context, so that an expired one
// polls.
func (t *stream) Next(ctx context.Context) ([]flow.Row, error) {
	for {
		var rows []flow.Row
		var err error
		switch {
		case t.owed:
			rows = t.part()
		case t.stage == opening:
			rows, err = t.open(ctx)
		case t.stage == first:
			err = t.initial()
		case t.stage == following:
			rows, err = t.follow(ctx)
		default:
			return nil, io.EOF
		}
		if err != nil || len(rows) > 0 {
			if t.tail {
				err = asTail(err)
			}
			return rows, err
		}
	}
}

// open waits until the stream's time can be read.
func (t *stream) open(ctx context.Context) ([]flow.Row, error) {
	if err := t.choose(ctx); err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	t.stage, t.next = first, t.asOf
	if t.progress {
		return []flow.Row{t.progressed(t.asOf)}, nil
	}
	return nil, nil
}

// choose settles the time of the snapshot. A query's own view is built at it by the engine, however often this is called before it is
// done.
func (t *stream) choose(ctx context.Context) error {
	if t.own && !t.building {
		t.building = true
		if t.view.wanted, t.view.atLeast = t.asOf, t.atLeast; t.view.sealed {
			t.view.wanted = now
		}
		t.e.mu.Lock()
		t.e.hydrating = append(t.e.hydrating, t.view)
		t.e.notify()
		t.e.mu.Unlock()
	}
	return t.e.await(ctx, func() (bool, error) {
		if t.view.dropped {
			return false, relationDropped(t.droppedName())
		}
		if ok, err := t.view.readable(); !ok {
			if err == nil {
				err = obstacle(t.view.inputs)
			}
			return false, err
		}
		switch {
		case t.view.sealed && t.asOf == now:
			t.asOf = endOfTime
		case t.view.sealed:
		case t.own:
			t.asOf = t.view.builtAt
		case t.asOf == now:
			t.asOf = t.e.upper - 1
		case t.asOf >= t.e.upper:
			return false, nil
		case t.asOf < t.view.since && t.atLeast:
			t.asOf = t.view.since
		case t.asOf < t.view.since:
			return false, historyGone(t.asOf, t.view.since, t.view.id)
		}
		return true, nil
	})
}

// send puts the rows of a time on their way, and then a progress.
func (t *stream) send(time uint64, rows []flow.Keyed) {
	t.next, t.pending, t.owed = time+1, shuffled(t.e, rows), true
}

// part sends some of what is pending.
func (t *stream) part() []flow.Row {
	n := len(t.pending)
	if t.key == nil {
		n = min(n, streamRows)
	}
	rows := t.rows(t.next-1, t.pending[:n])
	if t.pending = t.pending[n:]; len(t.pending) > 0 {
		return rows
	}
	t.pending, t.owed = nil, false
	switch {
	case !t.progress:
	case t.stage != ended:
		rows = append(rows, t.progressed(t.next))
	case t.view.sealed && t.asOf < endOfTime && !t.limited: // who resumes would wait for more; Materialize leaves that to them
		rows = append(rows, t.progressed(endOfTime))
	}
	return rows
}

// initial sends the snapshot.
func (t *stream) initial() error {
	t.stage = following
	if t.view.sealed {
		t.stage = ended
	}
	if t.limited && t.asOf >= t.upTo {
		t.stage = ended
		return nil
	}
	rows, errs, err := t.e.snapshot(t.view, t.asOf)
	if isHistoryGone(err) { // it was there when the stream began
		return errFellBehind
	}
	if err != nil {
		return err
	}
	if err := evaluation(errs, t.view.name); err != nil {
		return err
	}
	if !t.snapshot {
		rows = nil
	}
	t.send(t.asOf, rows) // the progress says that the snapshot is complete, also an empty one
	return nil
}

func evaluation(errs []flow.ErrorUpdate, name string) error {
	sum := map[string]int64{}
	for _, e := range errs {
		sum[e.Message] += e.Diff
	}
	if err := evaluationError(sum, name); err != nil {
		return err
	}
	return nil
}

// follow sends what has been published since, and waits if nothing has.
func (t *stream) follow(ctx context.Context) ([]flow.Row, error) {
	var changes []change
	var failure error
	upper := t.next
	err := t.e.await(ctx, func() (bool, error) {
		if t.view.dropped {
			return false, relationDropped(t.droppedName())
		}
		if t.view.broken != nil {
			return false, t.view.broken
		}
		if upper = t.e.upper; t.limited {
			upper = min(upper, t.upTo)
		}
		if upper <= t.next {
			return t.limited && upper == t.upTo, nil
		}
		if t.view.since >= t.next {
			return false, errFellBehind
		}
		changes = t.view.after(t.next-1, upper)
		if err := evaluationError(t.view.errors, t.view.name); err != nil {
			failure = err
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if t.limited && upper == t.upTo {
		t.stage = ended
	}
	var rows []flow.Row
	for _, c := range changes {
		if len(c.errors) > 0 && failure != nil {
			t.stage, t.next = following, c.time
			if len(rows) > 0 {
				return rows, nil
			}
			return nil, failure
		}
		if len(rows)+len(c.rows) > streamRows {
			if len(rows) > 0 { // what follows is read again
				t.stage, upper = following, c.time
				break
			}
			if upper > c.time+1 {
				t.stage = following
			}
			t.send(c.time, c.rows)
			return nil, nil
		}
		rows = append(rows, t.rows(c.time, shuffled(t.e, c.rows))...)
	}
	t.next = upper
	if t.progress && t.stage != ended {
		rows = append(rows, t.progressed(upper))
	}
	return rows, nil
}

// shuffled is the rows of one time in the order of [Options.Shuffle].
func shuffled(e *Engine, rows []flow.Keyed) []flow.Keyed {
	if e.opt.Shuffle != nil {
		rows = slices.Clone(rows)
		e.opt.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
	return rows
}

// droppedName is the relation whose end is the stream's.
func (t *stream) droppedName() string {
	if t.view.lost != "" {
		return t.view.lost
	}
	return t.view.name
}

// Close ends the stream; a view of its own goes.
func (t *stream) Close() {
	t.stage, t.owed = ended, false
	if t.own {
		t.e.detach(t.view)
	}
}
