package sql_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mzdio/mzd/engine/sql"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestStatements holds the parser against testdata: each case is a text, a line of dashes, and the statements that the parser prints, or
// its error. What is printed must parse to what prints the same.
func TestStatements(t *testing.T) {
	path := filepath.Join("testdata", "statements.txt")
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for c := range strings.SplitSeq(strings.TrimSpace(string(golden)), "\n\n") {
		if c = strings.TrimLeft(c, "\n"); c == "" || c == "----" { // the end of a case that prints nothing
			continue
		}
		input, want, _ := strings.Cut(c, "\n----")
		want = strings.TrimPrefix(want, "\n")
		got := strings.TrimSuffix(render(t, input), "\n")
		if got != want && !*update {
			t.Errorf("%s\ngot\n%s\nwant\n%s", input, got, want)
		}
		fmt.Fprintf(&out, "%s\n----\n%s\n\n", input, got)
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func render(t *testing.T, input string) string {
	list, err := sql.Parse(input)
	if err != nil {
		var e *sql.Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: error is a %T", input, err)
		}
		s := fmt.Sprintf("error %s at %d: %s\n", e.Code, e.Pos, e.Message)
		if e.Hint != "" {
			s += "hint: " + e.Hint + "\n"
		}
		return s
	}
	var b strings.Builder
	for _, p := range list {
		text := p.Statement.String()
		again, err := sql.Parse(text)
		if err != nil {
			t.Errorf("%s is printed as %s: %v", input, text, err)
			continue
		}
		if got := again[0].Statement.String(); got != text {
			t.Errorf("%s is printed as %s, and that as %s", input, text, got)
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

// TestLimits holds the parser against texts that would hurt a parser without limits.
func TestLimits(t *testing.T) {
	for name, text := range map[string]string{
		"parentheses": "SELECT " + strings.Repeat("(", 100_000) + "1",
		"not":         "SELECT " + strings.Repeat("NOT ", 100_000) + "a",
		"minus":       "SELECT " + strings.Repeat("- ", 100_000) + "1",
		"plus":        "SELECT 1" + strings.Repeat("+1", 100_000),
		"casts":       "SELECT 1" + strings.Repeat("::int", 100_000),
		"unions":      "SELECT 1" + strings.Repeat(" UNION SELECT 1", 50_000),
		"joins":       "SELECT 1 FROM a" + strings.Repeat(" CROSS JOIN a", 50_000),
		"tables":      "SELECT 1 FROM " + strings.Repeat("(", 100_000) + "a",
		"queries":     strings.Repeat("SELECT * FROM (", 10_000) + "a",
		"case":        "SELECT " + strings.Repeat("CASE WHEN ", 50_000) + "1",
		"calls":       "SELECT " + strings.Repeat("f(", 100_000) + "1",
		"long":        "SELECT '" + strings.Repeat("x", sql.MaxBytes) + "'",
	} {
		_, err := sql.Parse(text)
		var e *sql.Error
		if !errors.As(err, &e) || !strings.HasPrefix(e.Code, "54") {
			t.Errorf("%s: got %v, want an error of class 54", name, err)
		}
	}
	if _, err := sql.Parse("SELECT x FROM t WHERE x IN (1" + strings.Repeat(",1", 100_000) + ")"); err != nil {
		t.Errorf("a long list: %v", err)
	}
}

// FuzzParse looks for texts that make the parser panic, or print what it does not parse to the same again.
func FuzzParse(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "statements.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for c := range strings.SplitSeq(string(golden), "\n\n") {
		input, _, _ := strings.Cut(c, "\n----")
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input string) {
		list, err := sql.Parse(input)
		if err != nil {
			var e *sql.Error
			if !errors.As(err, &e) || e.Pos < 0 || e.Pos > len(input) || e.Code == "" || e.Message == "" {
				t.Fatalf("bad error %#v", err)
			}
			return
		}
		for _, p := range list {
			text := p.Statement.String()
			again, err := sql.Parse(text)
			if err != nil {
				// Printing adds parentheses, which may be one too many for the limits.
				if e := err.(*sql.Error); strings.HasPrefix(e.Code, "54") {
					continue
				}
				t.Fatalf("%q is printed as %q: %v", input, text, err)
			}
			if len(again) != 1 || again[0].Statement.String() != text {
				t.Fatalf("%q is printed as %q, and that as %q", input, text, again[0].Statement)
			}
		}
	})
}
