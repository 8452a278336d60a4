package wikimedia

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/mzdio/mzd/core"
)

// position is where to resume the stream so that nothing is skipped.
//
// The IDs on the stream cannot serve for that. They name a Kafka timestamp plus
// one millisecond for each topic, many events share one, and events come out of
// order, so that behind the ID of the last event seen there may be others with
// the same timestamp, or with an older one. To resume at a timestamp T means to
// go on with the first event in a topic whose own is T or above. With T as the
// greatest timestamp seen so far, that event has been seen: it is the first one
// that reached T, or one before it. So nothing is skipped, and what follows it
// comes again. The timestamp of any other event seen would do as well, but more
// would come again: with the upload of some year ago, all that the server has.
//
// A position keeps, for each topic and partition, the greatest timestamp of an
// ID less the millisecond that the server added.
type position struct {
	entries []entry
	lastID  string // the last ID that was taken in
	text    string // what String returns; empty: to be made
}

// entry is an element of an ID, and of a position.
type entry struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	Timestamp *int64 `json:"timestamp,omitempty"` // milliseconds
	// Offset stands where there is no timestamp. -1: the end of the topic,
	// which is how the server writes a topic that has nothing yet.
	Offset *int64 `json:"offset,omitempty"`
}

// maxEntries bounds what a server may make a position grow to.
const maxEntries = 64

// parsePosition reads a cursor.
func parsePosition(cursor string) (position, error) {
	p := position{text: cursor}
	if cursor == "" {
		return p, nil
	}
	if err := json.Unmarshal([]byte(cursor), &p.entries); err != nil {
		return p, fmt.Errorf("the cursor %.200q is not a position in an event stream: remove it to begin anew: %w", cursor, core.ErrPermanent)
	}
	return p, nil
}

// advance takes in the ID of an event.
func (p *position) advance(id string) error {
	if id == p.lastID {
		return nil
	}
	var seen []entry
	if err := json.Unmarshal([]byte(id), &seen); err != nil {
		return fmt.Errorf("%.200q is not an ID that can be resumed from: %w", id, err)
	}
	p.lastID = id
	for _, e := range seen {
		if e.Timestamp != nil {
			if *e.Timestamp > 0 {
				*e.Timestamp--
			}
			e.Offset = nil
		}
		i := slices.IndexFunc(p.entries, func(have entry) bool {
			return have.Topic == e.Topic && have.Partition == e.Partition
		})
		switch {
		case i < 0 && len(p.entries) < maxEntries:
			p.entries = append(p.entries, e)
			p.text = ""
		case i >= 0 && e.isAfter(p.entries[i]):
			p.entries[i] = e
			p.text = ""
		}
	}
	return nil
}

// isAfter reports whether e is further on in the topic than have.
func (e entry) isAfter(have entry) bool {
	switch {
	case e.Timestamp != nil && have.Timestamp != nil:
		return *e.Timestamp > *have.Timestamp
	case e.Offset != nil && have.Offset != nil:
		return *e.Offset > *have.Offset
	}
	// An ID says where the event was; how does not matter. But that the server
	// has read nothing of a topic yet says nothing about where we were in it.
	return e.Timestamp != nil || e.Offset != nil && *e.Offset >= 0
}

// String returns the position as the cursor, which is also what the server
// takes as Last-Event-ID. It is empty while no ID has been seen.
func (p *position) String() string {
	if p.text == "" && len(p.entries) > 0 {
		text, err := json.Marshal(p.entries)
		if err != nil {
			panic(err) // entries are plain data
		}
		p.text = string(text)
	}
	return p.text
}
