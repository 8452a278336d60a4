package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/core/mz"
)

// passwordVariable holds the password that a configuration must not.
const passwordVariable = "MZD_PASSWORD"

func initVerb() verb {
	return verb{
		name:  "init",
		short: "write a configuration for a database that is there",
		long: `
Looks at the views of a Materialize, or of an mzd engine, and writes a
configuration that follows them: a page at http://127.0.0.1:8875 shows each.
Views that are kept up to date anyway are followed; the others, and what they
are made of, are listed as comments with their columns.

A password in the address is not written down: the configuration takes it from
the environment variable ` + passwordVariable + `.`,
		examples: `
mzd init -url postgres://materialize@localhost:6875/materialize
mzd init -url "postgres://me:secret@HOST:6875/materialize?sslmode=require" -o -`,
		setup: func(flags *flag.FlagSet) runFunc {
			var o initOptions
			flags.StringVar(&o.URL, "url", "", "`ADDRESS` of the database: postgres://USER@HOST:PORT/DATABASE")
			flags.StringVar(&o.File, "o", "pipeline.yaml", "`FILE` to write, - for the standard output")
			flags.BoolVar(&o.Force, "force", false, "replace the file if there is one")
			return func(ctx context.Context, e env, _ []string) error { return runInit(ctx, o, e) }
		},
	}
}

// initOptions are the flags of "mzd init".
type initOptions struct {
	URL   string
	File  string
	Force bool
}

// initPatience is how long init waits for the database.
const initPatience = 30 * time.Second

func runInit(ctx context.Context, o initOptions, e env) error {
	if o.URL == "" {
		return usage(errors.New("init: -url is missing: the address of the database, such as postgres://materialize@localhost:6875/materialize"))
	}
	client, err := mz.New(mz.Config{URL: o.URL})
	if o.URL == config.Embedded {
		err = errors.New("url embedded: the embedded engine has no views yet; mzd demo shows it, and pipeline.yaml of the project uses it")
	}
	if err != nil {
		return usage(fmt.Errorf("init: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, initPatience)
	defer cancel()
	objects, err := client.Objects(ctx)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	text, followed := initConfig(o.URL, objects)
	if o.File == "-" {
		_, err := fmt.Fprint(e.stdout, text)
		return err
	}
	if err := writeNew(o.File, text, o.Force); err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s follows %s of the %s that it lists.\n", o.File, count(followed, "view"), count(len(objects), "object"))
	if _, secret := withoutPassword(o.URL); secret {
		fmt.Fprintf(e.stdout, "It takes the password from the environment: export %s=...\n", passwordVariable)
	}
	fmt.Fprintf(e.stdout, "Run it with\n\n    mzd -config %s\n\nand open http://127.0.0.1:8875\n", o.File)
	return nil
}

// writeNew writes a file, in the place of another one only if it may.
func writeNew(path, text string, replace bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if replace {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usage(fmt.Errorf("init: %s is there already; -force replaces it, -o names another file", path))
	}
	if err != nil {
		return environment(fmt.Errorf("init: %w", err))
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// initConfig writes a configuration that follows objects, and returns how many.
// Without materialized views it follows the plain ones.
func initConfig(address string, objects []mz.Object) (text string, followed int) {
	kind := "view"
	for _, o := range objects {
		if o.Kind == "materialized view" {
			kind = o.Kind
		}
	}
	var views, others strings.Builder
	taken := make(map[string]bool)
	for _, o := range objects {
		taken[o.Name] = true
	}
	for _, o := range objects {
		var columns []string
		for _, c := range o.Columns {
			columns = append(columns, strings.TrimSpace(c.Name+" "+c.Type))
		}
		described := strings.Join(columns, ", ")
		if o.Kind == kind {
			followed++
			fmt.Fprintf(&views, "  # %s\n  %s\n", oneLine(described), viewEntry(o.Name, taken))
		} else {
			fmt.Fprintf(&others, "  # %s (%s): %s\n", oneLine(o.Name), o.Kind, oneLine(described))
		}
	}
	if followed == 0 {
		views.WriteString("  # The database has no views to follow. A query can be followed as well:\n  greeting: {query: \"SELECT 'hello' AS greeting\"}\n")
	}
	if others.Len() > 0 {
		views.WriteString("  # There are also, to be followed like these, or by a query:\n" + others.String())
	}
	address, _ = withoutPassword(address)
	return fmt.Sprintf(initText, yamlString(address), views.String()), followed
}

const initText = `# Views of a database, live, in a browser. Run it with
#
#     mzd -config FILE
#
# mzd check -config FILE says what is wrong with it after a change; every key is
# explained in docs/configuration.md.

name: mzd                            # identifies this pipeline to receivers of its changes
data_dir: ./data                     # logs and positions

materialize:
  url: %s

# With "key: [COLUMN, ...]" a view's clients know which change replaces which row.
views:
%s
retain: 10m                          # exact history kept per view

sinks:
  web:
    plugin: websocket                # http://127.0.0.1:8875, and a stream at /api/stream/VIEW
    settings: {listen: "127.0.0.1:8875"}
  # out: {plugin: stdout}            # every change, on the terminal

admin: {listen: "127.0.0.1:9875"}    # /metrics /healthz /readyz /api/status
`

// withoutPassword puts the reference to a variable into the place of a password,
// and reports whether there was one.
func withoutPassword(address string) (string, bool) {
	const reference = "${" + passwordVariable + "}"
	u, err := url.Parse(address)
	if err != nil {
		return address, false // which the client has refused
	}
	found := false
	if _, ok := u.User.Password(); ok {
		u.User, found = url.UserPassword(u.User.Username(), passwordVariable), true
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", passwordVariable)
		u.RawQuery, found = q.Encode(), true
	}
	if !found {
		return address, false
	}
	text := strings.Replace(u.String(), ":"+passwordVariable+"@", ":"+reference+"@", 1)
	return strings.Replace(text, "password="+passwordVariable, "password="+reference, 1), true
}

var (
	usable   = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	unusable = regexp.MustCompile(`[^a-z0-9]+`)
)

// viewEntry writes the entry of a view. One whose name cannot stand in a
// configuration gets another, that is not taken, and a query.
func viewEntry(name string, taken map[string]bool) string {
	if usable.MatchString(name) {
		switch name {
		case "null", "true", "false", "yes", "no", "on", "off", "y", "n": // words of YAML
			return yamlString(name) + ": {}"
		}
		return name + ": {}"
	}
	plain := "view_" + strings.Trim(unusable.ReplaceAllString(strings.ToLower(name), "_"), "_")
	free := plain
	for i := 2; taken[free]; i++ {
		free = fmt.Sprintf("%s_%d", plain, i)
	}
	taken[free] = true
	return fmt.Sprintf("%s: {query: %s}", free, yamlString("SELECT * FROM "+name))
}

// yamlString writes text as a string in quotes.
func yamlString(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(text) + `"`
}

// oneLine keeps a comment from ending early.
func oneLine(text string) string { return strings.NewReplacer("\n", " ", "\r", " ").Replace(text) }
