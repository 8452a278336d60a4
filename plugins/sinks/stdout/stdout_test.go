package stdout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/stdout"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	time.Local = time.UTC // for the golden files
	goleak.VerifyTestMain(m)
}

var top10 = &core.View{
	Name: "top10",
	Columns: []core.Column{
		{Name: "user", Type: "text"},
		{Name: "count", Type: "int8"},
		{Name: "meta", Type: "jsonb"},
	},
	Key: []int{0},
}

func token(t core.Time) core.Token { return core.Token{Time: t, Generation: "k3f9"} }

// batches are a base, a delta, progress and a delta of a clock that is none.
var batches = []core.Batch{
	{View: top10, Upper: token(1721310000000), Updates: core.UpdatesOf([]core.Update{
		{Time: 1721309999999, Diff: 1, Row: `["Ada",12,{"a":[1,null]}]`},
		{Time: 1721309999999, Diff: 2, Row: `["a \"quoted\" name",9007199254740993,null]`},
		{Time: 1721309999999, Diff: 1, Row: `["evil \u001b[31m\nname\u202e",-1,"x"]`},
		{Time: 1721309999999, Diff: 1, Row: `["👩‍👩‍👧‍👦 سارة",7,true]`},
		{Time: 1721309999999, Diff: 1, Row: core.Row(`[null,0,"` + strings.Repeat("long ", 12) + `"]`)},
	})},
	{View: top10, Lower: token(1721310000000), Upper: token(1721310001000), Updates: core.UpdatesOf([]core.Update{
		{Time: 1721310000999, Diff: -1, Row: `["Ada",12,{"a":[1,null]}]`},
		{Time: 1721310000999, Diff: 1, Row: `["Ada",13,{"a":[1,null]}]`},
		{Time: 1721310000999, Diff: -2, Row: `["a \"quoted\" name",9007199254740993,null]`},
	})},
	{View: top10, Lower: token(1721310001000), Upper: token(1721310002000)},
	{View: &core.View{Name: "empty"}, Upper: token(5)},
}

func TestFormats(t *testing.T) {
	for _, tt := range []struct {
		name string
		sink func(io.Writer) *stdout.Sink
	}{
		{"json", func(w io.Writer) *stdout.Sink { return stdout.To(w, stdout.Settings{}) }},
		{"json-progress", func(w io.Writer) *stdout.Sink {
			return stdout.To(w, stdout.Settings{Format: "json", Progress: true})
		}},
		{"text", func(w io.Writer) *stdout.Sink { return stdout.To(w, stdout.Settings{Format: "text"}) }},
		{"text-progress", func(w io.Writer) *stdout.Sink {
			return stdout.To(w, stdout.Settings{Format: "text", Progress: true})
		}},
		{"colour", stdout.InColour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := tt.sink(&out).Write(t.Context(), batches); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", tt.name+".txt")
			if *update {
				if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := out.String(); got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestLinesAreJSON(t *testing.T) {
	var out bytes.Buffer
	if err := stdout.To(&out, stdout.Settings{Progress: true}).Write(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

func TestConcurrentBatchesStayTogether(t *testing.T) {
	var out bytes.Buffer
	sink := stdout.To(&out, stdout.Settings{})
	const writers, rows = 8, 50
	var wg sync.WaitGroup
	for w := range writers {
		view := &core.View{Name: fmt.Sprint("view", w), Columns: []core.Column{{Name: "n", Type: "int8"}}}
		wg.Go(func() {
			b := core.Batch{View: view, Lower: token(1), Upper: token(3)}
			var list []core.Update
			for n := range rows {
				list = append(list, core.Update{Time: 2, Diff: 1, Row: core.Row(fmt.Sprintf("[%d]", n))})
			}
			b.Updates = core.UpdatesOf(list)
			if err := sink.Write(t.Context(), []core.Batch{b}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if got, want := len(lines), writers*rows; got != want {
		t.Fatalf("%d lines, want %d", got, want)
	}
	for i, line := range lines {
		first := lines[i-i%rows]
		if got, want := line[:14], first[:14]; got != want {
			t.Fatalf("line %d: %s is among those that begin with %s", i, got, want)
		}
	}
}

func TestBrokenPipeIsPermanent(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	err = stdout.To(w, stdout.Settings{}).Write(t.Context(), batches)
	if !errors.Is(err, core.ErrPermanent) {
		t.Errorf("got %v, want a permanent error", err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestOtherErrorsAreNot(t *testing.T) {
	err := stdout.To(fullDisk{}, stdout.Settings{}).Write(t.Context(), batches)
	if err == nil || errors.Is(err, core.ErrPermanent) {
		t.Errorf("got %v, want an error that is not permanent", err)
	}
}

// fillingDisk has room for so many bytes, and takes what fits.
type fillingDisk struct {
	bytes.Buffer
	room int
}

func (d *fillingDisk) Write(p []byte) (int, error) {
	n := min(d.room, len(p))
	d.room -= n
	d.Buffer.Write(p[:n])
	if n < len(p) {
		return n, errors.New("disk full")
	}
	return n, nil
}

// TestLinesAreWhole fills the disk at every byte, twice, and prints the batch again
// each time, as mzd does: every line is one of those that were to be printed.
func TestLinesAreWhole(t *testing.T) {
	var whole bytes.Buffer
	if err := stdout.To(&whole, stdout.Settings{}).Write(t.Context(), batches[1:2]); err != nil {
		t.Fatal(err)
	}
	for room := range whole.Len() {
		disk := &fillingDisk{room: room}
		sink := stdout.To(disk, stdout.Settings{})
		for _, more := range []int{7, 1 << 20} {
			if err := sink.Write(t.Context(), batches[1:2]); err == nil {
				t.Fatalf("room for %d bytes: no error", room)
			}
			disk.room = more
		}
		if err := sink.Write(t.Context(), batches[1:2]); err != nil {
			t.Fatal(err)
		}
		got := disk.String()
		if !strings.HasSuffix(got, whole.String()) {
			t.Errorf("room for %d bytes: the batch is not at the end of\n%s", room, got)
		}
		for line := range strings.Lines(got) {
			if !strings.Contains(whole.String(), line) {
				t.Errorf("room for %d bytes: got the line %s", room, line)
			}
		}
	}
}

// TestNothingIsPrintedAtTheEnd has a context that has ended before Write begins: the
// batch comes again, so that it must not be printed now.
func TestNothingIsPrintedAtTheEnd(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // it takes its turn, or does not, by chance
		var out bytes.Buffer
		sink := stdout.To(&out, stdout.Settings{})
		if err := sink.Write(ended, batches[:1]); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want that the context has ended", err)
		}
		if err := sink.Write(t.Context(), batches[1:2]); err != nil { // after whatever is still being written
			t.Fatal(err)
		}
		if strings.Contains(out.String(), `"base":true`) {
			t.Fatalf("printed %s", out.String())
		}
	}
}

func TestAStalledPipeHoldsNobodyUp(t *testing.T) {
	r, w := io.Pipe()
	sink := stdout.To(w, stdout.Settings{})
	for range 2 { // the second waits for its turn behind the first
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := sink.Write(ctx, batches); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
	}
	r.Close() // lets the write end
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
}

func TestNothingIsWrittenForProgressUnlessAsked(t *testing.T) {
	var out bytes.Buffer
	if err := stdout.To(&out, stdout.Settings{}).Write(t.Context(), batches[2:3]); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}
