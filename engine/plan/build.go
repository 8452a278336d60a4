package plan

import (
	"slices"

	"github.com/mzdio/mzd/engine/flow"
)

// build makes the operators that compute exprs over the rows of a relation.
func build(r rel, exprs []flow.Expr) *flow.Dataflow {
	b := &builder{}
	root := b.build(r, nil, exprs)
	return &flow.Dataflow{Root: root, Slots: b.slots}
}

type builder struct{ slots []flow.Slot }

// build makes an operator whose output is exprs, computed over the rows of r that pass the filters. Passing down what is wanted is
// the whole optimisation: each relation computes only that, and asks its own inputs only for what it needs for it.
func (b *builder) build(r rel, filters, exprs []flow.Expr) flow.Operator {
	switch r := r.(type) {
	case *get:
		m := &flow.Map{Filters: filters, Exprs: exprs}
		b.slots = append(b.slots, flow.Slot{Object: r.object.ID, Map: m})
		return &flow.Input{Slot: len(b.slots) - 1, Name: r.object.Name, Map: m}
	case *mapped:
		if !small(r.exprs, filters, exprs) {
			return project(b.build(r.in, r.filters, r.exprs), filters, exprs)
		}
		into := func(c *flow.Col) flow.Expr { return r.exprs[c.Index] }
		return b.build(r.in, append(slices.Clip(r.filters), substitute(filters, into)...), substitute(exprs, into))
	case *constant:
		return project(&flow.Values{Rows: r.rows}, filters, exprs)
	case *union:
		o := &flow.Union{}
		for _, in := range r.in {
			o.In = append(o.In, b.build(in, filters, exprs))
		}
		return o
	case *setOp:
		o := &flow.Set{Kind: r.kind}
		for _, in := range r.in {
			o.In = append(o.In, b.build(in, nil, identity(in)))
		}
		return project(o, filters, exprs)
	case *topK:
		// All columns stay, because ties are broken by the whole row.
		o := &flow.TopK{In: b.build(r.in, nil, identity(r.in)), Group: r.group, Order: r.order, Limit: r.limit, Offset: r.offset}
		return project(o, filters, exprs)
	case *reduced:
		return b.reduce(r, filters, exprs)
	case *single:
		o := &flow.Scalar{In: b.build(r.in, nil, identity(r.in)), Width: len(r.in.columns())}
		return project(o, filters, exprs)
	case *expanded:
		return b.expand(r, filters, exprs)
	}
	return b.join(r.(*joined), filters, exprs)
}

// small tells whether substituting expressions into others keeps them small.
func small(into []flow.Expr, lists ...[]flow.Expr) bool {
	sizes := make([]int, len(into))
	for i, e := range into {
		sizes[i] = flow.Size(e)
	}
	n := 0
	for _, list := range lists {
		for _, e := range list {
			flow.Walk(e, func(e flow.Expr) {
				n++
				if c, ok := e.(*flow.Col); ok {
					n += sizes[c.Index]
				}
			})
		}
	}
	return n <= maxExprSize
}

func substitute(list []flow.Expr, f func(*flow.Col) flow.Expr) []flow.Expr {
	out := make([]flow.Expr, len(list))
	for i, e := range list {
		out[i] = flow.Substitute(e, f)
	}
	return out
}

// project puts a Map above an operator unless it would do nothing.
func project(o flow.Operator, filters, exprs []flow.Expr) flow.Operator {
	m := &flow.Map{Filters: filters, Exprs: exprs}
	if m.Identity(width(o)) {
		return o
	}
	return &flow.Project{In: o, Map: m}
}

// width is the number of columns of an operator's output.
func width(o flow.Operator) int {
	switch o := o.(type) {
	case *flow.Input:
		return len(o.Map.Exprs)
	case *flow.Project:
		return len(o.Map.Exprs)
	case *flow.Values:
		return len(o.Rows[0])
	case *flow.Reduce:
		return o.Keys + len(o.Aggregates)
	case *flow.Join:
		return o.Widths[0] + o.Widths[1]
	case *flow.Scalar:
		return o.Width + 1
	case *flow.Expand:
		return o.Width + 1
	}
	return width(o.Inputs()[0])
}

// needed lists the columns that expressions read, in order.
func needed(lists ...[]flow.Expr) []int {
	var out []int
	for _, list := range lists {
		for _, e := range list {
			flow.Walk(e, func(e flow.Expr) {
				if c, ok := e.(*flow.Col); ok && !slices.Contains(out, c.Index) {
					out = append(out, c.Index)
				}
			})
		}
	}
	slices.Sort(out)
	return out
}

// renumber makes column references point to where the columns have gone.
func renumber(list []flow.Expr, where map[int]int) []flow.Expr {
	return substitute(list, func(c *flow.Col) flow.Expr { return &flow.Col{Index: where[c.Index], T: c.T, Name: c.Name} })
}

