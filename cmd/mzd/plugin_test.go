package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// testPlugin returns the path of a plugin that is this test binary.
func testPlugin(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

type pluginStatus struct {
	Name, Plugin, Version string
	Up                    bool
	Pid                   int
	Restarts              int
	Error                 string
}

// plugins returns what /api/status says about plugins, by name.
func (d *daemon) plugins() map[string]pluginStatus {
	var status struct{ Plugins []pluginStatus }
	if err := json.Unmarshal([]byte(get(d.t.(*testing.T), "http://"+d.admin+"/api/status")), &status); err != nil {
		d.t.Fatal(err)
	}
	all := make(map[string]pluginStatus)
	for _, p := range status.Plugins {
		all[p.Name] = p
	}
	return all
}

// TestMisbehavingPlugins runs a pipeline with every kind of plugin that goes
// wrong. Each must be named, with its reason, or be started again; and the rest
// must go on as if nothing was wrong.
func TestMisbehavingPlugins(t *testing.T) {
	t.Parallel() // it waits, most of the time
	sim := simulator.New(simulator.Options{Rate: 200, Seed: *seed, Total: 3000})
	sink, source := testPlugin(t, "mzd-sink-test"), testPlugin(t, "mzd-source-test")
	tests := []struct {
		name, config string
		reason       string // in /readyz and /api/status; empty: there is none in the end
		restarts     bool   // it is started again, and goes on
	}{
		{"good", `settings: {file: good}`, "", false},
		{"crash", `settings: {file: crash, mode: crash}`, `signal: killed`, true},
		{"panic", `settings: {file: panic, mode: panic}`, `panic: for the test`, true},
		{"hang", `settings: {file: hang, mode: hang}`, `hangs: it did not answer the health check within`, true},
		{"flood", `settings: {file: flood, mode: flood}`, "", false},
		{"print", `settings: {file: print, mode: print}`, "", false},
		{"refuse", `settings: {file: refuse, mode: refuse}`, `there is no database for the test`, false},
		{"exit", `args: [exit]`, `exit status 7; the last it said is "no such table: orders"`, false},
		{"garbage", `args: [garbage]`, `is no plugin of mzd: .* has printed "Hello! I am not a plugin."`, false},
		{"old", `args: [old], tls: off`, `speaks version 0 of the protocol, which is older`, false},
		{"new", `args: [new], tls: off`, `speaks version 99 of the protocol, which is newer`, false},
		{"early", `args: [early], tls: off`, `breaks the protocol: it acknowledges cut 7 of a stream of which [01] were sent`, true},
		{"never", `args: [never], tls: off, ack_timeout: 1s`, `breaks the protocol: a cut is acknowledged, and this one was not within 1s`, true},
		{"other", `sha256: "` + strings.Repeat("0", 64) + `"`, `has the sha256 [0-9a-f]{64}, and the configuration pins 0{64}`, false},
		{"script", ``, `ended before it said its address`, false},
	}
	var sinks strings.Builder
	for _, tt := range tests {
		path := sink
		if tt.name == "script" {
			path = "/bin/true"
		}
		fmt.Fprintf(&sinks, "\n  %s: {plugin: %q, views: [counter], %s}", tt.name, path, tt.config)
	}
	sinks.WriteString("\n  fatal: {plugin: exec, views: [counter], settings: {command: [sh, -c, 'read m; echo fatal no more; read m']}}")
	d := newDaemon(t, pipeline{stream: serve(t, sim), views: "{counter: {}}", sinks: sinks.String()})
	d.write("pipeline.yaml", readFile(t, filepath.Join(d.dir, "pipeline.yaml"))+fmt.Sprintf("\n  counts: {plugin: %q, to: {file: data/counts}}\n", source))
	d.start()
	ctx := deadline(t, 2*time.Minute)
	final, err := d.record("counter").until(ctx, func(state string) bool { return state == "[3000]" })
	if err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}

	// The trouble of some is over soon: the log has it. That of others stays.
	tick := time.Tick(100 * time.Millisecond)
	for {
		ready, states, log := get(t, "http://"+d.admin+"/readyz"), d.plugins(), d.log.String()
		left := ""
		for _, tt := range tests {
			p := states["sinks."+tt.name]
			seen := regexp.MustCompile(`"msg":"sink failed[^"]*","sink":"` + tt.name + `","views":"counter","error":"[^\n]*` + tt.reason).MatchString(log)
			if !tt.restarts {
				seen = regexp.MustCompile(tt.reason).MatchString(p.Error) && strings.Contains(ready, "sinks."+tt.name+" ("+p.Plugin+"): ")
			}
			if tt.reason != "" && !seen || tt.restarts && p.Restarts == 0 {
				left += fmt.Sprintf("\n%s: %+v", tt.name, p)
			}
		}
		for _, name := range []string{"sources.counts", "sinks.exit"} { // one that never starts is tried again, too
			if p := states[name]; p.Restarts < 2 {
				left += fmt.Sprintf("\n%s: %+v", name, p)
			}
		}
		if left == "" {
			break
		}
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("not seen:%s\n%s", left, d.log)
		}
	}

	// Those that can went on, and have all there is.
	for _, name := range []string{"good", "crash", "panic", "flood", "print", "hang"} {
		for !taken(t, filepath.Join(d.dir, name), final) {
			select {
			case <-tick:
			case <-ctx.Done():
				t.Fatalf("%s has not taken everything: %+v\n%s", name, d.plugins()["sinks."+name], d.log)
			}
		}
	}
	var counts strings.Builder
	for i := range 30 {
		fmt.Fprintf(&counts, "%d\n", i+1)
	}
	for readFile(t, filepath.Join(d.dir, "data/counts")) != counts.String() {
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("the source has landed %q", readFile(t, filepath.Join(d.dir, "data/counts")))
		}
	}
	metrics := get(t, "http://"+d.admin+"/metrics")
	for _, want := range []string{
		`mzd_plugin_up{plugin="sinks.good"} 1`, `mzd_plugin_up{plugin="sinks.flood"} 1`, `mzd_plugin_up{plugin="sinks.web"} 1`,
		`mzd_plugin_up{plugin="sinks.exit"} 0`, `mzd_plugin_up{plugin="sinks.other"} 0`, `mzd_plugin_up{plugin="sinks.old"} 0`, `mzd_plugin_up{plugin="sinks.fatal"} 0`,
		`mzd_plugin_up{plugin="sinks.garbage"} 0`, `mzd_plugin_up{plugin="sources.counts"} `, `mzd_plugin_up{plugin="sources.wikipedia"} 1`,
		`mzd_plugin_restarts_total{plugin="sinks.good"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if regexp.MustCompile(`mzd_plugin_restarts_total\{plugin="(sinks.crash|sinks.exit|sources.counts)"\} 0`).MatchString(metrics) {
		t.Error("metrics know of no restarts of crash, exit or counts")
	}
	if !regexp.MustCompile(`mzd_sink_deliveries_total\{outcome="error",sink="exit",view="counter"\} [1-9]`).MatchString(metrics) {
		t.Error("metrics know of no delivery that failed because the plugin does not start")
	}
	if p := d.plugins()["sinks.good"]; p.Version != "1.2.3" || p.Pid == 0 || !p.Up {
		t.Errorf("got %+v, want a version and a process", p)
	}
	log := d.log.String()
	for _, want := range []string{ // as structured records
		`"msg":"the test sink is open","sink":"good","plugin":"` + sink + `","mode":"good"`,
		`more lines, which are left out`,
		`"msg":"printed by the test sink"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	d.stop()
}

