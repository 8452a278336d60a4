package websocket_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

var wide = []core.Column{{Name: "user", Type: "text"}, {Name: "n", Type: "int8"}, {Name: `odd "name", really`, Type: "jsonb"}}

func TestSnapshots(t *testing.T) {
	f := newFeed(t, "v", wide...)
	s := serve(t, websocket.Settings{}, f)
	f.reset(1000, `["a \"b\", c\nd",9007199254740993,{"x":[1,2]}]`, `["",-1,null]`, `[null,0,"<b>"]`, `[null,0,"<b>"]`)
	const (
		object1  = `{"user":"","n":-1,"odd \"name\", really":null}`
		object2  = `{"user":"a \"b\", c\nd","n":9007199254740993,"odd \"name\", really":{"x":[1,2]}}`
		object3  = `{"user":null,"n":0,"odd \"name\", really":"<b>"}`
		asString = `{"user":"a \"b\", c\nd","n":"9007199254740993","odd \"name\", really":{"x":[1,2]}}`
		asCSV    = "user,n,\"odd \"\"name\"\", really\"\n\"\",-1,\n\"a \"\"b\"\", c\nd\",9007199254740993,\"{\"\"x\"\":[1,2]}\"\n,0,<b>\n,0,<b>\n"
		columns  = `[{"name":"user","type":"text"},{"name":"n","type":"int8"},{"name":"odd \"name\", really","type":"jsonb"}]`
		asLines  = object1 + "\n" + object2 + "\n" + object3 + "\n" + object3 + "\n"
	)
	asJSON := `{"timestamp":"1000","token":"` + f.token().String() + `","checksum":"` + f.sum() + `","columns":` + columns + `,"rows":[` +
		object1 + "," + object2 + "," + object3 + "," + object3 + `]}`
	for _, tt := range []struct{ path, accept, media, want string }{
		{"/api/views/v", "", "application/json", asJSON},
		{"/api/views/v", "text/html, */*", "application/json", asJSON},
		{"/api/views/v?numbers=string", "", "application/json", strings.NewReplacer(object1, strings.Replace(object1, "-1", `"-1"`, 1), object2, asString, object3, strings.Replace(object3, "0", `"0"`, 1)).Replace(asJSON)},
		{"/api/views/v?format=ndjson", "", "application/x-ndjson", asLines},
		{"/api/views/v", "application/x-ndjson", "application/x-ndjson", asLines},
		{"/api/views/v?format=csv", "", "text/csv; charset=utf-8; header=present", asCSV},
		{"/api/views/v", "application/json;q=0.5, text/csv;q=0.9, text/html", "text/csv; charset=utf-8; header=present", asCSV},
		{"/api/views/v", "text/csv;q=0, nonsense;;;, */*", "application/json", asJSON},
		{"/api/views/v", "text/csv;q=0.9", "text/csv; charset=utf-8; header=present", asCSV},
	} {
		response, body := s.get(t, tt.path, "Accept", tt.accept)
		if got := response.Header.Get("Content-Type"); got != tt.media {
			t.Errorf("%s (%s): content type %s, want %s", tt.path, tt.accept, got, tt.media)
		}
		if tt.media == "application/json" {
			var compact bytes.Buffer
			if err := json.Compact(&compact, []byte(body)); err != nil {
				t.Errorf("%s: %v", tt.path, err)
			}
			body = compact.String()
		}
		if body != tt.want {
			t.Errorf("%s (%s): got %s\nwant %s", tt.path, tt.accept, body, tt.want)
		}
		suffix := map[string]string{"application/x-ndjson": "-ndjson", "text/csv; charset=utf-8; header=present": "-csv"}[tt.media]
		if got, want := response.Header.Get("ETag"), `"`+f.token().String()+suffix+`"`; got != want {
			t.Errorf("%s: ETag %s, want %s", tt.path, got, want)
		}
	}
	if records, err := csv.NewReader(strings.NewReader(asCSV)).ReadAll(); err != nil || len(records) != 5 {
		t.Errorf("the CSV has %d records, %v", len(records), err)
	}
	for _, path := range []string{"/api/views/v?format=xml", "/api/views/v?min_timestamp=-1", "/api/views/v?numbers=x", "/api/views/v?min_timestamp=18446744073709551616"} {
		if response, body := s.get(t, path); response.StatusCode != 400 {
			t.Errorf("%s: got %d %s, want 400", path, response.StatusCode, body)
		}
	}
}

func TestSnapshotsThatHaveNotChanged(t *testing.T) {
	f := newFeed(t, "v")
	s := serve(t, websocket.Settings{}, f)
	f.reset(1000, `["a",1]`)
	first, _ := s.get(t, "/api/views/v")
	tag := first.Header.Get("ETag")
	for _, header := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		if response, body := s.get(t, "/api/views/v", "If-None-Match", header); response.StatusCode != 304 || body != "" {
			t.Errorf("If-None-Match %s: got %d %q, want 304", header, response.StatusCode, body)
		}
	}
	if response, _ := s.get(t, "/api/views/v", "If-None-Match", tag, "Accept", "text/csv"); response.StatusCode != 200 || strings.Join(response.Header.Values("Vary"), ", ") != "Origin, Accept" {
		t.Errorf("in another format: got %d, Vary %q, want 200 and Origin, Accept", response.StatusCode, response.Header.Get("Vary"))
	}
	f.append(1001)
	if response, _ := s.get(t, "/api/views/v", "If-None-Match", tag); response.StatusCode != 200 {
		t.Errorf("at a new time: got %d, want 200", response.StatusCode)
	}
}

// restartedReader is a log that begins a new history, at an earlier time, just
// before it is read for the first time.
type restartedReader struct {
	*feed
	once    sync.Once
	restart func()
}

func (r *restartedReader) Follow(ctx context.Context, from core.Token) iter.Seq2[core.Batch, error] {
	r.once.Do(r.restart)
	return r.feed.Follow(ctx, from)
}

func TestASnapshotIsNeverTooEarly(t *testing.T) {
	f := newFeed(t, "v")
	f.reset(1000, `["a",1]`)
	s := serve(t, websocket.Settings{}, &restartedReader{feed: f, restart: func() {
		f.reset(900, `["a",2]`)
		go f.append(1001, change{1, `["a",3]`})
	}})
	if response, body := s.get(t, "/api/views/v?min_timestamp=1000"); response.StatusCode != 200 || !strings.Contains(body, `"timestamp":"1001"`) {
		t.Errorf("got %d %s, want the view at 1001", response.StatusCode, body)
	}
}

func TestViews(t *testing.T) {
	f, g := newFeed(t, "a"), newFeed(t, "b")
	s := serve(t, websocket.Settings{Notice: "These are <made up>."}, f, g)
	f.reset(1000)
	_, body := s.get(t, "/api/views")
	want := `{"notice":"These are \u003cmade up\u003e.","views":[{"name":"a","columns":[{"name":"user","type":"text"},{"name":"count","type":"int8"}],"key":["user"],"timestamp":"1000"},{"name":"b","columns":[],"key":[],"timestamp":null}]}`
	if got := strings.TrimSpace(body); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
