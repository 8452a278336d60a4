package plan

import "strings"

const noClock = "The views here have no clock: put the time into the event."

// clocks are the functions of PostgreSQL that tell the time, and that Materialize has not either.
var clocks = map[string]bool{"current_date": true, "current_time": true, "localtime": true, "localtimestamp": true, "clock_timestamp": true}

// elsewhere are functions of Materialize that the engine knows by name only, with a hint where there is something else to do.
var elsewhere = makeElsewhere()

func makeElsewhere() map[string]string {
	m := map[string]string{}
	for hint, names := range map[string]string{
		noClock: "now current_timestamp",
		"Temporal filters need a clock, and the views here have none.": "mz_now mz_logical_timestamp",
		"": `acos age array_cat array_fill array_length array_lower array_position array_remove array_to_string array_upper ascii asin atan
			bit_count bit_length cbrt chr constant_time_eq convert_from corr cos cot crc32 current_database current_role current_schema
			current_schemas current_user date_bin decode degrees dense_rank digest encode exp first_value format_type
			generate_subscripts get_bit get_byte hmac initcap jsonb_each jsonb_each_text
			jsonb_pretty jsonb_strip_nulls justify_days justify_hours justify_interval kafka_murmur2 lag last_value lead
			list_agg list_append list_cat list_length list_prepend list_remove ln log log10 lpad make_timestamp map_agg map_build map_length md5
			parse_ident pg_typeof quote_ident radians rank regexp_match regexp_matches regexp_replace regexp_split_to_array
			regexp_split_to_table repeat reverse row_number seahash session_user sha224 sha256 sha384 sha512 sin stddev stddev_pop
			stddev_samp string_to_array tan timezone to_char translate try_parse_monotonic_iso8601_timestamp unnest uuid_generate_v5
			var_pop var_samp variance`,
	} {
		for _, n := range strings.Fields(names) {
			m[n] = hint
		}
	}
	return m
}
