package flow

import (
	"fmt"
	"strings"
)

// Operator turns the changes of its inputs into the change of its output. Operators form a tree; each keeps what it needs to
// answer for the next change alone. An operator belongs to one goroutine at a time.
type Operator interface {
	// Step takes one step and returns the change. The first step is taken even if nothing has come in: what is there from the
	// beginning (a constant, the count of nothing) comes out of it.
	Step(*Step) Delta
	// Inputs are the operators below.
	Inputs() []Operator
	// State is what the operator holds, without its inputs. It costs nothing to ask.
	State() State
	// String describes the operator in a line of EXPLAIN.
	String() string
}

// Step is what one step of a dataflow works on.
type Step struct {
	Inputs  []Delta // by slot
	Context *Context
}

// Dataflow is a compiled query: a tree of operators and the slots that its inputs come in by.
type Dataflow struct {
	Root  Operator
	Slots []Slot
}

// Slot is an input of a dataflow: an object of the catalog, and what is to be done with each of its rows before it comes in.
// The work of a slot needs no state, so that it may run elsewhere: where a source is decoded, on many goroutines.
type Slot struct {
	Object string // the object's id
	Map    *Map
}

// Step takes a step with the changes of the inputs, one for each slot. The result may contain a row several times. It is worth nothing,
// and so is the dataflow from then on, if the context is [Context.Exhausted] behind it.
func (d *Dataflow) Step(c *Context, inputs []Delta) Delta {
	return d.Root.Step(&Step{Inputs: inputs, Context: c})
}

// State is what all operators hold.
func (d *Dataflow) State() State {
	var sum State
	d.Each(func(o Operator) { sum.Add(o.State()) })
	return sum
}

// Each calls f for every operator.
func (d *Dataflow) Each(f func(Operator)) { walk(d.Root, 0, func(o Operator, _ int) { f(o) }) }

// Explain writes the tree of operators, one a line, inputs indented below. With state each operator that holds something says how
// much.
func (d *Dataflow) Explain(state bool) []string {
	var lines []string
	walk(d.Root, 0, func(o Operator, depth int) {
		first := len(lines)
		for i, line := range strings.Split(o.String(), "\n") {
			lines = append(lines, strings.Repeat("  ", depth+i)+line)
		}
		if s := o.State(); state && s != (State{}) {
			lines[first] += fmt.Sprintf(" -- %d rows, %d bytes", s.Rows, s.Bytes)
		}
	})
	return lines
}

func walk(o Operator, depth int, f func(Operator, int)) {
	f(o, depth)
	for _, in := range o.Inputs() {
		walk(in, depth+1, f)
	}
}

// Map filters rows and computes new ones from them. It keeps nothing.
type Map struct {
	Filters []Expr // all must be true
	Exprs   []Expr // the columns of the output
}

// Apply adds what becomes of one row to out, unless the budget is exhausted.
func (m *Map) Apply(c *Context, row Row, diff int64, out *Delta) {
	if c.Exhausted() {
		return
	}
	for _, f := range m.Filters {
		d, err := f.Eval(c, row)
		if err != nil {
			out.fail(err.Error(), diff)
			return
		}
		if d.IsNull() || !d.Bool() {
			return
		}
	}
	var r Row
	if len(m.Exprs) > 0 {
		r = make(Row, len(m.Exprs))
		for i, e := range m.Exprs {
			d, err := e.Eval(c, row)
			if err != nil {
				out.fail(err.Error(), diff)
				return
			}
			c.spendText(d)
			r[i] = d
		}
	}
	out.add(r, diff)
}

// Identity tells whether the map hands on rows of a width as they are.
func (m *Map) Identity(width int) bool {
	if len(m.Filters) > 0 || len(m.Exprs) != width {
		return false
	}
	for i, e := range m.Exprs {
		if c, ok := e.(*Col); !ok || c.Index != i {
			return false
		}
	}
	return true
}

func (m *Map) String() string {
	s := "Map " + list(m.Exprs)
	for i, f := range m.Filters {
		s += []string{" AND ", " WHERE "}[b2i(i == 0)] + f.String()
	}
	return s
}

// Input is a slot's place in the tree.
type Input struct {
	Slot int
	Name string
	Map  *Map // what the slot does, for EXPLAIN
}

// Step implements [Operator].
func (o *Input) Step(s *Step) Delta { return s.Inputs[o.Slot] }

// State implements [Operator].
func (o *Input) State() State { return State{} }

// Inputs implements [Operator].
func (o *Input) Inputs() []Operator { return nil }

func (o *Input) String() string { return o.Map.String() + "\nInput " + o.Name }

// Project is a [Map] above an operator.
type Project struct {
	In  Operator
	Map *Map
	out Delta
}

// Step implements [Operator].
func (o *Project) Step(s *Step) Delta {
	in := o.In.Step(s)
	o.out.reset()
	o.out.Errors = append(o.out.Errors, in.Errors...)
	for _, u := range in.Rows {
		o.Map.Apply(s.Context, u.Row, u.Diff, &o.out)
	}
	return o.out
}

// State implements [Operator].
func (o *Project) State() State { return State{} }

// Inputs implements [Operator].
func (o *Project) Inputs() []Operator { return []Operator{o.In} }

func (o *Project) String() string { return o.Map.String() }

// Values is a constant: rows of expressions without columns.
type Values struct {
	Rows [][]Expr
	done bool
}

// Step implements [Operator].
func (o *Values) Step(s *Step) Delta {
	var out Delta
	if o.done {
		return out
	}
	o.done = true
	for _, exprs := range o.Rows {
		m := Map{Exprs: exprs}
		m.Apply(s.Context, nil, 1, &out)
	}
	return out
}

// State implements [Operator].
func (o *Values) State() State { return State{} }

// Inputs implements [Operator].
func (o *Values) Inputs() []Operator { return nil }

func (o *Values) String() string { return fmt.Sprintf("Constant (%d rows)", len(o.Rows)) }

// Union is the sum of its inputs, as UNION ALL has it.
type Union struct {
	In  []Operator
	out Delta
}

// Step implements [Operator].
func (o *Union) Step(s *Step) Delta {
	o.out.reset()
	for _, in := range o.In {
		o.out.Append(in.Step(s))
	}
	return o.out
}

// State implements [Operator].
func (o *Union) State() State { return State{} }

// Inputs implements [Operator].
func (o *Union) Inputs() []Operator { return o.In }

func (o *Union) String() string { return "Union All" }
