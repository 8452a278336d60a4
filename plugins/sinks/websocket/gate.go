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
		seat, refused, ok := g.admit(addressOf(c))
		if !ok {
			c.Close()
			continue
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetWriteBuffer(sendBuffer) // fails only if the peer has left
		}
		return &gatedConn{Conn: c, stall: g.stall, refused: refused, seat: seat}, nil
	}
}

// admit gives a connection from an address a seat, and says if it is only there
// to be told that there is none.
func (g *gate) admit(addr netip.Addr) (s seat, refused *apiError, ok bool) {
	addr = placeOf(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.taken >= g.max+spare:
		return seat{}, nil, false
	case g.taken >= g.max:
		refused = &errTooMany
	case g.maxOfAddress > 0 && g.by[addr] >= g.maxOfAddress+spare:
		return seat{}, nil, false
	case g.maxOfAddress > 0 && g.by[addr] >= g.maxOfAddress:
		refused = &errTooManyOfAddress
	}
	g.taken++
	if g.maxOfAddress > 0 {
		g.by[addr]++
	}
	return seat{g, addr}, refused, true
}

// addressOf returns the address of who has connected, the zero one if it has
// none.
func addressOf(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

// placeOf returns what an address counts for: of IPv6 the network, as a host may
// have any number of addresses in it.
func placeOf(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
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
	said    []byte    // what was read of it before; it comes first
	readBy  time.Time // when the first request has to be there; zero: no matter

	answering bool // net/http has a request of it, and is to send the answer

	mu   sync.Mutex // guards seat
	seat seat
}

// Read returns what was read of the connection before, and then what comes.
func (c *gatedConn) Read(p []byte) (int, error) {
	if len(c.said) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.said)
	if c.said = c.said[n:]; len(c.said) == 0 {
		c.said = nil // lets go of what it is in
	}
	return n, nil
}

// SetReadDeadline sets when reading ends, for the first time not later than it had
// to end before anybody set it.
func (c *gatedConn) SetReadDeadline(t time.Time) error {
	if !c.readBy.IsZero() && t.After(c.readBy) {
		t = c.readBy
	}
	c.readBy = time.Time{}
	return c.Conn.SetReadDeadline(t)
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
