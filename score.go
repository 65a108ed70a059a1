package photon

import (
	"context"
	"fmt"
	"math"
)

// Logits computes the scores of every next token in one pass: row-major [(len(ids)+1) × vocab], of which row i scores
// the token after ids[:i]. Nothing precedes the first token of a flat model but its beginning-of-text token: row 0 is
// what follows that, or NaN where there is none. ids out of range match ErrInvalid. The context's end is obeyed within
// a few milliseconds. It may be called from several goroutines.
func (m *Model) Logits(ctx context.Context, ids []int) ([]float32, error) {
	rows := len(ids) + 1
	if int64(rows) > math.MaxInt/4/int64(m.cfg.VocabSize) {
		return nil, fmt.Errorf("photon: Logits of %d rows, which no memory holds: use EachLogits: %w",
			rows, ErrUnsupported)
	}
	var out []float32
	err := m.EachLogits(ctx, ids, func(row []float32) {
		if out == nil {
			out = make([]float32, 0, rows*m.cfg.VocabSize)
		}
		out = append(out, row...)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// EachLogits is Logits where they would not fit in memory: f gets its rows in order, [vocab] each, and must not keep
// them. Errors are those of Logits, some rows may have been handed out before. It may be called from several
// goroutines; f is called from its caller's.
func (m *Model) EachLogits(ctx context.Context, ids []int, f func(row []float32)) error {
	if f == nil {
		return fmt.Errorf("photon: EachLogits wants a function to give rows to: %w", ErrInvalid)
	}
	ws, err := m.pass(ctx, ids)
	if err != nil {
		return err
	}
	defer m.release(ws)
	each := func(logits []float32) {
		for vocab := m.cfg.VocabSize; len(logits) > 0; logits = logits[vocab:] {
			f(logits[:vocab:vocab])
		}
	}
	if m.cfg.Flat() && m.cfg.BOSTokenID < 0 {
		unknown := make([]float32, m.cfg.VocabSize)
		for i := range unknown {
			unknown[i] = nan32
		}
		f(unknown)
	} else if m.cfg.Flat() {
		err = m.eachRow(ctx, ws, m.newSequence(), []int{m.cfg.BOSTokenID}, each)
	}
	if err == nil {
		err = m.eachRow(ctx, ws, m.newSequence(), ids, each)
	}
	return err
}

var nan32 = float32(math.NaN())

// Score returns the natural-log probability of each token given those before it, len(ids) values. A flat model has none
// for its first token: there it is NaN, unless the model has a beginning-of-text token to put before a text that does
// not begin with it. Errors are those of Logits. It may be called from several goroutines.
func (m *Model) Score(ctx context.Context, ids []int) ([]float32, error) {
	ws, err := m.pass(ctx, ids)
	if err != nil {
		return nil, err
	}
	defer m.release(ws)
	text := ids
	scores := make([]float32, 0, len(ids)+1)
	if m.cfg.Flat() && len(ids) > 0 {
		if bos := m.cfg.BOSTokenID; bos >= 0 && ids[0] != bos {
			text = append([]int{bos}, ids...)
			ids = text[1:]
		} else {
			scores = append(scores, nan32)
			ids = ids[1:]
		}
	}
	if err := m.eachRow(ctx, ws, m.newSequence(), text, m.scorer(&scores, ids)); err != nil {
		return nil, err
	}
	return scores, nil
}

// Score returns the natural-log probability of each token of a continuation, len(ids) values; it is not appended, so
// that several continuations cost one prompt. Nothing predicts the first token of a flat model: where the session is
// empty, that is NaN. Errors are those of Model.Score, and ErrUnsupported after RecGen.
func (s *Session) Score(ctx context.Context, ids ...int) ([]float32, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if s.rec.started {
		return nil, fmt.Errorf("photon: RecGen has dropped the lower encoders, so nothing can be scored: begin a new session: %w", ErrUnsupported)
	}
	ws, err := s.m.pass(ctx, ids)
	if err != nil {
		return nil, err
	}
	defer s.m.release(ws)
	if err := s.catchUp(ctx, ws); err != nil || len(ids) == 0 {
		return nil, err
	}
	scores := make([]float32, 0, len(ids))
	if len(s.logits) > 0 {
		scores = append(scores, logProb(s.logits, ids[0]))
	} else {
		scores = append(scores, nan32)
	}
	before, weights := s.m.save(s.seq), ws.mulTask.read
	defer func() {
		*s.seq = *before
		s.stats.WeightReadBytes += ws.mulTask.read - weights
	}()
	if err := s.m.eachRow(ctx, ws, s.seq, ids[:len(ids)-1], s.m.scorer(&scores, ids[1:])); err != nil {
		return nil, err
	}
	return scores, nil
}

// scorer takes rows of logits and appends the log-probabilities of ids, as far as they go.
func (m *Model) scorer(scores *[]float32, ids []int) func(logits []float32) {
	return func(logits []float32) {
		for vocab := m.cfg.VocabSize; len(logits) > 0 && len(ids) > 0; logits, ids = logits[vocab:], ids[1:] {
			*scores = append(*scores, logProb(logits[:vocab], ids[0]))
		}
	}
}

// pass checks ids and acquires a workspace.
func (m *Model) pass(ctx context.Context, ids []int) (*workspace, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := m.checkIDs(ids); err != nil {
		return nil, err
	}
	if err := ended(ctx); err != nil {
		return nil, err
	}
	return m.acquire(), nil
}

// eachRow runs q over ids and hands out, in order and some rows at a time, the logits of every token that has not been
// predicted, up to the one after ids. When ctx ends, q is of no use any more.
func (m *Model) eachRow(ctx context.Context, ws *workspace, q *sequence, ids []int, f func(logits []float32)) error {
	width, vocab := m.decoders[0].width(), m.cfg.VocabSize
	ws.crew.until = ctx
	defer func() {
		ws.crew.until = nil
		ws.crew.aborted.Store(false)
	}()
	for len(ids) > 0 || q.synced < 0 && !m.cfg.Flat() {
		n := min(len(ids), m.pieceTokens())
		ws.oneText[0] = ids[:n]
		m.encode(ws, ws.only(q), ws.oneText[:])
		rows := m.follow(ws, ws.only(q), true)
		for ids = ids[n:]; len(rows) > 0; {
			some := min(len(rows)/width, m.logitRows())
			ws.logits = grow(ws.logits, some*vocab)
			m.head.mul(&ws.crew, &ws.mulTask, ws.logits, rows, some)
			if ws.crew.over() {
				return ended(ctx)
			}
			f(ws.logits)
			rows = rows[some*width:]
		}
	}
	return ended(ctx)
}

// logProb is the log-softmax of logits at id.
func logProb(logits []float32, id int) float32 {
	top := math.Inf(-1)
	for _, v := range logits {
		top = max(top, float64(v))
	}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	return float32(float64(logits[id]) - top - math.Log(sum))
}
