package webhook_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/webhook"
)

var (
	seed  = flag.Uint64("seed", 0, "play this seed with the documented receiver only; 0: the first -seeds")
	seeds = flag.Uint64("seeds", 10, "how many seeds to play with the documented receiver")
)

// TestDocumentedReceiver plays with the receiver of docs/webhook.md: messages in
// parts, answers that are lost, restarts, other histories, views that move together
// and apart, and at any time a request that comes once more, however late. After each
// message it holds what the views are.
func TestDocumentedReceiver(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed > 0 {
		first, last = *seed, *seed
	}
	r := startReceiver(t)
	for n := first; n <= last; n++ {
		r.play(n)
	}
}

// documented is the receiver of the docs, in a process of its own, and what it is to
// hold.
type documented struct {
	*testing.T
	in  io.Writer
	out *bufio.Reader

	mu    sync.Mutex // held by whoever plays: the test, or for each request the server
	rand  *rand.Rand
	views []*playedView
	sent  []string // bodies, each once for each time
	late  int
	lost  int
	given int // requests until mzd gives a message up for good; 0: it does not
}

// playedView is a view, and where its sink stands.
type playedView struct {
	*core.View
	rows      map[string]int
	at        core.Token
	begins    bool // with a base
	histories int
}

func startReceiver(t *testing.T) *documented {
	cmd := documentedExample(t, "python", 1, "main.py", "", `
import sqlite3, sys
for line in sys.stdin:
    what, _, body = line.rstrip("\n").partition(" ")
    if what == "begin":
        db = sqlite3.connect(":memory:")
        db.executescript(SCHEMA)
        print("ok")
    elif what == "take":
        try:
            print(take(db, body))
        except Exception as e:
            print(500, repr(e))
    else:
        print(json.dumps({view + row: copies for view, row, copies in db.execute("SELECT * FROM rows")}))
    sys.stdout.flush()
`, "python3", "main.py")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return &documented{T: t, in: in, out: bufio.NewReader(out)}
}

// ask tells the receiver a line, and returns its answer.
func (d *documented) ask(what, body string) string {
	if _, err := fmt.Fprintf(d.in, "%s %s\n", what, body); err != nil {
		d.Fatal(err)
	}
	answer, err := d.out.ReadString('\n')
	if err != nil {
		d.Fatal(err)
	}
	return strings.TrimSpace(answer)
}

func (d *documented) play(n uint64) {
	d.rand = rand.New(rand.NewPCG(n, 0))
	d.views, d.sent, d.late, d.lost, d.given = []*playedView{{View: top10}, {View: counter}}, nil, 0, 0, 0
	d.ask("begin", "")
	server := httptest.NewServer(d)
	defer server.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	var sink *webhook.Sink
	together := false
	for step := range 60 {
		if sink == nil || d.rand.IntN(8) == 0 { // mzd starts again
			sink = open(d.T, webhook.Settings{URL: server.URL, MaxBody: 1 << 10})
			together = d.rand.IntN(2) == 0
			for _, v := range d.views {
				v.restart(d.rand)
			}
		}
		cut := d.next(together)
		if d.rand.IntN(8) == 0 { // its views have other histories when mzd starts again
			d.given = 1 + d.rand.IntN(4)
			d.write(sink, cut)
			d.given = 0
			for _, v := range d.views {
				if slices.ContainsFunc(cut, func(b core.Batch) bool { return b.View == v.View }) {
					v.rows = nil
				}
			}
			sink = nil
			continue
		}
		err := d.write(sink, cut)
		for tries := 0; err != nil && tries < 1000; tries++ {
			err = d.write(sink, cut)
		}
		if err != nil {
			d.Fatalf("seed %d, step %d: %v", n, step, err)
		}
		d.compare(n, step)
	}
	if d.late == 0 || d.lost == 0 {
		d.Errorf("seed %d: %d late requests and %d lost answers", n, d.late, d.lost)
	}
}

// write lets the server play while the sink writes.
func (d *documented) write(sink *webhook.Sink, cut []core.Batch) error {
	d.mu.Unlock()
	defer d.mu.Lock()
	return sink.Write(d.Context(), cut)
}

