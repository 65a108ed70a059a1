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

// attentionTask is causal attention of one layer for the rows of a step: queries from ws.qkv, keys and values from the rows' caches
// and, after those, from the fresh rows of the step.
//
// Its unit is a tile: a few rows of one segment, with the query heads of one kv head, walk the positions that they see in ascending
// order, block by block. The order of a row's sums depends on positions only, so neither its company nor the places where keys and
// values stand can change its bits.
type attentionTask struct {
	ws      *workspace
	layer   int
	rows    int
	tiles   []attentionTile
	split   int // into how many parts the query heads of a kv head are cut, so that every thread has some
	perPart int // tiles
	scratch []attentionScratch
}

// attentionTile is a run of rows of a step, all of one segment.
type attentionTile struct{ row, rows int }

// attentionScratch is what a tile needs; a worker holds one while it does a part.
type attentionScratch struct {
	busy   atomic.Bool
	q      []float32 // [queries × dim], row by row, times 1/sqrt(dim)
	out    []float32 // [queries × dim]
	scores []float32 // [queries × attentionStride]
	soft   []softmax // [queries]
	spans  []keySpan
}

// attend computes attention of one layer for the rows of the step.
func (ws *workspace) attend(layer, rows int) {
	c := &ws.stack.cfg
	t := &ws.attention
	t.ws, t.layer, t.rows = ws, layer, rows
	t.tiles = t.tiles[:0]
	group := c.Heads / c.KVHeads
	rowsPerTile := max(1, tileQueries/group)
	work := 0
	for r := range ws.rows {
		p := &ws.rows[r]
		p.visible = p.position + 1
		if p.cache != nil {
			p.visible -= p.cache.first
		}
		if c.SlidingWindow > 0 {
			p.visible = min(p.visible, c.SlidingWindow)
		}
		work += p.visible
		if p.cache != nil {
			p.cache.read += int64(p.visible) * p.cache.rowBytes() / int64(c.Layers)
		}
		if (r-p.start)%rowsPerTile == 0 {
			t.tiles = append(t.tiles, attentionTile{row: r})
		}
		t.tiles[len(t.tiles)-1].rows++
	}
	if len(t.scratch) < ws.crew.workers {
		t.scratch = make([]attentionScratch, ws.crew.workers)
	}
	for i := range t.scratch {
		t.scratch[i].grow(rowsPerTile*group, c.HeadDim)
	}
	t.split = 1
	for t.split < group && (group%t.split != 0 || len(t.tiles)*c.KVHeads*t.split < ws.crew.workers) {
		t.split++
	}
	items := len(t.tiles) * c.KVHeads * t.split
	parts := min(items, max(1, 2*work*c.Heads*c.HeadDim/attentionPart), maxParts)
	if items > 0 {
		t.perPart = (items + parts - 1) / parts
		ws.crew.run(t, (items+t.perPart-1)/t.perPart)
	}
}

func (s *attentionScratch) grow(queries, dim int) {
	s.q = grow(s.q, queries*dim)
	s.out = grow(s.out, queries*dim)
	s.scores = grow(s.scores, queries*attentionStride)
	s.soft = grow(s.soft, queries)
	s.spans = grow(s.spans, 3)
}

// part does a run of (query heads, tile); the last tiles of a text, which see the most, come first.
func (t *attentionTask) part(i int) {
	s := &t.scratch[0]
	for n := 1; !s.busy.CompareAndSwap(false, true); n++ {
		s = &t.scratch[n%len(t.scratch)]
	}
	defer s.busy.Store(false)
	for item := i * t.perPart; item < min((i+1)*t.perPart, len(t.tiles)*t.ws.stack.cfg.KVHeads*t.split); item++ {
		t.attendTile(s, item/len(t.tiles), t.tiles[len(t.tiles)-1-item%len(t.tiles)])
	}
}

// keySpan is a run of positions whose keys and values stand side by side.
type keySpan struct {
	layer    *kvLayer
	from, to int // positions
	base     int // position p stands in row base+p
}

// spans appends to list the places of positions first … end-1 for kv head h, in order: up to two runs of cached rows, one of fresh rows.
func (t *attentionTask) spans(list []keySpan, h int, tile attentionTile, first, end int) []keySpan {
	place := &t.ws.rows[tile.row]
	begin := place.position - (tile.row - place.start) // the segment's first position
	if c := place.cache; c != nil && first < begin {
		a, b := c.spans(first)
		layer, at := &c.layers[t.layer], h*c.capacity-first
		list = append(list, keySpan{layer, first, first + a.n, at + a.at})
		if b.n > 0 {
			list = append(list, keySpan{layer, first + a.n, first + a.n + b.n, at + b.at - a.n})
		}
	}
	return append(list, keySpan{&t.ws.fresh, max(first, begin), end, h*t.rows + place.start - begin})
}

// first is the first position that a row sees.
func (p *rowPlace) first() int { return p.position + 1 - p.visible }

// attendTile computes the h-th set of query heads, those of one kv head or some of them, for the rows of a tile.
func (t *attentionTask) attendTile(s *attentionScratch, h int, tile attentionTile) {
	ws, c := t.ws, &t.ws.stack.cfg
	dim, group := c.HeadDim, c.Heads/c.KVHeads/t.split
	wide := group * dim
	width := (c.Heads + 2*c.KVHeads) * dim
	places := ws.rows[tile.row:][:tile.rows]
	q, out, soft := s.q[:tile.rows*wide], s.out[:tile.rows*wide], s.soft[:tile.rows*group]
	for r := range places {
		scale(q[r*wide:][:wide], ws.qkv[(tile.row+r)*width+h*wide:][:wide], float32(1/math.Sqrt(float64(dim))))
	}
	clear(out)
	for i := range soft {
		soft[i] = newSoftmax()
	}

	// The first row of the tile sees first … firstEnd-1, the last one lastFirst … end-1.
	first, end := places[0].first(), places[len(places)-1].position+1
	firstEnd, lastFirst := places[0].position+1, places[len(places)-1].first()
	s.spans = t.spans(s.spans[:0], h/t.split, tile, first, end)
	for block := first - first%attentionBlock; block < end; block += attentionBlock {
		from, to := max(block, first), min(block+attentionBlock, end)
		for i := range s.spans {
			s.spans[i].score(ws.cacheType, s.scores, q, dim, from, to)
		}
		for r := range places {
			lo, hi := max(from, places[r].first()), min(to, places[r].position+1)
			if lo >= hi {
				continue
			}
			for i := r * group; i < (r+1)*group; i++ {
				if shrink := soft[i].extend(s.scores[i*attentionStride:][lo-from : hi-from]); shrink != 1 {
					scale(out[i*dim:][:dim], out[i*dim:][:dim], shrink)
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
			for i := range s.spans {
				s.spans[i].mix(ws.cacheType, out[row*wide:][:rows*wide], s.scores[row*group*attentionStride:], dim, from, lo, hi)
			}
		}
		for r := range places {
			mix(r, 1, max(from, places[r].first()), min(lo, places[r].position+1))
		}
		mix(0, len(places), lo, hi)
		for r := range places {
			mix(r, 1, max(hi, places[r].first()), min(to, places[r].position+1))
		}
	}
	for i := range soft {
		r, g := i/group, i%group
		scale(ws.mixed[((tile.row+r)*c.Heads+h*group+g)*dim:][:dim], out[i*dim:][:dim], 1/soft[i].sum)
	}
}

// score writes q_i · k for those of positions from … to-1 that are in the span to row i of scores, whose first column is from.
func (s *keySpan) score(t CacheType, scores, q []float32, dim, from, to int) {
	k, step := &s.layer.k, callKeys(t, q, dim)
	for lo, hi := max(from, s.from), min(to, s.to); lo < hi; lo += step {
		at, n := s.base+lo, min(step, hi-lo)
		dst := scores[lo-from:]
		switch t {
		case CacheF32:
			scoreF32(dst, attentionStride, q, k.f32[at*dim:][:n*dim], dim)
		case CacheF16:
			scoreF16(dst, attentionStride, q, k.f16[at*dim:][:n*dim], dim)
		case CacheInt8:
			scoreInt8(dst, attentionStride, q, k.i8[at*dim:][:n*dim], dim)
			for i := range len(q) / dim {
				mulBy(dst[i*attentionStride:][:n], k.scale[at:][:n])
			}
		}
	}
}

// mix adds Σ weight·v over those of positions lo … hi-1 that are in the span, ascending, to out. Row i of weights belongs to row i
// of out, its first column to position from; int8 overwrites it.
func (s *keySpan) mix(t CacheType, out, weights []float32, dim, from, lo, hi int) {
	v, step := &s.layer.v, callKeys(t, out, dim)
	for lo, hi := max(lo, s.from), min(hi, s.to); lo < hi; lo += step {
		at, n := s.base+lo, min(step, hi-lo)
		p := weights[lo-from:]
		switch t {
		case CacheF32:
			mixF32(out, p, attentionStride, v.f32[at*dim:][:n*dim], dim)
		case CacheF16:
			mixF16(out, p, attentionStride, v.f16[at*dim:][:n*dim], dim)
		case CacheInt8:
			for i := range len(out) / dim {
				mulBy(p[i*attentionStride:][:n], v.scale[at:][:n])
			}
			mixInt8(out, p, attentionStride, v.i8[at*dim:][:n*dim], dim)
		}
	}
}

// callKeys is the number of keys for one call of a kernel: they stay in the first-level cache while the queries take turns.
func callKeys(t CacheType, q []float32, dim int) int {
	bytes := 16 << 10
	if len(q) <= 3*dim {
		bytes = 64 << 10 // there is one turn
	}
	return max(4, bytes/int(t.headBytes(dim))&^3)
}
