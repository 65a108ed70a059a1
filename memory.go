package photon

// memory is what some layers of a decoder see beside their own rows: a key and a value for each finished unit of a
// level, computed once, when the encoder has made the unit, and those of a learned row, the sink, before them. A text
// keeps them in a kvCache of one layer.
type memory struct {
	level   int // of the units; 0: tokens
	span    int // children of the decoder in a unit
	perUnit int // rows in a unit
	window  int // rows that a row sees; 0: no bound
	shape   attentionShape
	keys    attentionShape // without queries
	eps     float32
	norm    []float32 // [D]
	kv      *matrix   // [2·kvHeads·headDim × D]: keys and values below one another
	sink    []float32 // [D]
	begun   *kvCache  // that of a text without tokens: the sink

	// Where the rows of a unit are its children: what its state adds to theirs.
	unpack     *matrix   // [perUnit·D × D of the unit]
	unpackBias []float32 // [perUnit·D]
}

// memoryAttention is what a layer needs to see a memory.
type memoryAttention struct {
	memory int       // of the stack
	norm   []float32 // [d]
	query  *matrix   // [heads·headDim × d]
	out    *matrix   // [d × heads·headDim]
}

// memoryRows are the rows of a step as a memory sees them: each stands where the last row does that it sees.
type memoryRows struct {
	rows     []rowPlace
	cos, sin []float32 // [rows × headDim/2]
}

func newMemory(c MemoryConfig, eps float64) *memory {
	m := &memory{level: c.Level, span: 1, window: c.SlidingWindow, eps: float32(eps)}
	m.shape = newAttentionShape(c.stack())
	m.keys = m.shape
	m.keys.heads = 0
	return m
}

// beginSinks computes what every text's memories begin with.
func (m *Model) beginSinks(ws *workspace) {
	for _, d := range m.decoders {
		for _, y := range d.stack.memories {
			c := y.shape
			y.begun = newKVCache(ws.cacheType, StackConfig{Layers: 1, KVHeads: c.kvHeads, HeadDim: c.dim})
			ws.list = append(ws.list[:0], segment{cache: y.begun, rows: 1})
			y.keep(ws, y.sink, ws.list)
		}
	}
}

// keep appends rows of states, those of segs one after another, to the caches of segs.
func (m *memory) keep(ws *workspace, states []float32, segs []segment) {
	width := len(m.norm)
	rows := len(states) / width
	ws.h = grow(ws.h, rows*width)
	ws.qkv = grow(ws.qkv, rows*m.keys.qkvWidth())
	ws.x, ws.normed, ws.normWeight, ws.eps = states, ws.h, m.norm, m.eps
	ws.eachRow(normRows, rows, width)
	m.kv.mul(&ws.crew, &ws.mulTask, ws.qkv, ws.h, rows)
	ws.shape, ws.layer = &m.keys, 0
	ws.segments = append(ws.segments[:0], segs...)
	ws.place(0, 0, rows)
	ws.cos, ws.sin = ws.turns(&m.keys, ws.rows, ws.cos, ws.sin)
	ws.eachRow(keepRows, rows, m.keys.qkvWidth())
	for _, seg := range segs {
		seg.cache.advance(seg.rows)
		seg.cache.written += int64(seg.rows) * seg.cache.layerBytes()
	}
	ws.x, ws.normed = nil, nil
}

// remember has every memory of a level keep its new states [rows × D], those of the sequences one after another; news
// are their numbers.
func (m *Model) remember(ws *workspace, level int, seqs []*sequence, states []float32, news []int) {
	for l, d := range m.decoders {
		for e, y := range d.stack.memories {
			if y.level != level {
				continue
			}
			ws.kept = ws.kept[:0]
			for i, s := range seqs {
				if news[i] > 0 {
					ws.kept = append(ws.kept, segment{cache: s.dec[l].memories[e], rows: news[i] * y.perUnit})
				}
			}
			rows := states
			if y.unpack != nil {
				rows = m.unpack(ws, y, seqs, states, news)
			}
			y.keep(ws, rows, ws.kept)
		}
	}
}

