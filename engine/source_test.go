package engine_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mzdio/mzd/engine"
)

// settle lets everything happen that happens within a second.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// lines is a source over the file in, and a view that counts its lines.
const lines = `CREATE SOURCE lines FROM FILE 'in' WITH (tail = true) FORMAT TEXT;
	CREATE MATERIALIZED VIEW n AS SELECT count(*), max(mz_line_no) FROM lines;`

// sourceState is the state of the only source.
func sourceState(w *world) engine.SourceStats { return w.e.Stats().Sources[0] }

// TestSource goes through what may happen to a file.
func TestSource(t *testing.T) {
	for name, test := range map[string]func(w *world){
		"text": func(w *world) {
			w.write("in", "a\n\nc\r\n")
			w.exec(lines)
			w.want("SELECT * FROM lines", "a|1", "|2", "c\r|3")
			w.want("SELECT * FROM n", "3|3")
		},
		"a line without newline is held back": func(w *world) {
			w.write("in", "a\nb")
			w.exec(lines)
			settle()
			w.want("SELECT * FROM lines", "a|1")
			w.write("in", "c\n")
			settle()
			w.want("SELECT * FROM lines", "a|1", "bc|2")
			w.want("SELECT * FROM n", "2|2")
		},
		"a missing file appears": func(w *world) {
			w.exec(lines)
			w.want("SELECT * FROM n", "0|NULL")
			if got := sourceState(w).State; got != engine.SourceMissing {
				w.Errorf("got state %s", got)
			}
			w.write("in", "a\n")
			settle()
			w.want("SELECT * FROM n", "1|1")
			if got := sourceState(w).State; got != engine.SourceTailing {
				w.Errorf("got state %s", got)
			}
		},
		"without tail it is read once": func(w *world) {
			w.write("in", "a\nb\n")
			w.exec("CREATE SOURCE s FROM FILE 'in' FORMAT TEXT; CREATE MATERIALIZED VIEW c AS SELECT count(*) FROM s")
			settle()
			w.write("in", "c\n")
			settle()
			w.want("SELECT * FROM c", "2")
			w.want("SHOW SOURCES", "s|done|4|4|2|0|NULL")
		},
		"truncated": func(w *world) {
			w.write("in", "a\nb\n")
			w.exec(lines)
			w.want("SELECT * FROM n", "2|2")
			os.Truncate(filepath.Join(w.dir, "in"), 2)
			settle()
			w.want("SELECT * FROM n", "2|2")
			if s := sourceState(w); s.State != engine.SourceShrunk || !strings.Contains(s.Problem, "has 2 bytes, of which 4 had been read") {
				w.Errorf("got %+v", s)
			}
		},
		"rotated": func(w *world) {
			w.write("in", "a\nb\n")
			w.exec(lines)
			w.want("SELECT * FROM n", "2|2")
			os.Rename(filepath.Join(w.dir, "in"), filepath.Join(w.dir, "in.1"))
			w.write("in", "c\nd\ne\n")
			settle()
			w.want("SELECT * FROM n", "2|2")
			if s := sourceState(w); s.State != engine.SourceShrunk || !strings.Contains(s.Problem, "replaced") {
				w.Errorf("got %+v", s)
			}
		},
		"removed": func(w *world) {
			w.write("in", "a\n")
			w.exec(lines)
			w.want("SELECT * FROM n", "1|1")
			os.Remove(filepath.Join(w.dir, "in"))
			settle()
			w.want("SELECT * FROM n", "1|1")
			if s := sourceState(w); s.State != engine.SourceShrunk || !strings.Contains(s.Problem, "removed") {
				w.Errorf("got %+v", s)
			}
			w.exec("DROP SOURCE lines CASCADE")
			w.write("in", "x\ny\n")
			w.exec(lines)
			w.want("SELECT * FROM n", "2|2")
		},
		"written anew": func(w *world) {
			w.write("in", "a\nb\n")
			w.exec(lines)
			w.want("SELECT * FROM n", "2|2")
			settle()
			os.WriteFile(filepath.Join(w.dir, "in"), []byte("c\nd\ne\n"), 0o644)
			settle()
			w.want("SELECT * FROM n", "2|2")
			if s := sourceState(w); s.State != engine.SourceShrunk || !strings.Contains(s.Problem, "written anew") {
				w.Errorf("got %+v", s)
			}
		},
		"a directory": func(w *world) {
			os.Mkdir(filepath.Join(w.dir, "in"), 0o755)
			w.exec("CREATE SOURCE lines FROM FILE 'in' WITH (tail = true) FORMAT TEXT")
			settle()
			if s := sourceState(w); s.State != engine.SourceFailed || s.Problem == "" {
				w.Errorf("got %+v", s)
			}
			os.Remove(filepath.Join(w.dir, "in"))
			w.write("in", "a\n")
			time.Sleep(5 * time.Second)
			w.want("SELECT count(*) FROM lines", "1")
		},
		"bad lines": func(w *world) {
			w.write("in", "a\n\xff\n"+strings.Repeat("x", 1<<20)+"\n"+strings.Repeat("y", 1<<20+1)+"\nb\x00\n"+strings.Repeat("z", 5<<20)+"\nc\n")
			w.exec(lines)
			w.want("SELECT length(text), mz_line_no FROM lines", "1|1", "1048576|3", "1|7")
			w.want("SELECT * FROM n", "3|7")
			if s := sourceState(w); s.Bad != 4 || s.Lines != 7 {
				w.Errorf("got %+v", s)
			}
			registry := prometheus.NewPedanticRegistry()
			registry.MustRegister(w.e)
			want := `
# HELP mzd_engine_source_lines_total Lines that the embedded engine has read of a file.
# TYPE mzd_engine_source_lines_total counter
mzd_engine_source_lines_total{source="lines"} 7
# HELP mzd_engine_source_rejected_lines_total Lines left out because they are too long, no UTF-8 or no JSON.
# TYPE mzd_engine_source_rejected_lines_total counter
mzd_engine_source_rejected_lines_total{source="lines"} 4
# HELP mzd_engine_source_up 1 unless the file cannot be read, or is not the one that was read before.
# TYPE mzd_engine_source_up gauge
mzd_engine_source_up{source="lines"} 1
`
			if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "mzd_engine_source_lines_total",
				"mzd_engine_source_rejected_lines_total", "mzd_engine_source_up"); err != nil {
				w.Error(err)
			}
		},
		"regex": func(w *world) {
			w.write("in", "event: message\nid: x\ndata: {\"a\": 1}\n\ndata: {\"a\": 2}\n")
			w.exec("CREATE SOURCE r FROM FILE 'in' WITH (tail = true) FORMAT REGEX '^data: (?P<data>.*)'")
			w.want("SELECT * FROM r", `{"a": 1}|3`, `{"a": 2}|5`)
			w.want("SELECT sum((data::jsonb->'a')::int) FROM r", "3")
			w.exec("CREATE SOURCE q FROM FILE 'in' WITH (tail = true) FORMAT REGEX '^(\\w+): ?(x)?'")
			w.want("SELECT column1, column2 FROM q", "event|NULL", "id|x", "data|NULL", "data|NULL")
			w.fails("CREATE SOURCE bad FROM FILE 'in' FORMAT REGEX '('", "2201B", "invalid regular expression")
			w.fails("CREATE SOURCE bad FROM FILE 'in' FORMAT REGEX 'x'", "42601", "capture group")
		},
		"json": func(w *world) {
			w.write("in", `{"b": 1, "a": [1.0]}`+"\n\nnot json\n"+`{"a": "\u0000"}`+"\n7\n")
			w.exec("CREATE SOURCE j FROM FILE 'in' WITH (tail = true) FORMAT JSON; CREATE MATERIALIZED VIEW v AS SELECT data, data->'b' AS b, mz_line_no FROM j")
			w.want("SELECT * FROM v", `{"a": [1], "b": 1}|1|1`, "7|NULL|5")
			w.want("SELECT * FROM j WHERE data->>'b' = '1'", `{"a": [1], "b": 1}|1`)
			if s := sourceState(w); s.Bad != 2 {
				w.Errorf("got %+v", s)
			}
		},
		"a materialized source": func(w *world) {
			w.write("in", "a\n")
			w.exec("CREATE MATERIALIZED SOURCE s FROM FILE 'in' WITH (tail = true) FORMAT TEXT; CREATE MATERIALIZED VIEW c AS SELECT count(*) FROM s")
			r := w.stream("SUBSCRIBE TO s WITH (PROGRESS)")
			w.next(r)
			w.next(r)
			w.write("in", "b\n")
			for {
				if got := strings.Join(w.next(r), " "); strings.Contains(got, "|f|1|b|2") {
					break
				}
			}
			w.want("SELECT * FROM s", "a|1", "b|2")
			w.want("SELECT * FROM c", "2")
			w.want("SHOW MATERIALIZED SOURCES", "s|tailing|4|4|2|0|NULL")
		},
		"many lines in small ticks": func(w *world) {
			w.write("in", numbered("x", 1, 20_000))
			w.exec(lines)
			w.want("SELECT * FROM n", "20000|20000")
			w.write("in", numbered("y", 1, 20_000))
			settle()
			w.want("SELECT * FROM n", "40000|40000")
			w.want("SELECT count(*), count(DISTINCT text), max(mz_line_no) FROM lines", "40000|40000|40000")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, engine.Options{TickEvents: 100})
				test(w)
				w.stop()
			})
		})
	}
}

