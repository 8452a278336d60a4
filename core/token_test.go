package core_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mzdio/mzd/core"
)

func TestTokenText(t *testing.T) {
	for _, k := range []core.Token{
		{},
		{Time: 1721310001000, Generation: "k3f9"},
		{Time: 0, Generation: "a"},
		{Time: core.EndOfTime, Generation: core.NewGeneration()},
	} {
		got, err := core.ParseToken(k.String())
		if err != nil || got != k {
			t.Errorf("parse %q: got %v, %v; want %v", k, got, err, k)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	for _, s := range []string{
		"1", "-", "1-", "-a", "x-a", "1-A", "1-a-b", "+1-a", "-1-a", " 1-a", "1-a ", "1-\u00e9",
		"18446744073709551616-a", strings.Repeat("1", 300) + "-a", "1-" + strings.Repeat("a", 300),
	} {
		k, err := core.ParseToken(s)
		if !errors.Is(err, core.ErrToken) || !k.IsZero() {
			t.Errorf("parse %q: got %v, %v; want the zero token and ErrToken", s, k, err)
		}
		if err != nil && len(err.Error()) > 250 {
			t.Errorf("parse %.20q...: the error repeats %d bytes of input", s, len(err.Error()))
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, s := range []string{"", "1721310001000-k3f9", "0-a", "18446744073709551615-zz", "1-", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := core.ParseToken(s)
		if err != nil {
			return
		}
		if again, err := core.ParseToken(k.String()); err != nil || again != k {
			t.Errorf("%q parses to %v, which parses to %v, %v", s, k, again, err)
		}
	})
}

func TestGenerationsDiffer(t *testing.T) {
	seen := make(map[core.Generation]bool)
	for range 10_000 {
		g := core.NewGeneration()
		if k, err := core.ParseToken("1-" + string(g)); err != nil || k.Generation != g || seen[g] {
			t.Fatalf("generation %q: %v, seen before: %v", g, err, seen[g])
		}
		seen[g] = true
	}
}
