package pgwire_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	gosync "sync"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/pgwire"
)

// TestCancelWait cancels what waits for an engine that is still opening: it
// has sources to read first.
func TestCancelWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := engine.Open(engine.Options{}) // it does not run, so it never has opened
		if err != nil {
			t.Fatal(err)
		}
		s := serve(t, pgwire.New(e, pgwire.Options{}))
		c := connect(t, s)
		c.send(query("CREATE SOURCE s FROM FILE 'nothing' WITH (tail = true) FORMAT TEXT; CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM s"))
		c.hear("Z")
		for _, waits := range [][]pgproto3.FrontendMessage{
			{query("SELECT * FROM v")},
			{query("SELECT * FROM s")},
			{query("SUBSCRIBE TO v")},
			{query("SUBSCRIBE (SELECT * FROM s)")},
			{query("COPY (TAIL v WITH (PROGRESS)) TO STDOUT")},
			{query("BEGIN; DECLARE c CURSOR FOR SUBSCRIBE TO v; FETCH ALL c")},
			{query("ROLLBACK; SELECT * FROM v AS OF 99999999999999")},
			{parse("SELECT * FROM v"), bindAll, execute(0), sync},
		} {
			c.send(waits...)
			heard := make(chan string)
			go func() { heard <- c.hear("Z") }()
			synctest.Wait()
			select {
			case got := <-heard:
				t.Fatalf("%v does not wait: %s", waits[0], got)
			default:
			}
			conn, err := s.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			talk(t, conn).send(&pgproto3.CancelRequest{ProcessID: c.key.ProcessID, SecretKey: c.key.SecretKey})
			if got := <-heard; !strings.Contains(got, "E ERROR 57014 canceling statement due to user request\nZ ") {
				t.Errorf("%v: got %s", waits[0], got)
			}
		}
		c.expect("Z", "T state:25:0\nD \"building\"\nC SELECT 1\nZ I", query("SELECT state FROM mz_internal.mzd_views"))
		c.conn.Close()
	})
}

// serve runs a server for the length of the test.
func serve(t testing.TB, s *pgwire.Server) *pgwire.Server {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != context.Canceled {
			t.Errorf("Run returned %v", err)
		}
	})
	return s
}

// alarm is a log handler that takes every error record, of a panic or of an
// error that no client should be able to cause, for a failure.
type alarm struct{ errors chan string }

func (f alarm) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (f alarm) WithAttrs([]slog.Attr) slog.Handler           { return f }
func (f alarm) WithGroup(string) slog.Handler                { return f }
func (f alarm) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	select {
	case f.errors <- text:
	default:
	}
	return nil
}

// FuzzServe sends arbitrary messages to a real engine that runs.
func FuzzServe(f *testing.F) {
	for _, messages := range [][]pgproto3.FrontendMessage{
		{query("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x')"), query("SELECT * FROM t ORDER BY a")},
		{query("SUBSCRIBE (SELECT a, count(*) FROM t GROUP BY a) ENVELOPE UPSERT (KEY (a)) WITH (PROGRESS) UP TO '2100-01-01'")},
		{query("BEGIN; DECLARE c CURSOR FOR TAIL t; FETCH ALL c WITH (timeout = '0s'); CLOSE c; COMMIT")},
		{query("COPY t FROM STDIN WITH (FORMAT csv)"), &pgproto3.CopyData{Data: []byte("1,\"a\"\n")}, &pgproto3.CopyDone{}},
		{query("COPY (SELECT * FROM t) TO STDOUT WITH (FORMAT binary)"), query("SHOW COLUMNS FROM t; SHOW CREATE TABLE t")},
		{parse("INSERT INTO t VALUES ($1, $2)"), &pgproto3.Bind{Parameters: [][]byte{[]byte("1"), nil}}, execute(0), sync},
		{parse("SELECT $1::int + 1"), describe('S', ""), &pgproto3.Bind{ParameterFormatCodes: []int16{1}, Parameters: [][]byte{{0, 0, 0, 1}}, ResultFormatCodes: []int16{1}}, execute(1), flush, execute(1), sync},
		{parse("SUBSCRIBE t"), bindAll, execute(1), execute(1), &pgproto3.Close{ObjectType: 'P'}, sync},
		{query("SELECT * FROM mz_internal.mzd_views, mz_objects; SUBSCRIBE TO mzd_ticks AS OF 1")},
	} {
		var data []byte
		for _, m := range messages {
			data = append(data, encode(m)...)
		}
		f.Add(data)
	}
	e, err := engine.Open(engine.Options{})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-ended })
	log := alarm{make(chan string, 1)}
	s := serve(f, pgwire.New(e, pgwire.Options{MaxMessageBytes: 4096, Logger: slog.New(log)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := connect(t, s)
		var ended gosync.WaitGroup
		ended.Go(func() { io.Copy(io.Discard, c.conn) })
		ended.Go(func() { c.conn.Write(data) }) // the server may stop reading: behind a stream it takes only so much
		// While another connection is served twice, the statements run; a stream among them is cancelled in between.
		healthy := connect(t, s)
		healthy.expect("Z", "T one:23:0\nD \"1\"\nC SELECT 1\nZ I", query("SELECT 1 AS one"))
		if conn, err := s.Dial(t.Context()); err == nil {
			talk(t, conn).send(&pgproto3.CancelRequest{ProcessID: c.key.ProcessID, SecretKey: c.key.SecretKey})
		}
		healthy.expect("Z", "T n:20:0\nD \"0\"\nC SELECT 1\nZ I", query("SELECT count(*) AS n FROM mz_objects WHERE id = 'none'"))
		c.conn.Close()
		ended.Wait()
		select {
		case text := <-log.errors:
			t.Error(text)
		default:
		}
	})
}
