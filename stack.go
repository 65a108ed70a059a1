package photon

import (
	"math"
)

// stack is a causal LLaMA transformer with its own final norm. Every encoder and decoder is one, and so is the flat model.
type stack struct {
	cfg     StackConfig
	eps     float32
	layers  []layer
	norm    []float32 // [d]
	inverse []float64 // [headDim/2] RoPE frequencies; empty without rotation
}

type layer struct {
	attentionNorm, mlpNorm []float32 // [d]
	qkv                    *matrix   // [(heads + 2·kvHeads)·headDim × d]: q, k and v below one another
	out                    *matrix   // [d × heads·headDim]
	gateUp                 *matrix   // [2·f × d]
	down                   *matrix   // [d × f]
}

// segment is a run of consecutive rows of one text: they follow the rows in cache. Without a cache they begin at position 0 and see only each other.
type segment struct {
	cache *kvCache
	rows  int
}

func (s segment) position() int {
	if s.cache == nil {
		return 0
	}
	return s.cache.next
}

// stepRows bounds the rows that go through a stack at once, and with it the workspace. No result depends on it, and tests make it small.
var stepRows = 256

func newStack(cfg StackConfig, eps float64) *stack {
	s := &stack{cfg: cfg, eps: float32(eps), layers: make([]layer, cfg.Layers)}
	if cfg.RopeTheta > 0 {
		s.inverse = make([]float64, cfg.HeadDim/2)
		for i := range s.inverse {
			s.inverse[i] = math.Pow(cfg.RopeTheta, -2*float64(i)/float64(cfg.HeadDim))
		}
	}
	return s
}

// forward advances the rows x [rows×d] of segs in place: in, the units; out, the normed states. The caches receive the rows.
func (s *stack) forward(ws *workspace, x []float32, segs []segment) {
	for i, taken := 0, 0; i < len(segs) && !ws.crew.aborted.Load(); {
		ws.segments = ws.segments[:0]
		rows := 0
		for i < len(segs) {
			n := segs[i].rows - taken
			if rows+n > stepRows {
				if segs[i].cache != nil {
					n = stepRows - rows
				} else if rows > 0 {
					n = 0 // rows without a cache stay together
				}
			}
			if n == 0 && segs[i].rows > 0 {
				break
			}
			ws.segments = append(ws.segments, segment{segs[i].cache, n})
			rows, taken = rows+n, taken+n
			if taken == segs[i].rows {
				i, taken = i+1, 0
			}
		}
		s.step(ws, x[:rows*s.cfg.HiddenSize], rows)
		x = x[rows*s.cfg.HiddenSize:]
	}
}

// step is forward for the rows of ws.segments, all at once.
func (s *stack) step(ws *workspace, x []float32, rows int) {
	d, f := s.cfg.HiddenSize, s.cfg.IntermediateSize
	qWidth, kvWidth := s.cfg.Heads*s.cfg.HeadDim, s.cfg.KVHeads*s.cfg.HeadDim
	ws.stack, ws.x = s, x
	ws.h = grow(ws.h, rows*d)
	ws.qkv = grow(ws.qkv, rows*(qWidth+2*kvWidth))
	ws.mixed = grow(ws.mixed, rows*qWidth)
	ws.gateUp = grow(ws.gateUp, rows*2*f)
	ws.gated = grow(ws.gated, rows*f)
	ws.place(s, rows)
	ws.normed, ws.normWeight = ws.h, s.layers[0].attentionNorm
	ws.eachRow(normRows, rows, d)
	for i := range s.layers {
		l := &s.layers[i]
		l.qkv.mul(&ws.crew, &ws.mulTask, ws.qkv, ws.h, rows)
		ws.layer = i
		ws.eachRow(keepRows, rows, qWidth)
		ws.attend()
		ws.commit(rows)
		l.out.mul(&ws.crew, &ws.mulTask, ws.h, ws.mixed, rows)
		ws.normWeight = l.mlpNorm
		ws.eachRow(addNormRows, rows, 2*d)
		l.gateUp.mul(&ws.crew, &ws.mulTask, ws.gateUp, ws.h, rows)
		ws.eachRow(gateRows, rows, 8*f)
		l.down.mul(&ws.crew, &ws.mulTask, ws.h, ws.gated, rows)
		if i+1 < len(s.layers) {
			ws.normWeight = s.layers[i+1].attentionNorm
		} else {
			ws.normed, ws.normWeight = x, s.norm
		}
		ws.eachRow(addNormRows, rows, 2*d)
	}
	for _, seg := range ws.segments {
		if seg.cache != nil {
			seg.cache.advance(seg.rows)
		}
	}
	ws.stack, ws.x, ws.normed = nil, nil, nil
}

