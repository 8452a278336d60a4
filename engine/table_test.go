package engine_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/mzdio/mzd/engine"
)

// TestTables goes through what can be done to tables.
func TestTables(t *testing.T) {
	const create = `CREATE TABLE t (a int NOT NULL, b text DEFAULT 'x', c numeric)`
	for name, test := range map[string]func(w *world){
		"insert": func(w *world) {
			w.tag("INSERT INTO t VALUES (1, 'one', 1.5), (2, DEFAULT, NULL), (3)", "INSERT 0 3")
			w.tag("INSERT INTO t (c, a) VALUES ('2.50', 4)", "INSERT 0 1")
			w.tag("INSERT INTO t (a) SELECT a + 10 FROM t WHERE a < 3", "INSERT 0 2")
			w.tag("INSERT INTO t (a, b) SELECT 20, 'y'", "INSERT 0 1")
			w.tag("INSERT INTO t (a) SELECT a FROM t WHERE false", "INSERT 0 0")
			w.want("SELECT * FROM t", "1|one|1.5", "2|x|NULL", "3|x|NULL", "4|x|2.5", "11|x|NULL", "12|x|NULL", "20|y|NULL")
		},
		"update and delete": func(w *world) {
			w.tag("INSERT INTO t (a, b) VALUES (1, 'a'), (2, 'b'), (2, 'b'), (3, 'c')", "INSERT 0 4")
			w.tag("UPDATE t SET b = b || '!', c = a * 2 WHERE a >= 2", "UPDATE 3")
			w.want("SELECT * FROM t", "1|a|NULL", "2|b!|4", "2|b!|4", "3|c!|6")
			w.tag("UPDATE t AS u SET b = DEFAULT WHERE u.a = 1", "UPDATE 1")
			w.tag("UPDATE t SET a = a", "UPDATE 4")
			w.tag("DELETE FROM t u WHERE u.a = 2", "DELETE 2")
			w.want("SELECT * FROM t", "1|x|NULL", "3|c!|6")
			w.tag("DELETE FROM t", "DELETE 2")
			w.tag("DELETE FROM t", "DELETE 0")
			w.want("SELECT * FROM t")
		},
		"errors": func(w *world) {
			for text, want := range map[string][2]string{
				"INSERT INTO t VALUES (NULL)":           {"23502", `null value in column a of table t violates not-null constraint`},
				"INSERT INTO t (b) VALUES ('y')":        {"23502", "null value in column a"},
				"INSERT INTO t DEFAULT VALUES":          {"23502", "null value in column a"},
				"INSERT INTO t VALUES ('one')":          {"22P02", "invalid input syntax for type integer"},
				"INSERT INTO t VALUES (3000000000)":     {"22003", "integer out of range"},
				"INSERT INTO t (a) SELECT 3000000000":   {"22003", "integer out of range"},
				"INSERT INTO t VALUES (1/0)":            {"22012", "division by zero"},
				"INSERT INTO t VALUES (true)":           {"42804", "column a is of type integer but expression is of type boolean"},
				"INSERT INTO t (a) SELECT b FROM t":     {"42804", "is of type integer but expression is of type text"},
				"INSERT INTO t (a, z) VALUES (1, 2)":    {"42703", "1:19: column z of table t does not exist"},
				"INSERT INTO t (a, a) VALUES (1, 2)":    {"42701", "specified more than once"},
				"INSERT INTO t (a) VALUES (1, 2)":       {"42601", "more expressions than target columns"},
				"INSERT INTO t (a, b) VALUES (1)":       {"42601", "more target columns than expressions"},
				"INSERT INTO t VALUES (1, 'a', 1, 1)":   {"42601", "more expressions than target columns"},
				"INSERT INTO t VALUES (a)":              {"42703", "column a does not exist"},
				"INSERT INTO nothing VALUES (1)":        {"42P01", "unknown catalog item 'nothing'"},
				"INSERT INTO v VALUES (1)":              {"42809", "cannot write to v: it is no table"},
				"INSERT INTO mz_objects VALUES ('a')":   {"42809", "cannot write to mz_objects"},
				"INSERT INTO t SELECT a FROM t AS OF 5": {"0A000", "there is no AS OF"},
				"UPDATE t SET z = 1":                    {"42703", "column z of table t does not exist"},
				"UPDATE t SET a = 1, a = 2":             {"42701", "specified more than once"},
				"UPDATE v SET a = 1":                    {"42809", "cannot write to v"},
				"DELETE FROM nothing":                   {"42P01", "unknown catalog item"},
				"DELETE FROM t WHERE z":                 {"42703", "column z does not exist"},
				"DELETE FROM t WHERE a":                 {"42804", "must be type boolean"},
				"INSERT INTO t VALUES ($1)":             {"42P02", "there is no parameter $1"},
				"CREATE TABLE w (a int, a text)":        {"42701", "specified more than once"},
				"CREATE TABLE w (a nothing)":            {"42704", `type "nothing" does not exist`},
				"CREATE TABLE u (a int DEFAULT 'x')":    {"", ""},
				"CREATE TABLE w (a int DEFAULT true)":   {"42804", "column a is of type integer"},
				"CREATE TABLE w (a int DEFAULT b)":      {"42703", "column b does not exist"},
				"CREATE TABLE w (a int PRIMARY KEY)":    {"0A000", "constraint PRIMARY KEY"},
				"CREATE TABLE t (a int)":                {"42P07", "table t already exists with another definition"},
				"CREATE TABLE v (a int)":                {"42P07", "view v already exists"},
				"CREATE OR REPLACE VIEW t AS SELECT 1":  {"42809", "t is a table"},
				"DROP VIEW t":                           {"42809", "t is not a view"},
				"DROP TABLE v":                          {"42809", "v is not a table"},
				"DROP TABLE t":                          {"2BP01", "cannot drop t: still depended upon by v"},
				"DROP TABLE t, nothing":                 {"42704", "unknown catalog item 'nothing'"},
			} {
				if want[0] == "" {
					w.exec(text)
					continue
				}
				w.fails(text, want[0], want[1])
			}
			w.fails("INSERT INTO u DEFAULT VALUES", "22P02", "invalid input syntax")
			w.want("SELECT count(*) FROM t", "0")
		},
		"types": func(w *world) {
			w.exec(`CREATE TABLE k (v varchar(3), n numeric(4,1), s timestamp(0), i interval day, y bytea, u uuid, a text[])`)
			w.tag(`INSERT INTO k VALUES ('abc   ', 12.345, '2024-01-02 03:04:05.6', '2 days 5 hours', '\x00ff', 'a0eebc999c0b4ef8bb6d6bb9bd380a11', '{a,NULL}')`, "INSERT 0 1")
			w.fails("INSERT INTO k (v) VALUES ('abcd')", "22001", "value too long for type character varying(3)")
			w.fails("INSERT INTO k (n) VALUES (999.95)", "22003", "numeric field overflow")
			w.fails("UPDATE k SET v = v || 'd'", "22001", "value too long")
			w.tag("UPDATE k SET n = n + 0.07, i = i + interval '1 hour'", "UPDATE 1")
			const row = `abc|12.4|2024-01-02 03:04:06|2 days|\x00ff|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{a,NULL}`
			w.want("SELECT * FROM k", row)
			w.restart()
			w.want("SELECT * FROM k", row)
			w.fails("INSERT INTO k (v) VALUES ('abcd')", "22001", "value too long")
		},
		"texts": func(w *world) {
			w.exec("CREATE TABLE k (x text, j jsonb)")
			w.copyFails("COPY k (x) FROM STDIN", "a\\0b\n", "22021", `invalid byte sequence for encoding "UTF8"`)
			w.copyFails("COPY k (x) FROM STDIN WITH CSV", "a\x00b\n", "22021", `invalid byte sequence for encoding "UTF8"`)
			w.exec("INSERT INTO k SELECT 'deep', ('" + strings.Repeat("[", 290) + strings.Repeat("]", 290) + "')::jsonb")
			for range 20 {
				w.exec("UPDATE k SET j = jsonb_build_array(j)")
			}
			before := w.rows("SELECT * FROM k")
			w.restart()
			w.want("SELECT * FROM k", before...)
		},
		"a row that is too long": func(w *world) {
			w.exec("CREATE TABLE k (x text)")
			w.fails("INSERT INTO k SELECT replace(text, '.', text) FROM (VALUES ('"+strings.Repeat(".", 6000)+"')) AS v (text)",
				"54000", "a row of table k has 36000009 bytes; a row may have 33554432")
			w.fails("INSERT INTO k VALUES "+strings.Repeat("("+expanded+"), ", 40)+"('x')", "54000", "transaction writes more than 256 MiB")
			w.fails("INSERT INTO k VALUES ('x'); UPDATE k SET x = "+expanded+strings.Repeat(" || "+expanded, 4), "54000", "a row of table k")
			w.want("SELECT * FROM k", "x")
		},
		"one time for a transaction": func(w *world) {
			w.exec("CREATE TABLE u (x int); INSERT INTO u VALUES (1); BEGIN; SELECT * FROM t")
			other := w.e.NewSession()
			defer other.Close()
			exec(w, other, "INSERT INTO u VALUES (2)")
			w.want("SELECT * FROM u", "1")
			w.exec("DECLARE c CURSOR FOR SELECT * FROM u")
			w.want("FETCH ALL c", "1")
			if got := query(w, other, "SELECT count(*) FROM u")[0][0].Int(); got != 2 {
				w.Errorf("%d rows are there outside", got)
			}
			exec(w, other, "CREATE TABLE later (x int)")
			w.fails("SELECT * FROM later", "22000", "could not find a valid timestamp")
			w.exec("ROLLBACK; BEGIN")
			w.want("SELECT * FROM u", "1", "2")
			w.exec("COMMIT")
			w.want("SELECT * FROM u", "1", "2")
		},
		"no columns": func(w *world) {
			w.exec("CREATE TABLE e ()")
			w.tag("INSERT INTO e DEFAULT VALUES", "INSERT 0 1")
			w.want("SELECT count(*) FROM e", "1")
			w.restart()
			w.want("SELECT count(*) FROM e", "1")
		},
		"transactions": func(w *world) {
			w.exec("CREATE TABLE u (x int); BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (2); INSERT INTO t VALUES (3)")
			other := w.e.NewSession()
			defer other.Close()
			if got := query(w, other, "SELECT count(*) FROM t")[0][0].Int(); got != 0 {
				w.Errorf("%d rows are there before COMMIT", got)
			}
			r := w.stream("SUBSCRIBE TO (SELECT a, 't' FROM t UNION ALL SELECT x, 'u' FROM u) WITH (PROGRESS)")
			w.next(r) // AS OF
			w.next(r) // nothing is there
			w.exec("COMMIT")
			if got := shape(w.next(r)); got != "T+f|1|1|t T+f|1|2|u T+f|1|3|t T+t|NULL|NULL|NULL" {
				w.Errorf("COMMIT is %s", got)
			}
			w.exec("BEGIN; INSERT INTO t VALUES (4); ROLLBACK")
			w.exec("BEGIN; INSERT INTO t VALUES (5)")
			w.fails("INSERT INTO t VALUES ('x')", "22P02", "")
			w.fails("INSERT INTO t VALUES (6)", "25P02", "aborted")
			w.tag("COMMIT", "ROLLBACK")
			w.want("SELECT a FROM t", "1", "3")
			for _, refused := range [][3]string{
				{"INSERT INTO t VALUES (7); SELECT * FROM t", "25000", "write-only mode"},
				{"INSERT INTO t VALUES (7); DECLARE c CURSOR FOR TAIL t", "25000", "write-only mode"},
				{"SELECT * FROM t; INSERT INTO t VALUES (7)", "25006", "read-only mode"},
				{"UPDATE t SET a = 1", "25001", "UPDATE cannot be run inside a transaction block"},
				{"DELETE FROM t", "25001", "cannot be run inside a transaction block"},
				{"INSERT INTO t SELECT * FROM t", "25001", "cannot be run inside a transaction block"},
				{"CREATE TABLE z (a int)", "25001", "cannot be run inside a transaction block"},
				{"DROP TABLE t", "25001", "cannot be run inside a transaction block"},
			} {
				w.exec("BEGIN")
				w.fails(refused[0], refused[1], refused[2])
				w.exec("ROLLBACK")
			}
			w.exec("BEGIN READ ONLY")
			w.fails("INSERT INTO t VALUES (7)", "25006", "read-only mode")
			w.exec("ROLLBACK; BEGIN; SELECT 1; INSERT INTO t SELECT 8, 'y'; SELECT 2; COMMIT")
			w.want("SELECT a FROM t", "1", "3", "8")
		},
		"batches": func(w *world) {
			w.s.Batch()
			w.exec("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
			if err := w.s.EndBatch(w.Context(), true); err != nil {
				w.Error(err)
			}
			w.want("SELECT a FROM t")
			w.s.Batch()
			w.exec("INSERT INTO t VALUES (3); SELECT * FROM t; INSERT INTO t VALUES (4); DELETE FROM t WHERE a = 3; INSERT INTO t VALUES (5)")
			if err := w.s.EndBatch(w.Context(), true); err != nil {
				w.Error(err)
			}
			w.want("SELECT a FROM t", "4")
			w.s.Batch()
			w.exec("INSERT INTO t VALUES (6); BEGIN; INSERT INTO t VALUES (7)")
			if err := w.s.EndBatch(w.Context(), false); err != nil {
				w.Error(err)
			}
			w.exec("ROLLBACK")
			w.want("SELECT a FROM t", "4")
		},
		"restart": func(w *world) {
			w.exec(`CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, sum(a) AS s FROM t; INSERT INTO t VALUES (1), (2), (2), (3);
				CREATE TABLE gone (a text); INSERT INTO gone VALUES ('x'); DROP TABLE gone;
				CREATE TABLE gone (b int); INSERT INTO gone VALUES (7)`)
			for range 3 {
				w.restart()
				w.want("SELECT * FROM m", "4|8")
				w.want("SELECT * FROM gone", "7")
				w.exec("DELETE FROM t WHERE a = 2; INSERT INTO t VALUES (2), (2)")
				w.want("SELECT * FROM m", "4|8")
			}
		},
		"views": func(w *world) {
			w.exec("INSERT INTO t VALUES (1, 'a'), (2, 'b'); CREATE MATERIALIZED VIEW m AS SELECT b, sum(a) AS n FROM t GROUP BY b")
			w.want("SELECT * FROM m", "a|1", "b|2")
			w.exec("INSERT INTO t VALUES (3, 'a'); UPDATE t SET b = 'c' WHERE a = 2")
			w.want("SELECT * FROM m", "a|4", "c|2")
			r := w.stream("TAIL t")
			w.next(r)
			w.exec("DROP TABLE t CASCADE")
			w.ends(r, "42704", "relation 'materialize.public.t' was dropped")
			w.want("SHOW OBJECTS")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, engine.Options{})
				w.exec(create)
				w.exec("CREATE VIEW v AS SELECT a FROM t")
				test(w)
				w.stop()
			})
		})
	}
}