// TestSourceWarnings looks at what the log says of files that somebody should look at: the first line of those that are left out, and
// what to do about a file that is not the one that was read.
func TestSourceWarnings(t *testing.T) {
	const create = "CREATE SOURCE s FROM FILE 'in' WITH (tail = true) FORMAT "
	leftOut := func(line int, why string) string {
		return fmt.Sprintf(`level=WARN msg="source has lines that are left out; SHOW SOURCES counts them" source=s path=in line=%d because="%s"`, line, why)
	}
	shrunk := func(what string) string {
		return fmt.Sprintf(`level=ERROR msg="source stopped" source=s state=source_shrunk error="file in has 0 bytes, of which 4 had been %s. `+
			`Bring the file back and restart, or DROP SOURCE s CASCADE and create it and its views again: it then begins with what the file has"`, what)
	}
	for name, tt := range map[string]struct {
		do   func(w *world)
		want []string
	}{
		"nothing": {do: func(w *world) {
			w.write("in", "{}\n\n")
			w.exec(create + "JSON")
			w.write("in", "[]\n")
		}},
		"no file": {
			do:   func(w *world) { w.exec(create + "JSON") },
			want: []string{`level=WARN msg="source has no file yet; it is read once there is one" source=s path=in`},
		},
		"a document of several lines": {
			do: func(w *world) {
				w.write("in", "{}\n{\n}\n")
				w.exec(create + "JSON")
				w.write("in", "{\n")
			},
			want: []string{leftOut(2, "it is no JSON; each line is a document of its own")},
		},
		"not UTF-8": {
			do: func(w *world) {
				w.write("in", "a\nb\n\xff\n\x00\n")
				w.exec(create + "TEXT")
			},
			want: []string{leftOut(3, "it is no UTF-8")},
		},
		"NUL": {
			do: func(w *world) {
				w.write("in", "a\n\x00\n")
				w.exec(create + "TEXT")
			},
			want: []string{leftOut(2, "it has a NUL byte")},
		},
		"too long": {
			do: func(w *world) {
				w.write("in", "a\n")
				w.exec(create + "TEXT")
				settle()
				w.write("in", "b\n"+strings.Repeat("x", 4<<20)+"\n")
			},
			want: []string{leftOut(3, "it is longer than 1 MiB")},
		},
		"emptied": {
			do: func(w *world) {
				w.write("in", "a\nb\n")
				w.exec(create + "TEXT")
				settle()
				os.Truncate(filepath.Join(w.dir, "in"), 0)
				settle()
				if got := sourceState(w).Problem; !strings.Contains(got, "DROP SOURCE s CASCADE") {
					w.Errorf("the problem is %q, without what to do", got)
				}
				w.stop()
				w.start()
			},
			want: []string{shrunk("read"), shrunk("published")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logs strings.Builder
				w := newWorld(t, engine.Options{Logger: slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{
					Level: slog.LevelWarn,
					ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
						if a.Key == slog.TimeKey {
							return slog.Attr{}
						}
						return a
					},
				}))})
				tt.do(w)
				settle()
				w.stop()
				got := strings.ReplaceAll(logs.String(), w.dir+"/", "")
				if want := strings.Join(append(tt.want, ""), "\n"); got != want {
					t.Errorf("logged\n%swant\n%s", got, want)
				}
			})
		})
	}
}

