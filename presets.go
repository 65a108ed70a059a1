package photon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// presets are models by name: those of the PHOTON paper (arXiv 2512.20687), and flat ones that other programs are measured with.
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

	"flat-20m":  flat(8192, presetStack(384, 1024, 6, 8)),
	"flat-134m": flat(32000, presetStack(768, 2048, 12, 12)),
	"flat-597m": flat(32000, presetStack(1280, 3456, 20, 26)),
}

// Preset returns the configuration of that name; the error of an unknown one lists the names and matches ErrInvalid.
// It may be called from several goroutines.
func Preset(name string) (Config, error) {
	c, ok := presets[name]
	if !ok {
		return Config{}, fmt.Errorf("photon: no preset %.80q: want one of %s: %w", name, strings.Join(PresetNames(), ", "), ErrInvalid)
	}
	c.EOSTokenIDs = slices.Clone(c.EOSTokenIDs)
	c.Levels = slices.Clone(c.Levels)
	return c, nil
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
