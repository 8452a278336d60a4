//go:build unix

package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mzdio/mzd/core/pgtest"
)

// TestPostgresMirror runs the example that mirrors views as tables, as a process
// of its own, and kills it, or mzd, at moments that follow from the seed: before
// or after one of the messages to PostgreSQL. Each time the tables must be at
// one cut, the one that the positions name; in the end they equal the views.
func TestPostgresMirror(t *testing.T) {
	points := 20
	if *soak {
		points = 200
	}
	binary := buildExample(t, "postgres-mirror", "mzd-sink-postgres-mirror")
	for _, victim := range []string{"plugin", "daemon"} {
		t.Run(victim, func(t *testing.T) {
			ctx := deadline(t, time.Minute+time.Duration(points)*10*time.Second)
			m := newTableMirror(t, ctx, binary)
			m.d.start()
			for range points {
				due := m.tap.arm(1 + m.r.IntN(40))
				select {
				case <-due:
				case <-ctx.Done():
					t.Fatalf("seed %d: nothing is written any more\n%s", *seed, m.d.log)
				}
				if victim == "daemon" {
					m.d.kill()
					m.tap.release()
					m.d.start()
				} else {
					m.killPlugin()
					m.tap.release()
				}
				m.check()
			}
			m.finish()
			m.d.stop()
			t.Logf("%d kills, %d of them before the message; %d positions were resumed from", points, m.tap.before, m.resumed)
		})
	}
}

// buildExample builds one of the examples, each of which is a module of its own.
func buildExample(t *testing.T, example, name string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = filepath.Join("../../examples", example)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", example, err, out)
	}
	return binary
}

// tableMirror is a pipeline with two views as tables.
type tableMirror struct {
	t   *testing.T
	ctx context.Context
	r   *rand.Rand
	d   *daemon
	tap *tap
	db  *pgx.Conn // which does not pass the tap

	binary string
	last   uint64 // the time that the tables were at

	resumed int // deltas that began at the position of the tables

	mu     sync.Mutex // guards what follows
	events *os.File
	users  map[string]int
	total  int
	done   bool
}

func newTableMirror(t *testing.T, ctx context.Context, binary string) *tableMirror {
	dsn := pgtest.Start(t)
	m := &tableMirror{t: t, ctx: ctx, r: rand.New(rand.NewPCG(*seed, 0)), binary: binary, users: make(map[string]int)}
	var err error
	if m.db, err = pgx.Connect(ctx, dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.db.Close(context.Background()) })
	m.tap = newTap(t, filepath.Join(m.db.Config().Host, ".s.PGSQL.5432"), m.r, m.edit)
	m.d = newDaemon(t, pipeline{
		init:  crashSQL,
		views: "{counter: {}, users: {key: [user]}}",
		sinks: fmt.Sprintf(`
  tables:
    plugin: %s
    cut: together
    settings: {url: "postgres://mzd@%s/postgres?sslmode=disable"}`, binary, m.tap.address),
	})
	if m.events, err = os.OpenFile(filepath.Join(m.d.dir, "events"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.events.Close() })
	m.edit()
	return m
}

// edit appends some edits to the file that the views are of.
func (m *tableMirror) edit() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done {
		return
	}
	var text strings.Builder
	for range 1 + m.total%4 {
		user := fmt.Sprintf("user%d", m.total*13%50)
		m.users[user]++
		m.total++
		fmt.Fprintln(&text, user)
	}
	if _, err := m.events.WriteString(text.String()); err != nil {
		m.t.Error(err)
	}
}

// killPlugin kills the process of the sink with SIGKILL, also one that is not open
// yet, of which mzd does not tell. What made it due may have been the last words of
// the process before; then there may be none for a moment.
func (m *tableMirror) killPlugin() {
	m.t.Helper()
	for m.ctx.Err() == nil {
		err := exec.Command("pkill", "-KILL", "-f", "^"+m.binary).Run()
		if err == nil {
			return
		}
		if none, ok := errors.AsType[*exec.ExitError](err); !ok || none.ExitCode() != 1 {
			m.t.Fatal(err)
		}
	}
	m.t.Fatalf("seed %d: the sink has no process\n%s", *seed, m.d.log)
}

// check holds the tables of one moment against each other, and, with what has
// happened since the position that they name, against the checksums of the views.
func (m *tableMirror) check() {
	m.t.Helper()
	held := m.tables()
	if held == nil {
		return // killed before the first cut
	}
	if held.timestamp < m.last {
		m.t.Fatalf("seed %d: the tables went back from %d to %d", *seed, m.last, held.timestamp)
	}
	m.last = held.timestamp
	m.agree(held)
	err := follow(m.ctx, "ndjson", m.d.web, held.views, held.token, "", func(data []byte) bool {
		if _, err := held.apply(data); err != nil {
			m.t.Fatalf("seed %d: %v", *seed, err)
		}
		return held.timestamp <= m.last
	})
	if err != nil {
		m.t.Fatalf("seed %d: resume at %s: %v", *seed, held.token, err)
	}
	m.resumed += held.deltas
	m.agree(held)
}

