package plugins_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	for act, want := range map[string]plugins.Info{
		"keeper": {Kind: plugins.KindSink, Doc: "Keeps rows in a file.", Version: "1.2", KeepsPositions: true},
		"count":  {Kind: plugins.KindSource, Doc: "Counts.", Version: "0.1", Identifies: true},
		"null":   {Kind: plugins.KindSink},
	} {
		t.Run(act, func(t *testing.T) {
			t.Parallel()
			info, err := secured(t, act).Describe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fields := len(info.Settings.Fields)
			want.Name, want.Protocol = "plugins.test", 1
			if act == "null" {
				want.Version = info.Version // whatever the go command has stamped
			} else if fields != 3 {
				t.Errorf("%d settings, want 3", fields)
			}
			want.Settings = info.Settings
			if info != want {
				t.Errorf("got  %+v\nwant %+v", info, want)
			}
		})
	}
}

// TestNoPlugin runs what is no plugin, or not one for this mzd.
func TestNoPlugin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) plugins.Command {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return plugins.Command{Path: path}
	}
	for _, tt := range []struct {
		name    string
		command plugins.Command
		want    string
		forGood bool
	}{
		{"missing", plugins.Command{Path: filepath.Join(dir, "none")}, "no such file", false},
		{"directory", plugins.Command{Path: dir}, "is a directory", false},
		{"not executable", file("data", "#!/bin/sh\n", 0o600), "may not be executed; chmod +x", false},
		{"of another machine", file("foreign", "\x7fELF and so on", 0o700), "is no program of this machine", false},
		{"without its interpreter", file("script", "#!/no/such/python\n", 0o700), "the interpreter", false},
		{"says something else", command(t, "garbage"), `is no plugin of mzd: a plugin prints its address first, and this has printed "Hello, world!"`, false},
		{"floods its output", command(t, "flood"), "is no plugin of mzd", false},
		{"ends", command(t, "exit"), `exit status 3; the last it said is "no licence"`, false},
		{"says nothing", command(t, "silent"), "has started and not said its address within 300ms", false},
		{"an old plugin", command(t, "old"), "speaks version 0 of the protocol, which is older than version 1 of this mzd; build the plugin with a newer SDK", true},
		{"a new plugin", command(t, "new"), "speaks version 2 of the protocol, which is newer than version 1 of this mzd; use a newer mzd", true},
		{"another protocol, unsaid", command(t, "netrpc"), "is no plugin of mzd", false},
		{"another protocol", command(t, "rest"), `serves "rest", and plugins of mzd serve grpc`, false},
		{"far away", secured(t, "faraway"), `listens on tcp "192.0.2.1:443"`, false},
		{"where all can see it", secured(t, "open"), `listens on "/tmp/x", which is not in the directory that $PLUGIN_UNIX_SOCKET_DIR says`, false},
		{"without a certificate", secured(t, "plain"), `write "tls: off"`, false},
		{"with a certificate that nobody wants", command(t, "cert"), `and the configuration says "tls: off"`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.name == "says nothing" {
				tt.command = plugins.Impatient(tt.command, 300*time.Millisecond, time.Minute, time.Minute)
			}
			_, err := tt.command.Describe(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), core.ErrPermanent.Error()) {
				t.Errorf("got  %v\nwant ...%s..., for people", err, tt.want)
			}
			if got := errors.Is(err, core.ErrPermanent); got != tt.forGood {
				t.Errorf("permanent is %v, want %v: %v", got, tt.forGood, err)
			}
		})
	}
}

