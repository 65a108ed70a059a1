package photon

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// reference computes a model of any format in float64, row by row from its description: no caches, no schedule,
// nothing of the library but the configuration and the names of the tensors.
type reference struct {
	cfg Config
	w   map[string][]float32
}

type refRow struct {
	x        []float64
	sequence int // rows of another one are not seen
	position int
	before   int // children before what it predicts
	predicts int // child, or -1
}

func (f *reference) linear(name string, x []float64) []float64 {
	w := f.w[name+".weight"]
	y := make([]float64, len(w)/len(x))
	for o := range y {
		for i, v := range x {
			y[o] += float64(w[o*len(x)+i]) * v
		}
		if b := f.w[name+".bias"]; b != nil {
			y[o] += float64(b[o])
		}
	}
	return y
}

func (f *reference) norm(name string, x []float64) []float64 {
	sum, y := 0.0, make([]float64, len(x))
	for _, v := range x {
		sum += v * v
	}
	for i, v := range x {
		y[i] = v / math.Sqrt(sum/float64(len(x))+f.cfg.RMSNormEps) * float64(f.w[name][i])
	}
	return y
}

func refAdd(x, y []float64) {
	for i := range x {
		x[i] += y[i]
	}
}

func refTurn(x []float64, dim int, theta float64, position int) {
	if theta == 0 {
		return
	}
	for h := 0; h < len(x); h += dim {
		for i := range dim / 2 {
			sin, cos := math.Sincos(float64(position) * math.Pow(theta, -2*float64(i)/float64(dim)))
			a, b := x[h+i], x[h+i+dim/2]
			x[h+i], x[h+i+dim/2] = a*cos-b*sin, b*cos+a*sin
		}
	}
}

// refTurnFlat is refTurn with the rotation scaled, by the lengths of its waves in positions.
func refTurnFlat(x []float64, c StackConfig, layer, position int) {
	if c.RopeTheta == 0 || slices.Contains(c.NoRope, layer) {
		return
	}
	for h := 0; h < len(x); h += c.HeadDim {
		for i := range c.HeadDim / 2 {
			angle := math.Pow(c.RopeTheta, -2*float64(i)/float64(c.HeadDim))
			switch p := c.RopeScaling; p.Type {
			case "linear":
				angle /= p.Factor
			case "factors":
				angle /= p.Factors[i]
			case "llama3":
				wave, original := 2*math.Pi/angle, float64(p.OriginalContext)
				if wave > original/p.LowFreqFactor {
					angle /= p.Factor
				} else if wave > original/p.HighFreqFactor {
					smooth := (original/wave - p.LowFreqFactor) / (p.HighFreqFactor - p.LowFreqFactor)
					angle = (1-smooth)*angle/p.Factor + smooth*angle
				}
			}
			sin, cos := math.Sincos(float64(position) * angle)
			a, b := x[h+i], x[h+i+c.HeadDim/2]
			x[h+i], x[h+i+c.HeadDim/2] = a*cos-b*sin, b*cos+a*sin
		}
	}
}

// heads normalises every head of x by itself, where the model has such a norm.
func (f *reference) heads(name string, x []float64, dim int) {
	if f.w[name] == nil {
		return
	}
	for h := 0; h < len(x); h += dim {
		copy(x[h:], f.norm(name, x[h:][:dim]))
	}
}

// refAttention is of one row of queries.
func refAttention(q []float64, keys, values [][]float64, dim int) []float64 {
	out := make([]float64, len(q))
	group := len(q) / len(keys[0])
	for h := range len(q) / dim {
		kv, sum := h/group*dim, 0.0
		weights := make([]float64, len(keys))
		for j, k := range keys {
			for d := range dim {
				weights[j] += q[h*dim+d] * k[kv+d]
			}
			weights[j] /= math.Sqrt(float64(dim))
		}
		top := slices.Max(weights)
		for j := range weights {
			weights[j] = math.Exp(weights[j] - top)
			sum += weights[j]
		}
		for j, v := range values {
			for d := range dim {
				out[h*dim+d] += weights[j] / sum * v[kv+d]
			}
		}
	}
	return out
}