// taken reports whether a sink has taken everything below a time, in a row:
// each write continues what was taken, or repeats the one before.
func taken(t *testing.T, file string, below uint64) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	var last struct{ Lower, Upper string }
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var w struct {
			Cut []struct{ Lower, Upper string }
		}
		if err := json.Unmarshal([]byte(line), &w); err != nil {
			t.Fatalf("%s: %v in %q", file, err, line)
		}
		if b := w.Cut[0]; b.Lower != last.Upper && b != last {
			t.Fatalf("%s: %v comes after %v", file, b, last)
		} else {
			last = b
		}
	}
	upper, _, _ := strings.Cut(last.Upper, "-")
	at, _ := strconv.ParseUint(upper, 10, 64)
	return at >= below
}

// TestNoOrphans kills mzd with -9 and waits until nobody whom its plugin has
// started is there any more.
func TestNoOrphans(t *testing.T) {
	t.Parallel() // it waits, most of the time
	d := newDaemon(t, pipeline{
		init:  "CREATE TABLE t (a int); INSERT INTO t VALUES (1);",
		views: "{t: {}}",
		sinks: fmt.Sprintf("\n  family: {plugin: %q, settings: {file: writes, mode: family, held: held}}", testPlugin(t, "mzd-sink-test")),
	})
	pipe := filepath.Join(d.dir, "held")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(pipe, os.O_RDWR, 0) // opening it for reading alone would wait for the plugin
	if err != nil {
		t.Fatal(err)
	}
	d.start()
	line, err := bufio.NewReader(held).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(pipe) // while there are writers
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	held.Close()
	d.kill()
	if _, err := io.Copy(io.Discard, reader); err != nil { // ends when nobody holds the pipe for writing
		t.Fatal(err)
	}
	ctx := deadline(t, time.Minute)
	for _, pid := range strings.Fields(line) {
		// A process that ends closes its files before it is gone.
		for tick := time.Tick(20 * time.Millisecond); ; {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			select {
			case <-tick:
			case <-ctx.Done():
				t.Fatalf("process %s is still there: %s", pid, stat)
			}
		}
	}
}

