package photon

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/photon-lm/photon/internal/regular"
)

// openGGUF reads a model that is one GGUF file: its configuration, its tokenizer, and where its tensors stand.
func openGGUF(fsys fs.FS, name string) (contents, error) {
	fail := func(err error) (contents, error) { return contents{}, fmt.Errorf("photon: %s: %w", name, err) }
	f, size, err := regular.Open(fsys, name, ErrCorrupt)
	if err != nil {
		return fail(err)
	}
	g, err := readGGUF(f, size)
	f.Close()
	if err != nil {
		return fail(err)
	}
	weights := g.checkpoint(fsys, name)
	cfg, err := g.config(weights)
	if err != nil {
		return fail(err)
	}
	if err := weights.match(cfg.tensors(), cfg.copies()); err != nil {
		return contents{}, err
	}
	return contents{weights.info(cfg), weights, defaultOptions(), func(ctx context.Context) (*Tokenizer, error) {
		t, err := g.tokenizer(&deadline{ctx: ctx})
		if err != nil {
			return nil, fmt.Errorf("photon: %s: tokenizer: %w", name, err)
		}
		return t, nil
	}}, nil
}

// The names of tensors, in Hugging Face's layout and in GGUF's.
var (
	ggufTop = map[string]string{
		"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
	}
	ggufLayer = map[string]string{
		"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
		"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
		"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
		"ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
		"ffn_down": "mlp.down_proj",
	}
)

const ggufFactors = "rope_freqs.weight"

// huggingFaceName is a tensor's name in Hugging Face's layout, or the name that it has if there it is unknown.
func huggingFaceName(name string) string {
	parts := strings.Split(name, ".")
	end := parts[len(parts)-1]
	if end != "weight" && end != "bias" {
		return name
	}
	if to := ggufTop[parts[0]]; len(parts) == 2 && to != "" {
		return to + "." + end
	}
	if len(parts) == 4 && parts[0] == "blk" && ggufLayer[parts[2]] != "" {
		if n, err := strconv.Atoi(parts[1]); err == nil && strconv.Itoa(n) == parts[1] {
			return fmt.Sprintf("model.layers.%d.%s.%s", n, ggufLayer[parts[2]], end)
		}
	}
	return name
}

// checkpoint lists the tensors under the names of Hugging Face's layout.
func (g *ggufFile) checkpoint(fsys fs.FS, name string) *checkpoint {
	c := &checkpoint{fsys: fsys, tensors: g.tensors, byName: map[string]int{}}
	c.files = []weightFile{{name: name, size: g.size, data: g.data, count: len(g.tensors)}}
	for i := range c.tensors {
		t := &c.tensors[i]
		t.name = huggingFaceName(t.name)
		c.byName[t.name] = i
	}
	return c
}

