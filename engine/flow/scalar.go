package flow

// Scalar makes exactly one row of its input, as a subquery that is used as a value does: its row, or NULLs if it has none, and then whether
// it has more than one. That is an error for who asks for the value, and for nobody else.
type Scalar struct {
	In    Operator
	Width int

	rows  bucket
	count int64 // copies of all rows
	state State
	said  Row // nil before the first step
	out   Delta
}

// ErrMany is the error of a subquery that is used as a value and has more than one row.
var ErrMany = &EvalError{Code: "21000", Message: "more than one row returned by a subquery used as an expression"}

// Step implements [Operator].
func (o *Scalar) Step(s *Step) Delta {
	in := o.In.Step(s)
	o.out.reset()
	o.out.Errors = append(o.out.Errors, in.Errors...)
	for _, u := range in.Rows {
		o.put(u)
	}
	row := make(Row, o.Width+1)
	if o.count == 1 && len(o.rows.rows) == 1 {
		copy(row, o.rows.rows[0].Row)
	}
	row[o.Width] = NewBool(o.count > 1)
	if o.said != nil && CompareRows(row, o.said) == 0 {
		return o.out
	}
	if o.said != nil {
		o.out.add(o.said, -1)
	}
	o.said = row
	o.out.add(row, 1)
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
