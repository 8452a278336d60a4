//go:build unix

package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
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
	sink := readFile(t, filepath.Join(checkout, "examples/go-sink/main.go"))
	for _, name := range []string{"README.md", "docs/plugins.md"} {
		if !strings.Contains(readFile(t, filepath.Join(checkout, name)), "```go\n"+sink+"```") {
			t.Errorf("the sink of %s is not examples/go-sink/main.go", name)
		}
	}
	needCommands(t, "bash", "pkill", "shuf", "jq")
	python := pythonWithGRPC(t)
	dir := t.TempDir()
	var script strings.Builder
	script.WriteString("set -e; trap 'kill $(jobs -p) 2> /dev/null || :' EXIT\n")
	for _, title := range []string{"A sink in Go", "The same in Python"} {
		if title == "The same in Python" && python == "" {
			continue
		}
		script.WriteString(steps(t, doc, title))
		script.WriteString("wait\n") // a reader is slower than that
		if title == "The same in Python" {
			// One rule of the suite, by the command of the plugin's README and that of
			// the document.
			const base = `s/^    mzd plugin test/mzd plugin test -run "^base$"/p`
			script.WriteString("sed -n '" + base + "' README.md " + filepath.Join(checkout, "docs/plugins.md") + " | sh -ex\n")
		}
	}
	script.WriteString(withoutSDK(t, doc))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // for rows that do not come
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "MZD="+checkout, "PATH="+python+os.Getenv("PATH"))
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, logsIn(dir))
	}
	for _, want := range []string{"Appends every change to a file.", "sides +1 [", `"msg":"plugin was started again","sink":"changes","plugin":"./mzd-sink-changes","because":"./mzd-sink-changes ended: signal: killed"`, "these rows came through a shell: ["} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in what the reader sees:\n%s", want, out)
		}
	}
	if tested := strings.Count(string(out), "0 failed"); python != "" && tested != 2 {
		t.Errorf("the suite was run %d times:\n%s", tested, out)
	}
}

var (
	// savedFile is a file that the reader is told to save.
	savedFile  = regexp.MustCompile("(?s)as\\s`([a-z.]+)`:\\n\\n```[a-z]+\\n(.*?)```\\n")
	yamlBlocks = regexp.MustCompile("(?s)```yaml\n(.*?)```\n")
	codeBlocks = regexp.MustCompile("(?s)```[a-z]+\\n.*?```\\n")
)

// section returns a section of the document.
func section(t *testing.T, doc, title string) string {
	t.Helper()
	_, text, found := strings.Cut(doc, "\n## "+title+"\n")
	text, _, ended := strings.Cut(text, "\n## ")
	if !found || !ended {
		t.Fatalf("no section %q", title)
	}
	return text
}

// withoutSDK makes a script of the parts of configurations that commands are in: of
// the sink together with the dice of the walk, and of the others a check.
func withoutSDK(t *testing.T, doc string) string {
	t.Helper()
	dice := savedFile.FindAllStringSubmatch(section(t, doc, "A sink in Go"), -1)
	views, pipeline := dice[1], dice[2]
	upstream, _, _ := strings.Cut(pipeline[2], "sinks:")
	const admin = "admin: {listen: \"127.0.0.1:0\"}\n"
	save := func(name, text string) string {
		return fmt.Sprintf("cat > %s <<'END OF FILE'\n%sEND OF FILE\n", name, text)
	}

	sink := yamlBlocks.FindStringSubmatch(section(t, doc, "A sink without an SDK"))
	script := "mkdir ../shell; cd ../shell\n" + save("views.sql", views[2]) + save("pipeline.yaml", upstream+sink[1]+admin) + `
mzd -config pipeline.yaml 2> mzd.log &
until [ -s rows.jsonl ]; do sleep 0.1; done
echo these rows came through a shell: $(head -n 1 rows.jsonl)
kill %1
wait
`
	for i, source := range yamlBlocks.FindAllStringSubmatch(section(t, doc, "A source without an SDK"), -1) {
		name := fmt.Sprintf("source%d.yaml", i)
		script += save(name, source[1]+"views: {v: {}}\n") + "mzd check -config " + name + "\n"
	}
	return script
}

// steps makes a script of a section.
func steps(t *testing.T, doc, title string) string {
	t.Helper()
	section := section(t, doc, title)
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
