package plugins

import (
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/mzdio/mzd/core"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// Impatient returns the command with less patience: to start, to answer, and to
// answer a health check.
func Impatient(c Command, start, call, check time.Duration) Command {
	c.limits = limits{start: start, call: call, shut: 300 * time.Millisecond, every: check / 10, check: check}
	return c
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
