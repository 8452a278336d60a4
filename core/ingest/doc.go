// Package ingest runs sources and makes what they bring durable.
//
// A [Runner] runs one [core.Source] against one [Landing]: it hands the source
// the cursor to go on from, lands what it emits, and runs it again when it
// ends. It is the one place where a source's failures are waited out. [File]
// is the landing that appends to a file, one event a line.
//
// Together they keep invariant I5, a source's cursor moves only after its
// events are durable, and its other half: an event that comes twice is landed
// once, also when a crash lies in between.
package ingest