// restart begins another generation, and sometimes another history, at any time.
func (v *playedView) restart(r *rand.Rand) {
	v.histories++
	generation := core.Generation(fmt.Sprint("g", v.histories))
	if v.rows == nil || r.IntN(4) == 0 {
		v.rows, v.begins = make(map[string]int), true
		v.at = core.Token{Time: core.Time(1 + r.IntN(100))}
	}
	v.at.Generation = generation
}

// next is the next cut, of one view or of both.
func (d *documented) next(together bool) []core.Batch {
	views := d.views
	if !together {
		views = []*playedView{d.views[d.rand.IntN(len(d.views))]}
	}
	var upper core.Time
	for _, v := range views {
		upper = max(upper, v.at.Time)
	}
	upper += core.Time(1 + d.rand.IntN(3))
	var cut []core.Batch
	for _, v := range views {
		cut = append(cut, d.change(v, upper))
	}
	return cut
}

// change makes something happen to a view, or nothing.
func (d *documented) change(v *playedView, upper core.Time) core.Batch {
	var updates []any
	for range d.rand.IntN(2) * d.rand.IntN(25) {
		row := fmt.Sprintf(`["%s %d",%d.50]`, strings.Repeat("ü", d.rand.IntN(40)), d.rand.IntN(10), d.rand.IntN(3))
		copies := 1 + d.rand.IntN(2)
		if v.rows[row] > 0 {
			copies = -d.rand.IntN(v.rows[row] + 1)
		}
		if v.rows[row] += copies; v.rows[row] == 0 {
			delete(v.rows, row)
		}
		updates = append(updates, copies, row)
	}
	if v.begins {
		updates = nil
		for row, copies := range v.rows {
			updates = append(updates, copies, row)
		}
	}
	b := batch(v.View, 0, upper, updates...)
	b.Updates = core.UpdatesOf(core.Consolidate(b.Updates.Slice()))
	if !v.begins {
		b.Lower = v.at
	}
	v.begins, v.at.Time = false, upper
	b.Upper = v.at
	return b
}

// ServeHTTP hands a request over, before or after one that was here before. Some
// answers are lost.
func (d *documented) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.Error(err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.repeat()
	if d.given > 0 {
		if d.given--; d.given == 0 {
			panic(http.ErrAbortHandler)
		}
	}
	status, text, _ := strings.Cut(d.ask("take", string(body)), " ")
	d.sent = append(d.sent, string(body))
	code, err := strconv.Atoi(status)
	if err != nil || code == http.StatusInternalServerError {
		d.Errorf("answer %s %s to %s", status, text, body)
	}
	d.repeat()
	if d.given == 0 && d.rand.IntN(5) == 0 {
		d.lost++
		code = http.StatusServiceUnavailable
	}
	w.WriteHeader(code)
}

// repeat hands a request over again that was here at some time.
func (d *documented) repeat() {
	if len(d.sent) == 0 || d.rand.IntN(8) > 0 {
		return
	}
	d.late++
	d.ask("take", d.sent[d.rand.IntN(len(d.sent))]) // nobody waits for the answer
}

// compare compares what the receiver holds with the views. One that had no base yet
// is empty there.
func (d *documented) compare(n uint64, step int) {
	d.Helper()
	want := make(map[string]int)
	for _, v := range d.views {
		for row, copies := range v.rows {
			if !v.begins {
				want[v.Name+row] = copies
			}
		}
	}
	got := make(map[string]int)
	if err := json.Unmarshal([]byte(d.ask("show", "")), &got); err != nil {
		d.Fatal(err)
	}
	for _, v := range d.views {
		if v.begins { // it has what it had of the history before
			for _, all := range []map[string]int{got, want} {
				maps.DeleteFunc(all, func(row string, _ int) bool { return strings.HasPrefix(row, v.Name+"[") })
			}
		}
	}
	if !maps.Equal(got, want) {
		d.Fatalf("seed %d, step %d:\n got %v\nwant %v", n, step, got, want)
	}
}
