package pgwire_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/pgwire"
)

// serveEngine runs an engine with the views of the demo over a small file, on a
// port of its own, and returns the address and the file.
func serveEngine(t testing.TB) (addr, file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "events")
	appendEvents(t, file, "ada", "bob", "ada")
	e, err := engine.Open(engine.Options{BaseDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := pgwire.New(e, pgwire.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- e.Run(ctx) }()
	go func() { ended <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	addr = ln.Addr().String()
	conn := dialPgx(t, addr, pgx.QueryExecModeSimpleProtocol)
	if _, err := conn.PgConn().Exec(t.Context(), `
		CREATE SOURCE events FROM FILE 'events' WITH (tail = true) FORMAT TEXT;
		CREATE MATERIALIZED VIEW counter AS SELECT count(*) AS count FROM events;
		CREATE MATERIALIZED VIEW top10 AS SELECT text AS name, count(*) AS count FROM events GROUP BY text ORDER BY count DESC LIMIT 10;`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return addr, file
}

func appendEvents(t testing.TB, file string, lines ...string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
		t.Fatal(err)
	}
}

func dialPgx(t testing.TB, addr string, mode pgx.QueryExecMode) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig("postgres://materialize@" + addr + "/materialize?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func TestPgx(t *testing.T) {
	addr, file := serveEngine(t)
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeCacheStatement,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			conn := dialPgx(t, addr, mode)
			for range 2 { // the second time from a cache, where there is one
				rows, err := conn.Query(t.Context(), "SELECT name, count FROM top10 WHERE name <> 'eve' ORDER BY count DESC, name LIMIT 2")
				if err != nil {
					t.Fatal(err)
				}
				got, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
					var name string
					var count int64
					err := r.Scan(&name, &count)
					return name, err
				})
				if err != nil || len(got) != 2 || got[0] != "ada" {
					t.Fatalf("got %q, %v; want ada first", got, err)
				}
			}
			_, err := conn.Exec(t.Context(), "SELECT * FROM nothing")
			var pg *pgconn.PgError
			if !errors.As(err, &pg) || pg.Code == "" || pg.Code == "XX000" {
				t.Errorf("an unknown view: %v", err)
			}
			// A stream gives its rows while it runs, and is cancelled without loss of the connection.
			rows, err := conn.Query(t.Context(), "SUBSCRIBE TO counter WITH (PROGRESS)")
			if err != nil {
				t.Fatal(err)
			}
			var before, after int64
			for rows.Next() {
				v, err := rows.Values()
				if err != nil {
					t.Fatal(err)
				}
				count, ok := v[3].(int64)
				if !ok || v[2].(int64) < 0 {
					continue
				}
				if before == 0 {
					before = count
					appendEvents(t, file, "eve")
				} else if after = count; after > before {
					if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if after != before+1 {
				t.Errorf("counted %d, then %d, want one more", before, after)
			}
			if err := rows.Err(); !errors.As(err, &pg) || pg.Code != "57014" {
				t.Errorf("a cancelled stream ends with %v, want 57014", err)
			}
			if err := conn.Ping(t.Context()); err != nil {
				t.Errorf("after the stream: %v", err)
			}
		})
	}
}

func TestPgxCopy(t *testing.T) {
	addr, _ := serveEngine(t)
	conn := dialPgx(t, addr, pgx.QueryExecModeSimpleProtocol)
	const values = `VALUES (1::bigint, 'a,"b'), (2, ''), (3, NULL), (4, E'\\.'), (5, E'two\nlines')`
	for _, tt := range []struct{ query, format, want string }{
		{"SELECT name, count FROM top10 ORDER BY name", "", "ada\t2\nbob\t1\n"},
		{values, "text", "1\ta,\"b\n2\t\n3\t\\N\n4\t\\\\.\n5\ttwo\\nlines\n"},
		{values, "csv", "1,\"a,\"\"b\"\n2,\"\"\n3,\n4,\"\\.\"\n5,\"two\nlines\"\n"},
		{"SELECT 7::bigint, NULL::text", "binary", "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
			"\x00\x02\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07\xff\xff\xff\xff" + "\xff\xff"},
		{"SELECT 7 WHERE false", "binary", "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff"},
	} {
		sql := "COPY (" + tt.query + ") TO STDOUT"
		if tt.format != "" {
			sql += " WITH (FORMAT " + tt.format + ")"
		}
		var out bytes.Buffer
		if _, err := conn.PgConn().CopyTo(t.Context(), &out, sql); err != nil || out.String() != tt.want {
			t.Errorf("%s\ngot  %q, %v\nwant %q", sql, out.String(), err, tt.want)
		}
	}
}

