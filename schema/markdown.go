package schema

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Markdown returns the reference of an object's keys as a table, nested ones
// included, in the order of the struct: the documentation of a configuration
// file or of a plugin's settings.
func (s *Schema) Markdown() string {
	var b strings.Builder
	b.WriteString("| key | type | default | description |\n|---|---|---|---|\n")
	s.rows(&b, "")
	return b.String()
}

func (s *Schema) rows(b *strings.Builder, path string) {
	for _, f := range s.Fields {
		at := f.Name
		if path != "" {
			at = path + "." + f.Name
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", at, f.Schema.TypeName(), f.defaultText(), cell(f.Doc))
		inner := f.Schema
		for inner.Elem != nil {
			if inner.Kind == List {
				at += "[]"
			} else {
				at += ".NAME"
			}
			inner = inner.Elem
		}
		inner.rows(b, at)
	}
}

// defaultText is what the default column shows.
func (f Field) defaultText() string {
	switch v := f.Default.(type) {
	case nil:
		switch {
		case f.Required:
			return "*required*"
		case f.Schema.Kind == Bool:
			return "`false`"
		}
		return ""
	case string:
		if v == "" {
			return ""
		}
		return "`" + cell(v) + "`"
	default:
		text, err := json.Marshal(v)
		if err != nil {
			panic("schema: default of " + f.Name + ": " + err.Error()) // it was parsed from JSON
		}
		return "`" + cell(string(text)) + "`"
	}
}

// cell keeps a text from ending its cell of the table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}
