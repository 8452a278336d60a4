package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
)

// TestCrash kills the daemon, the engine, or both, again and again, at moments
// that follow from the seed: inside of writes of a sink, while a log is written
// anew, after a number of messages to a client, while it resumes. Two sinks that
// note every write, one with its views apart and one with them together, and
// clients that hold tokens must go on where they were, each time, and end equal
// to the views.
func TestCrash(t *testing.T) {
	points := 10
	if *soak {
		points = 200
	}
	for _, victim := range []string{"daemon", "engine", "both"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			c := newCrash(t, time.Minute+time.Duration(points)*15*time.Second)
			c.run(victim, points)
		})
	}
}

// crash is a pipeline whose engine is a process of its own.
type crash struct {
	t       *testing.T
	ctx     context.Context
	r       *rand.Rand
	d       *daemon // mzd
	e       *daemon // the engine
	clients []*crashClient

	kills    int            // of the daemon
	rewrites map[string]int // logs that were being rewritten then, by how far they were

	mu       sync.Mutex // guards what follows
	up       chan struct{}
	messages int
	waiting  map[int]chan struct{} // by number of messages
	events   *os.File
	users    map[string]int // what the views are of: edits by user
	total    int            // all edits
	done     bool           // there will be no more
}

const crashSQL = `
CREATE SOURCE IF NOT EXISTS lines FROM FILE 'events' WITH (tail = true) FORMAT TEXT;
CREATE MATERIALIZED VIEW IF NOT EXISTS counter AS SELECT count(*) FROM lines;
CREATE MATERIALIZED VIEW IF NOT EXISTS users AS SELECT text AS user, count(*) AS edits FROM lines GROUP BY text;
`

func newCrash(t *testing.T, limit time.Duration) *crash {
	dir := t.TempDir()
	c := &crash{
		t: t, ctx: deadline(t, limit), r: rand.New(rand.NewPCG(*seed, 0)),
		d:        &daemon{t: t, dir: dir, web: freePort(t), sql: freePort(t)},
		e:        &daemon{t: t, dir: dir},
		up:       make(chan struct{}),
		waiting:  make(map[int]chan struct{}),
		users:    make(map[string]int),
		rewrites: make(map[string]int),
	}
	c.d.write("init.sql", crashSQL)
	var err error
	if c.events, err = os.OpenFile(filepath.Join(dir, "events"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.events.Close() })
	return c
}

func (c *crash) run(victim string, points int) {
	c.startEngine()
	var wg sync.WaitGroup
	for _, transport := range []string{"websocket", "ndjson"} {
		client := &crashClient{crash: c, transport: transport, mirror: newMirror("counter", "users")}
		c.clients = append(c.clients, client)
		client.mirror.mayStop = true // while the engine is away, and does not come back at once
		wg.Go(client.run)
	}
	for range points {
		c.point(victim)
	}
	// In the end everybody gets everything.
	c.write(0, "before", 0)
	c.startDaemon()
	c.mu.Lock()
	c.done = true
	c.mu.Unlock()
	wg.Wait()
	for _, name := range []string{"apart", "together"} {
		c.finish(name)
	}
	c.d.stop()
	c.e.stop()
	c.t.Logf("%d kills of mzd; logs that were being rewritten then: %v", c.kills, c.rewrites)
	if len(c.rewrites) == 0 {
		c.t.Errorf("seed %d: no kill fell inside of a rewrite", *seed)
	}
	for _, client := range c.clients {
		c.t.Logf("%s: %d connections, %d bases, %d deltas", client.transport, client.connections, client.mirror.bases, client.mirror.deltas)
	}
}

// finish waits until a sink has everything.
func (c *crash) finish(name string) {
	var a *audit
	err := follow(c.ctx, "ndjson", c.d.web, []string{"counter"}, "", "", func([]byte) bool { // progress is a clock
		a = c.audit(name)
		return !c.complete(a.text("counter"), a.text("users"))
	})
	if err != nil {
		c.t.Errorf("seed %d: sink %s does not get everything: %v\n%s", *seed, name, err, c.d.log)
	}
	c.t.Logf("%s: %d writes, %d refused, %d again after a crash, %d bases", name, a.writes, a.refused, a.again, a.bases)
}

