package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
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

	// With a snapshot to begin with the left side is right, too, until something breaks.
	click("snapshot")
	b.until(`document.getElementById("left-verdict").textContent === "right, for now" && ` + rightIsRight)

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

	// All at once: what is said is what is so.
	said := func(want string) {
		t.Helper()
		b.until(fmt.Sprintf(`document.getElementById("said").textContent === %q`, want))
	}
	const nobody = "Asleep, like a laptop with its lid closed: nothing is heard, and nobody notices"
	click("freeze")
	said(nobody + ".")
	click("cut")
	said(nobody + ", not even that the network is cut.")
	click("restart")
	said("The database has restarted. mzd went on from where it was. " + nobody + ", not even that the network is cut.")
	b.eval(later)
	if got := b.eval(`document.getElementById("state-text").textContent`); got != "live" {
		t.Errorf("while it sleeps the page says that it is %s", got)
	}
	click("freeze")
	said("Awake. The connections are found dead. Nothing gets through. Both sides try to come back.")
	b.until(`document.getElementById("state-text").textContent === "reconnecting"`)
	click("cut")
	said("The network is back.")
	b.until(leftIsWrong + " && " + rightIsRight)
	// The history has all of it: only the left side was ever wrong.
	if got := b.eval(`["left", "right", "broken"].map((name) => {
		const d = document.querySelector("#history ." + name).getAttribute("d")
		return name === "broken" ? d.split("Z").length > 3 : [...d.matchAll(/[ML]\S+ ([\d.]+)/g)].some(([, y]) => y !== "9.5")
	}).join()`); got != "true,false,true" {
		t.Errorf("wrong left, wrong right, broken: %s", got)
	}

	// Whoever has no mouse stays where they were.
	if got := b.eval(`new Promise((resolve) => {
		const button = document.getElementById("restart")
		button.focus()
		button.click()
		const busy = button.getAttribute("aria-disabled")
		requestAnimationFrame(() => requestAnimationFrame(() => resolve(busy + " " + document.activeElement.id)))
	})`); got != "true restart" {
		t.Errorf("a button that was pressed is busy and has the focus: %s", got)
	}
	b.until(`/has restarted/.test(document.getElementById("said").textContent)`)
	if again := regexp.MustCompile(`mzd_upstream_reconnects_total\{[^}]*\} [1-9]`); !again.MatchString(get(t, "http://"+d.admin+"/metrics")) {
		t.Error("the database was not restarted: no view has lost its connection")
	}
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
			if got := b.eval(`document.getElementById("rows").scrollWidth <= document.getElementById("rows").clientWidth`); got != "true" {
				t.Errorf("%s: the table of rows is wider than the page", size.name)
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
	d := newDaemon(t, pipeline{
		init: "CREATE TABLE edits (editor text)",
		views: `
  counter: {query: "SELECT count(*) AS edits FROM edits"}
  top10: {query: "SELECT editor, count(*) AS edits FROM edits GROUP BY editor", key: [editor]}`,
	})
	ctx := deadline(t, 2*time.Minute)
	d.start()
	wire := newWire(t, d.web)
	b := newBrowser(ctx, t, 390, 844)
	b.open("http://" + wire.address() + "/")
	edit := func(values string) { execute(ctx, t, d.sql, "INSERT INTO edits VALUES "+values) }
	shows := func(count string) string {
		return digits + ` === "` + count + `" && document.getElementById("state-text").textContent === "live" && !document.getElementById("verified").hidden`
	}
	b.until(shows("0"))
	b.eval(`window.counts = []; new MutationObserver(() => counts.push(` + digits + `)).observe(
		document.getElementById("count"), {subtree: true, childList: true, characterData: true}); 0`)
	edit("('Ada'), ('Bob')")
	b.until(shows("2"))

	wire.cut()
	b.until(`document.getElementById("state-text").textContent === "reconnecting"`)
	edit("('Ada'), ('Cleo')")
	b.until(shows("4"))

	// Nothing gets through any more, and nobody is told: the page is frozen.
	b.call("Page.setWebLifecycleState", map[string]any{"state": "frozen"}, nil)
	wire.lose()
	edit("('Dora')")
	if now := get(t, fmt.Sprintf("http://%s/api/views/counter?min_timestamp=%d", d.web, time.Now().UnixMilli())); !strings.Contains(now, `{"edits":5}`) {
		t.Fatalf("the server has %s", now)
	}
	b.call("Page.setWebLifecycleState", map[string]any{"state": "active"}, nil)
	b.call("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}, nil) // what was frozen is still hidden: nothing is drawn
	if got := b.eval(digits); got != "4" {
		t.Errorf("the page shows %s, which it cannot know", got)
	}
	b.eval(`(() => { const now = Date.now; Date.now = () => now() + 60_000 })()`) // a minute has passed
	b.until(shows("5"))
	if got := b.eval(`["0", ...counts].filter((n, i, all) => n !== all[i-1]).join()`); got != "0,2,4,5" {
		t.Errorf("the page has shown %s, want 0,2,4,5", got)
	}
	if got := b.eval(`[...document.querySelectorAll("#bars li:not([aria-hidden])")].map((li) => li.textContent).sort().join()`); got != "Ada2,Bob1,Cleo1,Dora1" {
		t.Errorf("the bars are %s", got)
	}
	d.stop()
}

// TestPageWithoutWebsockets looks at the page where websockets do not get through:
// it goes by server-sent events, and by websocket once they do, without anybody
// noticing.
func TestPageWithoutWebsockets(t *testing.T) {
	d := newDaemon(t, pipeline{
		init:  "CREATE TABLE edits (editor text)",
		views: `{counter: {query: "SELECT count(*) AS edits FROM edits"}, top10: {query: "SELECT editor FROM edits"}}`,
	})
	ctx := deadline(t, 2*time.Minute)
	d.start()
	b := newBrowser(ctx, t, 1200, 800)
	b.call("Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": `
		window.blocked = true
		window.late = 0 // by how much the clock is advanced
		window.opened = 0
		Date.now = ((now) => () => now() + late)(Date.now)
		window.WebSocket = class extends WebSocket {
			constructor(url) {
				super(blocked ? url.replace("/api/", "/blocked/") : url)
				this.addEventListener("open", () => opened++)
			}
		}`}, nil)
	b.open("http://" + d.web + "/")
	shows := func(count int) {
		t.Helper()
		b.until(fmt.Sprintf(`%s === "%d" && document.getElementById("state-text").textContent === "live" && !document.getElementById("verified").hidden`, digits, count))
	}
	shows(0)
	b.eval(`window.states = []; new MutationObserver(() => states.push(document.getElementById("state-text").textContent))
		.observe(document.getElementById("state-text"), {subtree: true, childList: true, characterData: true}); 0`)
	count := 0
	pass := func() { // a third of a minute, in which something happens
		b.eval(`late += 20_000`)
		count++
		execute(ctx, t, d.sql, "INSERT INTO edits VALUES ('Ada')")
		shows(count)
	}
	pass()
	if got := b.eval(`opened`); got != "0" {
		t.Fatalf("%s websockets got through", got)
	}
	b.eval(`blocked = false`)
	for range 16 { // more than five minutes
		pass()
	}
	b.until(`opened === 2`) // one to see whether they do, and the one that goes on
	pass()
	if got := b.eval(`JSON.stringify(states)`); got != "[]" {
		t.Errorf("the page has said %s", got)
	}
	if got := get(t, "http://"+d.admin+"/metrics"); !strings.Contains(got, `mzd_broadcast_clients{sink="web",transport="sse"} 0`) || !strings.Contains(got, `mzd_broadcast_clients{sink="web",transport="websocket"} 1`) {
		t.Error("it does not go by a websocket alone")
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
