package conformance

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/coder/websocket"

	"github.com/mzdio/mzd/core"
)

// A message is any message of a stream.
type message struct {
	Type, View, From, Timestamp, Token string
	More                               bool
	viewMessage
	Views map[string]viewMessage

	Code, Message string
	RetryMS       int64 `json:"retry_ms"`

	text string // as it came
}

// A viewMessage is what a message says about one view.
type viewMessage struct {
	Columns           []core.Column
	Key               []string
	Inserted, Deleted []json.RawMessage
	Checksum          string
}

// The transports, in the order of their rules.
var transports = []string{"websocket", "sse", "ndjson"}

// A stream is an open stream and what its client holds.
type stream struct {
	*check
	path   string
	next   func() (string, error) // the text of the next message
	stop   func()
	events bool   // server-sent events: they have ids
	id     string // of the last one
	state
}

// A state is what a client holds after the messages it has got.
type state struct {
	token, timestamp string
	views            map[string]*view
	parts            []message
	bases            int
}

type view struct {
	columns []core.Column
	key     []string
	rows    map[string]int
	sum     uint64
}

// open opens a stream over a transport.
func (c *check) open(transport, path string) *stream {
	c.Helper()
	s := &stream{check: c, path: path, state: state{views: map[string]*view{}}}
	var err error
	switch transport {
	case "websocket":
		err = s.openWebsocket()
	case "sse":
		err = s.openLines("text/event-stream")
	case "ndjson":
		err = s.openLines("")
	}
	if err != nil {
		c.Fatalf("%s over %s: %v", path, transport, err)
	}
	c.Cleanup(s.stop)
	return s
}

func (s *stream) openWebsocket() error {
	conn, response, err := websocket.Dial(s.ctx, s.URL+s.path, &websocket.DialOptions{HTTPClient: s.client})
	if err != nil {
		if response != nil {
			return fmt.Errorf("status %d: %w", response.StatusCode, err)
		}
		return err
	}
	conn.SetReadLimit(-1)
	s.stop = func() { conn.CloseNow() }
	s.next = func() (string, error) {
		kind, data, err := conn.Read(s.ctx)
		if err == nil && kind != websocket.MessageText {
			err = errors.New("R1: a message that is not text")
		}
		return string(data), err
	}
	return nil
}

func (s *stream) openLines(accept string, header ...string) error {
	response, err := s.request(http.MethodGet, s.path, append(header, "Accept", accept)...)
	if err != nil {
		return err
	}
	s.stop = func() { response.Body.Close() }
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		s.stop()
		return fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	lines := bufio.NewReader(response.Body)
	s.next = func() (string, error) {
		line, err := lines.ReadString('\n')
		return strings.TrimSuffix(line, "\n"), err
	}
	if accept != "" {
		s.next, s.events = s.eventsOf(s.next), true
	}
	return nil
}

// eventsOf reads events from lines. Their data is one line, and they have no name.
func (s *stream) eventsOf(line func() (string, error)) func() (string, error) {
	return func() (string, error) {
		data := ""
		s.id = ""
		for {
			text, err := line()
			if err != nil {
				return "", err
			}
			field, value, _ := strings.Cut(text, ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case text == "" && data != "":
				return data, nil
			case text == "": // of a comment
			case field == "data" && data == "":
				data = value
			case field == "id":
				s.id = value
			case field != "" && field != "retry":
				return "", fmt.Errorf("R2: a line %.100q", text)
			}
		}
	}
}

// request makes a request; the caller closes the body.
func (c *check) request(method, path string, header ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(c.ctx, method, c.URL+path, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		switch header[i] {
		case "Host":
			r.Host = header[i+1]
		default:
			r.Header.Set(header[i], header[i+1])
		}
	}
	return c.client.Do(r)
}

// get returns the answer to a GET, and its body.
func (c *check) get(path string, header ...string) (*http.Response, string) {
	c.Helper()
	return c.do(http.MethodGet, path, header...)
}

func (c *check) do(method, path string, header ...string) (*http.Response, string) {
	c.Helper()
	response, err := c.request(method, path, header...)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	return response, string(body)
}

// read returns the next message without applying it.
func (s *stream) read() (message, error) {
	text, err := s.next()
	if err != nil {
		return message{}, err
	}
	m := message{text: text}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return m, fmt.Errorf("%w: %.200s", err, text)
	}
	return m, nil
}

// receive applies the next message that is no error, all parts of it, and
// returns the last part. Whatever breaks a rule ends the test.
func (s *stream) receive() message {
	s.Helper()
	for {
		m, err := s.read()
		if err == nil {
			err = s.apply(m)
		}
		if err != nil {
			s.Fatalf("%s: %v: %.300s", s.path, err, m.text)
		}
		if !m.More && m.Type != "error" {
			return m
		}
	}
}

// until receives until a condition holds.
func (s *stream) until(condition func() bool) message {
	s.Helper()
	for {
		if m := s.receive(); condition() {
			return m
		}
	}
}

// rows returns the rows of a view, a row with n copies n times, in order.
func (s *state) rows(name string) []string {
	var list []string
	if v := s.views[name]; v != nil {
		for row, n := range v.rows {
			for range n {
				list = append(list, row)
			}
		}
	}
	slices.Sort(list)
	return list
}

// holds reports whether a view has exactly these rows.
func (s *state) holds(name string, rows ...string) func() bool {
	slices.Sort(rows)
	return func() bool { return s.views[name] != nil && slices.Equal(s.rows(name), rows) }
}

