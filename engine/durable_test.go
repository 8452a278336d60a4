package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/mzdio/mzd/core/durable/durabletest"
	"github.com/mzdio/mzd/engine"
)

// ledger is a history of statements over an engine in a file system that may fail, and what the tables must hold.
type ledger struct {
	t       *testing.T
	fs      *durabletest.FS
	e       *engine.Engine
	s       *engine.Session
	stop    func()
	tables  map[string][]string // by name, what is certain
	unknown map[string][]string // the same with the statement of which nobody knows; nil: there is none
}

func openLedger(t *testing.T, fs *durabletest.FS) (*ledger, error) {
	e, err := engine.Open(engine.Options{FS: fs, DataDir: "engine", BaseDir: "."})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Run(ctx) // what it says of the state is nothing new
	}()
	l := &ledger{t: t, fs: fs, e: e, s: e.NewSession(), tables: map[string][]string{}}
	l.stop = sync.OnceFunc(func() {
		l.s.Close()
		cancel()
		<-ended
	})
	return l, nil
}

// steps are statements that each are a transaction, and what they do to the tables.
var steps = []struct {
	sql string
	do  func(map[string][]string)
}{
	{"CREATE TABLE a (x int, s text)", func(t map[string][]string) { t["a"] = []string{} }},
	{"CREATE TABLE b (y int)", func(t map[string][]string) { t["b"] = []string{} }},
	{"INSERT INTO a VALUES (1, 'one'), (2, NULL)", func(t map[string][]string) { t["a"] = append(t["a"], "1|one", "2|NULL") }},
	{"BEGIN; INSERT INTO a VALUES (3, 'three'); INSERT INTO b VALUES (3), (3); INSERT INTO a VALUES (4, 'four'); COMMIT", func(t map[string][]string) {
		t["a"] = append(t["a"], "3|three", "4|four")
		t["b"] = append(t["b"], "3", "3")
	}},
	{"UPDATE a SET s = s || '!' WHERE x >= 2", func(t map[string][]string) {
		for i, row := range t["a"] {
			if row >= "2" && !strings.HasSuffix(row, "NULL") {
				t["a"][i] += "!"
			}
		}
	}},
	{"BEGIN; INSERT INTO a VALUES (9, 'no'); ROLLBACK", func(map[string][]string) {}},
	{"DELETE FROM b", func(t map[string][]string) { t["b"] = []string{} }},
	{"CREATE MATERIALIZED VIEW v AS SELECT sum(x) FROM a", func(map[string][]string) {}},
	{"BEGIN; INSERT INTO b VALUES (5); INSERT INTO a VALUES (5, '" + strings.Repeat("x", 3000) + "'); COMMIT", func(t map[string][]string) {
		t["a"] = append(t["a"], "5|"+strings.Repeat("x", 3000))
		t["b"] = append(t["b"], "5")
	}},
	{"DROP TABLE b", func(t map[string][]string) { delete(t, "b") }},
	{"CREATE TABLE b (z text)", func(t map[string][]string) { t["b"] = []string{} }},
	{"INSERT INTO b SELECT s FROM a WHERE x < 3", func(t map[string][]string) {
		for _, row := range t["a"] {
			if row < "3" {
				t["b"] = append(t["b"], row[2:])
			}
		}
	}},
	{"DROP VIEW v", func(map[string][]string) {}},
	{"DROP TABLE a, b", func(t map[string][]string) { clear(t) }},
}

// run executes the steps. One that fails must have done nothing, unless it says that nobody knows.
func (l *ledger) run(deadline func() bool) {
	for _, step := range steps {
		after := map[string][]string{}
		for name, rows := range l.tables {
			after[name] = slices.Clone(rows)
		}
		_, err := tryQuery(l.t.Context(), l.s, step.sql)
		var e *engine.Error
		switch {
		case err == nil:
			step.do(after)
			l.tables = after
		case errors.As(err, &e) && e.Code == "40003":
			step.do(after)
			l.unknown = after
		}
		tryQuery(l.t.Context(), l.s, "ROLLBACK")
		if deadline() {
			return
		}
	}
}

// check holds the tables of an engine against what they must hold.
func (l *ledger) check(want map[string][]string) error {
	for _, name := range []string{"a", "b"} {
		rows, err := tryQuery(l.t.Context(), l.s, "SELECT * FROM "+name)
		if want[name] == nil {
			if err == nil {
				return fmt.Errorf("table %s is there", name)
			}
			continue
		}
		got := rowTexts(rows)
		slices.Sort(got)
		wanted := slices.Sorted(slices.Values(want[name]))
		if err != nil || !slices.Equal(got, wanted) {
			return fmt.Errorf("table %s: got %.200q, %v; want %.200q", name, got, err, wanted)
		}
	}
	return nil
}

// is holds the tables after a restart against what they must hold.
func (l *ledger) is(before *ledger) error {
	err := l.check(before.tables)
	if err != nil && before.unknown != nil {
		err = l.check(before.unknown)
	}
	return err
}

