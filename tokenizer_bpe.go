package photon

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bpe is a byte pair encoding: a word is a row of symbols, and the neighbours whose merge ranks lowest become one symbol, the leftmost of equals first,
// until no neighbours merge.
type bpe struct {
	merges map[[2]int32]bpeMerge
	whole  map[string]int32 // words that are taken as one token without merging; nil if there are none

	// A word's first symbols are its bytes, or else its characters, where those that the vocabulary lacks fall back to their bytes.
	byteLevel bool
	chars     map[rune]int32
	bytes     [256]int32 // the token of each byte, -1 if there is none
	allBytes  bool       // there is one for every byte

	unknown     int32 // the token for what the vocabulary lacks; -1: nothing stands for it
	fuseUnknown bool  // one such token for a row of them
}

// set makes the encoding of the file's model.
func (b *bpe) set(m *bpeModel) error {
	switch {
	case m.wordPrefix != "" || m.wordSuffix != "":
		return fmt.Errorf("continuing_subword_prefix and end_of_word_suffix are not run: %w", ErrUnsupported)
	case m.dropout != 0:
		return fmt.Errorf("dropout %g makes encoding random, which is for training; set it to null: %w", m.dropout, ErrUnsupported)
	}
	b.fuseUnknown = m.fuseUnknown
	b.unknown = -1
	if m.unknown != "" {
		id, found := m.vocab[m.unknown]
		if !found {
			return fmt.Errorf("unk_token %.80q is not in the vocabulary: %w", m.unknown, ErrCorrupt)
		}
		b.unknown = id
	}

	b.allBytes = true
	for i := range b.bytes {
		name := string(byteRune(byte(i)))
		if !b.byteLevel {
			name = fmt.Sprintf("<0x%02X>", i)
		}
		id, found := m.vocab[name]
		if !found || !b.byteLevel && !m.byteFallback {
			id, b.allBytes = -1, false
		}
		b.bytes[i] = id
	}
	if b.byteLevel && m.byteFallback && !b.allBytes {
		return fmt.Errorf("byte_fallback in a byte-level vocabulary that lacks bytes is not run: %w", ErrUnsupported)
	}

	b.chars = map[rune]int32{}
	if m.ignoreMerges {
		b.whole = make(map[string]int32, len(m.vocab))
	}
	for token, id := range m.vocab {
		word, ok := token, true
		if b.byteLevel {
			word, ok = byteLevelText(token)
		} else if char, n := utf8.DecodeRuneInString(token); n > 0 && n == len(token) {
			b.chars[char] = id
		}
		if ok && m.ignoreMerges {
			b.whole[word] = id
		}
	}
	b.merges = make(map[[2]int32]bpeMerge, len(m.merges))
	for rank, pair := range m.merges {
		left, ok1 := m.vocab[pair[0]]
		right, ok2 := m.vocab[pair[1]]
		id, ok3 := m.vocab[pair[0]+pair[1]]
		if !ok1 || !ok2 || !ok3 {
			return fmt.Errorf("merge %d, %.80q and %.80q, names or makes a token that is not in the vocabulary: %w", rank, pair[0], pair[1], ErrCorrupt)
		}
		b.merges[[2]int32{left, right}] = bpeMerge{int32(rank), id}
	}
	return nil
}

// bpeMerge is what two symbols merge into.
type bpeMerge struct {
	rank, id int32
}

// bpeSymbol is a token of the word in work. Symbols keep their index; a merged one covers those up to next, and those are dead.
type bpeSymbol struct {
	id         int32 // deadSymbol once it is part of another
	prev, next int
}

const deadSymbol = -1

// bpePair is a merge that may be due: of the symbol at left and the next one, which together end before end.
type bpePair struct {
	bpeMerge
	left, end int
}

// before is the order of merging.
func (p bpePair) before(q bpePair) bool {
	return p.rank < q.rank || p.rank == q.rank && p.left < q.left
}

// bpeEncoder collects the ids of one text. It owns the scratch memory.
type bpeEncoder struct {
	*bpe
	ids     []int
	symbols []bpeSymbol
	due     []bpePair // a heap, the first to merge on top
}

// word appends the ids of one word, in O(n log n).
func (e *bpeEncoder) word(word string) {
	if id, found := e.whole[word]; found {
		e.ids = append(e.ids, int(id))
		return
	}
	e.start(word)
	e.due = e.due[:0]
	for i := range len(e.symbols) - 1 {
		e.consider(i)
	}
	for len(e.due) > 0 {
		pair := e.pop()
		left := &e.symbols[pair.left]
		// A pair is out of date when its left symbol is gone, or either has grown since; symbols only grow, so the end tells.
		if left.id == deadSymbol || left.next == len(e.symbols) || e.symbols[left.next].next != pair.end {
			continue
		}
		e.symbols[left.next].id = deadSymbol
		left.id, left.next = pair.id, pair.end
		if left.next < len(e.symbols) {
			e.symbols[left.next].prev = pair.left
			e.consider(pair.left)
		}
		if left.prev >= 0 {
			e.consider(left.prev)
		}
	}
	for i := 0; i < len(e.symbols); i = e.symbols[i].next {
		e.ids = append(e.ids, int(e.symbols[i].id))
	}
}

// start makes the word's first symbols.
func (e *bpeEncoder) start(word string) {
	e.symbols = e.symbols[:0]
	fuse := false // the last symbol stands for something unknown and takes in what follows
	for len(word) > 0 {
		id, n := e.first(word)
		switch {
		case id >= 0:
			e.push(id)
			fuse = false
		case e.hasBytes(word[:n]):
			for i := range n {
				e.push(e.bytes[word[i]])
			}
			fuse = false
		case e.unknown >= 0 && !fuse:
			e.push(e.unknown)
			fuse = e.fuseUnknown
		}
		word = word[n:]
	}
}

