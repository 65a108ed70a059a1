package photon

import (
	"math"
)

// stack is a causal LLaMA transformer with its own final norm. Every encoder and decoder is one, and so is the flat model.
type stack struct {
	cfg      StackConfig
	shape    attentionShape
	still    attentionShape // shape without rotation
	eps      float32
	layers   []layer
	norm     []float32 // [d]
	reach    []int     // [layers+1]: how far back the layers from there on see together
	memories []*memory // of a decoder
}

type layer struct {
	memories               []*memoryAttention // before its self-attention
	attentionNorm, mlpNorm []float32          // [d]
	qkv                    *matrix            // [(heads + 2·kvHeads)·headDim × d]: q, k and v below one another
	out                    *matrix            // [d × heads·headDim]
	gateUp                 *matrix            // [2·f × d]
	down                   *matrix            // [d × f]

	// What only some flat models have.
	still                               bool      // no rotation
	qkvBias, outBias, gateBias, mlpBias []float32 // [(heads + 2·kvHeads)·headDim], [d], [2·f], [d]; nil: none
	qNorm, kNorm                        []float32 // [headDim]; nil: none
}

// segment is a run of consecutive rows of one text: they follow the rows in cache. Without a cache they begin at
// position 0, see only each other, and are at most stepRows.
type segment struct {
	cache    *kvCache
	rows     int
	memories []*kvCache // of the text, for those of the stack
	need     int        // the first row whose result is read; those before it run only as far up as it depends on them
	gone     int        // rows before these that have left the step
	rest     int        // of these, those that leave next
}

// position is that of the first row.
func (s *segment) position() int {
	if s.cache == nil {
		return s.gone
	}
	return s.cache.next + s.gone
}

// stepRows bounds the rows that go through a stack at once, and with it the workspace. No result depends on it, and tests make it small.
var stepRows = 256

func newStack(cfg StackConfig, eps float64) *stack {
	s := &stack{cfg: cfg, shape: newAttentionShape(cfg), eps: float32(eps), layers: make([]layer, cfg.Layers)}
	s.still = s.shape
	s.still.inverse = nil
	for _, n := range cfg.NoRope {
		s.layers[n].still = true
	}
	s.reach = make([]int, cfg.Layers+1)
	for n := cfg.Layers - 1; n >= 0; n-- {
		s.reach[n] = farReach
		if w := cfg.window(n); w > 0 {
			s.reach[n] = min(s.reach[n+1]+w-1, farReach)
		}
	}
	return s
}

const farReach = math.MaxInt / 4 // beyond every text

// forward advances the rows x [rows×d] of segs in place: in, the units; out, the normed states, of the rows that are
// needed. The caches receive the rows. A stack with memories finds in ws.seen, for every row, how much of them it
// sees.
func (s *stack) forward(ws *workspace, x []float32, segs []segment) {
	seen := ws.seen
	for i, taken := 0, 0; i < len(segs) && !ws.crew.aborted.Load(); {
		ws.segments = ws.segments[:0]
		rows := 0
		for i < len(segs) {
			n := min(segs[i].rows-taken, stepRows-rows)
			if n < segs[i].rows && segs[i].cache == nil {
				n = 0 // rows without a cache stay together
			}
			if n == 0 && segs[i].rows > 0 {
				break
			}
			seg := segs[i]
			seg.rows, seg.need = n, max(0, seg.need-taken)
			ws.segments = append(ws.segments, seg)
			rows, taken = rows+n, taken+n
			if taken == segs[i].rows {
				i, taken = i+1, 0
			}
		}
		if len(s.memories) > 0 {
			ws.seenNow, seen = seen[:rows], seen[rows:]
			ws.placeMemories(s)
			ws.turnMemories(s)
		}
		s.step(ws, x[:rows*s.cfg.HiddenSize], rows)
		x = x[rows*s.cfg.HiddenSize:]
	}
}

