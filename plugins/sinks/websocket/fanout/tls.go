//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// tlsClients are clients over TLS, with a goroutine each: what they cost is not
// measured, only what they cost the server.
type tlsClients struct {
	mu sync.Mutex // guards what follows
	tally
	moved *sync.Cond
	err   error
	socks []net.Conn
	ended sync.WaitGroup
}

func newTLSClients() *tlsClients {
	cs := &tlsClients{}
	cs.moved = sync.NewCond(&cs.mu)
	return cs
}

func (cs *tlsClients) connect(address, path string, n int) error {
	for range n {
		sock, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // its certificate is made for the occasion
		if err != nil {
			return err
		}
		c := &client{upgrade: true}
		cs.mu.Lock()
		cs.conns, cs.socks = append(cs.conns, c), append(cs.socks, sock)
		cs.n++
		cs.mu.Unlock()
		if _, err := sock.Write(requestFor(address, path)); err != nil {
			return err
		}
		cs.ended.Go(func() { cs.read(c, sock) })
	}
	return cs.until(func() bool { return cs.open == cs.n })
}

// read reads what comes for a client until the connection ends.
func (cs *tlsClients) read(c *client, sock net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := sock.Read(buf)
		cs.mu.Lock()
		err = errors.Join(err, cs.receive(c, buf[:n]))
		cs.err = errors.Join(cs.err, err)
		cs.mu.Unlock()
		cs.moved.Broadcast()
		if err != nil {
			return
		}
	}
}

// until waits until a condition holds.
func (cs *tlsClients) until(done func() bool) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for !done() && cs.err == nil {
		cs.moved.Wait()
	}
	return cs.err
}

func (cs *tlsClients) await(goal uint64) error {
	cs.mu.Lock()
	cs.aim(goal)
	cs.mu.Unlock()
	return cs.late(cs.until(cs.atGoal))
}

func (cs *tlsClients) rest(until time.Time) error {
	time.Sleep(time.Until(until))
	return nil
}

func (cs *tlsClients) counted() (bytes, frames int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.tally.counted()
}

func (cs *tlsClients) close() {
	for _, sock := range cs.socks {
		sock.Close()
	}
	cs.ended.Wait()
}

// certificate writes a certificate and its key into files of a directory.
func certificate(dir string) (certFile, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{loopback[:]}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return certFile, keyFile, errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
	)
}
