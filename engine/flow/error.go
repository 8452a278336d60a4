package flow

import "fmt"

// EvalError is an error that evaluating an expression over a row met: a value out of range, a division by zero. It is data: it
// belongs to the collection for as long as the row does.
type EvalError struct {
	Code    string // SQLSTATE that PostgreSQL would answer
	Message string // the words of PostgreSQL and Materialize: integer out of range
}

func (e *EvalError) Error() string { return e.Message }

func outOfRange(t Type) error {
	return &EvalError{Code: "22003", Message: t.SQL() + " out of range"}
}

func invalidInput(t Type, text string) error {
	return &EvalError{Code: "22P02", Message: fmt.Sprintf("invalid input syntax for type %s: %s", t.SQL(), excerpt(text))}
}

var errDivisionByZero = &EvalError{Code: "22012", Message: "division by zero"}
