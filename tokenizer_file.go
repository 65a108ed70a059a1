package photon

import (
	"fmt"
	"strings"
)

// maxTokenID bounds token ids; no vocabulary comes near it.
const maxTokenID = 1 << 24

// maxStages bounds the parts of a sequence in the file.
const maxStages = 64

// parseTokenizer reads a tokenizer.json. Errors match ErrCorrupt or ErrUnsupported. What it allocates is a small multiple of len(data).
func parseTokenizer(data []byte) (*Tokenizer, error) {
	err := checkLFSPointer(data)
	var t *Tokenizer
	if err == nil {
		t, err = readTokenizer(data)
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
	kind                            string
	vocab                           map[string]int32
	merges                          [][2]string
	unknown, wordPrefix, wordSuffix string
	dropout                         float64
	fuseUnknown, byteFallback       bool
	ignoreMerges                    bool
}

// component is a normalizer, pre-tokenizer, post-processor or decoder; kind says which of the other fields mean anything.
type component struct {
	kind  string // empty: there is none
	parts []component

	pattern, regex                                  string // what to look for: one of them
	content, prepend, replacement, scheme, behavior string
	addPrefixSpace, useRegex, invert, split, digits bool
	start, stop                                     int64

	template    []string // names of special tokens; empty where the text goes
	templateIDs map[string][]int
}

func readTokenizer(data []byte) (*Tokenizer, error) {
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
	if err != nil {
		return nil, err
	}

	return f.tokenizer(len(data))
}

// into reads a value that may be null, which leaves dst as it is.
func into[T any](r *jsonReader, dst *T, read func() (T, error)) func() error {
	return func() error {
		if r.null() {
			return nil
		}
		value, err := read()
		if err == nil {
			*dst = value
		}
		return err
	}
}

func readAddedTokens(r *jsonReader, tokens *[]addedToken) error {
	if r.null() {
		return nil
	}
	return r.array(func(int) error {
		var id int64
		var token addedToken
		err := r.fields(
			jsonField{"id", func() (err error) { id, err = r.integer(); return err }, true},
			jsonField{"content", func() (err error) { token.content, err = r.string(); return err }, true},
			jsonField{"single_word", into(r, &token.singleWord, r.bool), false},
			jsonField{"lstrip", into(r, &token.lstrip, r.bool), false},
			jsonField{"rstrip", into(r, &token.rstrip, r.bool), false},
			jsonField{"normalized", into(r, &token.normalized, r.bool), false},
			jsonField{"special", into(r, &token.special, r.bool), false},
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
	parts := func() error { return readComponents(r, &c.parts) }
	c.useRegex, c.split, c.scheme = true, true, "always"
	return r.fields(
		jsonField{"type", func() (err error) { c.kind, err = r.string(); return err }, true},
		jsonField{"normalizers", parts, false},
		jsonField{"pretokenizers", parts, false},
		jsonField{"processors", parts, false},
		jsonField{"decoders", parts, false},
		jsonField{"pattern", func() error {
			return r.fields(
				jsonField{"String", into(r, &c.pattern, r.string), false},
				jsonField{"Regex", into(r, &c.regex, r.string), false},
			)
		}, false},
		jsonField{"content", into(r, &c.content, r.string), false},
		jsonField{"prepend", into(r, &c.prepend, r.string), false},
		jsonField{"replacement", into(r, &c.replacement, r.string), false},
		jsonField{"prepend_scheme", into(r, &c.scheme, r.string), false},
		jsonField{"behavior", into(r, &c.behavior, r.string), false},
		jsonField{"add_prefix_space", into(r, &c.addPrefixSpace, r.bool), false},
		jsonField{"use_regex", into(r, &c.useRegex, r.bool), false},
		jsonField{"invert", into(r, &c.invert, r.bool), false},
		jsonField{"split", into(r, &c.split, r.bool), false},
		jsonField{"individual_digits", into(r, &c.digits, r.bool), false},
		jsonField{"start", into(r, &c.start, r.integer), false},
		jsonField{"stop", into(r, &c.stop, r.integer), false},
		jsonField{"single", func() error { return readTemplate(r, c) }, false},
		jsonField{"special_tokens", func() error { return readTemplateIDs(r, c) }, false},
	)
}

func readComponents(r *jsonReader, parts *[]component) error {
	return r.array(func(i int) error {
		if i == maxStages {
			return fmt.Errorf("a sequence has more than %d parts: %w", maxStages, ErrUnsupported)
		}
		var c component
		if err := readComponent(r, &c); err != nil {
			return err
		}
		*parts = append(*parts, c)
		return nil
	})
}

// readTemplate reads [{"SpecialToken": {"id": "<s>", …}}, {"Sequence": {"id": "A", …}}, …].
func readTemplate(r *jsonReader, c *component) error {
	id := func(dst *string) func() error {
		return func() error { return r.fields(jsonField{"id", into(r, dst, r.string), true}) }
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
		c.template = append(c.template, special)
		return err
	})
}

// readTemplateIDs reads {"<s>": {"ids": [1], …}, …}.
func readTemplateIDs(r *jsonReader, c *component) error {
	c.templateIDs = map[string][]int{}
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
		c.templateIDs[name] = ids
		return err
	})
}

func readBPE(r *jsonReader, m *bpeModel) error {
	return r.fields(
		jsonField{"type", func() (err error) {
			m.kind, err = r.string()
			if err == nil && m.kind != "BPE" {
				err = fmt.Errorf("type %q is not run, only BPE: %w", m.kind, ErrUnsupported)
			}
			return err
		}, false},
		jsonField{"vocab", func() error { return readVocab(r, m) }, true},
		jsonField{"merges", func() error { return readMerges(r, m) }, true},
		jsonField{"unk_token", into(r, &m.unknown, r.string), false},
		jsonField{"continuing_subword_prefix", into(r, &m.wordPrefix, r.string), false},
		jsonField{"end_of_word_suffix", into(r, &m.wordSuffix, r.string), false},
		jsonField{"dropout", into(r, &m.dropout, r.float), false},
		jsonField{"fuse_unk", into(r, &m.fuseUnknown, r.bool), false},
		jsonField{"byte_fallback", into(r, &m.byteFallback, r.bool), false},
		jsonField{"ignore_merges", into(r, &m.ignoreMerges, r.bool), false},
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
