package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"sync"
)

// Group is some processes that end with this one, in whatever way it ends: nothing
// is left behind by a kill -9, unless it has left the group on purpose. What is
// typed at the terminal does not reach it. A Group may be used concurrently.
//
// It is a process group of Unix whose leader is a shell that reads a pipe. This
// process alone holds the other end, which the kernel closes when it dies, and
// then the leader takes the group with it. So there is no instant at which a
// member could be forgotten, and no process ID that could be another's by now: a
// group has the ID of its leader, which is not given away before Close.
//
// An image without a shell is a container, where everything ends with the first
// process. There, and on systems that are no Unix, a group is led by the one
// command that it has.
type Group struct {
	mu     sync.Mutex // guards what follows
	leader *exec.Cmd  // nil: there is none, or it is gone
	pipe   io.Closer  // ends the shell, and all; nil: there is no shell
}

// shell is in this place on every Unix. It is deaf to the signals that are meant
// for the others.
const (
	shell = "/bin/sh"
	guard = `trap "" HUP INT TERM; read -r end; kill -KILL 0`
)

// NewGroup starts a group that has nobody in it.
func NewGroup() (*Group, error) {
	leader := exec.Command(shell, "-c", guard)
	leader.Env, leader.Dir = []string{}, "/"
	lead(leader, 0)
	pipe, err := leader.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a process group: %w", err)
	}
	switch err := leader.Start(); {
	case errors.Is(err, fs.ErrNotExist):
		return &Group{}, nil
	case err != nil:
		return nil, fmt.Errorf("start a process group: %w", err)
	}
	return &Group{leader: leader, pipe: pipe}, nil
}

// Add makes a command, which has not started yet, start in the group.
func (g *Group) Add(cmd *exec.Cmd) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pipe == nil {
		g.leader = cmd
		lead(cmd, 0)
		return
	}
	lead(cmd, g.leader.Process.Pid)
}

// Terminate asks everybody in the group to end.
func (g *Group) Terminate() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leader != nil && g.leader.Process != nil {
		terminate(g.leader.Process)
	}
}

// Close kills whoever is left in the group. It is safe to call again.
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leader != nil && g.leader.Process != nil {
		kill(g.leader.Process)
	}
	if g.pipe != nil {
		g.pipe.Close()
		g.leader.Wait() // its error is that it was killed
	}
	g.leader, g.pipe = nil, nil
	return nil
}
