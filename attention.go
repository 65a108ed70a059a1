package photon

import "math"

// attend computes causal attention of one layer for the rows of the step: queries from ws.qkv, keys and values from the rows' caches and, after those,
// from the fresh rows of the step. Each row's scores, softmax and sum run over its visible positions in ascending order,
// wherever those rows happen to stand.
func (ws *workspace) attend(layer, rows int) {
	c := &ws.stack.cfg
	t := &ws.attention
	t.ws, t.layer, t.rows = ws, layer, rows
	t.longest = 0
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
		t.longest = max(t.longest, p.visible)
		work += p.visible
		if p.cache != nil {
			p.cache.read += int64(p.visible) * p.cache.rowBytes() / int64(c.Layers)
		}
	}
	items := rows * c.KVHeads
	t.perPart = items
	if work*c.Heads*c.HeadDim > 1<<14 {
		t.perPart = max(1, (items+4*ws.crew.workers-1)/(4*ws.crew.workers))
	}
	parts := (items + t.perPart - 1) / t.perPart
	t.scores = grow(t.scores, parts*t.longest)
	ws.crew.run(t, parts)
}

// attentionTask is attention of one layer; its items are (kv head, row), a part is a run of items.
type attentionTask struct {
	ws          *workspace
	layer, rows int
	perPart     int
	longest     int
	scores      []float32 // [parts × longest]
}

func (t *attentionTask) part(i int) {
	scores := t.scores[i*t.longest:][:t.longest]
	for item := i * t.perPart; item < min((i+1)*t.perPart, t.rows*t.ws.stack.cfg.KVHeads); item++ {
		t.attendRow(item/t.rows, item%t.rows, scores)
	}
}

// attendRow computes the query heads of kv head h for row r.
func (t *attentionTask) attendRow(h, r int, scores []float32) {
	ws, c := t.ws, &t.ws.stack.cfg
	typ, dim, group := ws.cacheType, c.HeadDim, c.Heads/c.KVHeads
	place := ws.rows[r]
	scores = scores[:place.visible]

	// The visible positions are, in order, up to two runs of cached rows and one of fresh rows.
	var old *kvLayer
	var a, b span
	lo := place.position + 1 - place.visible
	begin := place.position - (r - place.start) // the segment's first position
	if place.cache != nil && lo < begin {
		old = &place.cache.layers[t.layer]
		a, b = place.cache.spans(lo)
		a.at += h * place.cache.capacity
		b.at += h * place.cache.capacity
	}
	fresh := span{h*t.rows + place.start + max(lo, begin) - begin, place.position + 1 - max(lo, begin)}

	scale := float32(1 / math.Sqrt(float64(dim)))
	for g := h * group; g < (h+1)*group; g++ {
		q := ws.qkv[r*(c.Heads+2*c.KVHeads)*dim+g*dim:][:dim]
		if old != nil {
			old.k.score(typ, scores[:a.n], q, scale, a.at)
			old.k.score(typ, scores[a.n:][:b.n], q, scale, b.at)
		}
		ws.fresh.k.score(typ, scores[a.n+b.n:], q, scale, fresh.at)
		sum := softmax(scores)
		out := ws.mixed[r*c.Heads*dim+g*dim:][:dim]
		clear(out)
		if old != nil {
			old.v.mix(typ, out, scores[:a.n], a.at)
			old.v.mix(typ, out, scores[a.n:][:b.n], b.at)
		}
		ws.fresh.v.mix(typ, out, scores[a.n+b.n:], fresh.at)
		inverse := 1 / sum
		for i := range out {
			out[i] *= inverse
		}
	}
}

// score writes scale · q·k for the len(scores) rows from row at on.
func (r *kvRows) score(t CacheType, scores, q []float32, scale float32, at int) {
	dim := len(q)
	switch t {
	case CacheF32:
		for j := range scores {
			scores[j] = dot(q, r.f32[(at+j)*dim:][:dim]) * scale
		}
	case CacheF16:
		for j := range scores {
			scores[j] = dotF16(q, r.f16[(at+j)*dim:][:dim]) * scale
		}
	case CacheInt8:
		for j := range scores {
			scores[j] = dotInt8(q, r.i8[(at+j)*dim:][:dim]) * r.scale[at+j] * scale
		}
	}
}

// mix adds Σ_j p[j]·v_j over the len(p) rows from row at on, j ascending.
func (r *kvRows) mix(t CacheType, out, p []float32, at int) {
	dim := len(out)
	switch t {
	case CacheF32:
		for j, w := range p {
			axpy(out, w, r.f32[(at+j)*dim:][:dim])
		}
	case CacheF16:
		for j, w := range p {
			for i, v := range r.f16[(at+j)*dim:][:dim] {
				out[i] += w * f16ToF32(v)
			}
		}
	case CacheInt8:
		for j, w := range p {
			w *= r.scale[at+j]
			for i, v := range r.i8[(at+j)*dim:][:dim] {
				out[i] += w * float32(v)
			}
		}
	}
}

func dotF16(q []float32, k []uint16) (s float32) {
	for i, v := range k {
		s += q[i] * f16ToF32(v)
	}
	return s
}

func dotInt8(q []float32, k []int8) (s float32) {
	for i, v := range k {
		s += q[i] * float32(v)
	}
	return s
}