// config makes a configuration of the keys and of which tensors there are.
func (g *ggufFile) config(weights *checkpoint) (Config, error) {
	k := &ggufKeys{g: g}
	arch := k.string("general.architecture")
	kind, known := flatKinds[arch]
	if !known || kind.windows == oneWindow || kind.windows == typedWindows {
		return Config{}, fmt.Errorf("general.architecture is %.80q, want %q, %q, %q or %q: %w",
			arch, modelTypeLlama, modelTypeQwen2, modelTypeQwen3, modelTypeSmolLM3, ErrUnsupported)
	}
	if err := g.refuse(arch); err != nil {
		return Config{}, err
	}
	at := arch + "."
	c := Config{ModelType: arch, BOSTokenID: k.id("tokenizer.ggml.bos_token_id"),
		EmbeddingSize: k.int(at+"embedding_length", -1),
		RMSNormEps:    k.float(at+"attention.layer_norm_rms_epsilon", 0)}
	s := &c.Transformer
	s.HiddenSize, s.Layers = c.EmbeddingSize, k.int(at+"block_count", -1)
	s.Heads, s.IntermediateSize = k.int(at+"attention.head_count", -1), k.int(at+"feed_forward_length", -1)
	s.KVHeads = k.int(at+"attention.head_count_kv", s.Heads)
	s.HeadDim = s.HiddenSize / max(s.Heads, 1)
	s.HeadDim = k.int(at+"attention.key_length", s.HeadDim)
	for _, key := range []string{"attention.value_length", "rope.dimension_count"} {
		if n := k.int(at+key, s.HeadDim); n != s.HeadDim && k.err == nil {
			return Config{}, fmt.Errorf("key %q is %d, where a head has %d: %w", at+key, n, s.HeadDim, ErrUnsupported)
		}
	}
	s.RopeTheta = k.float(at+"rope.freq_base", 10000)
	switch scaling := k.string(at + "rope.scaling.type"); scaling {
	case "", "none":
	case ropeLinear:
		s.RopeScaling = RopeScaling{Type: ropeLinear, Factor: k.float(at+"rope.scaling.factor", 0)}
	default:
		return Config{}, fmt.Errorf("key %q is %.80q, want \"none\" or %q: %w", at+"rope.scaling.type", scaling, ropeLinear,
			ErrUnsupported)
	}
	if kind.ropes { // the architecture's, which no key says
		for n := 3; n < min(s.Layers, maxTensors); n += 4 {
			s.NoRope = append(s.NoRope, n)
		}
	}
	if k.err != nil {
		return Config{}, k.err
	}
	if err := g.factors(weights, s); err != nil {
		return Config{}, err
	}
	has := func(name string) bool { _, ok := weights.byName[name]; return ok }
	s.QKNorm = kind.qkNorm
	s.QKVBias = kind.qkvBias || has("model.layers.0.self_attn.q_proj.bias")
	s.OutBias = has("model.layers.0.self_attn.o_proj.bias")
	s.MLPBias = has("model.layers.0.mlp.gate_proj.bias")
	c.TieWordEmbeddings = !has("lm_head.weight")
	if i, ok := weights.byName["model.embed_tokens.weight"]; ok {
		c.VocabSize = weights.tensors[i].shape[0]
	}
	if n := k.int(at+"vocab_size", c.VocabSize); k.err == nil && n != c.VocabSize {
		return Config{}, fmt.Errorf("key %q is %d, the embedding table has %d rows: %w", at+"vocab_size", n, c.VocabSize,
			ErrMismatch)
	}
	c.EOSTokenIDs = g.ends(k)
	if k.err != nil {
		return Config{}, k.err
	}
	if err := c.validate(); err != nil {
		return Config{}, err
	}
	if arch == modelTypeLlama || arch == modelTypeSmolLM3 { // their rows are in the order of the original LLaMA
		for i := range weights.tensors {
			t := &weights.tensors[i]
			if strings.Contains(t.name, ".self_attn.q_proj.") || strings.Contains(t.name, ".self_attn.k_proj.") {
				t.interleaved = s.HeadDim
			}
		}
	}
	return c, nil
}

// refuse reports a key that changes the arithmetic and is not run.
func (g *ggufFile) refuse(arch string) error {
	k := &ggufKeys{g: g}
	for _, key := range []string{"expert_count", "attention.sliding_window"} {
		if n := k.int(arch+"."+key, 0); n > 0 {
			return fmt.Errorf("key %q is %d, which is not run: %w", arch+"."+key, n, ErrUnsupported)
		}
	}
	for _, key := range []string{"attention.scale", "logit_scale", "residual_scale", "embedding_scale",
		"attn_logit_softcapping",
		"final_logit_softcapping", "attention.max_alibi_bias", "attention.clamp_kqv", "attention.temperature_scale",
		"rope.scaling.attn_factor", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scale_linear"} {
		if k.has(arch + "." + key) {
			return fmt.Errorf("key %q is not run: %w", arch+"."+key, ErrUnsupported)
		}
	}
	if !k.bool(arch+".attention.causal", true) {
		return fmt.Errorf("key %q is false, which is not run: %w", arch+".attention.causal", ErrUnsupported)
	}
	if n := k.int("split.count", 0); n > 1 {
		return fmt.Errorf("this is one of %d parts: join them with llama-gguf-split --merge: %w", n, ErrUnsupported)
	}
	return k.err
}

// factors reads what each frequency of the rotation is divided by, where the file has it: Llama 3's scaling.
func (g *ggufFile) factors(weights *checkpoint, s *StackConfig) error {
	i, ok := weights.byName[ggufFactors]
	if !ok {
		return nil
	}
	t := &weights.tensors[i]
	if t.dtype != dtypeF32 || len(t.shape) != 1 || t.shape[0] != s.HeadDim/2 || s.RopeScaling.Type != "" {
		return fmt.Errorf("tensor %q is %v %v, want F32 [%d], and no other scaling: %w", ggufFactors, t.dtype, t.shape,
			s.HeadDim/2, ErrMismatch)
	}
	f, size, err := regular.Open(weights.fsys, weights.files[0].name, ErrCorrupt)
	if err != nil {
		return err
	}
	defer f.Close()
	if size != g.size {
		return fmt.Errorf("had %d bytes when it was opened, has %d now: load it again: %w", g.size, size, ErrCorrupt)
	}
	data, err := (&source{r: f}).read(nil, t)
	if err != nil {
		return err
	}
	t.ignored = true
	s.RopeScaling.Type = ropeFactors
	plain := true
	for ; len(data) > 0; data = data[4:] {
		f := float64(math.Float32frombits(binary.LittleEndian.Uint32(data)))
		s.RopeScaling.Factors = append(s.RopeScaling.Factors, f)
		plain = plain && f == 1
	}
	if plain {
		s.RopeScaling = RopeScaling{}
	}
	return nil
}

