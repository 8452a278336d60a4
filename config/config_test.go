package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mzdio/mzd/config"
	"github.com/mzdio/mzd/schema"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type feed struct {
	URL    string          `json:"url" required:"true"`
	Token  string          `json:"token" secret:"true"`
	Wait   schema.Duration `json:"wait" default:"1s"`
	Listen string          `json:"listen"`
}

type page struct {
	Listen string `json:"listen" default:"127.0.0.1:8875"`
}

type hook struct {
	Secret  string            `json:"secret" secret:"true"`
	Retries uint16            `json:"retries" default:"5"`
	Headers map[string]string `json:"headers"`
	Min     int               `json:"min"`
	Max     int               `json:"max"`
	Ratio   float64           `json:"ratio"`
	Tokens  []string          `json:"tokens" secret:"true"`
	Users   map[string]string `json:"users" secret:"true"`
}

func (h hook) Validate() error {
	var errs []error
	for name, value := range h.Headers {
		errs = append(errs, schema.Errorf(schema.Path("headers").Key(name), "%q is not good, like %q", value, h.Secret))
	}
	if h.Min > h.Max {
		errs = append(errs, schema.Errorf("min", "is above max"))
	}
	return errors.Join(errs...)
}

var known = config.Known{
	Sources: map[string]*schema.Schema{"feed": schema.Of[feed]()},
	Sinks:   map[string]*schema.Schema{"page": schema.Of[page](), "hook": schema.Of[hook]()},

	// What stands for binaries is in testdata/plugins.
	Describe: func(b config.Binary) (*schema.Schema, error) {
		switch {
		case filepath.Base(b.Path) == "broken":
			return nil, errors.New(b.Path + ": exit status 1")
		case b.SHA256 != "" && !strings.HasPrefix(b.SHA256, "0123456789abcdef"):
			return nil, fmt.Errorf("describe: %w", schema.Errorf("sha256", "%s is another file", b.Path))
		}
		return schema.Of[hook](), nil
	},
}

const password = "pass\"word/hunter2"

func setenv(t testing.TB) {
	t.Setenv("TEST_PASSWORD", password)
	t.Setenv("TEST_ESCAPED", "pass%22word")
	t.Setenv("TEST_STREAM", "recentchange")
	t.Setenv("TEST_NUMBER", "12")
	for _, name := range []string{"TEST_UNSET", "TEST_ALSO_UNSET"} {
		t.Setenv(name, "") // so that it is put back
		os.Unsetenv(name)
	}
}

