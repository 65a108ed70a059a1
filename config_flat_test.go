package photon

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestFlatConfigs reads what each kind of model says of its layers, and writes it back.
func TestFlatConfigs(t *testing.T) {
	text := func(kind, more string) string {
		return `{"model_type": "` + kind + `", "vocab_size": 300, "hidden_size": 48, "intermediate_size": 64,
			"num_hidden_layers": 3,
			"num_attention_heads": 6, "num_key_value_heads": 2, ` + more + ` "max_position_embeddings": 8}`
	}
	config := func(kind string, change func(c *Config, s *StackConfig)) Config {
		c := Config{ModelType: kind, VocabSize: 300, EmbeddingSize: 48, RMSNormEps: 1e-6, BOSTokenID: -1,
			Transformer: testStack(48, 3, 6, 2, 8, 64, 0, 10000)}
		change(&c, &c.Transformer)
		return c
	}
	plain := func(*Config, *StackConfig) {}
	qwen2 := func(_ *Config, s *StackConfig) { s.QKVBias = true }
	qwen3 := func(_ *Config, s *StackConfig) { s.QKNorm, s.HeadDim = true, 16 }
	smollm3 := func(noRope, windows []int) func(*Config, *StackConfig) {
		return func(c *Config, s *StackConfig) {
			c.TieWordEmbeddings, s.RopeTheta, s.NoRope, s.Windows = true, 2e6, noRope, windows
		}
	}
	scaled := func(p RopeScaling) func(*Config, *StackConfig) {
		return func(_ *Config, s *StackConfig) { s.RopeScaling = p }
	}
	llama3 := RopeScaling{Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 8192}
	for _, test := range []struct {
		kind, more string
		change     func(*Config, *StackConfig)
	}{
		{"llama", `"hidden_act": "swish", "tie_word_embeddings": null, "partial_rotary_factor": 1.0,`, plain},
		{"llama", `"attention_bias": true,`, func(_ *Config, s *StackConfig) { s.QKVBias, s.OutBias = true, true }},
		{"llama", `"mlp_bias": true,`, func(_ *Config, s *StackConfig) { s.MLPBias = true }},
		{"llama", `"rope_scaling": {"type": "linear", "factor": 4.0},`, scaled(RopeScaling{Type: "linear", Factor: 4})},
		{"llama", `"rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
			"original_max_position_embeddings": 8192, "rope_type": "llama3"},`, scaled(llama3)},
		{"llama", `"rope_parameters": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5,
			"original_max_position_embeddings": 8192, "rope_type": "llama3"},`,
			func(_ *Config, s *StackConfig) { s.RopeScaling, s.RopeTheta = llama3, 5e5 }},
		{"llama", `"rope_scaling": {"rope_type": "factors", "factors": [1, 1, 1.5, 8]},`,
			scaled(RopeScaling{Type: "factors", Factors: []float64{1, 1, 1.5, 8}})},
		{"qwen2", `"sliding_window": 4096, "use_sliding_window": false, "max_window_layers": 28, "use_mrope": false,`, qwen2},
		{"qwen2", `"attention_bias": true,`, qwen2},
		{"qwen2", `"sliding_window": 9, "use_sliding_window": true, "max_window_layers": 2,`,
			func(_ *Config, s *StackConfig) { s.QKVBias, s.Windows = true, []int{0, 0, 9} }},
		{"qwen2", `"sliding_window": 9, "use_sliding_window": true, "max_window_layers": 3,`, qwen2},
		{"qwen3", `"head_dim": 16, "sliding_window": null,
			"layer_types": ["full_attention", "full_attention", "full_attention"],`, qwen3},
		{"qwen3", `"head_dim": 16, "sliding_window": 9, "use_sliding_window": true, "attention_bias": true,
			"layer_types": ["sliding_attention", "full_attention", "full_attention"],`,
			func(_ *Config, s *StackConfig) {
				s.QKNorm, s.HeadDim, s.QKVBias, s.OutBias, s.Windows = true, 16, true, true, []int{9, 0, 0}
			}},
		{"smollm3", `"no_rope_layer_interval": 2,`, smollm3([]int{1}, nil)},
		{"smollm3", `"no_rope_layers": [0, 1, 0, 0],`, smollm3([]int{0, 2}, nil)},
		{"smollm3", `"no_rope_layer_interval": 2, "sliding_window": 5, "use_sliding_window": true,`,
			smollm3([]int{1}, []int{0, 5, 0})},
	} {
		got, err := parseConfig([]byte(text(test.kind, test.more)))
		if err != nil {
			t.Errorf("%s: %v\n%s", test.kind, err, test.more)
			continue
		}
		want := config(test.kind, test.change)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s: %s", test.kind, test.more, diff)
		}
		written, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var again Config
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("%s, written and read: %s", test.kind, diff)
		}
	}
	for _, test := range []struct {
		kind, more string
		want       error
		says       string
	}{
		{"qwen2", `"use_sliding_window": true, "sliding_window": 9,`, ErrCorrupt, "max_window_layers"},
		{"qwen2", `"layer_types": ["full_attention", "sliding_attention", "full_attention"], "sliding_window": 9,`,
			ErrCorrupt, "use_sliding_window"},
		{"qwen3", `"num_experts": 8,`, ErrCorrupt, "head_dim"},
		{"qwen3", `"head_dim": 15,`, ErrCorrupt, "head_dim is 15"},
		{"smollm3", `"no_rope_layers": [1, 0],`, ErrCorrupt, "no_rope_layers has 2"},
		{"smollm3", `"no_rope_layer_interval": 0,`, ErrCorrupt, "no_rope_layer_interval"},
		{"qwen2_moe", ``, ErrUnsupported, "qwen2_moe"},
	} {
		if _, err := parseConfig([]byte(text(test.kind, test.more))); !errors.Is(err, test.want) ||
			!strings.Contains(err.Error(), test.says) {
			t.Errorf("%s %s: %v, want %q", test.kind, test.more, err, test.says)
		}
	}
}

