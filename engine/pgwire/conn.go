package pgwire

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/engine"
)

// farewell is how long a client that does not read may take to receive why its
// connection ends.
const farewell = time.Second

// conn is one connection. All of it belongs to the goroutine that runs serve,
// but for the inbox, which a second one fills, and the cancellation below.
type conn struct {
	server  *Server
	nc      net.Conn
	limited bool // counts against MaxConnections
	log     *slog.Logger
	src     *source
	backend *pgproto3.Backend // receives only; out sends
	in      *inbox
	out     writer
	session session

	pid        uint32
	key        []byte // set before the connection is registered, then constant
	statements map[string]*prepared
	portals    map[string]*portal
	text       int  // bytes of statement texts held by statements
	skipping   bool // an extended query failed; everything up to Sync is skipped

	mu     sync.Mutex              // guards cancel, which other connections call
	cancel context.CancelCauseFunc // ends the statement that runs; nil between statements
}

func newConn(s *Server, nc net.Conn, limited bool) *conn {
	src := &source{r: nc}
	c := &conn{
		server:     s,
		nc:         nc,
		limited:    limited,
		log:        s.opts.Logger.With("remote", nc.RemoteAddr().String()),
		src:        src,
		backend:    pgproto3.NewBackend(src, nil),
		in:         newInbox(s.opts.MaxMessageBytes),
		out:        writer{w: nc},
		statements: map[string]*prepared{},
		portals:    map[string]*portal{},
	}
	c.backend.SetMaxBodyLen(s.opts.MaxMessageBytes)
	return c
}

// serve runs the connection to its end. ctx ends when the server stops.
func (c *conn) serve(parent context.Context) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	// What waits on the socket is woken when the connection is over: the write
	// that a client does not take, and a startup that does not come.
	defer context.AfterFunc(ctx, func() {
		c.nc.SetReadDeadline(time.Unix(1, 0))
		c.nc.SetWriteDeadline(time.Now().Add(farewell))
	})()

	err := c.guard(func() error { return c.startup(ctx) })
	if err == nil {
		c.log.Debug("client connected", "pid", c.pid)
		defer c.log.Debug("client disconnected", "pid", c.pid)

		var reader sync.WaitGroup
		defer reader.Wait()
		defer cancel(nil) // it may wait for room in the inbox
		defer c.nc.Close()
		reader.Go(func() {
			cancel(c.guard(func() error { return c.in.fill(ctx, c.backend, c.src) }))
		})

		err = c.guard(func() error { return c.run(ctx) })
	}
	if c.session != nil {
		c.guard(c.release)
	}
	c.server.unregister(c) // before the client can see that its place is free
	if fatal, ok := errors.AsType[*fatalError](err); ok {
		c.nc.SetWriteDeadline(time.Now().Add(farewell))
		c.out.send(errorResponse("FATAL", fatal.err))
		c.out.flush()
	}
}

// guard turns a panic into the end of this one connection.
func (c *conn) guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			c.log.Error("panic in a connection", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = fatalf("XX000", "internal error; the server's log says more")
		}
	}()
	return f()
}

// release gives back what the session holds.
func (c *conn) release() error {
	defer c.session.Close()
	for name := range c.portals {
		c.closePortal(name)
	}
	return nil
}

// startup takes the connection from its first byte to its first ReadyForQuery.
// It returns errGone for connections that only carry a cancel request.
func (c *conn) startup(ctx context.Context) error {
	c.nc.SetDeadline(time.Now().Add(c.server.opts.StartupTimeout))
	for range 3 { // at most one request each for TLS and GSS encryption
		msg, err := c.backend.ReceiveStartupMessage()
		if ctx.Err() != nil {
			return ended(context.Cause(ctx))
		}
		if err != nil {
			if c.src.err != nil {
				return errGone
			}
			return fatalf("08P01", "invalid startup packet: %v", err)
		}
		switch msg := msg.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := c.nc.Write([]byte{'N'}); err != nil {
				return errGone
			}
		case *pgproto3.CancelRequest:
			c.server.cancelStatement(msg.ProcessID, msg.SecretKey)
			return errGone
		case *pgproto3.StartupMessage:
			return c.establish(ctx, msg)
		}
	}
	return fatalf("08P01", "expected a startup packet")
}

