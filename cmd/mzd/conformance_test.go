package main_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mzdio/mzd/plugins/sinks/websocket/conformance"
)

// TestProtocol holds the sink in the daemon against the rules of
// docs/protocol.md, with views that the embedded engine maintains.
func TestProtocol(t *testing.T) {
	t.Parallel() // most of it is waiting
	d := newDaemon(t, conformancePipeline)
	d.start()
	conformance.Run(t, d.subject(t))
}

// TestProtocolOfAProcess does so with the sink as a plugin in a process of its
// own.
func TestProtocolOfAProcess(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, conformancePipeline)
	text := readFile(t, filepath.Join(d.dir, "pipeline.yaml"))
	process := strings.Replace(text, "plugin: websocket,", fmt.Sprintf("plugin: %q, args: [plugin, serve, sink, websocket],", testPlugin(t, "mzd")), 1)
	if process == text {
		t.Fatalf("no websocket in\n%s", text)
	}
	d.write("pipeline.yaml", process)
	serve := func() {
		d.start()
		d.untilServed(t)
	}
	serve()
	subject := d.subject(t)
	subject.Forgets = true
	subject.Restart = func() {
		d.stop()
		serve()
	}
	conformance.Run(t, subject)
}

// untilServed waits until something listens for streams: the daemon runs before
// its plugins do.
func (d *daemon) untilServed(t *testing.T) {
	t.Helper()
	ctx := deadline(t, time.Minute)
	for tick := time.Tick(20 * time.Millisecond); ; {
		conn, err := net.Dial("tcp", d.web)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("%v\n%s", err, d.log)
		}
	}
}

var conformancePipeline = pipeline{
	init: `
CREATE TABLE people_table (name text, n bigint);
CREATE MATERIALIZED VIEW people AS SELECT name, n FROM people_table;
CREATE MATERIALIZED VIEW counter AS SELECT count(*) AS n FROM people_table;
CREATE MATERIALIZED VIEW fixed AS SELECT 7::bigint AS n;
`,
	views: "{people: {key: [name]}, counter: {}, fixed: {}}",
}

func (d *daemon) subject(t *testing.T) conformance.Subject {
	return conformance.Subject{
		URL:   "http://" + d.web,
		Table: &sqlTable{t: t, ctx: deadline(t, 5*time.Minute), d: d},
		Restart: func() {
			d.stop()
			d.start()
		},
	}
}

// A sqlTable is the table of a [conformance.Subject], in the embedded engine.
type sqlTable struct {
	t    *testing.T
	ctx  context.Context
	d    *daemon
	conn *pgx.Conn
}

func (s *sqlTable) Insert(rows ...conformance.Row) {
	s.t.Helper()
	source := pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) { return []any{rows[i].Name, rows[i].N}, nil })
	if _, err := s.connect().CopyFrom(s.ctx, pgx.Identifier{"people_table"}, []string{"name", "n"}, source); err != nil {
		s.t.Fatal(err)
	}
}

// Delete takes several statements where one would be too long for the engine.
func (s *sqlTable) Delete(names ...string) {
	s.t.Helper()
	for some := range slices.Chunk(names, 20) {
		s.execute("DELETE FROM people_table WHERE name IN ('" + strings.Join(some, "', '") + "')")
	}
}

func (s *sqlTable) Move(from, to string, by int64) {
	s.execute(fmt.Sprintf("UPDATE people_table SET n = CASE WHEN name = '%s' THEN n - %d ELSE n + %d END WHERE name IN ('%s', '%s')", from, by, by, from, to))
}

// connect returns a connection, a new one if the daemon was restarted.
func (s *sqlTable) connect() *pgx.Conn {
	s.t.Helper()
	if s.conn != nil && s.conn.Ping(s.ctx) == nil {
		return s.conn
	}
	conn, err := pgx.Connect(s.ctx, fmt.Sprintf("postgres://materialize@%s/materialize", s.d.sql))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	s.conn = conn
	return conn
}

func (s *sqlTable) execute(statement string) {
	s.t.Helper()
	if _, err := s.connect().Exec(s.ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
		s.t.Fatalf("%.100s: %v", statement, err)
	}
}
