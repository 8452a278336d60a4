package websocket_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A wire is a connection to a site on which a test says whatever it likes.
type wire struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// wireTo connects. The connection is closed when the test ends.
func wireTo(t *testing.T, s *site) *wire {
	t.Helper()
	var c net.Conn
	var err error
	if dial := s.client.Transport.(*http.Transport).DialContext; dial != nil {
		c, err = dial(t.Context(), "tcp", s.Addr().String())
	} else {
		c, err = new(net.Dialer).DialContext(t.Context(), "tcp", s.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetDeadline(time.Now().Add(20 * time.Second)) // a test that waits in vain says where
	}
	return &wire{c, t, bufio.NewReaderSize(c, 512)}
}

// say sends text.
func (w *wire) say(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatal(err)
	}
}

// pour sends text to a server that may have heard enough before the end.
func (w *wire) pour(text string) {
	var sent sync.WaitGroup
	sent.Go(func() { io.WriteString(w, text) })
	w.t.Cleanup(func() {
		w.Close()
		sent.Wait()
	})
}

// request returns a request with further headers, each with its line end.
func request(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + strings.Join(headers, "") + "\r\n"
}

const upgradeHeaders = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bXpkIHNwZWFrcyB3ZWJzbw==\r\n"

// answer reads the answer to a request.
func (w *wire) answer() *http.Response {
	w.t.Helper()
	response, err := http.ReadResponse(w.r, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return response
}

// upgrade makes a websocket of the wire, on which more follows at once.
func (w *wire) upgrade(path, more string) {
	w.t.Helper()
	w.pour(request(path, upgradeHeaders) + more)
	if response := w.answer(); response.StatusCode != http.StatusSwitchingProtocols {
		w.t.Fatalf("status %s", response.Status)
	}
}

// The first bytes of frames that are whole messages.
const (
	textFrame  = 0x81
	closeFrame = 0x88
	pingFrame  = 0x89
	pongFrame  = 0x8a
	final      = 0x80
)

// frame returns a frame as clients send it: masked.
func frame(first byte, payload string) string {
	head := header(first, len(payload))
	head[1] |= 0x80
	mask := []byte{0xde, 0xad, 0xbe, 0xef}
	masked := []byte(payload)
	for i := range masked {
		masked[i] ^= mask[i%4]
	}
	return string(head) + string(mask) + string(masked)
}

// header returns the beginning of a frame that is not masked.
func header(first byte, size int) []byte {
	switch {
	case size < 126:
		return []byte{first, byte(size)}
	case size < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(size))
	default:
		return binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(size))
	}
}

// closing is a close frame with a code and a reason.
func closing(code uint16, reason string) string {
	return frame(closeFrame, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// receive reads a frame. What the server sends is not masked.
func (w *wire) receive() (first byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return 0, "", err
	}
	size := uint64(head[1])
	switch size {
	case 126:
		var length [2]byte
		_, err = io.ReadFull(w.r, length[:])
		size = uint64(binary.BigEndian.Uint16(length[:]))
	case 127:
		var length [8]byte
		_, err = io.ReadFull(w.r, length[:])
		size = binary.BigEndian.Uint64(length[:])
	}
	if err != nil {
		return 0, "", err
	}
	if size > 2<<20 {
		return 0, "", fmt.Errorf("a frame of %d bytes", size)
	}
	data := make([]byte, size)
	_, err = io.ReadFull(w.r, data)
	return head[0], string(data), err
}

// noCode is what closed returns when a close frame names no code, and when the
// connection ended without one.
const (
	noCode  = 1005
	dropped = 1006
)

// closed reads to the end of the connection and returns the close code.
func (w *wire) closed() (code int, reason string) {
	w.t.Helper()
	code = dropped
	for {
		first, payload, err := w.receive()
		switch {
		case err != nil:
			if errors.Is(err, io.ErrUnexpectedEOF) {
				w.t.Errorf("the connection ended in the middle of a frame")
			}
			return code, reason
		case code != dropped:
			w.t.Errorf("after the close frame came %#x %.100q", first, payload)
		case first != closeFrame:
		case len(payload) < 2:
			code = noCode
		default:
			code, reason = int(binary.BigEndian.Uint16([]byte(payload))), payload[2:]
		}
	}
}

// until reads frames until one holds, and returns its payload.
func (w *wire) until(what string, holds func(first byte, payload string) bool) string {
	w.t.Helper()
	for {
		first, payload, err := w.receive()
		if err != nil {
			w.t.Fatalf("waiting for %s: %v", what, err)
		}
		if first == closeFrame {
			w.t.Fatalf("waiting for %s: closed with %q", what, payload)
		}
		if holds(first, payload) {
			return payload
		}
	}
}

// pong reads until the answer to a ping has come.
func (w *wire) pong(payload string) {
	w.t.Helper()
	w.until(fmt.Sprintf("pong %.20q", payload), func(first byte, got string) bool { return first == pongFrame && got == payload })
}

// see reads until a message of the view at a time has come.
func (w *wire) see(f *feed) {
	w.t.Helper()
	timestamp := `"timestamp":"` + f.at.String() + `"`
	w.until(timestamp, func(first byte, got string) bool { return first == textFrame && strings.Contains(got, timestamp) })
}

// Bystanders are well-behaved clients of all transports, who must not notice
// what others do.
type bystanders struct {
	f      *feed
	conns  []*conn
	models []*model
}

func bystandersOf(t *testing.T, s *site, f *feed) *bystanders {
	b := &bystanders{f: f}
	for transport := range transports {
		b.conns = append(b.conns, open(t, s, transport, "/api/stream/"+f.view.Name, ""))
		b.models = append(b.models, newModel())
	}
	b.see(t)
	return b
}

// see waits until all have seen what the view is now.
func (b *bystanders) see(t *testing.T) {
	t.Helper()
	for i, m := range b.models {
		if err := m.follow(b.conns[i], b.f.at); err != nil {
			t.Fatalf("a bystander: %v", err)
		}
		if got, want := m.views[b.f.view.Name].String(), b.f.now.String(); got != want {
			t.Fatalf("a bystander holds %s, want %s", got, want)
		}
	}
}

// change changes the view and waits until all have seen it.
func (b *bystanders) change(t *testing.T) {
	t.Helper()
	b.f.tick()
	b.see(t)
}

// tick changes a row that counts.
func (f *feed) tick() {
	f.t.Helper()
	var changes []change
	for r := range f.now {
		changes = append(changes, change{-1, r})
	}
	f.append(f.at+1, append(changes, change{1, row(`["Ada",%d]`, f.at)})...)
}
