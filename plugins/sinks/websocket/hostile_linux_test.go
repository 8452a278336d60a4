package websocket_test

import (
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

var (
	seed = flag.Uint64("seed", 1, "seed of the strangers")
	soak = flag.Bool("soak", false, "let many more strangers come")
)

// A socketMemory is what the kernel holds for a socket, in bytes.
type socketMemory struct{ received, sent int }

// serverSockets returns what the kernel holds for the connections of a site.
func serverSockets(t *testing.T, s *site) (sockets []socketMemory) {
	t.Helper()
	for _, fd := range serverDescriptors(t, s) {
		if m, err := memoryOf(fd); err == nil {
			sockets = append(sockets, m)
		}
	}
	return sockets
}

// serverDescriptors returns the server's ends of the connections of a site,
// whoever in the process has them.
func serverDescriptors(t *testing.T, s *site) (fds []int) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	port := s.Addr().(*net.TCPAddr).Port
	for _, e := range open {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, err := syscall.Getsockname(fd)
		if err != nil || portOf(name) != port {
			continue
		}
		if _, err := syscall.Getpeername(fd); err != nil {
			continue // it listens, or the connection is over
		}
		fds = append(fds, fd)
	}
	return fds
}

func portOf(name syscall.Sockaddr) int {
	switch a := name.(type) {
	case *syscall.SockaddrInet4:
		return a.Port
	case *syscall.SockaddrInet6:
		return a.Port
	}
	return -1
}

// memoryOf asks for SO_MEMINFO, which package syscall does not name.
func memoryOf(fd int) (socketMemory, error) {
	const (
		soMeminfo     = 55
		receivedBytes = 0 // places in what it returns
		sentBytes     = 5
	)
	var values [9]uint32
	size := uint32(unsafe.Sizeof(values))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, soMeminfo,
		uintptr(unsafe.Pointer(&values)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return socketMemory{}, errno
	}
	return socketMemory{int(values[receivedBytes]), int(values[sentBytes])}, nil
}

// heap returns how many bytes of objects are in use.
func heap() int {
	debug.FreeOSMemory() // collects
	debug.FreeOSMemory() // what pools let go only now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// forgetful makes a feed keep little of what was.
func forgetful(f *feed) {
	f.Log = viewlog.New(f.view.Name, viewlog.Options{RetainBytes: 1 << 20})
}

// forget lets go of what nobody will ask for.
func (f *feed) forget() {
	f.Compact()
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.history)
}

// Clients who have stopped reading cost a bounded amount of memory, in the
// process and in the kernel, however much happens. When they read again they get
// what the kernel held and then what is left as a net delta, and are right.
func TestStalledClients(t *testing.T) {
	const first, second = 60, 100
	clients := 60
	if *soak {
		clients = 600
	}
	f := newFeed(t, "top10")
	forgetful(f)
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	others := bystandersOf(t, s, f)
	var stalled []*conn
	var models []*model
	for i := range clients {
		transport := []string{"websocket", "sse", "ndjson"}[i%3]
		stalled = append(stalled, open(t, s, transport, "/api/stream/top10", ""))
		models = append(models, newModel())
	}
	filling := strings.Repeat("x", 8<<10)
	happen := func(changes int) {
		for range changes {
			var gone []change
			for r := range f.now {
				gone = append(gone, change{-1, r})
			}
			f.append(f.at+1, append(gone, change{1, row(`["%s",%d]`, filling, f.at)})...)
			others.see(t)
			f.forget()
		}
	}
	happen(first) // a megabyte for each: no room is left
	before := heap()
	happen(second)
	if got, limit := heap()-before, 1<<20; got > limit {
		t.Errorf("%d more bytes in use after %d more changes, want at most %d", got, second, limit)
	}
	sockets := serverSockets(t, s)
	if got, want := len(sockets), clients+len(others.conns); got < want {
		t.Errorf("%d sockets, want %d: not all were seen", got, want)
	}
	most := 0
	for _, m := range sockets {
		most = max(most, m.sent+m.received)
	}
	if limit := 128 << 10; most > limit {
		t.Errorf("the kernel holds %d bytes for a client, want at most %d", most, limit)
	}
	t.Logf("the kernel holds at most %d bytes for a client", most)
	var reading sync.WaitGroup
	for i, m := range models {
		reading.Go(func() {
			last := core.Time(0)
			for m.timestamp != f.at.String() {
				before := m.at(t)
				if _, err := m.receive(stalled[i]); err != nil {
					t.Errorf("stalled client %d: %v", i, err)
					return
				}
				last = m.at(t) - before
			}
			if got, want := m.views["top10"].String(), f.now.String(); got != want {
				t.Errorf("stalled client %d holds %.100s, want %.100s", i, got, want)
			}
			if got, limit := m.deltas, 40; got > limit {
				t.Errorf("stalled client %d got %d deltas, want at most %d", i, got, limit)
			}
			if last < second {
				t.Errorf("the last delta of stalled client %d is of %d changes, want %d at least", i, last, second)
			}
		})
	}
	reading.Wait()
	happen(1)
}

