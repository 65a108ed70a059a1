package main

import (
	"cmp"
	"context"
	"io"
	"math"
	"slices"
	"time"

	"github.com/photon-lm/photon"
)

const (
	mostRuns   = 3  // of one text
	mostFactor = 4  // how many times a measurement's time what was planned to fit may take
	readFactor = 10 // and reading a long text
)

// stamps are the times of a text: when it was asked for, and when its tokens came.
type stamps struct {
	begin  time.Time
	tokens []time.Time
}

func (s *stamps) mark() { s.tokens = append(s.tokens, time.Now()) }

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// quantile of sorted values; 0 where there are none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// times fills in what the stamps of all texts tell.
func (r *paperRow) times(texts []stamps) {
	var first, gaps, rates []float64
	begin, reading, end := texts[0].begin, texts[0].begin, texts[0].begin
	made := 0
	for _, s := range texts {
		if s.begin.Before(begin) {
			begin = s.begin
		}
		n := len(s.tokens)
		if made += n; n == 0 {
			continue
		}
		first = append(first, milliseconds(s.tokens[0].Sub(s.begin)))
		for i := range n - 1 {
			gaps = append(gaps, milliseconds(s.tokens[i+1].Sub(s.tokens[i])))
		}
		if n > 1 {
			rates = append(rates, float64(n-1)/s.tokens[n-1].Sub(s.tokens[0]).Seconds())
		}
		if s.tokens[0].After(reading) {
			reading = s.tokens[0]
		}
		if s.tokens[n-1].After(end) {
			end = s.tokens[n-1]
		}
	}
	r.Texts, r.Made = len(texts), made/len(texts)
	r.Seconds = end.Sub(begin).Seconds()
	r.PerSecond = float64(made) / max(r.Seconds, 1e-9)
	after := 0 // the last text has begun
	for _, s := range texts {
		for _, at := range s.tokens {
			if at.After(reading) {
				after++
			}
		}
	}
	r.DecodePerSecond = float64(after) / max(end.Sub(reading).Seconds(), 1e-9)
	for _, list := range [][]float64{first, gaps, rates} {
		slices.Sort(list)
	}
	r.FirstToken50, r.FirstToken99 = quantile(first, 0.5), quantile(first, 0.99)
	r.Token50, r.Token99 = quantile(gaps, 0.5), quantile(gaps, 0.99)
	r.TextRate50, r.TextRate1 = quantile(rates, 0.5), quantile(rates, 0.01)
	sum, squares := 0.0, 0.0
	for _, x := range rates {
		sum, squares = sum+x, squares+x*x
	}
	r.Fairness = sum * sum / max(float64(len(rates))*squares, math.SmallestNonzeroFloat64)
}

// costs fills in what sessions hold, and what they have read since before, when their prompts were read.
func (r *paperRow) costs(texts []*photon.Session, before photon.Stats, passes int) {
	r.State = 0
	var after photon.Stats
	for _, s := range texts {
		now := s.Stats()
		r.State += now.StateBytes
		after.KVReadBytes += now.KVReadBytes
		after.WeightReadBytes += now.WeightReadBytes
	}
	r.StateText = r.State / int64(len(texts))
	r.KVRead = (after.KVReadBytes - before.KVReadBytes) / int64(max(1, passes))
	r.WeightsRead = (after.WeightReadBytes - before.WeightReadBytes) / int64(max(1, passes))
}

// read is what texts have read so far.
func read(texts []*photon.Session) (sum photon.Stats) {
	for _, s := range texts {
		now := s.Stats()
		sum.KVReadBytes += now.KVReadBytes
		sum.WeightReadBytes += now.WeightReadBytes
	}
	return sum
}

// load is the numbers of tokens in and out of a test.
func (r *paperRow) load() (in, out int) {
	for _, l := range paperLoads {
		if r.Test == l.test || r.Test == l.test+"-many" {
			return l.in, l.out
		}
	}
	panic("photon: bench: no load " + r.Test)
}

// one measures a text alone, some times over.
func (t *paperModel) one(ctx context.Context, r *paperRow) error {
	begin := time.Now()
	var runs []paperRow
	for n := 0; n < mostRuns && (n == 0 || time.Since(begin).Seconds()*float64(n+1)/float64(n) < t.seconds); n++ {
		run := *r
		if err := t.alone(ctx, &run); err != nil {
			return err
		}
		runs = append(runs, run)
	}
	slices.SortFunc(runs, func(a, b paperRow) int { return cmp.Compare(a.Seconds, b.Seconds) })
	*r = runs[len(runs)/2]
	r.Runs = len(runs)
	return nil
}

