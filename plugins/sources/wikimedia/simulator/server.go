package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// tape is a sequence of messages that some topics share. It may be read
// concurrently.
type tape interface {
	topics() []string
	// topic returns the index of message i's topic.
	topic(i int) int
	// due returns when message i comes, false if it never does. It does not
	// decrease with i.
	due(i int) (time.Time, bool)
	// end returns the number of messages that have come.
	end(now time.Time) int
	// seek returns the message from which on the topic is read.
	seek(topic int, p place, now time.Time) int
	// fresh returns where a reader begins who does not say.
	fresh() place
	// frame appends message i as the stream writes it.
	frame(dst []byte, i int) []byte
}

// place is where somebody wants to begin reading a topic.
type place struct {
	kind  placeKind
	value int64
}

type placeKind int

const (
	atTimestamp placeKind = iota // the first message with this timestamp, in milliseconds, or above
	atOffset                     // the message with this offset
	atEnd                        // behind the last message
)

// Server serves a stream at /v2/stream/recentchange. It is made by [New] or
// [Replay].
type Server struct {
	tape       tape
	closeAfter time.Duration
	upTo       func(connection int) int // see ReplayOptions

	connections atomic.Int64 // since the start
	open        atomic.Int64
}

const (
	path           = "/v2/stream/recentchange"
	maxConnections = 100
	keepAlive      = 15 * time.Second
	// tick is how long events are held back to be sent together.
	tick = 10 * time.Millisecond
	// maxWrite is how many bytes are computed before they are written.
	maxWrite = 64 << 10
	// writeTimeout is how long a client may leave a write waiting.
	writeTimeout      = time.Minute
	defaultCloseAfter = 15 * time.Minute
)

// Serve serves on ln until ctx ends, whose error it returns then, and closes
// ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(down)
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close() // somebody does not read
		}
	})
	err := srv.Serve(ln)
	if !stop() {
		<-down
		return ctx.Err()
	}
	srv.Close()
	return fmt.Errorf("serve simulated edits: %w", err)
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != path {
		refuse(w, http.StatusNotFound, "no such stream; there is "+path)
		return
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		refuse(w, http.StatusMethodNotAllowed, "GET only")
		return
	}
	if s.open.Add(1) > maxConnections {
		s.open.Add(-1)
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusTooManyRequests, "too many connections")
		return
	}
	defer s.open.Add(-1)
	from, err := s.places(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	s.stream(w, r, from)
}

func refuse(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"status": status, "title": http.StatusText(status), "detail": detail})
}

// places returns, for each topic, from which message on the request wants it.
func (s *Server) places(r *http.Request) ([]int, error) {
	now := time.Now()
	topics := s.tape.topics()
	begin := s.tape.fresh()
	if since := r.URL.Query().Get("since"); since != "" {
		ms, err := parseSince(since)
		if err != nil {
			return nil, err
		}
		begin = place{kind: atTimestamp, value: ms}
	}
	at := make([]place, len(topics))
	for i := range at {
		at[i] = begin
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		var entries []struct {
			Topic             string
			Partition         int
			Timestamp, Offset *int64
		}
		if err := json.Unmarshal([]byte(id), &entries); err != nil {
			return nil, fmt.Errorf("Last-Event-ID is not a list of positions: %w", err)
		}
		for i := range at {
			at[i] = place{kind: atEnd} // what the list does not name
		}
		for _, e := range entries {
			i := slices.Index(topics, e.Topic)
			switch {
			case i < 0 || e.Partition != 0:
				return nil, fmt.Errorf("Last-Event-ID: no topic %q, partition %d", e.Topic, e.Partition)
			case e.Timestamp != nil:
				at[i] = place{kind: atTimestamp, value: *e.Timestamp}
			case e.Offset != nil && *e.Offset >= 0:
				at[i] = place{kind: atOffset, value: *e.Offset}
			}
		}
	}
	from := make([]int, len(topics))
	for i := range from {
		from[i] = s.tape.seek(i, at[i], now)
	}
	return from, nil
}

func parseSince(s string) (int64, error) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return ms, nil
	}
	// A "+" that nobody encoded arrives as a space.
	t, err := time.Parse(time.RFC3339, strings.ReplaceAll(s, " ", "+"))
	if err != nil {
		return 0, errors.New("since is neither a time in ISO 8601 nor milliseconds since 1970")
	}
	return t.UnixMilli(), nil
}

// stream writes the stream, each topic from its message on, until the client
// goes away or the connection has lasted long enough.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, from []int) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache, no-store")
	closeAfter := s.closeAfter
	if closeAfter <= 0 {
		closeAfter = defaultCloseAfter
	}
	closing := time.NewTimer(closeAfter)
	defer closing.Stop()
	limit := -1
	if connection := int(s.connections.Add(1)) - 1; s.upTo != nil {
		limit = s.upTo(connection)
	}

	rc := http.NewResponseController(w)
	write := func(b []byte) bool {
		rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every ResponseWriter has one
		_, err := w.Write(b)
		return err == nil && rc.Flush() == nil
	}
	if !write([]byte(":ok\n\n")) {
		return
	}
	var buf []byte
	for i := slices.Min(from); ; {
		now := time.Now()
		buf = buf[:0]
		wait := keepAlive
		for len(buf) < maxWrite && i != limit {
			due, ok := s.tape.due(i)
			if !ok {
				break
			}
			if due.After(now) {
				wait = max(due.Sub(now), tick)
				break
			}
			if i >= from[s.tape.topic(i)] {
				buf = s.tape.frame(buf, i)
			}
			i++
		}
		full := len(buf) >= maxWrite
		if len(buf) > 0 && !write(buf) {
			return
		}
		if i == limit {
			s.breakOff(buf, i, write)
		}
		if full && r.Context().Err() == nil {
			continue
		}
		pause := time.NewTimer(min(wait, keepAlive))
		select {
		case <-pause.C:
			if wait >= keepAlive && !write([]byte(":keep-alive\n\n")) {
				return
			}
		case <-closing.C:
			pause.Stop()
			s.breakOff(buf, i, write)
		case <-r.Context().Done():
			pause.Stop()
			return
		}
	}
}

// breakOff ends the connection in the middle of message i, as servers and
// proxies do that have had enough of a connection. It does not return.
func (s *Server) breakOff(buf []byte, i int, write func([]byte) bool) {
	if _, ok := s.tape.due(i); ok {
		buf = s.tape.frame(buf[:0], i)
		write(buf[:len(buf)/2])
	}
	panic(http.ErrAbortHandler) // net/http's way to say so
}
