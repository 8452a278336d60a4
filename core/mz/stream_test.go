package mz_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/mz"
)

func TestSnapshotThenChanges(t *testing.T) {
	srv := today()
	srv.scripts = []script{{
		columns(),
		progress(100),
		row(100, 1, "ada", "3"), row(100, 2, "bob", "1"),
		progress(101),
		progress(105),
		row(105, -1, "ada", "3"), row(105, 1, "ada", "4"),
		row(106, 1, "eve", "1"), row(106, -1, "eve", "1"), // nothing
		progress(107),
	}}
	s := srv.subscribe(t, mz.Request{Name: "v"})
	if s.Resumed() {
		t.Error("resumed from nothing")
	}
	if got, want := s.Columns(), []core.Column{{Name: "user", Type: "text"}, {Name: "count", Type: "int8"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("columns %v, want %v", got, want)
	}
	expect(t, s,
		`[0,101) ["ada",3]+1@100 ["bob",1]+2@100`,
		`[101,105)`,
		`[105,107) ["ada",3]-1@105 ["ada",4]+1@105`,
	)
	srv.expectStatements(t, `SUBSCRIBE TO "v" WITH (PROGRESS)`)
}

func TestNegativeSnapshot(t *testing.T) {
	srv := today()
	srv.scripts = []script{{columns(), progress(100), row(100, -2, "ada", "3"), progress(101)}}
	if e := expectError(t, srv.subscribe(t, mz.Request{Name: "v"}), mz.Evaluation); !strings.Contains(e.Error(), `-2 copies of the row ["ada",3]`) {
		t.Errorf("got %v", e)
	}
}

// TestLongRow sends a row that no log could keep, which must name itself.
func TestLongRow(t *testing.T) {
	srv := today()
	srv.scripts = []script{{columns(), progress(100), row(100, 1, strings.Repeat("x", core.MaxRowBytes), "3"), progress(101)}}
	e := expectError(t, srv.subscribe(t, mz.Request{Name: "v"}), mz.Evaluation)
	if want := fmt.Sprintf(`a row of %d bytes (["xxx`, core.MaxRowBytes+6); !strings.Contains(e.Error(), want) || len(e.Error()) > 300 {
		t.Errorf("got %.300v, want %q in it", e, want)
	}
}

func TestEmptySnapshot(t *testing.T) {
	srv := today()
	srv.scripts = []script{{columns(), progress(100), progress(101), row(101, 1, "ada", "1"), progress(102)}}
	expect(t, srv.subscribe(t, mz.Request{Name: "v"}), `[0,101)`, `[101,102) ["ada",1]+1@101`)
}

// What a release sends at the beginning, and what must come out.
func TestDialects(t *testing.T) {
	asOf := regexp.MustCompile(` AS OF (\d+)$`)
	for _, tt := range []struct {
		version   string
		announced bool
		want      string // statement, less the AS OF
		leads     bool
	}{
		{"v0.5.2", false, `TAIL "v" WITH (PROGRESS)`, false},
		{"v0.9.13 (0123456789)", false, `TAIL "v" WITH (PROGRESS)`, false},
		{"v0.26.1-dev (c505c930a)", false, `TAIL "v" WITH (PROGRESS)`, false},
		{"v0.27.0", false, `SUBSCRIBE TO "v" WITH (PROGRESS)`, false},
		{"v0.49.9", true, `SUBSCRIBE TO "v" WITH (PROGRESS)`, false},
		{"v0.50.0", true, `SUBSCRIBE TO "v" WITH (PROGRESS)`, true},
		{"v26.39.0 (abc), helm chart: 1", true, `SUBSCRIBE TO "v" WITH (PROGRESS)`, true},
		{"mzd embedded (not Materialize)", true, `SUBSCRIBE TO "v" WITH (PROGRESS)`, true},
	} {
		t.Run(tt.version, func(t *testing.T) {
			// The bubble's clock stands, so the AS OF that old servers are given is known.
			synctest.Test(t, func(t *testing.T) {
				p := core.Time(time.Now().UnixMilli()) + 1000
				srv := today()
				srv.version, srv.announced = tt.version, tt.announced
				stream := script{columns(), progress(p - 2), progress(p - 1), row(p, 1, "ada", "1"), row(p, 1, "bob", "1"), row(p, -1, "bob", "1"), progress(p), progress(p + 1)}
				if tt.leads {
					stream = script{columns(), progress(p), row(p, 1, "ada", "1"), progress(p + 1)}
				}
				srv.scripts = []script{append(stream, row(p+1, 1, "eve", "1"), progress(p+2))}
				s := srv.subscribe(t, mz.Request{Name: "v"})
				expect(t, s,
					fmt.Sprintf(`[0,%d) ["ada",1]+1@%d`, p+1, p),
					fmt.Sprintf(`[%d,%d) ["eve",1]+1@%d`, p+1, p+2, p+1))
				m := asOf.FindStringSubmatch(srv.statements[0])
				if got := asOf.ReplaceAllString(srv.statements[0], ""); got != tt.want {
					t.Errorf("statement %s, want %s", got, tt.want)
				}
				if tt.leads != (m == nil) || m != nil && m[1] != p.String() {
					t.Errorf("AS OF of %s, want %v", srv.statements[0], p)
				}
				s.Close()
				srv.conns.Wait()
			})
		})
	}
}

// An old server whose clock is ahead has forgotten the time it is asked for.
func TestOldServerAhead(t *testing.T) {
	srv := today()
	srv.version = "v0.26.0"
	since := core.Time(time.Now().Add(time.Hour).UnixMilli())
	srv.scripts = []script{
		{columns(), fail("XX000", fmt.Sprintf("Timestamp (1) is not valid for all inputs: "+
			"[(User(1), Some(Antichain { elements: [%d] })), (User(2), Some(Antichain { elements: [%d] }))]", since-5000, since))},
		{columns(), row(since+1000, 1, "ada", "1"), progress(since + 1001)},
	}
	s := srv.subscribe(t, mz.Request{Name: "v"})
	expect(t, s, fmt.Sprintf(`[0,%d) ["ada",1]+1@%d`, since+1001, since+1000))
}

// An old server whose clock is behind is asked for what is soon there, and not what is
// on this side. Which one is behind is seen by what it says the time is.
func TestOldServerBehind(t *testing.T) {
	for now, want := range map[string]string{
		"2021-03-04 05:06:07.891234+00":    "1614834368891",
		"2021-03-04 06:06:07.891+01":       "1614834368891",
		"2021-03-04 05:06:07+00:00":        "1614834368000",
		"2021-03-04 05:06:07.891234 UTC":   "946684801000", // the bubble's clock
		"":                                 "946684801000",
		"Thursday\n2021-03-04 05:06:07+00": "946684801000",
	} {
		synctest.Test(t, func(t *testing.T) {
			srv := today()
			srv.version, srv.now = "v0.26.0", now
			srv.scripts = []script{{columns(), progress(1)}}
			srv.subscribe(t, mz.Request{Name: "v"}).Close()
			srv.expectStatements(t, `TAIL "v" WITH (PROGRESS) AS OF `+want)
			srv.conns.Wait()
		})
	}
}

// An old server is asked for a time that its clock has, whatever that of another
// upstream, whose history the caller holds, had.
func TestOldServerInPlaceOfAnother(t *testing.T) {
	srv := today()
	srv.version = "v0.26.0"
	srv.scripts = []script{{columns(), progress(1)}}
	srv.subscribe(t, mz.Request{Name: "v", Upper: core.Time(time.Now().Add(time.Hour).UnixMilli()), Identity: "another"})
	var asOf int64
	_, after, _ := strings.Cut(srv.statements[0], " AS OF ")
	if _, err := fmt.Sscan(after, &asOf); err != nil || time.Until(time.UnixMilli(asOf)) > time.Minute {
		t.Errorf("%s: %v", srv.statements[0], err)
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ name, query, want string }{
		{"Top10", "", `SUBSCRIBE TO "top10" WITH (PROGRESS)`},
		{`public."Top 10"`, "", `SUBSCRIBE TO "public"."Top 10" WITH (PROGRESS)`},
		{`materialize.public.v`, "", `SUBSCRIBE TO "materialize"."public"."v" WITH (PROGRESS)`},
		{`"a""b.c"`, "", `SUBSCRIBE TO "a""b.c" WITH (PROGRESS)`},
		{"q", " SELECT 1 -- one;\n ; ", "SUBSCRIBE TO (SELECT 1 -- one\n) WITH (PROGRESS)"},
		{`"it's"`, "", `SUBSCRIBE TO "it's" WITH (PROGRESS)`},
	} {
		srv := today()
		srv.scripts = []script{{columns()}}
		srv.subscribe(t, mz.Request{Name: tt.name, Query: tt.query})
		srv.expectStatements(t, tt.want)
	}
	for _, name := range []string{"", "a.", ".a", "a..b", "my-view", "v; DROP VIEW v", `"a`, `""`, `"a"b`, "a.b.c.d", "1a", "v\x00"} {
		srv := today()
		_, err := srv.client(t).Subscribe(t.Context(), mz.Request{Name: name})
		var e *mz.Error
		if !errors.As(err, &e) || e.Reason() != mz.NoSuchView {
			t.Errorf("name %q: %v, want %s", name, err, mz.NoSuchView)
		}
		if len(srv.others) > 0 {
			t.Errorf("name %q: the server was asked", name)
		}
	}
}

// identityOf runs a first stream and returns its identity.
func identityOf(t *testing.T, srv *server) string {
	t.Helper()
	srv.scripts = append([]script{{columns()}}, srv.scripts...)
	s := srv.subscribe(t, mz.Request{Name: "v"})
	s.Close()
	srv.statements = nil
	return s.Identity()
}

func TestResume(t *testing.T) {
	srv := today()
	id := identityOf(t, srv)
	srv.scripts = []script{{columns(), progress(104), progress(105), row(105, 1, "ada", "4"), progress(106)}}
	s := srv.subscribe(t, mz.Request{Name: "v", Upper: 105, Identity: id})
	if !s.Resumed() || s.Identity() != id {
		t.Errorf("resumed %v, identity %s; want true, %s", s.Resumed(), s.Identity(), id)
	}
	expect(t, s, `[105,106) ["ada",4]+1@105`)
	srv.expectStatements(t, `SUBSCRIBE TO "v" WITH (PROGRESS, SNAPSHOT = false) AS OF 104`)
}

// Who holds what cannot be wants the whole view, and nothing that is older.
func TestAfresh(t *testing.T) {
	srv := today()
	id := identityOf(t, srv)
	srv.scripts = []script{{columns(), progress(100), row(100, 1, "ada", "4"), progress(101), progress(106)}}
	s := srv.subscribe(t, mz.Request{Name: "v", Upper: 105, Identity: id, Afresh: true})
	if s.Resumed() || s.Identity() != id {
		t.Errorf("resumed %v, identity %s; want false, %s", s.Resumed(), s.Identity(), id)
	}
	expect(t, s, `[0,106) ["ada",4]+1@105`)
	srv.expectStatements(t, `SUBSCRIBE TO "v" WITH (PROGRESS)`)
}

func TestResumeOld(t *testing.T) {
	srv := today()
	srv.version, srv.announced = "v0.26.0", false
	id := identityOf(t, srv)
	srv.scripts = []script{{columns(), progress(90), row(105, 1, "ada", "4"), progress(106)}}
	s := srv.subscribe(t, mz.Request{Name: "v", Upper: 105, Identity: id})
	expect(t, s, `[105,106) ["ada",4]+1@105`)
	srv.expectStatements(t, `TAIL "v" WITH (PROGRESS, SNAPSHOT = false) AS OF 104`)
}

// Where the history is gone a snapshot follows, and its first batch reaches
// beyond what the caller holds. Every release describes the rows before it looks.
func TestHistoryGone(t *testing.T) {
	for version, refusal := range map[string]*pgproto3.ErrorResponse{
		"v26.39.0": fail("22000", "could not find a valid timestamp for the query"),
		"v26.15.0": fail("XX000", "Timestamp (104) is not valid for all inputs: [Antichain { elements: [999] }]"),
		"v0.26.0":  fail("XX000", "Timestamp (104) is not valid for all inputs: [Antichain { elements: [999] }]"),
	} {
		for _, first := range []script{{columns(), refusal}, {refusal}} {
			synctest.Test(t, func(t *testing.T) { // so that old servers are asked for a known time
				p := core.Time(time.Now().UnixMilli()) + 1000
				srv := today()
				srv.version = version
				upper, mark := p-5, []any{progress(p - 10)}
				if version == "v0.26.0" {
					srv.announced, mark = false, nil
				}
				id := identityOf(t, srv)
				srv.scripts = []script{first, append(append(script{columns()}, mark...),
					row(p-10, 1, "ada", "1"), row(p-10, 1, "bob", "1"), row(p-8, -1, "ada", "1"), progress(p-5), row(p, 1, "eve", "1"), progress(p+1))}
				s := srv.subscribe(t, mz.Request{Name: "v", Upper: upper, Identity: id})
				if s.Resumed() || s.Identity() != id || !strings.Contains(s.Restarted(), "forgotten") {
					t.Errorf("%s: resumed %v, identity %s, because %q; want false, %s", version, s.Resumed(), s.Identity(), s.Restarted(), id)
				}
				expect(t, s, fmt.Sprintf(`[0,%d) ["bob",1]+1@%d ["eve",1]+1@%d`, p+1, p, p))
				s.Close()
				srv.conns.Wait()
			})
		}
	}
}

// Whatever makes the caller's history another one makes the stream begin anew,
// without regard to the time the caller had, and is said in words.
func TestIdentity(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*server) *pgproto3.RowDescription
		why    string
	}{
		"environment":   {func(s *server) *pgproto3.RowDescription { s.environment = "aws-2"; return columns() }, "upstream is another one"},
		"version":       {func(s *server) *pgproto3.RowDescription { s.version = "v26.40.0"; return columns() }, "another version"},
		"created anew":  {func(s *server) *pgproto3.RowDescription { s.objects["v"] = "u8"; return columns() }, "created anew"},
		"schemas swap":  {func(s *server) *pgproto3.RowDescription { s.schema = "blue"; return columns() }, "stands for another"},
		"no object ids": {func(s *server) *pgproto3.RowDescription { s.objects = nil; s.schema = ""; return columns() }, "cannot tell"},
		"not there":     {func(s *server) *pgproto3.RowDescription { delete(s.objects, "v"); return columns() }, "cannot tell"},
		"no identity":   {func(s *server) *pgproto3.RowDescription { s.environment = ""; return columns() }, "cannot tell"},
		"column type":   {func(*server) *pgproto3.RowDescription { return columnsOf("user", 25, "count", 1700) }, "other columns"},
		"column name":   {func(*server) *pgproto3.RowDescription { return columnsOf("user", 25, "n", 20) }, "other columns"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := today()
			id := identityOf(t, srv)
			cols := tt.change(srv)
			if strings.HasPrefix(name, "column") { // seen only after it resumed
				srv.scripts = append(srv.scripts, script{cols})
			}
			srv.scripts = append(srv.scripts, script{cols, progress(10), row(10, 1, "ada", "1"), progress(11)})
			s := srv.subscribe(t, mz.Request{Name: "v", Upper: 105, Identity: id})
			if s.Resumed() || s.Identity() == id || s.Identity() == "" || !strings.Contains(s.Restarted(), tt.why) {
				t.Errorf("resumed %v, identity %q, because %q; want a new one because %q", s.Resumed(), s.Identity(), s.Restarted(), tt.why)
			}
			expect(t, s, `[0,11) ["ada",1]+1@10`)
		})
	}
}

