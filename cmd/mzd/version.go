package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// buildVersion is what a binary knows about itself.
type buildVersion struct {
	Version  string `json:"version"`  // of the module; (devel) for a build from a checkout
	Revision string `json:"revision"` // of the checkout; unknown if it was none
	Go       string `json:"go"`
}

// version returns what the Go linker recorded about this binary.
func version() buildVersion {
	v := buildVersion{Version: "(devel)", Revision: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified {
		v.Revision += "-modified"
	}
	return v
}

// String is what "mzd version" prints.
func (v buildVersion) String() string {
	return fmt.Sprintf("mzd %s (revision %s, %s, %s/%s)", v.Version, v.Revision, v.Go, runtime.GOOS, runtime.GOARCH)
}
