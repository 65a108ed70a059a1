package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/photon-lm/photon/internal/bounded"
)

var errTest = errors.New("corrupt")

func readJSON(data []byte) error {
	r, err := New(data, errTest)
	if err != nil {
		return err
	}
	if err := r.Skip(); err != nil {
		return err
	}
	return r.End()
}

func TestJSONStrings(t *testing.T) {
	for text, want := range map[string]string{
		`""`: "", `"abc"`: "abc", `"é€😀"`: "é€😀", `"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t",
		`"a b\n c"`: "a b\n c", `"\u00aA\u00fF"`: "\u00aa\u00ff",
		`"\u0041\u00e9\uD83D\ude00\u0000"`: "Aé😀\x00", `"a\u005Cb"`: `a\b`,
		`"\ud800\udc00"`: "\U00010000", `"\udbff\udfff"`: "\U0010ffff", `"\ud7ff\ue000"`: "\ud7ff\ue000",
	} {
		r, err := New([]byte(text), errTest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.String()
		if err == nil {
			err = r.End()
		}
		if err != nil || got != want {
			t.Errorf("%s is read as %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestJSONRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", "x", "nul", "nulll", "tru", "truer", "fals", "-", "--1", "1e", "1e+", ".5", "00", "1.e1", "0x1", "1 2",
		"[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "]",
		"{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{a:1}`, `{'a':1}`, `{1:1}`, `{"a":1}}`,
		`{"a":1,"a":2}`, `{"a":1,"b":2,"\u0061":3}`, `[{"a":{"b":1,"b":1}}]`,
		`"`, `"a`, `"\`, `"\"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\u123`, "\"\x1f\"", "\"\\n\n\"", "\"\xc0\x80\"",
		"\"\\n", `"\ud800"`, `"\ud800x"`, `"\ud800\u0041"`, `"\ud800\u00"`, `"\ud800\udbff"`,
		`"\udfff"`, `"\udc00\udc00"`,
		`"\ud800\ue000"`, `"\udc00"`, `"\udc00\ud800"`,
		"\ufeff1", "1\x00", "1\v", strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
	} {
		if err := readJSON([]byte(text)); !errors.Is(err, errTest) {
			t.Errorf("%q: error %v, want one that is %q", text, err, errTest)
		}
	}
	if err := readJSON([]byte(strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth))); err != nil {
		t.Error(err)
	}
}

// An object may have as many keys as its text has room for, and each of them once.
func TestJSONKeys(t *testing.T) {
	for _, n := range []int{0, 1, 2, 31, 32, 33, 34, 300, 300_000} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%d":0,`, i)
		}
		if err := readJSON([]byte("{" + b.String() + `"last":0}`)); err != nil {
			t.Errorf("%d keys: %v", n+1, err)
		}
		for _, again := range []int{0, n / 2, n - 1} {
			if n == 0 {
				continue
			}
			key := fmt.Sprint(again)
			err := readJSON(fmt.Appendf(nil, `{%s"\u00%02x%s":0}`, b.String(), key[0], key[1:]))
			var wrong *Error
			if !errors.Is(err, errTest) || !errors.As(err, &wrong) || wrong.Field != key {
				t.Errorf("%d keys, and key %d again: %v", n, again, err)
			}
		}
	}
}

// Reading allocates no more than a small multiple of the text, whatever it is made of.
func TestJSONAllocation(t *testing.T) {
	const size = 8 << 20
	list := func(item string) string { return "[" + strings.Repeat(item+",", size/(len(item)+1)) + "0]" }
	var keys strings.Builder
	for i := 0; keys.Len() < size; i++ {
		fmt.Fprintf(&keys, `"%x":0,`, i)
	}
	few := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%c":0,`, 'a'+i)
		}
		return "{" + strings.TrimSuffix(b.String(), ",") + "}"
	}
	for name, text := range map[string]string{
		"numbers": list("0"), "strings": list(`""`), "escapes": list(`"\n"`),
		"lists": list("[]"), "objects": list("{}"),
		"one key": list(few(1)), "9 keys": list(few(9)), "32 keys": list(few(32)), "33 keys": list(few(33)),
		"57 keys": list(few(57)), "66 keys": list(few(66)), "many keys": "{" + keys.String() + `"":0}`,
		"a long string":         `"` + strings.Repeat("x", size) + `"`,
		"a long escaped string": `"` + strings.Repeat(`\n`, size/2) + `"`,
	} {
		if n := bounded.Allocated(func() {
			if err := readJSON([]byte(text)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}); n > uint64(8*len(text)+1<<20) {
			t.Errorf("%s: %d bytes allocated for a text of %d", name, n, len(text))
		}
	}
}

// A copy reads what the Reader reads, and neither moves the other.
func TestJSONCopy(t *testing.T) {
	r, _ := New([]byte(`[1,{"a":2},3]`), errTest)
	var got []int64
	err := r.Array(func(i int) error {
		c := r.Copy()
		if err := c.Skip(); err != nil || i == 1 {
			return errors.Join(err, r.Skip())
		}
		n, err := r.Integer()
		got = append(got, n)
		return err
	})
	if err != nil || fmt.Sprint(got) != "[1 3]" || r.End() != nil {
		t.Error(got, err)
	}
}

