package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mzdio/mzd/core"
)

const (
	requestTimeout = 10 * time.Second // from the connection to the end of the first request's head
	idleTimeout    = 2 * time.Minute  // of a connection without a request
	maxHeaderBytes = 12 << 10         // net/http adds 4 KiB
	maxURIBytes    = 8 << 10
	shutdownGrace  = 2 * time.Second // to take the rest of a message and the goodbye
)

// A server is one run of [Sink.Serve].
type server struct {
	*Sink
	views    []core.CutReader
	byName   map[string]core.CutReader
	backend  backend
	handler  http.Handler
	door     door // nil: net/http accepts
	lobby    *lobby
	shards   []*shard
	waiter   *waiter
	turn     atomic.Uint32 // spreads connections over the shards
	cache    cache
	refusals refusals
	requests requests
}

func newServer(s *Sink, views []core.Reader) (*server, error) {
	srv := &server{Sink: s, byName: make(map[string]core.CutReader)}
	srv.requests.idle = make(chan struct{})
	for _, v := range views {
		r, ok := v.(core.CutReader)
		if !ok {
			return nil, fmt.Errorf("websocket: view %s cannot be read at a chosen time: %w", v.View().Name, core.ErrPermanent)
		}
		srv.views = append(srv.views, r)
		srv.byName[v.View().Name] = r
	}
	return srv, nil
}

// run serves until ctx ends or the listener fails, and returns when everything
// it started has ended.
func (s *server) run(ctx context.Context, ln net.Listener) error {
	s.backend = backendOf(ln)
	s.handler = s.routes()
	if err := s.start(ln); err != nil {
		s.abandon(ln)
		return err
	}
	streams, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var conns, shards, rest sync.WaitGroup
	for _, shard := range s.shards {
		shards.Go(shard.run)
	}
	rest.Go(s.waiter.run)
	for _, r := range s.views {
		rest.Go(func() { s.watch(streams, r) })
	}
	web := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // what strangers do
		BaseContext:       func(net.Listener) context.Context { return streams },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, gated(c))
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateIdle:
				s.answered(c)
			case http.StateClosed:
				s.answered(c)
				conns.Done()
			case http.StateHijacked: // a hijacker is a request until it returns
				gated(c).answering = false
				conns.Done()
			}
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- s.accept(web, ln) }()

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve streams on %s: %w", s.addr, err)
		s.shut(ln)
	case <-ctx.Done():
		s.shut(ln)
		<-failed
	}
	stop(errStopped)
	for _, shard := range s.shards {
		shard.stop()
	}
	shards.Wait()
	s.waiter.stop()
	select {
	case <-s.requests.drain():
	case <-time.After(shutdownGrace):
	}
	web.Close()
	<-s.requests.idle
	conns.Wait()
	s.waiter.finish()
	rest.Wait()
	return err
}

// accept lets connections in until shut is called.
func (s *server) accept(web *http.Server, ln net.Listener) error {
	g := newGate(ln, s.settings)
	switch {
	case s.tls != nil:
		return web.Serve(tls.NewListener(g, s.tls))
	case s.door == nil:
		return web.Serve(g)
	}
	var inside sync.WaitGroup
	inside.Go(func() { web.Serve(s.lobby) })
	defer inside.Wait()
	defer s.lobby.Close()
	return s.serveDoor(g)
}

func (s *server) shut(ln net.Listener) {
	ln.Close()
	if s.door != nil {
		s.door.close()
	}
}

// start makes the loops and, without TLS, the door. One shard writes as fast as
// the kernel takes it, and more of them help where there are cores that nothing
// else needs.
func (s *server) start(ln net.Listener) (err error) {
	if s.waiter, err = newWaiter(s); err != nil {
		return err
	}
	for range max(1, runtime.GOMAXPROCS(0)-1) {
		shard, err := newShard(s)
		if err != nil {
			return err
		}
		s.shards = append(s.shards, shard)
	}
	if s.tls == nil {
		s.lobby = newLobby(s, ln)
		s.door, err = s.backend.open(ln)
	}
	return err
}

