//go:build unix

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestPluginWalk does what docs/plugins.md says, step by step, as a reader does:
// saves the files, and types the commands into a shell. What the reader sees with
// his own eyes is what the commands fail without: they wait for rows that come.
func TestPluginWalk(t *testing.T) {
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	doc := readFile(t, filepath.Join(checkout, "docs/plugins.md"))
	if main := readFile(t, filepath.Join(checkout, "examples/go-sink/main.go")); !strings.Contains(doc, "```go\n"+main+"```") {
		t.Error("the sink of docs/plugins.md is not examples/go-sink/main.go")
	}
	needCommands(t, "bash", "pkill", "shuf")
	python := pythonWithGRPC(t)
	dir := t.TempDir()
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, title := range []string{"A sink in Go", "The same in Python"} {
		if title == "The same in Python" && python == "" {
			continue
		}
		script.WriteString(steps(t, doc, title))
		script.WriteString("wait\n") // a reader is slower than that
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "MZD="+checkout, "PATH="+python+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, logsIn(dir))
	}
	for _, want := range []string{"mzd-sink-changes", "sides +1 [", "plugin was started again"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in what the reader sees:\n%s", want, out)
		}
	}
}

var (
	// savedFile is a file that the reader is told to save.
	savedFile  = regexp.MustCompile("(?s)as\\s`([a-z.]+)`:\\n\\n```[a-z]+\\n(.*?)```\\n")
	codeBlocks = regexp.MustCompile("(?s)```[a-z]+\\n.*?```\\n")
)

// steps makes a script of a section.
func steps(t *testing.T, doc, title string) string {
	t.Helper()
	_, section, found := strings.Cut(doc, "\n## "+title+"\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatalf("no section %q", title)
	}
	// Files become commands in their place, each line of them indented as one.
	section = savedFile.ReplaceAllStringFunc(section, func(text string) string {
		m := savedFile.FindStringSubmatch(text)
		name, content := m[1], m[2]
		if name == "pipeline.yaml" {
			content += "admin: {listen: \"127.0.0.1:0\"}\n" // several tests run at once
		}
		return "\n    cat > " + name + " <<'END OF FILE'\n    " + strings.ReplaceAll(strings.TrimSuffix(content, "\n"), "\n", "\n    ") + "\n    END OF FILE\n"
	})
	section = codeBlocks.ReplaceAllString(section, "")
	var script strings.Builder
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			script.WriteString(command)
		}
	}
	return script.String()
}

// needCommands skips a test where a command is missing.
func needCommands(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			skipUnlessCI(t, err)
		}
	}
}

func skipUnlessCI(t *testing.T, why error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// pythonWithGRPC returns what to put in front of PATH so that python3 is one with
// gRPC; empty: there is none.
func pythonWithGRPC(t *testing.T) string {
	t.Helper()
	var err error
	for _, path := range []string{":", "/usr/bin:"} {
		cmd := exec.CommandContext(t.Context(), "/usr/bin/env", "python3", "-c", "import grpc, google.protobuf")
		cmd.Env = append(os.Environ(), "PATH="+path+os.Getenv("PATH"))
		if err = cmd.Run(); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("python3 with grpc and protobuf: ", err)
	}
	t.Log("without Python: ", err)
	return ""
}

// logsIn returns the logs of mzd in a directory and those in it.
func logsIn(dir string) string {
	var all strings.Builder
	logs, _ := filepath.Glob(filepath.Join(dir, "*", "mzd.log"))
	more, _ := filepath.Glob(filepath.Join(dir, "*", "*", "mzd.log"))
	for _, name := range append(logs, more...) {
		data, _ := os.ReadFile(name)
		fmt.Fprintf(&all, "%s:\n%s\n", name, data)
	}
	return all.String()
}
