package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

// firstMessage returns the first message of a stream of a view.
func firstMessage(t *testing.T, d *daemon, view, since string) message {
	t.Helper()
	var m message
	err := follow(deadline(t, time.Minute), "ndjson", d.web, []string{view}, since, "", func(data []byte) bool {
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestTokens comes back with tokens that are good, stale, of another view, from
// the future, and no tokens at all.
func TestTokens(t *testing.T) {
	sim := simulator.New(simulator.Options{Rate: 500, Seed: *seed})
	d := newDaemon(t, pipeline{stream: serve(t, sim)})
	d.start()
	counter, top10 := firstMessage(t, d, "counter", ""), firstMessage(t, d, "top10", "")
	good, err := core.ParseToken(counter.Token)
	if err != nil {
		t.Fatal(err)
	}
	future, past := good, good
	future.Time += 1_000_000
	past.Time -= 100_000_000
	for _, c := range []struct{ name, token, want string }{
		{"good", good.String(), "delta"},
		{"another view's", top10.Token, "base"},
		{"another generation's", core.Token{Time: good.Time, Generation: core.NewGeneration()}.String(), "base"},
		{"from the future", future.String(), "base"},
		{"older than the log", past.String(), "base"},
		{"of two views", good.String() + ".abcdef", "base"},
	} {
		got := firstMessage(t, d, "counter", c.token)
		if got.Type == "progress" {
			got.Type = "delta" // nothing has happened meanwhile
		}
		if got.Type != c.want || c.want == "delta" && got.Token == c.token {
			t.Errorf("token %s (%s): got %+v, want a %s", c.name, c.token, got, c.want)
		}
	}
	for _, garbage := range []string{"garbage", "12", "-", "99999999999999999999-abc", "1-\x00", strings.Repeat("9", 5000)} {
		req, _ := http.NewRequest("GET", "http://"+d.web+"/api/stream/counter", nil)
		q := req.URL.Query()
		q.Set("since", garbage)
		req.URL.RawQuery = q.Encode()
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		var m message
		if json.Unmarshal(body, &m); res.StatusCode != 400 || m.Type != "error" || m.Code != "bad_token" {
			t.Errorf("token %.30q: got %s, %s; want 400 and bad_token", garbage, res.Status, body)
		}
	}
	d.stop()
}

// TestNetworkAway starts with nobody at the address of the stream. mzd says so
// everywhere, serves what it has, and goes on when the stream appears.
func TestNetworkAway(t *testing.T) {
	address := freePort(t)
	d := newDaemon(t, pipeline{stream: "http://" + address + "/v2/stream"})
	d.start()
	ctx := deadline(t, 2*time.Minute)
	<-d.log.contains(`"source":"wikipedia"`)
	if m := firstMessage(t, d, "counter", ""); m.Type != "base" || len(m.Inserted) != 1 || string(m.Inserted[0]) != "[0]" {
		t.Errorf("counter without a stream: got %+v, want a base of [0]", m)
	}
	var status struct {
		Sources []struct{ State, Reason, Error string }
	}
	if err := json.Unmarshal([]byte(get(t, "http://"+d.admin+"/api/status")), &status); err != nil {
		t.Fatal(err)
	}
	if s := status.Sources[0]; s.Reason != "network" || !strings.Contains(s.Error, "refused") {
		t.Errorf("status of the source: %+v, want network and connection refused", s)
	}
	if metrics := get(t, "http://"+d.admin+"/metrics"); !strings.Contains(metrics, "\nmzd_source_up{source=\"wikipedia\"} 0\n") {
		t.Error("no mzd_source_up 0 in the metrics")
	}
	if ready := get(t, "http://"+d.admin+"/readyz"); !strings.Contains(ready, "sources.wikipedia (wikimedia): ") {
		t.Errorf("readyz does not name the source as degraded: %s", ready)
	}
	serveAt(t, address, simulator.New(simulator.Options{Rate: 1000, Seed: *seed, Total: 200}))
	if _, err := d.record("counter").until(ctx, func(s string) bool { return s == "[200]" }); err != nil {
		t.Errorf("after the stream appeared: %v\n%s", err, d.log)
	}
	d.stop()
}

// TestDatabaseAway starts while the database is away that a constant and another
// view come from. The constant is no worse for it.
func TestDatabaseAway(t *testing.T) {
	e := &daemon{t: t, dir: t.TempDir(), sql: freePort(t)}
	e.write("init.sql", "CREATE TABLE t (n int); CREATE MATERIALIZED VIEW fixed AS SELECT 1 AS one; CREATE MATERIALIZED VIEW moving AS SELECT count(*) FROM t;")
	e.launch(io.Discard, "init is done", "mzd", "engine", "-listen", e.sql, "-data-dir", "engine", "-init", "init.sql")
	d := &daemon{t: t, dir: e.dir, web: freePort(t), admin: freePort(t)}
	d.write("pipeline.yaml", fmt.Sprintf(`
name: test
data_dir: data
materialize: {url: "postgres://u@%s/materialize"}
views: {fixed: {}, moving: {}}
sinks:
  web: {plugin: websocket, settings: {listen: %q}}
admin: {listen: %q}
log: {format: json}
`, e.sql, d.web, d.admin))
	d.start()
	for view, state := range map[string]string{"fixed": "sealed", "moving": "live"} {
		<-d.log.contains(fmt.Sprintf(`"view":%q,"state":%q`, view, state))
	}
	d.stop()
	e.kill()
	d.start()
	for _, view := range []string{"fixed", "moving"} {
		<-d.log.contains(fmt.Sprintf(`"view":%q,"reason":"unreachable"`, view))
	}
	var status struct {
		Views []struct {
			Name, State string
			Trouble     struct{ Reason string }
		}
	}
	if err := json.Unmarshal([]byte(get(t, "http://"+d.admin+"/api/status")), &status); err != nil {
		t.Fatal(err)
	}
	if v := status.Views[0]; v.Name != "fixed" || v.State != "sealed" || v.Trouble.Reason != "unreachable" {
		t.Errorf("status of the constant: %+v, want sealed, and what is wrong", v)
	}
	if ready := get(t, "http://"+d.admin+"/readyz"); !strings.Contains(ready, "views.moving: ") || strings.Contains(ready, "views.fixed") {
		t.Errorf("readyz names what is degraded: %s; want the view that moves", ready)
	}
	if metrics := get(t, "http://"+d.admin+"/metrics"); !strings.Contains(metrics, "\nmzd_view_state{state=\"sealed\",view=\"fixed\"} 1\n") {
		t.Error("the constant is not sealed in the metrics")
	}
	d.stop()
}

// TestDatabaseIsAnother puts another database in the place of one, with nothing in
// it: mzd makes its views there. In the same one it leaves it to whoever has dropped
// a view to make it again.
func TestDatabaseIsAnother(t *testing.T) {
	ctx := deadline(t, time.Minute)
	e := &daemon{t: t, dir: t.TempDir(), sql: freePort(t)}
	run := func(dir string) {
		e.launch(io.Discard, "engine is listening", "mzd", "engine", "-listen", e.sql, "-data-dir", dir)
	}
	run("engine")
	d := &daemon{t: t, dir: e.dir, web: freePort(t), admin: freePort(t)}
	d.write("init.sql", "CREATE TABLE IF NOT EXISTS t (n int); CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT count(*) FROM t;")
	d.write("pipeline.yaml", fmt.Sprintf(`
name: test
data_dir: data
materialize: {url: "postgres://u@%s/materialize", init: init.sql}
views: {v: {}}
sinks:
  web: {plugin: websocket, settings: {listen: %q}}
admin: {listen: %q}
log: {format: json}
`, e.sql, d.web, d.admin))
	d.start()
	is := func(want string) {
		t.Helper()
		m := newMirror("v")
		err := follow(ctx, "ndjson", d.web, m.views, "", "", func(data []byte) bool {
			if bytes.Contains(data, []byte("view_failed")) {
				return true // as it should say
			}
			if _, err := m.apply(data); err != nil {
				t.Fatal(err)
			}
			return m.text("v") != want
		})
		if err != nil {
			t.Fatalf("v is %s, want %s: %v\n%s", m.text("v"), want, err, d.log)
		}
	}
	is("[0]")
	execute(ctx, t, e.sql, "INSERT INTO t VALUES (1), (2)")
	is("[2]")

	execute(ctx, t, e.sql, "DROP VIEW v")
	<-d.log.contains(`"reason":"no_such_view"`)
	execute(ctx, t, e.sql, "CREATE MATERIALIZED VIEW v AS SELECT count(*) + 5 AS count FROM t") // which is not there yet
	is("[7]")

	e.kill()
	run("another")
	is("[0]")
	execute(ctx, t, e.sql, "INSERT INTO t VALUES (1)")
	is("[1]")
	d.stop()
}

// TestViewsOf2020 runs the SQL of 2020 over today's events, whose ids are too
// large for its casts. The views that compute ids fail by name, with the error
// that Materialize raises; nothing else does.
func TestViewsOf2020(t *testing.T) {
	text, err := os.ReadFile("../../sql/wikipedia2020.sql")
	if err != nil {
		t.Fatal(err)
	}
	init := strings.ReplaceAll(string(text), "/wikidata/recentchanges", "data/recentchanges")
	sim := simulator.New(simulator.Options{Rate: 1000, Seed: *seed, Total: 200})
	d := newDaemon(t, pipeline{
		stream: serve(t, sim), format: "sse",
		init:  init + "\nCREATE MATERIALIZED VIEW IF NOT EXISTS lines AS SELECT count(*) FROM wikirecent;\n",
		views: "{recentchanges: {}, counter: {}, lines: {}}",
	})
	d.start()
	ctx := deadline(t, time.Minute)
	if _, err := d.record("lines").until(ctx, func(s string) bool { return s == "[200]" }); err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}
	<-d.log.contains(`"view":"recentchanges","reason":"evaluation"`)
	var status struct {
		Views []struct {
			Name    string
			Trouble *struct{ Reason, Error string }
		}
	}
	if err := json.Unmarshal([]byte(get(t, "http://"+d.admin+"/api/status")), &status); err != nil {
		t.Fatal(err)
	}
	for _, v := range status.Views {
		got := fmt.Sprintf("%s: %+v", v.Name, v.Trouble)
		switch {
		case v.Name == "recentchanges" && (v.Trouble == nil || v.Trouble.Reason != "evaluation" || !strings.Contains(v.Trouble.Error, "integer out of range")):
			t.Errorf("%s, want an evaluation error: integer out of range", got)
		case v.Name == "lines" && v.Trouble != nil:
			t.Errorf("%s, want no trouble", got)
		}
	}
	d.stop()
}
