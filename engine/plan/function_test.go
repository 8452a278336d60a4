package plan_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core/pgtest"
	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

// pool are values of each type for functions to go wrong at: the limits, and what is near them; what rounds; what has other digits in its
// text; texts of several bytes a character, and those that mean something to LIKE. There are no zeros at the end of numerics, which are not
// kept here.
var pool = map[flow.Type][]string{
	flow.Bool:        {"true", "false"},
	flow.Int2:        {"0", "1", "-1", "7", "32767", "-32768"},
	flow.Int4:        {"0", "1", "-1", "2", "7", "-3", "2147483647", "-2147483648", "100"},
	flow.Int8:        {"0", "1", "-1", "10", "4294967296", "9223372036854775807", "-9223372036854775808"},
	flow.Float4:      {"0", "1", "-1.5", "0.1", "2.5", "0.0001", "123456.7", "1e6", "16777217", "3.4e38", "1e-40", "NaN", "Infinity", "-Infinity"},
	flow.Float8:      {"0", "1", "-1.5", "0.1", "2.5", "-2.5", "1e-4", "1e-5", "1e15", "1e16", "1e300", "-1e-300", "5e-324", "123456789.125", "2147483647.5", "9223372036854775807", "NaN", "Infinity", "-Infinity"},
	flow.Numeric:     {"0", "1", "-1", "1.5", "-0.5", "2.5", "0.1", "0.333", "10", "1e-20", "123456789012345678901234567890.123456789", "-99999999999999999999", "9223372036854775807.5", "2147483647.5", "1e40", "NaN", "Infinity", "-Infinity"},
	flow.Text:        {"", "a", "ab", "A", "é", "É", "日本語", " a ", "a,b,,c", "%", "_", "a_", `\%`, `a\`, "x", "12", "😀x", "e\u0301", "line\nbreak", "straße", "İ", "Σς"},
	flow.Jsonb:       {`{}`, `[]`, `null`, `"a"`, `""`, `1`, `-1.5`, `true`, `[1, 2, 3]`, `{"a": 1}`, `{"a": "x", "b": null}`, `{"a": {"b": [1, {"c": "d"}]}}`, `["a", "b", "a"]`, `[[1], []]`, `[null]`, `1e30`, `"12"`, `{"": 1}`, `{"1": 2}`},
	flow.Date:        {"2024-01-31", "2024-02-29", "1969-12-31", "1970-01-01", "2000-01-01", "2021-01-03", "0044-03-15 BC", "0001-01-01", "12024-12-31", "4000-01-01 BC", "290000-12-31"},
	flow.Timestamp:   {"2024-01-31 03:04:05", "2024-02-29", "1969-12-31 23:59:59.999999", "1970-01-01", "2021-01-03 10:11:12.5", "0044-03-15 12:00:00 BC", "0001-01-01", "4000-01-01 BC"},
	flow.Timestamptz: {"2024-01-31 03:04:05+00", "2024-02-29 00:00:00+02", "1969-12-31 23:59:59.999999-05:30", "2021-01-03 10:11:12.5+00", "0044-03-15 12:00:00+00 BC", "4000-01-01 00:00:00+00 BC"},
	flow.Interval:    {"0", "1 day", "-1 day 02:03:04", "1 mon", "-1 mon -1 day", "1 year 2 mons 3 days 04:05:06.789", "100 years", "00:00:00.000001", "24:00:00", "-00:00:01.5", "2147483647 days", "2562047788:00:54.775807"},
	flow.UUID:        {"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"},
	flow.Bytea:       {`\x`, `\x00ff`, `\x616263`, `\x61`},
}

// units are the first arguments of functions of times.
var units = []string{"year", "month", "day", "hour", "minute", "second", "milliseconds", "microseconds", "epoch", "dow", "doy", "isodow", "isoyear", "week",
	"quarter", "decade", "century", "millennium", "julian", "timezone", "timezone_hour", "timezone_minute", "YEAR", "years", "fortnight", ""}

// literals are the values of a type in SQL, NULL first.
func literals(t flow.Type) []string {
	out := []string{"NULL::" + t.SQL()}
	if t.IsArray() {
		v := make([]string, 2)
		for i, text := range pool[t.Elem()][:2] {
			v[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
		}
		for _, text := range []string{"", "NULL", v[0], v[1] + "," + v[0], v[1] + ",NULL"} {
			out = append(out, quoted("{"+text+"}")+"::"+t.SQL())
		}
		return out
	}
	for _, text := range pool[t] {
		out = append(out, quoted(text)+"::"+t.SQL())
	}
	return out
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// calls are calls of every function, operator and cast that there is with every types of arguments that it takes: each with every value if
// it has one argument, and otherwise with some combinations of them.
func calls(rnd *rand.Rand, each int) []string {
	var all []flow.Type
	for _, t := range flow.Scalars() {
		all = append(all, t, flow.ArrayOf(t))
	}
	var out []string
	for _, name := range flow.Functions() {
		var signatures func(args []flow.Type)
		signatures = func(args []flow.Type) {
			if f := flow.Resolve(name, args); len(args) > 0 && f != nil && slices.Equal(f.Params, args) {
				out = append(out, callsOf(rnd, f, each)...)
			}
			if len(args) < 3 {
				for _, t := range all {
					if len(args) < 2 || t == flow.Int4 || t == flow.Text { // of three arguments, all there are
						signatures(append(args[:len(args):len(args)], t))
					}
				}
			}
		}
		signatures(nil)
	}
	for _, from := range all {
		for _, to := range all {
			if _, ok := flow.CastTo(&flow.Col{T: from}, to); ok {
				for _, v := range literals(from) {
					out = append(out, "("+v+")::"+to.SQL())
				}
			}
		}
	}
	return out
}

// callsOf are calls of one function.
func callsOf(rnd *rand.Rand, f *flow.Func, each int) []string {
	lists := make([][]string, len(f.Params))
	for i, t := range f.Params {
		lists[i] = literals(t)
	}
	switch f.Name {
	case "extract", "date_part", "date_trunc":
		lists[0] = nil
		for _, u := range units {
			lists[0] = append(lists[0], quoted(u))
		}
		each *= 4
	case "concat", "concat_ws", "greatest", "least", "jsonb_build_array", "jsonb_build_object":
		if len(lists) > 1 { // of any types
			each = 1
		}
	}
	n := each
	if len(lists) == 1 {
		n = len(lists[0])
	}
	out := make([]string, n)
	for i := range out {
		args := make([]string, len(lists))
		for j, l := range lists {
			if args[j] = pick(rnd, l); len(lists) == 1 {
				args[j] = l[i]
			}
		}
		switch {
		case f.Name == "extract":
			out[i] = "extract(" + args[0] + " FROM " + args[1] + ")"
		case f.Name == "not" || f.Name == "-" && len(args) == 1:
			out[i] = "(" + f.Name + " " + args[0] + ")"
		case f.Operator:
			out[i] = "(" + args[0] + " " + f.Name + " " + args[1] + ")"
		default:
			out[i] = f.Name + "(" + strings.Join(args, ", ") + ")"
		}
	}
	return out
}

// spellings are texts that casts read, nearly read, or read in a way that is easily missed.
var spellings = []string{"", " ", "0", "00", "+1", "-1", "- 1", " 1 ", "\t1\n", "1 2", "1_000", "1,000", "1.", ".1", ".", "1.0", "1.5", "1e2", "1E+2", "1e", "1e-2", "e5", "-", "--1", "+-1",
	"32767", "32768", "-32768", "-32769", "2147483648", "-2147483649", "9223372036854775808", "-9223372036854775808", "1e400", "1e-400", "nan", "NaN", "NAN", "snan", "nan1", "inf", "+inf", "-infinity",
	"infinit", "１", "1\u00a0", "1e5.5", "1d", "0.1e1", "-.5", "+.5e-3", "3.4028235e38", "3.4028236e38", "1e-45", "7e-46", "4.9e-324", "2e-324", "1.7976931348623159e308",
	"t", "tr", "TRUE", " true ", "truee", "f", "fals", "y", "ye", "yess", "n", "on", "o", "of", "off", "01", "null",
	"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "a-0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
	`\x00`, `\X00`, `\x 00 ff`, `\x0`, `\xgg`, `\377`, `\400`, `\37`, `\\`, `\`, `a\b`, "\\x\t00", ` \x00`,
	"{}", "{ }", "{1}", "{ 1 , 2 }", "{1,}", "{,1}", `{"1" , 2}`, `{NULL}`, `{"NULL"}`, `{ a  b }`, `{a"b}`, `{"a"b}`, `{a\"b}`, `{"a\\b"}`, `{"a`, `{a}}`, `{}x`, `{"",""}`, `{\ a}`, "{\n1\n}", `{'a'}`,
	"2024-01-02", "2024-1-2", "2024-01-02 BC", "2024-01-02 bc", "0000-01-01", "0001-01-01", "0001-01-01 BC", "4713-01-01 BC", "294246-12-31", "2023-02-29", "2024-04-31", "2024-00-01", "2024-01-00", "2024-13-01", "2024-1",
	"2024-01-02Z", "2024-01-02 +02", "2024-01-02+02", "2024-01-02 03:04", "2024-01-02t03:04:05", "2024-01-02\t03:04:05", "2024-01-02 3:4:5", "2024-01-02 03", "2024-01-02 03:04:05.1234565", "2024-01-02 03:04:05.1234575", "2024-01-02 03:04:05.9999999",
	"2024-01-02 03:04:05.", "2024-01-02 24:00:00", "2024-01-02 24:00:01", "2024-01-02 23:59:60", "2024-01-02 23:59:61", "2024-01-02 23:60:00", "2024-01-02 00:00:60", "2024-01-02 03:04:05z", "2024-01-02 03:04:05 utc", "2024-01-02 03:04:05+2",
	"2024-01-02 03:04:05+0230", "2024-01-02 03:04:05+230", "2024-01-02 03:04:05+02:30:15", "2024-01-02 03:04:05+15:59:59", "2024-01-02 03:04:05+16", "2024-01-02 03:04:05-16:00", "2024-01-02 03:04:05+02 BC", "03:04:05", "1704164645",
	"1 day", "1day", "1 DAY", "day", "1d 2h 3m 4s", "01:02:03.5", "-1:02:03", "1 1:02", "1 day -1:02", "1-2 3 4:05", "-1-2", "1.5 w", "1.5 mon 1 day", "0.123456789 years", "1.999999 mons", "1 fortnight", "0.5 us", "1.5 us", "-1.5 us", "0.0005 ms", "1.5 ms",
	"P1DT2H", "P1.5D", "P-1Y", "PT-1.5S", "P", "ago", "1 day ago", "-1 day ago", "1 day 1 day", "1 sec 1 ms", "1 s 1 sec", "5 days 3", "1 day 5", "1:60", "1:59:60", "1:59:59.9999999", "1 24:00:00", "2147483648 days", "178956971 mons", "- 1 day", "-0.5 days",
	"0.99999999 sec", "-1 days +02:00", "-1 days 02:00", "2000000000 days 3000000000 hours",
	"nul", "True", "-0", "0.5e1", `"a`, `'a'`, `"\u00e9"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\u0000"`, `"\x"`, `"\/"`, "\"\t\"", "\"\x7f\"", "[1,]", "[1 2]", "{a:1}", `{"a":1,}`, `{"a":1,"a":2}`, `{"b":1,"a":2,"aa":3}`, `{"a\u0062":1,"ab":2}`, "\ufeff1"}

// casts are casts of all spellings.
func casts() []string {
	var out []string
	targets := []string{"varchar(2)", "numeric(3,1)", "numeric(2,-1)", "timestamp(0)", "timestamptz(3)", "interval(0)", "interval day", "interval minute"}
	for _, t := range flow.Scalars() {
		targets = append(targets, t.SQL())
	}
	for _, t := range []flow.Type{flow.Text, flow.Int4, flow.Bool, flow.Numeric} {
		targets = append(targets, flow.ArrayOf(t).SQL())
	}
	for _, s := range spellings {
		for _, t := range targets {
			out = append(out, quoted(s)+"::"+t)
		}
	}
	return out
}

// patterns are texts held against patterns of LIKE and regular expressions, all random.
func patterns(rnd *rand.Rand, n int) []string {
	word := func(alphabet []string, length int) string {
		var b strings.Builder
		for range rnd.IntN(length) {
			b.WriteString(pick(rnd, alphabet))
		}
		return quoted(b.String())
	}
	like := []string{"a", "b", "%", "_", `\`, "é", "A", "!"}
	letters := []string{"a", "b", "é", "日", "A", "1", "_", "-", ".", " ", "\u3000", "\n", "]", "^", "{", "😀"}
	pieces := []string{"a", "b", ".", "a*", "b+", "a?", "(a)", "[]a]", "[^^]", "[^]]", "^", "$", "|", `\d`, `\w`, `\s`, `\W`, `\S`, "a{2}", "-", `\.`, "é", "[^a]", "[a-c]", "(?:a|b)", `[\w-]`, `[\W_]`, `[\s\S]`, `[^\s]`,
		`[^\W]`, `[\d.]`, "[[:digit:]x]", `[[:digit:]\w]`, "\n", "A", "\u3000", "é+?", "{", "}", "]", "a{1,}", "a{,2}", "a{0,1}", "日|A"}
	var out []string
	for range n {
		e := "(" + word(like, 6) + pick(rnd, []string{" LIKE ", " NOT LIKE ", " ILIKE ", " NOT ILIKE "}) + word(like, 5)
		out = append(out, e+pick(rnd, []string{"", "", " ESCAPE '!'", " ESCAPE ''"})+")")
		out = append(out, "("+word(letters, 5)+pick(rnd, []string{" ~ ", " ~* ", " !~ ", " !~* "})+word(pieces, 5)+")")
	}
	return out
}

// differences are the expressions, with their answers here and there, that may differ: by what docs/sql.md says, or in what PostgreSQL makes
// of a text that nobody means.
var differences = regexp.MustCompile("(?s)" + strings.Join([]string{
	`::interval (<|<=|>|>=|=|<>) `, `^(greatest|least)\(.*::interval`, // months, days and time apart
	`^\('null'::jsonb\)::`, `::jsonb ->>? '-?\d+'::`, // a jsonb null, an index of what is no array
	`^pow(er)?\((.*::double precision|'-Infinity')`, `overflows numeric format`, // the last digits; the greatest numbers
	`out of range.* 29\d\d\d\d-| out of range.* 4714-`, `interval out of range.*\| interval`, // the years; PostgreSQL's overflows
	`to_timestamp\('(NaN|-?Infinity)'`, `to_timestamp\('9223372036854775807'`,
	`unit "\w*" not supported.*unit "\w*" not recognized`, `right\(.*'-2147483648'`, `type jsonb.*(type json|Unicode escape)`, `'1\.0'::jsonb`,
	`malformed array literal.*\| \w+ \{\{|malformed array literal.*invalid input syntax`, `'(-\.5|1704164645)'::`, `LIKE pattern must not end`,
	`invalid input syntax for type (date|timestamp|interval).*\| (date|timestamp|interval|.*date/time field|error time zone|.*interval (field )?(value )?out of range)`,
	`regular expression:.*regular expression`,
}, "|"))

// TestFunctionsPostgres holds every function, operator and cast, for every types of arguments, every spelling and many patterns against
// PostgreSQL: type and value, or the words of the error.
func TestFunctionsPostgres(t *testing.T) {
	pg := connect(t, pgtest.Start(t))
	for seed := range uint64(max(1, *seeds/5)) {
		rnd := rand.New(rand.NewPCG(*firstSeed+seed, 7))
		list := slices.Concat(calls(rnd, 4), patterns(rnd, 300))
		if seed == 0 {
			list = append(list, casts()...)
		}
		for chunk := range slices.Chunk(list, 500) {
			for i, want := range pg.evaluate(t, chunk) {
				got := evaluated(chunk[i])
				if got != want && !differences.MatchString(chunk[i]+"  "+got+" | "+want) {
					t.Errorf("seed %d: %s: got %s, PostgreSQL says %s", *firstSeed+seed, chunk[i], got, want)
				}
			}
		}
	}
}

// evaluated is type and value of an expression, or its error.
func evaluated(expr string) string {
	p, err := planText(plan.Env{}, "SELECT "+expr)
	if err != nil {
		return "error " + err.Error()
	}
	d := p.Once().Step(&flow.Context{}, nil)
	if len(d.Errors) > 0 {
		return "error " + d.Errors[0].Message
	}
	return p.Columns[0].Type.Name() + " " + d.Rows[0].Row[0].String()
}

// evaluate is what PostgreSQL says of expressions.
func (pg *postgres) evaluate(t *testing.T, list []string) []string {
	t.Helper()
	p := pg.conn.StartPipeline(context.Background())
	for _, e := range list {
		p.SendQueryParams("SELECT "+e, nil, nil, nil, nil)
		p.SendPipelineSync()
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(list))
	for i := range out {
		for done := false; !done; {
			results, err := p.GetResults()
			var failed *pgconn.PgError
			switch r := results.(type) {
			case *pgconn.PipelineSync:
				done = true
			case *pgconn.ResultReader:
				for r.NextRow() {
					f, v := r.FieldDescriptions()[0], r.Values()[0]
					out[i] = typeName(f.DataTypeOID) + " " + normal(f, v)
				}
				_, err = r.Close()
			}
			if errors.As(err, &failed) {
				out[i] = "error " + failed.Message
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}
