package schema

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Path says where in a document something is, as people write it:
// sinks.web.settings.origins[0]. A key that is not a plain word is quoted:
// headers["x.y"]. The empty path is the whole document.
type Path string

// Key returns the path of a key of the object or map at p.
func (p Path) Key(key string) Path {
	switch {
	case !plainKey(key):
		return p + Path("["+strconv.Quote(key)+"]")
	case p == "":
		return Path(key)
	}
	return p + "." + Path(key)
}

// Index returns the path of an element of the list at p.
func (p Path) Index(i int) Path { return p + Path("["+strconv.Itoa(i)+"]") }

// Join returns the path that leads from p to where q leads from there.
func (p Path) Join(q Path) Path {
	if p == "" || q == "" || q[0] == '[' {
		return p + q
	}
	return p + "." + q
}

// Split returns the keys and indices that a path is made of. Of a path that
// [Path.Key] and [Path.Index] did not make, it returns as much as makes sense.
func (p Path) Split() []string {
	var steps []string
	rest := string(p)
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, `["`):
			quoted, err := strconv.QuotedPrefix(rest[1:])
			if err != nil {
				return steps
			}
			step, err := strconv.Unquote(quoted)
			if err != nil {
				return steps
			}
			steps = append(steps, step)
			rest = strings.TrimPrefix(rest[1+len(quoted):], "]")
		case rest[0] == '[':
			step, after, _ := strings.Cut(rest[1:], "]")
			steps = append(steps, step)
			rest = after
		default:
			rest = strings.TrimPrefix(rest, ".")
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			steps = append(steps, rest[:end])
			rest = rest[end:]
		}
	}
	return steps
}

func plainKey(key string) bool {
	for _, r := range key {
		if r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return key != ""
}

// FieldError is a problem at one place of a document.
type FieldError struct {
	Path    Path
	Message string
	Key     bool // the problem is the key itself and not its value
}

// Error returns the path and the message.
func (e FieldError) Error() string {
	if e.Path == "" {
		return e.Message
	}
	return string(e.Path) + ": " + e.Message
}

// Errorf returns a [FieldError] for a Validate method. The path starts at the
// value that is validated. The message must not quote the value of a field
// that is secret.
func Errorf(path Path, format string, args ...any) FieldError {
	return FieldError{Path: path, Message: fmt.Sprintf(format, args...)}
}

// FieldErrors returns the problems that an error joins, in their order. What is
// not a [FieldError] becomes one about the whole document.
func FieldErrors(err error) []FieldError {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []FieldError
		for _, e := range joined.Unwrap() {
			all = append(all, FieldErrors(e)...)
		}
		return all
	}
	var e FieldError
	if errors.As(err, &e) {
		return []FieldError{e}
	}
	return []FieldError{{Message: err.Error()}}
}
