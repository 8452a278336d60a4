package mz

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/mzdio/mzd/core"
)

// origin is the part of an identity that is known before a stream begins:
// which upstream, and which object of it. It is empty where the server cannot
// tell.
type origin string

// originOf asks the server who it is and what the target is: the id of the
// environment, the version, the object's id, and the version of the row
// encoder. Two servers behind one address differ in it, and so do a view and
// one that was created anew under its name.
//
// Names are not resolved along a search path here. All objects of the name
// count, and for a query all objects that users made: an identity that changes
// too often costs a snapshot, one that does not change costs correctness.
func originOf(ctx context.Context, w *wire, d dialect, t target) (origin, error) {
	environment, err := w.first(ctx, "SELECT mz_environment_id()", "SELECT mz_cluster_id()")
	if err != nil || len(environment) == 0 {
		return "", err
	}
	which := "id LIKE 'u%'"
	if t.name != "" {
		which = "name = " + quoteLiteral(t.name)
	}
	objects, err := w.first(ctx, "SELECT id FROM mz_objects WHERE "+which)
	if err != nil || len(objects) == 0 && t.name != "" {
		return "", err
	}
	slices.Sort(objects)
	return origin(digest(fmt.Sprint(encoding), environment[0], d.version, t.sql, strings.Join(objects, ","))), nil
}

// first returns the answer to the first of the queries that the server does not
// refuse; none if it refuses all.
func (w *wire) first(ctx context.Context, queries ...string) ([]string, error) {
	for _, q := range queries {
		answer, err := w.texts(ctx, q)
		if err == nil {
			return answer, nil
		}
		if !fromServer(err) {
			return nil, err
		}
	}
	return nil, nil
}

// holds reports whether an identity was made from this origin.
func (o origin) holds(identity string) bool {
	return o != "" && strings.HasPrefix(identity, string(o)+".")
}

// identity completes the origin with the columns. Without an origin it is one
// that nothing else will ever equal.
func (o origin) identity(columns []core.Column) string {
	if o == "" {
		return "unknown." + rand.Text()
	}
	var parts []string
	for _, c := range columns {
		parts = append(parts, c.Name, c.Type)
	}
	return string(o) + "." + digest(parts...)
}

// digest is a short name for a list of strings.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
