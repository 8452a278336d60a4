package ingest_test

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
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/ingest"
	"github.com/mzdio/mzd/core/pgtest"
	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/pgwire"
)

// connector opens connections to a database.
type connector func(context.Context) (*pgconn.PgConn, error)

// embedded runs an embedded engine until the test ends.
func embedded(t *testing.T) connector {
	t.Helper()
	e, err := engine.Open(engine.Options{BaseDir: t.TempDir(), DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	srv := pgwire.New(e, pgwire.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- e.Run(ctx) }()
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	config, err := pgconn.ParseConfig("postgres://mzd@embedded/materialize?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return srv.Dial(ctx) }
	return func(ctx context.Context) (*pgconn.PgConn, error) { return pgconn.ConnectConfig(ctx, config) }
}

// query runs statements and returns the values of their first column.
func (connect connector) query(t *testing.T, sql string) []string {
	t.Helper()
	conn, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var values []string
	for _, r := range results {
		for _, row := range r.Rows {
			values = append(values, string(row[0]))
		}
	}
	return values
}

func document(id string) core.Event {
	return core.Event{ID: id, Cursor: "after " + id, Data: fmt.Appendf(nil, `{"id":%q}`, id)}
}

func documents(ids ...string) []core.Event {
	var all []core.Event
	for _, id := range ids {
		all = append(all, document(id))
	}
	return all
}

// numbered returns n documents, from the first number on.
func numbered(first, n int) []core.Event {
	var all []core.Event
	for i := range n {
		all = append(all, document(fmt.Sprint(first+i)))
	}
	return all
}

func mustLand(t *testing.T, to ingest.Landing, all ...core.Event) ingest.Landed {
	t.Helper()
	landed, err := to.Land(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	return landed
}

func refuses(t *testing.T, to ingest.Landing, want string, all ...core.Event) error {
	t.Helper()
	landed, err := to.Land(t.Context(), all)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %+v, %v, want an error: %s", landed, err, want)
	}
	if errors.Is(err, core.ErrPermanent) {
		t.Errorf("it is permanent: %v", err)
	}
	return err
}

// TestTable lands in tables of the embedded engine and of PostgreSQL.
func TestTable(t *testing.T) {
	databases := map[string]func(*testing.T) connector{
		"embedded": embedded,
		"postgres": func(t *testing.T) connector {
			dsn := pgtest.Start(t)
			return func(ctx context.Context) (*pgconn.PgConn, error) { return pgconn.Connect(ctx, dsn) }
		},
	}
	for name, start := range databases {
		t.Run(name, func(t *testing.T) {
			connect := start(t)
			down := errors.New("nobody there")
			var away error
			openTable := func(t *testing.T, cursor, table string, text bool) *ingest.Remote {
				r, err := ingest.OpenTable(cursor, ingest.TableOptions{Table: table, Text: text, Connect: func(ctx context.Context) (*pgconn.PgConn, error) {
					if away != nil {
						return nil, away
					}
					return connect(ctx)
				}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { r.Close() })
				return r
			}
			newCursor := func(t *testing.T) string { return filepath.Join(t.TempDir(), "new", "x.cursor") }

			t.Run("restart", func(t *testing.T) {
				cursor := newCursor(t)
				r := openTable(t, cursor, "events", false)
				away = down
				refuses(t, r, "land in table events: nobody there", documents("a")...)
				if _, err := os.Stat(cursor); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a cursor before there is an event: %v", err)
				}
				away = nil
				if got := mustLand(t, r, documents("a", "b", "a")...); got.Events != 2 || got.Bytes != 20 || got.Duplicates != 1 || got.Rejected != nil {
					t.Errorf("got %+v", got)
				}
				if got := mustLand(t, r, documents("b", "c")...); got.Events != 1 || got.Duplicates != 1 {
					t.Errorf("got %+v", got)
				}
				if got := mustLand(t, r); got.Events != 0 {
					t.Errorf("got %+v", got)
				}
				want := ingest.Position{Target: "table events", Bytes: 30, Cursor: "after c"}
				if got := r.Position(); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				// Without Close, as after kill -9: the cursor is there, the IDs are not.
				r = openTable(t, cursor, "events", false)
				if got := r.Position(); got != want {
					t.Errorf("after a restart: got %+v, want %+v", got, want)
				}
				if got := mustLand(t, r, documents("c", "d")...); got.Events != 2 {
					t.Errorf("after a restart: got %+v", got)
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				refuses(t, r, "closed", documents("e")...)
				got := connect.query(t, "SELECT data->>'id' AS id FROM events ORDER BY id")
				if fmt.Sprint(got) != "[a b c c d]" {
					t.Errorf("got %v", got)
				}
			})
			t.Run("values", func(t *testing.T) {
				texts := []string{"plain", `back\slash \N \. \n`, "tab\tline\nreturn\rend", "quote\"'", "é 🎉", "", " ", "{"}
				r := openTable(t, newCursor(t), "texts", true)
				var all, as []core.Event
				for _, s := range texts {
					all = append(all, core.Event{Data: []byte(s)})
					j, _ := json.Marshal(map[string]string{"x": s})
					as = append(as, core.Event{Data: j})
				}
				if got := mustLand(t, r, append(all, core.Event{Data: []byte("a\x00b")})...); got.Events != len(texts) || got.Rejected["nul"] != 1 {
					t.Errorf("got %+v", got)
				}
				got := connect.query(t, "SELECT data FROM texts")
				slices.Sort(got)
				want := slices.Sorted(slices.Values(texts))
				if !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
				r = openTable(t, newCursor(t), `"JSON texts"`, false)
				bad := []string{"", "{", "{} {}", `{"a":1}x`, "\xff", "\"\xff\""}
				for _, s := range bad {
					as = append(as, core.Event{Data: []byte(s)})
				}
				as = append(as, core.Event{Data: []byte("{\n\t\"x\" :  \"plain\"\r\n}")})
				if got := mustLand(t, r, as...); got.Events != len(texts)+1 || got.Rejected["json"] != len(bad) {
					t.Errorf("got %+v", got)
				}
				got = connect.query(t, `SELECT data->>'x' FROM "JSON texts"`)
				slices.Sort(got)
				if want := slices.Sorted(slices.Values(append(texts, "plain"))); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			})
			t.Run("large", func(t *testing.T) {
				r := openTable(t, newCursor(t), "large", false)
				var all []core.Event
				for i := range 40 {
					all = append(all, core.Event{Data: fmt.Appendf(nil, `{"n":%d,"x":"%s"}`, i, strings.Repeat("x", 100_000))})
				}
				all = append(all, core.Event{Data: fmt.Appendf(nil, `{"n":40,"x":"%s"}`, strings.Repeat("x", 3<<20))})
				if got := mustLand(t, r, all...); got.Events != 41 {
					t.Errorf("got %+v", got)
				}
				if got := connect.query(t, "SELECT count(DISTINCT data->'n') FROM large"); fmt.Sprint(got) != "[41]" {
					t.Errorf("got %v", got)
				}
			})
			t.Run("refused alone", func(t *testing.T) {
				// Of a source that emits one by one, a bad event must not stop all others.
				r := openTable(t, newCursor(t), "alone", false)
				poison := core.Event{Cursor: "after poison", Data: []byte(`{"id":"\ud800"}`)}
				refuses(t, r, "land in table alone: ", poison)
				for i := range 3 {
					if got := mustLand(t, r, numbered(i, 1)...); got.Events != 1 {
						t.Errorf("got %+v", got)
					}
					for range 9 {
						if got := mustLand(t, r, poison); got.Events != 0 || got.Rejected["refused"] != 1 {
							t.Errorf("got %+v", got)
						}
					}
					if got := r.Position().Cursor; got != "after poison" {
						t.Errorf("got the cursor %s", got)
					}
				}
				for range 3 { // for all we know it takes nothing any more
					refuses(t, r, "land in table alone: ", poison)
				}
			})
			t.Run("refused", func(t *testing.T) {
				r := openTable(t, newCursor(t), "refused", false)
				poison := func(i int) core.Event {
					return core.Event{ID: fmt.Sprint("poison", i), Cursor: "after poison", Data: fmt.Appendf(nil, `{"id":"\ud800 %d"}`, i)}
				}
				refuses(t, r, "land in table refused: ", poison(1)) // for all we know it takes nothing
				all := numbered(0, 50)
				all[0], all[13], all[14], all[49] = poison(0), poison(1), poison(2), poison(3)
				if got := mustLand(t, r, all...); got.Events != 46 || got.Rejected["refused"] != 4 {
					t.Errorf("got %+v", got)
				}
				if got := r.Position().Cursor; got != "after poison" {
					t.Errorf("got the cursor %s", got)
				}
				if got := connect.query(t, "SELECT count(*) FROM refused"); fmt.Sprint(got) != "[46]" {
					t.Errorf("got %v", got)
				}
			})
			t.Run("another table", func(t *testing.T) {
				connect.query(t, "CREATE TABLE others (at int NOT NULL DEFAULT 7, data jsonb)")
				mustLand(t, openTable(t, newCursor(t), "others", false), documents("a")...)
				if got := connect.query(t, "SELECT at FROM others"); fmt.Sprint(got) != "[7]" {
					t.Errorf("got %v", got)
				}
				connect.query(t, "CREATE TABLE numbers (data int)")
				r := openTable(t, newCursor(t), "numbers", false)
				refuses(t, r, "land in table numbers: ", numbered(0, 100)...) // and not thrown away
				if got := r.Position().Cursor; got != "" {
					t.Errorf("the cursor went to %s", got)
				}
				connect.query(t, "CREATE TABLE wrong (x jsonb)")
				refuses(t, openTable(t, newCursor(t), "wrong", false), "data", documents("a")...)
			})
			t.Run("stopped", func(t *testing.T) {
				r := openTable(t, newCursor(t), "stopped", false)
				mustLand(t, r, documents("a")...)
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if _, err := r.Land(ctx, documents("b")); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
				mustLand(t, r, documents("b")...)
			})
			t.Run("connection lost", func(t *testing.T) {
				var conn *pgconn.PgConn
				r, err := ingest.OpenTable(newCursor(t), ingest.TableOptions{Table: "lost", Connect: func(ctx context.Context) (_ *pgconn.PgConn, err error) {
					conn, err = connect(ctx)
					return conn, err
				}})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				mustLand(t, r, documents("a")...)
				conn.Conn().Close()
				refuses(t, r, "land in table lost: ", documents("b")...)
				if got := mustLand(t, r, documents("b")...); got.Events != 1 {
					t.Errorf("got %+v", got)
				}
			})
		})
	}
}

// source is what a webhook source of Materialize does, and a network.
type source struct {
	t      *testing.T
	array  bool
	secret string
	limit  int // bytes of a body

	mu      sync.Mutex // guards what follows
	fail    func(w http.ResponseWriter, taken bool) bool
	rows    []string
	largest int // body
}

// setFail makes requests fail, before or after they are taken: fail answers, or
// returns false.
func (s *source) setFail(fail func(w http.ResponseWriter, taken bool) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method != http.MethodPost || r.URL.Path != "/api/webhook/materialize/public/events" {
		http.Error(w, "no source", http.StatusNotFound)
		return
	}
	if s.fail != nil && s.fail(w, false) {
		return
	}
	if s.limit > 0 && len(body) > s.limit {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	mac := hmac.New(sha256.New, []byte(s.secret))
	mac.Write(body)
	if s.secret != "" && r.Header.Get("x-signature") != base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		http.Error(w, "failed to validate the request", http.StatusBadRequest)
		return
	}
	rows, err := s.parse(body)
	if err != nil {
		http.Error(w, "failed to parse the body: "+err.Error(), http.StatusBadRequest)
		return
	}
	s.rows, s.largest = append(s.rows, rows...), max(s.largest, len(body))
	if s.fail != nil {
		s.fail(w, true)
	}
}

// parse returns the rows of a body: the values of an array, or all documents.
// Like Materialize's reader it takes no lone surrogates.
func (s *source) parse(body []byte) ([]string, error) {
	if bytes.Contains(body, []byte(`\ud800`)) {
		return nil, errors.New("unexpected end of hex escape")
	}
	var rows []string
	if s.array {
		var all []json.RawMessage
		if err := json.Unmarshal(body, &all); err != nil {
			return nil, err
		}
		for _, row := range all {
			rows = append(rows, string(row))
		}
		return rows, nil
	}
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		var row json.RawMessage
		if err := d.Decode(&row); errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return nil, err
		}
		rows = append(rows, string(row))
	}
}

// count returns how often each row is there.
func (s *source) count() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]int)
	for _, row := range s.rows {
		all[row]++
	}
	return all
}

