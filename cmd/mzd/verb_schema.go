package main

import (
	"context"
	"flag"

	"github.com/mzdio/mzd/config"
)

func schemaVerb() verb {
	return verb{
		name:  "schema",
		short: "print the JSON Schema of the configuration file, for editors",
		long: `
Prints a JSON Schema (draft 2020-12) of the configuration file with the settings
of all builtins. Editors complete and check with it: in VS Code install the
extension YAML of Red Hat, and begin the file with

  # yaml-language-server: $schema=./mzd.schema.json`,
		examples: `
mzd schema > mzd.schema.json`,
		setup: func(*flag.FlagSet) runFunc {
			return func(_ context.Context, e env, _ []string) error {
				_, err := e.stdout.Write(config.EditorSchema(known()))
				return err
			}
		},
	}
}
