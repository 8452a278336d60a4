package websocket_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// Two views over one table never disagree: at no frame, for no client, whatever
// its transport, interval and speed, and however often it leaves and comes
// back, although neither view waits for the other one and both begin new
// histories.
func TestTwoViewsOfOneTableAgree(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { twoViewsAgree(t, seed) })
		})
	}
}

func twoViewsAgree(t *testing.T, seed uint64) {
	const clients, changes = 40, 400
	f := newFixture(t)
	s := servePipes(t, websocket.Settings{}, f.views()...)
	defer s.client.CloseIdleConnections()

	ctx, stop := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	frames := make([]int, clients)
	for id := range clients {
		readers.Go(func() {
			frames[id] = agreeing(ctx, t, s, rand.New(rand.NewPCG(seed, uint64(id))))
		})
	}
	tableSteps(f, rand.New(rand.NewPCG(seed, 1<<32)), changes, &writers)
	writers.Wait()
	<-time.After(2 * time.Second) // everybody has come back
	synctest.Wait()
	stop()
	readers.Wait()
	if total := slices.Min(frames); total < 10 {
		t.Errorf("seed %d: a client saw %d frames: too few to mean anything", seed, total)
	}
}

// tableSteps changes a table, and has both views told of each change on their
// own, sooner or later.
func tableSteps(f *fixture, rng *rand.Rand, changes int, writers *sync.WaitGroup) {
	rows, at := map[core.Row]int{}, f.at
	var people, counter []func()
	total := 0
	for i := range changes {
		at += core.Time(1 + rng.IntN(3))
		to, before := at, total
		var moves []change
		for range rng.IntN(4) {
			r := row(`["%c",%d]`, 'a'+rune(rng.IntN(4)), rng.IntN(5))
			if n := rows[r]; n > 0 && rng.IntN(2) == 0 {
				moves = append(moves, change{core.Diff(-n), r})
				total -= n
				rows[r] = 0
				continue
			}
			moves = append(moves, change{1, r})
			rows[r]++
			total++
		}
		after := total
		if i%100 == 99 {
			var all []core.Row
			for _, r := range slices.Sorted(maps.Keys(rows)) {
				for range rows[r] {
					all = append(all, r)
				}
			}
			people = append(people, func() { f.people.reset(to, all...) })
		} else {
			people = append(people, func() { f.people.append(to, moves...) })
		}
		switch {
		case i%150 == 149:
			counter = append(counter, func() { f.counter.reset(to, row("[%d]", after)) })
		case before == after:
			counter = append(counter, func() { f.counter.append(to) })
		default:
			counter = append(counter, func() { f.counter.append(to, change{-1, row("[%d]", before)}, change{1, row("[%d]", after)}) })
		}
	}
	for _, steps := range [][]func(){people, counter} {
		seed := rng.Uint64()
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 0))
			for _, step := range steps {
				<-time.After(time.Duration(rng.IntN(20)) * time.Millisecond)
				step()
			}
		})
	}
}

// agreeing is one client. It returns how many frames it has seen.
func agreeing(ctx context.Context, t *testing.T, s *site, rng *rand.Rand) (frames int) {
	path := []string{"/api/stream?view=people&view=counter", "/api/stream?view=counter&view=people"}[rng.IntN(2)]
	path += []string{"", "&interval=10ms", "&interval=37ms", "&interval=250ms", "&numbers=string"}[rng.IntN(5)]
	kinds := slices.Sorted(maps.Keys(transports))
	idleness := rng.IntN(200)
	m := newModel()
	for ctx.Err() == nil {
		m.parts = nil
		c, err := transports[kinds[rng.IntN(3)]](ctx, s, path, m.token)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			break
		}
		for range 1 + rng.IntN(60) {
			if _, err := m.receive(c); err != nil {
				if ctx.Err() == nil {
					t.Errorf("%s: %v", path, err)
				}
				c.close()
				return frames
			}
			frames++
			people := core.Diff(0)
			for _, n := range m.views["people"] {
				people += n
			}
			count := m.views["counter"].String()
			if want := fmt.Sprintf("1*[%d] ", people); count != want && count != fmt.Sprintf("1*[\"%d\"] ", people) {
				t.Errorf("%s at %s: the count is %s, and there are %d people", path, m.timestamp, count, people)
			}
			if rng.IntN(8) == 0 {
				<-time.After(time.Duration(rng.IntN(idleness+1)) * time.Millisecond)
			}
		}
		c.close()
	}
	return frames
}
