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
func (e *Engine) createView(s *sql.CreateView, st Statement) (*Result, error) {
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
		if old.source != nil {
			return nil, errorf("42809", "%s is a source", sql.Ident(old.Name))
		}
		if gone, err = e.doomed(old, false); err != nil {
			return nil, err
		}
	}
	e.mu.Lock()
	o, err := e.makeView(e.takeID(), s, st.text)
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(gone, func(g *object) bool { return slices.Contains(o.uses, g.ID) }) {
		return nil, errorf("42P16", "view %s cannot be defined by itself", sql.Ident(o.Name))
	}
	if err := e.saveCatalog(o, gone); err != nil {
		return nil, err
	}
	e.remove(gone)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.publish(o)
	return done(tag), nil
}

// publish puts an object into the catalog and lets Run begin with its work. The caller holds mu.
func (e *Engine) publish(o *object) {
	e.objects[o.Name] = o
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
	kind := strings.ReplaceAll(old.kind, "-", " ")
	switch {
	case old.text == text:
		return done(tag, Notice{"NOTICE", "42710", fmt.Sprintf("%s %s already exists, skipping", kind, sql.Ident(old.Name))}), nil
	case ifNotExists:
		return done(tag, Notice{"WARNING", "42710", fmt.Sprintf("%s %s already exists with another definition, skipping; DROP it or use CREATE OR REPLACE", kind, sql.Ident(old.Name))}), nil
	}
	return nil, &Error{Code: "42P07", Message: fmt.Sprintf("%s %s already exists with another definition", kind, sql.Ident(old.Name)),
		Hint: "DROP it first, or use CREATE OR REPLACE VIEW."}
}

// drop is DROP VIEW and DROP SOURCE.
func (e *Engine) drop(s *sql.Drop) (*Result, error) {
	e.ddl.Lock()
	defer e.ddl.Unlock()
	tag := "DROP " + strings.ToUpper(s.Kind)
	if s.Materialized {
		tag = "DROP MATERIALIZED " + strings.ToUpper(s.Kind)
	}
	e.mu.Lock()
	o := e.lookup(s.Name)
	e.mu.Unlock()
	switch {
	case o == nil && s.IfExists:
		return done(tag, Notice{"NOTICE", "00000", fmt.Sprintf("%s %s does not exist, skipping", s.Kind, s.Name)}), nil
	case o == nil:
		return nil, sql.Errorf(s.Name.Pos(), "42704", "unknown catalog item '%s'", s.Name)
	case o == &introspection:
		return nil, sql.Errorf(s.Name.Pos(), "42809", "system item '%s' cannot be modified", o.Name)
	case (o.source != nil) != (s.Kind == "source"):
		return nil, sql.Errorf(s.Name.Pos(), "42809", "%s is not a %s", sql.Ident(o.Name), s.Kind)
	}
	gone, err := e.doomed(o, s.Cascade)
	if err != nil {
		return nil, err
	}
	if err := e.saveCatalog(nil, gone); err != nil {
		return nil, err
	}
	e.remove(gone)
	return done(tag), nil
}

// doomed lists what goes with an object, dependents first. Without cascade there must be none.
func (e *Engine) doomed(o *object, cascade bool) ([]*object, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gone := []*object{o}
	var names []string
	for _, x := range e.ordered() { // in order of creation, so dependents come after what they depend on
		if slices.ContainsFunc(gone, func(g *object) bool { return slices.Contains(x.uses, g.ID) }) {
			gone = append(gone, x)
			names = append(names, sql.Ident(x.Name))
		}
	}
	if len(names) > 0 && !cascade {
		return nil, &Error{Code: "2BP01", Message: fmt.Sprintf("cannot drop %s: still depended upon by %s", sql.Ident(o.Name), strings.Join(names, ", ")),
			Hint: "Use DROP ... CASCADE to drop them too."}
	}
	slices.Reverse(gone)
	return gone, nil
}

// remove takes objects out of the catalog and ends what reads them.
func (e *Engine) remove(gone []*object) {
	for _, o := range gone {
		e.mu.Lock()
		delete(e.objects, o.Name)
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