// An identity that an earlier mzd has kept is nothing to go on.
func TestIdentityOfBefore(t *testing.T) {
	srv := today()
	srv.scripts = []script{{columns(), progress(10), progress(11)}}
	s := srv.subscribe(t, mz.Request{Name: "v", Upper: 105, Identity: "0123.4567"})
	if s.Resumed() || !strings.Contains(s.Restarted(), "another version of mzd") {
		t.Errorf("resumed %v, because %q", s.Resumed(), s.Restarted())
	}
}

// An upstream whose clock was set back is not waited for until it has caught up,
// one that is a little behind is.
func TestTimesGoBack(t *testing.T) {
	const upper = 1_000_000
	for _, tt := range []struct {
		script script
		want   string
	}{
		{script{columns(), progress(upper - 60_002), row(upper-60_002, 1, "ada", "1"), progress(upper - 60_000)}, `[0,940000) ["ada",1]+1@939999`},
		{script{columns(), progress(upper - 59_000), row(upper-59_000, 1, "ada", "1"), progress(upper - 58_000), progress(upper), row(upper, 1, "bob", "1"), progress(upper + 1)},
			`[0,1000001) ["ada",1]+1@1000000 ["bob",1]+1@1000000`},
	} {
		srv := today()
		id := identityOf(t, srv)
		srv.scripts = []script{{fail("22000", "could not find a valid timestamp for the query")}, tt.script}
		s := srv.subscribe(t, mz.Request{Name: "v", Upper: upper, Identity: id})
		if s.Identity() != id || !strings.Contains(s.Restarted(), "forgotten") {
			t.Errorf("identity %s, because %q; want %s, because the history is gone", s.Identity(), s.Restarted(), id)
		}
		expect(t, s, tt.want)
	}
}

