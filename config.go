package photon

import (
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"
)

// Config is what config.json says: the architecture and the ids that begin and end a text. It holds no weights.
// A Config is a plain value; it is safe to copy and to read from several goroutines.
type Config struct {
	ModelType         string // "photon"; of a flat model in the Hugging Face layout "llama", "mistral", "qwen2", …
	FormatVersion     int    // of "photon", 1 or 2; 0 for a flat model
	VocabSize         int
	EmbeddingSize     int // width of the encoder's embedding rows; of a flat model, its hidden size
	RMSNormEps        float64
	TieWordEmbeddings bool          // the head is the (decoder's) embedding table
	BOSTokenID        int           // -1: none
	EOSTokenIDs       []int         // any of them ends a text
	TokenEncoder      *StackConfig  // a stack over the tokens, below the first chunker; nil: none
	Content           string        // of the first decoder: "embedding" (or ""), a table of its own; "states", what chunker 1 reads
	Levels            []LevelConfig // level 1 first; none for a flat model
	Transformer       StackConfig   // the one stack of a flat model
}

// LevelConfig is one level: ChunkSize units of the level below become one unit.
type LevelConfig struct {
	ChunkSize    int         `json:"chunk_size"`
	PrefixLength int         `json:"prefix_length"` // rows that a condition becomes, ahead of the content; 0: it is added to that
	Chunker      string      `json:"chunker"`       // "concat" or "linear"
	Encoder      StackConfig `json:"encoder"`
	Decoder      StackConfig `json:"decoder"`
}

// StackConfig is a causal LLaMA transformer. What stands behind Memories only a flat model has.
type StackConfig struct {
	HiddenSize       int
	Layers           int
	Heads            int
	KVHeads          int
	HeadDim          int
	IntermediateSize int
	SlidingWindow    int            // rows that a row sees, itself included; 0: all (encoder, flat), its own unit (decoder)
	RopeTheta        float64        // 0: no rotation
	Windows          []int          // in place of SlidingWindow, one a layer; 0: all rows, in a decoder too; nil: none
	Memories         []MemoryConfig // of a decoder only
	RopeScaling      RopeScaling    // zero: none
	NoRope           []int          // layers that do not rotate, ascending
	QKVBias          bool           // q, k and v have biases
	OutBias          bool           // the output of attention has one
	MLPBias          bool           // gate, up and down have
	QKNorm           bool           // the queries and keys of every head go through an RMSNorm before they rotate
}

// RopeScaling slows the rotation down, so that a model reads longer texts than it was first trained on.
type RopeScaling struct {
	// Type is "linear", all frequencies divided by Factor; "llama3", those divided whose wave is longer than
	// OriginalContext/LowFreqFactor, those not whose wave is shorter than OriginalContext/HighFreqFactor, and those
	// between in part; "factors", each divided by its own; or "", none.
	Type            string    `json:"rope_type"`
	Factor          float64   `json:"factor,omitempty"`
	LowFreqFactor   float64   `json:"low_freq_factor,omitempty"`
	HighFreqFactor  float64   `json:"high_freq_factor,omitempty"`
	OriginalContext int       `json:"original_max_position_embeddings,omitempty"`
	Factors         []float64 `json:"factors,omitempty"` // [head_dim/2]
}

// scale returns frequency number i, in radians a position, as it is slowed down.
func (p RopeScaling) scale(frequency float64, i int) float64 {
	switch p.Type {
	case ropeLinear:
		return frequency / p.Factor
	case ropeFactors:
		return frequency / p.Factors[i]
	case ropeLlama3:
		waves := float64(p.OriginalContext) * frequency / (2 * math.Pi) // in the original context
		kept := (waves - p.LowFreqFactor) / (p.HighFreqFactor - p.LowFreqFactor)
		kept = min(max(kept, 0), 1)
		return (1-kept)*frequency/p.Factor + kept*frequency
	}
	return frequency
}

func (p *RopeScaling) orNil() *RopeScaling {
	if p.Type == "" {
		return nil
	}
	return p
}

// MemoryConfig is cross-attention of some of a decoder's layers to the states of the finished units of a level: one
// key and value for each of them, which those layers share, and one for a learned row before the first.
type MemoryConfig struct {
	Level         int     `json:"level"`  // whose units are seen; 0: the tokens
	Layers        []int   `json:"layers"` // of the decoder, from 0, ascending
	Heads         int     `json:"num_attention_heads"`
	KVHeads       int     `json:"num_key_value_heads"`
	HeadDim       int     `json:"head_dim"`
	SlidingWindow int     `json:"sliding_window"` // rows of the memory that a row sees; 0: no bound
	RopeTheta     float64 `json:"rope_theta"`     // 0: no rotation
	// Unpack has a finished unit stand as its children: the state of each, and what that of the unit says of it.
	Unpack bool `json:"unpack,omitempty"`
}