// run serves the source and opens a landing in it.
func (s *source) run(t *testing.T, o ingest.WebhookOptions) *ingest.Remote {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	o.URL = srv.URL + "/api/webhook/materialize/public/events" + o.URL
	o.Array, o.Secret = s.array, s.secret
	r, err := ingest.OpenWebhook(filepath.Join(t.TempDir(), "x.cursor"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func answer(status int, headers ...string) func(http.ResponseWriter, bool) bool {
	return func(w http.ResponseWriter, taken bool) bool {
		if taken {
			return false
		}
		for pair := range slices.Chunk(headers, 2) {
			w.Header().Set(pair[0], pair[1])
		}
		w.WriteHeader(status)
		return true
	}
}

func TestWebhookSource(t *testing.T) {
	for _, array := range []bool{false, true} {
		t.Run(fmt.Sprintf("array=%t", array), func(t *testing.T) {
			s := &source{t: t, array: array, secret: "between the two of us"}
			r := s.run(t, ingest.WebhookOptions{URL: "?key=hunter2"})
			if got := mustLand(t, r, documents("a", "b", "a")...); got.Events != 2 || got.Duplicates != 1 {
				t.Errorf("got %+v", got)
			}
			bad := []core.Event{{Data: []byte("{")}, {Data: []byte("\"\xff\"")}, {Data: nil}}
			if got := mustLand(t, r, append(bad, document("c"), core.Event{Data: []byte("{\n \"x\": [1,\n2]}")})...); got.Events != 2 || got.Rejected["json"] != 3 {
				t.Errorf("got %+v", got)
			}
			if got, want := fmt.Sprintf("%q", s.rows), fmt.Sprintf("%q", []string{`{"id":"a"}`, `{"id":"b"}`, `{"id":"c"}`, "{\n \"x\": [1,\n2]}"}); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if got := r.Position(); got.Cursor != "after c" || strings.Contains(got.Target, "hunter2") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestWebhookSourceFails plays everything that a webhook source and the way to it
// can do.
func TestWebhookSourceFails(t *testing.T) {
	s := &source{t: t, secret: "between the two of us"}
	r := s.run(t, ingest.WebhookOptions{URL: "?key=hunter2", Headers: map[string]string{"Authorization": "Bearer hunter2"}})
	next := 0
	for _, tt := range []struct {
		name  string
		fail  func(w http.ResponseWriter, taken bool) bool
		want  string
		after time.Duration
		twice bool // it may be there already
	}{
		{"429", answer(429, "Retry-After", "9"), "429 Too Many Requests", 9 * time.Second, false},
		{"503", answer(503), "503 Service Unavailable", 0, false},
		{"500", answer(500), "500", 0, false},
		{"401", answer(401), "401", 0, false},
		{"404", answer(404), "is there a source of that name", 0, false},
		{"redirect", answer(302, "Location", "/"), "redirects are not followed", 0, false},
		{"wrong secret", func(w http.ResponseWriter, taken bool) bool {
			if !taken {
				http.Error(w, "failed to validate the request", 400)
			}
			return true
		}, "is the secret the same?", 0, false},
		{"refuses all", func(w http.ResponseWriter, taken bool) bool {
			if !taken {
				http.Error(w, "no", 400)
			}
			return true
		}, "400", 0, false},
		{"too large, all of it", answer(413), "413", 0, false},
		{"hung up", func(http.ResponseWriter, bool) bool { panic(http.ErrAbortHandler) }, "EOF", 0, false},
		{"hung up after", func(_ http.ResponseWriter, taken bool) bool {
			if taken {
				panic(http.ErrAbortHandler)
			}
			return false
		}, "EOF", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.setFail(tt.fail)
			all := numbered(next, 30)
			next += 30
			before := r.Position()
			err := refuses(t, r, tt.want, all...)
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("shows what is secret: %v", err)
			}
			if later, ok := errors.AsType[interface {
				error
				RetryAfter() time.Duration
			}](err); tt.after > 0 && (!ok || later.RetryAfter() != tt.after) {
				t.Errorf("does not say to come back after %s: %v", tt.after, err)
			}
			if got := r.Position(); got != before {
				t.Errorf("moved to %+v", got)
			}
			s.setFail(nil)
			if got := mustLand(t, r, all...); got.Events != 30 || got.Rejected != nil {
				t.Errorf("got %+v", got)
			}
			counts := s.count()
			for _, e := range all {
				if n := counts[string(e.Data)]; n != 1 && !(tt.twice && n == 2) {
					t.Errorf("%s is there %d times", e.Data, n)
				}
			}
		})
	}
}

// TestWebhookSourceHalves has a source that takes small bodies only, and one that
// does not take some of the events.
func TestWebhookSourceHalves(t *testing.T) {
	s := &source{t: t, limit: 300}
	r := s.run(t, ingest.WebhookOptions{})
	all := numbered(0, 100)
	all[40].Data = fmt.Appendf(nil, `{"id":"%s"}`, strings.Repeat("x", 400))
	all[7].Data = []byte(`{"id":"\ud800"}`)
	got := mustLand(t, r, all...)
	if got.Events != 98 || got.Rejected["too_large"] != 1 || got.Rejected["refused"] != 1 {
		t.Errorf("got %+v", got)
	}
	if len(s.count()) != 98 || len(s.rows) != 98 || s.largest > 300 {
		t.Errorf("%d rows, %d of them different, the largest body has %d bytes", len(s.rows), len(s.count()), s.largest)
	}
	if got := r.Position().Cursor; got != "after 99" {
		t.Errorf("got the cursor %s", got)
	}
}

// TestWebhookSourceByChance lands through a network and a source that fail at
// random: nothing is missing, and only what was taken without an answer is there
// twice.
func TestWebhookSourceByChance(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := &source{t: t, limit: 200 + r.IntN(2000), array: r.IntN(2) == 0}
		unanswered := 0
		s.fail = func(w http.ResponseWriter, taken bool) bool {
			switch {
			case taken && r.IntN(10) == 0:
				unanswered++
				panic(http.ErrAbortHandler)
			case !taken && r.IntN(4) == 0:
				return answer([]int{429, 500, 503}[r.IntN(3)])(w, false)
			}
			return false
		}
		to := s.run(t, ingest.WebhookOptions{})
		for at := 0; at < 300; {
			n := 1 + r.IntN(60)
			all := numbered(at, n)
			for tries := 0; ; tries++ {
				if _, err := to.Land(t.Context(), all); err == nil {
					break
				} else if tries == 100 {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			at += n
			if got, want := to.Position().Cursor, fmt.Sprintf("after %d", at-1); got != want {
				t.Fatalf("seed %d: the cursor is %s, want %s", seed, got, want)
			}
			counts := s.count()
			for i := range at {
				if counts[string(document(fmt.Sprint(i)).Data)] == 0 {
					t.Fatalf("seed %d: event %d is missing", seed, i)
				}
			}
			if len(s.rows) > at && unanswered == 0 {
				t.Fatalf("seed %d: %d rows of %d events, and every answer arrived", seed, len(s.rows), at)
			}
		}
	}
}
