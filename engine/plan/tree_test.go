package plan_test

import (
	"fmt"
	"slices"
	"strings"
)

// node is a piece of a generated query: text and further pieces. It carries what may be done to make the query smaller. A piece may
// stand in several places, as a key of GROUP BY does; it is then one node, so that it changes everywhere at once.
type node struct {
	kind     kind  // what the piece is: pieces of one kind can stand for each other; "" for syntax
	parts    []any // string, dialect, ordinals and *node
	list     bool  // the parts are the elements of a list, of which all but one may go
	optional bool  // the whole piece may go
	gone     bool
}

// dialect is text that is written differently for PostgreSQL where it would not mean the same.
type dialect struct{ mzd, postgres *node }

// ordinals are further keys of an ORDER BY, for PostgreSQL only: all columns of a select list. The engine breaks ties so by itself.
type ordinals struct{ items *node }

func text(parts ...any) *node { return &node{parts: parts} }

func optional(parts ...any) *node { return &node{parts: parts, optional: true} }

func (n *node) write(b *strings.Builder, postgres bool) {
	if n.gone {
		return
	}
	for i, p := range n.parts {
		if n.list && i > 0 {
			b.WriteString(", ")
		}
		switch p := p.(type) {
		case string:
			b.WriteString(p)
		case dialect:
			if postgres {
				p.postgres.write(b, true)
			} else {
				p.mzd.write(b, false)
			}
		case ordinals:
			for i := range p.items.parts {
				if postgres {
					fmt.Fprintf(b, ", %d", i+1)
				}
			}
		case *node:
			p.write(b, postgres)
		}
	}
}

// String is the query for the engine.
func (n *node) String() string {
	var b strings.Builder
	n.write(&b, false)
	return b.String()
}

// Postgres is the query for PostgreSQL.
func (n *node) Postgres() string {
	var b strings.Builder
	n.write(&b, true)
	return b.String()
}

// children are the pieces directly below.
func (n *node) children() []*node {
	var out []*node
	for _, p := range n.parts {
		switch p := p.(type) {
		case *node:
			out = append(out, p)
		case dialect:
			out = append(out, p.mzd, p.postgres)
		}
	}
	return out
}

// all lists the piece and those below it, outermost first.
func (n *node) all() []*node {
	var out []*node
	seen := map[*node]bool{}
	var walk func(*node)
	walk = func(n *node) {
		if n.gone || seen[n] {
			return
		}
		seen[n] = true
		out = append(out, n)
		for _, c := range n.children() {
			walk(c)
		}
	}
	walk(n)
	return out
}

// smaller lists what the piece may become, the smallest first.
func (n *node) smaller() []node {
	var out []node
	if n.optional {
		out = append(out, node{gone: true})
	}
	if n.list && len(n.parts) > 1 {
		for i := range n.parts {
			c := *n
			c.parts = slices.Delete(slices.Clone(n.parts), i, i+1)
			out = append(out, c)
		}
	}
	if n.kind == "" {
		return out
	}
	if v := n.kind.literals(); len(v) > 0 {
		simplest := v[0]
		if c := (node{kind: n.kind, parts: []any{n.kind.literal(simplest)}}); len(n.parts) > 1 || n.parts[0] != c.parts[0] {
			out = append(out, c)
		}
	}
	below := n.all()[1:]
	slices.Reverse(below)
	for _, d := range below {
		if d.kind.is(n.kind) {
			c := *d
			c.kind = n.kind
			out = append(out, c)
		}
	}
	return out
}

// shrink makes a query as small as it can be while it still fails, with at most the given number of attempts.
func (n *node) shrink(attempts *int, fails func() bool) {
	for again := true; again; {
		again = false
		for _, piece := range n.all() {
			before := *piece
			for _, c := range before.smaller() {
				if *attempts--; *attempts < 0 {
					return
				}
				*piece = c
				if fails() {
					again = true
					break
				}
				*piece = before
			}
		}
	}
}
