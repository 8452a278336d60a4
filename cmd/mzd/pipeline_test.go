package main_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

var (
	seed = flag.Uint64("seed", 1, "seed of the tests that play with chance")
	soak = flag.Bool("soak", false, "run the long tests in full")
)

// TestRecordedEvents serves recorded events, lets the pipeline count them, and
// counts them again in another way.
func TestRecordedEvents(t *testing.T) {
	lines := recordedEvents(t, "events.jsonl")
	messages, err := simulator.ParseLines(lines)
	if err != nil {
		t.Fatal(err)
	}
	server, err := simulator.Replay(messages, simulator.ReplayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, pipeline{stream: serve(t, server)})
	d.start()
	ctx := deadline(t, 2*time.Minute)

	counter, useredits, top10 := recount(t, lines)
	m := newMirror("counter", "top10", "useredits")
	err = follow(ctx, "ndjson", d.web, m.views, "", "", func(data []byte) bool {
		if _, err := m.apply(data); err != nil {
			t.Fatal(err)
		}
		return m.text("counter") != counter
	})
	if err != nil {
		t.Fatalf("%v; counter is %s, want %s", err, m.text("counter"), counter)
	}
	if got := canonical(m.text("useredits")); got != useredits {
		t.Errorf("useredits differ: %s", firstDifference(got, useredits))
	}
	if got := canonical(m.text("top10")); got != top10 {
		t.Errorf("top10: got\n%s\nwant\n%s", got, top10)
	}
	d.stop()
}

// recount counts events without SQL. The results are texts of the views.
func recount(t *testing.T, lines []byte) (counter, useredits, top10 string) {
	t.Helper()
	counts := make(map[string]int)
	n := 0
	for line := range bytes.Lines(lines) {
		var e struct{ User *string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if n++; e.User == nil {
			t.Fatalf("an event without a user: %s", line)
		}
		counts[*e.User]++
	}
	type user struct {
		name  string
		edits int
	}
	var users []user
	for name, edits := range counts {
		users = append(users, user{name, edits})
	}
	// Ties break on the whole row.
	slices.SortFunc(users, func(a, b user) int {
		return cmp.Or(cmp.Compare(b.edits, a.edits), strings.Compare(a.name, b.name))
	})
	text := func(users []user) string {
		var rows []string
		for _, u := range users {
			row, _ := json.Marshal([]any{u.name, u.edits})
			rows = append(rows, string(row))
		}
		slices.Sort(rows)
		return strings.Join(rows, "\n")
	}
	return fmt.Sprintf("[%d]", n), text(users), text(users[:10])
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: got %s, want %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(g), len(w))
}

// TestRestart stops and starts the daemon while edits come in. No client may
// see the count go down, and in the end nothing is missing or counted twice.
func TestRestart(t *testing.T) {
	const total, restarts = 3000, 4
	sim := simulator.New(simulator.Options{Rate: 300, Seed: *seed, Total: total})
	d := newDaemon(t, pipeline{stream: serve(t, sim)})
	ctx := deadline(t, 3*time.Minute)

	var wg sync.WaitGroup
	var seen atomic.Int64 // the largest count that anybody saw
	for i, transport := range transports {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(*seed, uint64(i)))
			m := newMirror("counter")
			last := int64(0)
			for last < total {
				since := m.token
				if r.IntN(2) == 0 {
					since, m = "", newMirror("counter") // a new browser, for the same person
				}
				// The end of a connection is no matter: the daemon restarts.
				follow(ctx, transport, d.web, m.views, since, "", func(data []byte) bool {
					complete, err := m.apply(data)
					if err != nil {
						t.Errorf("seed %d: %s: %v", *seed, transport, err)
						return false
					}
					if complete {
						if n := countOf(m.text("counter")); n < last {
							t.Errorf("seed %d: %s saw the count go from %d down to %d at %s", *seed, transport, last, n, m.token)
						} else {
							last = n
						}
						seen.Store(max(seen.Load(), last))
					}
					return last < total
				})
				if ctx.Err() != nil {
					t.Errorf("seed %d: %s ends at %d, want %d", *seed, transport, last, total)
					return
				}
			}
		})
	}
	for range restarts {
		d.start()
		// Go on once there is something new to lose, or all has come already.
		enough := min(seen.Load()+total/(restarts+2), total)
		err := follow(ctx, "ndjson", d.web, []string{"counter"}, "", "", func(data []byte) bool {
			m := newMirror("counter")
			m.apply(data)
			return seen.Load() < enough
		})
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", *seed, err, d.log)
		}
		d.stop()
	}
	d.start()
	wg.Wait()
	d.stop()
}

func countOf(text string) int64 {
	var n int64
	fmt.Sscanf(text, "[%d]", &n)
	return n
}

// TestFlood runs at 2,000 edits a second: nothing is lost, nothing is
// complained about, and memory follows the views, not the edits.
func TestFlood(t *testing.T) {
	const rate = 2000
	seconds := 5
	if *soak {
		seconds = 60
	}
	total := rate * seconds
	sim := simulator.New(simulator.Options{Rate: rate, Seed: *seed, Total: total})
	d := newDaemon(t, pipeline{stream: serve(t, sim), views: "{counter: {}, top10: {key: [user]}}"})
	d.start()
	ctx := deadline(t, time.Duration(seconds)*time.Second+2*time.Minute)
	m := newMirror("counter")
	err := follow(ctx, "ndjson", d.web, m.views, "", "", func(data []byte) bool {
		if _, err := m.apply(data); err != nil {
			t.Error(err)
			return false
		}
		return countOf(m.text("counter")) < int64(total)
	})
	if err != nil || m.text("counter") != fmt.Sprintf("[%d]", total) {
		t.Errorf("seed %d: %v; the counter ends at %s, want %d", *seed, err, m.text("counter"), total)
	}
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, `"level":"WARN"`) {
			t.Errorf("seed %d: in the log: %s", *seed, line)
		}
	}
	for line := range strings.Lines(get(t, "http://"+d.admin+"/metrics")) {
		for _, name := range []string{"process_resident_memory_bytes ", "go_memstats_heap_inuse_bytes ", "mzd_log_bytes", "mzd_source_events_total"} {
			if strings.HasPrefix(line, name) {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
	d.stop()
}
