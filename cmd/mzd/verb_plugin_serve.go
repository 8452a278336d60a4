package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sources"
	"github.com/mzdio/mzd/schema"
)

func pluginServeVerb() verb {
	return verb{
		name:  "plugin serve",
		short: "be a builtin in a process of its own",
		long: `
Serves a builtin as a binary that mzd runs like any other plugin. What takes much
memory or may fail is then apart from everything else:

  sinks:
    web: {plugin: /usr/local/bin/mzd, args: [plugin, serve, sink, websocket]}`,
		operands: "sink|source NAME",
		examples: `
mzd plugin describe /usr/local/bin/mzd plugin serve sink websocket`,
		setup: func(*flag.FlagSet) runFunc {
			return func(_ context.Context, _ env, operands []string) error { return servePlugin(operands) }
		},
	}
}

// servePlugin serves a builtin until mzd, whose child it is, ends it.
func servePlugin(operands []string) error {
	if len(operands) != 2 || operands[0] != "sink" && operands[0] != "source" {
		return usage(errors.New("plugin serve: say which builtin, as in: mzd plugin serve sink websocket"))
	}
	kind, name := operands[0], operands[1]
	if kind == "sink" {
		if s, ok := find(builtinSinks(), func(s plugins.Sink) bool { return s.Name == name }); ok {
			s.Serve()
			return nil
		}
	} else if s, ok := find(sources.Builtin(), func(s plugins.Source) bool { return s.Name == name }); ok {
		s.Serve()
		return nil
	}
	var names []string
	for _, p := range builtins() {
		if p.Kind == kind {
			names = append(names, p.Name)
		}
	}
	return usage(fmt.Errorf("plugin serve: there is no %s %q that is built in; %s", kind, name, schema.Suggest(name, names)))
}
