package exec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
)

// pointer is a JSON Pointer (RFC 6901), as the keys and indexes that it names. nil
// points nowhere.
type pointer []string

// maxText bounds what a pointer may point at: it becomes an environment variable,
// of which the kernel takes 128 KiB.
const maxText = 64 << 10

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// parsePointer reads a pointer; the empty text is none.
func parsePointer(text string) (pointer, error) {
	if text == "" {
		return nil, nil
	}
	if text[0] != '/' {
		return nil, errors.New("is not a path such as /meta/id")
	}
	p := pointer(strings.Split(text[1:], "/"))
	for i, key := range p {
		if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(key), "~") {
			return nil, errors.New("has a ~ that is neither ~0, which stands for ~, nor ~1, which stands for /")
		}
		p[i] = unescape.Replace(key)
	}
	return p, nil
}

// in returns the string or the number that the pointer points at in a document of
// [parse], as text. It is empty if there is none that can be a variable.
func (p pointer) in(doc any) string {
	for _, key := range p {
		switch v := doc.(type) {
		case map[string]any:
			doc = v[key]
		case []any:
			i, err := strconv.ParseUint(key, 10, 31)
			if err != nil || i >= uint64(len(v)) || key != strconv.FormatUint(i, 10) {
				return ""
			}
			doc = v[i]
		default:
			return ""
		}
	}
	var text string
	switch v := doc.(type) {
	case string:
		text = v
	case json.Number:
		text = v.String()
	}
	if len(text) > maxText || strings.ContainsRune(text, 0) {
		return ""
	}
	return text
}

// parse reads one document of JSON, its numbers as they are written.
func parse(data []byte) (doc any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one document")
	}
	return doc, nil
}
