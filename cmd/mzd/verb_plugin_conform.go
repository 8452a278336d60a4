package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/plugintest"
	"github.com/mzdio/mzd/plugins/sources"
)

func pluginTestVerb() verb {
	return verb{
		name:  "plugin test",
		short: "hold a plugin against the contract",
		long: `
Holds a sink or a source against each rule of the contract that mzd has with it,
and says of each whether it is kept, broken or could not be checked. It ends with
1 if one is broken. The plugin is a builtin, a binary that is found, or the path
of a binary, in any language, with arguments if it needs any.

Some rules need to know more. Each of these is a command for sh:

  -observe   prints the rows of the view in $MZD_VIEW as a reader of the target
             sees them: a line of JSON each, an array of the values, or an object
             by columns; $MZD_COLUMNS has the columns. A row with three copies is
             three lines. A view that is not there has no rows.
  -outage    makes the target fail while $MZD_OUTAGE is "begin", and repairs it
             when it is "end"
  -gone      makes the target refuse for good while $MZD_GONE is "begin", and
             takes that back when it is "end"
  -produce   makes $MZD_EVENTS more events happen, for a source

The views of the test are called plugintest_RULE_..., and stay in the target.`,
		operands: "NAME|PATH [ARG...]",
		examples: `
mzd plugin test -settings '{"file": "t.db"}' -observe './rows t.db "$MZD_VIEW"' ./mzd-sink-sqlite
mzd plugin test -settings test.json -produce 'seq $MZD_EVENTS >> in.log' ./mzd-source-lines
mzd plugin test -run 'resume|cursor' -v ./mzd-source-lines
mzd plugin test -list`,
		setup: func(flags *flag.FlagSet) runFunc {
			where := shelfFlags(flags)
			o := pluginTest{exempt: make(map[string]string)}
			flags.StringVar(&o.kind, "kind", "", "test the `KIND` of plugin, sink or source, if both have the name")
			flags.StringVar(&o.settings, "settings", "{}", "open the plugin with `JSON`, or with that of a file")
			flags.StringVar(&o.observe, "observe", "", "see what is in the target by a `COMMAND`")
			flags.StringVar(&o.outage, "outage", "", "make the target fail for a while by a `COMMAND`")
			flags.StringVar(&o.gone, "gone", "", "make the target fail for good by a `COMMAND`")
			flags.StringVar(&o.produce, "produce", "", "make events happen by a `COMMAND`")
			flags.StringVar(&o.cursor, "cursor", "", "begin to read a source from `CURSOR`")
			flags.IntVar(&o.events, "events", 0, "read `N` events of a source (default 30)")
			flags.Func("exempt", "do not check a rule, for a reason: `RULE=REASON`; may be given again", o.addExempt)
			flags.StringVar(&o.tls, "tls", "auto", "`MODE` of TLS: auto, or off for a binary that cannot use mzd's certificates, such as one in Python")
			flags.StringVar(&o.run, "run", "", "check only the rules that match `REGEXP`")
			flags.DurationVar(&o.patience, "patience", 10*time.Second, "wait `DURATION` for what ought to happen soon")
			flags.BoolVar(&o.list, "list", false, "list the rules and end")
			flags.BoolVar(&o.verbose, "v", false, "say of each rule what it asks for")
			flags.BoolVar(&o.json, "json", false, "print each result as a line of JSON")
			return func(ctx context.Context, e env, operands []string) error {
				if o.list {
					listRules(e.stdout)
					return nil
				}
				if len(operands) == 0 {
					return usage(errors.New("plugin test: name one plugin\nTry: mzd help plugin test"))
				}
				found, err := where.find(ctx, operands[0], operands[1:])
				if err != nil {
					return err
				}
				return o.test(ctx, e, found)
			}
		},
	}
}

// pluginTest is what the flags of "plugin test" say.
type pluginTest struct {
	kind, settings, cursor, run, tls string
	observe, outage, gone, produce   string // commands
	events                           int
	exempt                           map[string]string // reasons, by rule
	patience                         time.Duration
	list, verbose, json              bool
}

func (o pluginTest) addExempt(text string) error {
	rule, reason, ok := strings.Cut(text, "=")
	if !ok || reason == "" {
		return errors.New("say why, as in cut-twice='rows may repeat'")
	}
	o.exempt[rule] = reason
	return nil
}

