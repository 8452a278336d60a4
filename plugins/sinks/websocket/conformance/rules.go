package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// rules are the numbered rules of docs/protocol.md, in its order. What holds of
// every message (R9 to R13, R17 to R21) is checked with each that is received,
// too: see state.apply.
var rules = []rule{
	{"R1", streamsAreWebsockets},
	{"R2", streamsAreEvents},
	{"R3", streamsAreLines},
	{"R4", transportsAreAlike},
	{"R5", methods},
	{"R6", parameters},
	{"R7", firstMessage},
	{"R8", baseReplaces},
	{"R9", deltasContinue},
	{"R10", copiesAreListed},
	{"R11", transactionsAreWhole},
	{"R12", timestampsRise},
	{"R13", progress},
	{"R14", numbersAsStrings},
	{"R15", viewsAgree},
	{"R16", viewsBeginTogether},
	{"R17", largeMessagesComeInParts},
	{"R18", partsApplyTogether},
	{"R19", lastPartCounts},
	{"R20", checksumIsOfPlainRows},
	{"R21", everythingHasAChecksum},
	{"R22", resume},
	{"R23", resumeFromNowhere},
	{"R24", positionsOutliveTheServer},
	{"R25", intervals},
	{"R26", silence},
	{"R27", slowClients},
	{"R28", clientsMaySpeak},
	{"R29", formats},
	{"R30", etags},
	{"R31", snapshotsContinue},
	{"R32", minTimestamp},
	{"R33", refusals},
	{"R34", errorsThatGoOn},
	{"R35", stop},
	{"R36", badFrames},
	{"R37", limits},
	{"R38", foreignOrigins},
	{"R39", crossOrigin},
	{"R40", version1},
	{"R41", version1Values},
	{"R42", version1Ends},
}

func row(name string, n int64) string { return fmt.Sprintf(`["%s",%d]`, name, n) }

