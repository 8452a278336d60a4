package engine

import (
	"context"
	"io"
	"math"
	"strconv"

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
	progress bool
	snapshot bool
	asOf     uint64 // now until it is chosen
	atLeast  bool
	upTo     uint64 // no rows from this time on, if bounded
	bounded  bool
	building bool // and has been given to the engine to be built
	constant bool // nothing will ever change

	stage stage
	next  uint64 // all times below have been sent
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

// streamRows is the most rows that are put into one chunk, but for those of one time, which stay together.
const streamRows = 10_000

// newStream resolves a TAIL or SUBSCRIBE. The caller holds mu.
func (e *Engine) newStream(s *sql.Subscribe) (*stream, []Notice, error) {
	t := &stream{e: e, progress: s.Progress, snapshot: s.Snapshot, asOf: now}
	var err error
	if s.AsOf != nil {
		t.atLeast = s.AsOf.AtLeast
		if t.asOf, err = e.time(s.AsOf.Time); err != nil {
			return nil, nil, err
		}
	}
	var notices []Notice
	if s.UpTo != nil {
		if t.upTo, err = e.time(s.UpTo); err != nil {
			return nil, nil, err
		}
		t.bounded = true
		if err := t.checkBounds(); err != nil {
			return nil, nil, err
		}
		if t.asOf == t.upTo {
			notices = append(notices, Notice{"NOTICE", "00000", "the subscription is guaranteed to be empty: AS OF equals UP TO"})
		}
	}
	if s.Name != nil {
		if o := e.lookup(*s.Name); o != nil && o.view != nil {
			t.view = o.view
			return t, notices, nil
		}
	}
	query := s.Query
	if query == nil {
		query = &sql.Query{At: s.Name.At, Body: &sql.Select{
			At: s.Name.At, Items: []sql.Item{{Expr: &sql.Star{At: s.Name.At}}}, From: []sql.TableExpr{&sql.Table{Name: *s.Name}},
		}}
	}
	if query.AsOf != nil {
		return nil, nil, sql.Errorf(query.Pos(), "42601", "AS OF belongs behind the parentheses")
	}
	p, err := plan.Query(e.env(), query)
	if err != nil {
		return nil, nil, err
	}
	if p.Introspection {
		return nil, nil, sql.Errorf(query.Pos(), "0A000", "%s can be selected from, not streamed", introspection.Name)
	}
	df := p.Maintained()
	inputs, err := e.bind(df)
	if err != nil {
		return nil, nil, err
	}
	t.own, t.constant = true, len(inputs) == 0
	t.view = newView("", "the query", p.Columns, df, inputs)
	t.view.uses = p.Uses
	return t, notices, nil
}

// time evaluates an AS OF or UP TO.
func (e *Engine) time(x sql.Expr) (uint64, error) {
	d, err := plan.Constant(e.env(), x)
	if err != nil {
		return 0, err
	}
	bad := sql.Errorf(x.Pos(), "22000", "AS OF or UP TO should be castable to a (non-null) mz_timestamp value")
	var n int64
	switch d.Type() {
	case flow.Int2, flow.Int4, flow.Int8:
		n = d.Int()
	case flow.Numeric:
		u, ok := d.Uint()
		if !ok {
			return 0, bad
		}
		return u, nil
	case flow.Date:
		n = d.Int() * 86400e3
	case flow.Timestamp, flow.Timestamptz:
		n = d.Int() / 1000
	case flow.Text:
		if u, err := strconv.ParseUint(d.Str(), 10, 64); err == nil {
			return u, nil
		}
		c, _ := flow.CastTo(&flow.Const{D: d, T: flow.Text}, flow.Timestamptz)
		v, err := c.Eval(&flow.Context{}, nil)
		if err != nil {
			return 0, bad
		}
		n = v.Int() / 1000
	default:
		return 0, bad
	}
	if n < 0 {
		return 0, bad
	}
	return uint64(n), nil
}

// fields are the columns of the stream's rows.
func (t *stream) fields() []Field {
	f := []Field{{"mz_timestamp", flow.StreamTime}}
	if t.progress {
		f = append(f, Field{"mz_progressed", flow.Bool})
	}
	f = append(f, Field{"mz_diff", flow.Int8})
	for _, c := range t.view.columns {
		f = append(f, Field(c))
	}
	return f
}

// errFellBehind ends a stream that was not read for longer than the history reaches.
var errFellBehind = &Error{
	Code: "XX000", Message: "SUBSCRIBE fell behind: the client did not read results fast enough, and the history it would need is gone",
	Hint: "Subscribe again.",
}

// row is a row of the stream for a change of a row.
func (t *stream) row(time uint64, u flow.Update) flow.Row {
	r := make(flow.Row, 0, 3+len(u.Row))
	r = append(r, flow.NewUint(time))
	if t.progress {
		r = append(r, flow.NewBool(false))
	}
	return append(append(r, flow.NewInt(flow.Int8, u.Diff)), u.Row...)
}

// progressed is the row that says that all times below have been sent.
func (t *stream) progressed(time uint64) flow.Row {
	r := make(flow.Row, 3+len(t.view.columns))
	r[0], r[1] = flow.NewUint(time), flow.NewBool(true)
	return r
}

// Next returns the rows that are to be sent together. It takes what is there before it asks the context, so that an expired one
// polls.
func (t *stream) Next(ctx context.Context) ([]flow.Row, error) {
	for {
		var rows []flow.Row
		var err error
		switch t.stage {
		case opening:
			rows, err = t.open(ctx)
		case first:
			rows, err = t.initial()
		case following:
			rows, err = t.follow(ctx)
		default:
			return nil, io.EOF
		}
		if err != nil || len(rows) > 0 {
			return rows, err
		}
	}
}

// checkBounds holds AS OF against UP TO.
func (t *stream) checkBounds() error {
	if t.bounded && t.asOf != now && t.asOf > t.upTo {
		return errorf("22000", "subscription lower bound (`AS OF`) is greater than its upper bound (`UP TO`): %d > %d", t.asOf, t.upTo)
	}
	return nil
}

// open waits until the stream's time can be read.
func (t *stream) open(ctx context.Context) ([]flow.Row, error) {
	if t.constant {
		if t.asOf == now {
			t.asOf = endOfTime
		}
		rows, errs := t.view.step(&flow.Context{})
		t.view.apply(change{rows: rows, errors: errs}, false) // nobody else knows the view
	} else if err := t.choose(ctx); err != nil {
		return nil, err
	}
	if err := t.checkBounds(); err != nil {
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
		t.view.wanted, t.view.atLeast = t.asOf, t.atLeast
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
			return false, err
		}
		switch {
		case t.own:
			t.asOf = t.view.builtAt
		case t.asOf == now:
			t.asOf = t.e.upper - 1
		case t.asOf >= t.e.upper:
			return false, nil
		case t.asOf < t.view.since && t.atLeast:
			t.asOf = t.view.since
		case t.asOf < t.view.since:
			return false, errHistoryGone
		}
		return true, nil
	})
}

