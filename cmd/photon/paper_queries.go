package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/photon-lm/photon"
)

const (
	samplePrompt = 2048 // tokens
	sampleTokens = 128  // of each sample

	arrivalTexts  = 64
	arrivalPrompt = 512
	arrivalTokens = 64
)

// samples measures so many continuations of one prompt, which is read once.
func (t *paperModel) samples(ctx context.Context, r *paperRow) error {
	base := t.m.NewSession(t.options(r.Mode)...)
	begin := time.Now()
	if err := base.Append(ctx, t.ids(0, 0, samplePrompt)...); err != nil {
		return err
	}
	var texts []*photon.Session
	var requests []photon.Request
	for i := range r.Wanted {
		texts = append(texts, base.Fork())
		requests = append(requests, photon.Request{Session: texts[i],
			Options: []photon.Option{photon.Temperature(0.8), photon.Seed(1), photon.Sample(uint64(i))}})
	}
	before := read(texts)
	times, err := t.together(ctx, requests, sampleTokens, t.seconds, t.round()+1)
	if err != nil {
		return err
	}
	for i := range times {
		times[i].begin = begin
	}
	r.times(times)
	r.costs(texts, before, r.Wanted*(r.Made-1))
	r.Runs = 1
	own := int64(0)
	for _, s := range texts {
		cost := s.Stats()
		own += cost.StateBytes - cost.SharedBytes
	}
	r.State, r.StateText = base.Stats().StateBytes+own, own/int64(len(texts))
	if r.Made < sampleTokens {
		r.Note.add("stopped after %s of %s tokens", count(r.Made), count(sampleTokens))
	}
	return nil
}

// arrivals measures a Batcher to which requests come at random: a Poisson process, the same for every model.
func (t *paperModel) arrivals(ctx context.Context, r *paperRow) error {
	b := t.m.NewBatcher(photon.MaxStateBytes(t.memoryBytes()))
	defer b.Close()
	most := (arrivalTexts/t.rate + mostFactor*t.seconds) * float64(time.Second)
	until, cancel := context.WithTimeout(ctx, time.Duration(most))
	defer cancel()
	times := make([]stamps, arrivalTexts)
	costs := make([]photon.Stats, arrivalTexts)
	errs := make([]error, arrivalTexts)
	var texts sync.WaitGroup
	random := rand.New(rand.NewPCG(1, 0))
	at := time.Duration(0)
	for i := range arrivalTexts {
		prompt, wait := t.ids(i, 0, arrivalPrompt), at
		texts.Go(func() {
			select {
			case <-time.After(wait):
			case <-until.Done():
			}
			times[i].begin = time.Now()
			opts := t.options(r.Mode, photon.MaxTokens(arrivalTokens))
			for _, err := range b.Generate(until, photon.Request{IDs: prompt, Options: opts, Stats: &costs[i]}) {
				if errs[i] = err; err != nil {
					return
				}
				times[i].mark()
			}
		})
		at += time.Duration(random.ExpFloat64() / t.rate * float64(time.Second))
	}
	texts.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	ended := 0
	for i, err := range errs {
		switch {
		case err == nil:
			ended++
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		}
		r.StateText = max(r.StateText, costs[i].StateBytes)
	}
	r.times(times)
	r.DecodePerSecond, r.Runs = 0, 1
	r.Note.add("%g requests a second", t.rate)
	if ended < arrivalTexts {
		r.Note.add("%d of %d had ended %.0f s after the last came", ended, arrivalTexts, mostFactor*t.seconds)
	}
	return nil
}
