package scaffold_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/plugintest"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
	"github.com/mzdio/mzd/plugins/scaffold"
)

// write writes a plugin of a template and returns its directory.
func write(t *testing.T, o scaffold.Options) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), o.Name)
	if _, err := scaffold.Write(dir, o); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a command, which has to succeed.
func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// TestGo does what the README of a module says: it builds it, and runs its tests,
// which are the suite.
func TestGo(t *testing.T) {
	t.Parallel()
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range scaffold.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o := scaffold.Options{Kind: kind, Name: "my-plugin", Lang: "go", Source: source}
			dir := write(t, o)
			run(t, dir, "go", "mod", "tidy")
			run(t, dir, "go", "vet", "./...")
			run(t, dir, "go", "test", "./...")
			run(t, dir, "go", "build", "-o", o.Binary())
			formatted, err := exec.CommandContext(t.Context(), "gofmt", "-l", dir).CombinedOutput()
			if err != nil || len(formatted) > 0 {
				t.Errorf("gofmt -l: %v, %s", err, formatted)
			}
			cmd := plugins.Command{Path: filepath.Join(dir, o.Binary())}
			info, err := cmd.Describe(t.Context())
			if err != nil || info.Name != o.Name || string(info.Kind) != kind || info.Doc == "" {
				t.Errorf("it says that it is %+v, %v", info, err)
			}
			if kind == "sink" {
				into := t.TempDir()
				checkOldCopy(t, cmd.Sink(info), map[string]string{"dir": into}, filepath.Join(into, "v.jsonl"))
			}
		})
	}
}

