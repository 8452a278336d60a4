package main

import (
	"context"
	"errors"
	"fmt"
)

// stage is a part of the daemon that runs until its context ends.
type stage struct {
	name string
	run  func(context.Context) error
}

// runStages runs the stages until ctx ends or one of them fails. Then it stops
// them one after the other, in their order, so that what one has in hand still
// finds the next one at work. It returns the first failure.
func runStages(ctx context.Context, stages ...stage) error {
	type end struct {
		i   int
		err error
	}
	ends := make(chan end, len(stages))
	cancels := make([]context.CancelFunc, len(stages))
	for i, s := range stages {
		var own context.Context
		own, cancels[i] = context.WithCancel(context.WithoutCancel(ctx))
		defer cancels[i]()
		go func() { ends <- end{i, s.run(own)} }()
	}

	var errs []error
	ended := make([]bool, len(stages))
	note := func(e end) {
		ended[e.i] = true
		if e.err != nil && !errors.Is(e.err, context.Canceled) {
			errs = append(errs, fmt.Errorf("%s: %w", stages[e.i].name, e.err))
		}
	}
	select {
	case <-ctx.Done():
	case e := <-ends:
		if note(e); e.err == nil {
			errs = append(errs, fmt.Errorf("%s: ended by itself", stages[e.i].name))
		}
	}
	for i := range stages {
		for cancels[i](); !ended[i]; {
			note(<-ends)
		}
	}
	return errors.Join(errs...)
}