// TestPluginStops stops mzd in the middle of things, several times, and expects
// that whatever a sink has taken is taken once and in a row, and that its
// process has ended.
func TestPluginStops(t *testing.T) {
	t.Parallel() // it waits, most of the time
	sim := simulator.New(simulator.Options{Rate: 500, Seed: *seed, Total: 1500})
	d := newDaemon(t, pipeline{
		stream: serve(t, sim), views: "{counter: {}}",
		sinks: fmt.Sprintf("\n  good: {plugin: %q, settings: {file: good}}", testPlugin(t, "mzd-sink-test")),
	})
	ctx := deadline(t, time.Minute)
	for i := range 4 {
		d.start()
		pid := 0
		for tick := time.Tick(20 * time.Millisecond); pid == 0 || strings.Count(readSoFar(d, "good"), "\n") < 3*(i+1); pid = d.plugins()["sinks.good"].Pid {
			select {
			case <-tick:
			case <-ctx.Done():
				t.Fatalf("process %d, written %q\n%s", pid, readSoFar(d, "good"), d.log)
			}
		}
		d.stop()
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("plugin %d runs after mzd has stopped", pid)
		}
	}
	d.start()
	final, err := d.record("counter").until(ctx, func(state string) bool { return state == "[1500]" })
	if err != nil {
		t.Fatal(err)
	}
	for tick := time.Tick(20 * time.Millisecond); !taken(t, filepath.Join(d.dir, "good"), final); {
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("not everything was taken\n%s", d.log)
		}
	}
	d.stop()
}

// readSoFar returns what a file holds, nothing if it is not there yet.
func readSoFar(d *daemon, name string) string {
	text, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	return string(text)
}