// stack runs a stack over rows. states are those of every level; span is the number of children of this stack in a
// unit of each.
func (f *reference) stack(at string, c StackConfig, text []refRow, states [][][]float64, span []int) [][]float64 {
	x := make([][]float64, len(text))
	for i, r := range text {
		x[i] = slices.Clone(r.x)
	}
	for n := range c.Layers {
		layer := fmt.Sprintf("%slayers.%d.", at, n)
		for e, y := range c.Memories {
			if !slices.Contains(y.Layers, n) {
				continue
			}
			memory, of := fmt.Sprintf("%smemories.%d.", at, e), fmt.Sprintf("%smemory_attn.%d.", layer, e)
			sink := make([]float64, len(f.w[memory+"sink"]))
			for i, v := range f.w[memory+"sink"] {
				sink[i] = float64(v)
			}
			rows, each := states[y.Level], 1 // each row of the level is that many of the memory
			if y.Unpack {
				each = f.cfg.Levels[y.Level-1].ChunkSize
				rows = nil
				for u, unit := range states[y.Level] {
					said := f.linear(memory+"unpack", unit)
					for j := range each {
						row := slices.Clone(states[y.Level-1][u*each+j])
						refAdd(row, said[j*len(row):][:len(row)])
						rows = append(rows, row)
					}
				}
			}
			var keys, values [][]float64
			for i, m := range append([][]float64{sink}, rows...) {
				h := f.norm(memory+"norm.weight", m)
				k := f.linear(memory+"k_proj", h)
				refTurn(k, y.HeadDim, y.RopeTheta, i)
				keys, values = append(keys, k), append(values, f.linear(memory+"v_proj", h))
			}
			for i, r := range text {
				last, at := r.before/span[y.Level]*each, r.before/span[y.Level]
				if y.Unpack {
					at = r.before / span[y.Level-1]
				}
				first := 0
				if y.SlidingWindow > 0 {
					first = max(0, last+1-y.SlidingWindow)
				}
				q := f.linear(of+"q_proj", f.norm(of+"norm.weight", x[i]))
				refTurn(q, y.HeadDim, y.RopeTheta, at)
				mixed := refAttention(q, keys[first:last+1], values[first:last+1], y.HeadDim)
				refAdd(x[i], f.linear(of+"o_proj", mixed))
			}
		}
		window := c.SlidingWindow
		if c.Windows != nil {
			window = c.Windows[n]
		}
		var q, k, v [][]float64
		for i, r := range text {
			h := f.norm(layer+"input_layernorm.weight", x[i])
			q = append(q, f.linear(layer+"self_attn.q_proj", h))
			k = append(k, f.linear(layer+"self_attn.k_proj", h))
			v = append(v, f.linear(layer+"self_attn.v_proj", h))
			f.heads(layer+"self_attn.q_norm.weight", q[i], c.HeadDim)
			f.heads(layer+"self_attn.k_norm.weight", k[i], c.HeadDim)
			refTurnFlat(q[i], c, n, r.position)
			refTurnFlat(k[i], c, n, r.position)
		}
		for i, r := range text {
			first := i
			for first > 0 && text[first-1].sequence == r.sequence && (window == 0 || i-first+1 < window) {
				first--
			}
			refAdd(x[i], f.linear(layer+"self_attn.o_proj", refAttention(q[i], k[first:i+1], v[first:i+1], c.HeadDim)))
			h := f.norm(layer+"post_attention_layernorm.weight", x[i])
			gate, up := f.linear(layer+"mlp.gate_proj", h), f.linear(layer+"mlp.up_proj", h)
			for j, g := range gate {
				up[j] *= g / (1 + math.Exp(-g))
			}
			refAdd(x[i], f.linear(layer+"mlp.down_proj", up))
		}
	}
	for i := range x {
		x[i] = f.norm(at+"norm.weight", x[i])
	}
	return x
}

func (f *reference) embedding(name string, width int, ids []int) (rows [][]float64) {
	for _, id := range ids {
		row := make([]float64, width)
		for i := range row {
			row[i] = float64(f.w[name][id*width+i])
		}
		rows = append(rows, row)
	}
	return rows
}

