package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
	"github.com/mzdio/mzd/engine/sql"
)

// edges are values at which functions go wrong, by the column of the table that holds them. The last row of the table is all NULL.
var edges = []struct {
	name   string
	typ    flow.Type
	values []string
}{
	{"b", flow.Bool, []string{"t", "f"}},
	{"i2", flow.Int2, []string{"0", "-32768", "32767"}},
	{"i4", flow.Int4, []string{"0", "-1", "2147483647", "-2147483648"}},
	{"i8", flow.Int8, []string{"1", "9223372036854775807", "-9223372036854775808"}},
	{"f4", flow.Float4, []string{"0", "NaN", "3.4e38", "-1e-45"}},
	{"f8", flow.Float8, []string{"-1.5", "NaN", "Infinity", "-Infinity", "5e-324", "1.7e308"}},
	{"n", flow.Numeric, []string{"0.5", "NaN", "Infinity", "-123456789012345678901234567890.123", "1e-30", "1e300"}},
	{"s", flow.Text, []string{"", "a%b_c\\", "日本\n😀", "12", "1 day", "{a,NULL}"}},
	{"j", flow.Jsonb, []string{`{"a": [1, {"b": null}], "": "x"}`, "[]", "null", `"\u0001é"`, "-1.5e10", `[true, "a"]`}},
	{"d", flow.Date, []string{"2024-02-29", "0001-01-01 BC", "4713-01-01 BC", "294246-12-31"}},
	{"ts", flow.Timestamp, []string{"1969-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC", "294246-12-31 23:59:59.999999"}},
	{"tz", flow.Timestamptz, []string{"2024-12-31 23:59:59.5+00", "0099-01-01 00:00:00+00 BC"}},
	{"iv", flow.Interval, []string{"1 mon -1 days", "00:00:00.000001", "-178000000 years", "2147483647 days -2562047788:00:54.775808"}},
	{"u", flow.UUID, []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"}},
	{"y", flow.Bytea, []string{`\x`, `\x00ff5c27`}},
	{"a", flow.ArrayOf(flow.Text), []string{"{}", `{NULL,"",a,"b c"}`}},
	{"ai", flow.ArrayOf(flow.Int8), []string{"{1,NULL}", "{-9223372036854775808}"}},
}

// edgeTable is the table of edges and its rows.
func edgeTable(tb testing.TB) (*plan.Object, []flow.Row) {
	tb.Helper()
	t := &plan.Object{ID: "edge", Name: "edge"}
	rows := make([]flow.Row, 7)
	for i := range rows {
		rows[i] = make(flow.Row, len(edges))
	}
	for c, e := range edges {
		t.Columns = append(t.Columns, plan.Column{Name: e.name, Type: e.typ})
		for i := range rows[:len(rows)-1] {
			d, err := flow.FromText(e.typ, e.values[i%len(e.values)])
			if err != nil {
				tb.Fatalf("%s %s: %v", e.name, e.values[i%len(e.values)], err)
			}
			rows[i][c] = d
		}
	}
	return t, rows
}

// FuzzExpr evaluates expressions over rows of edges. Whatever an expression is: it does not panic; its value is of its type, and reads back
// from its text and from its binary form; with the columns replaced by their values and folded it gives the same; and it prints itself
// as SQL that means the same.
func FuzzExpr(f *testing.F) {
	for _, g := range expressions(f) {
		f.Add(g.input)
	}
	for _, e := range edges {
		for _, s := range []string{"%s + %[1]s", "-%s", "%s::text", "%s || %[1]s", "to_jsonb(%s)", "%s < %[1]s", "greatest(%s, NULL)", "jsonb_build_object('k', %s)", "extract(year FROM %s)"} {
			f.Add(fmt.Sprintf(s, e.name))
		}
	}
	for _, s := range []string{"ts + iv", "d + i4", "tz - iv", "iv * f8", "iv / n", "power(n, f8)", "round(n, i4)", "sqrt(f8)", "substring(s, i4, i4)", "left(s, i4)", "right(s, i4)", "s ~ s", "s LIKE s", "split_part(s, s, i4)", "j -> s", "j #>> a", "j - i4", "date_trunc(s, ts)", "s::interval", "i8::int2", "f8::numeric", "n::int8", "n::numeric(5, 2)", "s::varchar(2)", "ts::timestamp(0)", "to_timestamp(f8)", "CASE WHEN b THEN i4 ELSE n END", "coalesce(i2, f4)", "i8 IN (i4, n)"} {
		f.Add(s)
	}
	table, rows := edgeTable(f)
	env := plan.Env{Catalog: catalog{"edge": table}}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 300 {
			return
		}
		list, err := sql.Parse("SELECT " + text + " FROM edge")
		if err != nil || len(list) != 1 {
			return
		}
		q, ok := list[0].Statement.(*sql.Query)
		if !ok {
			return
		}
		p, err := plan.Query(env, q)
		if err != nil {
			return
		}
		df := p.Maintained()
		input, ok := df.Root.(*flow.Input)
		if !ok {
			return // aggregates, subqueries and the like
		}
		again, err := sql.Parse(q.String())
		if err == nil {
			var p *plan.Plan
			if p, err = plan.Query(env, again[0].Statement.(*sql.Query)); err == nil {
				if got, want := p.Maintained().Root.String(), input.String(); got != want {
					t.Fatalf("%s is planned as %s, and what it prints as %s", text, want, got)
				}
			}
		}
		if err != nil && !strings.HasPrefix(err.(*sql.Error).Code, "54") {
			t.Fatalf("%s is printed as %s: %v", text, q, err)
		}
		ctx := &flow.Context{}
		for i, e := range input.Map.Exprs {
			for _, row := range rows {
				d, err := e.Eval(ctx, row)
				x := folded(e, row)
				constant, constantErr := x.Eval(ctx, nil)
				if fmt.Sprint(err) != fmt.Sprint(constantErr) || constant != d {
					t.Fatalf("%s over %v: got %s, %v, but %s, %v folded", text, row, d, err, constant, constantErr)
				}
				if err == nil && !d.IsNull() {
					checkValue(t, text, d, p.Columns[i].Type)
				}
			}
		}
	})
}

// folded is an expression with its columns replaced by values, and evaluated from below as far as that is no error.
func folded(e flow.Expr, row flow.Row) flow.Expr {
	if c, ok := e.(*flow.Col); ok {
		return &flow.Const{D: row[c.Index], T: c.T}
	}
	args := e.Args()
	if len(args) == 0 {
		return e
	}
	out := make([]flow.Expr, len(args))
	for i, a := range args {
		out[i] = folded(a, row)
	}
	return flow.Fold(e.WithArgs(out))
}

// checkValue holds a value against its type, its text and its binary form.
func checkValue(t *testing.T, text string, d flow.Datum, typ flow.Type) {
	t.Helper()
	if d.Type() != typ {
		t.Fatalf("%s: a %s, its type is %s", text, d.Type().Name(), typ.Name())
	}
	if back, err := flow.FromText(typ, d.String()); err != nil || back != d {
		t.Fatalf("%s: the text of %s reads back as %s, %v", text, d, back, err)
	}
	if back, err := flow.FromBinary(typ, d.AppendBinary(nil)); err != nil || back != d {
		t.Fatalf("%s: the binary form of %s reads back as %s, %v", text, d, back, err)
	}
	if flow.Compare(d, d) != 0 {
		t.Fatalf("%s: %s is not equal to itself", text, d)
	}
}
