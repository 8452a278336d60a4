package main_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// daemon is a running mzd, the real binary in a process of its own.
type daemon struct {
	t               testing.TB
	cmd             *exec.Cmd
	attr            *syscall.SysProcAttr // nil: as the tests run
	stdin           *os.File             // nil: none
	dir             string
	web, admin, sql string // addresses
	log             *logBuffer
	ended           chan error
}

// logBuffer keeps what a process logs, and wakes whoever waits for a text.
type logBuffer struct {
	mu      sync.Mutex
	text    bytes.Buffer
	waiting map[string]chan struct{}
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	for s, c := range l.waiting {
		if strings.Contains(l.text.String(), s) {
			close(c)
			delete(l.waiting, s)
		}
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// contains returns a channel that is closed when the text is there.
func (l *logBuffer) contains(s string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan struct{})
	if strings.Contains(l.text.String(), s) {
		close(c)
		return c
	}
	if l.waiting == nil {
		l.waiting = make(map[string]chan struct{})
	}
	l.waiting[s] = c
	return c
}

// freePort returns an address on which nobody listens now.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pipeline describes the pipeline.yaml of a test.
type pipeline struct {
	stream string // URL of the event stream; empty: no source
	format string // of what lands; empty: json
	to     string // YAML; empty: a file
	init   string // SQL; empty: the demo's
	views  string // YAML; empty: counter, top10 and useredits
	sinks  string // YAML, beside the websocket
}

// newDaemon writes a pipeline into a new directory. It does not start it.
func newDaemon(t testing.TB, p pipeline) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir(), web: freePort(t), admin: freePort(t), sql: freePort(t)}
	if p.init == "" {
		p.init = readFile(t, "../../sql/wikipedia.sql")
	}
	if p.views == "" {
		p.views = "{counter: {}, top10: {key: [user]}, useredits: {key: [user]}}"
	}
	d.write("init.sql", p.init)
	sources := ""
	if p.stream != "" {
		sources = fmt.Sprintf(`
sources:
  wikipedia:
    plugin: wikimedia
    settings: {url: %q, since: "0", format: %s}
    to: %s`, p.stream, cmp.Or(p.format, "json"), cmp.Or(p.to, "{file: data/recentchanges}"))
	}
	d.write("pipeline.yaml", fmt.Sprintf(`
name: test
data_dir: data
materialize: {url: embedded, init: init.sql}
engine: {listen: %q}
views: %s
sinks:
  web: {plugin: websocket, settings: {listen: %q}}%s
admin: {listen: %q}
log: {format: json}%s
`, d.sql, p.views, d.web, p.sinks, d.admin, sources))
	return d
}

func (d *daemon) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// start runs the pipeline until stop, at the latest until the test ends.
func (d *daemon) start() {
	d.t.Helper()
	d.startTo(io.Discard, "-config", "pipeline.yaml")
}

// startTo runs any command line of mzd and returns when it is running.
func (d *daemon) startTo(stdout io.Writer, args ...string) {
	d.t.Helper()
	d.launch(stdout, "mzd is running", "mzd", args...)
}

// launch runs a command and returns when it has logged the text.
func (d *daemon) launch(stdout io.Writer, text, command string, args ...string) {
	d.t.Helper()
	d.cmd = exec.Command(command, args...)
	d.log = &logBuffer{}
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr, d.cmd.SysProcAttr = d.dir, stdout, d.log, d.attr
	if d.stdin != nil {
		d.cmd.Stdin = d.stdin
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(d.cmd, d.ended)
	d.t.Cleanup(func() { d.cmd.Process.Kill() })
	select {
	case <-d.log.contains(text):
	case err := <-d.ended:
		d.t.Fatalf("%s ended: %v\n%s", command, err, d.log)
	}
}

// kill ends the process as nothing else does, and waits for it.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.ended
}

// stop ends the daemon as an operator would and waits for it.
func (d *daemon) stop() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		d.t.Fatal(err)
	}
	if err := <-d.ended; err != nil {
		d.t.Fatalf("mzd ended with %v\n%s", err, d.log)
	}
}

// get returns the body of a successful answer.
func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("GET %s: %s, %v\n%s", url, res.Status, err, body)
	}
	return string(body)
}

// serve serves a handler on loopback until the test ends.
func serve(t testing.TB, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL + "/v2/stream"
}

// serveAt is serve at an address that was free a moment ago.
func serveAt(t *testing.T, address string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
}

// history is everything that happened to a view, as the engine tells it to a
// client of its own: the oracle for what any other client may see, and when.
type history struct {
	mu       sync.Mutex
	times    []uint64 // at which the view changed, ascending
	states   []string // the view from then on, as multisetText
	rows     map[string]int
	begin    uint64 // the first frontier: what was before is not known
	frontier uint64
	moved    chan struct{}
}

