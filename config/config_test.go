package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
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
				if name != "complete" && strings.Contains(got, secret) {
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