// checkOldCopy puts an old copy of the file of a sink in its place while mzd runs, as
// from a backup. What mzd sends then does not fit it.
func checkOldCopy(t *testing.T, plugin plugins.Sink, settings map[string]string, file string) {
	t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := plugin.Open(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	view := &core.View{Name: "v", Columns: []core.Column{{Name: "n", Type: "int8"}}}
	token := func(at core.Time) core.Token {
		if at == 0 {
			return core.Token{}
		}
		return core.Token{Time: at, Generation: "g"}
	}
	write := func(lower, upper core.Time) error {
		row := core.Row(fmt.Sprintf("[%d]", upper))
		return sink.Write(t.Context(), []core.Batch{{
			View: view, Lower: token(lower), Upper: token(upper), Updates: core.UpdatesOf([]core.Update{{Time: upper - 1, Diff: 1, Row: row}}),
		}})
	}
	if err := write(0, 10); err != nil {
		t.Fatal(err)
	}
	old, err1 := os.ReadFile(file)
	err2 := write(10, 20)
	if err := errors.Join(err1, err2, os.WriteFile(file, old, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := write(20, 30); err == nil || !strings.Contains(err.Error(), "restart mzd") {
		t.Errorf("a delta from 20 to a file at 10: got %v", err)
	}
	if at, err := sink.(core.Positioner).Position(t.Context(), view); err != nil || at != token(10) {
		t.Errorf("its position: got %s, %v, want that of the copy", at, err)
	}
	if err := write(10, 30); err != nil {
		t.Errorf("from there: got %v", err)
	}
}

// errNoPython is why there is no Python with gRPC.
var errNoPython error

// TestMain makes the commands of the tests find a Python with gRPC first.
func TestMain(m *testing.M) {
	for _, path := range []string{os.Getenv("PATH"), "/usr/bin:" + os.Getenv("PATH")} {
		os.Setenv("PATH", path)
		if errNoPython = exec.Command("python3", "-c", "import grpc, google.protobuf").Run(); errNoPython == nil {
			break
		}
	}
	os.Exit(m.Run())
}

// needPython skips a test where there is none.
func needPython(t *testing.T) {
	t.Helper()
	switch {
	case errNoPython == nil:
	case os.Getenv("CI") == "true":
		t.Fatal("python3 with grpc and protobuf: ", errNoPython)
	default:
		t.Skip("python3 with grpc and protobuf: ", errNoPython)
	}
}

// inPython writes a plugin in Python, and asks it what it is.
func inPython(t *testing.T, kind string) (dir string, cmd plugins.Command, info plugins.Info) {
	t.Helper()
	o := scaffold.Options{Kind: kind, Name: "my-plugin", Lang: "python"}
	dir = write(t, o)
	cmd = plugins.Command{Path: filepath.Join(dir, o.Binary()), TLS: "off"}
	info, err := cmd.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if string(info.Kind) != kind || info.Name != o.Name || info.Doc == "" || info.Version == "" {
		t.Errorf("it says that it is %+v", info)
	}
	return dir, cmd, info
}

func TestPythonSink(t *testing.T) {
	needPython(t)
	t.Parallel()
	dir, cmd, info := inPython(t, "sink")
	file := filepath.Join(t.TempDir(), "views.db")
	settings, err := json.Marshal(map[string]string{"file": file})
	if err != nil {
		t.Fatal(err)
	}
	checkOldCopy(t, cmd.Sink(info), map[string]string{"file": file}, file)
	plugintest.TestSink(t, plugintest.Sink{
		Plugin: cmd.Sink(info), Settings: settings, External: true,
		// The script that the README gives to mzd plugin test.
		Observe: func(ctx context.Context, v *core.View) (rows []json.RawMessage, err error) {
			rowsOf := exec.CommandContext(ctx, "python3", filepath.Join(dir, "rows"), file)
			rowsOf.Env = append(os.Environ(), "MZD_VIEW="+v.Name)
			out, err := rowsOf.Output()
			for line := range strings.Lines(string(out)) {
				rows = append(rows, json.RawMessage(line))
			}
			return rows, err
		},
	})
}

func TestPythonSource(t *testing.T) {
	needPython(t)
	t.Parallel()
	_, cmd, info := inPython(t, "source")
	plugintest.TestSource(t, plugintest.Source{
		Plugin: cmd.Source(info), Settings: json.RawMessage(`{"interval": 0.001}`), External: true, Events: 10,
	})
}

var update = flag.Bool("update", false, "rewrite examples/python-sink")

// TestExample checks that the example in Python is what its template makes, and as
// short as it is said to be.
func TestExample(t *testing.T) {
	const example = "../../examples/python-sink"
	o := scaffold.Options{Kind: "sink", Name: "sqlite", Lang: "python"}
	if *update {
		if err := os.RemoveAll(example); err != nil {
			t.Fatal(err)
		}
		if _, err := scaffold.Write(example, o); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), o.Name)
	names, err := scaffold.Write(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(example, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the template makes (%v); run go test ./plugins/scaffold -update", name, err)
		}
		if lines := bytes.Count(want, []byte{'\n'}); name == o.Binary() && lines > 60 {
			t.Errorf("%s has %d lines", name, lines)
		}
	}
}

// TestStubs checks that the templates in Python speak the protocol as it is.
func TestStubs(t *testing.T) {
	needPython(t)
	for name, file := range map[string]protoreflect.FileDescriptor{
		"plugin": mzdv1.File_mzd_v1_plugin_proto, "sink": mzdv1.File_mzd_v1_sink_proto, "source": mzdv1.File_mzd_v1_source_proto,
	} {
		script := "import sys; from mzd.v1 import " + name + "_pb2 as m; sys.stdout.buffer.write(m.DESCRIPTOR.serialized_pb)"
		cmd := exec.CommandContext(t.Context(), "python3", "-B", "-c", script)
		cmd.Dir = "templates/python-stubs"
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var got descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		want := protodesc.ToFileDescriptorProto(file)
		for _, m := range want.GetMessageType() {
			for _, f := range m.GetField() {
				f.JsonName = nil // which Python makes up itself
			}
		}
		if !proto.Equal(&got, want) {
			t.Errorf("the stubs of %s.proto are not what it says now; run plugins/scaffold/stubs.sh", name)
		}
	}
}

// TestPythonByHand starts a plugin without mzd.
func TestPythonByHand(t *testing.T) {
	needPython(t)
	dir := write(t, scaffold.Options{Kind: "sink", Name: "x", Lang: "python"})
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "mzd-sink-x")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "mzd-sink-x is a plugin of mzd, which runs it itself: name it in pipeline.yaml") {
		t.Errorf("got %v, %s", err, out)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		o    scaffold.Options
		want string
	}{
		{scaffold.Options{Kind: "sink", Name: "Files", Lang: "go"}, `"Files" is no name for a plugin: small letters, digits and single dashes, such as postgres-mirror`},
		{scaffold.Options{Kind: "sink", Name: "../x", Lang: "go"}, `"../x" is no name for a plugin: small letters, digits and single dashes, such as postgres-mirror`},
		{scaffold.Options{Kind: "sink", Name: strings.Repeat("x", 51), Lang: "go"}, `"` + strings.Repeat("x", 51) + `" is no name for a plugin: small letters, digits and single dashes, such as postgres-mirror`},
		{scaffold.Options{Kind: "sink", Name: "x", Lang: "cobol"}, "there is no template of a sink in cobol"},
	} {
		if _, err := scaffold.Write(filepath.Join(dir, "new"), tt.o); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	o := scaffold.Options{Kind: "source", Name: "x", Lang: "go", Version: "v1.2.3"}
	names, err := scaffold.Write(dir, o)
	if want := []string{"README.md", "go.mod", "main.go", "main_test.go"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got %v, %v, want %v", names, err, want)
	}
	module, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	version := strings.SplitN(strings.TrimPrefix(runtime.Version(), "go"), ".", 3)
	if want := "module x\n\ngo " + version[0] + "." + version[1] + "\n\nrequire github.com/mzdio/mzd v1.2.3\n"; err != nil || string(module) != want {
		t.Errorf("got %v,\n%s\nwant\n%s", err, module, want)
	}
	if _, err := scaffold.Write(dir, o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over what was there: %v", err)
	}
}
