package main_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestInit writes a configuration for an engine with views of every kind, and
// runs it.
func TestInit(t *testing.T) {
	e := &daemon{t: t, dir: t.TempDir(), sql: freePort(t)}
	e.write("numbers.txt", "1\n2\n")
	e.write("init.sql", `
		CREATE SOURCE numbers FROM FILE 'numbers.txt' FORMAT TEXT;
		CREATE VIEW plain AS SELECT text::int8 AS n FROM numbers;
		CREATE MATERIALIZED VIEW total AS SELECT sum(n) AS sum, count(*) FROM plain;
		CREATE MATERIALIZED VIEW "Odd ""one"": {#}" AS SELECT n FROM plain WHERE n % 2 = 1;`)
	e.launch(io.Discard, "init is done", "mzd", "engine", "-listen", e.sql, "-data-dir", "engine", "-init", "init.sql")
	mzd := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command("mzd", args...)
		cmd.Dir = e.dir
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("mzd %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
		}
		return string(out)
	}
	address := "postgres://me:very-secret@" + e.sql + "/materialize"
	t.Setenv("MZD_PASSWORD", "very-secret")
	said := mzd(0, "init", "-url", address)
	for _, want := range []string{"follows 2 views", "export MZD_PASSWORD", "mzd -config pipeline.yaml"} {
		if !strings.Contains(said, want) {
			t.Errorf("mzd init says\n%s\nand nothing of %q", said, want)
		}
	}
	text, err := os.ReadFile(filepath.Join(e.dir, "pipeline.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`url: "postgres://me:${MZD_PASSWORD}@` + e.sql + `/materialize"`,
		"  # sum numeric, count bigint\n  total: {}\n",
		"  # n bigint\n  view_odd_one: {query: \"SELECT * FROM \\\"Odd \\\"\\\"one\\\"\\\": {#}\\\"\"}\n",
		"  # plain (view): n bigint\n",
		"  # numbers (source): text text, mz_line_no bigint\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("pipeline.yaml has no %q:\n%s", want, text)
		}
	}
	if bytes.Contains(text, []byte("very-secret")) || strings.Contains(said, "very-secret") {
		t.Error("the password was written down")
	}
	if said := mzd(2, "init", "-url", address); !strings.Contains(said, "-force") {
		t.Errorf("over a file: %s", said)
	}
	mzd(0, "init", "-url", address, "-force")
	mzd(0, "check")

	// It runs; only its ports may be taken here.
	d := &daemon{t: t, dir: e.dir, web: freePort(t), admin: freePort(t)}
	d.write("pipeline.yaml", strings.NewReplacer("127.0.0.1:8875", d.web, "127.0.0.1:9875", d.admin).Replace(string(text)))
	d.start()
	ctx := deadline(t, time.Minute)
	for view, want := range map[string]string{"total": `["3",2]`, "view_odd_one": "[1]"} {
		m := newMirror(view)
		err := follow(ctx, "ndjson", d.web, []string{view}, "", "", func(data []byte) bool {
			complete, err := m.apply(data)
			if err != nil {
				t.Fatal(err)
			}
			return !complete
		})
		if got := m.text(view); err != nil || strings.ReplaceAll(got, `"`, "") != strings.ReplaceAll(want, `"`, "") {
			t.Errorf("%s: got %s, want %s (%v)", view, got, want, err)
		}
	}
	d.stop()

	for _, c := range []struct{ want, url string }{
		{"-url is missing", ""},
		{"must be \"embedded\" or begin with postgres://", "localhost:6875"},
		{"no views yet", "embedded"},
	} {
		if said := mzd(2, "init", "-url", c.url); !strings.Contains(said, c.want) {
			t.Errorf("init -url %q says %s, want %q", c.url, said, c.want)
		}
	}
	if said := mzd(1, "init", "-url", "postgres://"+freePort(t)+"/x", "-o", "other.yaml"); !strings.Contains(said, "connection refused") {
		t.Errorf("without a database: %s", said)
	}
	e.stop()
}

// TestEngineAdmin asks an engine that runs alone what operators ask.
func TestEngineAdmin(t *testing.T) {
	e := &daemon{t: t, dir: t.TempDir(), sql: freePort(t), admin: freePort(t)}
	e.write("numbers.txt", "1\n2\n")
	e.write("init.sql", `
		CREATE SOURCE numbers FROM FILE 'numbers.txt' WITH (tail) FORMAT TEXT;
		CREATE MATERIALIZED VIEW total AS SELECT count(*) FROM numbers;
		SELECT * FROM total;`)
	e.launch(io.Discard, "init is done", "mzd", "engine", "-listen", e.sql, "-admin", e.admin, "-init", "init.sql")
	url := "http://" + e.admin
	for path, want := range map[string]string{
		"/metrics":    `mzd_engine_source_lines_total{source="numbers"} 2`,
		"/healthz":    "ok",
		"/readyz":     `"ready": true`,
		"/api/status": `"name": "total"`,
	} {
		if got := get(t, url+path); !strings.Contains(got, want) {
			t.Errorf("%s says\n%s\nand nothing of %s", path, got, want)
		}
	}
	if err := os.Remove(filepath.Join(e.dir, "numbers.txt")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(get(t, url+"/readyz"), "source numbers: file "); {
		if time.Now().After(deadline) {
			t.Fatal("nobody says that the file is gone: ", get(t, url+"/readyz"))
		}
	}
	if got := get(t, url+"/metrics"); !strings.Contains(got, `mzd_engine_source_up{source="numbers"} 0`) {
		t.Errorf("the source is up:\n%s", got)
	}
	e.stop()
}
