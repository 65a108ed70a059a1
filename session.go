package photon

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Session is the state of one text. It is not safe for concurrent use; many sessions of one Model are.
//
// What it holds is bounded by Config.StateBytes: with windows on the lower levels only the caches of the top level grow with the text,
// by one row in MetaContext tokens, and memories without a window, by one in each unit that they keep.
type Session struct {
	m       *Model
	options options
	err     error // of the session's own options: every call reports it
	seq     *sequence
	logits  []float32
	recent  []int // the last tokens, for the repeat penalty
	sampler sampler
	rec     recGen
	stats   Stats
}

// Stats is what a text has cost so far. Key and value traffic is counted where it happens.
type Stats struct {
	PromptTokens  int     // appended
	Tokens        int     // generated
	PromptSeconds float64 // spent on those
	Seconds       float64 // spent on these
	StateBytes    int64   // keys and values held now, all caches
	KVReadBytes   int64   // keys and values that attention read
	KVWriteBytes  int64   // keys and values that were stored
}

// recentTokens is how far back the repeat penalty may look.
const recentTokens = 64

// NewSession begins an empty text. Options are defaults for the session's Generate; a bad one is reported by every later call.
func (m *Model) NewSession(opts ...Option) *Session {
	s := &Session{m: m}
	s.options, s.err = resolve(defaultOptions(), opts)
	if s.err == nil {
		s.err = m.checkMode(s.options.mode)
	}
	s.seq = m.empty.clone()
	s.setLogits(nil)
	return s
}

// Len returns the number of tokens in the text.
func (s *Session) Len() int { return s.seq.n + s.rec.tokens() }

// Logits returns the scores of every token to come next [vocab]; nil where nothing predicts it, which is before the first token of a flat model. It is valid until
// the session's next call, and must not be changed. After RecGen it is nil.
func (s *Session) Logits() []float32 {
	if len(s.logits) == 0 {
		return nil
	}
	return s.logits
}

// Fork returns a copy that goes its own way, at the cost of copying the state.
func (s *Session) Fork() *Session {
	f := *s
	f.seq = s.seq.clone()
	f.logits = slices.Clone(s.logits)
	f.recent = slices.Clone(s.recent)
	f.sampler = sampler{}
	f.rec = s.rec.clone()
	return &f
}

// Stats returns what the text has cost so far.
func (s *Session) Stats() Stats {
	t := s.stats
	t.StateBytes = s.seq.stateBytes()
	t.KVReadBytes, t.KVWriteBytes = s.seq.traffic()
	for _, level := range s.rec.caches {
		for _, c := range level {
			t.KVReadBytes, t.KVWriteBytes = t.KVReadBytes+c.read, t.KVWriteBytes+c.written
		}
	}
	return t
}

// Append adds tokens to the text: encoders run over them in large steps, decoders only over what their windows can still see. How a
// text is cut into calls does not change what follows. When ctx ends the tokens taken so far stay (see Len) and its error is returned; an id out
// of range matches ErrInvalid and adds nothing.
func (s *Session) Append(ctx context.Context, ids ...int) error {
	if err := s.ready(); err != nil {
		return err
	}
	if s.rec.started {
		return fmt.Errorf("photon: RecGen has dropped the lower encoders, so no text can be appended: begin a new session: %w", ErrUnsupported)
	}
	if err := s.m.checkIDs(ids); err != nil {
		return err
	}
	if len(ids) == 0 {
		return ctx.Err()
	}
	ws := s.m.acquire()
	defer s.m.release(ws)
	begin := time.Now()
	before := s.seq.n
	err := s.append(ctx, ws, ids)
	s.stats.PromptTokens += s.seq.n - before
	s.stats.PromptSeconds += time.Since(begin).Seconds()
	return err
}

func (s *Session) append(ctx context.Context, ws *workspace, ids []int) error {
	err := ctx.Err()
	for err == nil && len(ids) > 0 {
		n := min(len(ids), s.m.pieceTokens())
		s.take(ws, ids[:n])
		ids = ids[n:]
		if s.m.seesAll() && len(ids) > 0 {
			s.m.follow(ws, ws.only(s.seq), false)
		}
		err = ctx.Err()
	}
	if s.seq.n > s.seq.synced {
		s.m.follow(ws, ws.only(s.seq), false)
		s.setLogits(ws)
	}
	return err
}

// take has the encoders take tokens, and keeps of them what decoders will need.
func (s *Session) take(ws *workspace, ids []int) {
	ws.oneText[0] = ids
	s.m.encode(ws, ws.only(s.seq), ws.oneText[:])
	s.m.makePlan(s.seq, false)
	s.m.trim(s.seq)
	s.remember(ids)
}

func (s *Session) remember(ids []int) {
	if len(s.recent)+len(ids) > 4*recentTokens {
		s.recent = s.recent[:copy(s.recent, s.recent[max(0, len(s.recent)-recentTokens):])]
	}
	s.recent = append(s.recent, ids[max(0, len(ids)-recentTokens):]...)
}

// setLogits reads the logits off the last prediction; without a workspace it takes one.
func (s *Session) setLogits(ws *workspace) {
	if len(s.seq.out) == 0 {
		s.logits = s.logits[:0]
		return
	}
	if ws == nil {
		ws = s.m.acquire()
		defer s.m.release(ws)
	}
	s.logits = grow(s.logits, s.m.cfg.VocabSize)
	s.m.head.mul(&ws.crew, &ws.mulTask, s.logits, s.seq.out, 1)
}

// pieceTokens is how many tokens go through the encoders at once.
func (m *Model) pieceTokens() int { return stepRows * m.decoders[0].chunk }

func (s *Session) ready() error {
	if s.err != nil {
		return s.err
	}
	return s.m.check()
}

// only is a list of one sequence.
func (ws *workspace) only(s *sequence) []*sequence {
	ws.oneSequence[0] = s
	return ws.oneSequence[:]
}
