package engine

import (
	"context"
	"slices"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

// maxResultRows bounds what a SELECT may hold in memory for its client.
const maxResultRows = 10_000_000

// reading is the computation of a query once. Its result counts as memory until release is called.
type reading struct {
	*filling
	plan *plan.Plan
}

// newReading begins to read a query that has been planned in a catalog.
func (e *Engine) newReading(cat catalog, p *plan.Plan) *reading {
	df := p.Once()
	f := e.newFilling(newView("", cat.names(p.Uses), p.Columns, df, cat.bind(df)))
	f.once = true
	return &reading{f, p}
}

// observeNow makes the relations of the engine itself what they are now.
func (r *reading) observeNow() {
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	for i := range r.v.inputs {
		in := &r.v.inputs[i]
		if v := in.view; v != nil && v.observe != nil {
			in.view, in.rows = nil, append([]flow.Row{}, v.observe()...)
		}
	}
}

// streamed tells whether the query reads what changes. Constants and the catalog have no time.
func (r *reading) streamed() bool {
	return slices.ContainsFunc(r.v.inputs, func(in input) bool { return in.rows == nil })
}

// rows computes the result: at a time, or now. It may be called once.
func (r *reading) rows(ctx context.Context, at uint64, atLeast bool) ([]flow.Row, error) {
	defer r.endWith(ctx)()
	err := r.compute(ctx, at, atLeast)
	r.letGo()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if err := evaluationError(r.v.errors, r.v.name); err != nil {
		return nil, err
	}
	return r.sorted()
}

// sorted is what the view holds as a list, in order and cut. The view is used up.
func (r *reading) sorted() ([]flow.Row, error) {
	v, p := r.v, r.plan
	var rows []flow.Row
	for _, shard := range v.contents.shards {
		for _, u := range shard {
			if u.Diff < 0 || int64(len(rows))+u.Diff > maxResultRows {
				return nil, errorf("54000", "result of more than %d rows", maxResultRows)
			}
			for range u.Diff {
				rows = append(rows, u.Row)
			}
		}
	}
	slices.SortFunc(rows, func(a, b flow.Row) int { return flow.CompareSorted(p.Order, a, b) })
	rows = rows[min(p.Offset, int64(len(rows))):]
	rows = rows[:min(p.Limit, int64(len(rows)))]
	for i := range rows {
		rows[i] = rows[i][:len(p.Columns)]
	}
	v.forget()
	return rows, nil
}

func (r *reading) compute(ctx context.Context, at uint64, atLeast bool) error {
	if r.streamed() {
		return r.fill(ctx, at, atLeast)
	}
	for slot, in := range r.v.inputs {
		if err := r.take(ctx, slot, in); err != nil {
			return err
		}
	}
	return r.step(change{}, false)
}