func streamsAreWebsockets(c *check) {
	s := c.open("websocket", "/api/stream/fixed")
	m := s.receive()
	if strings.ContainsAny(m.text, "\r\n") {
		c.Errorf("line breaks in %q", m.text)
	}
	rows, names := large()
	rows, names = rows[:3], names[:3]
	defer c.empty(names...)
	c.Table.Insert(rows...)
	conn, response, err := websocket.Dial(c.ctx, c.URL+"/api/stream/people", &websocket.DialOptions{
		HTTPClient: c.client, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		c.Fatal(err)
	}
	defer conn.CloseNow()
	if got := response.Header.Get("Sec-WebSocket-Extensions"); !strings.Contains(got, "permessage-deflate") || !strings.Contains(got, "server_no_context_takeover") {
		c.Errorf("compression was offered, and answered with %q", got)
	}
	conn.SetReadLimit(-1)
	deflated := &stream{check: c, path: "/api/stream/people", state: state{views: map[string]*view{}}}
	deflated.next = func() (string, error) {
		_, data, err := conn.Read(c.ctx)
		return string(data), err
	}
	deflated.until(func() bool { return len(deflated.rows("people")) == len(rows) })
}

func streamsAreEvents(c *check) {
	c.wantHeader("/api/stream/fixed", "text/event-stream", "Content-Type", "text/event-stream")
	c.open("sse", "/api/stream/fixed").receive()
}

func streamsAreLines(c *check) {
	c.wantHeader("/api/stream/fixed", "", "Content-Type", "application/x-ndjson")
	c.open("ndjson", "/api/stream/fixed").receive()
}

func transportsAreAlike(c *check) {
	first := ""
	for _, transport := range transports {
		m := c.open(transport, "/api/stream/fixed").receive()
		text := strings.NewReplacer(m.Token, "TOKEN", m.Timestamp, "TIMESTAMP").Replace(m.text)
		if first == "" {
			first = text
		}
		if text != first {
			c.Errorf("%s: got  %s\nwant %s", transport, text, first)
		}
	}
	for _, accept := range []string{"", "text/event-stream"} {
		c.wantHeader("/api/stream/fixed", accept, "Cache-Control", "no-store")
		c.wantHeader("/api/stream/fixed", accept, "Vary", "Accept")
	}
}

// wantHeader checks that a header of a stream has a word.
func (c *check) wantHeader(path, accept, header, want string) {
	c.Helper()
	response, _ := c.do(http.MethodHead, path, "Accept", accept)
	if got := strings.Join(response.Header.Values(header), ", "); response.StatusCode != 200 || !strings.Contains(got, want) {
		c.Errorf("%s (%s): status %d, %s: %q, want %q", path, accept, response.StatusCode, header, got, want)
	}
}

func methods(c *check) {
	for _, path := range []string{"/api/views", "/api/views/fixed", "/api/views/nothing"} {
		get, _ := c.get(path)
		head, body := c.do(http.MethodHead, path)
		for _, key := range []string{"Content-Type", "Cache-Control", "Vary", "ETag"} {
			if got, want := head.Header.Values(key), get.Header.Values(key); !slices.Equal(got, want) {
				c.Errorf("HEAD %s: %s: %q, want %q", path, key, got, want)
			}
		}
		if head.StatusCode != get.StatusCode || body != "" {
			c.Errorf("HEAD %s: got %d %q, want %d", path, head.StatusCode, body, get.StatusCode)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		response, body := c.do(method, "/api/stream/fixed")
		c.wantError(method, response, body, 405, "method_not_allowed")
		if got := response.Header.Get("Allow"); !strings.Contains(got, "GET") {
			c.Errorf("%s: Allow: %q", method, got)
		}
	}
}

// wantError checks that an answer is an error.
func (c *check) wantError(what string, response *http.Response, body string, status int, code string) {
	c.Helper()
	var m message
	if err := json.Unmarshal([]byte(body), &m); err != nil || response.StatusCode != status || m.Type != "error" || m.Code != code || m.Message == "" {
		c.Errorf("%s: got %d %.300s, want %d and the error %s", what, response.StatusCode, body, status, code)
	}
}

func parameters(c *check) {
	for _, path := range []string{
		"/api/stream/fixed?nothing=1", "/api/stream/fixed?since=&interval=&numbers=",
		"/api/views/fixed?nothing=1", "/api/views/fixed?format=&numbers=&min_timestamp=",
	} {
		if response, _ := c.do(http.MethodHead, path); response.StatusCode != 200 {
			c.Errorf("%s: status %d, want 200", path, response.StatusCode)
		}
	}
	for path, code := range map[string]string{
		"/api/stream/fixed?interval=often":        "bad_interval",
		"/api/stream/fixed?interval=2h":           "bad_interval",
		"/api/stream/fixed?interval=-1s":          "bad_interval",
		"/api/stream/fixed?numbers=words":         "bad_request",
		"/api/stream/fixed?since=now":             "bad_token",
		"/api/stream?view=fixed&view=fixed":       "bad_request",
		"/api/stream":                             "bad_request",
		"/api/views/fixed?numbers=words":          "bad_request",
		"/api/views/fixed?format=xml":             "bad_request",
		"/api/views/fixed?min_timestamp=tomorrow": "bad_request",
	} {
		response, body := c.get(path)
		c.wantError(path, response, body, 400, code)
	}
}

func firstMessage(c *check) {
	defer c.empty("a", "b")
	c.Table.Insert(Row{"a", 1})
	for _, transport := range transports {
		s := c.open(transport, "/api/stream/people")
		s.until(s.holds("people", row("a", 1)))
		if s.bases == 0 {
			c.Errorf("%s: a stream without a base", transport)
		}
		again := c.open(transport, "/api/stream/people?since="+s.token)
		again.state = s.state
		again.bases = 0
		c.Table.Insert(Row{"b", 2})
		again.until(again.holds("people", row("a", 1), row("b", 2)))
		if again.bases != 0 {
			c.Errorf("%s: a base for a client that has one", transport)
		}
		c.Table.Delete("b")
	}
}

func baseReplaces(c *check) {
	c.needs(c.NewHistory != nil, "NewHistory")
	defer c.empty("a")
	c.Table.Insert(Row{"a", 1})
	for _, transport := range transports {
		s := c.open(transport, "/api/stream/people")
		s.until(s.holds("people", row("a", 1)))
		s.bases = 0
		c.NewHistory()
		s.until(func() bool { return s.bases == 1 })
		if got := s.rows("people"); !slices.Equal(got, []string{row("a", 1)}) {
			c.Errorf("%s: after a second base: %v", transport, got)
		}
	}
}

func deltasContinue(c *check) {
	defer c.empty("a", "b")
	s := c.open("ndjson", "/api/stream/people")
	s.receive()
	c.Table.Insert(Row{"a", 0}, Row{"b", 0})
	deltas := 0
	for n := range int64(20) {
		c.Table.Move("a", "b", 1)
		for done := s.holds("people", row("a", -n-1), row("b", n+1)); !done(); {
			if m := s.receive(); m.Type == "delta" { // which checks from
				deltas++
			}
		}
	}
	if deltas < 20 {
		c.Errorf("%d deltas for 20 changes that were awaited", deltas)
	}
}

func copiesAreListed(c *check) {
	defer c.empty("a", "b")
	s := c.open("websocket", "/api/stream/people")
	c.Table.Insert(Row{"a", 1}, Row{"a", 1}, Row{"a", 1}, Row{"b", 1})
	s.until(s.holds("people", row("a", 1), row("a", 1), row("a", 1), row("b", 1)))
	base := c.open("ndjson", "/api/stream/people").receive()
	if got, want := len(base.Inserted), 4; got != want {
		c.Errorf("the base lists %d rows, want %d", got, want)
	}
	c.Table.Delete("a")
	m := s.until(s.holds("people", row("b", 1)))
	if got, want := len(m.Deleted), 3; got != want {
		c.Errorf("the delta lists %d deleted rows, want %d", got, want)
	}
}

// transactionsAreWhole moves numbers between rows: their sum never changes.
func transactionsAreWhole(c *check) {
	names := []string{"a", "b", "c"}
	defer c.empty(names...)
	c.Table.Insert(Row{"a", 100}, Row{"b", 100}, Row{"c", 100})
	var streams []*stream
	for i, transport := range transports {
		s := c.open(transport, []string{"/api/stream/people", "/api/stream/people?interval=10ms", "/api/stream?view=counter&view=people"}[i])
		s.until(func() bool { return len(s.rows("people")) == 3 })
		streams = append(streams, s)
	}
	for i := range int64(50) {
		c.Table.Move(names[i%3], names[(i+1)%3], 1+i%7)
	}
	c.Table.Insert(Row{"end", 0})
	defer c.empty("end")
	for _, s := range streams {
		for done := false; !done; {
			s.receive()
			var sum int64
			for row := range s.views["people"].rows {
				var values []any
				json.Unmarshal([]byte(row), &values)
				sum += int64(values[1].(float64))
				done = done || values[0] == "end"
			}
			if sum != 300 {
				c.Fatalf("%s at %s: part of a transaction: %v", s.path, s.timestamp, s.rows("people"))
			}
		}
	}
}

func timestampsRise(c *check) {
	s := c.open("ndjson", "/api/stream/fixed")
	if m := s.receive(); c.Sealed && m.Timestamp != "18446744073709551615" {
		c.Errorf("the timestamp of a view that never changes is %s", m.Timestamp)
	}
	defer c.empty("a")
	p := c.open("ndjson", "/api/stream/people")
	p.receive()
	before, _ := strconv.ParseUint(p.timestamp, 10, 64)
	c.Table.Insert(Row{"a", 1})
	p.until(p.holds("people", row("a", 1)))
	if after, _ := strconv.ParseUint(p.timestamp, 10, 64); after <= before {
		c.Errorf("a change led from %d to %d", before, after)
	}
}

func progress(c *check) {
	defer c.empty("a")
	c.Table.Insert(Row{"a", 1})
	for _, path := range []string{"/api/stream/people", "/api/stream?view=people&view=counter"} {
		s := c.open("sse", path)
		s.until(s.holds("people", row("a", 1)))
		c.pass()
		if m := s.receive(); m.Type != "progress" {
			c.Errorf("%s: got %s, want progress", path, m.text)
		}
		if got := s.rows("people"); len(got) != 1 {
			c.Errorf("%s: progress led to %v", path, got)
		}
	}
}

func numbersAsStrings(c *check) {
	defer c.empty("a")
	c.Table.Insert(Row{"a", 9007199254740993})
	plain, quoted := row("a", 9007199254740993), `["a","9007199254740993"]`
	for _, transport := range transports {
		s := c.open(transport, "/api/stream/people")
		s.until(s.holds("people", plain))
		s = c.open(transport, "/api/stream/people?numbers=string")
		s.until(s.holds("people", quoted))
	}
	c.eventually("/api/views/people?numbers=string&format=ndjson", `{"name":"a","n":"9007199254740993"}`+"\n")
}

// eventually waits until a snapshot has a body.
func (c *check) eventually(path, want string) {
	c.Helper()
	s := c.open("ndjson", "/api/stream/people")
	for {
		if _, body := c.get(path); body == want {
			return
		}
		s.receive()
	}
}

// viewsAgree follows two views over one table.
func viewsAgree(c *check) {
	names := []string{"a", "b", "c", "d"}
	defer c.empty(names...)
	var streams []*stream
	for i, transport := range transports {
		path := []string{"/api/stream?view=people&view=counter", "/api/stream?view=counter&view=people&interval=20ms", "/api/stream?view=counter&view=people"}[i]
		s := c.open(transport, path)
		s.receive()
		streams = append(streams, s)
	}
	for i := range 60 {
		if i%3 == 2 {
			c.Table.Delete(names[i%4])
		} else {
			c.Table.Insert(Row{names[i%4], int64(i)})
		}
	}
	c.Table.Insert(Row{"end", 0})
	defer c.empty("end")
	for _, s := range streams {
		for done := false; !done; {
			s.receive()
			done = slices.Contains(s.rows("people"), row("end", 0))
			if got, want := s.rows("counter"), fmt.Sprintf("[%d]", len(s.rows("people"))); len(got) != 1 || got[0] != want {
				c.Fatalf("%s at %s: %v people, and a count of %v", s.path, s.timestamp, want, got)
			}
		}
	}
}

func viewsBeginTogether(c *check) {
	c.needs(c.NewHistory != nil, "NewHistory")
	defer c.empty("a")
	c.Table.Insert(Row{"a", 1})
	s := c.open("websocket", "/api/stream?view=counter&view=people")
	s.until(s.holds("people", row("a", 1)))
	s.bases = 0
	c.NewHistory()
	m := s.until(func() bool { return s.bases == 1 })
	if m.Type != "base" || len(m.Views) != 2 {
		c.Errorf("got %s, want a base of both views", m.text)
	}
}

// large is what makes people larger than a message, with copies.
func large() (rows []Row, names []string) {
	for i := range 60 {
		name := fmt.Sprintf("%03d %s", i, strings.Repeat("x", 40_000))
		rows = append(rows, Row{name, 1})
		names = append(names, name)
	}
	return append(rows, rows[0]), names
}

func largeMessagesComeInParts(c *check) {
	rows, names := large()
	defer c.empty(names...)
	follow := c.open("websocket", "/api/stream/people")
	follow.receive()
	c.Table.Insert(rows...)
	parts := 0
	next := follow.next
	follow.next = func() (string, error) { parts++; return next() }
	follow.until(func() bool { return len(follow.rows("people")) == len(rows) })
	if parts < 3 {
		c.Errorf("a delta of 2.4 MB came in %d messages", parts)
	}
	for _, transport := range transports {
		for _, path := range []string{"/api/stream/people?numbers=string", "/api/stream?view=counter&view=people"} {
			s := c.open(transport, path)
			s.until(func() bool { return len(s.rows("people")) == len(rows) })
		}
	}
}

func partsApplyTogether(c *check) {
	rows, names := large()
	defer c.empty(names...)
	c.Table.Insert(rows...)
	s := c.open("sse", "/api/stream?view=counter&view=people")
	s.until(func() bool { return len(s.rows("people")) == len(rows) }) // and the views agree, which parts do not
	if got, want := s.rows("counter"), fmt.Sprintf("[%d]", len(rows)); got[0] != want {
		c.Errorf("the count is %s, want %s", got, want)
	}
}

func lastPartCounts(c *check) {
	rows, names := large()
	defer c.empty(names...)
	c.Table.Insert(rows...)
	s := c.open("ndjson", "/api/stream/people")
	s.until(func() bool { return len(s.rows("people")) == len(rows) }) // now every base comes in parts
	parts := 0
	for base, last := c.open("sse", "/api/stream/people"), false; !last; parts++ {
		m, err := base.read()
		if err != nil {
			c.Fatal(err)
		}
		last = !m.More
		if (m.Checksum != "") != last || (base.id == m.Token) != last {
			c.Errorf("part %d, the last: %v, has the checksum %q and the id %q", parts+1, last, m.Checksum, base.id)
		}
	}
	if parts < 3 {
		c.Errorf("a base of 2.4 MB came in %d parts", parts)
	}
}

func checksumIsOfPlainRows(c *check) {
	defer c.empty("1", "a")
	c.Table.Insert(Row{"1", 12}, Row{"a", -9007199254740993})
	s := c.open("ndjson", "/api/stream/people?numbers=string")
	quoted := s.until(s.holds("people", `["1","12"]`, `["a","-9007199254740993"]`)) // which checks the sum without quotes
	s = c.open("ndjson", "/api/stream/people")
	if plain := s.until(s.holds("people", row("1", 12), row("a", -9007199254740993))); plain.Checksum != quoted.Checksum {
		c.Errorf("the checksum is %s with and %s without numbers=string", quoted.Checksum, plain.Checksum)
	}
}

func everythingHasAChecksum(c *check) {
	defer c.empty("a")
	s := c.open("websocket", "/api/stream/people")
	m := s.until(s.holds("people"))
	if m.Checksum != "0000000000000000" {
		c.Errorf("the checksum of nothing is %q", m.Checksum)
	}
	c.Table.Insert(Row{"a", 1})
	m = s.until(s.holds("people", row("a", 1)))
	c.eventually("/api/views/people?format=ndjson", `{"name":"a","n":1}`+"\n")
	_, body := c.get("/api/views/people")
	var snapshot message
	if err := json.Unmarshal([]byte(body), &snapshot); err != nil || snapshot.Checksum != m.Checksum {
		c.Errorf("the checksum of the snapshot is %q, %v, want %q", snapshot.Checksum, err, m.Checksum)
	}
}

func resume(c *check) {
	defer c.empty("a", "b", "c")
	c.Table.Insert(Row{"a", 1})
	ahead := c.open("ndjson", "/api/stream/people")
	ahead.until(ahead.holds("people", row("a", 1)))
	held := ahead.clone()
	c.Table.Insert(Row{"b", 1})
	c.Table.Delete("a")
	c.Table.Insert(Row{"c", 1})
	c.Table.Delete("b")
	ahead.until(ahead.holds("people", row("c", 1)))
	for _, transport := range transports {
		s := c.open(transport, "/api/stream/people?since="+held.token)
		s.state = held.clone()
		m := s.receive()
		if m.Type != "delta" || !s.holds("people", row("c", 1))() || len(m.Inserted) != 1 || len(m.Deleted) != 1 {
			c.Errorf("%s: got %s, want the net change", transport, m.text)
		}
	}
	s := &stream{check: c, path: "/api/stream/people?since=18446744073709551614-x", state: held.clone()}
	if err := s.openLines("text/event-stream", "Last-Event-ID", held.token); err != nil {
		c.Fatal(err)
	}
	defer s.stop()
	if m := s.receive(); m.Type != "delta" {
		c.Errorf("with Last-Event-ID: got %s, want a delta", m.text)
	}
}

// clone returns a state to go on from.
func (s *state) clone() state {
	c := state{token: s.token, timestamp: s.timestamp, views: map[string]*view{}}
	for name, v := range s.views {
		held := &view{columns: v.columns, key: v.key, rows: map[string]int{}, sum: v.sum}
		for row, n := range v.rows {
			held.rows[row] = n
		}
		c.views[name] = held
	}
	return c
}

func resumeFromNowhere(c *check) {
	s := c.open("ndjson", "/api/stream/people")
	s.receive()
	both := c.open("ndjson", "/api/stream?view=people&view=counter")
	both.receive()
	_, generation, _ := strings.Cut(s.token, "-")
	for _, tt := range []struct{ what, path string }{
		{"another history", "/api/stream/people?since=" + s.timestamp + "-abcdef"},
		{"the future", "/api/stream/people?since=18446744073709551614-" + generation},
		{"other views", "/api/stream/people?since=" + both.token},
		{"another order", "/api/stream?view=counter&view=people&since=" + both.token},
	} {
		if m := c.open("sse", tt.path).receive(); m.Type != "base" {
			c.Errorf("%s: got %s, want a base", tt.what, m.text)
		}
	}
	for _, since := range []string{"x", "1-", "-x", "1-A", "-1-x", "18446744073709551616-x", strings.Repeat("1", 5000)} {
		response, body := c.get("/api/stream/people?since=" + since)
		c.wantError(since, response, body, 400, "bad_token")
	}
}

func positionsOutliveTheServer(c *check) {
	c.needs(c.Restart != nil, "Restart")
	defer c.empty("a", "b")
	c.Table.Insert(Row{"a", 1})
	s := c.open("ndjson", "/api/stream/people")
	s.until(s.holds("people", row("a", 1)))
	c.restart()
	again := c.open("ndjson", "/api/stream/people?since="+s.token)
	again.state = s.clone()
	c.Table.Insert(Row{"b", 1})
	again.until(again.holds("people", row("a", 1), row("b", 1)))
	if again.bases != 0 && !c.Forgets {
		c.Error("a base for a client that has one")
	}
}

func intervals(c *check) {
	const interval = 200 * time.Millisecond
	defer c.empty("a", "b")
	c.Table.Insert(Row{"a", 0}, Row{"b", 0})
	begun := time.Now()
	s := c.open("websocket", "/api/stream/people?interval=200ms")
	s.until(s.holds("people", row("a", 0), row("b", 0)))
	messages := 0
	next := s.next
	s.next = func() (string, error) { messages++; return next() }
	for range 3 {
		for range int64(20) {
			c.Table.Move("a", "b", 1)
		}
		s.receive()
	}
	for done := s.holds("people", row("a", -60), row("b", 60)); !done(); {
		s.receive()
	}
	// What was received was sent on a tick since then.
	if most := int(time.Since(begun)/interval) + 2; messages > most {
		c.Errorf("%d messages, and %d ticks at most", messages, most)
	}
}

// silence is of a view in which nothing ever happens.
func silence(c *check) {
	if c.quiet == nil {
		c.quiet = c.listen()
	}
	for _, err := range c.quiet() {
		c.Error(err)
	}
}

// slowClients reads nothing while a view changes.
func slowClients(c *check) {
	const changes = 100
	conn := c.slowly("/api/stream/people")
	first, err := conn.read()
	if err != nil || first.Type != "base" {
		c.Fatalf("got %s, %v, want a base", first.text, err)
	}
	name := strings.Repeat("x", 20_000)
	defer c.empty(name, "end")
	for range changes {
		c.Table.Insert(Row{name, 1})
		c.Table.Delete(name)
	}
	c.Table.Insert(Row{"end", 1})
	if err := conn.apply(first); err != nil {
		c.Fatal(err)
	}
	messages := 0
	for done := conn.holds("people", row("end", 1)); !done(); messages++ {
		conn.receive()
	}
	if messages > changes {
		c.Errorf("%d messages of %d changes, for a client that read none of them", messages, 2*changes)
	}
	if !c.Patient {
		return
	}
	stalled := c.slowly("/api/stream/people")
	<-time.After(10 * time.Minute)
	if m, err := stalled.read(); err == nil {
		c.Errorf("a client that has taken nothing for ten minutes got %s", m.text)
	}
}

func clientsMaySpeak(c *check) {
	conn, _, err := websocket.Dial(c.ctx, c.URL+"/api/stream/fixed", &websocket.DialOptions{HTTPClient: c.client})
	if err != nil {
		c.Fatal(err)
	}
	defer conn.CloseNow()
	done := make(chan error, 1)
	messages := make(chan string, 10)
	go func() {
		for {
			_, data, err := conn.Read(c.ctx)
			if err != nil {
				done <- err
				return
			}
			messages <- string(data)
		}
	}()
	for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		if err := conn.Write(c.ctx, kind, []byte(strings.Repeat("x", 4000))); err != nil {
			c.Fatal(err)
		}
	}
	for range 3 {
		if err := conn.Ping(c.ctx); err != nil {
			c.Fatalf("a ping was not answered: %v", err)
		}
	}
	if m := <-messages; !strings.Contains(m, `"type":"base"`) {
		c.Errorf("got %s, want a base", m)
	}
	conn.Close(websocket.StatusNormalClosure, "")
	if err := <-done; websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		c.Errorf("closing was answered with %v, want 1000", err)
	}
}

