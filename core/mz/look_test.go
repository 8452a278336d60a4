package mz_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/mz"
)

// TestLook follows a view that is dropped, or loses its name, while its stream says
// nothing about it: whether it falls silent, or goes on.
func TestLook(t *testing.T) {
	for name, tt := range map[string]struct {
		version string
		change  func(*server)
		ends    bool
	}{
		"dropped, before v0.43":  {"v0.26.1-dev", func(s *server) { s.objects = map[string]string{} }, true},
		"created anew":           {"v0.70.2", func(s *server) { s.objects = map[string]string{"v": "u8"} }, true},
		"schemas swap":           {"v26.39.0", func(s *server) { s.schema = "blue" }, true},
		"another in a schema":    {"v26.39.0", func(s *server) { s.objects["w"] = "u9" }, false},
		"nothing":                {"v26.39.0", func(*server) {}, false},
		"server starts again":    {"v26.39.0", func(s *server) { s.startup = fatal("57P03", "starting up") }, false},
		"the embedded one tells": {"mzd embedded (not Materialize)", func(s *server) { s.objects = map[string]string{} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := core.Time(time.Now().UnixMilli()) + 1000
				srv := today()
				srv.version = tt.version
				srv.scripts = []script{{columns(), progress(p), progress(p + 1), hang{}}}
				s := srv.subscribe(t, mz.Request{Name: "v"})
				expect(t, s, show(core.Batch{Upper: core.Token{Time: p + 1}}))
				srv.mu.Lock()
				tt.change(srv)
				srv.mu.Unlock()
				begun := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() {
					_, err := s.Next(ctx)
					ended <- err
				}()
				select {
				case err := <-ended:
					e, ok := err.(*mz.Error)
					if !tt.ends || !ok || e.Reason() != mz.Dropped || !e.Retryable() || !strings.HasPrefix(e.Error(), "view v: it was dropped") || time.Since(begun) > 2*time.Minute {
						t.Errorf("after %s: %v", time.Since(begun), err)
					}
				case <-time.After(time.Hour):
					if tt.ends {
						t.Error("the stream goes on")
					}
					cancel()
					<-ended
				}
				s.Close()
				srv.conns.Wait()
			})
		})
	}
}
