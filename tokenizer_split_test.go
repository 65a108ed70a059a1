package photon

import (
	"testing"
	"unicode"
	"unicode/utf8"
)

// What the scanners of well-known patterns take of a text, at their bounds.
func TestScanners(t *testing.T) {
	for _, c := range []struct {
		what string
		next func(string) int
		text string
		want int
	}{
		{"o200k", nextO200k, "1234567", 3}, {"tekken", nextTekken, "1234567", 1}, {"o200k", nextO200k, "12a", 2},
		{"o200k", nextO200k, "a'ſb", 4}, {"tekken", nextTekken, "a'sb", 1},
		{"upper and lower", upperWord, "ABcd1", 4}, {"upper", upperWord, "AB1", 2}, {"lower alone", upperWord, "cd", 0},
		{"kana and han", nextHanKana, "\u3040ヿ一龥a", 12}, {"below kana", nextHanKana, "\u303f一", 3},
		{"above kana", nextHanKana, "\u3100一", 3}, {"below han", nextHanKana, "\u4dff一", 3},
		{"above han", nextHanKana, "\u9fa6一", 3},
		{"folded", func(s string) int { return contraction(s, true) }, "'ſx", 3},
		{"not folded", func(s string) int { return contraction(s, false) }, "'ſx", 0},
		{"upper, folded", func(s string) int { return contraction(s, true) }, "'LLx", 3},
		{"upper, not folded", func(s string) int { return contraction(s, false) }, "'LLx", 0},
	} {
		if got := c.next(c.text); got != c.want {
			t.Errorf("%s: %d bytes of %q, want %d", c.what, got, c.text, c.want)
		}
	}
	for r := range rune(utf8.RuneSelf) {
		want := otherClass
		switch {
		case unicode.IsLetter(r):
			want = letterClass
		case unicode.IsNumber(r):
			want = numberClass
		case unicode.IsSpace(r):
			want = spaceClass
		}
		if got, n := classAt(string(r)); got != want || n != 1 {
			t.Errorf("%q is of class %v, want %v", r, got, want)
		}
	}
}
