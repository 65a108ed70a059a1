package photon

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// tokenizer makes a Tokenizer of a file of so many bytes.
func (f *tokenizerFile) tokenizer(size int) (t *Tokenizer, err error) {
	t = &Tokenizer{}
	if t.normalizer, err = normalizers(f.normalizer); err != nil {
		return nil, fmt.Errorf("normalizer: %w", err)
	}
	if t.splitters, t.bpe.byteLevel, err = splitters(f.preTokenizer); err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	decode, err := t.pieceDecoder(f.decoder)
	if err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	if err := t.setTokens(f, decode, size); err != nil {
		return nil, err
	}
	if err := t.bpe.set(&f.model); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if t.prefix, t.suffix, err = t.template(f.postProcessor); err != nil {
		return nil, fmt.Errorf("post_processor: %w", err)
	}
	return t, nil
}

// setTokens fills the tables of tokens. Ids beyond the file's size are refused, so that a few ids cannot ask for a large table.
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
	isAdded := make([]bool, last+1)
	for _, token := range f.added {
		id, known := t.ids[token.content]
		if isAdded[token.id] || known && id != token.id || !known && taken[token.id] {
			return fmt.Errorf("added token %.80q has id %d, which does not fit the other tokens: %w", token.content, token.id, ErrCorrupt)
		}
		taken[token.id], isAdded[token.id] = true, true
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

// flatten lists the parts of nested sequences in order, none for a component that is absent.
func flatten(c component) []component {
	switch c.kind {
	case "":
		return nil
	case "Sequence":
		var list []component
		for _, part := range c.parts {
			list = append(list, flatten(part)...)
		}
		return list
	}
	return []component{c}
}

func unsupported(c component) error {
	return fmt.Errorf("type %.80q is not run, or not with these settings: %w", c.kind, ErrUnsupported)
}

// maxInsert bounds a text that a component puts in, which a hostile file could make long and a text multiply.
const maxInsert = 64

func normalizers(c component) ([]func(string) string, error) {
	var list []func(string) string
	for _, c := range flatten(c) {
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
		case c.kind == "Replace" && c.pattern != "" && c.regex == "" && len(c.content) <= maxInsert:
			list = append(list, func(text string) string { return strings.ReplaceAll(text, c.pattern, c.content) })
		default:
			return nil, unsupported(c)
		}
	}
	return list, nil
}

func splitters(c component) (list []splitter, byteLevel bool, err error) {
	for _, c := range flatten(c) {
		if byteLevel {
			return nil, false, fmt.Errorf("%.80q after ByteLevel is not run: %w", c.kind, ErrUnsupported)
		}
		switch {
		case c.kind == "ByteLevel":
			byteLevel = true
			var s splitter
			if c.addPrefixSpace {
				s.rewrite = func(text string, _ bool) string { return withPrefix(text, " ") }
			}
			if c.useRegex {
				s.next = nextGPT2
			}
			list = append(list, s)
		case c.kind == "Split" && (c.behavior == "Isolated" && !c.invert || c.behavior == "Removed" && c.invert):
			// The patterns match every part of every text, so that isolating matches and removing what does not match are the same.
			next, known := splitPatterns[c.regex]
			if !known || c.pattern != "" {
				return nil, false, fmt.Errorf("pattern %.300q is not one of GPT-2, Llama 3 and Qwen 2, the only ones run: %w", c.regex+c.pattern, ErrUnsupported)
			}
			list = append(list, splitter{next: next})
		case c.kind == "Split" && c.behavior == "MergedWithPrevious" && !c.invert && c.pattern != "" && c.regex == "":
			list = append(list, splitter{next: func(text string) int {
				if before, _, found := strings.Cut(text, c.pattern); found {
					return len(before) + len(c.pattern)
				}
				return len(text)
			}})
		case c.kind == "Digits" && c.digits:
			list = append(list, splitter{next: nextDigit})
		case c.kind == "Digits":
			list = append(list, splitter{next: nextDigits})
		case c.kind == "Metaspace" && !c.split && len(c.replacement) <= maxInsert && slices.Contains([]string{"always", "first", "never"}, c.scheme):
			list = append(list, splitter{rewrite: func(text string, first bool) string {
				text = strings.ReplaceAll(text, " ", c.replacement)
				if c.scheme == "always" || c.scheme == "first" && first {
					text = withPrefix(text, c.replacement)
				}
				return text
			}})
		default:
			return nil, false, unsupported(c)
		}
	}
	return list, byteLevel, nil
}

func withPrefix(text, prefix string) string {
	if strings.HasPrefix(text, prefix) {
		return text
	}
	return prefix + text
}

// pieceDecoder returns what turns a token of the vocabulary into its bytes: ByteLevel, or any of Replace, ByteFallback, Fuse and Strip in this order, as
// SentencePiece models have them.
func (t *Tokenizer) pieceDecoder(c component) (decode func(token string, added bool) string, err error) {
	list := flatten(c)
	if len(list) == 0 {
		return nil, fmt.Errorf("there is none; a decoder is needed to make text of tokens, ByteLevel for a byte-level model: %w", ErrUnsupported)
	}
	if list[0].kind == "ByteLevel" && len(list) == 1 {
		return func(token string, added bool) string {
			if text, ok := byteLevelText(token); ok && !added {
				return text
			}
			return token
		}, nil
	}
	var replace []component
	order := []string{"Replace", "ByteFallback", "Fuse", "Strip"}
	done := 0
	bytes := false
	for _, c := range list {
		step := slices.Index(order, c.kind)
		switch {
		case step < done:
			return nil, unsupported(c)
		case c.kind == "Replace" && c.pattern != "" && c.regex == "" && len(c.content) <= maxInsert:
			replace = append(replace, c)
		case c.kind == "ByteFallback":
			bytes = true
		case c.kind == "Fuse":
		case c.kind == "Strip" && order[done] == "Fuse" && c.content == " " && c.start == 1 && c.stop == 0:
			t.stripSpace = true
		default:
			return nil, unsupported(c)
		}
		done = step
	}
	return func(token string, _ bool) string {
		if bytes && len(token) == len("<0x00>") && strings.HasPrefix(token, "<0x") && token[5] == '>' {
			if b, err := strconv.ParseUint(token[3:5], 16, 8); err == nil {
				return string([]byte{byte(b)})
			}
		}
		for _, c := range replace {
			token = strings.ReplaceAll(token, c.pattern, c.content)
		}
		return token
	}, nil
}

// template returns the ids that the post-processor puts before and after a single text.
func (t *Tokenizer) template(c component) (prefix, suffix []int, err error) {
	for _, c := range flatten(c) {
		switch c.kind {
		case "ByteLevel": // moves offsets only
		case "TemplateProcessing":
			var before, after []int
			seen := false
			for _, name := range c.template {
				if name == "" && seen {
					return nil, nil, unsupported(c)
				}
				ids, known := c.templateIDs[name]
				for _, id := range ids {
					if id >= len(t.pieces) {
						known = false
					}
				}
				switch {
				case name == "":
					seen = true
				case !known:
					return nil, nil, fmt.Errorf("special token %.80q of the template has no id of the vocabulary: %w", name, ErrCorrupt)
				case seen:
					after = append(after, ids...)
				default:
					before = append(before, ids...)
				}
			}
			if !seen {
				return nil, nil, unsupported(c)
			}
			prefix, suffix = append(before, prefix...), append(suffix, after...)
		default:
			return nil, nil, unsupported(c)
		}
	}
	return prefix, suffix, nil
}
