package photon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/photon-lm/photon/internal/strictjson"
)

const (
	tokenizerFileName = "tokenizer.json"
	maxTokenizerSize  = 64 << 20
)

// readTokenizer reads the tokenizer of a model directory, nil if it has none. One that is there but cannot be read is
// an error.
func readTokenizer(ctx context.Context, fsys fs.FS) (*Tokenizer, error) {
	data, err := readSmall(fsys, tokenizerFileName, maxTokenizerSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return parseTokenizer(ctx, data)
}

// maxTokenID bounds token ids; no vocabulary comes near it.
const maxTokenID = 1 << 24

// maxSequence bounds the parts of a sequence in the file, and so its components of one kind.
const maxSequence = 64

// parseTokenizer reads a tokenizer.json, until ctx ends. Other errors match ErrCorrupt or ErrUnsupported. What it
// allocates is a small multiple of len(data).
func parseTokenizer(ctx context.Context, data []byte) (*Tokenizer, error) {
	f, err := readTokenizerFile(&deadline{ctx: ctx}, data)
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
	until                                            *deadline // of making something of it
}

// bpeModel is the file's "model".
type bpeModel struct {
	vocab                           map[string]int32
	merges                          func(each func(rank int, left, right string) error) error // the first to come first
	mergeCount                      int
	unknown, wordPrefix, wordSuffix string
	dropout                         float64
	fuseUnknown, byteFallback       bool
	ignoreMerges                    bool
	until                           *deadline // of making something of it
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

	addPrefixSpace, noPrefixSpace, useRegex, individualDigits, invert, split bool

	single   []string         // names of special tokens; empty where the text goes
	specials map[string][]int // "special_tokens": the ids of each
}

func readTokenizerFile(until *deadline, data []byte) (*tokenizerFile, error) {
	if err := checkLFSPointer(data); err != nil {
		return nil, err
	}
	r, err := strictjson.New(data, ErrCorrupt)
	if err != nil {
		return nil, err
	}
	f := &tokenizerFile{until: until}
	f.model.until, r.Until = until, until.passed
	err = r.Fields(
		strictjson.May("added_tokens", func() error { return readAddedTokens(r, &f.added) }),
		strictjson.May("normalizer", func() error { return readComponent(r, &f.normalizer) }),
		strictjson.May("pre_tokenizer", func() error { return readComponent(r, &f.preTokenizer) }),
		strictjson.May("post_processor", func() error { return readComponent(r, &f.postProcessor) }),
		strictjson.May("decoder", func() error { return readComponent(r, &f.decoder) }),
		strictjson.Need("model", func() error { return readBPE(r, &f.model) }),
	)
	if err == nil {
		err = r.End()
	}
	return f, err
}

func readAddedTokens(r *strictjson.Reader, tokens *[]addedToken) error {
	var id int64
	var token addedToken
	fields := []strictjson.Field{
		strictjson.Need("id", strictjson.Into(&id, r.Integer)),
		strictjson.Need("content", strictjson.Into(&token.content, r.String)),
		strictjson.May("single_word", strictjson.Into(&token.singleWord, r.Bool)),
		strictjson.May("lstrip", strictjson.Into(&token.lstrip, r.Bool)),
		strictjson.May("rstrip", strictjson.Into(&token.rstrip, r.Bool)),
		strictjson.May("normalized", strictjson.Into(&token.normalized, r.Bool)),
		strictjson.May("special", strictjson.Into(&token.special, r.Bool)),
	}
	*tokens = make([]addedToken, 0, r.Room(len(`{"id":0,"content":""}`)))
	return r.Array(func(int) (err error) {
		token = addedToken{}
		if err := r.Fields(fields...); err != nil {
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
	if len(token) > maxTokenText {
		return 0, fmt.Errorf("token %.80q has %d bytes, more than %d: %w",
			token, len(token), maxTokenText, ErrUnsupported)
	}
	return int(id), nil
}

func readComponent(r *strictjson.Reader, c *component) error {
	if r.Null() {
		return nil
	}
	parts := func() error { return readParts(r, &c.parts) }
	c.useRegex, c.split = true, true
	return r.Fields(
		strictjson.Need("type", strictjson.Into(&c.kind, r.String)),
		strictjson.May("normalizers", parts),
		strictjson.May("pretokenizers", parts),
		strictjson.May("processors", parts),
		strictjson.May("decoders", parts),
		strictjson.May("pattern", func() error {
			return r.Fields(
				strictjson.May("String", strictjson.Into(&c.pattern, r.String)),
				strictjson.May("Regex", strictjson.Into(&c.regex, r.String)),
			)
		}),
		strictjson.May("content", strictjson.Into(&c.content, r.String)),
		strictjson.May("prepend", strictjson.Into(&c.prepend, r.String)),
		strictjson.May("replacement", strictjson.Into(&c.replacement, r.String)),
		strictjson.May("prepend_scheme", strictjson.Into(&c.prependScheme, r.String)),
		strictjson.May("behavior", strictjson.Into(&c.behavior, r.String)),
		strictjson.May("add_prefix_space", r.OrNull(func() (err error) {
			c.addPrefixSpace, err = r.Bool()
			c.noPrefixSpace = !c.addPrefixSpace
			return err
		})),
		strictjson.May("use_regex", strictjson.Into(&c.useRegex, r.Bool)),
		strictjson.May("invert", strictjson.Into(&c.invert, r.Bool)),
		strictjson.May("split", r.OrNull(strictjson.Into(&c.split, r.Bool))),
		strictjson.May("individual_digits", strictjson.Into(&c.individualDigits, r.Bool)),
		strictjson.May("start", strictjson.Into(&c.start, r.Integer)),
		strictjson.May("stop", strictjson.Into(&c.stop, r.Integer)),
		strictjson.May("single", func() error { return readSingle(r, c) }),
		strictjson.May("special_tokens", func() error { return readSpecials(r, c) }),
	)
}

func readParts(r *strictjson.Reader, parts *[]component) error {
	tooMany := fmt.Errorf("a sequence has more than %d parts: %w", maxSequence, ErrUnsupported)
	return r.Array(func(i int) error {
		if i == maxSequence {
			return tooMany
		}
		var c component
		if err := readComponent(r, &c); err != nil {
			return err
		}
		if c.kind == "Sequence" && len(c.parts) == 0 {
			return fmt.Errorf("an empty sequence within a sequence: %w", ErrUnsupported)
		}
		if *parts = append(*parts, c.list()...); len(*parts) > maxSequence {
			return tooMany
		}
		return nil
	})
}

// readSingle reads [{"SpecialToken": {"id": "<s>", …}}, {"Sequence": {"id": "A", …}}, …].
func readSingle(r *strictjson.Reader, c *component) error {
	id := func(dst *string) func() error {
		return func() error { return r.Fields(strictjson.Need("id", strictjson.Into(dst, r.String))) }
	}
	return r.Array(func(i int) error {
		if i > maxInsert {
			return errInsert
		}
		var special, sequence string
		err := r.Fields(
			strictjson.May("SpecialToken", id(&special)),
			strictjson.May("Sequence", id(&sequence)),
		)
		if err == nil && (special == "") == (sequence == "") {
			err = r.Errorf("a part of a template is neither a special token nor a sequence")
		}
		c.single = append(c.single, special)
		return err
	})
}

// readSpecials reads {"<s>": {"ids": [1], …}, …}.
func readSpecials(r *strictjson.Reader, c *component) error {
	c.specials = map[string][]int{}
	return r.Object(func(name string) error {
		if len(c.specials) == maxInsert {
			return errInsert
		}
		var ids []int
		err := r.Fields(strictjson.Need("ids", func() error {
			return r.Array(func(i int) error {
				if i == maxInsert {
					return errInsert
				}
				id, err := r.Integer()
				if err != nil {
					return err
				}
				checked, err := tokenID(id, name)
				ids = append(ids, checked)
				return err
			})
		}))
		c.specials[name] = ids
		return err
	})
}

func readBPE(r *strictjson.Reader, m *bpeModel) error {
	return r.Fields(
		strictjson.May("type", func() error {
			kind, err := r.String()
			if err == nil && kind != "BPE" {
				err = fmt.Errorf("type %.80q is not run, only BPE: %w", kind, ErrUnsupported)
			}
			return err
		}),
		strictjson.Need("vocab", func() error { return readVocab(r, m) }),
		strictjson.Need("merges", func() error {
			list := r.Copy() // it is read when the vocabulary is known
			m.merges = func(each func(rank int, left, right string) error) error { return readMerges(list, each) }
			m.mergeCount = r.Room(len(`"a b"`))
			return r.Skip()
		}),
		strictjson.May("unk_token", r.OrNull(strictjson.Into(&m.unknown, r.String))),
		strictjson.May("continuing_subword_prefix", r.OrNull(strictjson.Into(&m.wordPrefix, r.String))),
		strictjson.May("end_of_word_suffix", r.OrNull(strictjson.Into(&m.wordSuffix, r.String))),
		strictjson.May("dropout", r.OrNull(strictjson.Into(&m.dropout, r.Float))),
		strictjson.May("fuse_unk", r.OrNull(strictjson.Into(&m.fuseUnknown, r.Bool))),
		strictjson.May("byte_fallback", r.OrNull(strictjson.Into(&m.byteFallback, r.Bool))),
		strictjson.May("ignore_merges", r.OrNull(strictjson.Into(&m.ignoreMerges, r.Bool))),
	)
}

func readVocab(r *strictjson.Reader, m *bpeModel) error {
	if r.Peek() == '[' {
		return fmt.Errorf("the vocabulary is a list, as a Unigram model's; only BPE is run: %w", ErrUnsupported)
	}
	m.vocab = make(map[string]int32, r.Room(len(`"ab":1000,`)))
	var texts arena
	return r.Table(func(token string) (bool, error) {
		n, err := r.Integer()
		if err != nil {
			return false, fmt.Errorf("token %.80q: %w", token, err)
		}
		id, err := tokenID(n, token)
		before := len(m.vocab)
		m.vocab[texts.clone(token)] = int32(id)
		return len(m.vocab) > before, err
	})
}

// An arena holds many short strings, side by side.
type arena struct{ b strings.Builder }

func (a *arena) clone(s string) string {
	if a.b.Cap()-a.b.Len() < len(s) {
		a.b = strings.Builder{}
		a.b.Grow(max(len(s), 1<<12))
	}
	a.b.WriteString(s)
	return a.b.String()[a.b.Len()-len(s):]
}

func readMerges(r *strictjson.Reader, each func(rank int, left, right string) error) error {
	return r.Array(func(rank int) error {
		left, right, none, err := readMerge(r)
		if err != nil {
			return fmt.Errorf("merge %d: %w", rank, err)
		}
		if none {
			return nil
		}
		return each(rank, left, right)
	})
}

// readMerge reads a merge in either spelling: "a b" or ["a", "b"]. A line that gives the version of the list is no
// merge.
func readMerge(r *strictjson.Reader) (left, right string, none bool, err error) {
	pair := true
	if r.Peek() == '[' {
		n := 0
		err = r.Array(func(i int) error {
			token, err := r.Text()
			switch n++; i {
			case 0:
				left = token
			case 1:
				right = token
			}
			return err
		})
		pair = n == 2
	} else {
		var text string
		text, err = r.Text()
		none = strings.HasPrefix(text, "#version")
		left, right, pair = strings.Cut(text, " ")
		pair = pair && !strings.Contains(right, " ")
	}
	if err == nil && !pair && !none {
		err = r.Errorf("not a pair of tokens")
	}
	return left, right, none, err
}

// tokenizer makes a Tokenizer of a file of so many bytes.
func (f *tokenizerFile) tokenizer(size int) (t *Tokenizer, err error) {
	t = &Tokenizer{}
	rewriting := growth{most: 64}
	if t.normalizer, err = f.normalizer.normalizers(&rewriting); err != nil {
		return nil, fmt.Errorf("normalizer: %w", err)
	}
	if t.splitters, t.bpe.byteLevel, err = f.preTokenizer.splitters(&rewriting); err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	decode, stripSpace, err := f.decoder.pieceDecoder()
	if err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	t.stripSpace = stripSpace
	if err := t.bpe.set(&f.model, f.added); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if err := t.setTokens(f, decode, size); err != nil {
		return nil, err
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
	if last > size/8+1<<15 { // a token of a vocabulary without holes takes more than 8 bytes
		return fmt.Errorf("id %d is far above the number of tokens: %w", last, ErrCorrupt)
	}
	t.pieces = make([]string, last+1)
	t.special = make([]bool, last+1)
	taken := make([]bool, last+1)
	most := min(maxAddedText, size) // a normalizer may make more of added tokens than stands in the file
	total := 0
	t.ids = f.model.vocab
	for token, id := range t.ids {
		if err := f.until.passed(); err != nil {
			return err
		}
		if taken[id] {
			return fmt.Errorf("two tokens have id %d, one of them %.80q: %w", id, token, ErrCorrupt)
		}
		taken[id] = true
		t.pieces[id] = decode(token, false)
	}
	added := make([]bool, last+1)
	var verbatim, normalized []addedToken
	room := func(list []addedToken, i int) []addedToken {
		if list == nil {
			list = make([]addedToken, 0, len(f.added)-i)
		}
		return list
	}
	for i, token := range f.added {
		// An added token may stand in the vocabulary too, with the same id.
		id, known := t.ids[token.content]
		if added[token.id] || known && int(id) != token.id || !known && taken[token.id] {
			return fmt.Errorf("added token %.80q has id %d, or stands there twice, which does not fit the other tokens: %w", token.content, token.id, ErrCorrupt)
		}
		taken[token.id], added[token.id] = true, true
		t.ids[token.content] = int32(token.id)
		t.special[token.id] = token.special
		t.pieces[token.id] = decode(token.content, true)
		token.spelling = token.content
		if !token.normalized {
			verbatim = append(room(verbatim, i), token)
			continue
		}
		for _, normalize := range t.normalizer {
			token.spelling = normalize(token.spelling)
		}
		normalized = append(room(normalized, i), token)
		if total += len(token.spelling); total > most {
			break // newAddedTokens reports it
		}
	}
	var err error
	if t.verbatim, err = newAddedTokens(verbatim, most); err == nil {
		t.normalized, err = newAddedTokens(normalized, most)
	}
	return err
}
