// Package config reads the one file that says what an mzd does.
//
// [Load] returns either a complete [Config], with defaults filled in and every
// reference to the environment resolved, or [Problems]: everything that is
// wrong with the file, each with its line and column. The structs here are the
// format: their tags and Validate methods are what is checked, and the
// reference in docs/configuration.md is generated from them.
//
// Plugins are known to this package by the schemas of their settings only.
package config

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/mzdio/mzd/schema"
)

// Embedded is the value of materialize.url that stands for the engine inside of
// mzd.
const Embedded = "embedded"

// Config is a checked configuration. Relative paths in it are relative to the
// working directory of the process.
type Config struct {
	Name        string            `json:"name" default:"mzd" doc:"Identifies this pipeline to receivers of its changes. Letters, digits, '.', '_' and '-'."`
	DataDir     string            `json:"data_dir" default:"./data" doc:"Directory of logs, positions and the embedded engine. Created if absent; one process at a time."`
	Materialize Materialize       `json:"materialize" doc:"Where views are maintained."`
	Engine      Engine            `json:"engine" doc:"The embedded engine."`
	PluginDir   string            `json:"plugin_dir" doc:"Directory of plugins that are binaries, called mzd-source-NAME and mzd-sink-NAME. None: they are named by their paths."`
	Sources     map[string]Source `json:"sources" doc:"What brings events in, by name. None: something else feeds the views."`
	Views       map[string]View   `json:"views" required:"true" doc:"The views to carry, by name. At least one."`
	MaxRows     int64             `json:"max_rows" default:"10000000" doc:"How many rows a view may have, equal ones counted one by one, as receivers get them. One that has more stands still, with an error that says so, until it has fewer. 0: any number."`
	Retain      schema.Duration   `json:"retain" default:"10m" doc:"How much exact history to keep per view. Readers that were away for longer begin again from the whole view, or catch up in one step."`
	RetainBytes schema.Bytes      `json:"retain_bytes" default:"256MiB" doc:"How much memory that history may take per view, about. What is beyond it is merged before its time, the oldest first."`
	Sinks       map[string]Sink   `json:"sinks" doc:"What carries changes out, by name."`
	Admin       Admin             `json:"admin" doc:"For operators."`
	Log         Log               `json:"log" doc:"The log of the process, on stderr."`
}

// Materialize says where views are maintained.
type Materialize struct {
	URL  string `json:"url" default:"embedded" doc:"'embedded' for the engine inside of mzd, or the postgres:// address of a Materialize, v0.5.2 or later. A password in it must be written as ${NAME}. Its parameters are sslmode, sslrootcert, sslcert, sslkey and connect_timeout, as in libpq, and settings of the session: ?cluster=NAME, ?search_path=NAME."`
	Init string `json:"init" doc:"File of SQL statements to run first. They run at every start, and when a view is not there because the database has become another one, so they must be safe to run again."`
}

// Engine is about the embedded engine.
type Engine struct {
	MaxMemory schema.Bytes `json:"max_memory" default:"2GiB" doc:"How much memory its views may take together, about. The view whose growth passes it is given up, with an error that says so, and all others go on."`
	Listen    string       `json:"listen" doc:"Address, as host:port, on which psql may reach the embedded engine. Empty: no port is opened."`
}

// Source is one source of events.
type Source struct {
	Plug
	To Target `json:"to" doc:"Where events land: in a file, a table or a webhook source. See [landing.md](landing.md)."`
}

