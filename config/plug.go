package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mzdio/mzd/schema"
)

// Plug says which plugin a source or a sink is, and how it is set up.
type Plug struct {
	Plugin   string            `json:"plugin" required:"true" doc:"Which plugin it is: the name of a builtin, see below; NAME for a binary in plugin_dir that is called mzd-source-NAME or mzd-sink-NAME; or the path of a binary, with a slash in it. See [plugins.md](plugins.md)."`
	Settings json.RawMessage   `json:"settings" doc:"Settings of the plugin; for those of a binary see mzd plugin describe."`
	SHA256   string            `json:"sha256" doc:"Of a binary: its SHA-256, as sha256sum prints it. Another one is not started."`
	Args     []string          `json:"args" doc:"Of a binary: arguments to start it with."`
	Env      map[string]string `json:"env" doc:"Of a binary: its environment, beside PATH and HOME. Write ${NAME} to hand on a variable of mzd's."`
	TLS      string            `json:"tls" default:"auto" enum:"auto|off" doc:"Of a binary: whether mzd and it prove to each other who they are. off is for those that cannot; then only the permissions of a directory keep others out."`

	// Binary is how to start the plugin; nil: it is a builtin.
	Binary *Binary `json:"-"`
	// CheckLater is set where [Known] has no schema as yet. It returns the
	// Settings, or [Problems], once there is one. It may be called concurrently.
	CheckLater func(*schema.Schema) (json.RawMessage, error) `json:"-"`
}

// Known is what a configuration may refer to.
type Known struct {
	// Sources and Sinks are the schemas of the settings of builtins, by name.
	Sources, Sinks map[string]*schema.Schema

	// Describe asks a binary for the schema of its settings. It is called
	// concurrently, once for each that differs. nil without an error leaves the
	// settings for [Plug.CheckLater]. A nil Describe does so for all. An error is
	// one of the plugin's name, unless it is a [schema.FieldError] of another key.
	Describe func(Binary) (*schema.Schema, error)
}

