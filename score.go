package photon

import (
	"context"
	"math"
)

// Logits computes all rows in one pass (teacher-forced): row-major [len(ids) × vocab]. Row i predicts token i for a hierarchical model and
// token i+1 for a flat one (Config.Flat reports which). ids out of range match ErrInvalid.
func (m *Model) Logits(ctx context.Context, ids []int) ([]float32, error) {
	out := make([]float32, 0, len(ids)*m.cfg.VocabSize)
	err := m.eachRow(ctx, ids, func(logits []float32) { out = append(out, logits...) })
	if err != nil {
		return nil, err
	}
	return out[:len(ids)*m.cfg.VocabSize], nil
}

// Score returns the natural-log probability of each token given those before it, len(ids) values. A flat model has none for its first token: there it is
// NaN, unless the model has a beginning-of-text token to put before a text that does not begin with it.
func (m *Model) Score(ctx context.Context, ids []int) ([]float32, error) {
	text := ids
	scores := make([]float32, 0, len(ids)+1)
	if m.cfg.Flat() && len(ids) > 0 {
		if bos := m.cfg.BOSTokenID; bos >= 0 && ids[0] != bos {
			text = append([]int{bos}, ids...)
			ids = text[1:]
		} else {
			scores = append(scores, float32(math.NaN()))
			ids = ids[1:]
		}
	}
	next := 0
	err := m.eachRow(ctx, text, func(logits []float32) {
		for vocab := m.cfg.VocabSize; len(logits) > 0 && next < len(ids); logits = logits[vocab:] {
			scores = append(scores, logProb(logits[:vocab], ids[next]))
			next++
		}
	})
	if err != nil {
		return nil, err
	}
	return scores, nil
}

// eachRow runs the model over a whole text and hands out its logits in order, some rows at a time. There may be a row behind the last token.
func (m *Model) eachRow(ctx context.Context, ids []int, f func(logits []float32)) error {
	if err := m.check(); err != nil {
		return err
	}
	if err := m.checkIDs(ids); err != nil {
		return err
	}
	ws := m.acquire()
	defer m.release(ws)
	s := m.newSequence()
	width, vocab := m.decoders[0].width(), m.cfg.VocabSize
	for len(ids) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(len(ids), m.pieceTokens())
		ws.oneText[0] = ids[:n]
		m.encode(ws, ws.only(s), ws.oneText[:])
		rows := m.follow(ws, ws.only(s), true)
		for ids = ids[n:]; len(rows) > 0; {
			if err := ctx.Err(); err != nil {
				return err
			}
			some := min(len(rows)/width, stepRows)
			ws.logits = grow(ws.logits, some*vocab)
			m.head.mul(&ws.crew, &ws.mulTask, ws.logits, rows, some)
			f(ws.logits)
			rows = rows[some*width:]
		}
	}
	return nil
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
