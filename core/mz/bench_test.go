package mz_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/mz"
	"github.com/mzdio/mzd/core/viewlog"
)

// The benchmarks measure rows from the wire to the log of the view, against two
// limits: pgx alone, which reads the same stream into Go values and forgets them,
// and the wire, of which pgx's lower half reads the messages and looks at nothing
// in them. They take turns, so that of-pgx and of-wire, the rate as a part of a
// limit, hold on a machine that does other things too.

// BenchmarkSnapshot reads a whole view of a million rows into an empty log.
func BenchmarkSnapshot(b *testing.B) {
	const rows = 1_000_000
	var stream feed
	stream.mark(1000)
	for _, r := range users(rows) {
		stream.add(row(1000, 1, r...))
	}
	stream.mark(1001)
	addr := stream.serve(b)
	compare(b, addr, rows, func() {
		s, l := subscribe(b, addr), viewlog.New("v", viewlog.Options{})
		defer s.Close()
		takeSnapshot(b, s, l)
		if got := l.Stats().Rows; got != rows {
			b.Fatalf("%d rows in the log, want %d", got, rows)
		}
	})
}

// BenchmarkChanges follows a view that changes in ticks of so many rows, which
// arrive in one write each, as Materialize and the engine send them.
func BenchmarkChanges(b *testing.B) {
	for _, tick := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("tick=%d", tick), func(b *testing.B) {
			rows := min(300_000, 30_000*tick/10)
			var stream feed
			stream.mark(1000)
			stream.mark(1001)
			at := core.Time(1001)
			for i, r := range users(rows / 2) {
				stream.add(row(at, 1, r...))
				stream.add(row(at, -1, r[0], "1"+r[1]))
				if (i+1)*2%tick == 0 {
					at++
					stream.mark(at)
				}
			}
			addr := stream.serve(b)
			compare(b, addr, rows, func() {
				s, l := subscribe(b, addr), viewlog.New("v", viewlog.Options{})
				defer s.Close()
				takeSnapshot(b, s, l)
				for n := 0; n < rows; {
					batch, err := s.Next(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					n += batch.Updates.Len()
					if err := l.Append(batch.Lower.Time, batch.Upper.Time, batch.Updates.Slice()); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// compare measures the way into the log beside its limits, for a stream of so
// many rows.
func compare(b *testing.B, addr string, rows int, intoLog func()) {
	var log, pgx, wire time.Duration
	for b.Loop() {
		wire += timed(func() { readMessages(b, addr, rows) })
		pgx += timed(func() { readValues(b, addr, rows) })
		log += timed(intoLog)
	}
	rate := func(took time.Duration) float64 { return float64(rows) * float64(b.N) / took.Seconds() }
	b.ReportMetric(rate(log), "rows/s")
	b.ReportMetric(rate(log)/rate(pgx), "of-pgx")
	b.ReportMetric(rate(log)/rate(wire), "of-wire")
}

func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// readMessages reads so many rows of the stream with the lower half of pgx.
func readMessages(b *testing.B, addr string, rows int) {
	pg, err := pgconn.Connect(b.Context(), benchURL(addr))
	if err != nil {
		b.Fatal(err)
	}
	defer pg.Conn().Close()
	results := pg.Exec(b.Context(), "SUBSCRIBE")
	results.NextResult()
	reader := results.ResultReader()
	for n := 0; n < rows && reader.NextRow(); {
		if reader.Values()[leadingProgress][0] == 'f' {
			n++
		}
	}
}

// readValues reads so many rows of the stream with pgx.
func readValues(b *testing.B, addr string, rows int) {
	c, err := pgx.ParseConfig(benchURL(addr))
	if err != nil {
		b.Fatal(err)
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	pg, err := pgx.ConnectConfig(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	defer pg.PgConn().Conn().Close()
	stream, err := pg.Query(b.Context(), "SUBSCRIBE")
	if err != nil {
		b.Fatal(err)
	}
	var at uint64
	var progressed bool
	var diff, count *int64
	var user *string
	for n := 0; n < rows && stream.Next(); {
		if err := stream.Scan(&at, &progressed, &diff, &user, &count); err != nil {
			b.Fatal(err)
		}
		if !progressed {
			n++
		}
	}
}

func benchURL(addr string) string { return "postgres://u@" + addr + "/db?sslmode=disable" }

// leadingProgress is the column that tells progress from rows.
const leadingProgress = 1

func subscribe(b *testing.B, addr string) *mz.Stream {
	c, err := mz.New(mz.Config{URL: benchURL(addr)})
	if err != nil {
		b.Fatal(err)
	}
	s, err := c.Subscribe(b.Context(), mz.Request{Name: "v"})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func takeSnapshot(b *testing.B, s *mz.Stream, l *viewlog.Log) {
	snapshot := l.Snapshot()
	at, err := s.Snapshot(b.Context(), snapshot.Add)
	if err == nil {
		err = l.Reset(&core.View{Name: "v", Columns: s.Columns()}, s.Identity(), at, snapshot)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// users are rows of a view of names and numbers, in no order.
func users(n int) [][]string {
	rnd := rand.New(rand.NewPCG(1, 2))
	rows := make([][]string, n)
	for i := range rows {
		name := make([]byte, 4+rnd.IntN(14))
		for i := range name {
			name[i] = byte('a' + rnd.IntN(26))
		}
		rows[i] = []string{fmt.Sprintf("%s %d", name, i), fmt.Sprint(rnd.IntN(100_000))}
	}
	return rows
}

// feed is what a server sends on a stream, piece by piece.
type feed struct{ pieces [][]byte }

// feedPiece is the size of the pieces of a feed that has no marks.
const feedPiece = 64 << 10

func (f *feed) add(m *pgproto3.DataRow) {
	if n := len(f.pieces); n == 0 || len(f.pieces[n-1]) > feedPiece {
		f.pieces = append(f.pieces, nil)
	}
	last := len(f.pieces) - 1
	f.pieces[last], _ = m.Encode(f.pieces[last])
}

// mark adds a progress mark, and ends the piece.
func (f *feed) mark(t core.Time) {
	f.add(progress(t))
	f.pieces = append(f.pieces, nil)
}

// run sends the feed, as a step of a script, and waits for the client to leave.
func (f *feed) run(conn net.Conn) {
	for _, p := range f.pieces {
		if _, err := conn.Write(p); err != nil {
			return
		}
	}
	conn.Read(make([]byte, 1))
}

// serve answers every stream with the feed.
func (f *feed) serve(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				srv := today()
				srv.scripts = []script{{columns(), step(func() { f.run(conn) })}}
				srv.serve(pgproto3.NewBackend(conn, conn))
			}()
		}
	}()
	return ln.Addr().String()
}
