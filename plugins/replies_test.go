package plugins_test

import (
	"testing"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mzdio/mzd/plugins"
	mzdv1 "github.com/mzdio/mzd/plugins/proto/mzd/v1"
)

// maxSaid bounds a text that comes of what a plugin says.
const maxSaid = 8 << 10

// FuzzReplies gives mzd any answers at all. Nothing panics, nothing grows, and what
// is shown to people is text.
func FuzzReplies(f *testing.F) {
	later, err := status.New(codes.Unavailable, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(1 << 60)})
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range []proto.Message{
		&mzdv1.DescribeResponse{Kind: mzdv1.Kind_KIND_SINK, Name: "n", SettingsSchema: []byte(`{"type":"object","properties":{"a":{"type":"string"}}}`)},
		&mzdv1.SourceReadResponse{Events: []*mzdv1.Event{{Id: "i", Cursor: "c", Data: []byte("d")}}},
		later.Proto(),
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, text := range []string{
		"1|1|unix|/d/s|grpc|", "1|1|tcp|127.0.0.1:1|grpc|cert", "1|2|unix|/d/s|grpc", "1|1|unix|/d/../s|grpc|",
		`{"@level":"info","@message":"m","k":[1]}`, `{"@message":5}`, "[WARN] text", "\x01\x02\x03\x04",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, text := range plugins.Replies(data) {
			if len(text) > maxSaid || !utf8.ValidString(text) {
				t.Errorf("%d bytes: %.100q", len(text), text)
			}
		}
	})
}
