package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// adminState is what the functions behind an admin server say.
type adminState struct {
	health error
	ready  readiness
	status any
}

// startAdmin serves the state until the test ends.
func startAdmin(t *testing.T, s *adminState) (url string) {
	t.Helper()
	a, err := newAdmin("127.0.0.1:0", newRegistry(),
		func() error { return s.health }, func() readiness { return s.ready }, func() any { return s.status })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: got %v, want nil", err)
		}
		if err := a.Close(); err != nil {
			t.Errorf("close after serve: got %v, want nil", err)
		}
		goleak.VerifyNone(t)
	})
	return "http://" + a.Addr().String()
}

func get(t *testing.T, url, host string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestAdminAnswers(t *testing.T) {
	s := &adminState{}
	url := startAdmin(t, s)
	tests := []struct {
		name, path string
		state      adminState
		code       int
		want       string // a part of the answer
	}{
		{"index", "/", adminState{}, 200, "/metrics"},
		{"nothing else", "/nope", adminState{}, 404, ""},
		{"alive", "/healthz", adminState{}, 200, "ok\n"},
		{"not alive", "/healthz", adminState{health: errors.New("disk full")}, 503, "disk full"},
		{"ready", "/readyz", adminState{ready: readiness{Ready: true, Degraded: []string{"sink hook"}}}, 200, "{\n  \"ready\": true,\n  \"degraded\": [\n    \"sink hook\"\n  ]\n}\n"},
		{"not ready", "/readyz", adminState{ready: readiness{Waiting: []string{"top10"}}}, 503, `"top10"`},
		{"status", "/api/status", adminState{status: map[string]int{"views": 2}}, 200, "{\n  \"views\": 2\n}\n"},
		{"status that JSON cannot hold", "/api/status", adminState{status: math.NaN()}, 500, "NaN"},
		{"build", "/metrics", adminState{}, 200, "mzd_build_info{goversion="},
		{"runtime", "/metrics", adminState{}, 200, "go_goroutines "},
	}
	for _, tt := range tests {
		*s = tt.state
		code, body := get(t, url+tt.path, "")
		if code != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s: got %d and %.300q, want %d and %q", tt.name, code, body, tt.code, tt.want)
		}
	}
	if _, body := get(t, url+"/readyz", ""); !json.Valid([]byte(body)) {
		t.Errorf("not JSON: %s", body)
	}
}

func TestAdminIsForThisMachine(t *testing.T) {
	url := startAdmin(t, &adminState{})
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9875": 200, "127.0.0.1:1": 200, "[::1]": 200, "[::1]:9875": 200,
		"evil.example": 403, "evil.example:9875": 403, "127.0.0.1.evil.example": 403, "10.0.0.1:9875": 403,
	} {
		if got, _ := get(t, url+"/healthz", host); got != want {
			t.Errorf("host %s: got %d, want %d", host, got, want)
		}
	}
}

func TestAdminPortTaken(t *testing.T) {
	a, err := newAdmin("127.0.0.1:0", newRegistry(), nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	addr := a.Addr().String()
	_, err = newAdmin(addr, newRegistry(), nil, nil, nil)
	if got := exitCode(t.Context(), err); got != exitEnvironment || !strings.Contains(err.Error(), addr) {
		t.Errorf("got exit code %d and %v, want %d and %s", got, err, exitEnvironment, addr)
	}
}
