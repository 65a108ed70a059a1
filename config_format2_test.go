package photon

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func format2Config() Config {
	tokens := testStack(20, 2, 2, 1, 10, 40, 0, 10000)
	tokens.Windows = []int{5, 0}
	decoder := testStack(20, 3, 2, 1, 10, 44, 0, 5e5)
	decoder.Windows = []int{4, 0, 9}
	decoder.Memories = []MemoryConfig{
		{Level: 0, Layers: []int{0, 2}, Heads: 6, KVHeads: 2, HeadDim: 6, SlidingWindow: 30, RopeTheta: 100},
		{Level: 1, Layers: []int{2}, Heads: 1, KVHeads: 1, HeadDim: 7, Unpack: true},
	}
	return Config{
		ModelType: "photon", FormatVersion: 2, VocabSize: 300, EmbeddingSize: 20, RMSNormEps: 1e-5, TieWordEmbeddings: true, BOSTokenID: -1,
		Content: "states", TokenEncoder: &tokens,
		Levels: []LevelConfig{{ChunkSize: 4, Chunker: "linear", Encoder: testStack(24, 1, 4, 2, 8, 40, 7, 10000), Decoder: decoder}},
	}
}

func TestParseConfig2(t *testing.T) {
	ministral := func(more string) string {
		return strings.Replace(mistralConfigText, `{"model_type": "mistral"`, `{`+more+`"model_type": "ministral"`, 1)
	}
	flat := func(kind string, window int, windows []int) Config {
		s := testStack(48, 3, 6, 2, 8, 64, window, 10000)
		s.Windows = windows
		return Config{ModelType: kind, VocabSize: 300, EmbeddingSize: 48, RMSNormEps: 1e-6, BOSTokenID: -1, Transformer: s}
	}
	for _, test := range []struct {
		text string
		want Config
	}{
		{format2ConfigText, format2Config()},
		{mistralConfigText, flat("mistral", 9, nil)},
		{strings.Replace(mistralConfigText, "9", "null", 1), flat("mistral", 0, nil)},
		{ministral(`"layer_types": ["sliding_attention", "full_attention", "sliding_attention"],`), flat("ministral", 0, []int{9, 0, 9})},
		{ministral(""), flat("ministral", 0, []int{9, 9, 9})},
		{strings.Replace(ministral(`"layer_types": ["full_attention", "full_attention", "full_attention"],`), "9", "null", 1),
			flat("ministral", 0, []int{0, 0, 0})},
	} {
		got, err := parseConfig([]byte(test.text))
		if err != nil {
			t.Errorf("%v\n%s", err, test.text)
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Error(diff)
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseConfig(text); err != nil || !cmp.Equal(got, again) {
			t.Errorf("%s comes back as %+v, %v", text, again, err)
		}
	}
	// A copy shares nothing.
	c := format2Config()
	d := c.clone()
	d.TokenEncoder.Windows[0], d.Levels[0].Decoder.Windows[0], d.Levels[0].Decoder.Memories[0].Layers[0] = 1, 1, 1
	if diff := cmp.Diff(format2Config(), c); diff != "" {
		t.Error(diff)
	}
}

func TestParseConfig2Refuses(t *testing.T) {
	llama := strings.Replace(mistralConfigText, "mistral", "llama", 1)
	ministral := strings.Replace(mistralConfigText, "mistral", "ministral", 1)
	types := func(text, of string) string { return strings.Replace(text, "{", `{"layer_types": [`+of+`], `, 1) }
	version1 := strings.Replace(photonConfigText, "{", `{%s, `, 1)
	for _, test := range []struct {
		text, from, to string
		kind           error
		says           string
	}{
		{version1, `%s`, `"content": "embedding"`, ErrUnsupported, "content"},
		{version1, `%s`, `"token_encoder": {"hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
			"head_dim": 6, "intermediate_size": 8, "sliding_window": 0, "rope_theta": 0}`, ErrUnsupported, "token_encoder"},
		{photonConfigText, `"sliding_window": 9`, `"sliding_window": [9]`, ErrUnsupported, "levels[0].decoder.sliding_window"},
		{photonConfigText, `"sliding_window": 7`, `"sliding_window": [7, 7]`, ErrUnsupported, "levels[0].encoder.sliding_window"},
		{photonConfigText, `"sliding_window": 9`, `"sliding_window": 9, "memories": []`, ErrUnsupported, "levels[0].decoder.memories"},
		{format2ConfigText, `"content": "states"`, `"content": "tokens"`, ErrUnsupported, `content is "tokens"`},
		{format2ConfigText, `"embedding_size": 20`, `"embedding_size": 22`, ErrCorrupt, "token_encoder.hidden_size is 20"},
		{format2ConfigText, `"sliding_window": [5, 0]`, `"sliding_window": [5]`, ErrCorrupt, "token_encoder.sliding_window has 1"},
		{format2ConfigText, `"sliding_window": [5, 0]`, `"sliding_window": [5, -1]`, ErrCorrupt, "token_encoder.sliding_window holds -1"},
		{format2ConfigText, `"sliding_window": [5, 0]`, `"sliding_window": [5, 0], "memories": []`, ErrCorrupt, "token_encoder.memories"},
		{format2ConfigText, `"sliding_window": 7`, `"sliding_window": 7, "memories": []`, ErrCorrupt, "levels[0].encoder.memories"},
		{format2ConfigText, `[4, 0, 9]`, `[3, 0, 9]`, ErrCorrupt, "levels[0].decoder.sliding_window is 3"},
		{format2ConfigText, `"prefix_length": 0`, `"prefix_length": -1`, ErrCorrupt, "prefix_length is -1"},
		{format2ConfigText, `"level": 0`, `"level": 2`, ErrCorrupt, "levels[0].decoder.memories[0].level is 2"},
		{format2ConfigText, `"level": 0`, `"level": -1`, ErrCorrupt, "memories[0].level is -1"},
		{format2ConfigText, `"level": 0`, `"unpack": true, "level": 0`, ErrCorrupt, "memories[0].level is 0, want 1 … 1"},
		{format2ConfigText, `"unpack": true`, `"unpack": 1`, ErrCorrupt, "unpack"},
		{format2ConfigText, `"layers": [0, 2]`, `"layers": [2, 0]`, ErrCorrupt, "memories[0].layers has 0 behind 2"},
		{format2ConfigText, `"layers": [0, 2]`, `"layers": [0, 3]`, ErrCorrupt, "memories[0].layers has 3 behind 0"},
		{format2ConfigText, `"layers": [0, 2]`, `"layers": []`, ErrCorrupt, "memories[0].layers is empty"},
		{format2ConfigText, `"num_attention_heads": 6`, `"num_attention_heads": 5`, ErrCorrupt, "memories[0].num_attention_heads 5"},
		{format2ConfigText, `"rope_theta": 100}`, `"rope_theta": 0.5}`, ErrCorrupt, "memories[0].rope_theta is 0.5"},
		{format2ConfigText, `"head_dim": 6,`, `"head_dim": 7,`, ErrCorrupt, "memories[0].head_dim is 7"},
		{format2ConfigText, `"head_dim": 6,`, `"head_dim": 1000000000,`, ErrUnsupported, "memories[0].q_proj"},
		{llama, "{", "{", ErrUnsupported, "sliding_window is 9"},
		{types(llama, `"full_attention", "full_attention", "sliding_attention"`), `"sliding_window": 9`, `"sliding_window": null`, ErrUnsupported, "layer_types[2]"},
		{mistralConfigText, `, "sliding_window": 9`, ``, ErrCorrupt, "sliding_window is missing"},
		{mistralConfigText, `"sliding_window": 9`, `"sliding_window": -9`, ErrCorrupt, "sliding_window is -9"},
		{types(mistralConfigText, `"sliding_attention", "full_attention", "full_attention"`), "{", "{", ErrUnsupported, "layer_types[1]"},
		{types(ministral, `"sliding_attention", "full_attention"`), "{", "{", ErrCorrupt, "layer_types has 2"},
		{mistralConfigText, `{`, `{"attention_bias": true, `, ErrUnsupported, "attention_bias is true"},
		{mistralConfigText, `{`, `{"mlp_bias": true, `, ErrUnsupported, "mlp_bias is true"},
		{types(ministral, `"sliding_attention", "full_attention", "chunked"`), "{", "{", ErrUnsupported, `layer_types[2] is "chunked"`},
		{types(ministral, `"sliding_attention", "full_attention", "full_attention"`), `"sliding_window": 9`, `"sliding_window": null`,
			ErrCorrupt, "no sliding_window"},
	} {
		text := strings.Replace(test.text, test.from, test.to, 1)
		if text == test.text && test.from != test.to {
			t.Fatalf("%q is not in the text", test.from)
		}
		_, err := parseConfig([]byte(text))
		checkRefused(t, err, test.kind, test.says)
	}
}

// The tensors of the second format, in the order that a random model draws them.
func TestConfig2Tensors(t *testing.T) {
	var names []string
	for spec := range format2Config().tensors() {
		if name := fmt.Sprint(spec.name, spec.shape); !strings.Contains(name, "mlp") && !strings.Contains(name, "self_attn") && !strings.Contains(name, "layernorm") {
			names = append(names, name)
		}
	}
	if diff := cmp.Diff([]string{
		"encoder.embed_tokens.weight[300 20]", "token_encoder.norm.weight[20]",
		"levels.0.chunker.norm.weight[80]", "levels.0.chunker.proj.weight[24 80]", "levels.0.chunker.proj.bias[24]",
		"levels.0.encoder.norm.weight[24]", "levels.0.decoder.norm.weight[20]",
		"levels.0.decoder.memories.0.sink[20]", "levels.0.decoder.memories.0.norm.weight[20]",
		"levels.0.decoder.memories.0.k_proj.weight[12 20]", "levels.0.decoder.memories.0.v_proj.weight[12 20]",
		"levels.0.decoder.layers.0.memory_attn.0.norm.weight[20]",
		"levels.0.decoder.layers.0.memory_attn.0.q_proj.weight[36 20]", "levels.0.decoder.layers.0.memory_attn.0.o_proj.weight[20 36]",
		"levels.0.decoder.layers.2.memory_attn.0.norm.weight[20]",
		"levels.0.decoder.layers.2.memory_attn.0.q_proj.weight[36 20]", "levels.0.decoder.layers.2.memory_attn.0.o_proj.weight[20 36]",
		"levels.0.decoder.memories.1.unpack.weight[80 24]", "levels.0.decoder.memories.1.unpack.bias[80]",
		"levels.0.decoder.memories.1.sink[20]", "levels.0.decoder.memories.1.norm.weight[20]",
		"levels.0.decoder.memories.1.k_proj.weight[7 20]", "levels.0.decoder.memories.1.v_proj.weight[7 20]",
		"levels.0.decoder.layers.2.memory_attn.1.norm.weight[20]",
		"levels.0.decoder.layers.2.memory_attn.1.q_proj.weight[7 20]", "levels.0.decoder.layers.2.memory_attn.1.o_proj.weight[20 7]",
		"levels.0.converter.weight[80 24]", "levels.0.converter.bias[80]", "start_latent[24]",
	}, names); diff != "" {
		t.Error(diff)
	}
	if c := format2Config(); c.tensorCount() < len(specsOf(c)) {
		t.Errorf("tensorCount %d, %d tensors", c.tensorCount(), len(specsOf(c)))
	}
}

// What the caches of the second format hold after 1,000 tokens, by hand.
func TestStateBytes2(t *testing.T) {
	want := (5 + 1000) * 1 * 10 // token encoder
	want += 7 * 2 * 8           // encoder 1
	want += (4 + 1001 + 9) * 10 // decoder 1: rows 0 … 1000
	want += 30*2*6 + 1001*7     // memories of the tokens and of the 250 units, unpacked
	if got := format2Config().StateBytes(1000, CacheF32); got != int64(want)*2*4 {
		t.Errorf("StateBytes(1000) = %d, want %d", got, want*2*4)
	}
	if got := format2Config().StateBytes(math.MaxInt, CacheF32); got != math.MaxInt64 {
		t.Errorf("StateBytes(MaxInt) = %d overflowed", got)
	}
}
