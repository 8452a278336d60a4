package websocket_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ws "github.com/coder/websocket"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// writeCertificate writes a certificate of a name for 127.0.0.1 and its key.
func writeCertificate(t *testing.T, files websocket.TLS, name string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour * 365 * 100),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

func tlsFiles(t *testing.T) websocket.TLS {
	dir := t.TempDir()
	return websocket.TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

// serveTLS serves views over TLS.
func serveTLS(t *testing.T, views ...core.Reader) *site {
	t.Helper()
	files := tlsFiles(t)
	pool := writeCertificate(t, files, "mzd")
	sink, err := websocket.New(t.Context(), websocket.Settings{Listen: "127.0.0.1:0", TLS: &files})
	if err != nil {
		t.Fatal(err)
	}
	return start(t, sink, &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, views)
}

func TestStreamsOverTLS(t *testing.T) {
	f := newFeed(t, "top10")
	s := serveTLS(t, f)
	f.reset(1000, `["Ada",12]`)
	if response, body := s.get(t, "/api/views/top10"); response.StatusCode != 200 || !strings.Contains(body, "Ada") {
		t.Errorf("snapshot: got %d %s", response.StatusCode, body)
	}
	for transport := range transports {
		t.Run(transport, func(t *testing.T) {
			c, m := open(t, s, transport, "/api/stream/top10", ""), newModel()
			if err := m.follow(c, f.at); err != nil {
				t.Fatal(err)
			}
			for i := range 50 {
				f.append(f.at+1, change{1, row(`["%s",%d]`, strings.Repeat("x", i*i*i), i)}) // from one record to several
				if err := m.follow(c, f.at); err != nil {
					t.Fatal(err)
				}
			}
			f.append(f.at+1, change{1, row(`["%s",0]`, strings.Repeat("y", 1900<<10))}) // more than the kernel takes
			for i := range 20 {
				f.append(f.at+1, change{1, row(`["%s",%d]`, strings.Repeat("z", 100<<10), i)})
			}
			if err := m.follow(c, f.at); err != nil {
				t.Fatal(err)
			}
			if m.views["top10"].String() != f.now.String() {
				t.Error("the client has something else than the view")
			}
			f.reset(f.at+1, `["Ada",12]`)
			if err := m.follow(c, f.at); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What a client says is read between the messages to it.
func TestPingsOverTLS(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",12]`)
	s := serveTLS(t, f)
	c, _, err := ws.Dial(t.Context(), s.url+"/api/stream/top10", &ws.DialOptions{HTTPClient: s.client})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(-1)
	in := &conn{next: func() (string, error) {
		_, data, err := c.Read(t.Context())
		return string(data), err
	}}
	m := newModel()
	for i := range 20 {
		pong := make(chan error, 1)
		go func() { pong <- c.Ping(t.Context()) }()
		for err := error(nil); ; {
			f.append(f.at+1, change{1, row(`["%s",%d]`, strings.Repeat("x", i<<12), i)})
			if err = m.follow(in, f.at); err != nil {
				t.Fatal(err)
			}
			select {
			case err = <-pong:
			default:
				continue // the pong comes when a message is read
			}
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}
}

func TestTLSGoodbye(t *testing.T) {
	f := newFeed(t, "top10")
	f.reset(1000, `["Ada",12]`)
	s := serveTLS(t, f)
	c, m := open(t, s, "websocket", "/api/stream/top10", ""), newModel()
	if err := m.follow(c, 1000); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	text, err := c.next()
	if err != nil || !strings.Contains(text, `"stopping"`) {
		t.Errorf("got %s, %v, want the error stopping", text, err)
	}
	if _, err := c.next(); err == nil || !strings.Contains(err.Error(), "1012") && !strings.Contains(err.Error(), "ServiceRestart") {
		t.Errorf("got %v, want close code 1012", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestPlainHTTPOnTLS(t *testing.T) {
	s := serveTLS(t)
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil || !strings.Contains(string(buf[:n]), "400") {
		t.Errorf("got %q, %v, want status 400", buf[:n], err)
	}
}

func TestCertificatesAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := tlsFiles(t)
		writeCertificate(t, files, "first")
		current, err := websocket.Certificate(files, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		want := func(name string) {
			t.Helper()
			leaf, err := x509.ParseCertificate(current().Certificate[0])
			if err != nil || leaf.Subject.CommonName != name {
				t.Errorf("certificate of %v, %v, want %s", leaf.Subject, err, name)
			}
		}
		want("first")
		old := time.Unix(1_000_000, 0) // the clock of files may be coarse
		writeCertificate(t, files, "second")
		if err := errors.Join(os.Chtimes(files.Cert, old, old), os.Chtimes(files.Key, old, old)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		want("second")
		if err := os.WriteFile(files.Key, []byte("half a key"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		want("second") // what is broken changes nothing
		writeCertificate(t, files, "third")
		time.Sleep(2 * time.Second)
		want("third")
		if err := os.Remove(files.Cert); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		want("third")
	})
}

func TestTLSSettings(t *testing.T) {
	for _, s := range []websocket.TLS{{Cert: "cert.pem"}, {Key: "key.pem"}} {
		if _, err := websocket.New(t.Context(), websocket.Settings{Listen: "127.0.0.1:0", TLS: &s}); !errors.Is(err, core.ErrPermanent) || !strings.Contains(err.Error(), "tls") {
			t.Errorf("%v: got %v, want a permanent error about tls", s, err)
		}
	}
	files := tlsFiles(t)
	if _, err := websocket.New(t.Context(), websocket.Settings{Listen: "127.0.0.1:0", TLS: &files}); err == nil || !strings.Contains(err.Error(), files.Cert) {
		t.Errorf("no files: got %v, want an error that names one", err)
	}
}