func TestUnknownIdentityNeverRepeats(t *testing.T) {
	srv := today()
	srv.environment = ""
	if a, b := identityOf(t, srv), identityOf(t, srv); a == b {
		t.Errorf("two streams of a server that cannot tell who it is share the identity %s", a)
	}
}

// The identity of a query depends on the objects that it names, and on no others.
func TestQueryIdentity(t *testing.T) {
	id := func(query string, change func(*server)) string {
		srv := today()
		change(srv)
		srv.scripts = []script{{columns()}}
		return srv.subscribe(t, mz.Request{Name: "q", Query: query}).Identity()
	}
	same := func(*server) {}
	query := `SELECT "user", count(*) FROM Public.V`
	if id(query, same) == id(query+" ", func(s *server) { s.objects["v"] = "u9" }) {
		t.Error("a query keeps its identity when a view of it is created anew")
	}
	if id(query, same) == id(query+"AS w", same) {
		t.Error("two queries share an identity")
	}
	if id(query, same) != id(query+";", func(s *server) { s.objects["w"] = "u9" }) {
		t.Error("a query changes its identity when another view is created")
	}
}

func TestNamesIn(t *testing.T) {
	for _, tt := range []struct {
		query string
		want  []string
	}{
		{"", nil},
		{"SELECT 1", []string{"1", "SELECT", "select"}},
		{`a."B ""c"""`, []string{"B \"c\"", "a"}},
		{"x -- y\n/* z */ 'v' $$w$$ E'u\\'t' é", []string{"x", "é"}},
		{`"open`, nil},
	} {
		if got := mz.NamesIn(tt.query); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.query, got, tt.want)
		}
	}
}

