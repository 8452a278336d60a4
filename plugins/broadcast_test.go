package plugins_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/plugins"
)

// broadcaster is an external websocket sink that serves logs.
type broadcaster struct {
	core.Broadcaster
	url string
}

func (b broadcaster) pid() int { return b.Broadcaster.(plugins.Supervised).Process().Pid }

func openBroadcaster(t *testing.T) broadcaster {
	t.Helper()
	// A port that nobody has, for the plugin to keep over a restart.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	c := command(t, "websocket")
	info := describe(t, c)
	if !info.Broadcasts || info.KeepsPositions {
		t.Fatalf("got %+v", info)
	}
	sink, err := c.Sink(info).Open(t.Context(), json.RawMessage(`{"listen":"`+address+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	})
	if got := sink.(interface{ Addr() net.Addr }).Addr().String(); got != address {
		t.Fatalf("listens on %s, want %s", got, address)
	}
	return broadcaster{sink.(core.Broadcaster), "http://" + address}
}

// serve serves the logs until the test ends or the plugin does.
func (b broadcaster) serve(t *testing.T, logs ...core.Reader) (ended <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- b.Serve(ctx, logs) }()
	done := make(chan error, 1)
	go func() { done <- <-end }()
	t.Cleanup(cancel)
	return done
}

type message struct {
	Type, View, Token, From, Timestamp, Checksum, Code string
	Inserted, Deleted                                  [][]any
}

// stream follows a view as JSON lines.
func (b broadcaster) stream(t *testing.T, query string) func() message {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Get(b.url + "/api/stream" + query)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close(); client.CloseIdleConnections() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	return func() message {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("stream %s ended: %v", query, lines.Err())
		}
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		return m
	}
}

func newLog(t *testing.T, name string, upper core.Time, rows ...string) *viewlog.Log {
	t.Helper()
	l := viewlog.New(name, viewlog.Options{})
	s := l.Snapshot()
	for _, r := range rows {
		s.Add([]byte(r), 1)
	}
	view := &core.View{Name: name, Columns: []core.Column{{Name: "n", Type: "int8"}}}
	if err := l.Reset(view, "", upper, s); err != nil {
		t.Fatal(err)
	}
	return l
}

func add(t *testing.T, l *viewlog.Log, upper core.Time, rows ...string) {
	t.Helper()
	var updates []core.Update
	for _, r := range rows {
		updates = append(updates, core.Update{Time: upper - 1, Diff: 1, Row: core.Row(r)})
	}
	at, _ := l.Frontier()
	if err := l.Append(at.Time, upper, updates); err != nil {
		t.Fatal(err)
	}
}

func TestBroadcaster(t *testing.T) {
	t.Parallel()
	b := openBroadcaster(t)
	v, w := newLog(t, "v", 10, "[1]", "[2]"), newLog(t, "w", 15, "[7]")
	ended := b.serve(t, v, w)

	next := b.stream(t, "/v")
	base := next()
	upper, _ := v.Frontier()
	if base.Type != "base" || len(base.Inserted) != 2 || base.Token != upper.String() {
		t.Fatalf("got %+v, want a base of 2 rows at %s", base, upper)
	}
	add(t, v, 20, "[3]")
	last := base.Token
	for m := next(); ; m = next() { // progress to 15, where the other view ends, may come first
		if m.Type != "progress" {
			if m.Type != "delta" || m.From != last || len(m.Inserted) != 1 || m.Timestamp != "20" || m.Checksum == "" {
				t.Fatalf("got %+v, want a delta from %s to 20", m, last)
			}
			break
		}
		last = m.Token
	}
	add(t, v, 30) // time goes on
	for m := next(); m.Timestamp != "30"; m = next() {
	}

	// The process dies. A stream that comes back is given what it does not have.
	upper, _ = v.Frontier()
	if err := syscall.Kill(b.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Fatalf("Serve ended with %v, want signal: killed", err)
	}
	ended = b.serve(t, v, w)
	resumed := b.waitStream(t, "/v?since="+upper.String())
	add(t, v, 40, "[4]")
	for m := resumed(); m.Type != "delta"; m = resumed() {
		if m.Type == "base" {
			t.Fatalf("got a base, although the copy begins at %s", upper)
		}
	}
}

// TestBroadcasterSaysGoodbye stops mzd while a client has yet to read most of a view: it
// gets the rest of the message that was begun, and is told that this is the end.
func TestBroadcasterSaysGoodbye(t *testing.T) {
	t.Parallel()
	b := openBroadcaster(t)
	var rows []string
	for i := range 4 { // each a message, more than sockets hold
		rows = append(rows, fmt.Sprintf(`["%d%s"]`, i, strings.Repeat("x", 3<<20)))
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Serve(ctx, []core.Reader{newLog(t, "v", 10, rows...)}) }()
	next := b.waitStream(t, "/v")
	m := next()
	for m.Type != "base" { // the view has not come yet
		m = next()
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	for m.Type == "base" {
		m = next()
	}
	if m.Type != "error" || m.Code != "stopping" {
		t.Errorf("got %+v, want that it is stopping", m)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// waitStream is stream for a plugin that is being started.
func (b broadcaster) waitStream(t *testing.T, query string) func() message {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		<-tick.C
		if conn, err := net.Dial("tcp", b.url[len("http://"):]); err == nil {
			conn.Close()
			return b.stream(t, query)
		}
	}
	t.Fatal("the plugin does not listen")
	return nil
}

// TestBroadcasterAlignsViews lets the times of two views interleave, so that
// neither ever ends where the other does.
func TestBroadcasterAlignsViews(t *testing.T) {
	t.Parallel()
	b := openBroadcaster(t)
	v, w := newLog(t, "v", 1000), newLog(t, "w", 1005)
	b.serve(t, v, w)
	next := b.stream(t, "?view=v&view=w")
	last := core.Time(0)
	for i := core.Time(1); last < 1200; i++ {
		add(t, v, 1000+10*i, fmt.Sprint("[", i, "]"))
		add(t, w, 1005+10*i)
		if i < 5 {
			continue // it need not have begun
		}
		m := next()
		at, err := core.ParseTime(m.Timestamp)
		if err != nil && m.Type != "error" {
			t.Fatalf("%+v: %v", m, err)
		}
		last = max(last, at)
	}
}
