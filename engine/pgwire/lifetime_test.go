package pgwire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/pgwire"
)

type row = flow.Row

// watched is a stream that reports its end: what ended it, and that it was
// closed.
func watched() (run func(context.Context, string) (*engine.Result, error), ended chan error, closed chan bool) {
	ended, closed = make(chan error, 1), make(chan bool, 1)
	run = func(ctx context.Context, text string) (*engine.Result, error) {
		if !strings.HasPrefix(text, "SUBSCRIBE") {
			return standard(ctx, text)
		}
		r := rows(func(ctx context.Context) error {
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return ctx.Err()
		}, 1)
		r.Close = func() { closed <- true }
		return r, nil
	}
	return run, ended, closed
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, ended, closed := watched()
		s := start(t, pgwire.Options{}, run)
		c := connect(t, s)
		c.send(query("SUBSCRIBE TO v"))
		c.hear("D")

		cancel := func(pid uint32, key []byte) {
			conn, err := s.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			other := talk(t, conn)
			other.send(&pgproto3.CancelRequest{ProcessID: pid, SecretKey: key})
			if got := other.hear(); got != "closed" {
				t.Errorf("the answer to a cancel request is %s", got)
			}
		}
		wrong := append([]byte(nil), c.key.SecretKey...)
		wrong[3] ^= 1
		cancel(c.key.ProcessID, wrong)
		cancel(c.key.ProcessID, append(c.key.SecretKey, 0))
		cancel(c.key.ProcessID+1, c.key.SecretKey)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("a wrong key ended the stream: %v", err)
		default:
		}
		cancel(c.key.ProcessID, c.key.SecretKey)
		c.expect("Z", "E ERROR 57014 canceling statement due to user request\nZ I")
		<-closed
		// Between statements it does nothing.
		cancel(c.key.ProcessID, c.key.SecretKey)
		c.expect("Z", "C OK\nZ I", query("SET a = 1"))
		// In the extended protocol likewise.
		<-ended
		c.send(parse("SUBSCRIBE TO v"), bindAll, execute(0), sync)
		c.hear("D")
		cancel(c.key.ProcessID, c.key.SecretKey)
		c.expect("Z", "E ERROR 57014 canceling statement due to user request\nZ I")
		c.conn.Close()
	})
}

// A client that leaves ends its stream at once, however it leaves, and though
// it has sent ahead.
func TestClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(*client){
		"closes":     func(c *client) { c.conn.Close() },
		"terminates": func(c *client) { c.send(&pgproto3.Terminate{}) },
		"ahead":      func(c *client) { c.send(sync, query("SELECT 1"), sync, &pgproto3.Terminate{}) },
	} {
		t.Run(name, func(t *testing.T) {
			run, ended, closed := watched()
			c := connect(t, start(t, pgwire.Options{}, run))
			c.send(query("SUBSCRIBE TO v"))
			c.hear("D")
			leave(c)
			if err := <-ended; err == nil {
				t.Error("no cause")
			}
			<-closed
			if name != "closes" {
				if got := c.hear(); got != "closed" {
					t.Errorf("got %s", got)
				}
			}
		})
	}
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, _, closed := watched()
		e, err := engine.Open(engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := pgwire.NewFor(func() pgwire.Session { return fake{e.NewSession(), run} }, pgwire.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()

		idle, streaming, deaf := connect(t, s), connect(t, s), connect(t, s)
		streaming.send(query("SUBSCRIBE TO v"))
		streaming.hear("D")
		deaf.send(query("SELECT 100000")) // and never reads
		conn, err := s.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		starting := talk(t, conn)
		synctest.Wait()
		cancel()
		for name, c := range map[string]*client{"idle": idle, "streaming": streaming, "starting": starting} {
			if got := c.hear(); got != "E FATAL 57P01 terminating connection due to administrator command\nclosed" {
				t.Errorf("%s: got %s", name, got)
			}
		}
		<-closed
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if _, err := s.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Dial after Run: %v", err)
		}
	})
}

// An engine that stops says 57P01, which ends the connection.
func TestEngineStops(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{}, func(context.Context, string) (*engine.Result, error) {
		return nil, &engine.Error{Code: "57P01", Message: "the engine stops"}
	}))
	c.expect("none", "E FATAL 57P01 the engine stops\nclosed", query("SELECT 1"))
}

func TestDialWaits(t *testing.T) {
	s := pgwire.NewFor(nil, pgwire.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial without Run: %v", err)
	}
}