// step is forward for the rows of ws.segments, all at once.
func (s *stack) step(ws *workspace, x []float32, rows int) {
	d, f := s.cfg.HiddenSize, s.cfg.IntermediateSize
	qWidth, qkvWidth := s.shape.qWidth(), s.shape.qkvWidth()
	ws.stack, ws.shape, ws.x = s, &s.shape, x
	ws.h = grow(ws.h, rows*d)
	ws.gateUp = grow(ws.gateUp, rows*2*f)
	ws.gated = grow(ws.gated, rows*f)
	ws.normed, ws.normWeight, ws.eps = ws.h, s.layers[0].firstNorm(), s.eps
	ws.eachRow(normRows, rows, d)
	all := rows
	for i := range s.layers {
		l := &s.layers[i]
		for j := range l.memories {
			ws.recall(l, j, rows)
		}
		if i == 0 || rows < all || s.cfg.window(i) != s.cfg.window(i-1) {
			ws.place(i, s.cfg.window(i), rows)
		}
		if i == 0 {
			ws.cos, ws.sin = ws.turns(&s.shape, ws.rows, ws.cos, ws.sin)
		}
		ws.qkv = grow(ws.qkv, rows*qkvWidth)
		ws.mixed = grow(ws.mixed, rows*qWidth)
		l.qkv.mul(&ws.crew, &ws.mulTask, ws.qkv, ws.h, rows)
		ws.layer, ws.shape = i, &s.shape
		if l.still {
			ws.shape = &s.still
		}
		if l.qkvBias != nil || l.qNorm != nil {
			ws.eachRow(adjustRows, rows, 2*qkvWidth)
		}
		idle := ws.rest(s.reach[i+1])
		ws.attend(&s.shape, ws.rows, i, qkvWidth, true)
		ws.commit(rows)
		if idle > 0 {
			ws.leave(s)
			if rows -= idle; rows == 0 {
				break
			}
		}
		l.out.mul(&ws.crew, &ws.mulTask, ws.h, ws.mixed, rows)
		ws.normWeight, ws.addBias = l.mlpNorm, l.outBias
		ws.eachRow(addNormRows, rows, 2*d)
		l.gateUp.mul(&ws.crew, &ws.mulTask, ws.gateUp, ws.h, rows)
		ws.eachRow(gateRows, rows, 8*f)
		l.down.mul(&ws.crew, &ws.mulTask, ws.h, ws.gated, rows)
		ws.addBias = l.mlpBias
		if i+1 < len(s.layers) {
			ws.normWeight = s.layers[i+1].firstNorm()
		} else {
			ws.normed, ws.normWeight = x, s.norm
		}
		ws.eachRow(addNormRows, rows, 2*d)
	}
	// The rows that are left return to their places.
	for i, end := len(ws.segments)-1, all; i >= 0; i-- {
		seg := &ws.segments[i]
		rows -= seg.rows
		end -= seg.rows
		if end > rows {
			copy(x[end*d:][:seg.rows*d], x[rows*d:])
		}
		end -= seg.gone
		if seg.cache != nil {
			seg.cache.advance(seg.gone + seg.rows)
		}
	}
	ws.stack, ws.x, ws.normed, ws.addBias = nil, nil, nil, nil
}

// rest marks the rows whose keys and values were all that the layers above need of them, and counts them: those with
// which even the first row that is needed, by layers that together reach so far back, has nothing to do.
func (ws *workspace) rest(reach int) (idle int) {
	r := 0
	for i := range ws.segments {
		seg := &ws.segments[i]
		seg.rest = max(0, min(seg.rows, seg.need-seg.gone-reach))
		for j := range seg.rest {
			ws.rows[r+j].idle = true
		}
		idle += seg.rest
		r += seg.rows
	}
	return idle
}

// leave closes the gaps of rows that rest.
func (ws *workspace) leave(s *stack) {
	segs := ws.segments
	closeGaps(ws.x, s.cfg.HiddenSize, segs)
	closeGaps(ws.mixed, s.shape.qWidth(), segs)
	closeGaps(ws.cos, len(s.shape.inverse), segs)
	closeGaps(ws.sin, len(s.shape.inverse), segs)
	if len(s.memories) > 0 {
		closeGaps(ws.seenNow, 1, segs)
		for e, m := range s.memories {
			closeGaps(ws.memories[e].cos, len(m.shape.inverse), segs)
			closeGaps(ws.memories[e].sin, len(m.shape.inverse), segs)
		}
	}
	for i := range segs {
		segs[i].gone += segs[i].rest
		segs[i].rows -= segs[i].rest
		segs[i].rest = 0
	}
	if len(s.memories) > 0 {
		ws.placeMemories(s)
	}
}

func closeGaps[T any](rows []T, width int, segs []segment) {
	from, to := 0, 0
	for i := range segs {
		n := (segs[i].rows - segs[i].rest) * width
		from += segs[i].rest * width
		if from > to {
			copy(rows[to:to+n], rows[from:])
		}
		from, to = from+n, to+n
	}
}

