package flow

import "strconv"

// Param stands for a parameter of a statement that is planned before its values are known. Its type is what it is first cast to.
type Param struct {
	N     int
	Known []Type // of all parameters of the statement, by number; Unknown: nobody has asked yet
}

// Type is the type as far as it is known.
func (e *Param) Type() Type { return e.Known[e.N] }

// Args are none.
func (e *Param) Args() []Expr { return nil }

// WithArgs is the parameter itself.
func (e *Param) WithArgs([]Expr) Expr { return e }

// Eval is an error: there is no value yet.
func (e *Param) Eval(*Context, Row) (Datum, error) {
	return Null, &EvalError{Code: "42P02", Message: "there is no value for parameter " + e.String()}
}

func (e *Param) String() string { return "$" + strconv.Itoa(e.N) }