// TestGoldens reads every testdata/*.yaml. What comes of it, the problems as
// users see them or the configuration as JSON, is in the .txt beside it.
func TestGoldens(t *testing.T) {
	setenv(t)
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := outcome(t, name+".yaml", data)
			for _, secret := range []string{password, "hunter2", "in-the-clear", "correct-horse", "correct%horse"} {
				if name != "complete" && name != "binaries" && strings.Contains(got, secret) {
					t.Errorf("shows the secret %s:\n%s", secret, got)
				}
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
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
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// outcome returns what comes of a file, beginning with how its binaries are to
// be started.
func outcome(t *testing.T, name string, data []byte) string {
	cfg, err := config.Parse(name, data, known)
	if err != nil {
		var problems config.Problems
		if !errors.As(err, &problems) || len(problems) == 0 || cfg != nil {
			t.Errorf("got %v, %v, want problems only", cfg, err)
		}
		return err.Error() + "\n"
	}
	var out bytes.Buffer
	binary := func(name string, p config.Plug) {
		if b := p.Binary; b != nil {
			fmt.Fprintf(&out, "%s %s is %s, arguments %q, environment %q, tls %s, sha256 %q, %s\n", b.Kind, name, b.Path, b.Args, b.Env, b.TLS, b.SHA256, b.AckTimeout)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		binary(name, cfg.Sources[name].Plug)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Sinks)) {
		binary(name, cfg.Sinks[name].Plug)
	}
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(cfg); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sql := write("init.sql", "SELECT 1")
	tests := []struct{ name, path, want string }{
		{"good", write("good.yaml", "views: {a: }\nmaterialize: {init: "+sql+"}"), ""},
		{"no file", filepath.Join(dir, "absent.yaml"), "absent.yaml: no such file or directory"},
		{"a directory", dir, "is a directory"},
		{"no init", write("noinit.yaml", "views: {a: }\nmaterialize: {init: absent.sql}"), "noinit.yaml:2:21: materialize.init: open absent.sql: no such file or directory"},
		{"init is a directory", write("dirinit.yaml", "views: {a: }\nmaterialize: {init: "+dir+"}"), "is a directory"},
		{"too large", write("large.yaml", strings.Repeat("#", 1<<20+1)), "large.yaml: is larger than 1MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Load(tt.path, known)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestBinariesAreAskedOnce checks that binaries are asked at the same time, and
// each that differs once.
func TestBinariesAreAskedOnce(t *testing.T) {
	const file = `views: {a: }
plugin_dir: testdata/plugins
sinks:
  a: {plugin: echo}
  b: {plugin: echo, views: [a], ack_timeout: 1s}
  c: {plugin: testdata/plugins/mzd-sink-echo}
  d: {plugin: echo, args: [x]}
  e: {plugin: echo, env: {X: y}}
`
	var asked, together sync.WaitGroup
	together.Add(3) // hangs if they are asked one after the other
	var calls atomic.Int32
	asked.Go(func() {
		_, err := config.Parse("f.yaml", []byte(file), config.Known{Describe: func(config.Binary) (*schema.Schema, error) {
			calls.Add(1)
			together.Done()
			together.Wait()
			return schema.Of[hook](), nil
		}})
		if err != nil {
			t.Error(err)
		}
	})
	asked.Wait()
	if got := calls.Load(); got != 3 {
		t.Errorf("asked %d times, want 3", got)
	}
}

func TestBinaryInWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("mirror", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := config.Parse("f.yaml", []byte("views: {a: }\nsinks: {s: {plugin: mirror}}"), known)
	if want := `there is no sink plugin "mirror"; did you mean the file "./mirror"?`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	cfg, err := config.Parse("f.yaml", []byte("plugin_dir: .\nviews: {a: }\nsinks: {s: {plugin: ./mirror}}"), known)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.Sinks["s"].Binary.Path, "./mirror"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := os.Rename("mirror", "mzd-sink-mirror"); err != nil {
		t.Fatal(err)
	}
	cfg, err = config.Parse("f.yaml", []byte("plugin_dir: .\nviews: {a: }\nsinks: {s: {plugin: mirror}}"), known)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.Sinks["s"].Binary.Path, "./mzd-sink-mirror"; got != want { // and not one to be searched in PATH
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestCheckLater leaves the settings of a binary until its schema is there.
func TestCheckLater(t *testing.T) {
	cfg, err := config.Parse("f.yaml", []byte("views: {a: }\nsinks:\n  s: {plugin: testdata/plugins/broken, settings: {secret: \"file:testdata/token\", min: 3}}\n"), config.Known{})
	if err != nil {
		t.Fatal(err)
	}
	sink := cfg.Sinks["s"]
	if sink.Settings != nil || sink.CheckLater == nil {
		t.Fatalf("got %s, want nothing but a check for later", sink.Settings)
	}
	for range 2 {
		_, err = sink.CheckLater(schema.Of[hook]())
		if got, want := err.Error(), "f.yaml:3:87: sinks.s.settings.min: is above max"; !strings.HasPrefix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	type good struct {
		Secret string `json:"secret" secret:"true"`
		Min    int    `json:"min"`
		More   string `json:"more" default:"x"`
	}
	settings, err := sink.CheckLater(schema.Of[good]())
	if want := `{"min":3,"more":"x","secret":"hunter-2-hunter"}`; err != nil || string(settings) != want {
		t.Errorf("got %s, %v, want %s", settings, err, want)
	}
}

func TestProblemsAreLimited(t *testing.T) {
	var file strings.Builder
	file.WriteString("views: {a: }\n")
	for i := range 5000 {
		file.WriteString(strings.Repeat("x", i%60+20) + strings.Repeat("y", i/60) + ": 1\n")
	}
	_, err := config.Parse("x.yaml", []byte(file.String()), known)
	if err == nil || !strings.HasSuffix(err.Error(), "and 4900 more") {
		t.Errorf("got %.200v, want an end", err)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	setenv(f)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	// No plugin with secrets: the fuzzer is to read as few files as it can.
	known := config.Known{Sinks: map[string]*schema.Schema{"page": schema.Of[page]()}}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := config.Parse("f.yaml", data, known)
		if err == nil {
			if len(cfg.Views) == 0 || cfg.DataDir == "" {
				t.Errorf("accepted without what it needs: %+v", cfg)
			}
			return
		}
		if cfg != nil {
			t.Error("a configuration with problems")
		}
		text := err.Error()
		if strings.Contains(text, password) && !bytes.Contains(data, []byte(password)) {
			t.Errorf("shows a secret: %s", text)
		}
		for _, r := range text {
			if r != '\n' && r < ' ' {
				t.Fatalf("control character %U in %q", r, text)
			}
		}
	})
}