// TestRestart goes through what may happen between a stop and a start.
func TestRestart(t *testing.T) {
	for name, test := range map[string]func(w *world){
		"more lines": func(w *world) {
			w.write("in", numbered("x", 1, 1000))
			w.exec(lines)
			w.want("SELECT * FROM n", "1000|1000")
			objects, id, upper := w.rows("SELECT * FROM mz_objects"), w.e.ID(), w.e.Stats().Upper
			w.stop()
			w.write("in", numbered("y", 1, 1000))
			w.start()
			w.want("SELECT * FROM n", "2000|2000")
			w.want("SELECT * FROM mz_objects", objects...)
			w.want("SELECT mz_environment_id()", id)
			if got := w.e.Stats().Upper; got <= upper {
				w.Errorf("time went from %d to %d", upper, got)
			}
		},
		"read once, without a last newline": func(w *world) {
			w.write("in", "a\nb")
			w.exec("CREATE SOURCE lines FROM FILE 'in' FORMAT TEXT; CREATE MATERIALIZED VIEW n AS SELECT count(*), max(text) FROM lines")
			w.want("SELECT * FROM n", "2|b")
			w.restart()
			w.want("SELECT * FROM n", "2|b")
		},
		"no room for the state": func(w *world) {
			w.write("in", "a\n")
			w.exec(lines)
			w.want("SELECT * FROM n", "1|1")
			synctest.Wait()                                            // for what is being written
			blocked := filepath.Join(w.opt.DataDir, "engine.json.tmp") // what replaces the state is written there first
			if err := os.MkdirAll(filepath.Join(blocked, "x"), 0o755); err != nil {
				w.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			w.write("in", "b\n")
			if p := w.e.Stats().Problem; !strings.Contains(p, "engine.json") {
				w.Errorf("problem: %q, want the file that cannot be written", p)
			}
			w.want("SELECT * FROM n", "1|1") // what was there is still served
			if err := os.RemoveAll(blocked); err != nil {
				w.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			w.want("SELECT * FROM n", "2|2")
			if p := w.e.Stats().Problem; p != "" {
				w.Errorf("problem: %q, want none", p)
			}
		},
		"the file is gone": func(w *world) {
			w.write("in", "a\nb\n")
			w.exec(lines + "CREATE MATERIALIZED VIEW other AS SELECT 1 AS one; CREATE MATERIALIZED VIEW top AS SELECT * FROM n")
			w.want("SELECT * FROM n", "2|2")
			w.stop()
			os.Remove(filepath.Join(w.dir, "in"))
			w.start()
			w.want("SELECT * FROM other", "1")
			for _, q := range []string{"SELECT * FROM n", "SELECT * FROM top", "SELECT * FROM lines", "SUBSCRIBE TO top"} {
				w.fails(q, "58030", "of which 4 bytes had been published")
			}
			if s := sourceState(w); s.State != engine.SourceShrunk {
				w.Errorf("got %+v", s)
			}
			w.restart() // it stays so
			w.fails("SELECT * FROM n", "58030", "of which 4 bytes had been published")
			w.exec("DROP SOURCE lines CASCADE")
			w.exec(lines)
			w.want("SELECT * FROM n", "0|NULL")
		},
		"the file is shorter": func(w *world) {
			w.write("in", "a\nb\n")
			w.exec(lines)
			w.want("SELECT * FROM n", "2|2")
			w.stop()
			os.Truncate(filepath.Join(w.dir, "in"), 2)
			w.start()
			w.fails("SELECT * FROM n", "58030", "has 2 bytes, of which 4 had been published")
		},
		"the file is another": func(w *world) {
			w.write("in", numbered("x", 1, 1000))
			w.exec(lines)
			w.want("SELECT * FROM n", "1000|1000")
			w.stop()
			os.WriteFile(filepath.Join(w.dir, "in"), []byte(numbered("y", 1, 2000)), 0o644)
			w.start()
			w.fails("SELECT * FROM n", "58030", "is not the one of which")
		},
		"a file that cannot be read keeps no other waiting": func(w *world) {
			w.write("in", "a\n")
			w.exec(lines + `CREATE SOURCE late FROM FILE 'late' WITH (tail = true) FORMAT TEXT;
				CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM late; CREATE MATERIALIZED VIEW mm AS SELECT * FROM m`)
			w.want("SELECT * FROM mm", "0")
			w.stop()
			os.Mkdir(filepath.Join(w.dir, "late"), 0o755)
			w.start()
			w.want("SELECT * FROM n", "1|1")
			for _, of := range []string{"mm", "m", "late", "(SELECT count(*) FROM late, n)"} {
				from := of
				if from[0] == '(' {
					from += " AS q"
				}
				w.fails("SELECT * FROM "+from, "58030", "source late cannot be read: read ")
				w.fails("SUBSCRIBE TO "+of, "58030", "source late cannot be read: read ")
			}
			w.want("SELECT name, state, rows FROM mz_internal.mzd_views WHERE name IN ('mm', 'n')", "mm|building|1", "n|ready|1")
			os.Remove(filepath.Join(w.dir, "late"))
			w.write("late", "x\ny\n")
			settle()
			w.want("SELECT * FROM mm", "2")
			w.want("SELECT count(*) FROM late", "2")
		},
		"a copy of the file": func(w *world) {
			w.write("in", numbered("x", 1, 1000))
			w.exec(lines)
			w.want("SELECT * FROM n", "1000|1000")
			w.stop()
			os.Remove(filepath.Join(w.dir, "in"))
			w.write("in", numbered("x", 1, 1001))
			w.start()
			w.want("SELECT * FROM n", "1001|1001")
		},
		"dropped objects stay dropped, ids are not used again": func(w *world) {
			w.exec(lines + "CREATE VIEW v AS SELECT 1; DROP VIEW v")
			w.restart()
			w.exec("CREATE VIEW v AS SELECT 1")
			w.want("SELECT id, name FROM mz_objects WHERE id LIKE 'u%'", "u1|lines", "u2|n", "u4|v")
		},
		"a damaged catalog": func(w *world) {
			w.exec(lines)
			w.stop()
			path := filepath.Join(w.dir, "engine", "catalog.json")
			os.WriteFile(path, []byte(`{"version": 1, "objects": [{"id": "u1", "sql": "CREATE`), 0o644)
			if _, err := engine.Open(w.opt); err == nil || !strings.Contains(err.Error(), path) {
				w.Errorf("got %v", err)
			}
		},
		"files of another version": func(w *world) {
			w.exec(lines)
			w.stop()
			for _, name := range []string{"catalog.json", "engine.json"} {
				path := filepath.Join(w.dir, "engine", name)
				text, err := os.ReadFile(path)
				if err != nil {
					w.Fatal(err)
				}
				for _, version := range []string{"0", "2"} {
					os.WriteFile(path, bytes.Replace(text, []byte(`"version": 1`), []byte(`"version": `+version), 1), 0o644)
					if _, err := engine.Open(w.opt); err == nil || !strings.Contains(err.Error(), path+" has version "+version+", this mzd reads version 1") {
						w.Errorf("%s: got %v", name, err)
					}
				}
				os.WriteFile(path, text, 0o644)
			}
			w.start()
			w.want("SELECT * FROM n", "0|NULL")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, engine.Options{})
				test(w)
				w.stop()
			})
		})
	}
}

// TestRestartNeverShowsThePast appends, stops, crashes and opens again at random, and reads all the time: neither time nor the count may
// go back. A crash is a copy of the data directory taken while the engine runs.
func TestRestartNeverShowsThePast(t *testing.T) {
	for seed := range seeds() {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { neverThePast(t, seed) })
		})
	}
}
