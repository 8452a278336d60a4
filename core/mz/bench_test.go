package mz_test

import (
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/mz"
)

// BenchmarkStream measures updates from the wire to batches, and pgx alone
// reading the same bytes as the limit. The rows of a tick arrive in one write,
// as Materialize and the engine send them. A unit is one row.
func BenchmarkStream(b *testing.B) {
	const tick = 1000
	b.Run("mzd", func(b *testing.B) {
		addr := serveTicks(b, tick)
		c, err := mz.New(mz.Config{URL: "postgres://u@" + addr + "/db?sslmode=disable"})
		if err != nil {
			b.Fatal(err)
		}
		s, err := c.Subscribe(b.Context(), mz.Request{Name: "v"})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		b.ReportAllocs()
		b.ResetTimer()
		for n := 0; n < b.N; {
			batch, err := s.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			n += batch.Updates.Len()
		}
	})
	b.Run("pgx", func(b *testing.B) {
		pg, err := pgconn.Connect(b.Context(), "postgres://u@"+serveTicks(b, tick)+"/db?sslmode=disable")
		if err != nil {
			b.Fatal(err)
		}
		defer pg.Conn().Close()
		results := pg.Exec(b.Context(), "SUBSCRIBE")
		results.NextResult()
		rows := results.ResultReader()
		b.ReportAllocs()
		b.ResetTimer()
		for n := 0; n < b.N && rows.NextRow(); n++ {
			rows.Values()
		}
	})
}

// serveTicks answers every stream with ticks of rows without end. All ticks are
// the same bytes but for their times, which are overwritten in place.
func serveTicks(b *testing.B, tick int) string {
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
				srv.scripts = []script{{columns(), progress(1000), ticks{conn, tick}}}
				srv.serve(pgproto3.NewBackend(conn, conn))
			}()
		}
	}()
	return ln.Addr().String()
}

// ticks is a step of a script: rows without end.
type ticks struct {
	conn net.Conn
	n    int
}

func (s ticks) run() {
	const first core.Time = 1_000_000_000_000
	var buf []byte
	var times []int // where they stand in buf
	add := func(m *pgproto3.DataRow) {
		times = append(times, len(buf)+len("D")+4+2+4)
		buf, _ = m.Encode(buf)
	}
	for i := range s.n {
		add(row(first, core.Diff(1-2*(i%2)), "user"+core.Time(i).String(), core.Time(1000+i/2).String()))
	}
	add(progress(first))
	for t := first; ; t++ {
		for i, at := range times {
			when := t
			if i == s.n {
				when++
			}
			copy(buf[at:], when.String())
		}
		if _, err := s.conn.Write(buf); err != nil {
			return
		}
	}
}
