package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mzdio/mzd/engine/sql"
)

// createSource is CREATE SOURCE.
func (e *Engine) createSource(s *sql.CreateSource) (*Result, error) {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	old, err := e.vacant(s.Name)
	if err != nil {
		return nil, err
	}
	if old != nil {
		return existing(old, normal(s), s.IfNotExists, "CREATE SOURCE")
	}
	o, err := e.makeSource(e.takeID(), s)
	if err != nil {
		return nil, err
	}
	if err := e.saveCatalog(o, nil); err != nil {
		return nil, err
	}
	var notices []Notice
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.openSource(o.source); err != nil {
		return nil, err
	}
	if o.source.target == 0 && !exists(o.source.path) {
		notices = append(notices, Notice{"NOTICE", "00000", fmt.Sprintf("file %s does not exist yet; it is read when it appears", o.source.path)})
	}
	e.publish(o)
	return done("CREATE SOURCE", notices...), nil
}

// createView is CREATE VIEW and CREATE MATERIALIZED VIEW.
func (e *Engine) createView(s *sql.CreateView) (*Result, error) {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	tag := "CREATE VIEW"
	if s.Materialized {
		tag = "CREATE MATERIALIZED VIEW"
	}
	old, err := e.vacant(s.Name)
	if err != nil {
		return nil, err
	}
	var gone []*object
	if old != nil {
		if old.text == normal(s) || !s.OrReplace {
			return existing(old, normal(s), s.IfNotExists, tag)
		}
		if old.kind != kindView && old.kind != kindMaterializedView {
			return nil, errorf("42809", "%s is a %s", sql.Ident(old.Name), old.kind)
		}
		if gone, err = e.doomed([]*object{old}, false); err != nil {
			return nil, err
		}
	}
	o, err := e.makeView(e.takeID(), s)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(gone, func(g *object) bool { return slices.Contains(o.uses, g.ID) }) {
		return nil, errorf("42P16", "view %s cannot be defined by itself", sql.Ident(o.Name))
	}
	if err := e.saveCatalog(o, gone); err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.publish(o) // in the place of the old one, so that the name is never without a view
	e.mu.Unlock()
	e.remove(gone)
	return done(tag), nil
}

// publish puts an object into the catalog and lets Run begin with its work. The caller holds mu.
func (e *Engine) publish(o *object) {
	e.add(o)
	if o.view != nil {
		e.hydrating = append(e.hydrating, o.view)
	}
	e.notify()
}

// takeID returns a new object's id. The caller holds ddl.
func (e *Engine) takeID() string {
	e.nextID++
	return fmt.Sprintf("u%d", e.nextID-1)
}

