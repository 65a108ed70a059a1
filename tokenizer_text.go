package photon

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
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

// splitter is one stage of the pre-tokenizer: it may rewrite the text, then cuts it into words.
type splitter struct {
	rewrite func(text string, first bool) string // first: text is where the whole text starts; nil: as it is
	next    func(text string) int                // the length in bytes of the first word, at least 1; nil: one word
}

// split runs text through the stages and encodes the words that come out.
func (e *bpeEncoder) split(stages []splitter, text string, first bool) {
	if len(stages) == 0 {
		e.word(text)
		return
	}
	stage := stages[0]
	if stage.rewrite != nil {
		text = stage.rewrite(text, first)
	}
	for text != "" {
		n := len(text)
		if stage.next != nil {
			n = stage.next(text)
		}
		e.split(stages[1:], text[:n], first)
		text, first = text[n:], false
	}
}

// The patterns of Split, each with the scanner that does the same. A pattern of the file is compared, never run: that keeps the time linear, and Go's
// regular expressions have no look-ahead.
var splitPatterns = map[string]func(string) int{
	`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: nextGPT2,

	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`: nextLlama3,
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:      nextQwen2,
}

// nextGPT2 scans 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func nextGPT2(text string) int {
	if n := contraction(text, false); n > 0 {
		return n
	}
	start := 0
	if text[0] == ' ' {
		start = 1
	}
	if kind, n := classAt(text[start:]); n > 0 && kind != spaceClass {
		return start + n + run(text[start+n:], kind, -1)
	}
	return spaceRun(text)
}

func nextLlama3(text string) int { return nextTiktoken(text, 3) }
func nextQwen2(text string) int  { return nextTiktoken(text, 1) }

// nextTiktoken scans, for digits = d,
// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,d}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func nextTiktoken(text string, digits int) int {
	if n := contraction(text, true); n > 0 {
		return n
	}
	kind, n := classAt(text)
	switch {
	case kind == letterClass:
		return n + run(text[n:], letterClass, -1)
	case kind == numberClass:
		return n + run(text[n:], numberClass, digits-1)
	case text[0] != '\r' && text[0] != '\n':
		if letters := run(text[n:], letterClass, -1); letters > 0 {
			return n + letters
		}
	}
	start := 0
	if text[0] == ' ' {
		start = 1
	}
	if other := run(text[start:], otherClass, -1); other > 0 {
		n = start + other
		for n < len(text) && (text[n] == '\r' || text[n] == '\n') {
			n++
		}
		return n
	}
	spaces := text[:run(text, spaceClass, -1)]
	if newline := strings.LastIndexAny(spaces, "\r\n"); newline >= 0 {
		return newline + 1
	}
	return spaceRun(text)
}

// spaceRun scans \s+(?!\S)|\s+ where text begins with white space: the last space before a word is left to the word.
func spaceRun(text string) int {
	n := run(text, spaceClass, -1)
	if n == len(text) {
		return n
	}
	if _, last := utf8.DecodeLastRuneInString(text[:n]); last < n {
		return n - last
	}
	return n
}

// contraction scans 's|'t|'re|'ve|'m|'ll|'d and returns 0 where there is none. Folding case takes in ſ, which folds to s.
func contraction(text string, fold bool) int {
	if text[0] != '\'' {
		return 0
	}
	for _, c := range [...]string{"s", "t", "re", "ve", "m", "ll", "d"} {
		tail := text[1:]
		if strings.HasPrefix(tail, c) || fold && len(tail) >= len(c) && strings.EqualFold(tail[:len(c)], c) {
			return 1 + len(c)
		}
	}
	if fold && strings.HasPrefix(text[1:], "ſ") {
		return 1 + len("ſ")
	}
	return 0
}

// nextDigit cuts every digit from everything else; nextDigits cuts rows of digits.
func nextDigit(text string) int {
	kind, n := classAt(text)
	if kind == numberClass {
		return n
	}
	return n + notNumbers(text[n:])
}

func nextDigits(text string) int {
	if n := run(text, numberClass, -1); n > 0 {
		return n
	}
	return notNumbers(text)
}

func notNumbers(text string) int {
	for n := 0; n < len(text); {
		kind, size := classAt(text[n:])
		if kind == numberClass {
			return n
		}
		n += size
	}
	return len(text)
}

// nextEnd cuts behind every mark, nextStart before.
func nextEnd(text, mark string) int {
	if before, _, found := strings.Cut(text, mark); found {
		return len(before) + len(mark)
	}
	return len(text)
}

func nextStart(text, mark string) int {
	_, first := utf8.DecodeRuneInString(text)
	if before, _, found := strings.Cut(text[first:], mark); found {
		return first + len(before)
	}
	return len(text)
}

func withPrefix(text, prefix string) string {
	if strings.HasPrefix(text, prefix) {
		return text
	}
	return prefix + text
}

// charClass is what the patterns tell apart: \p{L}, \p{N}, \s, and the rest.
type charClass uint8

const (
	otherClass charClass = iota
	letterClass
	numberClass
	spaceClass
)

// classAt returns the class of the first character of text and its size, 0 at the end. A byte that is not UTF-8 is a character of no class.
func classAt(text string) (charClass, int) {
	if text == "" {
		return otherClass, 0
	}
	if c := text[0]; c < utf8.RuneSelf {
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z':
			return letterClass, 1
		case '0' <= c && c <= '9':
			return numberClass, 1
		case c == ' ' || '\t' <= c && c <= '\r':
			return spaceClass, 1
		}
		return otherClass, 1
	}
	r, n := utf8.DecodeRuneInString(text)
	switch {
	case unicode.IsLetter(r):
		return letterClass, n
	case unicode.IsNumber(r):
		return numberClass, n
	case unicode.IsSpace(r):
		return spaceClass, n
	}
	return otherClass, n
}

// run returns the length of the row of at most limit characters of one class that text begins with; a negative limit is none.
func run(text string, kind charClass, limit int) int {
	n := 0
	for ; n < len(text) && limit != 0; limit-- {
		k, size := classAt(text[n:])
		if k != kind {
			break
		}
		n += size
	}
	return n
}
