package main_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
)

const dashboards = "../../dashboards"

var update = flag.Bool("update", false, "rewrite the golden files")

// prometheusTool returns the path of a program of Prometheus. It skips the test
// where there is none, and fails it in CI.
func prometheusTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		t.Fatalf("no %s; CI installs it", name)
	}
	t.Skipf("no %s on this machine", name)
	return ""
}

func promtool(t *testing.T, stdin io.Reader, args ...string) {
	t.Helper()
	cmd := exec.Command(prometheusTool(t, "promtool"), args...)
	cmd.Dir, cmd.Stdin = dashboards, stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestAlerts lets promtool play the cases in which each alert fires and
// resolves, and sees that no alert is without one.
func TestAlerts(t *testing.T) {
	promtool(t, nil, "check", "rules", "alerts.yml")
	promtool(t, nil, "check", "config", "--syntax-only", "prometheus.yml")
	promtool(t, nil, "test", "rules", "alerts_test.yml")

	cases, err := os.ReadFile(filepath.Join(dashboards, "alerts_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts(t) {
		fires := regexp.MustCompile(`alertname: ` + a.Alert + `\n\s+exp_alerts:\n`)
		resolves := `alertname: ` + a.Alert + `, exp_alerts: []`
		if !fires.Match(cases) || strings.Count(string(cases), resolves) < 2 {
			t.Errorf("alerts_test.yml shows %s not before, while and after it fires", a.Alert)
		}
	}
}

type alert struct{ Alert, Expr string }

func alerts(t *testing.T) []alert {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dashboards, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups[0].Rules
}

// panel is a panel of a Grafana dashboard.
type panel struct {
	Type, Title, Description string
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Datasource               struct{ UID string }
	Targets                  []struct{ Expr string }
}

// TestDashboard holds the dashboard against the conventions that make one work
// in any Grafana.
func TestDashboard(t *testing.T) {
	for _, p := range readDashboard(t) {
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %q lacks a title, a description, a unit, a query or the variable data source", p.Title)
		}
		for _, q := range p.Targets {
			for selector := range strings.SplitSeq(q.Expr, "mzd_") {
				if _, labels, found := strings.Cut(selector, "{"); found && !strings.HasPrefix(labels, `job=~"$job", instance=~"$instance"`) {
					t.Errorf("panel %q: a query without $job and $instance: %s", p.Title, q.Expr)
				}
			}
			if strings.Contains(q.Expr, "rate(") && !strings.Contains(q.Expr, "[$__rate_interval]") {
				t.Errorf("panel %q: a rate over another time than $__rate_interval: %s", p.Title, q.Expr)
			}
		}
	}
}

func readDashboard(t *testing.T) []panel {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dashboards, "mzd.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Panels []panel }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	return file.Panels
}

// TestPrometheus lets a Prometheus watch a pipeline to which everything happens
// that the dashboard and the alerts are about: each series that they name must
// be there, and move.
func TestPrometheus(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d, e := troubled(ctx, t)
	p := startPrometheus(ctx, t, d.admin, e.admin)

	queries := map[string]string{} // by where they stand
	for _, panel := range readDashboard(t) {
		for i, q := range panel.Targets {
			queries[fmt.Sprintf("panel %q, query %d", panel.Title, i)] = q.Expr
		}
	}
	for _, a := range alerts(t) {
		queries["alert "+a.Alert] = a.Expr
	}
	series := map[string]bool{}
	name := regexp.MustCompile(`\b(mzd|go|process)_\w+`)
	for _, q := range queries {
		for _, n := range name.FindAllString(q, -1) {
			series[n] = true
		}
	}
	if len(series) < 30 {
		t.Fatalf("only %d series: %v", len(series), series)
	}
	// What is constant as long as a process lives.
	constant := map[string]bool{"mzd_build_info": true, "process_start_time_seconds": true}
	waiting := slices.Sorted(maps.Keys(series))
	tick := time.Tick(time.Second)
	killed, restarted := false, false // the engine
	odd, err := os.OpenFile(filepath.Join(e.dir, "odd"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer odd.Close()
	for len(waiting) > 0 {
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("there are no such series, or they do not move: %v", waiting)
		}
		if _, err := odd.WriteString("\xff\n"); err != nil {
			t.Fatal(err)
		}
		switch {
		case !killed && p.count("mzd_view_state{state=\"live\"} == 1") == 3:
			killed = true
			e.kill()
		case killed && !restarted && p.count("mzd_upstream_connected == 0") == 3:
			restarted = true // without the history that it had, and one of its files
			e.write("short", "")
			e.launch(io.Discard, "init is done", "mzd", e.cmd.Args[1:]...)
		}
		waiting = slices.DeleteFunc(waiting, func(n string) bool {
			if constant[n] {
				return p.count(n) > 0
			}
			return p.count("changes("+n+"[10m]) > 0") > 0
		})
	}
	for where, q := range queries {
		q = strings.NewReplacer("$job", ".+", "$instance", ".+", "$view", ".+", "$sink", ".+", "$__rate_interval", "1m").Replace(q)
		if _, err := p.query(q); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	text := get(t, "http://"+d.admin+"/metrics")
	promtool(t, strings.NewReader(text), "check", "metrics")
	d.stop()
	e.stop()
	embedded := newDaemon(t, pipeline{}) // the engine of the other pipeline has them at another address
	embedded.start()
	<-embedded.log.contains(`"msg":"view is complete","view":"counter"`)
	alone := get(t, "http://"+embedded.admin+"/metrics")
	embedded.stop()
	golden(t, "../../docs/metrics.md", metricsDocument(t, text, alone))
}

// golden holds text against a file, or makes it the file.
func golden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s is not what it should be (go test ./cmd/mzd -update writes it): %s", path, firstDifference(string(want), text))
	}
}

// metricsDocument describes what processes expose: the last says it where several do.
func metricsDocument(t *testing.T, texts ...string) string {
	t.Helper()
	lines := map[string]string{}
	for _, text := range texts {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for name, f := range families {
			if !strings.HasPrefix(name, "mzd_") {
				continue
			}
			var labels []string
			for _, l := range f.Metric[0].Label {
				labels = append(labels, "`"+l.GetName()+"`")
			}
			lines[name] = fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
		}
	}
	b := metricsIntroduction
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		b += lines[name]
	}
	return b
}

