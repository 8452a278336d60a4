package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"sync"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/core/durable"
	"github.com/mzdio/mzd/core/viewlog"
)

// place is where a sink stands with one view.
type place struct {
	position core.Token // everything before is acknowledged; zero: nothing is
	// The attempt that was announced and is not acknowledged: the batch from
	// one token, zero for a base, to the other. No attempt: to is zero.
	from, to core.Token
}

// tokens returns what the log must be able to read for the sink to go on.
func (p place) tokens() []core.Token {
	all := []core.Token{p.position}
	if !p.to.IsZero() {
		all = []core.Token{p.from, p.to}
	}
	if all[0].IsZero() {
		all = all[1:]
	}
	return all
}

// positions keeps the places of one sink in a file, as lines of a checksum and
// JSON. The first line has all of them and is replaced as a whole (temporary
// file, sync, rename, sync of the directory); each further line has those that
// changed, and costs one write and one sync, which is why the file is not
// replaced for every cut. A line names all views of a cut that moves together,
// so that they do.
//
// Only the end of the file can be torn: a line is written once the one before
// it is durable. After an error the file is never appended to again, only
// replaced, and so it is by the first save of a process, whatever its end looks
// like.
type positions struct {
	fs   durable.FS
	path string
	sink string

	mu      sync.Mutex // guards what follows
	waiting *commit    // what the next write takes; nil: nothing
	trouble error      // of the last write

	writing sync.Mutex       // guards what follows, and is held while writing
	places  map[string]place // by view; as of the last line
	file    durable.File     // nil: the next write replaces the file
	size    int64
}

// commit is some changes that share one write.
type commit struct {
	places map[string]place
	done   bool
	err    error
}

// maxPositions is the size from which the file is replaced.
const maxPositions = 256 << 10

const positionsFormat = 1

// line is a line of the file, without its checksum.
type line struct {
	Format int                   `json:"format,omitempty"` // of the first line
	Sink   string                `json:"sink,omitempty"`   // of the first line
	Views  map[string]savedPlace `json:"views"`
}

// savedPlace is a place in the file; absent tokens are zero.
type savedPlace struct {
	Position string `json:"position,omitempty"`
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openPositions reads the places of a sink; there are none if there is no file.
// It writes nothing.
func openPositions(fsys durable.FS, path, sink string) (*positions, error) {
	p := &positions{fs: fsys, path: path, sink: sink, places: make(map[string]place)}
	data, err := fsys.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("positions of sink %s: %w", sink, err)
	}
	if err := p.load(data); err != nil {
		return nil, fmt.Errorf("positions of sink %s: %w", sink, err)
	}
	return p, nil
}

// load reads the lines of the file, without an end that is torn.
func (p *positions) load(data []byte) error {
	offset, torn := 0, error(nil)
	for text := range bytes.Lines(data) {
		l, err := parseLine(text)
		first := offset == 0
		switch {
		case torn != nil && (err == nil || endsInLine(text)):
			return torn // what comes after it was written when it was durable
		case err != nil && (first || endsInLine(text)):
			return p.damaged(offset, err)
		case err != nil:
			torn = p.damaged(offset, err)
		case first && l.Format > positionsFormat:
			return fmt.Errorf("%s: format %d: %w", p.path, l.Format, viewlog.ErrNewer)
		case first && l.Sink != p.sink:
			return p.damaged(0, fmt.Errorf("it belongs to sink %q", l.Sink))
		default:
			if err := p.add(l); err != nil {
				return p.damaged(offset, err)
			}
		}
		offset += len(text)
	}
	if offset == 0 {
		return p.damaged(0, errors.New("it is empty"))
	}
	return nil
}

func (p *positions) damaged(offset int, err error) error {
	return fmt.Errorf("%s is damaged at offset %d: %w; remove it for the sink to begin again (a copy from a backup would give it again what it has had since)", p.path, offset, err)
}

// add takes the places of a line over.
func (p *positions) add(l line) error {
	for view, s := range l.Views {
		position, err1 := core.ParseToken(s.Position)
		from, err2 := core.ParseToken(s.From)
		to, err3 := core.ParseToken(s.To)
		if err := errors.Join(err1, err2, err3); err != nil {
			return fmt.Errorf("view %s: %w", view, err)
		}
		p.places[view] = place{position, from, to}
	}
	return nil
}

func parseLine(text []byte) (line, error) {
	var l line
	sum, text, ok := bytes.Cut(text, []byte(" "))
	body, ended := bytes.CutSuffix(text, []byte("\n"))
	if !ok || !ended || string(sum) != checksum(body) {
		return l, errors.New("not a line with its checksum")
	}
	return l, json.Unmarshal(body, &l)
}

// endsInLine reports whether a bad line has a good one at its end: the newline
// between them is what is damaged.
func endsInLine(text []byte) bool {
	for i := range text {
		if bytes.HasPrefix(text[i:], []byte(" {")) && i >= sumBytes {
			if _, err := parseLine(text[i-sumBytes:]); err == nil {
				return true
			}
		}
	}
	return false
}

// sumBytes is the length of a checksum.
const sumBytes = 8

func checksum(body []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli))
}

func (l line) encode(places map[string]place) []byte {
	l.Views = make(map[string]savedPlace, len(places))
	for view, p := range places {
		l.Views[view] = savedPlace{p.position.String(), p.from.String(), p.to.String()}
	}
	body, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and numbers
	}
	return fmt.Appendf(nil, "%s %s\n", checksum(body), body)
}

// save makes places durable, by view. After an error they may be durable or
// not, and the same ones must be saved again before anything else happens to
// them. It may be called concurrently: calls under way at one time share one
// sync.
func (p *positions) save(places map[string]place) error {
	p.mu.Lock()
	if p.waiting == nil {
		p.waiting = &commit{places: make(map[string]place)}
	}
	c := p.waiting
	maps.Copy(c.places, places)
	p.mu.Unlock()

	p.writing.Lock()
	defer p.writing.Unlock()
	if c.done {
		return c.err
	}
	p.mu.Lock()
	p.waiting = nil // it is c: every other commit before it is done
	p.mu.Unlock()
	maps.Copy(p.places, c.places)
	err := p.write(c.places)
	if err != nil {
		err = fmt.Errorf("save the positions of sink %s: %w", p.sink, err)
	}
	c.done, c.err = true, err
	p.mu.Lock()
	p.trouble = err
	p.mu.Unlock()
	return err
}

// write appends a line, or replaces the file.
func (p *positions) write(changed map[string]place) error {
	if p.file == nil || p.size > maxPositions {
		return p.replace()
	}
	text := line{}.encode(changed)
	_, err := p.file.Write(text)
	if err == nil {
		err = p.file.Sync()
	}
	if err != nil {
		p.file.Close() // how much of it is there, nobody knows
		p.file = nil
		return err
	}
	p.size += int64(len(text))
	return nil
}

// replace writes the file anew.
func (p *positions) replace() error {
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
	text := line{Format: positionsFormat, Sink: p.sink}.encode(p.places)
	if err := durable.ReplaceIn(p.fs, p.path, text); err != nil {
		return err
	}
	file, err := p.fs.Open(p.path, os.O_WRONLY)
	if err != nil {
		return err
	}
	if _, err := file.Seek(int64(len(text)), io.SeekStart); err != nil {
		file.Close()
		return err
	}
	p.file, p.size = file, int64(len(text))
	return nil
}

// err returns why the last save failed; nil: it did not.
func (p *positions) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble
}

// close closes the file; what was saved is durable already.
func (p *positions) close() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file = nil
	return err
}