// initial sends the snapshot.
func (t *stream) initial() ([]flow.Row, error) {
	t.stage = following
	t.next = t.asOf + 1
	if t.constant {
		t.stage = ended
	}
	if t.bounded && t.asOf >= t.upTo {
		t.stage = ended
		return nil, nil
	}
	rows, errs, err := t.e.snapshot(t.view, t.asOf)
	if err == errHistoryGone { // it was there when the stream began
		return nil, errFellBehind
	}
	if err != nil {
		return nil, err
	}
	if err := evaluation(errs, t.view.name); err != nil {
		return nil, err
	}
	var out []flow.Row
	if t.snapshot {
		out = make([]flow.Row, 0, len(rows)+1)
		for _, k := range rows {
			out = append(out, t.row(t.asOf, k.Update))
		}
		t.shuffle(out)
	}
	if t.progress && t.stage != ended { // the snapshot is complete, also an empty one
		out = append(out, t.progressed(t.next))
	}
	return out, nil
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
		if upper = t.e.upper; t.bounded {
			upper = min(upper, t.upTo)
		}
		if upper <= t.next {
			return t.bounded && upper == t.upTo, nil
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
	if t.bounded && upper == t.upTo {
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
		from := len(rows)
		for _, k := range c.rows {
			rows = append(rows, t.row(c.time, k.Update))
		}
		t.shuffle(rows[from:])
		if len(rows) > streamRows {
			t.stage, upper = following, c.time+1
			break
		}
	}
	t.next = upper
	if t.progress && t.stage != ended {
		rows = append(rows, t.progressed(upper))
	}
	return rows, nil
}

func (t *stream) shuffle(rows []flow.Row) {
	if t.e.opt.Shuffle != nil {
		t.e.opt.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
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
	t.stage = ended
	if t.own {
		t.e.detach(t.view)
	}
}
