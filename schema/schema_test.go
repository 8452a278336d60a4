package schema_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mzdio/mzd/schema"
)

type settings struct {
	Listen  string            `json:"listen" default:"127.0.0.1:8875" doc:"address to serve on"`
	Format  string            `json:"format" default:"auto" enum:"auto|json|text" doc:"how lines look; a|b"`
	Stream  string            `json:"stream" required:"true"`
	Strict  bool              `json:"strict" default:"true"`
	Port    uint16            `json:"port"`
	Small   int8              `json:"small"`
	Ratio   float64           `json:"ratio" default:"0.5"`
	Wait    schema.Duration   `json:"wait" default:"1m30s" doc:"how long"`
	Size    schema.Bytes      `json:"size" default:"64KiB"`
	Origins []string          `json:"origins" default:"[\"a\",\"b\"]"`
	Headers map[string]string `json:"headers"`
	Limits  limits            `json:"limits" doc:"what a stranger may cost"`
	Proxy   *proxy            `json:"proxy"`
	Routes  []proxy           `json:"routes"`
	Raw     json.RawMessage   `json:"raw"`
	Token   string            `json:"token" secret:"true"`
	Skipped func()            `json:"-"`
	private int
}

type limits struct {
	Min int `json:"min"`
	Max int `json:"max" default:"10"`
}

func (l limits) Validate() error {
	var errs []error
	if l.Min < 0 {
		errs = append(errs, schema.Errorf("min", "is negative"))
	}
	if l.Min > l.Max {
		errs = append(errs, schema.Errorf("max", "is below min"))
	}
	return errors.Join(errs...)
}

type proxy struct {
	URL string `json:"url" required:"true"`
}

