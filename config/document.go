package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mzdio/mzd/schema"
	"gopkg.in/yaml.v3"
)

// What a file may cost. They are far above what a person writes, and keep a
// file that a few aliases blow up from filling the memory.
const (
	maxFile  = 1 << 20 // bytes
	maxNodes = 50_000  // values, counted at every place an alias puts them
	maxDepth = 50      // values inside of values
)

// read reads a file that is not larger than maxFile.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return data, nil
}

// A document is a file on its way to becoming a [Config]. It collects problems
// and knows where things are.
type document struct {
	name     string
	lines    []string
	root     *yaml.Node // nil: there is none
	nodes    int        // values visited
	hidden   []hidden
	inClear  bool // the file holds a secret, so its lines are not shown
	problems Problems
}

// hidden is a value that must not be shown, and what is shown in its place.
type hidden struct{ value, shown string }

// newDocument parses the YAML.
func newDocument(name string, data []byte) *document {
	d := &document{name: name}
	if len(data) > maxFile {
		d.reportAt(nil, "", "is larger than %s", schema.Bytes(maxFile))
		return d
	}
	d.lines = strings.Split(string(data), "\n")
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root, second yaml.Node
	if err := decoder.Decode(&root); err != nil {
		if !errors.Is(err, io.EOF) {
			d.syntax(err)
		}
		return d
	}
	if err := decoder.Decode(&second); err == nil {
		d.reportAt(&second, "", "a second document begins here; a configuration is one")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	if len(root.Content) > 0 {
		d.root = root.Content[0]
	}
	return d
}

var (
	yamlLine = regexp.MustCompile(`^line (\d+): (.*)`)
	// The parser counts lines from zero in the errors of its upper half.
	yamlFromZero = regexp.MustCompile(`^did not find expected ('|node content|key|<)`)
)

// syntax reports an error of the YAML parser. It is the only one: the parser
// cannot go on after it.
func (d *document) syntax(err error) {
	p := Problem{File: d.name, Line: 1} // which the parser does not say
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		message = m[2]
		p.Line, _ = strconv.Atoi(m[1])
		if yamlFromZero.MatchString(message) {
			p.Line++
		}
	}
	p.Message = "not YAML: " + message
	// Tabs are the mistake that the parser's own words explain worst.
	for i, line := range d.lines {
		if indent := strings.TrimLeft(line, " "); strings.HasPrefix(indent, "\t") && strings.TrimSpace(indent) != "" {
			p.Line, p.Column = i+1, len(line)-len(indent)+1
			p.Message += "; this line is indented with a tab, use spaces"
			break
		}
	}
	if p.Line >= 1 && p.Line <= len(d.lines) {
		p.Source = d.lines[p.Line-1]
	}
	d.problems = append(d.problems, p)
}

// value turns YAML into what a [schema.Schema] checks.
func (d *document) value(n *yaml.Node, path schema.Path, depth int) any {
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		if d.nodes <= maxNodes {
			d.reportAt(n, path, "is nested more than %d deep", maxDepth)
		} else if d.nodes == maxNodes+1 {
			d.reportAt(n, path, "the file stands for more than %d values here", maxNodes)
		}
		return nil
	}
	if n.Tag != "" && n.Kind != yaml.AliasNode && !strings.HasPrefix(n.ShortTag(), "!!") {
		d.reportAt(n, path, "tags such as %s mean nothing here", strconv.Quote(n.Tag))
		return nil
	}
	switch n.Kind {
	case yaml.AliasNode:
		return d.value(n.Alias, path, depth+1)
	case yaml.MappingNode:
		return d.mapping(n, path, depth)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, elem := range n.Content {
			list = append(list, d.value(elem, path.Index(i), depth+1))
		}
		return list
	}
	return d.scalar(n, path)
}

func (d *document) mapping(n *yaml.Node, path schema.Path, depth int) any {
	m := make(map[string]any, len(n.Content)/2)
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null":
			d.reportAt(key, path, "a key must be a word")
			continue
		case key.ShortTag() == "!!merge":
			d.reportAt(key, path, "merging with << is not supported; write the keys out")
			continue
		}
		at := path.Key(key.Value)
		if line, twice := first[key.Value]; twice {
			d.reportAt(key, at, "is here twice; the first is in line %d", line)
			continue
		}
		first[key.Value] = key.Line
		m[key.Value] = d.value(value, at, depth+1)
	}
	return m
}

func (d *document) scalar(n *yaml.Node, path schema.Path) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err == nil {
			return b
		}
	case "!!int":
		var i int64
		var u uint64
		if n.Decode(&i) == nil {
			return json.Number(strconv.FormatInt(i, 10))
		} else if n.Decode(&u) == nil {
			return json.Number(strconv.FormatUint(u, 10))
		}
	case "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value)
		}
		var f float64
		if err := n.Decode(&f); err == nil {
			if text, err := json.Marshal(f); err == nil {
				return json.Number(text)
			}
		}
	}
	return d.expand(n, path)
}

// result returns the configuration, or the problems in the order of the file.
func (d *document) result(cfg *Config) (*Config, error) {
	if len(d.problems) == 0 {
		return cfg, nil
	}
	if d.inClear {
		for i := range d.problems {
			d.problems[i].Source = ""
		}
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return nil, slices.Compact(d.problems)
}

// report adds problems whose places are known by their paths, which start at
// base.
func (d *document) report(base schema.Path, problems ...schema.FieldError) {
	for _, p := range problems {
		path := base.Join(p.Path)
		d.reportAt(d.locate(path, p.Key), path, "%s", p.Message)
	}
}

// reportAt adds a problem at a node; nil is the file as a whole.
func (d *document) reportAt(n *yaml.Node, path schema.Path, format string, args ...any) {
	p := Problem{File: d.name, Path: path, Message: d.redact(fmt.Sprintf(format, args...))}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	if p.Line >= 1 && p.Line <= len(d.lines) {
		p.Source = strings.TrimSuffix(d.lines[p.Line-1], "\r")
	}
	d.problems = append(d.problems, p)
}

// locate returns the node to point at for a path: the key if the problem is the
// key or if the value starts elsewhere, otherwise the value. For what is not
// there it is the innermost that is.
func (d *document) locate(path schema.Path, isKey bool) *yaml.Node {
	if d.root == nil {
		return nil
	}
	point, at := d.root, d.root
	for _, step := range path.Split() {
		key, value := child(at, step)
		if value == nil {
			return point
		}
		if point, at = key, value; value.Kind == yaml.ScalarNode && !isKey {
			point = value
		}
	}
	return point
}

// child returns the value of a key or an index, and where it begins.
func child(n *yaml.Node, step string) (point, value *yaml.Node) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i], n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	}
	return nil, nil
}
