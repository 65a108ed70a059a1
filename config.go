package photon

import (
	"fmt"
	"math"
	"math/bits"
)

// Config is what config.json says: the architecture and the ids that begin and end a text. It holds no weights.
// A Config is a plain value; it is safe to copy and to read from several goroutines.
type Config struct {
	ModelType         string // "photon", or "llama" for a flat model in the Hugging Face layout
	FormatVersion     int    // of "photon"; 0 for a flat model
	VocabSize         int
	EmbeddingSize     int // width of the encoder's embedding rows; of a flat model, its hidden size
	RMSNormEps        float64
	TieWordEmbeddings bool          // the head is the (decoder's) embedding table
	BOSTokenID        int           // -1: none
	EOSTokenIDs       []int         // any of them ends a text
	Levels            []LevelConfig // level 1 first; none for a flat model
	Transformer       StackConfig   // the one stack of a flat model
}

// LevelConfig is one level: ChunkSize units of the level below become one unit.
type LevelConfig struct {
	ChunkSize    int         `json:"chunk_size"`
	PrefixLength int         `json:"prefix_length"` // rows that a unit's condition becomes, ahead of its content rows in the decoder
	Chunker      string      `json:"chunker"`       // "concat" or "linear"
	Encoder      StackConfig `json:"encoder"`
	Decoder      StackConfig `json:"decoder"`
}

// StackConfig is a causal LLaMA transformer.
type StackConfig struct {
	HiddenSize       int     `json:"hidden_size"`
	Layers           int     `json:"num_hidden_layers"`
	Heads            int     `json:"num_attention_heads"`
	KVHeads          int     `json:"num_key_value_heads"`
	HeadDim          int     `json:"head_dim"`
	IntermediateSize int     `json:"intermediate_size"`
	SlidingWindow    int     `json:"sliding_window"` // rows that a row sees, itself included; 0: no bound (encoder, flat), its own unit (decoder)
	RopeTheta        float64 `json:"rope_theta"`     // 0: no rotation
}

const (
	configFile      = "config.json"
	maxConfigSize   = 1 << 20
	maxVocabulary   = 1 << 24
	maxSize         = 1<<31 - 1 // of any number in a config, and of the elements of any tensor
	maxLevels       = 64
	maxMetaContext  = 1 << 20
	formatVersion   = 1
	chunkerConcat   = "concat"
	chunkerLinear   = "linear"
	modelTypeLlama  = "llama"
	modelTypePhoton = "photon"
)

// Flat reports whether the model has no levels: an ordinary transformer.
func (c Config) Flat() bool { return len(c.Levels) == 0 }

// MetaContext is the number of tokens in one unit of the top level; 1 for a flat model.
func (c Config) MetaContext() int {
	tokens := 1
	for _, l := range c.Levels {
		tokens *= l.ChunkSize
	}
	return tokens
}

// Parameters counts the elements of all tensors, start latent included. (The paper's tables leave the start latent out.)
func (c Config) Parameters() int64 {
	var n int64
	for _, t := range c.tensors() {
		n += t.elements()
	}
	return n
}

// StateBytes is the size in bytes of the keys and values that a session holds after so many tokens, when it is ready to give
// the logits of the next. Beside them a session keeps a few rows a level, whose number does not depend on the text.
func (c Config) StateBytes(tokens int, cache CacheType) int64 {
	tokens = max(tokens, 0)
	if c.Flat() {
		return c.Transformer.cacheBytes(tokens, cache)
	}
	var total int64
	units := tokens // of the level below
	for _, l := range c.Levels {
		inUnit := units % l.ChunkSize
		units /= l.ChunkSize
		// The decoder has read the prefix of the unit begun and its children so far; a stream still sees the units before.
		rows := l.PrefixLength + inUnit
		if l.Decoder.SlidingWindow > 0 {
			before := l.Decoder.SlidingWindow // enough to fill the window
			if units < before {
				before = units * (l.PrefixLength + l.ChunkSize)
			}
			rows += before
		}
		total = addSaturating(total, l.Encoder.cacheBytes(units, cache))
		total = addSaturating(total, l.Decoder.cacheBytes(rows, cache))
	}
	return total
}

// cacheBytes is the size of the keys and values of rows, as many of them as the window sees.
func (s StackConfig) cacheBytes(rows int, cache CacheType) int64 {
	if s.SlidingWindow > 0 {
		rows = min(rows, s.SlidingWindow)
	}
	perRow := 2 * int64(s.Layers) * int64(s.KVHeads) * cache.headBytes(s.HeadDim)
	high, low := bits.Mul64(uint64(rows), uint64(perRow))
	if high != 0 || low > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(low)
}

