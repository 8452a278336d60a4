package websocket_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// The kernel queues little for a client, so that one that reads nothing costs
// little, and sends small messages at once; whichever way the client came.
func TestTheKernelQueuesLittle(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	listen := func(multipath bool) net.Listener {
		var lc net.ListenConfig
		lc.SetMultipathTCP(multipath)
		ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	for name, ln := range map[string]net.Listener{
		"accepted by the sink":                      listen(false),
		"accepted by the sink from a multipath one": listen(true),
		"accepted by net":                           struct{ net.Listener }{listen(false)},
	} {
		t.Run(name, func(t *testing.T) {
			s := startOn(t, t.Context(), websocket.Settings{}, ln, f)
			for _, headers := range []string{upgradeHeaders, ""} {
				w := wireTo(t, s)
				w.say(request("/api/stream/top10", headers))
				w.answer()
			}
			w := wireTo(t, s)
			w.say(request("/api/views/top10"))
			w.answer()
			fds := serverDescriptors(t, s)
			if len(fds) < 3 {
				t.Errorf("%d sockets, want 3", len(fds))
			}
			for _, tt := range []struct {
				name          string
				level, option int
				least, most   int
			}{
				{"send buffer", syscall.SOL_SOCKET, syscall.SO_SNDBUF, 1, 256 << 10}, // the kernel doubles what is set
				{"unsent bytes", syscall.IPPROTO_TCP, 25, 1, 64 << 10},
				{"no delay", syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1, 1},
			} {
				for _, fd := range fds {
					if got, err := syscall.GetsockoptInt(fd, tt.level, tt.option); err != nil || got < tt.least || got > tt.most {
						t.Errorf("%s: %d, %v, want from %d to %d", tt.name, got, err, tt.least, tt.most)
					}
				}
			}
		})
	}
}
