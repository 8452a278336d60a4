package ingest

import "hash/maphash"

// defaultWindow is the number of IDs a [File] remembers when nothing else is
// said. A source that is resumed repeats what arrived within the second or two
// around its cursor, and cursors are saved about once a second; this is an hour
// of Wikimedia's edits, or almost a minute at 2,000 a second.
const defaultWindow = 100_000

// window remembers the newest IDs that were landed. It holds hashes instead of
// the IDs: 128 bits, keyed at random in each process, so that two IDs are never
// taken for one, and an ID costs about 50 bytes whatever its length.
type window struct {
	seeds [2]maphash.Seed
	known map[idHash]struct{}
	ring  []idHash // the IDs in known, in the order they came
	next  int      // where the next one goes, once ring is full
}

type idHash [2]uint64

func newWindow(size int) *window {
	return &window{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		known: make(map[idHash]struct{}),
		ring:  make([]idHash, 0, size),
	}
}

func (w *window) hash(id string) idHash {
	return idHash{maphash.String(w.seeds[0], id), maphash.String(w.seeds[1], id)}
}

func (w *window) has(h idHash) bool {
	_, ok := w.known[h]
	return ok
}

// add remembers h, which must not be known, and forgets the oldest ID if the
// window is full.
func (w *window) add(h idHash) {
	w.known[h] = struct{}{}
	if len(w.ring) < cap(w.ring) {
		w.ring = append(w.ring, h)
		return
	}
	delete(w.known, w.ring[w.next])
	w.ring[w.next] = h
	w.next = (w.next + 1) % len(w.ring)
}
