package plugintest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mzdio/mzd/core"
)

// receiver is the other end of the webhook and exec sinks, as docs/webhook.md
// asks for: what it was sent is in a file, a message a line, and it applies them
// when it is asked.
type receiver struct {
	file string

	mu     sync.Mutex // guards what follows
	read   int64
	staged map[string][]receivedMessage
	views  map[string]received
}

// received is the rows of a view, up to where they are applied, and the histories
// that this has been in.
type received struct {
	rows map[string]int
	at   core.Token
	seen []core.Generation
}

// isRepeat reports whether a message up to a token was applied before: it may come
// again, however late.
func (v received) isRepeat(to core.Token) bool {
	if to.Generation == v.at.Generation {
		return to.Time <= v.at.Time
	}
	return slices.Contains(v.seen, to.Generation)
}

// receivedMessage is a message or a part of one, or a view of it.
type receivedMessage struct {
	Type     string                     `json:"type"`
	View     string                     `json:"view"`
	Token    string                     `json:"token"`
	Inserted []json.RawMessage          `json:"inserted"`
	Deleted  []json.RawMessage          `json:"deleted"`
	Views    map[string]receivedMessage `json:"views"`
	Part     int                        `json:"part"`
	More     bool                       `json:"more"`
}

func newReceiver(t *testing.T) *receiver {
	return &receiver{file: t.TempDir() + "/messages", staged: make(map[string][]receivedMessage), views: make(map[string]received)}
}

// appendMessage notes a message. A newline comes before it, too: the receiver before
// this one may have been killed in the middle of one, which must not tear this one.
func appendMessage(file string, body []byte) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "\n%s\n", body)
	return errors.Join(err, f.Close())
}

// observe applies what has come, and returns the rows of a view.
func (r *receiver) observe(_ context.Context, v *core.View) ([]json.RawMessage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.Open(r.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(r.read, io.SeekStart); err != nil {
		return nil, err
	}
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break // the rest is being written
		}
		if err != nil {
			return nil, err
		}
		r.read += int64(len(line))
		var m receivedMessage
		switch err := json.Unmarshal(line, &m); {
		case err == nil:
			if err := r.take(m); err != nil {
				return nil, err
			}
		case json.Valid(line):
			return nil, err
		} // or it is empty, or torn and so not acknowledged
	}
	var rows []json.RawMessage
	for row, n := range r.views[v.Name].rows {
		for range n {
			rows = append(rows, json.RawMessage(row))
		}
	}
	return rows, nil
}

