package websocket

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Actions are what people who look at a demonstration may do to it from its
// page, by name.
type Actions map[string]func(context.Context) error

type actionsKey struct{}

// WithActions returns a context that gives actions to the sinks that are opened
// with it. Only those that listen on a loopback address take them, and only
// from pages of their own.
func WithActions(ctx context.Context, a Actions) context.Context {
	return context.WithValue(ctx, actionsKey{}, a)
}

func actionsOf(ctx context.Context) Actions {
	a, _ := ctx.Value(actionsKey{}).(Actions)
	return a
}

// actionHeader has to be in a request for an action: a page of another origin
// cannot send it without being asked whether it may (and is told no).
const actionHeader = "Mzd-Demo"

// serveActions lists the actions. A sink without any says so, too: its page
// asks.
func (s *server) serveActions(w http.ResponseWriter, r *http.Request) {
	names, err := json.Marshal(append([]string{}, slices.Sorted(maps.Keys(s.actions))...))
	if err != nil {
		panic(err) // strings always can be
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(names, '\n'))
}

// serveAction does what is asked for.
func (s *server) serveAction(w http.ResponseWriter, r *http.Request) {
	act := s.actions[r.PathValue("action")]
	origin := r.Header.Get("Origin")
	switch {
	case act == nil:
		serveUnknown(w, r)
	case r.Header.Get(actionHeader) == "" || origin != "" && !strings.EqualFold(origin, "http://"+r.Host):
		writeError(w, apiError{http.StatusForbidden, "foreign_origin", "only the page of this server may do this, with the header " + actionHeader, 0})
	default:
		if err := act(r.Context()); err != nil {
			s.log.Error("demo action", "action", r.PathValue("action"), "error", err)
			writeError(w, apiError{http.StatusInternalServerError, "internal", err.Error(), 0})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}
