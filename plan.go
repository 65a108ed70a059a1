package photon

import (
	"fmt"
	"math"
	"unsafe"
)

// loadPlan is what a model takes by its config and the options alone: bytes, and multiply-adds. Tensors are bounded by
// the file, but a few numbers of a config cost far more than they add to it.
type loadPlan struct {
	weights int64          // as held: matrices in whole panels, tables, vectors
	reading int64          // beside them while tensors are read
	buffers map[string]due // of one call, by what they hold; each is as large as its largest use
	state   int64          // of the text without tokens, as the model keeps it and as one session does
	begin   int64          // multiply-adds of that state, which load computes
	step    int64          // and of the token that costs most: it ends a unit of every level and begins another

	m     *Model
	rows  int64
	worst due // the largest contribution to all, and what in the config makes it
	slow  due // the same of multiply-adds
}

// due is an amount, and what in the config it is due to.
type due struct {
	n   int64
	key string
}

// Small models may take so much more than their files; others so many times what they have.
const (
	freeBytes = 1 << 28 // beside 8 bytes for each that is stored
	timesFile = 8
	freeWork  = 1 << 32 // multiply-adds, beside 256 for each weight
	timesWork = 256

	mostPiece  = 1 << 16 // tokens of a piece
	mostLogits = 1 << 24 // values of a block of rows of logits that Score and Logits compute at once, if there is more than one row
	mostRecGen = 1 << 30 // bytes of RecGen's meta-context
)

// memory is the bytes that a loaded model takes with one call running and one session. What loading took is among them:
// it may be long until the garbage collector finds that it is free.
func (p *loadPlan) memory() int64 {
	return addSaturating(addSaturating(p.weights, p.reading), addSaturating(p.scratch(), p.state))
}

// scratch is what one call takes.
func (p *loadPlan) scratch() (n int64) {
	for _, b := range p.buffers {
		n = addSaturating(n, b.n)
	}
	return n
}

// check holds the plan against the files' size and the caller's limit.
func (p *loadPlan) check(stored, elements int64, o *loadOptions) error {
	if limit := addSaturating(freeBytes, mulSaturating(timesFile, stored)); p.memory() > limit {
		return fmt.Errorf("photon: %s: %s: the weights take %d bytes held %v, one call %d and the empty text %d: "+
			"more than %d, which is %d and %d times the files: make it smaller: %w", configFile, p.worst.key, p.weights,
			o.weights, p.scratch(), p.state, limit, freeBytes, timesFile, ErrUnsupported)
	}
	if limit := addSaturating(freeWork, mulSaturating(timesWork, elements)); max(p.begin, p.step) > limit {
		return fmt.Errorf("photon: %s: %s: the first state takes %d multiply-adds, a token up to %d: more than %d, which "+
			"is %d and %d for each weight: make it smaller: %w", configFile, p.slow.key, p.begin, p.step, limit, int64(freeWork),
			timesWork, ErrUnsupported)
	}
	if p.memory() > math.MaxInt {
		return fmt.Errorf("photon: the model takes %d bytes, more than 32 bits can address: use a 64-bit platform: %w",
			p.memory(), ErrUnsupported)
	}
	if o.memoryLimit > 0 && p.memory() > o.memoryLimit {
		return fmt.Errorf("photon: the model takes %d bytes, the limit is %d: weights %d held %v, the largest tensor while "+
			"it is read %d, one call %d (most of it for %s), the empty text %d: raise WithMemoryLimit, hold the weights "+
			"smaller with WithWeights, or use fewer threads: %w", p.memory(), o.memoryLimit, p.weights, o.weights,
			p.reading, p.scratch(), p.worst.key, p.state, ErrMemoryLimit)
	}
	return nil
}

