package main_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// TestWebhook kills the daemon at moments that its receiver chooses, and closes
// the receiver for a while: nothing is missing in the end, and what comes twice
// has the same bytes.
func TestWebhook(t *testing.T) {
	points := 4
	if *soak {
		points = 60
	}
	const edits = 400 // between two kills
	sim := simulator.New(simulator.Options{Rate: 400, Seed: *seed, Total: edits * (points + 1)})
	address := freePort(t)
	d := newDaemon(t, pipeline{stream: serve(t, sim), views: "{counter: {}, top10: {key: [user]}}", sinks: fmt.Sprintf(`
  apart: {plugin: webhook, settings: {url: "http://%[1]s/apart", secret: "${HOOK_SECRET}", allow_private: true}}
  together: {plugin: webhook, cut: together, settings: {url: "http://%[1]s/together", secret: "${HOOK_SECRET}", allow_private: true, max_body: 1KiB}}`, address)})
	t.Setenv("HOOK_SECRET", hookSecret)
	ctx := deadline(t, time.Minute+time.Duration(points)*15*time.Second)
	h := &hook{
		t: t, d: d, r: rand.New(rand.NewPCG(*seed, 0)), moved: make(chan struct{}), address: address,
		paths: map[string]*hookState{"/apart": newHookState(), "/together": newHookState()},
	}
	h.open()
	for point := range points {
		due := h.arm()
		d.start()
		select {
		case <-due: // the receiver has a message that it does not answer
			d.kill()
		case <-ctx.Done():
			t.Fatalf("seed %d: the receiver does not get its messages\n%s", *seed, d.log)
		}
		if point%2 == 0 {
			continue
		}
		h.close() // for some time, in which mzd dies too
		d.start()
		select {
		case <-d.log.contains("sink failed; trying again"):
		case <-ctx.Done():
			t.Fatalf("seed %d: the sink does not notice that its receiver is away\n%s", *seed, d.log)
		}
		m := newMirror("counter")
		err := follow(ctx, "ndjson", d.web, m.views, "", "", func(data []byte) bool {
			if _, err := m.apply(data); err != nil {
				t.Fatal(err)
			}
			return countOf(m.text("counter")) < int64(edits*point)
		})
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", *seed, err, d.log)
		}
		d.kill()
		h.open()
	}
	d.start()
	m := newMirror("counter", "top10")
	want := fmt.Sprintf("[%d]", edits*(points+1))
	err := follow(ctx, "ndjson", d.web, m.views, "", "", func(data []byte) bool {
		if _, err := m.apply(data); err != nil {
			t.Fatal(err)
		}
		return m.text("counter") != want
	})
	if err != nil {
		t.Fatalf("seed %d: %v; the counter is %s, want %s", *seed, err, m.text("counter"), want)
	}
	for {
		next, done := h.holds(m)
		if done {
			break
		}
		select {
		case <-next:
		case <-ctx.Done():
			for path, s := range h.paths {
				t.Errorf("seed %d: %s has %v at %v, want %v", *seed, path, s.rows, s.tokens, m.rows)
			}
			t.Fatal(d.log)
		}
	}
	d.stop()
	h.close()
	t.Logf("%d messages, %d of them repeats", h.messages, h.repeats)
	if h.repeats < points {
		t.Errorf("seed %d: %d repeats, want one for each of %d kills", *seed, h.repeats, points)
	}
	if strings.Contains(d.log.String(), hookSecret) {
		t.Error("the secret is in the log")
	}
}

const hookSecret = "what only the two of them know"

// hook is a receiver of webhooks that does what docs/webhook.md says.
type hook struct {
	t       *testing.T
	d       *daemon
	r       *rand.Rand
	address string
	server  *http.Server
	served  chan error

	mu       sync.Mutex // guards what follows
	paths    map[string]*hookState
	kill     int           // messages until the daemon dies; 0: it lives
	due      chan struct{} // closed then
	messages int
	repeats  int
	moved    chan struct{}
}

// hookState is what a receiver keeps for one sink.
type hookState struct {
	bodies map[string]string // by id
	staged []hookMessage     // parts of a message that is not complete
	tokens map[string]string // by view
	rows   map[string]map[string]int
}

func newHookState() *hookState {
	return &hookState{bodies: make(map[string]string), tokens: make(map[string]string), rows: make(map[string]map[string]int)}
}

