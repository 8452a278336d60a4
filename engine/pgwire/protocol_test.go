package pgwire_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/pgwire"
)

func TestStartup(t *testing.T) {
	s := start(t, pgwire.Options{Version: "1.2.3"}, standard)
	conn, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := talk(t, conn)
	for _, m := range []pgproto3.FrontendMessage{&pgproto3.SSLRequest{}, &pgproto3.GSSEncRequest{}} {
		c.send(m)
		answer := make([]byte, 1)
		if _, err := conn.Read(answer); err != nil || answer[0] != 'N' {
			t.Fatalf("%T: %q, %v; want N", m, answer, err)
		}
	}
	c.expect("Z", `
		v 3.2 _pq_.x
		AuthenticationOK
		S server_version=9.5.0 (mzd embedded 1.2.3)
		S mz_version=mzd embedded (not Materialize)
		S server_encoding=UTF8
		S client_encoding=UTF8
		S standard_conforming_strings=on
		S integer_datetimes=on
		S DateStyle=ISO, MDY
		S IntervalStyle=postgres
		S TimeZone=UTC
		S is_superuser=off
		S session_authorization=ada
		S application_name=test
		key
		Z I`,
		&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion32, Parameters: map[string]string{"user": "ada", "application_name": "test", "_pq_.x": "1"}})
	if n := len(c.key.SecretKey); n != 32 {
		t.Errorf("the key of protocol 3.2 has %d bytes, want 32", n)
	}
	if n := len(connect(t, s).key.SecretKey); n != 4 {
		t.Errorf("the key of protocol 3.0 has %d bytes, want 4", n)
	}
}

func TestStartupRefused(t *testing.T) {
	s := start(t, pgwire.Options{}, standard)
	for name, tt := range map[string]struct {
		send []byte
		want string
	}{
		"no user": {encode(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"database": "x"}}), "E FATAL 28000 no user name in the startup packet\nclosed"},
		"no timeout": {encode(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "u", "options": "--statement-timeout=soon"}}),
			"E FATAL 22023 invalid value for parameter \"statement_timeout\": \"soon\"\nclosed"},
		"protocol 2":     {[]byte{0, 0, 0, 8, 0, 2, 0, 0}, "E FATAL 08P01 invalid startup packet: unknown startup message code: 131072\nclosed"},
		"no startup":     {[]byte("GET / HTTP/1.1\r\n\r\n"), "E FATAL 08P01 invalid startup packet: invalid length of startup packet: 1195725852\nclosed"},
		"four TLS tries": {[]byte(strings.Repeat(string(encode(&pgproto3.SSLRequest{})), 4)), "closed"},
	} {
		conn, err := s.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := talk(t, conn)
		go conn.Write(tt.send)
		if got := c.hear(); !strings.HasSuffix(got, tt.want) {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func encode(m pgproto3.FrontendMessage) []byte {
	b, err := m.Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func TestSimple(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{}, standard))
	c.expect("Z", `
		T n:20:0 s:25:0
		D "1" "x"
		D "2" "x"
		D "3" "x"
		C SELECT 3
		Z I`, query("SELECT 3"))
	c.expect("Z", `
		C OK
		T n:20:0 s:25:0
		D "1" "x"
		C SELECT 1
		C OK
		Z I`, query("SET a = 1; SELECT 1;; SET a = 2;"))
	c.expect("Z", "C OK\nE ERROR 42704 no such thing\nZ I", query("SET a = 1; DROP VIEW v; SELECT 1"))
	c.expect("Z", "EmptyQueryResponse\nZ I", query(""))
	c.expect("Z", "EmptyQueryResponse\nZ I", query(" ; -- nothing"))
	c.expect("Z", `
		H 2 columns
		d "1\tx\n"
		d "2\tx\n"
		CopyDone
		C COPY 2
		Z I`, query("COPY (SELECT 2) TO STDOUT"))
	c.expect("Z", "E ERROR 0A000 function calls over the protocol are not supported\nZ I", &pgproto3.FunctionCall{})
	// Data of a COPY that failed is dropped.
	c.expect("Z", "C OK\nZ I", &pgproto3.CopyData{Data: []byte("x")}, &pgproto3.CopyDone{}, &pgproto3.CopyFail{}, query("SET a = 1"))
}

func TestExtended(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{}, standard))
	c.expect("Z", `
		ParseComplete
		ParameterDescription
		T n:20:0 s:25:0
		BindComplete
		T n:20:1 s:25:0
		D "\x00\x00\x00\x00\x00\x00\x00\x01" "x"
		D "\x00\x00\x00\x00\x00\x00\x00\x02" "x"
		D "\x00\x00\x00\x00\x00\x00\x00\x03" "x"
		C SELECT 3
		CloseComplete
		Z I`,
		parse("SELECT 3"), describe('S', ""), &pgproto3.Bind{ResultFormatCodes: []int16{1, 0}}, describe('P', ""), execute(0), &pgproto3.Close{ObjectType: 'P'}, sync)
	c.expect("Z", `
		ParseComplete
		ParameterDescription
		NoData
		BindComplete
		NoData
		C OK
		Z I`,
		parse("SET a = 1"), describe('S', ""), bindAll, describe('P', ""), execute(0), sync)
	c.expect("Z", "ParseComplete\nBindComplete\nEmptyQueryResponse\nZ I", parse(""), bindAll, execute(0), sync)
	c.expect("Z", "ParseComplete\nBindComplete\nH 2 columns\nd \"1\\tx\\n\"\nd \"2\\tx\\n\"\nCopyDone\nC COPY 2\nZ I",
		parse("COPY (SELECT 2) TO STDOUT"), bindAll, execute(1), sync)
}

