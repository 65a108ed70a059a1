package photon

import (
	"fmt"
	"slices"
)

// recGen is recursive generation (paper, Definition A.3; approximate): after the prompt the encoders below the top are dropped, and X̂ stands for X in the content rows of
// the decoders above the tokens and in the input of the top chunker. The level-1 units of a meta-context then do not depend on each other's tokens and are decoded side by side. What was drawn never reaches a
// later meta-context: text can drift, and its quality is below that of HierGen.
type recGen struct {
	started bool
	ready   []Token      // the current meta-context, drawn as a whole
	take    int          // how many of those are part of the text
	caches  [][]*kvCache // of each level, one for each of its units in the meta-context
	recGenScratch
}

type recGenScratch struct {
	states  [2][]float32 // X̂ of every unit of two levels, [units × D_l]
	chunk   []float32    // X̂ of the top unit's children
	logits  []float32    // [units × vocab]
	history []int
}

func (g *recGen) tokens() int { return g.take }

func (g *recGen) clone() recGen {
	return recGen{started: g.started, ready: slices.Clone(g.ready), take: g.take}
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
	return nil
}

// drawRec is draw for RecGen. A meta-context that the prompt has begun is finished by HierGen.
func (s *Session) drawRec(ws *workspace, o *options) (Token, error) {
	g := &s.rec
	if !g.started {
		if s.seq.n%s.m.cfg.MetaContext() != 0 {
			return s.choose(ws, o, s.logits, s.recent, s.seq.n)
		}
		g.start(s)
	}
	if g.take == len(g.ready) {
		if err := g.metaContext(s, ws, o); err != nil {
			return Token{}, err
		}
	}
	return g.ready[g.take], nil
}

// start drops what RecGen does not need.
func (g *recGen) start(s *Session) {
	g.started = true
	for _, c := range s.seq.enc[:len(s.seq.enc)-1] {
		*c = *c.empty()
	}
	for _, d := range s.seq.dec {
		*d.cache = *d.cache.empty()
	}
	s.logits = s.logits[:0]
}

// metaContext draws the next meta-context: from the top down the states of its units, its tokens side by side, and at last the top encoder's step over X̂.
func (g *recGen) metaContext(s *Session, ws *workspace, o *options) error {
	m := s.m
	s.seq.n += g.take
	s.seq.synced = s.seq.n
	for _, t := range g.ready {
		ws.oneID[0] = t.ID
		s.remember(ws.oneID[:])
	}
	g.take, g.ready = 0, g.ready[:0]
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
	if err := g.decodeTokens(s, ws, o, conds); err != nil {
		return err
	}
	e := m.encoders[top]
	e.units(ws, s.seq.top, g.chunk, 1)
	ws.list = append(ws.list[:0], segment{cache: s.seq.enc[top], rows: 1})
	e.stack.forward(ws, s.seq.top, ws.list)
	return nil
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

// decodeTokens draws the tokens of every level-1 unit, one place of all units at a time.
func (g *recGen) decodeTokens(s *Session, ws *workspace, o *options, conds []float32) error {
	m, d := s.m, s.m.decoders[0]
	width, vocab := d.width(), m.cfg.VocabSize
	rows := g.prefix(ws, m, 0, conds)
	units := len(rows) / width
	g.ready = grow(g.ready, units*d.chunk)
	g.logits = grow(g.logits, units*vocab)
	for j := range d.chunk {
		m.head.mul(&ws.crew, &ws.mulTask, g.logits, rows, units)
		for u := range units {
			g.history = append(g.history[:0], s.recent[max(0, len(s.recent)-recentTokens):]...)
			for _, t := range g.ready[u*d.chunk:][:j] {
				g.history = append(g.history, t.ID)
			}
			t, err := s.choose(ws, o, g.logits[u*vocab:][:vocab], g.history, s.seq.n+u*d.chunk+j)
			if err != nil {
				g.ready = g.ready[:0]
				return err
			}
			if len(t.Top) > 0 {
				t.Top = slices.Clone(t.Top)
			}
			g.ready[u*d.chunk+j] = t
			m.decoderTable.row(rows[u*width:], t.ID)
		}
		if j+1 < d.chunk {
			d.stack.forward(ws, rows, ws.list)
		}
	}
	return nil
}
