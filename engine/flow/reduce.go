package flow

import (
	"fmt"
	"strings"
)

// Reduce groups rows by their first Keys columns and computes aggregates of each group. Its output has the keys and then the
// aggregates. Without keys there is always exactly one group, as SQL has it.
type Reduce struct {
	In         Operator
	Keys       int
	Aggregates []Aggregate

	groups  map[string]*group
	touched []*group
	buf     []byte
	out     Delta
}

type group struct {
	key     string
	keys    Row
	rows    int64
	accs    []accumulator // nil for count(*), which is rows
	out     Row           // what was said about the group last; nil: nothing
	err     string        // or that computing it failed so
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
		g.rows += u.Diff
		for i, acc := range g.accs {
			if acc != nil {
				o.Aggregates[i].feed(acc, u)
			}
		}
	}
	for _, g := range o.touched {
		g.touched = false
		o.answer(g)
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
	var d Datum
	if a.Arg >= 0 {
		if d = u.Row[a.Arg]; d.IsNull() {
			return
		}
	}
	acc.add(d, u.Diff)
}

// touch returns the group of a key and notes that it has to be answered for.
func (o *Reduce) touch(keys Row) *group {
	o.buf = keys.AppendKey(o.buf[:0])
	g := o.groups[string(o.buf)]
	if g == nil {
		g = &group{key: string(o.buf), keys: append(Row(nil), keys...)}
		for _, a := range o.Aggregates {
			if a.Func == Count && a.Arg < 0 && a.Filter < 0 {
				g.accs = append(g.accs, nil)
			} else {
				g.accs = append(g.accs, newAccumulator(a))
			}
		}
		o.groups[g.key] = g
	}
	if !g.touched {
		g.touched = true
		o.touched = append(o.touched, g)
	}
	return g
}

// answer says what changed about a group.
func (o *Reduce) answer(g *group) {
	var row Row
	var failure string
	if g.rows != 0 || o.Keys == 0 {
		row = make(Row, o.Keys+len(o.Aggregates))
		copy(row, g.keys)
		for i, acc := range g.accs {
			var err error
			if acc == nil {
				row[o.Keys+i] = NewInt(Int8, g.rows)
			} else if row[o.Keys+i], err = acc.result(); err != nil {
				row, failure = nil, err.Error()
				break
			}
		}
	} else {
		delete(o.groups, g.key)
	}
	if row != nil && g.out != nil && CompareRows(row, g.out) == 0 {
		return
	}
	if g.out != nil {
		o.out.add(g.out, -1)
	}
	if row != nil {
		o.out.add(row, 1)
	}
	if failure != g.err {
		if g.err != "" {
			o.out.fail(g.err, -1)
		}
		if failure != "" {
			o.out.fail(failure, 1)
		}
	}
	g.out, g.err = row, failure
}

// Inputs implements [Operator].
func (o *Reduce) Inputs() []Operator { return []Operator{o.In} }

func (o *Reduce) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Reduce by %d columns", o.Keys)
	for i, a := range o.Aggregates {
		b.WriteString([]string{", ", ": "}[b2i(i == 0)])
		b.WriteString(string(a.Func))
		switch {
		case a.Arg < 0:
			b.WriteString("(*)")
		case a.Distinct:
			fmt.Fprintf(&b, "(DISTINCT #%d)", a.Arg)
		default:
			fmt.Fprintf(&b, "(#%d)", a.Arg)
		}
		if a.Filter >= 0 {
			fmt.Fprintf(&b, " FILTER (#%d)", a.Filter)
		}
	}
	return b.String()
}