// TestBuiltinAsBinary serves the page from a process of its own, kills that, and
// expects the same view from its successor.
func TestBuiltinAsBinary(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	d := newDaemon(t, pipeline{
		init:  "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2);",
		views: "{t: {}}",
		sinks: fmt.Sprintf("\n  page: {plugin: %q, args: [plugin, serve, sink, websocket], settings: {listen: %q}}", testPlugin(t, "mzd"), address),
	})
	d.start()
	ctx := deadline(t, time.Minute)
	<-d.log.contains(`"msg":"view is complete","view":"t"`)
	want := get(t, "http://"+d.web+"/api/views/t")
	for killed := false; ; killed = true {
		var text string
		for tick := time.Tick(50 * time.Millisecond); text == ""; {
			res, err := http.Get("http://" + address + "/api/views/t")
			if err == nil {
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					text = string(body)
				}
			}
			select {
			case <-tick:
			case <-ctx.Done():
				t.Fatalf("the page is not served: %+v\n%s", d.plugins()["sinks.page"], d.log)
			}
		}
		if rows := rowsOf(t, text); rows != rowsOf(t, want) || rows == "[]" {
			t.Errorf("got %s, want %s", text, want)
		}
		p := d.plugins()["sinks.page"]
		if !p.Up || p.Pid == 0 || killed != (p.Restarts > 0) {
			t.Errorf("killed %t: %+v", killed, p)
		}
		if killed {
			break
		}
		if where := `"msg":"plugin runs"[^\n]*"address":"` + regexp.QuoteMeta(address) + `"`; !regexp.MustCompile(where).MatchString(d.log.String()) {
			t.Errorf("the log does not say where the page is, once it is there:\n%s", d.log)
		}
		if err := syscall.Kill(p.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for tick := time.Tick(20 * time.Millisecond); d.plugins()["sinks.page"].Pid == p.Pid; {
			select {
			case <-tick:
			case <-ctx.Done():
				t.Fatalf("the process is not given up: %+v", p)
			}
		}
	}
	d.stop()
}

// rowsOf returns the rows of a snapshot.
func rowsOf(t *testing.T, text string) string {
	t.Helper()
	var snapshot struct{ Rows json.RawMessage }
	if err := json.Unmarshal([]byte(text), &snapshot); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return string(snapshot.Rows)
}

// TestPluginComesLate starts mzd with plugins that do not start. They are named,
// one that is mended later is opened with the settings that it takes, and one
// whose settings turn out to be wrong says so.
func TestPluginComesLate(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, pipeline{
		init:  "CREATE TABLE t (a int); INSERT INTO t VALUES (1);",
		views: "{t: {}}",
		sinks: `
  later: {plugin: ./later, settings: {file: writes}}
  keeper: {plugin: ./later, args: [keeper], settings: {file: kept}}
  wrong: {plugin: ./later, args: [other], settings: {fiel: writes}}
  broadcaster: {plugin: ./page, settings: {listen: "127.0.0.1:0"}}`,
	})
	script := "#!/bin/sh\nif ! [ -e mended ]; then echo not yet >&2; exit 3; fi\nexec %q %s\n"
	for name, text := range map[string]string{
		"later": fmt.Sprintf(script, testPlugin(t, "mzd-sink-test"), `"$@"`),
		"page":  fmt.Sprintf(script, testPlugin(t, "mzd"), "plugin serve sink websocket"),
	} {
		d.write(name, text)
		if err := os.Chmod(filepath.Join(d.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	ctx := deadline(t, time.Minute)
	wait := func(what string, is func(map[string]pluginStatus) bool) {
		t.Helper()
		for tick := time.Tick(50 * time.Millisecond); !is(d.plugins()); {
			select {
			case <-tick:
			case <-ctx.Done():
				t.Fatalf("%s: %+v\n%s", what, d.plugins(), d.log)
			}
		}
	}
	wait("not named", func(p map[string]pluginStatus) bool {
		for _, name := range []string{"later", "keeper", "wrong", "broadcaster"} {
			if p := p["sinks."+name]; p.Up || !strings.Contains(p.Error, `exit status 3; the last it said is "not yet"`) {
				return false
			}
		}
		return p["sinks.web"].Up
	})
	d.write("mended", "")
	wait("not mended", func(p map[string]pluginStatus) bool {
		return p["sinks.later"].Up && p["sinks.later"].Version == "1.2.3" && strings.Contains(readSoFar(d, "writes"), `[1]`) &&
			strings.Contains(d.log.String(), `"msg":"asked for its position in t","sink":"keeper"`) &&
			strings.Contains(p["sinks.wrong"].Error, `pipeline.yaml:11:54: sinks.wrong.settings.fiel: unknown key; did you mean "file"?`) &&
			strings.Contains(p["sinks.broadcaster"].Error, "restart mzd")
	})
	d.stop()
}
