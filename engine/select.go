package engine

import (
	"context"
	"slices"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

// maxResultRows bounds what a SELECT may hold in memory for its client.
const maxResultRows = 10_000_000

// read computes a query once: at a time, or now. The view is the query's own and is used up.
func (e *Engine) read(ctx context.Context, v *view, p *plan.Plan, at uint64, atLeast bool) ([]flow.Row, error) {
	streamed := slices.ContainsFunc(v.inputs, func(in input) bool { return in.rows == nil })
	if !streamed { // constants and the catalog have no time
		f := &filling{e: e, v: v, c: flow.Context{Budget: e.opt.MaxBytes}}
		defer f.release()
		for slot, in := range v.inputs {
			if err := f.take(ctx, slot, in); err != nil {
				return nil, err
			}
		}
		if err := f.step(change{}, false); err != nil {
			return nil, err
		}
	} else {
		f, err := e.fill(ctx, v, at)
		if isHistoryGone(err) && atLeast {
			f, err = e.fill(ctx, v, now)
		}
		if err != nil {
			return nil, err
		}
		f.release()
	}
	if err := evaluationError(v.errors, v.name); err != nil {
		return nil, err
	}
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
	return rows, nil
}