func refRows(x [][]float64) (rows []refRow) {
	for i, v := range x {
		rows = append(rows, refRow{x: v, position: i})
	}
	return rows
}

func (f *reference) logits(x [][]float64, head string) (all []float32) {
	for _, v := range x {
		for _, y := range f.linear(head, v) {
			all = append(all, float32(y))
		}
	}
	return all
}

// run returns the logits that Model.Logits does, in the order of the ids.
func (f *reference) run(ids []int) []float32 {
	c := f.cfg
	if c.Flat() {
		head := "lm_head"
		if c.TieWordEmbeddings {
			head = "model.embed_tokens"
		}
		rows := refRows(f.embedding("model.embed_tokens.weight", c.EmbeddingSize, ids))
		return f.logits(f.stack("model.", c.Transformer, rows, nil, nil), head)
	}
	states := [][][]float64{f.embedding("encoder.embed_tokens.weight", c.EmbeddingSize, ids)}
	if c.TokenEncoder != nil {
		states[0] = f.stack("token_encoder.", *c.TokenEncoder, refRows(states[0]), nil, nil)
	}
	for i, l := range c.Levels {
		at := fmt.Sprintf("levels.%d.", i)
		var units [][]float64
		for u := range len(states[i]) / l.ChunkSize {
			unit := slices.Concat(states[i][u*l.ChunkSize : (u+1)*l.ChunkSize]...)
			if l.Chunker == "linear" {
				unit = f.linear(at+"chunker.proj", f.norm(at+"chunker.norm.weight", unit))
			}
			units = append(units, unit)
		}
		states = append(states, f.stack(at+"encoder.", l.Encoder, refRows(units), nil, nil))
	}
	tokens := 1 // in a unit of level i+1
	for _, l := range c.Levels {
		tokens *= l.ChunkSize
	}
	var conditions [][]float64
	for i := len(c.Levels) - 1; i >= 0; i-- {
		l := c.Levels[i]
		at, C, W := fmt.Sprintf("levels.%d.", i), l.ChunkSize, l.Decoder.HiddenSize
		children := (len(ids)*C + tokens - 1) / tokens // that hold a token of the text
		content := states[i]
		if i == 0 && c.Content != "states" {
			content = f.embedding("decoder.embed_tokens.weight", W, ids)
		}
		var rows []refRow
		for m := range (children + C - 1) / C {
			var condition []float64
			if i < len(c.Levels)-1 {
				condition = conditions[m]
			} else if m > 0 {
				condition = states[i+1][m-1]
			} else {
				for _, v := range f.w["start_latent"] {
					condition = append(condition, float64(v))
				}
			}
			converted := f.linear(at+"converter", condition)
			unit := []refRow{}
			if l.PrefixLength == 0 {
				for j := range C {
					if m*C+j >= children {
						break
					}
					x := make([]float64, W)
					if m*C+j > 0 {
						copy(x, content[m*C+j-1])
					}
					refAdd(x, converted[j*W:][:W])
					unit = append(unit, refRow{x: x, before: m*C + j, predicts: m*C + j})
				}
			} else {
				for r := range l.PrefixLength {
					unit = append(unit, refRow{x: converted[r*W:][:W], before: m * C, predicts: -1})
				}
				unit[l.PrefixLength-1].predicts = m * C
				for j := range C {
					child := m*C + j
					if child+1 >= children && child >= len(content) {
						break
					}
					row := refRow{x: content[child], before: child + 1, predicts: child + 1}
					if j == C-1 {
						row.predicts = -1
					}
					unit = append(unit, row)
				}
			}
			for j := range unit {
				unit[j].position = j
				if l.Decoder.SlidingWindow > 0 || l.Decoder.Windows != nil {
					unit[j].position = len(rows) + j
				} else {
					unit[j].sequence = m
				}
			}
			rows = append(rows, unit...)
		}
		span := make([]int, len(states))
		for k := i; k < len(states); k++ {
			span[k] = 1
			for _, between := range c.Levels[i:k] {
				span[k] *= between.ChunkSize
			}
		}
		out := f.stack(at+"decoder.", l.Decoder, rows, states, span)
		conditions = nil
		for j, r := range rows {
			if r.predicts >= 0 && r.predicts < children {
				conditions = append(conditions, out[j])
			}
		}
		tokens /= C
	}
	head := "lm_head"
	if c.TieWordEmbeddings {
		head = "decoder.embed_tokens"
		if c.Content == "states" {
			head = "encoder.embed_tokens"
		}
	}
	return f.logits(conditions, head)
}

