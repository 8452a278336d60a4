package websocket

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// A gate is a listener that lets a bounded number of connections in. It counts
// connections and not requests, so that a stranger who opens connections and
// says nothing is bounded, too. What a connection may cost is bounded here as
// well: the memory of the kernel, and the time.
type gate struct {
	net.Listener
	max, maxOfAddress int           // the latter 0: as many as max
	stall             time.Duration // how long a connection may take nothing

	// mu guards taken, the seats that are taken, and by, those of each address.
	mu    sync.Mutex
	taken int
	by    map[netip.Addr]int
}

// spare is how many connections beyond the limit are let in to be told so.
// Further ones are closed without a word.
const spare = 64

// sendBuffer is the size of a socket's send buffer. Without a size the kernel
// lets it grow to megabytes for a peer that is slow or dead.
const sendBuffer = 128 << 10

func newGate(ln net.Listener, s Settings) *gate {
	return &gate{
		Listener:     ln,
		max:          s.MaxConnections,
		maxOfAddress: s.MaxConnectionsPerAddress,
		stall:        time.Duration(s.StallTimeout),
		by:           make(map[netip.Addr]int),
	}
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
	addr := addressOf(c)
	gated := &gatedConn{Conn: c, stall: g.stall}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.taken >= g.max+spare:
		return nil
	case g.taken >= g.max:
		gated.refused = &errTooMany
	case g.maxOfAddress > 0 && g.by[addr] >= g.maxOfAddress+spare:
		return nil
	case g.maxOfAddress > 0 && g.by[addr] >= g.maxOfAddress:
		gated.refused = &errTooManyOfAddress
	}
	g.taken++
	if g.maxOfAddress > 0 {
		g.by[addr]++
	}
	gated.seat = seat{g, addr}
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetWriteBuffer(sendBuffer) // fails only if the peer has left
		limitUnsent(tcp)
	}
	return gated
}

// addressOf returns the address that a connection counts for: of IPv6 the
// network, as a host may have any number of addresses in it.
func addressOf(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is6() {
		network, _ := addr.Prefix(64) // the length is right
		addr = network.Addr()
	}
	return addr
}

// A seat is one of the connections that a gate lets in. The zero seat is none.
type seat struct {
	gate *gate
	addr netip.Addr
}

// leave gives the seat up. It may be called again.
func (s *seat) leave() {
	g := s.gate
	if g == nil {
		return
	}
	s.gate = nil
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken--
	if n, ok := g.by[s.addr]; ok {
		if g.by[s.addr] = n - 1; n == 1 {
			delete(g.by, s.addr)
		}
	}
}

// gatedConn is a connection of a gate until it is closed or taken over.
type gatedConn struct {
	net.Conn
	stall   time.Duration
	refused *apiError // what its requests are answered

	mu   sync.Mutex // guards seat
	seat seat
}

// writePiece is what a peer must make room for within the stall timeout.
const writePiece = minimumTaken

// Write writes piece by piece, with a deadline for each. It is the only place
// that sets one.
func (c *gatedConn) Write(p []byte) (int, error) {
	written := 0
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
			return written, err
		}
		piece := p[written:min(written+writePiece, len(p))]
		n, err := c.Conn.Write(piece)
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// Close closes the connection and gives its seat up.
func (c *gatedConn) Close() error {
	s := c.takeSeat()
	s.leave()
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

// takeSeat leaves the seat to the caller.
func (c *gatedConn) takeSeat() seat {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seat
	c.seat = seat{}
	return s
}
