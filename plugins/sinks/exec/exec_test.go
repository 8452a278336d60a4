//go:build unix

package exec_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/message"
	"github.com/mzdio/mzd/plugins/sinks/exec"
	"github.com/mzdio/mzd/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var top10 = &core.View{Name: "top10", Columns: []core.Column{{Name: "user", Type: "text"}}}

func token(t core.Time) core.Token { return core.Token{Time: t, Generation: "k3f9"} }

// change is a delta of the view with one row.
func change(v *core.View, at core.Time, row core.Row) core.Batch {
	return core.Batch{View: v, Lower: token(at - 1), Upper: token(at), Updates: core.UpdatesOf([]core.Update{{Time: at - 1, Diff: 1, Row: row}})}
}

// said is a log that hands on what commands say.
type said chan string

func (s said) Enabled(context.Context, slog.Level) bool { return true }
func (s said) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s said) WithGroup(string) slog.Handler            { return s }
func (s said) Handle(_ context.Context, r slog.Record) error {
	s <- r.Message
	return nil
}

// shell makes a sink of a script, which runs in a directory of its own as $DIR.
func shell(t *testing.T, script string, change func(*exec.Settings)) (sink *exec.Sink, log said, dir string) {
	t.Helper()
	dir, log = t.TempDir(), make(said, 1000)
	s := exec.Settings{Command: []string{"sh", "-ec", script}, Env: map[string]string{"DIR": dir}}
	if change != nil {
		change(&s)
	}
	sink, err := exec.New(plugins.WithEnv(t.Context(), plugins.Env{Logger: slog.New(log)}), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	return sink, log, dir
}

func write(t *testing.T, sink core.Sink, cut ...core.Batch) {
	t.Helper()
	if err := sink.Write(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// lines are the messages of cuts, each with its line break.
func lines(maxMessage int, cuts ...core.Batch) string {
	var all strings.Builder
	for _, b := range cuts {
		for p := range message.Parts([]core.Batch{b}, maxMessage) {
			fmt.Fprintf(&all, "%s\n", p.Body)
		}
	}
	return all.String()
}

// keep is a sink that keeps what it gets.
const keep = `while read -r message; do printf '%s\n' "$message" >> $DIR/kept; echo ok; done; echo bye >> $DIR/kept`

func TestMessages(t *testing.T) {
	const maxMessage = 1 << 10
	many := change(top10, 3, "")
	var updates []core.Update
	for i := range 1000 {
		updates = append(updates, core.Update{Time: 2, Diff: 1, Row: core.Row(fmt.Sprintf(`["\\ü %d"]`, i))})
	}
	many.Updates = core.UpdatesOf(updates)
	large := change(top10, 4, core.Row(fmt.Sprintf(`["%s"]`, strings.Repeat("x", 1<<20))))
	nothing := core.Batch{View: top10, Lower: token(4), Upper: token(5)}
	for _, progress := range []bool{false, true} {
		t.Run(fmt.Sprint("progress=", progress), func(t *testing.T) {
			sink, _, dir := shell(t, keep, func(s *exec.Settings) { s.MaxMessage, s.Progress = maxMessage, progress })
			cuts := []core.Batch{change(top10, 2, `["Ada"]`), many, large, nothing}
			for _, b := range cuts {
				write(t, sink, b)
			}
			if !progress {
				cuts = cuts[:3]
			}
			if err := sink.Close(); err != nil {
				t.Error(err)
			}
			if got, want := read(t, filepath.Join(dir, "kept")), lines(maxMessage, cuts...)+"bye\n"; got != want {
				t.Errorf("got %d bytes, want %d; it begins with %.300s", len(got), len(want), got)
			}
			if err := sink.Close(); err != nil {
				t.Errorf("close again: %v", err)
			}
		})
	}
}

// TestViewsTakeTurns writes several views at once.
func TestViewsTakeTurns(t *testing.T) {
	sink, _, dir := shell(t, keep, nil)
	var all sync.WaitGroup
	for i := range 8 {
		v := &core.View{Name: fmt.Sprint("v", i), Columns: top10.Columns}
		all.Go(func() {
			for at := core.Time(2); at < 20; at++ {
				if err := sink.Write(t.Context(), []core.Batch{change(v, at, `["Ada"]`)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	kept := read(t, filepath.Join(dir, "kept"))
	for i := range 8 {
		v := &core.View{Name: fmt.Sprint("v", i), Columns: top10.Columns}
		for at := core.Time(2); at < 20; at++ {
			if want := lines(1<<20, change(v, at, `["Ada"]`)); strings.Count(kept, want) != 1 {
				t.Fatalf("not once: %s", want)
			}
		}
	}
}

// TestFailures has commands that do something else the first time they run, and
// checks what that is called, and that the message comes again.
func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		name, first string // instead of answering
		want        string
	}{
		{"error", `echo error no room`, "command sh: no room"},
		{"error without a reason", `echo error`, "command sh: it gave no reason"},
		{"exit", `echo broken >&2; exit 3`, `command sh: it ended before it answered: exit status 3; the last it said is "broken"`},
		{"success", `exit 0`, "command sh: it ended before it answered, with exit status 0; it has to read on until its stdin ends"},
		{"killed", `kill -9 $$`, "command sh: it ended before it answered: signal: killed"},
		{"other words", `echo '{"inserted": []}'`, `command sh: it answered "{\"inserted\": []}", where only "ok", "error TEXT" and "fatal TEXT" are answers; what is for people goes to stderr (>&2)`},
		{"nothing", `echo`, `command sh: it answered "", where only "ok", "error TEXT" and "fatal TEXT" are answers; what is for people goes to stderr (>&2)`},
		{"endless line", `cat /dev/zero`, "command sh: it printed a line of more than 65536 bytes"},
		{"binary", `printf '\000\377\n'`, `command sh: it answered "\x00\xff", where only "ok", "error TEXT" and "fatal TEXT" are answers; what is for people goes to stderr (>&2)`},
		{"no stdout", `exec >&-; read -r message`, "command sh: it ended before it answered: exit status 1"},
		{"too late", `exec sleep 1000`, "command sh: it did not answer within 300ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			script := `while read -r message; do
				if [ ! -e $DIR/again ]; then touch $DIR/again; ` + tt.first + `; else printf '%s\n' "$message" >> $DIR/kept; echo ok; fi
			done`
			sink, _, dir := shell(t, script, func(s *exec.Settings) {
				if tt.name == "too late" {
					s.AckTimeout = schema.Duration(300 * time.Millisecond)
				}
			})
			b := change(top10, 2, `["Ada"]`)
			err := sink.Write(t.Context(), []core.Batch{b})
			if fmt.Sprint(err) != tt.want || errors.Is(err, core.ErrPermanent) {
				t.Fatalf("got\n%v, want\n%s", err, tt.want)
			}
			write(t, sink, b)
			if got, want := read(t, filepath.Join(dir, "kept")), lines(1<<20, b); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestFatal(t *testing.T) {
	sink, _, _ := shell(t, `read -r message; echo fatal no such table; read -r message`, nil)
	err := sink.Write(t.Context(), []core.Batch{change(top10, 2, `["Ada"]`)})
	if fmt.Sprint(err) != "command sh: no such table: trying again cannot help" || !errors.Is(err, core.ErrPermanent) {
		t.Errorf("got %v", err)
	}
}

// TestNotReading cancels a write to a command that does not read, after which the
// command must not see the end of its stdin: it would take a part of the line for
// all of it.
func TestNotReading(t *testing.T) {
	sink, log, dir := shell(t, `echo ready >&2; read -r go < $DIR/go; cat > $DIR/kept`, nil)
	if err := syscall.Mkfifo(filepath.Join(dir, "go"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-log
		cancel()
	}()
	large := change(top10, 2, core.Row(fmt.Sprintf(`["%s"]`, strings.Repeat("x", 1<<20))))
	if err := sink.Write(ctx, []core.Batch{large}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "kept")); err == nil {
		t.Error("the command went on")
	}
}

// TestStopped cancels a write while the command works on it: it may finish.
func TestStopped(t *testing.T) {
	sink, log, dir := shell(t, `while read -r message; do echo working >&2; read -r go < $DIR/go; printf '%s\n' "$message" >> $DIR/kept; echo ok; done; echo bye >> $DIR/kept`, nil)
	fifo := filepath.Join(dir, "go")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-log
		cancel()
	}()
	b := change(top10, 2, `["Ada"]`)
	if err := sink.Write(ctx, []core.Batch{b}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	var closed sync.WaitGroup
	closed.Go(func() {
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(fifo, []byte("go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed.Wait()
	if got, want := read(t, filepath.Join(dir, "kept")), lines(1<<20, b)+"bye\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAnswerNobodyWaitsFor cancels a write and makes another: the answer to the
// first must not be taken for one to the second.
func TestAnswerNobodyWaitsFor(t *testing.T) {
	sink, log, dir := shell(t, `while read -r message; do
			if [ ! -e $DIR/again ]; then touch $DIR/again; echo "$$" >&2; read -r go < $DIR/go; fi
			echo "$$" >&2
			printf '%s\n' "$message" >> $DIR/kept; echo ok
		done`, nil)
	if err := syscall.Mkfifo(filepath.Join(dir, "go"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan string, 1)
	go func() {
		first <- <-log
		cancel()
	}()
	if err := sink.Write(ctx, []core.Batch{change(top10, 2, `["Ada"]`)}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	b := change(top10, 3, `["Bob"]`)
	write(t, sink, b)
	if got, want := read(t, filepath.Join(dir, "kept")), lines(1<<20, b); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if a, b := <-first, <-log; a == b {
		t.Errorf("process %s was asked again", a)
	}
}

// TestSpeaksFirst has a command that prints more lines than it is asked for.
func TestSpeaksFirst(t *testing.T) {
	sink, log, _ := shell(t, `echo ok; echo there >&2; while read -r message; do echo ok; done`, nil)
	var err error
	for at := core.Time(2); err == nil && at < 10_000; at++ {
		err = sink.Write(t.Context(), []core.Batch{change(top10, at, `["Ada"]`)})
	}
	<-log
	if want := `command sh: it printed "ok", and was not asked anything; it has to print one line for each that it reads`; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestKilled kills the command from outside between messages.
func TestKilled(t *testing.T) {
	sink, log, dir := shell(t, `echo $$ >&2; `+keep, nil)
	write(t, sink, change(top10, 2, `["Ada"]`))
	pid, err := strconv.Atoi(<-log)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b := change(top10, 3, `["Bob"]`)
	if sink.Write(t.Context(), []core.Batch{b}) != nil { // it may notice only now
		write(t, sink, b)
	}
	if !strings.HasSuffix(read(t, filepath.Join(dir, "kept")), lines(1<<20, b)) {
		t.Error("not written")
	}
}

// TestEndedBefore writes with a context that has ended, which is as if nobody had
// written, also for what is written next.
func TestEndedBefore(t *testing.T) {
	sink, _, dir := shell(t, keep, nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var cuts []core.Batch
	for at := core.Time(2); at < 300; at++ {
		b := change(top10, at, `["Ada"]`)
		cuts = append(cuts, b)
		if err := sink.Write(ended, []core.Batch{b}); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
		write(t, sink, b)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	if got, want := read(t, filepath.Join(dir, "kept")), lines(1<<20, cuts...)+"bye\n"; got != want {
		t.Errorf("got %d bytes, want %d; it begins with %.300s", len(got), len(want), got)
	}
}

func TestStopTimeout(t *testing.T) {
	sink, _, _ := shell(t, `while read -r message; do echo ok; done; exec sleep 1000`, func(s *exec.Settings) { s.StopTimeout = schema.Duration(time.Millisecond) })
	write(t, sink, change(top10, 2, `["Ada"]`))
	if err := sink.Close(); fmt.Sprint(err) != "command sh: signal: killed" {
		t.Errorf("got %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("NOT_LISTED", "x")
	sink, _, dir := shell(t, `env > $DIR/env; `+keep, nil)
	write(t, sink, change(top10, 2, `["Ada"]`))
	for line := range strings.Lines(read(t, filepath.Join(dir, "env"))) {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case "PATH", "HOME", "DIR":
		case "PWD", "OLDPWD", "SHLVL", "_": // of the shell itself
		default:
			t.Errorf("got %s", line)
		}
	}
}

func TestSettings(t *testing.T) {
	for settings, want := range map[string]string{
		`{}`:                               "command: is required",
		`{"command": []}`:                  "command: names no command, such as [sh, -c, ...]",
		`{"command": ["a\u0000"]}`:         "command[0]: has a zero byte",
		`{"command": ["./no such file"]}`:  `command[0]: there is no file "./no such file" (a relative path starts in the working directory)`,
		`{"command": ["no such command"]}`: `command[0]: there is no command "no such command" in the PATH of mzd`,
		`{"command": ["./exec_test.go"]}`:  `command[0]: "./exec_test.go" is not executable; run chmod +x ./exec_test.go`,
		`{"command": ["sh"], "env": {"a=b": "c"}, "max_message": 7}`: `env["a=b"]: is not the name of a variable and its value; max_message: not between 1KiB and 1GiB`,
	} {
		_, err := plugins.NewSink("exec", "", exec.New).Open(t.Context(), []byte(settings))
		if err == nil || !errors.Is(err, core.ErrPermanent) || err.Error() != "settings of exec: "+want {
			t.Errorf("of %s got\n%v, want\nsettings of exec: %s", settings, err, want)
		}
	}
}

// needJQ skips a test where there is no jq.
func needJQ(t *testing.T) {
	t.Helper()
	if _, err := osexec.LookPath("jq"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// TestDoc runs the script of the package's documentation.
func TestDoc(t *testing.T) {
	needJQ(t)
	source := read(t, "exec.go")
	_, script, found := strings.Cut(source, "//	      - |\n")
	script, _, ended := strings.Cut(script, "//\n")
	if !found || !ended {
		t.Fatal("no script")
	}
	script = strings.ReplaceAll(script, "//", "")
	script = strings.Replace(script, "rows.jsonl", "$DIR/rows.jsonl", 1)
	sink, _, dir := shell(t, script, nil)
	write(t, sink, change(top10, 2, `["Ada \\ \" '$(exit)"]`))
	write(t, sink, change(top10, 3, `["Bob"]`))
	if got, want := read(t, filepath.Join(dir, "rows.jsonl")), "[\"Ada \\\\ \\\" '$(exit)\"]\n[\"Bob\"]\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// BenchmarkWrite is how many messages a second a shell takes that does nothing
// with them.
func BenchmarkWrite(b *testing.B) {
	sink, err := exec.New(b.Context(), exec.Settings{Command: []string{"sh", "-c", "while read -r message; do echo ok; done"}})
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	cut := []core.Batch{change(top10, 2, `["Ada"]`)}
	for b.Loop() {
		if err := sink.Write(b.Context(), cut); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
