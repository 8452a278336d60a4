// Package sql holds the demo's views as SQL texts, for whoever wants them without a file at hand.
package sql

import "embed"

// Files are the texts by file name. wikipedia.sql has the views of the Wikipedia demo over a landed file of JSON documents, joins.sql
// those of its scenario with a table, to be run after it, and wikipedia2020.sql the text that the demo was typed in 2020, over the raw event stream. The first and the last run on the embedded engine and on
// the releases of Materialize that have FILE sources. wikipedia.materialize.sql has the views for events that land in a table or a
// webhook source; the former runs on the embedded engine too.
//
//go:embed *.sql
var Files embed.FS