// point runs the daemon up to its end at one more moment.
func (c *crash) point(victim string) {
	kill, when, rewrite := 0, []string{"before", "written", "synced"}[c.r.IntN(3)], 0
	how := c.r.IntN(6)
	switch how {
	case 0:
		kill = 1 + c.r.IntN(12)
	case 3, 4:
		rewrite = 1 + c.r.IntN(15)
	}
	alone := kill == 0 && rewrite == 0 // it does not kill itself
	c.write(kill, when, rewrite)
	c.startDaemon()
	messages := c.after(1 + c.r.IntN(40))
	switch {
	case how == 1: // while it resumes
		messages = c.d.log.contains(`"msg":"view is complete","view":"users"`)
	case how == 2 && victim == "daemon" && c.r.IntN(3) == 0:
		c.wait(messages)
		c.d.stop() // in order, for once
		return
	}
	if alone || victim == "engine" {
		c.wait(messages)
	}
	if victim == "engine" {
		c.e.kill()
		c.startEngine()
		c.wait(c.after(1 + c.r.IntN(10)))
		if alone {
			c.d.stop()
			return
		}
	}
	if alone {
		c.d.kill()
	} else {
		select {
		case <-c.d.ended: // it killed itself
		case <-c.ctx.Done():
			c.t.Fatalf("seed %d: mzd did not reach write %d, or operation %d of a rewrite\n%s", *seed, kill, rewrite, c.d.log)
		}
	}
	c.kills++
	for _, view := range []string{"counter", "users"} {
		if where := rewriting(c.t, filepath.Join(c.d.dir, "data", "views", view)); where != "" {
			c.rewrites[where]++
		}
	}
	if victim == "both" {
		c.e.kill()
		c.startEngine()
	}
}

// rewriting tells from the files of a log how far a rewrite was when its process
// died; empty: there was none.
func rewriting(t *testing.T, dir string) string {
	t.Helper()
	var manifest struct{ Segments []struct{ Number int } }
	text, err := os.ReadFile(filepath.Join(dir, "manifest"))
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(text)).Decode(&manifest)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	last := 0
	for _, s := range manifest.Segments {
		last = max(last, s.Number)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	where := ""
	for _, e := range entries {
		var number int
		switch fmt.Sscanf(e.Name(), "%d.log", &number); {
		case e.Name() == "manifest.tmp":
			return "at the manifest"
		case number > last:
			where = "at the new segment"
		case number > 0 && number < last && len(manifest.Segments) == 1:
			where = "before the old one was removed"
		}
	}
	return where
}

func (c *crash) wait(what <-chan struct{}) {
	c.t.Helper()
	select {
	case <-what:
	case err := <-c.d.ended:
		c.d.ended <- err
	case <-c.ctx.Done():
		c.t.Fatalf("seed %d: nothing happens any more\n%s\n%s", *seed, c.d.log, c.e.log)
	}
}

func (c *crash) startEngine() {
	c.e.launch(io.Discard, "init is done", "mzd", "engine", "-listen", c.d.sql, "-data-dir", "engine", "-init", "init.sql")
}

func (c *crash) startDaemon() {
	c.d.launch(io.Discard, "mzd is running", "mzd-recording", "-config", "pipeline.yaml")
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.up)
	c.up = make(chan struct{})
}

// write writes the configuration; one of the sinks kills mzd at a write, or at
// an operation of a rewrite; 0: not.
func (c *crash) write(kill int, when string, rewrite int) {
	kills := []int{kill, 0}
	c.r.Shuffle(2, func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })
	c.d.write("pipeline.yaml", fmt.Sprintf(`
name: test
data_dir: data
materialize: {url: "postgres://mzd@%s/materialize?sslmode=disable"}
views: {counter: {}, users: {key: [user]}}
retain: 1s
sinks:
  web: {plugin: websocket, settings: {listen: %q}}
  apart: {plugin: recorder, settings: {file: apart, refuse: 5, kill: %d, when: %s, rewrite: %d}}
  together: {plugin: recorder, cut: together, settings: {file: together, refuse: 7, kill: %d, when: %s}}
admin: {listen: ""}
log: {format: json}
`, c.d.sql, c.d.web, kills[0], when, rewrite, kills[1], when))
}

// after returns a channel that is closed after n more messages to clients.
func (c *crash) after(n int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[c.messages+n]
	if w == nil {
		w = make(chan struct{})
		c.waiting[c.messages+n] = w
	}
	return w
}

// message notes that a client got a message, and lets more happen.
func (c *crash) message() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.messages++
	if w := c.waiting[c.messages]; w != nil {
		close(w)
		delete(c.waiting, c.messages)
	}
	if c.done {
		return
	}
	var text strings.Builder
	for range 1 + c.messages%5 {
		user := fmt.Sprintf("user%d", (c.messages*7+c.total*13)%50)
		c.users[user]++
		c.total++
		fmt.Fprintln(&text, user)
	}
	if _, err := c.events.WriteString(text.String()); err != nil {
		c.t.Error(err)
	}
}