func formats(c *check) {
	for _, tt := range []struct{ path, accept, media, want string }{
		{"/api/views/fixed", "", "application/json", `"rows":[` + "\n" + `{"n":7}` + "\n]}\n"},
		{"/api/views/fixed", "text/html, */*", "application/json", `"rows":[` + "\n" + `{"n":7}` + "\n]}\n"},
		{"/api/views/fixed?format=ndjson", "", "application/x-ndjson", `{"n":7}` + "\n"},
		{"/api/views/fixed", "application/x-ndjson", "application/x-ndjson", `{"n":7}` + "\n"},
		{"/api/views/fixed?format=csv", "application/json", "text/csv", "n\n7\n"},
		{"/api/views/fixed", "application/json;q=0.1, text/csv", "text/csv", "n\n7\n"},
	} {
		response, body := c.get(tt.path, "Accept", tt.accept)
		if got := response.Header.Get("Content-Type"); !strings.HasPrefix(got, tt.media) || !strings.HasSuffix(body, tt.want) {
			c.Errorf("%s (%s): got %s %s, want %s %s", tt.path, tt.accept, got, body, tt.media, tt.want)
		}
	}
	_, body := c.get("/api/views/fixed")
	var snapshot struct {
		Timestamp, Token, Checksum string
		Columns                    []map[string]string
		Rows                       []map[string]any
	}
	if err := json.Unmarshal([]byte(body), &snapshot); err != nil || snapshot.Timestamp == "" || snapshot.Token == "" || snapshot.Checksum == "" || len(snapshot.Columns) != 1 || len(snapshot.Rows) != 1 {
		c.Errorf("got %s, %v", body, err)
	}
	_, body = c.get("/api/views")
	var list struct {
		Views []struct {
			Name      string
			Columns   []map[string]string
			Key       []string
			Timestamp *string
		}
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		c.Fatal(err)
	}
	found := false
	for _, v := range list.Views {
		found = found || v.Name == "people" && len(v.Columns) == 2 && slices.Equal(v.Key, []string{"name"})
	}
	if !found {
		c.Errorf("the list of views is %s", body)
	}
}

