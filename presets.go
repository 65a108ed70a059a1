package photon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// presets are models by name: those of the PHOTON paper (arXiv 2512.20687), our own, and flat ones that other programs are measured with.
var presets = map[string]Config{
	"photon-600m":  paperPhoton(paperStack(1664, 4096, 4), 416),
	"photon-900m":  paperPhoton(paperStack(1792, 4608, 5), 448),
	"photon-1.2b":  paperPhoton(paperStack(1920, 5120, 6), 480),
	"block-600m":   paperBlock(paperStack(1664, 4096, 8), 416),
	"block-900m":   paperBlock(paperStack(1792, 4608, 10), 448),
	"block-1.2b":   paperBlock(paperStack(1920, 5120, 12), 480),
	"vanilla-600m": vanilla(paperStack(1664, 4096, 16)),
	"vanilla-900m": vanilla(paperStack(1792, 4608, 20)),
	"vanilla-1.2b": vanilla(paperStack(1920, 5120, 24)),

	// The paper's sizes in other forms: lower encoders bounded by a window, windows and one unbounded layer, and format 2.
	"bounded-600m": paperBounded(paperStack(1664, 4096, 4), 416),
	"bounded-900m": paperBounded(paperStack(1792, 4608, 5), 448),
	"bounded-1.2b": paperBounded(paperStack(1920, 5120, 6), 480),
	"rival-600m":   paperRival(paperStack(1664, 4096, 16)),
	"rival-900m":   paperRival(paperStack(1792, 4608, 20)),
	"rival-1.2b":   paperRival(paperStack(1920, 5120, 24)),
	"memory-600m":  memory600M(),

	"photon-15m":      photon15M(), // the first form's, and a flat one of its size
	"flat-15m":        flat15M(),
	"rival-15m":       rival15M(),
	"memory-15m":      memory15M(64),
	"memory-wide-15m": memory15M(128),

	"flat-20m":  flat(8192, presetStack(384, 1024, 6, 8)),
	"flat-134m": flat(32000, presetStack(768, 2048, 12, 12)),
	"flat-597m": flat(32000, presetStack(1280, 3456, 20, 26)),

	"qwen3-600m": qwen3(), // the shape of Qwen3 0.6B
}

// Preset returns the configuration of that name; the error of an unknown one lists the names and matches ErrInvalid.
// It may be called from several goroutines.
func Preset(name string) (Config, error) {
	c, ok := presets[name]
	if !ok {
		return Config{}, fmt.Errorf("photon: no preset %.80q: want one of %s: %w", name, strings.Join(PresetNames(), ", "), ErrInvalid)
	}
	return c.clone(), nil
}

// PresetNames lists what Preset knows, sorted.
func PresetNames() []string { return slices.Sorted(maps.Keys(presets)) }

func presetStack(hidden, intermediate, heads, layers int) StackConfig {
	return StackConfig{HiddenSize: hidden, Layers: layers, Heads: heads, KVHeads: heads, HeadDim: hidden / heads, IntermediateSize: intermediate, RopeTheta: 10000}
}

func paperStack(hidden, intermediate, layers int) StackConfig {
	return presetStack(hidden, intermediate, 32, layers)
}

func flat(vocabulary int, s StackConfig) Config {
	return Config{ModelType: modelTypeLlama, VocabSize: vocabulary, EmbeddingSize: s.HiddenSize, RMSNormEps: 1e-5, BOSTokenID: -1, Transformer: s}
}

func qwen3() Config {
	s := StackConfig{HiddenSize: 1024, Layers: 28, Heads: 16, KVHeads: 8, HeadDim: 128, IntermediateSize: 3072,
		RopeTheta: 1e6, QKNorm: true}
	return Config{ModelType: modelTypeQwen3, VocabSize: 151936, EmbeddingSize: s.HiddenSize, RMSNormEps: 1e-6,
		TieWordEmbeddings: true, BOSTokenID: -1, Transformer: s}
}

// photon15M has stream decoders and a windowed lower encoder, so that only the top encoder's cache grows with the text. Most of its layers are at the tokens.
func photon15M() Config {
	stack := func(hidden, intermediate, layers, window int) StackConfig {
		s := presetStack(hidden, intermediate, hidden/64, layers)
		s.KVHeads, s.SlidingWindow = 2, window
		return s
	}
	return Config{ModelType: modelTypePhoton, FormatVersion: formatVersion, VocabSize: 4096, EmbeddingSize: 96, RMSNormEps: 1e-5,
		TieWordEmbeddings: true, BOSTokenID: -1, EOSTokenIDs: []int{4095},
		Levels: []LevelConfig{
			{ChunkSize: 4, PrefixLength: 1, Chunker: chunkerConcat, Encoder: stack(384, 384, 1, 128), Decoder: stack(384, 832, 8, 1024)},
			{ChunkSize: 4, PrefixLength: 1, Chunker: chunkerLinear, Encoder: stack(256, 512, 1, 0), Decoder: stack(384, 256, 1, 128)},
		}}
}