// place notes each row's segment, position and rotation, and where its keys and values go.
func (ws *workspace) place(s *stack, rows int) {
	half := len(s.inverse)
	ws.rows = grow(ws.rows, rows)
	ws.cos, ws.sin = grow(ws.cos, rows*half), grow(ws.sin, rows*half)
	r, slot := 0, 0
	ws.toCommit = false
	for _, seg := range ws.segments {
		start, fresh := r, true
		if seg.cache != nil {
			seg.cache.reserve(seg.rows)
			fresh = !seg.cache.fits(seg.rows)
			ws.toCommit = ws.toCommit || fresh
		}
		if fresh && seg.rows >= keyPanel { // whole panels of keys go to the cache as they are
			slot = wholePanels(slot) + seg.position()%keyPanel
		}
		for i := range seg.rows {
			ws.rows[r] = rowPlace{cache: seg.cache, start: start, position: seg.position() + i, fresh: fresh, slot: slot}
			if fresh {
				slot++
			} else {
				ws.rows[r].slot = ws.rows[r].position % seg.cache.capacity
			}
			for j, inverse := range s.inverse {
				sin, cos := math.Sincos(float64(ws.rows[r].position) * inverse)
				ws.cos[r*half+j], ws.sin[r*half+j] = float32(cos), float32(sin)
			}
			r++
		}
	}
	ws.slots = wholePanels(slot)
	ws.fresh.resize(ws.cacheType, s.cfg.KVHeads, ws.slots, s.cfg.HeadDim)
}

// home is where the keys and values of a row stand: in row slot of the rows that each head has there.
func (ws *workspace) home(p *rowPlace) (layer *kvLayer, rows int) {
	if p.fresh {
		return &ws.fresh, ws.slots
	}
	return &p.cache.layers[ws.layer], p.cache.capacity
}

// normRows writes RMSNorm of the rows lo … hi-1 of x to normed.
func normRows(ws *workspace, lo, hi int) {
	d := ws.stack.cfg.HiddenSize
	for r := lo; r < hi; r++ {
		rmsNorm(ws.normed[r*d:][:d], ws.x[r*d:][:d], ws.normWeight, ws.stack.eps)
	}
}

// addNormRows adds what a layer has computed, h, to x first.
func addNormRows(ws *workspace, lo, hi int) {
	d := ws.stack.cfg.HiddenSize
	add(ws.x[lo*d:hi*d], ws.h[lo*d:hi*d])
	normRows(ws, lo, hi)
}

// keepRows rotates the queries and keys, and stores keys and values as the cache will hold them: attention reads rounded
// rows also in the step that made them, or else the result would depend on how the text was cut into steps.
func keepRows(ws *workspace, lo, hi int) {
	c := &ws.stack.cfg
	half := len(ws.stack.inverse)
	width := (c.Heads + 2*c.KVHeads) * c.HeadDim
	for r := lo; r < hi; r++ {
		row := ws.qkv[r*width:][:width]
		if half > 0 {
			for h := range c.Heads + c.KVHeads {
				rotate(row[h*c.HeadDim:][:c.HeadDim], ws.cos[r*half:][:half], ws.sin[r*half:][:half])
			}
		}
		keys := row[c.Heads*c.HeadDim:]
		values := keys[c.KVHeads*c.HeadDim:]
		to, rows := ws.home(&ws.rows[r])
		for h := range c.KVHeads {
			at := h*rows + ws.rows[r].slot
			to.k.set(ws.cacheType, at, keys[h*c.HeadDim:][:c.HeadDim])
			to.v.set(ws.cacheType, at, values[h*c.HeadDim:][:c.HeadDim])
		}
	}
}