// TestCrashedTables ends the machine at each call of the file system. Every acknowledged statement is there afterwards, and the one that
// was not is there whole or not at all.
func TestCrashedTables(t *testing.T) {
	last := 0
	for call := 1; last == 0; call++ {
		synctest.Test(t, func(t *testing.T) {
			fs := durabletest.New()
			fs.Fail(func(n int, _ string) error {
				if n == call {
					return durabletest.ErrCrashed
				}
				return nil
			})
			l, err := openLedger(t, fs)
			if err == nil {
				l.run(fs.Dead)
				l.stop()
			} else {
				l = &ledger{t: t, fs: fs}
			}
			if !fs.Dead() {
				last = call
			}
			rnd := rand.New(rand.NewPCG(uint64(call), 0))
			again, err := openLedger(t, fs.Crash(rnd))
			if err != nil {
				t.Fatalf("call %d: open again: %v", call, err)
			}
			defer again.stop()
			if err := again.is(l); err != nil {
				t.Errorf("call %d: %v", call, err)
			}
		})
	}
	t.Logf("%d calls", last)
}

// TestFullDisk fails calls for some time, and goes on. What was refused is not there, neither at once nor after a restart.
func TestFullDisk(t *testing.T) {
	for seed := range seeds() * 10 {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			fs := durabletest.New()
			l, err := openLedger(t, fs)
			if err != nil {
				t.Fatal(err)
			}
			defer l.stop()
			from := fs.Calls() + rnd.IntN(150)
			to := from + 1 + rnd.IntN(1+rnd.IntN(30))
			fault := []error{syscall.ENOSPC, syscall.EIO}[rnd.IntN(2)]
			fs.Fail(func(n int, _ string) error {
				if n >= from && n < to {
					return fault
				}
				return nil
			})
			l.run(func() bool { return false })
			fs.Fail(nil)
			settle()
			if err := l.check(l.tables); err != nil {
				t.Errorf("seed %d, %v from call %d to %d: %v", seed, fault, from, to, err)
			}
			after := fs.Crash(rnd)
			l.stop()
			again, err := openLedger(t, after)
			if err != nil {
				t.Fatalf("seed %d, %v from call %d to %d: open again: %v", seed, fault, from, to, err)
			}
			defer again.stop()
			if err := again.check(l.tables); err != nil {
				t.Errorf("seed %d, %v from call %d to %d, after a restart: %v", seed, fault, from, to, err)
			}
		})
	}
}

// TestFullDiskSays looks at what a client is told.
func TestFullDiskSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		l, err := openLedger(t, fs)
		if err != nil {
			t.Fatal(err)
		}
		defer l.stop()
		exec(t, l.s, "CREATE TABLE a (x int); INSERT INTO a VALUES (1)")
		fs.Fail(func(_ int, op string) error {
			if op == "write" {
				return syscall.ENOSPC
			}
			return nil
		})
		for _, sql := range []string{"INSERT INTO a VALUES (2)", "DELETE FROM a", "CREATE TABLE b (x int)", "DROP TABLE a", "BEGIN; INSERT INTO a VALUES (3); COMMIT"} {
			_, err := tryQuery(t.Context(), l.s, sql)
			var e *engine.Error
			if !errors.As(err, &e) || e.Code != "53100" {
				t.Errorf("%s: got %v, want 53100", sql, err)
			}
			settle() // also when no time can be reserved any more
		}
		fs.Fail(nil)
		settle()
		if got := rowTexts(query(t, l.s, "SELECT * FROM a")); !slices.Equal(got, []string{"1"}) {
			t.Errorf("got %q", got)
		}
		exec(t, l.s, "INSERT INTO a VALUES (2)")
	})
}

// TestGroupCommit lets many sessions write at once: they share syncs.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		l, err := openLedger(t, fs)
		if err != nil {
			t.Fatal(err)
		}
		defer l.stop()
		exec(t, l.s, "CREATE TABLE a (x int)")
		var syncs atomic.Int64
		fs.Fail(func(_ int, op string) error {
			if op == "sync" {
				syncs.Add(1)
			}
			return nil
		})
		const sessions, each = 50, 4
		var wg sync.WaitGroup
		for range sessions {
			wg.Go(func() {
				s := l.e.NewSession()
				defer s.Close()
				for range each {
					exec(t, s, "INSERT INTO a VALUES (1)")
				}
			})
		}
		wg.Wait()
		if got := query(t, l.s, "SELECT count(*) FROM a")[0][0].Int(); got != sessions*each {
			t.Errorf("got %d rows", got)
		}
		if n := syncs.Load(); n > sessions*each/5 {
			t.Errorf("%d statements took %d syncs", sessions*each, n)
		}
	})
}

// TestGrownJournal changes a row until the journal has been written anew, some times with a restart.
func TestGrownJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := durabletest.New()
		l, err := openLedger(t, fs)
		if err != nil {
			t.Fatal(err)
		}
		exec(t, l.s, "CREATE TABLE a (x int, s text); INSERT INTO a VALUES (0, '"+strings.Repeat("x", 500_000)+"'), (7, 'seven'), (7, 'seven')")
		largest := 0
		for i := range 30 {
			exec(t, l.s, "UPDATE a SET x = x + 1 WHERE s <> 'seven'")
			size := 0
			for name, data := range fs.Files() {
				if strings.HasPrefix(name, "engine/tables/") {
					size += len(data)
				}
			}
			largest = max(largest, size)
			if i%10 == 5 {
				l.stop()
				if l, err = openLedger(t, fs); err != nil {
					t.Fatal(err)
				}
			}
		}
		defer l.stop()
		if got := rowTexts(query(t, l.s, "SELECT x, length(s) FROM a ORDER BY x")); !slices.Equal(got, []string{"7|5", "7|5", "30|500000"}) {
			t.Errorf("got %q", got)
		}
		if largest > 10<<20 {
			t.Errorf("the journal grew to %d bytes for tables of 0.5 MB", largest)
		}
	})
}
