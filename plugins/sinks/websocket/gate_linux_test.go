package websocket_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// The kernel queues little for a client, so that one that reads nothing costs
// little, sends small messages at once, and looks whether the client is still
// there; whichever way the client came.
func TestSocketOptions(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	for _, name := range []string{"accepted by the sink", "accepted by net"} {
		ln, err := websocket.Listen(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if name == "accepted by net" {
			ln = struct{ net.Listener }{ln}
		}
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
				{"keep-alive", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1, 1},
				{"seconds before it", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 1, 15},
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