func etags(c *check) {
	seen := map[string]string{}
	for _, format := range []string{"json", "ndjson", "csv"} {
		path := "/api/views/fixed?format=" + format
		response, _ := c.get(path)
		tag := response.Header.Get("ETag")
		if other, ok := seen[tag]; ok || tag == "" {
			c.Errorf("%s has the tag %q, as has %s", format, tag, other)
		}
		seen[tag] = format
		if got := response.Header.Get("Cache-Control"); got != "no-cache" {
			c.Errorf("%s: Cache-Control: %s", path, got)
		}
		if got := strings.Join(response.Header.Values("Vary"), ", "); !strings.Contains(got, "Accept") {
			c.Errorf("%s: Vary: %s", path, got)
		}
		for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
			if response, body := c.get(path, "If-None-Match", match); response.StatusCode != 304 || body != "" || response.Header.Get("ETag") != tag {
				c.Errorf("%s, If-None-Match %s: got %d %q with tag %s, want 304", path, match, response.StatusCode, body, response.Header.Get("ETag"))
			}
		}
		if response, _ := c.get(path, "If-None-Match", `"x"`); response.StatusCode != 200 {
			c.Errorf("%s, another tag: status %d", path, response.StatusCode)
		}
	}
}

func snapshotsContinue(c *check) {
	defer c.empty("a")
	_, body := c.get("/api/views/people")
	var snapshot message
	if err := json.Unmarshal([]byte(body), &snapshot); err != nil {
		c.Fatal(err)
	}
	c.Table.Insert(Row{"a", 1})
	s := c.open("sse", "/api/stream/people?since="+snapshot.Token)
	s.token, s.timestamp, s.views["people"] = snapshot.Token, snapshot.Timestamp, &view{columns: snapshot.Columns, rows: map[string]int{}}
	s.until(s.holds("people", row("a", 1)))
	if s.bases != 0 {
		c.Error("a base for a client that has a snapshot")
	}
}