func TestEndOfTime(t *testing.T) {
	const last = core.EndOfTime
	for name, tt := range map[string]struct {
		version string
		script  script
		want    string
	}{
		"constant": {"v26.39.0", script{columns(), progress(last), row(last, 1, "ada", "1"), done("SELECT 2")},
			`[0,18446744073709551615) ["ada",1]+1@18446744073709551614`},
		"empty constant": {"v26.39.0", script{columns(), progress(last), done("SELECT 1")}, `[0,18446744073709551615)`},
		"old constant":   {"v0.26.0", script{columns(), row(last, 1, "ada", "1"), done("SELECT 1")}, `[0,18446744073709551615) ["ada",1]+1@18446744073709551614`},
		"old, at AS OF":  {"v0.9.0", script{columns(), row(1, 1, "ada", "1"), done("SELECT 1")}, `[0,18446744073709551615) ["ada",1]+1@18446744073709551614`},
		"old, empty":     {"v0.26.0", script{columns(), done("SELECT 0")}, `[0,18446744073709551615)`},
		"old, refreshed": {"v0.40.0", script{columns(), row(1, 1, "ada", "1"), row(core.EndOfTime-9, 1, "bob", "1"), done("SELECT 1")},
			`[0,18446744073709551615) ["ada",1]+1@18446744073709551614 ["bob",1]+1@18446744073709551614`},
		"materialized": {"v26.39.0", script{columns(), progress(100), row(100, 1, "ada", "1"), done("SELECT 2")},
			`[0,18446744073709551615) ["ada",1]+1@18446744073709551614`},
		"materialized, empty": {"v26.39.0", script{columns(), progress(100), done("SELECT 1")}, `[0,18446744073709551615)`},
		"refreshed later": {"v26.39.0", script{columns(), progress(100), row(100, 1, "ada", "1"), row(200, -1, "ada", "1"), row(200, 1, "bob", "1"), done("SELECT 4")},
			`[0,18446744073709551615) ["bob",1]+1@18446744073709551614`},
		"by a mark": {"v26.39.0", script{columns(), progress(5), row(5, 1, "ada", "1"), progress(last)}, `[0,18446744073709551615) ["ada",1]+1@18446744073709551614`},
	} {
		t.Run(name, func(t *testing.T) {
			srv := today()
			srv.version = tt.version
			srv.scripts = []script{tt.script}
			s := srv.subscribe(t, mz.Request{Name: "v"})
			expect(t, s, tt.want)
			if _, err := s.Next(t.Context()); err != io.EOF {
				t.Errorf("after the end of time: %v, want EOF", err)
			}
		})
	}
}

