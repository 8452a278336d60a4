package pgwire_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// psycopgScript is what somebody with Python does: a query with a parameter, the
// rows of a stream as they come, changes through COPY, and the cursor of
// Materialize's own examples. It prints what it saw.
const psycopgScript = `
import sys, psycopg

dsn = sys.argv[1]
with psycopg.connect(dsn, autocommit=True) as db:
    print("version", db.execute("SELECT mz_version()").fetchone()[0].split()[0])
    print("parameter", db.execute("SELECT count FROM top10 WHERE name = %s", ["ada"]).fetchall())
    try:
        db.execute("SELECT * FROM nothing")
    except psycopg.Error as e:
        print("error", e.sqlstate)
    db.execute("CREATE TABLE t (id int NOT NULL, name text)")
    db.cursor().executemany("INSERT INTO t VALUES (%s, %s)", [(1, "a"), (2, None)])

    print("limit", db.execute("SELECT id FROM t ORDER BY id LIMIT %s OFFSET %s", [1, 1]).fetchall())

    stream = db.cursor().stream("SUBSCRIBE TO t WITH (PROGRESS)")
    rows, marks = [], 0
    for at, progressed, diff, id, name in stream:
        if progressed:
            marks += 1
            if marks == 2:
                break
        else:
            rows.append((int(diff), id, name))
    stream.close()  # cancels it
    print("stream", sorted(rows, key=str))

with psycopg.connect(dsn) as db:
    with db.cursor() as c:
        c.execute("DECLARE c CURSOR FOR SUBSCRIBE TO t WITH (SNAPSHOT)")
        c.execute("FETCH ALL c")
        print("cursor", sorted((diff, id) for at, diff, id, name in c))
    db.rollback()

with psycopg.connect(dsn + " options='-c statement_timeout=1min --client-min-messages=a\\\\ b'") as db:
    print("options", db.execute("SHOW statement_timeout").fetchone(), db.execute("SHOW client_min_messages").fetchone())
    with db.cursor("named") as c:
        c.execute("SELECT g FROM generate_series(1, 5) AS g")
        print("named", c.fetchmany(2), c.fetchall())

with psycopg.connect(dsn, autocommit=True) as db:
    with db.cursor().copy("COPY (SELECT id, name FROM t ORDER BY id) TO STDOUT") as copy:
        print("copy", list(copy.rows()))
`

func TestPsycopg(t *testing.T) {
	python := "/usr/bin/python3" // the one that Debian's packages are for
	if _, err := os.Stat(python); err != nil {
		if python, err = exec.LookPath("python3"); err != nil {
			absent(t, "no python3")
		}
	}
	if exec.Command(python, "-c", "import psycopg").Run() != nil {
		absent(t, "no psycopg (Debian package python3-psycopg)")
	}
	addr, _ := serveEngine(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, python, "-c", psycopgScript, "host="+host+" port="+port+" user=materialize dbname=materialize")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	want := strings.Join([]string{
		"version mzd",
		"parameter [(2,)]",
		"error 42704",
		"limit [(2,)]",
		"stream [(1, 1, 'a'), (1, 2, None)]",
		"cursor [(1, 1), (1, 2)]",
		"options ('1min',) ('a b',)",
		"named [(1,), (2,)] [(3,), (4,), (5,)]",
		`copy [('1', 'a'), ('2', None)]`,
		"",
	}, "\n")
	if err != nil || string(out) != want {
		t.Errorf("%v\ngot\n%s\nwant\n%s\n%s", err, out, want, stderr.String())
	}
}