// rowLevel is the level whose states the rows of the memory are made of.
func (e MemoryConfig) rowLevel() int {
	if e.Unpack {
		return e.Level - 1
	}
	return e.Level
}

// rowsPerUnit is the number of rows that a finished unit of the memory's level is.
func (e MemoryConfig) rowsPerUnit(levels []LevelConfig) int {
	if e.Unpack {
		return levels[e.Level-1].ChunkSize
	}
	return 1
}

const (
	configFile      = "config.json"
	generationFile  = "generation_config.json"
	maxConfigSize   = 1 << 20
	maxVocabulary   = 1 << 24
	maxSize         = 1<<31 - 1 // of any number in a config, and of the elements of any tensor
	maxLevels       = 64
	maxMetaContext  = 1 << 20
	maxMemories     = 64
	formatVersion   = 1
	formatVersion2  = 2 // adds what beyondFormat1 names
	chunkerConcat   = "concat"
	chunkerLinear   = "linear"
	contentTable    = "embedding"
	contentStates   = "states"
	modelTypePhoton = "photon"

	modelTypeLlama     = "llama"
	modelTypeMistral   = "mistral"   // one window for all layers
	modelTypeMinistral = "ministral" // a window for some of them
	modelTypeQwen2     = "qwen2"     // biases of q, k and v
	modelTypeQwen3     = "qwen3"     // norms of q and k
	modelTypeSmolLM3   = "smollm3"   // layers without rotation
	wantModelType      = `want "photon", "llama", "mistral", "ministral", "qwen2", "qwen3" or "smollm3"`
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
// A Config that Load would refuse has none.
func (c Config) Parameters() int64 {
	if c.validate() != nil {
		return 0
	}
	var n int64
	for t := range c.tensors() {
		n += t.elements()
	}
	return n
}

// StateBytes is the size in bytes of the keys and values that a session holds after so many tokens, when it is ready to give
// the logits of the next. Beside them a session keeps a few rows a level, whose number does not depend on the text.
// It is 0 of a Config that Load would refuse.
func (c Config) StateBytes(tokens int, cache CacheType) int64 {
	if c.validate() != nil {
		return 0
	}
	return c.stateBytes(tokens, cache, false)
}

// stateBytes is StateBytes. most: the most that it is on the way there, or a little more; StateBytes falls where a
// chunk-local decoder is done with a unit.
func (c Config) stateBytes(tokens int, cache CacheType, most bool) int64 {
	n := int64(max(tokens, 0))
	if c.Flat() {
		return c.Transformer.cacheBytes(n, cache)
	}
	total := int64(0)
	if c.TokenEncoder != nil {
		total = c.TokenEncoder.cacheBytes(n, cache)
	}
	finished := []int64{n} // units, by level
	for _, l := range c.Levels {
		finished = append(finished, finished[len(finished)-1]/int64(l.ChunkSize))
	}
	for i, l := range c.Levels {
		units, inUnit := finished[i+1], finished[i]%int64(l.ChunkSize)
		if most && units > 0 && !l.Decoder.stream() {
			inUnit = int64(l.ChunkSize) - 1
		}
		// The decoder has read the condition of the unit begun and its children so far; a stream still sees the units
		// before.
		rows := int64(max(1, l.PrefixLength)) + inUnit
		if l.Decoder.stream() {
			rows = addSaturating(rows, mulSaturating(units, int64(l.PrefixLength+l.ChunkSize)))
		}
		total = addSaturating(total, l.Encoder.cacheBytes(units, cache))
		total = addSaturating(total, l.Decoder.cacheBytes(rows, cache))
		for _, e := range l.Decoder.Memories {
			rows := mulSaturating(finished[e.Level], int64(e.rowsPerUnit(c.Levels)))
			total = addSaturating(total, e.stack().cacheBytes(addSaturating(rows, 1), cache))
		}
	}
	return total
}

// cacheBytes is the size of the keys and values of rows, as many of them as each layer's window sees.
func (s StackConfig) cacheBytes(rows int64, cache CacheType) int64 {
	seen := int64(0) // rows of all layers
	for n := range s.Layers {
		if w := s.window(n); w > 0 {
			seen = addSaturating(seen, min(rows, int64(w)))
		} else {
			seen = addSaturating(seen, rows)
		}
	}
	return mulSaturating(seen, 2*int64(s.KVHeads)*cache.headBytes(s.HeadDim))
}

// window is what a row sees in layer n; 0: no bound.
func (s StackConfig) window(n int) int {
	if s.Windows != nil {
		return s.Windows[n]
	}
	return s.SlidingWindow
}

// unbounded tells of a layer without a window.
func (s StackConfig) unbounded() bool {
	for n := range s.Layers {
		if s.window(n) == 0 {
			return true
		}
	}
	return false
}

// stream tells of a decoder that reads all units as one sequence.
func (s StackConfig) stream() bool { return s.Windows != nil || s.SlidingWindow > 0 }

// stack has the shape of the memory's keys and values, which are those of one layer.
func (e MemoryConfig) stack() StackConfig {
	return StackConfig{Layers: 1, Heads: e.Heads, KVHeads: e.KVHeads, HeadDim: e.HeadDim,
		SlidingWindow: e.SlidingWindow, RopeTheta: e.RopeTheta}
}

// beyondFormat1 names the first thing that format_version 1 does not have; "" where there is none.
func (c Config) beyondFormat1() string {
	switch {
	case c.TokenEncoder != nil:
		return "token_encoder"
	case c.Content != "":
		return fmt.Sprintf("content %.80q", c.Content)
	}
	for i, l := range c.Levels {
		switch {
		case l.PrefixLength == 0:
			return fmt.Sprintf("levels[%d].prefix_length 0", i)
		case l.Encoder.Windows != nil:
			return fmt.Sprintf("levels[%d].encoder.sliding_window, a list", i)
		case l.Decoder.Windows != nil:
			return fmt.Sprintf("levels[%d].decoder.sliding_window, a list", i)
		case l.Decoder.Memories != nil:
			return fmt.Sprintf("levels[%d].decoder.memories", i)
		}
	}
	return ""
}

// clone shares nothing with c.
func (c Config) clone() Config {
	c.EOSTokenIDs, c.Levels = slices.Clone(c.EOSTokenIDs), slices.Clone(c.Levels)
	c.Transformer = c.Transformer.clone()
	if c.TokenEncoder != nil {
		s := c.TokenEncoder.clone()
		c.TokenEncoder = &s
	}
	for i := range c.Levels {
		l := &c.Levels[i]
		l.Encoder, l.Decoder = l.Encoder.clone(), l.Decoder.clone()
	}
	return c
}

func (s StackConfig) clone() StackConfig {
	s.Windows, s.Memories, s.NoRope = slices.Clone(s.Windows), slices.Clone(s.Memories), slices.Clone(s.NoRope)
	s.RopeScaling.Factors = slices.Clone(s.RopeScaling.Factors)
	for i := range s.Memories {
		s.Memories[i].Layers = slices.Clone(s.Memories[i].Layers)
	}
	return s
}

func mulSaturating(a, b int64) int64 {
	high, low := bits.Mul64(uint64(a), uint64(b))
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
	mostPerLayer    = 18 // with biases and norms
	maxTensors      = 1 << 16
)

// tensorCount is how many c.tensors has, or a little more.
func (c Config) tensorCount() int {
	n := mostPerLayer*c.Transformer.Layers + 4
	for _, l := range c.Levels {
		n += tensorsPerLayer*(l.Encoder.Layers+l.Decoder.Layers) + 7
		for _, e := range l.Decoder.Memories {
			n += 6 + 3*len(e.Layers)
		}
	}
	if c.TokenEncoder != nil {
		n += tensorsPerLayer*c.TokenEncoder.Layers + 1
	}
	return n
}

// tensors goes through every tensor that the checkpoint must hold. It makes their names as it goes: a config can ask
// for thousands, and the file lack the first.
func (c Config) tensors() iter.Seq[tensorSpec] {
	return func(yield func(tensorSpec) bool) {
		more := true
		c.addTensors(func(name string, shape ...int) bool {
			more = more && yield(tensorSpec{name, shape})
			return more
		})
	}
}

// addTensors calls add for every tensor, which tells whether to go on, and may be called a few times more.
func (c Config) addTensors(add func(name string, shape ...int) bool) {
	if c.Flat() {
		s := c.Transformer
		add("model.embed_tokens.weight", c.VocabSize, s.HiddenSize)
		s.tensors("model.", add)
		if !c.TieWordEmbeddings {
			add("lm_head.weight", c.VocabSize, s.HiddenSize)
		}
		return
	}
	add("encoder.embed_tokens.weight", c.VocabSize, c.EmbeddingSize)
	if c.TokenEncoder != nil {
		c.TokenEncoder.tensors("token_encoder.", add)
	}
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
		for e, memory := range l.Decoder.Memories {
			own, width := fmt.Sprintf("%sdecoder.memories.%d.", at, e), c.width(memory.rowLevel())
			if memory.Unpack {
				children := memory.rowsPerUnit(c.Levels) * width
				add(own+"unpack.weight", children, c.width(memory.Level))
				add(own+"unpack.bias", children)
			}
			memory.tensors(own, width, add)
			for _, n := range memory.Layers {
				layer := fmt.Sprintf("%sdecoder.layers.%d.memory_attn.%d.", at, n, e)
				queries := memory.Heads * memory.HeadDim
				add(layer+"norm.weight", l.Decoder.HiddenSize)
				add(layer+"q_proj.weight", queries, l.Decoder.HiddenSize)
				add(layer+"o_proj.weight", l.Decoder.HiddenSize, queries)
			}
		}
		add(at+"converter.weight", l.slices()*l.Decoder.HiddenSize, width)
		add(at+"converter.bias", l.slices()*l.Decoder.HiddenSize)
		below = width
	}
	add("start_latent", below)
	if c.Content != contentStates {
		add("decoder.embed_tokens.weight", c.VocabSize, c.Levels[0].Decoder.HiddenSize)
	}
	if !c.TieWordEmbeddings {
		add("lm_head.weight", c.VocabSize, c.Levels[0].Decoder.HiddenSize)
	}
}

