package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

const maxDigits = 40 // of a whole number

// noun is what a number of the schema is called.
func (s *Schema) noun() string {
	if s.Kind == Integer {
		return "whole number"
	}
	return "number"
}

// fits returns a number as the plugin is to get it, or, if it is not one that
// the schema allows, what would be.
func (s *Schema) fits(n json.Number) (fitting json.Number, wanted string) {
	if s.Kind == Number {
		f, err := n.Float64()
		min, errMin := s.Min.Float64()
		max, errMax := s.Max.Float64()
		if err != nil || errMin == nil && f < min || errMax == nil && f > max {
			return "", s.noun() + between(s.Min, s.Max)
		}
		return n, ""
	}
	min, max := s.Min, s.Max
	if min == "" {
		min = whole(math.MinInt64)
	}
	if max == "" && strings.HasPrefix(string(min), "-") {
		max = whole(math.MaxInt64)
	} else if max == "" {
		max = json.Number(strconv.FormatUint(math.MaxUint64, 10))
	}
	i := bigInt(n)
	switch {
	case i == nil:
		return "", s.noun()
	case i.Cmp(bigInt(min)) < 0 || i.Cmp(bigInt(max)) > 0:
		return "", s.noun() + between(min, max)
	}
	return json.Number(i.String()), ""
}

// between says what lies between bounds, either of which may be missing.
func between(min, max json.Number) string {
	switch {
	case min != "" && max != "":
		return fmt.Sprintf(" from %s to %s", min, max)
	case min != "":
		return fmt.Sprintf(" of at least %s", min)
	case max != "":
		return fmt.Sprintf(" of at most %s", max)
	}
	return ""
}

// number returns v as a JSON number, if it is one.
func number(v any) (json.Number, bool) {
	switch v := v.(type) {
	case json.Number:
		return v, true
	case Text:
		n := json.Number(v)
		_, err := n.Float64()
		return n, err == nil && json.Valid([]byte(v))
	}
	return "", false
}

// bigInt returns a number that is written as a whole one; nil: it is not, or is
// far longer than any that fits.
func bigInt(n json.Number) *big.Int {
	if len(n) > maxDigits {
		return nil
	}
	i, ok := new(big.Int).SetString(string(n), 10)
	if !ok {
		return nil
	}
	return i
}

func whole(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }
