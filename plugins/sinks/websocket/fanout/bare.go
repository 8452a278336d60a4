//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// A bareTarget is as little server as there can be: each client is sent bytes
// that are known beforehand, by blocking writes to the sockets one after the
// other.
type bareTarget struct {
	job
	listener int
	port     int
	at       uint64

	mu      sync.Mutex // guards sockets, which accepting adds to
	sockets []int
}

func newBare(j job) (*bareTarget, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback}); err != nil {
		return nil, err
	}
	if err := syscall.Listen(fd, 1<<16); err != nil { // the kernel has a limit of its own
		return nil, err
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	t := &bareTarget{job: j, listener: fd, port: name.(*syscall.SockaddrInet4).Port, at: startTime}
	go t.accept()
	return t, nil
}

var loopback = [4]byte{127, 0, 0, 1}

func (t *bareTarget) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(t.port)) }

// accept answers whoever connects.
func (t *bareTarget) accept() {
	buf := make([]byte, 4096)
	for {
		fd, _, err := syscall.Accept4(t.listener, syscall.SOCK_CLOEXEC)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err == nil {
			err = t.greet(fd, buf)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "fanout: the bare writer ended:", err)
			os.Exit(1)
		}
	}
}

// tcpNotsentLowat is TCP_NOTSENT_LOWAT, which package syscall does not name.
const tcpNotsentLowat = 25

func (t *bareTarget) greet(fd int, buf []byte) error {
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return err
	}
	if t.Kind == kindBounded {
		err := errors.Join(
			syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 128<<10),
			syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, tcpNotsentLowat, 16<<10))
		if err != nil {
			return err
		}
	}
	for n := 0; !bytes.Contains(buf[:n], []byte("\r\n\r\n")); {
		more, err := read(fd, buf[n:])
		if err != nil || more == 0 {
			return fmt.Errorf("read a request: %d bytes, %w", more, err)
		}
		n += more
	}
	if err := writeAll(fd, t.Hello); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sockets = append(t.sockets, fd)
	return nil
}

func (t *bareTarget) publish(messages int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Kind == kindJoined {
		t.at += uint64(messages)
		return t.send(t.Many)
	}
	for range messages {
		t.at++
		if err := t.send(t.One); err != nil {
			return err
		}
	}
	return nil
}

// send writes a frame, with the time in it, to all sockets. Those of clients
// that have left are closed.
func (t *bareTarget) send(frame []byte) error {
	_, digits, ok := timestampIn(frame)
	if !ok {
		return fmt.Errorf("no timestamp in %.100q", frame)
	}
	strconv.AppendUint(digits[:0], t.at, 10)
	left := t.sockets[:0]
	for _, fd := range t.sockets {
		switch err := writeAll(fd, frame); {
		case err == nil:
			left = append(left, fd)
		case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
			syscall.Close(fd)
		default:
			return fmt.Errorf("write: %w", err)
		}
	}
	t.sockets = left
	return nil
}

// writeAll writes to a blocking socket.
func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := syscall.Write(fd, p)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

// read is read(2), again when a signal came in between.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
