package plugins_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/schema"
)

type settings struct {
	Path string `json:"path" required:"true"`
	Size int    `json:"size" default:"7"`
}

func (s settings) Validate() error {
	if s.Size < 0 {
		return schema.Errorf("size", "is negative")
	}
	return nil
}

type nothing struct {
	settings
	name string
}

func (*nothing) Write(context.Context, []core.Batch) error        { return nil }
func (*nothing) Close() error                                     { return nil }
func (*nothing) Run(context.Context, string, core.EmitFunc) error { return nil }
func open(ctx context.Context, s settings) (*nothing, error) {
	if s.Path == "taken" {
		return nil, errTaken
	}
	return &nothing{settings: s, name: plugins.EnvOf(ctx).Name}, nil
}

var errTaken = errors.New("taken")

func TestOpen(t *testing.T) {
	sink := plugins.NewSink("nothing", "does nothing", open)
	source := plugins.NewSource("nothing", "does nothing", open)
	if got, want := len(sink.Settings.Fields), 2; got != want {
		t.Errorf("got %d settings, want %d", got, want)
	}
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Name: "me"})
	opens := map[string]func(string) (any, error){
		"sink": func(s string) (any, error) {
			v, err := sink.Open(ctx, json.RawMessage(s))
			if v == nil {
				return nil, err
			}
			return v, err
		},
		"source": func(s string) (any, error) {
			v, err := source.Open(ctx, json.RawMessage(s))
			if v == nil {
				return nil, err
			}
			return v, err
		},
	}
	for kind, open := range opens {
		t.Run(kind, func(t *testing.T) {
			v, err := open(`{"path": "p"}`)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := *v.(*nothing), (nothing{settings{"p", 7}, "me"}); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			if v, err := open(`{"path": "taken"}`); v != nil || !errors.Is(err, errTaken) {
				t.Errorf("got %v, %v, want nil and %v", v, err, errTaken)
			}
			v, err = open(`{"size": "x", "pth": 1}`)
			var refused *plugins.SettingsError
			if v != nil || !errors.As(err, &refused) || !errors.Is(err, core.ErrPermanent) {
				t.Fatalf("got %v, %v, want a permanent SettingsError", v, err)
			}
			const want = `settings of nothing: path: is required; size: want a whole number, got "x"; pth: unknown key; did you mean "path"?`
			if err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
			if _, err = open(`{"path": "p", "size": -1}`); err == nil || err.Error() != "settings of nothing: size: is negative" {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEnvAlwaysHasALogger(t *testing.T) {
	if plugins.EnvOf(t.Context()).Logger == nil {
		t.Error("no logger without an Env")
	}
	ctx := plugins.WithEnv(t.Context(), plugins.Env{Name: "n", Pipeline: "p"})
	if env := plugins.EnvOf(ctx); env.Logger == nil || env.Name != "n" || env.Pipeline != "p" {
		t.Errorf("got %+v", env)
	}
	log := slog.Default()
	if got := plugins.EnvOf(plugins.WithEnv(ctx, plugins.Env{Logger: log})).Logger; got != log {
		t.Error("another logger than the one given")
	}
}
