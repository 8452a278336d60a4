package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/engine"
	mzsql "github.com/mzdio/mzd/sql"
)

// TestCatalog goes through statements that change the catalog.
func TestCatalog(t *testing.T) {
	for name, test := range map[string]func(w *world){
		"the same again": func(w *world) {
			for text, notice := range map[string]string{
				"create materialized VIEW  n as select COUNT(*), max(mz_line_no) from lines":              "NOTICE 42710 materialized view n already exists, skipping",
				"CREATE MATERIALIZED VIEW IF NOT EXISTS n AS SELECT count(*), max(mz_line_no) FROM lines": "NOTICE 42710 materialized view n already exists, skipping",
				"CREATE OR REPLACE MATERIALIZED VIEW n AS SELECT count(*), max(mz_line_no) FROM lines":    "NOTICE 42710 materialized view n already exists, skipping",
				"CREATE SOURCE lines FROM FILE 'in' WITH (tail) FORMAT TEXT":                              "NOTICE 42710 source lines already exists, skipping",
				"CREATE MATERIALIZED VIEW IF NOT EXISTS n AS SELECT 1":                                    "WARNING 42710 materialized view n already exists with another definition, skipping; DROP it first, or use CREATE OR REPLACE VIEW",
				"DROP VIEW IF EXISTS nothing":                                                             "NOTICE 00000 view nothing does not exist, skipping",
				"CREATE SOURCE other FROM FILE 'other' FORMAT TEXT":                                       "NOTICE 00000 file " + filepath.Join(w.dir, "other") + " does not exist yet; it is read when it appears",
			} {
				st, err := w.s.Parse(text)
				if err != nil {
					w.Fatal(err)
				}
				r, err := w.s.Execute(w.Context(), st[0])
				if err != nil {
					w.Errorf("%s: %v", text, err)
					continue
				}
				got := ""
				for _, n := range r.Notices {
					got += fmt.Sprintf("%s %s %s", n.Severity, n.Code, n.Message)
				}
				if got != notice {
					w.Errorf("%s\ngot  %s\nwant %s", text, got, notice)
				}
			}
			w.want("SELECT * FROM n", "2|2")
		},
		"another of the name": func(w *world) {
			w.fails("CREATE MATERIALIZED VIEW n AS SELECT 1", "42P07", "already exists with another definition")
			w.fails("CREATE SOURCE lines FROM FILE 'x' FORMAT TEXT", "42P07", "already exists with another definition")
			w.fails("CREATE OR REPLACE VIEW lines AS SELECT 1", "42809", "is a source")
			w.exec("CREATE OR REPLACE MATERIALIZED VIEW n AS SELECT min(text) AS first FROM lines")
			w.want("SELECT * FROM n", "a")
			w.restart()
			w.want("SELECT * FROM n", "a")
			w.want("SELECT id FROM mz_objects WHERE name = 'n'", "u3")
		},
		"another while it is read": func(w *world) {
			ctx, cancel := context.WithCancel(w.Context())
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					s := w.e.NewSession()
					defer s.Close()
					for ctx.Err() == nil {
						if _, err := tryQuery(w.Context(), s, "SELECT * FROM n"); err != nil && !strings.Contains(err.Error(), "was dropped") {
							w.Error(err)
						}
					}
				})
			}
			for i := range 30 {
				w.exec(fmt.Sprintf("CREATE OR REPLACE MATERIALIZED VIEW n AS SELECT count(*) + %d FROM lines", i))
			}
			cancel()
			wg.Wait()
			w.want("SELECT * FROM n", "31")
		},
		"dependents": func(w *world) {
			w.exec("CREATE VIEW p AS SELECT * FROM n; CREATE MATERIALIZED VIEW q AS SELECT * FROM p")
			w.fails("DROP SOURCE lines", "2BP01", "cannot drop lines: still depended upon by n, p, q")
			w.fails("DROP VIEW n", "2BP01", "still depended upon by p, q")
			w.fails("CREATE OR REPLACE VIEW n AS SELECT 1", "2BP01", "still depended upon by p, q")
			w.fails("DROP VIEW lines", "42809", "lines is not a view")
			w.fails("DROP SOURCE n", "42809", "n is not a source")
			w.fails("DROP VIEW mz_objects", "42809", "system item")
			w.fails("CREATE OR REPLACE VIEW q AS SELECT * FROM q", "42P16", "by itself")
			w.exec("DROP MATERIALIZED VIEW n CASCADE")
			w.want("SHOW OBJECTS", "lines|source")
			w.want("SELECT count(*) FROM lines", "2")
		},
		"views on views": func(w *world) {
			w.exec(`CREATE VIEW a AS SELECT text AS x FROM lines; CREATE VIEW b (y) AS SELECT upper(x) FROM a;
				CREATE MATERIALIZED VIEW c AS SELECT y, count(*) AS n FROM b GROUP BY y; CREATE MATERIALIZED VIEW d AS SELECT sum(n) FROM c`)
			w.want("SELECT * FROM c", "A|1", "B|1")
			w.want("SELECT * FROM d", "2")
			for query, want := range map[string]string{
				"(SELECT * FROM generate_series(1, 9) AS g ORDER BY g DESC LIMIT 7 OFFSET 1)":                    "8 7 6 5 4 3 2",
				"((SELECT * FROM generate_series(1, 9) AS g ORDER BY g DESC LIMIT 7 OFFSET 1)) LIMIT 9 OFFSET 2": "6 5 4 3 2",
				"(SELECT * FROM generate_series(1, 9) AS g ORDER BY g DESC OFFSET 4) LIMIT 2":                    "5 4",
				"(SELECT * FROM generate_series(1, 9) AS g ORDER BY g DESC LIMIT 2) OFFSET 3":                    "",
				"(SELECT * FROM generate_series(1, 9) AS g ORDER BY g DESC LIMIT 3) ORDER BY 1":                  "7 8 9",
			} {
				if got := strings.Join(w.rows(query), " "); got != want {
					w.Errorf("%s: got %s, want %s", query, got, want)
				}
			}
			w.write("in", "a\n")
			settle()
			w.want("SELECT * FROM c", "A|2", "B|1")
			w.want("SELECT * FROM d", "3")
			w.want("SHOW COLUMNS FROM c", "y|t|text", "n|t|bigint")
			w.want("SHOW CREATE VIEW b", "materialize.public.b|CREATE VIEW b (y) AS SELECT upper(x) FROM a")
			w.want("SHOW VIEWS", "a", "b", "c", "d", "n")
			w.want("SHOW MATERIALIZED VIEWS", "c", "d", "n")
			w.want("EXPLAIN SELECT upper(x), count(*) FROM a GROUP BY 1", "Reduce by 1 columns: count(*)", "  Map (upper(#0{text}))", "    Input lines")
			got := regexp.MustCompile(`\d+ bytes`).ReplaceAllString(strings.Join(w.rows("EXPLAIN MATERIALIZED VIEW c"), "\n"), "N bytes")
			if want := "Reduce by 1 columns: count(*) -- 2 rows, N bytes\n  Map (upper(#0{text}))\n    Input lines\n" +
				"Contents -- 2 rows, N bytes, and N bytes of history"; got != want {
				w.Errorf("got\n%s\nwant\n%s", got, want)
			}
			w.fails("EXPLAIN VIEW lines", "42809", "lines is not a view")
			w.want("SHOW CREATE MATERIALIZED VIEW c",
				"materialize.public.c|CREATE MATERIALIZED VIEW c AS SELECT y, count(*) AS n FROM b GROUP BY y")
			w.fails("SHOW CREATE MATERIALIZED VIEW b", "42809", "b is not a materialized view")
			w.fails("SHOW CREATE TABLE c", "42809", "c is not a table")
			w.fails("SHOW CREATE VIEW mz_objects", "42809", "mz_objects is not a view")
			w.fails("SHOW COLUMNS FROM nothing", "42704", "unknown catalog item 'nothing'")
			w.exec("CREATE TABLE t (a int NOT NULL, b text)")
			w.want("SHOW TABLES", "t")
			w.want("SHOW COLUMNS FROM t", "a|f|integer", "b|t|text")
			w.want("SHOW CREATE TABLE t", "materialize.public.t|CREATE TABLE t (a int NOT NULL, b text)")
			w.want("SHOW COLUMNS FROM mz_objects", "id|t|text", "name|t|text", "type|t|text")
			w.want("SHOW OBJECTS", "a|view", "b|view", "c|materialized-view", "d|materialized-view", "lines|source", "n|materialized-view", "t|table")
			w.want("SHOW SOURCES", "lines|tailing|6|6|3|0|NULL")
			w.want("SHOW MATERIALIZED SOURCES")
			w.want("SHOW INDEXES ON c")
			w.want("SHOW SCHEMAS", "mz_catalog", "mz_internal", "public")
			w.want("SHOW DATABASES", "materialize")
			w.want("SHOW CLUSTERS", "default")
		},
		"long definitions": func(w *world) {
			chain := func(operator string) string {
				return "CREATE VIEW v AS SELECT 1 FROM lines WHERE text = '0'" + strings.Repeat(operator, 300)
			}
			for _, definition := range []string{
				chain(" OR text = 'a'"), chain(" AND text <> 'b'"), "CREATE VIEW v AS SELECT 1 FROM lines WHERE mz_line_no = 1" + strings.Repeat(" OR mz_line_no - 1 + 2 * 3 % 4 > 0", 300),
				"CREATE VIEW v AS SELECT text" + strings.Repeat(" || text", 300) + " AS x FROM lines",
				"CREATE VIEW v AS SELECT mz_line_no" + strings.Repeat(" + 1 - 2", 150) + " AS x FROM lines",
				"CREATE VIEW v AS SELECT 1 AS x" + strings.Repeat(" UNION ALL SELECT 2", 300),
			} {
				w.exec(definition)
				before := w.rows("SELECT count(*) FROM v")
				w.restart()
				w.want("SELECT count(*) FROM v", before...)
				w.exec(definition + "; DROP VIEW v") // the same again
			}
			// What a restart could not read is refused at once.
			w.fails("CREATE VIEW v AS SELECT "+strings.Repeat("NOT ", 150)+"true AS x", "54001", "the definition of view v cannot be kept: in its normal form, statement nested deeper than 200")
			w.fails("CREATE TABLE v (x bool DEFAULT "+strings.Repeat("NOT ", 150)+"true)", "54001", "the definition of table v cannot be kept")
			w.restart()
			w.want("SHOW VIEWS", "n")
		},
		"names": func(w *world) {
			w.exec(`CREATE VIEW public."Odd name" AS SELECT 1 AS "select", 2 AS user`)
			w.want(`SELECT "select", user FROM materialize.public."Odd name"`, "1|2")
			w.fails("CREATE VIEW other.v AS SELECT 1", "3F000", "unknown schema")
			w.fails("SELECT * FROM pg_catalog.pg_class", "0A000", "1:15: there is no pg_catalog in the embedded engine")
			w.fails("SELECT * FROM pg_tables", "42704", "1:15: unknown catalog item 'pg_tables'")
			if _, err := tryQuery(t.Context(), w.s, "SELECT * FROM pg_tables"); !strings.Contains(fmt.Sprint(err.(*engine.Error).Hint), "SHOW TABLES") {
				t.Errorf("no hint: %v", err)
			}
			w.fails("SELECT 1 OPERATOR(information_schema.~) 2", "0A000", "there is no information_schema in the embedded engine")
			w.fails("SELECT 1 OPERATOR(other.~) 2", "42601", "")
			w.fails("CREATE VIEW v AS SELECT 1 AS a, 2 AS a", "42701", "specified more than once")
			w.fails("CREATE VIEW v (a, b) AS SELECT 1", "42601", "2 column names given for 1 columns")
			w.fails("SELECT 1;\n SELECT nothing", "42703", "2:9: column nothing does not exist")
		},
		"parameters": func(w *world) {
			w.exec("SET application_name = 'x'; SET timezone = 'UTC'; SET statement_timeout TO 0; SET my.own = 1")
			w.want("SHOW application_name", "x")
			w.want("SHOW my.own", "1")
			w.want("SHOW timezone", "UTC")
			w.want("SHOW mz_version", engine.Version)
			w.want("SELECT mz_version(), mz_environment_id()", engine.Version+"|"+w.e.ID())
			w.fails("SET timezone = 'Europe/Berlin'", "22023", "cannot be set")
			w.fails("SHOW nothing", "42704", "unrecognized configuration parameter")
		},
		"transactions and cursors": func(w *world) {
			status := func(want byte) {
				w.Helper()
				if got := w.s.TxStatus(); got != want {
					w.Errorf("status %c, want %c", got, want)
				}
			}
			w.fails("DECLARE c CURSOR FOR SELECT 1", "25P01", "transaction blocks")
			status('I')
			w.exec("BEGIN")
			status('T')
			w.exec("DECLARE c CURSOR FOR SELECT text FROM lines ORDER BY text; DECLARE s CURSOR FOR TAIL n AS OF AT LEAST 0")
			w.want("FETCH c", "a")
			w.want("FETCH ALL c", "b")
			w.want("FETCH ALL c")
			if got := shape(w.rows("FETCH ALL s")); got != "T+1|2|2" {
				w.Errorf("got %s", got)
			}
			before := time.Now()
			w.want("FETCH ALL s WITH (timeout = '2s')")
			if got := time.Since(before); got != 2*time.Second {
				w.Errorf("waited %s", got)
			}
			w.want("FETCH ALL s WITH (timeout = '0s')")
			w.write("in", "c\n")
			if got := shape(w.rows("FETCH ALL s")); got != "T+-1|2|2 T+1|3|3" {
				w.Errorf("got %s", got)
			}
			w.write("in", "d\n")
			if got := shape(w.rows("FETCH 1 s")); !strings.HasPrefix(got, "T+") || strings.Count(got, "T+") != 1 {
				w.Errorf("got %s", got)
			}
			if got := shape(w.rows("FETCH 5 s WITH (timeout = '100ms')")); strings.Count(got, "T+") != 1 {
				w.Errorf("got %s", got)
			}
			w.fails("FETCH nothing", "34000", "does not exist")
			status('E')
			w.fails("SELECT 1", "25P02", "aborted")
			w.exec("COMMIT")
			status('I')
			w.fails("FETCH c", "34000", "does not exist")
			w.exec("BEGIN; DECLARE c CURSOR FOR SELECT 1; CLOSE c; ROLLBACK; DISCARD ALL")
			w.fails("FETCH c WITH (timeout = 'x')", "34000", "")
			// What is wrong with a cursor's name is said at once, what is wrong with its times at the first FETCH.
			w.exec("BEGIN; DECLARE c CURSOR FOR SUBSCRIBE TO n AS OF 5")
			w.fails("FETCH c", "22000", "could not find a valid timestamp for the query")
			w.exec("ROLLBACK; BEGIN")
			w.fails("DECLARE c CURSOR FOR SUBSCRIBE TO nothing", "42704", "unknown catalog item 'nothing'")
			w.exec("ROLLBACK; BEGIN; DECLARE c CURSOR FOR SUBSCRIBE TO n UP TO now()")
			w.fails("FETCH c", "0A000", "calling an unmaterializable function in AS OF or UP TO not yet supported")
			w.exec("ROLLBACK; BEGIN; DECLARE c CURSOR FOR SUBSCRIBE TO n")
			w.fails("FETCH c WITH (timeout = '2 days')", "22023", "timeout out of range")
			// A transaction that streams reads nothing else, unless it says at what time.
			for second, first := range map[string]string{"SUBSCRIBE TO n": "25000 SUBSCRIBE in transactions must be the only read statement",
				"SELECT * FROM n": "25006 transaction in read-only mode"} {
				w.exec("ROLLBACK; BEGIN; DECLARE c CURSOR FOR SUBSCRIBE TO n; FETCH ALL c")
				w.fails(second, "25000", "SUBSCRIBE in transactions must be the only read statement")
				w.exec("ROLLBACK; BEGIN; DECLARE c CURSOR FOR " + second + "; FETCH ALL c; DECLARE d CURSOR FOR SUBSCRIBE TO n")
				code, message, _ := strings.Cut(first, " ")
				w.fails("FETCH d", code, message)
			}
			w.exec("ROLLBACK; BEGIN; DECLARE c CURSOR FOR SUBSCRIBE TO n AS OF AT LEAST 0; FETCH ALL c; SELECT * FROM n; COMMIT")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, engine.Options{})
				w.write("in", "a\nb\n")
				w.exec(lines)
				w.want("SELECT * FROM n", "2|2")
				test(w)
				w.stop()
			})
		})
	}
}

