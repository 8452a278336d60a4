package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"slices"

	"github.com/mzdio/mzd/config"
)

// verbs lists everything that mzd does, in the order of its help.
func verbs() []verb {
	return slices.Concat([]verb{
		{
			name:  "run",
			short: "run a pipeline",
			long: `
Runs the pipeline that a configuration file describes until it is interrupted:
events in, views maintained, changes out. Ctrl-C or SIGTERM stops it in order, a
second one at once.

The file is read at the start. For a change of it to count, run mzd check, and
restart: clients and sinks go on where they were.

The log goes to stderr: text on a terminal, JSON elsewhere.`,
			examples: `
mzd run
mzd -config wikipedia.yaml`,
			setup: func(flags *flag.FlagSet) runFunc {
				file := configFlag(flags)
				return func(ctx context.Context, e env, _ []string) error {
					var binaries catalog
					cfg, err := loadConfig(*file, binaries.willing(ctx))
					if err != nil {
						return err
					}
					log := newLogger(e, cfg.Log)
					go tellHangups(ctx, e.hangups, log)
					return runDaemon(ctx, cfg, &binaries, log)
				}
			},
		},
		{
			name:  "demo",
			short: "see it work: a page with live charts, from nothing",
			long: `
Runs a whole pipeline on this machine, with nothing to install or to configure:
a local server with simulated edits of Wikipedia, the embedded engine with the
views of a scenario, and a page that shows them move. -live follows the real
Wikipedia instead.

The scenarios:
` + scenarioHelp(),
			examples: `
mzd demo
mzd demo -open
mzd demo -scenario joins
mzd demo -rate 2000 -seed 7
mzd demo -live -data-dir ./demo`,
			setup: func(flags *flag.FlagSet) runFunc {
				var o demoOptions
				flags.StringVar(&o.Scenario, "scenario", "edits", "show the scenario `NAME`")
				flags.Float64Var(&o.Rate, "rate", 30, "simulate `N` edits a second")
				flags.Uint64Var(&o.Seed, "seed", 1, "simulate the edits that follow from `N`")
				flags.IntVar(&o.Edits, "edits", 0, "end the simulation after `N` edits (default: never)")
				flags.StringVar(&o.Listen, "listen", "127.0.0.1:8875", "`ADDR` of the page and the streams")
				flags.StringVar(&o.Admin, "admin", "127.0.0.1:9875", "`ADDR` of metrics and status; empty: none")
				flags.StringVar(&o.Engine, "engine", "127.0.0.1:6875", "`ADDR` of the engine, for psql; empty: none")
				flags.StringVar(&o.DataDir, "data-dir", "", "`DIR` to keep data in (default: a temporary one)")
				flags.BoolVar(&o.Open, "open", false, "open the page in a browser")
				flags.BoolVar(&o.Live, "live", false, "follow the real Wikipedia")
				return func(ctx context.Context, e env, _ []string) error {
					if err := o.validate(); err != nil {
						return usage(fmt.Errorf("demo: %w", err))
					}
					log := newLogger(e, config.Log{})
					go tellHangups(ctx, e.hangups, log)
					return runDemo(ctx, o, e.stdout, log)
				}
			},
		},
		{
			name:  "check",
			short: "check a configuration file",
			long: `
Checks a configuration file, the settings of its plugins included, and says
everything that is wrong with it, each with line and column. It opens nothing
and changes nothing; plugins that are binaries are started to be asked what
settings they take. What is wrong with the SQL is known when it runs.`,
			examples: `
mzd check
mzd check -config wikipedia.yaml`,
			setup: func(flags *flag.FlagSet) runFunc {
				file := configFlag(flags)
				return func(ctx context.Context, e env, _ []string) error {
					var binaries catalog
					cfg, err := loadConfig(*file, binaries.known(ctx))
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(e.stdout, "%s is good: %s, %s, %s\n", *file,
						count(len(cfg.Sources), "source"), count(len(cfg.Views), "view"), count(len(cfg.Sinks), "sink"))
					return err
				}
			},
		},
		{
			name:  "engine",
			short: "run the embedded engine alone, as a server",
			long: `
Runs the engine that "materialize: {url: embedded}" uses as a server of its
own, which psql and every PostgreSQL driver can reach, mzd included. It asks
for no password, so think before it listens beyond this machine.`,
			examples: `
mzd engine -data-dir ./engine -init sql/wikipedia.sql
psql -h 127.0.0.1 -p 6875 materialize`,
			setup: func(flags *flag.FlagSet) runFunc {
				var o engineOptions
				flags.StringVar(&o.Listen, "listen", "127.0.0.1:6875", "`ADDR` to listen on")
				flags.StringVar(&o.DataDir, "data-dir", "", "`DIR` to keep data in; one process at a time (default: memory only)")
				flags.StringVar(&o.Init, "init", "", "`FILE` of SQL statements to run first")
				flags.StringVar(&o.Admin, "admin", "", "`ADDR` of metrics and status (default: nowhere)")
				return func(ctx context.Context, e env, _ []string) error {
					if err := config.CheckAddress(o.Listen); err != nil {
						return usage(fmt.Errorf("engine: -listen: %w", err))
					}
					if err := config.CheckAddress(o.Admin); o.Admin != "" && err != nil {
						return usage(fmt.Errorf("engine: -admin: %w", err))
					}
					log := newLogger(e, config.Log{})
					go tellHangups(ctx, e.hangups, log)
					return runEngine(ctx, o, log)
				}
			},
		},
	}, []verb{initVerb(), tailVerb()}, logVerbs(), pluginVerbs(), []verb{schemaVerb()}, []verb{
		{
			name:     "version",
			short:    "say which mzd this is",
			long:     "Says which version of mzd this is, and what it was built from.",
			examples: "mzd version",
			setup: func(*flag.FlagSet) runFunc {
				return func(_ context.Context, e env, _ []string) error {
					_, err := fmt.Fprintln(e.stdout, version())
					return err
				}
			},
		},
		{
			name:     "help",
			short:    "explain mzd or one of its verbs",
			long:     "Explains mzd as a whole or one of its verbs.",
			operands: "[VERB]",
			examples: `
mzd help
mzd help demo
mzd help log ls`,
			setup: func(*flag.FlagSet) runFunc {
				return func(_ context.Context, e env, operands []string) error {
					if len(operands) == 0 {
						writeOverview(e.stdout)
						return nil
					}
					v, _, err := findVerb(operands)
					if err == nil {
						v.writeHelp(e.stdout)
					}
					return err
				}
			},
		},
	})
}