// ends are the tokens that end a text: those that the keys name, and control tokens by their spelling, as llama.cpp
// finds them.
func (g *ggufFile) ends(k *ggufKeys) []int {
	var ids []int
	add := func(id int) {
		if id >= 0 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, key := range []string{"eos_token_id", "eot_token_id", "eom_token_id"} {
		add(k.id("tokenizer.ggml." + key))
	}
	tokens := k.strings("tokenizer.ggml.tokens")
	kinds := k.numbers("tokenizer.ggml.token_type", len(tokens))
	for id, token := range tokens {
		switch token {
		case "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>":
			if kinds != nil && kinds[id] == ggufControl {
				add(id)
			}
		}
	}
	return ids
}

// The kinds of tokens.
const (
	ggufUnknown     = 2
	ggufControl     = 3
	ggufUserDefined = 4
	ggufUnused      = 5
	ggufByte        = 6
)

// ggufPre is how a byte-level tokenizer cuts a text, by the name that the file gives.
type ggufPre struct {
	patterns     []string
	digits       bool // each digit is a word, ahead of the patterns
	nfc          bool
	ignoreMerges bool
	addBOS       bool // where the file does not say
}

var ggufPres = map[string]ggufPre{
	"gpt-2":       {patterns: []string{patternGPT2}},
	"smollm":      {patterns: []string{patternGPT2}, digits: true},
	"llama-bpe":   {patterns: []string{patternLlama3}, ignoreMerges: true, addBOS: true},
	"qwen2":       {patterns: []string{patternQwen2}, nfc: true},
	"qwen35":      {patterns: []string{patternQwen35}, nfc: true},
	"gpt-4o":      {patterns: []string{patternO200k}},
	"tekken":      {patterns: []string{patternTekken}, ignoreMerges: true, addBOS: true},
	"deepseek-v3": {patterns: []string{patternDigits3, patternHanKana, patternDeepSeek3}},
}

// Other names of the same.
var ggufPreNames = map[string]string{"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2",
	"pixtral": "llama-bpe"}

// tokenizer makes the tokenizer that the keys describe; nil: they describe none.
func (g *ggufFile) tokenizer(until *deadline) (*Tokenizer, error) {
	k := &ggufKeys{g: g}
	model := k.string("tokenizer.ggml.model")
	if k.err == nil && (model == "" || model == "no_vocab" || model == "none") {
		return nil, nil
	}
	tokens := k.strings("tokenizer.ggml.tokens")
	kinds := k.numbers("tokenizer.ggml.token_type", len(tokens))
	scores := k.numbers("tokenizer.ggml.scores", len(tokens))
	merges := k.strings("tokenizer.ggml.merges")
	if k.err != nil {
		return nil, k.err
	}
	f := &tokenizerFile{until: until}
	f.model.until = until
	f.model.vocab = make(map[string]int32, len(tokens))
	size := 0 // of the tokens in the file
	for id, token := range tokens {
		size += 8 + len(token)
		if err := until.passed(); err != nil {
			return nil, err
		}
		kind := 1.0
		if kinds != nil {
			kind = kinds[id]
		}
		if kind == ggufUnused && model == "gpt2" {
			continue // fills the table up
		}
		if _, twice := f.model.vocab[token]; twice {
			return nil, fmt.Errorf("token %.80q stands there twice: %w", token, ErrCorrupt)
		}
		if _, err := tokenID(int64(id), token); err != nil {
			return nil, err
		}
		f.model.vocab[token] = int32(id)
		if kind == ggufControl || kind == ggufUserDefined {
			f.added = append(f.added, addedToken{id: id, content: token, special: kind == ggufControl})
		}
	}
	addBOS, addEOS := false, k.bool("tokenizer.ggml.add_eos_token", false)
	switch model {
	case "gpt2":
		name := k.string("tokenizer.ggml.pre")
		pre, known := ggufPres[cmp.Or(ggufPreNames[name], name)]
		if !known && k.err == nil {
			return nil, fmt.Errorf("tokenizer.ggml.pre is %.80q, which is not run: %w", name, ErrUnsupported)
		}
		addBOS = pre.addBOS
		pre.set(f)
		f.model.merges, f.model.mergeCount = mergesOf(merges), len(merges)
	case "llama":
		addBOS = true
		if scores == nil {
			return nil, fmt.Errorf("tokenizer.ggml.scores is missing: %w", ErrCorrupt)
		}
		if err := f.sentencePiece(tokens, kinds, scores, k.bool("tokenizer.ggml.add_space_prefix", true)); err != nil {
			return nil, err
		}
		if unknown := k.id("tokenizer.ggml.unknown_token_id"); unknown >= 0 && unknown < len(tokens) {
			f.model.unknown = tokens[unknown]
		}
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model is %.80q, want \"gpt2\" or \"llama\": %w", model, ErrUnsupported)
	}
	addBOS = k.bool("tokenizer.ggml.add_bos_token", addBOS)
	bos, eos := k.id("tokenizer.ggml.bos_token_id"), k.id("tokenizer.ggml.eos_token_id")
	if k.err != nil {
		return nil, k.err
	}
	t, err := f.tokenizer(size)
	if err != nil {
		return nil, err
	}
	for _, end := range []struct {
		add bool
		id  int
		to  *[]int
	}{{addBOS, bos, &t.prefix}, {addEOS, eos, &t.suffix}} {
		if !end.add || end.id < 0 {
			continue
		}
		if end.id >= len(tokens) {
			return nil, fmt.Errorf("token %d begins or ends every text, but there are %d: %w", end.id, len(tokens), ErrMismatch)
		}
		*end.to = []int{end.id}
	}
	return t, nil
}

