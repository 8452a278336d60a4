package exec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mzdio/mzd/plugins/internal/proc"
)

// maxAnswer bounds a line of an answer.
const maxAnswer = 64 << 10

// conversation is a running command that is asked one thing at a time.
type conversation struct {
	process *proc.Process
	answers chan string   // closed when there can be no more
	readErr error         // why, if not because stdout has ended; set before
	over    chan struct{} // closed when answers do not matter any more
	state   state
}

// state is what is known of what the command would answer next.
type state int

const (
	listening state = iota // an answer to the next line
	thinking               // an answer to a line that nobody waits for any more
	confused               // who knows: it got part of a line
	gone
)

func converse(p *proc.Process) *conversation {
	c := &conversation{process: p, answers: make(chan string), over: make(chan struct{})}
	go c.listen()
	return c
}

// listen reads what the command prints until it stops printing.
func (c *conversation) listen() {
	defer close(c.answers)
	lines := bufio.NewScanner(c.process.Stdout)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		select {
		case c.answers <- lines.Text():
		case <-c.over:
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		c.readErr = fmt.Errorf("it printed a line of more than %d bytes", maxAnswer)
	}
}

// usable reports whether it makes sense to ask something.
func (c *conversation) usable() bool {
	select {
	case <-c.process.Ended():
		return false
	default:
		return c.state == listening
	}
}

// ask writes a line and returns the one that the command answers. After an error
// the command cannot be asked again.
func (c *conversation) ask(ctx context.Context, line []byte) (string, error) {
	select {
	case early, ok := <-c.answers:
		if !ok {
			return "", c.ended()
		}
		return "", fmt.Errorf("it printed %.80q, and was not asked anything; it has to print one line for each that it reads", early)
	default:
	}
	c.state = confused
	if err := c.write(ctx, line); err != nil {
		return "", err
	}
	c.state = thinking
	select {
	case answer, ok := <-c.answers:
		if !ok {
			return "", c.ended()
		}
		c.state = listening
		return answer, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// write writes a line, or a part of one if ctx ends before the command has read it.
func (c *conversation) write(ctx context.Context, line []byte) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.process.Stdin.SetWriteDeadline(time.Now())
		close(interrupted)
	})
	_, err := c.process.Stdin.Write(append(line, '\n'))
	if !stop() {
		<-interrupted // or it would interrupt the next line
		c.process.Stdin.SetWriteDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return c.ended() // nobody holds the other end
}

// ended says why there is no answer. It ends a command that has closed its files
// and lives on.
func (c *conversation) ended() error {
	err := c.end(lastMoment)
	switch {
	case c.readErr != nil:
		return c.readErr
	case err != nil:
		return fmt.Errorf("it ended before it answered: %w", err)
	}
	return errors.New("it ended before it answered, with exit status 0; it has to read on until its stdin ends")
}

// lastMoment is how long a command may take to end after it has closed its files.
const lastMoment = time.Second

// end closes the command's stdin and gives it time to end. It returns how it did.
func (c *conversation) end(grace time.Duration) error {
	if c.state != gone {
		c.state = gone
		close(c.over)
	}
	err := c.process.Stop(grace)
	for range c.answers { // until nobody listens
	}
	return err
}

// kill ends the command at once.
func (c *conversation) kill() { c.end(0) }

// stop lets the command end, if it can know that this is the end, and returns how
// it did.
func (c *conversation) stop(grace time.Duration) error {
	if c.state == gone || c.state == confused {
		c.kill()
		return nil
	}
	return c.end(grace)
}
