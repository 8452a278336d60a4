package modeltest_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mzdio/mzd/core/modeltest"
)

// TestShrink fails where the given numbers are all in the script, in that order.
func TestShrink(t *testing.T) {
	for _, want := range [][]int{{}, {0}, {999}, {17, 18}, {3, 500, 998}, {100, 101, 102, 103, 104, 105, 106, 107}} {
		played := 0
		play := func(script []int) error {
			played++
			missing := want
			for _, n := range script {
				if len(missing) > 0 && n == missing[0] {
					missing = missing[1:]
				}
			}
			if len(missing) > 0 {
				return nil
			}
			return fmt.Errorf("%d operations", len(script))
		}
		var whole []int
		for n := range 1000 {
			whole = append(whole, n)
		}
		got, err := modeltest.Shrink(whole, play(whole), 1000, play)
		if !slices.Equal(got, want) || err == nil || err.Error() != fmt.Sprintf("%d operations", len(want)) {
			t.Errorf("got %v and %v, want %v and its error", got, err, want)
		}
		if len(whole) != 1000 || whole[999] != 999 || played > 300 {
			t.Errorf("%v took %d tries, and left %v", want, played, whole[990:])
		}
		played = 0
		if got, err := modeltest.Shrink(whole, play(whole), 5, play); played > 6 || err == nil || play(got) == nil {
			t.Errorf("with 5 tries: %d tries, %d operations left, %v", played, len(got), err)
		}
	}
}