func TestSuspend(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{}, standard))
	c.send(parse("SELECT 5"), bindAll)
	c.expect("PortalSuspended", "ParseComplete\nBindComplete\nD \"1\" \"x\"\nPortalSuspended", execute(1), flush)
	c.expect("PortalSuspended", "D \"2\" \"x\"\nD \"3\" \"x\"\nD \"4\" \"x\"\nPortalSuspended", execute(3), flush)
	c.expect("C ", "D \"5\" \"x\"\nC SELECT 5", execute(3), flush)
	c.expect("Z", "E ERROR 55000 portal \"\" cannot be run anymore\nZ I", execute(3), sync)
	// Outside of a transaction portals end at Sync.
	c.expect("Z", "ParseComplete\nBindComplete\nD \"1\" \"x\"\nPortalSuspended\nZ I", parse("SELECT 5"), bindAll, execute(1), sync)
	c.expect("Z", "E ERROR 34000 portal \"\" does not exist\nZ I", execute(1), sync)
	// And so they do when a simple query has ended it.
	p := &pgproto3.Execute{Portal: "p", MaxRows: 1}
	c.send(parse("SELECT 5"), &pgproto3.Bind{DestinationPortal: "p"}, p)
	c.expect("Z", "ParseComplete\nBindComplete\nD \"1\" \"x\"\nPortalSuspended\nC OK\nZ I", query("SET a = 1"))
	c.expect("Z", "E ERROR 34000 portal \"p\" does not exist\nZ I", p, sync)
}

// A suspended stream keeps what the last chunk had too many.
func TestSuspendStream(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{}, standard))
	c.send(parse("SUBSCRIBE TO v"), bindAll)
	c.expect("PortalSuspended", "ParseComplete\nBindComplete\nN 01000 streaming\nD \"1\" \"x\"\nPortalSuspended", execute(1), flush)
	c.expect("PortalSuspended", "D \"2\" \"x\"\nPortalSuspended", execute(1), flush)
	c.expect("Z", "CloseComplete\nZ I", &pgproto3.Close{ObjectType: 'P'}, sync)
}

