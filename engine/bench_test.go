package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"github.com/mzdio/mzd/engine"
	mzsql "github.com/mzdio/mzd/sql"
)

// events makes lines like Wikimedia's: about a kilobyte each, users by Zipf.
func events(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	users := rand.NewZipf(rnd, 1.1, 1, 1<<20)
	filler := strings.Repeat("lorem ipsum dolor sit amet ", 11)
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"$schema":"/mediawiki/recentchange/1.0.0","meta":{"uri":"https://en.wikipedia.org/wiki/Page_%d","request_id":"8c2b1f5e-%d","id":"%d","dt":"2024-07-01T12:00:00Z","domain":"en.wikipedia.org","stream":"mediawiki.recentchange","topic":"eqiad.mediawiki.recentchange","partition":0,"offset":%d},"id":%d,"type":"edit","namespace":0,"title":"Page %d","comment":"%s","timestamp":%d,"user":"User %d","bot":%t,"minor":false,"length":{"old":%d,"new":%d},"revision":{"old":%d,"new":%d},"server_url":"https://en.wikipedia.org","server_name":"en.wikipedia.org","server_script_path":"/w","wiki":"enwiki","parsedcomment":"%s"}`+"\n",
			i, i, i, i, 5_000_000_000+i, i, filler[:200], 1720000000+i, users.Uint64(), i%3 == 0, i, i+77, i, i+1, filler[:200])
	}
	return b.Bytes()
}

// BenchmarkGroup reports what a user takes up in memory: a group of useredits, with its row there and its place in the order of top10.
func BenchmarkGroup(b *testing.B) {
	const n = 200_000
	w := newWorld(b, engine.Options{History: time.Millisecond})
	w.exec(`CREATE SOURCE lines FROM FILE 'in' WITH (tail = true) FORMAT TEXT;
		CREATE MATERIALIZED VIEW useredits AS SELECT text AS user, count(*) FROM lines GROUP BY text;
		CREATE MATERIALIZED VIEW top10 AS SELECT * FROM useredits ORDER BY count DESC LIMIT 10; SELECT * FROM top10`)
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	for i := 0; b.Loop(); i++ {
		w.write("in", numbered("User ", i*n+1, (i+1)*n))
		for query(b, w.s, "SELECT count(*) FROM useredits")[0][0].Int() < int64((i+1)*n) {
		}
	}
	b.ReportMetric((heap()-before)/float64(n*b.N), "B/group")
	var held int
	for _, line := range slices.Concat(w.rows("EXPLAIN VIEW useredits"), w.rows("EXPLAIN VIEW top10")) {
		if m := regexp.MustCompile(`(\d+) bytes`).FindStringSubmatch(line); m != nil {
			bytes, _ := strconv.Atoi(m[1])
			held += bytes
		}
	}
	b.ReportMetric(float64(held)/float64(n*b.N), "B/group-said")
}

// BenchmarkWikipedia measures events/s from a file through the views of the demo, at ticks of 100 and 1,000 events; decode is the
// limit: parsing and validating the same lines, and reading one field, on one goroutine.
func BenchmarkWikipedia(b *testing.B) {
	const n = 200_000
	lines := events(1, n)
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			var p fastjson.Parser
			for line := range bytes.Lines(lines) {
				v, err := p.ParseBytes(line)
				if err != nil || fastjson.ValidateBytes(line) != nil || len(v.GetStringBytes("user")) == 0 {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprintf("ticks of %d", size), func(b *testing.B) {
			b.StopTimer()
			for range b.N {
				dir := b.TempDir()
				path := filepath.Join(dir, "data", "recentchanges")
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					b.Fatal(err)
				}
				// The file appears whole: writing it is not the engine's work.
				if err := os.WriteFile(path+".new", lines, 0o644); err != nil {
					b.Fatal(err)
				}
				e, err := engine.Open(engine.Options{BaseDir: dir, TickEvents: size})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(b.Context())
				done := make(chan error, 1)
				go func() { done <- e.Run(ctx) }()
				s := e.NewSession()
				text, err := mzsql.Files.ReadFile("wikipedia.sql")
				if err != nil {
					b.Fatal(err)
				}
				exec(b, s, string(text))
				query(b, s, "SELECT * FROM top10")
				st, err := s.Parse("TAIL counter")
				if err != nil {
					b.Fatal(err)
				}
				r, err := s.Execute(ctx, st[0])
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := os.Rename(path+".new", path); err != nil {
					b.Fatal(err)
				}
				for seen := false; !seen; {
					rows, err := r.Next(ctx)
					if err != nil {
						b.Fatal(err)
					}
					for _, row := range rows {
						seen = seen || row[1].Int() == 1 && row[2].Int() == n
					}
				}
				b.StopTimer()
				r.Close()
				cancel()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
