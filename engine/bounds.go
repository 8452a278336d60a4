package engine

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// bounds are the times that a stream is asked for.
type bounds struct {
	asOf    uint64 // now until it is chosen
	atLeast bool
	upTo    uint64 // no rows from this time on, if limited
	limited bool
}

// bounds evaluates AS OF and UP TO.
func (e *Engine) bounds(s *sql.Subscribe, params plan.Params) (b bounds, notices []Notice, err error) {
	b.asOf = now
	if s.AsOf != nil {
		b.atLeast = s.AsOf.AtLeast
		if b.asOf, err = e.time(s.AsOf.Time, params); err != nil {
			return b, nil, err
		}
	}
	if s.UpTo != nil {
		b.limited = true
		if b.upTo, err = e.time(s.UpTo, params); err != nil {
			return b, nil, err
		}
	}
	if b.limited && b.asOf == b.upTo {
		notices = append(notices, Notice{"NOTICE", "00000",
			fmt.Sprintf("subscribe as of %d (inclusive) and up to the same bound %d (exclusive) is guaranteed to be empty", b.asOf, b.upTo)})
	}
	return b, notices, b.check()
}

// check holds AS OF against UP TO.
func (b *bounds) check() error {
	if b.limited && b.asOf != now && b.asOf > b.upTo {
		return errorf("22000", "subscription lower bound (`AS OF`) is greater than its upper bound (`UP TO`): %d > %d", b.asOf, b.upTo)
	}
	return nil
}

// timeParam is the type of a parameter that is an AS OF or UP TO if nobody says another.
const timeParam = flow.Numeric

// time evaluates an AS OF or UP TO.
func (e *Engine) time(x sql.Expr, params plan.Params) (uint64, error) {
	if unmaterializable(x) {
		return 0, sql.Errorf(x.Pos(), "0A000", "calling an unmaterializable function in AS OF or UP TO not yet supported")
	}
	d, err := plan.Constant(e.catalog().env(params), x, timeParam)
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

// describeTimes finds out the types of the parameters in an AS OF and UP TO, which may be nil. What else is wrong with these turns out when
// they are evaluated.
func (e *Engine) describeTimes(params plan.Params, asOf *sql.AsOf, upTo sql.Expr) error {
	times := []sql.Expr{upTo}
	if asOf != nil {
		times = append(times, asOf.Time)
	}
	for _, x := range times {
		if x == nil || !params.Unknown() || unmaterializable(x) {
			continue
		}
		if _, err := plan.Constant(e.catalog().env(params), x, timeParam); err != nil {
			return err
		}
	}
	return nil
}

// unmaterializable tells that a time is computed from a function whose value depends on when and by whom it is asked.
func unmaterializable(x sql.Expr) bool {
	switch x := x.(type) {
	case *sql.Call:
		return slices.Contains([]string{"now", "mz_now", "mz_logical_timestamp", "current_timestamp"}, x.Name) ||
			slices.ContainsFunc(x.Args, unmaterializable)
	case *sql.Cast:
		return unmaterializable(x.X)
	case *sql.Unary:
		return unmaterializable(x.X)
	case *sql.Binary:
		return unmaterializable(x.L) || unmaterializable(x.R)
	}
	return false
}

// historyGone is the error for a time that lies before what the inputs, which are given by their ids, still know. The words are
// Materialize's, of v26.16 and later.
func historyGone(asOf, since uint64, ids ...string) *Error {
	at := func(t uint64) string {
		return fmt.Sprintf("[%13d (%s)]", t, time.UnixMilli(int64(t)).UTC().Format("2006-01-02 15:04:05.000"))
	}
	return &Error{
		Code: "22000", Message: "could not find a valid timestamp for the query",
		Detail: "Constraints:\nlower:\n  (Storage inputs: [" + strings.Join(ids, ", ") + "]): " + at(since) +
			"\nupper:\n  (Query's AS OF): " + at(asOf),
		gone: &gone{asOf, since},
	}
}

// gone is what is known of an AS OF that cannot be served.
type gone struct{ asOf, since uint64 }

func isHistoryGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.gone != nil
}

// asTail puts an error into the words that the releases with TAIL had for it.
func asTail(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.gone == nil {
		return err
	}
	return errorf("XX000", "Timestamp (%d) is not valid for all inputs: [Antichain { elements: [%d] }]", e.gone.asOf, e.gone.since)
}