func flat15M() Config {
	c := flat(4096, presetStack(384, 1024, 6, 7))
	c.EOSTokenIDs = []int{4095}
	return c
}

// rival15M has windows in all layers but one in the middle, which sees everything: the flat form to compare with.
func rival15M() Config {
	c := flat15M()
	c.ModelType, c.TieWordEmbeddings = modelTypeMinistral, true
	c.Transformer.Windows = []int{64, 64, 64, 0, 64, 64, 64}
	return c
}

// memory15M is of format 2: a thin token encoder whose states are the decoder's content, conditions that are added to
// its rows, and a memory of every token of a finished unit, unpacked, which one late layer reads by heads of headDim
// elements. Only that grows.
func memory15M(headDim int) Config {
	thin, units, decoder := presetStack(384, 256, 6, 2), presetStack(384, 1024, 6, 2), presetStack(384, 1024, 6, 5)
	thin.SlidingWindow, units.SlidingWindow, decoder.SlidingWindow = 32, 128, 32
	decoder.Memories = []MemoryConfig{
		{Level: 1, Layers: []int{3}, Heads: 6, KVHeads: 1, HeadDim: headDim, RopeTheta: 10000, Unpack: true}}
	return Config{ModelType: modelTypePhoton, FormatVersion: 2, VocabSize: 4096, EmbeddingSize: 384, RMSNormEps: 1e-5,
		TieWordEmbeddings: true, BOSTokenID: -1, EOSTokenIDs: []int{4095}, Content: contentStates, TokenEncoder: &thin,
		Levels: []LevelConfig{{ChunkSize: 4, Chunker: chunkerLinear, Encoder: units, Decoder: decoder}}}
}

// vanilla is the paper's flat baseline, with the ids of its Llama tokenizer.
func vanilla(s StackConfig) Config {
	c := flat(32000, s)
	c.BOSTokenID, c.EOSTokenIDs = 1, []int{2}
	return c
}

// paperBlock is the Block Transformer: one level, an unbounded encoder over the blocks, a decoder within each. Both have the stack s.
func paperBlock(s StackConfig, embedding int) Config {
	return Config{ModelType: modelTypePhoton, FormatVersion: formatVersion, VocabSize: 32000, EmbeddingSize: embedding, RMSNormEps: 1e-5,
		BOSTokenID: 1, EOSTokenIDs: []int{2},
		Levels: []LevelConfig{{ChunkSize: 4, PrefixLength: 2, Chunker: chunkerConcat, Encoder: s, Decoder: s}}}
}

// paperPhoton has a second level on top of the block model; all four stacks are s.
func paperPhoton(s StackConfig, embedding int) Config {
	c := paperBlock(s, embedding)
	c.Levels = append(c.Levels, LevelConfig{ChunkSize: 4, PrefixLength: 2, Chunker: chunkerLinear, Encoder: s, Decoder: s})
	return c
}

// paperBounded is paperPhoton with a window of 16 units on the level-1 encoder: only the top level's cache grows.
func paperBounded(s StackConfig, embedding int) Config {
	c := paperPhoton(s, embedding)
	c.Levels[0].Encoder.SlidingWindow = 16
	return c
}

// paperRival is vanilla with windows in all layers but one in the middle, as rival15M.
func paperRival(s StackConfig) Config {
	c := vanilla(s)
	c.ModelType = modelTypeMinistral
	c.Transformer.Windows = slices.Repeat([]int{64}, s.Layers)
	c.Transformer.Windows[s.Layers/2] = 0
	return c
}

// memory600M is memory15M at the width of vanilla-600m, whose multiply-adds of a decoded token it takes, to a percent,
// with a quarter more parameters: those above the tokens run once in four.
func memory600M() Config {
	thin, units, decoder := paperStack(1664, 1216, 2), paperStack(1664, 4096, 6), paperStack(1664, 4096, 13)
	thin.SlidingWindow, units.SlidingWindow, decoder.SlidingWindow = 32, 128, 32
	decoder.Memories = []MemoryConfig{
		{Level: 1, Layers: []int{9}, Heads: 26, KVHeads: 1, HeadDim: 64, RopeTheta: 10000, Unpack: true}}
	return Config{ModelType: modelTypePhoton, FormatVersion: 2, VocabSize: 32000, EmbeddingSize: 1664, RMSNormEps: 1e-5,
		BOSTokenID: 1, EOSTokenIDs: []int{2}, Content: contentStates, TokenEncoder: &thin,
		Levels: []LevelConfig{{ChunkSize: 4, Chunker: chunkerLinear, Encoder: units, Decoder: decoder}}}
}
