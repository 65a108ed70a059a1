package photon

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxTokenID bounds token ids; no vocabulary comes near it.
const maxTokenID = 1 << 24

// maxSequence bounds the parts of a sequence in the file.
const maxSequence = 64

// parseTokenizer reads a tokenizer.json. Errors match ErrCorrupt or ErrUnsupported. What it allocates is a small multiple of len(data).
func parseTokenizer(data []byte) (*Tokenizer, error) {
	f, err := readTokenizerFile(data)
	var t *Tokenizer
	if err == nil {
		t, err = f.tokenizer(len(data))
	}
	if err != nil {
		return nil, fmt.Errorf("photon: tokenizer.json: %w", err)
	}
	return t, nil
}

// tokenizerFile is the file as it stands there, before anything is made of it.
type tokenizerFile struct {
	added                                            []addedToken
	normalizer, preTokenizer, postProcessor, decoder component
	model                                            bpeModel
}

// bpeModel is the file's "model".
type bpeModel struct {
	vocab                           map[string]int32
	merges                          [][2]string
	unknown, wordPrefix, wordSuffix string
	dropout                         float64
	fuseUnknown, byteFallback       bool
	ignoreMerges                    bool
}

// component is a normalizer, pre-tokenizer, post-processor or decoder; kind says which of the other fields mean anything. A field is named as in the file.
type component struct {
	kind  string      // "type"; empty: there is none
	parts []component // of a "Sequence"; none is a sequence itself

	pattern, regex string // "pattern": the one or the other
	content        string
	prepend        string
	replacement    string
	prependScheme  string
	behavior       string
	start, stop    int64

	addPrefixSpace, useRegex, individualDigits, invert, split bool

	single   []string         // names of special tokens; empty where the text goes
	specials map[string][]int // "special_tokens": the ids of each
}

func readTokenizerFile(data []byte) (*tokenizerFile, error) {
	if err := checkLFSPointer(data); err != nil {
		return nil, err
	}
	r, err := newJSONReader(data)
	if err != nil {
		return nil, err
	}
	f := &tokenizerFile{}
	err = r.fields(
		jsonField{"added_tokens", func() error { return readAddedTokens(r, &f.added) }, false},
		jsonField{"normalizer", func() error { return readComponent(r, &f.normalizer) }, false},
		jsonField{"pre_tokenizer", func() error { return readComponent(r, &f.preTokenizer) }, false},
		jsonField{"post_processor", func() error { return readComponent(r, &f.postProcessor) }, false},
		jsonField{"decoder", func() error { return readComponent(r, &f.decoder) }, false},
		jsonField{"model", func() error { return readBPE(r, &f.model) }, true},
	)
	if err == nil {
		err = r.end()
	}
	return f, err
}

// into puts what read reads into dst.
func into[T any](dst *T, read func() (T, error)) func() error {
	return func() (err error) {
		*dst, err = read()
		return err
	}
}

// optional lets null stand for what read would read.
func optional(r *jsonReader, read func() error) func() error {
	return func() error {
		if r.null() {
			return nil
		}
		return read()
	}
}

func readAddedTokens(r *jsonReader, tokens *[]addedToken) error {
	return r.array(func(int) error {
		var id int64
		var token addedToken
		err := r.fields(
			jsonField{"id", into(&id, r.integer), true},
			jsonField{"content", into(&token.content, r.string), true},
			jsonField{"single_word", into(&token.singleWord, r.bool), false},
			jsonField{"lstrip", into(&token.lstrip, r.bool), false},
			jsonField{"rstrip", into(&token.rstrip, r.bool), false},
			jsonField{"normalized", into(&token.normalized, r.bool), false},
			jsonField{"special", into(&token.special, r.bool), false},
		)
		if err != nil {
			return err
		}
		if token.id, err = tokenID(id, token.content); err != nil {
			return err
		}
		*tokens = append(*tokens, token)
		return nil
	})
}

func tokenID(id int64, token string) (int, error) {
	if id < 0 || id >= maxTokenID {
		return 0, fmt.Errorf("token %.80q has id %d, want 0 to %d: %w", token, id, maxTokenID-1, ErrCorrupt)
	}
	return int(id), nil
}

