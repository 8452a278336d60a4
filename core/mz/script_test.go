package mz_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/mz"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server plays a Materialize of any release. What a client asks about the
// server is answered from its fields; each TAIL or SUBSCRIBE takes the next of
// its scripts.
type server struct {
	version     string            // what mz_version() returns
	announced   bool              // whether it is a parameter of the startup too
	environment string            // what mz_environment_id() returns; empty: unknown function
	objects     map[string]string // ids by name; nil: no catalog
	schema      string            // in which they are; empty: the catalog has no schemas
	now         string            // what now() returns; empty: unknown function
	startup     *pgproto3.ErrorResponse
	flush       int // bytes in one write, at most; 0: a message; all: an answer
	scripts     []script

	mu         sync.Mutex        // guards the fields below, and scripts
	parameters map[string]string // of the last startup
	statements []string          // TAIL and SUBSCRIBE, as they came
	others     []string          // everything else
	conns      sync.WaitGroup
}

// script is what a server answers to a statement: messages, and between them
// cut, to close the connection, hang, to say nothing until the client leaves,
// change, to become another server, or a step of the test's own, after which it
// closes the connection.
type script []any

type (
	cut    struct{}
	hang   struct{}
	change func()
	step   func()
)

// all makes a server flush once for each answer.
const all = 1 << 20

// inPieces writes pieces of a size.
type inPieces struct {
	net.Conn
	size int
}

func (w inPieces) Write(b []byte) (n int, err error) {
	for piece := range slices.Chunk(b, w.size) {
		k, err := w.Conn.Write(piece)
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

func today() *server {
	return &server{version: "v26.39.0 (abcdef123)", announced: true, environment: "aws-1", objects: map[string]string{"v": "u7"}, schema: "public"}
}

func (s *server) dial(context.Context, string, string) (net.Conn, error) {
	client, conn := net.Pipe()
	s.conns.Go(func() {
		defer conn.Close()
		if s.flush > 0 {
			conn = inPieces{conn, s.flush}
		}
		s.serve(pgproto3.NewBackend(conn, conn))
	})
	return client, nil
}

// client returns a client of the server; the test ends when all is closed.
func (s *server) client(t testing.TB) *mz.Client {
	t.Helper()
	t.Cleanup(s.conns.Wait)
	c, err := mz.New(mz.Config{URL: "postgres://u:secret@db/materialize?sslmode=disable", Dial: s.dial})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// subscribe opens a stream and closes it with the test.
func (s *server) subscribe(t testing.TB, r mz.Request) *mz.Stream {
	t.Helper()
	stream, err := s.client(t).Subscribe(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stream.Close)
	return stream
}

func (s *server) serve(b *pgproto3.Backend) {
	msg, err := b.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if m, ok := msg.(*pgproto3.StartupMessage); ok {
		s.mu.Lock()
		s.parameters = m.Parameters
		s.mu.Unlock()
	}
	if s.startup != nil {
		b.Send(s.startup)
		b.Flush()
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	b.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	if s.announced {
		b.Send(&pgproto3.ParameterStatus{Name: "mz_version", Value: s.version})
	}
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}})
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		msg, err := b.Receive()
		if err != nil {
			return
		}
		q, ok := msg.(*pgproto3.Query)
		if !ok {
			return // Terminate
		}
		for _, m := range s.answer(q.String) {
			switch m := m.(type) {
			case cut:
				if s.flush == all {
					b.Flush()
				}
				return
			case hang:
				b.Receive()
				return
			case change:
				s.mu.Lock()
				m()
				s.mu.Unlock()
			case step:
				m()
				return
			case pgproto3.BackendMessage:
				b.Send(m)
				if s.flush < all && b.Flush() != nil {
					return
				}
				if _, ok := m.(*pgproto3.CopyInResponse); ok {
					b.Receive()
				}
			}
		}
	}
}

