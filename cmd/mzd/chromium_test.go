package main_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// browser is one page of a real Chromium, driven over the DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol/). It is used by one
// goroutine.
type browser struct {
	t       *testing.T
	ctx     context.Context
	conn    *websocket.Conn
	session string
	calls   int
}

// newBrowser starts Chromium with an empty page of the given size. It skips the
// test where there is none, and fails it in CI.
func newBrowser(ctx context.Context, t *testing.T, width, height int) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("no Chromium; CI installs it")
		}
		t.Skip("no Chromium on this machine")
	}
	cmd := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--hide-scrollbars", fmt.Sprintf("--window-size=%d,%d", width, height),
		"--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", "about:blank")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if _, url, ok := strings.Cut(lines.Text(), "DevTools listening on "); ok {
				address <- url
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-drained
		cmd.Wait()
	})
	b := &browser{t: t, ctx: ctx}
	select {
	case url := <-address:
		if b.conn, _, err = websocket.Dial(ctx, url, nil); err != nil {
			t.Fatal(err)
		}
	case <-drained:
		t.Fatal("Chromium ended at once")
	case <-ctx.Done():
		t.Fatal("Chromium did not start")
	}
	b.conn.SetReadLimit(64 << 20)
	t.Cleanup(func() { b.conn.CloseNow() })

	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	b.call("Page.enable", nil, nil)
	b.call("Runtime.enable", nil, nil)
	b.size(width, height)
	return b
}

// call calls a method and waits for its result.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.calls++
	request := map[string]any{"id": b.calls, "method": method}
	if params != nil {
		request["params"] = params
	}
	if b.session != "" {
		request["sessionId"] = b.session
	}
	if err := wsjson.Write(b.ctx, b.conn, request); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		var reply struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }

			Method string // of an event
			Params struct{ ExceptionDetails exception }
		}
		if err := wsjson.Read(b.ctx, b.conn, &reply); err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		switch {
		case reply.Method == "Runtime.exceptionThrown":
			b.t.Errorf("the page threw %v", reply.Params.ExceptionDetails)
			continue
		case reply.ID != b.calls: // another event
			continue
		case reply.Error != nil:
			b.t.Fatalf("%s: %s", method, reply.Error.Message)
		case result != nil:
			if err := json.Unmarshal(reply.Result, result); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
		return
	}
}

// An exception is one that a page has thrown.
type exception struct {
	Text      string
	URL       string
	Exception struct{ Description string }
}

func (e exception) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Text, e.Exception.Description, e.URL))
}

// size sets the size of the window.
func (b *browser) size(width, height int) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
	}, nil)
}

// scheme sets what prefers-color-scheme says, and that motion is to be reduced:
// pictures are not to show things on their way.
func (b *browser) scheme(light string) {
	b.t.Helper()
	b.call("Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": light}, {"name": "prefers-reduced-motion", "value": "reduce"}},
	}, nil)
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil)
}

// eval evaluates an expression in the page, waiting if it is a promise, and
// returns its value as text.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var reply struct {
		Result           struct{ Value any }
		ExceptionDetails *exception
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &reply)
	if e := reply.ExceptionDetails; e != nil {
		b.t.Fatalf("%s: %v", expression, e)
	}
	return fmt.Sprint(reply.Result.Value)
}

// until waits until an expression is true in the page, looking at each change
// of the document.
func (b *browser) until(expression string) {
	b.t.Helper()
	b.eval(fmt.Sprintf(`new Promise(resolve => {
		const look = () => { if (%s) { observer.disconnect(); resolve(true) } }
		const observer = new MutationObserver(look)
		observer.observe(document, {subtree: true, childList: true, characterData: true, attributes: true})
		look()
	})`, expression))
}

// screenshot writes a picture of the page to $MZD_SCREENSHOTS/name.png, for
// people to look at; without the variable it only takes it.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	b.eval(`Promise.allSettled(document.getAnimations().map(a => a.finished)).then(() => 0)`)
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil && len(png) == 0 {
		err = errors.New("an empty picture")
	}
	if dir := os.Getenv("MZD_SCREENSHOTS"); dir != "" && err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
