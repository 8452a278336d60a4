// Package ingest runs sources and makes what they bring durable.
//
// A [Runner] runs one [core.Source] against one [Landing]: it hands the source
// the cursor to go on from, lands what it emits, and runs it again when it
// ends. It is the one place where a source's failures are waited out. [File]
// is the landing that appends to a file, one event a line; [Remote] lands in a
// database, in a table or a webhook source.
//
// A source that has connected may have to wait long for its first event. It
// calls its [core.EmitFunc] without events then, to say that it is connected:
// nothing is landed, and the runner shows it as [Streaming].
//
// A source may emit concurrently. The landing takes the calls in the order in
// which they arrive, which the source cannot know, and the cursor that it saves
// is the last one it took. So the cursors of a call must not pass events of
// another call that has not returned: a crash in between would skip those. A
// source whose cursors cannot keep to this emits from one goroutine.
//
// Together they keep invariant I5, a source's cursor moves only after its
// events are durable, and its other half: an event that comes twice is landed
// once, also when a crash lies in between. (A [Remote] does not keep the second
// half over the end of a process.)
package ingest
