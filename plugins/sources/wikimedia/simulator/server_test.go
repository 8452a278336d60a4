package simulator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// idsOf returns the meta.ids of messages.
func idsOf(t *testing.T, messages []simulator.Message) []string {
	t.Helper()
	var ids []string
	for _, m := range messages {
		ids = append(ids, decode(t, m).Meta.ID)
	}
	return ids
}

// stampOf returns the Kafka timestamp in a message's ID.
func stampOf(t *testing.T, m simulator.Message) int64 {
	t.Helper()
	var entries []struct {
		Timestamp *int64
		Offset    *int64
	}
	if err := json.Unmarshal([]byte(m.ID), &entries); err != nil || len(entries) != 2 {
		t.Fatalf("ID %s: %v", m.ID, err)
	}
	if slices.ContainsFunc(entries, func(e struct{ Timestamp, Offset *int64 }) bool { return e.Offset != nil && *e.Offset != -1 }) {
		t.Fatalf("ID %s: an offset that is not -1", m.ID)
	}
	for _, e := range entries {
		if e.Timestamp != nil {
			return *e.Timestamp - 1
		}
	}
	t.Fatalf("ID %s has no timestamp", m.ID)
	return 0
}

func TestSameOptionsSameStream(t *testing.T) {
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	o := simulator.Options{Rate: 50, Seed: 7, Start: start}
	first := read(t, simulator.New(o), request{since: "0"}, 1000)
	again := read(t, simulator.New(o), request{since: start.Format("2006-01-02T15:04:05Z07:00")}, 1000)
	if !slices.EqualFunc(first, again, func(a, b simulator.Message) bool { return a.ID == b.ID && bytes.Equal(a.Data, b.Data) }) {
		t.Error("two servers with the same options serve different streams")
	}
	o.Start = start.Add(time.Second)
	later := read(t, simulator.New(o), request{since: "0"}, 1000)
	for i := range first {
		a, b := decode(t, first[i]), decode(t, later[i])
		if a.User != b.User || a.Title != b.Title || a.Comment != b.Comment || a.Type != b.Type {
			t.Fatalf("event %d depends on the time of the start: %s by %s and %s by %s", i, a.Title, a.User, b.Title, b.User)
		}
		if a.Meta.ID == b.Meta.ID {
			t.Fatalf("event %d has the same meta.id in two streams", i)
		}
	}
	o.Seed++
	if other := read(t, simulator.New(o), request{since: "0"}, 1000); decode(t, other[500]).Title == decode(t, later[500]).Title && decode(t, other[501]).Title == decode(t, later[501]).Title {
		t.Error("another seed, the same edits")
	}
}

// TestResumeAsKafkaDoes holds both kinds of servers against the rule: the first
// message whose timestamp is the one asked for, or above, and all behind it.
func TestResumeAsKafkaDoes(t *testing.T) {
	const n = 2000
	live := simulator.New(simulator.Options{Rate: 100, Seed: 3, Start: time.Now().Add(-time.Hour), Total: n})
	all := read(t, live, request{since: "0"}, n+n/300)
	replay, err := simulator.Replay(all, simulator.ReplayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]http.Handler{"live": live, "replay": replay} {
		srv := httptest.NewServer(s)
		defer srv.Close()
		r := rand.New(rand.NewPCG(1, 2))
		for range 40 {
			cut := 1 + r.IntN(len(all)-1)
			stamp := stampOf(t, all[cut]) + int64(r.IntN(3)) - 1
			want := slices.IndexFunc(all, func(m simulator.Message) bool { return stampOf(t, m) >= stamp })
			if want < 0 {
				continue
			}
			id := strings.Replace(all[cut].ID, fmt.Sprint(stampOf(t, all[cut])+1), fmt.Sprint(stamp), 1)
			for _, q := range []request{{lastEventID: id}, {since: fmt.Sprint(stamp)}, {lastEventID: id, since: "0"}} {
				got := readFrom(t, srv.URL, q, min(3, len(all)-want))
				if got, want := idsOf(t, got), idsOf(t, all[want:min(want+3, len(all))]); !slices.Equal(got, want) {
					t.Errorf("%s: resumed at %d with %+v: got %v, want %v", name, stamp, q, got, want)
				}
			}
		}
		offset := decode(t, all[77]).Meta.Offset
		q := request{lastEventID: fmt.Sprintf(`[{"topic":%q,"partition":0,"offset":%d}]`, decode(t, all[77]).Meta.Topic, offset)}
		if got, want := idsOf(t, readFrom(t, srv.URL, q, 2)), idsOf(t, all[77:79]); !slices.Equal(got, want) {
			t.Errorf("%s: resumed at an offset: got %v, want %v", name, got, want)
		}
	}
}

