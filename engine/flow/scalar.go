package flow

// Scalar makes exactly one row of its input, as a subquery that is used as a value does: its row, or NULLs if it has none. If it has
// more than one, that is an error, for as long as it does.
type Scalar struct {
	In    Operator
	Width int

	rows  bucket
	count int64 // copies of all rows
	state State
	said  Row // nil before the first step, and while there is an error
	wrong bool
	out   Delta
}

var errScalar = &EvalError{Code: "21000", Message: "more than one row returned by a subquery used as an expression"}

// Step implements [Operator].
func (o *Scalar) Step(s *Step) Delta {
	in := o.In.Step(s)
	o.out.reset()
	o.out.Errors = append(o.out.Errors, in.Errors...)
	for _, u := range in.Rows {
		o.put(u)
	}
	var row Row
	switch {
	case o.count == 1 && len(o.rows.rows) == 1:
		row = o.rows.rows[0].Row
	case o.count == 0:
		row = make(Row, o.Width)
	}
	if row != nil && o.said != nil && CompareRows(row, o.said) == 0 {
		return o.out
	}
	if o.said != nil {
		o.out.add(o.said, -1)
	}
	if o.said = row; row != nil {
		o.out.add(row, 1)
	}
	if wrong := row == nil; wrong != o.wrong {
		o.wrong = wrong
		o.out.fail(errScalar.Message, int64(2*b2i(wrong)-1))
	}
	return o.out
}

func (o *Scalar) put(u Update) {
	o.count += u.Diff
	i := o.rows.find(u.Row)
	if i < 0 {
		o.state.Add(State{1, o.rows.add(joinRow{Update: u})})
		return
	}
	if o.rows.rows[i].Diff += u.Diff; o.rows.rows[i].Diff == 0 {
		o.state.Add(State{-1, -o.rows.remove(i)})
	}
}

// State implements [Operator].
func (o *Scalar) State() State { return o.state }

// Inputs implements [Operator].
func (o *Scalar) Inputs() []Operator { return []Operator{o.In} }

func (o *Scalar) String() string { return "Single Row" }
