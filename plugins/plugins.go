// Package plugins is the contract between mzd and what brings events in and
// carries changes out.
//
// A plugin is a struct of settings and a constructor that makes a [core.Source]
// or a [core.Sink] of it; [NewSource] and [NewSink] tie them together. The
// settings struct is written with the tags of package schema, and from it come
// the strict checking of the "settings:" in the configuration, the defaults and
// the documentation:
//
//	type Settings struct {
//		Listen string `json:"listen" default:"127.0.0.1:8875" doc:"address to serve on"`
//	}
//
//	func New(ctx context.Context, s Settings) (*Sink, error) { ... }
//
//	plugins.NewSink("websocket", "serves views to browsers", websocket.New)
//
// What is built in is listed in the packages sources and sinks. The same constructor
// is a binary of its own with a main that calls [ServeSink] or [ServeSource], and a
// [Command] runs such a binary, in whatever language: the sources and sinks that it
// gives are like any other. The protocol between the two is in proto/mzd/v1.
package plugins

import (
	"context"
	"encoding/json"
	"reflect"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/schema"
)

// Source describes a kind of source and opens instances of it.
type Source struct {
	Name     string // what users write after "plugin:"
	Doc      string // one line: what it does
	Settings *schema.Schema

	// Open makes an instance from its settings as JSON. Settings that are
	// refused are a [SettingsError], for which trying again cannot help.
	// [EnvOf] tells the instance who it is.
	Open func(ctx context.Context, settings json.RawMessage) (core.Source, error)

	opens reflect.Type // what Open returns, as far as it is known: what has abilities
}

// Sink describes a kind of sink and opens instances of it.
type Sink struct {
	Name     string // what users write after "plugin:"
	Doc      string // one line: what it does
	Settings *schema.Schema

	// Open makes an instance from its settings as JSON. Settings that are
	// refused are a [SettingsError], for which trying again cannot help.
	// [EnvOf] tells the instance who it is.
	Open func(ctx context.Context, settings json.RawMessage) (core.Sink, error)

	opens reflect.Type // what Open returns, as far as it is known: what has abilities
}

// NewSource describes a source that open makes from settings of type S. It
// panics if S has no schema (see [schema.Of]).
func NewSource[S any, T core.Source](name, doc string, open func(context.Context, S) (T, error)) Source {
	return Source{
		Name:     name,
		Doc:      doc,
		Settings: schema.Of[S](),
		opens:    reflect.TypeFor[T](),
		Open: func(ctx context.Context, settings json.RawMessage) (core.Source, error) {
			s, err := decode[S](name, settings)
			if err != nil {
				return nil, err
			}
			source, err := open(ctx, s)
			if err != nil {
				return nil, err // and not a T that is nil inside an interface that is not
			}
			return source, nil
		},
	}
}

// NewSink describes a sink that open makes from settings of type S. It panics
// if S has no schema (see [schema.Of]).
func NewSink[S any, T core.Sink](name, doc string, open func(context.Context, S) (T, error)) Sink {
	return Sink{
		Name:     name,
		Doc:      doc,
		Settings: schema.Of[S](),
		opens:    reflect.TypeFor[T](),
		Open: func(ctx context.Context, settings json.RawMessage) (core.Sink, error) {
			s, err := decode[S](name, settings)
			if err != nil {
				return nil, err
			}
			sink, err := open(ctx, s)
			if err != nil {
				return nil, err // and not a T that is nil inside an interface that is not
			}
			return sink, nil
		},
	}
}

func decode[S any](name string, settings json.RawMessage) (S, error) {
	s, err := schema.Decode[S](settings)
	if err != nil {
		return s, &SettingsError{Plugin: name, Err: err}
	}
	return s, nil
}

// SettingsError means that a plugin refused its settings. It wraps
// [core.ErrPermanent].
type SettingsError struct {
	Plugin string
	Err    error // the problems, see [schema.FieldErrors]
}

// Error names the plugin and all problems.
func (e *SettingsError) Error() string {
	text := "settings of " + e.Plugin + ": "
	for i, f := range schema.FieldErrors(e.Err) {
		if i > 0 {
			text += "; "
		}
		text += f.Error()
	}
	return text
}

// Unwrap returns [core.ErrPermanent] and the problems.
func (e *SettingsError) Unwrap() []error { return []error{core.ErrPermanent, e.Err} }
