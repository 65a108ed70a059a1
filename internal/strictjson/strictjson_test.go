package strictjson

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/photon-lm/photon/internal/bounded"
)

func TestCheck(t *testing.T) {
	for _, text := range []string{
		`{}`, ` null `, `[{"a":1},{"a":2}]`, `{"a":{"a":1},"b":["a","a"]}`, `"\ud83d\ude00"`, `"\\ud800"`,
		`{"a":"\"b\":"}`, `{"a\"":1,"a":2}`, `{"A":1,"a":2}`, "\"\ufffd\"",
	} {
		if err := Check("text", []byte(text), math.MaxInt); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]Error{
		"{\"a\":\"\xff\"}":            {"", `the text is not UTF-8: its byte 6 is \xff`},
		"\ufeff{}":                    {"", "the text begins with a byte order mark"},
		``:                            {"", "the text is no JSON: unexpected end"},
		`{} x`:                        {"", "the text is no JSON: invalid character 'x'"},
		`"\ud800"`:                    {"", `\ud800 at byte 1 of the text is half of a surrogate pair`},
		`["\ud83d\ud83d\ude00"]`:      {"", `\ud83d at byte 2 of the text is half`},
		`{"\udc00\ud800":1}`:          {"", `\udc00 at byte 2 of the text is half`},
		`"\\\ud800x"`:                 {"", `\ud800 at byte 3 of the text is half`},
		`"\ud800`:                     {"", "the text is no JSON"},
		`{"a":1,"b":[],"a":2}`:        {"a", `field "a" stands twice in one object`},
		`[{"b":{"a":1,"\u0061" :2}}]`: {"a", `field "a" stands twice in one object`},
	} {
		var got *Error
		if err := Check("text", []byte(text), math.MaxInt); !errors.As(err, &got) || got.Field != want.Field ||
			!strings.HasPrefix(got.Message, want.Message) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Only objects down to the depth are looked at; what is behind a deeper one is not forgotten.
func TestCheckDepth(t *testing.T) {
	for depth := range 6 {
		if err := Check("text", []byte(`{"a":{"b":[{"c":1,"c":2}]}}`), depth); (err != nil) != (depth >= 4) {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
	var got *Error
	err := Check("text", []byte(`{"a":{"b":1,"b":2},"c":1,"c":2}`), 1)
	if !errors.As(err, &got) || got.Field != "c" {
		t.Errorf("%v", err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"a":["\ud83d\ude00",{"b":"\\"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		bounded.Run(t, 8*len(data)+1<<20, func() { Check("text", data, math.MaxInt) })
	})
}
