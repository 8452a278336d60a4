package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/mzdio/mzd"

// allowed says what each package of the module may import of the others, and of
// third parties. Arrows point one way: cmd/mzd to everything, everything to
// core, which needs nothing. A package that is not listed is not allowed, so
// that adding one is a decision.
var allowed = map[string]struct{ inside, outside []string }{
	"core":                     {},
	"core/backoff":             {},
	"core/durable":             {},
	"core/durable/durabletest": {inside: []string{"core/durable"}},
	"core/modeltest":           {},
	"core/refusal":             {},
	"core/viewlog":             {inside: []string{"core", "core/backoff", "core/durable"}},
	"core/hub":                 {inside: []string{"core", "core/backoff", "core/durable", "core/viewlog"}},
	"core/ingest":              {inside: []string{"core", "core/backoff", "core/durable", "core/refusal"}, outside: []string{pgxPath}},
	"core/mz":                  {inside: []string{"core", "core/backoff"}, outside: []string{pgxPath}},
	"core/pgtest":              {},
	"schema":                   {},
	"config":                   {inside: []string{"schema"}, outside: []string{"gopkg.in/yaml.v3"}},
	"sql":                      {},
	"engine":                   {inside: []string{"core", "core/durable", "core/viewlog", "engine/flow", "engine/plan", "engine/sql"}, outside: engineLibraries},
	"engine/flow":              {inside: []string{"core"}, outside: engineLibraries},
	"engine/plan":              {inside: []string{"core", "engine/flow", "engine/sql"}, outside: engineLibraries},
	"engine/sql":               {outside: engineLibraries},
	"engine/pgwire":            {inside: []string{"core", "engine", "engine/flow", "engine/plan", "engine/sql"}, outside: append([]string{pgxPath + "/pgproto3"}, engineLibraries...)},

	"plugins":                             {inside: []string{"core", "core/viewlog", "plugins/internal/*", "plugins/proto/mzd/v1", "schema"}, outside: append([]string{"github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog"}, grpcLibraries...)},
	"plugins/internal/proc":               {inside: []string{"schema"}},
	"plugins/proto/mzd/v1":                {outside: grpcLibraries},
	"plugins/message":                     {inside: []string{"core"}},
	"plugins/plugintest":                  {inside: []string{"core", "core/viewlog", "plugins", "schema"}},
	"plugins/scaffold":                    {},
	"plugins/sinks":                       {inside: []string{"plugins", "plugins/sinks/*"}},
	"plugins/sinks/exec":                  {inside: append([]string{"plugins/internal/proc"}, pluginImports...)},
	"plugins/sinks/stdout":                {inside: pluginImports},
	"plugins/sinks/webhook":               {inside: pluginImports},
	"plugins/sinks/websocket":             {inside: pluginImports, outside: []string{fastjsonPath}},
	"plugins/sinks/websocket/conformance": {inside: []string{"core"}, outside: []string{"github.com/coder/websocket"}}, // for tests
	"plugins/sinks/websocket/fanout":      {inside: []string{"core", "core/viewlog", "plugins/sinks/websocket"}},       // a program that measures
	"plugins/sources":                     {inside: []string{"plugins", "plugins/sources/*"}},
	"plugins/sources/exec":                {inside: append([]string{"plugins/internal/proc"}, pluginImports...)},
	"plugins/sources/wikimedia":           {inside: pluginImports, outside: []string{fastjsonPath}},
	"plugins/sources/wikimedia/simulator": {inside: pluginImports},

	"cmd/mzd": {inside: []string{"*"}, outside: []string{prometheusPath}},
}

const (
	pgxPath        = "github.com/jackc/pgx/v5"
	fastjsonPath   = "github.com/valyala/fastjson"
	prometheusPath = "github.com/prometheus/client_golang"
)

var (
	// What a source or a sink may use: never the hub, the logs or each other.
	pluginImports   = []string{"core", "core/backoff", "core/refusal", "plugins", "plugins/message", "schema"}
	grpcLibraries   = []string{"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/rpc"}
	engineLibraries = []string{"github.com/cockroachdb/apd/v3", "github.com/tidwall/btree", fastjsonPath}
)

// TestImports holds every file that is not a test against the table.
func TestImports(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	err = filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := e.Name(); e.IsDir() && name != root && (strings.HasPrefix(base, ".") || base == "testdata" || hasFile(name, "go.mod")) {
			return filepath.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		file := filepath.ToSlash(rel)
		seen[path.Dir(file)] = true
		for _, problem := range forbiddenImports(t, name, file) {
			t.Error(problem)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range allowed {
		if !seen[pkg] {
			t.Errorf("the table lists %s, which does not exist", pkg)
		}
	}
}

// forbiddenImports returns what is wrong with the imports of a file.
func forbiddenImports(t *testing.T, name, file string) []string {
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	pkg := path.Dir(file)
	rule, listed := allowed[pkg]
	if !listed {
		return []string{fmt.Sprintf("%s: package %s is not in the table of cmd/mzd/import_test.go", file, pkg)}
	}
	outside := rule.outside
	if path.Base(file) == "metrics.go" {
		outside = append([]string{prometheusPath}, outside...)
	}
	var problems []string
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(imported, "/")
		inside, isOurs := strings.CutPrefix(imported, module+"/")
		switch {
		case isOurs && !slices.ContainsFunc(rule.inside, func(pattern string) bool { return matches(pattern, inside) }):
			problems = append(problems, fmt.Sprintf("%s imports %s; of this module, %s may import: %s", file, inside, pkg, list(rule.inside)))
		case isOurs, !strings.Contains(first, "."): // of the module and allowed, or of the standard library
		case !slices.ContainsFunc(outside, func(p string) bool { return imported == p || strings.HasPrefix(imported, p+"/") }):
			problems = append(problems, fmt.Sprintf("%s imports %s; of third parties, this file may import: %s", file, imported, list(outside)))
		}
	}
	return problems
}

// matches reports whether a pattern of the table, in which a star at the end
// stands for anything, covers a package.
func matches(pattern, pkg string) bool {
	prefix, star := strings.CutSuffix(pattern, "*")
	return pattern == pkg || star && strings.HasPrefix(pkg, prefix)
}

func hasFile(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}
