package photon

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// ggufKinds are the models of testdata/gguf, with the tokenizers that they were given.
var ggufKinds = map[string]string{"llama3-f32": "llama3", "llama2-q4_0": "llama2", "smollm2-q8_0": "smollm2",
	"mistral-nemo-f16": "tekken", "qwen2-q8_0": "qwen2", "qwen3-bf16": "qwen3", "smollm3-q8_0": "gpt2"}

func ggufPath(name string) string { return filepath.Join("testdata/gguf", name+".gguf") }

// TestGGUFLogits: with weights held exactly the logits are those of the definition. Held as they are stored, where
// activations are rounded too, they are no further from it than llama.cpp's are.
func TestGGUFLogits(t *testing.T) {
	for name := range ggufKinds {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, filepath.Join("testdata/gguf", name+".safetensors"))
			logits := func(form WeightType) []float32 {
				m, err := Load(ggufPath(name), WithWeights(form))
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				rows, err := m.Logits(background, g.ints["ids"])
				if err != nil {
					t.Fatal(err)
				}
				return rows[m.Config().VocabSize:]
			}
			largest := 0.0
			for _, v := range g.floats["exact"] {
				largest = max(largest, math.Abs(float64(v)))
			}
			near(t, "held exactly", logits(F32), g.floats["exact"], agreement*largest)
			// Errors of rounding, root mean squares.
			exact, theirs := g.floats["exact"], g.floats["llamacpp"]
			ours := distance(logits(AsStored), exact)
			t.Logf("error %.2g of the largest logit, llama.cpp's %.2g", ours/largest, distance(theirs, exact)/largest)
			if limit := 1.25*distance(theirs, exact) + agreement*largest; ours > limit {
				t.Errorf("error %.3g, want at most %.3g", ours, limit)
			}
		})
	}
}

// distance is the root of the mean square of the differences.
func distance(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return math.Sqrt(sum / float64(len(a)))
}

// TestGGUFTokenizers: the ids are those of llama.cpp, and of the tokenizer.json that the file's tokenizer was made of.
func TestGGUFTokenizers(t *testing.T) {
	for name, family := range ggufKinds {
		t.Run(name, func(t *testing.T) {
			m, err := Load(ggufPath(name))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			own := m.Tokenizer()
			// Without what a GGUF file cannot say of added tokens.
			original := mustParseTokenizer(t, editTokenizer(t, family, func(file object) {
				for _, token := range file["added_tokens"].([]any) {
					for _, flag := range []string{"lstrip", "rstrip", "normalized"} {
						token.(object)[flag] = false
					}
				}
			}))
			var cases struct{ Encoded []struct{ Text string } }
			var theirs [][]int
			for path, to := range map[string]any{"tokenizer/" + family + ".cases.json": &cases, "gguf/" + name + ".ids.json": &theirs} {
				data, err := os.ReadFile("testdata/" + path)
				if err == nil {
					err = json.Unmarshal(data, to)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if len(theirs) != len(cases.Encoded) || len(theirs) < 100 {
				t.Fatalf("%d and %d cases", len(theirs), len(cases.Encoded))
			}
			// llama.cpp does not compose, and its pattern of Mistral Nemo knows no marks.
			other := func(text string) bool {
				return len(own.normalizer) > 0 && family != "llama2" && nfc(text) != text ||
					family == "tekken" && strings.ContainsFunc(text, unicode.IsMark)
			}
			for i, c := range cases.Encoded {
				got := own.Encode(c.Text)
				if !other(c.Text) && !slices.Equal(got, theirs[i]) {
					t.Errorf("%q: %v, llama.cpp gives %v", c.Text, got, theirs[i])
				}
				want := original.Encode(c.Text)
				want = slices.Concat(own.prefix, want[len(original.prefix):])
				// The merges of that file's vocabulary are not in the order of any scores.
				if family != "llama2" && !slices.Equal(got, want) {
					t.Errorf("%q: %v, the tokenizer.json gives %v", c.Text, got, want)
				}
				if text, want := own.Decode(got), original.Decode(got); text != want {
					t.Errorf("%v: %q, the tokenizer.json gives %q", got, text, want)
				}
			}
		})
	}
}

func TestGGUFFiles(t *testing.T) {
	files, err := Files(ggufPath("qwen3-bf16"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := Inspect(files)
	if err != nil || info.Config.ModelType != "qwen3" || info.DTypes["BF16"] == 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if _, err := CheckWeights(files, nil); err != nil {
		t.Error(err)
	}
	if _, err := Files("testdata/gguf/make.py"); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	if _, err := LoadFS(directory("testdata/gguf")); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "say which") {
		t.Errorf("several files: %v", err)
	}
}
