package photon

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Request is one text of a batch: Prompt or IDs are appended to Session, or to a new session where that is nil; giving
// both is ErrInvalid. Options override those of the batch. Stats, where it is not nil, is what the request has cost
// once its stream has ended.
type Request struct {
	// Prompt is encoded with the tokenizer's template where it begins a text; in the middle of one, as
	// Tokenizer.EncodeText does.
	Prompt string
	IDs    []int
	// Session cannot be used while the request goes on, but in its own loop, as in that over Session.Generate.
	Session *Session
	Options []Option
	Stats   *Stats
}

// BatchToken is a token of the request with that index; -1 beside an error that ends all.
type BatchToken struct {
	Request int
	Token
}

// GenerateBatch runs many requests together, on the caller's goroutine: texts at any point share each pass over the
// weights, and long prompts come in slices between their steps. Every request gets the tokens, texts and probabilities
// that it would get alone, and its last value says why it ended. An error with Request ≥ 0 ends that request only; with
// Request -1, such as the context's, all. Breaking out of the loop stops the work; a session of the caller holds the
// tokens that were yielded, at any time.
func (m *Model) GenerateBatch(ctx context.Context, reqs []Request, opts ...Option) iter.Seq2[BatchToken, error] {
	return func(yield func(BatchToken, error) bool) {
		err := m.check()
		if err == nil && ctx == nil {
			err = ended(ctx)
		}
		if err != nil {
			yield(BatchToken{-1, noToken("")}, err)
			return
		}
		b := batch{m: m}
		defer func() {
			for _, l := range b.lanes {
				l.end()
			}
		}()
		for i, r := range reqs {
			l, err := m.lane(ctx, r, opts)
			if err != nil {
				if !yield(BatchToken{i, noToken("")}, fmt.Errorf("%w (request %d)", err, i)) {
					return
				}
				continue
			}
			l.index = i
			b.lanes = append(b.lanes, l)
		}
		b.ws = m.acquire()
		defer m.release(b.ws)
		for len(b.lanes) > 0 {
			if err := ended(ctx); err != nil {
				for _, l := range b.lanes {
					l.account()
					if rest := l.finish(); rest != "" && !yield(BatchToken{l.index, noToken(rest)}, err) {
						return
					}
				}
				yield(BatchToken{-1, noToken("")}, err)
				return
			}
			b.ws.crew.giveWay()
			b.pass(b.lanes)
			for _, l := range b.lanes {
				if l.done = l.done || l.over(); l.done || !l.ready() {
					continue
				}
				t, err := l.next(b.ws)
				if l.done = err != nil || t.Stop != Going; l.done {
					l.account()
				}
				if !yield(BatchToken{l.index, t}, err) {
					return
				}
			}
			b.lanes = slices.DeleteFunc(b.lanes, func(l *lane) bool {
				if l.done {
					l.end()
				}
				return l.done
			})
		}
	}
}

// lane is a request that runs.
type lane struct {
	*stream
	index   int
	todo    []int // of the prompt, what the text does not have yet
	keeping keeping
	stats   *Stats
	done    bool
	served
}

// lane checks a request and takes hold of its session.
func (m *Model) lane(ctx context.Context, r Request, opts []Option) (*lane, error) {
	if r.Prompt != "" && len(r.IDs) > 0 {
		return nil, fmt.Errorf("photon: a request with Prompt and IDs: give one of them: %w", ErrInvalid)
	}
	s := r.Session
	if s == nil {
		s = m.NewSession()
	} else if s.m != m {
		return nil, fmt.Errorf("photon: the request's session belongs to another model: make it with this one: %w",
			ErrMismatch)
	}
	if err := s.still("a request"); err != nil {
		return nil, err
	}
	l := &lane{todo: r.IDs, stats: r.Stats}
	var err error
	if len(r.IDs) == 0 && (r.Prompt != "" || r.Session == nil) {
		if l.todo, err = s.encodePrompt(ctx, r.Prompt); err != nil {
			return nil, err
		}
	}
	if len(l.todo) > 0 {
		if err := s.appendable(l.todo); err != nil {
			return nil, err
		}
	}
	if l.stream, err = s.stream(slices.Concat(opts, r.Options), r.Session == nil); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *lane) end() {
	l.stream.end()
	l.account()
}

// account tells the request what it has cost so far.
func (l *lane) account() {
	if l.stats != nil {
		*l.stats = l.s.Stats()
	}
}

// reads says whether the model is still busy with the prompt.
func (l *lane) reads() bool {
	return len(l.todo) > 0 || !l.s.current && !l.s.rec.started && l.s.m.behind(l.s.seq) > shortStep
}

