package websocket

import (
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/mzdio/mzd/core"
)

// A cache lets streams that are at the same position share one encoding of what
// comes next. Streams that keep up all ask for the same few cuts, so that a
// small cache is enough; a stream that is alone at its position costs what it
// would cost without.
type cache struct {
	// mu guards the entries, oldest first, and their size. What an entry holds
	// is guarded by its once.
	mu      sync.Mutex
	entries []*entry
	size    int
}

const (
	maxCacheEntries = 64
	maxCacheBytes   = 16 << 20
	maxEntryBytes   = 8 << 20
)

type cacheKey struct {
	views        string // the names: streams of one view and of several differ in form
	encoding     encoding
	lower, upper string
}

type entry struct {
	key      cacheKey
	size     int
	born     time.Time
	once     sync.Once
	messages []message
}

// messages returns the messages of a cut, encoded by whoever asks first, and
// the time when that was. A cut that is too large to be kept is encoded for
// each stream, part by part as the stream takes them.
func (c *cache) messages(views string, e encoding, cut []core.Batch) (iter.Seq[message], time.Time) {
	size := e.size(cut)
	if size > maxEntryBytes {
		return e.messages(cut), time.Now()
	}
	ent := c.entry(cacheKey{
		views:    views,
		encoding: e,
		lower:    lowerOf(cut).String(),
		upper:    upperOf(cut).String(),
	}, size)
	ent.once.Do(func() { ent.messages = slices.Collect(e.messages(cut)) })
	return slices.Values(ent.messages), ent.born
}

// entry returns the entry of the key, made and kept if there is none.
func (c *cache) entry(key cacheKey, size int) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ent := range slices.Backward(c.entries) {
		if ent.key == key {
			return ent
		}
	}
	ent := &entry{key: key, size: size, born: time.Now()}
	c.entries = append(c.entries, ent)
	c.size += size
	for c.size > maxCacheBytes || len(c.entries) > maxCacheEntries {
		c.size -= c.entries[0].size
		c.entries = slices.Delete(c.entries, 0, 1)
	}
	return ent
}
