package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/coder/websocket"

	"github.com/mzdio/mzd/core"
)

// mirror is what a client makes of the messages of one stream, written from
// the protocol alone: rows as a multiset for each view. It refuses what a client
// must never see, a delta that does not continue its state above all.
type mirror struct {
	views     []string
	rows      map[string]map[string]int // view, row, copies
	token     string
	timestamp uint64                   // complete below
	sums      map[string]uint64        // view, checksum of its rows
	columns   map[string][]core.Column // view, as its base has them
	quoted    bool                     // numbers are strings
	parts     bool                     // in the middle of a message in parts
	mayStop   bool                     // views may stop for a while, and be said to

	bases, deltas, resumed int
}

func newMirror(views ...string) *mirror {
	return &mirror{views: views}
}

// change is what a message says about one view.
type change struct {
	Columns  []core.Column     `json:"columns"`
	Inserted []json.RawMessage `json:"inserted"`
	Deleted  []json.RawMessage `json:"deleted"`
	Checksum string            `json:"checksum"`
}

type message struct {
	Type      string `json:"type"`
	View      string `json:"view"`
	From      string `json:"from"`
	Timestamp string `json:"timestamp"`
	Token     string `json:"token"`
	More      bool   `json:"more"`
	Code      string `json:"code"`
	Message   string `json:"message"`
	change
	Views map[string]change `json:"views"`
}

// apply applies one message. It reports whether the state is complete, which it
// is not between the parts of a message.
func (m *mirror) apply(data []byte) (complete bool, err error) {
	var msg message
	if err := json.Unmarshal(data, &msg); err != nil {
		return false, fmt.Errorf("message %.200s: %w", data, err)
	}
	switch msg.Type {
	case "base":
		if !m.parts {
			m.rows = make(map[string]map[string]int)
			m.sums = make(map[string]uint64)
			m.columns = make(map[string][]core.Column)
			for _, v := range m.views {
				m.rows[v] = make(map[string]int)
			}
			m.bases++
		}
	case "delta":
		if msg.From != m.token {
			return false, fmt.Errorf("delta from %s at %s", msg.From, m.token)
		}
		if !m.parts {
			m.deltas++
		}
	case "progress":
	case "error":
		if msg.Code == "stopping" {
			return false, nil // and the end comes next
		}
		if !m.mayStop || msg.Code != "view_failed" && msg.Code != "view_not_ready" {
			return false, fmt.Errorf("message %.200s", data)
		}
		return false, nil
	default:
		return false, fmt.Errorf("message %.200s", data)
	}
	changes := msg.Views
	if len(m.views) == 1 {
		changes = map[string]change{msg.View: msg.change}
	}
	for view, c := range changes {
		rows := m.rows[view]
		if rows == nil {
			return false, fmt.Errorf("message about view %q: %.200s", view, data)
		}
		if c.Columns != nil {
			m.columns[view] = c.Columns
		}
		for _, r := range c.Inserted {
			m.sums[view] += m.hash(view, r)
			rows[string(r)]++
		}
		for _, r := range c.Deleted {
			m.sums[view] -= m.hash(view, r)
			if rows[string(r)]--; rows[string(r)] == 0 {
				delete(rows, string(r))
			}
		}
	}
	if m.parts = msg.More; m.parts {
		return false, nil
	}
	for view, rows := range m.rows {
		for r, n := range rows {
			if n < 0 {
				return false, fmt.Errorf("%s at %s has %d copies of %s", view, msg.Token, n, r)
			}
		}
	}
	for _, view := range m.views {
		if got, want := fmt.Sprintf("%016x", m.sums[view]), changes[view].Checksum; got != want {
			return false, fmt.Errorf("%s at %s has the checksum %s, want %q", view, msg.Token, got, want)
		}
	}
	t, err := strconv.ParseUint(msg.Timestamp, 10, 64)
	if err != nil || msg.Type != "base" && t < m.timestamp {
		return false, fmt.Errorf("timestamp %q after %d (%v)", msg.Timestamp, m.timestamp, err)
	}
	m.token, m.timestamp = msg.Token, t
	return true, nil
}

// hash returns what a row adds to the checksum of a view, which is the same
// whether numbers are strings or not.
func (m *mirror) hash(view string, row []byte) uint64 {
	if m.quoted {
		row = withoutQuotes(row, m.columns[view])
	}
	return core.Row(row).Hash()
}

// withoutQuotes takes the quotes off the numbers that are strings on request.
func withoutQuotes(row []byte, columns []core.Column) []byte {
	var values []json.RawMessage
	if err := json.Unmarshal(row, &values); err != nil {
		return nil // the sum will differ
	}
	for i, v := range values {
		if i < len(columns) && (columns[i].Type == "int8" || columns[i].Type == "numeric") && json.Valid(bytes.Trim(v, `"`)) {
			values[i] = bytes.Trim(v, `"`)
		}
	}
	text := []byte("[")
	for i, v := range values {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, v...)
	}
	return append(text, ']')
}

// text returns a view as sorted lines, to be compared.
func (m *mirror) text(view string) string { return multisetText(m.rows[view]) }

func multisetText(rows map[string]int) string {
	var lines []string
	for r, n := range rows {
		for range n {
			lines = append(lines, r)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// transports are the ways to follow a stream.
var transports = []string{"websocket", "sse", "ndjson"}

// follow reads a stream of the views and hands each message to f until f
// returns false, ctx ends or the stream does. since is where to resume.
func follow(ctx context.Context, transport, address string, views []string, since, params string, f func([]byte) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := url.Values{"view": views}
	if since != "" && transport != "sse" {
		q.Set("since", since)
	}
	target := "http://" + address + "/api/stream?" + q.Encode() + params
	if transport == "websocket" {
		return followWebsocket(ctx, target, f)
	}
	req, err := http.NewRequestWithContext(ctx, "GET", target, nil)
	if err != nil {
		return err
	}
	if transport == "sse" {
		req.Header.Set("Accept", "text/event-stream")
		if since != "" {
			req.Header.Set("Last-Event-ID", since)
		}
	}
	return readLines(req, transport == "sse", f)
}

// readSSE hands the data of each event at an address to f until f returns false.
func readSSE(ctx context.Context, address string, f func([]byte) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	if err != nil {
		return err
	}
	return readLines(req, true, f)
}

// readLines hands each line of the answer to f, of server-sent events only the
// data. It returns io.EOF when the answer ends.
func readLines(req *http.Request, sse bool, f func([]byte) bool) error {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		text, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s", res.Status, text)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		data := lines.Bytes()
		if sse {
			var isData bool
			if data, isData = bytes.CutPrefix(data, []byte("data: ")); !isData {
				continue
			}
		}
		if len(data) > 0 && !f(data) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}

func followWebsocket(ctx context.Context, target string, f func([]byte) bool) error {
	conn, _, err := websocket.Dial(ctx, target, nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(4 << 20)
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		if !f(data) {
			conn.Close(websocket.StatusNormalClosure, "")
			return nil
		}
	}
}
