package pgwire_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"reflect"
	"strings"

	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// code is the SQLSTATE of an error.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// TestParameters writes every type with parameters, and reads it back, in each way that pgx has to send them.
func TestParameters(t *testing.T) {
	addr, _ := serveEngine(t)
	day := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
	moment := time.Date(1969, 7, 20, 20, 17, 40, 123456000, time.UTC)
	number := func(s string) pgtype.Numeric {
		var n pgtype.Numeric
		if err := n.Scan(s); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeCacheStatement,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			conn := dialPgx(t, addr, mode)
			ctx := t.Context()
			table := fmt.Sprintf("t%d", i)
			do := func(want, sql string, args ...any) {
				t.Helper()
				tag, err := conn.Exec(ctx, sql, args...)
				if err != nil || tag.String() != want {
					t.Errorf("%s: got %s, %v; want %s", sql, tag, err, want)
				}
			}
			do("CREATE TABLE", "CREATE TABLE "+table+` (id int NOT NULL, b bool, i2 smallint, i8 bigint, f4 real, f8 double precision,
				n numeric, s text, j jsonb, d date, ts timestamp, tz timestamptz)`)
			insert := "INSERT INTO " + table + " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
			full := []any{int32(1), true, int16(-3), int64(math.MinInt64), float32(0.1), 1e-300, number("-12345678901234567890.000123"), "zoë's \\ \"x\"",
				map[string]any{"a": []any{1.5, nil}}, day, moment, moment}
			empty := []any{int32(2), nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil}
			odd := []any{int32(3), false, int16(math.MaxInt16), int64(0), float32(math.Inf(1)), math.Copysign(math.MaxFloat64, -1), number("0.00000001"), "",
				`"x"`, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 0).UTC()}
			if mode == pgx.QueryExecModeSimpleProtocol || mode == pgx.QueryExecModeExec { // which cannot know that a map is a jsonb
				full[8] = `{"a":[1.5,null]}`
			}
			for range 2 { // the second time from a cache, where there is one
				do("INSERT 0 1", insert, full...)
				do("DELETE 1", "DELETE FROM "+table+" WHERE id = $1", int32(1))
			}
			for _, row := range [][]any{full, empty, odd} {
				do("INSERT 0 1", insert, row...)
			}
			rows, err := conn.Query(ctx, "SELECT * FROM "+table+" WHERE id >= $1 ORDER BY id", int32(0))
			if err != nil {
				t.Fatal(err)
			}
			full[8], odd[8] = map[string]any{"a": []any{1.5, nil}}, "x"
			for _, want := range [][]any{full, empty, odd} {
				if !rows.Next() {
					t.Fatal("a row is missing: ", rows.Err())
				}
				got, err := rows.Values()
				if err != nil {
					t.Fatal(err)
				}
				for i := range want {
					if !same(got[i], want[i]) {
						t.Errorf("column %d: got %v (%T), want %v (%T)", i, got[i], got[i], want[i], want[i])
					}
				}
			}
			rows.Close()
			do("UPDATE 2", "UPDATE "+table+" SET s = $1 || s, i8 = coalesce(i8, 0) + $2 WHERE n IS NOT NULL AND id < $3", "x", int64(5), int32(9))
			var s string
			if err := conn.QueryRow(ctx, "SELECT s FROM "+table+" WHERE i8 = $1 LIMIT $2", int64(5), int64(1)).Scan(&s); err != nil || s != "x" {
				t.Errorf("got %q, %v", s, err)
			}
			var upper int64
			if err := conn.QueryRow(ctx, "SELECT upper::int8 FROM mzd_ticks").Scan(&upper); err != nil {
				t.Fatal(err)
			}
			rows, err = conn.Query(ctx, "SUBSCRIBE (SELECT id, $1::text FROM "+table+" WHERE id = $2) AS OF $3 UP TO $4", "x", int32(2), upper-1, upper)
			if err != nil {
				t.Fatal(err)
			}
			streamed, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
				v, err := row.Values()
				return fmt.Sprint(v[1:]), err
			})
			if want := []string{"[1 2 x]"}; err != nil || !reflect.DeepEqual(streamed, want) {
				t.Errorf("streamed %q, %v; want %q", streamed, err, want)
			}
			for sql, want := range map[string]string{
				"INSERT INTO " + table + " (id) VALUES (NULL)":        "23502",
				"INSERT INTO " + table + " (id) VALUES ('x')":         "22P02",
				"INSERT INTO " + table + " (nothing) VALUES (1)":      "42703",
				"UPDATE nothing SET a = 1":                            "42P01",
				"INSERT INTO " + table + " (id) VALUES (99999999999)": "22003",
			} {
				if _, err := conn.Exec(ctx, sql); code(err) != want {
					t.Errorf("%s: got %s, want %s", sql, code(err), want)
				}
			}
			if err := conn.Ping(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// same compares what pgx reads with what it was given.
func same(got, want any) bool {
	if n, ok := want.(pgtype.Numeric); ok {
		g, ok := got.(pgtype.Numeric)
		return ok && decimal(n).Cmp(decimal(g)) == 0
	}
	if w, ok := want.(time.Time); ok {
		g, ok := got.(time.Time)
		return ok && g.Equal(w)
	}
	return reflect.DeepEqual(got, want)
}

func decimal(n pgtype.Numeric) *big.Rat {
	r := new(big.Rat).SetInt(n.Int)
	for ; n.Exp < 0; n.Exp++ {
		r.Quo(r, big.NewRat(10, 1))
	}
	for ; n.Exp > 0; n.Exp-- {
		r.Mul(r, big.NewRat(10, 1))
	}
	return r
}

// TestTransactions writes as drivers do: in blocks, batches and pipelines.
func TestTransactions(t *testing.T) {
	addr, _ := serveEngine(t)
	conn := dialPgx(t, addr, pgx.QueryExecModeCacheStatement)
	ctx := t.Context()
	count := func(want int) {
		t.Helper()
		var got int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM a").Scan(&got); err != nil || got != want {
			t.Errorf("got %d rows, %v; want %d", got, err, want)
		}
	}
	if _, err := conn.Exec(ctx, "CREATE TABLE a (x int NOT NULL); CREATE TABLE b (x text)", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO a VALUES ($1)", 1); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO b VALUES ($1)", "one")
		return err
	})
	if err != nil {
		t.Error(err)
	}
	count(1)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO a VALUES (2)"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO a VALUES (NULL)")
		return err
	})
	if code(err) != "23502" {
		t.Error(err)
	}
	count(1)

	// The statements of a batch are one transaction.
	batch := &pgx.Batch{}
	for i := range 500 {
		batch.Queue("INSERT INTO a VALUES ($1)", i)
	}
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		t.Error(err)
	}
	count(501)
	batch.Queue("INSERT INTO a VALUES ($1)", nil)
	if err := conn.SendBatch(ctx, batch).Close(); code(err) != "23502" {
		t.Error(err)
	}
	count(501)
	// And so are those of one message.
	if _, err := conn.PgConn().Exec(ctx, "INSERT INTO a VALUES (1); INSERT INTO a VALUES (1); INSERT INTO a VALUES (NULL)").ReadAll(); code(err) != "23502" {
		t.Error(err)
	}
	count(501)
	if _, err := conn.PgConn().Exec(ctx, "INSERT INTO a VALUES (1); SELECT * FROM a WHERE false; INSERT INTO a VALUES (1)").ReadAll(); err != nil {
		t.Error(err)
	}
	count(503)
	// Any error ends a transaction block, also one that is not of a statement.
	for name, fail := range map[string]func(*pgconn.PgConn) error{
		"no statement":    func(c *pgconn.PgConn) error { _, err := c.Exec(ctx, "SELEC 1").ReadAll(); return err },
		"no prepared one": func(c *pgconn.PgConn) error { _, err := c.Prepare(ctx, "x", "SELEC 1", nil); return err },
		"nothing to bind": func(c *pgconn.PgConn) error { return c.ExecPrepared(ctx, "nothing", nil, nil, nil).Read().Err },
		"a bad parameter": func(c *pgconn.PgConn) error {
			return c.ExecParams(ctx, "SELECT $1::int", [][]byte{[]byte("x")}, nil, nil, nil).Read().Err
		},
		"an unknown type": func(c *pgconn.PgConn) error {
			return c.ExecParams(ctx, "SELECT $1", [][]byte{nil}, []uint32{600}, nil, nil).Read().Err
		},
		"a COPY that is given up": func(c *pgconn.PgConn) error {
			_, err := c.CopyFrom(ctx, iotest.ErrReader(errors.New("x")), "COPY a FROM STDIN")
			return err
		},
		"an evaluation error": func(c *pgconn.PgConn) error { _, err := c.Exec(ctx, "SELECT 1/0").ReadAll(); return err },
	} {
		c := conn.PgConn()
		if _, err := c.Exec(ctx, "BEGIN; INSERT INTO a VALUES (1)").ReadAll(); err != nil {
			t.Fatal(err)
		}
		if err := fail(c); err == nil || c.TxStatus() != 'E' {
			t.Errorf("%s: %v, status %c", name, err, c.TxStatus())
		}
		if r, err := c.Exec(ctx, "COMMIT").ReadAll(); err != nil || r[0].CommandTag.String() != "ROLLBACK" {
			t.Errorf("%s: COMMIT: %v, %v", name, r, err)
		}
		count(503)
	}
}

