package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/pgtest"
	"github.com/mzdio/mzd/plugins"
)

var seed = flag.Uint64("seed", 1, "seed of the model")

// opened opens the sink on a PostgreSQL, and a connection beside it.
func opened(t *testing.T, dsn string) (*mirror, *pgx.Conn) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return reopened(t, dsn), db
}

func reopened(t *testing.T, dsn string) *mirror {
	t.Helper()
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Name: "tables", Pipeline: "test"})
	m, err := open(ctx, Settings{URL: dsn, Schema: "copies"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func token(t core.Time) core.Token { return core.Token{Time: t, Generation: "g"} }

// batch is a batch of rows with as many copies; lower 0 makes it a base.
func batch(v *core.View, lower, upper core.Time, rows map[string]int) core.Batch {
	b := core.Batch{View: v, Upper: token(upper)}
	if lower > 0 {
		b.Lower = token(lower)
	}
	var updates []core.Update
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		if n := rows[row]; n != 0 {
			updates = append(updates, core.Update{Time: upper - 1, Diff: core.Diff(n), Row: core.Row(row)})
		}
	}
	b.Updates = core.UpdatesOf(updates)
	return b
}

// contents returns a table as JSON, a line for each row.
func contents(t *testing.T, db *pgx.Conn, table string) string {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT (to_jsonb(t) - 'mzd_row')::text FROM `+table+` t ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// TestTypes writes a value of each type, and reads what PostgreSQL makes of it.
func TestTypes(t *testing.T) {
	tests := []struct{ kind, value, column, want string }{
		{"int8", `9223372036854775807`, "bigint", ""},
		{"numeric", `0.10000000000000000000000000000001`, "numeric", ""},
		{"numeric", `"NaN"`, "numeric", ""},
		{"float8", `"-Infinity"`, "double precision", ""},
		{"float8", `1e300`, "double precision", "1" + strings.Repeat("0", 300)},
		{"bool", `true`, "boolean", ""},
		{"text", `"it's \"quoted\" \\ 日本\n"`, "text", ""},
		{"text", `null`, "text", ""},
		{"char", `"c"`, `"char"`, ""},
		{"bpchar", `"padded   "`, "bpchar", ""},
		{"bytea", `"\\x00ff"`, "bytea", ""},
		{"timestamptz", `"2026-07-18T12:00:00.123456+00:00"`, "timestamp with time zone", ""},
		{"timestamp", `"2026-07-18T12:00:00"`, "timestamp without time zone", ""},
		{"date", `"2026-07-18"`, "date", ""},
		{"interval", `"1 mon 2 days 03:00:00"`, "interval", `"1 mon 2 days 03:00:00"`},
		{"jsonb", `{"a": [1, null]}`, "jsonb", ""},
		{"json", `{"a":1,"a":2}`, "json", `{"a": 2}`},
		{"_int4", `[1, null, 3]`, "integer[]", ""},
		{"_text", `[["a", "b"], ["c", "d"]]`, "text[]", ""},
		{"uuid", `"6f1ed002-ab59-4bf5-8b1a-8a4f3c0a9c7e"`, "uuid", ""},
		{"uint8", `18446744073709551615`, "numeric", ""},
		{"mz_timestamp", `1721310001000`, "numeric", ""},
		{"regclass", `"pg_class"`, "text", ""},
		{"list", `"{1,2}"`, "text", ""},
		{"_uint8", `[1, 2]`, "text", `"[1,2]"`},
		{"record", `"(1,2)"`, "text", ""},
		{"unknown", `"what?"`, "text", ""},
	}
	sink, db := opened(t, pgtest.Start(t))
	v := &core.View{Name: "all types"}
	row, want := "", ""
	for i, test := range tests {
		v.Columns = append(v.Columns, core.Column{Name: fmt.Sprintf(`c "%d"`, i), Type: test.kind})
		row += "," + strings.ReplaceAll(strings.ReplaceAll(test.value, ", ", ","), ": ", ":")
	}
	row = "[" + row[1:] + "]"
	if err := sink.Write(t.Context(), []core.Batch{batch(v, 0, 10, map[string]int{row: 2})}); err != nil {
		t.Fatal(err)
	}
	for i, test := range tests {
		if want = test.want; want == "" {
			want = test.value
		}
		var got, column string
		name := pgx.Identifier{v.Columns[i].Name}.Sanitize()
		if err := db.QueryRow(t.Context(), `SELECT coalesce(to_jsonb(`+name+`)::text, 'null'), format_type(atttypid, atttypmod)
			FROM copies."all types", pg_attribute WHERE attrelid = 'copies."all types"'::regclass AND attnum = $1 LIMIT 1`, i+1).Scan(&got, &column); err != nil {
			t.Fatal(err)
		}
		if got != want || column != test.column {
			t.Errorf("%s %s: got %s as %s, want %s as %s", test.kind, test.value, got, column, want, test.column)
		}
	}
	if err := sink.Write(t.Context(), []core.Batch{batch(v, 10, 20, map[string]int{row: -1})}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(contents(t, db, `copies."all types"`), "\n"); n != 0 {
		t.Errorf("%d rows are left, want 1", n+1)
	}
}

// TestModel writes cuts of two views, with copies of rows, bases in the middle,
// changed columns, repeated cuts and writes that are cut off, and compares.
func TestModel(t *testing.T) {
	r := rand.New(rand.NewPCG(*seed, 0))
	dsn := pgtest.Start(t)
	sink, db := opened(t, dsn)
	views := []*core.View{
		{Name: "a", Columns: []core.Column{{Name: "x", Type: "int8"}}},
		{Name: "b", Columns: []core.Column{{Name: "x", Type: "int8"}}},
	}
	state := []map[string]int{{}, {}}
	at := core.Time(0)
	for step := range 150 {
		var cut []core.Batch
		next := at + 1 + core.Time(r.IntN(5))
		base := at == 0 || r.IntN(10) == 0
		for i, v := range views {
			before := maps.Clone(state[i])
			if base && r.IntN(2) == 0 {
				clear(state[i])
			}
			if base && r.IntN(3) == 0 {
				v = &core.View{Name: v.Name, Columns: []core.Column{{Name: v.Columns[0].Name + "x", Type: []string{"int8", "text", "numeric"}[r.IntN(3)]}}}
				views[i] = v
			}
			for range r.IntN(8) {
				row := fmt.Sprintf("[%d]", r.IntN(9))
				state[i][row] = r.IntN(3)
			}
			changes := maps.Clone(state[i])
			if !base {
				for row, n := range before {
					changes[row] -= n
				}
				cut = append(cut, batch(v, at, next, changes))
			} else {
				cut = append(cut, batch(v, 0, next, changes))
			}
		}
		at = next
		if r.IntN(5) == 0 { // a write that is cut off, or not in time
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			sink.Write(ctx, cut)
		}
		if r.IntN(5) == 0 { // another process goes on
			sink = reopened(t, dsn)
		}
		for range 1 + r.IntN(2) {
			if err := sink.Write(t.Context(), cut); err != nil {
				t.Fatalf("seed %d, step %d: %v", *seed, step, err)
			}
		}
		for i, v := range views {
			var lines []string
			for row, n := range state[i] {
				value := strings.Trim(row, "[]")
				if v.Columns[0].Type == "text" {
					value = `"` + value + `"`
				}
				for range n {
					lines = append(lines, fmt.Sprintf(`{"%s": %s}`, v.Columns[0].Name, value))
				}
			}
			slices.Sort(lines)
			if got, want := contents(t, db, "copies."+v.Name), strings.Join(lines, "\n"); got != want {
				t.Fatalf("seed %d, step %d: table %s is\n%s\nwant\n%s", *seed, step, v.Name, got, want)
			}
			if got, err := reopenedPosition(t, dsn, v); err != nil || got != token(at) {
				t.Fatalf("seed %d, step %d: position %v, %v, want %v", *seed, step, got, err, token(at))
			}
		}
	}
}

func reopenedPosition(t *testing.T, dsn string, v *core.View) (core.Token, error) {
	t.Helper()
	sink := reopened(t, dsn)
	defer sink.Close()
	return sink.Position(t.Context(), v)
}

// TestRefused breaks what the sink relies on.
func TestRefused(t *testing.T) {
	v := &core.View{Name: "v", Columns: []core.Column{{Name: "x", Type: "int8"}}}
	twice := &core.View{Name: "w", Columns: []core.Column{{Name: "x", Type: "int8"}, {Name: "x", Type: "int8"}}}
	long := &core.View{Name: strings.Repeat("v", 64), Columns: v.Columns}
	one := map[string]int{"[1]": 1}
	tests := []struct {
		name, sql string // what happens before
		batch     core.Batch
		want      string
		permanent bool
	}{
		{"a row is gone", `DELETE FROM copies.v`, batch(v, 10, 20, map[string]int{"[1]": -1}), "1 of the 1 rows to delete are not in the table", false},
		{"another writer", `UPDATE copies.mzd_positions SET token = '15-g'`, batch(v, 10, 20, one), "the table is at 15-g", false},
		{"a foreign table", `CREATE TABLE copies.w ()`, batch(&core.View{Name: "w", Columns: v.Columns}, 0, 20, one), "a table of that name that this sink has not made", true},
		{"columns of one name", ``, batch(twice, 0, 20, map[string]int{"[1,2]": 1}), `two columns "x"`, true},
		{"a long name", ``, batch(long, 0, 20, one), "longer than 63 bytes", true},
		{"a view depends on it", `CREATE VIEW d AS SELECT x FROM copies.v`,
			batch(&core.View{Name: "v", Columns: []core.Column{{Name: "y", Type: "int8"}}}, 0, 20, one), "other objects depend on it", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sink, db := opened(t, pgtest.Start(t))
			if err := sink.Write(t.Context(), []core.Batch{batch(v, 0, 10, one)}); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(t.Context(), test.sql); err != nil {
				t.Fatal(err)
			}
			before := contents(t, db, "copies.v")
			other := &core.View{Name: "other", Columns: v.Columns}
			err := sink.Write(t.Context(), []core.Batch{batch(other, 0, 20, one), test.batch})
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, core.ErrPermanent) != test.permanent {
				t.Errorf("got %v", err)
			}
			if after := contents(t, db, "copies.v"); after != before {
				t.Errorf("the table has become %s", after)
			}
			if at, err := sink.Position(t.Context(), other); err != nil || !at.IsZero() {
				t.Errorf("the other view of the cut is at %v, %v", at, err)
			}
		})
	}
}
