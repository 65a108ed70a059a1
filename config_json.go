package photon

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/photon-lm/photon/internal/strictjson"
)

// parseConfig reads a config.json of either layout and validates it.
func parseConfig(data []byte) (Config, error) {
	c, err := readConfig(data)
	if err == nil {
		err = c.validate()
	}
	if err != nil {
		return Config{}, fmt.Errorf("photon: config.json: %w", err)
	}
	return c, nil
}

func readConfig(data []byte) (Config, error) {
	if len(data) > maxConfigSize {
		return Config{}, fmt.Errorf("%d bytes, more than %d: this is no model configuration: %w", len(data), maxConfigSize, ErrCorrupt)
	}
	if err := checkLFSPointer(data); err != nil {
		return Config{}, err
	}
	r, err := strictjson.New(data, ErrCorrupt)
	if err != nil {
		return Config{}, err
	}
	// The first pass learns which layout it is, and checks the syntax of the whole.
	c, first := Config{BOSTokenID: -1}, r.Copy()
	if err := first.Fields(strictjson.Need("model_type", strictjson.Into(&c.ModelType, first.String))); err != nil {
		return Config{}, err
	}
	if err := first.End(); err != nil {
		return Config{}, err
	}
	switch c.ModelType {
	case modelTypePhoton:
		return c, c.readPhoton(r)
	}
	if kind, known := flatKinds[c.ModelType]; known {
		return c, c.readFlat(r, kind)
	}
	return Config{}, fmt.Errorf("model_type is %.80q, %s: %w", c.ModelType, wantModelType, ErrUnsupported)
}

func (c *Config) readPhoton(r *strictjson.Reader) error {
	version := func() error {
		if err := readInt(r, &c.FormatVersion)(); err != nil {
			return err
		}
		if c.FormatVersion != formatVersion && c.FormatVersion != formatVersion2 {
			const want = "%d is unknown, want %d or %d: %w"
			return fmt.Errorf(want, c.FormatVersion, formatVersion, formatVersion2, ErrUnsupported)
		}
		return nil
	}
	return r.Fields(
		strictjson.Need("format_version", version),
		strictjson.Need("vocab_size", readInt(r, &c.VocabSize)),
		strictjson.Need("embedding_size", readInt(r, &c.EmbeddingSize)),
		strictjson.Need("rms_norm_eps", strictjson.Into(&c.RMSNormEps, r.Float)),
		strictjson.Need("tie_word_embeddings", strictjson.Into(&c.TieWordEmbeddings, r.Bool)),
		strictjson.May("bos_token_id", r.OrNull(readInt(r, &c.BOSTokenID))),
		strictjson.May("eos_token_id", r.OrNull(readInts(r, &c.EOSTokenIDs))),
		strictjson.May("token_encoder", r.OrNull(func() error {
			c.TokenEncoder = &StackConfig{}
			return c.TokenEncoder.read(r)
		})),
		strictjson.May("content", strictjson.Into(&c.Content, r.String)),
		strictjson.May("quantization_config", r.OrNull(notRun("give weights that are not, or of the int8 form"))),
		strictjson.Need("levels", func() error {
			return r.Array(func(i int) error {
				if i == maxLevels {
					return fmt.Errorf("more than %d levels: %w", maxLevels, ErrUnsupported)
				}
				c.Levels = append(c.Levels, LevelConfig{})
				if err := c.Levels[i].read(r); err != nil {
					return fmt.Errorf("[%d]: %w", i, err)
				}
				return nil
			})
		}),
	)
}

func (l *LevelConfig) read(r *strictjson.Reader) error {
	return r.Fields(
		strictjson.Need("chunk_size", readInt(r, &l.ChunkSize)),
		strictjson.Need("prefix_length", readInt(r, &l.PrefixLength)),
		strictjson.Need("chunker", strictjson.Into(&l.Chunker, r.String)),
		strictjson.Need("encoder", func() error { return l.Encoder.read(r) }),
		strictjson.Need("decoder", func() error { return l.Decoder.read(r) }),
	)
}

func (s *StackConfig) read(r *strictjson.Reader) error {
	return r.Fields(
		strictjson.Need("hidden_size", readInt(r, &s.HiddenSize)),
		strictjson.Need("num_hidden_layers", readInt(r, &s.Layers)),
		strictjson.Need("num_attention_heads", readInt(r, &s.Heads)),
		strictjson.Need("num_key_value_heads", readInt(r, &s.KVHeads)),
		strictjson.Need("head_dim", readInt(r, &s.HeadDim)),
		strictjson.Need("intermediate_size", readInt(r, &s.IntermediateSize)),
		strictjson.Need("sliding_window", func() error {
			if r.Peek() != '[' {
				return readInt(r, &s.SlidingWindow)()
			}
			s.Windows = []int{}
			return readInts(r, &s.Windows)()
		}),
		strictjson.Need("rope_theta", strictjson.Into(&s.RopeTheta, r.Float)),
		strictjson.May("memories", func() error {
			s.Memories = []MemoryConfig{}
			return r.Array(func(i int) error {
				if i == maxMemories {
					return fmt.Errorf("more than %d memories: %w", maxMemories, ErrUnsupported)
				}
				s.Memories = append(s.Memories, MemoryConfig{})
				if err := s.Memories[i].read(r); err != nil {
					return fmt.Errorf("[%d]: %w", i, err)
				}
				return nil
			})
		}),
	)
}

