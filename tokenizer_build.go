package photon

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

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
			continue
		}
		for _, normalize := range t.normalizer {
			content = normalize(content)
		}
		t.normalized.add(content, token)
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
