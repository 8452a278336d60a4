package mz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mzdio/mzd/core/mz"
	"github.com/mzdio/mzd/core/pgtest"
)

// The oracle of the encoder is PostgreSQL's to_jsonb. The one difference: jsonb
// is printed with spaces, rows are not.
func TestEncodeLikePostgres(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t)
	for _, set := range []string{"SET TimeZone = 'UTC'", "SET DateStyle = 'ISO, MDY'", "SET IntervalStyle = 'postgres'", "SET extra_float_digits = 3", "SET bytea_output = 'hex'"} {
		if _, err := pg.Exec(t.Context(), set).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	compare := func(expr string) {
		t.Helper()
		results, err := pg.Exec(t.Context(), fmt.Sprintf("SELECT x, to_jsonb(x) FROM (SELECT %s AS x) _", expr)).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		r := results[0]
		var want bytes.Buffer
		if err := json.Compact(&want, r.Rows[0][1]); err != nil {
			t.Fatalf("%s: to_jsonb gives %q: %v", expr, r.Rows[0][1], err)
		}
		got, err := mz.Encode(r.FieldDescriptions[0].DataTypeOID, r.Rows[0][0])
		if err != nil || got != "["+want.String()+"]" {
			t.Errorf("%s, text %q:\n got %s, %v\nwant [%s]", expr, r.Rows[0][0], got, err, want.String())
		}
	}
	for _, expr := range []string{
		"true", "false", "1::int2", "(-2147483648)::int4", "9223372036854775807::int8",
		"0::numeric", "1.50::numeric", "-0.00::numeric", "1e30::numeric", "1e-30::numeric", "'NaN'::numeric", "'Infinity'::numeric", "'-Infinity'::numeric",
		"12345678901234567890.123456789::numeric(40,9)",
		"0::float8", "'-0'::float8", "1e15::float8", "1e16::float8", "1.5e300::float8", "5e-324::float8", "0.1::float8", "'NaN'::float8", "'-inf'::float8", "1e10::float4", "1.1::float4", "3.4e38::float4",
		"'x'::text", "''::text", "'x'::varchar(5)", "'x'::char(5)", "'x'::name", "'x'::\"char\"",
		`E'\b\f\n\r\t\x01\x1f\x7f"\\/<>&''é😀\u2028'::text`,
		`'{"b": 1, "a": [1, 2.0, "x  y", null, true, {"z": {}}], "é": "\u0001\n"}'::jsonb`, `'" "'::jsonb`, `'1.50'::jsonb`, `'null'::jsonb`, `'[]'::jsonb`, `'{"a":{"b":[]}}'::json`,
		"'2024-01-02'::date", "'0044-03-15 BC'::date", "'infinity'::date", "'12024-01-02'::date",
		"'2024-01-02 03:04:05'::timestamp", "'2024-01-02 03:04:05.678901'::timestamp", "'0044-03-15 00:00:00 BC'::timestamp", "'-infinity'::timestamp", "'infinity'::timestamp",
		"'2024-01-02 03:04:05+02'::timestamptz", "'2024-01-02 03:04:05.1'::timestamptz", "'0044-03-15 00:00:00 BC'::timestamptz", "'infinity'::timestamptz", "'12024-01-02 03:04:05'::timestamptz",
		"'03:04:05.6'::time", "'03:04:05+05:30'::timetz", "'1 year 2 days 03:04:05'::interval", "'-1 month'::interval", "'1 year -2 days +03:04:05.6'::interval", "'0'::interval",
		`'\x0001ff'::bytea`, "''::bytea", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "1::oid", "'int4'::regtype", "'pg_class'::regclass", "'192.168.0.0/16'::cidr", "'::1'::inet",
		"'{}'::int4[]", "'{1,NULL,3}'::int4[]", "'[0:1]={1,2}'::int8[]", "'{{1,2},{3,4}}'::int2[]", "'[2:3][0:0]={{1},{2}}'::int8[]",
		`ARRAY['a b', 'NULL', NULL, '', 'q"\', '{x}', 'a,b', 'é']::text[]`, "ARRAY['a']::varchar[]", "ARRAY['a']::name[]", "'{t,f}'::bool[]", "'{1.5,NaN,-0}'::float8[]", "'{1.50,NaN}'::numeric[]",
		`ARRAY['{"a": [1, "x y"]}', 'null', '"{}"']::jsonb[]`, "ARRAY['2024-01-02 03:04:05']::timestamp[]", "ARRAY['2024-01-02 03:04:05', 'infinity']::timestamptz[]", "ARRAY['2024-01-02']::date[]",
		`ARRAY['\x00ff']::bytea[]`, "ARRAY['1 day', NULL, '-00:00:01']::interval[]", `ARRAY['\x', NULL]::bytea[]`, "'{}'::uuid[]", "'{1e20,-5e-7,NULL}'::float8[]", "'{1.1}'::float4[]", "'{5,NULL}'::int2[]", "ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']::uuid[]",
	} {
		compare(expr)
	}

	const seed = 1
	rnd := rand.New(rand.NewPCG(seed, 2))
	for i := range 400 {
		var expr string
		switch i % 5 {
		case 0:
			expr = fmt.Sprintf("'%s'::float8", strconv.FormatFloat(randomFloat(rnd), 'g', -1, 64))
		case 1:
			expr = fmt.Sprintf("'%s'::float4", strconv.FormatFloat(float64(float32(rnd.NormFloat64()*math.Pow(10, float64(rnd.IntN(60)-30)))), 'g', -1, 32))
		case 2:
			expr = fmt.Sprintf("'%s'::numeric", strconv.FormatFloat(randomFloat(rnd)/1e280, 'f', rnd.IntN(20), 64))
		case 3:
			expr = quoteSQL(randomText(rnd)) + "::text"
		case 4:
			doc, err := json.Marshal(map[string]any{randomText(rnd): []any{randomText(rnd), rnd.NormFloat64(), nil}})
			if err != nil {
				t.Fatal(err)
			}
			expr = quoteSQL(string(doc)) + "::jsonb"
		}
		compare(expr)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomFloat(rnd *rand.Rand) float64 {
	for {
		f := math.Float64frombits(rnd.Uint64())
		if !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
	}
}

func randomText(rnd *rand.Rand) string {
	var b strings.Builder
	for range rnd.IntN(12) {
		switch rnd.IntN(3) {
		case 0:
			b.WriteRune(rune(1 + rnd.IntN(127)))
		case 1:
			b.WriteRune(rune(0x80 + rnd.IntN(0x2000)))
		default:
			b.WriteRune(rune(0x1f600 + rnd.IntN(50)))
		}
	}
	return b.String()
}

// quoteSQL writes a string constant for a session with standard_conforming_strings.
func quoteSQL(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// startPostgres connects to a PostgreSQL of the test's own.
func startPostgres(t *testing.T) *pgconn.PgConn {
	t.Helper()
	pg, err := pgconn.Connect(t.Context(), pgtest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pg.Close(context.Background()) })
	return pg
}
