package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sinks/webhook"
	"github.com/mzdio/mzd/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	top10 = &core.View{
		Name:    "top10",
		Columns: []core.Column{{Name: "user", Type: "text"}, {Name: "count", Type: "int8"}},
		Key:     []int{0},
	}
	counter = &core.View{Name: `the "<counter>"`, Columns: []core.Column{{Name: "n", Type: "int8"}}}
)

func token(t core.Time) core.Token { return core.Token{Time: t, Generation: "k3f9"} }

// batch makes a batch of updates, in turns a number of copies and a row.
func batch(v *core.View, lower, upper core.Time, updates ...any) core.Batch {
	b := core.Batch{View: v, Upper: token(upper)}
	if lower > 0 {
		b.Lower = token(lower)
	}
	var list []core.Update
	for pair := range slices.Chunk(updates, 2) {
		list = append(list, core.Update{Time: upper - 1, Diff: core.Diff(pair[0].(int)), Row: core.Row(pair[1].(string))})
	}
	b.Updates = core.UpdatesOf(list)
	return b
}

// request is a request that a receiver got.
type request struct {
	header http.Header
	body   string
}

func (r request) id() string { return r.header.Get("Webhook-Id") }

// receiver notes what it gets and answers as its handler says; nil: with 204.
type receiver struct {
	*httptest.Server
	answer http.HandlerFunc

	mu       sync.Mutex
	requests []request
}

func receive(t *testing.T, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // broken off
	}
	r.mu.Lock()
	r.requests = append(r.requests, request{req.Header, string(body)})
	r.mu.Unlock()
	if r.answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	r.answer(w, req)
}

// take returns what came since the last call.
func (r *receiver) take() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.requests
	r.requests = nil
	return all
}

// open makes a sink for a receiver of the test.
func open(t *testing.T, s webhook.Settings) *webhook.Sink {
	t.Helper()
	s.AllowPrivate = true
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Name: "hook", Pipeline: "wikipedia"})
	sink, err := webhook.New(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	return sink
}