// A defect in one session ends that session alone.
func TestPanic(t *testing.T) {
	s := start(t, pgwire.Options{}, func(ctx context.Context, text string) (*engine.Result, error) {
		switch text {
		case "SELECT 666":
			panic("execute")
		case "SELECT 667":
			return rows(func(context.Context) error { panic("next") }, 1), nil
		case "SELECT 668":
			r := rows(forever, 1)
			r.Close = func() { panic("close") }
			return r, nil
		case "SELECT 669":
			return nil, errors.New("not an engine.Error")
		}
		return standard(ctx, text)
	})
	healthy := connect(t, s)
	for _, text := range []string{"SELECT 666", "SELECT 667"} {
		c := connect(t, s)
		c.send(query(text))
		if got := c.hear(); !strings.HasSuffix(got, "E FATAL XX000 internal error; the server's log says more\nclosed") {
			t.Errorf("%s: got %s", text, got)
		}
	}
	c := connect(t, s)
	c.send(query("SELECT 668"))
	c.hear("D")
	c.conn.Close()
	c = connect(t, s)
	c.expect("Z", "E ERROR XX000 internal error: not an engine.Error\nZ I", query("SELECT 669"))
	healthy.expect("Z", "T n:20:0 s:25:0\nD \"1\" \"x\"\nC SELECT 1\nZ I", query("SELECT 1"))
}

func TestStartupTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, pgwire.Options{StartupTimeout: 3 * time.Second}, standard)
		conn, err := s.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		c := talk(t, conn)
		go conn.Write([]byte{0, 0, 0})
		if got := c.hear(); got != "closed" || time.Since(begun) != 3*time.Second {
			t.Errorf("got %s after %v, want closed after 3s", got, time.Since(begun))
		}
		quiet := connect(t, s) // an established connection may be quiet
		time.Sleep(time.Hour)
		quiet.expect("Z", "C OK\nZ I", query("SET a = 1"))
		quiet.conn.Close()
	})
}

func TestMessageTooLong(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{MaxMessageBytes: 1000}, standard))
	c.expect("Z", "C OK\nZ I", query("SET a = 1"+strings.Repeat(" ", 900)))
	go c.conn.Write(encode(query(strings.Repeat(" ", 1001))))
	if got, want := c.hear(), "E FATAL 54000 message of 1002 bytes exceeds the limit of 1000 bytes\nclosed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNonsense(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{}, standard))
	go c.conn.Write([]byte{'?', 0, 0, 0, 4})
	if got, want := c.hear(), "E FATAL 08P01 invalid message: unknown message type: ?\nclosed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c = connect(t, start(t, pgwire.Options{}, standard))
	c.send(&pgproto3.PasswordMessage{Password: "x"})
	if got, want := c.hear(), "E FATAL 08P01 unexpected message *pgproto3.PasswordMessage\nclosed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A client that floods is not read further than the limit, and nothing is lost.
func TestFlood(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{MaxMessageBytes: 2000}, standard))
	const n = 500
	go func() {
		for range n {
			if _, err := c.conn.Write(encode(query("SET a = 1" + strings.Repeat(" ", 1000)))); err != nil {
				return
			}
		}
	}()
	for i := range n {
		if got := c.hear("Z"); got != "C OK\nZ I" {
			t.Fatalf("answer %d: %s", i, got)
		}
	}
}

// A connection ends though its reader waits for room, whoever ends it.
func TestEndInFlood(t *testing.T) {
	for _, first := range []pgproto3.FrontendMessage{query("SELECT 1"), &pgproto3.PasswordMessage{}} {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, pgwire.Options{MaxMessageBytes: 2000}, standard)
			c := connect(t, s)
			c.send(first)
			go func() {
				for range 10 {
					c.conn.Write(encode(query("SELECT 1" + strings.Repeat(" ", 1000))))
				}
			}()
			synctest.Wait() // the server waits for the client to read
			c.conn.Close()
			synctest.Wait()
			if n := s.Connections(); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	}
}

// A prepared statement whose columns have changed is refused, as drivers expect.
func TestChangedColumns(t *testing.T) {
	n := 0
	c := connect(t, start(t, pgwire.Options{}, func(ctx context.Context, text string) (*engine.Result, error) {
		r, err := standard(ctx, text)
		if n++; n > 1 {
			r.Fields = r.Fields[:1]
		}
		return r, err
	}))
	c.expect("Z", "ParseComplete\nBindComplete\nC SELECT 0\nZ I", parse("SELECT 0"), bindAll, execute(0), sync)
	c.expect("Z", "BindComplete\nE ERROR 0A000 cached plan must not change result type\nZ I", bindAll, execute(0), sync)
}

func TestLimitsOfPrepared(t *testing.T) {
	c := connect(t, start(t, pgwire.Options{MaxMessageBytes: 10_000}, standard))
	refusal := func(make func(i int) []pgproto3.FrontendMessage, upTo int) int {
		for i := range upTo {
			c.send(append(make(i), flush, sync)...)
			if got := c.hear("Z"); strings.Contains(got, "E ERROR 53400") {
				return i
			}
		}
		return upTo
	}
	if n := refusal(func(i int) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Name: fmt.Sprint("s", i), Query: "SELECT 1"}}
	}, 2000); n != 1000 {
		t.Errorf("%d prepared statements, want 1000", n)
	}
	c = connect(t, start(t, pgwire.Options{MaxMessageBytes: 10_000}, standard))
	if n := refusal(func(i int) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Name: fmt.Sprint("s", i), Query: "SELECT 1" + strings.Repeat(" ", 7992)}}
	}, 20); n != 10 {
		t.Errorf("%d prepared statements of 8,000 bytes, want 10", n)
	}
	c = connect(t, start(t, pgwire.Options{}, standard))
	c.send(parse("SELECT 1"))
	for i := range 65 {
		c.send(&pgproto3.Bind{DestinationPortal: fmt.Sprint("p", i)})
	}
	c.send(sync)
	if got := c.hear("Z"); strings.Count(got, "BindComplete") != 64 || !strings.Contains(got, "E ERROR 53400 too many portals") {
		t.Errorf("got %s, want 64 portals", got)
	}
}

