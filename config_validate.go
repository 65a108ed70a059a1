package photon

import (
	"fmt"
	"math"
	"reflect"
	"slices"
)

// validate holds everything that the rest of the package relies on: no count below 1, no product that overflows.
func (c Config) validate() error { return c.check(&checker{}) }

// validateGiven is validate of a config that a caller gives, not a file: whatever is wrong with it is ErrInvalid.
func (c Config) validateGiven() error {
	if err := c.check(&checker{kind: ErrInvalid}); err != nil {
		return fmt.Errorf("photon: config: %w", err)
	}
	return nil
}

func (c Config) check(check *checker) error {
	check.count("vocab_size", c.VocabSize, maxVocabulary)
	check.count("embedding_size", c.EmbeddingSize, maxSize)
	eps := float32(c.RMSNormEps) // as the stacks take it
	check.that(eps > 0 && eps < 1, "rms_norm_eps is %g, want it between 0 and 1, in float32 too", c.RMSNormEps)
	check.that(c.BOSTokenID >= -1 && c.BOSTokenID < c.VocabSize, "bos_token_id is %d, want it below vocab_size %d", c.BOSTokenID, c.VocabSize)
	for _, id := range c.EOSTokenIDs {
		if id < 0 || id >= c.VocabSize {
			check.that(false, "eos_token_id is %d, want it below vocab_size %d", id, c.VocabSize)
			break
		}
	}
	kind, flat := flatKinds[c.ModelType]
	switch {
	case flat:
		c.validateFlat(check, kind)
	case c.ModelType == modelTypePhoton:
		if c.FormatVersion != formatVersion && c.FormatVersion != formatVersion2 {
			check.fail(ErrUnsupported, "format_version is %d, want %d or %d", c.FormatVersion, formatVersion, formatVersion2)
		}
		if what := c.beyondFormat1(); what != "" && c.FormatVersion == formatVersion {
			check.fail(ErrUnsupported, "format_version is %d, which has no %s: want %d", formatVersion, what, formatVersion2)
		}
		check.that(len(c.Levels) > 0, "levels is empty; a model without levels has model_type %q", modelTypeLlama)
		check.that(reflect.ValueOf(c.Transformer).IsZero(), "a model with levels has no single stack")
		c.validateLevels(check)
	default:
		check.fail(ErrUnsupported, "model_type is %.80q, %s", c.ModelType, wantModelType)
	}
	if check.err == nil && c.tensorCount() > maxTensors {
		check.fail(ErrUnsupported, "the layers need %d tensors, more than %d", c.tensorCount(), maxTensors)
	}
	return check.err
}

func (c Config) validateFlat(check *checker, kind flatKind) {
	s := c.Transformer
	s.validate(check, "")
	s.validateRotation(check)
	check.that(len(c.Levels) == 0, "a flat model has no levels")
	check.that(c.TokenEncoder == nil && c.Content == "" && s.Memories == nil, "a flat model has no token encoder, no content and no memories")
	check.that(c.EmbeddingSize == s.HiddenSize, "embedding size %d of a flat model is not its hidden_size %d", c.EmbeddingSize, s.HiddenSize)
	check.product("embed_tokens", c.VocabSize, s.HiddenSize)
	biases := !s.QKVBias && !s.OutBias
	switch {
	case kind.qkvBias:
		biases = s.QKVBias && !s.OutBias
	case kind.attnBias:
		biases = s.QKVBias == s.OutBias
	}
	check.that(biases, "model_type %q with biases of q, k and v: %v, of o: %v", c.ModelType, s.QKVBias, s.OutBias)
	check.that(!s.MLPBias || kind.mlpBias, "model_type %q has no biases of gate, up and down", c.ModelType)
	check.that(s.QKNorm == kind.qkNorm, "model_type %q has norms of q and k: %v, want %v", c.ModelType, s.QKNorm,
		kind.qkNorm)
	check.that(s.NoRope == nil || kind.ropes, "model_type %q has no layers without rotation: want %q", c.ModelType,
		modelTypeSmolLM3)
	switch kind.windows {
	case noWindows:
		check.that(!s.stream(), "model_type %q has no sliding window: want %q or %q", c.ModelType, modelTypeMistral,
			modelTypeMinistral)
	case oneWindow:
		check.that(s.Windows == nil, "model_type %q has one sliding window for all layers: want %q", c.ModelType,
			modelTypeMinistral)
	case typedWindows:
		check.that(s.Windows != nil && s.SlidingWindow == 0, "model_type %q has a window a layer", c.ModelType)
	default:
		check.that(s.SlidingWindow == 0, "model_type %q has a window a layer, or none", c.ModelType)
	}
	window := 0
	for i, w := range s.Windows {
		if window != 0 && w != 0 && w != window {
			check.that(false, "model_type %q has windows of one size, that of layer %d is %d and not %d",
				c.ModelType, i, w, window)
			break
		}
		window = max(window, w)
	}
}

