package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/plugins/sinks"
	"github.com/mzdio/mzd/plugins/sources"
	"github.com/mzdio/mzd/schema"
)

func builtin() config.Known {
	k := config.Known{Sources: map[string]*schema.Schema{}, Sinks: map[string]*schema.Schema{}}
	for _, s := range sources.Builtin() {
		k.Sources[s.Name] = s.Settings
	}
	for _, s := range sinks.Builtin() {
		k.Sinks[s.Name] = s.Settings
	}
	return k
}

// TestExample reads the example in the root of the repository, as somebody does
// who runs mzd there.
func TestExample(t *testing.T) {
	t.Chdir("..")
	cfg, err := config.Load("pipeline.yaml", builtin())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.Sources["wikipedia"].To.File, "./data/recentchanges"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := len(cfg.Views), 2; got != want {
		t.Errorf("got %d views, want %d", got, want)
	}
}

const intro = `# Configuration

*Generated from the structs of package config and of the plugins by ` + "`go test ./config -update`" + `.*

mzd reads one YAML file: ` + "`mzd -config pipeline.yaml`" + `. [pipeline.yaml](../pipeline.yaml) is an example.
` + "`mzd check`" + ` says everything that is wrong with a file, each with line and column; what is wrong
with the SQL is known when it runs, and is in ` + "`/readyz`" + ` and the log.

The file is read at the start. After a change, check it and restart mzd: clients and sinks go on where they were. SIGHUP
changes nothing, and says so in the log.

- An unknown key, a key that is there twice, or a value of the wrong kind is an error, never a guess.
- ` + "`${NAME}`" + ` in a string stands for the environment variable NAME, which must be set; ` + "`$${`" + ` stands for
  ` + "`${`" + ` itself. Such values are never shown in an error.
- Secrets stand outside of the file: as ` + "`${NAME}`" + `, or, for a setting that is a secret, as ` + "`file:PATH`" + `.
- A duration is written ` + "`500ms`, `10m`, `1h30m`" + `; a size ` + "`64KB`, `20GB`" + ` (powers of 1000) or ` + "`64KiB`, `20GiB`" + ` (powers
  of 1024).
- Relative paths start in the working directory of the process, not in that of the file.
- A file is at most 1 MiB and one document. Anchors and aliases work; merging with ` + "`<<`" + ` does not.
- NAME stands for a name of your choice: letters, digits, ` + "`.`, `_` and `-`" + `.

## The file

`

// TestReference holds docs/configuration.md against the structs.
func TestReference(t *testing.T) {
	var b strings.Builder
	b.WriteString(intro)
	b.WriteString(config.Schema().Markdown())
	b.WriteString("\n## Sources\n")
	for _, s := range sources.Builtin() {
		plugin(&b, s.Name, s.Doc, s.Settings)
	}
	b.WriteString("\n## Sinks\n")
	for _, s := range sinks.Builtin() {
		plugin(&b, s.Name, s.Doc, s.Settings)
	}
	got := b.String()

	const golden = "../docs/configuration.md"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the structs say; run go test ./config -update", golden)
	}
}

func plugin(b *strings.Builder, name, doc string, s *schema.Schema) {
	b.WriteString("\n### `" + name + "`\n\n" + doc + "\n\n" + s.Markdown())
}
