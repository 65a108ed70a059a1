package strictjson

import (
	"encoding/json"
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
	for text, want := range map[string]struct{ field, says string }{
		"{\"a\":\"\xff\"}":            {"", `byte 6: \xff is invalid UTF-8`},
		"\ufeff{}":                    {"", "byte 0: want a value, found a byte order mark"},
		``:                            {"", "byte 0: want a value, found the end of the text"},
		`nil`:                         {"", "byte 0: want a value, found 'n'"},
		`[null,€]`:                    {"", "byte 6: want a value, found '€'"},
		`{} x`:                        {"", "byte 3: something stands after the end"},
		`"\ud800"`:                    {"", `byte 1: \ud800 is half of a surrogate pair`},
		`["\ud83d\ud83d\ude00"]`:      {"", `byte 2: \ud83d is half`},
		`{"\udc00\ud800":1}`:          {"", `byte 2: \udc00 is half`},
		`"\\\ud800x"`:                 {"", `byte 3: \ud800 is half`},
		`"\ud800`:                     {"", `byte 1: \ud800 is half`},
		strings.Repeat("[", 65):       {"", "byte 65: nested deeper than 64"},
		`{"a":1,"b":[],"a":2}`:        {"a", `byte 17: key "a" stands twice`},
		`[{"b":{"a":1,"\u0061" :2}}]`: {"a", `byte 21: key "a" stands twice`},
	} {
		var got *Error
		if err := Check("text", []byte(text), math.MaxInt); !errors.As(err, &got) || got.Field != want.field ||
			!strings.HasPrefix(got.Message, want.says) ||
			!strings.HasSuffix(got.Message, ": the text is to be strict JSON") {
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
		var all error
		bounded.Run(t, 8*len(data)+1<<20, func() { all = Check("text", data, math.MaxInt) })
		outer := Check("text", data, 1)
		if all == nil && outer != nil || outer == nil && !json.Valid(data) {
			t.Fatalf("%q: %v, and at depth 1 %v", data, all, outer)
		}
	})
}
