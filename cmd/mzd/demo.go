package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
	"github.com/mzdio/mzd/sql"
)

// scenario is a set of views that the demo can show.
type scenario struct {
	name    string
	about   string        // for the help
	sql     []string      // the files of package sql that make its views
	views   string        // in YAML, the view to try with curl last
	try     string        // that view
	history time.Duration // how much of the simulated past it begins with, to have something to show at once
}

var scenarios = []scenario{
	{
		name: "edits", about: "how many edits, and the ten busiest users",
		sql: []string{"wikipedia.sql"}, history: 10 * time.Second,
		views: `
  counter: {}
  useredits: {key: [user]}
  top10: {key: [user]}`,
		try: "top10",
	},
	{
		name: "joins", about: "edits joined with a table of wikis, by language and by minute, and the engine itself",
		sql: []string{"wikipedia.sql", "joins.sql"}, history: 5 * time.Minute,
		views: `
  languages: {key: [language]}
  minutes: {key: [minute]}
  mzd_views: {query: "SELECT name, rows, bytes, updates FROM mz_internal.mzd_views", key: [name]}`,
		try: "languages",
	},
}

// scenarioOf returns the scenario of a name.
func scenarioOf(name string) (scenario, error) {
	var names []string
	for _, s := range scenarios {
		if s.name == name {
			return s, nil
		}
		names = append(names, s.name)
	}
	return scenario{}, fmt.Errorf("-scenario: there is no %q; known: %s", name, strings.Join(names, ", "))
}

// scenarioHelp lists the scenarios, a line each.
func scenarioHelp() string {
	var lines []string
	for _, s := range scenarios {
		lines = append(lines, fmt.Sprintf("  %-8s %s", s.name, s.about))
	}
	return strings.Join(lines, "\n")
}

// runDemo runs the pipeline of the demo until ctx ends: simulated edits, unless
// they are to be real ones, the embedded engine, and the page.
func runDemo(ctx context.Context, o demoOptions, stdout io.Writer, log *slog.Logger) error {
	s, err := scenarioOf(o.Scenario)
	if err != nil {
		return err
	}
	dir, remove, err := demoDir(o.DataDir)
	if err != nil {
		return environment(err)
	}
	defer remove()

	p := demoPipeline{scenario: s, Dir: dir, Web: o.Listen, Admin: o.Admin, Engine: o.Engine}
	var stages []stage
	if !o.Live {
		start := time.Now().Add(-s.history)
		sim := simulator.New(simulator.Options{Rate: o.Rate, Seed: o.Seed, Start: start, Total: o.Edits})
		l, err := listen("127.0.0.1:0", "simulated stream")
		if err != nil {
			return err
		}
		p.URL, p.Since = fmt.Sprintf("http://%s/v2/stream", l.Addr()), start.UTC().Format(time.RFC3339Nano)
		p.Notice = fmt.Sprintf("These edits are simulated, %g a second. Start mzd demo with -live for Wikipedia's own.", o.Rate)
		stages = append(stages, stage{"simulated stream", func(ctx context.Context) error { return sim.Serve(ctx, l) }})
	}
	cfg, err := p.load()
	if err != nil {
		return err
	}
	var d *daemon
	d, err = newDaemon(websocket.WithActions(ctx, websocket.Actions{
		"restart-database": func(ctx context.Context) error { return d.database.restart(ctx) },
	}), cfg, &catalog{}, dir, log)
	if err != nil {
		return err
	}
	defer d.close()
	page := d.placeOf("web")
	p.greet(stdout, o, d, page) // the ports are open: who comes now is served when things run
	if o.Open {
		openBrowser(page, log)
	}
	// The daemon stops first: what it reads from is still there until then.
	return runStages(ctx, append([]stage{{"mzd", d.run}}, stages...)...)
}

// demoDir makes the directory that the demo works in. remove removes it, if
// nobody asked for it by name.
func demoDir(name string) (dir string, remove func(), err error) {
	if name != "" {
		dir, err = filepath.Abs(name)
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		return dir, func() {}, err
	}
	dir, err = os.MkdirTemp("", "mzd-demo-")
	return dir, func() { os.RemoveAll(dir) }, err
}

