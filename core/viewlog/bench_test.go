package viewlog_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
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
			if err := l.Reset(&core.View{Name: "v"}, "", 1, snapshot(l, nil)); err != nil {
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
	if err := l.Reset(&core.View{Name: "v"}, "", 1, snapshot(l, nil)); err != nil {
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
	if err := l.Reset(&core.View{Name: "v"}, "", 1, snapshot(l, nil)); err != nil {
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
		if err != nil || batch.Updates.Len() > 200 {
			b.Fatal(batch.Updates.Len(), err)
		}
	}
}

// BenchmarkLargeView tells what a view costs that a log holds, per row and in
// all, and the largest amount of memory in use, as multiples of that, while a
// reader begins with it at a new time, and while the upstream sends all of it
// once more.
func BenchmarkLargeView(b *testing.B) {
	const rows, changes = 10_000_000, 10_000
	defer debug.SetGCPercent(debug.SetGCPercent(2)) // so that what is in use is what is needed
	for b.Loop() {
		empty := inUse()
		l := viewlog.New("v", viewlog.Options{})
		bytes := 0
		row := func(buf []byte, i int) []byte { return fmt.Appendf(buf[:0], `["user %d",%d]`, i, i%1000) }
		send := func() *viewlog.Snapshot {
			s := l.Snapshot()
			var buf []byte
			for i := range rows {
				buf = row(buf, i)
				bytes += len(buf)
				s.Add(buf, 1)
			}
			return s
		}
		if err := l.Reset(&core.View{Name: "v"}, "", 1, send()); err != nil {
			b.Fatal(err)
		}
		held := inUse() - empty
		b.ReportMetric(float64(held)/rows, "B/row")
		b.ReportMetric(float64(bytes)/rows, "B/row-itself")

		r := rand.New(rand.NewPCG(1, 1))
		for i := range core.Time(changes) {
			if err := l.Append(1+i, 2+i, []core.Update{{Time: 1 + i, Diff: 1, Row: core.Row(row(nil, r.IntN(rows)))}}); err != nil {
				b.Fatal(err)
			}
		}
		first, err := l.Read(core.Token{}, 1)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(peak(empty, held, func() {
			begun := time.Now()
			second, err := l.Read(core.Token{}, 1+changes)
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			for u := range second.Updates.All() {
				n += int(u.Diff)
			}
			if n != rows+changes {
				b.Fatalf("%d rows, want %d", n, rows+changes)
			}
			b.ReportMetric(time.Since(begun).Seconds(), "reader-s")
		}), "reader-peak")
		runtime.KeepAlive(first)
		first = core.Batch{}
		b.ReportMetric(peak(empty, held, func() {
			begun := time.Now()
			if err := l.Rebase(2+changes, send()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(time.Since(begun).Seconds(), "resnapshot-s")
		}), "resnapshot-peak")
		runtime.KeepAlive(l)
	}
	b.ReportMetric(0, "ns/op")
}

// inUse returns the bytes of the heap that are in use.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// peak runs f and returns the largest heap meanwhile, less what is not counted,
// in units.
func peak(uncounted, unit int64, f func()) float64 {
	largest := inUse()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for tick := time.Tick(5 * time.Millisecond); ; {
		select {
		case <-tick:
			metrics.Read(sample)
			largest = max(largest, int64(sample[0].Value.Uint64()))
		case <-done:
			return float64(largest-uncounted) / float64(unit)
		}
	}
}