func TestStartedByHand(t *testing.T) {
	c := command(t, "null")
	cmd := exec.CommandContext(t.Context(), c.Path, "plugin", "serve") // as a builtin is
	cmd.Env = append(os.Environ(), actAs+"=null")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "is a sink for mzd, which runs it itself") || !strings.HasSuffix(string(out), "mzd plugin describe "+strings.Join(cmd.Args, " ")+"\n") {
		t.Errorf("got %v and %s", err, out)
	}
	// What the configuration lists cannot break the handshake.
	c.Env["MZD_PLUGIN"] = "mine"
	if _, err := c.Describe(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSHA256(t *testing.T) {
	t.Parallel()
	c := command(t, "null")
	c.SHA256 = strings.Repeat("ab", 32)
	_, err := c.Describe(t.Context())
	if !errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), c.SHA256) || !strings.HasSuffix(err.Error(), "change the configuration") {
		t.Errorf("another binary than the one that is pinned: %v", err)
	}
	binary, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(binary)
	c.SHA256 = strings.ToUpper(hex.EncodeToString(sum[:]))
	if _, err := c.Describe(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCancelWhileStarting(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := command(t, "silent").Describe(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

// TestEnvironment asks a plugin for its environment.
func TestEnvironment(t *testing.T) {
	t.Setenv("MZD_SECRET_OF_THE_DAEMON", "hidden")
	log := &logged{}
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Logger: log.logger()})
	c := plugins.Command{Path: "/bin/sh", Args: []string{"-c", "env >&2; pwd >&2; exit 1"}, Env: map[string]string{"GIVEN": "yes"}}
	if _, err := c.Describe(ctx); err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"GIVEN=yes", "PATH=", "PLUGIN_UNIX_SOCKET_DIR=", "MZD_PLUGIN="} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
	if strings.Contains(log.String(), "MZD_SECRET_OF_THE_DAEMON") {
		t.Errorf("the environment of the daemon got through:\n%s", log)
	}
}

// TestLog reads what a plugin says in all the ways that it can.
func TestLog(t *testing.T) {
	t.Parallel()
	log := &logged{}
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Logger: log.logger().With("sink", "hook")})
	script := `
echo '{"@level":"warn","@message":"disk is slow","@timestamp":"2026-01-01T00:00:00Z","ms":12}' >&2
echo '{"@level":7,"@message":["no string"]}' >&2
echo '{"@message":5}' >&2
echo '[ERROR] no route' >&2
echo 'just so' >&2
echo 'panic: boom' >&2
echo 'goroutine 1 [running]:' >&2
exit 2`
	_, err := plugins.Command{Path: "/bin/sh", Args: []string{"-c", script}}.Describe(ctx)
	if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), "panic: boom") {
		t.Errorf("the error does not say why: %v", err)
	}
	for _, want := range []string{
		`level=WARN msg="disk is slow" sink=hook plugin=/bin/sh ms=12`,
		`level=INFO msg="{\"@level\":7`,
		`level=INFO msg="{\"@message\":5}"`,
		`level=ERROR msg="[ERROR] no route"`,
		`level=INFO msg="just so"`,
		`level=ERROR msg="panic: boom"`,
		`level=ERROR msg="goroutine 1 [running]:"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no record %s in\n%s", want, log)
		}
	}
}

// TestSpeak reads the log of a plugin that uses the SDK.
func TestSpeak(t *testing.T) {
	t.Parallel()
	log := &logged{}
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Name: "hook", Pipeline: "p", Logger: log.logger()})
	c := command(t, "keeper")
	info := describe(t, c)
	sink, err := c.Sink(info).Open(ctx, marshal(t, keeperSettings{File: filepath.Join(t.TempDir(), "f"), Say: "hello"}))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	until(t, "the record is there", func() bool {
		return strings.Contains(log.String(), "level=WARN msg=hello plugin="+c.Path+" pipeline=p sink=hook")
	})
	until(t, "what was printed is there", func() bool { return strings.Contains(log.String(), `"printed: hello"`) })
}

func TestFloodOfStderr(t *testing.T) {
	t.Parallel()
	log := &logged{}
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Logger: log.logger()})
	c := command(t, "keeper")
	info := describe(t, c)
	dir := t.TempDir()
	mode := filepath.Join(dir, "mode")
	if err := os.WriteFile(mode, []byte("flood"), 0o600); err != nil {
		t.Fatal(err)
	}
	sink, err := c.Sink(info).Open(ctx, marshal(t, keeperSettings{File: filepath.Join(dir, "f"), Mode: mode}))
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "it is told how much was left out", func() bool { return strings.Contains(log.String(), "more lines, which are left out") })
	if n := strings.Count(log.String(), "flooding"); n > 5000 {
		t.Errorf("%d lines were logged", n)
	}
}

// TestNoOrphans kills a daemon, and looks for its plugin and the child of that.
func TestNoOrphans(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "child")
	daemon := startDaemon(t, file)
	until(t, "the child has started", func() bool { return len(readInts(t, file)) == 1 })
	pids := append(readInts(t, file), daemon.plugin)
	for _, pid := range pids {
		if !alive(pid) {
			t.Fatalf("%v: no process %d", pids, pid)
		}
	}
	daemon.kill()
	until(t, "the plugin and its child are gone", func() bool { return !slices.ContainsFunc(pids, alive) })
}
