package plugintest

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/schema"
)

// wrong is settings that a plugin must refuse.
type wrong struct {
	what     string
	key      string // that the error must name; empty: any
	settings json.RawMessage
}

const noSuch = "plugintest_no_such_setting"

// wrongSettings breaks settings that are right in every way that their schema
// rules out, and adds those that the author gave.
func wrongSettings(s *schema.Schema, right json.RawMessage, more []json.RawMessage) []wrong {
	var all []wrong
	var object map[string]any
	if len(right) > 0 && json.Unmarshal(right, &object) != nil {
		object = nil // it cannot be opened with them either
	}
	with := func(what, key string, value any) {
		doc := maps.Clone(object)
		if doc == nil {
			doc = make(map[string]any)
		}
		if doc[key] = value; value == nil {
			delete(doc, key)
		}
		text, err := json.Marshal(doc)
		if err != nil {
			panic(err) // it came from JSON
		}
		all = append(all, wrong{what, key, text})
	}
	if s != nil && s.Kind == schema.Object { // otherwise it does not say what it takes
		with("an unknown key", noSuch, true)
		for _, f := range s.Fields {
			switch f.Schema.Kind {
			case schema.Anything:
			case schema.Object, schema.Map:
				with("a text where keys belong", f.Name, "plugintest")
			default:
				with("keys where a value belongs", f.Name, map[string]any{"plugintest": true})
			}
			if f.Schema.Kind == schema.String && len(f.Schema.Enum) > 0 {
				with("a word that is none of the allowed ones", f.Name, "plugintest no such word")
			}
			if f.Required {
				with("a missing key", f.Name, nil)
			}
		}
	}
	for _, settings := range more {
		all = append(all, wrong{what: "settings that its author calls wrong", settings: settings})
	}
	return all
}

// wrongSettings returns settings that the plugin must refuse; there are some.
func (p *probe) wrongSettings(s *schema.Schema, right json.RawMessage, more []json.RawMessage) []wrong {
	all := wrongSettings(s, right, more)
	if len(all) == 0 {
		p.skip("the plugin does not say what settings it takes")
	}
	return all
}

// refused fails unless wrong settings got the error that they ought to.
func (p *probe) refused(w wrong, err error) {
	want := "an error for " + w.what + " in " + shorten(string(w.settings))
	switch {
	case err == nil:
		p.fail(want, "no error")
	case !errors.Is(err, core.ErrPermanent):
		p.fail(want+" that wraps core.ErrPermanent", "the error: %v", err)
	case !strings.Contains(err.Error(), w.key):
		p.fail(want+" that names "+w.key, "the error: %v", err)
	}
}