func TestPgxCursor(t *testing.T) {
	addr, _ := serveEngine(t)
	conn := dialPgx(t, addr, pgx.QueryExecModeExec)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "DECLARE c CURSOR FOR SUBSCRIBE TO counter"); err != nil {
		t.Fatal(err)
	}
	tag, err := tx.Exec(t.Context(), "FETCH 1 c")
	if err != nil || tag.String() != "FETCH 1" {
		t.Errorf("got %s, %v; want FETCH 1", tag, err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
}

// absent skips a test that lacks something, except in CI, which has everything.
func absent(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// psql runs psql against addr.
func psql(t *testing.T, addr string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("psql")
	if err != nil {
		absent(t, "no psql (Debian package postgresql-client)")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"-X", "-h", host, "-p", port, "-U", "materialize", "materialize"}, args...)...)
	cmd.Env = []string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH")}
	return cmd
}

func TestPsql(t *testing.T) {
	addr, _ := serveEngine(t)
	for _, tt := range []struct{ command, want string }{
		{`\conninfo`, `You are connected to database "materialize" as user "materialize"`},
		{"SHOW VIEWS", "top10"},
		{"SELECT * FROM counter", "count"},
		{"SELECT mz_version()", "mzd embedded"},
		{"COPY (SELECT count FROM counter) TO STDOUT", "3"},
		{`\echo :SERVER_VERSION_NAME :SERVER_VERSION_NUM`, "9.5.0 (mzd embedded) 90500"},
		{"SELECT 1; SELECT 'two'", "two"},
	} {
		out, err := psql(t, addr, "-c", tt.command).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %v\n%s", tt.command, err, out)
		}
	}
	for command, want := range map[string]string{
		"SELECT * FROM nothing": "unknown catalog item 'nothing'",
		"SELEC 1":               "expected a statement",
		`\d`:                    "there is no pg_catalog in the embedded engine",
		`\d top10`:              "there is no pg_catalog in the embedded engine",
		`\dt`:                   "SHOW TABLES",
		`\dv`:                   "SHOW VIEWS",
		`\dn`:                   "SHOW SCHEMAS",
		`\l`:                    "SHOW DATABASES",
		`\du`:                   "there is no pg_catalog in the embedded engine",
		`\df`:                   "there is no pg_catalog in the embedded engine",
	} {
		out, err := psql(t, addr, "-v", "ON_ERROR_STOP=1", "-c", command).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("ERROR:")) || !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s: %v\n%s\nwant %s", command, err, out, want)
		}
	}
}

// Ctrl-C in psql cancels the statement, as the server's error says.
func TestPsqlInterrupt(t *testing.T) {
	addr, _ := serveEngine(t)
	cmd := psql(t, addr, "-c", "COPY (TAIL top10 WITH (PROGRESS)) TO STDOUT")
	if stdbuf, err := exec.LookPath("stdbuf"); err == nil { // into a pipe psql writes by the block
		cmd.Path, cmd.Args = stdbuf, append([]string{"stdbuf", "-oL", cmd.Path}, cmd.Args[1:]...)
	} else {
		absent(t, "no stdbuf (Debian package coreutils)")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := false
	for lines := bufio.NewScanner(stdout); !seen && lines.Scan(); {
		seen = strings.HasSuffix(lines.Text(), "\tada\t2")
	}
	if !seen {
		t.Fatalf("psql ended early: %s", stderr.String())
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, stdout)
	cmd.Wait() // its exit status is that of the last statement
	if !strings.Contains(stderr.String(), "canceling statement due to user request") {
		t.Errorf("psql said %q", stderr.String())
	}
}
