// Package wikimedia is a source of edits and other events of Wikipedia and its
// sister projects, from Wikimedia's EventStreams (https://wikitech.wikimedia.org/wiki/Event_Platform/EventStreams).
//
// It lands every event as one line, each at least once; [core.Event.ID] is the
// event's meta.id and tells the repeats apart that follow a reconnection. The
// artificial "canary" events by which Wikimedia watches its streams are left
// out.
package wikimedia

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	neturl "net/url"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
)

// Source reads one stream. It is made by [New]; its Run may be called again
// after it returned, but not twice at a time.
type Source struct {
	settings  Settings
	url       string // of the stream
	userAgent string
	log       *slog.Logger

	canaries, invalid, tooLarge, notMessages atomic.Uint64
}

var (
	_ core.Source     = (*Source)(nil)
	_ core.Identifier = (*Source)(nil)
)

// New makes a source from its settings. It connects to nothing.
func New(ctx context.Context, s Settings) (*Source, error) {
	if err := s.Validate(); err != nil {
		return nil, &plugins.SettingsError{Plugin: "wikimedia", Err: err}
	}
	s = s.withDefaults()
	return &Source{
		settings:  s,
		url:       strings.TrimSuffix(s.URL, "/") + "/" + s.Stream,
		userAgent: fmt.Sprintf("mzd/%s (%s)", version(), s.Contact),
		log:       plugins.EnvOf(ctx).Logger,
	}, nil
}

// version returns the version that mzd was built as.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		return info.Main.Version[1:]
	}
	return "dev"
}

// routineAge is the age at which a connection may end in any way: Wikimedia
// ends each after about 15 minutes, and not always politely.
const routineAge = 10 * time.Minute

// Run implements [core.Source]: it reads one connection until it ends. nil
// means that it ended as connections do; whoever runs the source decides when
// to come back.
func (s *Source) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	at, err := parsePosition(cursor)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // proxies from the environment, TLS, HTTP/2
	transport.ReadBufferSize = readSize
	transport.DisableCompression = true // nothing may sit in a decompressor
	defer transport.CloseIdleConnections()

	conn, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	stall := time.AfterFunc(time.Duration(s.settings.StallTimeout), func() { hangUp(errStalled) })
	defer stall.Stop()

	resp, err := s.connect(conn, &http.Client{Transport: transport}, cursor)
	if err != nil {
		return s.ended(ctx, conn, err)
	}
	defer resp.Body.Close()
	if err := checkResponse(s.url, s.settings.Stream, resp); err != nil {
		return err
	}
	stall.Stop()
	connected := time.Now()
	if err := emit(ctx); err != nil { // no events yet: it says that we are connected
		return err
	}
	stream := newReader(&watchedReader{resp.Body, stall, time.Duration(s.settings.StallTimeout)}, int(s.settings.MaxEvent))
	var batch batch
	for {
		messages, readErr := stream.next()
		if s.skip(&s.tooLarge, stream.takeSkipped()) {
			s.log.Warn("event left out: it is larger than max_event", "max_event", s.settings.MaxEvent)
		}
		if events := s.convert(&batch, messages, &at); len(events) > 0 {
			if err := emit(ctx, events...); err != nil {
				return err
			}
		}
		if readErr != nil {
			if conn.Err() == nil && isRoutine(readErr, time.Since(connected)) {
				return nil
			}
			return s.ended(ctx, conn, readErr)
		}
	}
}

// connect asks for the stream from the cursor on.
func (s *Source) connect(ctx context.Context, client *http.Client, cursor string) (*http.Response, error) {
	url := s.url
	if cursor == "" && s.settings.Since != "" {
		url += "?since=" + neturl.QueryEscape(s.settings.Since)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("User-Agent", s.userAgent)
	if cursor != "" {
		req.Header.Set("Last-Event-ID", cursor)
	}
	return client.Do(req)
}

// isRoutine reports whether a connection of that age, which the other side
// ended, ended as they all do.
func isRoutine(err error, age time.Duration) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || age >= routineAge
}

// ended returns what Run ends with after err on the connection, whose context
// is conn.
func (s *Source) ended(ctx, conn context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case context.Cause(conn) == errStalled:
		return &runError{reason: "stalled", err: fmt.Errorf("GET %s: %w for %s", s.url, errStalled, s.settings.StallTimeout)}
	}
	return &runError{reason: "network", err: fmt.Errorf("read %s: %w", s.url, err)}
}

// watchedReader lets the timer run while it waits for bytes, and only then.
type watchedReader struct {
	io.Reader
	stall *time.Timer
	after time.Duration
}

func (w *watchedReader) Read(p []byte) (int, error) {
	w.stall.Reset(w.after)
	defer w.stall.Stop()
	return w.Reader.Read(p)
}