func readComponent(r *jsonReader, c *component) error {
	if r.null() {
		return nil
	}
	parts := func() error { return readParts(r, &c.parts) }
	c.useRegex, c.split, c.prependScheme = true, true, "always"
	return r.fields(
		jsonField{"type", into(&c.kind, r.string), true},
		jsonField{"normalizers", parts, false},
		jsonField{"pretokenizers", parts, false},
		jsonField{"processors", parts, false},
		jsonField{"decoders", parts, false},
		jsonField{"pattern", func() error {
			return r.fields(
				jsonField{"String", into(&c.pattern, r.string), false},
				jsonField{"Regex", into(&c.regex, r.string), false},
			)
		}, false},
		jsonField{"content", into(&c.content, r.string), false},
		jsonField{"prepend", into(&c.prepend, r.string), false},
		jsonField{"replacement", into(&c.replacement, r.string), false},
		jsonField{"prepend_scheme", into(&c.prependScheme, r.string), false},
		jsonField{"behavior", into(&c.behavior, r.string), false},
		jsonField{"add_prefix_space", optional(r, into(&c.addPrefixSpace, r.bool)), false},
		jsonField{"use_regex", into(&c.useRegex, r.bool), false},
		jsonField{"invert", into(&c.invert, r.bool), false},
		jsonField{"split", optional(r, into(&c.split, r.bool)), false},
		jsonField{"individual_digits", into(&c.individualDigits, r.bool), false},
		jsonField{"start", into(&c.start, r.integer), false},
		jsonField{"stop", into(&c.stop, r.integer), false},
		jsonField{"single", func() error { return readSingle(r, c) }, false},
		jsonField{"special_tokens", func() error { return readSpecials(r, c) }, false},
	)
}

func readParts(r *jsonReader, parts *[]component) error {
	return r.array(func(int) error {
		var c component
		if err := readComponent(r, &c); err != nil {
			return err
		}
		if *parts = append(*parts, c.list()...); len(*parts) > maxSequence {
			return fmt.Errorf("a sequence has more than %d parts: %w", maxSequence, ErrUnsupported)
		}
		return nil
	})
}

// readSingle reads [{"SpecialToken": {"id": "<s>", …}}, {"Sequence": {"id": "A", …}}, …].
func readSingle(r *jsonReader, c *component) error {
	id := func(dst *string) func() error {
		return func() error { return r.fields(jsonField{"id", into(dst, r.string), true}) }
	}
	return r.array(func(int) error {
		var special, sequence string
		err := r.fields(
			jsonField{"SpecialToken", id(&special), false},
			jsonField{"Sequence", id(&sequence), false},
		)
		if err == nil && (special == "") == (sequence == "") {
			err = r.errorf("a part of a template is neither a special token nor a sequence")
		}
		c.single = append(c.single, special)
		return err
	})
}

// readSpecials reads {"<s>": {"ids": [1], …}, …}.
func readSpecials(r *jsonReader, c *component) error {
	c.specials = map[string][]int{}
	return r.object(func(name string) error {
		var ids []int
		err := r.fields(jsonField{"ids", func() error {
			return r.array(func(int) error {
				id, err := r.integer()
				if err != nil {
					return err
				}
				checked, err := tokenID(id, name)
				ids = append(ids, checked)
				return err
			})
		}, true})
		c.specials[name] = ids
		return err
	})
}

func readBPE(r *jsonReader, m *bpeModel) error {
	return r.fields(
		jsonField{"type", func() error {
			kind, err := r.string()
			if err == nil && kind != "BPE" {
				err = fmt.Errorf("type %.80q is not run, only BPE: %w", kind, ErrUnsupported)
			}
			return err
		}, false},
		jsonField{"vocab", func() error { return readVocab(r, m) }, true},
		jsonField{"merges", func() error { return readMerges(r, m) }, true},
		jsonField{"unk_token", optional(r, into(&m.unknown, r.string)), false},
		jsonField{"continuing_subword_prefix", optional(r, into(&m.wordPrefix, r.string)), false},
		jsonField{"end_of_word_suffix", optional(r, into(&m.wordSuffix, r.string)), false},
		jsonField{"dropout", optional(r, into(&m.dropout, r.float)), false},
		jsonField{"fuse_unk", optional(r, into(&m.fuseUnknown, r.bool)), false},
		jsonField{"byte_fallback", optional(r, into(&m.byteFallback, r.bool)), false},
		jsonField{"ignore_merges", optional(r, into(&m.ignoreMerges, r.bool)), false},
	)
}

