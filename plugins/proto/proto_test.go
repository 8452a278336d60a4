// Package proto_test holds the protocol of plugins against what it was.
package proto_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

var update = flag.Bool("update", false, "replace the committed descriptors, if nothing that is in them breaks")

// committed are the descriptors that plugins out there were built with.
const committed = "mzd.v1.binpb"

// buf runs buf here, and returns what it says and whether it succeeded.
func buf(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("buf")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("buf is not installed; .ci/run installs it")
		}
		t.Skip("buf is not installed; it is npm's @bufbuild/buf")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

func TestLint(t *testing.T) {
	if out, err := buf(t, "lint"); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// TestNothingBreaks compares the protocol with the committed descriptors. What is
// added to it is added to them with -update. They are removed by hand, and only
// for a change that no plugin can have noticed.
func TestNothingBreaks(t *testing.T) {
	if out, err := buf(t, "breaking", "--against", committed); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if *update {
		if out, err := buf(t, "build", "--as-file-descriptor-set", "--exclude-source-info", "-o", committed); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
}

// TestBreakingIsFound breaks the protocol on purpose.
func TestBreakingIsFound(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "mzd", "v1", "sink.proto")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const kept, broken = "uint64 acknowledged = 1;", "uint64 acknowledged = 2;"
	changed := strings.Replace(string(text), kept, broken, 1)
	if changed == string(text) {
		t.Fatalf("%s has no %q", file, kept)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := buf(t, "breaking", dir, "--against", committed); err == nil {
		t.Errorf("buf found nothing:\n%s", out)
	}
}

// TestGeneratedCode finds code that was generated from other files than these.
func TestGeneratedCode(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image.binpb")
	if out, err := buf(t, "build", "--as-file-descriptor-set", "--exclude-source-info", "-o", image); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]*descriptorpb.FileDescriptorProto)
	for _, f := range set.GetFile() {
		want[f.GetName()] = f
	}
	for _, f := range []protoreflect.FileDescriptor{mzdv1.File_mzd_v1_plugin_proto, mzdv1.File_mzd_v1_sink_proto, mzdv1.File_mzd_v1_source_proto} {
		if !proto.Equal(protodesc.ToFileDescriptorProto(f), want[f.Path()]) {
			t.Errorf("%s has changed since its code was generated: make generate", f.Path())
		}
	}
}
