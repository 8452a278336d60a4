package main_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// TestLandingInATable kills the daemon, engine and all, while events land in a
// table: each of them is there in the end. The views are those of
// sql/wikipedia.materialize.sql, which tell repeats apart.
func TestLandingInATable(t *testing.T) {
	t.Parallel()
	points := 3
	if *soak {
		points = 40
	}
	const edits = 400 // between two kills
	total := edits * (points + 1)
	r := rand.New(rand.NewPCG(*seed, 0))
	sim := simulator.New(simulator.Options{Rate: 400, Seed: *seed, Total: total})
	d := newDaemon(t, pipeline{
		stream: serve(t, sim), to: "{table: recentchanges}", init: readFile(t, "../../sql/wikipedia.materialize.sql"),
		views: `{counter: {}, top10: {key: [user]}, landed: {query: "SELECT count(*) FROM recentchanges"}}`,
	})
	ctx := deadline(t, time.Minute+time.Duration(points)*15*time.Second)
	until := func(view string, n int) (m *mirror) {
		t.Helper()
		m = newMirror(view)
		err := follow(ctx, "ndjson", d.web, m.views, "", "", func(data []byte) bool {
			if _, err := m.apply(data); err != nil {
				t.Fatal(err)
			}
			return countOf(m.text(view)) < int64(n)
		})
		if err != nil {
			t.Fatalf("seed %d: %s stays at %s, want %d: %v\n%s", *seed, view, m.text(view), n, err, d.log)
		}
		return m
	}
	for point := range points {
		d.start()
		until("counter", edits*point+r.IntN(edits))
		d.kill()
	}
	d.start()
	if got := until("counter", total).text("counter"); got != fmt.Sprintf("[%d]", total) {
		t.Errorf("seed %d: the counter is %s, want %d", *seed, got, total)
	}
	t.Logf("%s rows of %d events", until("landed", total).text("landed"), total)
	d.stop()
}

// TestLandingInAWebhookSource kills the daemon before and after its events are
// taken: each of them is there in the end.
func TestLandingInAWebhookSource(t *testing.T) {
	t.Parallel()
	points := 5
	if *soak {
		points = 100
	}
	const edits = 60 // between two kills
	total := edits * (points + 1)
	r := rand.New(rand.NewPCG(*seed, 1))
	s := &webhookSource{t: t, r: rand.New(rand.NewPCG(*seed, 2)), ids: make(map[string]int), moved: make(chan struct{})}
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	sim := simulator.New(simulator.Options{Rate: 200, Seed: *seed, Total: total})
	d := newDaemon(t, pipeline{
		stream: serve(t, sim), init: "SELECT 1;", views: `{nothing: {query: "SELECT 1 AS one"}}`,
		to: fmt.Sprintf(`{webhook: %q, secret: "file:secret"}`, srv.URL+"/api/webhook/materialize/public/recentchanges"),
	})
	d.write("secret", hookSecret)
	ctx := deadline(t, time.Minute+time.Duration(points)*15*time.Second)
	for point := range points {
		due := s.arm(edits*point + 1 + r.IntN(edits))
		d.start()
		select {
		case <-due:
			d.kill()
		case <-ctx.Done():
			t.Fatalf("seed %d: nothing lands any more\n%s", *seed, d.log)
		}
	}
	d.start()
	n, err := s.until(ctx, total)
	if err != nil || n > total {
		t.Fatalf("seed %d: %d different events have landed, want %d: %v\n%s", *seed, n, total, err, d.log)
	}
	d.stop()
	if strings.Contains(d.log.String(), hookSecret) {
		t.Error("the secret is in the log")
	}
	t.Logf("%d rows of %d events", s.rows, total)
}

// webhookSource is a webhook source of Materialize, as far as this needs one.
type webhookSource struct {
	t *testing.T

	mu    sync.Mutex // guards what follows
	r     *rand.Rand
	ids   map[string]int // how often each event is there
	rows  int
	least int           // events until the daemon may die
	due   chan struct{} // closed when it is to; nil: it lives
	moved chan struct{}
}

// arm returns a channel that is closed during the request that makes it so many
// events. The request is not answered before its sender has died.
func (s *webhookSource) arm(least int) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.least, s.due = least, make(chan struct{})
	return s.due
}

func (s *webhookSource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its sender has died
	}
	status, last := s.take(r.Header.Get("x-signature"), body)
	if last {
		<-r.Context().Done()
	}
	w.WriteHeader(status)
}

// take lands a body, or refuses it, and reports whether the daemon is to die.
func (s *webhookSource) take(signature string, body []byte) (status int, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mac := hmac.New(sha256.New, []byte(hookSecret))
	mac.Write(body)
	if signature != base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		s.t.Errorf("the signature %s is wrong", signature)
		return http.StatusBadRequest, false
	}
	dice := s.r.IntN(10)
	if last = s.due != nil && len(s.ids)+bytes.Count(body, []byte("\n")) >= s.least; last {
		close(s.due)
		s.due = nil
	}
	if last && dice < 5 || dice == 0 { // before it is taken
		return http.StatusTooManyRequests, last
	}
	for line := range strings.Lines(string(body)) {
		var e struct{ Meta struct{ ID string } }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Meta.ID == "" {
			s.t.Errorf("%v in %.200s", err, line)
		}
		s.ids[e.Meta.ID]++
		s.rows++
	}
	close(s.moved)
	s.moved = make(chan struct{})
	return http.StatusOK, last
}

// until waits for a number of different events, and returns how many there are.
func (s *webhookSource) until(ctx context.Context, n int) (int, error) {
	for {
		s.mu.Lock()
		got, moved := len(s.ids), s.moved
		s.mu.Unlock()
		if got >= n {
			return got, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return got, errors.Join(ctx.Err(), context.Cause(ctx))
		}
	}
}
