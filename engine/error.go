package engine

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/sql"
)

// Error is an error as a client of the PostgreSQL protocol sees it.
type Error struct {
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
	Position int // where in the query, in characters from 1; 0 if nowhere

	gone *gone // set if a time was asked for that is not known any more
}

func (e *Error) Error() string { return e.Message }

// Notice is a message that is no error.
type Notice struct {
	Severity string // NOTICE, WARNING
	Code     string
	Message  string
}

func errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// errStopped ends what waits for the engine when it stops.
var errStopped = &Error{Code: "57P01", Message: "terminating connection due to administrator command"}

// located makes an error one that a client can be told; those of the parser and planner get their line, column and position in the
// query. A context's error stays what it is.
func located(err error, query string) error {
	var known *Error
	var e *sql.Error
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case !errors.As(err, &e):
		return asError(err)
	}
	e = foreign(e, query)
	line, column := sql.Position(query, e.Pos)
	return &Error{
		Code: e.Code, Message: fmt.Sprintf("%d:%d: %s", line, column, e.Message), Hint: e.Hint,
		Position: utf8.RuneCountInString(query[:min(max(e.Pos, 0), len(query))]) + 1,
	}
}

// asError makes any error one that a client can be told.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var eval *flow.EvalError
	if errors.As(err, &eval) {
		return errorf(eval.Code, "%s", eval.Message)
	}
	return errorf("XX000", "%v", err)
}
