// Package core holds the nouns of mzd and the interfaces that many implement.
//
// A view of a streaming database is a multiset of rows that changes with time.
// Its changes are [Update]s (time, diff, row), and every part of mzd hands them
// on in one shape, the [Batch]: all updates of one view in a closed interval of
// time. A batch from the beginning of time is a base; adjacent batches add up.
// So the first picture, a change, a catch-up after a pause and a recovery after
// a crash are one type, one code path and one message on the wire.
//
// Whoever writes a plugin needs [Sink] or [Source]; whoever serves readers of
// its own needs [Broadcaster] and [Reader] too. The rest of mzd implements the
// other side of those interfaces.
//
// The invariants that tests and comments cite by number:
//
//   - I1: within a generation the batches of a log are contiguous.
//   - I2: every position is a closed time: no reader ever ends on part of a
//     timestamp.
//   - I3: at every readable t the sum of the batches below t is exactly the
//     view at t.
//   - I4: applying any legal sequence of batches, from any restart of anything,
//     yields the same contents.
//   - I5: a sink's position moves only after its Write returned nil; a source's
//     cursor only after its events are durable.
//   - I6: a slow, dead or malicious reader delays nobody and costs bounded
//     memory.
//   - I7: nothing acknowledged is lost; damaged files are refused by name and
//     offset, never skipped.
//   - I8: bad input gets an error that says what, where and what to do, and
//     nothing else stops because of it.
//
// Package core imports the standard library only.
package core
