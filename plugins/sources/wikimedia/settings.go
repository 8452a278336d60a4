package wikimedia

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/mzdio/mzd/schema"
)

// Settings are what users can set. New takes zero values for the defaults.
type Settings struct {
	Stream       string          `json:"stream" default:"recentchange" doc:"name of the stream; several are separated by commas. https://stream.wikimedia.org lists them"`
	URL          string          `json:"url" default:"https://stream.wikimedia.org/v2/stream" doc:"where the streams are"`
	Contact      string          `json:"contact" default:"https://github.com/mzdio/mzd" doc:"a page or mail address under which Wikimedia can reach who runs this; it is sent with every request, as their policy asks"`
	Format       string          `json:"format" default:"json" enum:"json|sse" doc:"what a landed line is. json: the event as compact JSON; sse: the line of the stream, data: included"`
	Since        string          `json:"since" doc:"where to begin the first time: a time such as 2026-01-31T00:00:00Z, or milliseconds since 1970. Default: now. Wikimedia keeps a few days"`
	StallTimeout schema.Duration `json:"stall_timeout" default:"60s" doc:"reconnect when the server has sent nothing, not even a comment, for so long"`
	MaxEvent     schema.Bytes    `json:"max_event" default:"1MiB" doc:"larger events are left out"`
}

func (s Settings) withDefaults() Settings {
	s.Stream = cmp.Or(s.Stream, "recentchange")
	s.URL = cmp.Or(s.URL, "https://stream.wikimedia.org/v2/stream")
	s.Contact = cmp.Or(s.Contact, projectURL)
	s.Format = cmp.Or(s.Format, "json")
	s.StallTimeout = cmp.Or(s.StallTimeout, schema.Duration(time.Minute))
	s.MaxEvent = cmp.Or(s.MaxEvent, 1<<20)
	return s
}

const projectURL = "https://github.com/mzdio/mzd"

var (
	streamNames = regexp.MustCompile(`^[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*$`)
	contactText = regexp.MustCompile(`^[ -'*-~]+$`) // printable, and no parentheses: it stands in some
)

// Validate says what is wrong with the settings, beyond their types.
func (s Settings) Validate() error {
	s = s.withDefaults()
	var problems []error
	bad := func(path schema.Path, message string) {
		problems = append(problems, schema.FieldError{Path: path, Message: message})
	}
	if !streamNames.MatchString(s.Stream) {
		bad("stream", "not the name of a stream, such as recentchange")
	}
	switch u, err := url.Parse(s.URL); {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		bad("url", "not an address such as https://stream.wikimedia.org/v2/stream")
	case u.User != nil:
		bad("url", "holds a user or a password, which would be logged; the streams ask for none")
	}
	if !contactText.MatchString(s.Contact) {
		bad("contact", "not an address in plain ASCII, without parentheses")
	}
	if s.Format != "json" && s.Format != "sse" {
		bad("format", "neither json nor sse")
	}
	if !isSince(s.Since) {
		bad("since", "neither a time such as 2026-01-31T00:00:00Z nor milliseconds since 1970")
	}
	if s.MaxEvent < 1<<10 || s.MaxEvent > 1<<30 {
		bad("max_event", "not between 1KiB and 1GiB")
	}
	return errors.Join(problems...)
}

func isSince(s string) bool {
	if s == "" {
		return true
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n >= 0
	}
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}
