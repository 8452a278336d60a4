package engine

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// statementTimeout is the parameter by which a client bounds how long a statement may read.
const statementTimeout = "statement_timeout"

// errTimeout ends a statement that has read for too long.
var errTimeout = &Error{Code: "57014", Message: "canceling statement due to statement timeout"}

// timeoutUnits are the units of statement_timeout, as in PostgreSQL.
var timeoutUnits = map[string]time.Duration{
	"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// parseStatementTimeout reads a value of statement_timeout; 0 is none.
func parseStatementTimeout(value string) (time.Duration, error) {
	text := strings.TrimSpace(value)
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	unit, ok := timeoutUnits[strings.TrimSpace(text[len(digits):])]
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || n < 0 || n*float64(unit) > math.MaxInt32*float64(time.Millisecond) {
		return 0, &Error{Code: "22023", Message: "invalid value for parameter \"" + statementTimeout + "\": " + strconv.Quote(value),
			Hint: `Valid units for this parameter are "us", "ms", "s", "min", "h" and "d"; without one it is milliseconds. 0 is no timeout.`}
	}
	return time.Duration(n * float64(unit)), nil
}

// deadline is when a statement that begins now has to be done; zero if never. What is asked for without end, and what writes, has none:
// of a write nobody could tell whether it was in time.
func (s *Session) deadline(node sql.Statement) time.Time {
	if c, ok := node.(*sql.Copy); ok {
		node = c.Of
	}
	switch node.(type) {
	case *sql.Query, *sql.Fetch:
		value, _ := s.parameter(statementTimeout)
		if d, err := parseStatementTimeout(value); err == nil && d > 0 {
			return time.Now().Add(d)
		}
	}
	return time.Time{}
}

// until runs a part of a statement up to its deadline.
func until(ctx context.Context, deadline time.Time, part func(context.Context) error) error {
	if deadline.IsZero() {
		return part(ctx)
	}
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	err := part(limited)
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return errTimeout
	}
	return err
}

// timed makes a result's Next fail behind the deadline.
func (r *Result) timed(deadline time.Time) {
	next := r.Next
	if next == nil || deadline.IsZero() {
		return
	}
	r.Next = func(ctx context.Context) (rows []flow.Row, err error) {
		err = until(ctx, deadline, func(ctx context.Context) error {
			rows, err = next(ctx)
			return err
		})
		return rows, err
	}
}
