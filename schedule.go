package photon

// sequence is the state of one text: what model.md calls the caches, and the rows that are not yet a whole chunk.
type sequence struct {
	family int64      // the same in all forks of a text
	n      int        // tokens that the encoders have taken
	synced int        // tokens up to which the decoders have followed; -1 before the first prediction
	target int        // and up to which they follow next; 0: all
	ids    idRun      // tokens that are not yet in a whole chunk, or that decoders still need
	token  stateRun   // the same of the token encoder's states
	states []stateRun // [L]: and of each level's
	tokens *kvCache   // of the token encoder; nil: there is none
	enc    []*kvCache // [L]
	dec    []decoderState
	out    []float32 // X̂^(0) of token n, [W_1]; empty where nothing predicts it: token 0 of a flat model
	top    []float32 // the condition of the current top unit, X^(L) of the one before it, [D_L]
	plan   []plan    // [len(dec)], while decoders follow
}

type decoderState struct {
	cache    *kvCache
	next     int        // the next row to run
	slices   []float32  // [C·W], where conditions are added: those of the unit that the row before next is of
	memories []*kvCache // of the stack
}

// idRun holds the tokens first, first+1, …; stateRun the rows of a level.
type idRun struct {
	first int
	ids   []int
}

type stateRun struct {
	first int
	rows  []float32
}

func (s *idRun) drop(before int) {
	if n := before - s.first; n > 0 {
		s.ids = s.ids[:copy(s.ids, s.ids[n:])]
		s.first = before
	}
}

func (s *stateRun) drop(before, width int) {
	if n := before - s.first; n > 0 {
		s.rows = s.rows[:copy(s.rows, s.rows[n*width:])]
		s.first = before
	}
}

func (s *stateRun) row(u, width int) []float32 { return s.rows[(u-s.first)*width:][:width] }

// plan is what one decoder has to do for one text: run the rows start … end-1 and predict the children lo … hi. The units from …
// are those whose first row is among them.
type plan struct {
	start, end int
	lo, hi     int
	need       int // the first child whose prediction will be read
	unit       int
}

func (m *Model) newSequence() *sequence {
	s := &sequence{synced: -1}
	if m.tokenEncoder != nil {
		s.tokens = newKVCache(m.cacheType, m.tokenEncoder.cfg)
	}
	for _, e := range m.encoders {
		s.enc = append(s.enc, newKVCache(m.cacheType, e.stack.cfg))
	}
	for l, d := range m.decoders {
		s.dec = append(s.dec, decoderState{cache: newKVCache(m.cacheType, d.stack.cfg)})
		for _, y := range d.stack.memories {
			s.dec[l].memories = append(s.dec[l].memories, y.begun.clone())
		}
	}
	s.states = make([]stateRun, len(m.encoders))
	s.plan = make([]plan, len(m.decoders))
	return s
}

func (s *sequence) clone() *sequence {
	return s.copy(nil, func(c *kvCache, _ bool) *kvCache { return c.clone() })
}

// save returns a copy of s to go back to, after it has gone on. Caches that only grow need no copy of their rows.
func (m *Model) save(s *sequence) *sequence {
	return s.copy(m.decoders, (*kvCache).save)
}

// copy copies caches with f; grows: nothing is ever dropped from the cache but what its windows let go.
func (s *sequence) copy(decoders []*decoder, f func(c *kvCache, grows bool) *kvCache) *sequence {
	c := s.cloneRows()
	if s.tokens != nil {
		c.tokens = f(s.tokens, true)
	}
	for i := range c.enc {
		c.enc[i] = f(s.enc[i], true)
	}
	for i := range c.dec {
		d := &c.dec[i]
		d.cache = f(d.cache, decoders != nil && decoders[i].seesAll())
		for e := range d.memories {
			d.memories[e] = f(d.memories[e], false)
		}
	}
	return c
}

// cloneRows is clone but for the caches, which the copy shares.
func (s *sequence) cloneRows() *sequence {
	c := *s
	c.ids.ids = append([]int(nil), s.ids.ids...)
	c.states = append([]stateRun(nil), s.states...)
	for i := range c.states {
		c.states[i].rows = append([]float32(nil), s.states[i].rows...)
	}
	c.token.rows = append([]float32(nil), s.token.rows...)
	c.enc = append([]*kvCache(nil), s.enc...)
	c.dec = append([]decoderState(nil), s.dec...)
	for i := range c.dec {
		c.dec[i].slices = append([]float32(nil), c.dec[i].slices...)
		c.dec[i].memories = append([]*kvCache(nil), c.dec[i].memories...)
	}
	c.out = append([]float32(nil), s.out...)
	c.top = append([]float32(nil), s.top...)
	c.plan = make([]plan, len(s.plan))
	return &c
}

