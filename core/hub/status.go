package hub

import (
	"time"

	"github.com/mzdio/mzd/core"
)

// Status is the state of views and sinks, as JSON for an operator.
type Status struct {
	Views []ViewStatus `json:"views"`
	Sinks []SinkStatus `json:"sinks"`
}

// ViewStatus is the state of one view.
type ViewStatus struct {
	Name    string        `json:"name"`
	Query   string        `json:"query,omitempty"`
	State   State         `json:"state"`
	Columns []core.Column `json:"columns"`
	Key     []string      `json:"key,omitempty"`

	// Token is the frontier: the view is complete below its timestamp.
	Token     string     `json:"token,omitempty"`
	Timestamp *core.Time `json:"timestamp,string,omitempty"`
	// LagSeconds is how far the frontier is behind the wall clock; absent where
	// the upstream's timestamps are no clock.
	LagSeconds *float64 `json:"lag_seconds,omitempty"`

	// Durable is how far sinks get: what no crash can take back, if the log is
	// on disk.
	Durable string `json:"durable,omitempty"`
	// DiskTrouble is why the log cannot be written at present.
	DiskTrouble string `json:"disk_trouble,omitempty"`

	Rows        int64     `json:"rows"`
	LogBytes    int64     `json:"log_bytes"`      // in memory
	DiskBytes   int64     `json:"log_disk_bytes"` // in the log's segments
	LogSpans    int       `json:"log_spans"`
	LogSince    core.Time `json:"log_since,string"`
	Reconnects  int       `json:"reconnects"`
	Trouble     *Problem  `json:"trouble,omitempty"`
	Compactions int64     `json:"log_compactions"`
}

// SinkStatus is the state of one sink.
type SinkStatus struct {
	Name  string       `json:"name"`
	Ready bool         `json:"ok"`
	Views []SinkedView `json:"views"`
	// WaitsFor are views that have stopped, and hold up all that the sink gets
	// as one cut with them.
	WaitsFor []string `json:"waits_for,omitempty"`
	// Trouble is that of the view that is worst off: one that has failed for good, or
	// else that has been in trouble for longest. Each view has its own.
	Trouble *Problem `json:"trouble,omitempty"`

	// Down says that its code has ended by itself and waits to be started
	// again, which it was Restarts times. That of a sink that is written to runs
	// when it is called.
	Down     bool   `json:"-"`
	Restarts uint64 `json:"-"`
	// Failed says that some of its groups have failed for good.
	Failed bool `json:"-"`
}

// SinkedView is how far a sink is with a view.
type SinkedView struct {
	View string `json:"view"`
	// Token is its position: everything before is acknowledged.
	Token      string   `json:"token,omitempty"`
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	// Attempt is what it is being written, until it takes it.
	Attempt *Attempt `json:"attempt,omitempty"`
	// Trouble is why it does not take the view, or the cut that the view is part of.
	Trouble *Problem `json:"trouble,omitempty"`
}

// Attempt is a batch on its way to a sink, by its tokens.
type Attempt struct {
	From string `json:"from,omitempty"` // empty: a base
	To   string `json:"to"`
}

// Problem is something that is being retried, or waits for somebody.
type Problem struct {
	Reason    string     `json:"reason,omitempty"`
	Error     string     `json:"error"`
	Since     time.Time  `json:"since"`
	NextTry   *time.Time `json:"next_try,omitempty"`
	Permanent bool       `json:"permanent,omitempty"`
}

// Status returns the state of everything as of now.
func (h *Hub) Status() Status {
	now := time.Now()
	s := Status{Views: []ViewStatus{}, Sinks: []SinkStatus{}}
	for _, v := range h.views {
		s.Views = append(s.Views, v.status(now))
	}
	for _, c := range h.sinks {
		sink := SinkStatus{Name: c.Name, Ready: true, Views: []SinkedView{}}
		for _, g := range h.groups {
			if g.name == c.Name {
				g.addTo(&sink, now)
			}
		}
		s.Sinks = append(s.Sinks, sink)
	}
	return s
}

// Complete reports whether every view has been complete at some time, and the
// names of those that have not.
func (h *Hub) Complete() (ok bool, missing []string) {
	for _, v := range h.views {
		if upper, _ := v.data.Frontier(); upper.IsZero() {
			missing = append(missing, v.Name)
		}
	}
	return len(missing) == 0, missing
}

func (v *view) status(now time.Time) ViewStatus {
	stats, described := v.data.Stats(), v.data.View()
	upper, _ := v.data.Frontier()
	durable, _ := v.data.Durable()
	s := ViewStatus{
		Name: v.Name, Query: v.Query, Key: v.Key, Columns: append([]core.Column{}, described.Columns...),
		Token: upper.String(), LagSeconds: lag(now, upper.Time), Durable: durable.String(),
		Rows: stats.Rows, LogBytes: stats.Bytes, DiskBytes: stats.DiskBytes, LogSpans: stats.Spans, LogSince: stats.Since, Compactions: stats.Compactions,
	}
	if !upper.IsZero() {
		s.Timestamp = &upper.Time
	}
	if stats.Trouble != nil {
		s.DiskTrouble = stats.Trouble.Error()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	s.State, s.Reconnects = v.state, v.reconnects
	s.Trouble = v.trouble.problem()
	return s
}

func (g *group) addTo(s *SinkStatus, now time.Time) {
	if !g.broadcasts() && len(g.views) > 1 {
		for _, v := range g.views {
			upper, _ := v.data.Frontier()
			if v.Trouble() != nil && upper.Time < core.EndOfTime { // a constant holds up nobody
				s.WaitsFor = append(s.WaitsFor, v.Name)
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.trouble.problem()
	if p != nil {
		p.Permanent = g.permanent
		s.Ready, s.Failed = false, s.Failed || p.Permanent
	}
	if p.worse(s.Trouble) {
		s.Trouble = p
	}
	for i, v := range g.views {
		sv := SinkedView{View: v.Name, Trouble: p}
		if p := g.places[i]; !g.broadcasts() {
			sv.Token, sv.LagSeconds = p.position.String(), lag(now, p.position.Time)
			if !p.to.IsZero() {
				sv.Attempt = &Attempt{From: p.from.String(), To: p.to.String()}
			}
		}
		s.Views = append(s.Views, sv)
	}
	s.Down = s.Down || g.broadcasts() && !g.serving
	s.Restarts += g.restarts
}

// worse reports whether a problem needs somebody more than another; nil is none.
func (p *Problem) worse(than *Problem) bool {
	if p == nil || than == nil {
		return p != nil
	}
	if p.Permanent != than.Permanent {
		return p.Permanent
	}
	return p.Since.Before(than.Since)
}

func (t trouble) problem() *Problem {
	if t.err == nil {
		return nil
	}
	p := &Problem{Reason: reason(t.err), Error: t.err.Error(), Since: t.since}
	if !t.next.IsZero() {
		p.NextTry = &t.next
	}
	return p
}

// lag is how far a frontier is behind the wall clock, in seconds: everything up
// to upper-1 is known. It is nil where timestamps are no clock or the end of
// time, and may be slightly negative where the upstream rounds up.
func lag(now time.Time, upper core.Time) *float64 {
	if !upper.IsWall() {
		return nil
	}
	s := float64(now.UnixMilli())/1000 - (upper - 1).Seconds()
	return &s
}
