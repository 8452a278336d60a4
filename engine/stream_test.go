package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
)

// users is a source of user names, counted.
const users = `CREATE SOURCE lines FROM FILE 'in' WITH (tail = true) FORMAT TEXT;
	CREATE VIEW plain AS SELECT text AS user, mz_line_no AS n FROM lines WHERE text <> '';
	CREATE MATERIALIZED VIEW edits AS SELECT user, count(*) FROM plain GROUP BY user;
	CREATE MATERIALIZED VIEW top AS SELECT * FROM edits ORDER BY count DESC LIMIT 3;`

// TestStream goes through the shapes and ends of streams.
func TestStream(t *testing.T) {
	for name, test := range map[string]func(w *world){
		"rows": func(w *world) {
			r := w.stream("TAIL edits")
			if got, want := fieldText(r), "mz_timestamp numeric(39,0), mz_diff int8, user text, count int8"; got != want {
				w.Errorf("got %s, want %s", got, want)
			}
			if len(r.Notices) != 1 || r.Notices[0].Code != "01000" {
				w.Errorf("got %v", r.Notices)
			}
			first := w.next(r)
			if got, want := shape(first), "T+1|a|2 T+1|b|1"; got != want {
				w.Errorf("got %s, want %s", got, want)
			}
			w.write("in", "a\nc\n")
			if got, want := shape(w.next(r)), "T+-1|a|2 T+1|a|3 T+1|c|1"; got != want {
				w.Errorf("got %s, want %s", got, want)
			}
		},
		"progress": func(w *world) {
			r := w.stream("SUBSCRIBE TO edits WITH (PROGRESS)")
			if got, want := fieldText(r), "mz_timestamp numeric(39,0), mz_progressed bool, mz_diff int8, user text, count int8"; got != want {
				w.Errorf("got %s, want %s", got, want)
			}
			rows := read(w, r)
			if len(rows) != 1 || !rows[0][1].Bool() || !rows[0][2].IsNull() || !rows[0][3].IsNull() {
				w.Fatalf("first chunk: %v", rows)
			}
			asOf := rows[0][0].Int()
			rows = read(w, r)
			if len(rows) != 3 || rows[0][0].Int() != asOf || rows[1][0].Int() != asOf || !rows[2][1].Bool() || rows[2][0].Int() <= asOf {
				w.Fatalf("snapshot: %v", rows)
			}
			closed := rows[2][0].Int()
			for i := range 3 { // a quiet stream says about each second that it is
				before := time.Now()
				rows = read(w, r)
				if len(rows) != 1 || !rows[0][1].Bool() || rows[0][0].Int() <= closed || time.Since(before) > 1100*time.Millisecond {
					w.Fatalf("idle %d after %s: %v", i, time.Since(before), rows)
				}
				closed = rows[0][0].Int()
			}
			w.write("in", "b\n")
			for {
				rows = read(w, r)
				if len(rows) == 3 {
					break
				}
			}
			if rows[0][0].Int() < closed || rows[0][0] != rows[1][0] || rows[2][0].Int() != rows[0][0].Int()+1 {
				w.Errorf("change: %v after progress %d", rows, closed)
			}
		},
		"an empty snapshot is complete": func(w *world) {
			w.exec("CREATE MATERIALIZED VIEW none AS SELECT * FROM edits WHERE count > 100")
			r := w.stream("SUBSCRIBE TO none WITH (PROGRESS)")
			asOf := read(w, r)[0][0].Int()
			if rows := read(w, r); len(rows) != 1 || !rows[0][1].Bool() || rows[0][0].Int() <= asOf {
				w.Errorf("got %v", rows)
			}
		},
		"without snapshot": func(w *world) {
			r := w.stream("SUBSCRIBE TO edits WITH (SNAPSHOT = false)")
			go func() { time.Sleep(time.Second); w.write("in", "z\n") }()
			if got, want := shape(w.next(r)), "T+1|z|1"; got != want {
				w.Errorf("got %s, want %s", got, want)
			}
		},
		"of a plain view, a source, a query": func(w *world) {
			for _, of := range []string{"plain", "lines", "(SELECT upper(user) FROM plain)", "(SELECT user, count(*) FROM plain GROUP BY user ORDER BY 2 DESC LIMIT 1)"} {
				r := w.stream("SUBSCRIBE TO " + of)
				w.next(r)
			}
			r := w.stream("TAIL (SELECT count FROM edits WHERE user = 'a')")
			if got := shape(w.next(r)); got != "T+1|2" {
				w.Errorf("got %s", got)
			}
			w.write("in", "b\na\n")
			if got := shape(w.next(r)); got != "T+-1|2 T+1|3" {
				w.Errorf("got %s", got)
			}
			r.Close()
			if got := len(w.e.Stats().Views); got != 2 {
				w.Errorf("%d views are left", got)
			}
		},
		"of a constant": func(w *world) {
			r := w.stream("SUBSCRIBE (SELECT 1 AS one UNION ALL SELECT 2) WITH (PROGRESS)")
			if got := w.next(r); got[0] != "18446744073709551615|t|NULL|NULL" {
				w.Errorf("got %q", got)
			}
			got := w.next(r)
			slices.Sort(got)
			if strings.Join(got, " ") != "18446744073709551615|f|1|1 18446744073709551615|f|1|2" {
				w.Errorf("got %q", got)
			}
			if _, err := r.Next(w.Context()); err != io.EOF {
				w.Errorf("got %v", err)
			}
			if got := r.Tag(); got != "SELECT 3" {
				w.Errorf("got tag %s", got)
			}
		},
		"of views that never change": func(w *world) {
			w.exec(`CREATE MATERIALIZED VIEW one AS SELECT 1 AS a UNION ALL SELECT 2; CREATE MATERIALIZED VIEW two AS SELECT count(*) FROM one;
				CREATE MATERIALIZED VIEW none AS SELECT * FROM one WHERE a > 2; CREATE VIEW three AS SELECT sum(a) FROM one;
				CREATE MATERIALIZED VIEW bad AS SELECT 1 / (a - 1) FROM one`)
			const end = "18446744073709551615"
			check := func() {
				w.Helper()
				for of, want := range map[string][]string{
					"one": {end + "|1|1", end + "|1|2"}, "two": {end + "|1|2"}, "none": nil, "three": {end + "|1|3"}, "(SELECT a FROM one, two WHERE a = 2)": {end + "|1|2"},
				} {
					w.want("SUBSCRIBE TO "+of, want...)
				}
				w.want("SUBSCRIBE TO two WITH (PROGRESS)", end+"|t|NULL|NULL", end+"|f|1|2")
				w.want("SUBSCRIBE TO two WITH (PROGRESS, SNAPSHOT = false)", end+"|t|NULL|NULL")
				w.want("SUBSCRIBE TO two AS OF 5", "5|1|2")
				w.want("SUBSCRIBE TO two WITH (PROGRESS) AS OF 5", "5|t|NULL|NULL", "5|f|1|2", end+"|t|NULL|NULL")
				w.want("SUBSCRIBE TO two WITH (PROGRESS, SNAPSHOT = false) AS OF 5", "5|t|NULL|NULL", end+"|t|NULL|NULL")
				w.want("SUBSCRIBE TO two WITH (PROGRESS) AS OF 5 UP TO 6", "5|t|NULL|NULL", "5|f|1|2")
				w.want("SUBSCRIBE (SELECT * FROM two) AS OF AT LEAST 5 UP TO 6", "5|1|2")
				w.want("SUBSCRIBE TO two AS OF '3000-01-01' UP TO '4000-01-01'", "32503680000000|1|2")
				w.want("SUBSCRIBE TO two AS OF 5 UP TO 5")
				w.want("SELECT * FROM two AS OF 5", "2")
				w.want("SELECT since FROM mzd_views WHERE name = 'one'", "0")
				w.fails("SUBSCRIBE TO bad", "XX000", "Evaluation error: division by zero")
			}
			check()
			w.restart()
			w.want("SELECT * FROM two", "2")
			check()
			// What changes is not held up by what does not, and does not become a constant.
			w.exec("CREATE MATERIALIZED VIEW mixed AS SELECT user, a FROM edits, one WHERE user = 'b'")
			r := w.stream("SUBSCRIBE TO mixed")
			if got := shape(w.next(r)); got != "T+1|b|1 T+1|b|2" {
				w.Errorf("got %s", got)
			}
			w.write("in", "b\n")
			since := query(w, w.s, "SELECT since FROM mzd_views WHERE name = 'edits'")[0][0].Int()
			w.want(fmt.Sprintf("SELECT a FROM edits, one WHERE user = 'b' AS OF %d", since), "1", "2")
			w.exec("DROP VIEW one CASCADE")
			w.ends(r, "42704", "was dropped")
		},
		"parameters": func(w *world) {
			now := query(w, w.s, "SUBSCRIBE TO edits UP TO 946684900000")[0][0].Int()
			for _, c := range []struct {
				text, types string
				values      []flow.Datum
				want        string
			}{
				{"SUBSCRIBE (SELECT count FROM edits WHERE user = $1) AS OF $2 UP TO $3", "text numeric numeric",
					[]flow.Datum{flow.NewText("a"), flow.NewUint(uint64(now)), flow.NewUint(uint64(now + 1))}, "T+1|2"},
				{"COPY (SUBSCRIBE (SELECT count + $1 FROM edits) UP TO $2::timestamptz) TO STDOUT", "int8 timestamptz",
					[]flow.Datum{flow.NewInt(flow.Int8, 5), flow.NewInt(flow.Timestamptz, 946684905000000)}, "T+1|6 T+1|7"},
				{"SELECT 0, 0, user FROM edits WHERE count > $1 AS OF $2", "int8 numeric",
					[]flow.Datum{flow.NewInt(flow.Int8, 1), flow.NewUint(uint64(now))}, "T+0|a"},
			} {
				st, err := w.s.Parse(c.text)
				if err != nil {
					w.Fatal(err)
				}
				prepared, _, err := w.s.Prepare(st[0], nil)
				if err != nil {
					w.Fatalf("%s: %v", c.text, err)
				}
				var types []string
				for _, t := range prepared.Params() {
					types = append(types, t.Name())
				}
				if got := strings.Join(types, " "); got != c.types {
					w.Errorf("%s: got types %s, want %s", c.text, got, c.types)
				}
				r, err := w.s.Execute(w.Context(), prepared.With(c.values))
				if err != nil {
					w.Fatalf("%s: %v", c.text, err)
				}
				rows, err := drain(w.Context(), r)
				if got := shape(rowTexts(rows)); err != nil || got != c.want {
					w.Errorf("%s: got %s, %v; want %s", c.text, got, err, c.want)
				}
				r.Close()
			}
			w.exec("BEGIN")
			st, err := w.s.Parse("DECLARE c CURSOR FOR SUBSCRIBE (SELECT count FROM edits WHERE user = $1)")
			if err != nil {
				w.Fatal(err)
			}
			prepared, _, err := w.s.Prepare(st[0], nil)
			if err != nil {
				w.Fatal(err)
			}
			if _, err := w.s.Execute(w.Context(), prepared.With([]flow.Datum{flow.NewText("b")})); err != nil {
				w.Fatal(err)
			}
			if got := shape(w.rows("FETCH ALL c")); got != "T+1|1" {
				w.Errorf("got %s", got)
			}
		},
		"nobody waits for who has left": func(w *world) {
			synctest.Wait()
			before := runtime.NumGoroutine()
			for range 10 {
				r := w.stream("SUBSCRIBE (SELECT * FROM edits WHERE count > 1) AS OF '3000-01-01'")
				ctx, cancel := context.WithTimeout(w.Context(), time.Second)
				if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
					w.Errorf("got %v", err)
				}
				cancel()
				r.Close()
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if after := runtime.NumGoroutine(); after > before {
				w.Errorf("%d goroutines, and %d before", after, before)
			}
		},
		"AS OF and UP TO": func(w *world) {
			now := query(w, w.s, "SUBSCRIBE TO edits UP TO 946684900000")[0][0].Int() // also waits until then
			w.want(fmt.Sprintf("SUBSCRIBE TO edits AS OF %d UP TO %d", now, now))
			w.want(fmt.Sprintf("SUBSCRIBE TO edits AS OF %d UP TO %d", now, now+1), fmt.Sprintf("%d|1|a|2", now), fmt.Sprintf("%d|1|b|1", now))
			w.fails(fmt.Sprintf("SUBSCRIBE TO edits AS OF %d UP TO %d", now+1, now), "22000", "is greater than its upper bound")
			w.fails("SUBSCRIBE TO edits AS OF 5", "22000", "could not find a valid timestamp")
			w.fails("SUBSCRIBE TO plain AS OF 5", "22000", "could not find a valid timestamp")
			w.fails("SELECT * FROM edits AS OF 5", "22000", "could not find a valid timestamp")
			w.fails("SUBSCRIBE TO edits AS OF NULL", "22000", "should be castable")
			w.fails("SUBSCRIBE TO edits AS OF 'x'", "22000", "should be castable")
			w.fails("SUBSCRIBE TO edits AS OF -1", "22000", "should be castable")
			if got := len(w.rows(fmt.Sprintf("SELECT * FROM edits AS OF %d", now))); got != 2 {
				w.Errorf("got %d rows", got)
			}
			if got := len(w.rows("SUBSCRIBE TO edits AS OF AT LEAST 5 UP TO '2000-01-01 00:10:00'")); got != 2 {
				w.Errorf("got %d rows", got)
			}
			future := time.Now().Add(time.Minute).UnixMilli()
			r := w.stream(fmt.Sprintf("SUBSCRIBE TO edits AS OF %d", future))
			if got := read(w, r)[0][0].Int(); got != future || time.Now().UnixMilli() < future {
				w.Errorf("got %d at %d, want %d", got, time.Now().UnixMilli(), future)
			}
		},
		"UPSERT": func(w *world) {
			r := w.stream("SUBSCRIBE TO edits ENVELOPE UPSERT (KEY (count)) WITH (PROGRESS)")
			if got, want := fieldText(r), "mz_timestamp numeric(39,0), mz_progressed bool, mz_state text, count int8, user text"; got != want {
				w.Errorf("got %s, want %s", got, want)
			}
			if got := w.next(r); !strings.HasSuffix(got[0], "|t|NULL|NULL|NULL") {
				w.Errorf("got %q", got)
			}
			r = w.stream("SUBSCRIBE TO edits ENVELOPE UPSERT (KEY (count))")
			steps := []struct{ write, want string }{
				{"", "T+upsert|1|b T+upsert|2|a"},
				{"b\na\n", "T+delete|1|NULL T+upsert|2|b T+upsert|3|a"},
				{"c\nd\n", "T+key_violation|1|NULL"},    // two rows of one key
				{"c\n", "T+delete|1|NULL T+upsert|2|c"}, // told from the changes alone: the key has a row still
				{"b\nc\n", "T+key_violation|2|NULL T+key_violation|3|NULL"},
			}
			for _, step := range steps {
				w.write("in", step.write)
				if got := shape(w.next(r)); got != step.want {
					w.Errorf("after %q got %s, want %s", step.write, got, step.want)
				}
			}
			w.fails("SUBSCRIBE TO edits ENVELOPE UPSERT (KEY (count, count))", "42701", `column "count" appears more than once in SUBSCRIBE ENVELOPE KEY clause`)
			w.fails("SUBSCRIBE TO edits ENVELOPE UPSERT (KEY (nothing))", "42703", "column nothing does not exist")
			w.fails("SUBSCRIBE (SELECT 1 AS a, 2 AS a) ENVELOPE UPSERT (KEY (a))", "42702", "column a is ambiguous")
		},
		"words": func(w *world) {
			for text, want := range map[string]string{
				"SUBSCRIBE TO edits AS OF 7 UP TO 7": "NOTICE 00000 subscribe as of 7 (inclusive) and up to the same bound 7 (exclusive) is guaranteed to be empty",
				"SUBSCRIBE TO edits":                 "NOTICE 01000 streaming SUBSCRIBE rows directly requires a client that does not buffer output",
				"TAIL edits":                         "NOTICE 01000 streaming TAIL rows directly requires a client that does not buffer output",
			} {
				n := w.stream(text).Notices[0]
				if got := n.Severity + " " + n.Code + " " + n.Message; got != want {
					w.Errorf("%s: got %s, want %s", text, got, want)
				}
			}
			since := query(w, w.s, "SELECT since FROM mzd_views WHERE name = 'edits'")[0][0].Int()
			at := time.UnixMilli(since).UTC().Format("2006-01-02 15:04:05.000")
			for id, text := range map[string]string{"u3": "SUBSCRIBE TO edits AS OF 5", "u1": "SELECT * FROM plain AS OF 5", "u4": "SELECT * FROM top AS OF 5"} {
				_, err := tryQuery(w.Context(), w.s, text)
				var e *engine.Error
				want := fmt.Sprintf("Constraints:\nlower:\n  (Storage inputs: [%s]): [%13d (%s)]\nupper:\n  (Query's AS OF): [            5 (1970-01-01 00:00:00.005)]", id, since, at)
				if !errors.As(err, &e) || e.Code != "22000" || e.Detail != want {
					w.Errorf("%s\ngot  %#v\nwant %s", text, err, want)
				}
			}
			for _, text := range []string{"TAIL edits AS OF 5", "TAIL plain AS OF 5", "COPY (TAIL edits AS OF 5) TO STDOUT"} {
				w.fails(text, "XX000", fmt.Sprintf("Timestamp (5) is not valid for all inputs: [Antichain { elements: [%d] }]", since))
			}
			for _, x := range []string{"now()", "mz_now()", "now()::text", "'2024-01-01'::timestamp - (now() - now())"} {
				w.fails("SUBSCRIBE TO edits AS OF "+x, "0A000", "calling an unmaterializable function in AS OF or UP TO not yet supported")
			}
		},
		"an evaluation error": func(w *world) {
			w.exec(`CREATE MATERIALIZED VIEW inv AS SELECT user, 1 / (count - 3) AS x FROM edits;
				CREATE MATERIALIZED VIEW deps AS SELECT count(*) FROM inv WHERE x >= 0;
				CREATE MATERIALIZED VIEW fine AS SELECT count(*) FROM edits`)
			w.want("SELECT * FROM inv", "a|-1", "b|0")
			r, d := w.stream("SUBSCRIBE TO inv"), w.stream("SUBSCRIBE TO deps")
			w.next(r)
			w.next(d)
			w.write("in", "a\n")
			w.ends(r, "XX000", "Evaluation error: division by zero")
			w.ends(d, "XX000", "Evaluation error: division by zero")
			_, err := tryQuery(w.Context(), w.s, "SELECT * FROM inv")
			var e *engine.Error
			if !errors.As(err, &e) || e.Code != "XX000" || !strings.Contains(e.Detail, "inv") {
				w.Errorf("got %v", err)
			}
			w.fails("SUBSCRIBE TO inv", "XX000", "Evaluation error: division by zero")
			w.fails("SELECT x FROM inv", "XX000", "Evaluation error: division by zero")
			w.want("SELECT count(*) FROM fine", "1")
			w.want("SELECT * FROM edits", "a|3", "b|1")
			if s := w.e.Stats().Views[2]; s.Name != "inv" || s.Errors != 1 {
				w.Errorf("got %+v", s)
			}
			w.write("in", "a\n") // the group that failed is no more: so is the error
			settle()
			w.want("SELECT * FROM inv", "a|1", "b|0")
			w.want("SELECT * FROM deps", "2")
		},
		"a dropped view": func(w *world) {
			a, b, c := w.stream("SUBSCRIBE TO top"), w.stream("SUBSCRIBE (SELECT * FROM top)"), w.stream("SUBSCRIBE (SELECT * FROM plain)")
			for _, r := range []*engine.Result{a, b, c} {
				w.next(r)
			}
			w.exec("DROP VIEW top")
			w.ends(a, "42704", "relation 'materialize.public.top' was dropped")
			w.ends(b, "42704", "relation 'materialize.public.top' was dropped")
			w.exec("DROP VIEW plain CASCADE")
			w.ends(c, "42704", "relation 'materialize.public.plain' was dropped")
			w.want("SHOW VIEWS")
			w.fails("SUBSCRIBE TO top", "42704", "unknown catalog item 'top'")
		},
		"the engine's own relations": func(w *world) {
			w.fails("CREATE MATERIALIZED VIEW x AS SELECT * FROM mz_objects", "0A000", "a view cannot read the relations of the engine itself")
			w.fails("DROP VIEW mz_internal.mzd_views", "42809", "system item 'mzd_views' cannot be modified")
			w.want("SELECT name FROM mz_catalog.mz_objects WHERE type = 'materialized-view'", "edits", "top")
			w.want("SELECT name, type, state, rows, errors, problem FROM mz_internal.mzd_views",
				"edits|materialized-view|ready|2|0|NULL", "top|materialized-view|ready|2|0|NULL")
			w.want("SELECT name, state, read, size, lines, rejected FROM mz_internal.mzd_sources", "lines|tailing|7|7|4|0")
			w.want("SELECT count(*) FROM mzd_ticks WHERE ticks > 0 AND lines = 4 AND last_tick_ms >= 0", "1")
			views := w.stream("SUBSCRIBE (SELECT name, rows, updates FROM mz_internal.mzd_views)")
			objects := w.stream("SUBSCRIBE TO mz_objects WITH (SNAPSHOT = false)")
			if got := shape(w.next(views)); got != "T+1|edits|2|0 T+1|top|2|0" {
				w.Errorf("got %s", got)
			}
			w.write("in", "c\n")
			w.write("in", "c\n")
			before := time.Now()
			if got := shape(w.next(views)); got != "T+-1|edits|2|0 T+-1|top|2|0 T+1|edits|3|1 T+1|top|3|1" {
				w.Errorf("got %s", got)
			}
			if waited := time.Since(before); waited > 2*time.Second {
				w.Errorf("waited %s", waited)
			}
			w.exec("CREATE VIEW another AS SELECT 1")
			if got := shape(w.next(objects)); got != "T+1|u6|another|view" {
				w.Errorf("got %s", got)
			}
			// Joined with the data, and read at a time: all of one tick.
			w.want("SELECT v.rows - e.n FROM mz_internal.mzd_views v, (SELECT count(*) AS n FROM edits) e WHERE v.name = 'edits'", "0")
			at := query(w, w.s, "SUBSCRIBE TO mzd_ticks AS OF AT LEAST 0 UP TO 946684900000")
			last := at[len(at)-1]
			w.want(fmt.Sprintf("SELECT upper, ticks FROM mzd_ticks AS OF %d", last[0].Int()), fmt.Sprintf("%s|%s", last[len(last)-1], last[2]))
			for _, v := range w.e.Stats().Views {
				if v.ID[0] != 'u' {
					w.Errorf("%s is listed as a view of the user", v.Name)
				}
			}
		},
		"COPY": func(w *world) {
			r := w.stream("COPY (SELECT * FROM edits) TO STDOUT")
			if rows := read(w, r); r.Copy != "text" || len(rows) != 2 {
				w.Errorf("got %v", rows)
			}
			if _, err := r.Next(w.Context()); err != io.EOF || r.Tag() != "COPY 2" {
				w.Errorf("got %v, %s", err, r.Tag())
			}
		},
		"an expired context polls": func(w *world) {
			r := w.stream("SUBSCRIBE TO edits")
			w.next(r)
			expired, cancel := context.WithCancel(w.Context())
			cancel()
			if _, err := r.Next(expired); !errors.Is(err, context.Canceled) {
				w.Errorf("got %v", err)
			}
			w.write("in", "a\n")
			settle()
			rows, err := r.Next(expired)
			if err != nil || shape(rowTexts(rows)) != "T+-1|a|2 T+1|a|3" {
				w.Errorf("got %v, %v", rows, err)
			}
		},
		"the engine stops": func(w *world) {
			r := w.stream("SUBSCRIBE TO edits")
			w.next(r)
			go w.stop()
			w.ends(r, "57P01", "terminating connection")
		},
		"history is bounded by bytes": func(w *world) {
			r := w.stream("SUBSCRIBE TO edits WITH (PROGRESS)")
			asOf := read(w, r)[0][0].Int()
			for range 100 {
				w.write("in", numbered("user", 1, 100))
				time.Sleep(50 * time.Millisecond)
			}
			settle()
			w.fails(fmt.Sprintf("SUBSCRIBE TO edits AS OF %d", asOf), "22000", "could not find a valid timestamp")
			w.ends(r, "XX000", "fell behind")
			if got := w.e.Stats().Views[0].HistoryBytes; got > 200_000 {
				w.Errorf("history of %d bytes", got)
			}
		},
		"history is bounded by time": func(w *world) {
			asOf := query(w, w.s, "SUBSCRIBE TO edits UP TO 946684803000")[0][0].Int()
			w.write("in", "a\n")
			time.Sleep(5 * time.Minute)
			if got := len(w.rows(fmt.Sprintf("SELECT * FROM edits AS OF %d", asOf))); got != 2 {
				w.Errorf("got %d rows", got)
			}
			w.write("in", "a\n")
			time.Sleep(10 * time.Minute)
			w.fails(fmt.Sprintf("SELECT * FROM edits AS OF %d", asOf), "22000", "could not find a valid timestamp")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, engine.Options{HistoryBytes: 150_000})
				w.write("in", "a\nb\na\n\n")
				w.exec(users)
				w.rows("SELECT * FROM top") // built
				test(w)
				w.stop()
			})
		})
	}
}

