package plugintest_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mzdio/mzd/plugins/plugintest"
)

var update = flag.Bool("update", false, "rewrite the tables of rules in docs/plugins.md")

// TestDocs holds the tables of rules in docs/plugins.md against the rules.
func TestDocs(t *testing.T) {
	const file = "../../docs/plugins.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	for kind, rules := range map[string][]plugintest.Rule{"sink": plugintest.SinkRules(), "source": plugintest.SourceRules()} {
		begin := "<!-- " + kind + " rules -->\n"
		before, rest, ok := strings.Cut(doc, begin)
		_, after, ended := strings.Cut(rest, "<!-- end -->")
		if !ok || !ended {
			t.Fatalf("%s has no place for the rules of %ss", file, kind)
		}
		var table strings.Builder
		table.WriteString("| rule | what it asks for |\n|---|---|\n")
		for _, r := range rules {
			fmt.Fprintf(&table, "| `%s` | %s |\n", r.Name, r.Says)
		}
		doc = before + begin + table.String() + "<!-- end -->" + after
	}
	if *update {
		if err := os.WriteFile(file, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if doc != string(text) {
		t.Errorf("the tables of rules in %s are not those of the suite; run go test ./plugins/plugintest -run TestDocs -update", file)
	}
}

// TestRules holds the tables of rules against themselves.
func TestRules(t *testing.T) {
	for _, rules := range [][]plugintest.Rule{plugintest.SinkRules(), plugintest.SourceRules()} {
		seen := make(map[string]bool)
		for _, r := range rules {
			if seen[r.Name] || r.Name == "" || r.Says == "" || r.Why == "" {
				t.Errorf("rule %+v occurs twice or says too little", r)
			}
			seen[r.Name] = true
		}
	}
}
