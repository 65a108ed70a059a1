package photon

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Request is one text of GenerateBatch: the prompt (or IDs, where it is empty) is appended to Session, or to a new session where that is nil.
// Its Options override those of the batch.
type Request struct {
	Prompt  string
	IDs     []int
	Session *Session
	Options []Option
}

// BatchToken is a token of the request with that index.
type BatchToken struct {
	Request int
	Token
}

// GenerateBatch runs many requests together: texts at any point share each pass over the weights. Every request gets the tokens
// that it would get alone. An error with Request ≥ 0 ends that request only; with Request -1, such as the context's, all. Breaking out of the loop stops the
// work; sessions of the caller then hold the tokens that were yielded.
func (m *Model) GenerateBatch(ctx context.Context, reqs []Request, opts ...Option) iter.Seq2[BatchToken, error] {
	return func(yield func(BatchToken, error) bool) {
		if err := m.check(); err != nil {
			yield(BatchToken{Request: -1}, err)
			return
		}
		b := batch{m: m, yield: yield}
		for i, r := range reqs {
			if err := b.add(i, r, opts); err != nil && !yield(BatchToken{Request: i}, err) {
				return
			}
		}
		b.ws = m.acquire()
		defer m.release(b.ws)
		for len(b.lanes) > 0 && !b.left {
			if err := ctx.Err(); err != nil {
				yield(BatchToken{Request: -1}, err)
				break
			}
			b.draw()
			b.step()
		}
	}
}

// batch is a running GenerateBatch.
type batch struct {
	m      *Model
	ws     *workspace
	lanes  []*lane // those that go on
	yield  func(BatchToken, error) bool
	left   bool // the caller has left the loop
	seqs   []*sequence
	tokens [][]int
}

// lane is one request.
type lane struct {
	index int
	s     *Session
	keep  bool // the session is the caller's
	o     options
	out   *outlet
	todo  []int // the rest of the prompt, or the token drawn last
	n     int   // tokens drawn
	ended bool
	began time.Time
}

func (b *batch) add(i int, r Request, opts []Option) error {
	y := &lane{index: i, s: r.Session, keep: r.Session != nil, todo: r.IDs, began: time.Now()}
	if y.s == nil {
		y.s = b.m.NewSession()
	} else if y.s.m != b.m {
		return fmt.Errorf("photon: request %d: its session belongs to another model: %w", i, ErrMismatch)
	}
	err := y.s.ready()
	if err == nil {
		y.o, err = resolve(y.s.options, append(append([]Option(nil), opts...), r.Options...))
	}
	if err == nil {
		err = b.m.checkMode(y.o.mode)
	}
	if err == nil && len(y.todo) == 0 && (r.Prompt != "" || r.Session == nil) {
		y.todo, err = b.m.encodePrompt(r.Prompt)
	}
	if err == nil {
		err = b.m.checkIDs(y.todo)
	}
	if err == nil && len(y.todo) > 0 && y.s.rec.started {
		err = fmt.Errorf("photon: request %d: RecGen has dropped the lower encoders, so no text can be appended: begin a new session: %w", i, ErrUnsupported)
	}
	for _, other := range b.lanes {
		if err == nil && other.s == y.s {
			err = fmt.Errorf("photon: requests %d and %d share a session: fork it: %w", other.index, i, ErrInvalid)
		}
	}
	if err != nil {
		return err
	}
	y.s.stats.PromptTokens += len(y.todo)
	y.out = newOutlet(b.m.tokenizer, y.o.stop)
	b.lanes = append(b.lanes, y)
	return nil
}

// draw takes a token from every lane whose prompt is done, and drops the lanes that end.
func (b *batch) draw() {
	for _, y := range b.lanes {
		if b.left || len(y.todo) > 0 {
			continue
		}
		emit := func(t Token, err error) bool {
			b.left = b.left || !b.yield(BatchToken{y.index, t}, err)
			return !b.left
		}
		if y.n == y.o.maxTokens {
			y.ended = true
			y.out.finish(emit)
			continue
		}
		t, err := y.s.draw(b.ws, &y.o)
		if err != nil {
			y.ended = true
			y.out.finish(emit)
			emit(Token{}, err)
			continue
		}
		if _, end := b.m.ends(&y.o, t.ID); end {
			y.ended = true
			y.out.finish(emit)
			continue
		}
		y.n++
		y.s.stats.Tokens++
		_, y.ended = y.out.push(t, emit)
		if y.s.rec.started {
			y.s.rec.take++
		} else if y.keep || !y.ended && !b.left && y.n != y.o.maxTokens {
			y.todo = append(y.todo[:0:0], t.ID)
		}
	}
}

// step runs the lanes' tokens through the model together: whole steps are shared fairly among prompts.
func (b *batch) step() {
	b.seqs, b.tokens = b.seqs[:0], b.tokens[:0]
	share := max(1, b.m.pieceTokens()/max(1, len(b.lanes)))
	for _, y := range b.lanes {
		if n := min(len(y.todo), share); n > 0 && (!b.left || y.n > 0) {
			b.seqs, b.tokens = append(b.seqs, y.s.seq), append(b.tokens, y.todo[:n])
			y.s.remember(y.todo[:n])
			y.todo = y.todo[n:]
		}
	}
	if len(b.seqs) > 0 {
		b.m.encode(b.ws, b.seqs, b.tokens)
	}
	b.seqs = b.seqs[:0]
	rest := b.lanes[:0]
	for _, y := range b.lanes {
		if y.s.seq.n > y.s.seq.synced {
			if len(y.todo) == 0 || b.m.seesAll() {
				b.seqs = append(b.seqs, y.s.seq)
			} else {
				b.m.makePlan(y.s.seq, false)
				b.m.trim(y.s.seq)
			}
		}
	}
	if len(b.seqs) > 0 {
		b.m.follow(b.ws, b.seqs, false)
		b.setLogits()
	}
	for _, y := range b.lanes {
		if y.ended || b.left {
			y.s.stats.Seconds += time.Since(y.began).Seconds()
			continue
		}
		rest = append(rest, y)
	}
	b.lanes = rest
}

// setLogits reads the logits of all sequences that decoders have followed.
func (b *batch) setLogits() {
	width, vocab := b.m.decoders[0].width(), b.m.cfg.VocabSize
	b.ws.units = grow(b.ws.units, len(b.seqs)*width)
	for i, s := range b.seqs {
		copy(b.ws.units[i*width:], s.out)
	}
	b.ws.logits = grow(b.ws.logits, len(b.seqs)*vocab)
	b.m.head.mul(&b.ws.crew, &b.ws.mulTask, b.ws.logits, b.ws.units, len(b.seqs))
	for i, s := range b.seqs {
		for _, y := range b.lanes {
			if y.s.seq == s {
				y.s.logits = append(y.s.logits[:0], b.ws.logits[i*vocab:][:vocab]...)
			}
		}
	}
}
