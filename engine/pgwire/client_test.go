package pgwire_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/pgwire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a session that parses as the engine does and runs what the test says.
type fake struct {
	*engine.Session
	run func(ctx context.Context, text string) (*engine.Result, error)
}

func (f fake) Prepare(st engine.Statement, _ []flow.Type) (engine.Statement, []engine.Field, error) {
	switch text := strings.TrimSpace(st.String()); {
	case strings.HasPrefix(text, "SELECT"), strings.HasPrefix(text, "SUBSCRIBE"):
		return st, fields, nil
	}
	return st, nil, nil
}

func (f fake) Execute(ctx context.Context, st engine.Statement) (*engine.Result, error) {
	return f.run(ctx, strings.TrimSpace(st.String()))
}

var fields = []engine.Field{{Name: "n", Type: flow.Int8}, {Name: "s", Type: flow.Text}}

// rows makes a result of chunks of rows (1, "x"), (2, "x"), ... After the last
// chunk comes after, or the end.
func rows(after func(context.Context) error, chunks ...int) *engine.Result {
	n := 0
	return &engine.Result{
		Fields: fields,
		Next: func(ctx context.Context) ([]flow.Row, error) {
			if len(chunks) == 0 {
				if after != nil {
					return nil, after(ctx)
				}
				return nil, io.EOF
			}
			var chunk []flow.Row
			for range chunks[0] {
				n++
				chunk = append(chunk, flow.Row{flow.NewInt(flow.Int8, int64(n)), flow.NewText("x")})
			}
			chunks = chunks[1:]
			return chunk, nil
		},
		Tag: func() string { return fmt.Sprintf("SELECT %d", n) },
	}
}

// forever blocks until ctx ends.
func forever(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// standard runs SELECT n: that many rows in chunks of two; SUBSCRIBE: two rows,
// and then nothing for ever; DROP: fails; anything else succeeds.
func standard(_ context.Context, text string) (*engine.Result, error) {
	var n int
	switch {
	case strings.HasPrefix(text, "SELECT"):
		fmt.Sscanf(text, "SELECT %d", &n)
		var chunks []int
		for ; n > 0; n -= 2 {
			chunks = append(chunks, min(n, 2))
		}
		return rows(nil, chunks...), nil
	case strings.HasPrefix(text, "SUBSCRIBE"):
		r := rows(forever, 2)
		r.Notices = []engine.Notice{{Severity: "NOTICE", Code: "01000", Message: "streaming"}}
		return r, nil
	case strings.HasPrefix(text, "COPY"):
		r := rows(nil, 2)
		r.Copy, r.Tag = "text", func() string { return "COPY 2" }
		return r, nil
	case strings.HasPrefix(text, "DROP"):
		return nil, &engine.Error{Code: "42704", Message: "no such thing", Detail: "d", Hint: "h", Position: 3}
	}
	return &engine.Result{Tag: func() string { return "OK" }}, nil
}

// start runs a server of fake sessions for the length of the test.
func start(t testing.TB, o pgwire.Options, run func(context.Context, string) (*engine.Result, error)) *pgwire.Server {
	t.Helper()
	e, err := engine.Open(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := pgwire.NewFor(func() pgwire.Session { return fake{e.NewSession(), run} }, o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != context.Canceled {
			t.Errorf("Run returned %v", err)
		}
	})
	return s
}

// client speaks the protocol by hand and writes down what it hears.
type client struct {
	t    testing.TB
	conn net.Conn
	f    *pgproto3.Frontend
	key  pgproto3.BackendKeyData
}

// connect starts a connection up.
func connect(t testing.TB, s *pgwire.Server) *client {
	t.Helper()
	conn, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := talk(t, conn)
	c.send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "u"}})
	c.hear("Z")
	return c
}

func talk(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: conn, f: pgproto3.NewFrontend(conn, conn)}
}

func (c *client) send(msgs ...pgproto3.FrontendMessage) {
	c.t.Helper()
	for _, m := range msgs {
		c.f.Send(m)
	}
	if err := c.f.Flush(); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// hear reads until a message whose line begins with one of the ends, or the end
// of the connection, and returns a line for each message.
func (c *client) hear(ends ...string) string {
	c.t.Helper()
	var out []string
	for {
		msg, err := c.f.Receive()
		if err != nil {
			return strings.Join(append(out, "closed"), "\n")
		}
		line := c.line(msg)
		out = append(out, line)
		for _, end := range ends {
			if strings.HasPrefix(line, end) {
				return strings.Join(out, "\n")
			}
		}
	}
}

func (c *client) line(msg pgproto3.BackendMessage) string {
	switch m := msg.(type) {
	case *pgproto3.ReadyForQuery:
		return "Z " + string(m.TxStatus)
	case *pgproto3.BackendKeyData:
		c.key = *m
		return "key"
	case *pgproto3.RowDescription:
		s := "T"
		for _, f := range m.Fields {
			s += fmt.Sprintf(" %s:%d:%d", f.Name, f.DataTypeOID, f.Format)
		}
		return s
	case *pgproto3.DataRow:
		s := "D"
		for _, v := range m.Values {
			s += fmt.Sprintf(" %q", v)
		}
		return s
	case *pgproto3.CommandComplete:
		return "C " + string(m.CommandTag)
	case *pgproto3.ErrorResponse:
		return fmt.Sprintf("E %s %s %s", m.Severity, m.Code, m.Message)
	case *pgproto3.NoticeResponse:
		return fmt.Sprintf("N %s %s", m.Code, m.Message)
	case *pgproto3.CopyOutResponse:
		return fmt.Sprintf("H %d columns", len(m.ColumnFormatCodes))
	case *pgproto3.CopyData:
		return fmt.Sprintf("d %q", m.Data)
	case *pgproto3.NegotiateProtocolVersion:
		return fmt.Sprintf("v %d.%d %s", m.NewestMinorProtocol>>16, m.NewestMinorProtocol&0xffff, strings.Join(m.UnrecognizedOptions, " "))
	case *pgproto3.ParameterStatus:
		return "S " + m.Name + "=" + m.Value
	default:
		b, err := json.Marshal(m)
		if err != nil {
			c.t.Fatal(err)
		}
		var kind struct{ Type string }
		json.Unmarshal(b, &kind)
		return kind.Type
	}
}

// expect sends messages and compares everything up to a line that begins with
// end.
func (c *client) expect(end, want string, msgs ...pgproto3.FrontendMessage) {
	c.t.Helper()
	c.send(msgs...)
	want = strings.TrimSpace(strings.ReplaceAll(want, "\t", ""))
	if got := c.hear(end); got != want {
		c.t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func query(text string) *pgproto3.Query  { return &pgproto3.Query{String: text} }
func parse(text string) *pgproto3.Parse  { return &pgproto3.Parse{Query: text} }
func execute(n uint32) *pgproto3.Execute { return &pgproto3.Execute{MaxRows: n} }
func describe(kind byte, name string) *pgproto3.Describe {
	return &pgproto3.Describe{ObjectType: kind, Name: name}
}

var (
	bindAll = &pgproto3.Bind{}
	sync    = &pgproto3.Sync{}
	flush   = &pgproto3.Flush{}
)