// TestCopyFrom copies rows in each format.
func TestCopyFrom(t *testing.T) {
	addr, _ := serveEngine(t)
	conn := dialPgx(t, addr, pgx.QueryExecModeCacheStatement)
	ctx := t.Context()
	if _, err := conn.Exec(ctx, "CREATE TABLE t (a int NOT NULL, b text, c timestamptz DEFAULT '2024-01-02')"); err != nil {
		t.Fatal(err)
	}
	all := func() string {
		rows, err := conn.Query(ctx, "SELECT a::text || ':' || coalesce(b, 'NULL') || ':' || coalesce(c::date::text, 'NULL') FROM t ORDER BY a")
		if err != nil {
			t.Fatal(err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(list, " ")
	}
	for _, test := range []struct{ sql, data, want string }{
		{"COPY t FROM STDIN", "1\tone\\t\\\\\\x21\\041\\\nx\t2024-05-06 00:00:00\n2\t\\N\t\\N\n3\t\t\\N", "COPY 3 1:one\t\\!!\nx:2024-05-06 2:NULL:NULL 3::NULL"},
		{"COPY t (b, a) FROM STDIN", "x\t1\r\ny\t2\r\n\\.\nz\n", "COPY 2 1:x:2024-01-02 2:y:2024-01-02"},
		{"COPY t (a, b) FROM STDIN WITH (DELIMITER ',', NULL 'nil')", "1,nil\n2,a\\,b\n", "COPY 2 1:NULL:2024-01-02 2:a,b:2024-01-02"},
		{"COPY t (a, b) FROM STDIN CSV HEADER", "a,b\n1,\"x, \"\"y\"\"\n2\"\n2,\n3,\"\"\n4,a\"b\"c\r\n", "COPY 4 1:x, \"y\"\n2:2024-01-02 2:NULL:2024-01-02 3::2024-01-02 4:abc:2024-01-02"},
		{"COPY t (a, b) FROM STDIN WITH (FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL '-')", "1;'a\\'b;\n'\n2;-\n", "COPY 2 1:a'b;\n:2024-01-02 2:NULL:2024-01-02"},
		{"COPY t FROM STDIN", "", "COPY 0 "},
		{"COPY t FROM STDIN", "1\tx\t\\N\n2\n", "22P04 missing data for column b"},
		{"COPY t (a) FROM STDIN", "1\t2\n", "22P04 extra data after last expected column"},
		{"COPY t (a) FROM STDIN", "1\nx\n", "22P02 invalid input syntax for type integer: \"x\""},
		{"COPY t (a) FROM STDIN", "\\N\n", "23502 null value in column a of table t violates not-null constraint"},
		{"COPY t (b) FROM STDIN", "x\n", "23502 null value in column a of table t violates not-null constraint"},
		{"COPY t (a, b) FROM STDIN", "1\t\xff\n", "22021 invalid byte sequence for encoding \"UTF8\""},
		{"COPY t (a, b) FROM STDIN", "1\ta\\0b\n", "22021 invalid byte sequence for encoding \"UTF8\""},
		{"COPY t (a, b) FROM STDIN CSV", "1,a\x00b\n", "22021 invalid byte sequence for encoding \"UTF8\""},
		{"COPY t (a) FROM STDIN CSV", "\"1\n", "22P04 unterminated CSV quoted field"},
		{"COPY t (a) FROM STDIN BINARY", "PGCOPX\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00", "22P04 invalid COPY file header"},
		{"COPY t (a) FROM STDIN BINARY", "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00", "22P04 unexpected EOF in COPY data"},
		{"COPY nothing FROM STDIN", "1\n", "42P01 1:6: unknown catalog item 'nothing'"},
		{"COPY top10 FROM STDIN", "1\n", "42809 1:6: cannot write to top10: it is no table"},
	} {
		// In one piece, and byte by byte: records are cut anywhere.
		for _, data := range []string{test.data, ""} {
			var tag pgconn.CommandTag
			var err error
			if data != "" || test.data == "" {
				tag, err = conn.PgConn().CopyFrom(ctx, strings.NewReader(data), test.sql)
			} else {
				tag, err = conn.PgConn().CopyFrom(ctx, &bytewise{test.data}, test.sql)
			}
			got := tag.String() + " " + all()
			var e *pgconn.PgError
			if errors.As(err, &e) {
				got = e.Code + " " + e.Message
				if rows := all(); rows != "" {
					t.Errorf("%s: an error has left %s", test.sql, rows)
				}
			}
			if got != test.want {
				t.Errorf("%s %q\ngot  %q\nwant %q", test.sql, test.data, got, test.want)
			}
			if _, err := conn.Exec(ctx, "DELETE FROM t"); err != nil {
				t.Fatal(err)
			}
		}
	}
	rows := [][]any{{1, "x", time.Unix(0, 0)}, {2, nil, nil}}
	if n, err := conn.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"a", "b", "c"}, pgx.CopyFromRows(rows)); n != 2 || err != nil || all() != "1:x:1970-01-01 2:NULL:NULL" {
		t.Errorf("pgx's CopyFrom: got %d, %v, %s", n, err, all())
	}
	// A client that gives up leaves nothing.
	_, err := conn.PgConn().CopyFrom(ctx, &failing{}, "COPY t (a) FROM STDIN")
	if code(err) != "57014" && !strings.Contains(fmt.Sprint(err), "no more") || all() != "1:x:1970-01-01 2:NULL:NULL" {
		t.Errorf("got %v, %s", err, all())
	}
	// A COPY belongs to its transaction.
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.PgConn().CopyFrom(ctx, strings.NewReader("7\n"), "COPY t (a) FROM STDIN"); err != nil {
		t.Error(err)
	}
	if err := tx.Rollback(ctx); err != nil || all() != "1:x:1970-01-01 2:NULL:NULL" {
		t.Errorf("after ROLLBACK: %v, %s", err, all())
	}
}