// Target is where the events of a source land: in exactly one of File, Table and
// Webhook.
type Target struct {
	File     string            `json:"file" doc:"File to append events to, one a line; each event is there once."`
	MaxBytes schema.Bytes      `json:"max_bytes" doc:"Stop landing events in the file when it has this size; 0: no limit."`
	Table    string            `json:"table" doc:"Table of the database, as SQL names it, to add events to, each a row with the event in the column data; made if there is none. At least once: an event may be there again after mzd or the database was restarted."`
	Webhook  string            `json:"webhook" doc:"Address of a webhook source of Materialize to post events to, each a row there. At least once, as with a table."`
	Format   string            `json:"format" enum:"jsonb|text|json|json_array" doc:"Of a table, the type of its column data: jsonb (default) or text. Of a webhook, what its source has as BODY FORMAT: json (default) or json_array."`
	Secret   string            `json:"secret" secret:"true" doc:"Signs what is posted to a webhook: the header X-Signature is the base64 of HMAC-SHA256 over the body, for the source's CHECK."`
	Headers  map[string]string `json:"headers" doc:"More headers of what is posted to a webhook, by name. Write ${NAME} for the value of one that nobody may see."`
}

// View is a view to carry.
type View struct {
	Key   []string `json:"key" doc:"Columns that identify a row, for receivers that update rows in place."`
	Query string   `json:"query" doc:"The query to carry, if the name is not the name of a view of the database."`
}

// Sink is one receiver of changes.
type Sink struct {
	Plug
	AckTimeout schema.Duration `json:"ack_timeout" default:"5m" doc:"Of a binary: how long it may take for a change before it is killed and started again."`
	Views      []string        `json:"views" doc:"The views it gets. Absent: all."`
	Snapshot   bool            `json:"snapshot" default:"true" doc:"Begin with the whole view, and not with the first change. From then on a sink goes on where the one of its name stood."`
	Cut        string          `json:"cut" default:"separate" enum:"separate|together" doc:"Whether each view moves on its own, or all of them move as one."`
}

// Admin is the server for operators.
type Admin struct {
	Listen string `json:"listen" default:"127.0.0.1:9875" doc:"Address, as host:port, of /metrics, /healthz, /readyz and /api/status. Empty: none is opened."`
}

// Log is about the log of the process.
type Log struct {
	Level  string `json:"level" default:"info" enum:"debug|info|warn|error" doc:"The least important records to write."`
	Format string `json:"format" default:"auto" enum:"auto|text|json" doc:"How records look; auto: text on a terminal, JSON elsewhere."`
}

// Load reads the file. What is wrong with its content is [Problems].
//
// The Views of every sink are filled in, and the Settings of every source and
// sink are complete (but see [Plug.CheckLater]): checked by the plugin's schema,
// with its defaults, and with secrets in place, so they must not be shown.
func Load(path string, known Known) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	d := newDocument(path, data)
	cfg := d.config(known)
	d.checkFiles(cfg)
	return d.result(cfg)
}

// Parse is [Load] for a file that was read already; name is what problems call
// it. Of the files that the configuration names, it does not look for others
// than plugins.
func Parse(name string, data []byte, known Known) (*Config, error) {
	d := newDocument(name, data)
	return d.result(d.config(known))
}

// Schema returns the schema of the file, which says nothing about the settings
// of plugins.
func Schema() *schema.Schema { return schema.Of[Config]() }

// Validate implements [schema.Validator].
func (m Materialize) Validate() error {
	if m.URL == Embedded {
		return nil
	}
	u, err := url.Parse(m.URL)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || u.Host == "" {
		return schema.Errorf("url", "want %q or an address such as postgres://materialize@localhost:6875/materialize, "+
			"with special characters of a password as %%XX", Embedded)
	}
	return nil
}

// Validate implements [schema.Validator].
func (e Engine) Validate() error { return validateListen(e.Listen) }

// Validate implements [schema.Validator].
func (a Admin) Validate() error { return validateListen(a.Listen) }

func validateListen(addr string) error {
	if addr == "" {
		return nil
	}
	if err := CheckAddress(addr); err != nil {
		return schema.Errorf("listen", "%s", err)
	}
	return nil
}