func readVocab(r *jsonReader, m *bpeModel) error {
	if r.peek() == '[' {
		return fmt.Errorf("the vocabulary is a list, as a Unigram model's; only BPE is run: %w", ErrUnsupported)
	}
	m.vocab = map[string]int32{}
	return r.object(func(token string) error {
		n, err := r.integer()
		if err != nil {
			return fmt.Errorf("token %.80q: %w", token, err)
		}
		id, err := tokenID(n, token)
		m.vocab[token] = int32(id)
		return err
	})
}

// readMerges reads merges in either spelling: "a b" or ["a", "b"].
func readMerges(r *jsonReader, m *bpeModel) error {
	return r.array(func(i int) error {
		var pair []string
		var err error
		if r.peek() == '[' {
			err = r.array(func(i int) error {
				token, err := r.string()
				if i < 3 {
					pair = append(pair, token)
				}
				return err
			})
		} else {
			var text string
			if text, err = r.string(); strings.HasPrefix(text, "#version") {
				return err
			}
			pair = strings.SplitN(text, " ", 3)
		}
		if err != nil {
			return fmt.Errorf("merge %d: %w", i, err)
		}
		if len(pair) != 2 {
			return r.errorf("merge %d is not a pair of tokens", i)
		}
		m.merges = append(m.merges, [2]string(pair))
		return nil
	})
}

// What a component puts into a text is bounded, so that no file can make a short text long.
const (
	maxInsert = 64 // bytes at one place, and tokens around a text
	maxGrowth = 64 // how many times as long all replacements together can make a text
)

// tokenizer makes a Tokenizer of a file of so many bytes.
func (f *tokenizerFile) tokenizer(size int) (t *Tokenizer, err error) {
	t = &Tokenizer{}
	if t.normalizer, err = f.normalizer.normalizers(); err != nil {
		return nil, fmt.Errorf("normalizer: %w", err)
	}
	if t.splitters, t.bpe.byteLevel, err = f.preTokenizer.splitters(); err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	decode, stripSpace, err := f.decoder.pieceDecoder()
	if err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	t.stripSpace = stripSpace
	if err := t.setTokens(f, decode, size); err != nil {
		return nil, err
	}
	if err := t.bpe.set(&f.model); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if t.prefix, t.suffix, err = f.postProcessor.template(len(t.pieces)); err != nil {
		return nil, fmt.Errorf("post_processor: %w", err)
	}
	return t, nil
}

// setTokens fills the tables of tokens. An id far beyond the file's size is refused, so that a few tokens cannot ask for a large table.
func (t *Tokenizer) setTokens(f *tokenizerFile, decode func(token string, added bool) string, size int) error {
	if len(f.model.vocab) == 0 {
		return fmt.Errorf("the vocabulary is empty: %w", ErrCorrupt)
	}
	last := 0
	for _, id := range f.model.vocab {
		last = max(last, int(id))
	}
	for _, token := range f.added {
		last = max(last, token.id)
	}
	if last > size+1<<16 {
		return fmt.Errorf("id %d is far above the number of tokens: %w", last, ErrCorrupt)
	}
	t.pieces = make([]string, last+1)
	t.special = make([]bool, last+1)
	t.ids = make(map[string]int, len(f.model.vocab)+len(f.added))
	taken := make([]bool, last+1)
	for token, id := range f.model.vocab {
		if taken[id] {
			return fmt.Errorf("two tokens have id %d, one of them %.80q: %w", id, token, ErrCorrupt)
		}
		taken[id] = true
		t.ids[token] = int(id)
		t.pieces[id] = decode(token, false)
	}
	added := make([]bool, last+1)
	for _, token := range f.added {
		// An added token may stand in the vocabulary too, with the same id.
		id, known := t.ids[token.content]
		if added[token.id] || known && id != token.id || !known && taken[token.id] {
			return fmt.Errorf("added token %.80q has id %d, or stands there twice, which does not fit the other tokens: %w", token.content, token.id, ErrCorrupt)
		}
		taken[token.id], added[token.id] = true, true
		t.ids[token.content] = token.id
		t.special[token.id] = token.special
		t.pieces[token.id] = decode(token.content, true)
		content := token.content
		if !token.normalized {
			t.verbatim.add(content, token)
			if !token.special {
				t.plainVerbatim.add(content, token)
			}
			continue
		}
		for _, normalize := range t.normalizer {
			content = normalize(content)
		}
		t.normalized.add(content, token)
		if !token.special {
			t.plainNormalized.add(content, token)
		}
	}
	return nil
}

