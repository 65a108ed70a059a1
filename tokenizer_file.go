package photon

import (
	"fmt"
	"strings"
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
