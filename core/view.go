package core

// View describes one view: its name, its columns and, where the configuration
// or the upstream gives one, the columns that identify a row. A View is
// immutable once handed out; when the columns of a view change, its log begins
// a new generation with a new View.
type View struct {
	Name    string
	Columns []Column
	Key     []int // positions in Columns; empty: rows have no key
}

// Column is a column of a view. Type is PostgreSQL's name of the type: int8,
// text, jsonb, timestamptz and so on.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// ColumnIndex returns the position of the column called name, or -1.
func (v *View) ColumnIndex(name string) int {
	for i, c := range v.Columns {
		if c.Name == name {
			return i
		}
	}
	return -1
}

// KeyNames returns the names of the key columns, nil when there is no key.
func (v *View) KeyNames() []string {
	var names []string
	for _, i := range v.Key {
		names = append(names, v.Columns[i].Name)
	}
	return names
}
