//go:build !linux

package websocket

import "net"

// limitUnsent does nothing: what bounds the kernel here is the send buffer.
func limitUnsent(*net.TCPConn) {}
