package main

import (
	"context"
	"slices"
	"time"

	"github.com/photon-lm/photon"
)

const (
	firstTokens = 32   // behind a long text
	nextTokens  = 128  // and after those
	mostDecoded = 512  // in all
	readBehind  = 2048 // tokens of a prompt behind a long text
	leastSteps  = 8    // of many texts together
)

// long measures behind texts of growing length, which are one text. What is measured goes on with it as a user would; a
// fork reads on to the next length.
func (t *paperModel) long(ctx context.Context, rows []paperRow) error {
	slices.SortStableFunc(rows, func(a, b paperRow) int { return a.Depth - b.Depth })
	s := t.m.NewSession(t.options("hiergen")...)
	var reading time.Duration
	var stopped note
	for _, r := range rows {
		if stopped == "" {
			begin := time.Now()
			var err error
			if stopped, err = t.readTo(ctx, s, r.Depth); err != nil {
				return err
			}
			reading += time.Since(begin)
		}
		next := s.Fork()
		err := t.measured(&r, func() error {
			switch {
			case stopped != "":
				r.Note = stopped
				return nil
			case r.Test == "long":
				r.FirstToken50 = milliseconds(reading)
				return t.behind(ctx, &r, s)
			}
			return t.manyBehind(ctx, &r, s)
		})
		if err != nil {
			return err
		}
		s = next
	}
	return nil
}

// readTo reads until the text has so many tokens; stopped says why it does not get there.
func (t *paperModel) readTo(ctx context.Context, s *photon.Session, depth int) (stopped note, err error) {
	if need := t.m.Config().StateBytes(depth, t.model.cache); need > t.memoryBytes() {
		stopped.add("%s tokens take %s, more than -memory %g", count(depth), size(need), t.memory)
		return stopped, nil
	}
	if t.m.Config().Flat() {
		depth = max(depth, 1) // nothing predicts its first token
	}
	begin, limit := time.Now(), readFactor*t.seconds
	for s.Len() < depth {
		t.progress.share("reading", int64(s.Len()), int64(depth))
		if err := s.Append(ctx, t.text(0, s.Len(), min(4096, depth-s.Len()))...); err != nil {
			return "", err
		}
		if took := time.Since(begin).Seconds(); took > limit && s.Len() < depth {
			stopped.add("stopped reading at %s of %s tokens after %.0f s", count(s.Len()), count(depth), took)
			return stopped, nil
		}
	}
	return "", nil
}

// behind measures one text: the first tokens, those after them, and how fast more is read.
func (t *paperModel) behind(ctx context.Context, r *paperRow, s *photon.Session) error {
	first := r.FirstToken50
	texts, before := []*photon.Session{s}, s.Stats()
	text := stamps{begin: time.Now()}
	for _, err := range s.Generate(ctx, photon.MaxTokens(mostDecoded)) {
		if err != nil {
			return err
		}
		text.mark()
		if n := len(text.tokens); time.Since(text.begin).Seconds() > t.seconds && (n > firstTokens+nextTokens || n > t.round()) {
			break
		}
	}
	s.Logits() // has the model read the last token too
	r.times([]stamps{text})
	r.costs(texts, before, r.Made)
	r.Runs = 1
	r.PerSecond = r.DecodePerSecond
	r.FirstToken50, r.FirstToken99 = first, 0
	if n := len(text.tokens); n > firstTokens {
		r.First32 = firstTokens / text.tokens[firstTokens].Sub(text.tokens[0]).Seconds()
		if n > firstTokens+nextTokens {
			r.Next128 = nextTokens / text.tokens[firstTokens+nextTokens].Sub(text.tokens[firstTokens]).Seconds()
		}
	}
	begin := time.Now()
	err := s.Append(ctx, t.text(1, s.Len(), readBehind)...)
	r.PrefillPerSecond = readBehind / time.Since(begin).Seconds()
	return err
}

// manyBehind doubles the texts, copies of s, until the memory holds no more or the time is up, and measures the last.
func (t *paperModel) manyBehind(ctx context.Context, r *paperRow, s *photon.Session) error {
	most := t.memoryFor(r, s.Len())
	texts := []*photon.Session{s}
	steps := max(leastSteps, t.round())
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
		r.costs(texts, before, n*r.Made)
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
