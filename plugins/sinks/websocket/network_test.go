package websocket_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// A network is between a client and a server. It can be cut, and falsify.
type network struct {
	ln net.Listener
	to string

	// mu guards the rest: connections, whether the next row is to be falsified,
	// and how many were.
	mu        sync.Mutex
	conns     map[net.Conn]bool
	armed     bool
	falsified int
}

func newNetwork(t *testing.T, to string) *network {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{ln: ln, to: to, conns: make(map[net.Conn]bool)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { n.carry(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		n.cut()
		running.Wait()
	})
	return n
}

func (n *network) url() string { return "http://" + n.ln.Addr().String() }

// carry carries a connection both ways until one side ends it.
func (n *network) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", n.to)
	if err != nil {
		return
	}
	defer server.Close()
	n.mu.Lock()
	n.conns[client], n.conns[server] = true, true
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.conns, client)
		delete(n.conns, server)
	}()
	go func() {
		io.Copy(server, &plain{r: client})
		server.Close()
	}()
	for buf := make([]byte, 64<<10); ; {
		k, err := server.Read(buf)
		n.tamper(buf[:k])
		if _, failed := client.Write(buf[:k]); err != nil || failed != nil {
			return
		}
	}
}

// plain is what a client sends, without its offer to have messages compressed:
// they would be hard to falsify.
type plain struct {
	r     io.Reader
	begun bool
}

func (p *plain) Read(buf []byte) (int, error) {
	n, err := p.r.Read(buf)
	if !p.begun && n > 0 {
		p.begun = true
		if i := bytes.Index(bytes.ToLower(buf[:n]), []byte("sec-websocket-extensions")); i >= 0 {
			buf[i] = 'x'
		}
	}
	return n, err
}

// tamper falsifies a row, if that is wanted, and there is one.
func (n *network) tamper(data []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := bytes.Index(data, []byte(`"user `)); n.armed && i >= 0 {
		data[i+1] = 'U'
		n.armed = false
		n.falsified++
	}
}

// cut ends all connections, wherever they are in a message.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.Close()
	}
}

func (n *network) falsify() { n.arm(true) }
func (n *network) heal()    { n.arm(false) }

func (n *network) arm(armed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed = armed
}