// list returns the parts of a sequence, the component itself if it is none, nothing if it is absent.
func (c component) list() []component {
	switch c.kind {
	case "":
		return nil
	case "Sequence":
		return c.parts
	}
	return []component{c}
}

func (c component) unsupported() error {
	return fmt.Errorf("type %.80q is not run, or not with these settings: use the tokenizer.json of a supported family: %w", c.kind, ErrUnsupported)
}

// replacer returns what replaces a fixed string by another. growth is the factor so far by which a text can have become longer.
func (c component) replacer(growth *int) (func(string) string, error) {
	if c.pattern == "" || c.regex != "" {
		return nil, c.unsupported()
	}
	*growth *= (len(c.content) + len(c.pattern) - 1) / len(c.pattern)
	if *growth = max(*growth, 1); *growth > maxGrowth {
		return nil, fmt.Errorf("replacing makes a text more than %d times as long: %w", maxGrowth, ErrUnsupported)
	}
	return func(text string) string { return strings.ReplaceAll(text, c.pattern, c.content) }, nil
}

func (c component) normalizers() ([]func(string) string, error) {
	var list []func(string) string
	growth := 1
	for _, c := range c.list() {
		switch {
		case c.kind == "NFC":
			list = append(list, nfc)
		case c.kind == "Prepend" && len(c.prepend) <= maxInsert:
			list = append(list, func(text string) string {
				if text == "" {
					return ""
				}
				return c.prepend + text
			})
		case c.kind == "Replace":
			replace, err := c.replacer(&growth)
			if err != nil {
				return nil, err
			}
			list = append(list, replace)
		default:
			return nil, c.unsupported()
		}
	}
	return list, nil
}

func (c component) splitters() (list []splitter, byteLevel bool, err error) {
	for _, c := range c.list() {
		if byteLevel {
			return nil, false, fmt.Errorf("%.80q after ByteLevel is not run: %w", c.kind, ErrUnsupported)
		}
		var s splitter
		switch c.kind {
		case "ByteLevel":
			byteLevel = true
			if c.addPrefixSpace {
				s.rewrite = func(text string, _ bool) string { return withPrefix(text, " ") }
			}
			if c.useRegex {
				s.next = nextGPT2
			}
		case "Split":
			if s.next, err = c.splitNext(); err != nil {
				return nil, false, err
			}
		case "Digits":
			s.next = nextDigits
			if c.individualDigits {
				s.next = nextDigit
			}
		case "Metaspace":
			known := c.prependScheme == "always" || c.prependScheme == "first" || c.prependScheme == "never"
			if !known || c.replacement == " " || utf8.RuneCountInString(c.replacement) != 1 {
				return nil, false, c.unsupported()
			}
			s.rewrite = func(text string, first bool) string {
				text = strings.ReplaceAll(text, " ", c.replacement)
				if c.prependScheme == "always" || c.prependScheme == "first" && first {
					text = withPrefix(text, c.replacement)
				}
				return text
			}
			if c.split {
				s.next = func(text string) int { return nextStart(text, c.replacement) }
			}
		default:
			return nil, false, c.unsupported()
		}
		list = append(list, s)
	}
	return list, byteLevel, nil
}

