package photon

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/photon-lm/photon/internal/bounded"
)

func readJSON(data []byte) error {
	r, err := newJSONReader(data)
	if err != nil {
		return err
	}
	if err := r.skip(); err != nil {
		return err
	}
	return r.end()
}

func TestJSONStrings(t *testing.T) {
	for text, want := range map[string]string{
		`""`: "", `"abc"`: "abc", `"é€😀"`: "é€😀", `"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t",
		`"\u0041\u00e9\uD83D\ude00\u0000"`: "Aé😀\x00", `"a\u005Cb"`: `a\b`,
	} {
		r, err := newJSONReader([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.string()
		if err == nil {
			err = r.end()
		}
		if err != nil || got != want {
			t.Errorf("%s is read as %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestJSONRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", "x", "nul", "nulll", "tru", "truer", "fals", "-", "--1", "1e", "1e+", ".5", "00", "1.e1", "0x1", "1 2",
		"[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "]", "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{a:1}`, `{'a':1}`, `{1:1}`, `{"a":1}}`,
		`{"a":1,"a":2}`, `{"a":1,"b":2,"\u0061":3}`, `[{"a":{"b":1,"b":1}}]`,
		`"`, `"a`, `"\`, `"\"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\u123`, `"\ud800"`, `"\ud800\u0041"`, `"\ud800\u00"`, `"\udc00\ud800"`, "\"\x1f\"", "\"\\n\n\"", "\"\xc0\x80\"", "\"\\n",
		"\ufeff1", "1\x00", "1\v", strings.Repeat("[", maxJSONDepth+1) + strings.Repeat("]", maxJSONDepth+1),
	} {
		if err := readJSON([]byte(text)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: error %v, want one that is %q", text, err, ErrCorrupt)
		}
	}
	if err := readJSON([]byte(strings.Repeat("[", maxJSONDepth) + strings.Repeat("]", maxJSONDepth))); err != nil {
		t.Error(err)
	}
}

// An object may have as many keys as its text has room for, and each of them once.
func TestJSONKeys(t *testing.T) {
	for _, n := range []int{0, 1, 31, 32, 33, 34, 300_000} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%d":0,`, i)
		}
		if err := readJSON([]byte("{" + b.String() + `"last":0}`)); err != nil {
			t.Errorf("%d keys: %v", n+1, err)
		}
		for _, again := range []int{0, n / 2, n - 1} {
			if text := fmt.Sprintf(`{%s"\u00%02x%s":0}`, b.String(), fmt.Sprint(again)[0], fmt.Sprint(again)[1:]); again >= 0 && n > 0 {
				if err := readJSON([]byte(text)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "stands twice") {
					t.Errorf("%d keys, and key %d again: %v", n, again, err)
				}
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
		"numbers": list("0"), "strings": list(`""`), "escapes": list(`"\n"`), "lists": list("[]"), "objects": list("{}"),
		"one key": list(few(1)), "9 keys": list(few(9)), "32 keys": list(few(32)), "33 keys": list(few(33)), "57 keys": list(few(57)), "66 keys": list(few(66)), "many keys": "{" + keys.String() + `"":0}`,
		"a long string": `"` + strings.Repeat("x", size) + `"`, "a long escaped string": `"` + strings.Repeat(`\n`, size/2) + `"`,
	} {
		if n := allocated(func() {
			if err := readJSON([]byte(text)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}); n > uint64(8*len(text)+1<<20) {
			t.Errorf("%s: %d bytes allocated for a text of %d", name, n, len(text))
		}
	}
}

// Whatever passes here is JSON to encoding/json too, and what does not is not, or breaks a rule that encoding/json does not have.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{photonConfigText, llamaConfigText, `{"a":[1,-0.5e+3,true,false,null,"\u00e9\ud83d\ude00",{}]}`, `"\ud800"`, `{"a":1,"a":2}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var err error
		bounded.Run(t, 8*len(data)+1<<20, func() { err = readJSON(data) })
		if err == nil && !json.Valid(data) {
			t.Fatalf("%q passes", data)
		}
		if err == nil && data[0] == '"' {
			r, _ := newJSONReader(data)
			got, _ := r.string()
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

func TestJSONSurrogates(t *testing.T) {
	for text, want := range map[string]string{
		`"\ud800\udc00"`: "\U00010000", `"\udbff\udfff"`: "\U0010ffff", `"\ud83d\ude00"`: "😀",
		`"\ud7ff\ue000"`: "\ud7ff\ue000",
		`"\ud800\udbff"`: "", `"\ud800\ue000"`: "", `"\udc00"`: "", `"\ud800"`: "", `"\ud800x"`: "",
	} {
		r, err := newJSONReader([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.string(); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}

// A key that stands twice is found among few and among many.
func TestJSONKeyTwice(t *testing.T) {
	for _, n := range []int{1, 2, 31, 32, 33, 34, 300} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, `"%d":0,`, i)
		}
		if err := readJSON([]byte("{" + text.String() + `"x":0}`)); err != nil {
			t.Errorf("%d keys: %v", n, err)
		}
		for _, again := range []int{0, n - 1} {
			err := readJSON(fmt.Appendf(nil, `{%s"%d":0}`, text.String(), again))
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "stands twice") {
				t.Errorf("%d keys and %d again: %v", n, again, err)
			}
		}
	}
}
