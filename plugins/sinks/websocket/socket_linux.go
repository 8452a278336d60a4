package websocket

import "syscall"

const (
	// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall does not name.
	tcpNotsentLowat = 25
	// maxUnsent is more than slow clients need: with less of it a base takes more
	// turns. There is room again when half of it has been sent.
	maxUnsent = 64 << 10
)

// socketOptions are set on a listener before anybody can connect: connections
// inherit them. The kernel takes only so much more than it can send, so that a
// peer who takes nothing costs little, and one who is slow gets net deltas from
// now instead of what was queued a while ago; small messages go out at once; and
// a peer who has vanished is noticed, also by a stream that is silent. The latter
// two are what package net sets on what it accepts.
var socketOptions = []struct{ level, option, value int }{
	{syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer},
	{syscall.IPPROTO_TCP, tcpNotsentLowat, maxUnsent},
	{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
	{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 9},
}

func setSocketOptions(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		for _, o := range socketOptions {
			syscall.SetsockoptInt(int(fd), o.level, o.option, o.value) // what a kernel does not know it goes without
		}
	})
}
