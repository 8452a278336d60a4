package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// Binary is a plugin that is a program of its own, and how it is started.
type Binary struct {
	Kind       string // "source" or "sink"
	Path       string // with a separator in it, so that it is not searched for
	SHA256     string // in hex; empty: whatever the file is
	Args       []string
	Env        map[string]string // may hold secrets
	TLS        string            // "auto" or "off"
	AckTimeout time.Duration     // of a sink
}

// Same reports whether two binaries are one, started in the same way.
func (b Binary) Same(other Binary) bool {
	return b.Kind == other.Kind && b.Path == other.Path && b.SHA256 == other.SHA256 && b.TLS == other.TLS &&
		slices.Equal(b.Args, other.Args) && maps.Equal(b.Env, other.Env)
}

// Found is a plugin that [FindBinaries] found.
type Found struct {
	Kind string // "source" or "sink"
	Name string
	Path string // as in [Binary]
}

// FindBinaries returns the plugins in a directory: the files that are called
// mzd-source-NAME and mzd-sink-NAME, in the order of their names. An empty path
// has none.
func FindBinaries(dir string) ([]Found, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []Found
	for _, e := range entries {
		if m := binaryName.FindStringSubmatch(e.Name()); m != nil && !e.IsDir() {
			found = append(found, Found{Kind: m[1], Name: m[2], Path: inDir(dir, e.Name())})
		}
	}
	return found, nil
}

var binaryName = regexp.MustCompile(`^mzd-(source|sink)-([A-Za-z0-9_][A-Za-z0-9._-]{0,99})$`)

// inDir is [filepath.Join] that leaves a separator in the path.
func inDir(dir, name string) string {
	if path := filepath.Join(dir, name); isPath(path) {
		return path
	}
	return "." + string(filepath.Separator) + name
}

// isPath tells the path of a binary from the name of a plugin.
func isPath(plugin string) bool { return filepath.Base(plugin) != plugin }

// checkRunnable says why a file cannot be started.
func checkRunnable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%w (a relative path starts in the working directory)", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable; run chmod +x %s", path, path)
	}
	return nil
}
