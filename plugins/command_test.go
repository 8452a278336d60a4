package plugins_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/mzdio/mzd/core"
	"github.com/mzdio/mzd/plugins"
)

func TestDescribe(t *testing.T) {
	info, err := command(t, "keeper").Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Kind != plugins.KindSink || info.Doc != "Keeps rows in a file." || info.Version != "1.2" || info.Protocol != 1 || !info.KeepsPositions || info.Broadcasts {
		t.Errorf("got %+v", info)
	}
	if got, want := len(info.Settings.Fields), 2; got != want {
		t.Errorf("%d settings, want %d", got, want)
	}
}

func TestSink(t *testing.T) {
	c := command(t, "keeper")
	info, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kept")
	sink, err := c.Sink(info).Open(t.Context(), json.RawMessage(`{"file":"`+file+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	v := &core.View{Name: "v", Columns: []core.Column{{Name: "n", Type: "int8"}}}
	b := core.Batch{View: v, Upper: core.Token{Time: 5, Generation: "g"}, Updates: core.UpdatesOf([]core.Update{{Time: 4, Diff: 1, Row: "[1]"}})}
	if err := sink.Write(t.Context(), []core.Batch{b}); err != nil {
		t.Fatal(err)
	}
	at, err := sink.(core.Positioner).Position(t.Context(), v)
	if err != nil || at != b.Upper {
		t.Errorf("at %v, %v", at, err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	t.Logf("%s %v", text, err)
}

func TestSource(t *testing.T) {
	c := command(t, "source")
	info, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	source, err := c.Source(info).Open(t.Context(), json.RawMessage(`{"to": 5000}`))
	if err != nil {
		t.Fatal(err)
	}
	defer source.(io.Closer).Close()
	n := 0
	if err := source.Run(t.Context(), "3", func(_ context.Context, events ...core.Event) error {
		n += len(events)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n != 4997 {
		t.Errorf("got %d events", n)
	}
	if got := source.(core.Identifier).Identify([]byte("7")); got != "id7" {
		t.Errorf("got %q", got)
	}
}
