//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// clients are many clients on one thread, which waits in epoll.
type clients struct {
	tally
	epoll  int
	buf    []byte
	events []syscall.EpollEvent
}

func newClients() (*clients, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &clients{epoll: epoll, buf: make([]byte, 256<<10), events: make([]syscall.EpollEvent, 1024)}, nil
}

// close resets all connections.
func (cs *clients) close() {
	for fd, c := range cs.conns {
		if c != nil {
			// Without lingering nothing is left that would keep ports taken.
			syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
			syscall.Close(fd)
		}
	}
	syscall.Close(cs.epoll)
}

// crowd is how many clients may be on their way in at one time; the kernel
// drops who comes when its queue is full, and lets them wait for a second.
const crowd = 1000

// connect lets n more clients in, each of which has a base afterwards.
func (cs *clients) connect(address, path string, n int) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	request := requestFor(address, path)
	all := cs.n + n
	for cs.n < all {
		for cs.n < all && cs.n-cs.open < crowd {
			if err := cs.dial(to, request); err != nil {
				return fmt.Errorf("connect client %d: %w", cs.n+1, err)
			}
		}
		before := cs.open
		if err := cs.wait(func() bool { return cs.open > before }, time.Time{}); err != nil {
			return err
		}
	}
	return cs.wait(func() bool { return cs.open == all }, time.Time{})
}

// requestFor returns the request for a websocket.
func requestFor(address, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bXpkIGZhbm91dCBiZW5jaA==\r\n\r\n", path, address)
}

// bindNoPort is IP_BIND_ADDRESS_NO_PORT, which package syscall does not name:
// the port is chosen when it is known where to, out of many more.
const bindNoPort = 24

// dial begins a connection. The clients come from many addresses, as one has
// not enough ports.
func (cs *clients) dial(to netip.AddrPort, request []byte) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if fd >= len(cs.conns) {
		cs.conns = append(cs.conns, make([]*client, fd+1-len(cs.conns))...)
	}
	cs.conns[fd] = &client{request: request, upgrade: true}
	from := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + cs.n%100)}}
	cs.n++
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindNoPort, 1); err != nil {
		return err
	}
	if err := syscall.Bind(fd, from); err != nil {
		return err
	}
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		return err
	}
	return syscall.EpollCtl(cs.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLOUT, Fd: int32(fd)})
}

// await waits until all clients are at a timestamp.
func (cs *clients) await(goal uint64) error {
	cs.aim(goal)
	return cs.late(cs.wait(cs.atGoal, time.Time{}))
}

// patience is how long it may be silent.
const patience = 30 * time.Second

var errSilence = errors.New("nothing came for " + patience.String())

// rest reads until a time.
func (cs *clients) rest(until time.Time) error {
	return cs.wait(func() bool { return false }, until)
}

// wait reads until a condition holds, or, if that is given, until a time.
func (cs *clients) wait(done func() bool, until time.Time) error {
	for !done() {
		timeout := patience
		if !until.IsZero() {
			if timeout = time.Until(until); timeout <= 0 {
				return nil
			}
		}
		n, err := syscall.EpollWait(cs.epoll, cs.events, int(timeout.Milliseconds()))
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return err
		case n == 0 && until.IsZero():
			return errSilence
		}
		for _, e := range cs.events[:n] {
			if err := cs.serve(int(e.Fd)); err != nil {
				return fmt.Errorf("one of %d clients: %w", cs.n, err)
			}
		}
	}
	return nil
}

// serve does what can be done with a socket now.
func (cs *clients) serve(fd int) error {
	c := cs.conns[fd]
	if c.request != nil { // connected, and a request always fits
		if n, err := syscall.Write(fd, c.request); err != nil || n < len(c.request) {
			return fmt.Errorf("send a request: %d bytes, %w", n, err)
		}
		c.request = nil
		return syscall.EpollCtl(cs.epoll, syscall.EPOLL_CTL_MOD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
	}
	n, err := read(fd, cs.buf)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return nil
	case err != nil:
		return err
	case n == 0:
		return errors.New("the server closed the connection")
	}
	return cs.receive(c, cs.buf[:n])
}