// expanded is an expression for a text of 8 MiB.
var expanded = strings.Repeat("replace(", 5) + "'xxxxxxxx'" + strings.Repeat(", 'x', 'xxxxxxxxxxxxxxxx')", 5)

// copyFails holds the error of a COPY against a SQLSTATE and a part of its message.
func (w *world) copyFails(text, data, code, message string) {
	w.Helper()
	st, err := w.s.Parse(text)
	if err != nil {
		w.Fatal(err)
	}
	r, err := w.s.Execute(w.Context(), st[0])
	if err != nil {
		w.Fatal(err)
	}
	if err = r.CopyIn.Write([]byte(data)); err == nil {
		_, err = r.CopyIn.End(w.Context())
	}
	var e *engine.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, message) {
		w.Errorf("%s of %q\ngot  %#v\nwant %s %s", text, data, err, code, message)
	}
}

// tag holds a statement's command tag against a text.
func (w *world) tag(text, want string) {
	w.Helper()
	st, err := w.s.Parse(text)
	if err != nil {
		w.Fatal(err)
	}
	r, err := w.s.Execute(w.Context(), st[0])
	if err != nil {
		w.Errorf("%s: %v", text, err)
		return
	}
	if got := r.Tag(); got != want {
		w.Errorf("%s: got %s, want %s", text, got, want)
	}
}

