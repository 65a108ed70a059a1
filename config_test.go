package photon

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/photon-lm/photon/internal/bounded"
)

const photonConfigText = `{
  "model_type": "photon", "format_version": 1,
  "vocab_size": 300, "embedding_size": 6, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
  "bos_token_id": 1, "eos_token_id": [2, 3],
  "levels": [
    {"chunk_size": 4, "prefix_length": 2, "chunker": "concat",
     "encoder": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                 "intermediate_size": 40, "sliding_window": 7, "rope_theta": 10000.0},
     "decoder": {"hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10,
                 "intermediate_size": 44, "sliding_window": 9, "rope_theta": 5e5}},
    {"chunk_size": 3, "prefix_length": 1, "chunker": "linear",
     "encoder": {"hidden_size": 28, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 7,
                 "intermediate_size": 48, "sliding_window": 0, "rope_theta": 0},
     "decoder": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 6,
                 "intermediate_size": 52, "sliding_window": 0, "rope_theta": 10000}}
  ]
}`

func testStack(hidden, layers, heads, kvHeads, headDim, intermediate, window int, theta float64) StackConfig {
	return StackConfig{HiddenSize: hidden, Layers: layers, Heads: heads, KVHeads: kvHeads, HeadDim: headDim,
		IntermediateSize: intermediate, SlidingWindow: window, RopeTheta: theta}
}

func photonConfig() Config {
	return Config{
		ModelType: "photon", FormatVersion: 1, VocabSize: 300, EmbeddingSize: 6, RMSNormEps: 1e-5, BOSTokenID: 1, EOSTokenIDs: []int{2, 3},
		Levels: []LevelConfig{{
			ChunkSize: 4, PrefixLength: 2, Chunker: "concat",
			Encoder: testStack(24, 2, 4, 2, 8, 40, 7, 10000),
			Decoder: testStack(20, 1, 2, 1, 10, 44, 9, 5e5),
		}, {
			ChunkSize: 3, PrefixLength: 1, Chunker: "linear",
			Encoder: testStack(28, 1, 2, 2, 7, 48, 0, 0),
			Decoder: testStack(24, 2, 3, 3, 6, 52, 0, 10000),
		}},
	}
}

const llamaConfigText = `{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300, "hidden_size": 48, "intermediate_size": 64,
  "num_hidden_layers": 3, "num_attention_heads": 6, "hidden_act": "silu", "torch_dtype": "bfloat16", "max_position_embeddings": 2048
}`

