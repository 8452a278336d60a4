package config

import "github.com/mzdio/mzd/schema"

// EditorSchema returns the JSON Schema of the file, for editors, with the
// settings of all known plugins; see [schema.Schema.EditorSchema].
func EditorSchema(known Known) []byte {
	s := Schema()
	choice := func(section string, plugins map[string]*schema.Schema) schema.Choice {
		return schema.Choice{Object: s.Field(section).Schema.Elem, Key: "plugin", Of: "settings", Schemas: plugins}
	}
	return s.EditorSchema(choice("sources", known.Sources), choice("sinks", known.Sinks))
}