// first returns the token of the first character of word, -1 if there is none, and the character's length. In a byte-level vocabulary, and where word is
// not UTF-8, a byte counts as a character that has none.
func (b *bpe) first(word string) (id int32, n int) {
	if b.byteLevel {
		return -1, 1
	}
	char, n := utf8.DecodeRuneInString(word)
	if id, found := b.chars[char]; found && !(char == utf8.RuneError && n == 1) {
		return id, n
	}
	return -1, n
}

func (b *bpe) hasBytes(text string) bool {
	for i := range len(text) {
		if b.bytes[text[i]] < 0 {
			return false
		}
	}
	return true
}

func (e *bpeEncoder) push(id int32) {
	n := len(e.symbols)
	e.symbols = append(e.symbols, bpeSymbol{id: id, prev: n - 1, next: n + 1})
}

// consider puts the merge of the symbol at left with the next one on the heap, if there is such a merge.
func (e *bpeEncoder) consider(left int) {
	s := e.symbols[left]
	right := e.symbols[s.next]
	merge, found := e.merges[[2]int32{s.id, right.id}]
	if !found {
		return
	}
	e.due = append(e.due, bpePair{merge, left, right.next})
	for i := len(e.due) - 1; i > 0; {
		parent := (i - 1) / 2
		if !e.due[i].before(e.due[parent]) {
			break
		}
		e.due[i], e.due[parent] = e.due[parent], e.due[i]
		i = parent
	}
}

// pop takes the first pair to merge off the heap.
func (e *bpeEncoder) pop() bpePair {
	top, n := e.due[0], len(e.due)-1
	e.due[0] = e.due[n]
	e.due = e.due[:n]
	for i := 0; ; {
		child := 2*i + 1
		if child >= n {
			return top
		}
		if child+1 < n && e.due[child+1].before(e.due[child]) {
			child++
		}
		if !e.due[child].before(e.due[i]) {
			return top
		}
		e.due[i], e.due[child] = e.due[child], e.due[i]
		i = child
	}
}

// byteRune is the character that a byte-level vocabulary writes for a byte: itself where it is printable Latin-1, otherwise one from U+0100 up.
func byteRune(b byte) rune {
	switch {
	case b <= ' ':
		return 0x100 + rune(b)
	case b >= 0x7f && b <= 0xa0:
		return 0x121 + rune(b-0x7f)
	case b == 0xad:
		return 0x143
	}
	return rune(b)
}

// byteLevelText reads the characters of byteRune back. It reports whether the token has no others.
func byteLevelText(token string) (string, bool) {
	text := make([]byte, 0, len(token))
	for _, r := range token {
		switch {
		case r > 0x143 || r <= ' ' || r >= 0x7f && r <= 0xa0 || r == 0xad:
			return "", false
		case r == 0x143:
			r = 0xad
		case r >= 0x121:
			r += 0x7f - 0x121
		case r >= 0x100:
			r -= 0x100
		}
		text = append(text, byte(r))
	}
	return string(text), true
}

// addedToken is a token that stands beside the vocabulary of the model: the text is searched for it before anything else is done with it.
type addedToken struct {
	id         int
	content    string
	singleWord bool // only where no letter or digit touches it
	lstrip     bool // takes the white space before it
	rstrip     bool // takes the white space after it
	normalized bool // looked for after normalization
	special    bool
}

// addedTokens finds added tokens in a text: the leftmost, of these the longest.
type addedTokens struct {
	tokens  map[string]addedToken
	lengths [256][]int // by first byte, the lengths of the tokens that start so, longest first
}

// add makes token be found where the text reads content. The first token of a content counts, an empty content is never found.
func (a *addedTokens) add(content string, token addedToken) {
	if _, found := a.tokens[content]; found || content == "" {
		return
	}
	if a.tokens == nil {
		a.tokens = map[string]addedToken{}
	}
	a.tokens[content] = token
	lengths := &a.lengths[content[0]]
	at, found := slices.BinarySearchFunc(*lengths, len(content), func(have, want int) int { return want - have })
	if !found {
		*lengths = slices.Insert(*lengths, at, len(content))
	}
}

// match returns the token that text begins with and the bytes that it takes, 0 if there is none.
func (a *addedTokens) match(text string) (addedToken, int) {
	for _, n := range a.lengths[text[0]] {
		if n <= len(text) {
			if token, found := a.tokens[text[:n]]; found {
				return token, n
			}
		}
	}
	return addedToken{}, 0
}

// split cuts text into added tokens, each with its id, and what lies between them, with -1. No piece without an id is empty.
func (a *addedTokens) split(text string) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		done, taken := 0, 0 // taken: how far white space was last taken; what a later token finds before that is white space too
		for at := 0; at < len(text) && len(a.tokens) > 0; {
			token, n := a.match(text[at:])
			if n == 0 {
				at++
				continue
			}
			start, end := at, at+n
			at = end
			if token.singleWord && (endsInWord(text[:start]) || startsWithWord(text[end:])) {
				continue
			}
			if token.lstrip && done < start {
				start = done + len(strings.TrimRightFunc(text[done:start], unicode.IsSpace))
			}
			if token.rstrip {
				end = max(end, taken)
				end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
				taken = end
			}
			if done < start && !yield(text[done:start], -1) {
				return
			}
			if !yield(token.content, token.id) {
				return
			}
			done = end
		}
		if done < len(text) {
			yield(text[done:], -1)
		}
	}
}

func startsWithWord(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return text != "" && isWord(r)
}

func endsInWord(text string) bool {
	r, _ := utf8.DecodeLastRuneInString(text)
	return text != "" && isWord(r)
}

// isWord is \w of a Unicode regular expression.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}
