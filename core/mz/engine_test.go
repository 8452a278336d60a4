package mz_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/hub"
	"github.com/mzdio/mzd/core/mz"
	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/pgwire"
)

// embedded is a running engine with one file source and its client.
type embedded struct {
	t      testing.TB
	client *mz.Client
	file   string
	stop   func()

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func runEngine(t testing.TB, o engine.Options) *embedded {
	t.Helper()
	if o.BaseDir == "" {
		o.BaseDir = t.TempDir()
	}
	e, err := engine.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	srv := pgwire.New(e, pgwire.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- e.Run(ctx) }()
	go func() { ended <- srv.Run(ctx) }()
	m := &embedded{t: t, file: filepath.Join(o.BaseDir, "events")}
	m.stop = sync.OnceFunc(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	t.Cleanup(m.stop)
	m.client, err = mz.New(mz.Config{URL: mz.Embedded, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := srv.Dial(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.conns = append(m.conns, c)
		return c, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// cut ends all connections, as a bad network would.
func (m *embedded) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		c.Close()
	}
	m.conns = nil
}

func (m *embedded) append(lines ...string) {
	m.t.Helper()
	f, err := os.OpenFile(m.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
		m.t.Fatal(err)
	}
}

func (m *embedded) exec(sql string) {
	m.t.Helper()
	if err := m.client.Exec(m.t.Context(), sql); err != nil {
		m.t.Fatal(err)
	}
}

func (m *embedded) subscribe(r mz.Request) *mz.Stream {
	m.t.Helper()
	s, err := m.client.Subscribe(m.t.Context(), r)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(s.Close)
	return s
}

// views are safe to run again.
const views = `
	CREATE SOURCE IF NOT EXISTS events FROM FILE 'events' WITH (tail = true) FORMAT TEXT;
	CREATE MATERIALIZED VIEW IF NOT EXISTS counter AS SELECT count(*) AS count FROM events;
	CREATE MATERIALIZED VIEW IF NOT EXISTS edits AS SELECT text AS name, count(*) AS count FROM events GROUP BY text;
`

// state follows a stream until the view holds what is wanted.
func (m *embedded) until(s *mz.Stream, upper *core.Time, state map[core.Row]core.Diff, want map[core.Row]core.Diff) {
	m.t.Helper()
	for !reflect.DeepEqual(state, want) {
		b, err := s.Next(m.t.Context())
		if err != nil {
			m.t.Fatalf("state %v, want %v: %v", state, want, err)
		}
		if b.Lower.Time != *upper {
			if !b.Lower.IsZero() {
				m.t.Fatalf("batch %s does not follow %d", show(b), *upper)
			}
			clear(state)
		}
		for u := range b.Updates.All() {
			if state[u.Row] += u.Diff; state[u.Row] == 0 {
				delete(state, u.Row)
			} else if state[u.Row] < 0 {
				m.t.Fatalf("%d copies of %s", state[u.Row], u.Row)
			}
		}
		*upper = b.Upper.Time
	}
}

func TestEngine(t *testing.T) {
	t.Parallel()
	m := runEngine(t, engine.Options{})
	m.append("ada", "bob", "ada")
	m.exec(views)
	m.exec(views) // again
	s := m.subscribe(mz.Request{Name: "edits"})
	if got, want := s.Columns(), []core.Column{{Name: "name", Type: "text"}, {Name: "count", Type: "int8"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("columns %v, want %v", got, want)
	}
	state, upper := map[core.Row]core.Diff{}, core.Time(0)
	m.until(s, &upper, state, map[core.Row]core.Diff{`["ada",2]`: 1, `["bob",1]`: 1})
	m.append("bob", `"é`)
	m.until(s, &upper, state, map[core.Row]core.Diff{`["ada",2]`: 1, `["bob",2]`: 1, `["\"é",1]`: 1})

	// A cut connection is resumed where it was, with what came meanwhile.
	m.cut()
	if e := failure(t, s); e.Reason() != mz.Unreachable || !e.Retryable() {
		t.Errorf("cut: %v", e)
	}
	m.append("bob")
	again := m.subscribe(mz.Request{Name: "public.Edits", Upper: upper, Identity: s.Identity()})
	if again.Resumed() {
		t.Error("resumed under another name")
	}
	again.Close()
	again = m.subscribe(mz.Request{Name: "edits", Upper: upper, Identity: s.Identity()})
	if !again.Resumed() {
		t.Error("not resumed")
	}
	m.until(again, &upper, state, map[core.Row]core.Diff{`["ada",2]`: 1, `["bob",3]`: 1, `["\"é",1]`: 1})

	// A query.
	q := m.subscribe(mz.Request{Name: "q", Query: "SELECT count + 1 AS n FROM counter -- all"})
	m.until(q, new(core.Time), map[core.Row]core.Diff{}, map[core.Row]core.Diff{`[7]`: 1})
}

// failure reads batches until an error.
func failure(t testing.TB, s *mz.Stream) *mz.Error {
	t.Helper()
	for {
		if _, err := s.Next(t.Context()); err != nil {
			var e *mz.Error
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			return e
		}
	}
}

func TestEngineErrors(t *testing.T) {
	t.Parallel()
	m := runEngine(t, engine.Options{})
	m.append("1")
	m.exec(views + "CREATE MATERIALIZED VIEW numbers AS SELECT text::int AS n FROM events;")
	_, err := m.client.Subscribe(t.Context(), mz.Request{Name: "nothing"})
	var e *mz.Error
	if !errors.As(err, &e) || e.Reason() != mz.NoSuchView {
		t.Errorf("no such view: %v", err)
	}
	s := m.subscribe(mz.Request{Name: "numbers"})
	m.until(s, new(core.Time), map[core.Row]core.Diff{}, map[core.Row]core.Diff{`[1]`: 1})
	m.append("9999999999")
	if e := failure(t, s); e.Reason() != mz.Evaluation || !strings.Contains(e.Error(), "numbers") {
		t.Errorf("evaluation: %v", e)
	}
	s = m.subscribe(mz.Request{Name: "counter"}) // goes on
	m.until(s, new(core.Time), map[core.Row]core.Diff{}, map[core.Row]core.Diff{`[2]`: 1})
	m.exec("DROP VIEW counter")
	if e := failure(t, s); e.Reason() != mz.Dropped || !e.Retryable() {
		t.Errorf("dropped: %v", e)
	}

	// The same view again is another one.
	m.exec(views)
	if again := m.subscribe(mz.Request{Name: "counter", Upper: 1, Identity: s.Identity()}); again.Resumed() || again.Identity() == s.Identity() {
		t.Error("a view that was created anew was resumed")
	}

	err = m.client.Exec(t.Context(), "CREATE VIEW a AS SELECT 1;\n-- é\n CREATE VIEW b AS\n  SELECT nonsense(1);\nCREATE VIEW c AS SELECT 1")
	var se *mz.StatementError
	if !errors.As(err, &se) || se.Line != 4 || se.Column != 10 || strings.Count(err.Error(), "4:10") != 1 {
		t.Errorf("error in a statement: %v, want it at 4:10", err)
	}
}

// A view that is replaced while it is followed is followed on, at once: the one that
// takes its place is there when the stream ends.
func TestEngineReplaces(t *testing.T) {
	t.Parallel()
	m := runEngine(t, engine.Options{})
	m.append("1")
	m.exec(views)
	registry := prometheus.NewRegistry()
	h, err := hub.New(hub.Options{
		Views: []hub.View{{Name: "counter"}}, Registerer: registry,
		Subscribe: func(ctx context.Context, r hub.Request) (hub.Stream, error) {
			s, err := m.client.Subscribe(ctx, mz.Request(r))
			if err != nil {
				return nil, err
			}
			return s, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	running := make(chan error, 1)
	go func() { running <- h.Run(ctx) }()
	const replacements = 5 // and not many more: a stream that lives for a moment only is waited for
	n := 0
	for b, err := range h.Reader("counter").Follow(ctx, core.Token{}) {
		if err != nil {
			t.Errorf("after %d replacements: %v", n, err)
			break
		}
		if !b.IsBase() || fmt.Sprint(b.Updates.Slice()) != fmt.Sprintf("[{%d 1 [%d]}]", b.Upper.Time-1, n+1) {
			continue
		}
		if n == replacements {
			break
		}
		n++
		m.exec(fmt.Sprintf("CREATE OR REPLACE MATERIALIZED VIEW counter AS SELECT count(*) + %d AS count FROM events", n))
	}
	cancel()
	if err := <-running; err != nil {
		t.Error(err)
	}
	want := fmt.Sprintf(`
# HELP mzd_upstream_reconnects_total Streams of the upstream that ended, by reason.
# TYPE mzd_upstream_reconnects_total counter
mzd_upstream_reconnects_total{reason="bad_key",view="counter"} 0
mzd_upstream_reconnects_total{reason="dropped",view="counter"} %d
mzd_upstream_reconnects_total{reason="other",view="counter"} 0
mzd_upstream_reconnects_total{reason="too_large",view="counter"} 0
`, replacements)
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "mzd_upstream_reconnects_total"); err != nil {
		t.Error(err)
	}
}

// A restarted engine is the same upstream, with its history gone: one batch
// from the beginning, above what the caller has. An engine with an empty data
// directory is another.
func TestEngineRestart(t *testing.T) {
	t.Parallel()
	o := engine.Options{DataDir: t.TempDir(), BaseDir: t.TempDir()}
	m := runEngine(t, o)
	m.append("ada", "bob")
	m.exec(views)
	s := m.subscribe(mz.Request{Name: "edits"})
	state, upper := map[core.Row]core.Diff{}, core.Time(0)
	m.until(s, &upper, state, map[core.Row]core.Diff{`["ada",1]`: 1, `["bob",1]`: 1})
	m.stop()
	if e := failure(t, s); e.Reason() != mz.Unreachable {
		t.Errorf("stopped: %v", e)
	}

	m = runEngine(t, o)
	m.append("ada")
	m.exec(views)
	again := m.subscribe(mz.Request{Name: "edits", Upper: upper, Identity: s.Identity()})
	if again.Resumed() || again.Identity() != s.Identity() {
		t.Errorf("resumed %v, identity %s, want false, %s", again.Resumed(), again.Identity(), s.Identity())
	}
	b, err := again.Next(t.Context())
	if err != nil || !b.Lower.IsZero() || b.Upper.Time <= upper {
		t.Errorf("got %s, %v; want a snapshot above %d", show(b), err, upper)
	}
	m.stop()

	o.DataDir = t.TempDir()
	m = runEngine(t, o)
	m.exec(views)
	other := m.subscribe(mz.Request{Name: "edits", Upper: upper, Identity: s.Identity()})
	if other.Identity() == s.Identity() {
		t.Error("another engine has the same identity")
	}
}

// A row holds what the engine's own to_jsonb gives for each value.
func TestEngineEncodes(t *testing.T) {
	t.Parallel()
	m := runEngine(t, engine.Options{})
	for _, expr := range []string{
		"true", "1::int2", "-5", "9223372036854775807", "1.5", "-0.001", "'NaN'::numeric", "1e20::float8", "1e-7::float8", "0.1::float4", "'-Infinity'::float8",
		`E'a"b\\c\n\u0001é😀'`, `'{"b": [1, 2.5, "x  y"], "a": null}'::jsonb`, "date '0044-03-15 BC'", "date '12024-01-02'",
		"timestamp '2024-01-02 03:04:05.678'", "timestamp '0044-03-15 00:00:00 BC'", "timestamptz '2024-01-02 03:04:05+02'",
		"interval '1 year -2 days 03:04:05.6'", "interval '0'", "uuid 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", `'\x00ff'::bytea`,
		"'{}'::int8[]", "'{1,NULL}'::int8[]", `'{a,"b c",NULL,"NULL","","q\""}'::text[]`, "'{2024-01-02 03:04:05,NULL}'::timestamptz[]",
		`'{"{\"a\": [1]}",NULL}'::jsonb[]`, "'{1 day}'::interval[]", "'{t,f}'::bool[]", "'{1.5,NaN}'::float8[]", `'{"\\\\x00"}'::bytea[]`,
	} {
		s := m.subscribe(mz.Request{Name: "x", Query: "SELECT x, to_jsonb(x) FROM (SELECT " + expr + " AS x) AS t"})
		b, err := s.Next(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		rows := 0
		for u := range b.Updates.All() {
			rows++
			row := strings.TrimSuffix(strings.TrimPrefix(string(u.Row), "["), "]")
			if half := len(row) / 2; len(row) == 0 || row[:half] != row[half+1:] {
				t.Errorf("%s: the value and its to_jsonb are encoded as %s", expr, row)
			}
		}
		if rows != 1 {
			t.Errorf("%s: %d rows", expr, rows)
		}
		s.Close()
	}
}

// A reader that is cut off at random while events arrive resumes each time, and
// ends each round equal to the view.
func TestEngineCuts(t *testing.T) {
	t.Parallel()
	const seed, rounds = 1, 60
	rnd := rand.New(rand.NewPCG(seed, 4))
	m := runEngine(t, engine.Options{})
	m.exec(views)
	counts, state := map[string]int{}, map[core.Row]core.Diff{}
	var upper core.Time
	identity, opened, resumed := "", 0, 0
	var s *mz.Stream
	for round := range rounds {
		var lines []string
		for range 1 + rnd.IntN(20) {
			user := fmt.Sprintf("u%d", rnd.IntN(50))
			counts[user]++
			lines = append(lines, user)
		}
		want := map[core.Row]core.Diff{}
		for user, n := range counts {
			want[core.Row(fmt.Sprintf("[%q,%d]", user, n))] = 1
		}
		m.append(lines...)
		if rnd.IntN(2) == 0 {
			m.cut()
		}
		for !reflect.DeepEqual(state, want) {
			if s == nil {
				s = m.subscribe(mz.Request{Name: "edits", Upper: upper, Identity: identity})
				opened++
				if s.Resumed() {
					resumed++
				}
				identity = s.Identity()
			}
			b, err := s.Next(t.Context())
			if err != nil {
				s = nil
				continue
			}
			if b.Lower.Time != upper {
				t.Fatalf("seed %d, round %d: batch %s does not follow %d", seed, round, show(b), upper)
			}
			for u := range b.Updates.All() {
				if state[u.Row] += u.Diff; state[u.Row] == 0 {
					delete(state, u.Row)
				}
			}
			upper = b.Upper.Time
		}
	}
	if resumed != opened-1 || resumed < rounds/4 {
		t.Errorf("seed %d: resumed %d of %d times", seed, resumed, opened)
	}
}
