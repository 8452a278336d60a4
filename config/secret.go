package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mzdio/mzd/schema"
	"gopkg.in/yaml.v3"
)

// maxSecret limits the file that a secret is read from.
const maxSecret = 64 << 10

// reference matches what a string may say about the environment: "$${", which
// stands for "${", or "${NAME}", or a "${" that is neither.
var reference = regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{`)

// expand returns a string with the variables it refers to in their places. If
// there are any, it is a [schema.Text], and its value is never shown.
func (d *document) expand(n *yaml.Node, path schema.Path) any {
	found := false
	text := reference.ReplaceAllStringFunc(n.Value, func(ref string) string {
		switch ref {
		case "$${":
			return "${"
		case "${":
			d.reportAt(n, path, "a reference to the environment is written ${NAME}; for the characters themselves write $${")
			return ref
		}
		found = true
		name := ref[2 : len(ref)-1]
		value, set := os.LookupEnv(name)
		if !set {
			d.reportAt(n, path, "the environment variable %s is not set", name)
		}
		d.hide(value, ref)
		return value
	})
	if found {
		return schema.Text(text)
	}
	return text
}

// secrets returns a part of the document with the values in place of the
// references in fields that are secret.
func (d *document) secrets(s *schema.Schema, path schema.Path, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if s.Kind != schema.Map && s.Kind != schema.Object {
			break
		}
		out := maps.Clone(v)
		for key, inner := range v {
			if s.Kind == schema.Map {
				out[key] = d.secrets(s.Elem, path.Key(key), inner)
			}
		}
		for _, f := range s.Fields {
			if inner, ok := v[f.Name]; ok {
				out[f.Name] = d.secrets(f.Schema, path.Key(f.Name), inner)
			}
		}
		return out
	case []any:
		if s.Kind != schema.List {
			break
		}
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = d.secrets(s.Elem, path.Index(i), inner)
		}
		return out
	case string:
		if s.Secret && v != "" {
			return d.secret(path, v)
		}
	case schema.Text, nil:
		return v
	}
	for leaf := s; leaf != nil; leaf = leaf.Elem {
		d.inClear = d.inClear || leaf.Secret // whatever it is, it is in a secret's place
	}
	return v
}

// secret returns what a string in a secret field stands for.
func (d *document) secret(path schema.Path, ref string) any {
	name, isFile := strings.CutPrefix(ref, "file:")
	if !isFile {
		d.inClear = true
		d.hide(ref, "(a secret)")
		d.report(path, schema.Errorf("", "holds a secret; write ${NAME} for an environment variable, or file:PATH"))
		return schema.Text(ref)
	}
	value, err := readSecret(name)
	if err != nil {
		d.report(path, schema.Errorf("", "%s", err))
	}
	d.hide(value, ref)
	return schema.Text(value)
}

// readSecret returns what a file says, without the newline at its end.
func readSecret(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecret {
		return "", fmt.Errorf("%s is not a file of at most %s", name, schema.Bytes(maxSecret))
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", err
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if value == "" {
		return "", errors.New(name + " is empty")
	}
	return value, nil
}

// checkPassword reports a password that is written into an address.
func (d *document) checkPassword(path schema.Path) {
	n := d.locate(path, false)
	if n == nil || !strings.Contains(n.Value, "://") {
		return
	}
	const variable = "VARIABLE"
	u, err := url.Parse(reference.ReplaceAllString(n.Value, variable))
	if err != nil {
		d.inClear = true // the address is a problem of its own; nobody knows what in it is a password
		return
	}
	passwords := append(u.Query()["password"], u.Query()["sslpassword"]...)
	if password, ok := u.User.Password(); ok {
		passwords = append(passwords, password)
	}
	for _, p := range passwords {
		if p != "" && p != variable {
			d.inClear = true
			d.hide(p, "(a password)")
			d.report(path, schema.Errorf("", "holds a password; write ${NAME} for it and set the environment variable"))
			return
		}
	}
}

// hide keeps a value out of messages. Shorter values are too likely to be part
// of something else, and no secret.
func (d *document) hide(value, shown string) {
	if len(value) < 4 {
		return
	}
	quoted := strconv.Quote(value)
	for _, v := range []string{value, quoted[1 : len(quoted)-1], url.QueryEscape(value), url.PathEscape(value)} {
		d.hidden = append(d.hidden, hidden{v, shown})
	}
	slices.SortStableFunc(d.hidden, func(a, b hidden) int { return len(b.value) - len(a.value) })
}

// redact returns a message without hidden values. Messages do not quote them in
// the first place; this is for those that a plugin's Validate words.
func (d *document) redact(message string) string {
	for _, h := range d.hidden {
		message = strings.ReplaceAll(message, h.value, h.shown)
	}
	return message
}
