package photon

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Session is the state of one text, made by Model.NewSession, Fork or ReadSession. It is not safe for concurrent use;
// many sessions of one Model are.
//
// What it holds is bounded by Config.StateBytes: with windows on the lower levels only the caches of the top level grow
// with the text, by one row in MetaContext tokens, and memories without a window, by one in each unit that they keep.
type Session struct {
	m       *Model
	options options
	err     error // of the session's own options: every call reports it
	ids     []int // the text. The model has read the first seq.n, and the rest when it is asked for what comes next
	seq     *sequence
	logits  []float32 // of the token after seq.n
	current bool      // and that is the next
	since   int       // where the text begins that stop strings are looked for in
	held    int       // bytes at the end of the text that Generate has not given out
	running bool      // inside a loop over Generate, or part of a batch
	rec     recGen
	stats   Stats
}

// Stats is what a text has cost so far. What is read and stored is counted where it happens. Texts that run together
// share out the time of a step, and the weights that it reads, by their tokens.
type Stats struct {
	PromptTokens int           // appended
	ReusedTokens int           // of these, those whose state a Batcher had kept: see KeepPrefixes
	Tokens       int           // generated
	PromptTime   time.Duration // spent on those
	Time         time.Duration // spent on these, without what the caller's loop did
	StateBytes   int64         // keys and values held now, all caches
	SharedBytes  int64         // of these, what the session's forks, or what it was forked from, may hold as well
	KVReadBytes  int64         // keys and values that attention read
	KVWriteBytes int64         // keys and values that were stored
	// WeightReadBytes are the weights of matrix products, each matrix once for all rows of a step, as they are held.
	WeightReadBytes int64
}

// NewSession begins an empty text. Options are defaults for the session's Generate; a bad one is reported by every
// later call that can fail. It may be called from several goroutines.
func (m *Model) NewSession(opts ...Option) *Session {
	s := &Session{m: m}
	s.options, s.err = m.resolve(m.defaults, opts)
	s.seq = m.empty.clone()
	s.seq.family = m.families.Add(1)
	return s
}

// Len returns the number of tokens in the text.
func (s *Session) Len() int { return len(s.ids) }

// Logits returns the scores of every token to come next [vocab]; nil where nothing predicts it, which is before the
// first token of a flat model. They are the model's own, before any option. It is valid until the session's next call,
// and must not be changed. After RecGen, and of a closed model, it is nil. The model first reads what it has not, in
// general the token drawn last; no context ends that.
func (s *Session) Logits() []float32 {
	if s.rec.started || s.ready() != nil {
		return nil
	}
	if !s.current {
		ws := s.m.acquire()
		defer s.m.release(ws)
		s.catchUp(context.Background(), ws)
	}
	if len(s.logits) == 0 {
		return nil
	}
	return s.logits
}

// Fork returns a copy that goes its own way. It costs next to nothing, whatever the length of the text: the two share
// the keys and values that there are. Each then holds what it adds, and, once it goes on, windows of its own. The copy
// has the session's options and goes on from its Stats, and may be used on another goroutine.
func (s *Session) Fork() *Session {
	f := *s
	f.seq = s.seq.clone()
	f.ids = slices.Clip(s.ids) // shared: neither text changes what is there, and the fork appends to a copy
	f.logits = slices.Clone(s.logits)
	f.rec = recGen{started: s.rec.started}
	f.running = false
	return &f
}

// Stats returns what the text has cost so far.
func (s *Session) Stats() Stats {
	t := s.stats
	t.StateBytes, t.SharedBytes = s.seq.stateBytes()
	t.KVReadBytes, t.KVWriteBytes = s.seq.traffic()
	for _, level := range s.rec.caches {
		for _, c := range level {
			t.KVReadBytes, t.KVWriteBytes = t.KVReadBytes+c.read, t.KVWriteBytes+c.written
		}
	}
	return t
}

