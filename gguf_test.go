package photon

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"github.com/photon-lm/photon/internal/bounded"
	"github.com/photon-lm/photon/internal/regular"
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
			for path, to := range map[string]any{"tokenizer/" + family + ".cases.json": &cases, "gguf/" + name +
				".ids.json": &theirs} {
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
	if _, err := LoadFS(regular.Dir("testdata/gguf")); !errors.Is(err, ErrInvalid) ||
		!strings.Contains(err.Error(), "say which") {
		t.Errorf("several files: %v", err)
	}
}

// ggufMaker writes GGUF files of any sense.
type ggufMaker struct{ bytes.Buffer }

func (m *ggufMaker) put(values ...any) *ggufMaker {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			m.put(uint64(len(v)))
			m.WriteString(v)
		default:
			if err := binary.Write(m, binary.LittleEndian, v); err != nil {
				panic(err)
			}
		}
	}
	return m
}

func ggufHead(tensors, keys uint64) *ggufMaker {
	m := &ggufMaker{}
	m.WriteString("GGUF")
	return m.put(uint32(3), tensors, keys)
}

func loadGGUFBytes(data []byte) error {
	m, err := LoadFS(fstest.MapFS{"model.gguf": {Data: data}})
	if err == nil {
		err = m.Close()
	}
	return err
}

func TestGGUFRefuses(t *testing.T) {
	tensor := func(values ...any) []byte { return ggufHead(1, 0).put(values...).Bytes() }
	key := func(values ...any) []byte { return ggufHead(0, 1).put(values...).Bytes() }
	for _, test := range []struct {
		name string
		data []byte
		want error
		says string
	}{
		{"nothing", nil, ErrCorrupt, "truncated"},
		{"another file", []byte("PK\x03\x04 and so on"), ErrCorrupt, "no GGUF file"},
		{"LFS pointer", []byte(lfsMagic + ".github.com/spec/v1\n"), ErrCorrupt, "LFS"},
		{"version 1", (&ggufMaker{*bytes.NewBufferString("GGUF")}).put(uint32(1), uint64(0), uint64(0)).Bytes(),
			ErrUnsupported, "version 1"},
		{"big-endian", (&ggufMaker{*bytes.NewBufferString("GGUF")}).put(uint32(3<<24), uint64(0), uint64(0)).Bytes(),
			ErrUnsupported, "version"},
		{"many tensors", ggufHead(1<<40, 0).Bytes(), ErrUnsupported, "tensors"},
		{"many keys", ggufHead(0, 1<<63).Bytes(), ErrUnsupported, "keys"},
		{"a long key", key(uint64(1 << 62)), ErrCorrupt, "bytes"},
		{"no key", key("", uint32(4), uint32(1)), ErrCorrupt, "no name"},
		{"a key twice", ggufHead(0, 2).put("a", uint32(4), uint32(1), "a", uint32(4), uint32(1)).Bytes(), ErrCorrupt,
			"twice"},
		{"a key that is not UTF-8", key("a\xff", uint32(4), uint32(1)), ErrCorrupt, "UTF-8"},
		{"an unknown kind", key("a", uint32(13), uint32(1)), ErrUnsupported, "kind 13"},
		{"a list of lists", key("a", uint32(9), uint32(9), uint64(1)), ErrUnsupported, "kind 9"},
		{"a list of very many", key("a", uint32(9), uint32(10), uint64(1<<60)), ErrUnsupported, "values"},
		{"a list of more than there are", key("a", uint32(9), uint32(10), uint64(1<<20), uint64(1)), ErrCorrupt, "truncated"},
		{"a string of more than there is", key("a", uint32(8), uint64(1<<20)), ErrCorrupt, "truncated"},
		{"no dimensions", tensor("t", uint32(0), uint32(0), uint64(0)), ErrCorrupt, "0 dimensions"},
		{"five dimensions", tensor("t", uint32(5)), ErrCorrupt, "5 dimensions"},
		{"an empty dimension", tensor("t", uint32(1), uint64(0)), ErrUnsupported, "dimension of 0"},
		{"an overflow", tensor("t", uint32(2), uint64(1<<31), uint64(1<<33)), ErrUnsupported, "dimension"},
		{"Q4_K", tensor("t", uint32(1), uint64(256), uint32(12), uint64(0)), ErrUnsupported, "Q4_K"},
		{"a type of the future", tensor("t", uint32(1), uint64(256), uint32(999), uint64(0)), ErrUnsupported, "999"},
		{"half a block", tensor("t", uint32(1), uint64(16), uint32(8), uint64(0)), ErrCorrupt, "blocks of 32"},
		{"a tensor beyond the end", tensor("t", uint32(1), uint64(16), uint32(0), uint64(0)), ErrCorrupt, "truncated"},
		{"a tensor elsewhere", tensor("t", uint32(1), uint64(16), uint32(0), uint64(32), [128]byte{}), ErrCorrupt,
			"begins at byte 32"},
		{"a tensor far away", tensor("t", uint32(1), uint64(16), uint32(0), uint64(math.MaxUint64)), ErrCorrupt, "begins"},
		{"bytes behind", ggufHead(0, 0).put([100]byte{}).Bytes(), ErrCorrupt, "behind"},
		{"a strange alignment", key("general.alignment", uint32(4), uint32(24)), ErrCorrupt, "alignment"},
		{"no architecture", ggufHead(0, 0).put([8]byte{}).Bytes(), ErrUnsupported, "general.architecture"},
		{"another architecture", key("general.architecture", uint32(8), "gemma3"), ErrUnsupported, "gemma3"},
		{"an architecture that is a number", key("general.architecture", uint32(4), uint32(1)), ErrUnsupported,
			"architecture"},
	} {
		if err := loadGGUFBytes(test.data); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		}
	}
}

