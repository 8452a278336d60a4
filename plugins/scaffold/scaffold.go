// Package scaffold writes the beginnings of plugins: small modules that build, run
// and pass the suite, for their authors to change. "mzd plugin new" is its user.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/template"
)

// Options say what to write.
type Options struct {
	Kind string // "sink" or "source"
	Name string // what users will write after "plugin:"
	Lang string // "go" or "python"

	// Version is the release of mzd that a module in Go uses, as in "v1.2.3", and
	// Source the directory of its source. With a Source the module uses that; with
	// neither it takes the release that go mod tidy finds.
	Version, Source string
}

// Langs are the languages that there are templates for.
var Langs = []string{"go", "python"}

// Kinds are what can be written.
var Kinds = []string{"sink", "source"}

// Names of templates end with this, so that the go command does not take them for
// code of ours.
const suffix = ".tmpl"

//go:embed templates
var templates embed.FS

// isName matches what names a plugin, a module and a file at once.
var isName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// CheckName returns what is wrong with a name.
func CheckName(name string) error {
	if len(name) > 50 || !isName.MatchString(name) {
		return fmt.Errorf("%q is no name for a plugin: small letters, digits and single dashes, such as postgres-mirror", name)
	}
	return nil
}

// Binary returns what the plugin's file is called, so that mzd finds it by its name
// in plugin_dir.
func (o Options) Binary() string { return "mzd-" + o.Kind + "-" + o.Name }

// Go returns the version of Go that a module says.
func (o Options) Go() string {
	version := strings.TrimPrefix(runtime.Version(), "go")
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 || strings.ContainsAny(parts[1], " -+rb") { // of a Go between releases
		return "1.26"
	}
	return parts[0] + "." + parts[1]
}

// Write writes a plugin into a directory, which it makes, and returns the names of
// the files. A directory that has something in it already is an error that wraps
// [fs.ErrExist].
func Write(dir string, o Options) ([]string, error) {
	if err := CheckName(o.Name); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("%s: %w, and is not empty", dir, fs.ErrExist)
	}
	files, err := o.files()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		to := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(to, f.text, f.mode); err != nil {
			return nil, err
		}
		names = append(names, f.name)
	}
	return names, nil
}

// file is a file of a plugin.
type file struct {
	name string // relative, with slashes
	text []byte
	mode fs.FileMode
}

// files returns what the plugin is made of.
func (o Options) files() ([]file, error) {
	var files []file
	add := func(root string, wanted func(name string) bool) error {
		return fs.WalkDir(templates, root, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !wanted(name) {
				return err
			}
			f, err := o.file(name, strings.TrimPrefix(name, root+"/"))
			files = append(files, f)
			return err
		})
	}
	err := add(path.Join("templates", o.Lang+"-"+o.Kind), func(string) bool { return true })
	if err == nil && o.Lang == "python" {
		err = add("templates/python-stubs", func(name string) bool {
			base := path.Base(name)
			return base == "serve.py" || strings.HasPrefix(base, "plugin_pb2") || strings.HasPrefix(base, o.Kind+"_pb2")
		})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no template of a %s in %s", o.Kind, o.Lang)
	}
	return files, err
}

// file makes a file of a template, or copies what is none.
func (o Options) file(from, name string) (file, error) {
	text, err := templates.ReadFile(from)
	if err != nil {
		return file{}, err
	}
	f := file{name: name, text: text, mode: 0o644}
	if strings.HasSuffix(name, suffix) {
		t, err := template.New(name).Option("missingkey=error").Parse(string(text))
		if err != nil {
			return file{}, err
		}
		var out bytes.Buffer
		if err := t.Execute(&out, o); err != nil {
			return file{}, err
		}
		f.name, f.text = strings.TrimSuffix(name, suffix), out.Bytes()
	}
	if f.name == "main.py" {
		f.name = o.Binary() // it is the plugin itself
	}
	if bytes.HasPrefix(f.text, []byte("#!")) {
		f.mode = 0o755
	}
	return f, nil
}
