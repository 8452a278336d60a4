package mz

import (
	"bytes"
	"fmt"
)

// maxDimensions bounds the nesting of arrays; PostgreSQL has six.
const maxDimensions = 16

// arrayOf returns an encoder of arrays whose elements encode encodes.
func arrayOf(encode encodeFunc) encodeFunc {
	return func(dst, text []byte) ([]byte, error) {
		p := arrayParser{text: text, encode: encode}
		if len(text) > 0 && text[0] == '[' { // bounds that do not begin at 1
			p.at = bytes.IndexByte(text, '=') + 1
		}
		dst, err := p.array(dst, 1)
		if err == nil && p.at != len(text) {
			err = p.malformed()
		}
		return dst, err
	}
}

// arrayParser reads PostgreSQL's text of an array: {1,NULL,"a \"b\"",{...}}.
type arrayParser struct {
	text   []byte
	at     int
	encode encodeFunc
}

func (p *arrayParser) malformed() error {
	return fmt.Errorf("%.40q is not an array (at byte %d)", p.text, p.at)
}

// peek returns the next byte, 0 at the end.
func (p *arrayParser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *arrayParser) array(dst []byte, depth int) ([]byte, error) {
	if p.peek() != '{' || depth > maxDimensions {
		return dst, p.malformed()
	}
	p.at++
	dst = append(dst, '[')
	if p.peek() == '}' {
		p.at++
		return append(dst, ']'), nil
	}
	for {
		var err error
		if dst, err = p.element(dst, depth); err != nil {
			return dst, err
		}
		switch p.peek() {
		case ',':
			p.at++
			dst = append(dst, ',')
		case '}':
			p.at++
			return append(dst, ']'), nil
		default:
			return dst, p.malformed()
		}
	}
}

func (p *arrayParser) element(dst []byte, depth int) ([]byte, error) {
	switch p.peek() {
	case '{':
		return p.array(dst, depth+1)
	case '"':
		value, err := p.quoted()
		if err != nil {
			return dst, err
		}
		return p.encode(dst, value)
	}
	n := bytes.IndexAny(p.text[p.at:], `,{}"\`)
	if n <= 0 || bytes.IndexByte([]byte(`,}`), p.text[p.at+n]) < 0 {
		return dst, p.malformed()
	}
	value := p.text[p.at : p.at+n]
	p.at += n
	if string(value) == "NULL" {
		return append(dst, "null"...), nil
	}
	return p.encode(dst, value)
}

// quoted reads a quoted element and undoes its escapes.
func (p *arrayParser) quoted() ([]byte, error) {
	var value []byte
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; c {
		case '"':
			p.at++
			return value, nil
		case '\\':
			if p.at++; p.at == len(p.text) {
				return nil, p.malformed()
			}
			value = append(value, p.text[p.at])
		default:
			value = append(value, c)
		}
	}
	return nil, p.malformed()
}