// TestRelationsDocumented holds docs/engine.md against the relations of the engine.
func TestRelationsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/engine.md")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{})
		for _, name := range w.rows("SELECT name FROM mz_objects WHERE type = 'system'") {
			_, section, _ := strings.Cut(string(text), "\n"+name+": ")
			_, section, _ = strings.Cut(section, "|---|---|---|\n")
			var got []string
			for line := range strings.Lines(section) {
				cells := strings.Split(line, "|")
				if len(cells) < 4 {
					break
				}
				got = append(got, strings.TrimSpace(cells[1])+"|t|"+strings.TrimSpace(cells[2]))
			}
			if want := w.rows("SHOW COLUMNS FROM " + name); !slices.Equal(got, want) {
				t.Errorf("docs/engine.md has of %s\n%q\nand there is\n%q", name, got, want)
			}
		}
		w.stop()
	})
}

// recorded is the folder of recorded events.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "shared", "data", "wikimedia", name))
	if err != nil {
		t.Skip("no recorded events here: ", err)
	}
	return b
}

// TestWikipedia runs the demo's views over recorded events and recounts them in another way.
func TestWikipedia(t *testing.T) {
	events := recorded(t, "events.jsonl")
	text, err := mzsql.Files.ReadFile("wikipedia.sql")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{})
		if err := os.Mkdir(filepath.Join(w.dir, "data"), 0o755); err != nil {
			t.Fatal(err)
		}
		w.exec(string(text))
		total := 0
		counts := map[string]int{}
		for line := range strings.Lines(string(events)) {
			w.write("data/recentchanges", line)
			var e struct{ User string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			total++
			counts[e.User]++
			if total%1000 == 0 {
				settle()
			}
		}
		settle()
		w.exec(string(text)) // safe to run again
		w.want("SELECT * FROM counter", fmt.Sprint(total))
		var users []string
		for u, n := range counts {
			users = append(users, fmt.Sprintf("%s|%d", u, n))
		}
		w.want("SELECT * FROM useredits", users...)
		slices.SortFunc(users, func(a, b string) int {
			ua, ub := a[:strings.LastIndex(a, "|")], b[:strings.LastIndex(b, "|")]
			if counts[ua] != counts[ub] {
				return counts[ub] - counts[ua]
			}
			return strings.Compare(ua, ub)
		})
		w.want("SELECT * FROM top10", users[:10]...)
		if got := w.rows("SELECT * FROM top10 ORDER BY count DESC"); !slices.Equal(got, users[:10]) {
			t.Errorf("in order: %q", got)
		}
		w.want("SELECT count(*), count(id) FROM recentchanges WHERE type = 'edit'", recount(t, events))
		w.stop()
	})
}

