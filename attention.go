package photon

import (
	"math"
	"slices"
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
// Its unit is a tile: a few rows, with the query heads of one kv head, take the positions that they see block by block,
// each with a softmax of its own, and join the blocks in order. They are of one segment, or of texts that share their
// first keys: what all see is read once. The order of a row's sums depends on positions only, so neither its company
// nor the places where keys and values stand can change its bits. Where there are few tiles for the threads, these
// share the blocks of each.
type attentionTask struct {
	ws      *workspace
	shape   *attentionShape
	rows    []rowPlace
	layer   int       // of the rows' caches
	q       []float32 // the queries, a row in qStep
	qStep   int
	tiles   []attentionTile
	items   []attentionItem
	cut     int // blocks to an item, each done by itself; 0: whole items are
	perPart int // items or blocks
	scratch []attentionScratch
	sums    []float32 // of the blocks of cut tiles, [kv heads × tiles × cut × queries × dim]
	soft    []softmax // and theirs, [… × queries]
}

// attentionTile is a run of rows of a step: of one segment, or forks, each the only row of its segment, whose caches
// begin with the same part.
type attentionTile struct {
	row, rows int
	forks     bool
	keeps     bool // its rows are all of their segments, and their keys and values are still to be stored
}

// attentionItem is a tile with the query heads of one kv head.
type attentionItem struct{ tile, head int32 }

// attentionScratch is what a worker needs, for a tile or a block of one at a time.
type attentionScratch struct {
	busy    atomic.Bool
	h       int        // the kv head
	places  []rowPlace // of the tile's rows
	spans   []keySpan  // where the keys and values are that they see; of forks: that the first of them sees
	tile    attentionTile
	common  int                    // the position up to which these are the same for all
	forks   [tileQueries][]keySpan // those of each fork
	q       []float32              // [queries × dim], row by row, times 1/sqrt(dim)
	scores  []float32              // [queries × attentionStride]
	narrow  []float32              // [queries × 64], scores with a panel of keys of which not all count
	sums    []float32              // [queries × dim], of a block of positions
	soft    []softmax              // [queries]
	allSums []float32              // [queries × dim], of the blocks so far
	allSoft []softmax              // [queries]
}

// attend computes attention of one layer for the rows of the step: queries from ws.qkv, a row in qStep, results in
// ws.mixed. keep: the rows' own keys and values follow the queries, and are stored first.
func (ws *workspace) attend(shape *attentionShape, rows []rowPlace, layer, qStep int, keep bool) {
	t := &ws.attention
	t.ws, t.shape, t.rows, t.layer, t.q, t.qStep = ws, shape, rows, layer, ws.qkv, qStep
	t.tiles = t.tiles[:0]
	rowsPerTile := max(1, tileQueries/shape.group())
	work, most := 0, 0
	for r := range rows {
		p := &rows[r]
		if p.kept = false; p.idle {
			continue
		}
		work += p.visible
		most = max(most, p.position/attentionBlock-p.first()/attentionBlock+1)
		if p.cache != nil {
			p.cache.read += int64(p.visible) * p.cache.layerBytes()
		}
		if n := len(t.tiles) - 1; n >= 0 && t.tiles[n].rows < rowsPerTile && t.joins(&t.tiles[n], r) {
			t.tiles[n].rows++
		} else {
			t.tiles = append(t.tiles, attentionTile{row: r, rows: 1})
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
	if keep {
		t.keep()
	}
	if items == 0 {
		return
	}
	t.order()
	parts := min(items, max(1, 2*work*shape.qWidth()/attentionPart), maxParts)
	t.perPart = (items + parts - 1) / parts
	ws.crew.run(t, (items+t.perPart-1)/t.perPart)
	if t.cut > 0 {
		t.joinCut()
	}
}

// keep stores the keys and values of the rows, but for those of tiles that need no others of the step: these store
// their own, just before they read what stands beside them. Fresh rows of different texts stand side by side, where the
// reading of one, sixteen keys at a time, would meet the writing of the next.
func (t *attentionTask) keep() {
	kept := 0
	for i := range t.tiles {
		tile := &t.tiles[i]
		end := tile.row + tile.rows
		whole := t.rows[tile.row].start == tile.row && (end == len(t.rows) || t.rows[end].start == end)
		fresh := slices.ContainsFunc(t.rows[tile.row:end], func(p rowPlace) bool { return p.fresh })
		if tile.keeps = whole && t.cut == 0 && !fresh; tile.keeps {
			for r := tile.row; r < end; r++ {
				t.rows[r].kept = true
			}
			kept += tile.rows
		}
	}
	if kept < len(t.rows) {
		t.ws.eachRow(keepRows, len(t.rows), t.shape.qWidth())
	}
}

// order lists the items: head by head where tiles see the same keys, which then stay in the caches, the last tiles of a
// text, which see the most, first; and all heads of a text that has its keys for itself, which stand side by side.
func (t *attentionTask) order() {
	t.items = t.items[:0]
	for from, end := 0, 0; from < len(t.tiles); from = end {
		for end = from + 1; end < len(t.tiles) && t.sameKeys(&t.tiles[from], &t.tiles[end]); {
			end++
		}
		for h := range t.shape.kvHeads {
			for i := end - 1; i >= from; i-- {
				t.items = append(t.items, attentionItem{int32(i), int32(h)})
			}
		}
	}
}

// sameKeys says whether two tiles are of one segment, or of forks of one text.
func (t *attentionTask) sameKeys(a, b *attentionTile) bool {
	x, y := &t.rows[a.row], &t.rows[b.row]
	return x.start == y.start || a.forks && b.forks && x.cache.layers[t.layer].parts[0] == y.cache.layers[t.layer].parts[0]
}

// joins says whether row r of the step can be the next of a tile, and notes where it then is one of forks.
func (t *attentionTask) joins(tile *attentionTile, r int) bool {
	if tile.row >= t.rows[r].start {
		return true
	}
	if last := tile.row + tile.rows - 1; last+1 != r || t.rows[last].start != last || !t.single(r) {
		return false
	}
	a, b := &t.rows[tile.row], &t.rows[r]
	if a.cache == nil || b.cache == nil {
		return false
	}
	x, y := &a.cache.layers[t.layer], &b.cache.layers[t.layer]
	same := x.window == 0 && len(x.parts) > 0 && len(y.parts) > 0 && x.parts[0] == y.parts[0]
	tile.forks = tile.forks || same
	return same
}

// single says whether row r is the only one of its segment.
func (t *attentionTask) single(r int) bool {
	return t.rows[r].start == r && (r+1 == len(t.rows) || t.rows[r+1].start != r)
}

func (s *attentionScratch) grow(queries, dim int) {
	s.q = grow(s.q, queries*dim)
	s.scores = grow(s.scores, queries*attentionStride)
	s.narrow = grow(s.narrow, queries*keyPanel)
	s.sums, s.allSums = grow(s.sums, queries*dim), grow(s.allSums, queries*dim)
	s.soft, s.allSoft = grow(s.soft, queries), grow(s.allSoft, queries)
}

// part does a run of items, or of their blocks.
func (t *attentionTask) part(i int) {
	s := &t.scratch[0]
	for n := 1; !s.busy.CompareAndSwap(false, true); n++ {
		s = &t.scratch[n%len(t.scratch)]
	}
	defer s.busy.Store(false)
	each := max(1, t.cut)
	for item := i * t.perPart; item < min((i+1)*t.perPart, len(t.items)*each); item++ {
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
	for n := range t.items {
		from, end := t.begin(s, n)
		for block := from; block < end; block++ {
			item := n*t.cut + block - from
			t.join(s, block, t.sums[item*len(s.sums):], t.soft[item*len(s.soft):])
		}
		t.write(s)
	}
}

// begin takes up the n-th item and returns the blocks of positions that it sees, from … end-1.
func (t *attentionTask) begin(s *attentionScratch, n int) (from, end int) {
	item := t.items[n]
	tile := t.tiles[item.tile]
	s.h, s.tile, s.places = int(item.head), tile, t.rows[tile.row:][:tile.rows]
	wide := t.shape.group() * t.shape.dim
	for r := range s.places {
		if tile.keeps {
			t.ws.keepHead(tile.row+r, s.h)
		}
		q := t.q[(tile.row+r)*t.qStep+s.h*wide:][:wide]
		scale(s.q[r*wide:][:wide], q, float32(1/math.Sqrt(float64(t.shape.dim))))
	}
	first, last := s.places[0].first(), 0
	for r := range s.places {
		first, last = min(first, s.places[r].first()), max(last, s.places[r].position)
	}
	if s.common = last + 1; tile.forks {
		for r := range s.places {
			s.forks[r] = t.spans(s.forks[r][:0], s.h, tile.row+r, first, s.places[r].position+1)
		}
		s.spans = append(s.spans[:0], s.forks[0]...)
		for r := range s.places {
			s.common = min(s.common, commonEnd(s.spans, s.forks[r]))
		}
	} else {
		s.spans = t.spans(s.spans[:0], s.h, tile.row, first, last+1)
	}
	return first / attentionBlock, last/attentionBlock + 1
}

// commonEnd is the position up to which a and b, which begin at the same, have the same keys in the same places.
func commonEnd(a, b []keySpan) (end int) {
	for i := range min(len(a), len(b)) {
		if a[i].layer != b[i].layer || a[i].from != b[i].from || a[i].base != b[i].base {
			break
		}
		if end = min(a[i].to, b[i].to); a[i].to != b[i].to {
			break
		}
	}
	return end
}

// spans appends to list the places of positions first … end-1 as row r sees them, for kv head h, in order: cached rows,
// then fresh ones.
func (t *attentionTask) spans(list []keySpan, h, r, first, end int) []keySpan {
	start := &t.rows[t.rows[r].start] // the segment's first row
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

	// Some row of the tile sees first … end-1; all see allFirst … allEnd-1, in the same places.
	first, end := places[0].first(), 0
	allFirst, allEnd := first, s.common
	for r := range places {
		p := &places[r]
		first, end = min(first, p.first()), max(end, p.position+1)
		allFirst, allEnd = max(allFirst, p.first()), min(allEnd, p.position+1)
	}
	from, to := max(block*attentionBlock, first), min((block+1)*attentionBlock, end)
	all := spansIn(s.spans, from, to)
	score := func(spans []keySpan, row, rows, lo, hi int) {
		scores, q := s.scores[row*group*attentionStride:], s.q[row*wide:][:rows*wide]
		for i := range spans {
			spans[i].score(typ, scores, s.narrow, q, dim, from, lo, hi)
		}
	}
	score(all, 0, rows, from, min(to, s.common))
	for r := range places {
		lo, hi := max(from, places[r].first()), min(to, places[r].position+1)
		if s.common < hi {
			score(spansIn(s.forks[r], from, to), r, 1, max(lo, s.common), hi)
		}
		if lo < hi {
			for i := r * group; i < (r+1)*group; i++ {
				s.soft[i] = weigh(s.scores[i*attentionStride:][lo-from : hi-from])
			}
		}
	}
	// What all rows see is done for all at once; before and after it each row has its own.
	lo, hi := max(from, allFirst), min(to, allEnd)
	if lo >= hi {
		lo, hi = to, to
	}
	mix := func(spans []keySpan, row, rows, lo, hi int) {
		if lo >= hi {
			return
		}
		for i := range spans {
			spans[i].mix(typ, s.sums[row*wide:][:rows*wide], s.scores[row*group*attentionStride:], dim, from, lo, hi)
		}
	}
	own := func(r int) []keySpan {
		if s.tile.forks {
			return spansIn(s.forks[r], from, to)
		}
		return all
	}
	for r := range places {
		mix(own(r), r, 1, max(from, places[r].first()), min(lo, places[r].position+1))
	}
	mix(all, 0, rows, lo, hi)
	for r := range places {
		mix(own(r), r, 1, max(hi, places[r].first()), min(to, places[r].position+1))
	}
}

// spansIn cuts off the spans that have nothing of positions from … to-1.
func spansIn(spans []keySpan, from, to int) []keySpan {
	for len(spans) > 0 && spans[0].to <= from {
		spans = spans[1:]
	}
	for n := range spans {
		if spans[n].from >= to {
			return spans[:n]
		}
	}
	return spans
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
		to := ((s.tile.row+i/group)*t.shape.heads + s.h*group + i%group) * dim
		scale(t.ws.mixed[to:][:dim], s.allSums[i*dim:][:dim], 1/s.allSoft[i].sum)
	}
}

// score writes q_i · k for those of positions lo … hi-1 that are in the span to row i of scores, whose first column is
// position from, and up to fifteen numbers that mean nothing behind them. narrow is scratch.
func (s *keySpan) score(t CacheType, scores, narrow, q []float32, dim, from, lo, hi int) {
	k, queries := &s.layer.k, len(q)/dim
	most := max(keyPanel, callKeys(t, queries, dim)&^(keyPanel-1))
	for lo, hi := max(lo, s.from), min(hi, s.to); lo < hi; {
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
