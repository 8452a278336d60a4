package plan_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

var update = flag.Bool("update", false, "write the golden files anew")

// catalog is a fixed catalog for tests, of tables and of views that are planned in place.
type catalog map[string]*plan.Object

func (c catalog) Object(name sql.Name) *plan.Object { return c[name.Base()] }

func columns(list ...any) []plan.Column {
	var out []plan.Column
	for i := 0; i < len(list); i += 2 {
		out = append(out, plan.Column{Name: list[i].(string), Type: list[i+1].(flow.Type)})
	}
	return out
}

var tables = catalog{
	"t": {ID: "t", Name: "t", Columns: columns("a", flow.Int4, "b", flow.Int8, "c", flow.Text, "d", flow.Float8, "e", flow.Bool, "n", flow.Numeric)},
	"u": {ID: "u", Name: "u", Columns: columns("a", flow.Int4, "x", flow.Int4, "y", flow.Text)},
	"j": {ID: "j", Name: "j", Columns: columns("data", flow.Jsonb)},
	"w": {ID: "w", Name: "w", Columns: columns("text", flow.Text, "mz_line_no", flow.Int8)},
}

// goldenViews are views over the tables.
var goldenViews = map[string]string{
	"pv": "SELECT a + 1 AS a1, b, c || 'x' AS cx, 1 / a AS inv FROM t WHERE a > 0",
	"pw": "SELECT val->>'user' AS user, (val->'id')::float::int AS id, (val->'bot')::bool AS bot FROM (SELECT text::jsonb AS val FROM w) AS w",
}

func env() plan.Env {
	c := catalog{}
	for name, o := range tables {
		c[name] = o
	}
	for name, text := range goldenViews {
		q := parse(text)
		p, err := plan.Query(plan.Env{Catalog: c}, q)
		if err != nil {
			panic(err)
		}
		c[name] = &plan.Object{ID: name, Name: name, Columns: p.Columns, Query: q}
	}
	return plan.Env{Catalog: c, Constants: map[string]string{"mz_version": "test"}}
}

func parse(text string) *sql.Query {
	list, err := sql.Parse(text)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", text, err))
	}
	return list[0].Statement.(*sql.Query)
}

// golden is a case of testdata/expressions.txt: an expression, or what else may follow SELECT, and what becomes of it.
type golden struct {
	heading    string // of the section it stands in
	input      string
	output     string // type and value, or error: and the error
	difference string // why PostgreSQL answers otherwise
}

// expressions reads testdata/expressions.txt. A line is "input  =>  output"; "# " begins a heading, and "! " the reason for which
// PostgreSQL has another answer to the line that follows.
func expressions(tb testing.TB) []golden {
	tb.Helper()
	text, err := os.ReadFile(expressionsFile)
	if err != nil {
		tb.Fatal(err)
	}
	var out []golden
	var next golden
	for line := range strings.SplitSeq(string(text), "\n") {
		switch {
		case line == "":
		case strings.HasPrefix(line, "# "):
			next = golden{heading: line[2:]}
		case strings.HasPrefix(line, "! "):
			next.difference = line[2:]
		default:
			next.input, next.output, _ = strings.Cut(line, "  =>  ")
			out = append(out, next)
			next = golden{heading: next.heading}
		}
	}
	return out
}

const expressionsFile = "testdata/expressions.txt"

// evaluate plans and evaluates an expression without columns.
func evaluate(input string) (flow.Type, flow.Datum, error) {
	q, err := sql.Parse("SELECT " + input)
	if err != nil {
		return 0, flow.Null, err
	}
	p, err := plan.Query(env(), q[0].Statement.(*sql.Query))
	if err != nil {
		return 0, flow.Null, err
	}
	d := p.Once().Step(&flow.Context{}, nil)
	if len(d.Errors) > 0 {
		return 0, flow.Null, errors.New("evaluation: " + d.Errors[0].Message)
	}
	return p.Columns[0].Type, d.Rows[0].Row[0], nil
}

