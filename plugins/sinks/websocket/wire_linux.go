package websocket

import (
	"errors"
	"fmt"
	"io"
	"math"
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
	n, err := transfer(sysRecvfrom, s, p, 0)
	switch {
	case err == syscall.EAGAIN:
		return 0, errNothing
	case err != 0:
		return 0, os.NewSyscallError("recvfrom", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// msgMore is MSG_MORE, which package syscall does not name.
const msgMore = 0x8000

func (s socket) write(p []byte, more bool) (int, bool, error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	flags := syscall.MSG_NOSIGNAL
	if more {
		flags |= msgMore
	}
	n, err := transfer(sysSendto, s, p, flags)
	switch {
	case err == syscall.EAGAIN:
		return 0, true, nil
	case err != 0:
		return 0, false, os.NewSyscallError("sendto", err)
	}
	return n, n < len(p), nil
}

// transfer receives or sends at least a byte. Like the other calls here it never
// waits in the kernel, and so does not tell the scheduler that it is there: that
// keeps the runtime's monitor awake, which looks for calls that do wait, and
// was measured to take more than a tenth of what the writes take.
func transfer(call uintptr, s socket, p []byte, flags int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(call, uintptr(s), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), uintptr(flags), 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

func (s socket) finish() { syscall.Shutdown(int(s), syscall.SHUT_WR) }
func (s socket) close()  { syscall.Close(int(s)) }

// epoll is the poller of sockets. Its goroutine waits in the kernel, on a thread
// of its own: the poller of the runtime would be another one before it.
type epoll struct {
	fd     int
	bell   int // an eventfd
	ready  []syscall.EpollEvent
	events []event

	mu     sync.Mutex // guards what follows
	asleep bool       // the goroutine waits, or is about to
	woken  bool       // somebody has called wake since it last did
}

// bellSlot is the slot of the bell.
const bellSlot = -1

func (sockets) newPoller() (poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	bell, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		syscall.Close(fd)
		return nil, os.NewSyscallError("eventfd2", errno)
	}
	p := &epoll{fd: fd, bell: int(bell), ready: make([]syscall.EpollEvent, 256)}
	// Each ring is an event, whether anybody reads it or not.
	e := syscall.EpollEvent{Events: syscall.EPOLLIN | edgeTriggered, Fd: bellSlot}
	if err := syscall.EpollCtl(fd, syscall.EPOLL_CTL_ADD, p.bell, &e); err != nil {
		p.close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return p, nil
}

// edgeTriggered is EPOLLET, which package syscall has as a negative number.
const edgeTriggered = 1 << 31

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
	if n == 0 && p.mayWait() {
		n = p.sleep(until)
	}
	p.mu.Lock()
	p.asleep, p.woken = false, false // whoever looks for news does so when wait has returned
	p.mu.Unlock()
	p.events = p.events[:0]
	for _, e := range p.ready[:n] {
		if e.Fd == bellSlot {
			continue
		}
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
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.ready[0])), uintptr(len(p.ready)), 0, 0, 0)
	return p.count(n, errno)
}

// sleep waits for events.
func (p *epoll) sleep(until time.Time) int {
	timeout := -1 // never
	if !until.IsZero() {
		left := min(max(0, time.Until(until)), math.MaxInt32*time.Millisecond) // the kernel's int
		timeout = int((left + time.Millisecond - 1) / time.Millisecond)
	}
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.ready[0])), uintptr(len(p.ready)), uintptr(timeout), 0, 0)
	return p.count(n, errno)
}

func (p *epoll) count(n uintptr, errno syscall.Errno) int {
	switch errno {
	case 0:
		return int(n)
	case syscall.EINTR:
		return 0
	default:
		panic(os.NewSyscallError("epoll_pwait", errno)) // the descriptor is this poller's alone
	}
}

// mayWait reports whether nobody has called wake.
func (p *epoll) mayWait() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asleep = !p.woken
	return p.asleep
}

func (p *epoll) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asleep && !p.woken {
		one := uint64(1)
		syscall.RawSyscall(syscall.SYS_WRITE, uintptr(p.bell), uintptr(unsafe.Pointer(&one)), 8)
	}
	p.woken = true
}

func (p *epoll) close() {
	syscall.Close(p.fd)
	syscall.Close(p.bell)
}
