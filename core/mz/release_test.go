package mz_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/mz"
)

// release is how a Materialize streams, as far as releases differ in it.
type release struct {
	version      string
	announced    bool // it says its version at startup: v0.39
	oldNames     bool // of the first columns, and numeric(20,0): until v0.8.0
	unsettled    bool // changes of one time that cancel out come both, also in a snapshot: until v0.8
	notices      bool // that rows are streamed: since v0.7.1
	leads        bool // with a mark at the AS OF: v0.50
	endsWhenGone bool // of its view, with a notice; others say an error
}

var releases = []release{
	{version: "v0.5.2", oldNames: true, unsettled: true},
	{version: "v0.7.3", oldNames: true, unsettled: true, notices: true},
	{version: "v0.9.0 (0123456789)", notices: true},
	{version: "v0.26.1-dev (c505c930a)", notices: true},
	{version: "v0.37.0 (0123456789)", notices: true},
	{version: "v0.43.0 (0123456789)", announced: true, notices: true, endsWhenGone: true},
	{version: "v0.50.0 (0123456789)", announced: true, notices: true, leads: true, endsWhenGone: true},
	{version: "v0.79.0 (0123456789)", announced: true, notices: true, leads: true, endsWhenGone: true},
	{version: "v26.15.0 (0123456789)", announced: true, notices: true, leads: true},
	{version: "v26.39.0 (0123456789)", announced: true, notices: true, leads: true},
}

// ended are the ways in which a stream ends that may come at any place, and the
// words for them.
func (r release) ended() map[string]script {
	const gone = `subscribe has been terminated because underlying relation "materialize"."public"."v" was dropped`
	dropped := script{fail("42704", "relation 'materialize.public.v' was dropped")}
	if r.endsWhenGone {
		dropped = script{&pgproto3.NoticeResponse{Severity: "NOTICE", Message: gone}, done("SELECT 3")}
	}
	return map[string]script{
		mz.Dropped:     dropped,
		mz.Evaluation:  {fail("XX000", "Evaluation error: division by zero")},
		mz.HistoryGone: {fail("22000", "could not find a valid timestamp for the query")},
		mz.SlowReader:  {fail("XX000", "SUBSCRIBE fell behind: the client did not read results fast enough, so its backlog reached 2, exceeding the 1 budget")},
		mz.Cancelled:   {fail("57014", "canceling statement due to user request")},
		mz.Permission:  {fail("42501", "permission denied for VIEW \"v\"")},
		mz.Ended:       {fatal("28000", "authentication expired"), cut{}},
		mz.Unreachable: {cut{}},
	}
}

// stream is what the release sends for a view whose snapshot is at a time: its
// rows, and how they change until the last mark.
func (r release) stream(at core.Time, empty bool) script {
	head := columns()
	if r.oldNames {
		for i, name := range []string{"timestamp", "progressed", "diff"} {
			head.Fields[i].Name = []byte(name)
		}
		head.Fields[0].TypeModifier = 20<<16 + 4
	}
	s := script{head}
	if r.notices {
		s = append(s, &pgproto3.NoticeResponse{Severity: "WARNING", Code: "01000", Message: "streaming SUBSCRIBE rows directly requires a client that does not buffer output"})
	}
	if r.leads {
		s = append(s, progress(at))
	} else {
		s = append(s, progress(at-3), progress(at))
	}
	if !empty {
		s = append(s, row(at, 1, "ada", "3"))
		if r.unsettled {
			s = append(s, row(at, -1, "bob", "0"), row(at, 1, "bob", "0"))
		}
		s = append(s, row(at, 2, "bob", "1"))
	}
	s = append(s, progress(at+1), progress(at+5))
	if !empty {
		s = append(s, row(at+5, -1, "ada", "3"))
	}
	s = append(s, row(at+5, 1, "ada", "4"))
	if r.unsettled {
		s = append(s, row(at+5, 1, "eve", "1"), row(at+5, -1, "eve", "1"))
	}
	return append(s, row(at+6, 10_000_000, "many", "1"), row(at+6, -2, "many", "1"), progress(at+7), row(at+7, -1, "ada", "4"), progress(at+1000))
}

