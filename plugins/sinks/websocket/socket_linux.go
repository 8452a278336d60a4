package websocket

import (
	"net"
	"syscall"
)

const (
	// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall does not name.
	tcpNotsentLowat = 25
	// maxUnsent is more than slow clients need: with less of it a base takes more
	// turns. There is room again when half of it has been sent.
	maxUnsent = 64 << 10
)

// limitKernel makes the kernel take only so much more than it can send, so that
// a peer who takes nothing costs little, and one who is slow gets net deltas
// from now instead of what was queued a while ago.
func limitKernel(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // closed
	}
	raw.Control(func(fd uintptr) { socket(fd).limit() })
}

// limit fails only if the peer has left, or on a kernel without TCP_NOTSENT_LOWAT
// (before 3.12), which still has the send buffer. It also has small messages go
// out at once, as package net does.
func (s socket) limit() {
	syscall.SetsockoptInt(int(s), syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer)
	syscall.SetsockoptInt(int(s), syscall.IPPROTO_TCP, tcpNotsentLowat, maxUnsent)
	syscall.SetsockoptInt(int(s), syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
}
