package plan_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core/pgtest"
	"github.com/mzdio/mzd/engine/flow"
)

// texts runs a query and returns its rows as texts.
func (pg *postgres) texts(t *testing.T, query string) ([][]string, error) {
	t.Helper()
	results, err := pg.conn.Exec(t.Context(), query).ReadAll()
	if err != nil {
		return nil, err
	}
	var out [][]string
	last := results[len(results)-1]
	for _, r := range last.Rows {
		cells := make([]string, len(r))
		for i, v := range r {
			cells[i] = normal(last.FieldDescriptions[i], v)
		}
		out = append(out, cells)
	}
	return out, nil
}

var zeros = regexp.MustCompile(`(\.\d*?)0+\b`)

// normal is the text of a value, less the trailing zeros of numerics and the sign of a zero, which are not kept here.
func normal(f pgconn.FieldDescription, v []byte) string {
	s := string(v)
	switch {
	case v == nil:
		return "NULL"
	case f.DataTypeOID == flow.Numeric.OID() && strings.Contains(s, "."):
		return strings.TrimSuffix(zeros.ReplaceAllString(s, "$1"), ".")
	case s == "-0" && (f.DataTypeOID == flow.Float4.OID() || f.DataTypeOID == flow.Float8.OID()):
		return "0"
	}
	return s
}

// differences are the expressions in which Materialize, and so the engine, is not PostgreSQL.
var differences = map[string]string{
	`('{"a": null}'::jsonb -> 'a')::int`:    "a jsonb null casts to NULL",
	`' [1,2 , 3.50, 1e2, -0, 0.0] '::jsonb`: "numbers in jsonb keep no trailing zeros",
	`'{"a": 1.50}'::jsonb ->> 'a'`:          "numbers in jsonb keep no trailing zeros",
	`mz_version()`:                          "PostgreSQL has no such function",
	`now()`:                                 "the engine has no clock to read",
}

// TestExpressionsPostgres holds the expressions of testdata against PostgreSQL.
func TestExpressionsPostgres(t *testing.T) {
	pg := connect(t, pgtest.Start(t))
	golden, err := os.ReadFile(filepath.Join("testdata", "expressions.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(golden)), "\n") {
		input, got, _ := strings.Cut(line, "  =>  ")
		if differences[input] != "" {
			continue
		}
		rows, err := pg.texts(t, "SELECT "+input)
		if failed := strings.HasPrefix(got, "error: "); failed || err != nil {
			if failed != (err != nil) {
				t.Errorf("%s: got %s, PostgreSQL says %v %v", input, got, rows, err)
			}
			continue
		}
		result := pg.conn.ExecParams(t.Context(), "SELECT "+input, nil, nil, nil, nil).Read()
		oid := result.FieldDescriptions[0].DataTypeOID
		typ, value, _ := strings.Cut(got, " ")
		if want := rows[0][0]; value != want {
			t.Errorf("%s: got %s, PostgreSQL says %s", input, value, want)
		}
		if !sameType(typ, oid) {
			t.Errorf("%s: got type %s, PostgreSQL's has OID %d", input, typ, oid)
		}
	}
}

func sameType(name string, oid uint32) bool {
	for ty := flow.Bool; ty <= flow.Timestamptz; ty++ {
		if ty.OID() == oid {
			return ty.Name() == name
		}
	}
	return oid == 1043 && name == "text" // varchar
}

// TestQueriesPostgres holds every golden query, after every tick of random insertions and deletions, against PostgreSQL's answer to it.
func TestQueriesPostgres(t *testing.T) {
	pg := connect(t, pgtest.Start(t))
	golden, _ := blocks(t)
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
