package photon

import "fmt"

// recGen is recursive generation (paper, Definition A.3; approximate): after the prompt the encoders below the top are
// dropped, and X̂ stands for X in the content rows of the decoders above the tokens and in the input of the top
// chunker. The level-1 units of a meta-context then do not depend on each other's tokens and are decoded side by side.
// What was drawn never reaches a later meta-context: text can drift, and its quality is below that of HierGen.
//
// Side by side the tokens can only be guessed: options may change, and a LogitsFunc may ask for any token. So each
// token is drawn when its turn comes, from logits that hold as long as the guesses before it in its unit came true;
// where one did not, the rest of the unit is decoded again.
type recGen struct {
	started bool
	ahead   bool         // the meta-context of the text's end has been decoded
	known   []int        // of each unit, for how many places there are logits: given the guesses before them
	guess   []int        // of each place, [units·C]
	logits  []float32    // of each place, [units·C × vocab]
	caches  [][]*kvCache // of each level, one for each of its units in the meta-context
	states  [2][]float32 // X̂ of every unit of two levels, [units × D_l]
	chunk   []float32    // X̂ of the top unit's children
	row     []float32    // [units × vocab]
}

// checkMode refuses a mode that the model cannot run.
func (m *Model) checkMode(mode GenMode) error {
	if mode != RecGen {
		return nil
	}
	if len(m.encoders) < 2 {
		return fmt.Errorf("photon: RecGen needs two levels or more, the model has %d: use HierGen: %w", len(m.encoders), ErrUnsupported)
	}
	if what := m.cfg.beyondFormat1(); what != "" {
		return fmt.Errorf("photon: RecGen needs the arithmetic of format_version 1, the model has %s: use HierGen: %w",
			what, ErrUnsupported)
	}
	for l, d := range m.decoders {
		if !d.local {
			return fmt.Errorf("photon: RecGen needs chunk-local decoders, the one of level %d is a stream: use HierGen: %w", l+1, ErrUnsupported)
		}
	}
	if n := m.recGenBytes(); n > mostRecGen {
		return fmt.Errorf("photon: RecGen of meta-contexts of %d tokens takes %d bytes, more than %d: use HierGen, or a model with a smaller "+
			"chunk_size: %w", m.cfg.MetaContext(), n, mostRecGen, ErrUnsupported)
	}
	return nil
}

// recLogits returns the logits of the next token by RecGen. A meta-context that the prompt has begun is finished by
// HierGen before.
func (s *Session) recLogits(ws *workspace, o *options) []float32 {
	g := &s.rec
	if !g.started {
		g.start(s)
	}
	if len(s.ids)-s.seq.n == s.m.cfg.MetaContext() {
		g.ready(s, ws, o)
		g.finish(s, ws)
	}
	g.ready(s, ws, o)
	d, vocab := s.m.decoders[0], s.m.cfg.VocabSize
	place := len(s.ids) - s.seq.n
	unit, j := place/d.chunk, place%d.chunk
	text := s.ids[len(s.ids)-j:]
	guess := g.guess[unit*d.chunk:][:d.chunk]
	held := 0
	for held < min(j, g.known[unit]-1) && guess[held] == text[held] {
		held++
	}
	for ; held < j; held++ {
		guess[held] = text[held]
		cache := g.caches[0][unit]
		cache.next = d.prefix + held
		ws.input = grow(ws.input, d.width())
		s.m.decoderTable.row(ws.input, text[held])
		ws.list = append(ws.list[:0], segment{cache: cache, rows: 1})
		d.stack.forward(ws, ws.input, ws.list)
		s.m.head.mul(&ws.crew, &ws.mulTask, g.logits[(unit*d.chunk+held+1)*vocab:][:vocab], ws.input, 1)
		g.known[unit] = held + 2
	}
	return g.logits[place*vocab:][:vocab]
}

// ready decodes the meta-context of the text's end: from the top down the states of its units, and its tokens side by
// side.
func (g *recGen) ready(s *Session, ws *workspace, o *options) {
	if g.ahead {
		return
	}
	m := s.m
	if g.caches == nil {
		g.caches = make([][]*kvCache, len(m.decoders))
	}
	top := len(m.encoders) - 1
	conds := s.seq.top
	for l := top; l > 0; l-- {
		conds = g.decodeStates(ws, m, l, conds)
		if l == top {
			g.chunk = append(g.chunk[:0], conds...)
		}
	}
	g.guessTokens(s, ws, o, conds)
	g.ahead = true
}

