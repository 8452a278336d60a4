package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mountTmpfs makes dir a file system of its own, of so many bytes. It skips the
// test where that is not allowed.
func mountTmpfs(t *testing.T, dir string, bytes int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", bytes)); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill takes all space that is left on the file system of the file.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// ends runs mzd, which is to end by itself, and returns its exit code and what
// it wrote.
func (d *daemon) ends(args ...string) (code int, output string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mzd", args...)
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestDisk runs mzd on a disk that is locked, read-only, full, and well again.
// Clients get every change all the time; a sink with positions gets them once
// they are durable, and after the end nothing is lost.
func TestDisk(t *testing.T) {
	c := newCrash(t, 3*time.Minute)
	data := filepath.Join(c.d.dir, "data")
	mountTmpfs(t, data, 1<<20)
	c.d.admin = freePort(t)
	c.d.write("pipeline.yaml", fmt.Sprintf(`
name: test
data_dir: data
materialize: {url: "postgres://mzd@%s/materialize?sslmode=disable"}
views: {counter: {}, users: {key: [user]}}
sinks:
  web: {plugin: websocket, settings: {listen: %q}}
  apart: {plugin: recorder, settings: {file: apart}}
admin: {listen: %q}
log: {format: json}
`, c.d.sql, c.d.web, c.d.admin))
	c.startEngine()
	run := func() {
		c.d.launch(io.Discard, "mzd is running", "mzd-recording", "-config", "pipeline.yaml")
	}
	// untilSeen has events happen, one after the other, until a client that has
	// seen all of them also sees done.
	untilSeen := func(done func() bool) {
		t.Helper()
		m := newMirror("counter", "users")
		err := follow(c.ctx, "ndjson", c.d.web, m.views, "", "", func(data []byte) bool {
			complete, err := m.apply(data)
			if err != nil {
				t.Error(err)
				return false
			}
			if !complete || !c.complete(m.text("counter"), m.text("users")) {
				return true
			}
			if done() {
				return false
			}
			c.message()
			return true
		})
		if err != nil {
			t.Fatalf("%v\n%s", err, c.d.log)
		}
	}
	isClosed := func(ch <-chan struct{}) func() bool {
		return func() bool {
			select {
			case <-ch:
				return true
			default:
				return false
			}
		}
	}
	taken := func() bool {
		a := c.audit("apart")
		return c.complete(a.text("counter"), a.text("users"))
	}

	run()
	changes := 0
	untilSeen(func() bool { changes++; return changes > 20 && taken() })

	// Somebody else uses the directory.
	want := fmt.Sprintf("mzd: data_dir: directory data: in use by another process (pid %d); stop that one, or use another directory\n", c.d.cmd.Process.Pid)
	c.d.write("second.yaml", fmt.Sprintf(`
data_dir: data
materialize: {url: "postgres://mzd@%s/materialize?sslmode=disable"}
views: {counter: {}}
admin: {listen: ""}
`, c.d.sql))
	if code, output := c.d.ends("-config", "second.yaml"); code != 3 || output != want {
		t.Errorf("a second mzd: exit code %d, %s, want 3, %s", code, output, want)
	}

	// The disk is full.
	filler := filepath.Join(data, "filler")
	fill(t, filler)
	untilSeen(isClosed(c.d.log.contains("the log cannot be written; views go on, sinks that keep positions wait")))
	for range 20 {
		c.message()
	}
	untilSeen(func() bool { return true })
	if taken() {
		t.Error("a sink with positions was given what is not durable")
	}
	res, err := http.Get("http://" + c.d.admin + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 503 || !strings.Contains(string(body), "no space left on device") {
		t.Errorf("healthz: %s %s, want 503 and why", res.Status, body)
	}
	if got := get(t, "http://"+c.d.admin+"/readyz"); !strings.Contains(got, `"ready": true`) || !strings.Contains(got, `"disk: log of view `) {
		t.Errorf("readyz does not name the disk: %s", got)
	}
	var status struct {
		Views []struct {
			DiskTrouble string `json:"disk_trouble"`
			DiskBytes   int64  `json:"log_disk_bytes"`
		}
	}
	if err := json.Unmarshal([]byte(get(t, "http://"+c.d.admin+"/api/status")), &status); err != nil {
		t.Fatal(err)
	}
	troubles := ""
	for _, v := range status.Views {
		troubles += v.DiskTrouble
		if v.DiskBytes == 0 {
			t.Errorf("status: %+v, want bytes", v)
		}
	}
	if !strings.Contains(troubles, "data/views/") || !strings.Contains(troubles, "no space left on device") {
		t.Errorf("status: %+v, want a file and why", status)
	}

	// There is space again.
	again := c.d.log.contains("the log can be written again")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	untilSeen(func() bool { return isClosed(again)() && taken() })
	get(t, "http://"+c.d.admin+"/healthz")

	// It is killed while the disk is full: what comes back is what was durable.
	fill(t, filler)
	untilSeen(isClosed(c.d.log.contains(`"msg":"the log cannot be written`)))
	c.d.kill()
	if code, output := c.d.ends("-config", "second.yaml"); code != 3 ||
		!strings.Contains(output, "mzd: data_dir: open the log of view counter: save the manifest: ") || !strings.Contains(output, "no space left on device") {
		t.Errorf("started on a full disk: exit code %d, %s", code, output)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}

	// The disk is read-only.
	if err := syscall.Mount("", data, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	want = "mzd: data_dir: open data/lock: read-only file system\n"
	if code, output := c.d.ends("-config", "second.yaml"); code != 3 || output != want {
		t.Errorf("on a read-only disk: exit code %d, %s, want 3, %s", code, output, want)
	}
	if err := syscall.Mount("", data, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}

	// The end of a log is torn.
	segments, err := filepath.Glob(filepath.Join(data, "views", "counter", "*.log"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	f, err := os.OpenFile(segments[len(segments)-1], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("torn")
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	run()
	if !strings.Contains(c.d.log.String(), `"msg":"cut off the end of a log`) || !strings.Contains(c.d.log.String(), `"bytes":4}`) {
		t.Errorf("no word about the torn end:\n%s", c.d.log)
	}
	untilSeen(taken)
	c.d.stop()
	c.e.stop()
	a := c.audit("apart")
	t.Logf("%d writes, %d again, %d bases", a.writes, a.again, a.bases)
	if a.bases != 2 {
		t.Errorf("the sink got %d bases, want one of each view", a.bases)
	}
}