func TestEnds(t *testing.T) {
	dropped := &pgproto3.NoticeResponse{Severity: "NOTICE", Message: `subscribe has been terminated because underlying relation "materialize"."public"."v" was dropped`}
	for name, tt := range map[string]struct {
		tail   []any
		reason string
		retry  bool
	}{
		"dropped, by notice":    {script{dropped, done("SELECT 4")}, mz.Dropped, true},
		"dropped, noticed late": {script{done("SELECT 4"), dropped}, mz.Dropped, true},
		"complete, then cut":    {script{done("SELECT 4"), cut{}}, mz.Unreachable, true},
		"dropped, 2024":         {script{fail("XX000", dropped.Message)}, mz.Dropped, true},
		"dropped, 2026":         {script{fail("42704", "relation 'materialize.public.v' was dropped")}, mz.Dropped, true},
		"cluster dropped":       {script{fail("42704", "cluster 'c' was dropped")}, mz.Dropped, true},
		"evaluation":            {script{fail("XX000", "Evaluation error: division by zero")}, mz.Evaluation, false},
		"slow":                  {script{fail("XX000", "SUBSCRIBE fell behind: the client did not read results fast enough")}, mz.SlowReader, true},
		"too large":             {script{fail("XX000", "total result exceeds max size of 1.0 GiB")}, mz.TooLarge, false},
		"cancelled":             {script{fail("57014", "canceling statement due to user request")}, mz.Cancelled, true},
		"shutdown":              {script{fatal("57P01", "terminating connection due to administrator command"), cut{}}, mz.Unreachable, true},
		"idle":                  {script{fatal("25P03", "terminating connection due to idle-in-transaction timeout"), cut{}}, mz.Ended, true},
		"expired":               {script{fatal("28000", "authentication expired"), cut{}}, mz.Ended, true},
		"permission":            {script{fail("42501", "permission denied for VIEW")}, mz.Permission, false},
		"missing":               {script{fail("42704", "unknown catalog item 'v'")}, mz.NoSuchView, true},
		"missing, before 2026":  {script{fail("XX000", "unknown catalog item 'v'")}, mz.NoSuchView, true},
		"history, late":         {script{fail("22000", "could not find a valid timestamp for the query")}, mz.HistoryGone, true},
		"plan":                  {script{fail("0A000", "cached plan must not change result type")}, mz.ColumnsChanged, true},
		"syntax":                {script{fail("42601", "syntax error")}, mz.Other, false},
		"internal":              {script{fail("XX000", "internal error")}, mz.Other, true},
		"cut":                   {script{cut{}}, mz.Unreachable, true},
		"back in time":          {script{row(100, 1, "ada", "1")}, mz.Protocol, false},
		"too few values":        {script{row(200, 1, "ada")}, mz.Protocol, false},
		"not a number":          {script{&pgproto3.DataRow{Values: [][]byte{[]byte("-5"), []byte("f"), []byte("1"), nil, nil}}}, mz.Protocol, false},
		"not UTF-8":             {script{row(200, 1, "a\xff", "1")}, mz.Protocol, false},
		"another description":   {script{columns()}, mz.Protocol, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := today()
			srv.scripts = []script{append(script{columns(), progress(100), row(100, 1, "ada", "1"), progress(101)}, tt.tail...)}
			s := srv.subscribe(t, mz.Request{Name: "v"})
			expect(t, s, `[0,101) ["ada",1]+1@100`)
			if e := expectError(t, s, tt.reason); e.Retryable() != tt.retry || !strings.HasPrefix(e.Error(), "view v: ") {
				t.Errorf("retryable %v, %q; want %v", e.Retryable(), e, tt.retry)
			}
		})
	}
}