// Validate implements [schema.Validator].
func (t Target) Validate() error {
	given := 0
	for _, target := range []string{t.File, t.Table, t.Webhook} {
		if target != "" {
			given++
		}
	}
	switch {
	case given == 0:
		return schema.Errorf("", "says nowhere; write to: {file: PATH}, {table: NAME} or {webhook: URL}")
	case given > 1:
		return schema.Errorf("", "says more than one of file, table and webhook")
	}
	var errs []error
	only := func(key schema.Path, set bool, what string) {
		if set {
			errs = append(errs, schema.Errorf(key, "is for a %s only; leave it out", what))
		}
	}
	only("max_bytes", t.MaxBytes != 0 && t.File == "", "file")
	only("secret", t.Secret != "" && t.Webhook == "", "webhook")
	only("headers", t.Headers != nil && t.Webhook == "", "webhook")
	switch {
	case t.File != "" && t.Format != "":
		errs = append(errs, schema.Errorf("format", "is for a table or a webhook; leave it out"))
	case t.Table != "" && !slices.Contains([]string{"", "jsonb", "text"}, t.Format):
		errs = append(errs, schema.Errorf("format", "of a table is jsonb or text"))
	case t.Webhook != "" && !slices.Contains([]string{"", "json", "json_array"}, t.Format):
		errs = append(errs, schema.Errorf("format", "of a webhook is json or json_array"))
	}
	if t.Table != "" && !tableName.MatchString(t.Table) {
		errs = append(errs, schema.Errorf("table", `is not a name of a table, such as recentchanges, public.recentchanges or "Recent Changes"`))
	}
	if t.Webhook != "" {
		errs = append(errs, t.checkWebhook())
	}
	return errors.Join(errs...)
}

// tableName matches what SQL reads as a name, of up to three parts.
var tableName = regexp.MustCompile(`^` + sqlName + `(\.` + sqlName + `){0,2}$`)

const sqlName = `([A-Za-z_][A-Za-z0-9_$]*|"([^"\x00]|"")+")`

func (t Target) checkWebhook() error {
	var errs []error
	u, err := url.Parse(t.Webhook)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		errs = append(errs, schema.Errorf("webhook", "not an address such as http://localhost:6876/api/webhook/materialize/public/recentchanges"))
	case u.User != nil:
		errs = append(errs, schema.Errorf("webhook", "holds a user or a password; send them as headers: {Authorization: ${NAME}}"))
	}
	for name, value := range t.Headers {
		at := schema.Path("headers").Key(name)
		switch {
		case !headerName.MatchString(name):
			errs = append(errs, schema.Errorf(at, "is not the name of a header"))
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			errs = append(errs, schema.Errorf(at, "has a line break or another control character"))
		}
	}
	return errors.Join(errs...)
}

// headerName matches a token of RFC 9110, section 5.6.2.
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// Validate implements [schema.Validator].
func (v View) Validate() error {
	var errs []error
	for i, column := range v.Key {
		at := schema.Path("key").Index(i)
		if column == "" {
			errs = append(errs, schema.Errorf(at, "is empty"))
		} else if slices.Index(v.Key, column) < i {
			errs = append(errs, schema.Errorf(at, "%q is listed twice", column))
		}
	}
	if v.Key != nil && len(v.Key) == 0 {
		errs = append(errs, schema.Errorf("key", "is empty; leave it out if rows have no key"))
	}
	if v.Query != "" && strings.TrimSpace(v.Query) == "" {
		errs = append(errs, schema.Errorf("query", "is empty"))
	}
	return errors.Join(errs...)
}

// Validate implements [schema.Validator].
func (s Sink) Validate() error {
	errs := []error{s.Plug.Validate()}
	if s.Views != nil && len(s.Views) == 0 {
		errs = append(errs, schema.Errorf("views", "is empty; leave it out to get all views"))
	}
	if s.AckTimeout == 0 {
		errs = append(errs, schema.Errorf("ack_timeout", "would leave no time at all; write a duration such as 1m"))
	}
	return errors.Join(errs...)
}
