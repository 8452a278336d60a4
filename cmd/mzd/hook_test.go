package main_test

import (
	"context"
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
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWebhook kills the daemon at moments that its receiver chooses, and closes
// the receiver for a while: nothing is missing in the end, and what comes twice
// has the same bytes.
func TestWebhook(t *testing.T) {
	t.Parallel()
	points := 10
	if *soak {
		points = 100
	}
	address := freePort(t)
	d := newDaemon(t, pipeline{init: crashSQL, views: "{counter: {}, users: {key: [user]}}", sinks: fmt.Sprintf(`
  apart: {plugin: webhook, settings: {url: "http://%[1]s/apart", secret: "file:secret", allow_private: true}}
  together: {plugin: webhook, cut: together, settings: {url: "http://%[1]s/together", secret: "file:secret", allow_private: true, max_body: 1KiB}}`, address)})
	d.write("secret", hookSecret)
	ctx := deadline(t, time.Minute+time.Duration(points)*15*time.Second)
	h := newHook(t, d, address)
	h.edit(100)
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
		if point%3 == 0 {
			h.outage(ctx)
		}
	}
	d.start()
	h.end()
	for {
		next, done := h.complete()
		if done {
			break
		}
		select {
		case <-next:
		case <-ctx.Done():
			for path, s := range h.paths {
				t.Errorf("seed %d: %s has %v at %v, want %d edits: %v", *seed, path, s.rows, s.tokens, h.total, h.users)
			}
			t.Fatal(d.log)
		}
	}
	d.stop()
	h.close()
	t.Logf("%d messages, %d of them repeats, %d in parts", h.messages, h.repeats, h.parts)
	if h.repeats < points || h.parts == 0 {
		t.Errorf("seed %d: %d repeats and %d parts, want one repeat for each of %d kills, and parts", *seed, h.repeats, h.parts, points)
	}
	if strings.Contains(d.log.String(), hookSecret) {
		t.Error("the secret is in the log")
	}
}

// outage closes the receiver while edits come in, and mzd dies meanwhile.
func (h *hook) outage(ctx context.Context) {
	h.close()
	h.d.start()
	select {
	case <-h.d.log.contains("sink failed; trying again"):
	case <-ctx.Done():
		h.t.Fatalf("seed %d: the sink does not notice that its receiver is away\n%s", *seed, h.d.log)
	}
	h.edit(50)
	m := newMirror("counter")
	err := follow(ctx, "ndjson", h.d.web, m.views, "", "", func(data []byte) bool {
		if _, err := m.apply(data); err != nil {
			h.t.Error(err)
			return false
		}
		return countOf(m.text("counter")) < int64(h.total) // nobody else edits now
	})
	if err != nil {
		h.t.Fatalf("seed %d: %v\n%s", *seed, err, h.d.log)
	}
	h.d.kill()
	h.open()
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
	parts    int
	moved    chan struct{}
	events   *os.File
	users    map[string]int // what the views are of: edits by user
	total    int            // all edits
	done     bool           // there will be no more
}

func newHook(t *testing.T, d *daemon, address string) *hook {
	events, err := os.OpenFile(filepath.Join(d.dir, "events"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	return &hook{
		t: t, d: d, r: rand.New(rand.NewPCG(*seed, 0)), moved: make(chan struct{}), address: address, events: events,
		paths: map[string]*hookState{"/apart": newHookState(), "/together": newHookState()}, users: make(map[string]int),
	}
}

// edit makes some edits.
func (h *hook) edit(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.editLocked(n)
}

func (h *hook) editLocked(n int) {
	var text strings.Builder
	for range n {
		user := fmt.Sprintf("a user called number %d", h.r.IntN(60))
		h.users[user]++
		h.total++
		fmt.Fprintln(&text, user)
	}
	if _, err := h.events.WriteString(text.String()); err != nil {
		h.t.Error(err)
	}
}

// end lets there be no more edits.
func (h *hook) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = true
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

// complete reports whether both sinks have delivered everything; the channel is
// closed when there is something new.
func (h *hook) complete() (next <-chan struct{}, done bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	users := make(map[string]int)
	for user, n := range h.users {
		users[fmt.Sprintf("[%q,%d]", user, n)] = 1
	}
	for _, s := range h.paths {
		if multisetText(s.rows["counter"]) != fmt.Sprintf("[%d]", h.total) || multisetText(s.rows["users"]) != multisetText(users) {
			return h.moved, false
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
	if !h.done {
		h.editLocked(1 + h.r.IntN(5))
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
	if m.Part > 0 {
		h.parts++
	}
	switch {
	case s.has(m):
		return nil // it was applied already
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
		for name, v := range m.views() {
			if err := s.apply(name, v, tokens); err != nil {
				return err
			}
		}
	}
	maps.Copy(s.tokens, tokens)
	s.staged = nil
	return nil
}

// views returns what a message says of each view.
func (m hookMessage) views() map[string]hookView {
	if m.Views != nil {
		return m.Views
	}
	v := m.hookView
	v.Type = m.Type
	return map[string]hookView{m.View: v}
}

// has reports whether a message was applied.
func (s *hookState) has(m hookMessage) bool {
	for name, v := range m.views() {
		if s.tokens[name] != v.Token {
			return false
		}
	}
	return true
}

// apply applies a part of a view.
func (s *hookState) apply(view string, v hookView, tokens map[string]string) error {
	if first := tokens[view] == ""; first {
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