// test tests the plugin of a name that is of the wanted kind.
func (o pluginTest) test(ctx context.Context, e env, found []catalogued) error {
	if o.kind != "" {
		found = slices.DeleteFunc(found, func(p catalogued) bool { return p.Kind != o.kind && p.Err == nil })
	}
	switch {
	case len(found) == 0:
		return usage(fmt.Errorf("plugin test: that is no %s", o.kind))
	case len(found) > 1:
		return usage(errors.New("plugin test: there is a sink and a source of that name; add -kind sink or -kind source"))
	case found[0].Err != nil:
		return found[0].Err
	}
	if o.tls != "auto" && o.tls != "off" {
		return usage(fmt.Errorf("plugin test: -tls: want auto or off, got %q", o.tls))
	}
	if b := found[0].Binary; b != nil {
		b.TLS = o.tls
	}
	match, err := regexp.Compile(o.run)
	if err != nil {
		return usage(fmt.Errorf("plugin test: -run: %w", err))
	}
	settings, err := o.readSettings()
	if err != nil {
		return usage(fmt.Errorf("plugin test: -settings: %w", err))
	}
	rules := plugintest.SinkRules()
	if found[0].Kind == "source" {
		rules = plugintest.SourceRules()
	}
	if err := o.checkExempt(rules); err != nil {
		return err
	}
	report := plugintest.Report{Out: e.stdout, JSON: o.json, Verbose: o.verbose}
	for result := range o.results(ctx, e, found[0], settings, match.MatchString) {
		report.Add(result)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !report.End() {
		return errors.New("the plugin breaks the contract")
	}
	return nil
}

// readSettings returns the settings, of the flag or of the file that it names.
func (o pluginTest) readSettings() (json.RawMessage, error) {
	text := []byte(o.settings)
	if !strings.HasPrefix(strings.TrimSpace(o.settings), "{") {
		var err error
		if text, err = os.ReadFile(o.settings); err != nil {
			return nil, err
		}
	}
	if !json.Valid(text) {
		return nil, errors.New("not JSON")
	}
	return text, nil
}

func (o pluginTest) checkExempt(rules []plugintest.Rule) error {
	for name := range o.exempt {
		if !slices.ContainsFunc(rules, func(r plugintest.Rule) bool { return r.Name == name }) {
			return usage(fmt.Errorf("plugin test: -exempt: there is no rule %q; mzd plugin test -list lists them", name))
		}
	}
	return nil
}

// results tests a plugin.
func (o pluginTest) results(ctx context.Context, e env, p catalogued, settings json.RawMessage, match func(string) bool) iter.Seq[plugintest.Result] {
	sh := shell{e.stderr}
	if p.Kind == "source" {
		s := plugintest.Source{
			Settings: settings, Cursor: o.cursor, Events: o.events, Exempt: o.exempt, Patience: o.patience, External: p.Binary != nil,
		}
		if p.Binary != nil {
			s.Plugin = command(*p.Binary).Source(p.Info)
		} else {
			s.Plugin, _ = find(sources.Builtin(), func(s plugins.Source) bool { return s.Name == p.Name })
		}
		if o.produce != "" {
			s.Produce = func(ctx context.Context, n int) error {
				_, err := sh.run(ctx, o.produce, "MZD_EVENTS="+strconv.Itoa(n))
				return err
			}
		}
		return plugintest.CheckSource(ctx, s, match)
	}
	s := plugintest.Sink{Settings: settings, Exempt: o.exempt, Patience: o.patience, External: p.Binary != nil}
	if p.Binary != nil {
		s.Plugin = command(*p.Binary).Sink(p.Info)
	} else {
		s.Plugin, _ = find(builtinSinks(), func(s plugins.Sink) bool { return s.Name == p.Name })
	}
	if o.observe != "" {
		s.Observe = sh.observer(o.observe)
	}
	if o.outage != "" {
		s.Outage = sh.trouble(o.outage, "MZD_OUTAGE")
	}
	if o.gone != "" {
		s.Gone = sh.trouble(o.gone, "MZD_GONE")
	}
	return plugintest.CheckSink(ctx, s, match)
}

func listRules(w io.Writer) {
	for _, kind := range []struct {
		name  string
		rules []plugintest.Rule
	}{{"sink", plugintest.SinkRules()}, {"source", plugintest.SourceRules()}} {
		for _, r := range kind.rules {
			fmt.Fprintf(w, "%-7s %-20s %s\n", kind.name, r.Name, r.Says)
		}
	}
}

// shell runs the commands that the author of a plugin gives.
type shell struct{ stderr io.Writer }

// run runs a command and returns what it prints.
func (s shell) run(ctx context.Context, text string, env ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, "sh", "-c", text)
	c.Env = append(os.Environ(), env...)
	c.Stderr = s.stderr
	c.WaitDelay = time.Second // for what it leaves behind
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return out, nil
}

func (s shell) observer(text string) plugintest.Observer {
	return func(ctx context.Context, v *core.View) ([]json.RawMessage, error) {
		columns, err := json.Marshal(v.Columns)
		if err != nil {
			return nil, err
		}
		out, err := s.run(ctx, text, "MZD_VIEW="+v.Name, "MZD_COLUMNS="+string(columns))
		if err != nil {
			return nil, err
		}
		var rows []json.RawMessage
		for line := range bytes.Lines(out) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				rows = append(rows, line)
			}
		}
		return rows, nil
	}
}

// trouble makes trouble by a command, which a variable tells to begin and to end.
func (s shell) trouble(text, variable string) func(context.Context) (func(), error) {
	return func(ctx context.Context) (func(), error) {
		if _, err := s.run(ctx, text, variable+"=begin"); err != nil {
			return nil, err
		}
		return func() {
			if _, err := s.run(context.WithoutCancel(ctx), text, variable+"=end"); err != nil {
				fmt.Fprintln(s.stderr, "mzd:", err)
			}
		}, nil
	}
}
