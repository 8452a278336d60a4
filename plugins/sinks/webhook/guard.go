package webhook

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// guard decides which addresses may be connected to. Whoever can write a URL
// into a configuration must not be able to make mzd speak to what only mzd can
// reach, such as the metadata service of a cloud. It sees the address itself and
// not the name, which may stand for another one by then (DNS rebinding).
type guard struct {
	allowPrivate bool
	plain        bool // no TLS
}

// control is called by a dialer for each address, before it connects.
func (g guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return g.check(to.Addr())
}

func (g guard) check(addr netip.Addr) error {
	private := isPrivate(addr)
	switch {
	case private && !g.allowPrivate:
		return addressError(fmt.Sprintf("leads to %s, which is this machine or a private network; set allow_private: true if that is meant", addr))
	case !private && g.plain:
		return addressError(fmt.Sprintf("leads to %s over http, so that anybody on the way could read and change what is sent; use https", addr))
	}
	return nil
}

// addressError says why an address is not connected to.
type addressError string

func (e addressError) Error() string { return string(e) }

// notPublic are the networks that are not the public internet, from the
// registries of special-purpose addresses that IANA keeps (RFC 6890).
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

var (
	unicast = netip.MustParsePrefix("2000::/3")     // all of IPv6 that is public
	nat64   = netip.MustParsePrefix("64:ff9b::/96") // IPv4 as IPv6-only networks reach it (RFC 6052)
)

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// isPrivate reports whether an address is anything but one of the public
// internet.
func isPrivate(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	if addr.Is6() && !unicast.Contains(addr) {
		return true
	}
	return slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(addr) })
}