// The reference agrees with the other one, in train.
func TestReference(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		values, err := readAll(os.DirFS(g.dir), m.cfg.tensors(), m.cfg.copies())
		if err != nil {
			t.Fatal(err)
		}
		near(t, "logits", (&reference{m.cfg, values}).run(g.ids), g.floats["logits"], 1e-5*g.largest)
	})
}

// randomModel draws weights of a size at which every part of a model can be told from its absence.
func randomModel(t testing.TB, r *rand.Rand, c Config, opts ...LoadOption) (*Model, *reference) {
	t.Helper()
	files, f := randomFiles(t, r, c, dtypeF32)
	m, err := LoadFS(files, opts...)
	if err != nil {
		t.Fatalf("%v\n%s", err, files[configFile].Data)
	}
	return m, f
}

// randomFiles is randomModel's directory, with weights stored as F32, F16 or BF16.
func randomFiles(t testing.TB, r *rand.Rand, c Config, stored dtype) (fstest.MapFS, *reference) {
	t.Helper()
	f := &reference{c, map[string][]float32{}}
	data := safetensorsHeader(c.tensors(), stored)
	for _, spec := range c.tensors() {
		values := randomValues(r, int(spec.elements()))
		for i := range values {
			switch {
			case strings.HasSuffix(spec.name, "norm.weight"):
				values[i] = 1 + values[i]/4
			case len(spec.shape) == 2 && !strings.Contains(spec.name, "embed_tokens"):
				values[i] *= float32(0.9 / math.Sqrt(float64(spec.shape[1])))
			}
			switch stored {
			case dtypeF16:
				half := f32ToF16(values[i])
				values[i], data = f16ToF32(half), binary.LittleEndian.AppendUint16(data, half)
			case dtypeBF16:
				half := f32ToBF16(values[i])
				values[i], data = bf16ToF32(half), binary.LittleEndian.AppendUint16(data, half)
			default:
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(values[i]))
			}
		}
		f.w[spec.name] = values
	}
	text, err := c.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{configFile: {Data: text}, weightsFile: {Data: data}}, f
}

// randomConfig draws from all that the two formats and the flat models have, in small sizes.
func randomConfig(r *rand.Rand) Config {
	return drawConfig(r, func(least, most int) int { return least + r.IntN(most-least+1) })
}

