package refusal_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core/refusal"
)

func answer(after, body string) *http.Response {
	return &http.Response{
		StatusCode: 503, Status: "503 Service Unavailable",
		Header: http.Header{"Retry-After": {after}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // for its clock
		for _, tt := range []struct {
			after string
			want  time.Duration
		}{
			{"", 0}, {"0", 0}, {"7", 7 * time.Second}, {"-7", 0}, {"soon", 0}, {"99999999999999999999", 0},
			{"4000000", time.Hour},
			{time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat), 90 * time.Second},
			{time.Now().Add(-90 * time.Second).UTC().Format(http.TimeFormat), 0},
			{time.Now().Add(90 * time.Hour).UTC().Format(http.TimeFormat), time.Hour},
		} {
			if got := refusal.Of(answer(tt.after, "")).RetryAfter(); got != tt.want {
				t.Errorf("%q: got %s, want %s", tt.after, got, tt.want)
			}
		}
	})
}

func TestError(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{"", "503 Service Unavailable"},
		{" \n ", "503 Service Unavailable"},
		{"\nout of order\r\nand more", `503 Service Unavailable; the server says "out of order"`},
		{"evil \x1b[31m \xff", `503 Service Unavailable; the server says "evil \x1b[31m"`},
		{strings.Repeat("x", 1<<20), `503 Service Unavailable; the server says "` + strings.Repeat("x", 512) + `"`},
	} {
		if got := refusal.Of(answer("", tt.body)).Error(); got != tt.want {
			t.Errorf("%.40q: got %s, want %s", tt.body, got, tt.want)
		}
	}
}