const metricsIntroduction = `# Metrics

What ` + "`/metrics`" + ` of the admin address exposes, beside the collectors of the Go
runtime and of the process. Names have base units; labels are names from the
configuration, never a client or a row; series whose labels are known exist from
the start. Lags are computed when they are scraped, so that they grow while the
upstream is away. ` + "`mzd_engine_*`" + ` are those of an embedded engine; its views and memory
are in ` + "`mz_internal.mzd_views`" + `, see [engine.md](engine.md).

[dashboards/mzd.json](../dashboards/mzd.json) shows them in Grafana (import it, and
choose a data source), [dashboards/alerts.yml](../dashboards/alerts.yml) says when
somebody should look, and [dashboards/prometheus.yml](../dashboards/prometheus.yml)
how to scrape. All of it runs with docker-compose.yml. Generated by the test that
lets a real Prometheus watch a pipeline in trouble.

| name | type | labels | what it is |
|---|---|---|---|
`

// troubled starts a pipeline, and the engine that it follows, with a stream that
// breaks, a sink that refuses, a plugin that dies, and clients that come and go.
// The engine has also the files odd and short.
func troubled(ctx context.Context, t *testing.T) (d, e *daemon) {
	sim := simulator.New(simulator.Options{Rate: 200, Seed: *seed})
	stream := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		short, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		sim.ServeHTTP(w, r.WithContext(short))
	}))
	d = newDaemon(t, pipeline{stream: stream})
	d.write("pipeline.yaml", fmt.Sprintf(`
name: test
data_dir: data
materialize: {url: "postgres://mzd@%s/materialize?sslmode=disable"}
views: {counter: {}, top10: {key: [user]}, useredits: {key: [user]}}
retain: 2s
sources:
  wikipedia:
    plugin: wikimedia
    settings: {url: %q, since: "0"}
    to: {file: data/recentchanges}
sinks:
  web: {plugin: websocket, settings: {listen: %q}}
  unwilling: {plugin: recorder, settings: {file: writes, refuse: 3}}
  mortal: {plugin: dying}
admin: {listen: %q}
log: {format: json}
`, d.sql, stream, d.web, d.admin))
	e = &daemon{t: t, dir: d.dir, admin: freePort(t)}
	for _, name := range []string{"odd", "short"} {
		e.write(name, "a line\n")
		e.write("init.sql", readFile(t, filepath.Join(e.dir, "init.sql"))+
			fmt.Sprintf(";\nCREATE SOURCE %s FROM FILE '%[1]s' WITH (tail = true) FORMAT TEXT;", name))
	}
	e.launch(io.Discard, "init is done", "mzd", "engine", "-listen", d.sql, "-admin", e.admin, "-data-dir", "engine", "-init", "init.sql")
	d.launch(io.Discard, "mzd is running", "mzd-recording", "-config", "pipeline.yaml")

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i, transport := range transports {
		wg.Go(func() {
			for ctx.Err() == nil {
				messages := 0
				follow(ctx, transport, d.web, []string{"counter"}, "", []string{"&interval=300ms", "&mismatch=", ""}[i], func([]byte) bool {
					messages++
					return messages < 50
				})
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Second): // away for long enough to be missed by a scrape
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return d, e
}

// watcher is a running Prometheus.
type watcher struct {
	t   *testing.T
	url string
}

// startPrometheus starts a Prometheus that scrapes targets every second.
func startPrometheus(ctx context.Context, t *testing.T, targets ...string) *watcher {
	t.Helper()
	path := prometheusTool(t, "prometheus")
	dir, address := t.TempDir(), freePort(t)
	rules, err := filepath.Abs(filepath.Join(dashboards, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n  - {job_name: mzd, static_configs: [{targets: [%s]}]}\n", rules, strings.Join(targets, ", "))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	out := &logBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	select {
	case <-out.contains("Server is ready"):
	case <-ctx.Done():
		t.Fatalf("Prometheus does not start:\n%s", out)
	}
	return &watcher{t, "http://" + address}
}

// query returns how many series the answer to a query has.
func (w *watcher) query(q string) (int, error) {
	res, err := http.Get(w.url + "/api/v1/query?query=" + url.QueryEscape(q))
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Error != "" {
		return 0, fmt.Errorf("%s: %s", answer.Error, q)
	}
	return len(answer.Data.Result), nil
}

func (w *watcher) count(q string) int {
	w.t.Helper()
	n, err := w.query(q)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestComposePipeline holds the pipeline of docker-compose.yml against the parts
// of the project that it refers to, because nothing runs it here.
func TestComposePipeline(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(dashboards, "compose", "pipeline.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	here := filepath.Join(t.TempDir(), "pipeline.yaml")
	if err := os.WriteFile(here, []byte(strings.ReplaceAll(string(data), "/etc/mzd/", root+"/")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mzd", "check", "-config", here).CombinedOutput(); err != nil {
		t.Fatalf("mzd check: %v\n%s", err, out)
	}
	var p struct {
		Materialize struct{ Init string }
		Sources     map[string]struct{ To struct{ Table string } }
		Views       map[string]any
	}
	if err := yaml.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	sql, err := os.ReadFile(filepath.Join("../../sql", filepath.Base(p.Materialize.Init)))
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{"CREATE TABLE IF NOT EXISTS " + p.Sources["wikipedia"].To.Table + " ("}
	for view := range p.Views {
		wanted = append(wanted, "CREATE MATERIALIZED VIEW IF NOT EXISTS "+view+" AS")
	}
	for _, want := range wanted {
		if !strings.Contains(string(sql), want) {
			t.Errorf("%s has no %q", p.Materialize.Init, want)
		}
	}
}