// reduce builds a grouping with only the aggregates that are wanted.
func (b *builder) reduce(r *reduced, filters, exprs []flow.Expr) flow.Operator {
	input := slices.Clone(r.keys)
	o := &flow.Reduce{Keys: len(r.keys)}
	where := map[int]int{}
	for i := range r.keys {
		where[i] = i
	}
	add := func(e flow.Expr) int {
		if e == nil {
			return -1
		}
		for i, x := range input[len(r.keys):] {
			if flow.Same(x, e) {
				return len(r.keys) + i
			}
		}
		input = append(input, e)
		return len(input) - 1
	}
	for _, c := range needed(filters, exprs) {
		if c < len(r.keys) {
			continue
		}
		a := r.aggs[c-len(r.keys)]
		agg := flow.Aggregate{Func: a.fn, Filter: add(a.filter), Distinct: a.distinct, Order: a.order}
		for _, e := range a.args {
			agg.Args = append(agg.Args, add(a.guarded(e)))
		}
		if len(a.args) > 0 {
			agg.In = a.args[0].Type()
		}
		where[c] = len(r.keys) + len(o.Aggregates)
		o.Aggregates = append(o.Aggregates, agg)
	}
	o.In = b.build(r.in, nil, input)
	return project(o, renumber(filters, where), renumber(exprs, where))
}

// guarded is an argument of an aggregate, which is not computed for the rows that its FILTER leaves out: sum(a / b) FILTER (WHERE b <> 0).
func (a aggregate) guarded(e flow.Expr) flow.Expr {
	if a.filter == nil || len(e.Args()) == 0 {
		return e
	}
	return &flow.Case{X: []flow.Expr{a.filter, e, &flow.Const{T: e.Type()}}, T: e.Type()}
}

// expand builds a table function over what is needed of its input.
func (b *builder) expand(r *expanded, filters, exprs []flow.Expr) flow.Operator {
	in := r.in.columns()
	var below, above []flow.Expr
	for _, f := range filters {
		if cols := needed([]flow.Expr{f}); len(cols) > 0 && cols[len(cols)-1] < len(in) {
			below = append(below, f)
		} else {
			above = append(above, f)
		}
	}
	where := map[int]int{}
	var input []flow.Expr
	for _, c := range needed(r.args, r.on, above, exprs) {
		if c < len(in) {
			where[c] = len(input)
			input = append(input, &flow.Col{Index: c, T: in[c].Type, Name: in[c].Name})
		}
	}
	where[len(in)] = len(input)
	o := &flow.Expand{
		In: b.build(r.in, below, input), Func: r.fn, Args: renumber(r.args, where), On: renumber(r.on, where), Outer: r.outer,
		Width: len(input),
	}
	return project(o, renumber(above, where), renumber(exprs, where))
}

// join builds a join of what is needed of either side. An equality between the sides becomes a key; a condition that reads one side only
// moves to that side, unless the outer join needs the rows that do not meet it.
func (b *builder) join(r *joined, filters, exprs []flow.Expr) flow.Operator {
	split := len(r.left.columns())
	var keys, side [2][]flow.Expr
	var on, above []flow.Expr
	inner := r.outer == [2]bool{}
	sides := func(f flow.Expr) (left, right bool) {
		if raises(f) { // which it may for a pair alone, not for a row of a side that has none
			return false, false
		}
		cols := needed([]flow.Expr{f})
		return len(cols) > 0 && cols[len(cols)-1] < split, len(cols) > 0 && cols[0] >= split
	}
	key := func(f flow.Expr) bool {
		c, ok := f.(*flow.Call)
		if !ok || c.F.Name != "=" {
			return false
		}
		l, x := c.X[0], c.X[1]
		if _, right := sides(l); right {
			l, x = x, l
		}
		left, _ := sides(l)
		_, right := sides(x)
		if left && right {
			keys[0], keys[1] = append(keys[0], l), append(keys[1], x)
		}
		return left && right
	}
	for _, f := range r.on {
		switch left, right := sides(f); {
		case left && !r.outer[0]:
			side[0] = append(side[0], f)
		case right && !r.outer[1]:
			side[1] = append(side[1], f)
		case !key(f):
			on = append(on, f)
		}
	}
	for _, f := range filters {
		switch left, right := sides(f); {
		case left && !r.outer[1]:
			side[0] = append(side[0], f)
		case right && !r.outer[0]:
			side[1] = append(side[1], f)
		case !inner:
			above = append(above, f)
		case !key(f):
			on = append(on, f)
		}
	}
	shift := func(list []flow.Expr) []flow.Expr {
		return substitute(list, func(c *flow.Col) flow.Expr { return &flow.Col{Index: c.Index - split, T: c.T, Name: c.Name} })
	}
	cols := r.columns()
	inputs := [2][]flow.Expr{slices.Clone(keys[0]), slices.Clone(keys[1])}
	where := map[int]int{}
	for i, c := range needed(on, above, exprs) {
		where[c] = i
		s := b2i(c >= split)
		inputs[s] = append(inputs[s], &flow.Col{Index: c, T: cols[c].Type, Name: cols[c].Name})
	}
	n := len(keys[0])
	o := &flow.Join{
		Left: b.build(r.left, side[0], inputs[0]), Right: b.build(r.right, shift(side[1]), shift(inputs[1])),
		Keys: n, Widths: [2]int{len(inputs[0]) - n, len(inputs[1]) - n}, On: renumber(on, where), Outer: r.outer,
	}
	return project(o, renumber(above, where), renumber(exprs, where))
}

// raises tells whether an expression has an error in it that somebody may come to.
func raises(e flow.Expr) (found bool) {
	flow.Walk(e, func(e flow.Expr) {
		if _, ok := e.(*flow.Raise); ok {
			found = true
		}
	})
	return found
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
