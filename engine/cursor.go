package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// cursor is a statement that is read in pieces.
type cursor struct {
	fields []Field
	start  func(context.Context) (*Result, error) // runs the statement, at the first FETCH
	result *Result
	rest   []flow.Row // of the last chunk
	ended  bool
}

// maxCursors is how many cursors a session may have: each may hold the result of a query.
const maxCursors = 64

// declare notes a cursor. Nothing is run, as in Materialize: the time is chosen at the first FETCH.
func (s *Session) declare(n *sql.Declare, params plan.Params) (*Result, error) {
	if s.status == 'I' {
		return nil, errorf("25P01", "DECLARE CURSOR can only be used in transaction blocks")
	}
	if s.cursors[n.Cursor] != nil {
		return nil, errorf("42P03", "cursor %s already exists", sql.Ident(n.Cursor))
	}
	if len(s.cursors) >= maxCursors {
		return nil, errorf("53400", "too many cursors (limit %d); close some", maxCursors)
	}
	f, err := s.describe(n.Of, params)
	if err != nil {
		return nil, err
	}
	c := &cursor{fields: f}
	c.start = func(ctx context.Context) (*Result, error) {
		if q, ok := n.Of.(*sql.Query); ok {
			return s.selectQuery(ctx, q, params)
		}
		return s.subscribe(n.Of.(*sql.Subscribe), params)
	}
	s.cursors[n.Cursor] = c
	return done("DECLARE CURSOR"), nil
}

// Cursor is the columns of a cursor, and nil if there is none of the name. A client may describe it as what it is, a portal.
func (s *Session) Cursor(name string) []Field {
	if c := s.cursors[name]; c != nil {
		return c.fields
	}
	return nil
}

// fetch reads from a cursor. Without a timeout it waits for the first rows and takes what else is there; with one it waits for as
// many rows as are asked for until the timeout is over.
func (s *Session) fetch(n *sql.Fetch) (*Result, error) {
	c := s.cursors[n.Cursor]
	if c == nil {
		return nil, errorf("34000", "cursor %s does not exist", sql.Ident(n.Cursor))
	}
	var timeout time.Duration
	var deadline time.Time
	if n.Timeout != "" {
		d, err := parseTimeout(n.Timeout)
		if err != nil {
			return nil, err
		}
		timeout = d
	}
	sent := 0
	r := &Result{Fields: c.fields, Tag: func() string { return fmt.Sprintf("FETCH %d", sent) }}
	r.Next = func(ctx context.Context) ([]flow.Row, error) {
		if n.Count >= 0 && int64(sent) >= n.Count {
			return nil, io.EOF
		}
		if n.Timeout != "" {
			if deadline.IsZero() {
				deadline = time.Now().Add(timeout)
			}
		} else if sent > 0 { // something has come: only what is there already
			deadline = time.Unix(1, 0)
		}
		rows, err := c.next(ctx, deadline)
		if err != nil {
			return nil, err
		}
		if n.Count >= 0 && int64(len(rows)) > n.Count-int64(sent) {
			rows, c.rest = rows[:n.Count-int64(sent)], rows[n.Count-int64(sent):]
		}
		sent += len(rows)
		return rows, nil
	}
	return r, nil
}

// next returns rows, or io.EOF at the end of the statement or when the deadline is over.
func (c *cursor) next(ctx context.Context, deadline time.Time) ([]flow.Row, error) {
	if len(c.rest) > 0 {
		rows := c.rest
		c.rest = nil
		return rows, nil
	}
	if c.ended {
		return nil, io.EOF
	}
	if c.result == nil {
		r, err := c.start(ctx)
		if err != nil {
			return nil, err
		}
		c.result = r
	}
	limited := ctx
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		limited, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	rows, err := c.result.Next(limited)
	switch {
	case err == io.EOF:
		c.ended = true
	case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return nil, io.EOF
	}
	return rows, err
}

// maxTimeout is the longest a FETCH may wait.
const maxTimeout = 24 * time.Hour

// parseTimeout reads an interval like 1s, 100ms, 2 minutes or a number of seconds.
func parseTimeout(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	unit := map[string]time.Duration{
		"": time.Second, "s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second,
		"ms": time.Millisecond, "millisecond": time.Millisecond, "milliseconds": time.Millisecond,
		"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
		"h": time.Hour, "hour": time.Hour, "hours": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	}[strings.TrimSpace(text[len(digits):])]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || unit == 0 {
		return 0, errorf("22007", "invalid input syntax for type interval: %q", s)
	}
	if n < 0 || n*float64(unit) > float64(maxTimeout) {
		return 0, errorf("22023", "timeout out of range: %s", s)
	}
	return time.Duration(n * float64(unit)), nil
}

func (s *Session) closeCursor(n *sql.CloseCursor) (*Result, error) {
	if n.Cursor == "" {
		s.closeCursors()
		return done("CLOSE CURSOR"), nil
	}
	c := s.cursors[n.Cursor]
	if c == nil {
		return nil, errorf("34000", "cursor %s does not exist", sql.Ident(n.Cursor))
	}
	delete(s.cursors, n.Cursor)
	c.close()
	return done("CLOSE CURSOR"), nil
}

func (c *cursor) close() {
	if c.result != nil && c.result.Close != nil {
		c.result.Close()
	}
}

func (s *Session) closeCursors() {
	for _, c := range s.cursors {
		c.close()
	}
	clear(s.cursors)
}
