package plugins

import (
	"context"
	"log/slog"
)

// Env is what mzd tells an instance of a plugin about itself. It comes with the
// context of Open, so that plugins which need none of it do not see it.
type Env struct {
	Name     string       // of the source or sink, as the configuration calls it
	Pipeline string       // the configuration's name
	Logger   *slog.Logger // says which instance is speaking
}

type envKey struct{}

// WithEnv returns a context that carries env.
func WithEnv(ctx context.Context, env Env) context.Context {
	return context.WithValue(ctx, envKey{}, env)
}

// EnvOf returns what [WithEnv] put into the context. Its Logger is never nil:
// where there is none, it discards.
func EnvOf(ctx context.Context) Env {
	env, _ := ctx.Value(envKey{}).(Env)
	if env.Logger == nil {
		env.Logger = slog.New(slog.DiscardHandler)
	}
	return env
}