// TestReplayOfTwoTopics resumes each topic at its own place.
func TestReplayOfTwoTopics(t *testing.T) {
	message := func(topic, other string, stamp int64, name string) simulator.Message {
		return simulator.Message{
			ID:   fmt.Sprintf(`[{"topic":%q,"partition":0,"timestamp":%d},{"topic":%q,"partition":0,"offset":-1}]`, topic, stamp+1, other),
			Data: fmt.Appendf(nil, `{"meta":{"id":%q}}`, name),
		}
	}
	s, err := simulator.Replay([]simulator.Message{
		message("a", "b", 1000, "a1"), message("b", "a", 1000, "b1"), message("a", "b", 2000, "a2"),
		message("b", "a", 2000, "b2"), message("a", "b", 3000, "a3"), message("b", "a", 3000, "b3"),
	}, simulator.ReplayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string][]string{
		`[{"topic":"a","partition":0,"timestamp":2000},{"topic":"b","partition":0,"timestamp":1}]`:    {"b1", "a2", "b2", "a3", "b3"},
		`[{"topic":"a","partition":0,"timestamp":2000},{"topic":"b","partition":0,"offset":-1}]`:      {"a2", "a3"},
		`[{"topic":"b","partition":0,"timestamp":3000}]`:                                              {"b3"},
		`[{"topic":"a","partition":0,"timestamp":9000},{"topic":"b","partition":0,"timestamp":1001}]`: {"b2", "b3"},
	} {
		if got := idsOf(t, read(t, s, request{lastEventID: id}, len(want))); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", id, got, want)
		}
	}
}

// TestConnectionBreaksOff reads connections to their end: they end in the
// middle of an event, and the next goes on where one asks.
func TestConnectionBreaksOff(t *testing.T) {
	all := read(t, simulator.New(simulator.Options{Rate: 100, Start: time.Now().Add(-time.Hour), Total: 100}), request{since: "0"}, 100)
	s, err := simulator.Replay(all, simulator.ReplayOptions{UpTo: func(connection int) int { return 10 * (connection + 1) }})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	defer srv.Close()
	for _, want := range []int{10, 20, 30} {
		resp, err := http.Get(srv.URL + "/v2/stream/recentchange")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("end of a connection: got %v, want an unexpected EOF", err)
		}
		if bytes.HasSuffix(raw, []byte("\n\n")) {
			t.Error("the connection does not end in the middle of an event")
		}
		if got := simulator.ParseSSE(raw); len(got) != want {
			t.Errorf("got %d messages, want %d", len(got), want)
		}
	}
}

func TestCloseAfter(t *testing.T) {
	srv := httptest.NewServer(simulator.New(simulator.Options{Rate: 1000, CloseAfter: 50 * time.Millisecond}))
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/v2/stream/recentchange")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(simulator.ParseSSE(raw)) == 0 {
		t.Errorf("got %d bytes and %v, want some events and an unexpected EOF", len(raw), err)
	}
}

// TestHistory checks that nobody can resume from before what the server keeps,
// and that the newest come without any request.
func TestHistory(t *testing.T) {
	s := simulator.New(simulator.Options{Rate: 100, Start: time.Now().Add(-time.Minute), History: 50, Total: 1000})
	srv := httptest.NewServer(s)
	defer srv.Close()
	first := decode(t, readFrom(t, srv.URL, request{since: "0"}, 1)[0])
	if got, want := first.Meta.Offset%1_000_000, int64(950); got != want {
		t.Errorf("the oldest event has number %d, want %d", got, want)
	}
}

func TestRefusals(t *testing.T) {
	s := simulator.New(simulator.Options{})
	for _, c := range []struct {
		method, url, id string
		status          int
	}{
		{"GET", "/v2/stream/page-create", "", 404},
		{"GET", "/", "", 404},
		{"POST", "/v2/stream/recentchange", "", 405},
		{"GET", "/v2/stream/recentchange?since=yesterday", "", 400},
		{"GET", "/v2/stream/recentchange", "garbage", 400},
		{"GET", "/v2/stream/recentchange", `[{"topic":"nonsense","partition":0,"timestamp":1}]`, 400},
		{"GET", "/v2/stream/recentchange", `[{"topic":"eqiad.mediawiki.recentchange","partition":3,"timestamp":1}]`, 400},
	} {
		r := httptest.NewRequest(c.method, c.url, nil)
		if c.id != "" {
			r.Header.Set("Last-Event-ID", c.id)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != c.status || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s (%s): got %d %s, want %d and JSON", c.method, c.url, c.id, w.Code, w.Body, c.status)
		}
	}
}

func TestReplayRefusesWhatItCannotPlace(t *testing.T) {
	for _, id := range []string{"", "garbage", "[]", `[{"topic":"a","partition":0,"offset":-1}]`} {
		if _, err := simulator.Replay([]simulator.Message{{ID: id, Data: []byte("{}")}}, simulator.ReplayOptions{}); err == nil {
			t.Errorf("ID %q: no error", id)
		}
	}
	if _, err := simulator.ParseLines([]byte("{}\n{")); err == nil {
		t.Error("a damaged line: no error")
	}
}

// TestServe serves until the context ends, with a client that is connected and
// one that never reads.
func TestServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() {
		served <- simulator.New(simulator.Options{Rate: 1e6, Start: time.Now().Add(-time.Hour)}).Serve(ctx, ln)
	}()
	deaf, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	io.WriteString(deaf, "GET /v2/stream/recentchange?since=0 HTTP/1.1\r\nHost: x\r\n\r\n")
	readFrom(t, "http://"+ln.Addr().String(), request{since: "0"}, 100)
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v, want the context's error", err)
	}
}
