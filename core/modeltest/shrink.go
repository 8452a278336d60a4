// Package modeltest helps tests that play random scripts against a model: where
// a script fails, it finds the few operations that matter.
package modeltest

import "slices"

// Shrink takes operations away from a script that fails with err, for as long as
// the rest fails too, and returns what is left, with its error. play plays a
// script from the beginning; it is called at most tries times.
//
// It takes away halves first, then smaller and smaller parts, as in "Simplifying
// and Isolating Failure-Inducing Input" (Zeller and Hildebrandt, 2002). What is
// left may fail for another reason than the whole: that is a failure too.
func Shrink[Op any](script []Op, err error, tries int, play func([]Op) error) ([]Op, error) {
	for size := (len(script) + 1) / 2; size > 0; {
		taken := false
		for at := 0; at < len(script); {
			if tries == 0 {
				return script, err
			}
			tries--
			rest := slices.Delete(slices.Clone(script), at, min(at+size, len(script)))
			if e := play(rest); e != nil {
				script, err, taken = rest, e, true
			} else {
				at += size
			}
		}
		if size > 1 {
			size = (size + 1) / 2
		} else if !taken {
			break
		}
	}
	return script, err
}
