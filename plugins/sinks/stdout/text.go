package stdout

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mzdio/mzd/core"
)

// text prints batches for people.
type text struct{ colour bool }

const (
	maxWidth = 40 // of a column that others are aligned to; longer values are shown whole

	dim    = "\x1b[2m"
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	normal = "\x1b[0m"
)

// append appends a batch as lines of aligned text.
func (t text) append(buf []byte, b core.Batch, progress bool) []byte {
	if b.IsBase() {
		buf = t.heading(buf, b)
	}
	table := make([][]string, 0, b.Updates.Len())
	signWidth := 1
	widths := make([]int, len(b.View.Columns))
	for u := range b.Updates.All() {
		signWidth = max(signWidth, len(sign(u.Diff)))
		cells := make([]string, len(widths))
		for i, v := range values(u.Row, len(widths)) {
			cells[i] = show(v)
			if n := utf8.RuneCountInString(cells[i]); n <= maxWidth {
				widths[i] = max(widths[i], n)
			}
		}
		table = append(table, cells)
	}
	for i, u := range b.Updates.From(0) {
		colour := green
		if u.Diff < 0 {
			colour = red
		}
		buf = t.start(buf, u.Time, b.View)
		buf = t.paint(buf, colour, fmt.Sprintf("%-*s  %s", signWidth, sign(u.Diff), align(table[i], widths, b.View)))
		buf = append(buf, '\n')
	}
	if progress {
		buf = t.start(buf, b.Upper.Time, b.View)
		buf = t.paint(buf, dim, "complete")
		buf = append(buf, '\n')
	}
	return buf
}

// sign returns + or -, with the number of copies if there are several.
func sign(d core.Diff) string {
	switch d {
	case 1:
		return "+"
	case -1:
		return "-"
	}
	return fmt.Sprintf("%+d", d)
}

// heading says that the view starts over, and how its columns are called.
func (t text) heading(buf []byte, b core.Batch) []byte {
	n := rows(b)
	label := " rows"
	if n == 1 {
		label = " row"
	}
	var names []string
	for _, c := range b.View.Columns {
		names = append(names, clean(c.Name))
	}
	buf = t.start(buf, b.Upper.Time, b.View)
	buf = t.paint(buf, bold, fmt.Sprintf("== %d%s (%s)", n, label, strings.Join(names, ", ")))
	return append(buf, '\n')
}

// start appends when and which view.
func (t text) start(buf []byte, at core.Time, v *core.View) []byte {
	when := at.String()
	if at.IsWall() && at <= 1<<62 {
		when = time.UnixMilli(int64(at)).Format("15:04:05.000")
	}
	buf = t.paint(buf, dim, when)
	buf = append(buf, "  "...)
	buf = append(buf, clean(v.Name)...)
	return append(buf, "  "...)
}

func (t text) paint(buf []byte, colour, s string) []byte {
	if !t.colour {
		return append(buf, s...)
	}
	return append(append(append(buf, colour...), s...), normal...)
}

// align joins the cells of a row, numbers to the right.
func align(cells []string, widths []int, v *core.View) string {
	var line strings.Builder
	for i, cell := range cells {
		if i > 0 {
			line.WriteString("  ")
		}
		padding := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell)))
		switch {
		case isNumeric(v.Columns[i].Type):
			line.WriteString(padding + cell)
		case i == len(cells)-1:
			line.WriteString(cell)
		default:
			line.WriteString(cell + padding)
		}
	}
	return line.String()
}

func isNumeric(typ string) bool {
	return strings.HasPrefix(typ, "int") && typ != "interval" || strings.HasPrefix(typ, "uint") ||
		strings.HasPrefix(typ, "float") || typ == "numeric"
}

// show returns a value as people read it: strings without quotes.
func show(v json.RawMessage) string {
	if v[0] == '"' {
		var s string
		if json.Unmarshal(v, &s) == nil {
			return clean(s)
		}
	}
	return clean(string(v))
}

// clean makes text of a stranger harmless for a terminal: what is not printed
// but obeyed (escape sequences, newlines, changes of direction) is shown as its
// escape. The joiner that emoji are made with stays.
func clean(s string) string {
	const zeroWidthJoiner = '\u200d'
	harmless := func(r rune) bool { return unicode.IsPrint(r) || r == zeroWidthJoiner }
	if strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0 {
		return s
	}
	var out strings.Builder
	for _, r := range s {
		if harmless(r) {
			out.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		out.WriteString(quoted[1 : len(quoted)-1])
	}
	return out.String()
}
