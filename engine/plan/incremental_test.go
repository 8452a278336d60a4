package plan_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

// blocks reads the cases of testdata/queries.txt: a query, a line of dashes, and how it is carried out.
func blocks(t *testing.T) (queries, explained []string) {
	t.Helper()
	golden, err := os.ReadFile(filepath.Join("testdata", "queries.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for c := range strings.SplitSeq(strings.TrimSpace(string(golden)), "\n\n") {
		q, e, _ := strings.Cut(c, "\n----")
		queries = append(queries, q)
		explained = append(explained, strings.TrimPrefix(e, "\n"))
	}
	return queries, explained
}

func mustPlan(t *testing.T, text string) *plan.Plan {
	t.Helper()
	p, err := plan.Query(env(), parse(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

// TestExplain holds the operators of each query against testdata.
func TestExplain(t *testing.T) {
	queries, explained := blocks(t)
	var out strings.Builder
	for i, q := range queries {
		got := strings.Join(mustPlan(t, q).Maintained().Explain(false), "\n")
		if got != explained[i] && !*update {
			t.Errorf("%s\ngot\n%s\nwant\n%s", q, got, explained[i])
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n\n", q, got)
	}
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", "queries.txt"), []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// bag is a multiset of rows.
type bag map[string]int64

func (b bag) add(t *testing.T, what string, d flow.Delta) {
	t.Helper()
	if len(d.Errors) > 0 {
		t.Fatalf("%s: evaluation error %v", what, d.Errors)
	}
	for _, u := range d.Rows {
		key := rowText(u.Row)
		if b[key] += u.Diff; b[key] == 0 {
			delete(b, key)
		}
	}
}

func rowText(r flow.Row) string {
	parts := make([]string, len(r))
	for i, d := range r {
		parts[i] = d.String()
	}
	return strings.Join(parts, "|")
}

func (b bag) String() string {
	var lines []string
	for k, n := range b {
		lines = append(lines, fmt.Sprintf("%s x%d", k, n))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// contents are the rows of the test tables, changed at random.
type contents struct {
	rnd  *rand.Rand
	rows map[string][]flow.Row
}

// change makes a few random insertions and deletions, the same row often, and returns them by table.
func (c *contents) change() map[string][]flow.Update {
	out := map[string][]flow.Update{}
	for _, name := range []string{"t", "u", "j", "w"} {
		for range c.rnd.IntN(6) {
			rows := c.rows[name]
			if len(rows) > 0 && c.rnd.IntN(5) < 2 {
				i := c.rnd.IntN(len(rows))
				out[name] = append(out[name], flow.Update{Row: rows[i], Diff: -1})
				c.rows[name] = slices.Delete(rows, i, i+1)
				continue
			}
			r := c.row(name)
			out[name] = append(out[name], flow.Update{Row: r, Diff: 1})
			c.rows[name] = append(rows, r)
		}
		c.rnd.Shuffle(len(out[name]), func(i, j int) { out[name][i], out[name][j] = out[name][j], out[name][i] })
	}
	return out
}

func (c *contents) row(name string) flow.Row {
	maybe := func(d flow.Datum) flow.Datum {
		if c.rnd.IntN(6) == 0 {
			return flow.Null
		}
		return d
	}
	small := func(t flow.Type) flow.Datum { return maybe(flow.NewInt(t, int64(c.rnd.IntN(6)))) }
	text := func() flow.Datum {
		return maybe(flow.NewText([]string{"a", "b", "ab", "é", "", "日本"}[c.rnd.IntN(6)]))
	}
	switch name {
	case "t":
		d := []float64{0.25, 0.5, 1e12, -1e12, 3, -2.5}[c.rnd.IntN(6)]
		n, _ := flow.CastTo(&flow.Const{D: flow.NewText([]string{"1.5", "0.1", "-3", "123456789012.25"}[c.rnd.IntN(4)]), T: flow.Text}, flow.Numeric)
		return flow.Row{small(flow.Int4), small(flow.Int8), text(), maybe(flow.NewFloat(flow.Float8, d)),
			maybe(flow.NewBool(c.rnd.IntN(2) == 0)), maybe(n.(*flow.Const).D)}
	case "u":
		return flow.Row{small(flow.Int4), small(flow.Int4), text()}
	case "j":
		doc := fmt.Sprintf(`{"k": "%s", "v": %d, "o": {"p": "%d"}, "l": %s}`, []string{"x", "y"}[c.rnd.IntN(2)], c.rnd.IntN(5), c.rnd.IntN(2),
			[]string{"[]", "[1, 2]", `["x", null, {"y": 1}]`, "[[2], [2], 3]"}[c.rnd.IntN(4)])
		if c.rnd.IntN(5) == 0 {
			doc = `{"k": null}`
		}
		x, _ := flow.CastTo(&flow.Const{D: flow.NewText(doc), T: flow.Text}, flow.Jsonb)
		d, err := x.Eval(&flow.Context{}, nil)
		if err != nil {
			panic(err)
		}
		return flow.Row{d}
	}
	doc := fmt.Sprintf(`{"user":"u%d","id":%d,"bot":%t}`, c.rnd.IntN(5), c.rnd.IntN(100), c.rnd.IntN(2) == 0)
	return flow.Row{flow.NewText(doc), flow.NewInt(flow.Int8, c.rnd.Int64N(1000))}
}

// step feeds changes of the tables to a dataflow.
func step(df *flow.Dataflow, changes map[string][]flow.Update) flow.Delta {
	ctx := &flow.Context{}
	inputs := make([]flow.Delta, len(df.Slots))
	for i, s := range df.Slots {
		for _, u := range changes[s.Object] {
			s.Map.Apply(ctx, u.Row, u.Diff, &inputs[i])
		}
	}
	return df.Step(ctx, inputs)
}

// all are the contents as insertions.
func (c *contents) all() map[string][]flow.Update {
	out := map[string][]flow.Update{}
	for name, rows := range c.rows {
		for _, r := range rows {
			out[name] = append(out[name], flow.Update{Row: r, Diff: 1})
		}
	}
	return out
}

// seeds are how many random histories a test runs; MZD_SEEDS asks for more.
func seeds() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("MZD_SEEDS"), 10, 64); err == nil {
		return n
	}
	return 20
}

// TestIncremental holds every query, after every tick of random insertions and deletions, against the same query over what is there.
func TestIncremental(t *testing.T) {
	queries, _ := blocks(t)
	plans := make([]*plan.Plan, len(queries))
	for i, q := range queries {
		plans[i] = mustPlan(t, q)
	}
	for seed := range seeds() {
		c := &contents{rnd: rand.New(rand.NewPCG(seed, 2)), rows: map[string][]flow.Row{}}
		flows := make([]*flow.Dataflow, len(queries))
		bags := make([]bag, len(queries))
		for i := range queries {
			flows[i], bags[i] = plans[i].Maintained(), bag{}
		}
		for tick := range 40 {
			changes := c.change()
			if tick == 30 { // the tables are emptied
				for name, rows := range c.rows {
					for _, r := range rows {
						changes[name] = append(changes[name], flow.Update{Row: r, Diff: -1})
					}
				}
				clear(c.rows)
			}
			for i, q := range queries {
				what := fmt.Sprintf("seed %d, tick %d, %s", seed, tick, q)
				bags[i].add(t, what, step(flows[i], changes))
				want := bag{}
				want.add(t, what, step(plans[i].Maintained(), c.all()))
				if got, want := bags[i].String(), want.String(); got != want {
					t.Fatalf("%s\ngot\n%s\nwant\n%s", what, got, want)
				}
				if s := flows[i].State(); s.Rows < 0 || s.Bytes < 0 {
					t.Fatalf("%s: holds %+v", what, s)
				}
			}
			if tick == 30 {
				empties(t, flows, queries)
			}
		}
	}
}

// empties holds what operators say they hold, when nothing is left, against what they say in the beginning.
func empties(t *testing.T, flows []*flow.Dataflow, queries []string) {
	t.Helper()
	for i, q := range queries {
		fresh := mustPlan(t, q).Maintained()
		step(fresh, nil)
		if got, want := strings.Join(flows[i].Explain(true), "\n"), strings.Join(fresh.Explain(true), "\n"); got != want {
			t.Errorf("%s\nempty again\n%s\nempty\n%s", q, got, want)
		}
	}
}
