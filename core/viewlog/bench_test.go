package viewlog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
)

// benchUpdates makes n updates of a view of users and counts at one time.
func benchUpdates(r *rand.Rand, t core.Time, n int) []core.Update {
	updates := make([]core.Update, 0, n)
	for range n {
		updates = append(updates, core.Update{
			Time: t, Diff: 1, Row: core.Row(`["user ` + strconv.Itoa(r.IntN(1_000_000)) + `",` + strconv.Itoa(r.IntN(1000)) + `]`),
		})
	}
	return core.Consolidate(updates)
}

// BenchmarkAppend appends batches and waits until each is durable, beside a
// plain file that the same number of bytes is written to and synced.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			dir := b.TempDir()
			l, err := viewlog.Open(dir, "v", viewlog.Options{})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- l.Run(ctx) }()
			if err := l.Reset(&core.View{Name: "v"}, "", 1, nil); err != nil {
				b.Fatal(err)
			}
			batches := make([][]core.Update, 64)
			for i := range batches {
				batches[i] = benchUpdates(r, 0, size)
			}
			wait := func(t core.Time) {
				for {
					token, moved := l.Durable()
					if token.Time >= t {
						return
					}
					<-moved
				}
			}
			wait(1)
			bare, err := os.Create(filepath.Join(dir, "bare"))
			if err != nil {
				b.Fatal(err)
			}
			defer bare.Close()
			var bytes []byte
			for _, u := range batches[0] {
				bytes = append(bytes, u.Row...)
				bytes = append(bytes, 0, 0, 0)
			}
			var ours, limit time.Duration
			t := core.Time(1)
			for b.Loop() {
				updates := make([]core.Update, len(batches[int(t)%64]))
				for i, u := range batches[int(t)%64] {
					u.Time = t
					updates[i] = u
				}
				begun := time.Now()
				if err := l.Append(t, t+1, updates); err != nil {
					b.Fatal(err)
				}
				wait(t + 1)
				ours += time.Since(begun)
				t++

				begun = time.Now()
				if _, err := bare.Write(bytes); err != nil {
					b.Fatal(err)
				}
				if err := bare.Sync(); err != nil {
					b.Fatal(err)
				}
				limit += time.Since(begun)
			}
			b.ReportMetric(float64(t-1)*float64(size)/ours.Seconds(), "updates/s")
			b.ReportMetric(limit.Seconds()/ours.Seconds(), "of-limit")
			b.ReportMetric(0, "ns/op")
			cancel()
			<-done
		})
	}
}

// BenchmarkRecover opens a log of a million updates.
func BenchmarkRecover(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 1000, 1000)
	b.ResetTimer()
	for b.Loop() {
		l, err := viewlog.Open(dir, "v", viewlog.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if upper, _ := l.Frontier(); upper.Time != 1001 {
			b.Fatalf("opened at %s", upper)
		}
	}
}

func fill(b *testing.B, dir string, batches, size int) {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	l, err := viewlog.Open(dir, "v", viewlog.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := l.Reset(&core.View{Name: "v"}, "", 1, nil); err != nil {
		b.Fatal(err)
	}
	for t := core.Time(1); t <= core.Time(batches); t++ {
		if err := l.Append(t, t+1, benchUpdates(r, t, size)); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Run(ctx); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkNetRead reads the net change of 100,000 small batches, from random
// places near the beginning.
func BenchmarkNetRead(b *testing.B) {
	const batches = 100_000
	l := viewlog.New("v", viewlog.Options{})
	if err := l.Reset(&core.View{Name: "v"}, "", 1, nil); err != nil {
		b.Fatal(err)
	}
	for t := core.Time(1); t <= batches; t++ {
		if err := l.Append(t, t+1, core.Consolidate([]core.Update{
			{Time: t, Diff: -1, Row: core.Row(fmt.Sprintf("[%d,%d]", t%100, t/100))},
			{Time: t, Diff: 1, Row: core.Row(fmt.Sprintf("[%d,%d]", t%100, t/100+1))},
		})); err != nil {
			b.Fatal(err)
		}
	}
	upper, _ := l.Frontier()
	r := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		from := core.Token{Time: core.Time(1 + r.IntN(1000)), Generation: upper.Generation}
		batch, err := l.Read(from, upper.Time)
		if err != nil || len(batch.Updates) > 200 {
			b.Fatal(len(batch.Updates), err)
		}
	}
}

// BenchmarkMemory tells what a row costs that a log holds, beside the bytes of
// the row itself.
func BenchmarkMemory(b *testing.B) {
	const rows = 1_000_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		l := viewlog.New("v", viewlog.Options{})
		bytes := 0
		contents := make([]core.Update, rows)
		for i := range contents {
			row := fmt.Sprintf(`["user %d",%d]`, i, i%1000)
			bytes += len(row)
			contents[i] = core.Update{Diff: 1, Row: core.Row(row)}
		}
		if err := l.Reset(&core.View{Name: "v"}, "", 1, contents); err != nil {
			b.Fatal(err)
		}
		contents = nil
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/rows, "B/row")
		b.ReportMetric(float64(bytes)/rows, "B/row-itself")
		runtime.KeepAlive(l)
	}
}
