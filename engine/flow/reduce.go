package flow

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// Reduce groups rows by their first Keys columns and computes aggregates of each group. Its output has the keys and then the
// aggregates. Without keys there is always exactly one group, as SQL has it.
type Reduce struct {
	In         Operator
	Keys       int
	Aggregates []Aggregate

	groups  map[string]*group
	touched []*group
	state   State
	buf     []byte
	out     Delta
}

type group struct {
	row     Row           // the keys; and what was said about the group last, if anything was
	rows    int64         // of the input
	accs    []accumulator // nil for count(*), which is rows
	failure *string       // why nothing can be said
	bytes   int64         // of what accs hold
	said    bool
	touched bool
}

// Step implements [Operator].
func (o *Reduce) Step(s *Step) Delta {
	in := o.In.Step(s)
	o.out.reset()
	o.out.Errors = append(o.out.Errors, in.Errors...)
	if o.groups == nil {
		o.groups = make(map[string]*group)
		if o.Keys == 0 {
			o.touch(nil)
		}
	}
	for _, u := range in.Rows {
		g := o.touch(u.Row[:o.Keys])
		g.rows = s.Context.plus(g.rows, u.Diff)
		for i, acc := range g.accs {
			if acc != nil {
				o.Aggregates[i].feed(acc, u)
			}
		}
	}
	for _, g := range o.touched {
		g.touched = false
		o.answer(g)
		if g.rows == 0 && o.Keys > 0 {
			o.forget(g)
		}
	}
	clear(o.touched)
	o.touched = o.touched[:0]
	return o.out
}

func (a *Aggregate) feed(acc accumulator, u Update) {
	if a.Filter >= 0 {
		if f := u.Row[a.Filter]; f.IsNull() || !f.Bool() {
			return
		}
	}
	var args Row
	switch len(a.Args) {
	case 0:
	case 1:
		args = u.Row[a.Args[0] : a.Args[0]+1]
	default:
		for _, c := range a.Args {
			args = append(args, u.Row[c])
		}
	}
	if len(args) > 0 && args[0].IsNull() && !a.Func.takesNulls() {
		return
	}
	acc.add(args, u.Diff)
}

// touch returns the group of a key and notes that it has to be answered for.
func (o *Reduce) touch(keys Row) *group {
	o.buf = keys.AppendKey(o.buf[:0])
	g := o.groups[string(o.buf)]
	if g == nil {
		g = &group{row: slices.Clone(keys)}
		if slices.ContainsFunc(o.Aggregates, func(a Aggregate) bool { return !a.countsRows() }) {
			g.accs = make([]accumulator, len(o.Aggregates))
			for i, a := range o.Aggregates {
				if !a.countsRows() {
					g.accs[i] = newAccumulator(&o.Aggregates[i])
				}
			}
		}
		o.groups[string(o.buf)] = g
		o.state.Add(State{1, o.groupBytes(g, len(o.buf))})
	}
	if !g.touched {
		g.touched = true
		o.touched = append(o.touched, g)
	}
	return g
}

// forget drops a group that has no rows any more.
func (o *Reduce) forget(g *group) {
	o.buf = g.row[:o.Keys].AppendKey(o.buf[:0])
	delete(o.groups, string(o.buf))
	o.state.Add(State{-1, -o.groupBytes(g, len(o.buf)) - g.bytes})
}

// groupBytes is what a group takes up beside its accumulators.
func (o *Reduce) groupBytes(g *group, key int) int64 {
	row := int(unsafe.Sizeof(Datum{})) * len(o.Aggregates)
	return int64(unsafe.Sizeof(*g)) + mapSlot + int64(key+g.row[:o.Keys].Size()+row)
}

// answer says what changed about a group.
func (o *Reduce) answer(g *group) {
	o.measure(g)
	var row Row
	var failure *string
	if g.rows != 0 || o.Keys == 0 {
		var err error
		if row, err = o.result(g); err != nil {
			message := err.Error()
			failure = &message
		}
	}
	if row != nil && g.said && CompareRows(row, g.row) == 0 {
		return
	}
	if g.said {
		o.out.add(g.row, -1)
	}
	if g.failure != nil {
		o.out.fail(*g.failure, -1)
	}
	if g.said, g.failure = row != nil, failure; row != nil {
		g.row = row
		o.out.add(row, 1)
	}
	if failure != nil {
		o.out.fail(*failure, 1)
	}
}

// result is the row of a group.
func (o *Reduce) result(g *group) (Row, error) {
	row := make(Row, o.Keys+len(o.Aggregates))
	copy(row, g.row[:o.Keys])
	for i := range o.Aggregates {
		if g.accs == nil || g.accs[i] == nil {
			row[o.Keys+i] = NewInt(Int8, g.rows)
			continue
		}
		var err error
		if row[o.Keys+i], err = g.accs[i].result(); err != nil {
			return nil, err
		}
	}
	return row, nil
}

// measure notes what the accumulators of a group hold.
func (o *Reduce) measure(g *group) {
	if g.accs == nil {
		return
	}
	n := int(unsafe.Sizeof(accumulator(nil))) * len(g.accs)
	for _, acc := range g.accs {
		if acc != nil {
			n += acc.size()
		}
	}
	o.state.Bytes += int64(n) - g.bytes
	g.bytes = int64(n)
}

// countsRows tells whether the aggregate is the number of rows of its group, which needs no accumulator.
func (a *Aggregate) countsRows() bool { return a.Func == Count && len(a.Args) == 0 && a.Filter < 0 }

// State implements [Operator].
func (o *Reduce) State() State { return o.state }

// Inputs implements [Operator].
func (o *Reduce) Inputs() []Operator { return []Operator{o.In} }

func (o *Reduce) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Reduce by %d columns", o.Keys)
	for i, a := range o.Aggregates {
		b.WriteString([]string{", ", ": "}[b2i(i == 0)])
		b.WriteString(string(a.Func))
		b.WriteString("(" + a.arguments() + ")")
		if a.Filter >= 0 {
			fmt.Fprintf(&b, " FILTER (#%d)", a.Filter)
		}
	}
	return b.String()
}

// arguments is what stands between the parentheses of an aggregate.
func (a *Aggregate) arguments() string {
	if len(a.Args) == 0 {
		return "*"
	}
	parts := make([]string, a.Func.Arity())
	for i := range parts {
		parts[i] = fmt.Sprintf("#%d", a.Args[i])
	}
	s := strings.Join(parts, ", ")
	if a.Distinct {
		s = "DISTINCT " + s
	}
	for i, k := range a.Order {
		s += fmt.Sprintf("%s#%d", []string{", ", " order "}[b2i(i == 0)], a.Args[k.Column])
		if k.Desc {
			s += " desc"
		}
	}
	return s
}
