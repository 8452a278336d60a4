//go:build unix

package exec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sources/exec"
	"github.com/mzdio/mzd/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shell(t *testing.T, script string, s exec.Settings) *exec.Source {
	t.Helper()
	s.Command = []string{"sh", "-ec", script}
	source, err := exec.New(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// landing keeps events as text: the data, the ID and the cursor.
type landing struct {
	events []string
	stop   func() // called with the event that ends the test
	last   string
}

func (l *landing) emit(ctx context.Context, events ...core.Event) error {
	for _, e := range events {
		l.events = append(l.events, fmt.Sprintf("%s|%s|%s", e.Data, e.ID, e.Cursor))
		if l.stop != nil && string(e.Data) == l.last {
			l.stop()
			return ctx.Err()
		}
	}
	return nil
}

func TestEvents(t *testing.T) {
	for _, tt := range []struct {
		name     string
		script   string
		settings exec.Settings
		cursor   string
		want     []string
		rejected string
		err      string
	}{
		{name: "lines", script: `printf 'a\n\n b \r\nc\n'`, want: []string{"a||", " b ||", "c||"}},
		{name: "no line break at the end", script: `printf 'a\nb'`, want: []string{"a||", "b||"}},
		{name: "cut off", script: `printf 'a\nb'; echo no more >&2; exit 3`, want: []string{"a||"},
			err: `command sh: exit status 3; the last it said is "no more"`},
		{name: "killed", script: `echo a; kill -9 $$`, want: []string{"a||"}, err: "command sh: signal: killed"},
		{name: "nothing", script: `exit 0`},
		{name: "nothing on stdin", script: `cat; echo end`, want: []string{"end||"}},
		{name: "too long", script: `head -c 5000 /dev/zero; echo; echo a; head -c 3000 /dev/zero`, settings: exec.Settings{MaxLine: 1 << 10},
			want: []string{"a||"}, rejected: "too_large 2"},
		{name: "cursor", script: `echo "{\"n\":$((MZD_CURSOR+1))}"; echo '{"n":1e400}'`, settings: exec.Settings{Cursor: "/n"}, cursor: "41",
			want: []string{`{"n":42}||42`, `{"n":1e400}||1e400`}},
		{name: "no cursor yet", script: `echo "{\"n\":\"${MZD_CURSOR-none}\"}"`, settings: exec.Settings{Cursor: "/n"},
			want: []string{`{"n":"none"}||none`}},
		{name: "not a variable", script: `echo "$CURSOR$HOME"`, settings: exec.Settings{Env: map[string]string{"HOME": "/x"}}, cursor: "7",
			want: []string{"/x||"}},
		{name: "ID and invalid lines", script: `printf '%s\n' '{"m":{"id":"x","at":[7]}}' '{"m":{"id":"y"}}' '{"m":{"id":""' '{} {}' '{"m":{"id":null,"at":[1]}}' '{"m":{"id":"z","at":["\u0000"]}}'`,
			settings: exec.Settings{Cursor: "/m/at/0", ID: "/m/id"},
			want:     []string{`{"m":{"id":"x","at":[7]}}|x|7`}, rejected: "invalid 5"},
		{name: "not ended", script: `echo a; exec >&-; while :; do :; done & exit 0`, want: []string{"a||"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source := shell(t, tt.script, tt.settings)
			var to landing
			err := source.Run(t.Context(), tt.cursor, to.emit)
			if err == nil && tt.err != "" || err != nil && err.Error() != tt.err || errors.Is(err, core.ErrPermanent) {
				t.Errorf("got error %v, want %s", err, tt.err)
			}
			if !slices.Equal(to.events, tt.want) {
				t.Errorf("got %q, want %q", to.events, tt.want)
			}
			rejected := ""
			for _, reason := range slices.Sorted(maps.Keys(source.Rejected())) {
				if n := source.Rejected()[reason]; n > 0 {
					rejected += fmt.Sprint(reason, " ", n)
				}
			}
			if rejected != tt.rejected {
				t.Errorf("rejected %q, want %q", rejected, tt.rejected)
			}
			for _, e := range to.events {
				data, id, _ := strings.Cut(e, "|")
				id, _, _ = strings.Cut(id, "|")
				if got := source.Identify([]byte(data)); got != id {
					t.Errorf("%s is %q, was emitted as %q", data, got, id)
				}
			}
		})
	}
}

// TestInterval runs a command that ends, again and again, each time with the cursor
// of the last event.
func TestInterval(t *testing.T) {
	source := shell(t, `echo "{\"n\":$((MZD_CURSOR+1))}"`, exec.Settings{Cursor: "/n", Interval: schema.Duration(time.Millisecond)})
	ctx, cancel := context.WithCancel(t.Context())
	to := landing{stop: cancel, last: `{"n":5}`}
	if err := source.Run(ctx, "", to.emit); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if want := []string{`{"n":1}||1`, `{"n":2}||2`, `{"n":3}||3`, `{"n":4}||4`, `{"n":5}||5`}; !slices.Equal(to.events, want) {
		t.Errorf("got %q, want %q", to.events, want)
	}
}

func TestIntervalOfFailures(t *testing.T) {
	source := shell(t, `exit 7`, exec.Settings{Interval: schema.Duration(time.Hour)})
	if err := source.Run(t.Context(), "", new(landing).emit); fmt.Sprint(err) != "command sh: exit status 7" {
		t.Errorf("got %v", err)
	}
}

// TestCursorMovesWithEvents has a landing that fails.
func TestCursorMovesWithEvents(t *testing.T) {
	full := errors.New("disk full")
	source := shell(t, `echo '{"n":1}'; exec sleep 1000`, exec.Settings{Cursor: "/n", Interval: 1})
	err := source.Run(t.Context(), "", func(_ context.Context, events ...core.Event) error {
		if len(events) == 0 {
			return nil
		}
		return full
	})
	if err != full {
		t.Errorf("got %v", err)
	}
}

// TestStop ends a run at different moments of the command's life, which gets a
// chance to do what it has to.
func TestStop(t *testing.T) {
	for name, script := range map[string]string{
		"printing":  `trap 'echo bye > $DIR/bye; exit' TERM; echo ready; while :; do echo more || :; done 2>/dev/null`,
		"waiting":   `trap 'echo bye > $DIR/bye; exit' TERM; echo ready; sleep 1000 & wait`,
		"no stdout": `trap 'echo bye > $DIR/bye; exit' TERM; echo ready; exec >&-; sleep 1000 & wait`,
		"deaf":      `trap '' TERM; echo ready; echo bye > $DIR/bye; while :; do sleep 1000; done`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := exec.Settings{Env: map[string]string{"DIR": dir}}
			if name == "deaf" {
				s.StopTimeout = 1
			}
			source := shell(t, script, s)
			ctx, cancel := context.WithCancel(t.Context())
			to := landing{stop: cancel, last: "ready"}
			if err := source.Run(ctx, "", to.emit); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if name == "deaf" {
				return // it ended, which is all
			}
			if _, err := os.Stat(filepath.Join(dir, "bye")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStderrIsLogged(t *testing.T) {
	var log bytes.Buffer
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Logger: slog.New(slog.NewTextHandler(&log, nil)).With("source", "s")})
	source, err := exec.New(ctx, exec.Settings{Command: []string{"sh", "-c", "echo hello >&2"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Run(t.Context(), "", new(landing).emit); err != nil {
		t.Fatal(err)
	}
	if want := "level=INFO msg=hello source=s from=stderr"; !strings.Contains(log.String(), want) {
		t.Errorf("no %q in %s", want, &log)
	}
}

func TestSettings(t *testing.T) {
	for settings, want := range map[string]string{
		`{}`: "command: is required",
		`{"command": [""], "cursor": "id", "id": "/a~2", "max_line": 7, "env": {"MZD_CURSOR": "1"}}`: "command: names no command, such as [sh, -c, ...]; " +
			"env.MZD_CURSOR: is what the source itself sets; cursor: is not a path such as /meta/id; " +
			"id: has a ~ that is neither ~0, which stands for ~, nor ~1, which stands for /; max_line: not between 1KiB and 32MiB",
		`{"command": ["no such command"]}`: `command[0]: there is no command "no such command" in the PATH of mzd`,
	} {
		_, err := plugins.NewSource("exec", "", exec.New).Open(t.Context(), []byte(settings))
		if err == nil || !errors.Is(err, core.ErrPermanent) || err.Error() != "settings of exec: "+want {
			t.Errorf("of %s got\n%v, want\nsettings of exec: %s", settings, err, want)
		}
	}
}

func TestPointer(t *testing.T) {
	const doc = `{"a":{"b":["x",17,1.50]},"":"empty","m~n":8,"a/b":9,"t":true,"z":null,"o":{}}`
	for path, want := range map[string]string{
		"/a/b/0": "x", "/a/b/1": "17", "/a/b/2": "1.50", "/": "empty", "/m~0n": "8", "/a~1b": "9",
		"/a/b/01": "", "/a/b/3": "", "/a/b/-1": "", "/a/b/-": "", "/a/b": "", "/t": "", "/z": "", "/o": "", "/no": "", "/t/x": "",
	} {
		if got, err := exec.At(path, doc); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
}

// FuzzLines holds the reader against a split of everything at once.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n\nbc\n\r\r\nd"), uint8(2), true)
	f.Add(bytes.Repeat([]byte("abcdefgh\n"), 100), uint8(7), false)
	f.Fuzz(func(t *testing.T, data []byte, max uint8, slowly bool) {
		var want []string
		var skipped uint64
		parts := bytes.Split(data, []byte("\n"))
		for i, line := range parts {
			if i < len(parts)-1 {
				line = bytes.TrimSuffix(line, []byte("\r"))
			}
			switch {
			case len(line) > int(max):
				skipped++
			case len(line) > 0:
				want = append(want, string(line))
			}
		}
		var src = iotest.DataErrReader(bytes.NewReader(data))
		if slowly {
			src = iotest.OneByteReader(src)
		}
		got, n := exec.Lines(src, int(max))
		if !slices.Equal(got, want) || n != skipped {
			t.Errorf("got %q and %d skipped, want %q and %d", got, n, want, skipped)
		}
	})
}