// splitNext returns the scanner of a Split.
func (c component) splitNext() (func(string) int, error) {
	if c.behavior == "MergedWithPrevious" && !c.invert && c.pattern != "" && c.regex == "" {
		return func(text string) int { return nextEnd(text, c.pattern) }, nil
	}
	next, known := splitPatterns[c.regex]
	if !known || c.pattern != "" {
		return nil, fmt.Errorf("pattern %.400q is not run, only those of GPT-2, Llama 3 and Qwen 2: %w", c.regex+c.pattern, ErrUnsupported)
	}
	// Every part of a text matches these patterns, so that to isolate the matches and to remove the rest are the same.
	if c.behavior == "Isolated" && !c.invert || c.behavior == "Removed" && c.invert {
		return next, nil
	}
	return nil, c.unsupported()
}

// pieceDecoder returns what turns a token into its bytes: ByteLevel, or those of Replace, ByteFallback, Fuse and Strip that there are, in this order, as a
// SentencePiece model has them. stripSpace: a text loses one leading space.
func (c component) pieceDecoder() (decode func(token string, added bool) string, stripSpace bool, err error) {
	list := c.list()
	if len(list) == 0 {
		return nil, false, fmt.Errorf("there is none to make text of tokens; a byte-level model needs ByteLevel: %w", ErrUnsupported)
	}
	if list[0].kind == "ByteLevel" && len(list) == 1 {
		return byteLevelPiece, false, nil
	}
	order := []string{"Replace", "ByteFallback", "Fuse", "Strip"}
	step, growth := 0, 1
	var replace []func(string) string
	byteFallback := false
	for _, c := range list {
		before := step
		if step = slices.Index(order, c.kind); step < before {
			return nil, false, c.unsupported()
		}
		switch c.kind {
		case "Replace":
			r, err := c.replacer(&growth)
			if err != nil {
				return nil, false, err
			}
			replace = append(replace, r)
		case "ByteFallback":
			byteFallback = true
		case "Strip":
			if order[before] != "Fuse" || c.content != " " || c.start != 1 || c.stop != 0 {
				return nil, false, c.unsupported()
			}
			stripSpace = true
		}
	}
	return func(token string, _ bool) string {
		for _, r := range replace {
			token = r(token)
		}
		if b, ok := byteToken(token); ok && byteFallback {
			return string([]byte{b})
		}
		return token
	}, stripSpace, nil
}

// byteLevelPiece reads a token of a byte-level vocabulary; an added token is spelled as it reads.
func byteLevelPiece(token string, added bool) string {
	if text, ok := byteLevelText(token); ok && !added {
		return text
	}
	return token
}

// byteToken reads a token like <0x41>.
func byteToken(token string) (byte, bool) {
	if len(token) != len("<0x41>") || token[:3] != "<0x" || token[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(token[3:5], 16, 8)
	return byte(b), err == nil
}

// template returns the ids that the post-processor puts before and after a single text.
func (c component) template(vocabSize int) (prefix, suffix []int, err error) {
	for _, c := range c.list() {
		switch c.kind {
		case "ByteLevel": // moves offsets only
		case "TemplateProcessing":
			at := slices.Index(c.single, "")
			if at < 0 || slices.Contains(c.single[at+1:], "") {
				return nil, nil, fmt.Errorf("the template does not hold the text once: %w", ErrUnsupported)
			}
			before, err := c.templateIDs(c.single[:at], vocabSize)
			if err != nil {
				return nil, nil, err
			}
			after, err := c.templateIDs(c.single[at+1:], vocabSize)
			if err != nil {
				return nil, nil, err
			}
			prefix, suffix = append(before, prefix...), append(suffix, after...)
		default:
			return nil, nil, c.unsupported()
		}
	}
	return prefix, suffix, nil
}

func (c component) templateIDs(names []string, vocabSize int) ([]int, error) {
	var ids []int
	for _, name := range names {
		special, known := c.specials[name]
		if !known || len(special) > 0 && slices.Max(special) >= vocabSize {
			return nil, fmt.Errorf("special token %.80q of the template has no id of the vocabulary: %w", name, ErrCorrupt)
		}
		if ids = append(ids, special...); len(ids) > maxInsert {
			return nil, fmt.Errorf("the template puts more than %d tokens around a text: %w", maxInsert, ErrUnsupported)
		}
	}
	return ids, nil
}
