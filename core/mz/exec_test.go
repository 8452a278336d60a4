package mz_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/mzdio/mzd/core/mz"
)

func TestExec(t *testing.T) {
	srv := today()
	err := srv.client(t).Exec(t.Context(), "-- views\nCREATE VIEW a AS SELECT ';';\n\n  CREATE VIEW b AS SELECT 1;;\n")
	if err != nil {
		t.Fatal(err)
	}
	// Each statement stands where it stood, for the server's messages.
	want := []string{"\nCREATE VIEW a AS SELECT ';'", "\n\n\n  CREATE VIEW b AS SELECT 1"}
	if got := slices.DeleteFunc(srv.others, func(s string) bool { return strings.HasPrefix(s, "SET") }); !reflect.DeepEqual(got, want) {
		t.Errorf("statements %q, want %q", got, want)
	}
}

func TestExecError(t *testing.T) {
	refusal := fail("42601", "unexpected word")
	for _, tt := range []struct {
		text         string
		position     int32 // of the error, in characters of what the server gets
		line, column int
	}{
		{"TAIL 1", 6, 1, 6},
		{"CREATE VIEW a; TAIL 1", 0, 1, 16},
		{"/* é\n */ CREATE VIEW é;\n  TAIL é\n+ x;", 12, 4, 1},
		{"TAIL", 99, 1, 4},
	} {
		srv := today()
		e := *refusal
		e.Position = tt.position
		srv.scripts = []script{{&e}}
		err := srv.client(t).Exec(t.Context(), tt.text)
		var se *mz.StatementError
		if !errors.As(err, &se) {
			t.Errorf("%q: %v, want a StatementError", tt.text, err)
			continue
		}
		if se.Line != tt.line || se.Column != tt.column {
			t.Errorf("%q: error at %d:%d, want %d:%d", tt.text, se.Line, se.Column, tt.line, tt.column)
		}
	}
}

func TestExecRefusesData(t *testing.T) {
	srv := today()
	srv.scripts = []script{{&pgproto3.CopyInResponse{}, fail("57014", "COPY from stdin failed")}}
	var se *mz.StatementError
	if err := srv.client(t).Exec(t.Context(), "SUBSCRIBE 1"); !errors.As(err, &se) {
		t.Errorf("got %v, want the server's error", err)
	}
}

func TestExecNoServer(t *testing.T) {
	srv := today()
	srv.startup = fatal("28P01", "invalid password")
	var e *mz.Error
	if err := srv.client(t).Exec(t.Context(), "SELECT 1"); !errors.As(err, &e) || e.Reason() != mz.Auth {
		t.Errorf("got %v, want %s", err, mz.Auth)
	}
}

func TestSplitStatements(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{" ;; -- nothing; at all", nil},
		{"a;b", []string{"a", "b"}},
		{"a ';' b; c", []string{"a ';' b", "c"}},
		{"a 'it''s;' ; c", []string{"a 'it''s;' ", "c"}},
		{`a E'it\'s;' ; c`, []string{`a E'it\'s;' `, "c"}},
		{`a namE'it\'; c`, []string{`a namE'it\'`, "c"}},
		{`a ";" "x"";" ; c`, []string{`a ";" "x"";" `, "c"}},
		{"a $$;$$ $x$;$y$;$x$; c", []string{"a $$;$$ $x$;$y$;$x$", "c"}},
		{"a $1; b$x$; c$x$", []string{"a $1", "b$x$", "c$x$"}},
		{"a -- ;\n b; c", []string{"a -- ;\n b", "c"}},
		{"a /* ; /* ; */ ; */ b; c", []string{"a /* ; /* ; */ ; */ b", "c"}},
		{"/* x */ a", []string{"a"}},
		{"a '", []string{"a '"}},
		{"a $$", []string{"a $$"}},
		{"a /*", []string{"a /*"}},
		{"é;ü", []string{"é", "ü"}},
	} {
		if got := mz.SplitStatements(tt.text); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func FuzzSplitStatements(f *testing.F) {
	f.Add("a; 'b;' E'\\'' $x$;$x$ /* ; */ -- ;\n c")
	f.Fuzz(func(t *testing.T, text string) {
		at := 0
		for _, s := range mz.SplitStatements(text) {
			i := strings.Index(text[at:], s)
			if i < 0 || s == "" {
				t.Fatalf("%q is not a statement of %q", s, text)
			}
			at += i + len(s)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add(`public."Top ""10"`)
	f.Fuzz(func(t *testing.T, name string) {
		parts, err := mz.ParseName(name)
		if err != nil {
			return
		}
		var quoted []string
		for _, p := range parts {
			quoted = append(quoted, `"`+strings.ReplaceAll(p, `"`, `""`)+`"`)
		}
		again, err := mz.ParseName(strings.Join(quoted, "."))
		if err != nil || !reflect.DeepEqual(parts, again) {
			t.Fatalf("%q: %q, quoted again: %q, %v", name, parts, again, err)
		}
	})
}

func TestURL(t *testing.T) {
	for _, url := range []string{
		"", "embedded", "host=db password=hunter2", "mysql://u:hunter2@db/x",
		"postgres://u:hunter2@db:port/x",
		"postgres://u:hunt%zzer2hunter2@db/x",
		"postgres://u:p/hunter2@db/x",
		"postgres://u:hunter2@db/x?sslmode=hunter2",
		"postgres://db/x?password=hunter2&sslmode=nonsense",
		"postgres://u:hunter2@db/x?sslmode=verify-full&sslrootcert=/does/not/exist",
	} {
		_, err := mz.New(mz.Config{URL: url})
		if err == nil {
			t.Errorf("%q: no error", url)
		} else if strings.Contains(err.Error(), "hunter2") || !strings.HasPrefix(err.Error(), "url") {
			t.Errorf("%q: %v", url, err)
		}
	}
	_, err := mz.New(mz.Config{URL: "postgres://u:hunter2@db/x?sslmode=verify-full&sslrootcert=/does/not/exist"})
	if err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("the error does not say which file is missing: %v", err)
	}
	if _, err := mz.New(mz.Config{URL: "postgres://u:p@db:6875/x?sslmode=disable&cluster=c"}); err != nil {
		t.Error(err)
	}
}
