package flow

import (
	"cmp"
	"iter"
	"strconv"
	"strings"
)

// This file reads canonical jsonb text where it lies: what a comparison or a deletion needs of it is found without parsing it.

// members are the members of an object, their keys quoted as in the text, or the elements of an array, with an empty key.
func members(container string) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		object := container[0] == '{'
		for rest := inner(container); rest != ""; {
			key := ""
			if object {
				key = rest[:valueEnd(rest)]
				rest = rest[len(key)+len(": "):]
			}
			value := rest[:valueEnd(rest)]
			if rest = rest[len(value):]; rest != "" {
				rest = rest[len(", "):]
			}
			if !yield(key, value) {
				return
			}
		}
	}
}

// inner is what stands between the brackets of a container.
func inner(container string) string { return container[1 : len(container)-1] }

// valueEnd is the length of the value that a text begins with.
func valueEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			for i++; s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(s)
}

// compareJSON is PostgreSQL's order of jsonb: by kind (null, string, number, boolean, array, object), containers then by their
// number of members, then member by member. An oddity is kept: at the top an empty array comes before every scalar.
func compareJSON(a, b string) int {
	if a == b {
		return 0
	}
	switch scalar := jsonKind(a) < '['; {
	case scalar && b == "[]":
		return 1
	case a == "[]" && jsonKind(b) < '[':
		return -1
	}
	return compareJSONValues(a, b)
}

// jsonKind is a byte that orders values by their kind.
func jsonKind(s string) byte {
	switch c := s[0]; c {
	case 'n':
		return 0
	case '"':
		return 1
	case 't', 'f':
		return 3
	case '[', '{':
		return c
	}
	return 2
}

func compareJSONValues(a, b string) int {
	if a == b {
		return 0
	}
	kind := jsonKind(a)
	if c := cmp.Compare(kind, jsonKind(b)); c != 0 {
		return c
	}
	switch kind {
	case 0:
		return 0
	case 1:
		return strings.Compare(jsonString(a), jsonString(b))
	case 2:
		x, _ := parseNumeric(a) // both are canonical, so they parse
		y, _ := parseNumeric(b)
		return Compare(x, y)
	case 3:
		return strings.Compare(a, b) // f, t
	}
	return compareContainers(a, b)
}

func compareContainers(a, b string) int {
	count := func(s string) (n int) {
		for range members(s) {
			n++
		}
		return n
	}
	if c := cmp.Compare(count(a), count(b)); c != 0 {
		return c
	}
	next, stop := iter.Pull2(members(b))
	defer stop()
	for key, value := range members(a) {
		otherKey, other, _ := next()
		if key != otherKey {
			return strings.Compare(jsonString(key), jsonString(otherKey))
		}
		if c := compareJSONValues(value, other); c != 0 {
			return c
		}
	}
	return 0
}

// jsonString is the text that a canonical JSON string stands for.
func jsonString(quoted string) string {
	s := inner(quoted)
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'u': // only control characters are written so
			n, _ := strconv.ParseUint(s[i+1:i+5], 16, 8)
			b.WriteByte(byte(n))
			i += 4
		case '"', '\\':
			b.WriteByte(c)
		default:
			b.WriteByte("\b\f\n\r\t"[strings.IndexByte("bfnrt", c)])
		}
	}
	return b.String()
}
