package photon

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Tokenizer turns text into token ids and back, by a model's tokenizer.json. It is immutable and safe for concurrent
// use.
//
// It gives the ids that Hugging Face's tokenizers gives for the same file. What it runs of the format: byte pair
// encodings, over bytes (GPT-2, GPT-4o, Llama 3, SmolLM, Qwen 2 to 3.5, Mistral Nemo, DeepSeek V3: pre-tokenizers
// ByteLevel, Split by the patterns of one of these families, Digits) or over characters with a fallback to bytes
// (Llama 2, Gemma: normalizers Prepend and Replace, pre-tokenizers Metaspace and Split after a fixed string);
// normalizer NFC, in full, by Unicode 15; added tokens; the post-processors TemplateProcessing and ByteLevel. Anything
// else in the file is an error that matches ErrUnsupported, as is a file beyond the limits of docs/formats.md.
// Truncation and padding are the caller's, whatever the file asks for. A GGUF file's tokenizer has the same parts.
//
// Whatever the file, Encode takes time and memory in proportion to its text, with a factor of log n for a word of n
// bytes.
type Tokenizer struct {
	ids     map[string]int32 // every token, spelled as in the file
	pieces  []string         // by id: the bytes that the token stands for
	special []bool           // by id

	verbatim   *addedTokens // looked for in the text as it is
	normalizer []func(string) string
	normalized *addedTokens // looked for in the normalized text

	splitters []splitter
	bpe       bpe
	prefix    []int // ids that the post-processor puts around the text
	suffix    []int

	stripSpace bool // the decoder drops one leading space of a text

	spell   sync.Once // makes, by id, spelled and known
	spelled []string
	known   []bool
}

// VocabSize returns one more than the highest token id, added tokens included.
func (t *Tokenizer) VocabSize() int { return len(t.pieces) }

// TokenID returns the id of a token spelled as in the file: "<|endoftext|>", or "Ġthe" for " the" in a byte-level
// vocabulary.
func (t *Tokenizer) TokenID(token string) (int, bool) {
	id, ok := t.ids[token]
	return int(id), ok
}

// Token returns the spelling of a token in the file, as TokenID takes it.
func (t *Tokenizer) Token(id int) (string, bool) {
	if id < 0 || id >= len(t.pieces) {
		return "", false
	}
	t.spell.Do(func() {
		t.spelled = make([]string, len(t.pieces))
		t.known = make([]bool, len(t.pieces))
		for token, id := range t.ids {
			t.spelled[id], t.known[id] = token, true
		}
	})
	return t.spelled[id], t.known[id]
}

// Bytes returns the bytes that a token stands for in a text, possibly part of a rune; the spelling of a special token;
// nil for an id outside the vocabulary.
func (t *Tokenizer) Bytes(id int) []byte {
	if id < 0 || id >= len(t.pieces) {
		return nil
	}
	return []byte(t.pieces[id])
}

// EncodeText returns the ids of plain text: without those that the post-processor adds, and with no special token,
// whose spelling is text like any other. It is for text that is not trusted, and for the later parts of a text.
// Otherwise it does as Encode.
func (t *Tokenizer) EncodeText(text string) []int {
	return t.encodeText(nil, text)
}

// Encode returns the ids of text, those that the post-processor adds included (usually a beginning-of-text token, or
// none). An added token that the text spells out, such as "<|endoftext|>", becomes that token: take such strings out of
// text that is not trusted.
//
// Text that is not UTF-8 is encoded byte by byte where the vocabulary has a token for each of the 256 bytes; otherwise
// each ill-formed sequence counts as U+FFFD. What the vocabulary has no token for becomes the unknown token, or nothing
// if there is none.
func (t *Tokenizer) Encode(text string) []int {
	return t.encodeWhole(nil, text)
}

// encodeText is EncodeText, encodeWhole Encode, each until then: what comes later is missing.
func (t *Tokenizer) encodeText(until *deadline, text string) []int {
	if !t.bpe.allBytes {
		text = wellFormed(text)
	}
	e := bpeEncoder{bpe: &t.bpe, until: until}
	t.encode(&e, text, true)
	return e.ids
}

func (t *Tokenizer) encodeWhole(until *deadline, text string) []int {
	if !t.bpe.allBytes {
		text = wellFormed(text)
	}
	e := bpeEncoder{bpe: &t.bpe, ids: slices.Clone(t.prefix), until: until}
	t.encode(&e, text, false)
	return append(e.ids, t.suffix...)
}