// A view that changes no more is sealed, whenever its stream learns of it.
func TestSealedLater(t *testing.T) {
	for name, tt := range map[string]struct {
		version string
		resumed bool
		script  script
		want    []string
	}{
		"at once":           {"v26.39.0", false, script{columns(), progress(100), progress(105), done("SELECT 2")}, []string{`[0,105)`, `[105,18446744073709551615)`}},
		"with last changes": {"v26.39.0", false, script{columns(), progress(100), progress(105), row(105, 1, "ada", "1"), row(110, -1, "ada", "1"), done("SELECT 4")}, []string{`[0,105)`, `[105,18446744073709551615) ["ada",1]+1@105 ["ada",1]-1@110`}},
		"resumed":           {"v26.39.0", true, script{columns(), progress(104), done("SELECT 1")}, []string{`[105,18446744073709551615)`}},
		"resumed, changes":  {"v26.39.0", true, script{columns(), progress(104), row(105, 1, "ada", "1"), done("SELECT 2")}, []string{`[105,18446744073709551615) ["ada",1]+1@105`}},
		"resumed, old":      {"v0.26.0", true, script{columns(), done("SELECT 0")}, []string{`[105,18446744073709551615)`}},
		"resumed, old too":  {"v0.26.0", true, script{columns(), row(105, 1, "ada", "1"), done("SELECT 1")}, []string{`[105,18446744073709551615) ["ada",1]+1@105`}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := today()
			srv.version = tt.version
			srv.scripts = []script{tt.script}
			r := mz.Request{Name: "v"}
			if tt.resumed {
				r.Upper, r.Identity = 105, identityOf(t, srv)
			}
			s := srv.subscribe(t, r)
			expect(t, s, tt.want...)
			if _, err := s.Next(t.Context()); err != io.EOF {
				t.Errorf("after the end of time: %v, want EOF", err)
			}
		})
	}
}

