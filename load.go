package photon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
)

// table is an embedding table [vocab × width], held as stored.
type table struct {
	width    int
	rowBytes int64 // as held
	stored   tensorData
}

func (t *table) row(dst []float32, id int) { t.stored.float32s(dst[:t.width], id*t.width, t.width) }

// loader knows where each tensor goes: a model's shape is built first, without weights, and then filled in file order. Arrays are made when the first
// of their bytes have been read.
type loader struct {
	m       *Model
	weights *checkpoint
	form    WeightType
	sinks   map[string][]func(t tensorData)
	ctx     context.Context
}

// readWeights builds the model and reads its tensors. The checkpoint has been matched with the config.
func (m *Model) readWeights(weights *checkpoint, o loadOptions) error {
	l := &loader{m: m, weights: weights, form: o.weights, sinks: map[string][]func(tensorData){}, ctx: o.ctx}
	l.model()
	weights.ctx = o.ctx
	plan := m.plan(weights)
	if err := plan.check(weights.bytes(), m.cfg.Parameters(), &o); err != nil {
		return err
	}
	var done int64
	copies, sums := m.cfg.copies(), map[string]string{} // of those, and of what they are copies of
	twins := slices.Collect(maps.Values(copies))
	err := weights.each(func(t tensorData) error {
		for _, sink := range l.sinks[t.name] {
			sink(t)
		}
		if copies[t.name] != "" || slices.Contains(twins, t.name) {
			sums[t.name] = fmt.Sprintf("%v %v %x", t.dtype, t.shape, t.sum(o.ctx))
		}
		if err := ended(o.ctx); err != nil {
			return fmt.Errorf("photon: loading: %w", err)
		}
		done += t.stored
		if o.progress != nil {
			o.progress(done, weights.bytes())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name, twin := range copies {
		if sum, stored := sums[name]; stored && sum != sums[twin] {
			return fmt.Errorf("photon: tensors %q and %q differ, but tie_word_embeddings is true: set it to false, or "+
				"remove one: %w", name, twin, ErrMismatch)
		}
	}
	return nil
}

// sum is the SHA-256 of a tensor as it is stored, or anything once ctx has ended.
func (t tensorData) sum(ctx context.Context) (sum [sha256.Size]byte) {
	h := sha256.New()
	for piece := range slices.Chunk(t.data, 1<<20) {
		if ended(ctx) != nil {
			return sum
		}
		h.Write(piece)
	}
	hashFloats(h, t.scales)
	h.Sum(sum[:0])
	return sum
}

func (l *loader) model() {
	m, c := l.m, &l.m.cfg
	if c.Flat() {
		d := &decoder{chunk: 1, stack: l.stack("model.", c.Transformer)}
		m.decoders = []*decoder{d}
		l.table(&m.decoderTable, "model.embed_tokens.weight", c.VocabSize, d.width())
		l.head("model.embed_tokens.weight", d.width())
		return
	}
	l.table(&m.encoderTable, "encoder.embed_tokens.weight", c.VocabSize, c.EmbeddingSize)
	if c.TokenEncoder != nil {
		m.tokenEncoder = l.stack("token_encoder.", *c.TokenEncoder)
	}
	below := c.EmbeddingSize
	for i, level := range c.Levels {
		at := fmt.Sprintf("levels.%d.", i)
		e := &encoder{chunk: level.ChunkSize, below: below, eps: float32(c.RMSNormEps), stack: l.stack(at+"encoder.", level.Encoder)}
		if level.Chunker == "linear" {
			l.vector(&e.norm, at+"chunker.norm.weight")
			e.proj = l.matrix(e.chunk*below, part{at + "chunker.proj.weight", e.width()})
			l.vector(&e.bias, at+"chunker.proj.bias")
		}
		d := &decoder{chunk: level.ChunkSize, prefix: level.PrefixLength, stack: l.stack(at+"decoder.", level.Decoder)}
		d.added, d.local = level.PrefixLength == 0, !level.Decoder.stream()
		l.memories(at+"decoder.", d.stack, i)
		d.converter = l.matrix(e.width(), part{at + "converter.weight", d.slices() * d.width()})
		l.vector(&d.bias, at+"converter.bias")
		m.encoders, m.decoders = append(m.encoders, e), append(m.decoders, d)
		below = e.width()
	}
	l.vector(&m.startLatent, "start_latent")
	width, embedding := m.decoders[0].width(), "encoder.embed_tokens.weight"
	if c.Content != contentStates {
		embedding = "decoder.embed_tokens.weight"
		l.table(&m.decoderTable, embedding, c.VocabSize, width)
	}
	l.head(embedding, width)
}

func (l *loader) head(embedding string, width int) {
	name := "lm_head.weight"
	if l.m.cfg.TieWordEmbeddings {
		name = embedding
	}
	l.m.head = l.matrix(width, part{name, l.m.cfg.VocabSize})
}

func (l *loader) stack(at string, c StackConfig) *stack {
	s := newStack(c, l.m.cfg.RMSNormEps)
	q, kv := c.Heads*c.HeadDim, c.kvWidth()
	for i := range s.layers {
		y, at := &s.layers[i], fmt.Sprintf("%slayers.%d.", at, i)
		l.vector(&y.attentionNorm, at+"input_layernorm.weight")
		y.qkv = l.matrix(c.HiddenSize, part{at + "self_attn.q_proj.weight", q}, part{at + "self_attn.k_proj.weight", kv}, part{at + "self_attn.v_proj.weight", kv})
		y.out = l.matrix(q, part{at + "self_attn.o_proj.weight", c.HiddenSize})
		l.vector(&y.mlpNorm, at+"post_attention_layernorm.weight")
		y.gateUp = l.matrix(c.HiddenSize, part{at + "mlp.gate_proj.weight", c.IntermediateSize}, part{at + "mlp.up_proj.weight", c.IntermediateSize})
		y.down = l.matrix(c.IntermediateSize, part{at + "mlp.down_proj.weight", c.HiddenSize})
		if c.QKVBias {
			l.vectors(&y.qkvBias, part{at + "self_attn.q_proj.bias", q}, part{at + "self_attn.k_proj.bias", kv},
				part{at + "self_attn.v_proj.bias", kv})
		}
		if c.OutBias {
			l.vector(&y.outBias, at+"self_attn.o_proj.bias")
		}
		if c.QKNorm {
			l.vector(&y.qNorm, at+"self_attn.q_norm.weight")
			l.vector(&y.kNorm, at+"self_attn.k_norm.weight")
		}
		if c.MLPBias {
			l.vectors(&y.gateBias, part{at + "mlp.gate_proj.bias", c.IntermediateSize},
				part{at + "mlp.up_proj.bias", c.IntermediateSize})
			l.vector(&y.mlpBias, at+"mlp.down_proj.bias")
		}
	}
	l.vector(&s.norm, at+"norm.weight")
	return s
}

// memories gives a decoder's stack its memories; below is the level of its children.
func (l *loader) memories(at string, s *stack, below int) {
	cfg := &l.m.cfg
	for e, c := range s.cfg.Memories {
		y := newMemory(c, cfg.RMSNormEps)
		for _, level := range cfg.Levels[below:c.Level] {
			y.span *= level.ChunkSize
		}
		at, width, kv := fmt.Sprintf("%smemories.%d.", at, e), cfg.width(c.rowLevel()), c.KVHeads*c.HeadDim
		y.perUnit = c.rowsPerUnit(cfg.Levels)
		if c.Unpack {
			y.unpack = l.matrix(cfg.width(c.Level), part{at + "unpack.weight", y.perUnit * width})
			l.vector(&y.unpackBias, at+"unpack.bias")
		}
		l.vector(&y.sink, at+"sink")
		l.vector(&y.norm, at+"norm.weight")
		y.kv = l.matrix(width, part{at + "k_proj.weight", kv}, part{at + "v_proj.weight", kv})
		s.memories = append(s.memories, y)
	}
	for e, c := range s.cfg.Memories {
		for _, n := range c.Layers {
			y, q := &memoryAttention{memory: e}, c.Heads*c.HeadDim
			at := fmt.Sprintf("%slayers.%d.memory_attn.%d.", at, n, e)
			l.vector(&y.norm, at+"norm.weight")
			y.query = l.matrix(s.cfg.HiddenSize, part{at + "q_proj.weight", q})
			y.out = l.matrix(q, part{at + "o_proj.weight", s.cfg.HiddenSize})
			s.layers[n].memories = append(s.layers[n].memories, y)
		}
	}
}

// part is a tensor [rows × in] that makes some of a matrix's outputs.
type part struct {
	name string
	rows int
}

// matrix makes one matrix of several tensors below one another.
func (l *loader) matrix(in int, parts ...part) *matrix {
	w := &matrix{in: in, form: l.formOf(parts)}
	l.m.held = append(l.m.held, w)
	for _, p := range parts {
		first := w.out
		w.out += p.rows
		l.sink(p.name, func(t tensorData) {
			w.alloc()
			row := make([]float32, in)
			for r := range p.rows {
				if r%64 == 0 && ended(l.ctx) != nil {
					return
				}
				if w.form.holds(t.dtype) {
					w.setRow(first+r, &t, r)
					continue
				}
				t.float32s(row, r*in, in)
				w.setRows(first+r, row)
			}
		})
	}
	return w
}

// formOf is how a matrix of these parts is held.
func (l *loader) formOf(parts []part) WeightType {
	switch l.form {
	case AsStored:
	case BF16:
		return bf16Rounded
	default:
		return l.form
	}
	bf16, int4, quantized := true, true, true
	for _, p := range parts {
		t, _ := l.weights.dtypeOf(p.name)
		bf16 = bf16 && t == dtypeBF16
		int4 = int4 && t == dtypeQ4x0
		quantized = quantized && (t == dtypeQ4x0 || t == dtypeQ8x0 || t == dtypeQ6K)
	}
	switch {
	case bf16:
		return BF16
	case int4:
		return Int4
	case quantized:
		return Int8
	}
	return F32
}

func (l *loader) vector(to *[]float32, name string) {
	l.m.held = append(l.m.held, (*vector)(to))
	l.sink(name, func(t tensorData) {
		*to = make([]float32, t.shape[0])
		t.float32s(*to, 0, len(*to))
	})
}

// vectors makes one vector of several, one behind another.
func (l *loader) vectors(to *[]float32, parts ...part) {
	l.m.held = append(l.m.held, (*vector)(to))
	n := 0
	for _, p := range parts {
		first := n
		n += p.rows
		l.sink(p.name, func(t tensorData) {
			if *to == nil {
				*to = make([]float32, n)
			}
			t.float32s((*to)[first:], 0, p.rows)
		})
	}
}

func (l *loader) table(to *table, name string, vocab, width int) {
	to.width = width
	l.m.held = append(l.m.held, to)
	stored, _ := l.weights.dtypeOf(name)
	to.rowBytes = int64(width / stored.block() * stored.size())
	switch groups := int64((width + scaleGroup - 1) / scaleGroup); stored {
	case dtypeI8:
		to.rowBytes += 4 * groups
	case dtypeI4:
		to.rowBytes = (4 + scaleGroup/2) * groups
	}
	l.sink(name, func(t tensorData) {
		t.data, t.scales = slices.Clone(t.data), slices.Clone(t.scales)
		to.stored = t
	})
}

func (l *loader) sink(name string, f func(tensorData)) { l.sinks[name] = append(l.sinks[name], f) }

// Info describes a model directory by what its headers say.
type Info struct {
	Config      Config
	Tensors     int              // in the files; scales of integers count as tensors of their own
	WeightBytes int64            // of all tensors
	DTypes      map[string]int64 // bytes by number format: "F32", "F16", "BF16", "I8", "U8"; "Q8_0", "Q4_0", "Q6_K"
}

// Inspect reads config.json and the headers of the weights, and checks the files' structure and that they hold exactly the tensors that the configuration
// asks for. It touches no weights, and is quick for a model of any size. The errors are those of LoadFS. It may be called from several goroutines.
func Inspect(fsys fs.FS) (Info, error) {
	c, err := openContents(fsys)
	return c.info, err
}

// contents is a model before its weights are read.
type contents struct {
	info      Info
	weights   *checkpoint
	defaults  options                                       // of sessions
	tokenizer func(ctx context.Context) (*Tokenizer, error) // nil, nil: there is none
}

func openContents(fsys fs.FS) (contents, error) {
	if err := checkFS(fsys); err != nil {
		return contents{}, err
	}
	data, err := readSmall(fsys, configFile, maxConfigSize)
	if errors.Is(err, fs.ErrNotExist) {
		if name, err := findGGUF(fsys); err != nil {
			return contents{}, err
		} else if name != "" {
			return openGGUF(fsys, name)
		}
	}
	if err != nil {
		return contents{}, err
	}
	cfg, err := parseConfig(data)
	if err != nil {
		return contents{}, err
	}
	defaults, ends, err := readGeneration(fsys)
	if err != nil {
		return contents{}, err
	}
	if ends != nil {
		cfg.EOSTokenIDs = ends
		if err := cfg.validate(); err != nil {
			return contents{}, fmt.Errorf("photon: generation_config.json: %w", err)
		}
	}
	weights, err := openCheckpoint(fsys, 2*cfg.tensorCount()) // with scales, and what old exporters left
	if err != nil {
		return contents{}, err
	}
	if err := weights.match(cfg.tensors(), cfg.copies()); err != nil {
		return contents{}, err
	}
	tokenizer := func(ctx context.Context) (*Tokenizer, error) { return readTokenizer(ctx, fsys) }
	return contents{weights.info(cfg), weights, defaults, tokenizer}, nil
}

func (c *checkpoint) info(cfg Config) Info {
	info := Info{Config: cfg, WeightBytes: c.bytes(), DTypes: map[string]int64{}}
	for _, t := range c.tensors {
		if !t.ignored {
			info.Tensors++
			info.DTypes[t.dtype.String()] += t.end - t.begin
		}
	}
	return info
}

// CheckWeights is Inspect, and then reads every weight: a NaN or an infinity among them is an error that names the
// tensor, counts them and matches ErrCorrupt. progress, unless nil, is told the bytes read so far and in all. Memory in
// use is that of the largest tensor. It may be called from several goroutines.
func CheckWeights(fsys fs.FS, progress func(done, total int64)) (Info, error) {
	opened, err := openContents(fsys)
	if err != nil {
		return Info{}, err
	}
	info, c := opened.info, opened.weights
	var row []float32
	done := int64(0)
	err = c.each(func(t tensorData) error {
		n := 1
		for _, size := range t.shape {
			n *= size
		}
		bad, first := 0, -1
		for at := 0; at < n; at += len(row) {
			row = grow(row, min(1<<14, n-at))
			t.float32s(row, at, len(row))
			for i, x := range row {
				if x-x != 0 { // NaN or infinite
					if bad++; first < 0 {
						first = at + i
					}
				}
			}
		}
		if bad > 0 {
			value := []float32{0}
			t.float32s(value, first, 1)
			return fmt.Errorf("photon: tensor %q: %d of %d weights are not finite, the first is number %d, %v: the training run diverged or the file is damaged: %w",
				t.name, bad, n, first, value[0], ErrCorrupt)
		}
		done += int64(len(t.data))
		if d, ok := c.dtypeOf(t.name + scalesSuffix); ok {
			done += int64(len(t.scales) * d.size())
		}
		if progress != nil {
			progress(done, info.WeightBytes)
		}
		return nil
	})
	return info, err
}