// firstNorm is that of what a layer does first.
func (l *layer) firstNorm() []float32 {
	if len(l.memories) > 0 {
		return l.memories[0].norm
	}
	return l.attentionNorm
}

// place notes each row's segment and position, what it sees in a layer, and where its keys and values go.
func (ws *workspace) place(layer, window, rows int) {
	ws.rows = grow(ws.rows, rows)
	r, slot := 0, 0
	ws.toCommit = false
	for i := range ws.segments {
		seg := &ws.segments[i]
		start, fresh := r, true
		first := 0
		if seg.cache != nil {
			seg.cache.reserve(seg.gone + seg.rows)
			fresh = !seg.cache.fits(layer, seg.gone+seg.rows)
			ws.toCommit = ws.toCommit || fresh
			first = seg.cache.first(layer)
		}
		if fresh && seg.rows >= keyPanel { // whole panels of keys go to the cache as they are
			slot = wholePanels(slot) + seg.position()%keyPanel
		}
		for i := range seg.rows {
			p := rowPlace{cache: seg.cache, start: start, position: seg.position() + i, fresh: fresh, slot: slot}
			p.visible, p.turn = p.position+1-first, p.position
			if window > 0 {
				p.visible = min(p.visible, window)
			}
			if fresh {
				slot++
			}
			ws.rows[r] = p
			r++
		}
	}
	ws.slots = wholePanels(slot)
	ws.fresh.resize(ws.cacheType, ws.shape.kvHeads, ws.slots, ws.shape.dim)
}

// turning is the rotations of rows: cos, sin [rows × dim/2].
type turning struct {
	inverse  []float64
	rows     []rowPlace
	cos, sin []float32
}

// turns writes the rotations of rows to cos and sin, or to larger ones.
func (ws *workspace) turns(a *attentionShape, rows []rowPlace, cos, sin []float32) ([]float32, []float32) {
	half := len(a.inverse)
	cos, sin = grow(cos, len(rows)*half), grow(sin, len(rows)*half)
	if half > 0 {
		ws.turning = turning{a.inverse, rows, cos, sin}
		ws.eachRow(turnsOfRows, len(rows), 16*half)
	}
	return cos, sin
}

func turnsOfRows(ws *workspace, lo, hi int) {
	t := &ws.turning
	half := len(t.inverse)
	for r := lo; r < hi; r++ {
		for j, inverse := range t.inverse {
			sin, cos := math.Sincos(float64(t.rows[r].turn) * inverse)
			t.cos[r*half+j], t.sin[r*half+j] = float32(cos), float32(sin)
		}
	}
}

// home is where the keys and values of a row stand: in row slot of the rows that each head has there.
func (ws *workspace) home(p *rowPlace) (layer *kvLayer, rows, slot int) {
	if p.fresh {
		return &ws.fresh, ws.slots, p.slot
	}
	part := p.cache.layers[ws.layer].part(p.position)
	return &part.kvLayer, part.capacity, part.slot(p.position)
}

// normRows writes RMSNorm of the rows lo … hi-1 of x to normed.
func normRows(ws *workspace, lo, hi int) {
	d := len(ws.normWeight)
	for r := lo; r < hi; r++ {
		rmsNorm(ws.normed[r*d:][:d], ws.x[r*d:][:d], ws.normWeight, ws.eps)
	}
}

// addNormRows adds what a layer has computed, h, to x first.
func addNormRows(ws *workspace, lo, hi int) {
	d := len(ws.normWeight)
	if ws.addBias != nil {
		addBias(ws.h[lo*d:hi*d], ws.addBias, hi-lo)
	}
	add(ws.x[lo*d:hi*d], ws.h[lo*d:hi*d])
	normRows(ws, lo, hi)
}

// adjustRows adds the biases of queries, keys and values, and normalises each head's query and key.
func adjustRows(ws *workspace, lo, hi int) {
	a, l := ws.shape, &ws.stack.layers[ws.layer]
	width := a.qkvWidth()
	if l.qkvBias != nil {
		addBias(ws.qkv[lo*width:hi*width], l.qkvBias, hi-lo)
	}
	if l.qNorm == nil {
		return
	}
	for r := lo; r < hi; r++ {
		row := ws.qkv[r*width:][:width]
		for h := range a.heads + a.kvHeads {
			head, weight := row[h*a.dim:][:a.dim], l.qNorm
			if h >= a.heads {
				weight = l.kNorm
			}
			rmsNorm(head, head, weight, ws.eps)
		}
	}
}

