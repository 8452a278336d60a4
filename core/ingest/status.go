package ingest

import "time"

// State is what a [Runner] is doing.
type State string

const (
	Connecting State = "connecting" // the source runs, it has emitted nothing yet
	Streaming  State = "streaming"  // it has emitted; a source may emit nothing at all to say that it is connected
	Waiting    State = "waiting"    // for the next try
	Failed     State = "failed"     // for good: Run has returned an error
	Stopped    State = "stopped"    // Run has returned because its context ended
)

// Status is how a source is doing, for operators. The counts are those of this
// process.
type Status struct {
	Name      string    `json:"name"`
	State     State     `json:"state"`
	Since     time.Time `json:"since"`               // of the state
	Reason    string    `json:"reason,omitempty"`    // why it waits
	Error     string    `json:"error,omitempty"`     // what went wrong, until events arrive again or a run has lasted
	NextTry   time.Time `json:"next_try,omitzero"`   // when it waits
	Target    string    `json:"target"`              // what it lands into
	Cursor    string    `json:"cursor"`              // where it goes on
	LastEvent time.Time `json:"last_event,omitzero"` // time of the newest event

	LandedBytes int64             `json:"landed_bytes"` // in the target, earlier runs included
	Events      uint64            `json:"events"`       // landed
	Bytes       uint64            `json:"bytes"`        // of them
	Duplicates  uint64            `json:"duplicates"`   // left out: landed before
	Rejected    map[string]uint64 `json:"rejected"`     // left out, by reason
	Reconnects  map[string]uint64 `json:"reconnects"`   // by reason
}
