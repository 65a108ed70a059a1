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
	for text != "" && !e.over {
		n := len(text)
		if stage.next != nil {
			n = stage.next(text)
		}
		e.split(stages[1:], text[:n], first)
		text, first = text[n:], false
	}
}

// splitPattern is a scanner that does what a pattern of Split does. It returns the length of the first match, or of
// what stands before it.
type splitPattern struct {
	next   func(string) int
	covers bool // all of any text is matched, so that to isolate the matches and to remove the rest are the same
}

// The patterns of Split. A pattern of the file is compared, never run: that keeps the time linear, and Go's regular
// expressions have no look-ahead.
const (
	patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|` +
		`\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|` +
		`\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen35 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|` +
		`\s*[\r\n]+|\s+(?!\S)|\s+`

	patternO200k = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` +
		`(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` +
		`\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternTekken = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|` +
		`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|` +
		`\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`

	// DeepSeek V3 has three, one after the other.
	patternDigits3   = `\p{N}{1,3}`
	patternHanKana   = "[一-龥\u3040-ゟ゠-ヿ]+"
	patternDeepSeek3 = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|" +
		`[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

var splitPatterns = map[string]splitPattern{
	patternGPT2:      {nextGPT2, true},
	patternLlama3:    {nextLlama3, true},
	patternQwen2:     {nextQwen2, true},
	patternQwen35:    {nextQwen35, true},
	patternO200k:     {nextO200k, true},
	patternTekken:    {nextTekken, true},
	patternDigits3:   {nextThreeDigits, false},
	patternHanKana:   {nextHanKana, false},
	patternDeepSeek3: {nextDeepSeek3, false},
}

// findPattern returns the scanner of a pattern, whether it spells the ends of lines as they are or as \r and \n.
func findPattern(pattern string) (splitPattern, bool) {
	p, known := splitPatterns[strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(pattern)]
	return p, known
}

// nextGPT2 scans 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func nextGPT2(text string) int {
	if n := contraction(text, false); n > 0 {
		return n
	}
	start := leadingSpace(text)
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
	if n := otherRun(text, "\r\n"); n > 0 {
		return n
	}
	return newlinesOrSpaces(text)
}

// nextQwen35 scans
// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func nextQwen35(text string) int {
	if n := contraction(text, true); n > 0 {
		return n
	}
	kind, n := classAt(text)
	letters := runOf(text, isLetterOrMark)
	switch {
	case kind == numberClass:
		return n
	case letters > 0:
		return letters
	case text[0] != '\r' && text[0] != '\n':
		if letters := runOf(text[n:], isLetterOrMark); letters > 0 {
			return n + letters
		}
	}
	start := leadingSpace(text)
	if other := runOf(text[start:], func(r rune) bool {
		return !unicode.IsSpace(r) && !unicode.IsNumber(r) && !isLetterOrMark(r)
	}); other > 0 {
		return start + other + newlineRun(text[start+other:], "\r\n")
	}
	return newlinesOrSpaces(text)
}

func nextO200k(text string) int  { return nextCased(text, 3, true) }
func nextTekken(text string) int { return nextCased(text, 1, false) }

// nextCased scans, for digits = d, U = \p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}, L = \p{Ll}\p{Lm}\p{Lo}\p{M}, with a contraction
// behind either of the first two or without,
// [^\r\n\p{L}\p{N}]?[U]*[L]+|[^\r\n\p{L}\p{N}]?[U]+[L]*|\p{N}{1,d}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
func nextCased(text string, digits int, contractions bool) int {
	kind, first := classAt(text)
	if kind == numberClass {
		return first + run(text[first:], numberClass, digits-1)
	}
	starts := [2]int{first, 0} // with the character that may stand in front, and without
	if kind == letterClass || text[0] == '\r' || text[0] == '\n' {
		starts[0] = 0
	}
	for _, scan := range [2]func(string) int{lowerWord, upperWord} {
		for _, start := range starts {
			n := scan(text[start:])
			if n == 0 {
				continue
			}
			n += start
			if contractions && n < len(text) {
				n += contraction(text[n:], true)
			}
			return n
		}
	}
	if n := otherRun(text, "\r\n/"); n > 0 {
		return n
	}
	return newlinesOrSpaces(text)
}

// lowerWord scans [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+
func lowerWord(text string) int {
	upper := runOf(text, isUpperLetter)
	if lower := runOf(text[upper:], isLowerLetter); lower > 0 {
		return upper + lower
	}
	// The row of the first gives its last character back that is of both.
	for upper > 0 {
		r, size := utf8.DecodeLastRuneInString(text[:upper])
		if isLowerLetter(r) {
			return upper
		}
		upper -= size
	}
	return 0
}

// upperWord scans [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*
func upperWord(text string) int {
	upper := runOf(text, isUpperLetter)
	if upper == 0 {
		return 0
	}
	return upper + runOf(text[upper:], isLowerLetter)
}

// Letters without case, and marks, are both.
func isUpperLetter(r rune) bool {
	if r < utf8.RuneSelf {
		return 'A' <= r && r <= 'Z'
	}
	return isLetterOrMark(r) && !unicode.IsLower(r)
}

func isLowerLetter(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z'
	}
	return isLetterOrMark(r) && !unicode.IsUpper(r) && !unicode.IsTitle(r)
}

func isLetterOrMark(r rune) bool { return unicode.IsLetter(r) || unicode.IsMark(r) }

// nextThreeDigits cuts rows of at most three digits from everything else.
func nextThreeDigits(text string) int {
	if n := run(text, numberClass, 3); n > 0 {
		return n
	}
	return notNumbers(text)
}

// nextHanKana cuts rows of Chinese and Japanese characters from everything else.
func nextHanKana(text string) int {
	isHanKana := func(r rune) bool { return '一' <= r && r <= '龥' || '\u3040' <= r && r <= 'ヿ' }
	if n := runOf(text, isHanKana); n > 0 {
		return n
	}
	return runOf(text, func(r rune) bool { return !isHanKana(r) })
}

// nextDeepSeek3 cuts the matches of the third pattern from everything else.
func nextDeepSeek3(text string) int {
	if n := deepSeek3(text); n > 0 {
		return n
	}
	n := 0
	for n < len(text) && deepSeek3(text[n:]) == 0 {
		_, size := utf8.DecodeRuneInString(text[n:])
		n += size
	}
	return n
}

// deepSeek3 scans, where "punctuation" is that of ASCII, and returns 0 where there is no match,
// [punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func deepSeek3(text string) int {
	isPunctuation := func(r rune) bool { return unicode.IsPunct(r) || unicode.IsSymbol(r) }
	first, n := utf8.DecodeRuneInString(text)
	if first < utf8.RuneSelf && isPunctuation(first) {
		letters := runOf(text[1:], func(r rune) bool { return 'a' <= r|0x20 && r|0x20 <= 'z' })
		if letters > 0 {
			return 1 + letters
		}
	}
	if letters := runOf(text, isLetterOrMark); letters > 0 {
		return letters
	}
	if first != '\r' && first != '\n' && !isPunctuation(first) {
		if letters := runOf(text[n:], isLetterOrMark); letters > 0 {
			return n + letters
		}
	}
	start := leadingSpace(text)
	if marks := runOf(text[start:], isPunctuation); marks > 0 {
		return start + marks + newlineRun(text[start+marks:], "\r\n")
	}
	if unicode.IsSpace(first) {
		return newlinesOrSpaces(text)
	}
	return 0
}

// leadingSpace scans " ?".
func leadingSpace(text string) int {
	if text[0] == ' ' {
		return 1
	}
	return 0
}

// otherRun scans " ?[^\s\p{L}\p{N}]+" and the ends of lines behind, which are any of these bytes.
func otherRun(text, ends string) int {
	start := leadingSpace(text)
	other := run(text[start:], otherClass, -1)
	if other == 0 {
		return 0
	}
	return start + other + newlineRun(text[start+other:], ends)
}

// newlineRun returns the length of the row of such bytes that text begins with.
func newlineRun(text, ends string) int {
	return len(text) - len(strings.TrimLeft(text, ends))
}

// newlinesOrSpaces scans \s*[\r\n]+|\s+(?!\S)|\s+ where text begins with white space.
func newlinesOrSpaces(text string) int {
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

// contraction scans 's|'t|'re|'ve|'m|'ll|'d and returns 0 where there is none. Folding case takes in ſ, which folds to
// s.
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

// classAt returns the class of the first character of text and its size, 0 at the end. A byte that is not UTF-8 is a
// character of no class.
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

// run returns the length of the row of at most limit characters of one class that text begins with; a negative limit is
// none.
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

// runOf returns the length of the row of characters of a kind that text begins with. A byte that is not UTF-8 counts as
// U+FFFD.
func runOf(text string, is func(rune) bool) int {
	for n, r := range text {
		if !is(r) {
			return n
		}
	}
	return len(text)
}
