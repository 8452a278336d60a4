package flow_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mzdio/mzd/engine/flow"
)

// sizes are how many rows an operator holds in a benchmark. What a change costs must not follow them.
var sizes = []int{1_000, 10_000, 100_000, 1_000_000}

// changesPerStep is how many rows a step of a benchmark takes away, and how many it adds.
const changesPerStep = 100

func input(slot, width int) flow.Operator {
	return &flow.Input{Slot: slot, Map: &flow.Map{Exprs: make([]flow.Expr, width)}}
}

func integers(values ...int) flow.Row {
	r := make(flow.Row, len(values))
	for i, v := range values {
		r[i] = flow.NewInt(flow.Int8, int64(v))
	}
	return r
}

// changing measures steps that replace random rows of the first input, and reports the time for each changed row.
func changing(b *testing.B, df *flow.Dataflow, n int, row func(rnd *rand.Rand, i int) flow.Row, others ...flow.Delta) {
	rnd := rand.New(rand.NewPCG(1, 1))
	c := &flow.Context{}
	rows := make([]flow.Row, n)
	first := flow.Delta{Rows: make([]flow.Update, n)}
	for i := range rows {
		rows[i] = row(rnd, i)
		first.Rows[i] = flow.Update{Row: rows[i], Diff: 1}
	}
	df.Step(c, append([]flow.Delta{first}, others...))
	steps := make([]flow.Delta, 200)
	for i := range steps {
		for range changesPerStep {
			at := rnd.IntN(n)
			steps[i].Rows = append(steps[i].Rows, flow.Update{Row: rows[at], Diff: -1})
			rows[at] = row(rnd, at)
			steps[i].Rows = append(steps[i].Rows, flow.Update{Row: rows[at], Diff: 1})
		}
	}
	// The steps are undone in reverse, so that they can be taken any number of times.
	for i := len(steps) - 1; i >= 0; i-- {
		var back flow.Delta
		for j := len(steps[i].Rows) - 1; j >= 0; j-- {
			u := steps[i].Rows[j]
			back.Rows = append(back.Rows, flow.Update{Row: u.Row, Diff: -u.Diff})
		}
		steps = append(steps, back)
	}
	inputs := make([]flow.Delta, 1+len(others))
	changed := 0
	for i := 0; b.Loop(); i++ {
		inputs[0] = steps[i%len(steps)]
		df.Step(c, inputs)
		changed += len(inputs[0].Rows)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(changed), "ns/row")
}

// BenchmarkJoin changes rows of one side, each of which has one partner on the other.
func BenchmarkJoin(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var right flow.Delta
			for i := range n {
				right.Rows = append(right.Rows, flow.Update{Row: integers(i, i), Diff: 1})
			}
			df := &flow.Dataflow{Root: &flow.Join{Left: input(0, 2), Right: input(1, 2), Keys: 1, Widths: [2]int{1, 1}}}
			changing(b, df, n, func(rnd *rand.Rand, i int) flow.Row { return integers(rnd.IntN(n), i) }, right)
		})
	}
}

// BenchmarkTopK changes rows in order of a random number, with the first ten of them in the window, and with a large window far inside.
func BenchmarkTopK(b *testing.B) {
	for _, window := range []struct {
		name   string
		offset int
		limit  int
	}{{"first 10", 0, 10}, {"half behind a quarter", 4, 2}} {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", window.name, n), func(b *testing.B) {
				o := &flow.TopK{In: input(0, 2), Order: []flow.SortKey{{Column: 0}}, Limit: int64(window.limit)}
				if window.offset > 0 {
					o.Offset, o.Limit = int64(n/window.offset), int64(n/window.limit)
				}
				changing(b, &flow.Dataflow{Root: o}, n, func(rnd *rand.Rand, i int) flow.Row { return integers(rnd.IntN(1<<40), i) })
			})
		}
	}
}

// BenchmarkReduce changes rows of groups of ten, of which it keeps the count, the sum and the greatest.
func BenchmarkReduce(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o := &flow.Reduce{In: input(0, 2), Keys: 1, Aggregates: []flow.Aggregate{
				{Func: flow.Count, Filter: -1}, {Func: flow.Sum, Args: []int{1}, Filter: -1, In: flow.Int8}, {Func: flow.Max, Args: []int{1}, Filter: -1, In: flow.Int8},
			}}
			changing(b, &flow.Dataflow{Root: o}, n, func(rnd *rand.Rand, i int) flow.Row { return integers(rnd.IntN(n/10), rnd.IntN(1000)) })
		})
	}
}
