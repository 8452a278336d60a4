package mz_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/core/mz"
	"github.com/mzdio/mzd/core/pgtest"
)

// What is wrong with and without TLS, which are both tried, is said once, and what
// the server advises is a sentence of its own.
func TestErrorTexts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c, err := mz.New(mz.Config{URL: "postgres://u:secret@" + l.Addr().String() + "/materialize"})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Exec(t.Context(), "SELECT 1")
	if n := strings.Count(err.Error(), "connection refused"); n != 1 || strings.Contains(err.Error(), "\n") {
		t.Errorf("the reason is there %d times, want once on one line: %v", n, err)
	}

	srv := today()
	srv.scripts = []script{{&pgproto3.ErrorResponse{Severity: "ERROR", Code: "0A000", Message: "no function now", Hint: "Put the time into the event."}}}
	_, err = srv.client(t).Subscribe(t.Context(), mz.Request{Name: "v"})
	if want := "view v: no function now. Put the time into the event (SQLSTATE 0A000)"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// Whatever sslmode and certificates say, a connection comes about or the error
// says that it is encryption, and what to check.
func TestTLS(t *testing.T) {
	cert, root := certificate(t)
	_, otherRoot := certificate(t)
	for _, tt := range []struct {
		name, params string
		server       *tls.Config // nil: it has no TLS
		reason       string      // empty: it works
	}{
		{"disable", "sslmode=disable", cert, ""},
		{"prefer", "sslmode=prefer", cert, ""},
		{"prefer, none there", "sslmode=prefer", nil, ""},
		{"the default, none there", "", nil, ""},
		{"require", "sslmode=require", cert, ""},
		{"require, none there", "sslmode=require", nil, mz.TLS},
		{"verify-ca", "sslmode=verify-ca&sslrootcert=" + root, cert, ""},
		{"verify-ca, another root", "sslmode=verify-ca&sslrootcert=" + otherRoot, cert, mz.TLS},
		{"verify-full", "sslmode=verify-full&sslrootcert=" + root, cert, ""},
		{"verify-full, another root", "sslmode=verify-full&sslrootcert=" + otherRoot, cert, mz.TLS},
		{"verify-full, none there", "sslmode=verify-full&sslrootcert=" + root, nil, mz.TLS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := serveTLS(t, tt.server)
			c, err := mz.New(mz.Config{URL: "postgres://u:secret@" + addr + "/materialize?" + tt.params})
			if err != nil {
				t.Fatal(err)
			}
			err = c.Exec(t.Context(), "CREATE VIEW v AS SELECT 1")
			if tt.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *mz.Error
			if !errors.As(err, &e) || e.Reason() != tt.reason || e.Retryable() || !strings.Contains(e.Error(), "sslmode") || strings.Contains(e.Error(), "secret") {
				t.Errorf("%v, want %s", err, tt.reason)
			}
		})
	}
	t.Run("verify-full, another name", func(t *testing.T) {
		addr := serveTLS(t, cert)
		c, err := mz.New(mz.Config{
			URL: "postgres://u@elsewhere.example/materialize?sslmode=verify-full&sslrootcert=" + root,
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		var e *mz.Error
		if err := c.Exec(t.Context(), "SELECT 1"); !errors.As(err, &e) || e.Reason() != mz.TLS {
			t.Errorf("%v, want %s", err, mz.TLS)
		}
	})
}

// serveTLS runs the scripted server on a port, with or without TLS.
func serveTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := today()
	srv.conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			srv.conns.Go(func() {
				defer conn.Close()
				srv.negotiate(conn, config)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		srv.conns.Wait()
	})
	return ln.Addr().String()
}

// negotiate answers the request for TLS that comes before anything else, if one
// comes.
func (s *server) negotiate(conn net.Conn, config *tls.Config) {
	first := make([]byte, 8)
	if _, err := conn.Read(first); err != nil {
		return
	}
	if new(pgproto3.SSLRequest).Decode(first[4:]) != nil {
		s.serve(pgproto3.NewBackend(prefixed{conn, &first}, conn))
		return
	}
	if config == nil {
		conn.Write([]byte("N"))
		s.serve(pgproto3.NewBackend(conn, conn))
		return
	}
	conn.Write([]byte("S"))
	encrypted := tls.Server(conn, config)
	defer encrypted.Close()
	s.serve(pgproto3.NewBackend(encrypted, encrypted))
}

// prefixed is a connection of which something was read already.
type prefixed struct {
	net.Conn
	read *[]byte
}

func (c prefixed) Read(b []byte) (int, error) {
	if len(*c.read) > 0 {
		n := copy(b, *c.read)
		*c.read = (*c.read)[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// certificate makes one for 127.0.0.1 that vouches for itself, and a file of it.
func certificate(t *testing.T) (server *tls.Config, root string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mzd test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, root
}

// A real PostgreSQL asks for passwords as Materialize does, in clear text or by
// SCRAM; and it is told apart from a Materialize.
func TestPasswords(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Start(t)
	pg, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(t.Context())
	if _, err := pg.Exec(t.Context(), `
		CREATE ROLE scram LOGIN PASSWORD 'pass/word';
		CREATE ROLE clear LOGIN PASSWORD 'pass/word';
		COPY (VALUES ('local all scram scram-sha-256'), ('local all clear password'), ('local all all trust')) TO PROGRAM 'cat > pg_hba.conf'`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := pg.Exec(t.Context(), "SELECT pg_reload_conf()").ReadAll(); err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimPrefix(strings.Fields(dsn)[0], "host=")
	for _, user := range []string{"scram", "clear"} {
		for password, reason := range map[string]string{"pass/word": mz.Protocol, "wrong": mz.Auth, "": mz.Auth} {
			u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Path: "/postgres", RawQuery: "sslmode=disable&host=" + url.QueryEscape(dir)}
			c, err := mz.New(mz.Config{URL: u.String()})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Subscribe(t.Context(), mz.Request{Name: "v"})
			var e *mz.Error
			if !errors.As(err, &e) || e.Reason() != reason || strings.Contains(e.Error(), "pass/word") {
				t.Errorf("%s with %q: %v, want %s", user, password, err, reason)
			}
			if reason == mz.Protocol && !strings.Contains(err.Error(), "is not Materialize") {
				t.Errorf("a PostgreSQL is taken for %v", err)
			}
		}
	}
}

// Settings of the session stand in the URL.
func TestSessionSettings(t *testing.T) {
	srv := today()
	c, err := mz.New(mz.Config{URL: "postgres://u@db/materialize?sslmode=disable&cluster=small&options=--search_path%3Dblue", Dial: srv.dial})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(t.Context(), "CREATE VIEW v AS SELECT 1"); err != nil {
		t.Fatal(err)
	}
	srv.conns.Wait()
	for name, want := range map[string]string{"cluster": "small", "options": "--search_path=blue", "application_name": "mzd", "database": "materialize"} {
		if got := srv.parameters[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