// Validate implements [schema.Validator].
func (p Plug) Validate() error {
	var errs []error
	if p.SHA256 != "" && !sha256Hex.MatchString(p.SHA256) {
		errs = append(errs, schema.Errorf("sha256", "want the 64 digits that sha256sum prints for the binary"))
	}
	for i, arg := range p.Args {
		if strings.Contains(arg, "\x00") {
			errs = append(errs, schema.Errorf(schema.Path("args").Index(i), "holds a zero byte"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		at := schema.Path("env").Key(name)
		if !envName.MatchString(name) {
			errs = append(errs, schema.FieldError{Path: at, Message: "is not a name of an environment variable", Key: true})
		} else if strings.Contains(p.Env[name], "\x00") {
			errs = append(errs, schema.Errorf(at, "holds a zero byte"))
		}
	}
	return errors.Join(errs...)
}

var (
	sha256Hex = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`)
	envName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// binaryKeys are those that builtins do not have.
var binaryKeys = []string{"sha256", "args", "env", "tls", "ack_timeout"}

// A plugging is a source or a sink on its way to its plugin.
type plugging struct {
	Plug
	kind    string // "source" or "sink"
	name    string // the user's own
	section any    // what the file says
	builtin map[string]*schema.Schema

	schema *schema.Schema // nil: there is none as yet
	err    error          // of the binary
}

// path is where it is in the file.
func (p *plugging) path() schema.Path { return schema.Path(p.kind + "s").Key(p.name) }

// plug finds the plugin of every source and sink, and completes its settings.
func (d *document) plug(cfg *Config, known Known, tree any) {
	var all []*plugging
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		all = append(all, &plugging{
			Plug: cfg.Sources[name].Plug, kind: "source", name: name, section: lookup(tree, "sources", name), builtin: known.Sources,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Sinks)) {
		all = append(all, &plugging{
			Plug: cfg.Sinks[name].Plug, kind: "sink", name: name, section: lookup(tree, "sinks", name), builtin: known.Sinks,
		})
	}
	all = slices.DeleteFunc(all, func(p *plugging) bool { return !d.find(p, cfg.PluginDir) })
	describe(all, known.Describe)
	for _, p := range all {
		d.complete(p)
		switch p.kind {
		case "source":
			s := cfg.Sources[p.name]
			s.Plug = p.Plug
			cfg.Sources[p.name] = s
		case "sink":
			s := cfg.Sinks[p.name]
			s.Plug = p.Plug
			if s.Binary != nil {
				s.Binary.AckTimeout = time.Duration(s.AckTimeout)
			}
			cfg.Sinks[p.name] = s
		}
	}
}

// find finds out what a plugin is. What it does not find it reports.
func (d *document) find(p *plugging, dir string) bool {
	if p.Plugin == "" {
		return false // absent or not a string, and reported as that
	}
	if s, ok := p.builtin[p.Plugin]; ok {
		p.schema = s
		for _, key := range binaryKeys {
			if lookup(p.section, key) != nil {
				d.report(p.path(), schema.FieldError{
					Path: schema.Path(key), Message: fmt.Sprintf("is for a plugin that is a binary; %s is built in, leave it out", p.Plugin), Key: true,
				})
			}
		}
		return true
	}
	path := p.Plugin
	if !isPath(path) {
		if path = d.search(p, dir); path == "" {
			return false
		}
	}
	if err := checkRunnable(path); err != nil {
		d.report(p.path(), schema.Errorf("plugin", "%s", err))
		return false
	}
	if d.reported(p.path().Key("sha256")) {
		return false // nobody knows which binary is meant
	}
	p.Binary = &Binary{Kind: p.kind, Path: path, SHA256: p.SHA256, Args: p.Args, Env: p.Env, TLS: p.TLS}
	return true
}

// search looks for a plugin in the directory of plugins and returns its path,
// empty if it is not there.
func (d *document) search(p *plugging, dir string) string {
	found, err := FindBinaries(dir)
	if err != nil {
		if !d.reported("plugin_dir") {
			d.report("plugin_dir", schema.Errorf("", "%s (a relative path starts in the working directory)", err))
		}
		return ""
	}
	names := slices.Collect(maps.Keys(p.builtin))
	for _, f := range found {
		if f.Kind != p.kind {
			continue
		}
		if f.Name == p.Plugin {
			return f.Path
		}
		names = append(names, f.Name)
	}
	hint := schema.Suggest(p.Plugin, names)
	if !strings.HasSuffix(hint, "?") {
		hint += fmt.Sprintf("; a binary is named by its path, or is mzd-%s-NAME in plugin_dir", p.kind)
	}
	if here := inDir("", p.Plugin); checkRunnable(here) == nil {
		hint = fmt.Sprintf("did you mean the file %q?", here)
	}
	d.report(p.path(), schema.Errorf("plugin", "there is no %s plugin %q; %s", p.kind, p.Plugin, hint))
	return ""
}

// maxDescribing is how many binaries are asked at one time.
const maxDescribing = 8

// describe asks every binary once, several at a time.
func describe(all []*plugging, ask func(Binary) (*schema.Schema, error)) {
	var asked sync.WaitGroup
	slots := make(chan struct{}, maxDescribing)
	var groups [][]*plugging // of those that are the same
	for _, p := range all {
		if p.Binary == nil || ask == nil {
			continue
		}
		i := slices.IndexFunc(groups, func(g []*plugging) bool { return g[0].Binary.Same(*p.Binary) })
		if i < 0 {
			groups = append(groups, []*plugging{p})
		} else {
			groups[i] = append(groups[i], p)
		}
	}
	for _, group := range groups {
		slots <- struct{}{}
		asked.Go(func() {
			defer func() { <-slots }()
			s, err := ask(*group[0].Binary)
			for _, p := range group {
				p.schema, p.err = s, err
			}
		})
	}
	asked.Wait()
}

// complete checks the settings of a plugin.
func (d *document) complete(p *plugging) {
	settings := lookup(p.section, "settings")
	switch {
	case p.err != nil:
		problem, ok := errors.AsType[schema.FieldError](p.err)
		if !ok {
			problem = schema.Errorf("plugin", "%s", p.err)
		}
		d.report(p.path(), problem)
	case p.schema == nil:
		p.Settings, p.CheckLater = nil, d.later(p.path(), settings)
	default:
		p.Settings = d.settings(p.path(), p.schema, settings)
	}
}

// settings checks the settings of the source or sink at a path by its plugin's
// schema, and returns them complete.
func (d *document) settings(at schema.Path, s *schema.Schema, value any) json.RawMessage {
	if value == nil {
		value = map[string]any{}
	}
	at = at.Key("settings")
	checked, problems := s.Check(d.secrets(s, at, value))
	d.report(at, problems...)
	data, err := json.Marshal(checked)
	if err != nil {
		d.report(at, schema.Errorf("", "%s", err))
	}
	return data
}

// later returns what [Plug.CheckLater] is.
func (d *document) later(at schema.Path, value any) func(*schema.Schema) (json.RawMessage, error) {
	return func(s *schema.Schema) (json.RawMessage, error) {
		own := *d
		own.hidden, own.inClear = slices.Clone(d.hidden), true // without the lines themselves, as in a log
		data := own.settings(at, s, value)
		_, err := own.result(nil)
		return data, err
	}
}