// validateRotation checks what a flat model may say about the rotation of its layers.
func (s StackConfig) validateRotation(check *checker) {
	before := -1
	for _, n := range s.NoRope {
		if n <= before || n >= s.Layers {
			check.that(false, "layers without rotation have %d behind %d, want ascending numbers below "+
				"num_hidden_layers %d", n, before, s.Layers)
			break
		}
		before = n
	}
	p := s.RopeScaling
	if p.Type == "" {
		check.that(reflect.ValueOf(p).IsZero(), "rope_scaling has no rope_type")
		return
	}
	// What an angle is divided by, too small a number would turn past what a float64 angle can say.
	factor := func(name string, f float64) {
		check.that(f >= 1.0/1024 && f <= maxSize, "rope_scaling.%s is %g, want 1/1024 to %d", name, f, maxSize)
	}
	check.that(s.RopeTheta > 0, "rope_scaling without a rotation: rope_theta is 0")
	switch p.Type {
	case ropeLinear:
		factor("factor", p.Factor)
	case ropeLlama3:
		factor("factor", p.Factor)
		factor("low_freq_factor", p.LowFreqFactor)
		factor("high_freq_factor", p.HighFreqFactor)
		check.that(p.HighFreqFactor > p.LowFreqFactor, "rope_scaling.high_freq_factor is %g, want more than "+
			"low_freq_factor %g",
			p.HighFreqFactor, p.LowFreqFactor)
		check.count("rope_scaling.original_max_position_embeddings", p.OriginalContext, maxSize)
	case ropeFactors:
		check.that(len(p.Factors) == s.HeadDim/2, "rope_scaling.factors has %d numbers, want head_dim/2", len(p.Factors))
		if len(p.Factors) > 0 {
			factor("factors", slices.Min(p.Factors))
			factor("factors", slices.Max(p.Factors))
		}
	default:
		check.fail(ErrUnsupported, "rope_type is %.80q, want %q, %q or %q", p.Type, ropeDefault, ropeLinear, ropeLlama3)
	}
}

// beyondPhoton tells of a stack with what only flat models have.
func (s StackConfig) beyondPhoton() bool {
	return s.RopeScaling.Type != "" || s.NoRope != nil || s.QKVBias || s.OutBias || s.MLPBias || s.QKNorm
}