// sum adds up what a stream says, up to a time.
func sum(s script, below core.Time) map[core.Row]core.Diff {
	state := map[core.Row]core.Diff{}
	for _, m := range s {
		r, ok := m.(*pgproto3.DataRow)
		if !ok || string(r.Values[1]) == "t" || timeOf(r) >= below {
			continue
		}
		var diff core.Diff
		fmt.Sscan(string(r.Values[2]), &diff)
		key := core.Row(fmt.Sprintf("[%q,%s]", r.Values[3], r.Values[4]))
		if state[key] += diff; state[key] == 0 {
			delete(state, key)
		}
	}
	return state
}

func timeOf(r *pgproto3.DataRow) core.Time {
	t, err := core.ParseTime(string(r.Values[0]))
	if err != nil {
		panic(err)
	}
	return t
}

// since is what the release sends of a stream to who has everything below upper.
func (r release) since(s script, upper core.Time) script {
	rest := script{s[0]}
	if r.leads {
		rest = append(rest, progress(upper-1))
	}
	for _, m := range s {
		if d, ok := m.(*pgproto3.DataRow); ok && timeOf(d) >= upper {
			rest = append(rest, m)
		}
	}
	return append(rest, cut{})
}

// again is what it sends to who has to begin again: the whole view at a time.
func (r release) again(s script, at core.Time) script {
	whole := script{s[0]}
	if r.leads {
		whole = append(whole, progress(at))
	}
	for row, copies := range sum(s, at+1) {
		var user, count string
		fmt.Sscanf(string(row), "[%q,%s", &user, &count)
		whole = append(whole, &pgproto3.DataRow{Values: [][]byte{[]byte(at.String()), []byte("f"), fmt.Append(nil, copies), []byte(user), []byte(count[:len(count)-1])}})
	}
	whole = append(whole, progress(at+1))
	for _, m := range s {
		if d, ok := m.(*pgproto3.DataRow); ok && timeOf(d) > at {
			whole = append(whole, m)
		}
	}
	return append(whole, cut{})
}

// TestReleases breaks the streams of all releases off, in every way after every
// message, and goes on as the release lets it. Whatever the client says is
// complete is the sum of what the server has said, whether the server sends all
// at once, in single messages or in parts of them, and whether snapshots are
// taken row by row or as one batch.
func TestReleases(t *testing.T) {
	for _, r := range releases {
		t.Run(r.version, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				// The bubble's clock stands, so that old servers are asked for this time.
				at := core.Time(time.Now().UnixMilli()) + 1000
				for i, empty := range []bool{false, true} {
					s := r.stream(at, empty)
					for n := 1; n <= len(s); n++ {
						for why, end := range r.ended() {
							if i = i + 1; empty && why != mz.Unreachable {
								continue
							}
							b := broken{release: r, stream: s, n: n, why: why, end: end, rows: i%2 == 0, lost: i%3 == 0, flush: []int{0, 7, all}[i/2%3]}
							if err := b.run(t); err != nil {
								t.Fatalf("empty %v, %s after %d messages, row by row %v, history lost %v, flush %d: %v", empty, why, n, b.rows, b.lost, b.flush, err)
							}
						}
					}
				}
			})
		})
	}
}

// broken is a stream that ends after some messages.
type broken struct {
	release
	stream script
	n      int
	why    string
	end    script
	rows   bool // the snapshot is taken row by row
	lost   bool // the server forgets what was
	flush  int
}