// set makes f a byte-level tokenizer that cuts as p says.
func (p ggufPre) set(f *tokenizerFile) {
	if p.nfc {
		f.normalizer = component{kind: "NFC"}
	}
	f.preTokenizer.kind = "Sequence"
	if p.digits {
		f.preTokenizer.parts = append(f.preTokenizer.parts, component{kind: "Digits", individualDigits: true})
	}
	for _, pattern := range p.patterns {
		f.preTokenizer.parts = append(f.preTokenizer.parts, component{kind: "Split", regex: pattern, behavior: "Isolated"})
	}
	f.preTokenizer.parts = append(f.preTokenizer.parts, component{kind: "ByteLevel"})
	f.decoder = component{kind: "ByteLevel"}
	f.model.ignoreMerges = p.ignoreMerges
}

// mergesOf reads merges of the form "a b", the first to come first.
func mergesOf(merges []string) func(each func(rank int, left, right string) error) error {
	return func(each func(rank int, left, right string) error) error {
		for rank, merge := range merges {
			left, right, pair := strings.Cut(merge, " ")
			if !pair || strings.Contains(right, " ") {
				return fmt.Errorf("merge %d, %.80q, is not a pair of tokens: %w", rank, merge, ErrCorrupt)
			}
			if err := each(rank, left, right); err != nil {
				return err
			}
		}
		return nil
	}
}

// maxMergeWork bounds the bytes that are compared to find the merges of a SentencePiece vocabulary.
const maxMergeWork = 1 << 30

// sentencePiece makes f a tokenizer over characters. Its merges are those of any two tokens that are a third together;
// the one that makes the token of the highest score comes first.
func (f *tokenizerFile) sentencePiece(tokens []string, kinds, scores []float64, spacePrefix bool) error {
	const mark = "▁"
	replace := component{kind: "Replace", pattern: " ", content: mark}
	back := component{kind: "Replace", pattern: mark, content: " "}
	f.normalizer = component{kind: "Sequence", parts: []component{replace}}
	f.decoder = component{kind: "Sequence", parts: []component{back, {kind: "ByteFallback"}, {kind: "Fuse"}}}
	if spacePrefix {
		f.normalizer.parts = []component{{kind: "Prepend", prepend: mark}, replace}
		f.decoder.parts = append(f.decoder.parts, component{kind: "Strip", content: " ", start: 1})
	}
	f.model.byteFallback, f.model.fuseUnknown = true, true

	ids := make([]int, 0, len(tokens))
	work := 0
	for id, token := range tokens {
		if kinds != nil && (kinds[id] == ggufControl || kinds[id] == ggufUnknown || kinds[id] == ggufByte) {
			continue
		}
		if work += len(token) * len(token); work > maxMergeWork {
			return fmt.Errorf("token %.80q has %d bytes: the tokens are too long: %w", token, len(token), ErrUnsupported)
		}
		ids = append(ids, id)
	}
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	f.model.mergeCount = 2 * len(ids) // as most vocabularies have
	f.model.merges = func(each func(rank int, left, right string) error) error {
		rank, left := 0, 4*len(ids)+1<<16 // merges; vocabularies have two for each token
		for i, id := range ids {
			if i > 0 && scores[id] != scores[ids[i-1]] {
				rank++ // tokens of one score merge from left to right
			}
			token := tokens[id]
			if err := f.model.until.passed(); err != nil {
				return err
			}
			for at := range token {
				before, behind := token[:at], token[at:]
				if _, ok := f.model.vocab[before]; at == 0 || !ok {
					continue
				}
				if _, ok := f.model.vocab[behind]; !ok {
					continue
				}
				if left--; left < 0 {
					return fmt.Errorf("the tokens merge in more than %d ways: %w", 4*len(ids)+1<<16, ErrUnsupported)
				}
				if err := each(rank, before, behind); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return nil
}
