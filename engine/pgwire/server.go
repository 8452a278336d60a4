// Package pgwire serves the embedded engine over the PostgreSQL wire protocol,
// version 3, so that psql, drivers of any language and the daemon itself (see
// [Server.Dial]) reach it in the way they would reach Materialize.
//
// [New] makes a [Server]; [Server.Serve] runs it on a listener and [Server.Run]
// on in-process connections. Both may run at once, and Serve on several
// listeners.
//
// It has what a streaming database needs of the protocol: simple and extended
// queries, portals that can be suspended, text and binary results, COPY (...)
// TO STDOUT, notices, and cancellation. There is no authentication and no TLS,
// so a listener belongs on a loopback address.
package pgwire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
)

// Options configures a [Server]. The zero value is ready to use.
type Options struct {
	// Logger receives a debug record per connection and an error record for
	// every internal error. Nil discards them.
	Logger *slog.Logger

	// MaxConnections bounds the sessions of all listeners together, and, once
	// more, the connections that have not finished starting up. In-process
	// connections are not counted, so that strangers cannot keep the daemon
	// out. Default 100.
	MaxConnections int

	// MaxMessageBytes bounds one message of a client, and so the text of a
	// statement, and also what a connection may send ahead. Default 1 MiB.
	MaxMessageBytes int

	// StartupTimeout bounds the time from the connection to the end of its
	// startup. Default 10 s.
	StartupTimeout time.Duration

	// Version of mzd, shown within server_version. May be empty.
	Version string
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 100
	}
	if o.MaxMessageBytes <= 0 {
		o.MaxMessageBytes = 1 << 20
	}
	if o.StartupTimeout <= 0 {
		o.StartupTimeout = 10 * time.Second
	}
	return o
}

// Server serves one engine to any number of connections. Its methods may be
// called concurrently.
type Server struct {
	open  func() session
	opts  Options
	local *pipeListener

	mu       sync.Mutex // guards the fields below
	conns    map[uint32]*conn
	lastPID  uint32
	sockets  int // connections of listeners, starting up or established
	sessions int // of these, established
}

// session is what a connection needs of the engine. It is used by one goroutine
// at a time. [engine.Session] implements it.
type session interface {
	Parse(query string) ([]engine.Statement, error)
	Prepare(engine.Statement, []flow.Type) (engine.Statement, []engine.Field, error)
	Execute(context.Context, engine.Statement) (*engine.Result, error)
	Batch()
	EndBatch(ctx context.Context, failed bool) error
	TxStatus() byte
	Configure(name, value string) error
	Cursor(name string) []engine.Field
	Fail()
	Close()
}

var _ session = (*engine.Session)(nil)

// New returns a server of e. It starts nothing.
func New(e *engine.Engine, o Options) *Server {
	return newServer(func() session { return e.NewSession() }, o)
}

func newServer(open func() session, o Options) *Server {
	return &Server{
		open:  open,
		opts:  o.withDefaults(),
		local: newPipeListener(),
		conns: map[uint32]*conn{},
	}
}

// Serve accepts connections from ln until ctx ends, and then returns ctx.Err().
// It closes ln. Clients that are connected then are told so (SQLSTATE 57P01),
// and every connection has ended when Serve returns. Any other error means that
// the listener failed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, true)
}

// Run serves the connections that [Server.Dial] makes, until ctx ends, and then
// returns ctx.Err(); they have all ended by then. Run may be called once.
func (s *Server) Run(ctx context.Context) error {
	return s.serve(ctx, s.local, false)
}

// Dial opens a connection to the server within the process, without a port. It
// waits until [Server.Run] is running or ctx ends; once Run has returned it
// fails with net.ErrClosed. ctx bounds Dial alone, not the connection.
//
// It is what the daemon gives to its client as dial function.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	return s.local.dial(ctx)
}

func (s *Server) serve(ctx context.Context, ln net.Listener, limited bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()

	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return ctx.Err()
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			s.opts.Logger.Warn("cannot accept a connection", "err", err)
			if !pause(ctx, 100*time.Millisecond) {
				return ctx.Err()
			}
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		conns.Go(func() { s.serveConn(ctx, nc, limited) })
	}
}

// serveConn serves one connection from its first byte to its end. Nothing that
// a client sends, and no defect that it meets, reaches beyond it.
func (s *Server) serveConn(ctx context.Context, nc net.Conn, limited bool) {
	defer nc.Close()
	if limited {
		if !s.enter() {
			return // not even started up: not worth a word
		}
		defer s.leave()
	}
	c := newConn(s, nc, limited)
	c.serve(ctx)
}

// enter counts a connection of a listener. It is false when there are too many
// to even let this one start up.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sockets >= 2*s.opts.MaxConnections {
		return false
	}
	s.sockets++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets--
}

// register makes c an established session and gives it the process id by which
// a client may cancel. It is false when there are too many.
func (s *Server) register(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.limited {
		if s.sessions >= s.opts.MaxConnections {
			return false
		}
		s.sessions++
	}
	for { // skip 0, and after four thousand million connections those still in use
		s.lastPID++
		if s.lastPID != 0 && s.conns[s.lastPID] == nil {
			break
		}
	}
	c.pid = s.lastPID
	s.conns[c.pid] = c
	return true
}

func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[c.pid] != c {
		return // it never got that far
	}
	delete(s.conns, c.pid)
	if c.limited {
		s.sessions--
	}
}

func (s *Server) lookup(pid uint32) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[pid]
}

// pause waits for d, or returns false when ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pipeListener is a listener of connections from within the process.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newPipeListener() *pipeListener {
	closed := make(chan struct{})
	return &pipeListener{
		conns:  make(chan net.Conn),
		closed: closed,
		close:  sync.OnceFunc(func() { close(closed) }),
	}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, fmt.Errorf("dial the embedded engine: %w", net.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("dial the embedded engine: %w", context.Cause(ctx))
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.close(); return nil }
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
