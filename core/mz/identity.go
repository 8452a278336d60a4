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

// identity names a history: the sum of two batches means something if they have
// the same. Each part is a digest. A part that changes too often costs a
// snapshot, one that does not change costs correctness.
type identity struct {
	encoding  string // of rows, see [encoding]
	upstream  string // the environment or the engine
	version   string // of the upstream: an upgrade may change what a view says
	statement string // what is followed, and where its names are looked up
	objects   string // what the names stand for
	columns   string // of the stream; empty until it has begun
}

// parts lists the parts in the order in which a difference tells most, and what
// a difference means.
func (i identity) parts() []struct{ digest, changed string } {
	return []struct{ digest, changed string }{
		{i.encoding, "it was kept by another version of mzd"},
		{i.upstream, "the upstream is another one, or cannot tell which one it is"},
		{i.version, "the upstream has another version"},
		{i.statement, "what is followed was changed in the configuration"},
		{i.objects, "the view, or an object that the query names, was dropped and created anew, or its name stands for another one now"},
		{i.columns, "the view has other columns"},
	}
}

func (i identity) String() string {
	var digests []string
	for _, p := range i.parts() {
		digests = append(digests, p.digest)
	}
	return strings.Join(digests, ".")
}

// since says in words what has changed since an identity of before; empty:
// nothing. Without columns they are not compared.
func (i identity) since(before string) string {
	was, parts := strings.Split(before, "."), i.parts()
	if len(was) != len(parts) {
		return parts[0].changed
	}
	for k, p := range parts {
		if p.digest != was[k] && p.digest != "" {
			return p.changed
		}
	}
	return ""
}

// identify asks the server who it is and what the target is. Two servers behind
// one address differ in it, and so do a view and one that was created anew under
// its name, also where whole schemas change their names.
//
// Names are not resolved here. All objects of the name count, or, for a query, all
// objects whose names occur in its text. What these are made of need not be
// known: an object keeps its id as long as what it depends on is there.
//
// Where the server cannot tell, the identity is one that nothing else will ever
// equal. The objects are what [Stream] looks after.
func identify(ctx context.Context, w *wire, d dialect, t target) (id identity, objects []string, err error) {
	id = identity{
		encoding:  fmt.Sprint(encoding),
		version:   digest(d.version),
		statement: digest(t.sql, w.database, w.params["search_path"]),
	}
	environment, err := w.environment(ctx)
	if err != nil {
		return id, nil, err
	}
	objects, err = w.first(ctx, d.objects(t.names)...)
	if err != nil {
		return id, nil, err
	}
	if len(environment) == 0 || len(objects) == 0 && !t.query {
		id.upstream = rand.Text()
		return id, objects, nil
	}
	slices.Sort(objects)
	id.upstream, id.objects = digest(environment...), digest(objects...)
	return id, objects, nil
}

// environment asks the server which one it is, in a list; it is empty if the server
// cannot tell. Before v0.27 it was a cluster.
func (w *wire) environment(ctx context.Context) ([]string, error) {
	return w.first(ctx, "SELECT mz_environment_id()", "SELECT mz_cluster_id()")
}

// Environment asks the upstream which one it is; the answer is empty if it cannot tell.
// Errors are of type [*Error].
func (c *Client) Environment(ctx context.Context) (string, error) {
	w, err := c.connect(ctx)
	if err != nil {
		return "", explain(err)
	}
	defer w.close()
	environment, err := w.environment(ctx)
	if err != nil {
		return "", explain(err)
	}
	return strings.Join(environment, " "), nil
}

// objects are queries for the objects of some names: what identifies each, in
// one column. The first knows the schema, without which a schema that takes the
// place of another goes unnoticed; not every release has its columns.
func (d dialect) objects(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quoteLiteral(n)
	}
	list := "(" + strings.Join(quoted, ", ") + ")"
	plain := "SELECT id || ' ' || name FROM mz_objects WHERE name IN " + list
	if d.embedded { // it has no schemas
		return []string{plain}
	}
	return []string{
		"SELECT o.id || ' ' || o.name || ' ' || s.name FROM mz_objects o JOIN mz_schemas s ON s.id = o.schema_id WHERE o.name IN " + list,
		plain,
	}
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

// digestColumns is the part of an identity that a stream's columns are.
func digestColumns(columns []core.Column) string {
	var parts []string
	for _, c := range columns {
		parts = append(parts, c.Name, c.Type)
	}
	return digest(parts...)
}

// digest is a short name for a list of strings.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