func write(t *testing.T, sink core.Sink, cut ...core.Batch) {
	t.Helper()
	if err := sink.Write(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
}

// TestBodies compares what is posted with goldens: id and body.
func TestBodies(t *testing.T) {
	base := batch(top10, 0, 1721310000000, 1, `["Ada",12]`, 2, `["a \"quoted\" <name>",9007199254740993]`)
	delta := batch(top10, 1721310000000, 1721310001000, -1, `["Ada",12]`, 1, `["Ada",13]`, -2, `["a \"quoted\" <name>",9007199254740993]`)
	nothing := batch(counter, 1721310000000, 1721310001000)
	for _, tt := range []struct {
		name    string
		cuts    [][]core.Batch
		maxBody schema.Bytes
	}{
		{name: "one view", cuts: [][]core.Batch{{base}, {delta}, {batch(top10, 1721310001000, 1721310002000)}, {batch(counter, 0, 5)}}},
		{name: "together", cuts: [][]core.Batch{{base, batch(counter, 0, 1721310000000, 1, "[14]")}, {delta, nothing},
			{batch(top10, 1721310001000, 1721310002000), batch(counter, 1721310001000, 1721310002000)},
			{batch(top10, 1721310001000, 1721310003000), batch(counter, 0, 1721310003000, 1, "[7]")}}},
		{name: "parts", maxBody: 1 << 10, cuts: [][]core.Batch{{batch(top10, 0, 1000, 2, `["`+strings.Repeat("a", 400)+`",1]`, 1, `["`+strings.Repeat("b", 2000)+`",1]`, 1, `["c",1]`)},
			{batch(top10, 1000, 2000, -2, `["`+strings.Repeat("a", 400)+`",1]`, 1, `["d",1]`), batch(counter, 1000, 2000, -1, "[1]", 1, "[2]")}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := receive(t, nil)
			sink := open(t, webhook.Settings{URL: r.URL, MaxBody: tt.maxBody})
			var got strings.Builder
			for _, cut := range tt.cuts {
				write(t, sink, cut...)
				for _, req := range r.take() {
					if !json.Valid([]byte(req.body)) {
						t.Errorf("not JSON: %s", req.body)
					}
					fmt.Fprintf(&got, "%s\n%s\n", req.id(), req.body)
				}
			}
			golden := filepath.Join("testdata", tt.name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
			}
		})
	}
}

// TestParts puts the parts of large messages together again: every row is there,
// as often as it has copies, and no body is larger than it may be.
func TestParts(t *testing.T) {
	var updates, deletes []any
	want := make(map[string]int)
	for i := range 500 {
		row := fmt.Sprintf(`["%s",%d]`, strings.Repeat("x", i%90), i)
		copies := 1 + i%3
		if i%2 == 1 {
			copies = -copies
		}
		want[row] += copies
		updates = append(updates, copies, row)
		deletes = append(deletes, -1, row)
	}
	const maxBody = 2000
	r := receive(t, nil)
	sink := open(t, webhook.Settings{URL: r.URL, MaxBody: maxBody})
	for _, cut := range [][]core.Batch{
		{batch(top10, 1, 2, updates...)},
		{batch(top10, 1, 2, updates...), batch(counter, 1, 2, deletes...)},
	} {
		write(t, sink, cut...)
		got := []map[string]int{{}, {}}
		all := r.take()
		ids := make(map[string]bool)
		for i, req := range all {
			ids[req.id()] = true
			if len(req.body) > maxBody {
				t.Errorf("part %d has %d bytes", i+1, len(req.body))
			}
			type lists struct{ Inserted, Deleted []json.RawMessage }
			var m struct {
				lists
				Views map[string]lists
				Part  int
				More  bool
			}
			if err := json.Unmarshal([]byte(req.body), &m); err != nil {
				t.Fatal(err)
			}
			if m.Part != i+1 || m.More != (i < len(all)-1) {
				t.Errorf("request %d of %d is part %d, more: %t", i+1, len(all), m.Part, m.More)
			}
			for k, l := range []lists{m.lists, m.Views[counter.Name]} {
				if k == 0 && m.Views != nil {
					l = m.Views[top10.Name]
				}
				for _, row := range l.Inserted {
					got[k][string(row)]++
				}
				for _, row := range l.Deleted {
					got[k][string(row)]--
				}
			}
		}
		if len(all) < 20 || len(ids) != len(all) {
			t.Errorf("%d parts with %d ids", len(all), len(ids))
		}
		for row, n := range want {
			if got[0][row] != n || len(cut) == 2 && got[1][row] != -1 {
				t.Fatalf("%d views: row %s: got %d and %d, want %d", len(cut), row, got[0][row], got[1][row], n)
			}
		}
	}
}

// TestIDs checks that the id of a message depends on all that makes it another
// one, and on nothing else.
func TestIDs(t *testing.T) {
	cut := []core.Batch{batch(top10, 1, 2, 1, `["Ada",1]`)}
	idOf := func(pipeline, name string, cut []core.Batch) string {
		t.Helper()
		r := receive(t, nil)
		sink, err := webhook.New(plugins.WithEnv(t.Context(), plugins.Env{Name: name, Pipeline: pipeline}), webhook.Settings{URL: r.URL, AllowPrivate: true})
		if err != nil {
			t.Fatal(err)
		}
		defer sink.Close()
		write(t, sink, cut...)
		return r.take()[0].id()
	}
	first := idOf("p", "s", cut)
	if again := idOf("p", "s", cut); again != first {
		t.Errorf("got %s and %s for one message", first, again)
	}
	renamed := *top10
	renamed.Name = "top1"
	other := batch(top10, 1, 2, 1, `["Ada",1]`)
	other.Upper.Generation = "x2ab"
	for i, id := range []string{
		idOf("q", "s", cut), idOf("p", "t", cut), idOf("ps", "", cut),
		idOf("p", "s", []core.Batch{batch(&renamed, 1, 2, 1, `["Ada",1]`)}),
		idOf("p", "s", []core.Batch{batch(top10, 0, 2, 1, `["Ada",1]`)}),
		idOf("p", "s", []core.Batch{batch(top10, 1, 3, 1, `["Ada",1]`)}),
		idOf("p", "s", []core.Batch{other}),
		idOf("p", "s", append(cut, batch(counter, 1, 2))),
	} {
		if id == first {
			t.Errorf("case %d has the same id", i)
		}
	}
}

// TestSignature verifies what is signed in another way.
func TestSignature(t *testing.T) {
	r := receive(t, nil)
	key := []byte("a key of twenty-four byte")
	for _, secret := range []string{string(key), "whsec_" + base64.StdEncoding.EncodeToString(key)} {
		sink := open(t, webhook.Settings{URL: r.URL, Secret: secret, Headers: map[string]string{"authorization": "Bearer x", "User-Agent": "somebody"}})
		write(t, sink, batch(top10, 1, 2, 1, `["Ada",1]`))
		h := r.take()[0]
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", h.id(), h.header.Get("webhook-timestamp"), h.body)
		if got, want := h.header.Get("webhook-signature"), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != want {
			t.Errorf("got the signature %s, want %s", got, want)
		}
		seconds, err := strconv.ParseInt(h.header.Get("webhook-timestamp"), 10, 64)
		if age := time.Since(time.Unix(seconds, 0)); err != nil || age < 0 || age > time.Minute {
			t.Errorf("the timestamp is %s old, %v", age, err)
		}
		for name, want := range map[string]string{"Authorization": "Bearer x", "User-Agent": "somebody", "Content-Type": "application/json"} {
			if got := h.header.Get(name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	}
	write(t, open(t, webhook.Settings{URL: r.URL}), batch(top10, 1, 2, 1, `["Ada",1]`))
	if h := r.take()[0].header; h.Get("webhook-signature") != "" || h.Get("webhook-id") == "" || h.Get("user-agent") != "mzd" {
		t.Errorf("without a secret: got %v", h)
	}
}

// TestFailures writes to receivers that fail in every way. Each time the same
// bytes come again, with the same id, and the error says what is wrong without
// saying what is secret.
func TestFailures(t *testing.T) {
	const secret, password = "a secret that nobody may see", "Bearer hunter2hunter2"
	hangUp := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	raw := func(answer string, hold bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, answer)
			if hold {
				io.Copy(io.Discard, conn) // until the other side has had enough
			}
		}
	}
	status := func(code int, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for pair := range slices.Chunk(headers, 2) {
				w.Header().Set(pair[0], pair[1])
			}
			w.WriteHeader(code)
			io.WriteString(w, "out of order\nand more")
		}
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // the error, behind the URL
		after  time.Duration
		final  bool
		slow   bool // it is not waited for long
	}{
		{name: "500", answer: status(500), want: `500 Internal Server Error; the server says "out of order"`},
		{name: "400", answer: status(400), want: `400 Bad Request; the server says "out of order"`},
		{name: "404", answer: status(404), want: `404 Not Found; the server says "out of order"`},
		{name: "429", answer: status(429, "Retry-After", "7"), want: "429 Too Many Requests", after: 7 * time.Second},
		{name: "503", answer: status(503, "Retry-After", "70000"), want: "503 Service Unavailable", after: time.Hour},
		{name: "410", answer: status(410), want: "the receiver wants no more of it", final: true},
		{name: "redirect", answer: status(307, "Location", "/elsewhere"), want: "redirects are not followed"},
		{name: "echo", answer: func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "you sent "+r.Header.Get("Authorization"), 401)
		}, want: "401 Unauthorized"},
		{name: "echo of the path", answer: func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "Cannot POST "+r.URL.Path, 404)
		}, want: "404 Not Found"},
		{name: "echo of the query", answer: func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no such key: "+r.URL.Query().Get("key"), 403)
		}, want: "403 Forbidden"},
		{name: "hung up", answer: hangUp, want: "EOF"},
		{name: "broken off", answer: raw("HTTP/1.1 200", false), want: "EOF"},
		{name: "another protocol", answer: raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", true), want: "101 Switching Protocols"},
		{name: "a head without end", answer: raw("HTTP/1.1 200 OK\r\nX: y\r\n", true), want: "no answer within 200ms", slow: true},
		{name: "an error without end", answer: raw("HTTP/1.1 500 Broken\r\n\r\n", true), want: "500 Broken", slow: true},
		{name: "huge header", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, want: "server response headers exceeded"},
		{name: "silence", answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, want: "no answer within 200ms", slow: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := receive(t, tt.answer)
			s := webhook.Settings{URL: r.URL + "/services/correct-horse?key=battery-staple", Secret: secret, Headers: map[string]string{"Authorization": password}}
			if tt.slow {
				s.Timeout = schema.Duration(200 * time.Millisecond)
			}
			sink := open(t, s)
			cut := []core.Batch{batch(top10, 1, 2, 1, `["Ada",1]`)}
			for range 2 {
				err := sink.Write(t.Context(), cut)
				if err == nil || !strings.HasPrefix(err.Error(), "post to "+r.URL+": ") || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("got %v, want %s", err, tt.want)
				}
				for _, hidden := range []string{"hunter2", secret, "correct-horse", "battery-staple"} {
					if text := err.Error(); strings.Contains(text, hidden) {
						t.Errorf("shows what is secret: %s", text)
					}
				}
				if errors.Is(err, core.ErrPermanent) != tt.final {
					t.Errorf("permanent: %t, want %t", !tt.final, tt.final)
				}
				var later interface{ RetryAfter() time.Duration }
				if after := time.Duration(0); tt.after > 0 {
					if errors.As(err, &later) {
						after = later.RetryAfter()
					}
					if after != tt.after {
						t.Errorf("come back after %s, want %s", after, tt.after)
					}
				}
			}
			all := r.take()
			if len(all) != 2 || all[0].body != all[1].body || all[0].id() != all[1].id() {
				t.Errorf("got %+v, want one message twice", all)
			}
		})
	}
}

