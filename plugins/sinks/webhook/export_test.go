package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
)

// Resolve makes a sink look up names with a resolver of the test.
func Resolve(s *Sink, r *net.Resolver) {
	d := newDialer(s.settings)
	d.Resolver = r
	s.client = newClient(s.settings, d)
}

// Trust makes a sink trust a certificate.
func Trust(s *Sink, c *x509.Certificate) {
	roots := x509.NewCertPool()
	roots.AddCert(c)
	s.client = newClient(s.settings, newDialer(s.settings)) // one that was used has made up its mind about protocols
	s.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
}

// IsPrivate is isPrivate.
func IsPrivate(a netip.Addr) bool { return isPrivate(a) }
