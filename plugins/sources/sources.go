// Package sources lists the sources that are built into mzd.
package sources

import (
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sources/wikimedia"
)

// Builtin returns the builtin sources, ordered by name.
func Builtin() []plugins.Source {
	return []plugins.Source{
		plugins.NewSource("wikimedia", "Follows a stream of events of Wikimedia, such as every edit of Wikipedia.", wikimedia.New),
	}
}
