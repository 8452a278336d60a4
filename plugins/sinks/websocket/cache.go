package websocket

import (
	"sync"
	"time"
	"weak"

	"github.com/mzdio/mzd/core"
)

// frames are a cut as it goes on the wire in one form, in parts, each of which
// ends where a frame ends. Everybody who is at the same position shares them. A
// part is encoded when the first reader gets there, so that a base does not have
// to be in memory as a whole.
type frames struct {
	key    cacheKey
	kind   string   // of its messages; "": it is none
	failed bool     // it says that a view has failed
	upper  position // where it leads to; nil: nowhere, it says something
	size   int      // estimate of all bytes
	born   time.Time

	// mu guards what follows: the encoder as it was before each part, as far as
	// anybody has come, and the parts that are in memory.
	mu       sync.Mutex
	encoders []encoder
	parts    []weak.Pointer[part]
	kept     []*part // keeps those of a small cut in memory
}

// A part of frames is immutable.
type part struct {
	data     []byte
	last     bool
	messages int // that end in it, for the metrics
	bytes    int // of messages, before framing
}

const (
	maxCacheEntries = 64
	maxCacheBytes   = 16 << 20
	// maxKeptBytes is the size above which the parts of a cut are kept only while
	// somebody is at them.
	maxKeptBytes = 8 << 20
	// partBytes is the size from which on a part ends where a message does.
	partBytes = 64 << 10
)

// part returns the part with a number, which must not be above the one after the
// highest that anybody has asked for.
func (f *frames) part(i int) *part {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i < len(f.parts) {
		if p := f.parts[i].Value(); p != nil {
			return p
		}
	}
	p, after := f.encode(f.encoders[i])
	if i == len(f.parts) {
		f.parts = append(f.parts, weak.Pointer[part]{})
		f.encoders = append(f.encoders, after)
	}
	f.parts[i] = weak.Make(p)
	if f.size <= maxKeptBytes {
		f.kept = append(f.kept, p)
		if f.encoders[i] = nil; p.last {
			f.encoders = nil
		}
	}
	return p
}

// encode encodes a part. The encoder is left as it is.
func (f *frames) encode(e encoder) (*part, encoder) {
	if e == nil { // nothing to say
		return &part{last: true}, nil
	}
	e = e.clone()
	p := new(part)
	for more := true; more; {
		begins := e.begins()
		var m message
		m, more = e.part()
		p.data = f.key.form.frame(p.data, m, begins)
		if p.bytes += len(m.data); !m.unfinished {
			p.messages++
		}
		if len(p.data) >= partBytes {
			p.last = !more
			return p, e
		}
	}
	p.last = true
	return p, e
}

// say returns frames that are one message and lead nowhere.
func (f form) say(m message) *frames {
	return alone(m.kind, &part{data: f.frame(nil, m, true), last: true, messages: 1, bytes: len(m.data)})
}

// idleFrames returns frames that are no message, and may be no bytes.
func (f form) idleFrames() *frames { return alone("", &part{data: f.idle(), last: true}) }

func alone(kind string, p *part) *frames {
	return &frames{kind: kind, size: len(p.data), parts: []weak.Pointer[part]{weak.Make(p)}, kept: []*part{p}}
}

// A cache lets streams that are at the same position share one encoding of what
// comes next. Streams that keep up all ask for the same few cuts, so that a
// small cache is enough.
type cache struct {
	// mu guards the frames, oldest first, and their size.
	mu     sync.Mutex
	frames []*frames
	size   int
}

type cacheKey struct {
	views        string // the names: streams of one view and of several differ in form
	form         form
	lower, upper string
}

// cut returns the frames of a cut.
func (c *cache) cut(s *subscription, cut []core.Batch) *frames {
	upper := upperOf(cut)
	key := cacheKey{views: s.views, form: s.form, lower: lowerOf(cut).String(), upper: upper.String()}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.frames) - 1; i >= 0; i-- {
		if c.frames[i].key == key {
			return c.frames[i]
		}
	}
	f := &frames{key: key, kind: kindOf(cut), upper: upper, size: s.form.size(cut), born: time.Now()}
	f.encoders = []encoder{s.form.encoder(cut)}
	c.frames = append(c.frames, f)
	c.size += f.cached()
	drop := 0
	for c.size > maxCacheBytes || len(c.frames)-drop > maxCacheEntries {
		c.size -= c.frames[drop].cached()
		drop++
	}
	c.frames = append(c.frames[:0], c.frames[drop:]...)
	clear(c.frames[len(c.frames):cap(c.frames)])
	return f
}

// cached is what frames count in the cache. Of a large cut only the rows are in
// memory, most of which the log has, too.
func (f *frames) cached() int { return min(f.size, maxKeptBytes) }

const (
	// sharedBase is the size from which on a base is given to others, too, who
	// come a moment later: it and a delta cost less than another base.
	sharedBase    = 64 << 10
	sharedBaseFor = time.Second
)

// base returns a base that has been made a moment ago, nil if there is none.
func (c *cache) base(s *subscription) *frames {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.frames) - 1; i >= 0; i-- {
		f := c.frames[i]
		if f.kind == kindBase && f.key.views == s.views && f.key.form == s.form && f.size >= sharedBase && time.Since(f.born) < sharedBaseFor {
			return f
		}
	}
	return nil
}
