// Package plugintest holds sources and sinks against the contract that mzd has
// with them ([core.Source], [core.Sink]): every builtin passes it, in mzd's process
// and in one of its own, and so can whoever writes a plugin.
//
// A test of a sink says how it is opened, and how to look at what it has written:
//
//	func TestSink(t *testing.T) {
//		file := filepath.Join(t.TempDir(), "rows")
//		plugintest.TestSink(t, plugintest.Sink{
//			Plugin:   plugins.NewSink("rows", "", Open),
//			Settings: json.RawMessage(fmt.Sprintf(`{"file": %q}`, file)),
//			Observe: func(_ context.Context, v *core.View) ([]json.RawMessage, error) {
//				return rowsIn(file, v.Name)
//			},
//		})
//	}
//
// Each rule is a subtest by its name. One that is broken says what was done, what
// came of it, what should have, and what it means for users. Rules that could not
// be checked are skipped, and say what is missing: without an observer, for
// instance, nobody knows what has become of the rows. For a binary, in any
// language, "mzd plugin test" does the same from the command line.
//
// A plugin may have a reason to break a rule: a sink that is a log of changes
// shows a repeated cut twice. It says so in Exempt, and then the rule is reported
// as not checked, with the reason.
//
// # Sinks
//
// The suite plays mzd: it makes up views, writes their cuts in every order that
// mzd may, repeats them, cancels them, closes the sink and opens it again, and
// looks at the target after each step. Each rule has views of its own, called
// plugintest_RULE_NAME, and begins with a base, so that what an earlier test left
// in the target does not matter. A [core.Broadcaster] is served logs instead;
// rules about acknowledgements are not for it.
//
// # Sources
//
// The suite reads some events, and then again from the cursor of each: nothing
// may be skipped, and IDs tell repeats apart. It lets emit fail and wait, and stops
// the source in between. The outside world must not change but for events that
// are added.
//
// # Time
//
// Nothing is measured. Where something ought to happen soon the suite waits for a
// while, Patience, before it calls the rule broken. In a bubble of testing/synctest
// that costs nothing: [CheckSink] and [CheckSource] may be used in one.
package plugintest
