package core

import "strconv"

// Time is the upstream's logical timestamp. Materialize's are milliseconds
// since 1970 for everything that follows the wall clock, but they may be small
// integers too (see [Time.IsWall]). They are unsigned and use the whole range:
// nothing in mzd may pass one through a signed integer.
type Time uint64

// EndOfTime is the frontier of a view that will never change again: a view
// whose Upper is EndOfTime is sealed. An update that the upstream stamps with
// the same number (Materialize does so for constant views) is stored one
// earlier, so that it lies below the frontier.
const EndOfTime Time = 1<<64 - 1

// firstWallTime is the smallest timestamp taken for epoch milliseconds. It is
// September 2001; logical clocks that count from zero stay far below it.
const firstWallTime Time = 1_000_000_000_000

// IsWall reports whether t can be read as milliseconds since 1970. It is false
// for counters of a private clock and for the end of time, for which a lag
// behind the wall clock would mean nothing.
func (t Time) IsWall() bool { return t >= firstWallTime && t < EndOfTime-1 }

// Seconds returns t in seconds, for metrics. It is meaningful where
// [Time.IsWall] is true.
func (t Time) Seconds() float64 { return float64(t) / 1000 }

// String returns t in decimal.
func (t Time) String() string { return strconv.FormatUint(uint64(t), 10) }

// ParseTime reads what [Time.String] writes. It accepts digits only: no sign,
// no spaces.
func ParseTime(s string) (Time, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	return Time(n), err
}
