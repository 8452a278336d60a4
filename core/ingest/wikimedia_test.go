package ingest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/backoff"
	"github.com/mzdio/mzd/core/ingest"
	"github.com/mzdio/mzd/plugins/sources/wikimedia"
	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// These tests run the wikimedia source, the landing in a file and the runner
// together, against servers that resume as the real one does.

func newSource(t *testing.T, url string, since string) *wikimedia.Source {
	t.Helper()
	s, err := wikimedia.New(t.Context(), wikimedia.Settings{URL: url + "/v2/stream", Since: since})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// runUntil runs a source until its file has so many bytes, and returns its
// status then.
func runUntil(t *testing.T, src core.Source, f ingest.Landing, bytes int64) ingest.Status {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := ingest.New("wiki", src, &until{f, bytes, cancel}, ingest.Options{Backoff: backoff.Backoff{Min: 1, Max: time.Millisecond}})
	if err := r.Run(ctx); ctx.Err() == nil {
		t.Fatalf("run: %v", err)
	}
	return r.Status()
}

// until is a landing that calls done when it has so many bytes.
type until struct {
	ingest.Landing
	bytes int64
	done  func()
}

func (u *until) Land(ctx context.Context, events []core.Event) (ingest.Landed, error) {
	l, err := u.Landing.Land(ctx, events)
	if u.Position().Bytes >= u.bytes {
		u.done()
	}
	return l, err
}

// size returns how many bytes messages are when they have landed.
func size(messages []simulator.Message) (n int64) {
	for _, m := range messages {
		n += int64(len(m.Data)) + 1
	}
	return n
}

// checkOnce checks that the file has exactly the data of the messages, in their
// order, each once.
func checkOnce(t *testing.T, path string, messages []simulator.Message) {
	t.Helper()
	got := strings.SplitAfter(content(t, path), "\n")
	got = got[:len(got)-1]
	var want []string
	for _, m := range messages {
		want = append(want, string(m.Data)+"\n")
	}
	if slices.Equal(got, want) {
		return
	}
	slices.Sort(got)
	slices.Sort(want)
	again := len(got) - len(slices.Compact(slices.Clone(got)))
	if slices.Equal(got, want) {
		t.Error("the events have landed out of order")
	} else {
		t.Errorf("got %d lines, %d of them twice; want %d", len(got), again, len(want))
	}
}

func recording(t *testing.T) []simulator.Message {
	t.Helper()
	path := "../../../shared/data/wikimedia/events.sse"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("no recorded events: %v", err)
	}
	messages := simulator.ParseSSE(raw)
	for i := range messages {
		var b bytes.Buffer
		if err := json.Compact(&b, messages[i].Data); err != nil {
			t.Fatal(err)
		}
		messages[i].Data = b.Bytes()
	}
	return messages
}

