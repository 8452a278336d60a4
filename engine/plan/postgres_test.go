package plan_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core/pgtest"
	"github.com/mzdio/mzd/engine/flow"
)

var zeros = regexp.MustCompile(`(\.\d*?)0+\b`)

// normal is the text of a value, less the trailing zeros of numerics and the sign of a zero, which are not kept here.
func normal(f pgconn.FieldDescription, v []byte) string {
	s := string(v)
	switch f.DataTypeOID {
	case flow.Numeric.OID(), flow.Float4.OID(), flow.Float8.OID():
		s = normalNumber(s)
	case flow.ArrayOf(flow.Numeric).OID(), flow.ArrayOf(flow.Float4).OID(), flow.ArrayOf(flow.Float8).OID():
		elements := strings.Split(strings.Trim(s, "{}"), ",")
		for i, e := range elements {
			elements[i] = normalNumber(e)
		}
		s = "{" + strings.Join(elements, ",") + "}"
	}
	if v == nil {
		return "NULL"
	}
	return s
}

func normalNumber(s string) string {
	if s == "-0" {
		return "0"
	}
	if strings.Contains(s, ".") && !strings.Contains(s, "e") {
		s = strings.TrimSuffix(zeros.ReplaceAllString(s, "$1"), ".")
	}
	return s
}

// ownWords are the errors that the engine words otherwise than PostgreSQL: it says more about bad JSON, and has another library of
// regular expressions, and no error for operators that are not unique.
var ownWords = regexp.MustCompile(`type jsonb|cast jsonb|regular expression|double precision: "a"|"NaN"|unit "(null|dow)"`)

// TestExpressionsPostgres holds the expressions of testdata against PostgreSQL. Those that are said to differ must.
func TestExpressionsPostgres(t *testing.T) {
	pg := connect(t, pgtest.Start(t))
	for _, g := range expressions(t) {
		want := "error"
		result := pg.conn.ExecParams(t.Context(), "SELECT "+g.input, nil, nil, nil, nil).Read()
		got := g.output
		if strings.HasPrefix(got, "error: ") {
			got = "error"
		}
		var e *pgconn.PgError
		message, evaluated := strings.CutPrefix(g.output, "error: evaluation: ")
		if evaluated && errors.As(result.Err, &e) && e.Message != message && !ownWords.MatchString(message) {
			t.Errorf("%s: got error %q, PostgreSQL says %q", g.input, message, e.Message)
		}
		if result.Err == nil {
			f, v := result.FieldDescriptions[0], result.Rows[0][0]
			value := string(v)
			if v == nil {
				value = "NULL"
			} else if g.difference == "" {
				value = normal(f, v)
			}
			want = typeName(f.DataTypeOID) + " " + value
		}
		if differs := got != want; differs != (g.difference != "") {
			t.Errorf("%s: got %s, PostgreSQL says %s %v; known difference: %q", g.input, g.output, want, result.Err, g.difference)
		}
	}
}

// TestBinaryPostgres holds the binary form of the values of testdata against PostgreSQL's: what it sends is read as the value, and what
// the engine sends is the same. Numerics are only read, because they keep no trailing zeros here, and NaN, which has many forms.
func TestBinaryPostgres(t *testing.T) {
	pg := connect(t, pgtest.Start(t))
	for _, g := range expressions(t) {
		typ, d, err := evaluate(g.input)
		if err != nil || d.IsNull() || g.difference != "" {
			continue
		}
		result := pg.conn.ExecParams(t.Context(), "SELECT "+g.input, nil, nil, nil, []int16{pgx.BinaryFormatCode}).Read()
		if result.Err != nil {
			t.Fatalf("%s: %v", g.input, result.Err)
		}
		want := result.Rows[0][0]
		if got, err := flow.FromBinary(typ, want); err != nil || got != d {
			t.Errorf("%s: PostgreSQL's %x is read as %s, %v, want %s", g.input, want, got, err, d)
		}
		exact := typ.Elem() != flow.Numeric && d.String() != "NaN" // a NaN may have a sign and more
		if got := d.AppendBinary(nil); exact && !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, PostgreSQL sends %x", g.input, got, want)
		}
	}
}

// typeName is the engine's type of a PostgreSQL type.
func typeName(oid uint32) string {
	for _, ty := range flow.Scalars() {
		for _, ty := range []flow.Type{ty, flow.ArrayOf(ty)} {
			if ty.OID() == oid {
				return ty.Name()
			}
		}
	}
	if oid == 1043 { // varchar
		return "text"
	}
	return fmt.Sprintf("type %d", oid)
}

// sameReason are SQLSTATEs of the engine, and PostgreSQL's for the same thing.
var sameReason = map[[2]string]bool{
	{"42704", "42P01"}: true, // an unknown relation, as Materialize has it
	{"42703", "42P01"}: true, // a column of a table that is not in FROM
	{"42703", "42P10"}: true, // a column in LIMIT
}

// TestRefusedPostgres holds the errors of testdata against PostgreSQL: what is not a limit of the engine, PostgreSQL refuses too, for the
// same reason.
func TestRefusedPostgres(t *testing.T) {
	pg := connect(t, pgtest.Start(t))
	c := &testCase{tables: goldenTables()}
	if err := pg.exec(c.create()); err != nil {
		t.Fatal(err)
	}
	queries, want := refusals(t)
	for i, q := range queries {
		code := strings.Fields(want[i])[1]
		err := pg.exec(q)
		var e *pgconn.PgError
		switch {
		case code == "0A000":
		case !errors.As(err, &e):
			t.Errorf("%s: got %s, PostgreSQL says %v", q, want[i], err)
		case e.Code != code && !sameReason[[2]string{code, e.Code}]:
			t.Errorf("%s: got %s, PostgreSQL says %s %s", q, want[i], e.Code, e.Message)
		}
	}
}

// TestQueriesPostgres holds every golden query, after every tick of random insertions and deletions, against PostgreSQL's answer to it.
func TestQueriesPostgres(t *testing.T) {
	pg := connect(t, pgtest.Start(t))
	golden := goldenQueries(t)
	for seed := range uint64(*seeds) {
		c := &testCase{tables: goldenTables()}
		c.ticks = history(rand.New(rand.NewPCG(seed, 3)), c.tables, *ticks)
		for _, name := range slices.Sorted(maps.Keys(goldenViews)) {
			c.tables = append(c.tables, &testTable{name: name, query: translated(goldenViews[name])})
		}
		for _, q := range golden {
			c.queries = append(c.queries, translated(q))
		}
		for i, failure := range c.run(pg) {
			if failure != "" {
				t.Errorf("seed %d: %s", seed, c.only(i).shrink(pg, failure))
			}
		}
	}
}

// translated is a query with what the dialects write differently: user is a keyword in PostgreSQL.
func translated(q string) *node {
	return text(dialect{text(q), text(regexp.MustCompile(`( )user\b`).ReplaceAllString(q, `$1"user"`))})
}