// agree reports if the views, which count the same edits, do not agree.
func (m *tableMirror) agree(state *mirror) {
	m.t.Helper()
	a := audit{rows: state.rows}
	if !a.agree() {
		m.t.Fatalf("seed %d: the tables disagree at %s:\n%s\n%s", *seed, state.token, state.text("counter"), state.text("users"))
	}
}

// tables reads the tables and their position in one transaction, nil: there are
// none yet.
func (m *tableMirror) tables() *mirror {
	m.t.Helper()
	held := newMirror("counter", "users")
	held.rows, held.sums = make(map[string]map[string]int), make(map[string]uint64)
	err := pgx.BeginTxFunc(m.ctx, m.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(m.ctx, `SELECT to_regclass('mzd.users') IS NOT NULL`).Scan(&exists); err != nil || !exists {
			held = nil
			return err
		}
		for _, view := range held.views {
			rows, err := tx.Query(m.ctx, `SELECT to_jsonb(t) - 'mzd_row' FROM mzd.`+view+` t`)
			if err != nil {
				return err
			}
			held.rows[view] = make(map[string]int)
			var row struct {
				User         string
				Edits, Count int
			}
			if _, err := pgx.ForEachRow(rows, []any{&row}, func() error {
				text := fmt.Sprintf("[%d]", row.Count)
				if view == "users" {
					text = fmt.Sprintf("[%q,%d]", row.User, row.Edits)
				}
				held.rows[view][text]++
				held.sums[view] += held.hash(view, []byte(text))
				return nil
			}); err != nil {
				return err
			}
			var token string
			if err := tx.QueryRow(m.ctx, `SELECT token FROM mzd.mzd_positions WHERE view = $1`, view).Scan(&token); err != nil {
				return err
			}
			timestamp, generation, _ := strings.Cut(token, "-")
			if held.token == "" {
				held.token = token
			} else if common, ok := strings.CutPrefix(held.token, timestamp+"-"); ok {
				held.token = timestamp + "-" + common + "." + generation
			} else {
				return fmt.Errorf("the tables are at %s and at %s", held.token, token)
			}
			held.timestamp, err = strconv.ParseUint(timestamp, 10, 64)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatalf("seed %d: %v", *seed, err)
	}
	return held
}

// finish waits until the tables have everything.
func (m *tableMirror) finish() {
	m.t.Helper()
	m.mu.Lock()
	m.done = true
	var users []string
	for user, n := range m.users {
		users = append(users, fmt.Sprintf("[%q,%d]", user, n))
	}
	slices.Sort(users)
	m.mu.Unlock()
	var held *mirror
	err := follow(m.ctx, "ndjson", m.d.web, []string{"counter"}, "", "", func([]byte) bool { // progress is a clock
		held = m.tables()
		return held == nil || held.text("counter") != fmt.Sprintf("[%d]", m.total) || held.text("users") != strings.Join(users, "\n")
	})
	if err != nil {
		m.t.Fatalf("seed %d: the tables do not get everything: %v\n%v\n%s", *seed, err, held, m.d.log)
	}
}

// tap stands between the sink and PostgreSQL, and can be told to stop there
// before or after one of the messages to PostgreSQL.
type tap struct {
	t       *testing.T
	address string
	socket  string // of PostgreSQL
	seen    func() // is called for each message

	mu       sync.Mutex // guards what follows
	r        *rand.Rand
	left     int           // messages to the one at which it stops; 0: it does not
	due      chan struct{} // closed then
	released chan struct{} // closed when it goes on
	release  func()        // does that
	before   int           // how often it stopped before the message
}

func newTap(t *testing.T, socket string, r *rand.Rand, seen func()) *tap {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{t: t, address: l.Addr().String(), socket: socket, seen: seen, r: r, release: func() {}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); p.release(); wg.Wait() })
	return p
}

// arm makes it stop at the nth message from now on.
func (p *tap) arm(n int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	released := make(chan struct{})
	p.left, p.due, p.released, p.release = n, make(chan struct{}), released, sync.OnceFunc(func() { close(released) })
	return p.due
}

func (p *tap) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", p.socket)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer server.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		io.Copy(client, server)
		client.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			server.Close()
			return
		}
		p.seen()
		if !p.pass(server, buf[:n]) {
			server.Close()
			return
		}
	}
}

// pass passes a message on, unless the sender is to die before.
func (p *tap) pass(server net.Conn, message []byte) bool {
	p.mu.Lock()
	stop := p.left == 1
	if p.left > 0 {
		p.left--
	}
	before := stop && p.r.IntN(2) == 0
	if before {
		p.before++
	}
	due, released := p.due, p.released
	p.mu.Unlock()
	if !before {
		if _, err := server.Write(message); err != nil {
			return false
		}
	}
	if stop {
		close(due)
		<-released
	}
	return !stop
}