// drawConfig is randomConfig with sizes, from least to about most, that size draws.
func drawConfig(r *rand.Rand, size func(least, most int) int) Config {
	coin := func() bool { return r.IntN(2) == 0 }
	theta := func() float64 { return []float64{0, 100, 10000}[r.IntN(3)] }
	stack := func(hidden int) StackConfig {
		s := StackConfig{HiddenSize: hidden, Layers: 1 + r.IntN(3), KVHeads: size(1, 2), HeadDim: size(1, 10),
			IntermediateSize: size(1, 24), RopeTheta: theta()}
		if s.RopeTheta > 0 {
			s.HeadDim += s.HeadDim % 2
		}
		s.Heads = s.KVHeads * size(1, 3)
		return s
	}
	// windows draws none, one or a list, none below least.
	windows := func(s *StackConfig, least int) {
		one := func() int { return least + size(0, 8) }
		switch r.IntN(3) {
		case 0:
			s.SlidingWindow = one()
		case 1:
			for range s.Layers {
				s.Windows = append(s.Windows, []int{0, one(), one()}[r.IntN(3)])
			}
		}
	}
	c := Config{VocabSize: size(20, 49), RMSNormEps: 1e-5, BOSTokenID: -1,
		TieWordEmbeddings: coin(), EmbeddingSize: size(4, 12)}
	levels := r.IntN(4)
	if levels == 0 {
		c.Transformer = stack(c.EmbeddingSize)
		c.ModelType = []string{"llama", "mistral", "ministral", "qwen2", "qwen3", "smollm3"}[r.IntN(6)]
		drawFlat(r, c.ModelType, &c.Transformer, size(1, 12))
		return c
	}
	c.ModelType, c.FormatVersion = "photon", 2
	if coin() {
		s := stack(c.EmbeddingSize)
		windows(&s, 1)
		c.TokenEncoder = &s
	}
	c.Content = []string{"", "embedding", "states", "states"}[r.IntN(4)]
	below := c.EmbeddingSize
	for i := range levels {
		l := LevelConfig{ChunkSize: size(1, 4), PrefixLength: size(0, 2), Chunker: "linear"}
		width := size(4, 15)
		if coin() {
			l.Chunker, width = "concat", below*l.ChunkSize
		}
		l.Encoder = stack(width)
		windows(&l.Encoder, 1)
		l.Decoder = stack(below)
		if i == 0 && c.Content != "states" {
			l.Decoder = stack(size(4, 15))
		}
		windows(&l.Decoder, l.PrefixLength+l.ChunkSize)
		for range r.IntN(3) {
			e := MemoryConfig{Level: i + r.IntN(levels-i+1), KVHeads: size(1, 2), HeadDim: size(1, 10),
				SlidingWindow: r.IntN(2) * size(1, 6), RopeTheta: theta()}
			if e.RopeTheta > 0 {
				e.HeadDim += e.HeadDim % 2
			}
			e.Heads, e.Unpack = e.KVHeads*size(1, 3), e.Level > i && coin()
			for n := range l.Decoder.Layers {
				if coin() || n == l.Decoder.Layers-1 && e.Layers == nil {
					e.Layers = append(e.Layers, n)
				}
			}
			l.Decoder.Memories = append(l.Decoder.Memories, e)
		}
		c.Levels = append(c.Levels, l)
		below = width
	}
	return c
}

// drawFlat draws what the layers of a kind may have.
func drawFlat(r *rand.Rand, kind string, s *StackConfig, window int) {
	coin := func() bool { return r.IntN(2) == 0 }
	if kind == "mistral" {
		s.SlidingWindow = window
	}
	if kind == "ministral" || kind != "llama" && kind != "mistral" && coin() {
		for range s.Layers {
			s.Windows = append(s.Windows, window*r.IntN(2))
		}
		if kind != "ministral" && slices.Max(s.Windows) == 0 {
			s.Windows = nil
		}
	}
	switch kind {
	case "qwen2":
		s.QKVBias = true
	case "llama", "qwen3", "smollm3":
		s.QKVBias = coin()
		s.OutBias = s.QKVBias
	}
	s.MLPBias = (kind == "llama" || kind == "smollm3") && coin()
	s.QKNorm = kind == "qwen3"
	for n := range s.Layers {
		if kind == "smollm3" && coin() {
			s.NoRope = append(s.NoRope, n)
		}
	}
	if s.RopeTheta == 0 {
		return
	}
	switch r.IntN(4) {
	case 0:
		s.RopeScaling = RopeScaling{Type: "linear", Factor: 1 + 3*r.Float64()}
	case 1:
		s.RopeScaling = RopeScaling{Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 16 + r.IntN(64)}
	case 2:
		s.RopeScaling = RopeScaling{Type: "factors"}
		for range s.HeadDim / 2 {
			s.RopeScaling.Factors = append(s.RopeScaling.Factors, 1+3*r.Float64())
		}
	}
}

// agrees holds the rows of one pass against the reference's.
func agrees(t *testing.T, c Config, pass, want []float32, tolerance float64) {
	t.Helper()
	near(t, "logits", pass, want, tolerance)
}

