package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a directory with files and an engine over it, which can be stopped and opened again.
type world struct {
	testing.TB
	dir  string
	opt  engine.Options
	e    *engine.Engine
	s    *engine.Session
	stop func()
}

func newWorld(tb testing.TB, opt engine.Options) *world {
	w := &world{TB: tb, dir: tb.TempDir(), opt: opt}
	w.opt.BaseDir, w.opt.DataDir = w.dir, filepath.Join(w.dir, "engine")
	w.start()
	return w
}

// start opens and runs the engine.
func (w *world) start() {
	w.Helper()
	e, err := engine.Open(w.opt)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	w.e, w.s = e, e.NewSession()
	w.stop = sync.OnceFunc(func() {
		w.s.Close()
		cancel()
		if err := <-done; err != nil {
			w.Errorf("run: %v", err)
		}
	})
	w.Cleanup(w.stop)
}

func (w *world) restart() {
	w.Helper()
	w.stop()
	w.start()
}

// write appends to a file.
func (w *world) write(name, text string) {
	w.Helper()
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		w.Fatal(err)
	}
}

func (w *world) exec(text string) { w.Helper(); exec(w, w.s, text) }

// rows runs a query and returns its rows as texts, in order.
func (w *world) rows(text string) []string {
	w.Helper()
	return rowTexts(query(w, w.s, text))
}

// want holds a query's rows, in any order, against texts.
func (w *world) want(text string, want ...string) {
	w.Helper()
	got := w.rows(text)
	want = slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.Errorf("%s\ngot  %q\nwant %q", text, got, want)
	}
}

// fails holds a statement's error against a SQLSTATE and a part of its message.
func (w *world) fails(text, code, message string) {
	w.Helper()
	_, err := tryQuery(w.Context(), w.s, text)
	var e *engine.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, message) {
		w.Errorf("%s\ngot  %#v\nwant %s %s", text, err, code, message)
	}
}

// stream begins a TAIL or SUBSCRIBE in a session of its own.
func (w *world) stream(text string) *engine.Result {
	w.Helper()
	s := w.e.NewSession()
	st, err := s.Parse(text)
	if err != nil {
		w.Fatal(err)
	}
	r, err := s.Execute(w.Context(), st[0])
	if err != nil {
		w.Fatalf("%s: %v", text, err)
	}
	w.Cleanup(r.Close)
	return r
}

// next reads one chunk.
func (w *world) next(r *engine.Result) []string {
	w.Helper()
	rows, err := r.Next(w.Context())
	if err != nil {
		w.Fatalf("next: %v", err)
	}
	return rowTexts(rows)
}

// ends reads to the end of a stream, which must be this error.
func (w *world) ends(r *engine.Result, code, message string) {
	w.Helper()
	for {
		_, err := r.Next(w.Context())
		if err == nil {
			continue
		}
		var e *engine.Error
		if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, message) {
			w.Errorf("stream ended with %#v, want %s %s", err, code, message)
		}
		return
	}
}

func rowText(r flow.Row) string {
	parts := make([]string, len(r))
	for i, d := range r {
		parts[i] = d.String()
	}
	return strings.Join(parts, "|")
}

func rowTexts(rows []flow.Row) []string {
	var out []string
	for _, r := range rows {
		out = append(out, rowText(r))
	}
	return out
}

// exec runs statements whose rows nobody wants.
func exec(tb testing.TB, s *engine.Session, text string) {
	tb.Helper()
	st, err := s.Parse(text)
	if err != nil {
		tb.Fatalf("parse %s: %v", text, err)
	}
	for _, st := range st {
		r, err := s.Execute(tb.Context(), st)
		if err != nil {
			tb.Fatalf("execute %s: %v", st, err)
		}
		if _, err := drain(tb.Context(), r); err != nil {
			tb.Fatalf("execute %s: %v", st, err)
		}
		r.Close()
	}
}

// query runs statements and returns the rows of the last.
func query(tb testing.TB, s *engine.Session, text string) []flow.Row {
	tb.Helper()
	rows, err := tryQuery(tb.Context(), s, text)
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return rows
}

func tryQuery(ctx context.Context, s *engine.Session, text string) ([]flow.Row, error) {
	st, err := s.Parse(text)
	if err != nil {
		return nil, err
	}
	var rows []flow.Row
	for _, st := range st {
		r, err := s.Execute(ctx, st)
		if err != nil {
			return nil, err
		}
		rows, err = drain(ctx, r)
		r.Close()
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func drain(ctx context.Context, r *engine.Result) ([]flow.Row, error) {
	var all []flow.Row
	for r.Next != nil {
		rows, err := r.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return all, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

// numbered makes lines "prefix1" to "prefixN".
func numbered(prefix string, from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "%s%d\n", prefix, i)
	}
	return b.String()
}
