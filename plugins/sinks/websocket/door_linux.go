package websocket

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
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

// acceptTurn is how many connections are accepted before they are looked after.
const acceptTurn = 64

// passing are the errors of accept4(2) after which there can be another
// connection: that this one has failed, or that there is no room now.
var passing = []syscall.Errno{
	syscall.EINTR, syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP, syscall.ETIMEDOUT,
	syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.ENONET, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
}

func (d socketDoor) accept() (come []arrival, err error) {
	var failed error
	closed := d.raw.Read(func(ln uintptr) bool {
		for len(come) < acceptTurn {
			s, from, err := syscall.Accept4(int(ln), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err == syscall.EAGAIN {
				return len(come) > 0
			}
			if err != nil {
				failed = err
				break
			}
			come = append(come, arrival{socket(s), addrOf(from)})
		}
		return true
	})
	if closed != nil {
		return come, closed
	}
	if errno, ok := failed.(syscall.Errno); ok {
		failed = os.NewSyscallError("accept4", errno)
		if slices.Contains(passing, errno) {
			failed = passingError{failed}
		}
	}
	return come, failed
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