// abandon closes what start has made before it failed.
func (s *server) abandon(ln net.Listener) {
	s.shut(ln)
	for _, shard := range s.shards {
		shard.close()
	}
	if s.waiter != nil {
		s.waiter.close()
	}
}

// watch tells the shards when a log has moved, and now and then when its view
// has stopped.
func (s *server) watch(ctx context.Context, r core.CutReader) {
	troubled, _ := r.(core.TroubledReader)
	looks := time.NewTicker(glance)
	defer looks.Stop()
	for ctx.Err() == nil {
		_, moved := r.Frontier()
		for _, shard := range s.shards {
			shard.moved(r)
		}
		for waiting := true; waiting; {
			select {
			case <-moved:
				waiting = false
			case <-looks.C:
				waiting = troubled == nil || troubled.Trouble() == nil
			case <-ctx.Done():
				return
			}
		}
	}
}

// errStopped is why requests end when the server does.
var errStopped = errors.New("the server is stopping")

// gated returns the connection of the gate that one of net/http is.
func gated(c net.Conn) *gatedConn {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	return c.(*gatedConn)
}

// answered lets go of the request of a connection, if there was one: net/http
// has sent the answer, or could not.
func (s *server) answered(c net.Conn) {
	if g := gated(c); g.answering {
		g.answering = false
		s.requests.leave()
	}
}

type connKey struct{}

// connOf returns the connection of a request, nil if it came through a door.
func connOf(r *http.Request) *gatedConn {
	c, _ := r.Context().Value(connKey{}).(*gatedConn)
	return c
}

// routes returns what answers requests.
func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/stream", s.serveStream)
	mux.HandleFunc("GET /api/stream/{view}", s.serveStream)
	mux.HandleFunc("GET /api/v1/stream/{view}", s.serveV1)
	mux.HandleFunc("GET /api/views", s.serveViews)
	mux.HandleFunc("GET /api/views/{view}", s.serveSnapshot)
	mux.HandleFunc("GET /demo", s.serveActions)
	mux.HandleFunc("POST /demo/{action}", s.serveAction)
	mux.HandleFunc("/", s.serveAsset)
	origins := origins{loopback: isLoopback(s.addr), allowed: s.settings.Origins}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.requests.enter() {
			w.Header().Set("Connection", "close")
			writeError(w, errStopping)
			return
		}
		if c := connOf(r); c != nil {
			c.answering = true
		}
		defer func() {
			if c := connOf(r); c == nil || !c.answering {
				s.requests.leave()
			}
		}()
		if problem := beyond(r); problem != nil {
			w.Header().Set("Connection", "close")
			writeError(w, *problem)
			return
		}
		if refused := origins.check(r); refused != nil {
			s.refuse(w, refused)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/") {
			allowOrigin(w.Header(), r.Header.Get("Origin"))
		}
		if !strings.HasPrefix(r.URL.Path, "/") { // as CONNECT has it
			serveUnknown(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// beyond returns the limit that a request exceeds, if there is one.
func beyond(r *http.Request) *apiError {
	switch {
	case connOf(r) != nil && connOf(r).refused != nil:
		return connOf(r).refused
	case len(r.RequestURI) > maxURIBytes:
		return &errLongURI
	case r.ContentLength != 0:
		return &errBody
	}
	return nil
}

// requests counts the requests that are being served. What a handler has written
// net/http may send after it has returned, so that most end with that.
type requests struct {
	// mu guards count and draining. idle is closed once draining is set and the
	// count is zero.
	mu       sync.Mutex
	count    int
	draining bool
	idle     chan struct{}
}

func (r *requests) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining {
		return false
	}
	r.count++
	return true
}

func (r *requests) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count--; r.draining && r.count == 0 {
		close(r.idle)
	}
}

// drain lets no more requests in; the channel is closed when the last one has
// left.
func (r *requests) drain() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining = true; r.count == 0 {
		close(r.idle)
	}
	return r.idle
}