// demoPipeline is what a demo's pipeline.yaml is made of.
type demoPipeline struct {
	scenario
	Dir, Web, Admin, Engine string
	URL, Since, Notice      string // empty: the real stream
}

// The demo is an ordinary pipeline. Its file stays in the directory of the demo
// and can be run again with mzd -config.
var demoYAML = template.Must(template.New("").Funcs(template.FuncMap{"q": quote}).Parse(`# Written by mzd demo.
name: demo
data_dir: {{q .Data}}
materialize: {url: embedded, init: {{q .Init}}}
engine: {listen: {{q .Engine}}}
sources:
  wikipedia:
    plugin: wikimedia
    {{- if .URL}}
    settings: {url: {{q .URL}}, since: {{q .Since}}}
    {{- end}}
    to: {file: {{q .File}}}
views:
{{- .Views}}
sinks:
  web:
    plugin: websocket
    settings: {listen: {{q .Web}}, notice: {{q .Notice}}}
admin: {listen: {{q .Admin}}}
`))

// Data is where the daemon keeps its files.
func (p demoPipeline) Data() string { return filepath.Join(p.Dir, "data") }

// Init is the file of the views.
func (p demoPipeline) Init() string { return filepath.Join(p.Dir, p.name+".sql") }

// Views are the views that it carries.
func (p demoPipeline) Views() string { return p.views }

// File is where events land, as the views expect it.
func (p demoPipeline) File() string { return filepath.Join(p.Dir, "data", "recentchanges") }

// load writes the files of the pipeline and reads them as the daemon would.
func (p demoPipeline) load() (*config.Config, error) {
	var views []byte
	for _, name := range p.sql {
		text, err := sql.Files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		views = append(views, text...)
	}
	var yaml strings.Builder
	if err := demoYAML.Execute(&yaml, p); err != nil {
		return nil, err
	}
	path := filepath.Join(p.Dir, "pipeline.yaml")
	if err := errors.Join(os.WriteFile(p.Init(), views, 0o644), os.WriteFile(path, []byte(yaml.String()), 0o644)); err != nil {
		return nil, environment(err)
	}
	return config.Load(path, known())
}

// greet tells people where to look.
func (p demoPipeline) greet(w io.Writer, o demoOptions, d *daemon, page string) {
	what := fmt.Sprintf("simulated edits, %g a second (-live for Wikipedia's own)", o.Rate)
	if o.Live {
		what = "Wikipedia's edits, live"
	}
	fmt.Fprintf(w, "mzd demo: %s\n\n  page       %s\n  to break   %ssplit\n  stream     curl -N %sapi/stream/%s\n", what, page, page, page, p.try)
	if address := d.psql(); address != "" {
		host, port, _ := net.SplitHostPort(address)
		fmt.Fprintf(w, "  SQL        psql -h %s -p %s -U materialize materialize\n", host, port)
	}
	if d.admin != nil {
		fmt.Fprintf(w, "  operators  http://%s/\n", reachable(d.admin.Addr().String()))
	}
	kept := "removed at the end; -data-dir keeps it"
	if o.DataDir != "" {
		kept = "kept; another run goes on from there"
	}
	fmt.Fprintf(w, "  files      %s (%s)\n\nCtrl-C ends it.\n", p.Dir, kept)
}

// openBrowser opens the page as the system does. That it cannot is no failure
// of the demo.
func openBrowser(page string, log *slog.Logger) {
	command := []string{"xdg-open"}
	switch runtime.GOOS {
	case "darwin":
		command = []string{"open"}
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	cmd := exec.Command(command[0], append(command[1:], page)...)
	if err := cmd.Start(); err != nil {
		log.Warn("cannot open a browser; open the page yourself", "page", page, "error", err)
		return
	}
	go cmd.Wait() // only so that it leaves no zombie
}

// quote writes a string as YAML understands it: as JSON.
func quote(s string) (string, error) {
	b, err := json.Marshal(s)
	return string(b), err
}
