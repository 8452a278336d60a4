package plugins_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
	"github.com/mzdio/mzd/plugins/sinks/websocket"
)

// The test binary is also the plugins that the tests run: it is one of these when
// the environment says which.
const actAs = "MZD_TEST_PLUGIN"

var acts = map[string]func(){
	"keeper":    func() { plugins.ServeSink(newKeeper, plugins.Doc("Keeps rows in a file."), plugins.Version("1.2")) },
	"websocket": func() { plugins.NewSink("websocket", "Serves views.", websocket.New).Serve() },
	"source":    func() { plugins.ServeSource(newCounter, plugins.Doc("Counts.")) },
}

func TestMain(m *testing.M) {
	if act, ok := acts[os.Getenv(actAs)]; ok {
		act()
		return
	}
	goleak.VerifyTestMain(m)
}

// command runs the test binary as a plugin.
func command(t *testing.T, act string) plugins.Command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return plugins.Command{Path: exe, Env: map[string]string{actAs: act}}
}

type keeperSettings struct {
	File string `json:"file" required:"true" doc:"Where the rows go."`
	Mode string `json:"mode" default:"good"`
}

// keeper appends every cut to a file as a line of JSON.
type keeper struct {
	keeperSettings
	mu sync.Mutex
}

type keptBatch struct {
	View, Lower, Upper string
	Columns            []core.Column
	Updates            []core.Update
}

func newKeeper(_ context.Context, s keeperSettings) (*keeper, error) {
	if s.Mode == "taken" {
		return nil, errors.New("port taken")
	}
	return &keeper{keeperSettings: s}, nil
}

func (k *keeper) Close() error { return k.append("closed") }

func (k *keeper) Write(_ context.Context, cut []core.Batch) error {
	var kept []keptBatch
	for _, b := range cut {
		kept = append(kept, keptBatch{b.View.Name, b.Lower.String(), b.Upper.String(), b.View.Columns, b.Updates.Slice()})
	}
	return k.append(kept)
}

func (k *keeper) append(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f, err := os.OpenFile(k.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(append(line, '\n'))
	return err
}

// Position reads the file.
func (k *keeper) Position(_ context.Context, v *core.View) (core.Token, error) {
	text, err := os.ReadFile(k.File)
	if errors.Is(err, os.ErrNotExist) {
		return core.Token{}, nil
	}
	if err != nil {
		return core.Token{}, err
	}
	var at core.Token
	for line := range strings.Lines(string(text)) {
		var cut []keptBatch
		if json.Unmarshal([]byte(line), &cut) != nil {
			continue
		}
		for _, b := range cut {
			if b.View == v.Name {
				if at, err = core.ParseToken(b.Upper); err != nil {
					return core.Token{}, err
				}
			}
		}
	}
	return at, nil
}

type counterSettings struct {
	To   int    `json:"to" default:"10" doc:"The last number."`
	Mode string `json:"mode" default:"good"`
}

// counter emits the numbers after its cursor.
type counter struct{ counterSettings }

func newCounter(_ context.Context, s counterSettings) (*counter, error) { return &counter{s}, nil }

func (c *counter) Run(ctx context.Context, cursor string, emit core.EmitFunc) error {
	n := 0
	fmt.Sscan(cursor, &n)
	if err := emit(ctx); err != nil {
		return err
	}
	for n < c.To {
		n++
		text := fmt.Sprint(n)
		if err := emit(ctx, core.Event{ID: "id" + text, Cursor: text, Time: time.Unix(int64(n), 0), Data: []byte(text)}); err != nil {
			return err
		}
	}
	return nil
}

func (*counter) Identify(data []byte) string { return "id" + string(data) }