func fieldText(r *engine.Result) string {
	var parts []string
	for _, f := range r.Fields {
		name := f.Type.Name()
		if m := f.Type.Typmod(); m >= 0 {
			name += fmt.Sprintf("(%d,%d)", (m-4)>>16, (m-4)&0xFFFF)
		}
		parts = append(parts, f.Name+" "+name)
	}
	return strings.Join(parts, ", ")
}

// read reads one chunk of a stream.
func read(w *world, r *engine.Result) []flow.Row {
	w.Helper()
	rows, err := r.Next(w.Context())
	if err != nil {
		w.Fatalf("next: %v", err)
	}
	return rows
}

// shape writes the rows of a stream in order, their times as T.
func shape(rows []string) string {
	out := slices.Clone(rows)
	for i, r := range out {
		_, rest, _ := strings.Cut(r, "|")
		out[i] = "T+" + rest
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestParts reads more rows of one time than are sent together.
func TestParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{})
		const n = 25_000
		w.exec(fmt.Sprintf("CREATE TABLE t (x int); INSERT INTO t SELECT * FROM generate_series(1, %d)", n))
		for options, parts := range map[string]int{"": 3, " ENVELOPE UPSERT (KEY (x))": 1} {
			r := w.stream("SUBSCRIBE TO t" + options + " WITH (PROGRESS)")
			w.next(r)
			part := func() (rows int) { // up to a progress
				w.Helper()
				for range parts {
					chunk := read(w, r)
					if parts > 1 && len(chunk) > 10_001 {
						w.Errorf("%d rows in a part", len(chunk))
					}
					rows += len(chunk)
					if last := chunk[len(chunk)-1]; last[1].Bool() {
						return rows - 1
					}
				}
				w.Fatalf("%s: %d rows in %d parts, and no progress", options, rows, parts)
				return 0
			}
			if got := part(); got != n {
				w.Errorf("%s: got %d rows of %d", options, got, n)
			}
			w.exec(fmt.Sprintf("INSERT INTO t SELECT * FROM generate_series(%d, %d)", 2*n, 3*n-1))
			got := 0
			for got == 0 {
				got = part()
			}
			if got != n {
				w.Errorf("%s: got %d rows of a change, want %d", options, got, n)
			}
			r.Close()
			w.exec(fmt.Sprintf("DELETE FROM t WHERE x > %d", n))
		}
		w.stop()
	})
}

