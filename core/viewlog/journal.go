package viewlog

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mzdio/mzd/core"
)

// Journal is a log on disk without the one in memory. It is for a writer that
// keeps the contents itself, and that has to know what has become of each batch
// before it goes on: [Journal.Append] returns when the batch is durable, where
// [Log.Append] returns at once.
//
// The files are those of a [Log], and so is what is said about damage. A journal
// belongs to one goroutine.
type Journal struct{ disk *store }

// ErrInDoubt is wrapped by the error of [Journal.Append] when the batch may be
// there after a restart, though writing it failed: the disk refused to sync it,
// and also refused the note that it does not count. [Journal.Settle] writes that
// note.
var ErrInDoubt = errors.New("it is not known what a restart would find")

// OpenJournal opens the journal called name in a directory of its own, which it
// makes if there is none, and returns the sum of its batches. Its errors are
// those of [Open].
func OpenJournal(dir, name string, o Options) (*Journal, []core.Update, error) {
	disk, c, fresh, err := openStore(dir, name, o.complete())
	j := &Journal{disk}
	if err == nil && fresh {
		c.upper = 1
		err = j.rewrite(c.upper, nil)
	}
	if damage := (*DamageError)(nil); errors.As(err, &damage) {
		damage.OnlyCopy = true
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open the journal %s: %w", name, err)
	}
	runs := [][]core.Update{slices.Collect(c.base.all())}
	for _, sp := range c.spans {
		runs = append(runs, sp.run)
	}
	return j, net(c.upper-1, runs...), nil
}

// Upper is where the journal ends: the next batch begins there.
func (j *Journal) Upper() core.Time { return j.disk.upper }

// Append makes a batch durable: the updates, consolidated, are everything that
// happened from Upper to upper. After an error nothing of it is there, and
// nothing will be after a restart, unless the error wraps [ErrInDoubt].
func (j *Journal) Append(upper core.Time, updates []core.Update) error {
	err := j.disk.write([]record{{
		flags: flagSolid, arrived: time.Now().UnixMilli(), lower: j.disk.upper, upper: upper, updates: updates,
	}})
	if err != nil && j.disk.file == nil {
		if e := j.Settle(); e != nil {
			return fmt.Errorf("%w; %w (%w)", err, ErrInDoubt, e)
		}
	}
	return err
}

// Settle makes durable that a batch whose Append failed does not count. It may
// be called until it succeeds.
func (j *Journal) Settle() error {
	if j.disk.file != nil {
		return nil
	}
	// A new segment ends the one before where that was durable.
	return j.disk.roll()
}

// Grown reports whether the files have become so large that it is time to
// [Journal.Rewrite] them.
func (j *Journal) Grown() bool { return j.disk.grown() }

// Rewrite puts the contents into a new file that takes the place of the others.
// The contents, consolidated, must be the sum of all batches. After an error the
// journal is what it was.
func (j *Journal) Rewrite(contents []core.Update) error { return j.rewrite(j.disk.upper, contents) }

func (j *Journal) rewrite(upper core.Time, contents []core.Update) error {
	m := manifest{Columns: []core.Column{}, Generations: j.disk.manifest.Generations}
	if m.Generations == nil {
		m.Generations = []generation{{ID: core.NewGeneration()}}
	}
	return j.disk.rewrite(m, slices.Values([]record{{flags: flagSolid, upper: upper, updates: contents}}), upper)
}

// Close notes how far the journal goes, and closes its file.
func (j *Journal) Close() error { return j.disk.close() }
