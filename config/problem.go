package config

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/mzdio/mzd/schema"
)

// Problem is something that is wrong at one place of a file.
type Problem struct {
	File         string
	Line, Column int         // counted from 1 in characters; 0: unknown
	Path         schema.Path // empty: the file as a whole
	Message      string
	Source       string // the text of the line; empty: not to be shown
}

// Problems is everything that is wrong with a file, in the order of its lines.
type Problems []Problem

const (
	maxShown  = 100 // problems of one file
	maxSource = 100 // characters of one line
)

// Error lists the problems, each with the line it is about and a caret under
// the place.
func (ps Problems) Error() string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == maxShown {
			fmt.Fprintf(&b, "and %d more", len(ps)-i)
			break
		}
		b.WriteString(p.Error())
	}
	return b.String()
}

// Error returns the problem as file:line:column: path: message, and below it
// the line with a caret under the place.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	for _, n := range []int{p.Line, p.Column} {
		if n > 0 {
			fmt.Fprintf(&b, ":%d", n)
		}
	}
	b.WriteString(": ")
	b.WriteString(schema.FieldError{Path: p.Path, Message: p.Message}.Error())
	if p.Source == "" || p.Line == 0 {
		return b.String()
	}
	source, column := clip(p.Source, p.Column)
	fmt.Fprintf(&b, "\n%6d | %s", p.Line, source)
	if column > 0 {
		fmt.Fprintf(&b, "\n       | %s^", strings.Repeat(" ", column-1))
	}
	return b.String()
}

// clip makes a line fit for a terminal: the part around the column, every
// character one that can be printed in one cell or so.
func clip(line string, column int) (string, int) {
	runes := []rune(line)
	for i, r := range runes {
		if r == '\t' {
			runes[i] = ' '
		} else if !unicode.IsPrint(r) {
			runes[i] = unicode.ReplacementChar
		}
	}
	if len(runes) <= maxSource {
		return string(runes), column
	}
	from := min(max(0, column-maxSource/2), len(runes)-maxSource)
	before, after := "...", "..."
	if from == 0 {
		before = ""
	}
	if from+maxSource == len(runes) {
		after = ""
	}
	return before + string(runes[from:from+maxSource]) + after, column - from + len(before)
}