// TestLevelsHaveNoExtras: what only flat models have is refused in the stacks of a hierarchy.
func TestLevelsHaveNoExtras(t *testing.T) {
	for _, change := range []func(*StackConfig){
		func(s *StackConfig) { s.QKVBias = true }, func(s *StackConfig) { s.QKNorm = true },
		func(s *StackConfig) { s.NoRope = []int{0} }, func(s *StackConfig) {
			s.RopeScaling = RopeScaling{Type: "linear",
				Factor: 2}
		},
	} {
		c := photonConfig()
		change(&c.Levels[0].Encoder)
		_, err := json.Marshal(c)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "only flat models") {
			t.Errorf("%v", err)
		}
	}
}

// TestFlatShapes: a configuration that was made by hand has what its kind has.
func TestFlatShapes(t *testing.T) {
	for kind, change := range map[string]func(*StackConfig){
		"llama":    func(s *StackConfig) { s.QKVBias = true },
		"mistral":  func(s *StackConfig) { s.QKVBias, s.OutBias = true, true },
		"qwen2":    func(s *StackConfig) {},
		"qwen3":    func(s *StackConfig) {},
		"smollm3":  func(s *StackConfig) { s.NoRope = []int{2, 1} },
		"llama ":   func(s *StackConfig) { s.NoRope = []int{1} },
		"llama  ":  func(s *StackConfig) { s.QKNorm = true },
		"qwen2 ":   func(s *StackConfig) { s.QKVBias, s.MLPBias = true, true },
		"qwen2  ":  func(s *StackConfig) { s.QKVBias, s.SlidingWindow = true, 9 },
		"qwen2   ": func(s *StackConfig) { s.QKVBias, s.Windows = true, []int{9, 8, 0} },
		"llama   ": func(s *StackConfig) { s.RopeScaling.Factor = 2 },
	} {
		c := Config{ModelType: strings.TrimSpace(kind), VocabSize: 300, EmbeddingSize: 48, RMSNormEps: 1e-6, BOSTokenID: -1,
			Transformer: testStack(48, 3, 6, 2, 8, 64, 0, 10000)}
		change(&c.Transformer)
		if _, err := json.Marshal(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestStoredHead: a head that is stored beside the table that it is tied to must be the same.
func TestStoredHead(t *testing.T) {
	const dir = "testdata/flats/llama3-stored-head-bf16"
	files := fstest.MapFS{}
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	load := func(edit func(fstest.MapFS)) error {
		copied := maps.Clone(files)
		edit(copied)
		m, err := LoadFS(copied)
		if err == nil {
			err = m.Close()
		}
		return err
	}
	if err := load(func(fstest.MapFS) {}); err != nil {
		t.Fatal(err)
	}
	err := load(func(f fstest.MapFS) {
		data := string(f["model.safetensors"].Data)
		at := strings.Index(data, `"lm_head.weight"`)
		if at < 0 {
			t.Fatal("no lm_head.weight")
		}
		c, err := openCheckpoint(f, maxTensors)
		if err != nil {
			t.Fatal(err)
		}
		changed := []byte(data)
		changed[c.tensors[c.byName["lm_head.weight"]].begin] ^= 1
		f["model.safetensors"] = &fstest.MapFile{Data: changed}
	})
	if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "tie_word_embeddings") {
		t.Errorf("another head: %v", err)
	}
	err = load(func(f fstest.MapFS) {
		text := strings.Replace(string(f["config.json"].Data), `"tie_word_embeddings": true`,
			`"tie_word_embeddings": false`, 1)
		f["config.json"] = &fstest.MapFile{Data: []byte(text)}
	})
	if err != nil {
		t.Errorf("the same head, untied: %v", err)
	}
}

// TestPublishedConfigs: the configurations of published models, in their own words, have the numbers of parameters that
// their publishers count.
func TestPublishedConfigs(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       int64
	}{
		{"Llama 3.2 1B", `{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
			"bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
			"initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
			"model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
			"pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0,
			"low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
			"tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "use_cache": true,
			"vocab_size": 128256}`, 1_235_814_400},
		{"Mistral 7B v0.1", `{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
			"hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
			"model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
			"rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false,
			"torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000}`, 7_241_732_096},
		{"Qwen2.5 0.5B", `{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
			"eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
			"max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
			"num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
			"sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.40.1",
			"use_cache": true, "use_mrope": false, "use_sliding_window": false, "vocab_size": 151936}`, 494_032_768},
		{"Qwen3 0.6B", `{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
			"bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
			"initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
			"model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
			"rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
			"tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
			"use_sliding_window": false, "vocab_size": 151936}`, 596_049_920},
		{"SmolLM2 135M", `{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
			"bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
			"intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "model_type": "llama",
			"num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1,
			"rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
			"tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 49152}`, 134_515_008},
		{"SmolLM3 3B", `{"architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
			"bos_token_id": null, "eos_token_id": 128012, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
			"intermediate_size": 11008, "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false,
			"model_type": "smollm3", "no_rope_layer_interval": 4, "num_attention_heads": 16, "num_hidden_layers": 36,
			"num_key_value_heads": 4, "pad_token_id": 128004, "pretraining_tp": 2, "rms_norm_eps": 1e-06, "rope_scaling": null,
			"rope_theta": 5000000.0, "sliding_window": null, "torch_dtype": "bfloat16", "transformers_version": "4.54.0.dev0",
			"use_cache": false, "use_sliding_window": false, "vocab_size": 128256}`, 3_075_098_624},
	} {
		c, err := parseConfig([]byte(test.text))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if n := c.Parameters(); n != test.want {
			t.Errorf("%s has %d parameters, want %d", test.name, n, test.want)
		}
	}
}
