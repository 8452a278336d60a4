// Package proc runs the commands that people name in their configuration, so that
// they cannot hurt the process that runs them: they never outlive it ([Group]),
// what they say is logged within bounds ([Log]), and they can be stopped
// ([Process]).
package proc

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"
)

// Process is a running command. Whatever it has left running when it ends is
// killed. It takes a Stop or a Kill to release a Process, also when the command
// has ended by itself. Its methods may be used concurrently.
type Process struct {
	// Stdin is what the command reads. Writes may have a deadline.
	Stdin *os.File
	// Stdout is what it prints. What it printed can be read after it has ended.
	Stdout *os.File

	pid   int
	group *Group
	said  lastLine
	ended chan struct{} // closed when all of it has ended
	err   error         // how; set before
}

// drain is how long stderr is read after the command has ended. It takes no time,
// unless somebody has left the group and keeps it open.
const drain = time.Second

// Start starts a command that has a path, arguments and an environment, and
// nothing else so far. What it writes to stderr is logged.
func Start(cmd *exec.Cmd, log *slog.Logger) (*Process, error) {
	return StartLines(cmd, func(line string) string {
		log.Info(line, "from", "stderr")
		return line
	})
}

// StartLines is Start for a command whose lines on stderr have a meaning: log gets
// them, within the bounds of [Log], and returns what they say to people.
func StartLines(cmd *exec.Cmd, log func(line string) string) (*Process, error) {
	var pipes [3]struct{ r, w *os.File } // stdin, stdout, stderr
	theirs := func() []*os.File { return []*os.File{pipes[0].r, pipes[1].w, pipes[2].w} }
	ours := func() []*os.File { return []*os.File{pipes[0].w, pipes[1].r, pipes[2].r} }
	defer func() { closeAll(theirs()) }()
	for i := range pipes {
		var err error
		if pipes[i].r, pipes[i].w, err = os.Pipe(); err != nil {
			closeAll(ours())
			return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pipes[0].r, pipes[1].w, pipes[2].w
	group, err := startIn(cmd)
	if err != nil {
		closeAll(ours())
		return nil, err
	}
	p := &Process{pid: cmd.Process.Pid, Stdin: pipes[0].w, Stdout: pipes[1].r, group: group, ended: make(chan struct{})}
	go p.watch(cmd, pipes[2].r, log)
	return p, nil
}

// startIn starts a command in a group of its own.
func startIn(cmd *exec.Cmd) (*Group, error) {
	group, err := NewGroup()
	if err != nil {
		return nil, err
	}
	group.Add(cmd)
	if err := cmd.Start(); err != nil {
		group.Close()
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return group, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// watch reads stderr and waits for the end.
func (p *Process) watch(cmd *exec.Cmd, stderr *os.File, log func(line string) string) {
	defer close(p.ended)
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		Log(stderr, func(line string) { p.said.set(log(line)) })
	}()
	p.err = cmd.Wait() // for nothing else: all its files are files
	p.group.Close()
	stderr.SetReadDeadline(time.Now().Add(drain))
	<-logged
	stderr.Close()
}

// Pid returns the number of the process, which is another's some time after it has
// ended.
func (p *Process) Pid() int { return p.pid }

// Ended is closed when the command has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err waits for the end of the command, and says how it was: nil is success,
// otherwise its exit status or the signal, with the last that it said on stderr.
func (p *Process) Err() error {
	<-p.ended
	if said := p.said.get(); p.err != nil && said != "" {
		return fmt.Errorf("%w; the last it said is %q", p.err, said)
	}
	return p.err
}

// Terminate asks the command to end, and all that it has started.
func (p *Process) Terminate() { p.group.Terminate() }

// Stop closes what the command reads, waits until it has ended, and kills it if it
// takes longer than that. It returns what [Process.Err] does. Whoever
// reads Stdout gets an error when it is over.
func (p *Process) Stop(grace time.Duration) error {
	p.Stdin.Close()
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-p.ended:
	case <-late.C:
	}
	return p.Kill()
}

// Kill ends the command, if it has not ended, and releases everything. It returns
// what [Process.Err] does, and may be called again.
func (p *Process) Kill() error {
	p.group.Close()
	err := p.Err()
	closeAll([]*os.File{p.Stdin, p.Stdout})
	return err
}