// keepRows is keepHead for all heads of the rows lo … hi-1, but for those that others keep.
func keepRows(ws *workspace, lo, hi int) {
	for r := lo; r < hi; r++ {
		if !ws.rows[r].kept {
			for h := range ws.shape.kvHeads {
				ws.keepHead(r, h)
			}
		}
	}
}

// keepHead rotates the queries and the key of kv head h of a row, and stores key and value as the cache will hold them:
// attention reads rounded rows also in the step that made them, or else the result would depend on how the text was cut
// into steps.
func (ws *workspace) keepHead(r, h int) {
	a := ws.shape
	half, width, group := len(a.inverse), a.qkvWidth(), a.group()
	row := ws.qkv[r*width:][:width]
	key := row[(a.heads+h)*a.dim:][:a.dim]
	value := row[(a.heads+a.kvHeads+h)*a.dim:][:a.dim]
	if half > 0 {
		cos, sin := ws.cos[r*half:][:half], ws.sin[r*half:][:half]
		for i := h * group; i < (h+1)*group; i++ {
			rotate(row[i*a.dim:][:a.dim], cos, sin)
		}
		rotate(key, cos, sin)
	}
	to, rows, slot := ws.home(&ws.rows[r])
	to.k.set(ws.cacheType, h*rows+slot, key)
	to.v.set(ws.cacheType, h*rows+slot, value)
}

// commit appends the keys and values of a layer that are fresh to the caches, each kv head for itself. The others are
// there.
func (ws *workspace) commit(rows int) {
	for i := range ws.segments {
		if seg := &ws.segments[i]; seg.cache != nil {
			seg.cache.written += int64(seg.rows) * seg.cache.layerBytes()
		}
	}
	if !ws.toCommit {
		return
	}
	a, t := ws.shape, &ws.commitTask
	*t = commitTask{ws: ws, heads: a.kvHeads}
	if rows*a.dim >= 1<<13 {
		t.heads = 1
	}
	ws.crew.run(t, a.kvHeads/t.heads)
}

// commitTask is commit for some heads a part.
type commitTask struct {
	ws    *workspace
	heads int
}

func (t *commitTask) part(n int) {
	at := 0
	for i := range t.ws.segments {
		seg := &t.ws.segments[i]
		if seg.cache != nil && seg.rows > 0 && t.ws.rows[at].fresh {
			for h := n * t.heads; h < (n+1)*t.heads; h++ {
				seg.cache.commit(t.ws.layer, h, seg.position(), &t.ws.fresh, t.ws.slots, t.ws.rows[at].slot, seg.rows)
			}
		}
		at += seg.rows
	}
}

// gateRows writes silu(gate) ⊙ up.
func gateRows(ws *workspace, lo, hi int) {
	f, bias := ws.stack.cfg.IntermediateSize, ws.stack.layers[ws.layer].gateBias
	for r := lo; r < hi; r++ {
		row := ws.gateUp[r*2*f:][:2*f]
		if bias != nil {
			add(row, bias)
		}
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
	shape         *attentionShape // of the keys and values that are made
	layer         int
	segments      []segment
	rows          []rowPlace
	x             []float32 // [rows × d], the residual stream
	normed        []float32 // [rows × d], where norms go: h, or x at the end
	normWeight    []float32 // [d]
	addBias       []float32 // [d], of h; nil: none
	eps           float32
	h             []float32 // [rows × d]
	qkv           []float32 // [rows × (heads+2·kvHeads)·headDim]
	mixed         []float32 // [rows × heads·headDim]
	gateUp, gated []float32 // [rows × 2f], [rows × f]
	cos, sin      []float32 // [rows × headDim/2]
	turning       turning
	memories      []memoryRows
	seenNow       []int   // [rows], the part of seen that is theirs
	recalled      int     // the memory whose queries are made
	fresh         kvLayer // keys and values that must not take the place of others yet, or have no cache
	slots         int     // its rows
	toCommit      bool    // some of them belong in caches

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
	idle     bool     // attends to nothing
	kept     bool     // its keys and values are stored by its tile of attention
	fresh    bool     // they stand in the workspace, not yet in the cache
	slot     int      // and there in this row
	position int
	turn     int // the position by which it is rotated
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