// recount counts the edits, and those with an id.
func recount(t *testing.T, events []byte) string {
	t.Helper()
	edits, ids := 0, 0
	for line := range strings.Lines(string(events)) {
		var e struct {
			Type string
			ID   *json.Number
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == "edit" {
			edits++
			if e.ID != nil {
				ids++
			}
		}
	}
	return fmt.Sprintf("%d|%d", edits, ids)
}

// TestWikipedia2020 runs the text of 2020 over the raw stream, first with the ids of then and then with those of today.
func TestWikipedia2020(t *testing.T) {
	text, err := mzsql.Files.ReadFile("wikipedia2020.sql")
	if err != nil {
		t.Fatal(err)
	}
	event := func(id int64, user string) string {
		return fmt.Sprintf("event: message\nid: [{\"offset\":-1}]\ndata: {\"id\":%d,\"user\":%q,\"bot\":false,\"revision\":{\"new\":7},\"server_script_path\":\"/w\",\"timestamp\":1590000000}\n\n", id, user)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{})
		if err := os.Mkdir(filepath.Join(w.dir, "data"), 0o755); err != nil {
			t.Fatal(err)
		}
		w.write("data/recentchanges", ":ok\n\n"+event(1264096190, "Ann")+event(1264096191, "Bob")+event(1264096192, "Ann"))
		w.exec(string(text))
		w.want("SELECT * FROM counter", "3")
		w.want("SELECT * FROM top10", "Ann|2", "Bob|1")
		w.want("SELECT id, bot, revision_new, revision_old, server_script_path, r_ts, user FROM recentchanges WHERE user = 'Bob'",
			`1264096191|f|7|NULL|"/w"|1590000000|Bob`)
		w.want("SELECT count(*) FROM wikirecent", "3")
		w.write("data/recentchanges", event(2071131497, "Eve")+event(5071131497, "Eve"))
		settle()
		for _, view := range []string{"recentchanges", "counter", "top10"} {
			_, err := tryQuery(t.Context(), w.s, "SELECT * FROM "+view)
			var e *engine.Error
			if !errors.As(err, &e) || e.Message != "Evaluation error: integer out of range" || !strings.Contains(e.Detail, view) {
				t.Errorf("%s: got %v", view, err)
			}
		}
		w.want("SELECT count(*) FROM wikirecent", "5")
		w.stop()
	})
}

