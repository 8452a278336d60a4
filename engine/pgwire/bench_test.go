package pgwire_test

import (
	"context"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/pgwire"
)

// BenchmarkRows measures rows from the engine's side of a session to a client
// in the same process, over a pipe and over loopback. A unit is one row; a
// chunk has a hundred.
func BenchmarkRows(b *testing.B) {
	chunk := make([]flow.Row, 100)
	for i := range chunk {
		chunk[i] = flow.Row{flow.NewInt(flow.Int8, int64(i)), flow.NewText("some text of a row")}
	}
	s := start(b, pgwire.Options{}, func(context.Context, string) (*engine.Result, error) {
		r := rows(nil)
		r.Next = func(ctx context.Context) ([]flow.Row, error) { return chunk, ctx.Err() }
		return r, nil
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, ln) }()
	defer func() { cancel(); <-ended }()

	for _, tt := range []struct {
		name string
		dial pgconn.DialFunc
	}{
		{"pipe", func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Dial(ctx) }},
		{"tcp", func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			cfg, err := pgconn.ParseConfig("postgres://u@127.0.0.1/db?sslmode=disable")
			if err != nil {
				b.Fatal(err)
			}
			cfg.DialFunc = tt.dial
			pg, err := pgconn.ConnectConfig(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer pg.Conn().Close()
			results := pg.Exec(b.Context(), "SELECT 1")
			results.NextResult()
			reader := results.ResultReader()
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N && reader.NextRow(); n++ {
				reader.Values()
			}
		})
	}
}