// vacant returns the object that has a name already, or nil, and refuses names outside materialize.public.
func (e *Engine) vacant(name sql.Name) (*object, error) {
	switch strings.Join(name.Parts[:len(name.Parts)-1], ".") {
	case "", "public", "materialize.public":
	default:
		return nil, sql.Errorf(name.Pos(), "3F000", "unknown schema in %s: objects live in materialize.public", name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.objects[name.Base()], nil
}

// existing answers a CREATE of a name that is taken: the same statement again is welcome.
func existing(old *object, text string, ifNotExists bool, tag string) (*Result, error) {
	remedy := "DROP it first"
	if old.kind == kindView || old.kind == kindMaterializedView {
		remedy += ", or use CREATE OR REPLACE VIEW"
	}
	switch {
	case old.text == text:
		return done(tag, Notice{"NOTICE", "42710", fmt.Sprintf("%s already exists, skipping", old.title())}), nil
	case ifNotExists:
		return done(tag, Notice{"WARNING", "42710", fmt.Sprintf("%s already exists with another definition, skipping; %s", old.title(), remedy)}), nil
	}
	return nil, &Error{
		Code: "42P07", Message: fmt.Sprintf("%s already exists with another definition", old.title()),
		Detail: difference(old.text, text), Hint: remedy + ".",
	}
}

// title is what messages call an object.
func (o *object) title() string {
	return strings.ReplaceAll(o.kind, "-", " ") + " " + sql.Ident(o.Name)
}

// difference says where two statements begin to differ.
func difference(old, text string) string {
	was, is := strings.Fields(old), strings.Fields(text)
	same := 0
	for same < min(len(was), len(is)) && was[same] == is[same] {
		same++
	}
	excerpt := func(words []string) string {
		const context, length = 3, 12
		from, to := max(same-context, 0), min(same+length, len(words))
		s := strings.Join(words[from:to], " ")
		if from > 0 {
			s = "... " + s
		}
		if to < len(words) {
			s += " ..."
		}
		return s
	}
	return fmt.Sprintf("It is: %s\nnot: %s", excerpt(was), excerpt(is))
}

// drop is DROP TABLE, DROP VIEW and DROP SOURCE.
func (e *Engine) drop(s *sql.Drop) (*Result, error) {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	tag := "DROP " + opt(s.Materialized, "MATERIALIZED ") + strings.ToUpper(s.Kind)
	var list []*object
	var notices []Notice
	for _, name := range s.Names {
		e.mu.Lock()
		o := e.lookup(name)
		e.mu.Unlock()
		switch {
		case o == nil && s.IfExists:
			notices = append(notices, Notice{"NOTICE", "00000", fmt.Sprintf("%s %s does not exist, skipping", s.Kind, name)})
		case o == nil:
			return nil, sql.Errorf(name.Pos(), "42704", "unknown catalog item '%s'", name)
		case o.kind == kindSystem:
			return nil, sql.Errorf(name.Pos(), "42809", "system item '%s' cannot be modified", o.Name)
		case !o.is(s):
			return nil, sql.Errorf(name.Pos(), "42809", "%s is not a %s%s", sql.Ident(o.Name), opt(s.Materialized, "materialized "), s.Kind)
		default:
			list = append(list, o)
		}
	}
	gone, err := e.doomed(list, s.Cascade)
	if err != nil {
		return nil, err
	}
	for _, o := range gone {
		if !slices.Contains(list, o) {
			notices = append(notices, Notice{"NOTICE", "00000", "drop cascades to " + o.title()})
		}
	}
	if err := e.saveCatalog(nil, gone); err != nil {
		return nil, err
	}
	e.remove(gone)
	return done(tag, notices...), nil
}

func opt(b bool, s string) string {
	if b {
		return s
	}
	return ""
}

// is tells whether an object is of the kind that is dropped; DROP VIEW drops maintained ones too.
func (o *object) is(s *sql.Drop) bool {
	switch s.Kind {
	case "source":
		return o.kind == kindSource
	case "table":
		return o.kind == kindTable
	}
	return o.kind == kindMaterializedView || o.kind == kindView && !s.Materialized
}

// doomed lists what goes with objects, dependents first. Without cascade there must be none.
func (e *Engine) doomed(list []*object, cascade bool) ([]*object, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var gone []*object
	var names, details []string
	for _, x := range e.ordered() { // in order of creation, so dependents come after what they depend on
		if slices.Contains(list, x) {
			gone = append(gone, x)
			continue
		}
		i := slices.IndexFunc(gone, func(g *object) bool { return slices.Contains(x.uses, g.ID) })
		if i < 0 {
			continue
		}
		names = append(names, sql.Ident(x.Name))
		details = append(details, fmt.Sprintf("%s depends on %s", x.title(), gone[i].title()))
		gone = append(gone, x)
	}
	if len(names) > 0 && !cascade {
		var what []string
		for _, o := range list {
			what = append(what, sql.Ident(o.Name))
		}
		return nil, &Error{Code: "2BP01", Message: fmt.Sprintf("cannot drop %s: still depended upon by %s", strings.Join(what, ", "), strings.Join(names, ", ")),
			Detail: strings.Join(details, "\n"), Hint: "Use DROP ... CASCADE to drop them too."}
	}
	slices.Reverse(gone)
	return gone, nil
}

// remove takes objects out of the catalog and ends what reads them.
func (e *Engine) remove(gone []*object) {
	for _, o := range gone {
		e.mu.Lock()
		if e.objects[o.Name] == o { // and not another that has taken its place
			e.amend(func(objects map[string]*object) { delete(objects, o.Name) })
		}
		var streams []*view // of queries on the object
		for _, v := range slices.Concat(e.graph, e.hydrating) {
			if v.id == "" && slices.Contains(v.uses, o.ID) {
				v.lost = o.Name
				streams = append(streams, v)
			}
		}
		if s := o.source; s != nil {
			s.dropped = true
			if s.stop != nil {
				s.stop()
			}
		}
		e.mu.Unlock()
		for _, v := range streams {
			e.detach(v)
		}
		if o.view != nil {
			e.detach(o.view)
		}
		if s := o.source; s != nil {
			e.mu.Lock()
			if s.file != nil {
				s.file.Close()
				s.file = nil
			}
			e.mu.Unlock()
		}
	}
}