func minTimestamp(c *check) {
	defer c.empty("a")
	s := c.open("ndjson", "/api/stream/people")
	s.receive()
	t, _ := strconv.ParseUint(s.timestamp, 10, 64)
	answered := make(chan string)
	go func() {
		response, err := c.request(http.MethodGet, fmt.Sprintf("/api/views/people?min_timestamp=%d", t+1))
		var m message
		if err == nil {
			err = json.NewDecoder(response.Body).Decode(&m)
			response.Body.Close()
		}
		if err != nil {
			m.Timestamp = err.Error()
		}
		answered <- m.Timestamp
	}()
	c.Table.Insert(Row{"a", 1})
	if got, _ := strconv.ParseUint(<-answered, 10, 64); got <= t {
		c.Errorf("min_timestamp=%d: got the timestamp %d", t+1, got)
	}
	if c.Patient {
		response, body := c.get("/api/views/people?min_timestamp=18446744073709551615")
		c.wantError("a time that never comes", response, body, 503, "not_yet")
	}
	if c.Later != "" {
		response, body := c.get("/api/views/" + c.Later)
		c.wantError("a view without data", response, body, 503, "not_yet")
		if response.Header.Get("Retry-After") == "" {
			c.Error("503 without Retry-After")
		}
	}
}

func refusals(c *check) {
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/api/stream/nothing":                                     {404, "unknown_view"},
		"/api/stream?view=fixed&view=x":                           {404, "unknown_view"},
		"/api/stream/fixed?interval=x":                            {400, "bad_interval"},
		"/api/stream/fixed?since=garbage":                         {400, "bad_token"},
		"/api/stream/fixed?numbers=words":                         {400, "bad_request"},
		"/api/stream?view=" + strings.Repeat("x&view=", 32) + "x": {400, "too_many_views"},
	} {
		response, body := c.get(path)
		c.wantError(path, response, body, want.status, want.code)
		s := c.open("websocket", path)
		if m, err := s.read(); err != nil || m.Type != "error" || m.Code != want.code || m.Message == "" {
			c.Errorf("%s over websocket: got %s, %v, want the error %s", path, m.text, err, want.code)
		}
		if _, err := s.read(); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			c.Errorf("%s over websocket: ended with %v, want 1008", path, err)
		}
	}
	response, body := c.get("/api/views/nothing")
	c.wantError("a snapshot of nothing", response, body, 404, "unknown_view")
	response, body = c.get("/api/nothing")
	c.wantError("nothing", response, body, 404, "not_found")
	response, body = c.get("/api/v1/stream/nothing", upgrade...)
	c.wantError("version 1 of nothing", response, body, 404, "unknown_view")
}

