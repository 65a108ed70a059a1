package photon

import (
	"encoding/json"
	"fmt"
	"math"
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
	r, err := newJSONReader(data)
	if err != nil {
		return Config{}, err
	}
	// The first pass learns which layout it is, and checks the syntax of the whole.
	c := Config{BOSTokenID: -1}
	if err := r.fields(need("model_type", readString(r, &c.ModelType))); err != nil {
		return Config{}, err
	}
	if err := r.end(); err != nil {
		return Config{}, err
	}
	r.pos = 0
	switch c.ModelType {
	case modelTypePhoton:
		return c, c.readPhoton(r)
	case modelTypeLlama, modelTypeMistral, modelTypeMinistral:
		return c, c.readFlat(r)
	}
	return Config{}, fmt.Errorf("model_type is %.80q, %s: %w", c.ModelType, wantModelType, ErrUnsupported)
}

func (c *Config) readPhoton(r *jsonReader) error {
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
	return r.fields(
		need("format_version", version),
		need("vocab_size", readInt(r, &c.VocabSize)),
		need("embedding_size", readInt(r, &c.EmbeddingSize)),
		need("rms_norm_eps", readFloat(r, &c.RMSNormEps)),
		need("tie_word_embeddings", readBool(r, &c.TieWordEmbeddings)),
		may("bos_token_id", orNull(r, readInt(r, &c.BOSTokenID))),
		may("eos_token_id", orNull(r, readInts(r, &c.EOSTokenIDs))),
		may("token_encoder", orNull(r, func() error {
			c.TokenEncoder = &StackConfig{}
			return c.TokenEncoder.read(r)
		})),
		may("content", readString(r, &c.Content)),
		may("quantization_config", orNull(r, notRun("give weights that are not, or of the int8 form"))),
		need("levels", func() error {
			return r.array(func(i int) error {
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

func (l *LevelConfig) read(r *jsonReader) error {
	return r.fields(
		need("chunk_size", readInt(r, &l.ChunkSize)),
		need("prefix_length", readInt(r, &l.PrefixLength)),
		need("chunker", readString(r, &l.Chunker)),
		need("encoder", func() error { return l.Encoder.read(r) }),
		need("decoder", func() error { return l.Decoder.read(r) }),
	)
}

func (s *StackConfig) read(r *jsonReader) error {
	return r.fields(
		need("hidden_size", readInt(r, &s.HiddenSize)),
		need("num_hidden_layers", readInt(r, &s.Layers)),
		need("num_attention_heads", readInt(r, &s.Heads)),
		need("num_key_value_heads", readInt(r, &s.KVHeads)),
		need("head_dim", readInt(r, &s.HeadDim)),
		need("intermediate_size", readInt(r, &s.IntermediateSize)),
		need("sliding_window", func() error {
			if r.peek() != '[' {
				return readInt(r, &s.SlidingWindow)()
			}
			s.Windows = []int{}
			return readInts(r, &s.Windows)()
		}),
		need("rope_theta", readFloat(r, &s.RopeTheta)),
		may("memories", func() error {
			s.Memories = []MemoryConfig{}
			return r.array(func(i int) error {
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

func (e *MemoryConfig) read(r *jsonReader) error {
	return r.fields(
		need("level", readInt(r, &e.Level)),
		need("layers", readInts(r, &e.Layers)),
		need("num_attention_heads", readInt(r, &e.Heads)),
		need("num_key_value_heads", readInt(r, &e.KVHeads)),
		need("head_dim", readInt(r, &e.HeadDim)),
		may("sliding_window", readInt(r, &e.SlidingWindow)),
		may("rope_theta", readFloat(r, &e.RopeTheta)),
		may("unpack", readBool(r, &e.Unpack)),
	)
}

// readFlat reads the keys of Hugging Face's LlamaConfig, MistralConfig or MinistralConfig, with the defaults of the
// first. Where those of the others differ, the key has to be there. max_position_embeddings changes nothing in
// the arithmetic: it says how far the model was trained, and texts may go on beyond.
func (c *Config) readFlat(r *jsonReader) error {
	s := &c.Transformer
	must := may
	if c.ModelType != modelTypeLlama {
		must = need
	}
	var types []string
	const absent = math.MinInt32
	s.KVHeads, s.HeadDim, s.RopeTheta, c.RMSNormEps = absent, absent, -1, 1e-6
	err := r.fields(
		need("vocab_size", readInt(r, &c.VocabSize)),
		need("hidden_size", readInt(r, &s.HiddenSize)),
		need("intermediate_size", readInt(r, &s.IntermediateSize)),
		need("num_hidden_layers", readInt(r, &s.Layers)),
		need("num_attention_heads", readInt(r, &s.Heads)),
		must("num_key_value_heads", orNull(r, readInt(r, &s.KVHeads))),
		must("sliding_window", orNull(r, readInt(r, &s.SlidingWindow))),
		may("layer_types", orNull(r, func() error {
			return r.array(func(i int) error {
				types = append(types, "")
				return readString(r, &types[i])()
			})
		})),
		may("head_dim", orNull(r, readInt(r, &s.HeadDim))),
		may("rms_norm_eps", readFloat(r, &c.RMSNormEps)),
		may("rope_theta", orNull(r, readTheta(r, &s.RopeTheta))),
		may("rope_parameters", orNull(r, func() error { return readRope(r, &s.RopeTheta) })),
		may("rope_scaling", orNull(r, func() error { return readRope(r, &s.RopeTheta) })),
		may("tie_word_embeddings", readBool(r, &c.TieWordEmbeddings)),
		may("bos_token_id", orNull(r, readInt(r, &c.BOSTokenID))),
		may("eos_token_id", orNull(r, readInts(r, &c.EOSTokenIDs))),
		may("hidden_act", mustBe(r, "silu")),
		may("attention_bias", orNull(r, mustBeFalse(r))),
		may("mlp_bias", orNull(r, mustBeFalse(r))),
		may("quantization_config", orNull(r, notRun("give weights that are not, or of the int8 form"))),
	)
	if err != nil {
		return err
	}
	if err := c.readLayerTypes(types); err != nil {
		return err
	}
	if s.KVHeads == absent {
		s.KVHeads = s.Heads
	}
	if s.HeadDim == absent {
		if s.Heads < 1 || s.HiddenSize%s.Heads != 0 {
			return fmt.Errorf("hidden_size %d is no multiple of num_attention_heads %d, and head_dim is missing: %w", s.HiddenSize, s.Heads, ErrCorrupt)
		}
		s.HeadDim = s.HiddenSize / s.Heads
	}
	if s.RopeTheta < 0 {
		s.RopeTheta = 10000
	}
	c.EmbeddingSize = s.HiddenSize
	return nil
}

// readLayerTypes settles which layers have the window.
func (c *Config) readLayerTypes(types []string) error {
	s := &c.Transformer
	if c.ModelType == modelTypeLlama && s.SlidingWindow != 0 {
		return fmt.Errorf("sliding_window is %d, which model_type %q does not have: want %q: %w",
			s.SlidingWindow, c.ModelType, modelTypeMistral, ErrUnsupported)
	}
	plain := layerFull // what every layer is unless layer_types says otherwise
	if s.SlidingWindow != 0 {
		plain = layerSliding
	}
	for i, t := range types {
		if t != plain && c.ModelType != modelTypeMinistral {
			return fmt.Errorf("layer_types[%d] is %.80q, want %q for model_type %q: %w",
				i, t, plain, c.ModelType, ErrUnsupported)
		}
		if t != layerFull && t != layerSliding {
			return fmt.Errorf("layer_types[%d] is %.80q, want %q or %q: %w",
				i, t, layerSliding, layerFull, ErrUnsupported)
		}
		if t == layerSliding && s.SlidingWindow == 0 {
			return fmt.Errorf("layer_types[%d] is %q, but there is no sliding_window: %w", i, t, ErrCorrupt)
		}
	}
	if types != nil && len(types) != s.Layers {
		return fmt.Errorf("layer_types has %d entries, want one for each of %d layers: %w",
			len(types), s.Layers, ErrCorrupt)
	}
	if c.ModelType == modelTypeMinistral && s.Layers > 0 && s.Layers <= maxTensors {
		s.Windows = make([]int, s.Layers)
		for i := range s.Windows {
			if types == nil && plain == layerSliding || types != nil && types[i] == layerSliding {
				s.Windows[i] = s.SlidingWindow
			}
		}
		s.SlidingWindow = 0
	}
	return nil
}

const (
	layerFull    = "full_attention"
	layerSliding = "sliding_attention"
)

// readRope reads rope_parameters or rope_scaling: only the plain rotation is known.
func readRope(r *jsonReader, theta *float64) error {
	named, scaled := false, false
	kind := func() error { named = true; return mustBe(r, "default")() }
	err := r.fields(
		may("rope_type", kind),
		may("type", kind),
		may("factor", func() error { scaled = true; return r.skip() }),
		may("rope_theta", readTheta(r, theta)),
	)
	if err == nil && scaled && !named {
		err = fmt.Errorf("factor without rope_type: %w", ErrUnsupported)
	}
	return err
}

// readTheta reads a RoPE base that may be said in two places, but not differently.
func readTheta(r *jsonReader, theta *float64) func() error {
	return func() error {
		var value float64
		if err := readFloat(r, &value)(); err != nil {
			return err
		}
		if value < 0 || *theta >= 0 && *theta != value {
			return fmt.Errorf("rope_theta is %g here, %g elsewhere: %w", value, *theta, ErrCorrupt)
		}
		*theta = value
		return nil
	}
}

func need(key string, read func() error) jsonField { return jsonField{key, read, true} }
func may(key string, read func() error) jsonField  { return jsonField{key, read, false} }

func orNull(r *jsonReader, read func() error) func() error {
	return func() error {
		if r.null() {
			return nil
		}
		return read()
	}
}

func readInt(r *jsonReader, dst *int) func() error {
	return func() error {
		value, err := r.integer()
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
func readInts(r *jsonReader, dst *[]int) func() error {
	return func() error {
		item := func(i int) error {
			*dst = append(*dst, 0)
			return readInt(r, &(*dst)[i])()
		}
		if r.peek() == '[' {
			return r.array(item)
		}
		return item(0)
	}
}

func readFloat(r *jsonReader, dst *float64) func() error {
	return func() (err error) { *dst, err = r.float(); return err }
}

func readBool(r *jsonReader, dst *bool) func() error {
	return func() (err error) { *dst, err = r.bool(); return err }
}

func readString(r *jsonReader, dst *string) func() error {
	return func() (err error) { *dst, err = r.string(); return err }
}

func mustBe(r *jsonReader, want string) func() error {
	return func() error {
		value, err := r.string()
		if err == nil && value != want {
			err = fmt.Errorf("%.80q, want %q: %w", value, want, ErrUnsupported)
		}
		return err
	}
}

// notRun refuses a key that would change what the weights mean.
func notRun(instead string) func() error {
	return func() error { return fmt.Errorf("not run: %s: %w", instead, ErrUnsupported) }
}

func mustBeFalse(r *jsonReader) func() error {
	return func() error {
		value, err := r.bool()
		if err == nil && value {
			err = fmt.Errorf("true, want false: %w", ErrUnsupported)
		}
		return err
	}
}

// MarshalJSON writes the config.json that Load reads: the photon layout, or Hugging Face's for a flat model.
func (c Config) MarshalJSON() ([]byte, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("photon: config: %w", err)
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

func (c Config) marshalFlat(bos *int) ([]byte, error) {
	s := c.Transformer
	architectures := map[string]string{
		modelTypeLlama: "LlamaForCausalLM", modelTypeMistral: "MistralForCausalLM", modelTypeMinistral: "MinistralForCausalLM",
	}
	type windows struct {
		SlidingWindow *int     `json:"sliding_window"`
		LayerTypes    []string `json:"layer_types,omitempty"`
	}
	var w *windows // not of a llama
	if c.ModelType != modelTypeLlama {
		w = &windows{}
		for n := range s.Layers {
			kind := layerFull
			if size := s.window(n); size > 0 {
				kind, w.SlidingWindow = layerSliding, &size
			}
			if s.Windows != nil {
				w.LayerTypes = append(w.LayerTypes, kind)
			}
		}
	}
	return json.Marshal(struct {
		Architectures     []string `json:"architectures"`
		ModelType         string   `json:"model_type"`
		VocabSize         int      `json:"vocab_size"`
		HiddenSize        int      `json:"hidden_size"`
		IntermediateSize  int      `json:"intermediate_size"`
		Layers            int      `json:"num_hidden_layers"`
		Heads             int      `json:"num_attention_heads"`
		KVHeads           int      `json:"num_key_value_heads"`
		HeadDim           int      `json:"head_dim"`
		HiddenAct         string   `json:"hidden_act"`
		RMSNormEps        float64  `json:"rms_norm_eps"`
		RopeTheta         float64  `json:"rope_theta"`
		TieWordEmbeddings bool     `json:"tie_word_embeddings"`
		AttentionBias     bool     `json:"attention_bias"`
		MLPBias           bool     `json:"mlp_bias"`
		BOSTokenID        *int     `json:"bos_token_id"` // null, because Hugging Face takes absence for 1
		EOSTokenIDs       []int    `json:"eos_token_id"`
		*windows
	}{
		[]string{architectures[c.ModelType]}, c.ModelType,
		c.VocabSize, s.HiddenSize, s.IntermediateSize, s.Layers, s.Heads, s.KVHeads, s.HeadDim,
		"silu", c.RMSNormEps, s.RopeTheta, c.TieWordEmbeddings, false, false, bos, c.EOSTokenIDs, w,
	})
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
