package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/mzdio/mzd/engine"
)

// seeds are how many random histories a test runs; MZD_SEEDS asks for more.
func seeds() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("MZD_SEEDS"), 10, 64); err == nil {
		return n
	}
	return 10
}

func neverThePast(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 4))
	w := newWorld(t, engine.Options{TickEvents: 1 + rnd.IntN(50)})
	w.write("in", numbered("x", 1, 50))
	w.exec(lines)
	w.exec("CREATE TABLE t (x int); CREATE MATERIALIZED VIEW both AS SELECT count(*) AS n FROM (SELECT x FROM t UNION ALL SELECT 0 FROM lines) AS u")
	acknowledged, most := int64(0), int64(0)
	written := 50
	var time0, count int64
	observe := func(what string, at, n int64) {
		t.Helper()
		if at < time0 || n < count {
			t.Fatalf("seed %d: %s shows %d lines at %d after %d lines at %d", seed, what, n, at, count, time0)
		}
		time0, count = at, n
	}
	for range 20 {
		for range 1 + rnd.IntN(5) {
			n := 1 + rnd.IntN(100)
			w.write("in", numbered("x", written+1, written+n))
			written += n
			time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
			rows := query(t, w.s, "SELECT * FROM n")
			observe("SELECT", time0, rows[0][0].Int())
			w.exec("INSERT INTO t VALUES (1), (2)")
			acknowledged += 2
			if got := query(t, w.s, "SELECT count(*) FROM t")[0][0].Int(); got != acknowledged {
				t.Fatalf("seed %d: %d rows are acknowledged, and %d there", seed, acknowledged, got)
			}
			if got := query(t, w.s, "SELECT * FROM both")[0][0].Int(); got < most || got < acknowledged+count {
				t.Fatalf("seed %d: %d rows in both, after %d and %d of %d", seed, got, most, acknowledged, count)
			} else {
				most = got
			}
		}
		switch rnd.IntN(3) {
		case 0:
			w.restart()
		case 1: // a crash: what is on disk now is all that is left
			crashed := filepath.Join(w.dir, fmt.Sprint("crashed", rnd.Uint32()))
			if err := os.CopyFS(crashed, os.DirFS(w.opt.DataDir)); err != nil {
				t.Fatal(err)
			}
			w.stop()
			w.opt.DataDir = crashed
			w.start()
		}
		for range rnd.IntN(3) { // while it reads again what it had
			w.restart()
		}
		r := w.stream("SUBSCRIBE TO n WITH (PROGRESS)")
		for i := range 3 {
			rows, err := r.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				switch {
				case row[1].Bool() && i > 0: // all times below are closed; the first one tells AS OF
					observe("progress", row[0].Int()-1, count)
				case row[1].Bool():
					observe("AS OF", row[0].Int(), count)
				case row[2].Int() > 0:
					observe("SUBSCRIBE", row[0].Int(), row[3].Int())
				}
			}
		}
		r.Close()
	}
	if got := query(t, w.s, "SELECT count(*) FROM lines")[0][0].Int(); got < count || got > int64(written) {
		t.Errorf("seed %d: got %d of %d lines, had %d", seed, got, written, count)
	}
	w.stop()
	if rows, err := w.s.Parse("SELECT 1"); err != nil || len(rows) != 1 {
		t.Error(err)
	}
	if _, err := tryQuery(context.Background(), w.e.NewSession(), "SELECT * FROM n"); err != nil && !errors.Is(err, io.EOF) {
		var e *engine.Error
		if !errors.As(err, &e) || e.Code != "57P01" {
			t.Errorf("seed %d: after the end: %v", seed, err)
		}
	}
}