// An end is not believed if what it is the end of is not there any more, or was
// never there.
func TestNotSealed(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*server)
		script script
		reason string
	}{
		"dropped":       {func(s *server) { s.objects = map[string]string{} }, script{columns(), progress(100), progress(101)}, mz.Dropped},
		"created anew":  {func(s *server) { s.objects = map[string]string{"v": "u8"} }, script{columns(), progress(100)}, mz.Dropped},
		"schema gone":   {func(s *server) { s.schema = "old" }, script{columns(), progress(100)}, mz.Dropped},
		"before a mark": {func(*server) {}, script{columns()}, mz.Ended},
	} {
		t.Run(name, func(t *testing.T) {
			srv := today()
			srv.scripts = []script{append(tt.script, change(func() { tt.change(srv) }), done("SELECT 1"))}
			s := srv.subscribe(t, mz.Request{Name: "v"})
			if tt.reason == mz.Dropped && len(tt.script) == 3 {
				expect(t, s, `[0,101)`)
			}
			if e := expectError(t, s, tt.reason); !e.Retryable() {
				t.Errorf("%v is not tried again", e)
			}
		})
	}
}

// A constant that is dropped while its snapshot is under way is not sealed.
func TestDroppedIsNotSealed(t *testing.T) {
	srv := today()
	srv.version = "v0.79.0"
	srv.scripts = []script{{columns(), progress(core.EndOfTime), &pgproto3.NoticeResponse{Severity: "NOTICE", Message: "subscribe has been terminated because underlying relation was dropped"}, done("SELECT 1")}}
	expectError(t, srv.subscribe(t, mz.Request{Name: "v"}), mz.Dropped)
}

func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		server func(*server)
		reason string
		retry  bool
	}{
		"password":        {func(s *server) { s.startup = fatal("28P01", "invalid password") }, mz.Auth, false},
		"too many":        {func(s *server) { s.startup = fatal("53300", "too many") }, mz.Unreachable, true},
		"starting":        {func(s *server) { s.startup = fatal("57P03", "starting up") }, mz.Unreachable, true},
		"database":        {func(s *server) { s.startup = fatal("3D000", "unknown database") }, mz.NoSuchView, false},
		"not Materialize": {func(s *server) { s.version = "" }, mz.Protocol, false},
		"columns":         {func(s *server) { s.scripts = []script{{columnsOf()}} }, "", false},
		"no columns": {func(s *server) {
			s.scripts = []script{{&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}}}}
		}, mz.Protocol, false},
		"COPY in place": {func(s *server) { s.scripts = []script{{&pgproto3.CopyOutResponse{}}} }, mz.Protocol, false},
		"v0.5.1":        {func(s *server) { s.version = "v0.5.1" }, mz.Protocol, false},
		"no cluster":    {func(s *server) { s.scripts = []script{{fail("42704", "unknown cluster 'c'")}} }, mz.Other, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := today()
			tt.server(srv)
			s, err := srv.client(t).Subscribe(t.Context(), mz.Request{Name: "v"})
			if tt.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				s.Close()
				return
			}
			var e *mz.Error
			if !errors.As(err, &e) || e.Reason() != tt.reason || e.Retryable() != tt.retry {
				t.Fatalf("got %v, want %s", err, tt.reason)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	c, err := mz.New(mz.Config{URL: "postgres://u:secret@127.0.0.1:1/db?sslmode=disable"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Subscribe(t.Context(), mz.Request{Name: "v"})
	var e *mz.Error
	if !errors.As(err, &e) || e.Reason() != mz.Unreachable || !e.Retryable() || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v, want unreachable", err)
	}
}

// A context that ends while Subscribe or Next waits ends the stream with it.
func TestContext(t *testing.T) {
	for _, waits := range []script{{hang{}}, {columns(), progress(1), hang{}}} {
		synctest.Test(t, func(t *testing.T) {
			srv := today()
			srv.scripts = []script{waits}
			c := srv.client(t)
			cause := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				synctest.Wait() // until the client waits for the server
				cancel(cause)
			}()
			s, err := c.Subscribe(ctx, mz.Request{Name: "v"})
			if err == nil {
				_, err = s.Next(ctx)
			}
			var e *mz.Error
			if !errors.Is(err, cause) || !errors.As(err, &e) || e.Reason() != mz.Cancelled {
				t.Errorf("got %v, want %v", err, cause)
			}
		})
	}
}