// establish answers the startup message.
func (c *conn) establish(ctx context.Context, msg *pgproto3.StartupMessage) error {
	user := msg.Parameters["user"]
	if user == "" {
		return fatalf("28000", "no user name in the startup packet")
	}
	c.key = make([]byte, 4)
	if msg.ProtocolVersion >= pgproto3.ProtocolVersion32 {
		c.key = make([]byte, 32) // 3.0 has room for four bytes only
	}
	rand.Read(c.key) // never fails (crypto/rand, Go 1.24)
	if !c.server.register(c) {
		return fatalf("53300", "sorry, too many clients already (limit %d)", c.server.opts.MaxConnections)
	}
	c.session = c.server.open()
	for name, value := range settings(msg.Parameters) {
		if err := c.session.Configure(name, value); err != nil {
			return fatalf("22023", "%v", err)
		}
	}

	var unknown []string
	for name := range msg.Parameters {
		if strings.HasPrefix(name, "_pq_.") {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		c.out.send(&pgproto3.NegotiateProtocolVersion{
			NewestMinorProtocol: msg.ProtocolVersion, // all of it, whatever the name says: libpq and pgx compare it so
			UnrecognizedOptions: unknown,
		})
	}
	c.out.send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{
		{"server_version", c.server.version()},
		{"mz_version", "mzd embedded (not Materialize)"},
		{"server_encoding", "UTF8"},
		{"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"},
		{"integer_datetimes", "on"},
		{"DateStyle", "ISO, MDY"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},
		{"is_superuser", "off"},
		{"session_authorization", user},
		{"application_name", msg.Parameters["application_name"]},
	} {
		c.out.send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	c.out.send(&pgproto3.BackendKeyData{ProcessID: c.pid, SecretKey: c.key})
	c.ready()
	if err := c.out.flush(); err != nil {
		return err
	}
	c.nc.SetDeadline(time.Time{})
	if ctx.Err() != nil { // this may have undone the deadline that the end had set
		return ended(context.Cause(ctx))
	}
	return nil
}

// settings are the session parameters of a startup message: those it has by their names, and those of its options, which are written as on
// a command line: -c name=value or --name=value, with a backslash before a space that separates nothing.
func settings(startup map[string]string) map[string]string {
	out := maps.Clone(startup)
	delete(out, "options")
	delete(out, "database") // there is one, whatever it is called
	words := strings.Fields(strings.NewReplacer(`\\`, `\`, `\ `, "\x00").Replace(startup["options"]))
	for i := 0; i < len(words); i++ {
		setting, long := strings.CutPrefix(words[i], "--")
		if !long {
			if setting = strings.TrimPrefix(words[i], "-c"); setting == "" && i+1 < len(words) {
				i++
				setting = words[i]
			}
		}
		if name, value, ok := strings.Cut(setting, "="); ok {
			out[strings.ReplaceAll(name, "-", "_")] = strings.ReplaceAll(value, "\x00", " ")
		}
	}
	return out
}

// version is the server_version. It begins as Materialize's does, which drivers
// parse, and goes on to say who really answers.
func (s *Server) version() string {
	return "9.5.0 (" + strings.TrimSpace("mzd embedded "+s.opts.Version) + ")"
}

// cancelStatement ends what the connection pid runs, if key is its key. Nobody
// is told whether it was: the protocol has no answer to a cancel request.
func (s *Server) cancelStatement(pid uint32, key []byte) {
	c := s.lookup(pid)
	if c == nil || subtle.ConstantTimeCompare(c.key, key) != 1 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel(errCanceled)
	}
}

// statement runs f as a statement that a cancel request may end. Its error is
// errGone, a *fatalError or an *engine.Error.
func (c *conn) statement(conn context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(conn)
	defer cancel(nil)
	c.setCancel(cancel)
	err := f(ctx)
	c.setCancel(nil)
	if err == nil {
		return nil
	}
	explained, internal := explain(conn, ctx, err)
	if internal {
		c.log.Error("a statement failed", "err", err)
	}
	return explained
}

func (c *conn) setCancel(cancel context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
}

// run handles messages until the connection ends. It returns errGone or a
// *fatalError.
func (c *conn) run(ctx context.Context) error {
	for {
		msg, err := c.in.take(ctx)
		if err != nil {
			return ended(err)
		}
		if err := c.handle(ctx, msg); err != nil {
			return err
		}
	}
}

// handle answers one message. Errors that the connection survives are reported
// here; the others are returned.
func (c *conn) handle(ctx context.Context, msg any) error {
	if _, sync := msg.(pgproto3.Sync); c.skipping && !sync {
		return nil
	}
	var err error
	extended := false
	switch m := msg.(type) {
	case copyData, pgproto3.CopyDone, pgproto3.CopyFail:
		return nil // left over from a COPY that failed; the protocol says to drop them
	case pgproto3.Query:
		err = c.statement(ctx, func(ctx context.Context) error { return c.query(ctx, m.String) })
	case pgproto3.FunctionCall:
		err = errorf("0A000", "function calls over the protocol are not supported")
	case pgproto3.Sync:
		failed := c.skipping
		c.skipping = false
		err = c.statement(ctx, func(ctx context.Context) error { return c.session.EndBatch(ctx, failed) })
	case unexpected:
		return fatalf("08P01", "unexpected message %T", m.msg)
	default:
		err = c.statement(ctx, func(ctx context.Context) error { return c.extended(ctx, msg) })
		extended = true
	}
	if e, ok := errors.AsType[*engine.Error](err); ok {
		c.session.Fail()
		c.out.send(errorResponse("ERROR", e))
	} else if err != nil {
		return err
	}
	if extended {
		if err == nil {
			return nil
		}
		c.skipping = true
		return c.out.flush()
	}
	if c.session.TxStatus() == 'I' {
		for name := range c.portals { // portals end with their transaction
			c.closePortal(name)
		}
	}
	c.ready()
	return c.out.flush()
}

// ready says that the next statement may come.
func (c *conn) ready() {
	c.out.send(&pgproto3.ReadyForQuery{TxStatus: c.session.TxStatus()})
}
