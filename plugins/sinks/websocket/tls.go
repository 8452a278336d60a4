package websocket

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mzdio/mzd/schema"
)

// TLS names the files of a certificate.
type TLS struct {
	Cert string `json:"cert" doc:"File of the certificate and those that lead from it to a root, as PEM."`
	Key  string `json:"key" doc:"File of its private key, as PEM."`
}

func (t TLS) validate() error {
	if (t.Cert == "") == (t.Key == "") {
		return nil
	}
	return schema.Errorf("tls", "needs both cert and key")
}

// config returns the configuration of a server, nil without TLS. The files are
// read now, so that what is wrong with them is known before anything runs.
func (t TLS) config(log *slog.Logger) (*tls.Config, error) {
	if t.Cert == "" {
		return nil, nil
	}
	c := &certificate{files: t, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
		NextProtos:     []string{"http/1.1"}, // the streams of HTTP/2 share a connection, which could not be taken over
		MinVersion:     tls.VersionTLS12,
	}, nil
}

// certificate is a certificate whose files may change.
type certificate struct {
	files TLS
	log   *slog.Logger

	// mu guards what follows: the certificate, when its files had last changed
	// and when they were last looked at.
	mu      sync.Mutex
	loaded  *tls.Certificate
	changed [2]time.Time
	looked  time.Time
}

// certificateGlance is how often the files are looked at, at most.
const certificateGlance = time.Second

// current returns the certificate. One that cannot be read, as while its files
// are being replaced, leaves the one before it in use.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= certificateGlance {
		c.looked = now
		if changed, err := c.modified(); err != nil || changed != c.changed {
			if err := c.load(); err != nil {
				c.log.Warn("keep the old certificate", "err", err)
			}
			c.changed = changed
		}
	}
	return c.loaded
}

// modified returns when the files were last changed.
func (c *certificate) modified() (at [2]time.Time, err error) {
	for i, name := range []string{c.files.Cert, c.files.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return at, err
		}
		at[i] = info.ModTime()
	}
	return at, nil
}

func (c *certificate) load() error {
	changed, err := c.modified()
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	loaded, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("tls: certificate %s with key %s: %w", c.files.Cert, c.files.Key, err)
	}
	c.loaded, c.changed = &loaded, changed
	return nil
}

// tlsPiece is how much of a message is encrypted at once: a record.
const tlsPiece = 16 << 10

// A tlsWire is a wire whose bytes are encrypted in memory. Clients share a
// message until it is encrypted, a record at a time, so that a slow one holds no
// more of its own than one.
type tlsWire struct {
	wire
	conn *tls.Conn
	rest []byte // encrypted and not yet written
	out  []byte // where conn writes to
}

// tlsBuffers are buffers for a record.
var tlsBuffers = sync.Pool{New: func() any { b := make([]byte, 0, tlsPiece+1<<10); return &b }}

// newTLSWire continues a connection whose handshake is done on a wire. under is
// the connection that it was on, which now leads to memory.
func newTLSWire(c *tls.Conn, under *gatedConn, w wire) *tlsWire {
	t := &tlsWire{wire: w, conn: c}
	under.Conn = (*tlsEnd)(t)
	return t
}

func (t *tlsWire) read(p []byte) (int, error) {
	n, err := t.conn.Read(p)
	if len(t.out) > 0 { // the protocol has answered something
		t.rest, t.out = append(t.rest, t.out...), nil
		if _, err := t.flush(); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (t *tlsWire) write(p []byte, _ bool) (n int, blocked bool, err error) {
	for {
		if blocked, err = t.flush(); blocked || err != nil || len(p) == 0 {
			return n, blocked, err
		}
		piece := p[:min(len(p), tlsPiece)]
		buf := tlsBuffers.Get().(*[]byte)
		t.out = (*buf)[:0]
		if _, err = t.conn.Write(piece); err != nil {
			return n, false, err
		}
		t.rest, t.out = t.out, nil
		n, p = n+len(piece), p[len(piece):]
		if blocked, err = t.flush(); !blocked && err == nil {
			tlsBuffers.Put(buf) // otherwise somebody may still need it
		}
		if blocked || err != nil {
			return n, blocked, err
		}
	}
}

// flush writes what is encrypted.
func (t *tlsWire) flush() (blocked bool, err error) {
	n, blocked, err := t.wire.write(t.rest, false)
	if t.rest = t.rest[n:]; len(t.rest) == 0 {
		t.rest = nil
	}
	return blocked || t.rest != nil, err
}

func (t *tlsWire) finish() {
	t.conn.CloseWrite()
	t.rest, t.out = append(t.rest, t.out...), nil
	t.flush() // what does not fit is not missed: the peer has its goodbye
	t.wire.finish()
}

// tlsEnd is a tlsWire as the connection that its TLS connection is on.
type tlsEnd tlsWire

func (t *tlsEnd) Read(p []byte) (int, error) { return t.wire.read(p) }

func (t *tlsEnd) Write(p []byte) (int, error) {
	t.out = append(t.out, p...)
	return len(p), nil
}

func (t *tlsEnd) Close() error                     { return nil }
func (t *tlsEnd) LocalAddr() net.Addr              { return nil }
func (t *tlsEnd) RemoteAddr() net.Addr             { return nil }
func (t *tlsEnd) SetDeadline(time.Time) error      { return nil }
func (t *tlsEnd) SetReadDeadline(time.Time) error  { return nil }
func (t *tlsEnd) SetWriteDeadline(time.Time) error { return nil }