// ready says whether a token can be drawn.
func (l *lane) ready() bool { return len(l.todo) == 0 && (l.s.current || l.s.rec.started) }

// over says whether the text has ended before its first token.
func (l *lane) over() bool { return len(l.todo) == 0 && l.o.maxTokens == 0 }

// next draws a token; an error comes with the rest of the text.
func (l *lane) next(ws *workspace) (Token, error) {
	begin := time.Now()
	if l.outlet == nil {
		l.begin()
	}
	t, err := l.draw(ws)
	if err != nil {
		t = noToken(l.finish())
	}
	l.s.stats.Time += time.Since(begin)
	return t, err
}

// batch runs lanes together.
type batch struct {
	m     *Model
	ws    *workspace
	lanes []*lane
	slice int // tokens of prompts in a pass; 0: as many as sliceTime allows

	reading, following pace

	intakes []intake
}

const (
	sliceTime = 25 * time.Millisecond // what a pass with a slice of a prompt should take
	leastTune = 8                     // tokens of a slice, whatever they take
)

// pass runs the model once over what lanes have to read: the token drawn last, or a slice of the prompt, of which all
// get the same share.
func (b *batch) pass(lanes []*lane) {
	prompts := 0
	for _, l := range lanes {
		if l.reads() {
			prompts++
		}
	}
	share := func(p *pace) int {
		slice := b.slice
		if slice == 0 {
			slice = p.tokens()
		}
		return max(1, slice/max(1, prompts))
	}
	reads, follows := share(&b.reading), share(&b.following)
	b.intakes = b.intakes[:0]
	total, read, followed := 0, 0, 0
	for _, l := range lanes {
		n := l.piece(reads)
		settles := l.settles()
		if settles {
			n = 0
		}
		if n > 0 {
			l.s.add(l.todo[:n])
			l.todo = l.todo[n:]
			l.s.stats.PromptTokens += n
			read += n
		}
		if l.s.current || l.s.rec.started {
			continue
		}
		tokens := l.s.ids[l.s.seq.n:]
		if n == 0 && l.reads() {
			followed += follows
		}
		b.intakes = append(b.intakes, intake{l.s, tokens, len(l.todo) == 0 || settles, max(follows, shortStep)})
		total += max(1, len(tokens))
	}
	if len(b.intakes) == 0 {
		return
	}
	// Forks that are beside one another read their common keys together.
	slices.SortStableFunc(b.intakes, func(f, g intake) int { return cmp.Compare(f.s.seq.family, g.s.seq.family) })
	begin := time.Now()
	b.m.advance(b.ws, b.intakes)
	took := time.Since(begin)
	for _, f := range b.intakes {
		part := took * time.Duration(max(1, len(f.tokens))) / time.Duration(total)
		if f.s.since == len(f.s.ids) && len(f.tokens) > 0 {
			f.s.stats.PromptTime += part
		} else {
			f.s.stats.Time += part
		}
	}
	clear(b.intakes)
	b.reading.tune(took, read, b.m.pieceTokens())
	b.following.tune(took, followed, b.m.pieceTokens())
}

// pace is how many tokens of prompts a pass takes: read, or followed by the decoders once all are read, which costs
// another time.
type pace int

func (p *pace) tokens() int {
	if *p == 0 {
		*p = 64
	}
	return int(*p)
}

// tune fits the pace to the time that a pass with n tokens took.
func (p *pace) tune(took time.Duration, n, most int) {
	now := p.tokens()
	switch {
	case n == 0:
	case took > 2*sliceTime:
		now = max(leastTune, now/2)
	case took > sliceTime:
		now = max(leastTune, now*3/4)
	case took < sliceTime*2/3 && n >= now*3/4:
		now = min(most, now*3/2)
	}
	*p = pace(now)
}

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
	weights := ws.mulTask.read
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
	shareOut(ws.mulTask.read-weights, intakes)
}

// shareOut adds to what texts have read of weights, by their tokens.
func shareOut(weights int64, intakes []intake) {
	total, before := int64(0), int64(0)
	for i := range intakes {
		total += intakes[i].weight()
	}
	for i := range intakes {
		end := before + intakes[i].weight()
		intakes[i].s.stats.WeightReadBytes += weights*end/total - weights*before/total
		before = end
	}
}

// weight is the part of a step that counts as the text's.
func (f *intake) weight() int64 { return int64(max(1, len(f.tokens))) }

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
		for r := range s.forks {
			clear(s.forks[r][:cap(s.forks[r])])
		}
	}
}
