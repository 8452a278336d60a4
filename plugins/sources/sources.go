// Package sources lists the sources that are built into mzd.
package sources

import (
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sources/exec"
	"github.com/mzdio/mzd/plugins/sources/wikimedia"
)

// Builtin returns the builtin sources, ordered by name.
func Builtin() []plugins.Source {
	return []plugins.Source{
		plugins.NewSource("exec", "Runs a command; every line that it prints is an event. See [plugins.md](plugins.md#a-source-without-an-sdk).", exec.New),
		plugins.NewSource("wikimedia", "Follows a stream of events of Wikimedia, such as every edit of Wikipedia.", wikimedia.New),
	}
}
