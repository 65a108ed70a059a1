package photon

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

//go:embed tokenizer_nfc.txt
var nfcData string

// nfcTable is what normalization form C has to know of Unicode, Hangul aside, which is arithmetic.
type nfcTable struct {
	runes   map[rune]nfcRune // those not listed stand as they are, whatever precedes them
	compose map[[2]rune]rune
}

type nfcRune struct {
	class uint8  // canonical combining class; 0: a starter
	joins bool   // may reorder or compose with what precedes it
	parts []rune // canonical decomposition, down to the last
}

// Hangul: a syllable is a lead, a vowel and possibly a tail.
const (
	hangulLead, hangulLeads   = 0x1100, 19
	hangulVowel, hangulVowels = 0x1161, 21
	hangulTail, hangulTails   = 0x11a7, 28 // the first tail is none at all
	hangulSyllable            = 0xac00
)

// nfcTables reads the table when a tokenizer first asks for it.
var nfcTables = sync.OnceValue(func() *nfcTable {
	t := &nfcTable{runes: map[rune]nfcRune{}, compose: map[[2]rune]rune{}}
	code := func(hex string) rune {
		r, err := strconv.ParseUint(hex, 16, 21)
		if err != nil {
			panic(err)
		}
		return rune(r)
	}
	for line := range strings.Lines(nfcData) {
		fields := strings.Fields(line)
		switch fields[0] {
		case "class":
			class, _ := strconv.Atoi(fields[1])
			for _, span := range fields[2:] {
				first, last, _ := strings.Cut(span, "-")
				for r := code(first); r <= code(last); r++ {
					t.runes[r] = nfcRune{class: uint8(class), joins: true}
				}
			}
		case "is", "no":
			whole := t.runes[code(fields[1])]
			for _, part := range fields[2:] {
				whole.parts = append(whole.parts, code(part))
			}
			t.runes[code(fields[1])] = whole
			if fields[0] == "is" {
				second := t.runes[whole.parts[1]]
				second.joins = true
				t.runes[whole.parts[1]] = second
				t.compose[[2]rune(whole.parts)] = code(fields[1])
			}
		}
	}
	for r := range t.runes {
		whole := t.runes[r]
		whole.parts = t.decompose(nil, r)
		whole.joins = whole.joins || t.runes[whole.parts[0]].joins
		t.runes[r] = whole
	}
	for r := rune(hangulVowel); r < hangulVowel+hangulVowels; r++ {
		t.runes[r] = nfcRune{joins: true, parts: []rune{r}}
	}
	for r := rune(hangulTail + 1); r < hangulTail+hangulTails; r++ {
		t.runes[r] = nfcRune{joins: true, parts: []rune{r}}
	}
	return t
})

func (t *nfcTable) decompose(dst []rune, r rune) []rune {
	parts := t.runes[r].parts
	if len(parts) == 0 || len(parts) == 1 && parts[0] == r {
		return append(dst, r)
	}
	for _, part := range parts {
		dst = t.decompose(dst, part)
	}
	return dst
}

// nfc returns text in normalization form C. Bytes that are not UTF-8 stay as they are.
func nfc(text string) string {
	// Below U+0300, whose first byte is 0xcc, everything is in form C already.
	if !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x300 && r != utf8.RuneError }) {
		return text
	}
	t := nfcTables()
	out := make([]byte, 0, len(text))
	var runes []rune
	for len(text) > 0 {
		// A segment reaches from one rune to the next that does not look back.
		r, n := utf8.DecodeRuneInString(text)
		plain := len(t.runes[r].parts) == 0
		for n < len(text) && !(r == utf8.RuneError && n == 1) {
			next, size := utf8.DecodeRuneInString(text[n:])
			if !t.runes[next].joins {
				break
			}
			plain = false
			n += size
		}
		if plain {
			out = append(out, text[:n]...)
		} else {
			runes = runes[:0]
			for _, r := range text[:n] {
				if parts := t.runes[r].parts; len(parts) > 0 {
					runes = append(runes, parts...)
				} else {
					runes = append(runes, r)
				}
			}
			t.order(runes)
			for _, r := range t.composed(runes) {
				out = utf8.AppendRune(out, r)
			}
		}
		text = text[n:]
	}
	return string(out)
}

// order sorts each row of non-starters by class, equal ones as they stand.
func (t *nfcTable) order(runes []rune) {
	for i := 0; i < len(runes); i++ {
		start := i
		for i < len(runes) && t.runes[runes[i]].class != 0 {
			i++
		}
		slices.SortStableFunc(runes[start:i], func(a, b rune) int {
			return int(t.runes[a].class) - int(t.runes[b].class)
		})
	}
}

// composed puts starters and what follows them together where nothing stands between, in place.
func (t *nfcTable) composed(runes []rune) []rune {
	out := runes[:0]
	starter := -1
	var last uint8 // class of the last rune of out
	for _, r := range runes {
		class := t.runes[r].class
		if starter >= 0 && (starter == len(out)-1 || last < class) {
			if whole, ok := t.pair(out[starter], r); ok {
				out[starter] = whole
				continue
			}
		}
		if class == 0 {
			starter = len(out)
		}
		last = class
		out = append(out, r)
	}
	return out
}

func (t *nfcTable) pair(a, b rune) (rune, bool) {
	lead, vowel, tail := a-hangulLead, b-hangulVowel, b-hangulTail
	if 0 <= lead && lead < hangulLeads && 0 <= vowel && vowel < hangulVowels {
		return hangulSyllable + (lead*hangulVowels+vowel)*hangulTails, true
	}
	syllable := a - hangulSyllable
	if 0 <= syllable && syllable < hangulLeads*hangulVowels*hangulTails && syllable%hangulTails == 0 && 0 < tail && tail < hangulTails {
		return a + tail, true
	}
	whole, ok := t.compose[[2]rune{a, b}]
	return whole, ok
}
