// Package mz reads views from Materialize, old or new, and from the embedded
// engine, which speaks the same protocol.
//
// [New] makes a [Client] from a URL; [Client.Subscribe] opens a [Stream], which
// hands on the changes of one view in closed batches: everything that happens
// below a timestamp, never a part of it. What differs between the releases of
// fifteen years (the statement, its columns, how it says that a snapshot is
// complete) ends in this package.
//
// The package keeps no state between streams. Whoever follows a view holds the
// position and the identity of what it has, and gives them to the next
// Subscribe, which resumes there if the upstream is still the same one and
// still knows.
package mz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core"
)

// Embedded is the URL of the engine within the process; it needs [Config.Dial].
const Embedded = "embedded"

// Config says where the database is.
type Config struct {
	// URL is a postgres:// URL as libpq reads it (user, password, host, port,
	// database, sslmode, and session settings such as cluster as parameters),
	// or [Embedded].
	URL string

	// Dial opens connections. Nil dials TCP with keepalives that notice a dead
	// peer within a minute.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Logger gets what the caller cannot see in a result: notices of the
	// server. Nil discards it.
	Logger *slog.Logger
}

// Client opens streams. Its methods may be called concurrently; each uses a
// connection of its own.
type Client struct {
	pg  *pgconn.Config
	log *slog.Logger
}

// New checks the configuration. It connects to nothing. Its errors never
// contain the password.
func New(c Config) (*Client, error) {
	log := c.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	target := c.URL
	if target == Embedded {
		if c.Dial == nil {
			return nil, errors.New("url embedded: no embedded engine in this process")
		}
		target = "postgres://mzd@embedded/materialize?sslmode=disable"
	}
	pg, err := parseURL(target)
	if err != nil {
		return nil, err
	}
	pg.DialFunc = (&net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 4},
	}).DialContext
	if c.Dial != nil {
		pg.DialFunc = c.Dial
		pg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	}
	if pg.ConnectTimeout == 0 {
		pg.ConnectTimeout = 10 * time.Second
	}
	if pg.RuntimeParams["application_name"] == "" {
		pg.RuntimeParams["application_name"] = "mzd"
	}
	return &Client{pg: pg, log: log}, nil
}

// parseURL reads a postgres URL. What the parsers below say of a URL that they
// cannot read may quote any part of it, so it is not passed on.
func parseURL(s string) (*pgconn.Config, error) {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		return nil, errors.New(`url: must be "embedded" or begin with postgres://`)
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("url: not a valid URL (special characters in a user name or password are written as %XX)")
	}
	pg, err := pgconn.ParseConfig(s)
	if err != nil {
		reason := "check its parameters"
		if cause := errors.Unwrap(err); cause != nil {
			reason = cause.Error()
		}
		if hidden := secrets(u); containsAny(reason, hidden) {
			reason = "check its parameters"
		}
		return nil, fmt.Errorf("url: postgres://%s%s: %s", u.Host, u.Path, reason)
	}
	return pg, nil
}

// secrets are the parts of a URL that no message may show.
func secrets(u *url.URL) []string {
	var s []string
	if p, ok := u.User.Password(); ok {
		s = append(s, p)
	}
	for _, key := range []string{"password", "sslpassword"} {
		s = append(s, u.Query()[key]...)
	}
	return s
}