// commit appends the keys and values of a layer that are fresh to the caches, each kv head for itself.
func (ws *workspace) commit(rows int) {
	if !ws.toCommit {
		return
	}
	c, t := &ws.stack.cfg, &ws.commitTask
	*t = commitTask{ws: ws, heads: c.KVHeads}
	if rows*c.HeadDim >= 1<<13 {
		t.heads = 1
	}
	ws.crew.run(t, c.KVHeads/t.heads)
}

// commitTask is commit for some heads a part.
type commitTask struct {
	ws    *workspace
	heads int
}

func (t *commitTask) part(i int) {
	at := 0
	for _, seg := range t.ws.segments {
		if seg.cache != nil && seg.rows > 0 && t.ws.rows[at].fresh {
			for h := i * t.heads; h < (i+1)*t.heads; h++ {
				seg.cache.commit(t.ws.layer, h, &t.ws.fresh, t.ws.slots, t.ws.rows[at].slot, seg.rows)
			}
		}
		at += seg.rows
	}
}

// gateRows writes silu(gate) ⊙ up.
func gateRows(ws *workspace, lo, hi int) {
	f := ws.stack.cfg.IntermediateSize
	for r := lo; r < hi; r++ {
		row := ws.gateUp[r*2*f:][:2*f]
		siluGate(ws.gated[r*f:][:f], row[:f], row[f:])
	}
}

// workspace is the scratch of one call: the crew and every buffer that a step needs. A model keeps those that are idle, so
// that a warm call allocates nothing.
type workspace struct {
	crew       crew
	cacheType  CacheType
	mulTask    mulTask
	rowTask    rowTask
	commitTask commitTask
	attention  attentionTask

	// One step of a stack.
	stack         *stack
	layer         int
	segments      []segment
	rows          []rowPlace
	x             []float32 // [rows × d], the residual stream
	normed        []float32 // [rows × d], where norms go: h, or x at the end
	normWeight    []float32 // [d]
	h             []float32 // [rows × d]
	qkv           []float32 // [rows × (heads+2·kvHeads)·headDim]
	mixed         []float32 // [rows × heads·headDim]
	gateUp, gated []float32 // [rows × 2f], [rows × f]
	cos, sin      []float32 // [rows × headDim/2]
	fresh         kvLayer   // keys and values that must not take the place of others yet, or have no cache
	slots         int       // its rows
	toCommit      bool      // some of them belong in caches

	schedule
	sampler     sampler
	logits      []float32
	oneSequence [1]*sequence
	oneText     [1][]int
	oneIntake   [1]intake
}

// rowPlace is where a row of a step stands.
type rowPlace struct {
	cache    *kvCache // what came before; nil: nothing
	start    int      // the first row of its segment in this step
	fresh    bool     // its keys and values stand in the workspace, not yet in the cache
	slot     int      // in this row of either
	position int
	visible  int // rows that it sees, itself included
}

// rowTask runs a function over the rows of a step.
type rowTask struct {
	ws            *workspace
	do            func(ws *workspace, lo, hi int)
	rows, perPart int
}

func (t *rowTask) part(i int) { t.do(t.ws, i*t.perPart, min((i+1)*t.perPart, t.rows)) }

// eachRow calls do for all rows, in parts where they are worth it; cost is about the elements a row touches.
func (ws *workspace) eachRow(do func(ws *workspace, lo, hi int), rows, cost int) {
	t := &ws.rowTask
	*t = rowTask{ws: ws, do: do, rows: rows, perPart: rows}
	if rows*cost > 1<<15 {
		t.perPart = max(1, (1<<15)/cost)
	}
	if rows > 0 {
		ws.crew.run(t, (rows+t.perPart-1)/t.perPart)
	}
}