// caches calls f for every cache of the text.
func (s *sequence) caches(f func(c *kvCache)) {
	if s.tokens != nil {
		f(s.tokens)
	}
	for _, c := range s.enc {
		f(c)
	}
	for _, d := range s.dec {
		f(d.cache)
		for _, c := range d.memories {
			f(c)
		}
	}
}

// stateBytes is what the caches hold, and what of that copies may hold too.
func (s *sequence) stateBytes() (held, shared int64) {
	s.caches(func(c *kvCache) {
		h, s := c.bytes()
		held, shared = held+h, shared+s
	})
	return held, shared
}

// traffic is what was read from the caches and written to them, ever.
func (s *sequence) traffic() (read, written int64) {
	s.caches(func(c *kvCache) { read, written = read+c.read, written+c.written })
	return read, written
}

// schedule is the scratch of encode and follow.
type schedule struct {
	seqs     []*sequence
	tokens   [][]int
	list     []segment
	kept     []segment    // of a memory
	unpacked []float32    // [rows × D], units as their children
	child    []float32    // [D], the state of one
	news     []int        // units of a level that each sequence completes
	seen     []int        // of each of a decoder's rows, the children before what it predicts
	units    []float32    // an encoder's rows
	joined   []float32    // a chunker's input
	conds    []float32    // [units × D_l], the top decoder's conditions
	prefixes []float32    // [units × R·W]
	input    []float32    // a decoder's rows
	xhat     [2][]float32 // a decoder's predictions, and those of the one above it
}

// encode takes tokens into each sequence and advances every encoder over the units that they complete.
func (m *Model) encode(ws *workspace, seqs []*sequence, tokens [][]int) {
	for i, s := range seqs {
		s.ids.ids = append(s.ids.ids, tokens[i]...)
		s.n += len(tokens[i])
	}
	m.encodeTokens(ws, seqs, tokens)
	span := 1 // tokens in a unit of the level below
	for l, e := range m.encoders {
		total := 0
		ws.news = ws.news[:0]
		for _, s := range seqs {
			n := s.n/(span*e.chunk) - s.states[l].end(e.width())
			ws.news = append(ws.news, n)
			total += n
		}
		if total == 0 {
			return
		}
		ws.joined = grow(ws.joined, total*e.chunk*e.below)
		ws.units = grow(ws.units, total*e.width())
		ws.list = ws.list[:0]
		at := 0
		for i, s := range seqs {
			first := s.states[l].end(e.width())
			for u := first * e.chunk; u < (first+ws.news[i])*e.chunk; u++ {
				row := ws.joined[at:][:e.below]
				m.state(row, s, l, u)
				at += e.below
			}
			if ws.news[i] > 0 {
				ws.list = append(ws.list, segment{cache: s.enc[l], rows: ws.news[i]})
			}
		}
		e.units(ws, ws.units, ws.joined, total)
		e.stack.forward(ws, ws.units, ws.list)
		at = 0
		for i, s := range seqs {
			n := ws.news[i] * e.width()
			s.states[l].rows = append(s.states[l].rows, ws.units[at:][:n]...)
			at += n
		}
		m.remember(ws, l+1, seqs, ws.units, ws.news)
		span *= e.chunk
	}
}

// encodeTokens runs the token encoder, and has memories keep the tokens' states.
func (m *Model) encodeTokens(ws *workspace, seqs []*sequence, tokens [][]int) {
	if m.tokenEncoder == nil && !m.remembersTokens() {
		return
	}
	total, width := 0, m.encoderTable.width
	ws.news, ws.list = ws.news[:0], ws.list[:0]
	for i, s := range seqs {
		n := len(tokens[i])
		ws.news = append(ws.news, n)
		total += n
		if n > 0 {
			ws.list = append(ws.list, segment{cache: s.tokens, rows: n})
		}
	}
	ws.units = grow(ws.units, total*width)
	at := 0
	for _, ids := range tokens[:len(seqs)] {
		for _, id := range ids {
			m.encoderTable.row(ws.units[at:], id)
			at += width
		}
	}
	if m.tokenEncoder != nil {
		m.tokenEncoder.forward(ws, ws.units, ws.list)
		at = 0
		for i, s := range seqs {
			n := ws.news[i] * width
			s.token.rows = append(s.token.rows, ws.units[at:][:n]...)
			at += n
		}
	}
	m.remember(ws, 0, seqs, ws.units, ws.news)
}

// state is X^(l) of unit u. Level 0 are the tokens: the token encoder's state, or the embedding.
func (m *Model) state(dst []float32, s *sequence, l, u int) {
	switch {
	case l > 0:
		copy(dst, s.states[l-1].row(u, len(dst)))
	case m.tokenEncoder != nil:
		copy(dst, s.token.row(u, len(dst)))
	default:
		m.encoderTable.row(dst, s.ids.ids[u-s.ids.first])
	}
}