func TestParseConfig(t *testing.T) {
	llama := func(change func(*Config)) Config {
		c := Config{ModelType: "llama", VocabSize: 300, EmbeddingSize: 48, RMSNormEps: 1e-6, BOSTokenID: -1,
			Transformer: testStack(48, 3, 6, 6, 8, 64, 0, 10000)}
		change(&c)
		return c
	}
	with := func(more string) string { return strings.Replace(llamaConfigText, "{", "{"+more+", ", 1) }
	tests := []struct {
		name, text string
		want       Config
	}{
		{"photon", photonConfigText, photonConfig()},
		{"llama, defaults", llamaConfigText, llama(func(*Config) {})},
		{"llama, nulls", with(`"rope_scaling": null, "head_dim": null, "num_key_value_heads": null, "bos_token_id": null, "eos_token_id": null, "attention_bias": null, "quantization_config": null`),
			llama(func(*Config) {})},
		{"llama, all", with(`"num_key_value_heads": 2, "head_dim": 10, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
			"bos_token_id": 0, "eos_token_id": 7, "attention_bias": false, "mlp_bias": false, "sliding_window": null`),
			llama(func(c *Config) {
				c.Transformer = testStack(48, 3, 6, 2, 10, 64, 0, 500000)
				c.RMSNormEps, c.TieWordEmbeddings, c.BOSTokenID, c.EOSTokenIDs = 1e-5, true, 0, []int{7}
			})},
		{"llama, rope_parameters", with(`"rope_parameters": {"rope_theta": 3e5, "rope_type": "default"}`),
			llama(func(c *Config) { c.Transformer.RopeTheta = 3e5 })},
		{"llama, rope_scaling default", with(`"rope_scaling": {"type": "default"}, "rope_theta": 1e5`),
			llama(func(c *Config) { c.Transformer.RopeTheta = 1e5 })},
		{"unknown keys", with(`"x": {"y": [1, -2.5e-3, true, null, "\u00e9\ud83d\ude00\n", {}]}, "": []`), llama(func(*Config) {})},
		{"escaped key", strings.Replace(llamaConfigText, "model_type", `model\u005ftype`, 1), llama(func(*Config) {})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseConfig([]byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseConfigRefuses(t *testing.T) {
	tests := []struct {
		name, from, to string // replaced once in photonConfigText, or in llamaConfigText where the name says so
		kind           error
		says           string
	}{
		{"zero vocabulary", `"vocab_size": 300`, `"vocab_size": 0`, ErrCorrupt, "vocab_size is 0"},
		{"negative embedding", `"embedding_size": 6`, `"embedding_size": -6`, ErrCorrupt, "embedding_size is -6"},
		{"huge vocabulary", `"vocab_size": 300`, `"vocab_size": 1000000000`, ErrUnsupported, "vocab_size is 1000000000"},
		{"beyond int64", `"vocab_size": 300`, `"vocab_size": 99999999999999999999`, ErrCorrupt, "vocab_size: byte"},
		{"beyond int32", `"vocab_size": 300`, `"vocab_size": 4294967596`, ErrUnsupported, "4294967596"},
		{"fraction", `"vocab_size": 300`, `"vocab_size": 300.5`, ErrCorrupt, "want an integer"},
		{"string", `"vocab_size": 300`, `"vocab_size": "300"`, ErrCorrupt, "want a number, found a string"},
		{"null", `"vocab_size": 300`, `"vocab_size": null`, ErrCorrupt, "found null"},
		{"missing", `"vocab_size": 300`, `"Vocab_Size": 300`, ErrCorrupt, "vocab_size is missing"},
		{"twice", `"vocab_size": 300`, `"vocab_size": 300, "vocab\u005fsize": 300`, ErrCorrupt, `"vocab_size" stands twice`},
		{"twice, unknown and deep", `"vocab_size": 300`, `"vocab_size": 300, "x": [{"y": 1, "y": 1}]`, ErrCorrupt, `"y" stands twice`},
		{"zero eps", `1e-5`, `0`, ErrCorrupt, "rms_norm_eps is 0"},
		{"eps that float32 takes for 0", `1e-5`, `1e-60`, ErrCorrupt, "rms_norm_eps is 1e-60"},
		{"eps that float32 takes for 1", `1e-5`, `0.999999999`, ErrCorrupt, "rms_norm_eps is 0.999999999"},
		{"quantized", `{`, `{"quantization_config": {}, `, ErrUnsupported, "quantization_config: not run"},
		{"llama quantized", `{`, `{"quantization_config": {"quant_method": "gptq"}, `, ErrUnsupported, "quantization_config: not run"},
		{"infinite eps", `1e-5`, `1e999`, ErrCorrupt, "rms_norm_eps: byte"},
		{"tied by a number", `"tie_word_embeddings": false`, `"tie_word_embeddings": 0`, ErrCorrupt, "tie_word_embeddings"},
		{"BOS out of range", `"bos_token_id": 1`, `"bos_token_id": 300`, ErrCorrupt, "bos_token_id is 300"},
		{"EOS out of range", `[2, 3]`, `[2, -1]`, ErrCorrupt, "eos_token_id is -1"},
		{"EOS nested", `[2, 3]`, `[[2], 3]`, ErrCorrupt, "eos_token_id"},
		{"another model", `"model_type": "photon"`, `"model_type": "mamba"`, ErrUnsupported, `"mamba"`},
		{"no model type", `"model_type": "photon",`, ``, ErrCorrupt, "model_type is missing"},
		{"future version", `"format_version": 1`, `"format_version": 3`, ErrUnsupported, "format_version: 3"},
		{"no levels", photonConfigText[strings.Index(photonConfigText, `"levels": [`):], `"levels": []}`, ErrCorrupt, "levels is empty"},
		{"levels an object", photonConfigText[strings.Index(photonConfigText, `"levels": [`):], `"levels": {}}`, ErrCorrupt, "want a list, found an object"},
		{"too many levels", photonConfigText[strings.Index(photonConfigText, `"levels": [`):], `"levels": [` + strings.Repeat(
			`{"chunk_size":1,"prefix_length":1,"chunker":"concat","encoder":{"hidden_size":1,"num_hidden_layers":1,"num_attention_heads":1,"num_key_value_heads":1,"head_dim":1,"intermediate_size":1,"sliding_window":0,"rope_theta":0},"decoder":{"hidden_size":1,"num_hidden_layers":1,"num_attention_heads":1,"num_key_value_heads":1,"head_dim":1,"intermediate_size":1,"sliding_window":0,"rope_theta":0}},`,
			64) + `{}]}`, ErrUnsupported, "more than 64 levels"},
		{"zero chunk", `"chunk_size": 4`, `"chunk_size": 0`, ErrCorrupt, "levels[0].chunk_size is 0"},
		{"huge chunk", `"chunk_size": 3`, `"chunk_size": 1000000`, ErrUnsupported, "chunk sizes multiply"},
		{"zero prefix", `"prefix_length": 1`, `"prefix_length": 0`, ErrUnsupported, "levels[1].prefix_length 0"},
		{"unknown chunker", `"linear"`, `"conv"`, ErrUnsupported, `chunker is "conv"`},
		{"concat width", `"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4`, `"hidden_size": 26, "num_hidden_layers": 2, "num_attention_heads": 4`,
			ErrCorrupt, "levels[0].encoder.hidden_size is 26"},
		{"decoder width", `"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3`, `"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3`,
			ErrCorrupt, "levels[1].decoder.hidden_size is 20, want 24"},
		{"missing deep", `"rope_theta": 5e5`, `"rope": 5e5`, ErrCorrupt, "levels: [0]: decoder: rope_theta is missing"},
		{"zero layers", `"num_hidden_layers": 1`, `"num_hidden_layers": 0`, ErrCorrupt, "num_hidden_layers is 0"},
		{"too many layers", `"num_hidden_layers": 1`, `"num_hidden_layers": 1000000000`, ErrUnsupported, "num_hidden_layers is 1000000000"},
		{"too many tensors", `"num_hidden_layers": 1`, `"num_hidden_layers": 7281`, ErrUnsupported, "tensors"},
		{"zero heads", `"num_attention_heads": 4`, `"num_attention_heads": 0`, ErrCorrupt, "num_attention_heads is 0"},
		{"zero kv heads", `"num_key_value_heads": 2`, `"num_key_value_heads": 0`, ErrCorrupt, "num_key_value_heads is 0"},
		{"kv heads do not divide", `"num_key_value_heads": 2`, `"num_key_value_heads": 3`, ErrCorrupt, "no multiple of num_key_value_heads 3"},
		{"zero head", `"head_dim": 8`, `"head_dim": 0`, ErrCorrupt, "head_dim is 0"},
		{"odd head that rotates", `"head_dim": 8`, `"head_dim": 9`, ErrCorrupt, "head_dim is 9"},
		{"huge head", `"head_dim": 8`, `"head_dim": 2000000000`, ErrUnsupported, "levels[0].encoder.q_proj"},
		{"huge product", `"intermediate_size": 40`, `"intermediate_size": 2147483647`, ErrUnsupported, "gate_proj"},
		{"negative window", `"sliding_window": 7`, `"sliding_window": -1`, ErrCorrupt, "sliding_window is -1"},
		{"window below a unit", `"sliding_window": 9`, `"sliding_window": 5`, ErrCorrupt, "sliding_window is 5, want 0, or at least"},
		{"negative theta", `10000.0`, `-1`, ErrCorrupt, "rope_theta is -1"},
		{"small theta", `10000.0`, `0.5`, ErrCorrupt, "rope_theta is 0.5"},

		{"llama gelu", `"silu"`, `"gelu"`, ErrUnsupported, `hidden_act: "gelu"`},
		{"llama zero heads", `"num_attention_heads": 6`, `"num_attention_heads": 0`, ErrCorrupt, "num_attention_heads"},
		{"llama heads do not divide", `"num_attention_heads": 6`, `"num_attention_heads": 5`, ErrCorrupt, "head_dim is missing"},
		{"llama part of the head", `{`, `{"partial_rotary_factor": 0.5, `, ErrUnsupported, "partial_rotary_factor"},
		{"llama part, nested", `{`, `{"rope_parameters": {"partial_rotary_factor": 0.25}, `, ErrUnsupported,
			"partial_rotary_factor"},
		{"llama rope by layer type", `{`, `{"rope_parameters": {"full_attention": {"rope_type": "default"}}, `,
			ErrUnsupported, "full_attention"},
		{"llama rope beyond linear", `{`, `{"rope_scaling": {"type": "linear", "factor": 2, "attention_factor": 1.5}, `,
			ErrUnsupported, "attention_factor"},
		{"llama rope of two types", `{`, `{"rope_scaling": {"type": "linear", "rope_type": "llama3"}, `, ErrCorrupt,
			"rope_type and type"},
		{"llama rope said twice", `{`, `{"rope_scaling": {"type": "linear", "factor": 2},
			"rope_parameters": {"type": "linear", "factor": 3}, `, ErrCorrupt, "different things"},
		{"llama linear without factor", `{`, `{"rope_scaling": {"type": "linear"}, `, ErrCorrupt, "rope_scaling.factor is 0"},
		{"llama 3 rope without ends", `{`, `{"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, `, ErrCorrupt,
			"low_freq_factor is 0"},
		{"llama 3 rope, ends turned", `{`, `{"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
			"low_freq_factor": 4, "high_freq_factor": 1, "original_max_position_embeddings": 9}, `, ErrCorrupt, "high_freq_factor is 1"},
		{"llama 3 rope without a context", `{`, `{"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
			"low_freq_factor": 1, "high_freq_factor": 4}, `, ErrCorrupt, "original_max_position_embeddings"},
		{"llama factors of another head", `{`, `{"rope_scaling": {"rope_type": "factors", "factors": [1, 2]}, `, ErrCorrupt,
			"factors has 2"},
		{"llama layers without rotation", `{`, `{"no_rope_layers": [1, 0, 1], `, ErrUnsupported, "no_rope_layers"},
		{"llama use_mrope", `{`, `{"use_mrope": true, `, ErrUnsupported, "use_mrope"},
		{"llama yarn", `{`, `{"rope_parameters": {"type": "yarn"}, `, ErrUnsupported, `"yarn"`},
		{"llama nameless scaling", `{`, `{"rope_scaling": {"factor": 2}, `, ErrUnsupported, "factor without rope_type"},
		{"llama two thetas", `{`, `{"rope_theta": 5, "rope_parameters": {"rope_theta": 6}, `, ErrCorrupt, "rope_theta is 6 here, 5 elsewhere"},
		{"llama negative theta", `{`, `{"rope_theta": -5, `, ErrCorrupt, "rope_theta"},
		{"llama negative kv heads", `{`, `{"num_key_value_heads": -2147483647, `, ErrCorrupt, "num_key_value_heads"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			base := photonConfigText
			if strings.HasPrefix(test.name, "llama") {
				base = llamaConfigText
			}
			text := strings.Replace(base, test.from, test.to, 1)
			if text == base {
				t.Fatal("nothing to replace")
			}
			checkRefused(t, func() error { _, err := parseConfig([]byte(text)); return err }(), test.kind, "config.json: ", test.says)
		})
	}
	texts := []struct {
		name, text string
		kind       error
		says       string
	}{
		{"empty", "", ErrCorrupt, "end of the text"},
		{"list", "[]", ErrCorrupt, "want an object"},
		{"two values", llamaConfigText + "{}", ErrCorrupt, "after the end"},
		{"trailing comma", `{"model_type": "llama",}`, ErrCorrupt, "want a string"},
		{"no comma", `{"model_type": "llama" "x": 1}`, ErrCorrupt, "want a comma"},
		{"no colon", `{"model_type" "llama"}`, ErrCorrupt, "want a colon"},
		{"comment", "{ // x\n}", ErrCorrupt, "found '/'"},
		{"leading zero", `{"x": 01}`, ErrCorrupt, "malformed number"},
		{"plus", `{"x": +1}`, ErrCorrupt, "found '+'"},
		{"bare point", `{"x": 1.}`, ErrCorrupt, "malformed number"},
		{"NaN", `{"x": NaN}`, ErrCorrupt, "found 'N'"},
		{"half a surrogate", `{"x": "\ud800"}`, ErrCorrupt, "surrogate"},
		{"wrong escape", `{"x": "\q"}`, ErrCorrupt, "escape"},
		{"control character", "{\"x\": \"a\nb\"}", ErrCorrupt, "control character"},
		{"not UTF-8", "{\"x\": \"\xff\"}", ErrCorrupt, "invalid UTF-8"},
		{"too deep", `{"x": ` + strings.Repeat("[", 100), ErrCorrupt, "nested deeper"},
		{"deep without end", strings.Repeat(`{"x":`, 1<<17), ErrCorrupt, "nested deeper"},
		{"too large", `{"x": "` + strings.Repeat("x", 1<<20) + `"}`, ErrCorrupt, "more than 1048576"},
		{"LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", ErrCorrupt, "git lfs pull"},
	}
	for _, test := range texts {
		t.Run(test.name, func(t *testing.T) {
			checkRefused(t, func() error { _, err := parseConfig([]byte(test.text)); return err }(), test.kind, "config.json: ", test.says)
		})
	}
}

// checkRefused wants an error of a kind whose text has all the parts, is one line, and is not endless.
func checkRefused(t *testing.T, err, kind error, says ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want one that is %q", err, kind)
	}
	text := err.Error()
	for _, want := range says {
		if !strings.Contains(text, want) {
			t.Errorf("error %q does not say %q", text, want)
		}
	}
	if !strings.HasPrefix(text, "photon: ") || strings.Count(text, "photon: ") > 1 || strings.Contains(text, "\n") || len(text) > 1000 {
		t.Errorf("error %q: want one line that begins with photon:, once", text)
	}
}

const mistralConfigText = `{"model_type": "mistral", "vocab_size": 300, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3,
  "num_attention_heads": 6, "num_key_value_heads": 2, "sliding_window": 9}`

const format2ConfigText = `{
  "model_type": "photon", "format_version": 2, "vocab_size": 300, "embedding_size": 20, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
  "content": "states",
  "token_encoder": {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10,
                    "intermediate_size": 40, "sliding_window": [5, 0], "rope_theta": 10000},
  "levels": [
    {"chunk_size": 4, "prefix_length": 0, "chunker": "linear",
     "encoder": {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                 "intermediate_size": 40, "sliding_window": 7, "rope_theta": 10000},
     "decoder": {"hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10,
                 "intermediate_size": 44, "sliding_window": [4, 0, 9], "rope_theta": 5e5,
                 "memories": [{"level": 0, "layers": [0, 2], "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 6,
                               "sliding_window": 30, "rope_theta": 100},
                              {"level": 1, "layers": [2], "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 7,
                               "unpack": true}]}}
  ]
}`

func TestParseConfigTruncated(t *testing.T) {
	for _, text := range []string{photonConfigText, llamaConfigText, format2ConfigText, mistralConfigText} {
		for n := range len(text) {
			if _, err := parseConfig([]byte(text[:n])); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("the first %d of %d bytes: %v", n, len(text), err)
			}
		}
	}
}

func TestConfigJSONRoundTrip(t *testing.T) {
	configs := map[string]Config{"test": photonConfig()}
	for _, name := range PresetNames() {
		configs[name], _ = Preset(name)
	}
	tied := photonConfig()
	tied.TieWordEmbeddings, tied.BOSTokenID, tied.EOSTokenIDs = true, -1, nil
	configs["tied, no ids"] = tied
	for name, want := range configs {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := parseConfig(text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := json.Marshal(Config{}); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrCorrupt) {
		t.Errorf("an empty Config marshals with error %v", err)
	}
}

func TestConfigTensors(t *testing.T) {
	var names []string
	var total int64
	for spec := range photonConfig().tensors() {
		names = append(names, fmt.Sprint(spec.name, spec.shape))
		n := int64(1)
		for _, size := range spec.shape {
			n *= int64(size)
		}
		total += n
	}
	layer := func(at string, d, q, kv, ffn int) []string {
		return []string{
			fmt.Sprintf("%sinput_layernorm.weight[%d]", at, d),
			fmt.Sprintf("%sself_attn.q_proj.weight[%d %d]", at, q, d),
			fmt.Sprintf("%sself_attn.k_proj.weight[%d %d]", at, kv, d),
			fmt.Sprintf("%sself_attn.v_proj.weight[%d %d]", at, kv, d),
			fmt.Sprintf("%sself_attn.o_proj.weight[%d %d]", at, d, q),
			fmt.Sprintf("%spost_attention_layernorm.weight[%d]", at, d),
			fmt.Sprintf("%smlp.gate_proj.weight[%d %d]", at, ffn, d),
			fmt.Sprintf("%smlp.up_proj.weight[%d %d]", at, ffn, d),
			fmt.Sprintf("%smlp.down_proj.weight[%d %d]", at, d, ffn),
		}
	}
	want := []string{"encoder.embed_tokens.weight[300 6]"}
	want = append(want, layer("levels.0.encoder.layers.0.", 24, 32, 16, 40)...)
	want = append(want, layer("levels.0.encoder.layers.1.", 24, 32, 16, 40)...)
	want = append(want, "levels.0.encoder.norm.weight[24]")
	want = append(want, layer("levels.0.decoder.layers.0.", 20, 20, 10, 44)...)
	want = append(want, "levels.0.decoder.norm.weight[20]", "levels.0.converter.weight[40 24]", "levels.0.converter.bias[40]",
		"levels.1.chunker.norm.weight[72]", "levels.1.chunker.proj.weight[28 72]", "levels.1.chunker.proj.bias[28]")
	want = append(want, layer("levels.1.encoder.layers.0.", 28, 14, 14, 48)...)
	want = append(want, "levels.1.encoder.norm.weight[28]")
	want = append(want, layer("levels.1.decoder.layers.0.", 24, 18, 18, 52)...)
	want = append(want, layer("levels.1.decoder.layers.1.", 24, 18, 18, 52)...)
	want = append(want, "levels.1.decoder.norm.weight[24]", "levels.1.converter.weight[24 28]", "levels.1.converter.bias[24]",
		"start_latent[28]", "decoder.embed_tokens.weight[300 20]", "lm_head.weight[300 20]")
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if got := photonConfig().Parameters(); got != total {
		t.Errorf("Parameters() = %d, the tensors have %d elements", got, total)
	}
	tied := photonConfig()
	tied.TieWordEmbeddings = true
	if got := tied.Parameters(); got != total-300*20 {
		t.Errorf("tied: Parameters() = %d, want %d", got, total-300*20)
	}
	if c := photonConfig(); c.tensorCount() < len(want) || c.MetaContext() != 12 || c.Flat() {
		t.Errorf("tensorCount %d, MetaContext %d, Flat %v", c.tensorCount(), c.MetaContext(), c.Flat())
	}
}

// The state's size, against a count that feeds one token after the other.
func TestStateBytes(t *testing.T) {
	const rowF32 = 4 * 2 // a key and a value
	for _, change := range []func(c *Config){
		func(c *Config) {},
		func(c *Config) { c.Levels[1].Decoder.SlidingWindow = 23 },
		func(c *Config) { c.Levels[0].Decoder.SlidingWindow = 0; c.Levels[0].Encoder.SlidingWindow = 0 },
		func(c *Config) { c.Levels[0].Decoder.SlidingWindow = 6 },
	} {
		c := photonConfig()
		change(&c)
		if err := c.validate(); err != nil {
			t.Fatal(err)
		}
		encoder, decoder, children := make([]int, 2), make([]int, 2), make([]int, 2)
		begin := func(l int) { // a unit of level l+1
			if c.Levels[l].Decoder.SlidingWindow == 0 {
				decoder[l] = 0
			}
			decoder[l] += c.Levels[l].PrefixLength
		}
		begin(0)
		begin(1)
		for tokens := range 200 {
			want := int64(0)
			for i, l := range c.Levels {
				within := func(s StackConfig, rows int) int64 {
					if s.SlidingWindow > 0 && rows > s.SlidingWindow {
						rows = s.SlidingWindow
					}
					return int64(rows * s.Layers * s.KVHeads * s.HeadDim * rowF32)
				}
				want += within(l.Encoder, encoder[i]) + within(l.Decoder, decoder[i])
			}
			if got := c.StateBytes(tokens, CacheF32); got != want {
				t.Fatalf("StateBytes(%d) = %d, want %d", tokens, got, want)
			}
			if got := c.StateBytes(tokens, CacheF16); got != want/2 {
				t.Fatalf("StateBytes(%d, f16) = %d, want %d", tokens, got, want/2)
			}
			for l := range c.Levels { // one more child of level l+1
				decoder[l]++
				if children[l]++; children[l] < c.Levels[l].ChunkSize {
					break
				}
				children[l] = 0
				encoder[l]++
				begin(l)
			}
		}
	}
	if c := photonConfig(); c.StateBytes(math.MaxInt, CacheF32) != math.MaxInt64 {
		t.Errorf("StateBytes(MaxInt) = %d overflowed", c.StateBytes(math.MaxInt, CacheF32))
	}
	flat, err := Preset("flat-20m")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := flat.StateBytes(1000, CacheF32), int64(1000*8*384*rowF32); got != want {
		t.Errorf("flat: StateBytes(1000) = %d, want %d", got, want)
	}
	if got := flat.StateBytes(-1, CacheF32); got != 0 {
		t.Errorf("flat: StateBytes(-1) = %d", got)
	}
	if got := flat.StateBytes(math.MaxInt, CacheF32); got < math.MaxInt {
		t.Errorf("flat: StateBytes(MaxInt) = %d overflowed", got)
	}
}

// Every configuration of the golden models is read, and is what its checkpoint holds.
// A Config that no model has, made by hand, has no size either.
func TestSizesOfBadConfigs(t *testing.T) {
	good := presets["memory-15m"]
	for name, edit := range map[string]func(c *Config){
		"no sizes":         func(c *Config) { *c = Config{Levels: []LevelConfig{{}}} },
		"too few windows":  func(c *Config) { c.Levels[0].Decoder.Windows = []int{4} },
		"a memory of what": func(c *Config) { c.Levels[0].Decoder.Memories = []MemoryConfig{{Level: 7}} },
		"endless layers":   func(c *Config) { c.Levels[0].Encoder.Layers = math.MaxInt },
	} {
		c := good.clone()
		edit(&c)
		if n, b := c.Parameters(), c.StateBytes(100, CacheF16); n != 0 || b != 0 {
			t.Errorf("%s: %d parameters, %d bytes", name, n, b)
		}
	}
}

func TestGoldenConfigs(t *testing.T) {
	dirs, err := filepath.Glob("testdata/golden/*/config.json")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden models: %v", err)
	}
	for _, name := range dirs {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseConfig(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ckpt, err := openCheckpoint(os.DirFS(filepath.Dir(name)), maxTensors)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := ckpt.match(c.tensors(), c.copies()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var elements int64
		if err := ckpt.each(func(d tensorData) error {
			n := tensorSpec{shape: d.shape}.elements()
			values := make([]float32, n)
			d.float32s(values, 0, int(n))
			for i, x := range values {
				if math.IsNaN(float64(x)) || math.Abs(float64(x)) > 100 {
					return fmt.Errorf("%s[%d] = %v", d.name, i, x)
				}
			}
			elements += n
			return nil
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if elements != c.Parameters() {
			t.Errorf("%s: read %d elements, want %d", name, elements, c.Parameters())
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(photonConfigText))
	f.Add([]byte(llamaConfigText))
	f.Add([]byte(format2ConfigText))
	f.Add([]byte(mistralConfigText))
	flats, err := filepath.Glob("testdata/flats/*/config.json")
	if err != nil || len(flats) == 0 {
		f.Fatal(err)
	}
	for _, name := range flats {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"model_type":"llama","rope_scaling":{"rope_type":"default"},"eos_token_id":[1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Config
		var err error
		bounded.Run(t, 8*len(data)+1<<20, func() { c, err = parseConfig(data) })
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseConfig(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		// An empty list of ids is written as no list.
		if len(c.EOSTokenIDs) == 0 {
			c.EOSTokenIDs = nil
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatal(diff)
		}
		specs := specsOf(c)
		if len(specs) > c.tensorCount() || len(specs) > maxTensors {
			t.Fatalf("%d tensors, counted %d", len(specs), c.tensorCount())
		}
		for _, spec := range specs {
			if n := spec.elements(); n < 1 || n > maxSize {
				t.Fatalf("%s has %d elements", spec.name, n)
			}
		}
		if c.Parameters() < 1 || c.StateBytes(math.MaxInt, CacheF32) < 0 || c.MetaContext() < 1 || c.MetaContext() > maxMetaContext {
			t.Fatalf("%d parameters, %d bytes of state, meta-context %d", c.Parameters(), c.StateBytes(math.MaxInt, CacheF32), c.MetaContext())
		}
	})
}
