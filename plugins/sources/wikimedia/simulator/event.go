package simulator

import (
	"strconv"
	"time"
)

// kind is the type of an event.
type kind int

const (
	edit kind = iota
	categorize
	logged
	created
	flow // a discussion board's, whose type is written as the string "142"
)

var kindNames = [...]string{"edit", "categorize", "log", "new", "142"}

// kindOf returns the kind of event i, and for a log entry a number in [0, 1)
// that its type follows from.
func (g *generated) kindOf(i int) (kind, float64) {
	d := newDice(g.seed, uint64(i), saltKind)
	switch p := d.float(); {
	case p < 0.577:
		return edit, 0
	case p < 0.934:
		return categorize, 0
	case p < 0.967:
		return logged, d.float()
	case p < 0.9994:
		return created, 0
	}
	return flow, 0
}

// botShare is how many events of a kind are made by bots.
var botShare = [...]float64{0.45, 0.29, 0.13, 0.22, 0}

// oldUploads is the part of log entries that are uploads from years ago.
const oldUploads = 0.07

func (g *generated) isOldUpload(i int) bool {
	k, p := g.kindOf(i)
	return k == logged && p < oldUploads && i > 0
}

const (
	firstOffset   = 5_400_000_000
	firstChange   = 3_172_000_000 // beyond 32 bits, as today's are
	firstRevision = 1_155_000_000
	canaryEvery   = 300
)

// frame implements tape.
func (g *generated) frame(dst []byte, i int) []byte {
	dst = g.appendMessage(dst, i, false)
	if i%canaryEvery == canaryEvery-1 {
		dst = g.appendMessage(dst, i, true)
	}
	return dst
}

func (g *generated) appendMessage(dst []byte, i int, canary bool) []byte {
	at, _ := g.due(i)
	stamp := g.timestamp(i)
	dst = append(dst, "event: message\nid: "...)
	for t, topic := range topics {
		dst = append(dst, "[,"[t])
		dst = append(dst, `{"topic":"`...)
		dst = append(dst, topic...)
		if t == g.active {
			dst = append(dst, `","partition":0,"timestamp":`...)
			dst = strconv.AppendInt(dst, stamp+1, 10)
		} else {
			dst = append(dst, `","partition":0,"offset":-1`...)
		}
		dst = append(dst, '}')
	}
	dst = append(dst, "]\ndata: "...)
	if now := at.UnixMilli(); now-stamp < int64(time.Hour/time.Millisecond) {
		stamp = now // meta.dt is more exact than the timestamp
	}
	dst = g.appendEvent(dst, i, time.UnixMilli(stamp).UTC(), canary)
	return append(dst, "\n\n"...)
}

// appendEvent appends event i as JSON, or a canary instead.
func (g *generated) appendEvent(dst []byte, i int, at time.Time, canary bool) []byte {
	k, sub := g.kindOf(i)
	d := newDice(g.seed, uint64(i), saltEvent)
	where := placeOf(&d, k)
	bot := d.chance(botShare[k])
	user := g.appendUser(make([]byte, 0, 64), &d, i, bot)
	ns, title := appendTitle(make([]byte, 0, 128), &d, k, where)
	comment, parsed := appendComment(make([]byte, 0, 512), make([]byte, 0, 1024), &d, k, where, title)
	link := appendPath(append(append(append(make([]byte, 0, 256), "https://"...), where.domain...), "/wiki/"...), title)
	domain := where.domain
	if canary {
		domain = "canary"
	}

	dst = append(dst, `{"$schema":"/mediawiki/recentchange/1.0.0","meta":{"uri":"`...)
	dst = append(dst, link...)
	dst = append(dst, `","request_id":"`...)
	id := newDice(g.run, uint64(i), saltID)
	dst = appendUUID(dst, &id)
	dst = append(dst, `","id":"`...)
	if canary {
		id.next()
	}
	dst = appendUUID(dst, &id)
	dst = appendField(dst, `","domain":"`, domain)
	dst = append(dst, `","stream":"mediawiki.recentchange","dt":"`...)
	dst = at.AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = appendField(dst, `","topic":"`, topics[g.active])
	dst = appendNumber(dst, `","partition":0,"offset":`, firstOffset+i)
	dst = append(dst, '}')
	dst = appendRCID(dst, k, sub, firstChange+i)
	dst = appendField(dst, `,"type":"`, kindNames[k])
	dst = appendNumber(dst, `","namespace":`, ns)
	dst = appendText(dst, `,"title":"`, title)
	dst = append(dst, `","title_url":"`...)
	dst = append(dst, link...)
	dst = appendText(dst, `","comment":"`, comment)
	dst = appendNumber(dst, `","timestamp":`, int(g.timestamp(i)/1000))
	dst = appendText(dst, `,"user":"`, user)
	dst = append(dst, `","bot":`...)
	dst = strconv.AppendBool(dst, bot)
	dst = appendDetails(dst, &d, k, sub, where, i)
	dst = appendField(dst, `,"server_url":"https://`, where.domain)
	dst = appendField(dst, `","server_name":"`, where.domain)
	dst = appendField(dst, `","server_script_path":"/w","wiki":"`, where.name)
	dst = appendText(dst, `","parsedcomment":"`, parsed)
	return append(dst, `"}`...)
}

// appendRCID appends the change's number. Many log entries have none, and some
// have null.
func appendRCID(dst []byte, k kind, sub float64, number int) []byte {
	if k == logged {
		switch n := int(sub*1000) % 20; {
		case n < 10:
			return dst
		case n == 10:
			return append(dst, `,"id":null`...)
		}
	}
	return appendNumber(dst, `,"id":`, number)
}

