package photon

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
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
	var b strings.Builder
	for i := range maxJSONKeys {
		fmt.Fprintf(&b, `"%d":0,`, i)
	}
	if err := readJSON([]byte("{" + b.String()[:b.Len()-1] + "}")); err != nil {
		t.Error(err)
	}
	if err := readJSON([]byte("{" + b.String() + `"x":0}`)); err == nil {
		t.Errorf("more than %d keys pass", maxJSONKeys)
	}
	if err := readJSON([]byte(strings.Repeat("[", maxJSONDepth) + strings.Repeat("]", maxJSONDepth))); err != nil {
		t.Error(err)
	}
}

// Whatever passes here is JSON to encoding/json too, and what does not is not, or breaks a rule that encoding/json does not have.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{photonConfigText, llamaConfigText, `{"a":[1,-0.5e+3,true,false,null,"\u00e9\ud83d\ude00",{}]}`, `"\ud800"`, `{"a":1,"a":2}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := readJSON(data)
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
			for _, rule := range []string{"stands twice", "surrogate", "nested deeper", "more than"} {
				if strings.Contains(err.Error(), rule) {
					return
				}
			}
			t.Fatalf("%q: %v", data, err)
		}
	})
}
