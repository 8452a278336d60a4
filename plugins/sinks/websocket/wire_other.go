//go:build !linux

package websocket

import "net"

// backendOf returns the backend for the connections of a listener.
func backendOf(net.Listener) backend { return goroutines{} }

// limitUnsent does nothing: what bounds the kernel here is the send buffer.
func limitUnsent(*net.TCPConn) {}
