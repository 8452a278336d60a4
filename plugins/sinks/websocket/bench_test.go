package websocket_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	ws "github.com/coder/websocket"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// BenchmarkFanout measures a change on its way to every client of a view, one
// change at a time: with nothing to join, each delivery is a write.
func BenchmarkFanout(b *testing.B) {
	for _, clients := range []int{1, 100} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			log := viewlog.New("v", viewlog.Options{})
			view := &core.View{Name: "v", Columns: []core.Column{{Name: "n", Type: "int8"}}}
			if err := log.Reset(view, "upstream", 1000, snapshot(log, []core.Update{{Time: 999, Diff: 1, Row: `[0]`}})); err != nil {
				b.Fatal(err)
			}
			sink, err := websocket.New(b.Context(), websocket.Settings{Listen: "127.0.0.1:0"})
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			served := make(chan error, 1)
			go func() { served <- sink.Serve(ctx, []core.Reader{log}) }()
			var arrived, readers sync.WaitGroup
			arrived.Add(clients)
			for range clients {
				c, _, err := ws.Dial(b.Context(), "ws://"+sink.Addr().String()+"/api/stream/v", &ws.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{}}})
				if err != nil {
					b.Fatal(err)
				}
				readers.Go(func() {
					defer c.CloseNow()
					for {
						if _, _, err := c.Read(ctx); err != nil {
							return
						}
						arrived.Done()
					}
				})
			}
			arrived.Wait()
			at := core.Time(1000)
			for i := 0; b.Loop(); i++ {
				arrived.Add(clients)
				err := log.Append(at, at+1, []core.Update{{Time: at, Diff: 1, Row: row(`[%d]`, i+1)}})
				if err != nil {
					b.Fatal(err)
				}
				at++
				arrived.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*clients), "ns/delivery")
			stop()
			readers.Wait()
			if err := <-served; err != nil {
				b.Error(err)
			}
		})
	}
}