// Random models of every form: one pass agrees with the reference, and whatever way a text comes in, the bits are
// those of one pass.
func TestRandomModels(t *testing.T) {
	defer func(n int) { stepRows = n }(stepRows)
	models := 150
	if testing.Short() {
		models = 40
	}
	for seed := range models {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(77, uint64(seed)))
			c := randomConfig(r)
			stepRows = []int{3, 7, 256}[r.IntN(3)]
			text, err := c.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if parsed, err := parseConfig(text); err != nil || fmt.Sprint(parsed.tensors()) != fmt.Sprint(c.tensors()) {
				t.Fatalf("%s comes back as %+v, %v", text, parsed, err)
			}
			cache := cacheTypes[max(0, r.IntN(5)-2)]
			m, f := randomModel(t, r, c, WithThreads(1+r.IntN(2)), WithCache(cache))
			defer m.Close()
			ids := make([]int, 40+r.IntN(30))
			for i := range ids {
				ids[i] = r.IntN(c.VocabSize)
			}
			defer func() {
				if t.Failed() {
					t.Logf("steps of %d rows, %s", stepRows, text)
				}
			}()
			pass, err := m.Logits(background, ids)
			if err != nil {
				t.Fatal(err)
			}
			pass = referenceRows(m, pass)
			want := f.run(ids)
			largest := 0.0
			for _, v := range want {
				largest = max(largest, math.Abs(float64(v)))
			}
			if cache == CacheF32 {
				agrees(t, c, pass, want, agreement*largest)
			}
			checkWays(t, r, m, ids, pass)
		})
	}
}

// referenceRows are those of Logits that the reference computes: of the tokens after the first for a flat model, and of the text's for others.
func referenceRows(m *Model, pass []float32) []float32 {
	if m.cfg.Flat() {
		return pass[m.cfg.VocabSize:]
	}
	return pass[:len(pass)-m.cfg.VocabSize]
}

// Every kernel agrees with the reference, and with itself in pieces, whatever shapes a model has.
func TestRandomModelsOnKernels(t *testing.T) {
	for seed := range 12 {
		r := rand.New(rand.NewPCG(78, uint64(seed)))
		c := randomConfig(r)
		m, f := randomModel(t, r, c, WithThreads(2))
		ids := make([]int, 60)
		for i := range ids {
			ids[i] = r.IntN(c.VocabSize)
		}
		want := f.run(ids)
		largest := 0.0
		for _, v := range want {
			largest = max(largest, math.Abs(float64(v)))
		}
		eachKernel(t, func(t *testing.T) {
			m.empty = nil
			m.begin() // it was made with another kernel
			pass, err := m.Logits(background, ids)
			if err != nil {
				t.Fatal(err)
			}
			pass = referenceRows(m, pass)
			agrees(t, c, pass, want, agreement*largest)
			checkWays(t, r, m, ids, pass)
		})
	}
}

