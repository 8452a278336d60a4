package websocket

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mzdio/mzd/core"
)

// apiError is an answer that says what is wrong.
type apiError struct {
	status  int
	code    string
	message string
	retry   time.Duration // when to come back; 0: nothing is said
}

var (
	errStopping         = apiError{http.StatusServiceUnavailable, "stopping", "mzd is stopping; try again in a moment", time.Second}
	errTooMany          = apiError{http.StatusServiceUnavailable, "too_many_connections", "all connections are in use; try again later (max_connections is the limit)", time.Second}
	errTooManyOfAddress = apiError{http.StatusTooManyRequests, "too_many_from_address", "all connections for your address are in use; try again later (max_connections_per_address is the limit)", time.Second}
	errBusy             = apiError{http.StatusServiceUnavailable, "busy", "slow clients hold all the memory that is there for them; try again later (max_pinned_bytes is the limit)", time.Second}
	errLongURI          = apiError{http.StatusRequestURITooLong, "uri_too_long", "the request line is over 8 KiB", 0}
	errBody             = apiError{http.StatusRequestEntityTooLarge, "body_not_allowed", "requests have no bodies here", 0}
	errInternal         = apiError{http.StatusInternalServerError, "internal", "internal error; the log of mzd says more", 0}
)

// data returns the error as a message of a stream, which is also the body of an
// HTTP answer.
func (e apiError) data() []byte {
	buf := appendField([]byte(`{"type":"error"`), "code", e.code)
	buf = appendField(buf, "message", e.message)
	if e.retry > 0 {
		buf = strconv.AppendInt(append(buf, `,"retry_ms":`...), e.retry.Milliseconds(), 10)
	}
	return append(buf, '}')
}

// asMessage returns the error as a message of a stream.
func (e apiError) asMessage() message {
	return message{kind: kindError, data: e.data(), retry: e.retry}
}

func writeError(w http.ResponseWriter, e apiError) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if e.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.retry+time.Second-1)/time.Second)))
	}
	w.WriteHeader(e.status)
	w.Write(append(e.data(), '\n'))
}

func badRequest(code, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, code, fmt.Sprintf(format, args...), 0}
}

const (
	maxViewsPerStream = 32
	maxInterval       = time.Hour
)

// streamOf reads what a request for a stream asks for.
func (s *server) streamOf(r *http.Request) (*subscription, position, *apiError) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, nil, badRequest("bad_request", "query: %v", err)
	}
	names := query["view"]
	if name := r.PathValue("view"); name != "" {
		names = append([]string{name}, names...)
	}
	var sub subscription
	var problem *apiError
	sub.views = strings.Join(names, "\x00")
	if sub.readers, problem = s.readers(names); problem != nil {
		return nil, nil, problem
	}
	if sub.form.numbersString, problem = numbersOf(query); problem != nil {
		return nil, nil, problem
	}
	if v := query.Get("interval"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 || d > maxInterval {
			return nil, nil, badRequest("bad_interval", "interval %.40q: want a duration from 0s to %v, as in 500ms", v, maxInterval)
		}
		sub.interval = d
	}
	if query.Has("mismatch") {
		s.metrics.mismatches.Inc()
	}
	// A browser that reconnects an EventSource repeats its first URL and adds
	// the id it got to: that is the newer position.
	since := query.Get("since")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		since = id
	}
	at, err := parsePosition(since, len(names))
	if err != nil {
		return nil, nil, badRequest("bad_token", "since %v", err)
	}
	return &sub, at, nil
}

// readers returns the logs of the views.
func (s *server) readers(names []string) ([]core.CutReader, *apiError) {
	if len(names) == 0 {
		return nil, badRequest("bad_request", "no view named: ask for /api/stream/NAME or /api/stream?view=NAME&view=NAME; views: %s", s.viewNames())
	}
	if len(names) > maxViewsPerStream {
		return nil, badRequest("too_many_views", "%d views in one stream; %d are allowed", len(names), maxViewsPerStream)
	}
	var readers []core.CutReader
	for i, name := range names {
		r := s.byName[name]
		if r == nil {
			return nil, s.unknownView(name)
		}
		if slices.Contains(names[:i], name) {
			return nil, badRequest("bad_request", "view %q asked for twice", name)
		}
		readers = append(readers, r)
	}
	return readers, nil
}

func (s *server) unknownView(name string) *apiError {
	return &apiError{http.StatusNotFound, "unknown_view", fmt.Sprintf("no view %.100q; views: %s", name, s.viewNames()), 0}
}

// viewNames lists the views for error messages, at most some of them.
func (s *server) viewNames() string {
	const most = 50
	var names []string
	for _, r := range s.views {
		if len(names) == most {
			names = append(names, "...")
			break
		}
		names = append(names, r.View().Name)
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

func numbersOf(query url.Values) (bool, *apiError) {
	switch v := query.Get("numbers"); v {
	case "":
		return false, nil
	case "string":
		return true, nil
	default:
		return false, badRequest("bad_request", "numbers %.40q: only string is known", v)
	}
}

// minTimestampOf reads min_timestamp, 0 if there is none.
func minTimestampOf(query url.Values) (core.Time, *apiError) {
	v := query.Get("min_timestamp")
	if v == "" {
		return 0, nil
	}
	t, err := core.ParseTime(v)
	if err != nil {
		return 0, badRequest("bad_request", "min_timestamp %.40q: want a timestamp, as in 1721310001000", v)
	}
	return t, nil
}

// formats are the forms of a snapshot: the word in ?format and the media type.
var formats = []struct{ name, media string }{
	{"json", "application/json"},
	{"ndjson", "application/x-ndjson"},
	{"csv", "text/csv"},
}

// formatOf returns the format and media type that a request for a snapshot asks
// for.
func formatOf(r *http.Request, query url.Values) (format, media string, problem *apiError) {
	if v := query.Get("format"); v != "" {
		for _, f := range formats {
			if f.name == v {
				return f.name, f.media, nil
			}
		}
		return "", "", badRequest("bad_request", "format %.40q: want json, ndjson or csv", v)
	}
	best, quality := formats[0], 0.0
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		media, parameters, err := mime.ParseMediaType(part)
		if err != nil {
			continue // what nobody understands is not what is wanted
		}
		q := 1.0
		if text, ok := parameters["q"]; ok {
			q, _ = strconv.ParseFloat(text, 64)
		}
		for _, f := range formats {
			if media == f.media && q > quality {
				best, quality = f, q
			}
		}
	}
	return best.name, best.media, nil
}

// accepts reports whether a header that is a list of words has the word.
func accepts(h http.Header, key, word string) bool {
	for _, line := range h.Values(key) {
		for part := range strings.SplitSeq(line, ",") {
			value, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(value), word) {
				return true
			}
		}
	}
	return false
}

// etag returns the entity tag of a view at a token in a format. One URL can give
// several formats, and no two of them may have one tag (RFC 9110, 8.8.3).
func etag(t core.Token, format string) string {
	if format == formats[0].name {
		return strconv.Quote(t.String())
	}
	return strconv.Quote(t.String() + "-" + format)
}