// plan finds what a model takes whose shape is built, but whose weights are not read.
func (m *Model) plan(weights *checkpoint) loadPlan {
	p := loadPlan{m: m, rows: int64(stepRows), buffers: map[string]due{}}
	c := &m.cfg
	p.readingOf(weights)
	for t := range c.tensors() {
		if len(t.shape) == 1 {
			p.weights += 4 * t.elements()
		}
	}
	for _, t := range []*table{&m.encoderTable, &m.decoderTable} {
		p.held("vocab_size", mulSaturating(t.rowBytes, int64(c.VocabSize)))
	}
	p.matrix("vocab_size", m.head, p.logitRows())
	vocab := int64(c.VocabSize)
	p.buffer("logits", "vocab_size", 4*vocab*p.logitRows())
	p.buffer("sampler", "vocab_size", vocab*int64(unsafe.Sizeof(candidate{})+8))
	p.kept("vocab_size", 4*vocab)

	piece := int64(m.pieceTokens())
	work := mulSaturating(vocab, int64(m.head.in)) // of a token
	if m.tokenEncoder != nil {
		work = addSaturating(work, p.stack("token_encoder.", m.tokenEncoder, 1, piece))
	}
	units := piece
	for i, e := range m.encoders {
		at := fmt.Sprintf("levels[%d].", i)
		below := units
		units = max(1, units/int64(e.chunk))
		wide := int64(e.chunk) * int64(e.below)
		p.buffer("joined", at+"chunk_size", 4*mulSaturating(units, wide))
		if e.proj != nil {
			p.matrix(at+"chunk_size", e.proj, units)
			work = addSaturating(work, mulSaturating(wide, int64(e.width())))
		}
		work = addSaturating(work, p.stack(at+"encoder.", e.stack, 1, units))
		p.decoder(at, m.decoders[i], below, units)
	}
	if c.Flat() {
		work = addSaturating(work, p.stack("", m.decoders[0].stack, 1, piece))
	}
	p.step = addSaturating(work, p.begin)
	return p
}

// decoder counts a decoder that reads units of its level, of which a piece has so many, and children.
func (p *loadPlan) decoder(at string, d *decoder, children, units int64) {
	prefix, w := int64(max(d.prefix, 1)), int64(d.width())
	key := at + "prefix_length"
	p.matrix(key, d.converter, units+1)
	p.buffer("prefixes", key, 4*mulSaturating(units+1, int64(d.converter.out)))
	p.buffer("input", key, 4*mulSaturating((units+1)*int64(d.unit()), w))
	p.buffer("xhat", key, 8*mulSaturating(children+1, w))
	begin := addSaturating(p.stack(at+"decoder.", d.stack, prefix, (units+1)*int64(d.unit())),
		mulSaturating(int64(d.converter.out), int64(d.converter.in)))
	p.begin = addSaturating(p.begin, begin)
	if begin > p.slow.n {
		p.slow = due{begin, fmt.Sprintf("%s %d", key, d.prefix)}
	}
	for e, y := range d.stack.memories {
		at := fmt.Sprintf("%sdecoder.memories[%d].", at, e)
		rows := max(1, mulSaturating(children, int64(y.perUnit))/int64(y.span))
		p.matrix(at+"num_key_value_heads", y.kv, rows)
		p.buffer("h", at+"level", 4*mulSaturating(rows, int64(y.kv.in)))
		p.buffer("qkv", at+"num_key_value_heads", 4*mulSaturating(rows, int64(y.kv.out)))
		if y.unpack != nil {
			p.matrix(at+"unpack", y.unpack, max(1, rows/int64(y.perUnit)))
			p.buffer("unpacked", at+"unpack", 4*mulSaturating(rows, int64(y.kv.in)))
		}
		p.attention(at, &y.shape)
		p.cache(at, 1, y.shape.kvHeads, y.shape.dim)
	}
}

// stack counts a stack whose calls have at most most rows, and returns the multiply-adds of the first rows of a text.
func (p *loadPlan) stack(at string, s *stack, rows, most int64) int64 {
	d, f := int64(s.cfg.HiddenSize), int64(s.cfg.IntermediateSize)
	q, qkv, half := int64(s.shape.qWidth()), int64(s.shape.qkvWidth()), int64(len(s.shape.inverse))
	heads, mlp := at+"num_attention_heads", at+"intermediate_size"
	p.buffer("units", at+"hidden_size", 4*mulSaturating(most, d))
	p.buffer("h", at+"hidden_size", 4*p.rows*d)
	p.buffer("gateUp", mlp, 4*p.rows*2*f)
	p.buffer("gated", mlp, 4*p.rows*f)
	p.buffer("qkv", heads, 4*p.rows*qkv)
	p.buffer("mixed", heads, 4*p.rows*q)
	p.buffer("turns", at+"head_dim", 8*p.rows*half)
	p.buffer("rows", at, p.rows*int64(unsafe.Sizeof(rowPlace{})))
	fresh := int64(2*s.shape.kvHeads) * p.m.cacheType.headBytes(s.shape.dim)
	p.buffer("fresh", at+"num_key_value_heads", mulSaturating(2*p.rows, fresh))
	p.attention(at, &s.shape)
	params := int64(0)
	for i := range s.layers {
		y := &s.layers[i]
		for _, w := range []struct {
			key string
			w   *matrix
		}{{heads, y.qkv}, {heads, y.out}, {mlp, y.gateUp}, {mlp, y.down}} {
			p.matrix(w.key, w.w, p.rows)
			params += int64(w.w.out) * int64(w.w.in)
		}
		for _, e := range y.memories {
			key := fmt.Sprintf("%smemories[%d].num_attention_heads", at, e.memory)
			p.matrix(key, e.query, p.rows)
			p.matrix(key, e.out, p.rows)
			p.buffer("qkv", key, 4*mulSaturating(p.rows, int64(e.query.out)))
			p.buffer("mixed", key, 4*mulSaturating(p.rows, int64(e.query.out)))
			params += 2 * int64(e.query.out) * int64(e.query.in)
		}
	}
	work := mulSaturating(rows, params)
	for i := range s.layers {
		seen := rows
		if w := s.cfg.window(i); w > 0 {
			seen = min(seen, int64(w))
		}
		// Scores, and sums of values, of (rows+1)/2 positions on average.
		work = addSaturating(work, mulSaturating(mulSaturating(rows, seen+1), q))
		p.cache(at, rows, s.shape.kvHeads, s.shape.dim)
	}
	return work
}