// checkWays holds the logits of a text that comes in every way against those of one pass, and its state against
// Config.StateBytes.
func checkWays(t *testing.T, r *rand.Rand, m *Model, ids []int, pass []float32) {
	t.Helper()
	vocab, shift := m.cfg.VocabSize, 0
	if m.cfg.Flat() {
		shift = 1
	}
	check := func(what string, s *Session) {
		t.Helper()
		if got, want := s.Stats().StateBytes, m.cfg.StateBytes(s.Len(), m.cacheType); got > want {
			t.Fatalf("%s, %d tokens: the state has %d bytes, want %d", what, s.Len(), got, want)
		}
		if row := s.Len() - shift; row >= 0 && row < len(ids) && !slices.Equal(s.Logits(), pass[row*vocab:][:vocab]) {
			near(t, fmt.Sprintf("%s, bits after %d tokens", what, s.Len()), s.Logits(), pass[row*vocab:][:vocab], 0)
		}
	}
	add := func(s *Session, n int) {
		t.Helper()
		if err := s.Append(background, ids[s.Len():min(s.Len()+n, len(ids))]...); err != nil {
			t.Fatal(err)
		}
	}
	steps := m.NewSession()
	for range ids {
		check("token by token", steps)
		if got, want := steps.Stats().StateBytes, m.cfg.StateBytes(steps.Len(), m.cacheType); got != want {
			t.Fatalf("%d tokens one by one: the state has %d bytes, want %d", steps.Len(), got, want)
		}
		add(steps, 1)
	}
	for range 4 { // ragged, through forks and snapshots
		s := m.NewSession()
		for s.Len() < len(ids) {
			check("pieces", s)
			switch r.IntN(4) {
			case 0:
				old := s
				s = s.Fork()
				add(old, 5) // goes its own way
			case 1:
				var b bytes.Buffer
				if _, err := s.WriteTo(&b); err != nil {
					t.Fatal(err)
				}
				read, err := m.ReadSession(&b)
				if err != nil {
					t.Fatal(err)
				}
				s = read
				check("snapshot", s)
			}
			add(s, []int{1, 2, 1 + r.IntN(9), len(ids)}[r.IntN(4)])
		}
		check("pieces", s)
	}
	// A batch of texts at different places.
	ws := m.acquire()
	defer m.release(ws)
	var seqs []*sequence
	for range 3 {
		seqs = append(seqs, m.newSequence())
	}
	for round := 0; seqs[0].n < len(ids) || seqs[1].n < len(ids) || seqs[2].n < len(ids); round++ {
		var now []*sequence
		var pieces [][]int
		var from []int
		for _, s := range seqs {
			if n := min(r.IntN(8), len(ids)-s.n); n > 0 {
				now, pieces, from = append(now, s), append(pieces, ids[s.n:s.n+n]), append(from, s.synced+1)
			}
		}
		if len(now) == 0 {
			continue
		}
		m.encode(ws, now, pieces)
		all := r.IntN(2) == 0
		out := m.follow(ws, now, all)
		width := m.decoders[0].width()
		logits := make([]float32, len(out)/width*vocab)
		m.head.mul(&ws.crew, &ws.mulTask, logits, out, len(out)/width)
		for i, s := range now {
			first := s.n
			if all {
				first = from[i]
			}
			for row := max(first-shift, 0); row <= s.n-shift; row++ {
				if row < len(ids) && !slices.Equal(logits[:vocab], pass[row*vocab:][:vocab]) {
					t.Fatalf("batch: other bits in row %d of a text of %d tokens", row, s.n)
				}
				logits = logits[vocab:]
			}
		}
	}
	for _, n := range []int{1, 3} {
		m.threads = n
		m.idle = nil
		got, err := m.Logits(background, ids)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "threads", referenceRows(m, got), pass, 0)
	}
}

// Units of every size, up to several steps of a stack: one pass, pieces and single tokens agree, in level 1 and above
// a stream.
func TestLongUnits(t *testing.T) {
	defer func(n int) { stepRows = n }(stepRows)
	stack := func(hidden, window int) StackConfig {
		return testStack(hidden, 1, 1, 1, 4, 4, window, 100)
	}
	model := func(t *testing.T, chunk, prefix int, above bool) {
		c := Config{ModelType: "photon", FormatVersion: 2, VocabSize: 11, EmbeddingSize: 3, RMSNormEps: 1e-5, BOSTokenID: -1}
		if above {
			c.Levels = append(c.Levels, LevelConfig{ChunkSize: 2, PrefixLength: 1, Chunker: "linear",
				Encoder: stack(4, 3), Decoder: stack(6, 4)})
		}
		c.Levels = append(c.Levels, LevelConfig{ChunkSize: chunk, PrefixLength: prefix, Chunker: "linear",
			Encoder: stack(4, 0), Decoder: stack(4, 0)})
		r := rand.New(rand.NewPCG(uint64(chunk), uint64(prefix)))
		m, _ := randomModel(t, r, c)
		ids := make([]int, (2*chunk+1+r.IntN(chunk))*m.cfg.MetaContext()/chunk)
		for i := range ids {
			ids[i] = r.IntN(c.VocabSize)
		}
		pass, err := m.Logits(background, ids)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range []int{1, chunk/2 + 1, chunk + 3, len(ids)} {
			s := m.NewSession()
			for s.Len() < len(ids) {
				if err := s.Append(background, ids[s.Len():min(s.Len()+piece, len(ids))]...); err != nil {
					t.Fatal(err)
				}
				if n := s.Len(); n < len(ids) && !slices.Equal(s.Logits(), pass[n*11:][:11]) {
					t.Fatalf("chunks of %d, prefix %d, pieces of %d, steps of %d: other bits after %d tokens",
						chunk, prefix, piece, stepRows, n)
				}
			}
		}
	}
	stepRows = 8
	for chunk := 1; chunk <= 40; chunk++ {
		for prefix := range 3 {
			model(t, chunk, prefix, false)
			model(t, chunk, prefix, true)
		}
	}
	stepRows = 256
	for _, chunk := range []int{255, 256, 257, 300, 513} {
		model(t, chunk, 1, false)
		model(t, chunk, 0, true)
	}
}