// TestAnswersThatDoNotMatter takes a message whatever else the answer is.
func TestAnswersThatDoNotMatter(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"201":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) },
		"huge": func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 8<<20)) },
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("x"))
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := receive(t, answer)
			sink := open(t, webhook.Settings{URL: r.URL, Timeout: schema.Duration(time.Hour)}) // which nobody waits for
			write(t, sink, batch(top10, 1, 2, 1, `["Ada",1]`))
			write(t, sink, batch(top10, 2, 3, 1, `["Ada",2]`))
			if got := r.take(); len(got) != 2 {
				t.Errorf("got %d requests", len(got))
			}
		})
	}
}

// TestStaleConnection has a receiver that closes a connection which it has kept open
// just when the next message comes over it, as those with a short idle timeout do: no
// failure, the message goes over another one at once.
func TestStaleConnection(t *testing.T) {
	var mu sync.Mutex
	used := make(map[string]int)
	r := receive(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if used[r.RemoteAddr]++; used[r.RemoteAddr] == 2 {
			panic(http.ErrAbortHandler)
		}
	})
	sink := open(t, webhook.Settings{URL: r.URL})
	write(t, sink, batch(top10, 1, 2, 1, `["Ada",1]`))
	write(t, sink, batch(top10, 2, 3, 1, `["Ada",2]`))
	all := r.take()
	if len(all) != 3 || all[1].body != all[2].body || all[1].id() != all[2].id() {
		t.Fatalf("got %d requests, want that the second comes again as it was", len(all))
	}
	for name := range all[2].header {
		if strings.Contains(name, "Idempotency") {
			t.Errorf("the header %s is sent", name)
		}
	}
}