type hookMessage struct {
	Type, View, Timestamp string
	hookView
	Views map[string]hookView
	Part  int
	More  bool
}

type hookView struct {
	Type, From, Token string
	Inserted, Deleted []json.RawMessage
}

func (h *hook) open() {
	l, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	h.server, h.served = &http.Server{Handler: h}, make(chan error, 1)
	go func() { h.served <- h.server.Serve(l) }()
	h.t.Cleanup(func() { h.server.Close() })
}

func (h *hook) close() {
	h.server.Close()
	<-h.served
}

// arm returns a channel that is closed when some more messages have come. The
// last of them is taken, but not answered before its sender has died.
func (h *hook) arm() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kill, h.due = 1+h.r.IntN(10), make(chan struct{})
	return h.due
}

// holds reports whether both sinks have delivered what the mirror holds; the
// channel is closed when there is something new.
func (h *hook) holds(m *mirror) (next <-chan struct{}, done bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.paths {
		for _, view := range m.views {
			if multisetText(s.rows[view]) != m.text(view) {
				return h.moved, false
			}
		}
	}
	return nil, true
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its sender has died
	}
	if last := h.note(r.URL.Path, r.Header, string(body)); last {
		<-r.Context().Done()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.r.IntN(10) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable) // its sender does not learn that it was taken
	}
}

// note takes a message, and reports whether it is the last one before the daemon
// dies.
func (h *hook) note(path string, header http.Header, body string) (last bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.take(h.paths[path], header, body); err != nil {
		h.t.Errorf("seed %d: %s: %v: %.300s", *seed, path, err, body)
	}
	close(h.moved)
	h.moved = make(chan struct{})
	if h.kill == 0 {
		return false
	}
	if h.kill--; h.kill == 0 {
		close(h.due)
	}
	return h.kill == 0
}

// take takes a message. It is called with h.mu.
func (h *hook) take(s *hookState, header http.Header, body string) error {
	h.messages++
	id := header.Get("webhook-id")
	mac := hmac.New(sha256.New, []byte(hookSecret))
	fmt.Fprintf(mac, "%s.%s.%s", id, header.Get("webhook-timestamp"), body)
	if header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		return fmt.Errorf("the signature is wrong")
	}
	if before, repeated := s.bodies[id]; repeated && before != body {
		return fmt.Errorf("message %s had other bytes before: %.300s", id, before)
	} else if repeated {
		h.repeats++
	}
	s.bodies[id] = body
	var m hookMessage
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		return err
	}
	switch {
	case m.Part > 1 && m.Part <= len(s.staged):
		return nil // a part that was staged already
	case m.Part > 1 && m.Part > len(s.staged)+1:
		return fmt.Errorf("part %d comes after part %d", m.Part, len(s.staged))
	case m.Part <= 1:
		s.staged = nil
	}
	if s.staged = append(s.staged, m); m.More {
		return nil
	}
	tokens := make(map[string]string) // of what is applied now
	for _, m := range s.staged {
		if m.Views == nil {
			v := m.hookView
			v.Type = m.Type
			m.Views = map[string]hookView{m.View: v}
		}
		for name, v := range m.Views {
			if err := s.apply(name, v, tokens); err != nil {
				return err
			}
		}
	}
	maps.Copy(s.tokens, tokens)
	s.staged = nil
	return nil
}

// apply applies a part of a view, unless its message was applied before.
func (s *hookState) apply(view string, v hookView, tokens map[string]string) error {
	if first := tokens[view] == ""; first {
		if s.tokens[view] == v.Token {
			return nil
		}
		if v.Type == "delta" && tokenTime(v.From) < tokenTime(s.tokens[view]) {
			return fmt.Errorf("%s: a delta from %s when %s was taken", view, v.From, s.tokens[view])
		}
		if v.Type == "base" {
			s.rows[view] = make(map[string]int)
		}
		tokens[view] = v.Token
	}
	for i, list := range [][]json.RawMessage{v.Inserted, v.Deleted} {
		for _, row := range list {
			if s.rows[view][string(row)] += 1 - 2*i; s.rows[view][string(row)] == 0 {
				delete(s.rows[view], string(row))
			}
		}
	}
	return nil
}

func tokenTime(token string) uint64 {
	digits, _, _ := strings.Cut(token, "-")
	t, _ := strconv.ParseUint(digits, 10, 64)
	return t
}
