// Package conformance checks that a server speaks the protocol of streams and
// snapshots as docs/protocol.md specifies it: each of its numbered rules is a
// check here. It knows the server by its URL only, so that it runs against the
// sink alone, the sink in the daemon and the sink as a process of its own.
//
// Where to begin: a test makes a [Subject] and calls [Run], or [Check] for each
// rule by itself.
package conformance

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// A Subject is a server to check, and the levers that rules need. It serves
// the views
//
//	people   name text, n int8; key name   the rows of a table, none at first
//	counter  n int8                        how many rows the table has
//	fixed    n int8                        the row [7], for ever
//
// of which people and counter are views over the same table.
type Subject struct {
	// URL is where it serves, as in http://127.0.0.1:8875.
	URL string
	// Dial connects to it; nil: by TCP to the host of the URL.
	Dial func(ctx context.Context) (net.Conn, error)
	// Table is the table under people and counter.
	Table Table

	// The rest are levers that not every subject has. The rules that need one
	// are skipped where it is nil.

	// Pass lets time go on for all views while nothing changes. Where it is nil,
	// time goes on by itself.
	Pass func()
	// Sealed says that the database knows that fixed never changes.
	Sealed bool
	// Restart stops the server, lets one begin in its place, and returns once it
	// serves.
	Restart func()
	// Forgets says that history begins with the server.
	Forgets bool
	// NewHistory makes people begin a new history, with the rows that it has.
	NewHistory func()
	// Later is a view that has no data yet, with the columns of fixed; Begin gives
	// it some.
	Later string
	Begin func()
	// Patient says that waiting for minutes costs nothing, as in a bubble of
	// testing/synctest.
	Patient bool
}

// A Table is under views. Each call is one transaction, but that Delete may take
// several for many bytes of names.
type Table interface {
	Insert(rows ...Row)
	// Delete deletes all rows with one of the names.
	Delete(names ...string)
	// Move takes from the number of one row, and adds to that of another one.
	Move(from, to string, by int64)
}

// Row is a row of the table.
type Row struct {
	Name string
	N    int64
}

// Check checks one of [Rules].
func Check(t *testing.T, name string, s Subject) {
	for _, r := range rules {
		if r.name == name {
			r.check(newCheck(t, s))
			return
		}
	}
	t.Fatalf("there is no rule %s", name)
}

// Run checks every rule, each as a test of its own. The subject is left with an
// empty table.
func Run(t *testing.T, s Subject) {
	quiet := newCheck(t, s).listen()
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			c := newCheck(t, s)
			c.quiet = quiet
			r.check(c)
		})
	}
}

func newCheck(t *testing.T, s Subject) *check {
	patience := time.Minute // no measure of speed: how long a check may take that has gone wrong
	if s.Patient {
		patience = time.Hour
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	c := &check{T: t, Subject: s, ctx: ctx}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return c.dial(ctx)
	}}
	c.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		cancel()
		transport.CloseIdleConnections()
	})
	return c
}

// Rules returns the names of the rules that are checked, in order.
func Rules() []string {
	var names []string
	for _, r := range rules {
		names = append(names, r.name)
	}
	return names
}

// A rule is a numbered rule of the document.
type rule struct {
	name  string
	check func(c *check)
}

// A check is one rule being checked.
type check struct {
	*testing.T
	Subject
	ctx    context.Context
	client *http.Client
	quiet  func() []error // waits for streams in which nothing happens: what was wrong with them; nil: nobody listens yet
}

// quietTransports are those that speak where nothing happens, and by a message.
var quietTransports = []string{"websocket", "sse"}

// listen begins to wait for what streams say in which nothing happens, beside all
// checks because that takes a while.
func (c *check) listen() (heard func() []error) {
	quiet := make(chan error, len(quietTransports))
	for _, transport := range quietTransports {
		s := c.open(transport, "/api/stream/fixed")
		s.receive()
		go func() {
			m, err := s.read()
			if err == nil && (m.Type != "progress" || s.Sealed && m.Token != s.token) {
				err = fmt.Errorf("%s: got %s, want progress", transport, m.text)
			}
			quiet <- err
		}()
	}
	return sync.OnceValue(func() (wrong []error) {
		for range quietTransports {
			if err := <-quiet; err != nil {
				wrong = append(wrong, err)
			}
		}
		return wrong
	})
}

// restart restarts the server, once the streams in which nothing happens have spoken.
func (c *check) restart() {
	if c.quiet != nil {
		c.quiet()
	}
	c.Restart()
}

func (c *check) dial(ctx context.Context) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx)
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, "tcp", u.Host)
}

// needs skips the rule where a lever is missing.
func (c *check) needs(there bool, lever string) {
	if !there {
		c.Skipf("the subject has no lever %s", lever)
	}
}

// pass lets time go on.
func (c *check) pass() {
	if c.Pass != nil {
		c.Pass()
	}
}

// empty is deferred by checks that fill the table.
func (c *check) empty(names ...string) { c.Table.Delete(names...) }
