package wikimedia_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sources/wikimedia"
)

func TestCursor(t *testing.T) {
	at := func(s string) string {
		return `[{"topic":"a","partition":0,` + s + `},{"topic":"b","partition":0,"offset":-1}]`
	}
	for _, c := range []struct {
		name, cursor string
		ids          []string
		want         string
	}{
		{"nothing seen", "", nil, ""},
		{"one", "", []string{at(`"timestamp":5001`)}, at(`"timestamp":5000`)},
		{"the maximum stays", "", []string{at(`"timestamp":5001`), at(`"timestamp":4001`), at(`"timestamp":4501`)}, at(`"timestamp":5000`)},
		{"years back", at(`"timestamp":5000`), []string{at(`"timestamp":1`)}, at(`"timestamp":5000`)},
		{"forward", at(`"timestamp":5000`), []string{at(`"timestamp":5001`), at(`"timestamp":6001`)}, at(`"timestamp":6000`)},
		{"an offset grows", at(`"offset":7`), []string{at(`"offset":9`), at(`"offset":8`)}, at(`"offset":9`)},
		{"an offset, then a time", at(`"offset":7`), []string{at(`"timestamp":5001`)}, at(`"timestamp":5000`)},
		{"a time, then an offset", at(`"timestamp":5000`), []string{at(`"offset":7`)}, at(`"offset":7`)},
		{"a time, then nothing", at(`"timestamp":5000`), []string{at(`"offset":-1`)}, at(`"timestamp":5000`)},
		{"the other data centre takes over", at(`"timestamp":5000`),
			[]string{`[{"topic":"a","partition":0,"offset":-1},{"topic":"b","partition":0,"timestamp":6001}]`},
			`[{"topic":"a","partition":0,"timestamp":5000},{"topic":"b","partition":0,"timestamp":6000}]`},
		{"another partition", at(`"timestamp":5000`), []string{`[{"topic":"a","partition":1,"timestamp":9001}]`},
			`[{"topic":"a","partition":0,"timestamp":5000},{"topic":"b","partition":0,"offset":-1},{"topic":"a","partition":1,"timestamp":9000}]`},
		{"nothing usable", at(`"timestamp":5000`), []string{`[]`, `[{}]`}, ""},
	} {
		got, err := wikimedia.Advance(c.cursor, c.ids...)
		if err != nil || got != c.want && c.want != "" {
			t.Errorf("%s: got %s, %v; want %s", c.name, got, err, c.want)
		}
	}
	if _, err := wikimedia.Advance("garbage"); !errors.Is(err, core.ErrPermanent) {
		t.Errorf("a cursor that is garbage: got %v, want a permanent error", err)
	}
	if got, err := wikimedia.Advance(at(`"timestamp":5000`), "garbage"); err == nil || got != at(`"timestamp":5000`) {
		t.Errorf("an ID that is garbage: got %s, %v; want the cursor before and an error", got, err)
	}
}

// FuzzCursor checks that no ID moves a cursor back or makes it unreadable.
func FuzzCursor(f *testing.F) {
	f.Add(`[{"topic":"a","partition":0,"timestamp":5001},{"topic":"b","partition":0,"offset":-1}]`)
	f.Add(`[{"topic":"a","partition":0,"offset":5,"timestamp":-9223372036854775808}]`)
	f.Add(`null`)
	f.Add(`[{"topic":"a"}]`)
	const before = `[{"topic":"a","partition":0,"timestamp":5000}]`
	f.Fuzz(func(t *testing.T, id string) {
		after, err := wikimedia.Advance(before, id)
		if err != nil {
			return
		}
		var entries []struct {
			Topic     string
			Partition int
			Timestamp *int64
			Offset    *int64
		}
		if err := json.Unmarshal([]byte(after), &entries); err != nil || len(entries) == 0 {
			t.Fatalf("%q made the cursor %q", id, after)
		}
		if e := entries[0]; e.Topic != "a" || e.Partition != 0 || e.Timestamp != nil && *e.Timestamp < 5000 || e.Timestamp == nil && (e.Offset == nil || *e.Offset < 0) {
			t.Errorf("%q moved the cursor to %q", id, after)
		}
		if e := entries[0]; e.Timestamp != nil && *e.Timestamp > 1<<62 && !strings.Contains(id, fmt.Sprint(*e.Timestamp+1)) {
			t.Errorf("%q moved the cursor to %q", id, after)
		}
		if again, err := wikimedia.Advance(after, id); err != nil || again != after {
			t.Errorf("%q moved the cursor twice: %q, then %q, %v", id, after, again, err)
		}
	})
}

