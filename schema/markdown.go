package schema

import (
	"fmt"
	"strings"
)

// Markdown returns the reference of an object's keys as a table, nested ones
// included, in the order of the struct: the documentation of a configuration
// file or of a plugin's settings.
func (s *Schema) Markdown() string {
	var b strings.Builder
	b.WriteString("| key | type | default | description |\n|---|---|---|---|\n")
	for path, f := range s.all("") {
		text := f.defaultText()
		switch {
		case text == "" && f.Required:
			text = "*required*"
		case text != "":
			text = "`" + cell(text) + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", path, f.Schema.TypeName(), text, cell(f.Doc))
	}
	return b.String()
}

// defaultText is the default as users write it, empty if there is none.
func (f Field) defaultText() string {
	switch v := f.Default.(type) {
	case nil:
		if f.Schema.Kind == Bool && !f.Required {
			return "false"
		}
		return ""
	case string:
		return v
	default:
		return string(encode(v)) // it was parsed from JSON
	}
}

// cell keeps a text from ending its cell of the table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}
