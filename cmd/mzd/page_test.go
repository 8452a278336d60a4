package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// selectCount asks the engine itself for the count.
func selectCount(ctx context.Context, t *testing.T, address string) string {
	t.Helper()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://materialize@%s/materialize", address))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var n int64
	if err := conn.QueryRow(ctx, "SELECT * FROM counter").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(n)
}

// execute runs a statement in the engine.
func execute(ctx context.Context, t *testing.T, address, statement string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://materialize@%s/materialize", address))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

// screens are the sizes at which people look at the pages.
var screens = []struct {
	name          string
	width, height int
}{{"desktop", 1440, 900}, {"phone", 390, 844}}

// digits is the number on the page, without its separators.
const digits = `(document.getElementById("count")?.textContent ?? "").replace(/\D/g, "")`

// TestPage looks at the page in a real browser: it shows the count that the
// engine has, also after the daemon was restarted under it.
func TestPage(t *testing.T) {
	const first, total = 600, 1200
	sim := simulator.New(simulator.Options{Rate: 300, Seed: *seed, Total: total})
	d := newDaemon(t, pipeline{stream: serve(t, sim), views: "{counter: {}, top10: {key: [user]}}"})
	ctx := deadline(t, 3*time.Minute)
	b := newBrowser(ctx, t, 1200, 800)
	d.start()
	b.open("http://" + d.web + "/")
	b.until(fmt.Sprintf(`+%s >= %d`, digits, first))
	b.eval(`window.counts = []; new MutationObserver(() => counts.push(+` + digits + `)).observe(
		document.getElementById("count"), {subtree: true, childList: true, characterData: true}); 0`)
	d.stop()
	b.until(`document.getElementById("state-text").textContent === "reconnecting"`)
	d.start()
	b.until(fmt.Sprintf(`%s === "%d" && document.getElementById("state-text").textContent === "live"`, digits, total))
	if got, want := b.eval(digits), selectCount(ctx, t, d.sql); got != want {
		t.Errorf("the page says %s, SELECT * FROM counter says %s", got, want)
	}
	if got := b.eval(`counts.some((n, i) => i > 0 && n < counts[i-1])`); got != "false" {
		t.Errorf("the count on the page went down: %s", b.eval(`JSON.stringify(counts)`))
	}
	if got := b.eval(`document.querySelectorAll("#bars li").length`); got != "10" {
		t.Errorf("the chart has %s bars, want 10", got)
	}
	// A view that has failed is named, and what is shown is said to be old.
	execute(ctx, t, d.sql, "DROP VIEW counter")
	b.until(`document.getElementById("state-text").textContent === "waiting" && /counter has stopped/.test(document.getElementById("reason").textContent)`)
	if got := b.eval(digits); got != fmt.Sprint(total) {
		t.Errorf("the page says %s when the view has failed, want the last count", got)
	}
	for _, size := range screens {
		b.size(size.width, size.height)
		if got := b.eval(`document.documentElement.scrollWidth <= innerWidth`); got != "true" {
			t.Errorf("%s: the page of a view that has failed is wider than the window", size.name)
		}
		b.screenshot("failed-" + size.name)
	}
	execute(ctx, t, d.sql, "CREATE MATERIALIZED VIEW counter AS SELECT count(*) FROM recentchanges")
	b.until(`document.getElementById("state-text").textContent === "live"`)
	for _, size := range screens {
		for _, scheme := range []string{"light", "dark"} {
			b.size(size.width, size.height)
			b.scheme(scheme)
			if got := b.eval(`document.documentElement.scrollWidth <= innerWidth`); got != "true" {
				t.Errorf("%s: the page is wider than the window", size.name)
			}
			b.screenshot("page-" + size.name + "-" + scheme)
		}
	}
	d.stop()
}

// TestDemo runs the demo twice in one directory, as a newcomer would: it says
// where to look, shows a page that says that the edits are simulated, agrees
// with psql, and ends cleanly.
func TestDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	ctx := deadline(t, 2*time.Minute)
	for run := range 2 {
		d := &daemon{t: t, dir: t.TempDir(), web: freePort(t), admin: freePort(t), sql: freePort(t)}
		var stdout logBuffer
		d.startTo(&stdout, "demo", "-rate", "200", "-edits", "2500", "-listen", d.web, "-admin", d.admin, "-engine", d.sql, "-data-dir", dir)
		<-stdout.contains("Ctrl-C ends it.")
		for _, want := range []string{"http://" + d.web + "/\n", "http://" + d.web + "/split\n", "http://" + d.admin + "/", dir, "psql -h 127.0.0.1 -p "} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("the demo does not mention %s:\n%s", want, stdout.String())
			}
		}
		b := newBrowser(ctx, t, 1200, 1000)
		b.open("http://" + d.web + "/")
		b.until(`/simulated/.test(document.getElementById("notice")?.textContent)`)
		b.until(fmt.Sprintf(`+%s >= 2500`, digits)) // what the first run counted, the second begins with
		if run == 0 {
			b.screenshot("demo")
			if got, want := b.eval(digits), selectCount(ctx, t, d.sql); got != want {
				t.Errorf("the page says %s, SELECT * FROM counter says %s", got, want)
			}
		}
		d.stop()
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "recentchanges")); err != nil {
		t.Errorf("-data-dir was not kept: %v", err)
	}
}

