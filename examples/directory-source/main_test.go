package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/plugintest"
	"github.com/mzdio/mzd/schema"
)

// put makes a file appear whole.
func put(dir, name, text string) error {
	hidden := filepath.Join(dir, "."+name)
	if err := os.WriteFile(hidden, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(hidden, filepath.Join(dir, name))
}

// TestRules holds the source against every rule that a source has to keep.
func TestRules(t *testing.T) {
	dir, n := t.TempDir(), 0
	produce := func(_ context.Context, files int) error {
		for range files {
			n++
			if err := put(dir, fmt.Sprintf("%06d.json", n), fmt.Sprintf("{\"n\": %d}\n", n)); err != nil {
				return err
			}
		}
		return nil
	}
	settings, err := json.Marshal(map[string]any{"dir": dir, "interval": "5ms"})
	if err != nil {
		t.Fatal(err)
	}
	plugintest.TestSource(t, plugintest.Source{
		Plugin:   plugins.NewSource("directory", "", Open),
		Settings: settings,
		Produce:  produce,
		Refused:  []json.RawMessage{json.RawMessage(`{"dir": ".", "interval": "0s"}`), json.RawMessage(`{"dir": ".", "max_file": "1GiB"}`)},
	})
}

// follow runs a source until it has looked once more after each of the steps, and
// returns what it emitted.
func follow(t *testing.T, s Settings, cursor string, steps ...func()) (got []string) {
	t.Helper()
	s.Interval = 1
	if s.MaxFile == 0 {
		s.MaxFile = 1 << 20
	}
	source, err := Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	err = source.Run(ctx, cursor, func(_ context.Context, events ...core.Event) error {
		for _, e := range events {
			if e.ID != e.Cursor || source.Identify(e.Data) != e.ID {
				t.Errorf("ID %q, cursor %q, of %s", e.ID, e.Cursor, e.Data)
			}
			got = append(got, string(e.Data))
		}
		if looks < len(steps) {
			steps[looks]()
		} else if looks > len(steps) {
			cancel()
		}
		looks++
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	return got
}

func check(t *testing.T, got []string, files ...string) {
	t.Helper()
	var want []string
	for _, f := range files {
		want = append(want, fmt.Sprintf(`{"file":%q,"document":{"of":%q}}`, f, f))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) {
		if err := put(dir, name, fmt.Sprintf("{\n  \"of\": %q\n}\n", name)); err != nil {
			t.Fatal(err)
		}
	}
	raw := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "0.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	raw("0.txt", "no event")
	raw(".0.json", "{")
	file("2.json")
	file("1.json")
	got := follow(t, Settings{Dir: dir, Settle: schema.Duration(time.Hour)}, "",
		func() { file("4.json"); file("3.json") },
		func() { raw("5.json", `{"of":`); file("6.json") },
		func() {},
		func() { raw("5.json", `{"of":"5.json"}`) },
	)
	check(t, got, "1.json", "2.json", "3.json", "4.json", "5.json", "6.json")
	check(t, follow(t, Settings{Dir: dir}, "4.json"), "5.json", "6.json")
	check(t, follow(t, Settings{Dir: dir}, "6.json"))

	// What is no event does not stop what is.
	raw("7.json", "{")
	raw("8.json", `"`+strings.Repeat("x", 1000)+`"`)
	file("9.json")
	check(t, follow(t, Settings{Dir: dir, MaxFile: 100}, "6.json"), "9.json")
}

func TestBatches(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		if err := put(dir, fmt.Sprintf("%d.json", i), `"`+strings.Repeat("x", 500<<10)+`"`); err != nil {
			t.Fatal(err)
		}
	}
	source, err := Open(t.Context(), Settings{Dir: dir, Interval: schema.Duration(time.Hour), MaxFile: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	calls := 0
	err = source.Run(t.Context(), "", func(_ context.Context, events ...core.Event) error {
		if calls++; calls == 2 {
			return full
		}
		if len(events) != 3 {
			t.Errorf("got %d events at once", len(events))
		}
		return nil
	})
	if err != full || calls != 2 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

func TestNoDirectory(t *testing.T) {
	source, err := Open(t.Context(), Settings{Dir: filepath.Join(t.TempDir(), "none"), Interval: 1})
	if err != nil {
		t.Fatal(err)
	}
	err = source.Run(t.Context(), "", func(context.Context, ...core.Event) error { return nil })
	if !errors.Is(err, os.ErrNotExist) || errors.Is(err, core.ErrPermanent) {
		t.Errorf("got %v", err)
	}
}