// finish goes on to the next meta-context: the top encoder takes X̂.
func (g *recGen) finish(s *Session, ws *workspace) {
	s.seq.n = len(s.ids)
	s.seq.synced = s.seq.n
	top := len(s.m.encoders) - 1
	e := s.m.encoders[top]
	e.units(ws, s.seq.top, g.chunk, 1)
	ws.list = append(ws.list[:0], segment{cache: s.seq.enc[top], rows: 1})
	e.stack.forward(ws, s.seq.top, ws.list)
	g.ahead = false
}

// start drops what RecGen does not need.
func (g *recGen) start(s *Session) {
	g.started, g.ahead = true, false
	for _, c := range s.seq.enc[:len(s.seq.enc)-1] {
		*c = *c.empty()
	}
	for _, d := range s.seq.dec {
		*d.cache = *d.cache.empty()
	}
	s.logits, s.current = s.logits[:0], false
}

// prefix runs the prefix rows of every unit of level l and returns the last ones [units × W]: X̂ of each first child.
func (g *recGen) prefix(ws *workspace, m *Model, l int, conds []float32) []float32 {
	d := m.decoders[l]
	units := len(conds) / d.converter.in
	for len(g.caches[l]) < units {
		g.caches[l] = append(g.caches[l], newKVCache(m.cacheType, d.stack.cfg))
	}
	rows := d.convert(ws, conds)
	ws.list = ws.list[:0]
	for _, c := range g.caches[l][:units] {
		c.reset(0)
		ws.list = append(ws.list, segment{cache: c, rows: d.prefix})
	}
	d.stack.forward(ws, rows, ws.list)
	for u := range units {
		ws.list[u].rows = 1
		copy(rows[u*d.width():][:d.width()], rows[((u+1)*d.prefix-1)*d.width():])
	}
	return rows[:units*d.width()]
}

// decodeStates decodes the children of every unit of level l, each fed its own predictions: [units·C × D_(l-1)].
func (g *recGen) decodeStates(ws *workspace, m *Model, l int, conds []float32) []float32 {
	d := m.decoders[l]
	width := d.width()
	rows := g.prefix(ws, m, l, conds)
	units := len(rows) / width
	out := grow(g.states[l&1], units*d.chunk*width)
	g.states[l&1] = out
	for j := range d.chunk {
		for u := range units {
			copy(out[(u*d.chunk+j)*width:][:width], rows[u*width:])
		}
		if j+1 < d.chunk {
			d.stack.forward(ws, rows, ws.list)
		}
	}
	return out
}

// guessTokens decodes the tokens of every level-1 unit, one place of all units at a time, as o would draw them but for
// its LogitsFunc.
func (g *recGen) guessTokens(s *Session, ws *workspace, o *options, conds []float32) {
	m, d := s.m, s.m.decoders[0]
	width, vocab := d.width(), m.cfg.VocabSize
	rows := g.prefix(ws, m, 0, conds)
	units := len(rows) / width
	g.guess, g.known = grow(g.guess, units*d.chunk), grow(g.known, units)
	g.logits, g.row = grow(g.logits, units*d.chunk*vocab), grow(g.row, units*vocab)
	guess := *o
	guess.logits, guess.logProbs = nil, -1
	for j := range d.chunk {
		m.head.mul(&ws.crew, &ws.mulTask, g.row, rows, units)
		for u := range units {
			place := u*d.chunk + j
			logits := g.row[u*vocab:][:vocab]
			copy(g.logits[place*vocab:], logits)
			id, _ := ws.sampler.next(&guess, logits, s.ids, s.seq.n+place, nil)
			g.guess[place] = max(id, 0)
			m.decoderTable.row(rows[u*width:], g.guess[place])
		}
		if j+1 < d.chunk {
			d.stack.forward(ws, rows, ws.list)
		}
	}
	for u := range units {
		g.known[u] = d.chunk
	}
}