// TestStopped ends a request when the sink is told to stop.
func TestStopped(t *testing.T) {
	arrived := make(chan struct{})
	r := receive(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	err := open(t, webhook.Settings{URL: r.URL}).Write(ctx, []core.Batch{batch(top10, 1, 2, 1, `["Ada",1]`)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestPartsGoOn refuses a part: it comes again, and those before it do not, unless
// the receiver has lost them; a new process begins with the first one.
func TestPartsGoOn(t *testing.T) {
	n := 0
	r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n++; n {
		case 3:
			w.WriteHeader(500)
		case 5:
			w.WriteHeader(409)
		}
	})
	var rows []any
	for i := range 40 {
		rows = append(rows, 1, fmt.Sprintf(`["%s",%d]`, strings.Repeat("x", 80), i))
	}
	cut := []core.Batch{batch(top10, 1, 2, rows...)}
	s := webhook.Settings{URL: r.URL, MaxBody: 1 << 10}
	sink := open(t, s)
	partsOf := func() (parts []int, ids []string) {
		for _, req := range r.take() {
			var m struct{ Part int }
			if err := json.Unmarshal([]byte(req.body), &m); err != nil {
				t.Fatal(err)
			}
			parts, ids = append(parts, m.Part), append(ids, req.id())
		}
		return parts, ids
	}
	for range 2 {
		if err := sink.Write(t.Context(), cut); err == nil {
			t.Fatal("no error")
		}
	}
	write(t, sink, cut...)
	parts, ids := partsOf()
	if got, want := fmt.Sprint(parts), "[1 2 3 3 4 1 2 3 4 5]"; got != want {
		t.Errorf("got the parts %s, want %s", got, want)
	}
	for _, again := range []*webhook.Sink{sink, open(t, s)} { // taken, but not known to be: or a new process
		write(t, again, cut...)
		parts, repeated := partsOf()
		if got, want := fmt.Sprint(parts), "[1 2 3 4 5]"; got != want {
			t.Errorf("got the parts %s, want %s", got, want)
		}
		if want := ids[5:]; !slices.Equal(repeated, want) || !slices.Equal(ids[:3], want[:3]) {
			t.Errorf("got the ids %v, want %v", repeated, want)
		}
	}
	s.MaxBody *= 2 // other parts
	write(t, open(t, s), cut...)
	if _, others := partsOf(); slices.ContainsFunc(others, func(id string) bool { return slices.Contains(ids, id) }) {
		t.Errorf("parts of another size have the same ids: %v and %v", others, ids)
	}
}

func TestSettings(t *testing.T) {
	good := "a secret of 24 characters"
	for _, tt := range []struct {
		name string
		s    webhook.Settings
		want string // empty: good
	}{
		{"https", webhook.Settings{URL: "https://example.com/hook?key=x", Secret: good}, ""},
		{"a public address", webhook.Settings{URL: "https://[2606:4700::1111]:8443/"}, ""},
		{"private", webhook.Settings{URL: "http://127.0.0.1:80/", AllowPrivate: true}, ""},
		{"private by name", webhook.Settings{URL: "http://receiver:80/", AllowPrivate: true}, ""},
		{"no URL", webhook.Settings{URL: "example.com"}, "url: not an address"},
		{"another scheme", webhook.Settings{URL: "ftp://example.com"}, "url: not an address"},
		{"no host", webhook.Settings{URL: "https:///x"}, "url: not an address"},
		{"a password", webhook.Settings{URL: "https://u:hunter2@example.com"}, "url: holds a user or a password"},
		{"a fragment", webhook.Settings{URL: "https://example.com/#x"}, "url: has a fragment"},
		{"http", webhook.Settings{URL: "http://example.com"}, "url: is http"},
		{"http to a public address", webhook.Settings{URL: "http://1.1.1.1", AllowPrivate: true}, "url: leads to 1.1.1.1 over http"},
		{"this machine", webhook.Settings{URL: "https://127.0.0.1"}, "url: leads to 127.0.0.1, which is this machine"},
		{"this machine by name", webhook.Settings{URL: "https://LOCALHOST./"}, "url: leads to 127.0.0.1"},
		{"a metadata service", webhook.Settings{URL: "https://169.254.169.254/latest"}, "url: leads to 169.254.169.254"},
		{"short", webhook.Settings{URL: "https://a.example", Secret: "hunter2"}, "secret: is shorter than 24 characters"},
		{"no base64", webhook.Settings{URL: "https://a.example", Secret: "whsec_hunter2!"}, "secret: is not whsec_"},
		{"short base64", webhook.Settings{URL: "https://a.example", Secret: "whsec_aGVsbG8="}, "secret: is not whsec_"},
		{"no header", webhook.Settings{URL: "https://a.example", Headers: map[string]string{"a b": "x"}}, `headers["a b"]: is not the name`},
		{"our header", webhook.Settings{URL: "https://a.example", Headers: map[string]string{"webhook-id": "x"}}, "headers.webhook-id: is a header that the sink itself sets"},
		{"a header twice", webhook.Settings{URL: "https://a.example", Headers: map[string]string{"X-A": "1", "x-a": "2"}}, "headers.x-a: is the same header as X-A"},
		{"two lines", webhook.Settings{URL: "https://a.example", Headers: map[string]string{"X": "hunter2\r\ny: z"}}, "headers.X: has a line break"},
		{"negative", webhook.Settings{URL: "https://a.example", Timeout: -1, ConnectTimeout: -1}, "timeout: must not be negative"},
		{"tiny", webhook.Settings{URL: "https://a.example", MaxBody: 10}, "max_body: not between"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sink, err := webhook.New(t.Context(), tt.s)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if sink != nil || err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, core.ErrPermanent) {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("shows what is secret: %v", err)
			}
		})
	}
}