// content is what the decoder above level l reads of unit u.
func (m *Model) content(dst []float32, s *sequence, l, u int) {
	if l > 0 || m.cfg.Content == contentStates {
		m.state(dst, s, l, u)
	} else {
		m.decoderTable.row(dst, s.ids.ids[u-s.ids.first])
	}
}

// end is the number of the first row that is still to come.
func (s *stateRun) end(width int) int { return s.first + len(s.rows)/width }

// makePlan finds, from the tokens up, the rows that every decoder has to run so that token n is predicted, or all tokens since
// the last time. Only what the windows can still see is run.
func (m *Model) makePlan(s *sequence, all bool) {
	lo, hi := s.n, s.n
	if all {
		lo = s.synced + 1
	}
	for l, d := range m.decoders {
		p := &s.plan[l]
		if d.lead() == 0 {
			lo = max(lo, 1) // nothing predicts the first token of a flat model
		}
		*p = plan{lo: lo, hi: hi, need: lo, end: d.row(hi) + 1}
		p.start = max(d.firstRow(lo), s.dec[l].next)
		p.unit = p.start / d.unit()
		if p.start%d.unit() >= d.lead() {
			p.unit++
		}
		lo, hi = p.unit, hi/d.chunk
	}
}

// planTo is makePlan for a part of the rows that the prediction of token n depends on: those up to the prediction of token target.
func (m *Model) planTo(s *sequence, target int) {
	m.makePlan(s, false)
	lo, hi := target, target
	for l, d := range m.decoders {
		p := &s.plan[l]
		p.lo, p.hi, p.end = lo, hi, d.row(hi)+1
		lo, hi = p.unit, hi/d.chunk
	}
}

// behind is how many tokens the decoders have to predict until they have followed.
func (m *Model) behind(s *sequence) int {
	m.makePlan(s, false)
	return max(0, s.n+1-m.decoders[0].before(s.plan[0].start))
}

// trim forgets the tokens and states that neither a chunker nor, by the plan, a decoder will need.
func (m *Model) trim(s *sequence) {
	span := 1
	for l, d := range m.decoders {
		keep := s.n / span // of the level below decoder l
		if l < len(m.encoders) {
			keep = s.n / (span * d.chunk) * d.chunk
		}
		p := &s.plan[l]
		if p.start < p.end {
			content := max(0, d.child(p.start))
			if !d.added {
				content = max(content, p.start/d.unit()*d.chunk)
			}
			keep = min(keep, content)
		}
		for e, y := range d.stack.memories {
			rows := s.dec[l].memories[e].next
			if p.start < p.end {
				rows = y.rows(d.before(p.start))
			}
			s.dec[l].memories[e].drop(y.firstKept(rows))
		}
		if l == 0 {
			s.ids.drop(keep)
			if m.tokenEncoder != nil {
				s.token.drop(keep, m.encoderTable.width)
			}
		} else {
			s.states[l-1].drop(keep, m.encoders[l-1].width())
		}
		span *= d.chunk
	}
	if top := len(m.encoders) - 1; top >= 0 {
		width := m.encoders[top].width()
		keep := s.states[top].end(width)
		if p := &s.plan[top]; p.start < p.end {
			keep = min(keep, p.unit-1)
		}
		s.states[top].drop(keep, width)
	}
}

// follow brings the decoders of each sequence to its last token, from the top down, so that s.out predicts the next one. With all it returns
// X̂^(0) of every token since the last time, the sequences one after another; without, of the last.
func (m *Model) follow(ws *workspace, seqs []*sequence, all bool) []float32 {
	for _, s := range seqs {
		if s.target > 0 {
			m.planTo(s, s.target)
		} else {
			m.makePlan(s, all)
		}
	}
	var conds []float32
	for l := len(m.decoders) - 1; l >= 0; l-- {
		if l == len(m.encoders)-1 {
			conds = m.topConditions(ws, seqs)
		}
		conds = m.decode(ws, seqs, l, conds)
	}
	width, at := m.decoders[0].width(), 0
	for _, s := range seqs {
		at += s.plan[0].predicted()
		s.out = s.out[:0]
		if s.plan[0].end > 0 {
			s.out = append(s.out, conds[(at-1)*width:][:width]...)
		}
		if s.target > 0 {
			s.synced, s.target = s.target, 0
			m.makePlan(s, false)
		} else {
			s.synced = s.n
			clear(s.plan)
		}
		m.trim(s)
	}
	return conds
}

// predicted is the number of children that the plan predicts.
func (p *plan) predicted() int { return max(0, p.hi-p.lo+1) }

