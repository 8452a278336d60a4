package mz

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mzdio/mzd/core"
)

// dialect is what a release speaks.
type dialect struct {
	version  string // as the server gives it
	embedded bool
	release  [3]int // v0.26.1 is {0, 26, 1}
}

var versionPattern = regexp.MustCompile(`^v(\d+)\.(\d+)(?:\.(\d+))?`)

// detect asks which release the server is. Since v0.39 it has said so by now.
func detect(ctx context.Context, w *wire) (dialect, error) {
	version := w.params["mz_version"]
	// Some roles may not call functions; SHOW needs no rights but a newer release.
	for _, ask := range []string{"SELECT mz_version()", "SHOW mz_version"} {
		if version != "" {
			break
		}
		answer, err := w.texts(ctx, ask)
		if err != nil && !fromServer(err) {
			return dialect{}, err
		}
		version = strings.Join(answer, "")
	}
	d, ok := parseVersion(version)
	if !ok {
		return d, &Error{reason: Protocol, message: fmt.Sprintf("the server is not Materialize: its mz_version is %q; set materialize.url to a Materialize, or to embedded", version)}
	}
	return d, nil
}

func parseVersion(s string) (dialect, bool) {
	if strings.HasPrefix(s, "mzd embedded") {
		return dialect{version: s, embedded: true}, true
	}
	m := versionPattern.FindStringSubmatch(s)
	if m == nil {
		return dialect{version: s}, false
	}
	d := dialect{version: s}
	for i := range d.release {
		d.release[i], _ = strconv.Atoi(m[i+1]) // digits or none; a number beyond int is as new as can be
	}
	return d, true
}

func (d dialect) atLeast(release ...int) bool {
	return d.embedded || slices.Compare(d.release[:], release) >= 0
}

// supports tells what a release is too old for.
func (d dialect) supports(t target) error {
	switch {
	case !d.atLeast(0, 5, 2): // TAIL had no progress
		return &Error{reason: Protocol, message: fmt.Sprintf("the server is Materialize %s; mzd needs v0.5.2 or later", d.version)}
	case t.query && !d.atLeast(0, 20):
		return &Error{reason: Protocol, message: fmt.Sprintf("the server is Materialize %s, which streams views but no queries before v0.20; create a view of the query", d.version)}
	}
	return nil
}

// subscribes reports whether the statement is SUBSCRIBE; before v0.27 it is
// TAIL.
func (d dialect) subscribes() bool { return d.atLeast(0, 27) }

// leads reports whether a stream begins with a progress row at its AS OF, so
// that the second one completes the snapshot.
func (d dialect) leads() bool { return d.atLeast(0, 50) }

// snapshot is the statement for a stream from the beginning.
func (d dialect) snapshot(t target, asOf *core.Time) string {
	return d.statement(t, "PROGRESS", asOf)
}

// resume is the statement for a stream of what happens after asOf.
func (d dialect) resume(t target, asOf core.Time) string {
	return d.statement(t, "PROGRESS, SNAPSHOT = false", &asOf)
}

func (d dialect) statement(t target, options string, asOf *core.Time) string {
	verb := "TAIL"
	if d.subscribes() {
		verb = "SUBSCRIBE TO"
	}
	s := fmt.Sprintf("%s %s WITH (%s)", verb, t.sql, options)
	if asOf != nil {
		s += " AS OF " + asOf.String()
	}
	return s
}

// target is what a stream is of.
type target struct {
	sql   string   // as it stands in the statement
	names []string // of the object, unqualified, or all that occur in a query
	query bool
}

// targetOf reads the target of a request.
func targetOf(r Request) (target, error) {
	if r.Query != "" {
		q := strings.TrimRight(strings.TrimSpace(r.Query), "; \t\r\n")
		return target{sql: "(" + q + "\n)", names: namesIn(q), query: true}, nil // the newline ends a trailing comment
	}
	parts, err := parseName(r.Name)
	if err != nil {
		return target{}, &Error{reason: NoSuchView, message: err.Error()}
	}
	quoted := make([]string, len(parts))
	for i, p := range parts {
		quoted[i] = quoteIdentifier(p)
	}
	return target{sql: strings.Join(quoted, "."), names: parts[len(parts)-1:]}, nil
}

// namesIn returns all words of a query that may be names, keywords among them.
func namesIn(query string) []string {
	var names []string
	for rest := query; rest != ""; {
		n := tokenLength(rest)
		if name, length, ok := quotedIdentifier(rest); ok {
			names, n = append(names, name), length
		} else if isWord(rest[0]) && !strings.ContainsRune(rest[:n], '\'') {
			names = append(names, rest[:n], strings.ToLower(rest[:n]))
		}
		rest = rest[n:]
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// quotedIdentifier reads a name in double quotes at the beginning of s, and
// returns its length there.
func quotedIdentifier(s string) (name string, length int, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", 0, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] == '"' {
			if i++; i == len(s) || s[i] != '"' {
				return b.String(), i, b.Len() > 0
			}
		}
		b.WriteByte(s[i])
	}
	return "", 0, false
}

var plainIdentifier = regexp.MustCompile(`^[\pL_][\pL\pN_$]*$`)

// parseName splits a possibly qualified SQL name into its parts: quoted parts
// are taken as they are, others are folded to lower case.
func parseName(s string) ([]string, error) {
	var parts []string
	for rest := s; ; {
		var part string
		if strings.HasPrefix(rest, `"`) {
			name, n, ok := quotedIdentifier(rest)
			if !ok {
				return nil, fmt.Errorf("view name %s: a quoted part is empty or does not end", s)
			}
			part, rest = name, rest[n:]
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			if !plainIdentifier.MatchString(rest[:end]) {
				return nil, fmt.Errorf("view name %s: %q is not a plain name; write it in double quotes", s, rest[:end])
			}
			part, rest = strings.ToLower(rest[:end]), rest[end:]
		}
		if strings.ContainsRune(part, 0) {
			return nil, fmt.Errorf("view name %q: contains a zero byte", s)
		}
		if parts = append(parts, part); rest == "" {
			break
		}
		if rest[0] != '.' {
			return nil, fmt.Errorf("view name %s: expected a dot after %q", s, part)
		}
		rest = rest[1:]
	}
	if len(parts) > 3 {
		return nil, fmt.Errorf("view name %s: at most database.schema.view", s)
	}
	return parts, nil
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
func quoteLiteral(s string) string    { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }
