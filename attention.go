package photon

import (
	"math"
	"sync/atomic"
)

const (
	// attentionBlock is the number of positions whose scores a tile holds at a time. Blocks begin at its multiples, whatever a row sees.
	attentionBlock  = 1024
	attentionStride = attentionBlock + 16 // not a power of two: rows of scores would fall on the same cache lines
	tileQueries     = 12                  // queries that share a pass over keys and values; a multiple of what the kernels take
	attentionPart   = 1 << 15             // multiply-adds that are worth handing to another thread
)

// attentionShape is what attention has to know of a stack, or of one of its memories.
type attentionShape struct {
	heads, kvHeads, dim int
	inverse             []float64 // [dim/2] RoPE frequencies; empty without rotation
}

// group is the number of query heads that share a kv head.
func (a *attentionShape) group() int { return a.heads / a.kvHeads }

// qWidth is the width of a row of queries, qkvWidth that of one with its keys and values.
func (a *attentionShape) qWidth() int   { return a.heads * a.dim }
func (a *attentionShape) qkvWidth() int { return (a.heads + 2*a.kvHeads) * a.dim }

func newAttentionShape(c StackConfig) attentionShape {
	a := attentionShape{heads: c.Heads, kvHeads: c.KVHeads, dim: c.HeadDim}
	if c.RopeTheta > 0 {
		a.inverse = make([]float64, c.HeadDim/2)
		for i := range a.inverse {
			a.inverse[i] = c.RopeScaling.scale(math.Pow(c.RopeTheta, -2*float64(i)/float64(c.HeadDim)), i)
		}
	}
	return a
}

// attentionTask is causal attention of one layer for the rows of a step: keys and values come from the rows' caches
// and, after those, from the fresh rows of the step.
//
// Its unit is a tile: a few rows of one segment, with the query heads of one kv head, take the positions that they see block by
// block, each with a softmax of its own, and join the blocks in order. The order of a row's sums depends on positions only, so neither its
// company nor the places where keys and values stand can change its bits. Where there are few tiles for the threads,
// these share the blocks of each.
type attentionTask struct {
	ws      *workspace
	shape   *attentionShape
	rows    []rowPlace
	layer   int       // of the rows' caches
	q       []float32 // the queries, a row in qStep
	qStep   int
	tiles   []attentionTile
	cut     int // blocks to a tile, each done by itself; 0: whole tiles are
	perPart int // tiles or blocks
	scratch []attentionScratch
	sums    []float32 // of the blocks of cut tiles, [kv heads × tiles × cut × queries × dim]
	soft    []softmax // and theirs, [… × queries]
}

// attentionTile is a run of rows of a step, all of one segment.
type attentionTile struct{ row, rows int }

// attentionScratch is what a worker needs, for a tile or a block of one at a time.
type attentionScratch struct {
	busy     atomic.Bool
	h        int        // the kv head
	places   []rowPlace // of the tile's rows
	spans    []keySpan  // where the keys and values are that they see
	q        []float32  // [queries × dim], row by row, times 1/sqrt(dim)
	scores   []float32  // [queries × attentionStride]
	narrow   []float32  // [queries × 64], scores with a panel of keys of which not all count
	sums     []float32  // [queries × dim], of a block of positions
	soft     []softmax  // [queries]
	allSums  []float32  // [queries × dim], of the blocks so far
	allSoft  []softmax  // [queries]
	firstRow int        // of the step
}

// attend computes attention of one layer for the rows of the step: queries from ws.qkv, a row in qStep, results in
// ws.mixed.
func (ws *workspace) attend(shape *attentionShape, rows []rowPlace, layer, qStep int) {
	t := &ws.attention
	t.ws, t.shape, t.rows, t.layer, t.q, t.qStep = ws, shape, rows, layer, ws.qkv, qStep
	t.tiles = t.tiles[:0]
	rowsPerTile := max(1, tileQueries/shape.group())
	work, most := 0, 0
	for r := range rows {
		p := &rows[r]
		if p.idle {
			continue
		}
		work += p.visible
		most = max(most, p.position/attentionBlock-p.first()/attentionBlock+1)
		if p.cache != nil {
			p.cache.read += int64(p.visible) * p.cache.layerBytes()
		}
		if n := len(t.tiles) - 1; n >= 0 && t.tiles[n].rows < rowsPerTile && t.tiles[n].row >= p.start {
			t.tiles[n].rows++
		} else {
			t.tiles = append(t.tiles, attentionTile{r, 1})
		}
	}
	if len(t.scratch) < ws.crew.workers {
		t.scratch = make([]attentionScratch, ws.crew.workers)
	}
	queries := rowsPerTile * shape.group()
	for i := range t.scratch {
		t.scratch[i].grow(queries, shape.dim)
	}
	items := len(t.tiles) * shape.kvHeads
	t.cut = 0
	if workers := ws.crew.workers; workers > 1 && items < 4*workers && most > 1 && (items%workers != 0 || most >= 8) {
		t.cut = most + 1 // a tile's rows may begin in different blocks
		items *= t.cut
		t.sums = grow(t.sums, items*queries*shape.dim)
		t.soft = grow(t.soft, items*queries)
	}
	if items == 0 {
		return
	}
	parts := min(items, max(1, 2*work*shape.qWidth()/attentionPart), maxParts)
	t.perPart = (items + parts - 1) / parts
	ws.crew.run(t, (items+t.perPart-1)/t.perPart)
	if t.cut > 0 {
		t.joinCut()
	}
}

func (s *attentionScratch) grow(queries, dim int) {
	s.q = grow(s.q, queries*dim)
	s.scores = grow(s.scores, queries*attentionStride)
	s.narrow = grow(s.narrow, queries*keyPanel)
	s.sums, s.allSums = grow(s.sums, queries*dim), grow(s.allSums, queries*dim)
	s.soft, s.allSoft = grow(s.soft, queries), grow(s.allSoft, queries)
}

// part does a run of (kv head, tile), or of their blocks; the last tiles of a text, which see the most, come first.
func (t *attentionTask) part(i int) {
	s := &t.scratch[0]
	for n := 1; !s.busy.CompareAndSwap(false, true); n++ {
		s = &t.scratch[n%len(t.scratch)]
	}
	defer s.busy.Store(false)
	each := max(1, t.cut)
	for item := i * t.perPart; item < min((i+1)*t.perPart, len(t.tiles)*t.shape.kvHeads*each); item++ {
		from, end := t.begin(s, item/each)
		if t.cut > 0 {
			if block := from + item%each; block < end {
				t.block(s, block)
				copy(t.sums[item*len(s.sums):], s.sums)
				copy(t.soft[item*len(s.soft):], s.soft)
			}
			continue
		}
		for block := from; block < end; block++ {
			t.block(s, block)
			t.join(s, block, s.sums, s.soft)
		}
		t.write(s)
	}
}

// joinCut joins the blocks of cut tiles.
func (t *attentionTask) joinCut() {
	s := &t.scratch[0]
	for n := range len(t.tiles) * t.shape.kvHeads {
		from, end := t.begin(s, n)
		for block := from; block < end; block++ {
			item := n*t.cut + block - from
			t.join(s, block, t.sums[item*len(s.sums):], t.soft[item*len(s.soft):])
		}
		t.write(s)
	}
}

// begin takes up the n-th (kv head, tile) and returns the blocks of positions that it sees, from … end-1.
func (t *attentionTask) begin(s *attentionScratch, n int) (from, end int) {
	tile := t.tiles[len(t.tiles)-1-n%len(t.tiles)]
	s.h, s.firstRow, s.places = n/len(t.tiles), tile.row, t.rows[tile.row:][:tile.rows]
	wide := t.shape.group() * t.shape.dim
	for r := range s.places {
		q := t.q[(tile.row+r)*t.qStep+s.h*wide:][:wide]
		scale(s.q[r*wide:][:wide], q, float32(1/math.Sqrt(float64(t.shape.dim))))
	}
	first, last := s.places[0].first(), s.places[tile.rows-1].position
	s.spans = t.spans(s.spans[:0], s.h, tile, first, last+1)
	return first / attentionBlock, last/attentionBlock + 1
}

// spans appends to list the places of positions first … end-1 for kv head h, in order: cached rows, then fresh ones.
func (t *attentionTask) spans(list []keySpan, h int, tile attentionTile, first, end int) []keySpan {
	start := &t.rows[t.rows[tile.row].start] // the segment's first row
	cached := end
	if start.fresh {
		cached = start.position
	}
	if c := start.cache; c != nil && first < cached {
		list = c.layers[t.layer].spans(list, h, first, cached)
	}
	if cached < end {
		list = append(list, keySpan{&t.ws.fresh, max(first, cached), end, h*t.ws.slots + start.slot - cached})
	}
	return list
}

// first is the first position that a row sees.
func (p *rowPlace) first() int { return p.position + 1 - p.visible }

// block computes the sums of one block of positions and their softmax for the rows that see some of it.
func (t *attentionTask) block(s *attentionScratch, block int) {
	typ, dim, group := t.ws.cacheType, t.shape.dim, t.shape.group()
	places, rows := s.places, len(s.places)
	wide := group * dim
	clear(s.sums[:rows*wide])

	// The first row of the tile sees first … firstEnd-1, the last one lastFirst … end-1.
	first, end := places[0].first(), places[rows-1].position+1
	firstEnd, lastFirst := places[0].position+1, places[rows-1].first()
	from, to := max(block*attentionBlock, first), min((block+1)*attentionBlock, end)
	spans := s.spans
	for spans[0].to <= from {
		spans = spans[1:]
	}
	for n := range spans {
		if spans[n].from >= to {
			spans = spans[:n]
			break
		}
	}
	for i := range spans {
		spans[i].score(typ, s.scores, s.narrow, s.q[:rows*wide], dim, from, to)
	}
	for r := range places {
		if lo, hi := max(from, places[r].first()), min(to, places[r].position+1); lo < hi {
			for i := r * group; i < (r+1)*group; i++ {
				s.soft[i] = weigh(s.scores[i*attentionStride:][lo-from : hi-from])
			}
		}
	}
	// What all rows see is done for all at once; before and after it each row has its own.
	lo, hi := max(from, lastFirst), min(to, firstEnd)
	if lo >= hi {
		lo, hi = to, to
	}
	mix := func(row, rows, lo, hi int) {
		if lo >= hi {
			return
		}
		for i := range spans {
			spans[i].mix(typ, s.sums[row*wide:][:rows*wide], s.scores[row*group*attentionStride:], dim, from, lo, hi)
		}
	}
	for r := range places {
		mix(r, 1, max(from, places[r].first()), min(lo, places[r].position+1))
	}
	mix(0, rows, lo, hi)
	for r := range places {
		mix(r, 1, max(hi, places[r].first()), min(to, places[r].position+1))
	}
}

// join adds the sums of a block to those of the blocks before it, for the rows that see some of it.
func (t *attentionTask) join(s *attentionScratch, block int, sums []float32, soft []softmax) {
	dim, group := t.shape.dim, t.shape.group()
	for r := range s.places {
		firstBlock, lastBlock := s.places[r].first()/attentionBlock, s.places[r].position/attentionBlock
		for i := r * group; i < (r+1)*group; i++ {
			all, sum := s.allSums[i*dim:][:dim], sums[i*dim:][:dim]
			switch {
			case block == firstBlock:
				copy(all, sum)
				s.allSoft[i] = soft[i]
			case block > firstBlock && block <= lastBlock:
				shrink, weight := s.allSoft[i].join(soft[i])
				if shrink != 1 {
					scale(all, all, shrink)
				}
				if weight != 1 {
					scale(sum, sum, weight)
				}
				add(all, sum)
			}
		}
	}
}

// write divides the sums by those of their weights.
func (t *attentionTask) write(s *attentionScratch) {
	dim, group := t.shape.dim, t.shape.group()
	for i := range len(s.places) * group {
		to := ((s.firstRow+i/group)*t.shape.heads + s.h*group + i%group) * dim
		scale(t.ws.mixed[to:][:dim], s.allSums[i*dim:][:dim], 1/s.allSoft[i].sum)
	}
}

// score writes q_i · k for those of positions from … to-1 that are in the span to row i of scores, whose first column is from, and
// up to fifteen numbers that mean nothing behind them. narrow is scratch.
func (s *keySpan) score(t CacheType, scores, narrow, q []float32, dim, from, to int) {
	k, queries := &s.layer.k, len(q)/dim
	most := max(keyPanel, callKeys(t, queries, dim)&^(keyPanel-1))
	for lo, hi := max(from, s.from), min(to, s.to); lo < hi; {
		at, n := s.base+lo, min(most, hi-lo)
		before := at % k.panel // keys of the panel that do not count
		dst, stride := scores[lo-from:], attentionStride
		if before > 0 {
			n = min(n, k.panel-before)
			dst, stride = narrow, keyPanel
		}
		skip := before &^ 15
		m := keyMix(queries, stride, (before+n-skip+15)&^15, k.panel, dim)
		begin := (at-before)*dim + skip
		switch t {
		case CacheF32:
			mixF32(dst, q, k.f32[begin:], &m)
		case CacheF16:
			mixF16(dst, q, k.f16[begin:], &m)
		case CacheInt8:
			mixInt8(dst, q, k.i8[begin:], &m)
		}
		if before > 0 {
			for i := range queries {
				copy(scores[i*attentionStride+lo-from:][:n], narrow[i*keyPanel+before-skip:])
			}
		}
		if t == CacheInt8 {
			for i := range queries {
				mulBy(scores[i*attentionStride+lo-from:][:n], k.scale[at:][:n])
			}
		}
		lo += n
	}
}

// mix adds Σ weight·v over those of positions lo … hi-1 that are in the span, ascending, to out. Row i of weights belongs to row i
// of out, its first column to position from; int8 overwrites it.
func (s *keySpan) mix(t CacheType, out, weights []float32, dim, from, lo, hi int) {
	v, queries := &s.layer.v, len(out)/dim
	most := max(4, callKeys(t, queries, dim))
	for lo, hi := max(lo, s.from), min(hi, s.to); lo < hi; lo += most {
		at, n := s.base+lo, min(most, hi-lo)
		p := weights[lo-from:]
		m := valueMix(queries, attentionStride, n, dim)
		switch t {
		case CacheF32:
			mixF32(out, p, v.f32[at*dim:], &m)
		case CacheF16:
			mixF16(out, p, v.f16[at*dim:], &m)
		case CacheInt8:
			for i := range queries {
				mulBy(p[i*attentionStride:][:n], v.scale[at:][:n])
			}
			mixInt8(out, p, v.i8[at*dim:], &m)
		}
	}
}

// callKeys is the number of keys for one call of a kernel: they stay in the first-level cache while the queries take turns.
func callKeys(t CacheType, queries, dim int) int {
	bytes := 16 << 10
	if queries <= 3 {
		bytes = 64 << 10 // there is one turn
	}
	return bytes / int(t.headBytes(dim))
}