// Append adds tokens to the text: encoders run over them in large steps, decoders only over what their windows can
// still see. How a text is cut into calls does not change what follows. When ctx ends, its error is returned within a
// few milliseconds; the tokens read so far stay (see Len), in pieces of 256 units of the lowest level, and the text
// goes on from there as if nothing had happened. An id out of range, and a call inside the session's own loop, match
// ErrInvalid and add nothing; after RecGen it is ErrUnsupported.
func (s *Session) Append(ctx context.Context, ids ...int) error {
	if err := s.appendable(ids); err != nil {
		return err
	}
	if len(ids) == 0 {
		return ended(ctx)
	}
	ws := s.m.acquire()
	defer s.m.release(ws)
	begin := time.Now()
	before, since, held := len(s.ids), s.since, s.held
	s.add(ids)
	err := s.catchUp(ctx, ws)
	if s.cut(max(before, s.seq.n)); len(s.ids) == before { // nothing has come between
		s.since, s.held = since, held
	}
	s.stats.PromptTokens += len(s.ids) - before
	s.stats.PromptTime += time.Since(begin)
	return err
}

// AppendText adds text: as Tokenizer.EncodeText gives it, so that no special token comes of it; where it begins the
// session's text, after the tokens that the tokenizer's template begins with, such as a beginning-of-text token.
// Special tokens are appended by id (Tokenizer.TokenID). Errors are those of Append, and ErrInvalid for text that is
// not UTF-8, ErrUnsupported for a model without a tokenizer.
func (s *Session) AppendText(ctx context.Context, text string) error {
	if err := s.ready(); err != nil {
		return err
	}
	ids, err := s.m.encodeText(ctx, text)
	if err != nil {
		return err
	}
	if s.Len() == 0 {
		ids = append(slices.Clip(s.m.tokenizer.prefix), ids...)
	}
	return s.Append(ctx, ids...)
}

// appendable reports what keeps ids from being appended.
func (s *Session) appendable(ids []int) error {
	if err := s.still("Append"); err != nil {
		return err
	}
	if s.rec.started {
		return fmt.Errorf("photon: RecGen has dropped the lower encoders, so no text can be appended: begin a new session: %w",
			ErrUnsupported)
	}
	if len(ids) > maxText-len(s.ids) {
		return fmt.Errorf("photon: a text of more than %d tokens: %w", maxText, ErrUnsupported)
	}
	return s.m.checkIDs(ids)
}

// add puts ids behind the text.
func (s *Session) add(ids []int) {
	s.ids = append(s.ids, ids...)
	s.since, s.held, s.current = len(s.ids), 0, false
}

// cut drops the tokens from n on, which the model has not read.
func (s *Session) cut(n int) {
	s.ids = s.ids[:n]
	s.since = min(s.since, n)
}

// catchUp has the model read what it has not, and sets the logits of the next token. When ctx ends, what has been read
// so far stays read.
func (s *Session) catchUp(ctx context.Context, ws *workspace) error {
	if s.current || s.rec.started {
		return ended(ctx)
	}
	for !s.current {
		n := min(len(s.ids)-s.seq.n, s.m.pieceTokens())
		ws.oneIntake[0] = intake{s, s.ids[s.seq.n:][:n], s.seq.n+n == len(s.ids), s.m.pieceTokens()}
		var err error
		if len(s.ids)-s.seq.n+s.m.behind(s.seq) <= shortStep {
			if err = ended(ctx); err == nil {
				s.m.advance(ws, ws.oneIntake[:])
			}
		} else {
			err = s.m.whole(ctx, ws, s.seq, func() { s.m.advance(ws, ws.oneIntake[:]) })
		}
		if err != nil {
			s.current = false
			return err
		}
	}
	return nil
}

// shortStep is how many tokens a step may take that is not stopped on its way.
const shortStep = 16

// pieceTokens is how many tokens go through the encoders at once.
func (m *Model) pieceTokens() int { return min(stepRows*m.decoders[0].chunk, mostPiece) }

func (s *Session) ready() error {
	if s.err != nil {
		return s.err
	}
	return s.m.check()
}

// still is ready for what would disturb a loop over the session.
func (s *Session) still(call string) error {
	if s.running {
		return fmt.Errorf("photon: %s of a session inside its own loop, or while it is part of a batch: do it after the loop, or "+
			"with a Fork: %w", call, ErrInvalid)
	}
	return s.ready()
}

// only is a list of one sequence.
func (ws *workspace) only(s *sequence) []*sequence {
	ws.oneSequence[0] = s
	return ws.oneSequence[:]
}
