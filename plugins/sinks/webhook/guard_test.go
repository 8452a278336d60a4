package webhook_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/webhook"
)

func TestPrivateAddresses(t *testing.T) {
	for _, tt := range []struct {
		private bool
		all     string
	}{
		{true, "0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1 192.0.0.8 " +
			"198.18.0.1 224.0.0.1 255.255.255.255 240.0.0.1"},
		{true, ":: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 fe80::1 fe80::1%eth0 fc00::1 fd12:3456::1 ff02::1 ::127.0.0.1 64:ff9b::127.0.0.1 " +
			"64:ff9b::a9fe:a9fe 64:ff9b:1::1 2001::1 2001:db8::1 2002:7f00:1:: 100::1 fec0::1"},
		{false, "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.167.0.1 192.169.0.1 223.255.255.255 11.0.0.1 126.0.0.1 128.0.0.1"},
		{false, "2606:4700::1111 2a00:1450:4001::1 ::ffff:8.8.8.8 64:ff9b::808:808 2001:4860:4860::8888"},
	} {
		for _, a := range strings.Fields(tt.all) {
			if got := webhook.IsPrivate(netip.MustParseAddr(a)); got != tt.private {
				t.Errorf("%s: private: %t, want %t", a, got, tt.private)
			}
		}
	}
}

// names is a DNS server that gives one address of the list after the other, as
// somebody does who wants to get past a look at the first one.
func names(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	done := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			end := 12
			for buf[end] != 0 {
				end += int(buf[end]) + 1
			}
			end += 5 // the zero, type and class
			if n < end {
				continue
			}
			reply := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, buf[12:end]...)
			if isA := buf[end-3] == 1; isA {
				i := int(asked.Add(1)-1) % len(addresses)
				ip := netip.MustParseAddr(addresses[i]).As4()
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				reply = append(reply, ip[:]...)
			}
			conn.WriteTo(reply, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// TestNamesThatLeadInside checks the address that is connected to, each time.
func TestNamesThatLeadInside(t *testing.T) {
	var reached atomic.Int32
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.ConnState = func(net.Conn, http.ConnState) { reached.Add(1) }
	srv.Start()
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		s         webhook.Settings
		addresses []string
		want      string
	}{
		{webhook.Settings{URL: "https://hook.example:" + port}, []string{"127.0.0.1"}, "leads to 127.0.0.1, which is this machine"},
		{webhook.Settings{URL: "https://hook.example:" + port}, []string{"169.254.169.254", "10.0.0.1"}, "leads to 1"},
		{webhook.Settings{URL: "http://hook.example:" + port, AllowPrivate: true}, []string{"8.8.8.8"}, "leads to 8.8.8.8 over http"},
	} {
		sink, err := webhook.New(t.Context(), tt.s)
		if err != nil {
			t.Fatal(err)
		}
		webhook.Resolve(sink, names(t, tt.addresses...))
		for range 2 {
			err := sink.Write(t.Context(), []core.Batch{batch(top10, 1, 2, 1, "[1]")})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %s", tt.s.URL, err, tt.want)
			}
		}
		sink.Close()
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the receiver was reached %d times", n)
	}
}

// TestTLS posts over TLS, with HTTP/1.1 and with HTTP/2.
func TestTLS(t *testing.T) {
	for _, major := range []int{1, 2} {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != major {
				t.Errorf("got %s", r.Proto)
			}
		}))
		srv.EnableHTTP2 = major == 2
		srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of the certificate
		srv.StartTLS()
		sink := open(t, webhook.Settings{URL: srv.URL})
		if err := sink.Write(t.Context(), []core.Batch{batch(top10, 1, 2, 1, "[1]")}); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("a certificate that nobody has signed: got %v", err)
		}
		webhook.Trust(sink, srv.Certificate())
		for i := range 3 {
			write(t, sink, batch(top10, core.Time(i+1), core.Time(i+2), 1, "[1]"))
		}
		sink.Close()
		srv.Close()
	}
}