// TestConcurrent lets sessions create, read, stream and drop views while the files grow: every stream's sum is what a SELECT reads at its
// time, and everything ends.
func TestConcurrent(t *testing.T) {
	w := newWorld(t, engine.Options{TickEvents: 50, TickInterval: time.Millisecond})
	w.write("in", "a\n")
	w.exec(users)
	ctx, cancel := context.WithCancel(t.Context())
	var writer, sessions sync.WaitGroup
	writer.Go(func() {
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			<-pace.C
			w.write("in", fmt.Sprintf("%c\n", 'a'+i*i%7))
		}
	})
	for i := range 4 {
		sessions.Go(func() {
			s := w.e.NewSession()
			defer s.Close()
			for j := range 15 {
				name := fmt.Sprintf("v%d_%d", i, j)
				exec(t, s, fmt.Sprintf("CREATE MATERIALIZED VIEW %s AS SELECT user, count(*) AS n FROM plain WHERE user <> 'b' GROUP BY user", name))
				of := []string{name, "plain", "(SELECT max(count) FROM edits)", "top"}[(i+j)%4]
				st, err := s.Parse("SUBSCRIBE TO " + of + " WITH (PROGRESS)")
				if err != nil {
					t.Error(err)
					return
				}
				r, err := s.Execute(t.Context(), st[0])
				if err != nil {
					t.Error(err)
					return
				}
				first, err := r.Next(t.Context())
				if err != nil {
					t.Errorf("%s: %v", of, err)
					return
				}
				seen, upper := follow(w, r, first[0][0].Int()+20)
				r.Close()
				from := of
				if from[0] == '(' {
					from += " AS q"
				}
				rows, err := tryQuery(t.Context(), s, fmt.Sprintf("SELECT * FROM %s AS OF %d", from, upper-1))
				if err != nil {
					t.Errorf("%s: %v", of, err)
					return
				}
				got := rowTexts(rows)
				slices.Sort(got)
				if want := sum(seen, upper); !slices.Equal(got, want) {
					t.Errorf("%s at %d\nSELECT %q\nstream %q", of, upper-1, got, want)
				}
				exec(t, s, "DROP VIEW "+name)
			}
		})
	}
	sessions.Wait()
	cancel()
	writer.Wait()
	w.stop()
	if got := len(w.e.Stats().Views); got != 2 {
		t.Errorf("%d views are left", got)
	}
}

