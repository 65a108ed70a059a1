package photon

import (
	"fmt"
	"slices"
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

// set makes the encoding of the file's model; the unknown token may be one of the added ones.
func (b *bpe) set(m *bpeModel, added []addedToken) error {
	switch {
	case m.wordPrefix != "" || m.wordSuffix != "":
		return fmt.Errorf("continuing_subword_prefix and end_of_word_suffix are not run: %w", ErrUnsupported)
	case m.dropout != 0:
		return fmt.Errorf("dropout %g makes encoding random, which is for training; set it to null: %w", m.dropout, ErrUnsupported)
	}
	b.fuseUnknown = m.fuseUnknown
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

	b.unknown = -1
	if m.unknown != "" {
		id, found := m.vocab[m.unknown]
		for _, token := range added {
			if !found && token.content == m.unknown {
				id, found = int32(token.id), true
			}
		}
		switch {
		case found:
			b.unknown = id
		case !b.allBytes: // with all of them, nothing is unknown
			return fmt.Errorf("unk_token %.80q is not in the vocabulary: %w", m.unknown, ErrCorrupt)
		}
	}

	b.chars = map[rune]int32{}
	if m.ignoreMerges {
		b.whole = make(map[string]int32, len(m.vocab))
	}
	for token, id := range m.vocab {
		if err := m.until.passed(); err != nil {
			return err
		}
		if char, n := utf8.DecodeRuneInString(token); !b.byteLevel && n > 0 && n == len(token) {
			b.chars[char] = id
		}
		if !m.ignoreMerges {
			continue
		}
		if word, ok := byteLevelText(token); ok && b.byteLevel {
			b.whole[word] = id
		} else if !b.byteLevel {
			b.whole[token] = id
		}
	}
	b.merges = make(map[[2]int32]bpeMerge, min(m.mergeCount, 4*len(m.vocab))) // more than these may be one, repeated
	return m.merges(func(rank int, left, right string) error {
		l, ok1 := m.vocab[left]
		r, ok2 := m.vocab[right]
		id, ok3 := m.vocab[left+right]
		if !ok1 || !ok2 || !ok3 {
			return fmt.Errorf("merge %d, %.80q and %.80q, names or makes a token that is not in the vocabulary: %w", rank, left, right, ErrCorrupt)
		}
		b.merges[[2]int32{l, r}] = bpeMerge{int32(rank), id}
		return nil
	})
}

// bpeMerge is what two symbols merge into.
type bpeMerge struct {
	rank, id int32
}

// bpeSymbol is a token of the word in work. Symbols keep their index; a merged one covers those up to next, and those are dead.
type bpeSymbol struct {
	id         int32 // deadSymbol once it is part of another
	prev, next int32
	due        bpeMerge // with the next symbol; of rank noMerge if there is none
}

const (
	deadSymbol = -1
	noMerge    = -1
	heapWidth  = 4       // children of a node: they share a line of the cache
	maxWord    = 1 << 30 // bytes, so that an int32 counts them; what is longer is cut
)

// bpeEncoder collects the ids of one text. It owns the scratch memory.
type bpeEncoder struct {
	*bpe
	ids     []int
	symbols []bpeSymbol
	until   *deadline
	over    bool     // it has passed
	heap    []uint64 // the merges that were due at some time, rank<<32 | left symbol: the first to merge on top
}

// word appends the ids of one word, in O(n log n).
func (e *bpeEncoder) word(word string) {
	for ; len(word) > maxWord; word = word[maxWord:] {
		e.word(word[:maxWord])
	}
	if e.over = e.over || e.until.passed() != nil; e.over {
		return
	}
	if id, found := e.whole[word]; found {
		e.ids = append(e.ids, int(id))
		return
	}
	e.start(word)
	e.heap = e.heap[:0]
	n := int32(len(e.symbols))
	for i := range n - 1 {
		e.consider(i)
	}
	for len(e.heap) > 0 {
		first := e.pop()
		at := int32(uint32(first))
		left := &e.symbols[at]
		// A merge is out of date when its left symbol is gone, or either has grown since and another is due, or none.
		if left.id == deadSymbol || left.due.rank != int32(first>>32) {
			continue
		}
		right := &e.symbols[left.next]
		left.id, left.next = left.due.id, right.next
		right.id = deadSymbol
		if left.next < n {
			e.symbols[left.next].prev = at
		}
		e.consider(at)
		if left.prev >= 0 {
			e.consider(left.prev)
		}
	}
	for i := int32(0); i < n; i = e.symbols[i].next {
		e.ids = append(e.ids, int(e.symbols[i].id))
	}
}

// start makes the word's first symbols.
func (e *bpeEncoder) start(word string) {
	e.symbols = slices.Grow(e.symbols[:0], len(word))
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
	n := int32(len(e.symbols))
	e.symbols = append(e.symbols, bpeSymbol{id: id, prev: n - 1, next: n + 1})
}

// consider puts the merge of the symbol at left with the next one on the heap, if there is such a merge.
func (e *bpeEncoder) consider(left int32) {
	s := &e.symbols[left]
	s.due.rank = noMerge
	if int(s.next) == len(e.symbols) {
		return
	}
	merge, found := e.merges[[2]int32{s.id, e.symbols[s.next].id}]
	if !found {
		return
	}
	s.due = merge
	e.heap = append(e.heap, uint64(merge.rank)<<32|uint64(left))
	for i := len(e.heap) - 1; i > 0; {
		parent := (i - 1) / heapWidth
		if e.heap[parent] <= e.heap[i] {
			break
		}
		e.heap[i], e.heap[parent] = e.heap[parent], e.heap[i]
		i = parent
	}
}

// pop takes the first merge off the heap.
func (e *bpeEncoder) pop() uint64 {
	top, n := e.heap[0], len(e.heap)-1
	last := e.heap[n]
	e.heap = e.heap[:n]
	for i := 0; i < n; {
		least, end := heapWidth*i+1, min(heapWidth*i+1+heapWidth, n)
		for child := least + 1; child < end; child++ {
			if e.heap[child] < e.heap[least] {
				least = child
			}
		}
		if least >= n || last <= e.heap[least] {
			e.heap[i] = last
			break
		}
		e.heap[i] = e.heap[least]
		i = least
	}
	return top
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