func (c Config) validateLevels(check *checker) {
	if len(c.Levels) > maxLevels {
		check.fail(ErrUnsupported, "%d levels, more than %d", len(c.Levels), maxLevels)
		return
	}
	if e := c.TokenEncoder; e != nil {
		e.validate(check, "token_encoder.")
		check.that(e.Memories == nil, "token_encoder.memories: only decoders have memories")
		check.that(e.HiddenSize == c.EmbeddingSize, "token_encoder.hidden_size is %d, want embedding_size %d", e.HiddenSize, c.EmbeddingSize)
	}
	if c.Content != "" && c.Content != contentTable && c.Content != contentStates {
		check.fail(ErrUnsupported, "content is %.80q, want %q or %q", c.Content, contentTable, contentStates)
	}
	below, meta := c.EmbeddingSize, 1
	for i, l := range c.Levels {
		at := fmt.Sprintf("levels[%d].", i)
		check.count(at+"chunk_size", l.ChunkSize, maxMetaContext)
		check.that(l.PrefixLength >= 0, "%sprefix_length is %d, want 0 or more", at, l.PrefixLength)
		check.count(at+"slices", l.slices(), maxMetaContext)
		l.Encoder.validate(check, at+"encoder.")
		l.Decoder.validate(check, at+"decoder.")
		check.that(l.Encoder.Memories == nil, "%sencoder.memories: only decoders have memories", at)
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
		check.product(at+"converter", l.slices(), l.Decoder.HiddenSize, l.Encoder.HiddenSize)
		if i == 0 {
			check.product("encoder.embed_tokens", c.VocabSize, c.EmbeddingSize)
			check.product("decoder.embed_tokens", c.VocabSize, l.Decoder.HiddenSize)
			check.that(c.Content != contentStates || l.Decoder.HiddenSize == c.EmbeddingSize,
				"content is %q, but %sdecoder.hidden_size is %d and embedding_size %d", contentStates, at, l.Decoder.HiddenSize, c.EmbeddingSize)
		} else {
			check.that(l.Decoder.HiddenSize == below, "%sdecoder.hidden_size is %d, want %d, the width of the level below", at, l.Decoder.HiddenSize, below)
		}
		for n := range l.Decoder.Layers {
			window, rows := l.Decoder.window(n), l.PrefixLength+l.ChunkSize
			check.that(window == 0 || window >= rows, "%sdecoder.sliding_window is %d, want 0, or at least prefix_length + chunk_size = %d", at, window, rows)
		}
		below = l.Encoder.HiddenSize
	}
	for i, l := range c.Levels {
		at := fmt.Sprintf("levels[%d].decoder.memories", i)
		if len(l.Decoder.Memories) > maxMemories {
			check.fail(ErrUnsupported, "%s: %d of them, more than %d", at, len(l.Decoder.Memories), maxMemories)
		}
		for e, memory := range l.Decoder.Memories {
			at := fmt.Sprintf("%s[%d].", at, e)
			least := i
			if memory.Unpack {
				least++
			}
			check.that(memory.Level >= least && memory.Level <= len(c.Levels), "%slevel is %d, want %d … %d",
				at, memory.Level, least, len(c.Levels))
			if check.err != nil {
				return
			}
			width := c.width(memory.rowLevel())
			memory.validate(check, at, l.Decoder, width)
			check.product(at+"unpack", memory.rowsPerUnit(c.Levels), width, c.width(memory.Level))
		}
	}
}

// validate checks the memory of a decoder; width is that of the states it keeps.
func (e MemoryConfig) validate(check *checker, at string, decoder StackConfig, width int) {
	check.that(len(e.Layers) > 0, "%slayers is empty", at)
	before := -1
	for _, n := range e.Layers {
		if n <= before || n >= decoder.Layers {
			check.that(false, "%slayers has %d behind %d, want ascending numbers below num_hidden_layers %d",
				at, n, before, decoder.Layers)
			break
		}
		before = n
	}
	s := e.stack()
	s.HiddenSize, s.IntermediateSize = max(decoder.HiddenSize, width), 1 // the wider of what the projections read
	s.validate(check, at)
}

func (s StackConfig) validate(check *checker, at string) {
	check.that(at == "" || !s.beyondPhoton(), "%s: only flat models have biases, norms of q and k, and scaled rotations",
		at)
	check.count(at+"hidden_size", s.HiddenSize, maxSize)
	check.count(at+"num_hidden_layers", s.Layers, maxTensors/tensorsPerLayer)
	check.count(at+"num_attention_heads", s.Heads, maxSize)
	check.count(at+"num_key_value_heads", s.KVHeads, maxSize)
	check.count(at+"head_dim", s.HeadDim, maxSize)
	check.count(at+"intermediate_size", s.IntermediateSize, maxSize)
	check.that(s.SlidingWindow >= 0 && s.SlidingWindow <= maxSize, "%ssliding_window is %d, want 0 or more", at, s.SlidingWindow)
	if s.Windows != nil {
		check.that(len(s.Windows) == s.Layers, "%ssliding_window has %d numbers, want one for each of %d layers", at, len(s.Windows), s.Layers)
		check.that(s.SlidingWindow == 0, "%ssliding_window is %d, and a list too", at, s.SlidingWindow)
	}
	if len(s.Windows) > 0 {
		least, most := slices.Min(s.Windows), slices.Max(s.Windows)
		check.that(least >= 0 && most <= maxSize, "%ssliding_window holds %d to %d, want 0 to %d",
			at, least, most, maxSize)
	}
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
type checker struct {
	err  error
	kind error // of every error, where it is not nil
}

func (k *checker) fail(kind error, format string, args ...any) {
	if k.kind != nil {
		kind = k.kind
	}
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