func TestDecodeFillsInDefaults(t *testing.T) {
	got, err := schema.Decode[settings]([]byte(`{
		"stream": "s", "strict": false, "limits": {"min": 3}, "routes": [{"url": "u"}],
		"raw": {"deep": [1, 12345678901234567890]}, "headers": {"A.b": "c"}, "wait": null}`))
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		Listen: "127.0.0.1:8875", Format: "auto", Stream: "s", Ratio: 0.5,
		Wait: schema.Duration(90 * time.Second), Size: 64 << 10,
		Origins: []string{"a", "b"}, Headers: map[string]string{"A.b": "c"},
		Limits: limits{Min: 3, Max: 10}, Routes: []proxy{{URL: "u"}},
		Raw: json.RawMessage(`{"deep":[1,12345678901234567890]}`),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodeReportsEveryProblem(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"missing", `{}`, []string{"stream: is required"}},
		{"nothing at all", ``, []string{"stream: is required"}},
		{"empty counts as missing", `{"stream": ""}`, []string{"stream: is required"}},
		{"not an object", `[1]`, []string{"want an object with keys, got a list"}},
		{"two values", `{} {}`, []string{"parse JSON: more than one value"}},
		{"all at once", `{"listen": 8875, "format": "jsno", "strict": "yes", "port": 70000, "small": 128, "ratio": "1",
			"wait": 10, "size": "20XB", "origins": "a", "headers": {"a": null, "b": []}, "stream": true}`, []string{
			"listen: want a string, got the number 8875; put it in quotes",
			`format: want auto, json or text, got "jsno"; did you mean "json"?`,
			"stream: want a string, got true; put it in quotes",
			`strict: want true or false, got "yes"`,
			"port: want a whole number from 0 to 65535, got the number 70000",
			"small: want a whole number from -128 to 127, got the number 128",
			`ratio: want a number, got "1"`,
			"wait: want a duration such as 500ms or 10m, got the number 10",
			`size: want a size such as 64KB or 20GB, got "20XB"`,
			`origins: want a list such as [a, b], got "a"`,
			"headers.a: want a string, got nothing",
			"headers.b: want a string, got a list",
		}},
		{"fractions are not whole", `{"stream": "s", "small": 1.5, "port": -1}`, []string{
			"port: want a whole number from 0 to 65535, got the number -1",
			"small: want a whole number, got the number 1.5",
		}},
		{"unknown keys", `{"stream": "s", "lisen": "x", "zzzzz": 1, "limits": {"mx": 1}}`, []string{
			`limits.mx: unknown key; did you mean "max"?`,
			`lisen: unknown key; did you mean "listen"?`,
			`zzzzz: unknown key; known: format, headers, limits, listen, origins, port, proxy, ratio, raw, routes, size, small, stream, strict, token, wait`,
		}},
		{"nested", `{"stream": "s", "proxy": {}, "routes": [{"url": "u"}, {"ulr": 1}]}`, []string{
			"proxy.url: is required",
			"routes[1].url: is required",
			`routes[1].ulr: unknown key; did you mean "url"?`,
		}},
		{"validators of clean objects only", `{"stream": "s", "limits": {"min": -1, "max": -2}, "port": "x"}`, []string{
			`port: want a whole number, got "x"`,
			"limits.min: is negative",
			"limits.max: is below min",
		}},
		{"a validator is not asked about what is broken", `{"stream": "s", "limits": {"min": -1, "max": "x"}}`, []string{
			`limits.max: want a whole number, got "x"`,
		}},
		{"secrets are not shown", `{"stream": "s", "token": 123456}`, []string{
			"token: want a string, got a number; put it in quotes",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := schema.Decode[settings]([]byte(tt.in))
			var got []string
			for _, e := range schema.FieldErrors(err) {
				got = append(got, e.Error())
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

func TestTextTakesTheKindThatIsWanted(t *testing.T) {
	s := schema.Of[settings]()
	doc, problems := s.Check(map[string]any{
		"stream": schema.Text("5"), "strict": schema.Text("false"), "port": schema.Text("80"), "ratio": schema.Text("1.5"),
		"wait": schema.Text("2s"), "size": schema.Text("1GB"), "raw": []any{schema.Text("x")},
	})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got, err := json.Marshal(doc)
	want := `{"format":"auto","limits":{"max":10},"listen":"127.0.0.1:8875","origins":["a","b"],"port":80,"ratio":1.5,"raw":["x"],"size":"1GB","stream":"5","strict":false,"wait":"2s"}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestTextIsNeverShown(t *testing.T) {
	const hidden = "hunter2"
	s := schema.Of[settings]()
	in := map[string]any{}
	for _, f := range s.Fields {
		if f.Schema.Kind != schema.String || f.Schema.Enum != nil {
			in[f.Name] = schema.Text(hidden)
		}
	}
	_, problems := s.Check(in)
	if got, want := len(problems), 13; got != want {
		t.Errorf("got %d problems, want %d: %v", got, want, problems)
	}
	for _, p := range problems {
		if strings.Contains(p.Error(), hidden) {
			t.Errorf("shows the value: %s", p)
		}
	}
}

func TestCheckLeavesOutWhatIsWrong(t *testing.T) {
	doc, problems := schema.Of[settings]().Check(map[string]any{
		"stream": "s", "listen": []any{}, "routes": []any{"x", map[string]any{"url": "u"}}, "nope": "x",
	})
	if got, want := len(problems), 3; got != want {
		t.Errorf("got %d problems, want %d: %v", got, want, problems)
	}
	m := doc.(map[string]any)
	if m["listen"] != nil || m["nope"] != nil || m["stream"] != "s" || len(m["routes"].([]any)) != 1 {
		t.Errorf("got %v", m)
	}
}

func TestOfPanicsOnMistakesInTags(t *testing.T) {
	type loop struct {
		Next []struct{ loop *int } `json:"next" default:"x"`
	}
	tests := []struct {
		name string
		call func()
		want string
	}{
		{"no key", func() { schema.Of[struct{ A string }]() }, "no json tag"},
		{"default of another kind", func() {
			schema.Of[struct {
				A int `json:"a" default:"x"`
			}]()
		}, "default x"},
		{"default outside the enum", func() {
			schema.Of[struct {
				A string `json:"a" default:"x" enum:"y|z"`
			}]()
		}, "want y or z"},
		{"enum of numbers", func() {
			schema.Of[struct {
				A int `json:"a" enum:"1|2"`
			}]()
		}, "enum and secret are for strings"},
		{"no JSON", func() {
			schema.Of[struct {
				A chan int `json:"a"`
			}]()
		}, "chan int has no schema"},
		{"decodes itself", func() {
			schema.Of[struct {
				A time.Time `json:"a"`
			}]()
		}, "decodes itself"},
		{"bytes", func() {
			schema.Of[struct {
				A []byte `json:"a"`
			}]()
		}, "has no schema"},
		{"keys that are numbers", func() {
			schema.Of[struct {
				A map[int]string `json:"a"`
			}]()
		}, "keys that are not strings"},
		{"not a struct", func() { schema.Of[string]() }, "not a struct"},
		{"contains itself", func() { schema.Of[tree]() }, "contains itself"},
		{"wrong list", func() { schema.Of[loop]() }, "default x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, tt.want) {
					t.Errorf("got %q, want something with %q", got, tt.want)
				}
			}()
			tt.call()
		})
	}
}

type tree struct {
	Children []tree `json:"children"`
}

func TestMarkdown(t *testing.T) {
	const want = "| key | type | default | description |\n" +
		"|---|---|---|---|\n" +
		"| `listen` | string | `127.0.0.1:8875` | address to serve on |\n" +
		"| `format` | auto, json or text | `auto` | how lines look; a\\|b |\n" +
		"| `stream` | string | *required* |  |\n" +
		"| `strict` | bool | `true` |  |\n" +
		"| `port` | integer |  |  |\n" +
		"| `small` | integer |  |  |\n" +
		"| `ratio` | number | `0.5` |  |\n" +
		"| `wait` | duration | `1m30s` | how long |\n" +
		"| `size` | bytes | `64KiB` |  |\n" +
		"| `origins` | list of string | `[\"a\",\"b\"]` |  |\n" +
		"| `headers` | map of string |  |  |\n" +
		"| `limits` | object |  | what a stranger may cost |\n" +
		"| `limits.min` | integer |  |  |\n" +
		"| `limits.max` | integer | `10` |  |\n" +
		"| `proxy` | object |  |  |\n" +
		"| `proxy.url` | string | *required* |  |\n" +
		"| `routes` | list of object |  |  |\n" +
		"| `routes[].url` | string | *required* |  |\n" +
		"| `raw` | any |  |  |\n" +
		"| `token` | string |  |  |\n"
	if got := schema.Of[settings]().Markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"stream": "s", "limits": {"min": 3}, "raw": [1]}`))
	f.Add([]byte(`{"stream": "s", "size": 1e30, "wait": "-1s", "port": 1e2}`))
	f.Add([]byte(`{"stream": "s", "ratio": 1e999, "small": -0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := schema.Decode[settings](data)
		if err != nil {
			return
		}
		// What was accepted is accepted again once written out in full.
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("marshal %+v: %v", v, err)
		}
		again, err := schema.Decode[settings](out)
		if err != nil {
			t.Fatalf("decode %s again: %v", out, err)
		}
		if third, err := json.Marshal(again); err != nil || string(third) != string(out) {
			t.Fatalf("got %s, %v, want %s", third, err, out)
		}
	})
}

func TestHelp(t *testing.T) {
	type inner struct {
		URL   string `json:"url" required:"true" doc:"Where to go, see [the list](docs/list.md)."`
		Token string `json:"token" secret:"true"`
	}
	type outer struct {
		Wait    schema.Duration    `json:"wait" default:"1m30s" doc:"How long to wait before somebody else may have another try at what this one did not manage to do."`
		Strict  bool               `json:"strict"`
		Routes  []inner            `json:"routes" doc:"two\u001b[2J"`
		Regions map[string][]inner `json:"regions"`
	}
	const want = `  wait
      duration, default 1m30s
      How long to wait before somebody else may have another try at what this
      one did not manage to do.
  strict
      bool, default false
  routes
      list of object
      two�[2J
  routes[].url
      string, required
      Where to go, see the list.
  routes[].token
      string, a secret: ${NAME} or file:PATH
  regions
      map of list of object
  regions.NAME[].url
      string, required
      Where to go, see the list.
  regions.NAME[].token
      string, a secret: ${NAME} or file:PATH
`
	if got := schema.Of[outer]().Help(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
