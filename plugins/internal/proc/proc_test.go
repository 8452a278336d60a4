//go:build unix

package proc_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/plugins/internal/proc"
)

// TestMain also is the process that is killed with its commands.
func TestMain(m *testing.M) {
	if os.Getenv("MZD_TEST_PARENT") == "" {
		os.Exit(m.Run())
	}
	p, err := proc.Start(exec.Command("sh", "-c", family), slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	io.Copy(os.Stdout, p.Stdout)
}

// family is a command with a child and a grandchild, all of them deaf to polite
// requests.
const family = `trap "" HUP INT TERM; (sleep 1000 & echo started; exec sleep 1000) & exec sleep 1000`

func start(t *testing.T, log *slog.Logger, command ...string) *proc.Process {
	t.Helper()
	p, err := proc.Start(exec.Command(command[0], command[1:]...), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	return p
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestNoOrphans kills a process that runs a family and waits until nobody of it
// holds a pipe any more that all of them have inherited.
func TestNoOrphans(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "MZD_TEST_PARENT=1")
	parent.ExtraFiles = []*os.File{w}
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("got %q, %v, want the family to start", line, err)
	}
	parent.Process.Kill()
	parent.Wait()
	if _, err := io.Copy(io.Discard, r); err != nil { // hangs if there is an orphan
		t.Fatal(err)
	}
}

func TestProcess(t *testing.T) {
	t.Run("conversation", func(t *testing.T) {
		p := start(t, silent(), "cat")
		fmt.Fprintln(p.Stdin, "hello")
		if line, err := bufio.NewReader(p.Stdout).ReadString('\n'); line != "hello\n" || err != nil {
			t.Errorf("got %q, %v", line, err)
		}
		if err := p.Stop(time.Minute); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	t.Run("says why", func(t *testing.T) {
		var log bytes.Buffer
		p := start(t, slog.New(slog.NewTextHandler(&log, nil)), "sh", "-c", "echo first >&2; echo no such table >&2; exit 7")
		if got, want := fmt.Sprint(p.Err()), `exit status 7; the last it said is "no such table"`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		for _, want := range []string{"level=INFO msg=first from=stderr", `msg="no such table"`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("no %q in the log:\n%s", want, &log)
			}
		}
	})
	t.Run("output outlives it", func(t *testing.T) {
		p := start(t, silent(), "sh", "-c", "echo last words")
		<-p.Ended()
		if text, err := io.ReadAll(p.Stdout); string(text) != "last words\n" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
	})
	t.Run("what it leaves is killed", func(t *testing.T) {
		p := start(t, silent(), "sh", "-c", "sleep 1000 & echo gone")
		if text, err := io.ReadAll(p.Stdout); string(text) != "gone\n" || err != nil { // hangs as long as sleep holds it
			t.Errorf("got %q, %v", text, err)
		}
	})
	t.Run("deaf", func(t *testing.T) {
		p := start(t, silent(), "sh", "-c", family)
		bufio.NewReader(p.Stdout).ReadString('\n')
		p.Terminate()
		if err := p.Stop(time.Millisecond); err == nil || err.Error() != "signal: killed" {
			t.Errorf("got %v", err)
		}
		if err := p.Kill(); err == nil {
			t.Error("killed again, it forgot how it ended")
		}
	})
	t.Run("polite", func(t *testing.T) {
		p := start(t, silent(), "sh", "-c", `trap "exit 3" TERM; echo ready; read -r line; sleep 1000 & wait`)
		bufio.NewReader(p.Stdout).ReadString('\n')
		p.Terminate()
		if err := p.Err(); err == nil || err.Error() != "exit status 3" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not found", func(t *testing.T) {
		if _, err := proc.Start(exec.Command("/no/such/command"), silent()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
}

func TestEnv(t *testing.T) {
	t.Setenv("PATH", "/bin")
	t.Setenv("HOME", "/home/me")
	t.Setenv("SECRET", "s")
	got := proc.Env(map[string]string{"A": "1", "HOME": "/"})
	if want := []string{"A=1", "HOME=/", "PATH=/bin"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func logged(r io.Reader) (lines []string) {
	proc.Log(r, func(line string) { lines = append(lines, line) })
	return lines
}

func TestLog(t *testing.T) {
	long := strings.Repeat("x", 8<<10)
	for _, c := range []struct{ in, want string }{
		{"a\nb\r\n\nc", "a|b|c"},
		{"\xff\n", "\uFFFD"},
		{long + "\ny", long + "|y"},
		{long + long + "12345\ny\n", long + "... and 8197 more bytes|y"},
	} {
		if got := strings.Join(logged(iotest.OneByteReader(strings.NewReader(c.in))), "|"); got != c.want {
			t.Errorf("of %.20q got\n%q, want\n%q", c.in, got, c.want)
		}
	}
}

// TestFlood checks that a flood does not get into the log, and that what follows
// it does.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			w.Write(bytes.Repeat([]byte("flood\n"), 5000))
			time.Sleep(11 * time.Second)
			w.Write([]byte("dry\n"))
			w.Close()
		}()
		got := logged(r)
		if len(got) != 1002 || got[1000] != "... and 4000 more lines, which are left out" || got[1001] != "dry" {
			t.Errorf("got %d lines, at the end %q", len(got), got[max(0, len(got)-3):])
		}
	})
}
