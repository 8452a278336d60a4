package plan_test

import (
	"slices"

	"github.com/mzdio/mzd/engine/flow"
	"github.com/mzdio/mzd/engine/plan"
)

// accepts tells whether the engine takes a query. What it does not take is left out of the grammar.
func accepts(text string) bool {
	p, err := planText(plan.Env{}, text)
	if err != nil {
		return false
	}
	return len(p.Once().Step(&flow.Context{}, nil).Errors) == 0
}

var (
	hasFull      = accepts("SELECT 1 FROM (SELECT 1 AS a) AS a FULL JOIN (SELECT 1 AS a) AS b ON a.a = b.a")
	hasOuter     = accepts("SELECT 1 FROM (SELECT 1 AS a) AS a LEFT JOIN (SELECT 1 AS a) AS b ON a.a = b.a AND a.a > 3 AND b.a > a.a")
	hasSubquery  = accepts("SELECT (SELECT 1), EXISTS (SELECT 1), 1 IN (SELECT 1)")
	hasTableFunc = accepts("SELECT 1 FROM (SELECT '[1]'::jsonb AS a) AS a CROSS JOIN jsonb_array_elements(a.a) AS e (v)")
	hasAggOrder  = accepts("SELECT string_agg('a', 'b' ORDER BY 1)")
)

func probe(productions map[kind][]line) map[kind][]line {
	for k, lines := range productions {
		lines = slices.Clone(lines)
		lines = slices.DeleteFunc(lines, func(l line) bool {
			return !slices.ContainsFunc(l, acceptsProduction)
		})
		for i := range lines {
			lines[i] = slices.DeleteFunc(slices.Clone(lines[i]), func(p production) bool { return !acceptsProduction(p) })
		}
		productions[k] = lines
	}
	return productions
}

func acceptsProduction(p production) bool {
	var text func(parts []any) string
	text = func(parts []any) string {
		s := ""
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				s += p
			case hole:
				want := p.want
				if list := classes[want]; list != nil {
					want = string(list[0])
				}
				switch {
				case p.label == "filter":
				case words[want] != nil:
					s += words[want][0]
				case want == "":
					s += "NULL"
				default:
					if want == "jsonb" {
						s += "'{}'::jsonb"
					} else {
						s += "NULL::" + kind(want).info().sql
					}
				}
			case [2][]any:
				s += text(p[0])
			}
		}
		return s
	}
	return accepts("SELECT " + text(p.parts))
}

func init() {
	for c, list := range classes {
		classes[c] = slices.DeleteFunc(list, func(k kind) bool { return !accepts("SELECT NULL::" + k.info().sql) })
	}
	for k, info := range kinds {
		info.values = slices.DeleteFunc(info.values, func(v string) bool { return !accepts("SELECT " + k.literal(v)) })
		kinds[k] = info
	}
	productions = probe(byKind(parseGrammar(grammar)))
	partials = probe(byKind(parseGrammar(partialGrammar)))
	aggregators = probe(byKind(parseGrammar(aggregateGrammar)))
}