// TestFullTables writes until there is no more room in memory: writers are told, views go on.
func TestFullTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{MaxBytes: 1 << 20})
		w.exec("CREATE TABLE t (x int, s text); CREATE MATERIALIZED VIEW n AS SELECT count(*) FROM t")
		rows, err := 0, error(nil)
		for ; err == nil && rows < 1000; rows++ {
			_, err = tryQuery(t.Context(), w.s, fmt.Sprintf("INSERT INTO t VALUES (%d, '%s')", rows, strings.Repeat("x", 5000)))
		}
		var e *engine.Error
		if !errors.As(err, &e) || e.Code != "53200" || rows < 20 {
			t.Fatalf("%d rows, then %v", rows, err)
		}
		w.want("SELECT * FROM n", fmt.Sprint(rows-1))
		w.fails("UPDATE t SET s = s || s || s WHERE x < 3", "53200", "out of memory")
		w.exec("DELETE FROM t WHERE x < 3")
		settle()
		w.want("SELECT * FROM n", fmt.Sprint(rows-4))
		w.stop()
	})
}

// TestAlone counts a table into another while many sessions insert: at the time of each count, the table had as many rows as it says.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{})
		w.exec("CREATE TABLE n (x int); CREATE TABLE c (total int)")
		r := w.stream("SUBSCRIBE TO (SELECT x, 'n' FROM n UNION ALL SELECT total, 'c' FROM c) WITH (PROGRESS)")
		w.next(r) // AS OF
		w.next(r) // nothing is there
		const sessions, each = 6, 20
		var wg sync.WaitGroup
		for i := range sessions {
			wg.Go(func() {
				s := w.e.NewSession()
				defer s.Close()
				for range each {
					exec(t, s, fmt.Sprintf("INSERT INTO n VALUES (%d)", i))
					if i == 0 {
						exec(t, s, "INSERT INTO c SELECT count(*) FROM n")
					}
				}
			})
		}
		wg.Wait()
		rows, counts := int64(0), 0
		for rows < sessions*each || counts < each {
			chunk, err := r.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for len(chunk) > 0 {
				at, n := chunk[0][0], 0 // the changes of one time
				for n < len(chunk) && chunk[n][0] == at {
					if chunk[n][4].Str() == "n" {
						rows += chunk[n][2].Int()
					}
					n++
				}
				for _, c := range chunk[:n] {
					if c[4].Str() != "c" {
						continue
					}
					counts++
					if c[3].Int() != rows {
						t.Errorf("at %s there are %d rows, and %s were counted", at, rows, c[3])
					}
				}
				chunk = chunk[n:]
			}
		}
		r.Close()
		w.stop()
	})
}
