package photon

import (
	"errors"
	"strings"
	"testing"
)

func TestPresetParameters(t *testing.T) {
	// The paper's tables, to the digit; they leave the start latent out. The flat models are counted by hand:
	// 2·vocab·d + layers·(4d² + 3·d·ffn + 2d) + d.
	want := map[string]int64{
		"photon-600m": 646_399_104, "photon-900m": 907_162_368, "photon-1.2b": 1_229_531_520,
		"block-600m": 629_770_752, "block-900m": 887_878_656, "block-1.2b": 1_207_395_840,
		"vanilla-600m": 610_915_968, "vanilla-900m": 867_114_752, "vanilla-1.2b": 1_184_657_280,
		"bounded-600m": 646_399_104, "bounded-900m": 907_162_368, "bounded-1.2b": 1_229_531_520,
		"rival-600m": 610_915_968, "rival-900m": 867_114_752, "rival-1.2b": 1_184_657_280,
		"memory-600m":     778_800_256,
		"photon-15m":      15_544_192,
		"rival-15m":       13_964_928,
		"memory-15m":      17_856_384,
		"memory-wide-15m": 18_200_448,
		"flat-15m":        2*4096*384 + 7*(4*384*384+3*384*1024+2*384) + 384,
		"flat-20m":        2*8192*384 + 8*(4*384*384+3*384*1024+2*384) + 384,
		"flat-134m":       2*32000*768 + 12*(4*768*768+3*768*2048+2*768) + 768,
		"flat-597m":       2*32000*1280 + 26*(4*1280*1280+3*1280*3456+2*1280) + 1280,
		"qwen3-600m":      596_049_920,
	}
	for name, parameters := range want {
		c, err := Preset(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := c.validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got := c.Parameters()
		if !c.Flat() {
			got -= int64(c.Levels[len(c.Levels)-1].Encoder.HiddenSize)
		}
		if got != parameters {
			t.Errorf("%s has %d parameters, want %d", name, got, parameters)
		}
	}
}

func TestPresetUnknown(t *testing.T) {
	_, err := Preset("photon-7b")
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("error %v, want one that is %q", err, ErrInvalid)
	}
	for _, name := range PresetNames() {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error %q does not list %s", err, name)
		}
	}
}

// What a caller does to a preset does not show in the next one.
func TestPresetIsACopy(t *testing.T) {
	c, err := Preset("photon-600m")
	if err != nil {
		t.Fatal(err)
	}
	c.Levels[0].ChunkSize, c.EOSTokenIDs[0] = 99, 99
	again, _ := Preset("photon-600m")
	if again.Levels[0].ChunkSize != 4 || again.EOSTokenIDs[0] != 2 {
		t.Error("a changed preset stays changed")
	}
}