// TestResume cuts a stream at random times and resumes it: nothing may be missing or come twice, for any kind of view. At every time the
// sum of the stream is what a SELECT reads at that time.
func TestResume(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { resume(t, seed) })
		})
	}
}

// logged is a row of a stream.
type logged struct {
	time int64
	diff int64
	row  string
}

// follow reads a stream until its progress is at least some time, and returns its rows and that progress.
func follow(w *world, r *engine.Result, until int64) (rows []logged, upper int64) {
	for upper < until {
		for _, row := range read(w, r) {
			at := row[0].Int()
			if at < upper {
				w.Fatalf("%s after progress %d", rowText(row), upper)
			}
			if row[1].Bool() {
				upper = at
				continue
			}
			rows = append(rows, logged{at, row[2].Int(), rowText(row[3:])})
		}
	}
	return rows, upper
}

// sum is what a stream comes to before a time.
func sum(rows []logged, before int64) []string {
	bag := map[string]int64{}
	for _, l := range rows {
		if l.time < before {
			bag[l.row] += l.diff
		}
	}
	var out []string
	for r, n := range bag {
		if n < 0 {
			out = append(out, fmt.Sprintf("%s x %d", r, n))
		}
		for range n {
			out = append(out, r)
		}
	}
	slices.Sort(out)
	return out
}

