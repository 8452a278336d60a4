package websocket

import (
	"net"
	"sync"
	"time"
)

// A gate is a listener that lets a bounded number of connections in and can
// close all of them. It counts connections and not requests, so that a stranger
// who opens connections and says nothing is bounded, too. What a connection may
// cost is bounded here as well: the memory of the kernel, and the time.
type gate struct {
	net.Listener
	max   int
	stall time.Duration // how long a connection may take nothing

	// mu guards conns, the connections that are open.
	mu    sync.Mutex
	conns map[*gatedConn]struct{}
}

// spare is how many connections beyond the limit are let in to be told so.
// Further ones are closed without a word.
const spare = 64

// sendBuffer is the size of a socket's send buffer. Without a size the kernel
// lets it grow to megabytes for a peer that is slow or dead.
const sendBuffer = 128 << 10

func newGate(ln net.Listener, limit int, stall time.Duration) *gate {
	return &gate{Listener: ln, max: limit, stall: stall, conns: make(map[*gatedConn]struct{})}
}

// Accept returns the next connection that is let in.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if gated := g.admit(c); gated != nil {
			return gated, nil
		}
		c.Close()
	}
}

func (g *gate) admit(c net.Conn) net.Conn {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetWriteBuffer(sendBuffer) // fails only if the peer has left
		limitUnsent(tcp)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.conns) >= g.max+spare {
		return nil
	}
	gated := &gatedConn{Conn: c, gate: g, surplus: len(g.conns) >= g.max}
	g.conns[gated] = struct{}{}
	return gated
}

// closeAll closes every connection that is open.
func (g *gate) closeAll() {
	g.mu.Lock()
	open := make([]*gatedConn, 0, len(g.conns))
	for c := range g.conns {
		open = append(open, c)
	}
	g.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

// gatedConn leaves the gate when it is closed.
type gatedConn struct {
	net.Conn
	gate    *gate
	surplus bool // beyond the limit: its request is refused
}

// writePiece is what a peer must make room for within the stall timeout. It is
// far less than a message, so that a slow peer that goes on taking is not taken
// for one that has stalled.
const writePiece = 16 << 10

// Write writes piece by piece, with a deadline for each. It is the only place
// that sets one: everything that is sent passes here.
func (c *gatedConn) Write(p []byte) (int, error) {
	written := 0
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.gate.stall)); err != nil {
			return written, err
		}
		piece := p[written:min(written+writePiece, len(p))]
		n, err := c.Conn.Write(piece)
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// Close closes the connection.
func (c *gatedConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite ends what is sent and goes on reading, so that a client that is
// still sending a request that was refused gets the answer.
func (c *gatedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