// attention counts each worker's tile of queries: those of a kv head stay together.
func (p *loadPlan) attention(at string, a *attentionShape) {
	queries := int64(max(1, tileQueries/a.group())) * int64(a.group())
	per := int64(3*4*a.dim) + 4*(attentionStride+keyPanel) + 2*int64(unsafe.Sizeof(softmax{}))
	p.buffer("attention", at+"num_attention_heads", mulSaturating(mulSaturating(queries, per), int64(p.m.threads)))
}

// cache counts the keys and values of the empty text, whole panels of them: the model's and a session's.
func (p *loadPlan) cache(at string, rows int64, kvHeads, dim int) {
	row := 2 * int64(kvHeads) * p.m.cacheType.headBytes(dim)
	p.kept(at+"num_key_value_heads", mulSaturating(2*int64(wholePanels(int(rows))), row))
}

// matrix counts a matrix, and what its products with so many rows take.
func (p *loadPlan) matrix(key string, w *matrix, rows int64) {
	p.held(key, w.bytes())
	in := int64(w.in + 1)
	switch w.form {
	case BF16, bf16Rounded:
		p.buffer("padded", key, 4*mulSaturating(rows, in))
	case Int8, Int4:
		p.buffer("quant", key, mulSaturating(rows, int64(w.groups())*int64(unsafe.Sizeof(quantGroup{}))))
	}
	if w.out%panelWidth != 0 {
		p.buffer("edge", key, 4*rows*panelWidth)
	}
}

func (p *loadPlan) held(key string, n int64) {
	p.weights = addSaturating(p.weights, n)
	p.blame(key, n)
}

func (p *loadPlan) kept(key string, n int64) {
	p.state = addSaturating(p.state, n)
	p.blame(key, n)
}

func (p *loadPlan) buffer(what, key string, n int64) {
	if n > p.buffers[what].n {
		p.buffers[what] = due{n, key}
		p.blame(key, n)
	}
}

func (p *loadPlan) blame(key string, n int64) {
	if n > p.worst.n {
		p.worst = due{n, key}
	}
}

// readingOf counts the largest tensor as it is stored, with its scales as they are stored and as they are used.
func (p *loadPlan) readingOf(c *checkpoint) {
	for i := range c.tensors {
		t := &c.tensors[i]
		n := t.end - t.begin
		if t.partner >= 0 {
			s := &c.tensors[t.partner]
			n += 3 * (s.end - s.begin)
		}
		p.reading = max(p.reading, n)
	}
}

// logitRows is how many rows of logits Score and Logits compute at once.
func (m *Model) logitRows() int { return max(1, min(stepRows, mostLogits/m.cfg.VocabSize)) }

func (p *loadPlan) logitRows() int64 { return int64(p.m.logitRows()) }

// recGenBytes is what RecGen keeps of a meta-context: its tokens' logits, and caches of all of its units.
func (m *Model) recGenBytes() int64 {
	units := int64(m.cfg.MetaContext())
	n := mulSaturating(units, 4*int64(m.cfg.VocabSize)+8)
	for _, d := range m.decoders {
		units /= int64(d.chunk)
		c := d.stack.cfg
		row := 2 * int64(c.KVHeads) * m.cacheType.headBytes(c.HeadDim) * int64(c.Layers)
		n = addSaturating(n, mulSaturating(units, mulSaturating(int64(wholePanels(d.unit())), row)))
		n = addSaturating(n, mulSaturating(8*units, int64(d.unit()*d.width())))
	}
	return n
}
