package websocket

import (
	"net"
	"sync"
)

// A gate is a listener that lets a bounded number of connections in and can
// close all of them. It counts connections and not requests, so that a stranger
// who opens connections and says nothing is bounded, too.
type gate struct {
	net.Listener
	max int

	// mu guards conns, the connections that are open.
	mu    sync.Mutex
	conns map[*gatedConn]struct{}
}

// spare is how many connections beyond the limit are let in to be told so.
// Further ones are closed without a word.
const spare = 64

func newGate(ln net.Listener, limit int) *gate {
	return &gate{Listener: ln, max: limit, conns: make(map[*gatedConn]struct{})}
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

func (c *gatedConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
