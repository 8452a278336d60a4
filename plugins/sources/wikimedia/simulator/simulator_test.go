package simulator_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mzdio/mzd/plugins/sources/wikimedia/simulator"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is how a test asks for a stream.
type request struct {
	lastEventID string
	since       string
}

// read reads n messages from a server.
func read(t *testing.T, s http.Handler, r request, n int) []simulator.Message {
	t.Helper()
	srv := httptest.NewServer(s)
	defer srv.Close()
	return readFrom(t, srv.URL, r, n)
}

func readFrom(t *testing.T, url string, r request, n int) []simulator.Message {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v2/stream/recentchange?since="+r.since, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.lastEventID != "" {
		req.Header.Set("Last-Event-ID", r.lastEventID)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %s", resp.Status)
	}
	var raw bytes.Buffer
	in := bufio.NewReaderSize(resp.Body, 1<<20)
	for found := 0; found < n; {
		line, err := in.ReadSlice('\n')
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", found, n, err)
		}
		raw.Write(line)
		if len(line) == 1 && !bytes.HasSuffix(raw.Bytes(), []byte(":ok\n\n")) && !bytes.HasSuffix(raw.Bytes(), []byte(":keep-alive\n\n")) {
			found++
		}
	}
	return simulator.ParseSSE(raw.Bytes())
}

type event struct {
	Schema string `json:"$schema"`
	Meta   struct {
		ID, Domain, Stream, Topic string
		Dt                        time.Time
		Offset                    int64
	}
	ID            *int64
	Type          string
	Namespace     int
	Title         string
	Comment       string
	ParsedComment string
	Timestamp     int64
	User          string
	Bot           bool
	Minor         *bool
	Patrolled     *bool
	Length        *struct{ Old, New *int64 }
	Revision      *struct{ Old, New *int64 }
	LogType       *string         `json:"log_type"`
	LogParams     json.RawMessage `json:"log_params"`
	Wiki          string
}

func decode(t *testing.T, m simulator.Message) event {
	t.Helper()
	var e event
	if err := json.Unmarshal(m.Data, &e); err != nil {
		t.Fatalf("%v in %s", err, m.Data)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, m.Data); err != nil || !bytes.Equal(compact.Bytes(), m.Data) || !utf8.Valid(m.Data) {
		t.Fatalf("not compact JSON in UTF-8: %s", m.Data)
	}
	return e
}

// TestStatistics holds made-up edits against what was measured on recorded
// ones.
func TestStatistics(t *testing.T) {
	const n = 6670
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			start := time.Now().Add(-10 * time.Minute)
			s := simulator.New(simulator.Options{Rate: 30, Seed: seed, Start: start, Total: n})
			testStatistics(t, read(t, s, request{since: fmt.Sprint(start.Add(-24 * time.Hour).UnixMilli())}, n+n/300), n)
		})
	}
}