func TestCloseTwice(t *testing.T) {
	srv := today()
	srv.scripts = []script{{columns()}}
	s := srv.subscribe(t, mz.Request{Name: "v"})
	s.Close()
	s.Close()
	expectError(t, s, mz.Cancelled)
}

// follow adds up batches, which must be adjacent, until an error or a time.
func follow(t *testing.T, s *mz.Stream, upper *core.Time, state map[core.Row]core.Diff, until core.Time) {
	t.Helper()
	for *upper < until {
		b, err := s.Next(t.Context())
		if err != nil {
			return
		}
		if b.Lower.Time != *upper || b.Upper.Time <= b.Lower.Time {
			t.Fatalf("batch %s does not follow %d", show(b), *upper)
		}
		for u := range b.Updates.All() {
			if u.Time < b.Lower.Time || u.Time >= b.Upper.Time {
				t.Fatalf("update at %d in %s", u.Time, show(b))
			}
			if state[u.Row] += u.Diff; state[u.Row] == 0 {
				delete(state, u.Row)
			}
		}
		*upper = b.Upper.Time
	}
}

// Random streams of every age add up to what was sent.
func TestRandomStreams(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) { randomStream(t, seed) })
	}
}

func randomStream(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	now := core.Time(time.Now().UnixMilli()) + 1000
	srv := today()
	leads := rnd.IntN(2) == 0
	if !leads {
		srv.version = "v0.9.1"
	}
	all, want := script{columns()}, map[core.Row]core.Diff{}
	change := func(at core.Time) {
		user, d := fmt.Sprintf("u%d", rnd.IntN(5)), core.Diff(rnd.IntN(7)-3)
		if at == now { // within a snapshot the old ones may go down too, but not below zero in all
			d = max(d, -want[core.Row(fmt.Sprintf(`[%q,1]`, user))])
		}
		all = append(all, row(at, d, user, "1"))
		key := core.Row(fmt.Sprintf(`[%q,1]`, user))
		if want[key] += d; want[key] == 0 {
			delete(want, key)
		}
	}
	if leads {
		all = append(all, progress(now))
	}
	for range rnd.IntN(8) {
		change(now)
		if !leads && rnd.IntN(2) == 0 {
			all = append(all, progress(now-core.Time(rnd.IntN(3)))) // before the snapshot is complete
		}
	}
	at := now
	for range 1 + rnd.IntN(20) {
		at += core.Time(1 + rnd.IntN(3))
		all = append(all, progress(at))
		for range rnd.IntN(4) {
			change(at)
			at += core.Time(rnd.IntN(2))
		}
	}
	all = append(all, progress(at+1))
	srv.scripts = []script{all}
	s := srv.subscribe(t, mz.Request{Name: "v"})
	var upper core.Time
	state := map[core.Row]core.Diff{}
	follow(t, s, &upper, state, at+1)
	if upper != at+1 || !reflect.DeepEqual(state, want) {
		t.Errorf("seed %d: upper %d, state %v; want %d, %v", seed, upper, state, at+1, want)
	}
	s.Close()
	srv.conns.Wait()
}