// record follows a view over the engine's port until the test ends.
func (d *daemon) record(view string) *history {
	t := d.t
	t.Helper()
	<-d.log.contains(fmt.Sprintf(`"msg":"view is complete","view":%q`, view))
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://materialize@%s/materialize?default_query_exec_mode=simple_protocol", d.sql))
	if err != nil {
		t.Fatal(err)
	}
	h := &history{rows: make(map[string]int), moved: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- h.run(ctx, conn, view) }()
	t.Cleanup(func() {
		cancel()
		var ended *pgconn.PgError
		if err := <-done; !errors.Is(err, context.Canceled) && !(errors.As(err, &ended) && ended.Code == "57P01") {
			t.Errorf("recording of %s ended with %v", view, err)
		}
	})
	return h
}

func (h *history) run(ctx context.Context, conn *pgx.Conn, view string) error {
	defer conn.Close(context.Background())
	rows, err := conn.Query(ctx, "SUBSCRIBE TO "+view+" WITH (PROGRESS)")
	if err != nil {
		return err
	}
	defer rows.Close()
	var pending uint64
	changed := false
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		var time uint64
		if err := scanNumber(values[0], &time); err != nil {
			return err
		}
		if values[1].(bool) {
			h.close(time, pending, changed)
			changed = false
			continue
		}
		if changed && time != pending {
			h.close(0, pending, true)
		}
		pending, changed = time, true
		row, err := json.Marshal(values[3:])
		if err != nil {
			return err
		}
		if h.rows[string(row)] += int(values[2].(int64)); h.rows[string(row)] == 0 {
			delete(h.rows, string(row))
		}
	}
	if err := rows.Err(); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return errors.Join(errors.New("the stream ended"), ctx.Err())
}

// scanNumber reads a numeric that holds a timestamp.
func scanNumber(v any, into *uint64) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(bytes.Trim(text, `"`), into)
}

// close notes that all changes at a time are known, and the frontier if it
// moved.
func (h *history) close(frontier, at uint64, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if changed {
		h.times = append(h.times, at)
		h.states = append(h.states, multisetText(h.rows))
	}
	if frontier > 0 {
		h.begin = cmp.Or(h.begin, frontier)
		h.frontier = frontier
		close(h.moved)
		h.moved = make(chan struct{})
	}
}

// at returns the view as of everything below t, once that is known.
func (h *history) at(ctx context.Context, t uint64) (string, error) {
	for {
		h.mu.Lock()
		begin, frontier, moved := h.begin, h.frontier, h.moved
		i := sort.Search(len(h.times), func(i int) bool { return h.times[i] >= t }) - 1
		var state string
		if i >= 0 {
			state = h.states[i]
		}
		h.mu.Unlock()
		switch {
		case frontier > 0 && t <= begin:
			return "", fmt.Errorf("asked for %d; the recording begins at %d", t, begin)
		case frontier >= t:
			return state, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// begun waits until the recording has begun and returns the first time for which
// it can answer.
func (h *history) begun(ctx context.Context) (uint64, error) {
	for {
		h.mu.Lock()
		begin, moved := h.begin, h.moved
		h.mu.Unlock()
		if begin > 0 {
			return begin + 1, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// pass waits until so many changes have happened, or nothing is left to wait for.
func (h *history) pass(ctx context.Context, changes int, over func() bool) error {
	for until := -1; ; {
		h.mu.Lock()
		n, moved := len(h.times), h.moved
		h.mu.Unlock()
		if until < 0 {
			until = n + changes
		}
		if n >= until || over() {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// until waits for a state of the view and returns the time from which it is
// complete.
func (h *history) until(ctx context.Context, is func(state string) bool) (uint64, error) {
	for {
		h.mu.Lock()
		moved := h.moved
		if n := len(h.states); n > 0 && is(h.states[n-1]) {
			t := h.times[n-1] + 1
			h.mu.Unlock()
			return t, nil
		}
		h.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// canonical re-encodes the rows of a mirror as the oracle's are, so that equal
// rows have equal text.
func canonical(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		var row []any
		d := json.NewDecoder(strings.NewReader(l))
		d.UseNumber()
		if d.Decode(&row) == nil {
			b, _ := json.Marshal(row)
			lines[i] = string(b)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// readLines reads the recorded events, or skips the test where there are none.
func recordedEvents(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../../shared/data/wikimedia", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("no recorded events on this machine")
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// deadline bounds a whole test, so that one that waits for what never comes
// says so.
func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