// alone reads a prompt and writes on.
func (t *paperModel) alone(ctx context.Context, r *paperRow) error {
	in, out := r.load()
	warm := t.m.NewSession(t.options(r.Mode, photon.MaxTokens(t.round()))...)
	if err := warm.Append(ctx, t.ids(0, 0, t.round())...); err != nil {
		return err
	}
	for _, err := range warm.Generate(ctx) {
		if err != nil {
			return err
		}
	}
	s := t.m.NewSession(t.options(r.Mode)...)
	text := stamps{begin: time.Now()}
	if err := s.Append(ctx, t.ids(1, 0, in)...); err != nil {
		return err
	}
	before := s.Stats()
	for _, err := range s.Generate(ctx, photon.MaxTokens(out)) {
		if err != nil {
			return err
		}
		text.mark()
		if time.Since(text.begin).Seconds() > mostFactor*t.seconds {
			break
		}
	}
	r.times([]stamps{text})
	r.costs([]*photon.Session{s}, before, r.Made-1) // the model has not read the last token
	if r.Made < out {
		r.Note.add("stopped after %s of %s tokens", count(r.Made), count(out))
	}
	return nil
}

// round is the number of tokens after which a model does the same again.
func (t *paperModel) round() int { return t.m.Config().MetaContext() }

// many measures as many texts as the memory holds, or as are done in time.
func (t *paperModel) many(ctx context.Context, r *paperRow) error {
	in, out := r.load()
	n, err := t.mostTexts(ctx, r, in, out)
	if err != nil {
		return err
	}
	var texts []*photon.Session
	var requests []photon.Request
	for i := range n {
		texts = append(texts, t.m.NewSession(t.options(r.Mode)...))
		requests = append(requests, photon.Request{Session: texts[i], IDs: t.ids(i, 0, in)})
	}
	times, err := t.together(ctx, requests, out, mostFactor*t.seconds, out)
	if err != nil {
		return err
	}
	r.times(times)
	r.costs(texts, photon.Stats{}, n*r.Made)
	r.KVRead, r.WeightsRead = 0, 0 // which are those of the prompts too
	r.Runs = 1
	if r.Made < out {
		r.Note.add("stopped after %s of %s tokens", count(r.Made), count(out))
	}
	return nil
}

// mostTexts doubles the texts for as long as the whole is expected to take no more time than a measurement may.
func (t *paperModel) mostTexts(ctx context.Context, r *paperRow, in, out int) (int, error) {
	base := t.m.NewSession(t.options(r.Mode)...)
	begin := time.Now()
	if err := base.Append(ctx, t.ids(0, 0, in)...); err != nil {
		return 0, err
	}
	reading := time.Since(begin).Seconds()
	most := t.memoryFor(r, in+out)
	best := 1
	for n := min(2, most); n > best; n = min(2*n, most) {
		var requests []photon.Request
		for range n {
			s, err := t.copyOf(base) // forks would read their keys and values together
			if err != nil {
				return 0, err
			}
			requests = append(requests, photon.Request{Session: s})
		}
		times, err := t.together(ctx, requests, t.round()+1, mostFactor*t.seconds, 1)
		if err != nil {
			return 0, err
		}
		probe := paperRow{}
		probe.times(times)
		if float64(n)*(reading+float64(out)/max(probe.DecodePerSecond, 1e-9)) > t.seconds {
			break
		}
		best = n
	}
	if best < most {
		r.Note.add("%s of %s texts: more take longer than %g s", count(best), count(r.Wanted), t.seconds)
	}
	return best, nil
}

// memoryFor is how many of the texts wanted there is memory for.
func (t *paperModel) memoryFor(r *paperRow, tokens int) int {
	most := r.Wanted
	if free := availableBytes(); free > 0 {
		room := max(1, free/10*7/max(1, t.m.Config().StateBytes(tokens, t.model.cache)))
		most = int(min(int64(most), room))
	}
	if most < r.Wanted {
		r.Note.add("%s of %s texts: there is no memory for more", count(most), count(r.Wanted))
	}
	return most
}

// together runs requests until each has out tokens, or, with least tokens each, until the time is up.
func (t *paperModel) together(ctx context.Context, requests []photon.Request, out int, limit float64, least int) (
	[]stamps, error) {
	times := make([]stamps, len(requests))
	begin := time.Now()
	for i := range times {
		times[i].begin = begin
	}
	ready := 0 // texts with the least
	for token, err := range t.m.GenerateBatch(ctx, requests, photon.MaxTokens(out)) {
		if err != nil {
			return nil, err
		}
		text := &times[token.Request]
		if text.mark(); len(text.tokens) == min(least, out) {
			ready++
		}
		// All texts end alike: behind the last of a round.
		late := token.Request == len(requests)-1 && time.Since(begin).Seconds() > limit
		if late && (ready == len(requests) || least == out) {
			break
		}
	}
	return times, nil
}

// copyOf is a text with keys and values of its own, which a fork would share.
func (t *paperModel) copyOf(s *photon.Session) (*photon.Session, error) {
	r, w := io.Pipe()
	go func() {
		_, err := s.WriteTo(w)
		w.CloseWithError(err)
	}()
	c, err := t.m.ReadSession(r, t.options("hiergen")...)
	r.CloseWithError(err)
	return c, err
}