// encode appends the ids of text, in which it looks for added tokens: in the text as it is, and in the normalized text.
// plain: special tokens are text.
func (t *Tokenizer) encode(e *bpeEncoder, text string, plain bool) {
	first := true
	for piece, id := range t.verbatim.split(text, plain) {
		if id >= 0 {
			e.ids, first = append(e.ids, id), false
			continue
		}
		for _, normalize := range t.normalizer {
			piece = normalize(piece)
		}
		for piece, id := range t.normalized.split(piece, plain) {
			if id >= 0 {
				e.ids = append(e.ids, id)
			} else {
				e.split(t.splitters, piece, first)
			}
			first = false
		}
	}
}

// Decode returns the text of ids, special tokens spelled out. Ids outside the vocabulary stand for nothing. The text is
// always valid UTF-8: each byte sequence that is not becomes one U+FFFD (per maximal subpart, as the Unicode standard
// recommends).
func (t *Tokenizer) Decode(ids []int) string {
	var text []byte
	for _, id := range ids {
		text = append(text, t.piece(id)...)
	}
	if t.stripSpace && len(text) > 0 && text[0] == ' ' {
		text = text[1:]
	}
	return wellFormed(string(text))
}

// DecodeText is Decode without the special tokens: what a StreamDecoder makes of the same ids.
func (t *Tokenizer) DecodeText(ids []int) string {
	d := t.NewDecoder()
	var text strings.Builder
	for _, id := range ids {
		text.WriteString(d.Next(id))
	}
	text.WriteString(d.Flush())
	return text.String()
}

func (t *Tokenizer) piece(id int) string {
	if id < 0 || id >= len(t.pieces) {
		return ""
	}
	return t.pieces[id]
}

func (t *Tokenizer) isSpecial(id int) bool { return id >= 0 && id < len(t.special) && t.special[id] }

// text is piece without the special tokens.
func (t *Tokenizer) text(id int) string {
	if t.isSpecial(id) {
		return ""
	}
	return t.piece(id)
}

// NewDecoder returns a decoder that turns ids into text one at a time.
func (t *Tokenizer) NewDecoder() *StreamDecoder { return &StreamDecoder{tokenizer: t} }

// StreamDecoder decodes a text as its tokens arrive and never yields part of a rune. Joined, the results of Next and
// the final Flush are Decode of the same ids without the special tokens, which it passes over. It is not safe for
// concurrent use.
//
// A Llama 2 vocabulary drops one space at the start of a text. A text that goes on from a prompt has its start there:
// pass the prompt's ids to Next first and ignore what it returns.
type StreamDecoder struct {
	tokenizer *Tokenizer
	held      int    // the length of the incomplete rune at the start of bytes
	bytes     []byte // that rune, then the token in work
	text      []byte
	started   bool
}

// Next returns the text that this token completes, possibly none. Bytes that may still become a rune are held back
// until they do or cannot any more. Nothing is allocated beyond the string returned, and not even that for a token that
// is text of its own.
func (d *StreamDecoder) Next(id int) string {
	t := d.tokenizer
	piece := t.piece(id)
	if piece == "" || t.special[id] {
		return ""
	}
	if !d.started {
		d.started = true
		if t.stripSpace {
			piece = strings.TrimPrefix(piece, " ")
		}
	}
	if d.held == 0 && utf8.ValidString(piece) {
		return piece
	}
	d.bytes = append(d.bytes[:d.held], piece...)
	var rest []byte
	d.text, rest = appendWellFormed(d.text[:0], d.bytes)
	d.held = copy(d.bytes, rest)
	return string(d.text)
}

// Flush ends the text: it returns U+FFFD if a rune was left incomplete, else nothing.
func (d *StreamDecoder) Flush() string {
	incomplete := d.held > 0
	d.held = 0
	if incomplete {
		return string(utf8.RuneError)
	}
	return ""
}

// Reset makes the decoder ready for another text.
func (d *StreamDecoder) Reset() { d.held, d.started = 0, false }

// wellFormed replaces each ill-formed sequence of text by U+FFFD.
func wellFormed(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	valid, rest := appendWellFormed(nil, []byte(text))
	if len(rest) > 0 {
		valid = utf8.AppendRune(valid, utf8.RuneError)
	}
	return string(valid)
}

// appendWellFormed appends src to dst with U+FFFD for each maximal subpart of an ill-formed sequence, up to an
// incomplete rune at the end, which it returns.
func appendWellFormed(dst, src []byte) (text, rest []byte) {
	for len(src) > 0 {
		r, n := utf8.DecodeRune(src)
		if r == utf8.RuneError && n == 1 {
			if !utf8.FullRune(src) {
				break
			}
			for n < len(src) && !utf8.FullRune(src[:n+1]) {
				n++
			}
		}
		dst = utf8.AppendRune(dst, r)
		src = src[n:]
	}
	return dst, src
}
