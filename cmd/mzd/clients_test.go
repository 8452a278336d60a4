package main_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// TestClients lets many clients of all kinds come, go, stall and resume at random
// while edits come in. Every state that any of them passes through must be one
// that the view had, at that very time: each has the checksum that goes with it,
// and some are held against what the engine said that the view was. All end
// equal to the views.
func TestClients(t *testing.T) {
	clients, total, limit := 200, 5_000, 5*time.Minute
	if *soak {
		clients, total, limit = 2_000, 50_000, 30*time.Minute
	}
	sim := simulator.New(simulator.Options{Rate: 600, Seed: *seed, Total: total})
	d := newDaemon(t, pipeline{stream: serve(t, sim), views: "{counter: {}, top10: {key: [user]}}"})
	d.start()
	ctx := deadline(t, limit)
	c := &crowd{address: d.web, oracle: map[string]*history{"counter": d.record("counter"), "top10": d.record("top10")}}
	// A log may be behind the engine, and so begin before the recording does:
	// nobody comes before it has passed that.
	for view, h := range c.oracle {
		first, err := h.begun(ctx)
		if err != nil {
			t.Fatal(err)
		}
		get(t, fmt.Sprintf("http://%s/api/views/%s?min_timestamp=%d", d.web, view, first))
	}

	errs := make(chan error, clients)
	for i := range clients {
		member := client{crowd: c, r: rand.New(rand.NewPCG(*seed, uint64(i)))}
		kind, follow := "snapshots", member.poll
		if n := i % 4; n < len(transports) {
			kind = transports[n]
			member.views = [][]string{{"counter"}, {"top10"}, {"counter", "top10"}, {"top10", "counter"}}[i/4%4]
			follow = func(ctx context.Context) error { return member.follow(ctx, kind) }
		}
		go func() {
			err := follow(ctx)
			if err != nil {
				err = fmt.Errorf("seed %d: client %d (%s %v): %w", *seed, i, kind, member.views, err)
			}
			errs <- err
		}()
	}
	final, err := c.oracle["counter"].until(ctx, func(state string) bool { return countOf(state) == int64(total) })
	if err != nil {
		t.Fatalf("seed %d: waiting for the last edit: %v", *seed, err)
	}
	c.end.Store(final)
	for range clients {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	d.stop()
	t.Logf("seed %d: %d messages checked in full, %d deltas, %d resumed by delta, %d stalls, %d snapshots, %d of them not modified",
		*seed, c.checked.Load(), c.deltas.Load(), c.resumed.Load(), c.stalls.Load(), c.snapshots.Load(), c.unchanged.Load())
	for what, tt := range map[string]struct{ got, want int64 }{
		"states checked in full": {c.checked.Load(), int64(10 * clients)},
		"deltas":                 {c.deltas.Load(), int64(10 * clients)},
		"resumptions by delta":   {c.resumed.Load(), int64(clients / 2)},
		"stalls":                 {c.stalls.Load(), int64(clients / 4)},
		"snapshots":              {c.snapshots.Load(), int64(clients)},
		"snapshots not modified": {c.unchanged.Load(), 1},
	} {
		if tt.got < tt.want {
			t.Errorf("seed %d: %d %s, want %d at least: too few to mean anything", *seed, tt.got, what, tt.want)
		}
	}
}

// A crowd is what the clients share.
type crowd struct {
	address string
	oracle  map[string]*history
	end     atomic.Uint64 // the time from which all edits are counted, once known

	checked, deltas, resumed, stalls, snapshots, unchanged atomic.Int64
}

func (c *crowd) over() bool { return c.end.Load() != 0 }

// done reports whether a client that is complete through a time has seen
// everything.
func (c *crowd) done(timestamp uint64) bool { return c.over() && timestamp >= c.end.Load() }

// client is one of many.
type client struct {
	*crowd
	r     *rand.Rand
	views []string
	ten   bool // ten users exist
}

// follow follows, stalls, leaves and resumes at random.
func (c *client) follow(ctx context.Context, transport string) error {
	m := newMirror(c.views...)
	for !c.done(m.timestamp) {
		if c.r.IntN(8) == 0 {
			bases, deltas := m.bases, m.deltas
			m = newMirror(c.views...) // a new page
			m.bases, m.deltas = bases, deltas
			m.quoted = c.r.IntN(2) == 0
		}
		if err := c.visit(ctx, transport, m); err != nil {
			return err
		}
	}
	c.deltas.Add(int64(m.deltas))
	return c.check(ctx, m)
}

// visit follows over one connection.
func (c *client) visit(ctx context.Context, transport string, m *mirror) error {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	params := []string{"", "", "", "&interval=50ms", "&interval=300ms", "&interval=1s"}[c.r.IntN(6)]
	if m.quoted {
		params += "&numbers=string"
	}
	bases, messages, first, since := m.bases, 2+c.r.IntN(30), true, m.token
	var failed error
	gone := false
	err := follow(ctx, transport, c.address, c.views, since, params, func(data []byte) bool {
		complete, err := m.apply(data)
		if failed = err; err != nil || !complete {
			return err == nil
		}
		if first && since != "" && m.bases == bases {
			c.resumed.Add(1)
		}
		if first || c.r.IntN(8) == 0 {
			failed = c.check(ctx, m)
		}
		if c.r.IntN(25) == 0 && failed == nil { // reads nothing for a while
			c.stalls.Add(1)
			failed = c.oracle["counter"].pass(ctx, 20+c.r.IntN(300), c.over)
		}
		first = false
		messages--
		if failed != nil || c.done(m.timestamp) {
			return false
		}
		if messages <= 0 && c.r.IntN(2) == 0 {
			gone = true // without a word
			cut()
		}
		return messages > 0
	})
	switch {
	case failed != nil:
		return failed
	case gone || errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// check holds the state of a mirror against the views at that time.
func (c *client) check(ctx context.Context, m *mirror) error {
	for _, v := range c.views {
		text := m.text(v)
		if m.quoted {
			text = lastQuoted.ReplaceAllString(text, "$1$2]")
		}
		if err := c.hold(ctx, v, m.timestamp, text); err != nil {
			return err
		}
	}
	return nil
}

// lastQuoted is the last value of a row, a number as a string: in both views it
// is the only number.
var lastQuoted = regexp.MustCompile(`(?m)([\[,])"(-?[0-9]+)"\]$`)

// hold holds the text of a view against what it was at a time.
func (c *client) hold(ctx context.Context, view string, timestamp uint64, text string) error {
	want, err := c.oracle[view].at(ctx, timestamp)
	if err != nil {
		return err
	}
	c.checked.Add(1)
	if got := canonical(text); got != want {
		return fmt.Errorf("%s at %d: got\n%s\nwant\n%s", view, timestamp, got, want)
	}
	if view == "top10" {
		n := strings.Count(text, "\n") + 1
		if text == "" {
			n = 0
		}
		if n > 10 || c.ten && n != 10 {
			return fmt.Errorf("top10 has %d rows at %d", n, timestamp)
		}
		c.ten = c.ten || n == 10
	}
	return nil
}

// poll asks for snapshots, of which each must be at the time that was asked for
// or later.
func (c *client) poll(ctx context.Context) error {
	seen := make(map[string]uint64) // by view
	tags := make(map[string]string) // by address
	for !c.done(seen["counter"]) {
		view := []string{"counter", "top10"}[c.r.IntN(2)]
		format := []string{"json", "ndjson", "csv"}[c.r.IntN(3)]
		address := fmt.Sprintf("http://%s/api/views/%s?format=%s", c.address, view, format)
		asked, tag := uint64(0), ""
		if c.r.IntN(5) == 0 {
			tag = tags[address]
		} else if seen[view] != 0 {
			asked = seen[view] + uint64(c.r.IntN(300))
		}
		s, err := c.snapshot(ctx, address, asked, tag)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", address, err)
		case s == nil:
			c.unchanged.Add(1)
			continue
		case s.timestamp < max(asked, seen[view]):
			return fmt.Errorf("%s: asked for %d after %d, got %d", address, asked, seen[view], s.timestamp)
		}
		c.snapshots.Add(1)
		seen[view], tags[address] = s.timestamp, s.tag
		if err := c.hold(ctx, view, s.timestamp, strings.Join(s.rows, "\n")); err != nil {
			return err
		}
		if c.r.IntN(4) == 0 { // once more, at once: it may not have changed
			if _, err := c.snapshot(ctx, address, 0, s.tag); err != nil {
				return fmt.Errorf("%s: %w", address, err)
			}
		}
	}
	return nil
}

// snapshot is a view as an answer has it, the rows as arrays.
type snapshot struct {
	timestamp uint64
	tag       string
	rows      []string
}

// snapshot asks for a view; nil: it has not changed since the tag.
func (c *client) snapshot(ctx context.Context, address string, minTimestamp uint64, tag string) (*snapshot, error) {
	if minTimestamp != 0 {
		address += fmt.Sprintf("&min_timestamp=%d", minTimestamp)
	}
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		return nil, err
	}
	if tag != "" {
		req.Header.Set("If-None-Match", tag)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusNotModified && tag != "" {
		return nil, nil
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", res.Status, body)
	}
	s := &snapshot{tag: res.Header.Get("ETag")}
	digits, _, _ := strings.Cut(strings.Trim(s.tag, `"`), "-")
	if s.timestamp, err = strconv.ParseUint(digits, 10, 64); err != nil {
		return nil, fmt.Errorf("ETag %s: %w", s.tag, err)
	}
	switch media := res.Header.Get("Content-Type"); {
	case strings.HasPrefix(media, "application/json"):
		err = s.readJSON(body)
	case strings.HasPrefix(media, "application/x-ndjson"):
		for line := range strings.Lines(string(body)) {
			err = errors.Join(err, s.addObject([]byte(line)))
		}
	case strings.HasPrefix(media, "text/csv"):
		err = s.readCSV(string(body))
	default:
		err = fmt.Errorf("Content-Type %s", media)
	}
	return s, err
}

func (s *snapshot) readJSON(body []byte) error {
	var all struct {
		Timestamp, Checksum string
		Rows                []json.RawMessage
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return err
	}
	if got, want := all.Timestamp, fmt.Sprint(s.timestamp); got != want {
		return fmt.Errorf("timestamp %s, but the ETag is %s", got, s.tag)
	}
	for _, r := range all.Rows {
		if err := s.addObject(r); err != nil {
			return err
		}
	}
	var sum uint64
	for _, r := range s.rows {
		sum += core.Row(r).Hash()
	}
	if got := fmt.Sprintf("%016x", sum); got != all.Checksum {
		return fmt.Errorf("the checksum of the rows at %d is %s, want %q", s.timestamp, got, all.Checksum)
	}
	return nil
}

// addObject adds a row that is an object, whose values are in the order of the
// columns.
func (s *snapshot) addObject(object []byte) error {
	d := json.NewDecoder(strings.NewReader(string(object)))
	d.UseNumber()
	var values []any
	for {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF):
			return s.add(values)
		case err != nil:
			return err
		}
		if _, brace := token.(json.Delim); !brace {
			values = append(values, token) // names and values take turns
		}
	}
}

func (s *snapshot) add(namesAndValues []any) error {
	var values []any
	for pair := range slices.Chunk(namesAndValues, 2) {
		values = append(values, pair[1])
	}
	return s.addRow(values)
}

// addRow adds a row as streams have it.
func (s *snapshot) addRow(values []any) error {
	var row strings.Builder
	e := json.NewEncoder(&row)
	e.SetEscapeHTML(false)
	err := e.Encode(values)
	s.rows = append(s.rows, strings.TrimSuffix(row.String(), "\n"))
	return err
}

func (s *snapshot) readCSV(body string) error {
	records, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return errors.New("no header")
	}
	for _, record := range records[1:] {
		var values []any
		for i, v := range record {
			if i == len(record)-1 {
				values = append(values, json.Number(v)) // the last column of both views is a number
			} else {
				values = append(values, v)
			}
		}
		if err := s.addRow(values); err != nil {
			return err
		}
	}
	return nil
}
