package photon

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxInsert bounds what a template puts around a text.
const maxInsert = 64

var errInsert = fmt.Errorf("the template puts more than %d tokens around a text: %w", maxInsert, ErrUnsupported)

// growth bounds what stages that rewrite a text, one after the other, make of a byte of it at most: the sum of the
// bytes that they write, so that no file can make a short text long, or much work.
type growth struct {
	most     int
	now, sum int // bytes after the last stage, and of all
}

// stage counts a stage that makes at most factor bytes of one.
func (g *growth) stage(c component, factor int) error {
	g.now = max(g.now, 1) * min(max(factor, 1), g.most+1)
	if g.sum += g.now; g.sum > g.most {
		return fmt.Errorf("type %.80q: rewriting makes a text more than %d times as long: %w",
			c.kind, g.most, ErrUnsupported)
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

// replacer returns what replaces a fixed string by another.
func (c component) replacer(g *growth) (func(string) string, error) {
	if c.pattern == "" || c.regex != "" {
		return nil, c.unsupported()
	}
	if err := g.stage(c, (len(c.content)+len(c.pattern)-1)/len(c.pattern)); err != nil {
		return nil, err
	}
	return func(text string) string { return strings.ReplaceAll(text, c.pattern, c.content) }, nil
}

func (c component) normalizers(g *growth) (list []func(string) string, err error) {
	for _, c := range c.list() {
		var normalize func(string) string
		switch c.kind {
		case "NFC":
			normalize, err = nfc, g.stage(c, 3) // U+1D160 is the worst
		case "Prepend": // a text may be a byte between two added tokens
			normalize, err = func(text string) string {
				if text == "" {
					return ""
				}
				return c.prepend + text
			}, g.stage(c, 1+len(c.prepend))
		case "Replace":
			normalize, err = c.replacer(g)
		default:
			err = c.unsupported()
		}
		if err != nil {
			return nil, err
		}
		list = append(list, normalize)
	}
	return list, nil
}

func (c component) splitters(g *growth) (list []splitter, byteLevel bool, err error) {
	for _, c := range c.list() {
		if byteLevel {
			return nil, false, fmt.Errorf("%.80q after ByteLevel is not run: %w", c.kind, ErrUnsupported)
		}
		var s splitter
		factor := 1
		switch c.kind {
		case "ByteLevel":
			byteLevel = true
			if c.addPrefixSpace {
				factor = 2 // a word may be a byte
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
			always, atStart, err := c.prepends()
			if err != nil {
				return nil, false, err
			}
			if factor = len(c.replacement); always {
				factor *= 2 // a word may be a space
			}
			s.rewrite = func(text string, first bool) string {
				text = strings.ReplaceAll(text, " ", c.replacement)
				if always || atStart && first {
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
		if err := g.stage(c, factor); err != nil {
			return nil, false, err
		}
		list = append(list, s)
	}
	return list, byteLevel, nil
}

// prepends says where a Metaspace puts its mark in front: at every text between added tokens, or where the whole text
// starts. Older files say add_prefix_space in place of prepend_scheme; where a file says both, they must agree.
func (c component) prepends() (always, atStart bool, err error) {
	scheme := c.prependScheme
	switch {
	case scheme == "" && c.noPrefixSpace:
		scheme = "never"
	case scheme == "":
		scheme = "always"
	}
	known := scheme == "never" || (scheme == "always" || scheme == "first") && !c.noPrefixSpace
	if !known || c.replacement == " " || utf8.RuneCountInString(c.replacement) != 1 {
		return false, false, c.unsupported()
	}
	return scheme == "always", scheme == "first", nil
}

// splitNext returns the scanner of a Split.
func (c component) splitNext() (func(string) int, error) {
	if c.behavior == "MergedWithPrevious" && !c.invert && c.pattern != "" && c.regex == "" {
		return func(text string) int { return nextEnd(text, c.pattern) }, nil
	}
	pattern, known := findPattern(c.regex)
	if !known || c.pattern != "" {
		return nil, fmt.Errorf("pattern %.400q is not run, only those of GPT-2, GPT-4o, Llama 3, Qwen, Mistral Nemo and "+
			"DeepSeek V3: %w", c.regex+c.pattern, ErrUnsupported)
	}
	if c.behavior == "Isolated" && !c.invert || c.behavior == "Removed" && c.invert && pattern.covers {
		return pattern.next, nil
	}
	return nil, c.unsupported()
}

// pieceDecoder returns what turns a token into its bytes: ByteLevel, or those of Replace, ByteFallback, Fuse and Strip
// that there are, in this order, as a SentencePiece model has them. stripSpace: a text loses one leading space.
func (c component) pieceDecoder() (decode func(token string, added bool) string, stripSpace bool, err error) {
	list := c.list()
	if len(list) == 0 {
		return nil, false, fmt.Errorf("there is none to make text of tokens; a byte-level model needs ByteLevel: %w", ErrUnsupported)
	}
	if list[0].kind == "ByteLevel" && len(list) == 1 {
		return byteLevelPiece, false, nil
	}
	order := []string{"Replace", "ByteFallback", "Fuse", "Strip"}
	step, g := 0, growth{most: 8}
	var replace []func(string) string
	byteFallback := false
	for _, c := range list {
		before := step
		if step = slices.Index(order, c.kind); step < before {
			return nil, false, c.unsupported()
		}
		switch c.kind {
		case "Replace":
			r, err := c.replacer(&g)
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
			return nil, errInsert
		}
	}
	return ids, nil
}
