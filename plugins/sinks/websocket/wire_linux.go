package websocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// A socket is the descriptor of a connection that the runtime knows nothing of:
// no goroutine waits for it and nothing is buffered, so that an idle client
// costs no more than a struct.
type socket int

// sockets is the backend of TCP.
type sockets struct{}

// backendOf returns the backend for the connections of a listener.
func backendOf(ln net.Listener) backend {
	if _, ok := ln.(*net.TCPListener); ok {
		return sockets{}
	}
	return goroutines{}
}

func (sockets) take(c net.Conn) (wire, error) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd uintptr
	var errno syscall.Errno
	if err := raw.Control(func(old uintptr) {
		fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, err
	}
	tcp.Close() // ends what the runtime has of it, not the connection
	if errno != 0 {
		return nil, fmt.Errorf("take over a connection: %w", errno)
	}
	return socket(fd), nil
}

func (s socket) read(p []byte) (int, error) {
	n, err := transfer(syscall.SYS_READ, s, p)
	switch {
	case err == syscall.EAGAIN:
		return 0, errNothing
	case err != 0:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s socket) write(p []byte) (int, bool, error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	n, err := transfer(syscall.SYS_WRITE, s, p)
	switch {
	case err == syscall.EAGAIN:
		return 0, true, nil
	case err != 0:
		return 0, false, os.NewSyscallError("write", err)
	}
	return n, n < len(p), nil
}

// transfer reads or writes at least a byte. Like the other calls here it never
// waits in the kernel, and so does not tell the scheduler that it is there: that
// keeps the runtime's monitor awake, which looks for calls that do wait, and
// was measured to take more than a tenth of what the writes take.
func transfer(call uintptr, s socket, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(call, uintptr(s), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

func (s socket) finish() { syscall.Shutdown(int(s), syscall.SHUT_WR) }
func (s socket) close()  { syscall.Close(int(s)) }

// epoll is the poller of sockets.
//
// The goroutine that waits does so in the poller of the runtime, which watches
// the epoll descriptor itself. So no thread is blocked, and to wake it is to let
// its deadline pass, which costs no system call.
type epoll struct {
	fd     int
	file   *os.File
	raw    syscall.RawConn
	ready  []syscall.EpollEvent
	events []event

	mu    sync.Mutex // guards woken, until and the deadline of file
	woken bool
	until time.Time
}

func (sockets) newPoller() (poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	syscall.SetNonblock(fd, true) // os.NewFile asks whether it is
	p := &epoll{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), ready: make([]syscall.EpollEvent, 256)}
	if p.raw, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("wait for epoll: %w", err)
	}
	return p, nil
}

func (p *epoll) watch(w wire, slot int, room bool) error {
	return p.control(syscall.EPOLL_CTL_ADD, w, slot, room)
}

func (p *epoll) rewatch(w wire, slot int, room bool) error {
	return p.control(syscall.EPOLL_CTL_MOD, w, slot, room)
}

func (p *epoll) forget(w wire) { p.control(syscall.EPOLL_CTL_DEL, w, 0, false) }

func (p *epoll) control(op int, w wire, slot int, room bool) error {
	s, ok := base(w).(socket)
	if !ok {
		return errors.ErrUnsupported
	}
	e := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(slot)}
	if room {
		e.Events |= syscall.EPOLLOUT
	}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(s), uintptr(unsafe.Pointer(&e)), 0, 0); errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

func (p *epoll) wait(until time.Time) []event {
	n := p.poll()
	if n == 0 && p.mayWait(until) {
		p.raw.Read(func(uintptr) bool { // an error is that it is time
			n = p.poll()
			return n > 0
		})
	}
	p.mu.Lock()
	p.woken = false // whoever looks for news does so when wait has returned
	p.mu.Unlock()
	p.events = p.events[:0]
	for _, e := range p.ready[:n] {
		p.events = append(p.events, event{
			slot: int(e.Fd),
			data: e.Events&^syscall.EPOLLOUT != 0,
			room: e.Events&^(syscall.EPOLLIN|syscall.EPOLLRDHUP) != 0,
		})
	}
	return p.events
}

// poll returns how many events there are.
func (p *epoll) poll() int {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.ready[0])), uintptr(len(p.ready)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case syscall.EINTR:
		default:
			panic(os.NewSyscallError("epoll_wait", errno)) // the descriptor is this poller's alone
		}
	}
}

// mayWait sets the deadline, unless somebody has called wake.
func (p *epoll) mayWait(until time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.woken {
		return false
	}
	if !until.Equal(p.until) {
		p.until = until
		p.file.SetReadDeadline(until)
	}
	return true
}

func (p *epoll) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.woken {
		p.woken = true
		p.until = time.Unix(1, 0)
		p.file.SetReadDeadline(p.until)
	}
}

func (p *epoll) close() { p.file.Close() }