// topConditions gathers the previous unit's state for every unit that the top decoder begins.
func (m *Model) topConditions(ws *workspace, seqs []*sequence) []float32 {
	top := len(m.encoders) - 1
	width := m.encoders[top].width()
	ws.conds = ws.conds[:0]
	for _, s := range seqs {
		p := &s.plan[top]
		for u := p.unit; u < p.unit+p.units(m.decoders[top]); u++ {
			if u == 0 {
				ws.conds = append(ws.conds, m.startLatent...)
			} else {
				ws.conds = append(ws.conds, s.states[top].row(u-1, width)...)
			}
			s.top = append(s.top[:0], ws.conds[len(ws.conds)-width:]...)
		}
	}
	return ws.conds
}

// decode runs decoder l by the plans. conds [units × D_l] are the conditions of the units that begin; the result is X̂ of the children, [children × W].
func (m *Model) decode(ws *workspace, seqs []*sequence, l int, conds []float32) []float32 {
	d := m.decoders[l]
	width := d.width()
	slices, slice := d.convert(ws, conds), d.slices()*width
	rows, children := 0, 0
	for _, s := range seqs {
		rows += s.plan[l].rows(d)
		children += s.plan[l].predicted()
	}
	ws.input = grow(ws.input, rows*width)
	ws.list, ws.seen = ws.list[:0], ws.seen[:0]
	to := ws.input
	for _, s := range seqs {
		p, state := &s.plan[l], &s.dec[l]
		for row := p.start; row < p.end; row++ {
			if d.unused(row) {
				continue
			}
			unit, place, child := row/d.unit(), row%d.unit(), d.child(row)
			switch {
			case place < d.prefix:
				copy(to, slices[(unit-p.unit)*slice+place*width:][:width])
			case child < 0:
				clear(to[:width])
			default:
				m.content(to[:width], s, l, child)
			}
			if d.added {
				of := state.slices
				if unit >= p.unit {
					of = slices[(unit-p.unit)*slice:]
				}
				add(to[:width], of[place*width:][:width])
			}
			if len(d.stack.memories) > 0 {
				ws.seen = append(ws.seen, d.before(row))
			}
			to = to[width:]
		}
		if n := p.units(d) * slice; n > 0 {
			if d.added {
				state.slices = append(state.slices[:0], slices[n-slice:n]...)
			}
			slices = slices[n:]
		}
		ws.list = state.segments(ws.list, d, p)
	}
	d.stack.forward(ws, ws.input, ws.list)

	out := grow(ws.xhat[l&1], children*width)
	ws.xhat[l&1] = out
	from, to := ws.input, out
	for _, s := range seqs {
		p := &s.plan[l]
		for u := p.lo; u <= p.hi; u++ {
			copy(to, from[p.index(d, d.row(u))*width:][:width])
			to = to[width:]
		}
		from = from[p.rows(d)*width:]
		s.dec[l].next = max(s.dec[l].next, p.end)
	}
	return out
}

// units is the number of units that begin.
func (p *plan) units(d *decoder) int {
	if d.converter == nil {
		return 0
	}
	return max(0, p.hi/d.chunk-p.unit+1)
}

// rows is the number of rows to run.
func (p *plan) rows(d *decoder) int { return max(0, p.index(d, p.end)) }

// index is where a row stands among those that are run.
func (p *plan) index(d *decoder, row int) int {
	n := row - p.start
	if d.skips() {
		n -= row/d.unit() - p.start/d.unit()
	}
	return n
}

// segments appends the plan's rows, cut where a unit is a sequence of its own. The unit that is not finished keeps its rows in the cache.
func (s *decoderState) segments(list []segment, d *decoder, p *plan) []segment {
	if !d.local {
		if p.start < p.end {
			if p.start > s.cache.next {
				s.cache.reset(p.start)
			}
			need := d.row(p.need) - p.start
			list = append(list, segment{cache: s.cache, rows: p.end - p.start, memories: s.memories, need: need})
		}
		return list
	}
	for from := p.start; from < p.end; {
		begin := from - from%d.unit()
		to := min(p.end, begin+d.unit())
		rows := to - from
		if d.unused(to - 1) {
			rows--
		}
		// The first row that predicts something is the first child's, or that of the first child to be predicted.
		need := d.row(max(p.need, begin/d.unit()*d.chunk)) - from
		seg := segment{cache: s.cache, rows: rows, memories: s.memories, need: need}
		switch {
		case rows == 0:
		case from > begin:
			list = append(list, seg)
			if to < p.end { // the cache is in use by this unit: a later one needs another
				s.cache = s.cache.empty()
			}
		case to < p.end:
			seg.cache = nil
			if rows > stepRows { // they have to be cut
				seg.cache = newKVCache(s.cache.typ, d.stack.cfg)
			}
			list = append(list, seg)
		default:
			s.cache.reset(0)
			list = append(list, seg)
		}
		from = to
	}
	return list
}