// unpack returns the rows that new units are as their children.
func (m *Model) unpack(ws *workspace, y *memory, seqs []*sequence, states []float32, news []int) []float32 {
	units, width := len(states)/y.unpack.in, len(y.norm)
	ws.unpacked = grow(ws.unpacked, units*y.unpack.out)
	ws.child = grow(ws.child, width)
	y.unpack.mul(&ws.crew, &ws.mulTask, ws.unpacked, states, units)
	addBias(ws.unpacked, y.unpackBias, units)
	to := ws.unpacked
	for i, s := range seqs {
		end := s.states[y.level-1].end(y.unpack.in)
		for u := (end - news[i]) * y.perUnit; u < end*y.perUnit; u++ {
			m.state(ws.child, s, y.level-1, u)
			add(to[:width], ws.child)
			to = to[width:]
		}
	}
	return ws.unpacked
}

// remembersTokens tells of a memory of level 0.
func (m *Model) remembersTokens() bool {
	for _, d := range m.decoders {
		for _, y := range d.stack.memories {
			if y.level == 0 {
				return true
			}
		}
	}
	return false
}

// rows is how many rows of a memory a decoder row sees, or could without a window, that predicts a child with so many
// before it.
func (m *memory) rows(children int) int { return 1 + children/m.span*m.perUnit }

// firstKept is the first row that a text keeps, which has the first rows of a memory and will add to them.
func (m *memory) firstKept(rows int) int {
	if m.window == 0 {
		return 0
	}
	return max(0, rows-m.window)
}

// placeMemories notes what the rows of ws.segments see of the memories of s, by the number of children before what
// each predicts.
func (ws *workspace) placeMemories(s *stack) {
	seen := ws.seenNow
	for len(ws.memories) < len(s.memories) {
		ws.memories = append(ws.memories, memoryRows{})
	}
	for e, m := range s.memories {
		v := &ws.memories[e]
		v.rows = grow(v.rows, len(seen))
		r, start := 0, 0
		for i := range ws.segments {
			seg := &ws.segments[i]
			if i > 0 && seg.memories[e] != ws.segments[i-1].memories[e] { // the segments of one text share tiles
				start = r
			}
			for range seg.rows {
				p := rowPlace{cache: seg.memories[e], start: start, visible: m.rows(seen[r])}
				p.position, p.turn = p.visible-1, seen[r]/(m.span/m.perUnit)
				if m.window > 0 {
					p.visible = min(p.visible, m.window)
				}
				v.rows[r] = p
				r++
			}
		}
		v.rows = v.rows[:r]
	}
}

// turnMemories prepares the rotations of their queries.
func (ws *workspace) turnMemories(s *stack) {
	for e, m := range s.memories {
		v := &ws.memories[e]
		v.cos, v.sin = ws.turns(&m.shape, v.rows, v.cos, v.sin)
	}
}

// recall adds what a layer's j-th memory tells the rows of a step.
func (ws *workspace) recall(l *layer, j, rows int) {
	y := l.memories[j]
	shape := &ws.stack.memories[y.memory].shape
	ws.recalled = y.memory
	ws.qkv = grow(ws.qkv, rows*shape.qWidth())
	ws.mixed = grow(ws.mixed, rows*shape.qWidth())
	y.query.mul(&ws.crew, &ws.mulTask, ws.qkv, ws.h, rows)
	if len(shape.inverse) > 0 {
		ws.eachRow(turnRows, rows, shape.qWidth())
	}
	ws.attend(shape, ws.memories[y.memory].rows, 0, shape.qWidth(), false)
	y.out.mul(&ws.crew, &ws.mulTask, ws.h, ws.mixed, rows)
	ws.normWeight = l.attentionNorm
	if j+1 < len(l.memories) {
		ws.normWeight = l.memories[j+1].norm
	}
	ws.eachRow(addNormRows, rows, 2*len(ws.normWeight))
}

// turnRows rotates the queries for a memory.
func turnRows(ws *workspace, lo, hi int) {
	a, v := &ws.stack.memories[ws.recalled].shape, &ws.memories[ws.recalled]
	half := len(a.inverse)
	for r := lo; r < hi; r++ {
		for h := range a.heads {
			rotate(ws.qkv[(r*a.heads+h)*a.dim:][:a.dim], v.cos[r*half:][:half], v.sin[r*half:][:half])
		}
	}
}
