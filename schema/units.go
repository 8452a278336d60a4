package schema

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that users write as 500ms, 10m or 1h30m. It is
// never negative.
type Duration time.Duration

// UnmarshalText reads what users write.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return errors.New("not a duration such as 500ms, 10m or 1h30m")
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what [Duration.UnmarshalText] reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes 10m where [time.Duration] writes 10m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Bytes is an amount of data that users write as 64KB (1000 bytes each), 64KiB
// (1024 bytes each), up to TB and TiB, or as a number of bytes.
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3},
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"B", 1},
}

// UnmarshalText reads what users write; the case of the letters does not
// matter.
func (b *Bytes) UnmarshalText(text []byte) error {
	number := strings.TrimRight(string(text), "KMGTIBkmgtib")
	unit, err := byteUnit(string(text)[len(number):])
	if err != nil {
		return err
	}
	number = strings.TrimRight(number, " ")
	if n, err := strconv.ParseUint(number, 10, 63); err == nil {
		if int64(n) > math.MaxInt64/unit {
			return errors.New("more than 8 EiB")
		}
		*b = Bytes(int64(n) * unit)
		return nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.ContainsAny(number, "-+eExXpPnN_") {
		return errors.New("not a size such as 64KB, 20GB or 512MiB")
	}
	f = math.Round(f * float64(unit))
	if f >= math.MaxInt64 {
		return errors.New("more than 8 EiB")
	}
	*b = Bytes(f)
	return nil
}

func byteUnit(name string) (int64, error) {
	if name == "" {
		return 1, nil
	}
	for _, u := range byteUnits {
		if strings.EqualFold(name, u.name) {
			return u.size, nil
		}
	}
	return 0, fmt.Errorf("unknown unit %q; known: B, KB, MB, GB, TB, KiB, MiB, GiB, TiB", name)
}

// MarshalText writes what [Bytes.UnmarshalText] reads.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String writes the amount exactly, in the largest unit that can.
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if b != 0 && int64(b)%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
