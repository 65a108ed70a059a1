package photon

import "context"

// intake is what a text reads in one pass of the model: tokens, the next of its ids. last: and then its next token is
// to be predicted, for which the decoders follow at most most tokens in this pass.
type intake struct {
	s      *Session
	tokens []int
	last   bool
	most   int
}

// advance is one pass over the model for many texts, wherever each stands. What they need of the same stack runs
// together.
func (m *Model) advance(ws *workspace, intakes []intake) {
	ws.seqs, ws.tokens = ws.seqs[:0], ws.tokens[:0]
	for _, f := range intakes {
		if len(f.tokens) > 0 {
			ws.seqs, ws.tokens = append(ws.seqs, f.s.seq), append(ws.tokens, f.tokens)
		}
	}
	if len(ws.seqs) > 0 {
		m.encode(ws, ws.seqs, ws.tokens)
	}
	ws.seqs = ws.seqs[:0]
	for i := range intakes {
		f := &intakes[i]
		switch q := f.s.seq; {
		case q.n == q.synced:
		case f.last || m.seesAll():
			if more := m.behind(q) - f.most; more > 0 && f.last {
				q.target, f.last = q.n-more, false
			}
			ws.seqs = append(ws.seqs, q)
		default:
			m.makePlan(q, false)
			m.trim(q)
		}
	}
	if len(ws.seqs) > 0 {
		m.follow(ws, ws.seqs, false)
	}
	m.predict(ws, intakes)
}

// predict computes the logits of those texts that want them.
func (m *Model) predict(ws *workspace, intakes []intake) {
	width, vocab := m.decoders[0].width(), m.cfg.VocabSize
	ws.units = ws.units[:0]
	n := 0
	for _, f := range intakes {
		if f.last {
			if f.s.current = true; len(f.s.seq.out) == 0 {
				f.s.logits = f.s.logits[:0]
				continue
			}
			f.s.logits = grow(f.s.logits, vocab)
			ws.units = append(ws.units, f.s.seq.out...)
			n++
		}
	}
	if n == 0 {
		return
	}
	ws.logits = grow(ws.logits, n*vocab)
	m.head.mul(&ws.crew, &ws.mulTask, ws.logits, ws.units[:n*width], n)
	at := 0
	for _, f := range intakes {
		if f.last && len(f.s.seq.out) > 0 {
			at += copy(f.s.logits, ws.logits[at:])
		}
	}
}

// whole runs f, which moves s on. When ctx ends before f is done, s is as before, and the context's error comes back;
// what f has written elsewhere then means nothing.
func (m *Model) whole(ctx context.Context, ws *workspace, s *sequence, f func()) error {
	if err := ended(ctx); err != nil {
		return err
	}
	if ctx.Done() == nil {
		f()
		return nil
	}
	before := m.save(s)
	ws.crew.until = ctx
	defer func() { ws.crew.until = nil }()
	f()
	if ws.crew.aborted.Swap(false) {
		*s = *before
		return ended(ctx)
	}
	return nil
}

// forget drops what the workspace knows of texts, which it would otherwise keep alive while it is idle.
func (ws *workspace) forget() {
	ws.oneIntake, ws.oneSequence, ws.oneText = [1]intake{}, [1]*sequence{}, [1][]int{}
	clear(ws.seqs[:cap(ws.seqs)])
	clear(ws.tokens[:cap(ws.tokens)])
	clear(ws.list[:cap(ws.list)])
	clear(ws.kept[:cap(ws.kept)])
	clear(ws.segments[:cap(ws.segments)])
	clear(ws.rows[:cap(ws.rows)])
	for i := range ws.memories {
		rows := ws.memories[i].rows
		clear(rows[:cap(rows)])
	}
	for i := range ws.attention.scratch {
		s := &ws.attention.scratch[i]
		s.places = nil
		clear(s.spans[:cap(s.spans)])
	}
}
