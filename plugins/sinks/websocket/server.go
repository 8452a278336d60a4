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
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute // of a connection without a request
	maxHeaderBytes    = 12 << 10        // net/http adds 4 KiB
	maxURIBytes       = 8 << 10
	shutdownGrace     = 2 * time.Second // to take the rest of a message and the goodbye
)

// A server is one run of [Sink.Serve].
type server struct {
	*Sink
	views    []core.CutReader
	byName   map[string]core.CutReader
	backend  backend
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
	if err := s.start(); err != nil {
		ln.Close()
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
		Handler:           s.handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // what strangers do
		BaseContext:       func(net.Listener) context.Context { return streams },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if encrypted, ok := c.(*tls.Conn); ok {
				c = encrypted.NetConn()
			}
			return context.WithValue(ctx, connKey{}, c.(*gatedConn))
		},
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked: // a hijacker is a request until it returns
				conns.Done()
			}
		},
	}
	gate := net.Listener(newGate(ln, s.settings))
	if s.tls != nil {
		gate = tls.NewListener(gate, s.tls)
	}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(gate) }()

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve streams on %s: %w", s.addr, err)
	case <-ctx.Done():
		gate.Close()
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

// start makes the loops. One shard writes as fast as the kernel takes it, and
// more of them help where there are cores that nothing else needs.
func (s *server) start() error {
	var err error
	if s.waiter, err = newWaiter(s); err != nil {
		return err
	}
	for range max(1, runtime.GOMAXPROCS(0)-1) {
		shard, err := newShard(s)
		if err != nil {
			return err // what is open is closed by the garbage collector
		}
		s.shards = append(s.shards, shard)
	}
	return nil
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

type connKey struct{}

// connOf returns the connection of a request.
func connOf(r *http.Request) *gatedConn { return r.Context().Value(connKey{}).(*gatedConn) }

// handler routes requests.
func (s *server) handler() http.Handler {
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
		defer s.requests.leave()
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
	case connOf(r).refused != nil:
		return connOf(r).refused
	case len(r.RequestURI) > maxURIBytes:
		return &errLongURI
	case r.ContentLength != 0:
		return &errBody
	}
	return nil
}

// requests counts the requests that are being served.
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