// generated returns made-up messages, without the canaries.
func generated(t *testing.T, n int, seed uint64) []simulator.Message {
	t.Helper()
	srv := httptest.NewServer(simulator.New(simulator.Options{Seed: seed, Total: n, Start: time.Now().Add(-24 * time.Hour)}))
	defer srv.Close()
	path := filepath.Join(t.TempDir(), "generated")
	runUntilEvents(t, newSource(t, srv.URL, "0"), openFile(t, path, ingest.FileOptions{}), n)
	messages, err := simulator.ParseLines([]byte(content(t, path)))
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

// TestCutEverywhere breaks the connection at every event of a recording, in
// turn. Each next connection resumes.
func TestCutEverywhere(t *testing.T) {
	for name, messages := range map[string]func(*testing.T) []simulator.Message{
		"recorded":  recording,
		"generated": func(t *testing.T) []simulator.Message { return generated(t, 400, 11) },
	} {
		t.Run(name, func(t *testing.T) {
			messages := messages(t)
			s, err := simulator.Replay(messages, simulator.ReplayOptions{UpTo: func(connection int) int { return min(connection, len(messages)) }})
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewServer(s)
			defer srv.Close()
			path := filepath.Join(t.TempDir(), "events")
			src := newSource(t, srv.URL, "")
			f := openFile(t, path, ingest.WithDisk(ingest.FileOptions{Identifier: src}, noSync))
			st := runUntil(t, src, f, size(messages))
			checkOnce(t, path, messages)
			if got := st.Reconnects[ingest.ReasonEnded]; got != uint64(len(messages)) {
				t.Errorf("%d reconnects, want %d", got, len(messages))
			}
			if st.Duplicates == 0 {
				t.Error("nothing came twice: the test tests nothing")
			}
		})
	}
}

// noSync makes a file fast where its durability is not what is tested.
func noSync(under ingest.Disk) ingest.Disk { return &disk{Disk: unsynced{under}} }

type unsynced struct{ ingest.Disk }

func (unsynced) Sync() error { return nil }

// TestRestartEverywhere restarts the whole thing, the file included, at many
// events of a recording.
func TestRestartEverywhere(t *testing.T) {
	messages := recording(t)
	var upTo atomic.Int64
	s, err := simulator.Replay(messages, simulator.ReplayOptions{UpTo: func(int) int { return int(upTo.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	defer srv.Close()
	path := filepath.Join(t.TempDir(), "events")
	for cut := 5; cut <= len(messages); cut += 5 {
		upTo.Store(int64(cut))
		src := newSource(t, srv.URL, "")
		f, err := ingest.OpenFile(path, ingest.WithDisk(ingest.FileOptions{Identifier: src}, noSync))
		if err != nil {
			t.Fatal(err)
		}
		runUntil(t, src, f, size(messages[:cut]))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	checkOnce(t, path, messages)
}

// TestCrash takes copies of the files at random points of a run, in the middle
// of writes and before and after syncs, as a crash of the process or of the
// machine leaves them, and goes on from each copy.
func TestCrash(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { testCrash(t, seed) })
	}
}

func testCrash(t *testing.T, seed uint64) {
	messages := generated(t, 400, seed)
	s, err := simulator.Replay(messages, simulator.ReplayOptions{UpTo: func(connection int) int { return min(20*(connection+1), len(messages)) }})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	defer srv.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "events")
	src := newSource(t, srv.URL, "")
	c := &crashes{path: path, dir: dir, r: rand.New(rand.NewPCG(seed, 0))}
	f := openFile(t, path, ingest.WithDisk(ingest.FileOptions{Identifier: src}, c.use))
	runUntil(t, src, f, size(messages))
	f.Close()
	checkOnce(t, path, messages)

	whole, err := simulator.Replay(messages, simulator.ReplayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	after := httptest.NewServer(whole)
	defer after.Close()
	if len(c.copies) < 10 {
		t.Errorf("seed %d: only %d crashes", seed, len(c.copies))
	}
	for _, crash := range c.copies {
		src := newSource(t, after.URL, "")
		f, err := ingest.OpenFile(crash.path, ingest.WithDisk(ingest.FileOptions{Identifier: src}, noSync))
		if err != nil {
			t.Errorf("seed %d: %s: %v", seed, crash.path, err)
			continue
		}
		if got := f.Position().Bytes; got < crash.acknowledged {
			t.Errorf("seed %d: %s: %d bytes are left of %d acknowledged", seed, crash.path, got, crash.acknowledged)
		}
		runUntil(t, src, f, size(messages))
		f.Close()
		checkOnce(t, crash.path, messages)
		if t.Failed() {
			t.Fatalf("seed %d: after the crash %s", seed, crash.path)
		}
	}
}

// crashes is a disk that takes copies of a file and its cursor.
type crashes struct {
	ingest.Disk
	path, dir string
	r         *rand.Rand
	size      int64 // written
	synced    int64
	copies    []crash
}

type crash struct {
	path         string
	acknowledged int64
}

func (c *crashes) use(under ingest.Disk) ingest.Disk {
	c.Disk = under
	return c
}

func (c *crashes) WriteAt(p []byte, off int64) (int, error) {
	c.maybe(c.r.IntN(len(p)), p)
	n, err := c.Disk.WriteAt(p, off)
	c.size = off + int64(n)
	c.maybe(0, nil)
	return n, err
}

func (c *crashes) Sync() error {
	err := c.Disk.Sync()
	c.synced = c.size
	c.maybe(0, nil)
	return err
}

// maybe takes a copy, with the first n bytes of what is being written. Of what
// is not synced it may lose a part, to zeros.
func (c *crashes) maybe(n int, writing []byte) {
	if c.r.IntN(3) != 0 {
		return
	}
	data, err := os.ReadFile(c.path)
	if err != nil {
		panic(err)
	}
	data = append(data, writing[:n]...)
	if lost := len(data) - int(c.synced); lost > 0 && c.r.IntN(2) == 0 {
		from := int(c.synced) + c.r.IntN(lost)
		clear(data[from:min(len(data), from+c.r.IntN(4096)+1)])
	}
	at := filepath.Join(c.dir, fmt.Sprint("crash", len(c.copies)))
	if err := os.WriteFile(at, data, 0o644); err != nil {
		panic(err)
	}
	if cursor, err := os.ReadFile(c.path + ".cursor"); err == nil {
		if err := os.WriteFile(at+".cursor", cursor, 0o644); err != nil {
			panic(err)
		}
	}
	c.copies = append(c.copies, crash{at, c.synced})
}

// TestNetworkAway takes the server away while events arrive, for a while, and
// brings it back.
func TestNetworkAway(t *testing.T) {
	messages := generated(t, 500, 3)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	var upTo atomic.Int64
	upTo.Store(200)
	serve := func(ln net.Listener) (stop func()) {
		s, err := simulator.Replay(messages, simulator.ReplayOptions{UpTo: func(int) int { return int(upTo.Load()) }})
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: s}
		var wg sync.WaitGroup
		wg.Go(func() { srv.Serve(ln) })
		return func() { srv.Close(); wg.Wait() }
	}
	stop := serve(ln)

	path := filepath.Join(t.TempDir(), "events")
	src := newSource(t, "http://"+addr, "")
	f := openFile(t, path, ingest.FileOptions{Identifier: src})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	landed := make(chan int64, 10_000)
	lines := make(logged, 10_000)
	r := ingest.New("wiki", src, &watched{f, landed}, ingest.Options{
		Backoff: backoff.Backoff{Min: time.Millisecond, Max: 5 * time.Millisecond},
		Logger:  slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	await := func(n int64) {
		for at := range landed {
			if at >= n {
				return
			}
		}
	}
	await(size(messages[:200]))
	stop()
	for n := 0; n < 3; {
		line := <-lines
		if !strings.Contains(line, "reason=network") {
			continue // streams that ended as they do
		}
		n++
		if strings.Contains(line, "level=WARN") == strings.Contains(line, "ended again") || !strings.Contains(line, "source=wiki") {
			t.Errorf("while the network is away: %s", line)
		}
	}
	s := r.Status()
	if s.State == ingest.Streaming || !strings.Contains(s.Error, addr) || s.Reconnects[ingest.ReasonNetwork] < 3 {
		t.Errorf("while the network is away: %+v", s)
	}
	upTo.Store(-1)
	if ln, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	stop = serve(ln)
	await(size(messages))
	if s := r.Status(); s.State != ingest.Streaming || s.Error != "" {
		t.Errorf("after it is back: %+v", s)
	}
	cancel()
	wg.Wait()
	stop()
	checkOnce(t, path, messages)
}

// logged gets what is logged, line by line.
type logged chan string

func (w logged) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// watched is a landing that tells how far it has come.
type watched struct {
	ingest.Landing
	landed chan<- int64
}

func (w *watched) Land(ctx context.Context, events []core.Event) (ingest.Landed, error) {
	l, err := w.Landing.Land(ctx, events)
	select {
	case w.landed <- w.Position().Bytes:
	case <-ctx.Done():
	}
	return l, err
}

// TestAnotherStream resumes streams that have begun anew since: everything that
// they have is new.
func TestAnotherStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events")
	for i := range 3 {
		srv := httptest.NewServer(simulator.New(simulator.Options{Seed: 1, Total: 100, Rate: 1e5, Start: time.Now().Add(time.Duration(i-10) * time.Minute)}))
		src := newSource(t, srv.URL, "0")
		f, err := ingest.OpenFile(path, ingest.FileOptions{Identifier: src})
		if err != nil {
			t.Fatal(err)
		}
		runUntilEvents(t, src, f, 100)
		f.Close()
		srv.Close()
	}
	if got := strings.Count(content(t, path), "\n"); got != 300 {
		t.Errorf("got %d lines, want 300", got)
	}
}

// runUntilEvents runs a source until it has landed n events.
func runUntilEvents(t testing.TB, src core.Source, f ingest.Landing, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := ingest.New("wiki", src, &counter{f, n, cancel}, ingest.Options{}).Run(ctx)
	if ctx.Err() == nil {
		t.Fatal(err)
	}
}

// counter is a landing that calls done when it has landed so many events.
type counter struct {
	ingest.Landing
	left int
	done func()
}

func (c *counter) Land(ctx context.Context, events []core.Event) (ingest.Landed, error) {
	l, err := c.Landing.Land(ctx, events)
	if c.left -= l.Events; c.left <= 0 {
		c.done()
	}
	return l, err
}

// BenchmarkIngest lands made-up edits, as fast as they come.
func BenchmarkIngest(b *testing.B) {
	srv := httptest.NewServer(simulator.New(simulator.Options{Rate: 1e9, Start: time.Now().Add(-time.Hour), History: 1 << 40}))
	defer srv.Close()
	src, err := wikimedia.New(b.Context(), wikimedia.Settings{URL: srv.URL + "/v2/stream", Since: "0"})
	if err != nil {
		b.Fatal(err)
	}
	f, err := ingest.OpenFile(filepath.Join(b.TempDir(), "events"), ingest.FileOptions{Identifier: src})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.ResetTimer()
	runUntilEvents(b, src, f, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkOpen reads the window of a large file.
func BenchmarkOpen(b *testing.B) {
	srv := httptest.NewServer(simulator.New(simulator.Options{Rate: 1e9, Start: time.Now().Add(-time.Hour), Total: 120_000}))
	defer srv.Close()
	path := filepath.Join(b.TempDir(), "events")
	src, err := wikimedia.New(b.Context(), wikimedia.Settings{URL: srv.URL + "/v2/stream", Since: "0"})
	if err != nil {
		b.Fatal(err)
	}
	f, err := ingest.OpenFile(path, ingest.FileOptions{Identifier: src})
	if err != nil {
		b.Fatal(err)
	}
	runUntilEvents(b, src, f, 120_000)
	f.Close()
	b.ReportAllocs()
	for b.Loop() {
		f, err := ingest.OpenFile(path, ingest.FileOptions{Identifier: src})
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
