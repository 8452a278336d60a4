// Command mzd-sink-postgres-mirror is a sink of mzd that keeps a table in a
// PostgreSQL for each view. See README.md.
package main

import "github.com/mzdio/mzd/plugins"

func main() {
	plugins.ServeSink(open, plugins.Doc("mirrors views as tables of a PostgreSQL, all of a cut in one transaction"))
}
