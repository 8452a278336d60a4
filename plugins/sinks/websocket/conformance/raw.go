package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// What http.Client does not let a client do: wrong frames, bodies, and reading
// slowly.

// A rawConn is a connection of which the test writes the bytes.
type rawConn struct {
	*check
	net.Conn
	in *bufio.Reader
}

func (c *check) connect() *rawConn {
	c.Helper()
	conn, err := c.dial(c.ctx)
	if err != nil {
		c.Fatal(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetReadBuffer(4 << 10)
	}
	context.AfterFunc(c.ctx, func() { conn.Close() })
	return &rawConn{check: c, Conn: conn, in: bufio.NewReaderSize(conn, 4<<10)}
}

func (c *check) host() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		c.Fatal(err)
	}
	return u.Host
}

// loopback reports whether the server is asked for by a name of this machine.
func (c *check) loopback() bool {
	host, _, _ := net.SplitHostPort(c.host())
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// send writes, without waiting for the other side to read.
func (conn *rawConn) send(data []byte) {
	go conn.Write(data) // an error shows when the answer is read
}

// raw sends a request as it is and returns the answer and its body.
func (c *check) raw(request string) (*http.Response, string) {
	c.Helper()
	conn := c.connect()
	conn.send([]byte(request))
	response, err := http.ReadResponse(conn.in, nil)
	if err != nil {
		c.Fatalf("%.60q: %v", request, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.Fatalf("%.60q: %v", request, err)
	}
	return response, string(body)
}

// slowly opens a stream of lines that is read from the network only when its
// client reads.
func (c *check) slowly(path string) *stream {
	c.Helper()
	conn := c.connect()
	conn.send([]byte("GET " + path + " HTTP/1.1\r\nHost: " + c.host() + "\r\n\r\n"))
	s := &stream{check: c, path: path, state: state{views: map[string]*view{}}}
	var lines *bufio.Reader
	s.next = func() (string, error) {
		if lines == nil {
			response, err := http.ReadResponse(conn.in, nil)
			if err != nil {
				return "", err
			}
			if response.StatusCode != http.StatusOK {
				return "", fmt.Errorf("status %d", response.StatusCode)
			}
			lines = bufio.NewReader(response.Body)
		}
		line, err := lines.ReadString('\n')
		return strings.TrimSuffix(line, "\n"), err
	}
	return s
}

// upgradeRaw opens a websocket.
func (c *check) upgradeRaw(path string) *rawConn {
	c.Helper()
	conn := c.connect()
	request := "GET " + path + " HTTP/1.1\r\nHost: " + c.host() + "\r\n"
	for i := 0; i < len(upgrade); i += 2 {
		request += upgrade[i] + ": " + upgrade[i+1] + "\r\n"
	}
	conn.send([]byte(request + "\r\n"))
	response, err := http.ReadResponse(conn.in, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		c.Fatalf("%s: %v, %v, want 101", path, response, err)
	}
	return conn
}

// closeCode reads frames until the one that closes, and returns its code.
func (conn *rawConn) closeCode() (int, error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(conn.in, head[:]); err != nil {
			return 0, err
		}
		n := int64(head[1])
		if head[1] >= 126 { // with the mask's bit, which a server does not set
			var long [8]byte
			size := map[byte]int{126: 2, 127: 8}[head[1]]
			if size == 0 {
				return 0, errors.New("a masked frame of the server")
			}
			if _, err := io.ReadFull(conn.in, long[8-size:]); err != nil {
				return 0, err
			}
			n = 0
			for _, b := range long {
				n = n<<8 | int64(b)
			}
		}
		payload, err := io.ReadAll(io.LimitReader(conn.in, n))
		if err != nil {
			return 0, err
		}
		if head[0] == 0x88 {
			if len(payload) < 2 {
				return 1005, nil
			}
			return int(payload[0])<<8 | int(payload[1]), nil
		}
	}
}