func (c *crash) usersText() string {
	rows := make(map[string]int)
	for user, n := range c.users {
		rows[fmt.Sprintf(`[%q,%d]`, user, n)] = 1
	}
	return multisetText(rows)
}

// crashClient follows both views over all crashes, with its token.
type crashClient struct {
	*crash
	transport   string
	mirror      *mirror
	connections int
}

func (c *crashClient) run() {
	for {
		c.mu.Lock()
		up := c.up
		c.mu.Unlock()
		c.connections++
		c.mirror.parts = false
		follow(c.ctx, c.transport, c.d.web, c.mirror.views, c.mirror.token, "", func(data []byte) bool {
			complete, err := c.mirror.apply(data)
			if err != nil {
				c.t.Errorf("seed %d: %s: %v", *seed, c.transport, err)
				return false
			}
			if complete {
				c.message()
			}
			return !c.ended()
		})
		if c.ended() || c.t.Failed() {
			return
		}
		select {
		case <-up:
		case <-c.ctx.Done():
			return
		}
	}
}

// ended reports whether the client has everything there will ever be.
func (c *crashClient) ended() bool {
	c.mu.Lock()
	done := c.done
	c.mu.Unlock()
	return done && !c.mirror.parts && c.complete(c.mirror.text("counter"), c.mirror.text("users"))
}

// complete reports whether that is all there is in the views.
func (c *crash) complete(counter, users string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := make(map[string]int)
	for user, n := range c.users {
		rows[fmt.Sprintf(`[%q,%d]`, user, n)] = 1
	}
	return counter == fmt.Sprintf("[%d]", c.total) && users == multisetText(rows)
}

// noted is a write that a sink has noted.
type noted struct {
	PID   int
	Taken bool
	Cut   []struct {
		View, Lower, Upper string
		Updates            []core.Update
	}
}

// audit is what follows from the writes of one sink.
type audit struct {
	rows                          map[string]map[string]int // by view
	at                            map[string]string         // token by view
	writes, refused, again, bases int
}

func (a *audit) text(view string) string { return multisetText(a.rows[view]) }

// audit reads what a sink has noted, without a line that was cut off, and
// checks each write: it continues what was taken, an attempt that was not taken
// comes again as it was, and one that was taken only in another process, which
// did not know.
func (c *crash) audit(name string) *audit {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(c.d.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	a := &audit{rows: map[string]map[string]int{"counter": {}, "users": {}}, at: make(map[string]string)}
	type group struct {
		pending, taken string
		pid            int
	}
	groups := make(map[string]*group)
	for line := range bytes.Lines(data) {
		var w noted
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		if err := json.Unmarshal(line, &w); err != nil {
			c.t.Fatalf("%s: %v in %.200s", name, err, line)
		}
		a.writes++
		wrong := func(what string) {
			c.t.Helper()
			c.t.Fatalf("seed %d: sink %s, write %d: %s: %.2000s", *seed, name, a.writes, what, line)
		}
		g := groups[w.Cut[0].View]
		if g == nil {
			g = &group{}
			groups[w.Cut[0].View] = g
		}
		text := fmt.Sprint(w.Cut)
		if g.pending != "" && text != g.pending {
			wrong("the attempt has changed from " + g.pending)
		}
		g.pending = ""
		if !w.Taken {
			a.refused++
			g.pending = text
		}
		if text == g.taken {
			if a.again++; w.PID == g.pid {
				wrong("it was taken already")
			}
			continue
		}
		for _, b := range w.Cut {
			if b.Lower != a.at[b.View] {
				wrong(fmt.Sprintf("%s goes on at %q, not at %q", b.View, b.Lower, a.at[b.View]))
			}
		}
		if !w.Taken {
			continue
		}
		g.taken, g.pid = text, w.PID
		for _, b := range w.Cut {
			if b.Lower == "" {
				a.bases++
			}
			a.at[b.View] = b.Upper
			for _, u := range b.Updates {
				row := string(u.Row)
				if a.rows[b.View][row] += int(u.Diff); a.rows[b.View][row] == 0 {
					delete(a.rows[b.View], row)
				}
			}
		}
		if len(w.Cut) == 2 && !a.agree() {
			wrong(fmt.Sprintf("the views of one cut disagree: %v", a.rows))
		}
	}
	return a
}

// agree reports whether the views, at one time, count the same edits.
func (a *audit) agree() bool {
	counted, sum := 0, 0
	for row := range a.rows["counter"] {
		fmt.Sscanf(row, "[%d]", &counted)
	}
	for row, n := range a.rows["users"] {
		var edits int
		fmt.Sscanf(row[strings.LastIndexByte(row, ',')+1:], "%d]", &edits)
		sum += n * edits
	}
	return counted == sum
}