// demoOptions are the flags of "mzd demo".
type demoOptions struct {
	Scenario string  // one of scenarios
	Rate     float64 // simulated edits a second
	Seed     uint64  // what they follow from
	Edits    int     // how many there are; 0: no end
	Listen   string  // address of the page
	Admin    string  // address of the admin server; empty: none
	Engine   string  // address of the engine for psql; empty: none
	DataDir  string  // empty: a temporary one, removed at exit
	Open     bool    // open a browser
	Live     bool    // the real stream instead of simulated edits
}

func (o demoOptions) validate() error {
	_, err := scenarioOf(o.Scenario)
	errs := []error{err}
	if !(o.Rate > 0 && o.Rate <= 100_000) {
		errs = append(errs, fmt.Errorf("-rate %v is not between 0 and 100000", o.Rate))
	}
	if o.Edits < 0 {
		errs = append(errs, fmt.Errorf("-edits %d is negative", o.Edits))
	}
	for _, a := range []struct {
		flag, addr string
		optional   bool
	}{{"-listen", o.Listen, false}, {"-admin", o.Admin, true}, {"-engine", o.Engine, true}} {
		if a.addr == "" && a.optional {
			continue
		}
		if err := config.CheckAddress(a.addr); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.flag, err))
		}
	}
	return errors.Join(errs...)
}

// engineOptions are the flags of "mzd engine".
type engineOptions struct {
	Listen  string // address of the server
	DataDir string // empty: everything is in memory
	Init    string // file of statements to run first; empty: none
	Admin   string // address of the server for operators; empty: none
}

func configFlag(flags *flag.FlagSet) *string {
	return flags.String("config", "pipeline.yaml", "the configuration `FILE`")
}

// loadConfig reads the configuration that a command line names.
func loadConfig(path string, known config.Known) (*config.Config, error) {
	cfg, err := config.Load(path, known)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage(fmt.Errorf("%w\nName the configuration with -config FILE, or try mzd demo, which needs none", err))
	}
	if err != nil {
		return nil, usage(err)
	}
	return cfg, nil
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