// bytewise reads one byte at a time.
type bytewise struct{ rest string }

func (b *bytewise) Read(p []byte) (int, error) {
	n := copy(p[:1], b.rest)
	b.rest = b.rest[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

type failing struct{ begun bool }

func (f *failing) Read(p []byte) (int, error) {
	if f.begun {
		return 0, errors.New("no more")
	}
	f.begun = true
	return copy(p, "5\n"), nil
}

// TestWriters lets many connections write at once: no update is lost.
func TestWriters(t *testing.T) {
	addr, _ := serveEngine(t)
	conn := dialPgx(t, addr, pgx.QueryExecModeCacheStatement)
	ctx := t.Context()
	if _, err := conn.Exec(ctx, "CREATE TABLE n (k int, v int)"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "INSERT INTO n VALUES (0, 0)"); err != nil {
		t.Fatal(err)
	}
	const writers, rounds = 8, 10
	ended := make(chan struct{})
	for range writers {
		c := dialPgx(t, addr, pgx.QueryExecModeCacheStatement)
		go func() {
			defer func() { ended <- struct{}{} }()
			for i := range rounds {
				for _, sql := range []string{"UPDATE n SET v = v + 1 WHERE k = 0", "INSERT INTO n SELECT max(k) + 1, 0 FROM n"} {
					if _, err := c.Exec(ctx, sql); err != nil {
						t.Error(err)
					}
				}
				if _, err := c.Exec(ctx, "INSERT INTO n VALUES ($1, 7)", -1-i); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for range writers {
		<-ended
	}
	var v, k, distinct, plain int
	err := conn.QueryRow(ctx, `SELECT max(v), max(k), count(DISTINCT k) FILTER (WHERE k > 0), count(*) FILTER (WHERE k < 0) FROM n`).Scan(&v, &k, &distinct, &plain)
	if err != nil || v != writers*rounds || k != writers*rounds || distinct != k || plain != writers*rounds {
		t.Errorf("got v %d, k %d, %d distinct, %d plain, %v", v, k, distinct, plain, err)
	}
}

// TestPsqlTables runs a script of psql's.
func TestPsqlTables(t *testing.T) {
	addr, _ := serveEngine(t)
	cmd := psql(t, addr, "-A", "-t")
	cmd.Stdin = strings.NewReader(`CREATE TABLE t (a int NOT NULL, b text DEFAULT 'x');
CREATE MATERIALIZED VIEW m AS SELECT b, count(*) AS n FROM t GROUP BY b;
INSERT INTO t VALUES (1), (2, 'y');
COPY t FROM STDIN;
3	y
4	\N
\.
SELECT * FROM m ORDER BY b;
BEGIN;
INSERT INTO t VALUES (5);
ROLLBACK;
UPDATE t SET b = 'z' WHERE b = 'y';
DELETE FROM t WHERE a = 4;
SELECT * FROM m ORDER BY b;
INSERT INTO t VALUES (NULL);
DROP TABLE t;
DROP TABLE IF EXISTS t CASCADE;
DROP TABLE IF EXISTS t;
`)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	want := `CREATE TABLE
CREATE MATERIALIZED VIEW
INSERT 0 2
COPY 2
x|1
y|2
|1
BEGIN
INSERT 0 1
ROLLBACK
UPDATE 2
DELETE 1
x|1
z|2
ERROR:  null value in column a of table t violates not-null constraint
ERROR:  cannot drop t: still depended upon by m
DETAIL:  materialized view m depends on table t
HINT:  Use DROP ... CASCADE to drop them too.
NOTICE:  drop cascades to materialized view m
DROP TABLE
NOTICE:  table t does not exist, skipping
DROP TABLE
`
	if got := string(out); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
