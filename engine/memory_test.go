package engine_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mzdio/mzd/engine"
)

// problems are the views that cannot be read any more, and why.
func problems(w *world) map[string]string {
	out := map[string]string{}
	for _, v := range w.e.Stats().Views {
		if v.Problem != "" {
			out[v.Name] = v.Problem
		}
	}
	return out
}

// TestMemory lets one view of several grow past what all may hold: it goes, and with it who reads it, and nobody else, not even one that
// holds more but does not grow.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{MaxBytes: 4 << 20})
		w.write("in", "1\n")
		w.write("past", numbered("line ", 1, 6000))
		w.exec(`CREATE SOURCE past FROM FILE 'past' FORMAT TEXT;
			CREATE MATERIALIZED VIEW still AS SELECT text, count(*) FROM past GROUP BY text;
			SELECT count(*) FROM still;
			CREATE SOURCE lines FROM FILE 'in' WITH (tail = true) FORMAT TEXT;
			CREATE MATERIALIZED VIEW large AS SELECT text, count(*) FROM lines GROUP BY text;
			CREATE MATERIALIZED VIEW above AS SELECT count(*) FROM large;
			CREATE MATERIALIZED VIEW small AS SELECT count(*) FROM lines;
			SELECT * FROM above; SELECT * FROM small`)
		large, above, small := w.stream("TAIL large"), w.stream("TAIL above"), w.stream("TAIL small")
		query := w.stream("TAIL (SELECT count FROM large WHERE text = '1')")
		w.next(query)
		w.write("in", numbered("line ", 1, 20_000))
		const why = "out of memory: large held"
		for _, r := range []*engine.Result{large, above, query} {
			w.ends(r, "53200", why)
		}
		w.fails("SELECT * FROM large", "53200", why)
		w.fails("SELECT * FROM above", "53200", why)
		w.fails("TAIL (SELECT text FROM large)", "53200", why)
		got := problems(w)
		if len(got) != 2 || !strings.HasPrefix(got["large"], why) || got["above"] != got["large"] {
			t.Errorf("problems are %q", got)
		}
		w.write("in", "2\n")
		for last := ""; !strings.HasSuffix(last, "|1|20002"); {
			rows := w.next(small)
			last = rows[len(rows)-1]
		}
		w.want("SELECT count(*) FROM still", "6000")
		// What it held is free for others.
		w.exec("DROP VIEW large CASCADE; CREATE MATERIALIZED VIEW large AS SELECT substr(text, 1, 1), count(*) FROM lines GROUP BY 1")
		w.want("SELECT * FROM large", "1|1", "2|1", "l|20000")
		w.stop()
	})
}

// TestMemoryOnce asks for more than there is while a view is being built, and in one step: neither takes the engine down.
func TestMemoryOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{MaxBytes: 2 << 20})
		w.exec(`CREATE TABLE t (a int); INSERT INTO t SELECT * FROM generate_series(1, 1000)`)
		const why = "out of memory: "
		w.want("SELECT count(*) FROM t, t AS u, t AS v", "1000000000") // a row with a count
		w.fails("SELECT sum(t.a + u.a + v.a) FROM t, t AS u, t AS v", "53200", why)
		w.fails("SELECT sum(a) FROM t, generate_series(1, 100000)", "53200", why)
		// There are more copies of a row than a count has bits for.
		const endless = "bigint out of range: "
		w.want("SELECT count(*) FROM t, t AS u, t AS v, t AS w, t AS x, t AS y", "1000000000000000000")
		w.fails("SELECT count(*) FROM t, t AS u, t AS v, t AS w, t AS x, t AS y, t AS z", "22003", endless+"the query has more copies")
		w.exec(`CREATE TABLE n (a int); CREATE MATERIALIZED VIEW most AS SELECT count(*) FROM n, t, t AS v, t AS w, t AS x, t AS y, t AS z;
			INSERT INTO n SELECT * FROM generate_series(1, 9)`)
		w.want("SELECT * FROM most", "9000000000000000000")
		w.exec("INSERT INTO n VALUES (10)")
		w.fails("SELECT * FROM most", "22003", endless+"most has more copies")
		w.exec("DROP TABLE n CASCADE; CREATE TABLE p (a int); INSERT INTO p SELECT * FROM generate_series(1, 256)")
		w.fails("SELECT count(*) FROM p"+strings.Join(repeated(", p AS p%d", 8), ""), "22003", endless) // 2^72
		w.exec("CREATE MATERIALIZED VIEW large AS SELECT t.a FROM t JOIN t AS u ON t.a > u.a")
		w.ends(w.stream("TAIL large"), "53200", why)
		w.exec("DROP VIEW large; CREATE MATERIALIZED VIEW small AS SELECT count(*) FROM t AS t JOIN t AS u USING (a)")
		w.want("SELECT * FROM small", "1000")
		w.exec("CREATE MATERIALIZED VIEW later AS SELECT t.a + u.a FROM t JOIN t AS u ON t.a > 1000 AND u.a > 1000; SELECT * FROM later; INSERT INTO t SELECT * FROM generate_series(1001, 4000)")
		w.fails("SELECT * FROM later", "53200", why)
		w.want("SELECT count(*) FROM t", "4000")
		w.stop()
	})
}

