package main_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// later is an expression that is done when the views have moved on by half a second.
const later = `fetch("/api/views/counter?min_timestamp=" + (Date.now() + 500)).then((r) => r.ok)`

// TestSplit breaks what the split screen lets people break: the side of 2020 is
// wrong from the start and gets worse, the side of mzd is right all the time.
func TestSplit(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := &daemon{t: t, dir: t.TempDir(), web: freePort(t), admin: freePort(t), sql: freePort(t)}
	d.startTo(io.Discard, "demo", "-rate", "30", "-listen", d.web, "-admin", d.admin, "-engine", d.sql)
	b := newBrowser(ctx, t, 1440, 900)
	b.open("http://" + d.web + "/split")
	const (
		leftIsWrong  = `/rows? wrong/.test(document.getElementById("left-verdict")?.textContent)`
		rightIsRight = `!document.getElementById("verified").hidden && document.getElementById("right-verdict")?.textContent === "every row right" && document.getElementById("state-text").textContent === "live"`
		counted      = `+document.getElementById("left-verdict").textContent.split(" ")[0] === document.querySelectorAll("#differences tr.wrong").length`
	)
	b.until(leftIsWrong + " && " + rightIsRight + " && " + counted)
	b.eval(`window.said = new Set(); new MutationObserver(() => said.add(document.getElementById("right-verdict").textContent))
		.observe(document.getElementById("right-verdict"), {subtree: true, childList: true, characterData: true}); 0`)
	click := func(id string) { b.eval(`document.getElementById("` + id + `").click()`) }

	click("cut")
	b.until(`document.getElementById("state-text").textContent === "reconnecting"`)
	b.eval(later)
	b.screenshot("split-cut")
	click("cut")
	b.until(leftIsWrong + " && " + rightIsRight)
	b.eval(later)
	// What was deleted while nobody listened stays for ever.
	b.until(`[...document.querySelectorAll("#differences td:last-child")].some((td) => /old|gone/.test(td.textContent))`)

	click("freeze")
	b.eval(later)
	click("freeze")
	b.until(leftIsWrong + " && " + rightIsRight)

	click("restart")
	b.until(`/has restarted/.test(document.getElementById("said").textContent)`)
	b.eval(later)
	b.until(leftIsWrong + " && " + rightIsRight)
	if got := b.eval(`JSON.stringify([...said].filter((s) => s !== "every row right"))`); got != "[]" {
		t.Errorf("the side of mzd also said %s", got)
	}
	// What is shown is what the server has, once both are at one time.
	if got := b.eval(`(async () => {
		const text = (list) => list.map(([name, n]) => name + " " + n).sort().join()
		for (;;) {
			const { rows } = await (await fetch("/api/views/top10")).json()
			const bars = [...document.querySelectorAll("#right-bars li:not([aria-hidden])")].map((li) =>
				[li.querySelector(".name").textContent, li.querySelector(".value").textContent.replace(/\D/g, "")])
			if (text(bars) === text(rows.map((r) => [r.user, r.count]))) return bars.length
		}
	})()`); got != "10" {
		t.Errorf("the side of mzd shows %s rows, want 10", got)
	}
	for _, size := range screens {
		for _, scheme := range []string{"light", "dark"} {
			b.size(size.width, size.height)
			b.scheme(scheme)
			if got := b.eval(`document.documentElement.scrollWidth <= innerWidth`); got != "true" {
				t.Errorf("%s: the page is wider than the window", size.name)
			}
			b.screenshot("split-" + size.name + "-" + scheme)
		}
	}
	d.stop()
}

// TestPageThroughTrouble looks at the page over a network that is cut, and then
// one that dies while the page is frozen for a minute: it has the right number
// after each, without having been wrong.
func TestPageThroughTrouble(t *testing.T) {
	sim := simulator.New(simulator.Options{Rate: 300, Seed: *seed, Total: 1500})
	d := newDaemon(t, pipeline{stream: serve(t, sim), views: "{counter: {}, top10: {key: [user]}}"})
	ctx := deadline(t, 2*time.Minute)
	d.start()
	wire := newWire(t, d.web)
	b := newBrowser(ctx, t, 390, 844)
	b.open("http://" + wire.address() + "/")
	b.until(`+` + digits + ` >= 100`)
	b.eval(`window.counts = []; new MutationObserver(() => counts.push(+` + digits + `)).observe(
		document.getElementById("count"), {subtree: true, childList: true, characterData: true}); 0`)

	wire.cut()
	b.until(`document.getElementById("state-text").textContent === "reconnecting"`)
	b.until(`document.getElementById("state-text").textContent === "live" && !document.getElementById("verified").hidden`)

	// Nothing gets through any more, and nobody is told: the page is frozen.
	b.call("Page.setWebLifecycleState", map[string]any{"state": "frozen"}, nil)
	wire.lose()
	if _, err := d.record("counter").until(ctx, func(s string) bool { return s == "[1500]" }); err != nil {
		t.Fatal(err)
	}
	b.call("Page.setWebLifecycleState", map[string]any{"state": "active"}, nil)
	b.call("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}, nil) // what was frozen is still hidden: nothing is drawn
	if got := b.eval(digits); got == "1500" {
		t.Error("the page was not frozen")
	}
	b.eval(`(() => { const now = Date.now; Date.now = () => now() + 60_000 })()`) // a minute has passed
	b.until(digits + ` === "1500" && document.getElementById("state-text").textContent === "live" && !document.getElementById("verified").hidden`)
	if got := b.eval(`counts.some((n, i) => i > 0 && n < counts[i-1])`); got != "false" {
		t.Errorf("the count on the page went down: %s", b.eval(`JSON.stringify(counts)`))
	}
	d.stop()
}

// A wire is between a browser and a server. It can be cut, which both notice,
// and lose what goes over it, which nobody does.
type wire struct {
	ln net.Listener
	to string

	mu    sync.Mutex // guards conns, those that are not lost
	conns []*carried
}

// carried is a connection over a wire. It is lost once the channel is closed.
type carried struct {
	client, server net.Conn
	lost           chan struct{}
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{ln: ln, to: to}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			c := &carried{client, server, make(chan struct{})}
			w.mu.Lock()
			w.conns = append(w.conns, c)
			w.mu.Unlock()
			running.Go(func() { c.carry(client, server) })
			running.Go(func() { c.carry(server, client) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		w.cut()
		running.Wait()
	})
	return w
}

func (w *wire) address() string { return w.ln.Addr().String() }

// carry carries what is read from one side to the other, until either ends.
func (c *carried) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	for buf := make([]byte, 64<<10); ; {
		n, err := from.Read(buf)
		select {
		case <-c.lost:
			n = 0
		default:
		}
		if _, failed := to.Write(buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

// cut ends the connections that there are.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.client.Close()
		c.server.Close()
	}
	w.conns = nil
}

// lose lets nothing more through of the connections that there are.
func (w *wire) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		close(c.lost)
	}
}
