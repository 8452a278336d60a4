package websocket

import (
	"net"
	"syscall"
)

const (
	// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall does not name.
	tcpNotsentLowat = 25
	maxUnsent       = 16 << 10
)

// limitUnsent makes the kernel take only so much more than it can send, so that
// a peer who takes nothing costs little, and one who is slow gets net deltas
// from now instead of what was queued a while ago.
func limitUnsent(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // closed
	}
	raw.Control(func(fd uintptr) {
		// A kernel without the option (before 3.12) still has the send buffer.
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, maxUnsent)
	})
}