// TestPageTable shows a view with what looks like nothing: NULL, and an empty text.
func TestPageTable(t *testing.T) {
	d := newDaemon(t, pipeline{views: `{nothing: {query: "SELECT NULL::text AS a, '' AS b, NULL::int AS c, 0 AS d"}}`})
	b := newBrowser(deadline(t, time.Minute), t, 1200, 800)
	d.start()
	b.open("http://" + d.web + "/")
	b.until(`document.querySelectorAll("tbody td").length === 4`)
	if got := b.eval(`[...document.querySelectorAll("tbody td")].map((td) => td.textContent + (td.classList.contains("null") ? "*" : "")).join("|")`); got != "null*||null*|0" {
		t.Errorf("the row is shown as %s", got)
	}
	if got, want := b.eval(`document.getElementById("curl").textContent`), "http://"+d.web+"/api/stream/nothing"; got != want {
		t.Errorf("the page names the stream %s, not %s", got, want)
	}
}

// TestPagePicker shows views that people pick, one of them large: of that only
// the largest rows, saying so, and with what changes lit, cell by cell.
func TestPagePicker(t *testing.T) {
	var rows []string
	for i := range 10_000 {
		rows = append(rows, fmt.Sprintf("(%d, 'row %d', %d)", i, i, i))
	}
	d := newDaemon(t, pipeline{
		init:  "CREATE TABLE big (id int8, name text, n int8); CREATE TABLE small (word text);",
		views: `{big: {query: "SELECT * FROM big", key: [id]}, small: {query: "SELECT * FROM small"}}`,
	})
	ctx := deadline(t, time.Minute)
	b := newBrowser(ctx, t, 1440, 900)
	d.start()
	b.open("http://" + d.web + "/#view=small")
	b.until(`document.querySelector("#tables h3")?.textContent.startsWith("small 0 rows")`)
	execute(ctx, t, d.sql, "INSERT INTO big VALUES "+strings.Join(rows, ", ")+"; INSERT INTO small VALUES ('twice'), ('twice')")
	b.until(`document.querySelectorAll("#tables td").length === 2`)
	m := newMirror("big") // or its rows could come, and be lit, after it was picked
	if err := follow(ctx, "ndjson", d.web, m.views, "", "", func(data []byte) bool {
		if _, err := m.apply(data); err != nil {
			t.Fatal(err)
		}
		return len(m.rows["big"]) < 10_000
	}); err != nil {
		t.Fatal(err)
	}
	b.eval(`[...document.querySelectorAll("#picker button")].find((b) => b.textContent === "big").click()`)
	b.until(`document.querySelectorAll("#tables tr").length === 104`) // 100 and 2 rows, 2 heads
	if got := b.eval(`[...document.querySelectorAll("#tables h3")].map((h) => h.textContent).join("; ")`); got != "small 2 rows; big 10,000 rows, the 100 largest are shown" {
		t.Errorf("the tables are called %s", got)
	}
	if got := b.eval(`location.hash`); got != "#view=small&view=big" {
		t.Errorf("the page remembers %s", got)
	}
	lit := `[...document.querySelectorAll("[aria-label=big] [data-lit]")].map((td) => td.textContent).join()`
	if got := b.eval(lit); got != "" {
		t.Errorf("lit from the start: %s", got)
	}
	execute(ctx, t, d.sql, "UPDATE big SET n = 20000 WHERE id = 9990")
	b.until(`document.querySelector("[aria-label=big] tbody tr td:last-child").textContent === "20,000"`)
	if got := b.eval(lit); got != "20,000" {
		t.Errorf("lit is %s, want the cell that has changed", got)
	}
	if got := b.eval(`document.querySelector("[aria-label=big] tbody td").textContent`); got != "9990" {
		t.Errorf("the key of the first row is shown as %s", got)
	}
	b.screenshot("picker")
	b.eval(`[...document.querySelectorAll("#picker button")].forEach((b) => b.click())`)
	b.until(`document.querySelectorAll("#tables section").length === 0 && document.getElementById("empty").textContent === "Pick a view to see it."`)
	if got := b.eval(`["now", "links"].filter((id) => !document.getElementById(id).hidden).join()`); got != "" {
		t.Errorf("the page, which follows nothing, shows %s", got)
	}
	b.eval(`document.querySelector("#picker button").click()`)
	b.until(`document.querySelectorAll("#tables section").length === 1 && !document.getElementById("now").hidden && document.getElementById("empty").hidden`)
	// The address counts also when it changes under the page: by a link, and by the way back.
	shown := `[...document.querySelectorAll("#tables h3 span:first-child")].map((h) => h.textContent).sort().join() + " of " +
		[...document.querySelectorAll("#picker [aria-pressed=true]")].map((b) => b.textContent).sort().join()`
	b.until(shown + ` === "big of big"`)
	b.eval(`location.hash = "view=small&view=nothing"`)
	b.until(shown + ` === "small of small"`)
	b.eval(`history.back()`)
	b.until(shown + ` === "big of big"`)
	d.stop()
}

