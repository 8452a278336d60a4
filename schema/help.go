package schema

import (
	"fmt"
	"iter"
	"regexp"
	"strings"
	"unicode"
)

// Help returns the reference of an object's keys as text for a terminal, in the
// order of [Schema.Markdown].
func (s *Schema) Help() string {
	var b strings.Builder
	for path, f := range s.all("") {
		what := []string{f.Schema.TypeName()}
		switch text := f.defaultText(); {
		case f.Required:
			what = append(what, "required")
		case text != "":
			what = append(what, "default "+text)
		}
		if f.Schema.leaf().Secret {
			what = append(what, "a secret: ${NAME} or file:PATH")
		}
		fmt.Fprintf(&b, "  %s\n      %s\n", printableText(path), printableText(strings.Join(what, ", ")))
		b.WriteString(Wrap(f.Doc, "      "))
	}
	return b.String()
}

// all returns the fields of an object, nested ones included, each with where it
// is: a[] is an element of a list, a.NAME a value of a map.
func (s *Schema) all(path string) iter.Seq2[string, Field] {
	return func(yield func(string, Field) bool) {
		for _, f := range s.Fields {
			at := f.Name
			if path != "" {
				at = path + "." + f.Name
			}
			if !yield(at, f) {
				return
			}
			inner := f.Schema
			for ; inner.Elem != nil; inner = inner.Elem {
				if inner.Kind == List {
					at += "[]"
				} else {
					at += ".NAME"
				}
			}
			for path, f := range inner.all(at) {
				if !yield(path, f) {
					return
				}
			}
		}
	}
}

// leaf returns the schema of what lists and maps hold in the end.
func (s *Schema) leaf() *Schema {
	for s.Elem != nil {
		s = s.Elem
	}
	return s
}

// links matches those of Markdown.
var links = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)

// Plain returns a doc text as one line for a terminal: without the brackets of
// links, and without what does not print, so that no text of a stranger can move
// the cursor.
func Plain(doc string) string {
	return printableText(strings.Join(strings.Fields(links.ReplaceAllString(doc, "$1")), " "))
}

// Wrap lays out a doc text for a terminal like [Plain], as lines of some 80
// characters with an indent.
func Wrap(doc, indent string) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(Plain(doc)) {
		switch {
		case column == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+len(word) > 79:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	if column > 0 {
		b.WriteByte('\n')
	}
	return b.String()
}

// printableText keeps the schema of a stranger from moving the cursor.
func printableText(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