// Until is asked before each item of a list and of an object, and its error is the reader's.
func TestJSONUntil(t *testing.T) {
	for asked := range 7 {
		r, _ := New([]byte(`[0,{"a":[1,2]},{}]`), errTest)
		over, left := errors.New("over"), asked
		r.Until = func() error {
			if left--; left < 0 {
				return over
			}
			return nil
		}
		if err := r.Skip(); asked < 6 && err != over || asked == 6 && err != nil {
			t.Errorf("asked %d times: %v", asked, err)
		}
	}
}

// Whatever passes here is JSON to encoding/json too, and what does not is not, or breaks a rule that encoding/json does
// not have.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{
		`{"a":[1,-0.5e+3,true,false,null,"\u00e9\ud83d\ude00",{}]}`, `"\ud800"`, `{"a":1,"a":2}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var err error
		bounded.Run(t, 8*len(data)+1<<20, func() { err = readJSON(data) })
		if err == nil && !json.Valid(data) {
			t.Fatalf("%q passes", data)
		}
		if err == nil && data[0] == '"' {
			r, _ := New(data, errTest)
			got, _ := r.String()
			var want string
			if err := json.Unmarshal(data, &want); err != nil || got != want {
				t.Fatalf("%q is read as %q, want %q", data, got, want)
			}
		}
		if err != nil && json.Valid(data) && utf8.Valid(data) {
			for _, rule := range []string{"stands twice", "surrogate", "nested deeper"} {
				if strings.Contains(err.Error(), rule) {
					return
				}
			}
			t.Fatalf("%q: %v", data, err)
		}
	})
}

// Numbers that a float64 cannot tell from 0 or from an infinity are refused.
func TestJSONFloats(t *testing.T) {
	for text, want := range map[string]bool{
		"0": true, "-0.0": true, "0e999": true, "0.000e-999": true, "1e308": true, "4.9e-324": true, "-12.5E+2": true,
		"1e400": false, "-1e400": false, "1e-400": false, "-0.001e-400": false,
	} {
		r, _ := New([]byte(text), errTest)
		if _, err := r.Float(); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Len is the number of items, Room no more than their bytes can be; they are still read.
func TestJSONRoom(t *testing.T) {
	for text, want := range map[string]int{
		"[]": 0, "{ }": 0, "[1,[2,3],{}]": 3, `{"a,\"":",[","b":[1,2,3],"c":{}},7`: 3, "[1,2,x": 3, `["`: 1, `["\`: 1,
		"7,7": 0, "[": 1, "[,,,,,,,,,,,,,]": 14,
	} {
		r, _ := New([]byte(text), errTest)
		before := r.Peek()
		if got := r.Len(); got != want || r.Peek() != before {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
		if got := r.Room(2); got != min(want, len(strings.TrimSuffix(text, ",7"))/2+1) {
			t.Errorf("%s: room for %d of %d", text, got, want)
		}
	}
}

// Raw is a value as it is written, without the white space around it.
func TestJSONRaw(t *testing.T) {
	r, _ := New([]byte(`[ {"a" : [1]} , "\u0061"]`), errTest)
	var got []string
	err := r.Array(func(int) error {
		text, err := r.Raw()
		got = append(got, text)
		return err
	})
	if err != nil || strings.Join(got, "|") != `{"a" : [1]}|"\u0061"` {
		t.Errorf("%q, %v", got, err)
	}
}

func TestJSONFields(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1,"b":2}`: "", `{"x":[],"a":1}`: "", `{"a":1,"x":{"b":"b"}}`: "",
		`{"b":2}`: "a is missing", `{"a":"1"}`: "a: byte 5: want a number", `{"x":x,"a":1}`: "byte 5: want a value",
	} {
		r, _ := New([]byte(text), errTest)
		var a, b int64
		read := func(n *int64) func() error {
			return func() (err error) { *n, err = r.Integer(); return err }
		}
		err := r.Fields(Field{Key: "a", Read: read(&a), Required: true}, Field{Key: "b", Read: read(&b)})
		switch {
		case want == "" && (err != nil || a != 1 || strings.Contains(text, `"b":2`) != (b == 2)):
			t.Errorf("%s: %d, %d, %v", text, a, b, err)
		case want != "" && (!errors.Is(err, errTest) || !strings.HasPrefix(err.Error(), want)):
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Errors tell the byte at which something is wrong, or where what is wrong begins.
func TestJSONPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"\"\\n\x01\"": "byte 3: control character", `"\ud83d\u`: "byte 9: string without an end", `[1,nul]`: "byte 3: ",
	} {
		if err := readJSON([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, word := range []string{"true", "false"} {
		r, _ := New([]byte(word), errTest)
		if got, err := r.Bool(); err != nil || got != (word == "true") {
			t.Errorf("%s: %v, %v", word, got, err)
		}
	}
}
