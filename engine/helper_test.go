package engine_test

import (
	"context"
	"io"
	"testing"

	"github.com/mzdio/mzd/engine"
	"github.com/mzdio/mzd/engine/flow"
)

// exec runs statements whose rows nobody wants.
func exec(tb testing.TB, s *engine.Session, text string) {
	tb.Helper()
	st, err := s.Parse(text)
	if err != nil {
		tb.Fatalf("parse %s: %v", text, err)
	}
	for _, st := range st {
		r, err := s.Execute(tb.Context(), st)
		if err != nil {
			tb.Fatalf("execute %s: %v", st, err)
		}
		if r.Next != nil {
			if _, err := drain(tb.Context(), r); err != nil {
				tb.Fatalf("execute %s: %v", st, err)
			}
		}
		r.Close()
	}
}

// query runs one statement and returns its rows.
func query(tb testing.TB, s *engine.Session, text string) []flow.Row {
	tb.Helper()
	rows, err := tryQuery(tb.Context(), s, text)
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return rows
}

func tryQuery(ctx context.Context, s *engine.Session, text string) ([]flow.Row, error) {
	st, err := s.Parse(text)
	if err != nil {
		return nil, err
	}
	r, err := s.Execute(ctx, st[0])
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return drain(ctx, r)
}

func drain(ctx context.Context, r *engine.Result) ([]flow.Row, error) {
	var all []flow.Row
	for r.Next != nil {
		rows, err := r.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return all, err
		}
		all = append(all, rows...)
	}
	return all, nil
}