func (s *server) answer(sql string) script {
	s.mu.Lock()
	defer s.mu.Unlock()
	if verb := strings.TrimSpace(sql); strings.HasPrefix(verb, "TAIL") || strings.HasPrefix(verb, "SUBSCRIBE") {
		s.statements = append(s.statements, sql)
		if len(s.scripts) == 0 {
			return script{fail("XX000", "the test has no more scripts")}
		}
		next := s.scripts[0]
		s.scripts = s.scripts[1:]
		return next
	}
	s.others = append(s.others, sql)
	switch {
	case strings.HasPrefix(sql, "SET bytea_output"):
		return script{fail("42704", "unrecognized configuration parameter")}
	case strings.HasPrefix(sql, "SET"):
		return script{done("SET")}
	case sql == "SELECT mz_version()" && s.version != "":
		return one(s.version)
	case sql == "SELECT now()" && s.now != "":
		return one(s.now)
	case sql == "SELECT mz_environment_id()" && s.environment != "":
		return one(s.environment)
	case strings.HasPrefix(sql, "SELECT o.id") && s.schema != "", strings.HasPrefix(sql, "SELECT id") && s.objects != nil:
		answer := script{}
		for name, id := range s.objects {
			if !strings.Contains(sql, quoteSQL(name)) {
				continue
			}
			if strings.HasPrefix(sql, "SELECT o.id") {
				id += " " + s.schema
			}
			answer = append(answer, &pgproto3.DataRow{Values: [][]byte{[]byte(id)}})
		}
		return append(answer, done("SELECT"))
	case strings.Contains(sql, "CREATE"):
		return script{&pgproto3.NoticeResponse{Severity: "NOTICE", Message: "already exists, skipping"}, done("CREATE VIEW")}
	}
	return script{fail("42601", "the test server does not know this statement")}
}

func one(value string) script {
	return script{
		&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x"), DataTypeOID: 25}}},
		&pgproto3.DataRow{Values: [][]byte{[]byte(value)}},
		done("SELECT 1"),
	}
}

func done(tag string) *pgproto3.CommandComplete {
	return &pgproto3.CommandComplete{CommandTag: []byte(tag)}
}

func fail(code, message string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: message}
}

func fatal(code, message string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}
}

// columns describes a stream of a view v(user text, count int8).
func columns() *pgproto3.RowDescription { return columnsOf("user", 25, "count", 20) }

func columnsOf(namesAndOIDs ...any) *pgproto3.RowDescription {
	d := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{
		{Name: []byte("mz_timestamp"), DataTypeOID: 1700, TypeModifier: 39<<16 + 4},
		{Name: []byte("mz_progressed"), DataTypeOID: 16},
		{Name: []byte("mz_diff"), DataTypeOID: 20},
	}}
	for i := 0; i < len(namesAndOIDs); i += 2 {
		d.Fields = append(d.Fields, pgproto3.FieldDescription{Name: []byte(namesAndOIDs[i].(string)), DataTypeOID: uint32(namesAndOIDs[i+1].(int))})
	}
	return d
}

func progress(t core.Time) *pgproto3.DataRow {
	return &pgproto3.DataRow{Values: [][]byte{[]byte(t.String()), []byte("t"), nil, nil, nil}}
}

func row(t core.Time, diff core.Diff, values ...string) *pgproto3.DataRow {
	r := &pgproto3.DataRow{Values: [][]byte{[]byte(t.String()), []byte("f"), fmt.Append(nil, diff)}}
	for _, v := range values {
		r.Values = append(r.Values, []byte(v))
	}
	return r
}

// show writes a batch in one line: [lower,upper) and its updates.
func show(b core.Batch) string {
	s := fmt.Sprintf("[%d,%d)", b.Lower.Time, b.Upper.Time)
	for u := range b.Updates.All() {
		s += fmt.Sprintf(" %s%+d@%d", u.Row, u.Diff, u.Time)
	}
	return s
}

// expect reads batches and compares them.
func expect(t testing.TB, s *mz.Stream, want ...string) {
	t.Helper()
	for i, w := range want {
		b, err := s.Next(t.Context())
		if err != nil {
			t.Fatalf("batch %d: %v, want %s", i, err, w)
		}
		if got := show(b); got != w {
			t.Fatalf("batch %d:\n got %s\nwant %s", i, got, w)
		}
	}
}

// expectError reads until an error and compares its reason.
func expectError(t testing.TB, s *mz.Stream, reason string) *mz.Error {
	t.Helper()
	for {
		b, err := s.Next(t.Context())
		if err == nil {
			t.Errorf("got batch %s, want the error %s", show(b), reason)
			continue
		}
		e, ok := err.(*mz.Error)
		if !ok || e.Reason() != reason {
			t.Fatalf("got %T %v, want reason %s", err, err, reason)
		}
		if _, again := s.Next(t.Context()); again != err {
			t.Fatalf("after an error Next returned %v", again)
		}
		return e
	}
}

func (s *server) expectStatements(t testing.TB, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.statements, want) {
		t.Errorf("statements:\n got %q\nwant %q", s.statements, want)
	}
}