// TestTornMessage kills a receiver in the middle of a message, at every byte.
func TestTornMessage(t *testing.T) {
	message := func(n int) []byte {
		return fmt.Appendf(nil, `{"type":"base","view":"v","token":"%d-g","inserted":[[%[1]d,"the row"]],"deleted":[]}`, n)
	}
	for n := range message(1) {
		r := newReceiver(t)
		if err := os.WriteFile(r.file, message(1)[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		for _, what := range []string{"before it comes again", "after that"} {
			rows, err := r.observe(t.Context(), &core.View{Name: "v"})
			if want := what == "after that"; err != nil || (len(rows) == 1) != want {
				t.Errorf("torn after %d bytes, %s: got %s, %v", n, what, rows, err)
			}
			if err := appendMessage(r.file, message(1)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// take stages a part, and applies the message that it completes.
func (r *receiver) take(m receivedMessage) error {
	if m.View != "" {
		m.Views = map[string]receivedMessage{m.View: m}
	}
	news := make(map[string]core.Token)
	for name, change := range m.Views {
		to, err := core.ParseToken(change.Token)
		if err != nil {
			return err
		}
		if !r.views[name].isRepeat(to) {
			news[name] = to
		}
	}
	if len(news) == 0 {
		return nil
	}
	group := strings.Join(slices.Sorted(maps.Keys(m.Views)), " ")
	staged, part := r.staged[group], max(m.Part, 1)
	if part == 1 && len(staged) > 0 && !m.continues(staged[0]) {
		staged = nil
	}
	if part != len(staged)+1 || part > 1 && !m.continues(staged[0]) {
		return nil // a repeat of a part
	}
	staged = append(staged, m)
	r.staged[group] = staged
	if m.More {
		return nil
	}
	delete(r.staged, group)
	for name, to := range news {
		r.apply(name, to, staged)
	}
	return nil
}

// continues reports whether two parts are of one message.
func (m receivedMessage) continues(first receivedMessage) bool {
	return maps.EqualFunc(m.Views, first.Views, func(a, b receivedMessage) bool { return a.Token == b.Token })
}

// apply applies what the parts of a message say of a view.
func (r *receiver) apply(name string, to core.Token, parts []receivedMessage) {
	v := r.views[name]
	if parts[0].Views[name].Type == "base" || v.rows == nil {
		v.rows = make(map[string]int)
	}
	for _, part := range parts {
		for _, row := range part.Views[name].Inserted {
			v.rows[string(row)]++
		}
		for _, row := range part.Views[name].Deleted {
			v.rows[string(row)]--
		}
	}
	if to.Generation != v.at.Generation {
		v.seen = append(v.seen, to.Generation)
	}
	v.at = to
	r.views[name] = v
}

// webhook serves the receiver over HTTP, until the test ends. answer is the
// status for what is not taken, 0 while everything is.
func (r *receiver) webhook(t *testing.T) (url string, answer func(status int)) {
	var mu sync.Mutex
	status := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			return // broken off
		case status != 0:
			w.WriteHeader(status)
		default:
			if err := appendMessage(r.file, body); err != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL, func(s int) {
		mu.Lock()
		defer mu.Unlock()
		status = s
	}
}

// runReceiver is a command for the exec sink: the receiver's file and one that
// says what to answer instead of ok, if it is there.
func runReceiver(file, instead string) {
	for lines := bufio.NewReader(os.Stdin); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		if answer, err := os.ReadFile(instead); err == nil {
			fmt.Println(string(answer))
			continue
		}
		if err := appendMessage(file, bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			fmt.Println("error", err)
			continue
		}
		fmt.Println("ok")
	}
}

// printed is the reader of what the stdout sink prints with "progress": it knows
// repeats by what was complete before.
type printed struct {
	mu    sync.Mutex // guards all
	out   bytes.Buffer
	err   error // of writes; nil: they work
	views map[string]printedView
}

type printedView struct {
	rows     map[string]int
	complete uint64
	waiting  []printedLine
}

type printedLine struct {
	View      string          `json:"view"`
	Timestamp uint64          `json:"timestamp,string"`
	Base      bool            `json:"base"`
	Progress  bool            `json:"progress"`
	Diff      int             `json:"diff"`
	Row       json.RawMessage `json:"row"`
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	return p.out.Write(b)
}

// fail makes writes fail until end is called.
func (p *printed) fail(err error) func(context.Context) (func(), error) {
	set := func(err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = err
	}
	return func(context.Context) (func(), error) {
		set(err)
		return func() { set(nil) }, nil
	}
}

func (p *printed) observe(_ context.Context, v *core.View) ([]json.RawMessage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		line, err := p.out.ReadBytes('\n')
		if err != nil {
			break
		}
		var l printedLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, err
		}
		p.take(l)
	}
	var rows []json.RawMessage
	for row, n := range p.views[v.Name].rows {
		for range n {
			rows = append(rows, json.RawMessage(row))
		}
	}
	return rows, nil
}

func (p *printed) take(l printedLine) {
	v := p.views[l.View]
	switch {
	case l.Base:
		v = printedView{rows: make(map[string]int)}
	case l.Progress:
		for _, w := range v.waiting {
			if v.rows[string(w.Row)] += w.Diff; v.rows[string(w.Row)] == 0 {
				delete(v.rows, string(w.Row))
			}
		}
		v.complete, v.waiting = max(v.complete, l.Timestamp), nil
	case l.Timestamp >= v.complete:
		v.waiting = append(v.waiting, l)
	}
	p.views[l.View] = v
}
