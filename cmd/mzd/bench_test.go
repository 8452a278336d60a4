package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// BenchmarkAppendToBrowser measures how long it takes from a line appended to
// the file until the changed count is at a websocket client, one line at a time.
// The limit beside it is the engine alone: until the same change is at a client
// of its SUBSCRIBE.
func BenchmarkAppendToBrowser(b *testing.B) {
	d := newDaemon(b, pipeline{views: "{counter: {}, top10: {key: [user]}}"})
	d.start()
	file, err := os.OpenFile(filepath.Join(d.dir, "data", "recentchanges"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	line := someEdit(b)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	counts := make(chan int64)
	go func() {
		m := newMirror("counter")
		follow(ctx, "websocket", d.web, m.views, "", "", func(data []byte) bool {
			if _, err := m.apply(data); err != nil {
				b.Error(err)
				return false
			}
			select {
			case counts <- countOf(m.text("counter")):
			case <-ctx.Done():
			}
			return true
		})
	}()
	if n := <-counts; n != 0 {
		b.Fatalf("the count begins at %d", n)
	}
	oracle := d.record("counter")

	var browser, engine []time.Duration
	for n := int64(1); b.Loop(); n++ {
		written := time.Now()
		if _, err := file.Write(line); err != nil {
			b.Fatal(err)
		}
		for <-counts < n {
		}
		browser = append(browser, time.Since(written))

		written = time.Now()
		n++
		if _, err := file.Write(line); err != nil {
			b.Fatal(err)
		}
		want := fmt.Sprintf("[%d]", n)
		if _, err := oracle.until(ctx, func(s string) bool { return s == want }); err != nil {
			b.Fatal(err)
		}
		engine = append(engine, time.Since(written))
		for <-counts < n {
		}
	}
	report := func(times []time.Duration, name string) float64 {
		slices.Sort(times)
		p50, p99 := times[len(times)/2], times[len(times)*99/100]
		b.ReportMetric(p50.Seconds()*1000, name+"-p50-ms")
		b.ReportMetric(p99.Seconds()*1000, name+"-p99-ms")
		return p50.Seconds()
	}
	b.ReportMetric(report(browser, "browser")/report(engine, "engine"), "p50-ratio")
	b.ReportMetric(0, "ns/op") // two appends each: says nothing
}

// someEdit returns one line of a landed file.
func someEdit(t testing.TB) []byte {
	t.Helper()
	address := serve(t, simulator.New(simulator.Options{Rate: 1000, Seed: *seed, Start: time.Now().Add(-time.Minute)}))
	var line []byte
	err := readSSE(t.Context(), address+"/recentchange?since=0", func(data []byte) bool {
		line = append(bytes.Clone(data), '\n')
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	return line
}