func addSaturating(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// kvWidth is the width of one row of keys, or of values.
func (s StackConfig) kvWidth() int { return s.KVHeads * s.HeadDim }

// A tensorSpec is a tensor that the checkpoint must hold.
type tensorSpec struct {
	name  string
	shape []int
}

func (t tensorSpec) elements() int64 {
	n := int64(1)
	for _, size := range t.shape {
		n *= int64(size)
	}
	return n
}

const (
	tensorsPerLayer = 9
	maxTensors      = 1 << 16
)

// tensorCount is len(c.tensors()), or a little more.
func (c Config) tensorCount() int {
	n := tensorsPerLayer*c.Transformer.Layers + 4
	for _, l := range c.Levels {
		n += tensorsPerLayer*(l.Encoder.Layers+l.Decoder.Layers) + 7
	}
	return n
}

// tensors lists every tensor that the checkpoint must hold.
func (c Config) tensors() []tensorSpec {
	var specs []tensorSpec
	add := func(name string, shape ...int) { specs = append(specs, tensorSpec{name, shape}) }
	if c.Flat() {
		s := c.Transformer
		add("model.embed_tokens.weight", c.VocabSize, s.HiddenSize)
		s.tensors("model.", add)
		if !c.TieWordEmbeddings {
			add("lm_head.weight", c.VocabSize, s.HiddenSize)
		}
		return specs
	}
	add("encoder.embed_tokens.weight", c.VocabSize, c.EmbeddingSize)
	below := c.EmbeddingSize
	for i, l := range c.Levels {
		at := fmt.Sprintf("levels.%d.", i)
		width, joined := l.Encoder.HiddenSize, l.ChunkSize*below
		if l.Chunker == chunkerLinear {
			add(at+"chunker.norm.weight", joined)
			add(at+"chunker.proj.weight", width, joined)
			add(at+"chunker.proj.bias", width)
		}
		l.Encoder.tensors(at+"encoder.", add)
		l.Decoder.tensors(at+"decoder.", add)
		add(at+"converter.weight", l.PrefixLength*l.Decoder.HiddenSize, width)
		add(at+"converter.bias", l.PrefixLength*l.Decoder.HiddenSize)
		below = width
	}
	add("start_latent", below)
	add("decoder.embed_tokens.weight", c.VocabSize, c.Levels[0].Decoder.HiddenSize)
	if !c.TieWordEmbeddings {
		add("lm_head.weight", c.VocabSize, c.Levels[0].Decoder.HiddenSize)
	}
	return specs
}

func (s StackConfig) tensors(at string, add func(name string, shape ...int)) {
	queries := s.Heads * s.HeadDim
	for n := range s.Layers {
		layer := fmt.Sprintf("%slayers.%d.", at, n)
		add(layer+"input_layernorm.weight", s.HiddenSize)
		add(layer+"self_attn.q_proj.weight", queries, s.HiddenSize)
		add(layer+"self_attn.k_proj.weight", s.kvWidth(), s.HiddenSize)
		add(layer+"self_attn.v_proj.weight", s.kvWidth(), s.HiddenSize)
		add(layer+"self_attn.o_proj.weight", s.HiddenSize, queries)
		add(layer+"post_attention_layernorm.weight", s.HiddenSize)
		add(layer+"mlp.gate_proj.weight", s.IntermediateSize, s.HiddenSize)
		add(layer+"mlp.up_proj.weight", s.IntermediateSize, s.HiddenSize)
		add(layer+"mlp.down_proj.weight", s.HiddenSize, s.IntermediateSize)
	}
	add(at+"norm.weight", s.HiddenSize)
}

// validate holds everything that the rest of the package relies on: no count below 1, no product that overflows.
func (c Config) validate() error {
	check := &checker{}
	check.count("vocab_size", c.VocabSize, maxVocabulary)
	check.count("embedding_size", c.EmbeddingSize, maxSize)
	eps := float32(c.RMSNormEps) // as the stacks take it
	check.that(eps > 0 && eps < 1, "rms_norm_eps is %g, want it between 0 and 1, in float32 too", c.RMSNormEps)
	check.that(c.BOSTokenID >= -1 && c.BOSTokenID < c.VocabSize, "bos_token_id is %d, want it below vocab_size %d", c.BOSTokenID, c.VocabSize)
	for _, id := range c.EOSTokenIDs {
		check.that(id >= 0 && id < c.VocabSize, "eos_token_id is %d, want it below vocab_size %d", id, c.VocabSize)
	}
	switch c.ModelType {
	case modelTypeLlama:
		s := c.Transformer
		s.validate(check, "")
		check.that(len(c.Levels) == 0, "a flat model has no levels")
		check.that(s.SlidingWindow == 0, "a flat model has no sliding window")
		check.that(c.EmbeddingSize == s.HiddenSize, "embedding size %d of a flat model is not its hidden_size %d", c.EmbeddingSize, s.HiddenSize)
		check.product("embed_tokens", c.VocabSize, s.HiddenSize)
	case modelTypePhoton:
		check.that(c.FormatVersion == formatVersion, "format_version is %d, want %d", c.FormatVersion, formatVersion)
		check.that(len(c.Levels) > 0, "levels is empty; a model without levels has model_type %q", modelTypeLlama)
		check.that(c.Transformer == StackConfig{}, "a model with levels has no single stack")
		c.validateLevels(check)
	default:
		check.fail(ErrUnsupported, "model_type is %.80q, want %q or %q", c.ModelType, modelTypePhoton, modelTypeLlama)
	}
	if check.err == nil && c.tensorCount() > maxTensors {
		check.fail(ErrUnsupported, "the layers need %d tensors, more than %d", c.tensorCount(), maxTensors)
	}
	return check.err
}

func (c Config) validateLevels(check *checker) {
	if len(c.Levels) > maxLevels {
		check.fail(ErrUnsupported, "%d levels, more than %d", len(c.Levels), maxLevels)
		return
	}
	below, meta := c.EmbeddingSize, 1
	for i, l := range c.Levels {
		at := fmt.Sprintf("levels[%d].", i)
		check.count(at+"chunk_size", l.ChunkSize, maxMetaContext)
		check.count(at+"prefix_length", l.PrefixLength, maxMetaContext)
		l.Encoder.validate(check, at+"encoder.")
		l.Decoder.validate(check, at+"decoder.")
		if check.err != nil {
			return
		}
		meta *= l.ChunkSize
		if meta > maxMetaContext {
			check.fail(ErrUnsupported, "the chunk sizes multiply to %d tokens or more, beyond %d", meta, maxMetaContext)
			return
		}
		joined := check.product(at+"chunker", l.ChunkSize, below)
		switch l.Chunker {
		case chunkerConcat:
			check.that(joined == l.Encoder.HiddenSize, "%sencoder.hidden_size is %d, but the \"concat\" chunker makes %d·%d = %d",
				at, l.Encoder.HiddenSize, l.ChunkSize, below, joined)
		case chunkerLinear:
			check.product(at+"chunker.proj", l.Encoder.HiddenSize, joined)
		default:
			check.fail(ErrUnsupported, "%schunker is %.80q, want %q or %q", at, l.Chunker, chunkerConcat, chunkerLinear)
		}
		check.product(at+"converter", l.PrefixLength, l.Decoder.HiddenSize, l.Encoder.HiddenSize)
		if i == 0 {
			check.product("encoder.embed_tokens", c.VocabSize, c.EmbeddingSize)
			check.product("decoder.embed_tokens", c.VocabSize, l.Decoder.HiddenSize)
		} else {
			check.that(l.Decoder.HiddenSize == below, "%sdecoder.hidden_size is %d, want %d, the width of the level below", at, l.Decoder.HiddenSize, below)
		}
		window := l.Decoder.SlidingWindow
		check.that(window == 0 || window >= l.PrefixLength+l.ChunkSize, "%sdecoder.sliding_window is %d, want 0, or at least prefix_length + chunk_size = %d",
			at, window, l.PrefixLength+l.ChunkSize)
		below = l.Encoder.HiddenSize
	}
}

func (s StackConfig) validate(check *checker, at string) {
	check.count(at+"hidden_size", s.HiddenSize, maxSize)
	check.count(at+"num_hidden_layers", s.Layers, maxTensors/tensorsPerLayer)
	check.count(at+"num_attention_heads", s.Heads, maxSize)
	check.count(at+"num_key_value_heads", s.KVHeads, maxSize)
	check.count(at+"head_dim", s.HeadDim, maxSize)
	check.count(at+"intermediate_size", s.IntermediateSize, maxSize)
	check.that(s.SlidingWindow >= 0 && s.SlidingWindow <= maxSize, "%ssliding_window is %d, want 0 or more", at, s.SlidingWindow)
	// A base below 1 would turn the highest rotation past what a float64 angle can say.
	check.that(s.RopeTheta == 0 || s.RopeTheta >= 1 && !math.IsInf(s.RopeTheta, 0), "%srope_theta is %g, want 0, or at least 1", at, s.RopeTheta)
	if check.err != nil {
		return
	}
	check.that(s.Heads%s.KVHeads == 0, "%snum_attention_heads %d is no multiple of num_key_value_heads %d", at, s.Heads, s.KVHeads)
	check.that(s.RopeTheta == 0 || s.HeadDim%2 == 0, "%shead_dim is %d: rotation needs an even one", at, s.HeadDim)
	check.product(at+"q_proj", s.Heads, s.HeadDim, s.HiddenSize)
	check.product(at+"gate_proj", s.IntermediateSize, s.HiddenSize)
}

// A checker keeps the first failure.
type checker struct{ err error }

func (k *checker) fail(kind error, format string, args ...any) {
	if k.err == nil {
		k.err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), kind)
	}
}

func (k *checker) that(ok bool, format string, args ...any) {
	if !ok {
		k.fail(ErrCorrupt, format, args...)
	}
}

func (k *checker) count(name string, n, most int) {
	k.that(n >= 1, "%s is %d, want at least 1", name, n)
	if n > most {
		k.fail(ErrUnsupported, "%s is %d, more than %d", name, n, most)
	}
}

// product is the number of elements of something; 0 after any failure.
func (k *checker) product(name string, sizes ...int) int {
	if k.err != nil {
		return 0
	}
	n := 1
	for _, size := range sizes {
		if size > maxSize/n {
			k.fail(ErrUnsupported, "%s has more than %d elements", name, maxSize)
			return 0
		}
		n *= size
	}
	return n
}