// editGGUF replaces a key's value, or adds the key; nil takes it away. It knows the files of testdata.
func editGGUF(t testing.TB, name, key string, kind uint32, value any) []byte {
	t.Helper()
	data, err := os.ReadFile(ggufPath(name))
	if err != nil {
		t.Fatal(err)
	}
	g, err := readGGUF(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	m := &ggufMaker{}
	count := uint64(0)
	for k, v := range g.values {
		if k == key {
			continue
		}
		count++
		m.put(k)
		if v.list {
			m.put(uint32(9), uint32(v.kind), uint64(v.n))
		} else {
			m.put(uint32(v.kind))
		}
		m.Write(v.raw)
		for _, text := range v.text {
			m.put(text)
		}
	}
	if value != nil {
		count++
		m.put(key, kind, value)
	}
	first := g.tensors[0].begin
	for _, tensor := range g.tensors {
		kinds := map[dtype]uint32{}
		for n, d := range ggufTypes {
			kinds[d] = n
		}
		m.put(tensor.name, uint32(len(tensor.shape)))
		for _, n := range slices.Backward(tensor.shape) {
			m.put(uint64(n))
		}
		m.put(kinds[tensor.dtype], uint64(tensor.begin-first))
	}
	head := ggufHead(uint64(len(g.tensors)), count)
	head.Write(m.Bytes())
	head.Write(make([]byte, -head.Len()&31))
	head.Write(data[first:])
	return head.Bytes()
}

// TestGGUFKeys: keys that change the arithmetic and are not run are refused by name, and those that do not fit.
func TestGGUFKeys(t *testing.T) {
	if err := loadGGUFBytes(editGGUF(t, "smollm2-q8_0", "general.name", 8, "another")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		key   string
		kind  uint32
		value any
		want  error
		says  string
	}{
		{"llama.expert_count", 4, uint32(8), ErrUnsupported, "llama.expert_count"},
		{"llama.attention.sliding_window", 4, uint32(8), ErrUnsupported, "sliding_window"},
		{"llama.attention.scale", 6, float32(1), ErrUnsupported, "attention.scale"},
		{"llama.logit_scale", 6, float32(1), ErrUnsupported, "logit_scale"},
		{"llama.attention.causal", 7, false, ErrUnsupported, "causal"},
		{"split.count", 2, uint16(3), ErrUnsupported, "parts"},
		{"llama.rope.dimension_count", 4, uint32(8), ErrUnsupported, "dimension_count"},
		{"llama.attention.value_length", 4, uint32(8), ErrUnsupported, "value_length"},
		{"llama.rope.scaling.type", 8, "yarn", ErrUnsupported, "yarn"},
		{"llama.rope.scaling.factor", 6, float32(0), ErrCorrupt, "factor is 0"},
		{"llama.block_count", 8, nil, ErrCorrupt, "block_count"},
		{"llama.block_count", 8, "two", ErrCorrupt, "block_count"},
		{"llama.block_count", 4, uint32(3), ErrMismatch, "layers.2"},
		{"llama.block_count", 4, uint32(math.MaxUint32), ErrCorrupt, "block_count"},
		{"llama.attention.head_count", 4, uint32(0), ErrCorrupt, "num_attention_heads"},
		{"llama.attention.head_count_kv", 5, int32(-1), ErrCorrupt, "head_count_kv"},
		{"llama.attention.layer_norm_rms_epsilon", 6, nil, ErrCorrupt, "rms_norm_eps"},
		{"llama.vocab_size", 4, uint32(9), ErrMismatch, "vocab_size"},
		{"tokenizer.ggml.eos_token_id", 4, uint32(1 << 20), ErrCorrupt, "eos_token_id"},
		{"tokenizer.ggml.model", 8, "t5", ErrUnsupported, "t5"},
		{"tokenizer.ggml.pre", 8, "default", ErrUnsupported, "default"},
		{"tokenizer.ggml.pre", 8, nil, ErrUnsupported, "tokenizer.ggml.pre"},
		{"tokenizer.ggml.tokens", 8, "a", ErrCorrupt, "tokens"},
	} {
		if err := loadGGUFBytes(editGGUF(t, "smollm2-q8_0", test.key, test.kind, test.value)); !errors.Is(err, test.want) ||
			!strings.Contains(err.Error(), test.says) {
			t.Errorf("%s %v: %v, want %q", test.key, test.value, err, test.says)
		}
	}
}

// TestGGUFDamage: a file cut anywhere is refused, one with a bit turned is loaded or refused, and neither takes memory
// that the file does not have.
func TestGGUFDamage(t *testing.T) {
	data, err := os.ReadFile(ggufPath("smollm2-q8_0"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := readGGUF(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	step := 97
	if testing.Short() {
		step = 997
	}
	for n := 0; n < len(data); n += step {
		if err := loadGGUFBytes(data[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	for at := 0; at < int(g.data); at += step {
		damaged := slices.Clone(data)
		damaged[at] ^= 1 << (at % 8)
		err := loadGGUFBytes(damaged)
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrMismatch) {
			t.Fatalf("a bit of byte %d: %v", at, err)
		}
	}
	tokens := ggufHead(0, 1).put("tokenizer.ggml.tokens", uint32(9), uint32(8), uint64(maxGGUFHeader)).Bytes()
	if n := allocated(func() { _ = loadGGUFBytes(tokens) }); n > 1<<20 {
		t.Errorf("%d bytes for a file of %d", n, len(tokens))
	}
}

// TestGGUFMerges: a vocabulary whose tokens merge in very many ways is refused before it takes the memory.
func TestGGUFMerges(t *testing.T) {
	const n = 1200
	m := ggufHead(0, 3).put("tokenizer.ggml.model", uint32(8), "llama")
	m.put("tokenizer.ggml.tokens", uint32(9), uint32(8), uint64(n))
	for i := range n {
		m.put(strings.Repeat("a", i+1))
	}
	m.put("tokenizer.ggml.scores", uint32(9), uint32(6), uint64(n), make([]float32, n))
	data := append(m.Bytes(), make([]byte, -m.Len()&31)...)
	g, err := readGGUF(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.tokenizer(nil); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "ways") {
		t.Error(err)
	}
}

// tinyGGUF is a model of one layer and ten tokens, with a tokenizer of either kind.
func tinyGGUF(tokenizer string) []byte {
	tokens := []string{"<s>", "a", "b", "c", "ab", "abc", "\u0120", "<|im_end|>", "\u2581", "bc"}
	type entry struct {
		key    string
		values []any
	}
	number := func(key string, n uint32) entry { return entry{key, []any{uint32(4), n}} }
	keys := []entry{
		{"general.architecture", []any{uint32(8), "llama"}},
		number("llama.block_count", 1), number("llama.embedding_length", 32), number("llama.feed_forward_length", 32),
		number("llama.attention.head_count", 2), number("llama.attention.head_count_kv",
			1), number("llama.attention.key_length", 2),
		number("llama.attention.value_length", 2), number("llama.rope.dimension_count", 2),
		{"llama.attention.layer_norm_rms_epsilon", []any{uint32(6), float32(1e-5)}},
		number("tokenizer.ggml.eos_token_id", 7), number("tokenizer.ggml.bos_token_id", 0),
		{"tokenizer.ggml.model", []any{uint32(8), tokenizer}},
		{"tokenizer.ggml.pre", []any{uint32(8), "gpt-2"}},
		{"tokenizer.ggml.merges", []any{uint32(9), uint32(8), uint64(2), "a b", "ab c"}},
		{"tokenizer.ggml.scores", []any{uint32(9), uint32(6), uint64(10), [10]float32{4: -2, 5: -1, 9: -3}}},
		{"tokenizer.ggml.token_type", []any{uint32(9), uint32(5), uint64(10), [10]int32{3, 1, 1, 1, 1, 1, 1, 3, 1, 1}}},
		{"tokenizer.ggml.tokens", []any{uint32(9), uint32(8), uint64(10)}},
	}
	for _, token := range tokens {
		keys[len(keys)-1].values = append(keys[len(keys)-1].values, token)
	}
	tensors := []struct {
		name  string
		kind  uint32
		shape []uint64
		bytes int
	}{
		{"token_embd.weight", 2, []uint64{32, 10}, 180}, {"output_norm.weight", 0, []uint64{32}, 128},
		{"blk.0.attn_norm.weight", 0, []uint64{32}, 128}, {"blk.0.ffn_norm.weight", 0, []uint64{32}, 128},
		{"blk.0.attn_q.weight", 8, []uint64{32, 4}, 136}, {"blk.0.attn_k.weight", 8, []uint64{32, 2}, 68},
		{"blk.0.attn_v.weight", 8, []uint64{32, 2}, 68}, {"blk.0.attn_output.weight", 1, []uint64{4, 32}, 256},
		{"blk.0.ffn_gate.weight", 2, []uint64{32, 32}, 576}, {"blk.0.ffn_up.weight", 2, []uint64{32, 32}, 576},
		{"blk.0.ffn_down.weight", 30, []uint64{32, 32}, 2048},
	}
	m := ggufHead(uint64(len(tensors)), uint64(len(keys)))
	for _, e := range keys {
		m.put(e.key).put(e.values...)
	}
	at := 0
	for _, t := range tensors {
		m.put(t.name, uint32(len(t.shape)), t.shape, t.kind, uint64(at))
		at += t.bytes + -t.bytes&31
	}
	m.Write(make([]byte, -m.Len()&31))
	for _, t := range tensors {
		m.Write(bytes.Repeat([]byte{0x31}, t.bytes))
		m.Write(make([]byte, -t.bytes&31))
	}
	return m.Bytes()
}

func FuzzGGUF(f *testing.F) {
	for _, tokenizer := range []string{"gpt2", "llama"} {
		data := tinyGGUF(tokenizer)
		if err := loadGGUFBytes(data); err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var err error
		bounded.Run(t, 8*len(data)+1<<20, func() { err = loadGGUFBytes(data) })
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrMismatch) {
			t.Errorf("%v", err)
		}
	})
}

// TestGGUFBlocks: blocks are packed as the values that they stand for are, where the scale is a bfloat16 too.
func TestGGUFBlocks(t *testing.T) {
	for _, test := range []struct {
		form  WeightType
		dtype dtype
	}{{Int8, dtypeQ8x0}, {Int4, dtypeQ4x0}} {
		const out, groups = 40, 3
		direct, packed := newMatrix(out, 32*groups, test.form), newMatrix(out, 32*groups, test.form)
		r := rand.New(rand.NewPCG(1, 2))
		for row := range out {
			var blocks []byte
			for range groups {
				block := make([]byte, test.dtype.size())
				binary.LittleEndian.PutUint16(block, f32ToF16(float32(1+r.IntN(127))/512))
				for i := range block[2:] {
					block[2+i] = byte(r.IntN(255) + 129)
				}
				block[2] = 127 // the largest, of either form
				if test.form == Int4 {
					block[2] = 0x80
				}
				blocks = append(blocks, block...)
			}
			values := make([]float32, 32*groups)
			tensorData{dtype: test.dtype, shape: []int{1, 32 * groups}, data: blocks}.float32s(values, 0, len(values))
			direct.setRow(row, &tensorData{dtype: test.dtype, data: blocks}, 0)
			packed.setRows(row, values)
		}
		if !bytes.Equal(direct.quant, packed.quant) {
			t.Errorf("%v: other bytes", test.form)
		}
	}
}

// The tokens that end a text are what the key names, also id 0, and control tokens of well-known spellings.
func TestGGUFEnds(t *testing.T) {
	for _, c := range []struct {
		eos  uint32
		kind byte // of <|im_end|>
		want []int
	}{{7, 3, []int{7}}, {0, 3, []int{0, 7}}, {3, 1, []int{3}}, {3, 3, []int{3, 7}}} {
		data := tinyGGUF("llama")
		behind := func(key string) []byte { return data[bytes.Index(data, []byte(key))+len(key)+4:] } // its kind
		binary.LittleEndian.PutUint32(behind("tokenizer.ggml.eos_token_id"), c.eos)
		behind("tokenizer.ggml.token_type")[12+4*7] = c.kind
		m, err := LoadFS(fstest.MapFS{"model.gguf": {Data: data}})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Config().EOSTokenIDs; !slices.Equal(got, c.want) {
			t.Errorf("eos %d, <|im_end|> of kind %d: %v, want %v", c.eos, c.kind, got, c.want)
		}
		if got := m.Tokenizer().Encode("a"); len(got) == 0 || got[0] != 0 {
			t.Errorf("ids %v do not begin with <s>", got)
		}
		m.Close()
	}
}

func TestGGUFAlignment(t *testing.T) {
	const name = "llama3-f32"
	if err := loadGGUFBytes(editGGUF(t, name, "general.alignment", 4, uint32(32))); err != nil {
		t.Error(err)
	}
	err := loadGGUFBytes(editGGUF(t, name, "general.alignment", 8, "32"))
	checkRefused(t, err, ErrCorrupt, "alignment")
}

// TestGGUFMergeWork: tokens of which to find the merges would take minutes are refused.
func TestGGUFMergeWork(t *testing.T) {
	long := strings.Repeat("a", 1<<14)
	for n, want := range map[int]error{4: nil, 5: ErrUnsupported} {
		tokens := []string{"a", "b"}
		for i := range n {
			tokens = append(tokens, long[i:])
		}
		var f tokenizerFile
		if err := f.sentencePiece(tokens, nil, make([]float64, len(tokens)), true); !errors.Is(err, want) {
			t.Errorf("%d tokens of 16 KiB: %v, want %v", n, err, want)
		}
	}
}

// TestGGUFMergeWays: nor are ones that merge in too many ways, 4 of each token and 2¹⁶.
func TestGGUFMergeWays(t *testing.T) {
	for n, says := range map[int]string{360: "", 400: "more than 67136 ways"} {
		var f tokenizerFile
		f.model.vocab = map[string]int32{}
		tokens := make([]string, n) // of which each longer one merges in as many ways as it has letters
		for i := range tokens {
			tokens[i] = strings.Repeat("a", i+1)
			f.model.vocab[tokens[i]] = int32(i)
		}
		err := f.sentencePiece(tokens, nil, make([]float64, n), true)
		if err == nil {
			err = f.model.merges(func(int, string, string) error { return nil })
		}
		if (err != nil) != (says != "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%d tokens: %v, want %q", n, err, says)
		}
	}
}

// The id of unknown characters may be 0.
func TestGGUFUnknown(t *testing.T) {
	data := editGGUF(t, "llama2-q4_0", "tokenizer.ggml.unknown_token_id", 4, uint32(0))
	g, err := readGGUF(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := g.tokenizer(nil)
	if err != nil || tokenizer.bpe.unknown != 0 {
		t.Errorf("%v, unknown %d", err, tokenizer.bpe.unknown)
	}
}
