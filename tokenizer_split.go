package photon

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

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