var headers = []string{
	`{"meta":{"id":"x","domain":"canary","dt":"2026-01-28T21:42:21.037Z"},"timestamp":1769636540}`,
	`{"timestamp":1769636540,"meta":{"dt":"2019-05-30T02:24:57+00:00","id":"\u0041\"\\","domain":"é"}}`,
	`{"a":{"meta":{"id":"wrong"}},"b":["}",{"]":"{"}],"c":"\\\"","timestamp":12,"meta":{"id":"right"}}`,
	`{"meta":{"id":1,"dt":"yesterday"},"timestamp":"now"}`,
	`{"meta":[],"id":"wrong"}`,
	`{"meta":null}`, `{}`, `[]`, `"meta"`, ` { "meta" : { "id" : "x" } , "timestamp" : 7 } `,
	`{"meta":{"id":"x`, `{"meta":{"id":`, `{"meta"`, `{"`, `{`, ``, `{"meta":{"id":"\`, `{"meta":}`, `{"timestamp":1}}`, `{,}`,
}

func TestHeader(t *testing.T) {
	for _, event := range headers {
		checkHeader(t, []byte(event))
	}
}

// FuzzHeader holds the scanner against package encoding/json on valid JSON;
// on anything else it only must return.
func FuzzHeader(f *testing.F) {
	for _, event := range headers {
		f.Add([]byte(event))
	}
	f.Fuzz(checkHeader)
}

func checkHeader(t *testing.T, event []byte) {
	id, domain, at := wikimedia.Header(event)
	var object map[string]json.RawMessage
	if json.Unmarshal(event, &object) != nil || !utf8.Valid(event) { // the source has repaired that before
		return
	}
	var meta map[string]json.RawMessage
	json.Unmarshal(object["meta"], &meta) // another value than an object has none of it
	text := func(raw json.RawMessage) (s string) {
		json.Unmarshal(raw, &s) // another value than a string is none
		return s
	}
	if duplicateKeys(event) {
		return // which one counts is nobody's business
	}
	var seconds int64
	wantTime, err := time.Parse(time.RFC3339, text(meta["dt"]))
	if err != nil && json.Unmarshal(object["timestamp"], &seconds) == nil && string(object["timestamp"]) != "null" {
		wantTime = time.Unix(seconds, 0)
	}
	if wantID, wantDomain := text(meta["id"]), text(meta["domain"]); id != wantID || domain != wantDomain || !at.Equal(wantTime) {
		t.Errorf("%s: got %q, %q, %s; want %q, %q, %s", event, id, domain, at, wantID, wantDomain, wantTime)
	}
}

// duplicateKeys reports whether one of the keys that matter might be there
// twice, or written with escapes.
func duplicateKeys(event []byte) bool {
	seen := map[string]int{}
	for i := 0; i+2 < len(event); i++ {
		for _, key := range []string{"meta", "id", "domain", "dt", "timestamp"} {
			if i+len(key)+1 < len(event) && string(event[i+1:i+1+len(key)]) == key && event[i] == '"' {
				if seen[key]++; seen[key] > 1 {
					return true
				}
			}
		}
		if event[i] == '\\' && event[i+1] == 'u' {
			return true
		}
	}
	return false
}

func BenchmarkHeader(b *testing.B) {
	event := []byte(`{"$schema":"/mediawiki/recentchange/1.0.0","meta":{"uri":"https://en.wikipedia.org/wiki/A","request_id":"cab9bfc2-5b1d-4a53-9008-0e4f0e6384da","id":"54d4df47-fdb8-485e-a0fb-9420101d5ec8","domain":"en.wikipedia.org","stream":"mediawiki.recentchange","dt":"2026-11-20T18:33:48.429Z","topic":"eqiad.mediawiki.recentchange","partition":0,"offset":5400000000},"id":3172000000,"type":"edit","namespace":0,"title":"A","comment":"/* wbsetclaim-create:2||1 */ [[Property:P5827]]: [[Q5012148]], moved a section, see talk","timestamp":1795199629,"user":"Vildale","bot":false,"minor":false,"length":{"old":22887,"new":22909},"wiki":"enwiki","parsedcomment":"<span dir=\"auto\"><span class=\"autocomment\">Created a new Item: </span></span> <a href=\"/wiki/Property:P5827\" title=\"River\"><span class=\"wb-itemlink\">River <span class=\"wb-itemlink-id\">(P5827)</span></span></a>"}`)
	b.SetBytes(int64(len(event)))
	for b.Loop() {
		wikimedia.Header(event)
	}
}
