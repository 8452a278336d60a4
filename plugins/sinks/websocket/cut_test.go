package websocket_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// stopping is a view that can be said to have stopped.
type stopping struct {
	*feed
	stopped atomic.Bool
}

var _ core.TroubledReader = (*stopping)(nil)

func (s *stopping) Trouble() error {
	if s.stopped.Load() {
		return errors.New("password of the database is wrong")
	}
	return nil
}

// TestStoppedBeforeAnyData follows a view that has stopped before it had any
// data, as one whose SQL is wrong: who looks at it is told where to look.
func TestStoppedBeforeAnyData(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failing := &stopping{feed: newFeed(t, "failing")}
				failing.stopped.Store(true)
				s := servePipes(t, websocket.Settings{}, failing)
				stream := open(t, s, transport, "/api/stream/failing", "")
				defer stream.close()
				got, err := stream.next()
				want := `"message":"view failing has stopped before there was any data; the log of mzd says why; the stream begins when that is mended"`
				if err != nil || !strings.Contains(got, want) {
					t.Errorf("got %s, %v, want %s", got, err, want)
				}
				failing.stopped.Store(false)
				failing.reset(1000, `["f",1]`)
				if got, err := stream.next(); err != nil || !strings.Contains(got, `"type":"base"`) {
					t.Errorf("got %s, %v, want the base", got, err)
				}
			})
		})
	}
}

// TestOneCutOfAnyViews follows a view that moves, one that is sealed and one that
// stops as one cut: the sealed one delays nothing, and the one that has stopped
// is named, without what is wrong with it, until it goes on.
func TestOneCutOfAnyViews(t *testing.T) {
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				live, constant, failing := newFeed(t, "live"), newFeed(t, "constant"), &stopping{feed: newFeed(t, "failing")}
				live.reset(1000, `["x",1]`)
				constant.reset(core.EndOfTime, `["c",1]`)
				failing.reset(1000, `["f",1]`)
				s := servePipes(t, websocket.Settings{}, live, constant, failing)
				stream := open(t, s, transport, "/api/stream?view=live&view=constant&view=failing", "")
				defer time.AfterFunc(24*time.Hour, stream.close).Stop() // or silence would be endless
				next := func(want ...string) {
					t.Helper()
					got, err := stream.next()
					for _, w := range want {
						if err != nil || !strings.Contains(got, w) {
							t.Fatalf("got %s, %v, want %s", got, err, w)
						}
					}
					if strings.Contains(got, "password") {
						t.Errorf("strangers are told why: %s", got)
					}
				}
				next(`"type":"base","timestamp":"1000"`, `"inserted":[["x",1]]`, `"inserted":[["c",1]]`, `"inserted":[["f",1]]`)
				live.append(1100, change{1, `["y",1]`})
				failing.append(1100)
				next(`"type":"delta"`, `"timestamp":"1100"`, `"live":{"inserted":[["y",1]]`)

				failing.stopped.Store(true)
				live.append(1200, change{1, `["z",1]`})
				next(`"code":"view_failed","message":"view failing has stopped; what you have is not wrong, but old;`)
				live.append(1300)
				next(`"code":"view_failed"`) // and again, as long as it lasts

				failing.stopped.Store(false)
				failing.append(1300, change{-1, `["f",1]`})
				next(`"type":"delta"`, `"timestamp":"1300"`, `"live":{"inserted":[["z",1]]`, `"failing":{"inserted":[],"deleted":[["f",1]],"checksum":"0000000000000000"}`)
			})
		})
	}
}
