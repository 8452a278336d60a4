package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/mzdio/mzd/schema"
)

// pluginVerbs are the verbs about plugins.
func pluginVerbs() []verb {
	return []verb{
		{
			name:  "plugin",
			short: "see what plugins there are, and what they take",
			long: `
A plugin brings events in (a source) or carries changes out (a sink). Some are
built in; others are binaries of their own, in any language. docs/plugins.md
says how to write one.`,
			operands: "VERB",
			examples: `
mzd plugin describe webhook`,
			setup: leadTo("plugin"),
		},
		{
			name:  "plugin describe",
			short: "explain the settings of a plugin",
			long: `
Explains what a plugin does and what may stand under "settings:" in the
configuration.`,
			operands: "NAME",
			examples: `
mzd plugin describe webhook`,
			setup: func(*flag.FlagSet) runFunc {
				return func(_ context.Context, e env, operands []string) error {
					if len(operands) != 1 {
						return usage(errors.New("plugin describe: name one plugin\nTry: mzd help plugin describe"))
					}
					return describePlugin(e.stdout, operands[0])
				}
			},
		},
		pluginNewVerb(),
	}
}

// describePlugin writes what there is to know about all plugins of a name.
func describePlugin(w io.Writer, name string) error {
	var names []string
	found := 0
	for _, p := range builtins() {
		names = append(names, p.Name)
		if p.Name != name {
			continue
		}
		if found++; found > 1 {
			fmt.Fprintln(w)
		}
		if err := p.describe(w); err != nil {
			return err
		}
	}
	if found == 0 {
		return usage(fmt.Errorf("plugin describe: there is no plugin %q; %s", name, schema.Suggest(name, names)))
	}
	return nil
}

// describe writes what there is to know about the plugin.
func (p catalogued) describe(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s: a %s that is built in\n\n%s\nSettings:\n%s", p.Name, p.Kind, schema.Wrap(p.Doc, ""), cmp.Or(p.Settings.Help(), "  none\n"))
	return err
}
