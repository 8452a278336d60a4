package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Message is a recorded message of a stream.
type Message struct {
	ID   string // as in its id: line
	Data []byte // as in its data: line
}

// ReplayOptions are the options of [Replay].
type ReplayOptions struct {
	Rate       float64       // messages a second; 0: all there are at once
	CloseAfter time.Duration // as in [Options]

	// UpTo returns the number of messages, counted from the beginning of the
	// recording, after which a connection breaks off; -1: none. Connections are
	// counted from 0. nil: none breaks off.
	UpTo func(connection int) int
}

// Replay returns a server of recorded messages. It is for tests that know what
// has to arrive, and that break connections off where they choose: those of
// package ingest, and of mzd as a whole. Who does not say where to begin gets
// the messages from the first on. It is an error if a message does not name its
// topic and timestamp.
func Replay(messages []Message, o ReplayOptions) (*Server, error) {
	r := &recording{messages: messages, rate: o.Rate, start: time.Now(), places: make([]recorded, len(messages))}
	for i, m := range messages {
		if err := r.locate(i, m); err != nil {
			return nil, fmt.Errorf("message %d of the recording: %w", i, err)
		}
	}
	return &Server{tape: r, closeAfter: o.CloseAfter, upTo: o.UpTo}, nil
}

// ParseSSE reads messages from a recording of the raw stream. What is no
// message, or was cut off, is left out.
func ParseSSE(raw []byte) []Message {
	var messages []Message
	var m Message
	for line := range bytes.Lines(raw) {
		value, complete := bytes.CutSuffix(line, []byte{'\n'})
		name, value, _ := bytes.Cut(bytes.TrimSuffix(value, []byte{'\r'}), []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch {
		case !complete:
		case string(name) == "id":
			m.ID = string(value)
		case string(name) == "data":
			m.Data = value
		case len(name) == 0 && len(value) == 0 && m.Data != nil:
			messages = append(messages, m)
			m.Data = nil
		}
	}
	return messages
}

// ParseLines reads messages from a file of events, one a line, and makes up
// the IDs from their topics and timestamps.
func ParseLines(lines []byte) ([]Message, error) {
	var messages []Message
	for line := range bytes.Lines(lines) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		var e struct {
			Timestamp int64
			Meta      struct{ Topic string }
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(messages)+1, err)
		}
		messages = append(messages, Message{ID: string(appendID(nil, e.Meta.Topic, e.Timestamp*1000)), Data: line})
	}
	return messages, nil
}

// recording is a tape of recorded messages. It is immutable.
type recording struct {
	messages []Message
	places   []recorded // of the messages
	names    []string   // of the topics
	rate     float64
	start    time.Time
}

// recorded is where a message stood.
type recorded struct {
	topic     int
	timestamp int64
	offset    int64
}

// locate reads where message i stood.
func (r *recording) locate(i int, m Message) error {
	var entries []struct {
		Topic     string
		Timestamp *int64
	}
	if err := json.Unmarshal([]byte(m.ID), &entries); err != nil {
		return fmt.Errorf("ID %.100q: %w", m.ID, err)
	}
	at := -1
	for _, e := range entries {
		topic := slices.Index(r.names, e.Topic)
		if topic < 0 {
			topic = len(r.names)
			r.names = append(r.names, e.Topic)
		}
		if e.Timestamp != nil {
			at = topic
			r.places[i] = recorded{topic: topic, timestamp: *e.Timestamp - 1, offset: -1}
		}
	}
	if at < 0 {
		return fmt.Errorf("ID %.100q names no timestamp", m.ID)
	}
	var data struct{ Meta struct{ Offset *int64 } }
	if json.Unmarshal(m.Data, &data) == nil && data.Meta.Offset != nil { // damaged data is to be replayed too
		r.places[i].offset = *data.Meta.Offset
	}
	return nil
}

func (r *recording) topics() []string { return r.names }
func (r *recording) topic(i int) int  { return r.places[i].topic }
func (r *recording) fresh() place     { return place{kind: atTimestamp, value: math.MinInt64} }

func (r *recording) due(i int) (time.Time, bool) {
	if i >= len(r.messages) {
		return time.Time{}, false
	}
	if r.rate <= 0 {
		return r.start, true
	}
	return r.start.Add(time.Duration(float64(i) / r.rate * float64(time.Second))), true
}

func (r *recording) end(now time.Time) int {
	for i := range r.messages {
		if at, _ := r.due(i); at.After(now) {
			return i
		}
	}
	return len(r.messages)
}

func (r *recording) seek(topic int, p place, now time.Time) int {
	end := r.end(now)
	for i, at := range r.places[:end] {
		if at.topic == topic && (p.kind == atTimestamp && at.timestamp >= p.value || p.kind == atOffset && at.offset >= p.value) {
			return i
		}
	}
	return end
}

func (r *recording) frame(dst []byte, i int) []byte {
	m := r.messages[i]
	return appendFrame(dst, m.ID, m.Data)
}

// appendFrame appends a message as the stream writes it.
func appendFrame(dst []byte, id string, data []byte) []byte {
	dst = append(dst, "event: message\nid: "...)
	dst = append(dst, id...)
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		dst = append(dst, "\ndata: "...)
		dst = append(dst, line...)
	}
	return append(dst, "\n\n"...)
}

// appendID appends the ID of a message in the topic with a Kafka timestamp in
// milliseconds: that of the next millisecond, and for the topic of the other
// data centre that there was nothing.
func appendID(dst []byte, topic string, timestamp int64) []byte {
	other := strings.Replace(topic, "eqiad.", "codfw.", 1)
	if other == topic {
		other = strings.Replace(topic, "codfw.", "eqiad.", 1)
	}
	return fmt.Appendf(dst, `[{"topic":%q,"partition":0,"timestamp":%d},{"topic":%q,"partition":0,"offset":-1}]`, topic, timestamp+1, other)
}