// at returns the model's time, 0 before anything.
func (m *model) at(t *testing.T) core.Time {
	if m.timestamp == "" {
		return 0
	}
	at, err := core.ParseTime(m.timestamp)
	if err != nil {
		t.Error(err)
	}
	return at
}

// Thousands of strangers come, say what they should not, and leave in all ways
// there are. Nothing is left of them: no sockets, no goroutines, no memory.
func TestNothingIsLeftOfStrangers(t *testing.T) {
	rounds := 30
	if *soak {
		rounds = 1000
	}
	f := newFeed(t, "top10")
	forgetful(f)
	f.reset(1000, `["Ada",0]`)
	s := serve(t, websocket.Settings{}, f)
	others := bystandersOf(t, s, f)
	goroutines := runtime.NumGoroutine()
	r := rand.New(rand.NewPCG(*seed, 0))
	visits := 0
	round := func() {
		for _, tt := range strangeFrames {
			visit(t, s, r, request("/api/stream/top10", upgradeHeaders)+tt.send)
		}
		for _, tt := range strangeRequests {
			visit(t, s, r, tt.send)
		}
		for _, headers := range []string{upgradeHeaders, "Accept: text/event-stream\r\n", ""} {
			visit(t, s, r, request("/api/stream/top10", headers))
		}
		visits += len(strangeFrames) + len(strangeRequests) + 3
		others.change(t)
		f.forget()
	}
	gone := func(goroutines int) {
		t.Helper()
		want := len(others.conns)
		deadline := time.After(time.Minute)
		for tick := time.Tick(5 * time.Millisecond); ; { // the kernel tells nobody when a connection is over
			sockets, streams, running := len(serverSockets(t, s)), metric(t, s.Sink, "mzd_broadcast_clients"), runtime.NumGoroutine()
			if sockets == want && streams == float64(want) && running <= goroutines {
				return
			}
			select {
			case <-tick:
			case <-deadline:
				t.Fatalf("seed %d: after %d strangers there are %d sockets and %v streams, want %d, and %d goroutines, want at most %d", *seed, visits, sockets, streams, want, running, goroutines)
			}
		}
	}
	for range 3 {
		round() // what is needed once is there afterwards
	}
	gone(goroutines)
	before := heap()
	for range rounds {
		round()
	}
	gone(goroutines)
	if got, limit := heap()-before, 256<<10; got > limit {
		t.Errorf("seed %d: %d more bytes in use after %d strangers, want at most %d", *seed, got, visits, limit)
	}
	for _, m := range serverSockets(t, s) {
		if got, limit := m.sent+m.received, 64<<10; got > limit {
			t.Errorf("seed %d: the kernel holds %d bytes for a bystander, want at most %d", *seed, got, limit)
		}
	}
	t.Logf("%d strangers", visits)
}

// visit says something and leaves, in one of the ways there are.
func visit(t *testing.T, s *site, r *rand.Rand, text string) {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	if r.IntN(4) == 0 {
		text = text[:r.IntN(len(text)+1)]
	}
	if len(text) > 64<<10 {
		text = text[:64<<10] // there is room for that, so that writing does not wait
	}
	if _, err := io.WriteString(c, text); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	switch r.IntN(4) {
	case 0:
		tcp.SetLinger(0) // a reset
	case 1:
		var some [100]byte
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // there may be no answer
		c.Read(some[:])
	case 2:
		tcp.CloseWrite()
	}
}
