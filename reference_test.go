package photon

import (
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
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
		values, err := readAll(os.DirFS(g.dir), specsOf(m.cfg), m.cfg.copies())
		if err != nil {
			t.Fatal(err)
		}
		near(t, "logits", (&reference{m.cfg, values}).run(g.ids), g.floats["logits"], 1e-5*g.largest)
	})
}
