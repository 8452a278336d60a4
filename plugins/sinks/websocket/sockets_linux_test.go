package websocket_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	ws "github.com/coder/websocket"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// Clients whose sockets hold little, and who read in fits and starts, are handed
// back and forth between shard and waiter in the middle of frames, while they
// ping, leave and come back. Each sees whole messages, in order, with pongs in
// between, and each state is one of the view. In the end no descriptor is left.
func TestSocketsHaveOneOwner(t *testing.T) {
	const clients, changes, seed = 12, 200, 1
	before := descriptors(t)
	f := newFeed(t, "v")
	f.reset(1000, `["x",0]`)
	const end core.Time = 1000 + changes
	s := serve(t, websocket.Settings{}, f)
	narrow := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: (&net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
		}}).DialContext,
	}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	arrived := make(chan struct{}, 1)
	for id := range clients {
		rng := rand.New(rand.NewPCG(seed, uint64(id)))
		wg.Go(func() {
			m := newModel()
			for m.timestamp != end.String() {
				if err := ownedStream(ctx, s, narrow, f, m, rng, end, arrived); err != nil {
					t.Errorf("seed %d: client %d: %v", seed, id, err)
					stop()
					break
				}
			}
			if m.deltas == 0 {
				t.Errorf("seed %d: client %d saw no delta", seed, id)
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, clients))
	var last core.Row = `["x",0]`
	for i := range changes {
		next := row(`["%s",%d]`, strings.Repeat("y", rng.IntN(2)*rng.IntN(400<<10)), i) // beyond a shard's part, and beyond a socket's buffer
		f.append(f.at+1, change{-1, last}, change{1, next})
		last = next
		select {
		case <-arrived: // somebody has got something: the clients run beside
		case <-ctx.Done():
		}
	}
	wg.Wait()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	narrow.CloseIdleConnections()
	s.client.CloseIdleConnections()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// ownedStream follows the view for a while or to its end.
func ownedStream(ctx context.Context, s *site, client *http.Client, f *feed, m *model, rng *rand.Rand, end core.Time, arrived chan<- struct{}) error {
	path := withSince("/api/stream/v", m.token)
	c, _, err := ws.Dial(ctx, s.url+path, &ws.DialOptions{HTTPClient: client})
	if err != nil {
		return err
	}
	c.SetReadLimit(-1)
	pinging, stopPings := context.WithCancel(ctx)
	var pings sync.WaitGroup
	defer pings.Wait()
	defer stopPings()
	defer c.CloseNow()
	pongs, steps := 0, 5+rng.IntN(40)
	pings.Go(func() {
		for pinging.Err() == nil && pongs < 1000 {
			if c.Ping(pinging) != nil {
				return
			}
			pongs++
		}
	})
	m.parts = nil
	in := &conn{next: func() (string, error) {
		_, r, err := c.Reader(ctx)
		if err != nil {
			return "", err
		}
		var text strings.Builder
		for buf := make([]byte, 1+rng.IntN(32<<10)); ; {
			n, err := r.Read(buf)
			text.Write(buf[:n])
			if err != nil {
				return text.String(), ignoreEOF(err)
			}
		}
	}}
	for range steps {
		if _, err := m.receive(in); err != nil {
			return err
		}
		if was, known := f.was(m.timestamp); !known || was != m.views["v"].String() {
			return fmt.Errorf("at %s the view was another", m.timestamp)
		}
		select {
		case arrived <- struct{}{}:
		default:
		}
		if m.timestamp == end.String() {
			break
		}
	}
	return nil
}

func ignoreEOF(err error) error {
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// descriptors returns how many descriptors the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
