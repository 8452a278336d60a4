package websocket

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A socketDoor accepts the connections of a TCP listener as sockets.
type socketDoor struct {
	file *os.File // a duplicate of the listener, which lets nobody call accept4
	raw  syscall.RawConn
}

func (sockets) open(ln net.Listener) (door, error) {
	file, err := ln.(*net.TCPListener).File() // or there would be another backend
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return socketDoor{file, raw}, nil
}

const (
	// acceptTurn is how many connections are accepted before they are looked after.
	acceptTurn = 64
	// fullFor is how long is waited when there is no room for another connection
	// in the process or in the kernel.
	fullFor = 10 * time.Millisecond
)

func (d socketDoor) accept() (come []arrival, err error) {
	closed := d.raw.Read(func(ln uintptr) bool {
		for err == nil && len(come) < acceptTurn {
			var s int
			var from syscall.Sockaddr
			if s, from, err = syscall.Accept4(int(ln), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC); err == nil {
				come = append(come, arrival{socket(s), addrOf(from)})
			}
		}
		if err == syscall.EAGAIN {
			err = nil
			return len(come) > 0
		}
		return true
	})
	switch err {
	case nil, syscall.EINTR, syscall.ECONNABORTED:
		return come, closed
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		time.Sleep(fullFor)
		return come, closed
	}
	return come, os.NewSyscallError("accept4", err)
}

func (d socketDoor) close() { d.file.Close() }

func addrOf(a syscall.Sockaddr) netip.Addr {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *syscall.SockaddrInet6:
		return netip.AddrFrom16(a.Addr)
	}
	return netip.Addr{}
}

func (sockets) giveBack(w wire) (net.Conn, error) {
	s, ok := w.(socket)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	f := os.NewFile(uintptr(s), "socket")
	defer f.Close()
	return net.FileConn(f) // a duplicate
}