// TestExpressions holds expressions against testdata: type and value, or the error.
func TestExpressions(t *testing.T) {
	var out strings.Builder
	heading := ""
	for _, g := range expressions(t) {
		got := ""
		if typ, d, err := evaluate(g.input); err != nil {
			got = "error: " + err.Error()
		} else {
			got = typ.Name() + " " + d.String()
		}
		if got != g.output && !*update {
			t.Errorf("%s\ngot  %s\nwant %s", g.input, got, g.output)
		}
		if g.heading != heading {
			fmt.Fprintf(&out, "%s# %s\n", strings.Repeat("\n", min(len(heading), 1)), g.heading)
			heading = g.heading
		}
		if g.difference != "" {
			fmt.Fprintf(&out, "! %s\n", g.difference)
		}
		fmt.Fprintf(&out, "%s  =>  %s\n", g.input, got)
	}
	if *update {
		if err := os.WriteFile(expressionsFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const refusedFile = "testdata/refused.txt"

// refusals reads testdata/refused.txt: a query a line, and the error.
func refusals(t *testing.T) (queries, errors []string) {
	t.Helper()
	text, err := os.ReadFile(refusedFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		q, e, _ := strings.Cut(line, "  =>  ")
		queries, errors = append(queries, q), append(errors, e)
	}
	return queries, errors
}

// TestRefused holds the errors of queries against testdata: line, column, SQLSTATE, message and hint.
func TestRefused(t *testing.T) {
	queries, want := refusals(t)
	var out strings.Builder
	for i, q := range queries {
		_, err := planText(env(), q)
		var e *sql.Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: %v", q, err)
		}
		line, column := sql.Position(q, e.Pos)
		got := fmt.Sprintf("%d:%d %s %s", line, column, e.Code, e.Message)
		if e.Hint != "" {
			got += " | " + e.Hint
		}
		if got != want[i] && !*update {
			t.Errorf("%s\ngot  %s\nwant %s", q, got, want[i])
		}
		fmt.Fprintf(&out, "%s  =>  %s\n", q, got)
	}
	if *update {
		if err := os.WriteFile(refusedFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzQuery looks for queries that make the planner or the operators panic.
func FuzzQuery(f *testing.F) {
	for _, q := range goldenQueries(f) {
		f.Add(q)
	}
	for _, g := range expressions(f) {
		f.Add("SELECT " + g.input)
	}
	rows := rowParser{}
	var fuzzed []map[string][]flow.Update
	for _, changes := range history(rand.New(rand.NewPCG(1, 1)), goldenTables(), 3) {
		updates, err := rows.updates(changes)
		if err != nil {
			f.Fatal(err)
		}
		fuzzed = append(fuzzed, updates)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := sql.Parse(text)
		if err != nil {
			return
		}
		for _, s := range list {
			q, ok := s.Statement.(*sql.Query)
			if !ok {
				continue
			}
			p, err := plan.Query(env(), q)
			if err != nil {
				var e *sql.Error
				if !errors.As(err, &e) || e.Code == "" || e.Pos < 0 || e.Pos > len(text) {
					t.Fatalf("%s: bad error %#v", text, err)
				}
				continue
			}
			p.Maintained().Explain(false)
			if len(text) > 300 || strings.Count(strings.ToLower(text), "values") > 2 { // a product of many constants is large
				continue
			}
			df := p.Maintained()
			for _, changes := range fuzzed {
				for _, u := range step(df, changes).Rows {
					if len(u.Row) != len(p.Columns) {
						t.Fatalf("%s: row %v for columns %v", text, u.Row, p.Columns)
					}
					for i, d := range u.Row {
						if want := p.Columns[i].Type; !d.IsNull() && d.Type() != want && want != flow.StreamTime {
							t.Fatalf("%s: column %d is a %s, its type is %s", text, i, d.Type().Name(), want.Name())
						}
					}
				}
			}
		}
	})
}