// upgrade are the headers of a request for a websocket.
var upgrade = []string{
	"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==",
}

func errorsThatGoOn(c *check) {
	c.needs(c.Later != "", "Later")
	var streams []*stream
	for _, transport := range transports {
		streams = append(streams, c.open(transport, "/api/stream?view=fixed&view="+c.Later))
	}
	for i, s := range streams {
		if m, err := s.read(); err != nil || m.Type != "error" || m.Code != "view_not_ready" || !strings.Contains(m.Message, c.Later) {
			c.Errorf("%s: got %s, %v, want view_not_ready", transports[i], m.text, err)
		}
	}
	c.Begin()
	for _, s := range streams {
		if m := s.receive(); m.Type != "base" {
			c.Errorf("got %s, want a base", m.text)
		}
	}
}

func stop(c *check) {
	c.needs(c.Restart != nil, "Restart")
	var streams []*stream
	for _, transport := range transports {
		s := c.open(transport, "/api/stream/fixed")
		s.receive()
		streams = append(streams, s)
	}
	ended := make(chan string)
	for i, s := range streams {
		go func() {
			m, err := s.read()
			for ; err == nil && m.Type != "error"; m, err = s.read() {
			}
			said := fmt.Sprintf("%s: %s %v", transports[i], m.text, err)
			if err != nil || m.Code != "stopping" || m.RetryMS <= 0 {
				ended <- said
				return
			}
			_, err = s.read()
			if s.events || transports[i] == "ndjson" || websocket.CloseStatus(err) == websocket.StatusServiceRestart {
				said = ""
			}
			ended <- said
		}()
	}
	c.restart()
	for range streams {
		if said := <-ended; said != "" {
			c.Errorf("a stream ended with %s, want stopping with retry_ms, and websockets with 1012", said)
		}
	}
}

