package flow

import (
	"fmt"

	"github.com/valyala/fastjson"
)

// Expand joins each row of its input with the rows that a table function makes of it. Its output has the columns of the input and
// then the function's one.
type Expand struct {
	In    Operator
	Func  *TableFunc
	Args  []Expr // over the columns of the input
	Width int    // columns of the input
	On    []Expr // what else must be true, over the columns of the output
	Outer bool   // rows that come to nothing come with a NULL

	values []Datum
	out    Delta
}

// TableFunc is a function that makes rows of one column. It is strict: a NULL makes no rows.
type TableFunc struct {
	Name   string
	Column string // what the column is called, or "" if it is named for the function or its alias
	Params []Type
	Result Type
	rows   func(*Context, []Datum, func(Datum)) error
}

// maxExpand bounds the rows that a table function makes of one row.
const maxExpand = 1_000_000

var errExpand = &EvalError{Code: "54000", Message: fmt.Sprintf("table function returns more than %d rows", maxExpand)}

// tableFuncs are the table functions; they are made once and never change.
var tableFuncs = []*TableFunc{
	{Name: "generate_series", Params: []Type{Int4, Int4}, Result: Int4, rows: series},
	{Name: "generate_series", Params: []Type{Int4, Int4, Int4}, Result: Int4, rows: series},
	{Name: "generate_series", Params: []Type{Int8, Int8}, Result: Int8, rows: series},
	{Name: "generate_series", Params: []Type{Int8, Int8, Int8}, Result: Int8, rows: series},
	{Name: "jsonb_array_elements", Column: "value", Params: []Type{Jsonb}, Result: Jsonb, rows: elements(jsonDatum)},
	{Name: "jsonb_array_elements_text", Column: "value", Params: []Type{Jsonb}, Result: Text, rows: elements(jsonText)},
	{Name: "jsonb_object_keys", Params: []Type{Jsonb}, Result: Text, rows: objectKeys},
}

// IsTableFunc tells whether there is a table function of the name.
func IsTableFunc(name string) bool {
	for _, f := range tableFuncs {
		if f.Name == name {
			return true
		}
	}
	return false
}

// ResolveTable finds the table function of a name for arguments of these types, as [Resolve] does.
func ResolveTable(name string, args []Type) *TableFunc {
	var best *TableFunc
	bestCost := 0
	for _, f := range tableFuncs {
		if f.Name != name {
			continue
		}
		if cost := callCost(f.Params, args); cost >= 0 && (best == nil || cost < bestCost) {
			best, bestCost = f, cost
		}
	}
	return best
}

func series(_ *Context, args []Datum, emit func(Datum)) error {
	from, to, step := args[0].n, args[1].n, int64(1)
	if len(args) == 3 {
		step = args[2].n
	}
	switch {
	case step == 0:
		return &EvalError{Code: "22023", Message: "step size cannot equal zero"}
	case step > 0 && from > to, step < 0 && from < to:
		return nil
	}
	distance, stride := uint64(to)-uint64(from), uint64(step)
	if step < 0 {
		distance, stride = -distance, -stride
	}
	n := distance / stride
	if n >= maxExpand {
		return errExpand
	}
	for i := range n + 1 {
		emit(NewInt(args[0].t, from+int64(i)*step))
	}
	return nil
}

// elements makes a row of each element of an array. Anything but an array makes none, as in Materialize.
func elements(of func(*Context, *fastjson.Value) (Datum, error)) func(*Context, []Datum, func(Datum)) error {
	return func(c *Context, args []Datum, emit func(Datum)) error {
		v, err := c.parse(args[0].s)
		if err != nil || v.Type() != fastjson.TypeArray {
			return err
		}
		list, _ := v.Array()
		if len(list) > maxExpand {
			return errExpand
		}
		for _, e := range list {
			d, err := of(c, e)
			if err != nil {
				return err
			}
			emit(d)
		}
		return nil
	}
}

// objectKeys makes a row of each key of an object. Anything but an object makes none, as in Materialize.
func objectKeys(c *Context, args []Datum, emit func(Datum)) error {
	v, err := c.parse(args[0].s)
	if err != nil || v.Type() != fastjson.TypeObject {
		return err
	}
	o, _ := v.Object()
	o.Visit(func(k []byte, _ *fastjson.Value) { emit(NewText(string(k))) })
	return nil
}

// Step implements [Operator].
func (o *Expand) Step(s *Step) Delta {
	in := o.In.Step(s)
	o.out.reset()
	o.out.Errors = append(o.out.Errors, in.Errors...)
	for _, u := range in.Rows {
		if s.Context.Exhausted() {
			break
		}
		n := len(o.out.Rows)
		if err := o.expand(s.Context, u); err != nil {
			o.out.Rows = o.out.Rows[:n]
			o.out.fail(err.Error(), u.Diff)
			continue
		}
		if o.Outer && len(o.out.Rows) == n {
			o.out.add(append(u.Row[:o.Width:o.Width], Null), u.Diff)
		}
	}
	return o.out
}

// expand puts out what becomes of one row.
func (o *Expand) expand(c *Context, u Update) error {
	args := make([]Datum, len(o.Args))
	for i, e := range o.Args {
		d, err := e.Eval(c, u.Row)
		if err != nil || d.IsNull() {
			return err
		}
		args[i] = d
	}
	// A document stays parsed while one other is, so that the conditions must come after the function.
	o.values = o.values[:0]
	if err := o.Func.rows(c, args, func(d Datum) { o.values = append(o.values, d) }); err != nil {
		return err
	}
values:
	for _, d := range o.values {
		row := append(u.Row[:o.Width:o.Width], d)
		for _, e := range o.On {
			d, err := e.Eval(c, row)
			if err != nil {
				return err
			}
			if d.IsNull() || !d.Bool() {
				continue values
			}
		}
		c.spend(row)
		o.out.add(row, u.Diff)
	}
	return nil
}

// State implements [Operator].
func (o *Expand) State() State { return State{} }

// Inputs implements [Operator].
func (o *Expand) Inputs() []Operator { return []Operator{o.In} }

func (o *Expand) String() string {
	s := "Expand " + o.Func.Name + list(o.Args)
	if o.Outer {
		s = "Left " + s
	}
	for i, e := range o.On {
		s += []string{" AND ", " WHERE "}[b2i(i == 0)] + e.String()
	}
	return s
}