func resume(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 5))
	w := newWorld(t, engine.Options{TickEvents: 1 + rnd.IntN(20), Shuffle: rnd.Shuffle})
	w.write("in", "a\n")
	w.exec(users)
	relations := []string{"edits", "top", "plain", "lines", "(SELECT a.user, b.n FROM edits a JOIN plain b ON a.user = b.user AND a.count = b.n)",
		"(SELECT count, count(*), min(user) FROM edits GROUP BY count HAVING count(*) > 1)"}
	of := relations[rnd.IntN(len(relations))]
	what := fmt.Sprintf("seed %d, %s", seed, of)
	full := w.stream("SUBSCRIBE TO " + of + " WITH (PROGRESS)")
	start := read(w, full)[0][0].Int()
	for range 30 {
		for range rnd.IntN(30) {
			w.write("in", fmt.Sprintf("%c\n", 'a'+rnd.IntN(8)))
		}
		time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
	}
	settle()
	all, upper := follow(w, full, time.Now().UnixMilli()-1000)
	for range 5 {
		at := start + rnd.Int64N(upper-start)
		r := w.stream(fmt.Sprintf("SUBSCRIBE TO %s WITH (PROGRESS, SNAPSHOT = false) AS OF %d", of, at))
		read(w, r)
		rest, _ := follow(w, r, upper)
		want := slices.DeleteFunc(slices.Clone(all), func(l logged) bool { return l.time <= at })
		rest = slices.DeleteFunc(rest, func(l logged) bool { return l.time >= upper })
		order := func(a, b logged) int {
			if a.time != b.time {
				return int(a.time - b.time)
			}
			return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
		}
		slices.SortFunc(rest, order)
		slices.SortFunc(want, order)
		if !slices.Equal(rest, want) {
			t.Fatalf("%s, AS OF %d\ngot  %v\nwant %v", what, at, rest, want)
		}
		from := of
		if from[0] == '(' {
			from += " AS q"
		}
		got := w.rows(fmt.Sprintf("SELECT * FROM %s AS OF %d", from, at))
		slices.Sort(got)
		if want := sum(all, at+1); !slices.Equal(got, want) {
			t.Fatalf("%s at %d\nSELECT %q\nstream %q", what, at, got, want)
		}
	}
	w.stop()
}