func (b broken) run(t *testing.T) error {
	srv := today()
	srv.version, srv.announced, srv.flush = b.version, b.announced, b.flush
	srv.scripts = []script{append(append(script{}, b.stream[:b.n]...), b.end...)}
	c, err := mz.New(mz.Config{URL: "postgres://u@db/materialize?sslmode=disable", Dial: srv.dial})
	if err != nil {
		return err
	}
	defer srv.conns.Wait()
	reader, identity := totals{stream: b.stream, rows: b.rows}, ""
	s, err := c.Subscribe(t.Context(), mz.Request{Name: "v"})
	if err == nil { // otherwise it ended before its first row
		defer s.Close()
		identity = s.Identity()
		err = reader.follow(t, s)
	}
	var e *mz.Error
	if !errors.As(err, &e) || e.Reason() != b.why {
		return fmt.Errorf("ended with %w, want reason %s", err, b.why)
	}
	upper := reader.upper
	switch {
	case upper == 0:
		srv.scripts = []script{append(append(script{}, b.stream...), cut{})}
	case b.lost:
		srv.scripts = []script{{b.stream[0], fail("XX000", fmt.Sprintf("Timestamp (%d) is not valid for all inputs: [Antichain { elements: [%d] }]", upper-1, upper))}, b.again(b.stream, upper)}
	default:
		srv.scripts = []script{b.since(b.stream, upper)}
	}
	again, err := c.Subscribe(t.Context(), mz.Request{Name: "v", Upper: upper, Identity: identity})
	if err != nil {
		return err
	}
	defer again.Close()
	if want := upper > 0 && !b.lost; again.Resumed() != want || (again.Restarted() != "") != (upper > 0 && b.lost) {
		return fmt.Errorf("resumed %v, because %q; want %v", again.Resumed(), again.Restarted(), want)
	}
	if err = reader.follow(t, again); !errors.As(err, &e) || e.Reason() != mz.Unreachable {
		return fmt.Errorf("in the end: %w", err)
	}
	last := timeOf(b.stream[len(b.stream)-1].(*pgproto3.DataRow))
	if b.lost {
		last = max(last, upper+1) // the mark of the new snapshot
	}
	if reader.upper != last {
		return fmt.Errorf("complete below %d in the end, want %d", reader.upper, last)
	}
	return nil
}

// totals adds up what a client says of a stream, and holds every state against
// the sum of what the server says.
type totals struct {
	stream script
	rows   bool
	upper  core.Time
	state  map[core.Row]core.Diff
}

// follow follows a client's stream to its end.
func (r *totals) follow(t *testing.T, s *mz.Stream) error {
	if !s.Resumed() && r.rows {
		state := map[core.Row]core.Diff{}
		at, err := s.Snapshot(t.Context(), func(row []byte, copies core.Diff) { add(state, core.Row(row), copies) })
		if err != nil {
			return err
		}
		if err := r.reach(core.Batch{Upper: core.Token{Time: at}}, state); err != nil {
			return err
		}
	}
	for {
		b, err := s.Next(t.Context())
		if err != nil {
			return err
		}
		state := r.state
		if b.IsBase() {
			state = map[core.Row]core.Diff{}
		} else if b.Lower.Time != r.upper {
			return fmt.Errorf("%s does not follow %d", show(b), r.upper)
		}
		for u := range b.Updates.All() {
			if u.Time < b.Lower.Time || u.Time >= b.Upper.Time {
				return fmt.Errorf("an update at %d in %s", u.Time, show(b))
			}
			add(state, u.Row, u.Diff)
		}
		if err := r.reach(b, state); err != nil {
			return err
		}
	}
}

func (r *totals) reach(b core.Batch, state map[core.Row]core.Diff) error {
	if b.Upper.Time <= r.upper {
		return fmt.Errorf("%s does not reach beyond %d", show(b), r.upper)
	}
	r.upper, r.state = b.Upper.Time, state
	if want := sum(r.stream, r.upper); !reflect.DeepEqual(state, want) {
		return fmt.Errorf("at %d the view is %v, want %v", r.upper, state, want)
	}
	return nil
}

func add(state map[core.Row]core.Diff, row core.Row, copies core.Diff) {
	if state[row] += copies; state[row] == 0 {
		delete(state, row)
	}
}
