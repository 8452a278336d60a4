package websocket_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// tapListener shows the test the server's side of each connection.
type tapListener struct {
	net.Listener
	accepted chan *net.TCPConn
}

func (l tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- c.(*net.TCPConn)
	}
	return c, err
}

// The kernel queues little for a client, so that one that reads nothing costs
// little.
func TestTheKernelQueuesLittle(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",1]`)
	tap := tapListener{ln, make(chan *net.TCPConn, 1)}
	s := startOn(t, t.Context(), websocket.Settings{}, tap, f)
	if response, _ := s.get(t, "/api/views/top10"); response.StatusCode != 200 {
		t.Errorf("status %d", response.StatusCode)
	}
	raw, err := (<-tap.accepted).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name          string
		level, option int
		most          int
	}{
		{"send buffer", syscall.SOL_SOCKET, syscall.SO_SNDBUF, 256 << 10}, // the kernel doubles what is set
		{"unsent bytes", syscall.IPPROTO_TCP, 25, 16 << 10},
	} {
		got := 0
		var failed error
		err := raw.Control(func(fd uintptr) { got, failed = syscall.GetsockoptInt(int(fd), tt.level, tt.option) })
		if err != nil || failed != nil || got <= 0 || got > tt.most {
			t.Errorf("%s: %d, %v, %v, want at most %d", tt.name, got, err, failed, tt.most)
		}
	}
}
