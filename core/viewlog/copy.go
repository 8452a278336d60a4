package viewlog

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mzdio/mzd/core"
)

// ErrCopy means that a copy of a log is not what the log is.
var ErrCopy = errors.New("the copy differs from its log")

// Copy makes the log, which is in memory only, a copy of another one: b is what a
// reader of that log was given next. A base begins anew; any other batch must
// continue from where the copy is, or the error wraps [ErrGap].
//
// Positions are those of the other log: a token of one means the same in both, as
// long as both know it. A copy can be read where the batches ended, and not between.
// If its checksum is not that of the batch the error wraps [ErrCopy]; begin again
// with a base then.
func (l *Log) Copy(b core.Batch) error {
	if b.IsBase() {
		return l.copyBase(b)
	}
	run := slices.Collect(b.Updates.All())
	arrived, changes := time.Now(), core.ChecksumOf(run)
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := l.frontier(); at != b.Lower || at.Generation != b.Upper.Generation || b.Upper.Time <= at.Time {
		return fmt.Errorf("copy %s from %q to %q to a log at %q: %w", l.view.Name, b.Lower, b.Upper, at, ErrGap)
	}
	if sum := l.spans.checksum(len(l.spans.list)) + changes; sum != b.Sum {
		return l.differs(b, sum)
	}
	l.view = b.View
	l.appendSolid(b.Upper.Time, run, changes, arrived)
	return nil
}

func (l *Log) copyBase(b core.Batch) error {
	whole := contentsOf(b.Updates.All())
	if b.Upper.Time == 0 {
		return fmt.Errorf("copy %s to time 0: %w", b.View.Name, ErrGap)
	}
	if _, _, sum := whole.count(); sum != b.Sum {
		return l.differs(b, sum)
	}
	l.begin(b.View, "", generation{ID: b.Upper.Generation}, b.Upper.Time, whole)
	return nil
}

func (l *Log) differs(b core.Batch, sum uint64) error {
	return fmt.Errorf("copy %s to %s: the checksum is %016x and should be %016x: %w", b.View.Name, b.Upper, sum, b.Sum, ErrCopy)
}
