package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mzdio/mzd/plugins/scaffold"
	"github.com/mzdio/mzd/schema"
)

func pluginNewVerb() verb {
	return verb{
		name:  "plugin new",
		short: "write the beginning of a plugin",
		long: `
Writes a small plugin into a new directory: one that works, with a README that
says how to build, use and test it, for you to change. docs/plugins.md goes on
from there.`,
		operands: "sink|source NAME",
		examples: `
mzd plugin new sink files
mzd plugin new -lang python source numbers`,
		setup: func(flags *flag.FlagSet) runFunc {
			var o newOptions
			flags.StringVar(&o.Lang, "lang", "go", "`LANGUAGE`: "+strings.Join(scaffold.Langs, " or "))
			flags.StringVar(&o.Dir, "o", "", "`DIRECTORY` to write to; NAME if not said")
			flags.StringVar(&o.Source, "mzd", "", "`DIRECTORY` of mzd's source for a module in Go, instead of a release")
			return func(_ context.Context, e env, operands []string) error { return runNew(e, o, operands) }
		},
	}
}

// newOptions are the flags of "mzd plugin new".
type newOptions struct {
	scaffold.Options
	Dir string
}

func runNew(e env, o newOptions, operands []string) error {
	wrong := func(format string, args ...any) error {
		return usage(fmt.Errorf("plugin new: "+format+"\nTry: mzd help plugin new", args...))
	}
	if len(operands) != 2 {
		return wrong("say what and its name, as in: mzd plugin new sink files")
	}
	o.Kind, o.Name = operands[0], operands[1]
	if !slices.Contains(scaffold.Kinds, o.Kind) {
		return wrong("there is no %q; %s", o.Kind, schema.Suggest(o.Kind, scaffold.Kinds))
	}
	if !slices.Contains(scaffold.Langs, o.Lang) {
		return wrong("there is no -lang %q; %s", o.Lang, schema.Suggest(o.Lang, scaffold.Langs))
	}
	if err := scaffold.CheckName(o.Name); err != nil {
		return wrong("%w", err)
	}
	if o.Source != "" {
		source, err := filepath.Abs(o.Source)
		if err != nil {
			return environment(fmt.Errorf("plugin new: %w", err))
		}
		o.Source = source
	} else if v := version().Version; !strings.ContainsAny(v, "(-+") { // (devel), or of a commit
		o.Version = v
	} else if o.Lang == "go" {
		fmt.Fprintln(e.stderr, "plugin new: this mzd is no release, so that go mod tidy looks for the newest one and fails if it finds none; with -mzd DIRECTORY, that of mzd's source, it needs none")
	}
	if o.Dir == "" {
		o.Dir = o.Name
	}
	files, err := scaffold.Write(o.Dir, o.Options)
	if errors.Is(err, fs.ErrExist) {
		return usage(fmt.Errorf("plugin new: %w; choose another directory with -o", err))
	}
	if err != nil {
		return environment(fmt.Errorf("plugin new: %w", err))
	}
	for _, name := range files {
		fmt.Fprintln(e.stdout, filepath.Join(o.Dir, filepath.FromSlash(name)))
	}
	return nil
}