func (e *MemoryConfig) read(r *strictjson.Reader) error {
	return r.Fields(
		strictjson.Need("level", readInt(r, &e.Level)),
		strictjson.Need("layers", readInts(r, &e.Layers)),
		strictjson.Need("num_attention_heads", readInt(r, &e.Heads)),
		strictjson.Need("num_key_value_heads", readInt(r, &e.KVHeads)),
		strictjson.Need("head_dim", readInt(r, &e.HeadDim)),
		strictjson.May("sliding_window", readInt(r, &e.SlidingWindow)),
		strictjson.May("rope_theta", strictjson.Into(&e.RopeTheta, r.Float)),
		strictjson.May("unpack", strictjson.Into(&e.Unpack, r.Bool)),
	)
}

func readInt(r *strictjson.Reader, dst *int) func() error {
	return func() error {
		value, err := r.Integer()
		if err != nil {
			return err
		}
		if value < -maxSize || value > maxSize {
			return fmt.Errorf("%d is beyond %d: %w", value, maxSize, ErrUnsupported)
		}
		*dst = int(value)
		return nil
	}
}

// readInts reads a number or a list of numbers.
func readInts(r *strictjson.Reader, dst *[]int) func() error {
	return func() error {
		var n int
		number := readInt(r, &n)
		item := func(int) error {
			err := number()
			*dst = append(*dst, n)
			return err
		}
		if r.Peek() == '[' {
			*dst = slices.Grow(*dst, r.Room(2)) // none stays nil
			return r.Array(item)
		}
		return item(0)
	}
}

// notRun refuses a key that would change what the weights mean.
func notRun(instead string) func() error {
	return func() error { return fmt.Errorf("not run: %s: %w", instead, ErrUnsupported) }
}

// MarshalJSON writes the config.json that Load reads: the photon layout, or Hugging Face's for a flat model. An invalid
// config is ErrInvalid.
func (c Config) MarshalJSON() ([]byte, error) {
	if err := c.validateGiven(); err != nil {
		return nil, err
	}
	var bos *int
	if c.BOSTokenID >= 0 {
		bos = &c.BOSTokenID
	}
	if c.Flat() {
		return c.marshalFlat(bos)
	}
	return json.Marshal(struct {
		ModelType         string        `json:"model_type"`
		FormatVersion     int           `json:"format_version"`
		VocabSize         int           `json:"vocab_size"`
		EmbeddingSize     int           `json:"embedding_size"`
		RMSNormEps        float64       `json:"rms_norm_eps"`
		TieWordEmbeddings bool          `json:"tie_word_embeddings"`
		BOSTokenID        *int          `json:"bos_token_id,omitempty"`
		EOSTokenIDs       []int         `json:"eos_token_id,omitempty"`
		TokenEncoder      *StackConfig  `json:"token_encoder,omitempty"`
		Content           string        `json:"content,omitempty"`
		Levels            []LevelConfig `json:"levels"`
	}{c.ModelType, c.FormatVersion, c.VocabSize, c.EmbeddingSize, c.RMSNormEps, c.TieWordEmbeddings, bos, c.EOSTokenIDs,
		c.TokenEncoder, c.Content, c.Levels})
}

// UnmarshalJSON reads what MarshalJSON writes, which is what config.json says; errors are those of Load.
func (c *Config) UnmarshalJSON(data []byte) error {
	read, err := parseConfig(data)
	if err == nil {
		*c = read
	}
	return err
}

// UnmarshalJSON reads what MarshalJSON writes; what is wrong with it is ErrCorrupt, as in config.json.
func (s *StackConfig) UnmarshalJSON(data []byte) error {
	r, err := strictjson.New(data, ErrCorrupt)
	var read StackConfig
	if err == nil {
		err = read.read(r)
	}
	if err != nil {
		return fmt.Errorf("photon: stack of config.json: %w", err)
	}
	*s = read
	return nil
}

// MarshalJSON writes a stack of config.json.
func (s StackConfig) MarshalJSON() ([]byte, error) {
	var window any = s.SlidingWindow
	if s.Windows != nil {
		window = s.Windows
	}
	return json.Marshal(struct {
		HiddenSize       int            `json:"hidden_size"`
		Layers           int            `json:"num_hidden_layers"`
		Heads            int            `json:"num_attention_heads"`
		KVHeads          int            `json:"num_key_value_heads"`
		HeadDim          int            `json:"head_dim"`
		IntermediateSize int            `json:"intermediate_size"`
		SlidingWindow    any            `json:"sliding_window"` // a number, or one a layer
		RopeTheta        float64        `json:"rope_theta"`
		Memories         []MemoryConfig `json:"memories,omitempty"`
	}{s.HiddenSize, s.Layers, s.Heads, s.KVHeads, s.HeadDim, s.IntermediateSize, window, s.RopeTheta, s.Memories})
}
