//go:build !linux

package websocket

import "net"

// backendOf returns the backend for the connections of a listener.
func backendOf(net.Listener) backend { return goroutines{} }

// limitKernel bounds what the kernel takes for a peer who takes nothing.
func limitKernel(c *net.TCPConn) {
	c.SetWriteBuffer(sendBuffer) // fails only if the peer has left
}
