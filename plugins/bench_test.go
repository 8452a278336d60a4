package plugins_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// adder is a sink that looks at every update, and does nothing.
type adder struct{ null }

func newAdder(context.Context, struct{}) (adder, error) { return adder{}, nil }

var added int

func (adder) Write(_ context.Context, cut []core.Batch) error {
	for _, b := range cut {
		for u := range b.Updates.All() {
			added += int(u.Diff) * len(u.Row)
		}
	}
	return nil
}

// takeEverything reads pieces without looking into them.
func takeEverything(s writeServer) error {
	for n := uint64(0); ; {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		if p := m.GetPiece(); p != nil && !p.GetMore() {
			n++
			if err := s.Send(&mzdv1.SinkWriteResponse{Acknowledged: n}); err != nil {
				return nil
			}
		}
	}
}

// BenchmarkExternal writes the same cuts, by turns, to a sink in a process of its own,
// as bytes over a bare stream of gRPC to another process, and to the same sink in this
// process. The bare stream is the limit: no plugin could take them faster.
func BenchmarkExternal(b *testing.B) {
	for _, rows := range []int{10, 1_000, 100_000} {
		for _, tls := range []string{"auto", "off"} {
			b.Run(fmt.Sprintf("rows=%d/tls=%s", rows, tls), func(b *testing.B) { benchmarkExternal(b, rows, tls) })
		}
	}
}

func benchmarkExternal(b *testing.B, rows int, tls string) {
	text := make([]string, rows)
	for i := range text {
		text[i] = fmt.Sprintf(`["Special:Contributions/%08d",%d,"2026-01-01T00:00:00.000Z",true]`, i, i*7)
	}
	cut := []core.Batch{base("v", 5, text...)}
	c := command(b, "adder")
	c.TLS = tls
	external := openSink(b, c, struct{}{})
	bare := openBare(b, tls, slices.Collect(plugins.Pieces(cut)))
	sinks := []core.Sink{external, bare, adder{}}
	took := make([]time.Duration, len(sinks))
	for b.Loop() {
		for i, s := range sinks {
			begun := time.Now()
			if err := s.Write(b.Context(), cut); err != nil {
				b.Fatal(err)
			}
			took[i] += time.Since(begun)
		}
	}
	updates := float64(rows) * float64(b.N)
	b.ReportMetric(updates/took[0].Seconds(), "updates/s")
	b.ReportMetric(updates/took[1].Seconds(), "bare-updates/s")
	b.ReportMetric(updates/took[2].Seconds(), "in-process-updates/s")
	b.ReportMetric(100*took[1].Seconds()/took[0].Seconds(), "%-of-bare")
	b.ReportMetric(0, "ns/op")
}

// bareSink writes pieces that are made already.
type bareSink struct {
	null
	stream grpc.BidiStreamingClient[mzdv1.SinkWriteRequest, mzdv1.SinkWriteResponse]
	pieces []*mzdv1.Piece
}

func openBare(b *testing.B, tls string, pieces []*mzdv1.Piece) *bareSink {
	c := command(b, "takes everything")
	c.TLS = tls
	conn, stop, err := plugins.Connect(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(stop)
	stream, err := mzdv1.NewSinkClient(conn).Write(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return &bareSink{stream: stream, pieces: pieces}
}

func (s *bareSink) Write(context.Context, []core.Batch) error {
	for _, p := range s.pieces {
		if err := s.stream.Send(&mzdv1.SinkWriteRequest{Message: &mzdv1.SinkWriteRequest_Piece{Piece: p}}); err != nil {
			return err
		}
	}
	_, err := s.stream.Recv()
	return err
}