// appendDetails appends the fields that depend on the kind.
func appendDetails(dst []byte, d *dice, k kind, sub float64, where wiki, i int) []byte {
	if k == logged {
		return appendLog(dst, d, sub, i)
	}
	revision := firstRevision + i
	old := revision - 1 - d.scale(0, 8)
	dst = appendField(dst, `,"notify_url":"https://`, where.domain)
	dst = appendNumber(dst, `/w/index.php?diff=`, revision)
	dst = appendNumber(dst, `&oldid=`, old)
	dst = appendNumber(dst, `&rcid=`, firstChange+i)
	dst = append(dst, '"')
	if k != edit && k != created {
		return dst
	}
	dst = append(dst, `,"minor":`...)
	dst = strconv.AppendBool(dst, d.chance(0.2))
	if k == created || d.chance(0.75) {
		dst = append(dst, `,"patrolled":`...)
		dst = strconv.AppendBool(dst, d.chance(0.7))
	}
	before := d.scale(1.5, 5)
	after := max(0, before+sizeChange(d))
	if k == edit {
		dst = appendNumber(dst, `,"length":{"old":`, before)
		dst = appendNumber(dst, `,"new":`, after)
		dst = appendNumber(dst, `},"revision":{"old":`, old)
		dst = appendNumber(dst, `,"new":`, revision)
		return append(dst, '}')
	}
	none := `{`
	if d.chance(0.1) {
		none = `{"old":null,`
	}
	dst = appendField(dst, `,"length":`, none)
	dst = appendNumber(dst, `"new":`, before)
	dst = appendField(dst, `},"revision":`, none)
	dst = appendNumber(dst, `"new":`, revision)
	return append(dst, '}')
}

// sizeChange returns by how many bytes an edit changes a page.
func sizeChange(d *dice) int {
	switch p := d.float(); {
	case p < 0.72:
		return d.scale(0.9, 2.9)
	case p < 0.76:
		return d.scale(3, 4.3)
	case p < 0.94:
		return -d.scale(0, 2.4)
	case p < 0.965:
		return -d.scale(2.4, 3.3)
	}
	return 0
}

// logTypes are types of log entries, with what they say about themselves.
var logTypes = []weighted[[2]string]{
	{36, [2]string{"upload", `{"img_sha1":"l0e63qvqkiryb3j1qoruvjmgyfqm4oc","img_timestamp":"20260128214220"}`}},
	{30, [2]string{"abusefilter", `{"action":"edit","filter":"12","actions":"tag","log":38110}`}},
	{10, [2]string{"delete", `[]`}},
	{8, [2]string{"newusers", `{"userid":901}`}},
	{7, [2]string{"thanks", `[]`}},
	{5, [2]string{"review", `[1155000001,1154000009,"20260128203011"]`}},
	{4, [2]string{"block", `{"duration":"31 hours","flags":"anononly,nocreate","sitewide":true}`}},
}

const logWeight = 100

func appendLog(dst []byte, d *dice, sub float64, i int) []byte {
	l := logTypes[0].value // old ones are uploads
	if sub >= oldUploads {
		l = pickWeighted(d, logTypes, logWeight)
	}
	dst = appendNumber(dst, `,"log_id":`, firstRevision/3+i)
	dst = appendField(dst, `,"log_type":"`, l[0])
	dst = appendField(dst, `","log_action":"`, l[0])
	dst = appendField(dst, `","log_params":`, l[1])
	return appendField(dst, `,"log_action_comment":"`, `automatic entry &quot;`+l[0]+`&quot;"`)
}

// placeOf returns the wiki on which an event of that kind happens.
func placeOf(d *dice, k kind) wiki {
	onCommons, onWikidata := 0.20, 0.41
	switch k {
	case categorize:
		onCommons, onWikidata = 0.55, 0
	case logged:
		onCommons, onWikidata = 0.3, 0.05
	case created:
		onCommons, onWikidata = 0.05, 0.43
	case flow:
		return wiki{"mediawikiwiki", "www.mediawiki.org", english}
	}
	switch p := d.float(); {
	case p < onCommons:
		return commons
	case p < onCommons+onWikidata:
		return wikidata
	}
	if d.float()*(wikisWeight+restWeight) >= restWeight {
		return pickWeighted(d, wikis, wikisWeight)
	}
	code, family := pick(d, smallWikis), pick(d, []string{"wiki", "wiki", "wiktionary", "wikisource"})
	host := family
	if family == "wiki" {
		host = "wikipedia"
	}
	return wiki{code + family, code + "." + host + ".org", pick(d, []*language{english, english, english, german, romance, russian})}
}

func appendField(dst []byte, name, value string) []byte {
	return append(append(dst, name...), value...)
}

func appendNumber(dst []byte, name string, n int) []byte {
	return strconv.AppendInt(append(dst, name...), int64(n), 10)
}

// appendText appends the name, and the text as the inside of a JSON string.
func appendText(dst []byte, name string, text []byte) []byte {
	dst = append(dst, name...)
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// appendUUID appends a UUID of version 4.
func appendUUID(dst []byte, d *dice) []byte {
	hi, lo := d.next(), d.next()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 1<<63
	const digits = "0123456789abcdef"
	for n := range 32 {
		switch n {
		case 8, 12, 16, 20:
			dst = append(dst, '-')
		}
		word := hi
		if n >= 16 {
			word = lo
		}
		dst = append(dst, digits[word>>(60-4*(n%16))&15])
	}
	return dst
}

// appendPath appends a title as it is written in an address.
func appendPath(dst, title []byte) []byte {
	for _, c := range title {
		switch {
		case c == ' ':
			dst = append(dst, '_')
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == ':' || c == '(' || c == ')':
			dst = append(dst, c)
		default:
			const upper = "0123456789ABCDEF"
			dst = append(dst, '%', upper[c>>4], upper[c&15])
		}
	}
	return dst
}