// TestBars looks at bars that pass each other, come and leave, halfway: of two in
// one place the better one is seen and nothing of the other, and whoever listens
// hears them in their order.
func TestBars(t *testing.T) {
	d := newDaemon(t, pipeline{views: `{nothing: {query: "SELECT 1 AS a"}}`})
	b := newBrowser(deadline(t, time.Minute), t, 1200, 1000)
	d.start()
	b.open("http://" + d.web + "/")
	b.until(`document.querySelectorAll("tbody td").length === 1`)
	got := b.eval(`(async () => {
		const { Bars } = await import("/live.js")
		const list = document.createElement("ol")
		list.className = "bars"
		list.id = "test"
		document.querySelector("header").after(list)
		const bars = new Bars(list)
		const draw = (amounts) => bars.draw(Object.entries(amounts).map(([id, amount]) => ({id, name: id, amount, text: String(amount)})).sort((a, b) => b.amount - a.amount))
		draw({Ada: 4, Bob: 3, Cleo: 2})
		const places = [...list.children].map((li) => li.getBoundingClientRect().top - list.getBoundingClientRect().top)
		const animations = () => list.getAnimations({subtree: true})
		animations().forEach((a) => a.finish())
		draw({Ada: 4, Bob: 5, Dora: 3})
		const wrong = []
		const names = list.getAttribute("aria-owns").split(" ").map((id) => document.getElementById(id).querySelector(".name").textContent)
		let shared = 0
		for (let time = 0; time < 500; time += 20) {
			animations().forEach((a) => { a.pause(); a.currentTime = time })
			const items = [...list.children]
			const rects = items.map((li) => li.getBoundingClientRect())
			for (const [i, a] of rects.entries()) for (const [j, b] of rects.entries()) {
				const top = Math.max(a.top, b.top), bottom = Math.min(a.bottom, b.bottom)
				if (i >= j || bottom - top < 2) continue
				shared++
				const seen = document.elementFromPoint(a.left + 30, (top + bottom) / 2)?.closest("li")
				const height = (k) => Number(items[k].style.zIndex)
				const better = items[height(i) > height(j) ? i : j]
				if (seen && seen !== better) wrong.push(time + " ms: " + seen.textContent + " is above " + better.textContent)
				if (getComputedStyle(better).backgroundColor === "rgba(0, 0, 0, 0)" || height(i) === height(j)) wrong.push("both are seen")
			}
			const below = list.getBoundingClientRect().bottom
			if (document.elementFromPoint(list.getBoundingClientRect().left + 30, below + 5)?.closest("#test")) wrong.push("a bar below the list")
		}
		return JSON.stringify({places, names, shared: shared > 5, wrong})
	})()`)
	if want := `{"places":[0,40,80],"names":["Bob","Ada","Dora"],"shared":true,"wrong":[]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	d.stop()
}

// TestPageOfTheReadme serves the page that the README has, as it says, from another
// port of the machine: it shows what the view is.
func TestPageOfTheReadme(t *testing.T) {
	page := regexp.MustCompile("(?s)```html\n(.*?)```").FindStringSubmatch(readFile(t, "../../README.md"))
	if page == nil {
		t.Fatal("the README has no page")
	}
	sim := simulator.New(simulator.Options{Rate: 5000, Seed: *seed, Total: 200})
	d := newDaemon(t, pipeline{stream: serve(t, sim), views: "{counter: {}, top10: {key: [user]}}"})
	ctx := deadline(t, time.Minute)
	b := newBrowser(ctx, t, 800, 600)
	d.start()
	if _, err := d.record("counter").until(ctx, func(s string) bool { return s == "[200]" }); err != nil {
		t.Fatal(err)
	}
	b.open(serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.ReplaceAll(page[1], "127.0.0.1:8875", d.web))
	})))
	b.until(`document.getElementById("top")?.textContent.split("\n").length === 10`)
	b.until(fmt.Sprintf(`document.getElementById("top").textContent.split("\n").sort().join() === %q`, topOf(t, d)))
	d.stop()
}

// topOf returns the rows of top10 as the README's page writes them, sorted.
func topOf(t *testing.T, d *daemon) string {
	var lines []string
	for line := range strings.Lines(get(t, "http://"+d.web+"/api/views/top10?format=ndjson")) {
		var row struct {
			User  string
			Count int
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%d %s", row.Count, row.User))
	}
	slices.Sort(lines)
	return strings.Join(lines, ",")
}

// TestDemoJoins runs the scenario with a table: its views and one of the
// engine's own are tables on the page, which agree at every moment.
func TestDemoJoins(t *testing.T) {
	const total = 6200 // at 20 a second: five minutes of the past, and ten seconds to come
	ctx := deadline(t, 2*time.Minute)
	d := &daemon{t: t, dir: t.TempDir(), web: freePort(t), admin: freePort(t), sql: freePort(t)}
	var stdout logBuffer
	d.startTo(&stdout, "demo", "-scenario", "joins", "-rate", "20", "-edits", fmt.Sprint(total), "-listen", d.web, "-admin", d.admin, "-engine", d.sql)
	<-stdout.contains("/api/stream/languages")
	b := newBrowser(ctx, t, 1200, 800)
	b.open("http://" + d.web + "/")
	b.until(`document.querySelectorAll("#tables table").length === 3 && document.querySelectorAll("tbody tr").length > 20`)
	b.eval(`window.edits = (name) => [...document.querySelectorAll("[aria-label=" + name + "] tbody tr td:last-child")]
		.reduce((n, td) => n + +td.textContent.replace(/\D/g, ""), 0);
		window.seen = []; new MutationObserver(() => seen.push([edits("languages"), edits("minutes")])).observe(
		document.getElementById("tables"), {subtree: true, childList: true}); 0`)
	b.until(fmt.Sprintf(`edits("languages") === %d`, total))
	// Only ten minutes are shown. What they lack, edits that came very late and minutes that were pushed out, is never less than before.
	if got := b.eval(`seen.length > 3 && seen.every(([a, b], i) => i === 0 || a - b >= seen[i-1][0] - seen[i-1][1])`); got != "true" {
		t.Errorf("the tables did not agree, or did not change: %s", b.eval(`JSON.stringify(seen)`))
	}
	if got := b.eval(`seen.every(([n], i) => i === 0 || seen[i-1][0] <= n)`); got != "true" {
		t.Errorf("the count went down: %s", b.eval(`JSON.stringify(seen)`))
	}
	if got, want := b.eval(`document.getElementById("curl").textContent`), "'http://"+d.web+"/api/stream?view=languages&view=minutes&view=mzd_views'"; got != want {
		t.Errorf("the page names the stream %s, not %s", got, want)
	}
	if got := b.eval(`[...document.querySelectorAll("[aria-label=languages] td:first-child")].some((td) => td.textContent === "German")`); got != "true" {
		t.Error("no edits in German")
	}
	if got := b.eval(`document.querySelector("[aria-label=minutes] td").textContent`); !regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d$`).MatchString(got) {
		t.Errorf("a minute is shown as %s", got)
	}
	if got := b.eval(`[...document.querySelectorAll("[aria-label=minutes] td:first-child")].every((td, i, all) => i === 0 || all[i-1].textContent > td.textContent)`); got != "true" {
		t.Error("the minutes are not in order")
	}
	if got := selectCount(ctx, t, d.sql); got != fmt.Sprint(total) {
		t.Errorf("the engine counted %s", got)
	}
	// The engine says of itself, on the page, what it is asked for: another view appears there.
	execute(ctx, t, d.sql, "CREATE MATERIALIZED VIEW another AS SELECT 7")
	b.until(`[...document.querySelectorAll("[aria-label=mzd_views] td:first-child")].some((td) => td.textContent === "another")`)
	for _, size := range []struct {
		name          string
		width, height int
	}{{"desktop", 1200, 1400}, {"phone", 390, 1600}} {
		for _, scheme := range []string{"light", "dark"} {
			b.size(size.width, size.height)
			b.scheme(scheme)
			if got := b.eval(`document.documentElement.scrollWidth <= innerWidth`); got != "true" {
				t.Errorf("%s: the page is wider than the window", size.name)
			}
			b.screenshot("joins-" + size.name + "-" + scheme)
		}
	}
	d.stop()
}

// TestPsql talks to the running pipeline with the real psql.
func TestPsql(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no psql; CI installs it")
		}
		t.Skip("no psql on this machine")
	}
	sim := simulator.New(simulator.Options{Rate: 5000, Seed: *seed, Total: 100})
	d := newDaemon(t, pipeline{stream: serve(t, sim)})
	d.start()
	ctx := deadline(t, time.Minute)
	if _, err := d.record("counter").until(ctx, func(s string) bool { return s == "[100]" }); err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(d.sql, ":")
	for _, c := range []struct{ sql, want string }{
		{"SHOW VIEWS", "counter\nrecentchanges\ntop10\nuseredits\n"},
		{"SELECT * FROM counter", "100\n"},
		{"SELECT sum(count) FROM useredits", "100\n"},
		{"SELECT count(*) FROM top10", "10\n"},
		{"SELECT mz_version()", "mzd embedded (not Materialize)\n"},
	} {
		cmd := exec.CommandContext(ctx, psql, "-X", "-A", "-t", "-h", host, "-p", port, "-U", "materialize", "-c", c.sql, "materialize")
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != c.want {
			t.Errorf("psql -c %q: got %q, %v; want %q", c.sql, out, err, c.want)
		}
	}
	d.stop()
}