// TestMemoryOfResults keeps the results of queries open: they are in each other's way, and in nobody else's.
func TestMemoryOfResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{MaxBytes: 4 << 20})
		w.exec(`CREATE TABLE t (a int); CREATE TABLE u (a int); CREATE MATERIALIZED VIEW v AS SELECT a, count(*) FROM u GROUP BY a;
			INSERT INTO t SELECT * FROM generate_series(1, 5000); SELECT * FROM v`)
		const all, why = "SELECT a, a, a, a, a, a FROM t", "out of memory: "
		open := []*engine.Result{w.stream(all), w.stream(all)}
		for _, r := range open {
			if got := len(w.next(r)); got != 5000 {
				t.Fatalf("%d rows", got)
			}
		}
		w.fails(all, "53200", why)
		w.exec("INSERT INTO u VALUES (0)" + strings.Join(repeated(", (%d)", 2000), ""))
		settle()
		w.exec("INSERT INTO u VALUES (0)")
		w.want("SELECT a, count FROM v WHERE a < 2", "0|3", "1|1")
		if got := problems(w); len(got) > 0 {
			t.Errorf("given up: %q", got)
		}
		open[0].Close()
		if got := len(w.rows("SELECT a, a, a, a FROM t")); got != 5000 {
			t.Errorf("%d rows", got)
		}
		w.exec("BEGIN")
		w.exec(strings.Join(repeated("DECLARE c%d CURSOR FOR SELECT * FROM v;", 64), ""))
		w.fails("DECLARE c CURSOR FOR SELECT 1", "53400", "too many cursors (limit 64); close some")
		w.stop()
	})
}

func repeated(pattern string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(pattern, i)
	}
	return out
}

// TestMemoryOfTexts makes long texts of short ones, in all places where expressions are: far less than all of them is ever there.
func TestMemoryOfTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const texts, why = 100, "out of memory: "
		w := newWorld(t, engine.Options{MaxBytes: 32 << 20})
		w.exec("CREATE TABLE t (x text); CREATE MATERIALIZED VIEW n AS SELECT count(*) FROM t")
		of := func(x string) string { return strings.ReplaceAll(expanded, "'xxxxxxxx'", x) } // 1 MiB for each character
		w.exec("CREATE MATERIALIZED VIEW mapped AS SELECT " + of("x") + " AS x FROM t")
		w.exec("CREATE MATERIALIZED VIEW reduced AS SELECT string_agg(x, " + of("left(x, 1)") + ") FROM t")
		w.exec("SELECT * FROM mapped; SELECT * FROM reduced")
		for name, text := range map[string]string{
			"VALUES":      "SELECT count(*) FROM (VALUES (" + expanded + ")" + strings.Repeat(", ("+expanded+")", texts) + ") AS v (x)",
			"constants":   "EXPLAIN SELECT " + expanded + strings.Repeat(", "+expanded, texts),
			"expansion":   fmt.Sprintf("SELECT %s || g FROM generate_series(1, %d) AS g", expanded, texts),
			"a join":      fmt.Sprintf("SELECT %s || g FROM generate_series(1, %d) AS g JOIN (VALUES (1)) AS v (a) ON g > a", expanded, texts),
			"an insert":   "INSERT INTO t VALUES (" + expanded + ")" + strings.Repeat(", ("+expanded+")", texts),
			"two inserts": fmt.Sprintf("INSERT INTO t SELECT %s || g FROM generate_series(1, %d) AS g", expanded, texts),
			"views":       "INSERT INTO t VALUES ('xxxxxxxx')" + strings.Join(repeated(", ('xxxx%d')", texts), ""),
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := tryQuery(t.Context(), w.s, text)
			settle()
			runtime.ReadMemStats(&after)
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 400 {
				t.Errorf("%s: %d MiB, then %v", name, mib, err)
			}
		}
		for _, name := range []string{"mapped", "reduced"} {
			w.fails("SELECT * FROM "+name, "53200", why)
		}
		w.want("SELECT * FROM n", "101")
		w.restart()
		for _, name := range []string{"mapped", "reduced"} {
			w.fails("SELECT * FROM "+name, "53200", why)
		}
		w.want("SELECT * FROM n", "101")
		w.stop()
	})
}