func TestMaxConnections(t *testing.T) {
	e, err := engine.Open(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := pgwire.NewFor(func() pgwire.Session { return fake{e.NewSession(), standard} }, pgwire.Options{MaxConnections: 2})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- s.Serve(ctx, ln) }()
	go func() { done <- s.Run(ctx) }()
	dial := func() *client {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return talk(t, conn)
	}
	hello := &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "u"}}
	var open []*client
	for range 2 {
		c := dial()
		c.send(hello)
		c.hear("Z")
		open = append(open, c)
	}
	c := dial()
	c.send(hello)
	if got, want := c.hear(), "E FATAL 53300 sorry, too many clients already (limit 2)\nclosed"; got != want {
		t.Errorf("third connection: %s, want %s", got, want)
	}
	connect(t, s) // the daemon itself is not counted
	// As many again may be starting up, and a cancel request has room there.
	open[0].send(&pgproto3.Terminate{})
	open[0].hear()
	c = dial()
	c.send(hello)
	if got := c.hear("Z"); !strings.HasSuffix(got, "Z I") {
		t.Errorf("after one left: %s", got)
	}
	cancel()
	for range 2 {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

// TestFuzzRandom throws random bytes and random sequences of valid messages at
// a connection: it answers or closes, and others are not disturbed.
func TestFuzzRandom(t *testing.T) {
	s := start(t, pgwire.Options{MaxMessageBytes: 4096}, standard)
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		c := connect(t, s)
		go io.Copy(io.Discard, c.conn)
		for range 20 {
			if _, err := c.conn.Write(randomMessage(rnd)); err != nil {
				break
			}
		}
		c.conn.Close()
	}
	healthy := connect(t, s)
	healthy.expect("Z", "C OK\nZ I", query("SET a = 1"))
}

func randomMessage(rnd *rand.Rand) []byte {
	names := []string{"", "a", "b"}
	name := func() string { return names[rnd.IntN(len(names))] }
	texts := []string{"", "SELECT 3", "SET a = 1", "DROP VIEW v", "COPY (SELECT 1) TO STDOUT", "SELECT 1; SELECT 2", "SELECT '"}
	text := texts[rnd.IntN(len(texts))]
	switch rnd.IntN(12) {
	case 0:
		return encode(query(text))
	case 1:
		return encode(&pgproto3.Parse{Name: name(), Query: text})
	case 2, 3:
		return encode(&pgproto3.Bind{DestinationPortal: name(), PreparedStatement: name(), ResultFormatCodes: []int16{int16(rnd.IntN(3))}})
	case 4:
		return encode(describe("SP"[rnd.IntN(2)], name()))
	case 5, 6:
		return encode(&pgproto3.Execute{Portal: name(), MaxRows: uint32(rnd.IntN(3))})
	case 7:
		return encode(&pgproto3.Close{ObjectType: "SP"[rnd.IntN(2)], Name: name()})
	case 8:
		return encode(flush)
	case 9, 10:
		return encode(sync)
	default:
		b := make([]byte, 1+rnd.IntN(40))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		if rnd.IntN(2) == 0 { // a plausible head
			b = append([]byte{"QPBDECHSfdcFpX"[rnd.IntN(14)], 0, 0, 0, byte(4 + len(b))}, b...)
		}
		return b
	}
}

// FuzzConn sends arbitrary bytes, as a startup or after one.
func FuzzConn(f *testing.F) {
	f.Add(false, encode(&pgproto3.SSLRequest{}))
	f.Add(true, encode(query("SELECT 1; COPY (SELECT 1) TO STDOUT")))
	f.Add(true, append(encode(parse("SELECT 3")), append(encode(bindAll), append(encode(execute(2)), encode(sync)...)...)...))
	s := start(f, pgwire.Options{MaxMessageBytes: 4096}, standard)
	f.Fuzz(func(t *testing.T, started bool, data []byte) {
		var c *client
		if started {
			c = connect(t, s)
		} else {
			conn, err := s.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c = talk(t, conn)
		}
		drained := make(chan bool)
		go func() { io.Copy(io.Discard, c.conn); close(drained) }()
		c.conn.Write(data)
		c.conn.Close()
		<-drained
	})
}
