package plan_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/engine/flow"
)

// startPostgres starts a PostgreSQL for the test and connects to it. Without one the test is skipped, or fails in CI.
func startPostgres(t *testing.T) *pgx.Conn {
	t.Helper()
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(dirs) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("no PostgreSQL in /usr/lib/postgresql")
		}
		t.Skip("no PostgreSQL in /usr/lib/postgresql")
	}
	bin := dirs[len(dirs)-1]
	dir, err := os.MkdirTemp("", "mzd-pg") // short, because a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	attr := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // PostgreSQL does not run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skip(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	run := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.Dir, c.SysProcAttr = dir, attr
		return c
	}
	data := filepath.Join(dir, "data")
	if out, err := run("initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C", "--lc-ctype=C.UTF-8", "-N").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := run("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "timezone=UTC")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGQUIT)
		server.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, "host="+dir+" user=test dbname=postgres")
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) })
			return conn
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// texts runs a query and returns its rows as texts.
func texts(t *testing.T, conn *pgx.Conn, query string) ([][]string, error) {
	t.Helper()
	results, err := conn.PgConn().Exec(t.Context(), query).ReadAll()
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

// normal is the text of a value, less the trailing zeros that numerics do not keep here.
func normal(f pgconn.FieldDescription, v []byte) string {
	switch {
	case v == nil:
		return "NULL"
	case f.DataTypeOID == flow.Numeric.OID() && strings.Contains(string(v), "."):
		return strings.TrimSuffix(zeros.ReplaceAllString(string(v), "$1"), ".")
	}
	return string(v)
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
	conn := startPostgres(t)
	golden, err := os.ReadFile(filepath.Join("testdata", "expressions.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(golden)), "\n") {
		input, got, _ := strings.Cut(line, "  =>  ")
		if differences[input] != "" {
			continue
		}
		rows, err := texts(t, conn, "SELECT "+input)
		if failed := strings.HasPrefix(got, "error: "); failed || err != nil {
			if failed != (err != nil) {
				t.Errorf("%s: got %s, PostgreSQL says %v %v", input, got, rows, err)
			}
			continue
		}
		result := conn.PgConn().ExecParams(t.Context(), "SELECT "+input, nil, nil, nil, nil).Read()
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

// createTables creates the tables and views of the catalog in PostgreSQL.
func createTables(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	var create strings.Builder
	for name, o := range tables {
		fmt.Fprintf(&create, "CREATE UNLOGGED TABLE %s (", name)
		for i, c := range o.Columns {
			if i > 0 {
				create.WriteString(", ")
			}
			fmt.Fprintf(&create, "%s %s", c.Name, c.Type.Name())
		}
		create.WriteString(");")
	}
	create.WriteString(`CREATE VIEW pv AS SELECT a + 1 AS a1, b, c || 'x' AS cx, 1 / a AS inv FROM t WHERE a > 0;
		CREATE VIEW pw AS SELECT val->>'user' AS "user", (val->'id')::float::int AS id, (val->'bot')::bool AS bot
			FROM (SELECT text::jsonb AS val FROM w) AS w;`)
	if _, err := texts(t, conn, create.String()); err != nil {
		t.Fatal(err)
	}
}

// TestQueriesPostgres holds every query, after every tick of random insertions and deletions, against PostgreSQL's answer to it.
func TestQueriesPostgres(t *testing.T) {
	conn := startPostgres(t)
	queries, _ := blocks(t)
	createTables(t, conn)
	for seed := range min(seeds(), 1000) / 4 {
		if _, err := texts(t, conn, "TRUNCATE t, u, j, w"); err != nil {
			t.Fatal(err)
		}
		c := &contents{rnd: rand.New(rand.NewPCG(seed, 3)), rows: map[string][]flow.Row{}}
		flows := make([]*flow.Dataflow, len(queries))
		bags := make([]bag, len(queries))
		for i, q := range queries {
			flows[i], bags[i] = mustPlan(t, q).Maintained(), bag{}
		}
		for tick := range 20 {
			changes := c.change()
			apply(t, conn, changes)
			for i, q := range queries {
				what := fmt.Sprintf("seed %d, tick %d, %s", seed, tick, q)
				bags[i].add(t, what, step(flows[i], changes))
				rows, err := texts(t, conn, forPostgres(q))
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				want := bag{}
				for _, r := range rows {
					want[strings.Join(r, "|")]++
				}
				if got, want := bags[i].String(), want.String(); got != want {
					t.Fatalf("%s\ngot\n%s\nPostgreSQL says\n%s", what, got, want)
				}
			}
		}
	}
}

// TestRefusedPostgres holds the errors of testdata against PostgreSQL: what is not a limit of the engine, PostgreSQL refuses too, for the
// same reason.
func TestRefusedPostgres(t *testing.T) {
	conn := startPostgres(t)
	createTables(t, conn)
	golden, err := os.ReadFile(filepath.Join("testdata", "refused.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(string(golden)), "\n") {
		q, want, _ := strings.Cut(line, "  =>  ")
		code := strings.Fields(want)[1]
		_, err := texts(t, conn, forPostgres(q))
		var e *pgconn.PgError
		switch got := ""; {
		case errors.As(err, &e):
			if got = e.Code; code != "0A000" && !sameReason[[2]string{code, got}] && code != got {
				t.Errorf("%s: got %s, PostgreSQL says %s %s", q, want, got, e.Message)
			}
		case err != nil:
			t.Fatal(err)
		case code != "0A000":
			t.Errorf("%s: got %s, PostgreSQL answers it", q, want)
		}
	}
}

// sameReason are SQLSTATEs of the engine, and PostgreSQL's for the same thing.
var sameReason = map[[2]string]bool{
	{"42704", "42P01"}: true, // an unknown relation, as Materialize has it
	{"42703", "42P01"}: true, // a column of a table that is not in FROM
	{"42703", "42P10"}: true, // a column in LIMIT
}

// forPostgres writes what the dialects write differently: user is a keyword in PostgreSQL, and a jsonb null does not cast.
func forPostgres(q string) string {
	return regexp.MustCompile(`\buser\b`).ReplaceAllString(q, `"user"`)
}

// apply makes changes in PostgreSQL.
func apply(t *testing.T, conn *pgx.Conn, changes map[string][]flow.Update) {
	t.Helper()
	var b strings.Builder
	for name, list := range changes {
		for _, sign := range []int64{1, -1} { // insertions first, so that there is something to delete
			for _, u := range list {
				if u.Diff != sign {
					continue
				}
				var values, conds []string
				for i, d := range u.Row {
					v := "NULL"
					if !d.IsNull() {
						v = "'" + strings.ReplaceAll(d.String(), "'", "''") + "'"
					}
					col := tables[name].Columns[i]
					v += "::" + col.Type.Name()
					values = append(values, v)
					conds = append(conds, col.Name+" IS NOT DISTINCT FROM "+v)
				}
				if sign > 0 {
					fmt.Fprintf(&b, "INSERT INTO %s VALUES (%s);", name, strings.Join(values, ", "))
				} else {
					fmt.Fprintf(&b, "DELETE FROM %s WHERE ctid = (SELECT ctid FROM %s WHERE %s LIMIT 1);", name, name, strings.Join(conds, " AND "))
				}
			}
		}
	}
	if b.Len() == 0 {
		return
	}
	if _, err := texts(t, conn, b.String()+"SELECT 1"); err != nil {
		t.Fatal(err)
	}
}
