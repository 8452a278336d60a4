package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/mzdio/mzd/config"
)

// validate is a program in Python that says of each document on a line of its
// input whether it follows the schema of the first line.
const validate = `
import json, sys
from jsonschema import Draft202012Validator
schema = json.loads(sys.stdin.readline())
Draft202012Validator.check_schema(schema)
v = Draft202012Validator(schema)
for line in sys.stdin:
    print("accepts" if v.is_valid(json.loads(line)) else "refuses")
`

// python returns a Python that has a validator of JSON Schema. It skips the test
// where there is none, and fails it in CI.
func python(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/bin/python3", "python3"} { // the first is the one that Debian's packages are for
		if exec.Command(path, "-c", "from jsonschema import Draft202012Validator").Run() == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no jsonschema for Python; CI installs it (Debian package python3-jsonschema)")
	}
	t.Skip("no jsonschema for Python (Debian package python3-jsonschema)")
	return ""
}

// TestEditorSchema lets a validator check all test data and the example by the
// schema that editors get. It must accept whatever mzd accepts; what it misses
// is in testdata/editor.golden.
func TestEditorSchema(t *testing.T) {
	setenv(t)
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	input := []string{compact(t, config.EditorSchema(known))}
	var names, verdicts []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if yaml.Unmarshal(data, &doc) != nil {
			continue
		}
		text, err := json.Marshal(doc)
		if err != nil {
			continue // it has keys that are no strings
		}
		verdict := "refuses"
		if _, err := config.Parse(file, data, known); err == nil {
			verdict = "accepts"
		}
		names, verdicts, input = append(names, filepath.Base(file)), append(verdicts, verdict), append(input, string(text))
	}
	cmd := exec.Command(python(t), "-c", validate)
	cmd.Stdin = strings.NewReader(strings.Join(input, "\n") + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(names) {
		t.Fatalf("got %d answers to %d documents", len(answers), len(names))
	}
	var got strings.Builder
	for i, name := range names {
		fmt.Fprintf(&got, "%s: mzd %s it, an editor %s it\n", name, verdicts[i], answers[i])
		if verdicts[i] == "accepts" && answers[i] == "refuses" {
			t.Errorf("%s is good, and refused by the schema for editors: %s", name, input[i+1])
		}
	}
	const golden = "testdata/editor.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%swant\n%s", &got, want)
	}
}

// TestEditorSchemaOfExample checks the example in the root of the repository by
// the schemas of the real plugins.
func TestEditorSchemaOfExample(t *testing.T) {
	data, err := os.ReadFile("../pipeline.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	good, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(good), `"listen"`, `"lisen"`, 1)
	cmd := exec.Command(python(t), "-c", validate)
	cmd.Stdin = strings.NewReader(compact(t, config.EditorSchema(builtin())) + "\n" + string(good) + "\n" + bad + "\n")
	if out, err := cmd.Output(); err != nil || string(out) != "accepts\nrefuses\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func compact(t *testing.T, text []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