// RecGen names what it cannot run.
func TestRecGenRefusesFormat2(t *testing.T) {
	local := func(change func(c *Config)) Config {
		c := photonConfig()
		c.FormatVersion = 2
		c.Levels[0].Decoder.SlidingWindow = 0
		change(&c)
		return c
	}
	for says, c := range map[string]Config{
		"token_encoder": local(func(c *Config) {
			s := testStack(6, 1, 1, 1, 6, 8, 0, 0)
			c.TokenEncoder = &s
		}),
		`content "states"`:          local(func(c *Config) { c.Content, c.Levels[0].Decoder.HiddenSize = "states", 6 }),
		"levels[1].prefix_length 0": local(func(c *Config) { c.Levels[1].PrefixLength = 0 }),
		"levels[0].decoder.memories": local(func(c *Config) {
			c.Levels[0].Decoder.Memories = format2Config().Levels[0].Decoder.Memories[1:]
			c.Levels[0].Decoder.Memories[0].Layers = []int{0}
		}),
		"levels[0].encoder.sliding_window, a list": local(func(c *Config) {
			c.Levels[0].Encoder.SlidingWindow, c.Levels[0].Encoder.Windows = 0, []int{7, 0}
		}),
	} {
		m, _ := randomModel(t, rand.New(rand.NewPCG(1, 2)), c)
		checkRefused(t, m.NewSession(Mode(RecGen)).Append(background, 1), ErrUnsupported, says, "HierGen")
		if err := m.NewSession(Mode(HierGen)).Append(background, 1); err != nil {
			t.Error(err)
		}
	}
	m, _ := randomModel(t, rand.New(rand.NewPCG(1, 2)), local(func(c *Config) {}))
	if err := m.NewSession(Mode(RecGen)).Append(background, 1); err != nil {
		t.Errorf("format 2 that uses nothing of it: %v", err)
	}
}

// A memory of several blocks of positions, whose rows threads share: near the reference, and the same bits in every way.
func TestDeepMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("2,600 tokens, row by row")
	}
	decoder := testStack(12, 2, 2, 1, 4, 8, 8, 100)
	decoder.Memories = []MemoryConfig{
		{Level: 0, Layers: []int{0, 1}, Heads: 13, KVHeads: 1, HeadDim: 4, RopeTheta: 1000},
		{Level: 0, Layers: []int{1}, Heads: 2, KVHeads: 2, HeadDim: 6, SlidingWindow: 1500},
		{Level: 1, Layers: []int{1}, Heads: 2, KVHeads: 1, HeadDim: 6, Unpack: true},
	}
	c := Config{ModelType: "photon", FormatVersion: 2, VocabSize: 13, EmbeddingSize: 12, Content: "states", RMSNormEps: 1e-5, BOSTokenID: -1,
		Levels: []LevelConfig{{ChunkSize: 4, Chunker: "linear", Encoder: testStack(6, 1, 1, 1, 4, 8, 16, 100), Decoder: decoder}}}
	r := rand.New(rand.NewPCG(79, 0))
	m, f := randomModel(t, r, c, WithThreads(3))
	ids := make([]int, 2600)
	for i := range ids {
		ids[i] = r.IntN(c.VocabSize)
	}
	pass, err := m.Logits(background, ids)
	if err != nil {
		t.Fatal(err)
	}
	agrees(t, c, referenceRows(m, pass), f.run(ids), 1e-3) // of logits of up to 10
	for _, threads := range []int{1, 3} {
		m.threads, m.idle = threads, nil
		s := m.NewSession()
		for _, n := range []int{1000, 7, 17, 1, 1, 1000, 24, 1, 500, 48} { // 1,024 and 2,048 rows among them
			if err := s.Append(background, ids[s.Len():s.Len()+n]...); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Logits(), pass[s.Len()*13:][:13]) {
				t.Errorf("%d threads: other bits after %d tokens", threads, s.Len())
			}
		}
	}
}
