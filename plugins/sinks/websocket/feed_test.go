package websocket_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
)

// contents is what a view holds: rows and their copies.
type contents map[core.Row]core.Diff

func (c contents) String() string {
	var s strings.Builder
	for _, row := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&s, "%d*%s ", c[row], row)
	}
	return s.String()
}

// checksum is that of the view, of which the numbers may be strings.
func (c contents) checksum(columns []core.Column) string {
	var sum uint64
	for row, n := range c {
		sum += uint64(n) * core.Row(unquoted(row, columns)).Hash()
	}
	return fmt.Sprintf("%016x", sum)
}

// A number as numbers=string has it.
var quotedNumber = regexp.MustCompile(`^"-?[0-9][-+.eE0-9]*"$`)

// unquoted takes the quotes off the numbers that numbers=string puts some on.
func unquoted(row core.Row, columns []core.Column) string {
	var values []json.RawMessage
	if err := json.Unmarshal([]byte(row), &values); err != nil {
		return "not a row: " + string(row)
	}
	var text []string
	for i, v := range values {
		wide := i < len(columns) && slices.Contains([]string{"int8", "uint8", "numeric", "mz_timestamp"}, columns[i].Type)
		if wide && quotedNumber.Match(v) {
			v = v[1 : len(v)-1]
		}
		text = append(text, string(v))
	}
	return "[" + strings.Join(text, ",") + "]"
}

// A feed writes the log of a view and remembers what the view was at each time.
type feed struct {
	*viewlog.Log
	t    *testing.T
	view *core.View
	now  contents
	at   core.Time

	mu      sync.Mutex // guards history, which clients look at while it grows
	history map[string]string
}

func newFeed(t *testing.T, name string, columns ...core.Column) *feed {
	if columns == nil {
		columns = []core.Column{{Name: "user", Type: "text"}, {Name: "count", Type: "int8"}}
	}
	return &feed{
		Log:     viewlog.New(name, viewlog.Options{}),
		t:       t,
		view:    &core.View{Name: name, Columns: columns, Key: []int{0}},
		now:     contents{},
		history: make(map[string]string),
	}
}

// reset begins a new history with the contents at a time.
func (f *feed) reset(at core.Time, rows ...core.Row) {
	f.t.Helper()
	f.now, f.at = contents{}, at
	var updates []core.Update
	for _, row := range rows {
		f.now[row]++
		updates = append(updates, core.Update{Time: at - 1, Diff: 1, Row: row})
	}
	f.remember()
	if err := f.Reset(f.view, "upstream", at, snapshot(f, core.Consolidate(updates))); err != nil {
		f.t.Fatal(err)
	}
}

// change is a row and what happens to its copies.
type change struct {
	diff core.Diff
	row  core.Row
}

// append continues to a time; no changes are progress.
func (f *feed) append(to core.Time, changes ...change) {
	f.t.Helper()
	var updates []core.Update
	for _, c := range changes {
		if f.now[c.row] += c.diff; f.now[c.row] == 0 {
			delete(f.now, c.row)
		}
		updates = append(updates, core.Update{Time: to - 1, Diff: c.diff, Row: c.row})
	}
	from := f.at
	f.at = to
	f.remember()
	if err := f.Append(from, to, core.Consolidate(updates)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *feed) remember() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history[f.at.String()] = f.now.String()
}

// was returns what the view was at a timestamp.
func (f *feed) was(timestamp string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.history[timestamp]
	return c, ok
}

// sum returns the checksum of the view.
func (f *feed) sum() string { return f.now.checksum(nil) }

// token returns the log's frontier.
func (f *feed) token() core.Token {
	upper, _ := f.Frontier()
	return upper
}

func row(format string, args ...any) core.Row { return core.Row(fmt.Sprintf(format, args...)) }

// snapshot makes a snapshot of rows, of which only the diffs count.
func snapshot(l interface{ Snapshot() *viewlog.Snapshot }, rows []core.Update) *viewlog.Snapshot {
	s := l.Snapshot()
	for _, u := range rows {
		s.Add([]byte(u.Row), u.Diff)
	}
	return s
}
