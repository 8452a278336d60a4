package plan_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// kind is what an expression of the generator is: a type, or a type with a promise about its values, on which other expressions rely
// so that they cannot fail.
type kind string

// kindInfo says what is known of a kind.
type kindInfo struct {
	sql    string   // the type
	wider  kind     // the kind that all its values are of, if it is a narrower one
	values []string // values, simplest first; NULL goes without saying
}

// kinds are the kinds of expressions. The letter s marks the small ones: whole numbers and fractions of eighths that stay far from
// any limit.
var kinds = map[kind]kindInfo{
	"bool":    {sql: "bool", values: []string{"true", "false"}},
	"int2":    {sql: "int2", values: []string{"0", "1", "-1", "32767", "-32768"}},
	"int4":    {sql: "int4", values: []string{"0", "1", "-1", "7", "2147483647", "-2147483648"}},
	"int8":    {sql: "int8", values: []string{"0", "1", "-1", "3000000000", "9223372036854775807", "-9223372036854775808"}},
	"int4s":   {sql: "int4", wider: "int4", values: []string{"0", "1", "2", "3", "-1", "-2", "5", "10"}},
	"int8s":   {sql: "int8", wider: "int8", values: []string{"0", "1", "2", "3", "-1", "100"}},
	"float4":  {sql: "float4", values: []string{"0", "1", "-0", "0.1", "3.4e38", "1e-40", "NaN", "Infinity", "-Infinity"}},
	"float8":  {sql: "float8", values: []string{"0", "1", "-0", "0.1", "1e300", "-1e-300", "1e16", "5e-324", "123456789.125", "NaN", "Infinity", "-Infinity"}},
	"float8s": {sql: "float8", wider: "float8", values: []string{"0", "1", "-0", "0.5", "-2.25", "3", "100.125"}},
	"numeric": {sql: "numeric", values: []string{"0", "1", "1.50", "-0.00", "123456789012345678901234567890.123456789", "1e-20", "-99999999999999999999", "NaN", "0.1"}},
	"numerics": {sql: "numeric", wider: "numeric",
		values: []string{"0", "1", "1.5", "2.50", "-3.125", "1000", "0.01"}},
	"text":        {sql: "text", values: []string{"", "a", "b", "ab", "A", "é", "日本", " a ", "a,b,,c", `it's \ "q"`, "x%y_z", "😀", "line\nbreak", "NaN", "NULL"}},
	"digits":      {sql: "text", wider: "text", values: []string{"0", "12", "-7", " 3 "}},
	"jsonb":       {sql: "jsonb", values: documents},
	"date":        {sql: "date", values: []string{"2024-01-02", "2024-02-29", "1969-12-31", "2000-01-01", "0044-03-15 BC", "12024-12-31"}},
	"timestamp":   {sql: "timestamp", values: []string{"2024-01-02 03:04:05", "2024-02-29 00:00:00", "1969-12-31 23:59:59.999999", "2024-01-02 03:04:05.5", "0044-03-15 12:00:00 BC", "12024-12-31 00:00:00"}},
	"timestamptz": {sql: "timestamptz", values: []string{"2024-01-02 03:04:05+00", "2024-02-29 00:00:00+02", "1969-12-31 23:59:59.999999-05:30", "2024-01-02 03:04:05.25+00"}},
	"interval":    {sql: "interval", values: []string{"0", "1 day", "-100 years", "3000000 days", "-1 day 02:03:04"}},
	"intervals":   {sql: "interval", wider: "interval", values: []string{"0", "1 day", "-1 day 02:03:04", "1 year 2 mons", "3 days 04:05:06.789", "00:00:01"}},
	// intervals that are computed, and not compared: 24 hours are a day to PostgreSQL
	"span": {sql: "interval", values: []string{"0", "1 day", "1 year 2 mons", "23:59:59.9"}},
	"uuid": {sql: "uuid", values: []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"}},
	// what the goldens read
	"document": {sql: "jsonb", values: []string{`{"k": null}`, `{"k": "x", "v": 1, "o": {"p": "1"}, "l": []}`, `{"k": "x", "v": 4, "o": {"p": "0"}, "l": [[2], [2], 3]}`,
		`{"k": "y", "v": 3, "o": {"p": "1"}, "l": ["x", null, {"y": 1}]}`}},
	"event": {sql: "text", values: []string{`{"user":"u1","id":1,"bot":true}`, `{"user":"u2","id":2,"bot":false}`, `{"user":"u3","id":99,"bot":false}`, `{"user":"u1","id":7,"bot":false}`}},
	"bytea": {sql: "bytea", values: []string{`\x`, `\x00ff`, `\x616263`, `\x61`}},
}

var documents = []string{
	`{}`, `[]`, `null`, `"a"`, `1`, `true`, `[1, 2, 3]`, `{"a": 1}`, `{"a": "x", "b": null}`, `{"a": {"b": [1, {"c": "deep"}]}, "n": 7}`,
	`{"a": [1, "x", null, true, {"b": 2}]}`, `{"a": 1, "a": 2, "bb": 3, "c": -0.5}`, `{"a": "é \u00e9 \"q\" \\ \n", "日本": [""]}`,
	`[[1], [2, [3]], {"a": {}}]`, `{"n": 12345678901234567890}`, `{"n": 1e3, "a": false}`, `["a", "b", "a"]`,
	`{"a": {"a": {"a": {"a": {"a": {"a": [[[[[1]]]]]}}}}}}`,
}

// classes are holes that any of several kinds fills.
var classes = map[string][]kind{
	// the kinds that columns of tables have
	"any": {"bool", "int2", "int4", "int8", "int4s", "int8s", "float4", "float8", "float8s", "numeric", "numerics", "text", "digits", "jsonb", "date", "timestamp", "timestamptz", "interval", "intervals", "uuid", "bytea"},
	"ord": {"bool", "int2", "int4", "int8", "int4s", "int8s", "float4", "float8", "float8s", "numeric", "numerics", "text", "digits", "jsonb", "date", "timestamp", "timestamptz", "uuid", "bytea"}, // intervals have another order
	"mm":  {"int2", "int4", "int8", "int4s", "int8s", "float4", "float8", "float8s", "numeric", "numerics", "text", "digits", "date", "timestamp", "timestamptz"},
	"num": {"int2", "int4", "int8", "int4s", "int8s", "float8", "float8s", "numeric", "numerics"},
	"int": {"int2", "int4", "int8", "int4s", "int8s"},
	// what a cast to text writes the same in both; see [dialects]
	"plain": {"bool", "int2", "int4", "int8", "int4s", "int8s", "text", "digits", "date", "timestamp", "timestamptz", "uuid", "jsonb"},
}

func (k kind) info() kindInfo { return kinds[k] }

// is tells whether an expression of the kind will do where another is wanted.
func (k kind) is(want kind) bool {
	for ; k != ""; k = k.info().wider {
		if k == want {
			return true
		}
	}
	return false
}

// base is the kind of all values of the type.
func (k kind) base() kind {
	for k.info().wider != "" {
		k = k.info().wider
	}
	return k
}

func (k kind) literals() []string { return k.info().values }

// literal is a value written in SQL.
func (k kind) literal(value string) string {
	return "'" + strings.ReplaceAll(value, "'", "''") + "'::" + k.info().sql
}

// production is a way to write an expression of a kind.
type production struct {
	result  kind
	parts   []any
	general bool // it can be of any kind
}

// hole is a place for an expression in a production. Holes with one label are filled with one expression.
type hole struct{ want, label string }

// grammar is how expressions are made of others, one a line: kind, then text with holes. T stands for one kind, the same on the whole
// line, of the class that precedes the line's colon. A hole is {kind}, {class} or {label=kind}, or {label} again. [mzd~postgres] is written
// differently for either.
const grammar = `
bool      ({bool} AND {bool})
bool      ({bool} OR {bool})
bool      (NOT {bool})
bool      ({bool} IS TRUE)
bool      ({bool} IS NOT FALSE)
bool      ({bool} IS UNKNOWN)
any:bool  ({T} IS NULL)
any:bool  ({T} IS NOT NULL)
any:bool  ({T} = {T})
any:bool  ({T} <> {T})
ord:bool  ({T} < {T})
ord:bool  ({T} > {T})
ord:bool  ({T} <= {T})
ord:bool  ({T} >= {T})
ord:bool  ({T} BETWEEN {T} AND {T})
ord:bool  ({T} NOT BETWEEN {T} AND {T})
any:bool  ({T} IN ({T}, {T}, {T}))
any:bool  ({T} NOT IN ({T}, {T}))
any:bool  ({T} IS DISTINCT FROM {T})
any:bool  ({T} IS NOT DISTINCT FROM {T})
bool      ({num} < {num})
bool      ({num} = {num})
bool      ({date} < {timestamp})
bool      ({text} LIKE {pattern})
bool      ({text} NOT LIKE {pattern})
bool      ({text} ILIKE {pattern})
bool      ({text} LIKE {pattern} ESCAPE '!')
bool      ({text} ~ {regex})
bool      ({text} !~ {regex})
bool      ({text} ~* {regex})
bool      ({text} !~* {regex})
bool      ({jsonb} <@ {jsonb})
bool      starts_with({text}, {text})
bool      ({jsonb} @> {jsonb})
bool      ({jsonb} ? {key})
bool      ({int4} <> 0)
bool      ({date} = {timestamptz})
bool      ({timestamp} >= {timestamptz})
bool      ({float4} < {float8})
bool      ({numeric} > {float8})
bool      ({int4s} IN ({int8s}, {numerics}, 2))
bool      ({float8s} NOT IN ({int4s}, {numerics}))
bool      ({jsonb} ? {text})
bool      ({jsonb*}::text LIKE {pattern})
bool      ({text} IN ('a', 'é', NULL))
any:bool  (({T} = {T}) IS NOT TRUE)
any:T     CASE WHEN {bool} THEN {T} WHEN {bool} THEN {T} ELSE {T} END
any:T     CASE WHEN {bool} THEN {T} END
any:T     CASE {int4s} WHEN 1 THEN {T} WHEN {int4s} THEN {T} ELSE {T} END
any:T     coalesce({T}, {T})
any:T     nullif({T}, {T})
ord:T     greatest({T}, {T}, {T})
ord:T     least({T}, {T})
int4s     ({int4} % 100)
int4s     length({text})
int4s     octet_length({text})
int4s     strpos({text}, {text})
int4s     position({text} IN {text})
int4s     (- {int4s})
int4s     abs({int4s})
int4s     mod({int4s}, 7)
int4s     length({bytea})
int4s     octet_length({bytea})
int4s     ({int4s} / nullif({int4s}, 0))
int4s     ({int4s} % nullif({int4s}, 0))
int4s     (coalesce(nullif({int2}, {int4s}), {int4s}) % 100)
int4s     CASE WHEN {a=float8} BETWEEN -1000 AND 1000 THEN {a}::int4 END
int4s     CASE WHEN jsonb_typeof({a=jsonb}) = 'array' THEN jsonb_array_length({a}) END
int4      ({int4s} + {int4s})
int4      ({int4s} - {int4s})
int4      ({int4s} * {int4s})
int4      ({int4} / nullif(abs({int4s}), 0))
int4      ({date} - {date})
int4      {digits}::int4
int4      {bool}::int4
int4      {int2}::int4
int2      ({int4} % 1000)::int2
int8s     ({int8} % 1000)
int8s     {int4s}::int8
int8      ({int8s} + {int4})
int8      ({int4} - {int8s})
int8      ({int8s} * {int4})
int8      {int4}::int8
int8      {int2}::int8
int8      {digits}::int8
int8      {numerics}::int8
int8      coalesce({int4}, {int8})
int8      greatest({int4s}, {int8}, {int2})
int8      CASE WHEN {bool} THEN {int2} ELSE {int8} END
float4    {int2}::float4
float8s   ({float8s} + {float8s})
float8s   ({float8s} - {float8s})
float8s   (- {float8s})
float8s   abs({float8s})
float8s   floor({float8s})
float8s   {int4s}::float8
float8    ceil({float8})
float8    round({float8})
float8    trunc({float8})
float8    ({float8s} * {float8s})
float8    ({float8s} / nullif({float8s}, 0))
float8    ({int4s} + {float8s})
float8    sqrt(abs({float8s}))
float8    power({float8s}, 2)
float8    (- {float8})
float8    {float4}::float8
float8    {numerics}::float8
float8    date_part({field}, {timestamp})
float8    date_part({field}, {date})
float8    date_part({field}, {timestamptz})
float8    date_part('epoch', {intervals})
float8    CASE WHEN {bool} THEN {int4s} ELSE {float8} END
float8    least({float8}, {float4})
float8    mod({int4s}, 7)::float8
numerics  round({numerics}, 2)
numerics  floor({numerics})
numerics  ceil({numerics})
numerics  trunc({numerics}, 1)
numerics  abs({numerics})
numerics  {int4s}::numeric
numeric   ({numeric} + {numeric})
numeric   ({numeric} - {numerics})
numeric   round({numeric} * {numerics}, 6)
numeric   round({numerics} / nullif({numerics}, 0), 6)
numeric   round({numeric}, {int4s})
numeric   ({numerics} % 3.5)
numeric   (- {numeric})
numeric   {int8}::numeric
numeric   ({int8s} + {numeric})
numeric   {float8s}::numeric
numeric   CASE WHEN jsonb_typeof({a=jsonb}) = 'number' THEN {a}::numeric END
numerics  mod({numerics}, 2.5)
numerics  ({numerics} + {int4s})
numeric   sqrt(abs({numerics}))
numeric   power(abs({numerics}), 3)
numeric   coalesce({int8}, {numeric})
numeric   ({numeric} * {int4s})
numeric   {numerics}::numeric(12, 2)
numeric   {numerics}::numeric(9, -1)
numeric   extract({field***} FROM {span})
numeric   extract({field*} FROM {timestamp})
numeric   extract({field**} FROM {date})
numeric   extract({field*} FROM {timestamptz})
text      ({text} || {text})
text      ({text} || {int4})
text      concat({text}, {int4}, {bool})
text      concat_ws({key}, {text}, {text})
text      substr({text}, {int4s}, {position*})
int4s     char_length({text})
text      lower({text})
text      upper({text})
text      substring({text}, {int4s})
text      substring({text} FROM {int4s} FOR abs({int4s}))
text      replace({text}, {text}, {text})
text      trim({text})
text      trim(BOTH 'a' FROM {text})
text      ltrim({text}, 'ab ')
text      rtrim({text})
text      split_part({text}, ',', {position})
text      left({text}, {int4s})
text      right({text}, {int4s})
text      ({jsonb} ->> {key})
text      CASE WHEN jsonb_typeof({a=jsonb}) = 'array' THEN {a} ->> {index} END
text      ({jsonb} #>> {path})
text      jsonb_typeof({jsonb})
text      ({text}::varchar(3) || '')
text      {uuid}::text
text      {bytea}::text
text      {span}::text
text      ({text} || {jsonb*})
text      ({text} || {date} || {bool})
text      concat_ws({text}, {int4s}, NULL, {date}, {text})
text      ({jsonb} ->> {text})
text      substr({text}, {int4})
text      coalesce({text}, 'none')
text      btrim({text}, {text})
text      CASE {text} WHEN 'a' THEN 'one' WHEN {text} THEN {text} END
text      {plain}::text
text      [{a=numeric}::text~trim_scale({a})::text]
text      [{a=float8}::text~({a} + 0)::text]
jsonb     ({jsonb} -> {key})
jsonb     CASE WHEN jsonb_typeof({a=jsonb}) IN ('array', 'object') THEN {a} -> {index} END
jsonb     ({jsonb} #> {path})
jsonb     ({jsonb} -> {text})
jsonb     ({jsonb} -> {key} -> {key})
jsonb     jsonb_build_object({text*}, {plain}, {int4s*}, {jsonb})
jsonb     jsonb_build_array({jsonb}, {timestamptz}, {bytea}, NULL)
jsonb     CASE WHEN jsonb_typeof({a=jsonb}) = 'array' THEN {a} - {index} END
jsonb     jsonb_build_object({key}, {plain}, 'z', {plain})
jsonb     jsonb_build_array({plain}, {plain})
jsonb     to_jsonb({plain})
jsonb     CASE WHEN jsonb_typeof({a=jsonb}) = 'object' THEN {a} - {key} END
jsonb     ({jsonb} || {jsonb})
date      {timestamp}::date
date      ({date} + {int4s})
date      ({date} - {int4s})
date      {timestamptz}::date
date      ({int4s} + {date})
bytea     ({bytea} || {bytea})
bytea     {text*}::bytea
uuid      {uuid}::text::uuid
timestamp {date}::timestamp
timestamp ({timestamp} + {intervals})
timestamp ({date} - {intervals})
timestamp date_trunc({unit}, {timestamp})
timestamptz {timestamp}::timestamptz
timestamptz date_trunc({unit}, {timestamptz})
timestamp {timestamptz}::timestamp
timestamp ({intervals} + {timestamp})
timestamp {timestamp}::timestamp(0)
timestamp coalesce({date}, {timestamp})
timestamp greatest({timestamp}, {date})
timestamptz {date}::timestamptz
timestamptz date_trunc({unit}, {date})
timestamptz coalesce({timestamp}, {timestamptz})
timestamptz ({intervals} + {timestamptz})
timestamptz to_timestamp({int4s})
timestamptz to_timestamp({float8s})
interval  ({timestamp} - {timestamp})
interval  ({interval} + {interval})
interval  (- {interval})
intervals (- {intervals})
interval  ({interval} * 2)
interval  ({timestamptz} - {timestamptz})
interval  ({timestamp} - {date})
intervals date_trunc({unit*}, {intervals})
span      ({intervals} * {float8s})
span      ({int4s} * {intervals})
span      ({intervals} / 4)
span      ({span} - {intervals})
intervals {intervals}::interval(1)
timestamptz ({timestamptz} - {intervals})
`

// words fill the holes of constants.
var words = map[string][]string{
	"pattern":   {"'%'", "'a%'", "'_b%'", "'%é'", "''", "'a'", `'%\%%'`, "'%,%'", "'__'"},
	"regex":     {"'^a'", "'b+'", "'[a-c]x?$'", "'(ab|é)'", "'^.$'", "'\\d+'", "''", `'^\w+$'`, `'[\W_]'`, `'\s'`, `'^[^\s,]*$'`, `'^\S\w?'`, "'.\\..'", "'^(a|b){1,2}$'", "'é|日'", "'[b-z]+?'"},
	"key":       {"'a'", "'b'", "'n'", "'bb'", "'日本'", "''"},
	"index":     {"0", "1", "-1", "5"},
	"path":      {"'{a}'", "'{a,b}'", "'{a,b,1,c}'", "'{0}'", "'{}'", "'{a,0}'", "'{a,-1}'"},
	"position":  {"1", "2", "-1", "9"},
	"field":     {"'year'", "'month'", "'day'", "'hour'", "'dow'", "'doy'", "'Week'", "'isoyear'"},
	"field*":    {"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "EPOCH", "DOW", "ISODOW", "DOY", "QUARTER", "WEEK", "ISOYEAR", "SECOND", "MILLISECONDS", "MICROSECONDS", "DECADE", "CENTURY", "MILLENNIUM", "JULIAN"},
	"field**":   {"YEAR", "MONTH", "DAY", "EPOCH", "DOW", "ISODOW", "DOY", "QUARTER", "WEEK", "ISOYEAR", "DECADE", "CENTURY", "MILLENNIUM", "JULIAN"},
	"field***":  {"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "EPOCH", "QUARTER", "DECADE", "CENTURY", "MICROSECONDS"},
	"text*":     {"'k'", "'a'", "'日本'", "''", `'x"y'`},
	"int4s*":    {"1", "'z'", "true"},
	"jsonb*":    {"'{\"a\": [1, 2]}'::jsonb", "'null'::jsonb"},
	"position*": {"0", "1", "3"},
	"unit":      {"'year'", "'month'", "'day'", "'hour'", "'minute'", "'second'", "'week'", "'quarter'", "'decade'", "'century'", "'millennium'", "'milliseconds'"},
	"unit*":     {"'year'", "'quarter'", "'month'", "'day'", "'hour'", "'minute'", "'second'", "'milliseconds'"},
}

// aggregateGrammar is how aggregates are written. {filter} is where FILTER stands. PostgreSQL adds floats up in the order in which they
// come; as numerics it adds them exactly, as the engine does.
const aggregateGrammar = `
int8s     count(*){filter}
int8s     count({any}){filter}
int8s     count(DISTINCT {any}){filter}
int8      sum({int4}){filter}
int8      sum({int2}){filter}
int8      sum(DISTINCT {int4s}){filter}
numeric   sum({int8}){filter}
numeric   sum({numeric}){filter}
numeric   sum(DISTINCT {numerics}){filter}
numeric   avg({int}){filter}
numeric   avg({numerics}){filter}
float8    [sum({a=float8s}){filter}~sum({a}::numeric){filter}::float8]
float8    [avg({a=float8s}){filter}~(sum({a}::numeric){filter} * 1.00000000000000000000000000000000000000000000000000 / nullif(count({a}){filter}, 0))::float8]
mm:T      min({T}){filter}
mm:T      max({T}){filter}
bool      bool_and({bool}){filter}
bool      bool_or({bool}){filter}
bool      every({bool}){filter}
interval  sum({intervals}){filter}
interval  avg({intervals}){filter}
numeric   avg(DISTINCT {int4s}){filter}
text      string_agg({a=text}, {b=text} ORDER BY {a}, {b}){filter}
text      array_agg(DISTINCT {a=int8s} ORDER BY {a} DESC NULLS LAST){filter}::text
jsonb     jsonb_agg(DISTINCT {a=int4s} ORDER BY {a} NULLS FIRST){filter}
jsonb     jsonb_agg({a=jsonb} ORDER BY {a}){filter}
jsonb     jsonb_object_agg(coalesce({a=text}, ''), {b=int4s} ORDER BY {a}, {b}){filter}
bytea     string_agg({a=bytea}, '\x2c' ORDER BY {a}){filter}
text      string_agg({a=text}, ','[~ ORDER BY {a}]){filter}
text      string_agg(DISTINCT {a=text}, '' ORDER BY {a}){filter}
text      string_agg({a=text}, '-' ORDER BY {b=int4} DESC, {a}){filter}
jsonb     jsonb_agg({a=text}[~ ORDER BY {a}]){filter}
jsonb     jsonb_agg({a=int4s} ORDER BY {b=text} DESC NULLS LAST, {a}){filter}
jsonb     to_jsonb(array_agg({a=date}[~ ORDER BY {a}]){filter})
text      array_agg({a=text}[~ ORDER BY {a}]){filter}::text
text      array_agg({a=int4} ORDER BY {b=text}, {a}){filter}::text
`

// partialGrammar is expressions that fail for some values. They stand where PostgreSQL evaluates them for the same rows as the
// engine: nowhere but at the top of a select list, in a WHERE that has nothing else, or as the argument of an aggregate.
const partialGrammar = `
int2      ({int2} + {int2})
int2      ({int2} * {int2})
int2      {int4}::int2
int4      ({int4} + {int4})
int4      ({int4} - {int4})
int4      ({int4} * {int4})
int4      ({int4} / {int4s})
int4      ({int4} % {int4s})
int4      (- {int4})
int4      abs({int4})
int4      {int8}::int4
int4      {float8}::int4
int4      {numeric}::int4
int4      {text}::int4
int4      jsonb_array_length({jsonb})
int8      ({int8} + {int4})
int8      ({int8} * {int8})
int8      ({int8} / {int8s})
int8      {float8}::int8
int8      {numeric}::int8
int8      {text}::int8
float4    {float8}::float4
float8    ({float8} * {float8})
float8    ({float8} / {float8s})
float8    {text}::float8
float8    sqrt({float8})
numeric   round({numeric} / {numerics}, 6)
numeric   ({numeric} % {numerics})
numeric   {text}::numeric
numeric   CASE WHEN jsonb_typeof({a=jsonb}) <> 'null' THEN {a}::numeric END
bool      {text}::bool
bool      CASE WHEN jsonb_typeof({a=jsonb}) <> 'null' THEN {a}::bool END
bool      ({int4} / {int4s} > 0)
bool      ({text} LIKE {text})
bool      (nullif({a=int4s}, 0) IN (1, 6 / {a}))
int4      (nullif({a=int4s}, 0) + (6 / {a}))
text      substring('abcdef', nullif({a=int4s}, 0), 6 / {a})
timestamp ({timestamp} + {interval})
date      ({date} + {int4})
text      split_part({text}, ',', {int4s})
text      substring({text}, 1, {int4s})
jsonb     {text}::jsonb
date      {text}::date
timestamp {text}::timestamp
uuid      {text}::uuid
interval  {text}::interval
`

// line is a line of a grammar: the ways to write it, one for each kind that T may be.
type line []production

// parseGrammar reads a grammar.
func parseGrammar(text string) []line {
	var out []line
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		head, rest, _ := strings.Cut(l, " ")
		parts := parseParts(strings.TrimSpace(rest))
		class, result, ok := strings.Cut(head, ":")
		if !ok {
			out = append(out, line{{result: kind(head), parts: parts}})
			continue
		}
		var variants line
		for _, k := range classes[class] {
			variants = append(variants, production{kind(strings.ReplaceAll(result, "T", string(k))), fill(parts, k), result == "T"})
		}
		out = append(out, variants)
	}
	return out
}

// parseParts splits a line into strings, holes, and pairs of lists of these for the two dialects.
func parseParts(s string) []any {
	var out []any
	for s != "" {
		at := strings.IndexAny(s, "{[")
		if at < 0 {
			return append(out, s)
		}
		if at > 0 {
			out = append(out, s[:at])
		}
		if s[at] == '[' {
			inside, rest, _ := strings.Cut(s[at+1:], "]")
			mzd, postgres, _ := strings.Cut(inside, "~")
			out = append(out, [2][]any{parseParts(mzd), parseParts(postgres)})
			s = rest
			continue
		}
		inside, rest, _ := strings.Cut(s[at+1:], "}")
		if label, want, ok := strings.Cut(inside, "="); ok {
			out = append(out, hole{want, label})
		} else if inside == "a" || inside == "b" || inside == "filter" {
			out = append(out, hole{"", inside})
		} else {
			out = append(out, hole{inside, ""})
		}
		s = rest
	}
	return out
}

// fill puts a kind for T.
func fill(parts []any, k kind) []any {
	out := slices.Clone(parts)
	for i, p := range out {
		if h, ok := p.(hole); ok && h.want == "T" {
			out[i] = hole{string(k), h.label}
		}
	}
	return out
}

var (
	productions = byKind(parseGrammar(grammar))
	aggregators = byKind(parseGrammar(aggregateGrammar))
	partials    = byKind(parseGrammar(partialGrammar))
)

// byKind lists the lines that make each kind.
func byKind(list []line) map[kind][]line {
	out := map[kind][]line{}
	for _, l := range list {
		for k := range kinds {
			var fits line
			for _, p := range l {
				if p.result.is(k) {
					fits = append(fits, p)
				}
			}
			if fits != nil {
				out[k] = append(out[k], fits)
			}
		}
	}
	return out
}

func pick[T any](rnd *rand.Rand, list []T) T { return list[rnd.IntN(len(list))] }

// value is a random value of a kind, or NULL, written in SQL.
func (k kind) value(rnd *rand.Rand) string {
	v := k.literals()
	if len(v) == 0 {
		panic(fmt.Sprintf("kind %q has no values", k))
	}
	if rnd.IntN(8) == 0 {
		return "NULL::" + k.info().sql
	}
	return k.literal(pick(rnd, v))
}