func containsAny(s string, parts []string) bool {
	for _, p := range parts {
		if p != "" && strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// Connect opens a connection for whoever writes into the database, who closes it.
// Errors are of type [*Error].
func (c *Client) Connect(ctx context.Context) (*pgconn.PgConn, error) {
	pg, err := pgconn.ConnectConfig(ctx, c.pg)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	return pg, nil
}

// Request asks for the changes of one view.
type Request struct {
	// Name of the view, written as in SQL: top10, public.top10, "Top 10".
	Name string

	// Query is the SELECT whose changes are wanted instead of those of the
	// view Name, which is then a name for messages only.
	Query string

	// Upper and Identity tell what the caller holds: everything below Upper,
	// of the history that Identity names (see [Stream.Identity]). Zero: nothing.
	Upper    core.Time
	Identity string

	// Afresh asks for the whole view also where the stream could resume.
	Afresh bool
}

// Subscribe opens a stream of the view's changes. ctx bounds the opening, not
// the stream, which lives until [Stream.Close] or its first error.
//
// If the caller holds a history of the same view of the same upstream, and the
// upstream still has what came after it, the stream resumes there; otherwise it
// begins with a snapshot (see [Stream.Resumed] and [Stream.Restarted]). Errors
// are of type [*Error].
func (c *Client) Subscribe(ctx context.Context, r Request) (*Stream, error) {
	s, err := c.open(ctx, r, r.Upper > 0 && !r.Afresh)
	if gone, ok := errors.AsType[historyLost](err); ok {
		if s, err = c.open(ctx, r, false); err == nil && s.restarted == "" {
			s.restarted = gone.why
		}
	}
	if err != nil {
		return nil, ofView(err, r.Name)
	}
	return s, nil
}

// historyLost says why a stream cannot resume after all.
type historyLost struct{ why string }

func (e historyLost) Error() string { return e.why }

// open makes one attempt at a stream.
func (c *Client) open(ctx context.Context, r Request, resume bool) (*Stream, error) {
	target, err := targetOf(r)
	if err != nil {
		return nil, err
	}
	w, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.begin(ctx, w, r, target, resume)
	if err != nil {
		w.close()
		return nil, err
	}
	return s, nil
}

// begin starts the stream on a fresh connection.
func (c *Client) begin(ctx context.Context, w *wire, r Request, target target, resume bool) (*Stream, error) {
	d, err := detect(ctx, w)
	if err != nil {
		return nil, err
	}
	if err := d.supports(target); err != nil {
		return nil, err
	}
	id, objects, err := identify(ctx, w, d, target)
	if err != nil {
		return nil, err
	}
	s := &Stream{wire: w, name: r.Name, log: c.log.With("view", r.Name), catalog: d.objects(target.names), objects: objects}
	known := id.since(r.Identity) == ""
	s.resumed = resume && known
	switch {
	case s.resumed:
		err = s.resume(ctx, d, target, r.Upper)
	case known:
		err = s.snapshot(ctx, d, target, r.Upper)
	default: // what the caller holds is of other clocks
		err = s.snapshot(ctx, d, target, 0)
	}
	if err != nil {
		return nil, err
	}
	id.columns = digestColumns(s.columns)
	s.identity = id.String()
	changed := id.since(r.Identity)
	switch {
	case s.resumed && changed != "":
		return nil, historyLost{changed}
	case !s.resumed && changed == "":
		s.progress.floor = r.Upper // the caller wants to see nothing that is older
	case r.Upper > 0:
		s.restarted = changed
	}
	s.stopLooking = func() {}
	if !d.embedded { // which ends the streams of what it drops
		s.lookAfter(ctx, c.connect)
	}
	return s, nil
}

// resume continues at upper.
func (s *Stream) resume(ctx context.Context, d dialect, target target, upper core.Time) error {
	s.progress = resumeAt(upper)
	err := s.startAt(ctx, d.resume(target, upper-1))
	if isHistoryGone(err) {
		return historyLost{"the upstream has forgotten what happened since the last position"}
	}
	return err
}

// snapshot starts a stream from the beginning. Before v0.50 the server does not
// say at what time the snapshot is, so it is told: slightly ahead of its clock, or it
// might be gone already, and not before what the caller holds. For a time that is
// far ahead the server would wait, and say nothing.
func (s *Stream) snapshot(ctx context.Context, d dialect, target target, upper core.Time) error {
	if d.leads() {
		s.progress = snapshotAnywhere()
		return s.start(ctx, d.snapshot(target, nil))
	}
	now, err := s.wire.now(ctx)
	if err != nil {
		return err
	}
	asOf := max(core.Time(now.Add(ahead).UnixMilli()), upper)
	s.progress = snapshotAt(asOf)
	err = s.startAt(ctx, d.snapshot(target, &asOf))
	if since, ok := sinceOf(err); ok { // the view's times are ahead of the clock: the error shows them
		asOf = max(since+core.Time(ahead.Milliseconds()), upper)
		s.progress = snapshotAt(asOf)
		err = s.startAt(ctx, d.snapshot(target, &asOf))
	}
	return err
}

// ahead is how far in the future old servers are asked for a snapshot.
const ahead = time.Second