// width is that of the encoder's states of a level; level 0 is the tokens.
func (c Config) width(level int) int {
	if level == 0 {
		return c.EmbeddingSize
	}
	return c.Levels[level-1].Encoder.HiddenSize
}

// slices is the number of rows that the converter makes of a condition: its prefix, or one for each child.
func (l LevelConfig) slices() int {
	if l.PrefixLength == 0 {
		return l.ChunkSize
	}
	return l.PrefixLength
}

func (e MemoryConfig) tensors(at string, width int, add func(name string, shape ...int) bool) {
	add(at+"sink", width)
	add(at+"norm.weight", width)
	add(at+"k_proj.weight", e.KVHeads*e.HeadDim, width)
	add(at+"v_proj.weight", e.KVHeads*e.HeadDim, width)
}

// copies names tensors that a checkpoint may hold though others stand for them: a head that is the embedding table.
func (c Config) copies() map[string]string {
	if c.Flat() && c.TieWordEmbeddings {
		return map[string]string{"lm_head.weight": "model.embed_tokens.weight"}
	}
	return nil
}

func (s StackConfig) tensors(at string, add func(name string, shape ...int) bool) {
	queries := s.Heads * s.HeadDim
	for n := range s.Layers {
		layer := fmt.Sprintf("%slayers.%d.", at, n)
		if !add(layer+"input_layernorm.weight", s.HiddenSize) {
			return
		}
		add(layer+"self_attn.q_proj.weight", queries, s.HiddenSize)
		add(layer+"self_attn.k_proj.weight", s.kvWidth(), s.HiddenSize)
		add(layer+"self_attn.v_proj.weight", s.kvWidth(), s.HiddenSize)
		add(layer+"self_attn.o_proj.weight", s.HiddenSize, queries)
		add(layer+"post_attention_layernorm.weight", s.HiddenSize)
		add(layer+"mlp.gate_proj.weight", s.IntermediateSize, s.HiddenSize)
		add(layer+"mlp.up_proj.weight", s.IntermediateSize, s.HiddenSize)
		add(layer+"mlp.down_proj.weight", s.HiddenSize, s.IntermediateSize)
		if s.QKVBias {
			add(layer+"self_attn.q_proj.bias", queries)
			add(layer+"self_attn.k_proj.bias", s.kvWidth())
			add(layer+"self_attn.v_proj.bias", s.kvWidth())
		}
		if s.OutBias {
			add(layer+"self_attn.o_proj.bias", s.HiddenSize)
		}
		if s.QKNorm {
			add(layer+"self_attn.q_norm.weight", s.HeadDim)
			add(layer+"self_attn.k_norm.weight", s.HeadDim)
		}
		if s.MLPBias {
			add(layer+"mlp.gate_proj.bias", s.IntermediateSize)
			add(layer+"mlp.up_proj.bias", s.IntermediateSize)
			add(layer+"mlp.down_proj.bias", s.HiddenSize)
		}
	}
	add(at+"norm.weight", s.HiddenSize)
}
