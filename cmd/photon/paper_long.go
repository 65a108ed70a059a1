package main

import (
	"context"
	"time"

	"github.com/photon-lm/photon"
)

const (
	firstTokens = 32   // behind a long text
	nextTokens  = 128  // and after those
	mostDecoded = 512  // in all
	readBehind  = 2048 // tokens of a prompt behind a long text
	leastSteps  = 8    // of many texts together
	readPiece   = 1024 // tokens of a long text read at a time
)

// long measures behind a text as long as r says, which readTo has read. What is measured goes on with it as a user
// would; a fork reads on to the next length.
func (t *paperModel) long(ctx context.Context, r *paperRow) error {
	r.Others = t.disturbed
	if t.stopped != "" {
		r.Note = t.stopped
		return nil
	}
	s := t.text
	t.text = s.Fork()
	if r.Test == "long" {
		return t.behind(ctx, r, s)
	}
	return t.manyBehind(ctx, r, s)
}

// held is the state of the long text.
func (t *paperModel) held() int64 {
	if t.text == nil {
		return 0
	}
	return t.text.Stats().StateBytes
}

// readTo reads until the long text has so many tokens, unless t.stopped comes to say why it does not get there.
func (t *paperModel) readTo(ctx context.Context, depth int) error {
	if t.text == nil {
		t.text = t.m.NewSession(t.options("hiergen")...)
	}
	if need := t.m.Config().StateBytes(depth, t.model.cache); t.stopped == "" && need > t.memoryBytes() {
		t.stopped.add("%s tokens take %s, more than -memory %g", count(depth), size(need), t.memory)
	}
	if t.m.Config().Flat() {
		depth = max(depth, 1) // nothing predicts its first token
	}
	begin, limit := time.Now(), readFactor*t.seconds
	watch := watchOthers()
	defer func() { t.reading, t.disturbed = t.reading+time.Since(begin), max(t.disturbed, watch.share()) }()
	for t.text.Len() < depth && t.stopped == "" {
		t.progress.share("reading", int64(t.text.Len()), int64(depth))
		if err := t.text.Append(ctx, t.ids(0, t.text.Len(), min(readPiece, depth-t.text.Len()))...); err != nil {
			return err
		}
		if took := time.Since(begin).Seconds(); took > limit && t.text.Len() < depth {
			t.stopped.add("stopped reading at %s of %s tokens after %.0f s", count(t.text.Len()), count(depth), took)
		}
	}
	return nil
}

// behind measures one text: the first tokens, those after them, and how fast more is read.
func (t *paperModel) behind(ctx context.Context, r *paperRow, s *photon.Session) error {
	texts, before, state := []*photon.Session{s}, s.Stats(), t.m.Config().StateBytes(s.Len(), t.model.cache)
	text := stamps{begin: time.Now()}
	for _, err := range s.Generate(ctx, photon.MaxTokens(mostDecoded)) {
		if err != nil {
			return err
		}
		text.mark()
		if n := len(text.tokens); time.Since(text.begin).Seconds() > t.seconds && n > t.round() {
			break
		}
	}
	s.Logits() // has the model read the last token too
	r.times([]stamps{text})
	r.costs(texts, before, r.Made)
	r.State, r.StateText = state, state // however far it got
	r.Runs = 1
	r.PerSecond = r.DecodePerSecond
	r.FirstToken50, r.FirstToken99 = milliseconds(t.reading), 0
	if n := len(text.tokens); n > firstTokens {
		r.First32 = firstTokens / text.tokens[firstTokens].Sub(text.tokens[0]).Seconds()
		if n > firstTokens+nextTokens {
			r.Next128 = nextTokens / text.tokens[firstTokens+nextTokens].Sub(text.tokens[firstTokens]).Seconds()
		}
	}
	begin := time.Now()
	err := s.Append(ctx, t.ids(1, s.Len(), readBehind)...)
	r.PrefillPerSecond = readBehind / time.Since(begin).Seconds()
	return err
}

// manyBehind doubles the texts, copies of s, until the memory holds no more or the time is up, and measures the last.
func (t *paperModel) manyBehind(ctx context.Context, r *paperRow, s *photon.Session) error {
	most := t.memoryFor(r, s.Len())
	texts := []*photon.Session{s}
	steps := max(leastSteps, t.round())
	drawn := 0 // texts that have drawn a token which they have not read yet: others draw their first without a pass
	for n := min(2, most); ; n = min(2*n, most) {
		for len(texts) < n {
			c, err := t.copyOf(s)
			if err != nil {
				return err
			}
			texts = append(texts, c)
		}
		var requests []photon.Request
		for _, s := range texts {
			requests = append(requests, photon.Request{Session: s})
		}
		before, begin := read(texts), time.Now()
		times, err := t.together(ctx, requests, steps+1, mostFactor*t.seconds, steps+1)
		if err != nil {
			return err
		}
		r.times(times)
		r.costs(texts, before, n*r.Made-(n-drawn))
		drawn = n
		if n == most {
			break
		}
		if 4*time.Since(begin).Seconds() > t.seconds {
			r.Note.add("%s of %s texts: more take longer than %g s", count(n), count(r.Wanted), t.seconds)
			break
		}
	}
	r.Runs = 1
	r.PerSecond, r.FirstToken50, r.FirstToken99 = r.DecodePerSecond, 0, 0
	return nil
}
