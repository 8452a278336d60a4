package plugins

import (
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// Impatient shortens what a plugin may take: to start, and to answer. The test
// must not run beside others.
func Impatient(t *testing.T, start, call, ping time.Duration) {
	was := []time.Duration{startTimeout, callTimeout, pingEvery, pingTimeout, closeTimeout}
	startTimeout, callTimeout, pingEvery, pingTimeout, closeTimeout = start, call, ping, ping, call
	t.Cleanup(func() {
		startTimeout, callTimeout, pingEvery, pingTimeout, closeTimeout = was[0], was[1], was[2], was[3], was[4]
	})
}

// Handshake is what a plugin is served with.
var Handshake = handshake

// PluginKey is the name of what it serves.
const PluginKey = pluginKey

// Register makes a plugin of go-plugin of services.
func Register(services func(*grpc.Server)) goplugin.Plugin { return connection{register: services} }

// What cuts are made of.
var (
	Pieces  = pieces
	ToViews = toViews
)

const (
	PieceBytes      = pieceBytes
	MaxMessageBytes = maxMessageBytes
)

// Assembler puts pieces together.
type Assembler struct{ a assembler }

// Describe takes views.
func (a *Assembler) Describe(v *mzdv1.Views) error { return a.a.describe(v) }

// Add takes a piece.
func (a *Assembler) Add(p *mzdv1.Piece) ([]core.Batch, error) { return a.a.add(p) }
