package viewlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/mzdio/mzd/core"
)

// TestCutsByChance follows three logs as one picture while everything happens to
// them. Each cut must be what the views were at its time, and nothing may hold up
// the cuts for ever.
func TestCutsByChance(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := followByChance(t, seed); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			})
		})
	}
}

func followByChance(t *testing.T, seed uint64) (err error) {
	r := rand.New(rand.NewPCG(seed, 0))
	models := make([]*model, 3)
	readers := make([]core.CutReader, len(models))
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			err = errors.New(string(f))
		}
	}()
	for i := range models {
		models[i] = newModel(t, seed, false)
		models[i].open()
		models[i].reset()
		readers[i] = models[i].log
	}
	at := make([]core.Token, len(models))
	there, cancel := context.WithCancel(t.Context())
	cancel() // with a context that has ended FollowCut gives what is there
	step := func() {
		want, ok := latest(readers)
		for cut, err := range core.FollowCut(there, readers, at) {
			if err != nil {
				for i, r := range readers {
					if frontier, _ := r.Frontier(); ok && at[i] != (core.Token{Time: want, Generation: frontier.Generation}) {
						models[0].fail("no cut at %d after %v", want, at)
					}
				}
				return
			}
			if !ok || cut[0].Upper.Time != want {
				models[0].fail("a cut at %s, want %d, %v", cut[0].Upper, want, ok)
			}
			for i, b := range cut {
				if b.Upper.Time != cut[0].Upper.Time {
					models[0].fail("a cut at %s and %s", cut[0].Upper, b.Upper)
				}
				if !b.IsBase() && b.Lower != at[i] {
					models[0].fail("a delta from %s for a reader at %s", b.Lower, at[i])
				}
				models[i].verify(b, b.Lower, b.Upper.Time)
				at[i] = b.Upper
			}
			return
		}
		panic("FollowCut ended without an error")
	}
	for range 400 {
		m := models[r.IntN(len(models))]
		m.r = rand.New(rand.NewPCG(r.Uint64(), 0))
		switch n := r.IntN(100); {
		case n < 55:
			m.append()
		case n < 65:
			m.rebase()
		case n < 68:
			m.reset()
		case n < 70:
			m.seal()
		case n < 75:
			m.compact()
		case n < 80:
			m.wait()
		case n < 82:
			at[r.IntN(len(at))] = m.tokens[r.IntN(len(m.tokens))] // whatever it is
		default:
			step()
		}
	}

	// All of them come to one time, at which those can be read that have ended, and so
	// do the cuts.
	end := core.Time(0)
	for _, m := range models {
		if m.upper < core.EndOfTime {
			end = max(end, m.upper+1)
		}
	}
	reads := func(m *model) bool {
		at, _ := m.log.Readable(end)
		return at == end || m.upper < core.EndOfTime
	}
	for ; slices.ContainsFunc(models, func(m *model) bool { return !reads(m) }); end++ {
	}
	for _, m := range models {
		if m.upper < core.EndOfTime {
			if err := m.log.Append(m.upper, end, nil); err != nil {
				return err
			}
			m.moved(end)
		}
	}
	if !slices.ContainsFunc(models, func(m *model) bool { return m.upper < core.EndOfTime }) {
		end = core.EndOfTime
	}
	for range 10 {
		step()
	}
	for i, k := range at {
		if frontier, _ := readers[i].Frontier(); k != (core.Token{Time: end, Generation: frontier.Generation}) {
			return fmt.Errorf("in the end the cut is at %s, and not at %d", k, end)
		}
	}
	return nil
}

// latest returns the largest time that all can be read at, by trying them all; or
// the end of time, if all have come there.
func latest(readers []core.CutReader) (core.Time, bool) {
	upper := core.EndOfTime
	for _, r := range readers {
		frontier, _ := r.Frontier()
		upper = min(upper, frontier.Time)
	}
	if upper == core.EndOfTime {
		return upper, true
	}
	for t := upper; t > 0; t-- {
		if !slices.ContainsFunc(readers, func(r core.CutReader) bool { at, ok := r.Readable(t); return !ok || at != t }) {
			return t, true
		}
	}
	return 0, false
}