func testStatistics(t *testing.T, messages []simulator.Message, n int) {
	counts := map[string]int{}
	users, wikis, ids, perSecond := map[string]int{}, map[string]int{}, map[string]bool{}, map[int64]int{}
	shared := map[string]int{}
	var sizes, comments, changes []int
	var lags []int
	var newest int64
	for _, m := range messages {
		e := decode(t, m)
		if ids[e.Meta.ID] {
			t.Errorf("meta.id %s twice", e.Meta.ID)
		}
		ids[e.Meta.ID] = true
		if e.Meta.Domain == "canary" {
			counts["canary"]++
			continue
		}
		count := func(what string, is bool) {
			if is {
				counts[what]++
			}
		}
		counts[e.Type]++
		users[e.User]++
		wikis[e.Wiki]++
		shared[m.ID]++
		perSecond[e.Meta.Dt.Unix()]++
		sizes = append(sizes, len(m.Data))
		comments = append(comments, utf8.RuneCountInString(e.Comment))
		count("bot", e.Bot)
		count("bot "+e.Type, e.Bot)
		count("empty comment", e.Comment == "")
		text := string(m.Data)
		count("non-ASCII", strings.IndexFunc(text, func(r rune) bool { return r > unicode.MaxASCII }) >= 0)
		count("right-to-left", strings.IndexFunc(text, func(r rune) bool { return unicode.In(r, unicode.Arabic, unicode.Hebrew) }) >= 0)
		count("invisible", strings.IndexFunc(text, func(r rune) bool { return unicode.Is(unicode.Cf, r) }) >= 0)
		count("emoji", strings.IndexFunc(text, func(r rune) bool { return r >= 0x1F300 && r < 0x1FAFF }) >= 0)
		count("newline", strings.Contains(e.Comment, "\n"))
		count("U+FFFD", strings.Contains(e.Comment, "\uFFFD"))
		count("address", strings.Count(e.User, ".") == 3)
		if e.Timestamp < newest {
			counts["late"]++
			lags = append(lags, int(newest-e.Timestamp))
		}
		newest = max(newest, e.Timestamp)

		page := e.Type == "edit" || e.Type == "new"
		if got := [...]bool{e.Length != nil, e.Revision != nil, e.Minor != nil}; got != [...]bool{page, page, page} {
			t.Errorf("length, revision, minor of %s: %v", e.Type, got)
		}
		if (e.LogType != nil) != (e.Type == "log") || (e.LogParams != nil) != (e.Type == "log") {
			t.Errorf("log fields of %s: %v", e.Type, e.LogType)
		}
		count("log without id", e.Type == "log" && e.ID == nil)
		count("edit patrolled", e.Type == "edit" && e.Patrolled != nil)
		count("new patrolled", e.Type == "new" && e.Patrolled != nil)
		if e.Type == "edit" {
			changes = append(changes, int(*e.Length.New-*e.Length.Old))
		}
		if e.Type == "new" && (e.Length.Old != nil || e.Revision.Old != nil) {
			t.Errorf("a new page has an old length or revision: %s", m.Data)
		}
	}
	once, top := 0, []int{}
	for _, c := range users {
		top = append(top, c)
		if c == 1 {
			once++
		}
	}
	slices.Sort(top)
	slices.Reverse(top)
	topTen := 0
	for _, c := range top[:10] {
		topTen += c
	}
	delete(perSecond, newest)
	delete(shared, messages[0].ID) // nothing is older than the stream
	peak := 0
	for _, c := range perSecond {
		peak = max(peak, c)
	}
	most := 0
	for _, c := range shared {
		most = max(most, c)
	}
	percent := func(part, of int) float64 { return 100 * float64(part) / float64(of) }
	check := func(what string, got, low, high float64) {
		t.Helper()
		t.Logf("%-28s %8.2f   (%v to %v)", what, got, low, high)
		if got < low || got > high {
			t.Errorf("%s: got %.2f, want %v to %v", what, got, low, high)
		}
	}
	check("edit %", percent(counts["edit"], n), 54, 61)
	check("categorize %", percent(counts["categorize"], n), 32, 39)
	check("log %", percent(counts["log"], n), 2, 5)
	check("new %", percent(counts["new"], n), 2, 5)
	check("142", float64(counts["142"]), 1, 15)
	check("bots %", percent(counts["bot"], n), 33, 43)
	check("bots among edits %", percent(counts["bot edit"], counts["edit"]), 40, 50)
	check("bots among categorize %", percent(counts["bot categorize"], counts["categorize"]), 24, 34)
	check("distinct users", float64(len(users)), 800, 2200)
	check("users seen once %", percent(once, len(users)), 45, 80)
	check("top ten users %", percent(topTen, n), 42, 67)
	check("top user %", percent(top[0], n), 6, 34)
	check("IP addresses %", percent(counts["address"], n), 1.5, 6)
	check("commons %", percent(wikis["commonswiki"], n), 27, 37)
	check("wikidata %", percent(wikis["wikidatawiki"], n), 20, 30)
	check("enwiki %", percent(wikis["enwiki"], n), 8, 14)
	check("viwiki %", percent(wikis["viwiki"], n), 2, 5)
	check("wikis", float64(len(wikis)), 80, 200)
	check("bytes, median", quantile(sizes, 50), 1000, 1250)
	check("bytes, p90", quantile(sizes, 90), 1300, 1900)
	check("bytes, p99", quantile(sizes, 99), 1600, 2800)
	check("bytes, largest", quantile(sizes, 100), 2500, 12_000)
	check("comment, median", quantile(comments, 50), 40, 80)
	check("comment, p99", quantile(comments, 99), 150, 600)
	check("comment, largest", quantile(comments, 100), 500, 3000)
	check("empty comments %", percent(counts["empty comment"], n), 4, 9)
	check("size change, median", quantile(changes, 50), 30, 130)
	check("size change, p1", quantile(changes, 1), -2000, -300)
	check("size change, p99", quantile(changes, 99), 3000, 20_000)
	check("late %", percent(counts["late"], n), 45, 85)
	check("lag, median", quantile(lags, 50), 1, 3)
	check("lag, p99", quantile(lags, 98), 5, 20)
	check("years late", percent(countOver(lags, 86400), n), 0.02, 0.6)
	check("non-ASCII %", percent(counts["non-ASCII"], n), 38, 58)
	check("right-to-left %", percent(counts["right-to-left"], n), 3, 8)
	check("invisible %", percent(counts["invisible"], n), 30, 46)
	check("emoji", float64(counts["emoji"]), 20, 600)
	check("newlines", float64(counts["newline"]), 1, 40)
	check("U+FFFD", float64(counts["U+FFFD"]), 1, 30)
	check("logs without id %", percent(counts["log without id"], counts["log"]), 35, 70)
	check("edits with patrolled %", percent(counts["edit patrolled"], counts["edit"]), 70, 80)
	check("new with patrolled %", percent(counts["new patrolled"], counts["new"]), 100, 100)
	check("canaries", float64(counts["canary"]), float64(n/300), float64(n/300))
	check("peak in a second", float64(peak), 36, 80)
	check("sharing an ID", float64(most), 20, 90)
}

func quantile(xs []int, percent int) float64 {
	slices.Sort(xs)
	return float64(xs[min(len(xs)-1, len(xs)*percent/100)])
}

func countOver(xs []int, limit int) int {
	n := 0
	for _, x := range xs {
		if x > limit {
			n++
		}
	}
	return n
}

func BenchmarkStream(b *testing.B) {
	s := simulator.New(simulator.Options{Rate: 1e9, Start: time.Now().Add(-time.Hour), History: 1 << 40})
	srv := httptest.NewServer(s)
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/v2/stream/recentchange?since=0")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewReaderSize(resp.Body, 1<<20)
	bytes := int64(0)
	for b.Loop() {
		for range 4 { // event, id, data, blank
			line, err := in.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			bytes += int64(len(line))
		}
	}
	b.SetBytes(bytes / int64(b.N))
}
