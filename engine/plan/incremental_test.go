package plan_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

var seeds = flag.Int("seeds", 3, "random histories to hold the golden queries against")

const queriesFile = "testdata/queries.txt"

// goldenQueries are the queries of testdata/queries.txt.
func goldenQueries(tb testing.TB) []string {
	tb.Helper()
	var out []string
	for _, g := range paragraphs(tb, queriesFile) {
		out = append(out, g.input)
	}
	return out
}

// paragraphs reads a golden of inputs, lines of dashes and outputs. A paragraph that begins with "# " is the heading of what follows.
func paragraphs(tb testing.TB, file string) []golden {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	var out []golden
	heading := ""
	for p := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		p = strings.TrimLeft(p, "\n")
		if h, ok := strings.CutPrefix(p, "# "); ok {
			heading = h
			continue
		}
		input, output, _ := strings.Cut(p, "\n----")
		out = append(out, golden{heading: heading, input: input, output: strings.TrimPrefix(output, "\n")})
	}
	return out
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
	var out strings.Builder
	heading := ""
	for _, g := range paragraphs(t, queriesFile) {
		got := strings.Join(mustPlan(t, g.input).Maintained().Explain(false), "\n")
		if got != g.output && !*update {
			t.Errorf("%s\ngot\n%s\nwant\n%s", g.input, got, g.output)
		}
		if g.heading != heading {
			heading = g.heading
			fmt.Fprintf(&out, "# %s\n\n", heading)
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n\n", g.input, got)
	}
	if *update {
		if err := os.WriteFile(queriesFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// bag is a multiset of rows.
type bag map[string]int64

func (b bag) add(d flow.Delta) {
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
	return strings.Join(parts, " | ")
}

func (b bag) String() string {
	var lines []string
	for k, n := range b {
		lines = append(lines, fmt.Sprintf("%s x%d", k, n))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// goldenTables are the tables of the goldens, as the generator has them. Documents have fields for the goldens to read.
func goldenTables() []*testTable {
	var out []*testTable
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		t := &testTable{name: name}
		for _, c := range tables[name].Columns {
			k, ok := map[string]kind{"data": "document", "text": "event"}[c.Name]
			if !ok {
				k = map[flow.Type]kind{flow.Int4: "int4s", flow.Int8: "int8s", flow.Float8: "float8s", flow.Numeric: "numerics"}[c.Type]
			}
			if k == "" {
				k = kind(c.Type.Name())
			}
			t.columns = append(t.columns, testColumn{c.Name, k})
		}
		out = append(out, t)
	}
	return out
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

// TestIncremental holds every golden query, after every tick of random insertions and deletions, against the same query over what is there.
func TestIncremental(t *testing.T) {
	queries := goldenQueries(t)
	plans := make([]*plan.Plan, len(queries))
	for i, q := range queries {
		plans[i] = mustPlan(t, q)
	}
	for seed := range uint64(*seeds) {
		history := history(rand.New(rand.NewPCG(seed, 2)), goldenTables(), 2**ticks)
		flows := make([]*flow.Dataflow, len(queries))
		bags := make([]bag, len(queries))
		for i, p := range plans {
			flows[i], bags[i] = p.Maintained(), bag{}
		}
		rows := rowParser{}
		for tick, changes := range history {
			all, err := rows.updates(remaining(history[:tick+1]))
			if err != nil {
				t.Fatal(err)
			}
			updates, _ := rows.updates(changes)
			for i, q := range queries {
				bags[i].add(step(flows[i], updates))
				want := bag{}
				want.add(step(plans[i].Maintained(), all))
				if got, want := bags[i].String(), want.String(); got != want {
					t.Fatalf("seed %d, tick %d, %s\ngot\n%s\nwant\n%s", seed, tick, q, got, want)
				}
			}
		}
		gone, err := rows.updates(undone(history))
		if err != nil {
			t.Fatal(err)
		}
		for i, q := range queries {
			step(flows[i], gone)
			fresh := plans[i].Maintained()
			step(fresh, nil)
			if got, want := strings.Join(flows[i].Explain(true), "\n"), strings.Join(fresh.Explain(true), "\n"); got != want {
				t.Errorf("seed %d, %s\nempty again\n%s\nempty\n%s", seed, q, got, want)
			}
		}
	}
}

// undone takes back what a history has left.
func undone(history [][]change) []change {
	left := remaining(history)
	for i := range left {
		left[i].insert = false
	}
	return left
}
