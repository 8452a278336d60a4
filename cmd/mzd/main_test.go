package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary act as mzd where a test or a script runs
// "mzd", as an mzd with more sinks where the test of crashes does, and as plugins.
func TestMain(m *testing.M) {
	os.Setenv("GORACE", "atexit_sleep_ms=0") // which is a second otherwise, for every process that exits
	testscript.Main(m, map[string]func(){
		"mzd": main, "mzd-recording": mainRecording, "mzd-sink-test": mainTestSink, "mzd-source-test": mainTestSource,
	})
}

// TestScripts runs the scripts that use the command as people do. $TAKEN is an
// address that somebody listens on, $PLUGINS a directory with mzd-sink-test and
// mzd-source-test.
func TestScripts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // the scripts run in parallel, after this function returned
	plugin, err := exec.LookPath("mzd-sink-test")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(time.Minute), // a script that hangs says where
		Setup: func(e *testscript.Env) error {
			e.Setenv("TAKEN", l.Addr().String())
			e.Setenv("PLUGINS", filepath.Dir(plugin))
			e.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": exitsWith, "logs": writeLogs, "tables": makeTables, "flip": damageFile,
		},
	})
}

// exitsWith is the script command "code N mzd ...": it runs the command and
// fails unless the exit code is N.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command [args...]")
	}
	code := 0
	var exit interface{ ExitCode() int }
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if got := fmt.Sprint(code); got != args[0] {
		ts.Fatalf("got exit code %s, want %s", got, args[0])
	}
}

func TestExitCode(t *testing.T) {
	failure := errors.New("failure")
	running := t.Context()
	stopped, stop := context.WithCancel(running)
	stop()
	tests := []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"done", running, nil, exitOK},
		{"failed", running, failure, exitFailed},
		{"usage", running, fmt.Errorf("more: %w", usage(failure)), exitUsage},
		{"environment", running, fmt.Errorf("more: %w", environment(failure)), exitEnvironment},
		{"configuration", running, config.Problems{{Message: "bad"}}, exitUsage},
		{"settings, wherever they show", running, environment(&plugins.SettingsError{Plugin: "p", Err: failure}), exitUsage},
		{"other permanent errors", running, core.ErrPermanent, exitFailed},
		{"stopped", stopped, fmt.Errorf("hub: %w", context.Canceled), exitOK},
		{"failed while stopping", stopped, failure, exitFailed},
		{"cancelled by itself", running, context.Canceled, exitFailed},
	}
	for _, tt := range tests {
		if got := exitCode(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestLogger(t *testing.T) {
	tests := []struct {
		name     string
		terminal bool
		log      config.Log
		want     string // the beginning of the first record
	}{
		{"people", true, config.Log{}, "time="},
		{"programs", false, config.Log{}, `{"time":`},
		{"auto", true, config.Log{Level: "info", Format: "auto"}, "time="},
		{"text anywhere", false, config.Log{Format: "text"}, "time="},
		{"JSON anywhere", true, config.Log{Format: "json"}, `{"time":`},
		{"less", true, config.Log{Level: "error"}, ""},
	}
	for _, tt := range tests {
		var out strings.Builder
		log := newLogger(env{stderr: &out, terminal: tt.terminal}, tt.log)
		log.Debug("detail")
		log.Info("news")
		got := out.String()
		if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" || strings.Contains(got, "detail") {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// fixedURL is a sink that listens and says where.
type fixedURL string

func (f fixedURL) URL() string { return string(f) }

// TestPlaceOf looks at what people are told to type, which reaches what listens
// on all interfaces, too.
func TestPlaceOf(t *testing.T) {
	for _, tt := range []struct {
		sink any
		want string
	}{
		{fixedURL("http://127.0.0.1:8875/"), "http://127.0.0.1:8875/"},
		{fixedURL("http://[::1]:8875/"), "http://[::1]:8875/"},
		{fixedURL("https://[::]:8875/"), "https://localhost:8875/"},
		{fixedURL("http://0.0.0.0:80/"), "http://localhost:80/"},
		{struct{}{}, ""},
	} {
		if got := placeOf(tt.sink); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.sink, got, tt.want)
		}
	}
	for address, want := range map[string]string{"[::]:6875": "localhost:6875", "192.0.2.1:6875": "192.0.2.1:6875", "": ""} {
		if got := reachable(address); got != want {
			t.Errorf("%q: got %q, want %q", address, got, want)
		}
	}
}