func TestExtendedErrors(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{}, standard))
	named := func(s string) *pgproto3.Parse { return &pgproto3.Parse{Name: "a", Query: s} }
	for _, tt := range []struct {
		want string
		send []pgproto3.FrontendMessage
	}{
		{"42601 cannot insert multiple commands into a prepared statement", []pgproto3.FrontendMessage{parse("SELECT 1; SELECT 2")}},
		{"0A000 parameter $2 has a type that the embedded engine does not know (OID 600)", []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "SELECT 1", ParameterOIDs: []uint32{20, 600}}}},
		{`08P01 bind message supplies 1 parameters, but prepared statement "" requires 0`, []pgproto3.FrontendMessage{parse("SELECT 1"), &pgproto3.Bind{Parameters: [][]byte{[]byte("1")}}}},
		{`26000 prepared statement "x" does not exist`, []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: "x"}}},
		{`26000 prepared statement "x" does not exist`, []pgproto3.FrontendMessage{describe('S', "x")}},
		{`34000 portal "x" does not exist`, []pgproto3.FrontendMessage{describe('P', "x")}},
		{`34000 portal "x" does not exist`, []pgproto3.FrontendMessage{&pgproto3.Execute{Portal: "x"}}},
		{`42P05 prepared statement "a" already exists`, []pgproto3.FrontendMessage{named("SELECT 1"), named("SELECT 2")}},
		{`42P03 portal "p" already exists`, []pgproto3.FrontendMessage{parse("SELECT 1"), &pgproto3.Bind{DestinationPortal: "p"}, &pgproto3.Bind{DestinationPortal: "p"}}},
		{"08P01 bind message has 3 result formats but query has 2 columns", []pgproto3.FrontendMessage{parse("SELECT 1"), &pgproto3.Bind{ResultFormatCodes: []int16{0, 0, 0}}}},
		{"22023 unsupported format code: 7", []pgproto3.FrontendMessage{parse("SELECT 1"), &pgproto3.Bind{ResultFormatCodes: []int16{7}}}},
		{"42704 no such thing", []pgproto3.FrontendMessage{parse("DROP VIEW v"), bindAll, execute(0)}},
	} {
		// What follows the error, even a simple query, is skipped up to Sync.
		c.send(append(tt.send, execute(0), query("SELECT 1"), sync)...)
		lines := strings.Split(c.hear("Z"), "\n")
		if got := strings.Join(lines[max(0, len(lines)-2):], "\n"); got != "E ERROR "+tt.want+"\nZ I" {
			t.Errorf("got %s, want the error %s", got, tt.want)
		}
		c.expect("Z", "T n:20:0 s:25:0\nD \"1\" \"x\"\nC SELECT 1\nZ I", query("SELECT 1"))
	}
	c.expect("Z", "CloseComplete\nCloseComplete\nZ I", &pgproto3.Close{ObjectType: 'S', Name: "a"}, &pgproto3.Close{ObjectType: 'S', Name: "nothing"}, sync)
}

func TestErrorFields(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{}, standard))
	c.send(query("DROP VIEW v"))
	msg, err := c.f.Receive()
	if err != nil {
		t.Fatal(err)
	}
	e := msg.(*pgproto3.ErrorResponse)
	if e.Detail != "d" || e.Hint != "h" || e.Position != 3 || e.SeverityUnlocalized != "ERROR" {
		t.Errorf("got %+v", e)
	}
	c.hear("Z")
}

// Rows reach the client when the engine has them, though the client's Sync has
// come long ago and its end has not.
func TestStreamFlush(t *testing.T) {
	for _, start1 := range [][]pgproto3.FrontendMessage{
		{query("SUBSCRIBE TO v")},
		{parse("SUBSCRIBE TO v"), bindAll, describe('P', ""), execute(0), sync},
	} {
		synctest.Test(t, func(t *testing.T) {
			more := make(chan bool)
			s := start(t, pgwire.Options{}, func(context.Context, string) (*engine.Result, error) {
				chunks, n := rows(nil, 1, 1, 1), 0
				next := chunks.Next
				chunks.Next = func(ctx context.Context) (r []row, err error) {
					if n++; n > 1 {
						<-more
					}
					return next(ctx)
				}
				return chunks, nil
			})
			c := connect(t, s)
			c.send(start1...)
			for i := range 3 {
				if got := c.hear(fmt.Sprintf("D \"%d\"", i+1)); !strings.Contains(got, "D ") {
					t.Fatalf("got %s", got)
				}
				synctest.Wait() // the server now waits for the engine
				more <- true
			}
			c.expect("Z", "C SELECT 3\nZ I")
			c.conn.Close()
		})
	}
}

func TestManyRows(t *testing.T) {
	const n = 50_000
	s := start(t, pgwire.Options{}, func(context.Context, string) (*engine.Result, error) { return rows(nil, n), nil })
	c := connect(t, s)
	c.send(query("SELECT 1"))
	lines := strings.Split(c.hear("Z"), "\n")
	if len(lines) != n+3 || lines[n] != fmt.Sprintf(`D "%d" "x"`, n) {
		t.Errorf("%d lines, want %d; %s", len(lines), n+3, lines[len(lines)-1])
	}
}

func TestEscapeCopy(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"plain é", "plain é"},
		{"\b\f\n\r\t\v\\", `\b\f\n\r\t\v\\`},
		{"a\tb\\N\n", `a\tb\\N\n`},
		{"\x01\x7f", "\x01\x7f"},
	} {
		if got := pgwire.EscapeCopy(tt.text); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}