// apply applies a message, and returns the rule that it breaks.
func (s *stream) apply(m message) error {
	if len(m.text) > maxMessage && !largeRow(m) {
		return fmt.Errorf("R17: a message of %d bytes", len(m.text))
	}
	if m.Type == "error" {
		if m.Code == "" || m.Message == "" {
			return errors.New("R33: an error without words")
		}
		return nil
	}
	if n := len(s.parts); n > 0 && (m.Type != s.parts[0].Type || m.Token != s.parts[0].Token || m.From != s.parts[0].From) {
		return errors.New("R18: something else between the parts of a message")
	}
	if s.events && (m.More && s.id != "" || !m.More && s.id != m.Token) {
		return fmt.Errorf("R2, R19: the id %q", s.id)
	}
	s.parts = append(s.parts, m)
	if m.More {
		if m.Checksum != "" {
			return errors.New("R19: a checksum in a part that is not the last")
		}
		return nil
	}
	parts := s.parts
	s.parts = nil
	if err := s.follows(m); err != nil {
		return err
	}
	s.token, s.timestamp = m.Token, m.Timestamp
	names := map[string]bool{}
	for i, part := range parts {
		for name, v := range part.byView() {
			names[name] = true
			if err := s.applyView(name, v, m.Type, i == 0); err != nil {
				return err
			}
		}
	}
	return s.complete(m, names)
}

// follows checks that the message can come now.
func (s *state) follows(m message) error {
	t, err := strconv.ParseUint(m.Timestamp, 10, 64)
	if err != nil || strconv.FormatUint(t, 10) != m.Timestamp {
		return fmt.Errorf("R12: timestamp %q", m.Timestamp)
	}
	if before, _ := strconv.ParseUint(s.timestamp, 10, 64); m.Type != "base" && t < before {
		return fmt.Errorf("R12: the timestamp falls from %s", s.timestamp)
	}
	switch m.Type {
	case "base":
		s.bases++
		if m.From != "" {
			return errors.New("R8: a base with from")
		}
		clear(s.views)
	case "delta":
		if m.From != s.token {
			return fmt.Errorf("R9: a delta from %q, not %q", m.From, s.token)
		}
	case "progress":
		if s.token == "" {
			return errors.New("R7: progress of nothing")
		}
	default:
		return fmt.Errorf("a message of type %q", m.Type)
	}
	return nil
}

// byView returns what a message says about each view.
func (m message) byView() map[string]viewMessage {
	if m.Views != nil {
		return m.Views
	}
	return map[string]viewMessage{m.View: m.viewMessage}
}

func (s *state) applyView(name string, v viewMessage, kind string, first bool) error {
	if kind == "progress" {
		if v.Inserted != nil || v.Deleted != nil {
			return errors.New("R13: progress with rows")
		}
		return nil
	}
	if kind == "base" && first {
		s.views[name] = &view{columns: v.Columns, key: v.Key, rows: map[string]int{}}
	}
	held := s.views[name]
	switch {
	case held == nil:
		return fmt.Errorf("R16: rows of %q, of which there was no base", name)
	case v.Inserted == nil || v.Deleted == nil:
		return errors.New("a message without its lists")
	case kind == "base" && (held.columns == nil || held.key == nil || len(v.Deleted) > 0):
		return errors.New("R7: a base without columns or key, or with something deleted")
	}
	for _, row := range v.Inserted {
		held.add(string(row), 1)
	}
	for _, row := range v.Deleted {
		held.add(string(row), -1)
	}
	return nil
}

func (v *view) add(row string, copies int) {
	if v.rows[row] += copies; v.rows[row] == 0 {
		delete(v.rows, row)
	}
	v.sum += uint64(copies) * core.Row(v.plain(row)).Hash()
}

// complete checks what must hold after a message.
func (s *state) complete(m message, named map[string]bool) error {
	last := m.byView()
	for name, v := range s.views {
		if !named[name] {
			return fmt.Errorf("R15: nothing about %s", name)
		}
		for row, n := range v.rows {
			if n < 0 {
				return fmt.Errorf("R10: %s has %d copies of %s", name, n, row)
			}
		}
		if want := fmt.Sprintf("%016x", v.sum); last[name].Checksum != want {
			return fmt.Errorf("R21: the checksum of %s is %q, and what it leads to has %s", name, last[name].Checksum, want)
		}
		inserted := map[string]bool{}
		for _, row := range last[name].Inserted {
			inserted[string(row)] = true
		}
		for _, row := range last[name].Deleted {
			if inserted[string(row)] {
				return fmt.Errorf("R10: %s is in both lists", row)
			}
		}
	}
	return nil
}

// maxMessage is the size above which a message comes in parts.
const maxMessage = 1 << 20

// largeRow reports whether a part has only one row.
func largeRow(m message) bool {
	n := 0
	for _, v := range m.byView() {
		n += len(v.Inserted) + len(v.Deleted)
	}
	return n <= 1
}

var number = regexp.MustCompile(`^"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?"$`)

// plain returns the text of a row without the quotes of numbers=string.
func (v *view) plain(row string) string {
	var values []json.RawMessage
	if json.Unmarshal([]byte(row), &values) != nil {
		return row
	}
	text := make([]string, len(values))
	for i, value := range values {
		text[i] = string(value)
		if i < len(v.columns) && slices.Contains([]string{"int8", "uint8", "numeric", "mz_timestamp"}, v.columns[i].Type) && number.Match(value) {
			text[i] = text[i][1 : len(text[i])-1]
		}
	}
	return "[" + strings.Join(text, ",") + "]"
}
