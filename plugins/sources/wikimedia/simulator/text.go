package simulator

import "strconv"

// appendTitle appends the title of the page that an event is about, and
// returns its namespace.
func appendTitle(dst []byte, d *dice, k kind, where wiki) (namespace int, title []byte) {
	switch {
	case k == categorize:
		dst = append(append(dst, where.lang.category...), ':')
		return 14, appendWords(dst, d, where.lang, 2+d.n(5))
	case k == flow:
		dst = append(dst, "Topic:Y"...)
		return 2600, strconv.AppendUint(dst, d.next()>>8, 36)
	case where.name == wikidata.name:
		return 0, appendNumber(dst, "Q", 1+d.scale(2, 8.1))
	case where.name == commons.name:
		dst = appendWords(append(dst, "File:"...), d, where.lang, 2+d.n(5))
		dst = appendNumber(dst, " ", d.n(100_000))
		return 6, append(dst, pick(d, []string{".jpg", ".jpg", ".jpg", ".svg", ".png", ".pdf"})...)
	case d.chance(0.1):
		ns := 1 + d.n(4)
		dst = append(dst, [...]string{"Talk:", "User:", "User talk:", "Wikipedia:"}[ns-1]...)
		return ns, appendWords(dst, d, where.lang, 1+d.n(3))
	}
	return 0, appendWords(dst, d, where.lang, 1+d.n(4))
}

func appendWords(dst []byte, d *dice, l *language, n int) []byte {
	for i := range n {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = append(dst, pick(d, l.words)...)
	}
	return dst
}

// appendComment appends the comment of an event, and what a wiki makes of it
// for its pages.
func appendComment(comment, parsed []byte, d *dice, k kind, where wiki, title []byte) (c, p []byte) {
	lang := where.lang
	switch {
	case k == categorize:
		page := appendWords(nil, d, lang, 1+d.n(5))
		if where.name == commons.name {
			page = appendNumber(append(append([]byte("File:"), page...), ' '), "", d.n(100_000))
			page = append(page, ".jpg"...)
		}
		comment = append(append(append(comment, "[[:"...), page...), "]]"...)
		parsed = appendLink(parsed, page)
		if d.chance(0.2) {
			comment = append(append(append(append(comment, ", [[Special:WhatLinksHere/"...), page...), '|'), "this page is included within other pages]]"...)
			parsed = append(append(append(parsed, `, <a href="/wiki/Special:WhatLinksHere/`...), page...), `">this page is included within other pages</a>`...)
		}
		return append(comment, lang.added...), append(parsed, lang.added...)
	case k == logged && d.chance(0.5), k == edit && d.chance(0.095):
		return comment, parsed
	case where.name == wikidata.name && d.chance(0.85), where.name == commons.name && k == edit && d.chance(0.8):
		comment, parsed = appendStatement(comment, parsed, d)
	case k == edit && d.chance(0.3):
		section := pick(d, sectionName)
		comment = append(append(append(comment, "/* "...), section...), " */ "...)
		parsed = append(append(parsed, `<span dir="auto"><span class="autocomment"><a href="/wiki/`...), appendPath(nil, title)...)
		parsed = append(append(parsed, `">→`+"\u200e"...), section...)
		parsed = append(parsed, `</a>: </span></span> `...)
	}
	said := len(comment)
	comment = append(comment, pick(d, lang.comments)...)
	switch p := d.n(10_000); {
	case p < 130: // somebody who explains everything
		for n := said + d.scale(2.4, 3.32); len(comment) < n-40; {
			comment = append(append(comment, "; "...), pick(d, lang.comments)...)
		}
	case p < 150:
		comment = append(comment, "\n== Summary ==\nsee the talk page"...)
	case p < 160:
		comment = append(comment, " \uFFFD"...)
	case p < 280:
		comment = append(append(comment, ' '), pick(d, emojiNames)...)
	}
	return comment, appendHTML(parsed, comment[said:])
}

// appendStatement appends what Wikidata's software says about an edit.
func appendStatement(comment, parsed []byte, d *dice) (c, p []byte) {
	lang := pickWeighted(d, editorLanguages, 100)
	property, item := 1+d.n(9000), d.scale(3, 8)
	comment = append(append(comment, "/* "...), pick(d, []string{"wbsetclaim-create:2||1", "wbeditentity-update:0|", "wbsetreference-add:2|", "wbsetlabel-add:1|en", "wbremoveclaims-remove:1|"})...)
	comment = appendNumber(comment, " */ [[Property:P", property)
	comment = append(appendNumber(comment, "]]: [[Q", item), "]], "...)

	label := pick(d, lang.words)
	parsed = append(append(parsed, "\u200e"+`<span dir="auto"><span class="autocomment">`...), pick(d, lang.autoLabels)...)
	parsed = appendNumber(parsed, `: </span></span> <a href="/wiki/Property:P`, property)
	parsed = append(append(append(parsed, `" title="`+"\u200e"...), label...), "\u200e\"><span class=\"wb-itemlink\">"...)
	parsed = append(append(parsed, label...), " <span class=\"wb-itemlink-id\">(P"...)
	parsed = strconv.AppendInt(parsed, int64(property), 10)
	parsed = appendNumber(parsed, `)</span></span></a>: <a href="/wiki/Q`, item)
	return comment, append(appendNumber(parsed, `">Q`, item), "</a>, "...)
}

func appendLink(dst, title []byte) []byte {
	dst = appendPath(append(dst, `<a href="/wiki/`...), title)
	dst = appendHTML(append(dst, `" title="`...), title)
	dst = appendHTML(append(dst, `">`...), title)
	return append(dst, "</a>"...)
}

// appendHTML appends text as HTML, in one line.
func appendHTML(dst, text []byte) []byte {
	for _, c := range text {
		switch c {
		case '"':
			dst = append(dst, "&quot;"...)
		case '\'':
			dst = append(dst, "&#039;"...)
		case '&':
			dst = append(dst, "&amp;"...)
		case '<':
			dst = append(dst, "&lt;"...)
		case '>':
			dst = append(dst, "&gt;"...)
		case '\n':
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