// endless is a query that would compute for hours, and holds nothing.
const endless = "SELECT count(*) FROM generate_series(1, 1000000) AS a JOIN generate_series(1, 100000) AS b ON a + b < 0"

// TestCancelComputation ends queries while they compute, and not only while they wait.
func TestCancelComputation(t *testing.T) {
	w := newWorld(t, engine.Options{})
	st, err := w.s.Parse(endless)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := w.s.Execute(ctx, st[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	w.exec("SET statement_timeout = 10")
	w.fails(endless, "57014", "canceling statement due to statement timeout")
	w.exec("CREATE TABLE t (a int)")
	w.fails("INSERT INTO t VALUES (1); "+endless, "57014", "canceling statement due to statement timeout")
	w.exec("SET statement_timeout = '1 min'")
	w.want("SELECT count(*) FROM t", "1")
}

// TestStatementTimeout bounds what waits: for a time to come, or for rows of a stream. A stream itself, and what writes, has no bounds.
func TestStatementTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, engine.Options{})
		w.exec("CREATE TABLE t (a int)")
		timeout := "canceling statement due to statement timeout"
		for _, value := range []string{"x", "-1", "1 fortnight", "25 d", ""} {
			w.fails("SET statement_timeout = '"+value+"'", "22023", "invalid value")
		}
		for value, want := range map[string]time.Duration{"1500": 1500 * time.Millisecond, "2s": 2 * time.Second, "1 min": time.Minute} {
			w.exec("SET statement_timeout = '" + value + "'")
			w.want("SHOW statement_timeout", value)
			began := time.Now()
			w.fails("SELECT * FROM t AS OF 99999999999999", "57014", timeout)
			w.fails("COPY (SELECT * FROM t AS OF 99999999999999) TO STDOUT", "57014", timeout)
			if got := time.Since(began); got != 2*want {
				t.Errorf("%s: %v", value, got)
			}
		}
		w.exec("BEGIN; DECLARE c CURSOR FOR SUBSCRIBE TO t WITH (SNAPSHOT = false)")
		w.fails("FETCH 1 c", "57014", timeout)
		w.fails("FETCH 1 c", "25P02", "aborted")
		w.exec("ROLLBACK; BEGIN; DECLARE c CURSOR FOR SUBSCRIBE TO t WITH (SNAPSHOT = false)")
		w.want("FETCH 1 c WITH (timeout = '1s')")
		w.exec("ROLLBACK; RESET statement_timeout")
		w.want("SHOW statement_timeout", "0")
		w.exec("SET LOCAL statement_timeout = '1s'; BEGIN; SET LOCAL statement_timeout = '2s'")
		w.want("SHOW statement_timeout", "2s")
		w.exec("COMMIT")
		w.want("SHOW statement_timeout", "0")
		w.exec("SET statement_timeout = '10ms'")
		st, err := w.s.Parse("SUBSCRIBE TO t")
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.s.Execute(t.Context(), st[0])
		if err != nil {
			t.Fatal(err)
		}
		other := w.e.NewSession()
		time.AfterFunc(time.Minute, func() { exec(t, other, "INSERT INTO t VALUES (7)") })
		if got := w.next(r); len(got) != 1 {
			t.Errorf("got %q", got)
		}
		r.Close()
		w.stop()
	})
}
