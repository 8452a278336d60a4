package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/viewlog"
	"github.com/mzdio/mzd/engine"
	"github.com/rogpeppe/go-internal/testscript"
)

// writeLogs is the script command "logs DIR": it makes a data directory with the
// logs of a few views. $TOKEN is the token of the first batch of top10.
func writeLogs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: logs DIR")
	}
	views := filepath.Join(ts.MkAbs(args[0]), "views")

	top10 := &core.View{Name: "top10", Columns: []core.Column{{Name: "user", Type: "text"}, {Name: "count", Type: "int8"}}}
	l, stop := writeLog(ts, views, top10.Name)
	ts.Check(l.Reset(top10, "upstream", 1000, snapshot(l, []core.Update{{Diff: 1, Row: `["Ada",12]`}, {Diff: 1, Row: `["Bob",3]`}})))
	ts.Setenv("TOKEN", untilDurable(l).String())
	ts.Check(l.Append(1000, 1010, []core.Update{
		{Time: 1004, Diff: -1, Row: `["Ada",12]`}, {Time: 1004, Diff: 1, Row: `["Ada",13]`}, {Time: 1007, Diff: 1, Row: `["Eve",1]`},
	}))
	untilDurable(l)
	ts.Check(l.Rebase(2000, snapshot(l, []core.Update{{Diff: 1, Row: `["Ada",14]`}, {Diff: 2, Row: `["Eve",1]`}})))
	ts.Check(stop())

	sealed := &core.View{Name: "a/b ä", Columns: []core.Column{{Name: "n", Type: "int8"}}}
	l, stop = writeLog(ts, views, sealed.Name)
	ts.Check(l.Reset(sealed, "upstream", core.EndOfTime, snapshot(l, []core.Update{{Diff: 1, Row: `[1]`}})))
	ts.Check(stop())

	ts.Check(os.MkdirAll(filepath.Join(views, "unborn"), 0o755))
}

// makeTables is the script command "tables DIR": it makes the directory of an
// engine's tables that hold two rows.
func makeTables(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tables DIR")
	}
	j, _, err := viewlog.OpenJournal(ts.MkAbs(args[0]), engine.TablesDir, viewlog.Options{})
	ts.Check(err)
	ts.Check(j.Append(1000, []core.Update{{Time: 999, Diff: 1, Row: "u1 \x00a"}, {Time: 999, Diff: 2, Row: "u1 \x00b"}}))
	ts.Check(j.Append(1010, []core.Update{{Time: 1009, Diff: -1, Row: "u1 \x00b"}}))
	ts.Check(j.Close())
}

// writeLog opens the log of a view; stop makes durable what was appended.
func writeLog(ts *testscript.TestScript, views, view string) (l *viewlog.Log, stop func() error) {
	l, err := viewlog.Open(filepath.Join(views, viewlog.DirName(view)), view, viewlog.Options{})
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	return l, func() error {
		cancel()
		return <-done
	}
}

// untilDurable waits until everything is.
func untilDurable(l *viewlog.Log) core.Token {
	for {
		upper, _ := l.Frontier()
		at, moved := l.Durable()
		if at == upper {
			return at
		}
		<-moved
	}
}

// damageFile is the script command "flip FILE OFFSET": it changes a byte.
func damageFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	data[offset] ^= 1
	ts.Check(os.WriteFile(path, data, 0o644))
}

func TestPosition(t *testing.T) {
	for in, want := range map[string]string{
		"1721310001000":        "1721310001000",
		"1721310001000-k3f9":   "1721310001000-k3f9",
		"2026-01-31T12:00:00Z": "1769860800000",
		"18446744073709551615": "18446744073709551615",
		"0":                    "",
		"":                     "",
		"-1":                   "",
		"yesterday":            "",
		"1969-12-31T23:59:59Z": "",
		"18446744073709551616": "",
	} {
		var p position
		err := p.Set(in)
		if got := p.String(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestProgress(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var out strings.Builder
		p := &progress{e: env{stderr: &out, terminal: terminal}, what: "checking top10"}
		for n := range int64(5) {
			p.show(n*50, 10_000)
		}
		p.clear()
		want := ""
		if terminal {
			want = "\r\x1b[Kchecking top10: 1% of 10000 bytes\r\x1b[Kchecking top10: 2% of 10000 bytes\r\x1b[K"
		}
		if got := out.String(); got != want {
			t.Errorf("terminal %v: got %q, want %q", terminal, got, want)
		}
	}
}

// snapshot makes a snapshot of rows, of which only the diffs count.
func snapshot(l interface{ Snapshot() *viewlog.Snapshot }, rows []core.Update) *viewlog.Snapshot {
	s := l.Snapshot()
	for _, u := range rows {
		s.Add([]byte(u.Row), u.Diff)
	}
	return s
}