func badFrames(c *check) {
	mask := []byte{0x80 | 4, 1, 2, 3, 4, 'a' ^ 1, 'b' ^ 2, 'c' ^ 3, 'd' ^ 4}
	masked := func(payload ...byte) []byte {
		frame := []byte{0x80 | byte(len(payload)), 0, 0, 0, 0}
		return append(frame, payload...)
	}
	for _, tt := range []struct {
		what string
		code int
		data []byte
	}{
		{"not masked", 1002, []byte{0x81, 1, 'x'}},
		{"a reserved bit", 1002, append([]byte{0x91 | 0x40}, mask...)},
		{"a reserved opcode", 1002, append([]byte{0x83}, mask...)},
		{"a reserved control opcode", 1002, append([]byte{0x8b}, mask...)},
		{"a ping in fragments", 1002, append([]byte{0x09}, mask...)},
		{"a ping of 126 bytes", 1002, append([]byte{0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0}, make([]byte, 126)...)},
		{"a continuation of nothing", 1002, append([]byte{0x80}, mask...)},
		{"a message inside a message", 1002, append(append([]byte{0x01}, mask...), append([]byte{0x81}, mask...)...)},
		{"a close of one byte", 1002, append([]byte{0x88}, masked(3)...)},
		{"a close with a code that is reserved", 1002, append([]byte{0x88}, masked(1005>>8, 1005&0xff)...)},
		{"text that is not UTF-8", 1007, append([]byte{0x81}, masked(0xff, 0xfe)...)},
		{"text that ends inside of a character", 1007, append([]byte{0x81}, masked(0xe2, 0x82)...)},
		{"a message of 5000 bytes", 1009, append([]byte{0x82, 0x80 | 126, 5000 >> 8, 5000 & 0xff, 0, 0, 0, 0}, make([]byte, 5000)...)},
		{"a message of 2^62 bytes", 1009, []byte{0x82, 0x80 | 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		{"a normal close", 1000, append([]byte{0x88}, masked(1000>>8, 1000&0xff)...)},
	} {
		conn := c.upgradeRaw("/api/stream/fixed")
		conn.send(tt.data)
		if code, err := conn.closeCode(); err != nil || code != tt.code {
			c.Errorf("%s: closed with %d, %v, want %d", tt.what, code, err, tt.code)
		}
	}
	c.open("websocket", "/api/stream/fixed").receive() // others go on
}

func limits(c *check) {
	for _, tt := range []struct {
		what, path string
		header     []string
		status     int
		code       string
	}{
		{"33 views", "/api/stream?" + strings.Repeat("view=x&", 33), nil, 400, "too_many_views"},
		{"a long URL", "/api/views/fixed?x=" + strings.Repeat("x", 9000), nil, 414, "uri_too_long"},
	} {
		response, body := c.get(tt.path, tt.header...)
		c.wantError(tt.what, response, body, tt.status, tt.code)
	}
	if response, _ := c.get("/api/views/fixed", "X-Large", strings.Repeat("x", 20_000)); response.StatusCode != 431 {
		c.Errorf("20,000 bytes of headers: status %d, want 431", response.StatusCode)
	}
	for _, framing := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		response, body := c.raw("GET /api/views/fixed HTTP/1.1\r\nHost: " + c.host() + "\r\n" + framing)
		c.wantError("a body", response, body, 413, "body_not_allowed")
	}
	if response, _ := c.get("/api/views/fixed"); response.StatusCode != 200 {
		c.Errorf("afterwards: status %d", response.StatusCode)
	}
}

func foreignOrigins(c *check) {
	for _, header := range [][]string{nil, upgrade} {
		response, body := c.get("/api/stream/fixed", append(slices.Clone(header), "Origin", "https://foreign.example")...)
		c.wantError("a foreign origin", response, body, 403, "foreign_origin")
	}
	if !c.loopback() {
		return
	}
	response, body := c.get("/api/views/fixed", "Host", "foreign.example")
	c.wantError("a foreign host", response, body, 403, "foreign_host")
}

func crossOrigin(c *check) {
	origin := c.URL
	for _, path := range []string{"/api/views/fixed", "/api/views", "/api/views/nothing"} {
		response, _ := c.get(path, "Origin", origin)
		for header, want := range map[string]string{
			"Access-Control-Allow-Origin":   "^" + regexp.QuoteMeta(origin) + "$",
			"Access-Control-Expose-Headers": "ETag.*Retry-After",
			"Vary":                          "Origin",
		} {
			if got := strings.Join(response.Header.Values(header), ", "); !regexp.MustCompile(want).MatchString(got) {
				c.Errorf("%s: %s: %q, want %s", path, header, got, want)
			}
		}
		response, _ = c.get(path)
		if got := strings.Join(response.Header.Values("Vary"), ", "); !strings.Contains(got, "Origin") {
			c.Errorf("%s without an origin: Vary: %q", path, got)
		}
	}
	response, _ := c.do(http.MethodOptions, "/api/stream/fixed", "Origin", origin, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "last-event-id")
	if got := response.Header.Get("Access-Control-Allow-Headers"); response.StatusCode != 204 || !strings.Contains(got, "Last-Event-ID") || !strings.Contains(response.Header.Get("Access-Control-Allow-Methods"), "GET") {
		c.Errorf("a preflight: got %d, headers %q, methods %q", response.StatusCode, got, response.Header.Get("Access-Control-Allow-Methods"))
	}
}

// A message1 is a message of version 1.
type message1 struct {
	Inserted, Deleted [][]*string
	Timestamp         string
}

// read1 returns the next message of version 1, which has nothing but its fields.
func (s *stream) read1() message1 {
	s.Helper()
	text, err := s.next()
	if err != nil {
		s.Fatal(err)
	}
	var m message1
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil || m.Inserted == nil || m.Deleted == nil || m.Timestamp == "" {
		s.Fatalf("%s: got %.300s, %v, want a message of version 1", s.path, text, err)
	}
	return m
}

func version1(c *check) {
	defer c.empty("a", "b")
	c.Table.Insert(Row{"a", 1})
	for _, transport := range transports {
		s := c.open(transport, "/api/v1/stream/people")
		rows := map[string]int{}
		for next := true; next; next = len(rows) != 1 || rows["a 1"] != 1 {
			m := s.read1()
			for i, list := range [][][]*string{m.Inserted, m.Deleted} {
				for _, row := range list {
					key := *row[0] + " " + *row[1]
					if rows[key] += 1 - 2*i; rows[key] == 0 {
						delete(rows, key)
					}
				}
			}
		}
		c.pass()
		c.Table.Insert(Row{"b", 2})
		if m := s.read1(); len(m.Inserted) != 1 || len(m.Deleted) != 0 || *m.Inserted[0][0] != "b" {
			c.Errorf("%s: a change came as %v %v", transport, m.Inserted, m.Deleted)
		}
		c.Table.Delete("b")
	}
}

func version1Values(c *check) {
	for _, transport := range transports {
		if m := c.open(transport, "/api/v1/stream/fixed").read1(); len(m.Inserted) != 1 || *m.Inserted[0][0] != "7" {
			c.Errorf("%s: got %v, want the string 7", transport, m.Inserted)
		}
	}
}

func version1Ends(c *check) {
	c.needs(c.NewHistory != nil, "NewHistory")
	var streams []*stream
	for _, transport := range transports {
		s := c.open(transport, "/api/v1/stream/people")
		s.read1()
		streams = append(streams, s)
	}
	c.NewHistory()
	for i, s := range streams {
		text, err := s.next()
		if err == nil || transports[i] == "websocket" && websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			c.Errorf("%s: got %s, %v, want the end of the stream", transports[i], text, err)
		}
	}
}
