package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/mzdio/mzd/config"
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
mzd plugin list
mzd help plugin describe`,
			setup: leadTo("plugin"),
		},
		{
			name:  "plugin list",
			short: "list builtins and binaries",
			long: `
Lists the plugins that are built in, and the binaries that are found: in a
directory those called mzd-source-NAME and mzd-sink-NAME, and those that a
configuration names. They are started to be asked what they are; of one that
does not say it, the list has the reason.`,
			examples: `
mzd plugin list
mzd plugin list -dir ./plugins
mzd plugin list -config pipeline.yaml`,
			setup: func(flags *flag.FlagSet) runFunc {
				where := shelfFlags(flags)
				return func(ctx context.Context, e env, _ []string) error {
					all, err := where.all(ctx)
					if err != nil {
						return err
					}
					return listPlugins(e.stdout, all)
				}
			},
		},
		{
			name:  "plugin describe",
			short: "explain the settings of a plugin",
			long: `
Explains what a plugin does and what may stand under "settings:" in the
configuration. It is named as there: a builtin, a binary that is found, or the
path of a binary, with arguments if it needs any.`,
			operands: "NAME|PATH [ARG...]",
			examples: `
mzd plugin describe webhook
mzd plugin describe ./mzd-sink-mirror
mzd plugin describe -dir ./plugins mirror`,
			setup: func(flags *flag.FlagSet) runFunc {
				where := shelfFlags(flags)
				return func(ctx context.Context, e env, operands []string) error {
					if len(operands) == 0 {
						return usage(errors.New("plugin describe: name one plugin\nTry: mzd help plugin describe"))
					}
					plugins, err := where.find(ctx, operands[0], operands[1:])
					if err != nil {
						return err
					}
					return describePlugins(e.stdout, plugins)
				}
			},
		},
		pluginServeVerb(),
		pluginTestVerb(),
		pluginNewVerb(),
	}
}

// find returns the plugins that a name or a path stands for: there may be a
// source and a sink of one name.
func (s shelf) find(ctx context.Context, name string, args []string) ([]catalogued, error) {
	binaries, err := s.binaries()
	if err != nil {
		return nil, err
	}
	isPath := filepath.Base(name) != name
	all := append(builtins(), binaries...)
	found := slices.DeleteFunc(slices.Clone(all), func(p catalogued) bool { return p.Name != name })
	if len(found) == 0 && isPath {
		found = []catalogued{{Name: name, Binary: unlocked("", name, args...)}}
	} else if len(args) > 0 {
		return nil, usage(fmt.Errorf("plugin describe: %q is too much; arguments follow a path", args[0]))
	}
	if len(found) == 0 {
		var names []string
		for _, p := range all {
			names = append(names, p.Name)
		}
		return nil, usage(fmt.Errorf("plugin describe: there is no plugin %q; %s", name, schema.Suggest(name, slices.Compact(slices.Sorted(slices.Values(names))))))
	}
	for i := range found {
		if found[i].Binary != nil {
			found[i].ask(ctx)
		}
	}
	return found, nil
}

// listPlugins writes plugins as a table.
func listPlugins(w io.Writer, all []catalogued) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "NAME\tKIND\tVERSION\tPROTOCOL\tWHAT IT DOES")
	builtin := make(map[string]bool)
	for _, p := range all {
		version, protocol, doc := "builtin", "-", p.Info.Doc
		switch {
		case p.Binary == nil:
			builtin[p.Kind+p.Name] = true
		case p.Err != nil:
			version, doc = "-", "broken: "+p.Err.Error()
		default:
			version, protocol = cmp.Or(p.Info.Version, "-"), fmt.Sprint(p.Info.Protocol)
			if builtin[p.Kind+p.Name] {
				doc = "hidden by the builtin, name it by its path: " + p.Binary.Path
			}
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", p.Name, p.Kind, schema.Plain(version), protocol, schema.Plain(doc))
	}
	return out.Flush()
}

// describePlugins writes what there is to know about plugins. Its error is that
// of the first that has not said what it is.
func describePlugins(w io.Writer, all []catalogued) error {
	for i, p := range all {
		if p.Err != nil {
			return p.Err
		}
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := p.describe(w); err != nil {
			return err
		}
	}
	return nil
}

// describe writes what there is to know about the plugin.
func (p catalogued) describe(w io.Writer) error {
	origin := "that is built in"
	if p.Binary != nil {
		origin = fmt.Sprintf("in %s\nversion %s, protocol %d", p.Binary.Path, schema.Plain(cmp.Or(p.Info.Version, "unknown")), p.Info.Protocol)
	}
	settings := cmp.Or(p.Info.Settings.Help(), "  none\n")
	if p.Info.Settings.Kind == schema.Map {
		settings = "  it does not say which, and checks them itself\n"
	}
	doc := schema.Wrap(p.Info.Doc, "")
	if doc != "" {
		doc = "\n" + doc
	}
	_, err := fmt.Fprintf(w, "%s: a %s %s\n%s\nSettings:\n%s", schema.Plain(p.Info.Name), p.Kind, origin, doc, settings)
	return err
}

func schemaVerb() verb {
	return verb{
		name:  "schema",
		short: "print the JSON Schema of the configuration file, for editors",
		long: `
Prints a JSON Schema (draft 2020-12) of the configuration file, with the settings
of all builtins, and of the binaries that are found. Editors complete and check
with it: in VS Code install the extension YAML of Red Hat, and begin the file with

  # yaml-language-server: $schema=./mzd.schema.json`,
		examples: `
mzd schema > mzd.schema.json
mzd schema -config pipeline.yaml > mzd.schema.json`,
		setup: func(flags *flag.FlagSet) runFunc {
			where := shelfFlags(flags)
			return func(ctx context.Context, e env, _ []string) error {
				all, err := where.all(ctx)
				if err != nil {
					return err
				}
				for _, p := range all {
					if p.Err != nil {
						fmt.Fprintf(e.stderr, "mzd: left out: %s\n", schema.Plain(p.Err.Error()))
					}
				}
				_, err = e.stdout.Write(config.EditorSchema(knownOf(all)))
				return err
			}
		},
	}
}
