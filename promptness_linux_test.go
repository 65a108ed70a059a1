package photon

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/photon-lm/photon/internal/bounded"
)

// TestCancelPercentile: calls of every kind, cancelled at random moments, return within 50 ms of it (99 of 100),
// leave no goroutine, and what they worked at goes on to the same bits as if nobody had cancelled. Where a machine
// has other work, the processor's time that they take after the cancel says more than the clock: it is asserted, the
// clock's is told.
func TestCancelPercentile(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("times mean nothing here")
	}
	m := stories(t, WithThreads(2))
	r := rand.New(rand.NewPCG(86, 0))
	text := longIDs(m, times(4000, 100_000))
	whole := m.NewSession()
	if err := whole.Append(background, text...); err != nil {
		t.Fatal(err)
	}

	// cancelled runs f under a context that is cancelled within the time, and returns by how much f outlived that.
	type moment struct {
		clock time.Time
		cpu   time.Duration
	}
	cancelled := func(within time.Duration, f func(ctx context.Context) error) (late, worked time.Duration, cut bool) {
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		at := make(chan moment, 1)
		timer := time.AfterFunc(time.Duration(r.Int64N(int64(within))), func() {
			at <- moment{time.Now(), bounded.Processor()}
			cancel()
		})
		err := f(ctx)
		end := moment{time.Now(), bounded.Processor()}
		if timer.Stop() || err == nil {
			return 0, 0, false
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		begin := <-at
		return end.clock.Sub(begin.clock), end.cpu - begin.cpu, true
	}
	count := times(12, 1000)
	measure := func(name string, within time.Duration, f func(ctx context.Context) error) {
		before := runtime.NumGoroutine()
		var late, worked []time.Duration
		for tries := 0; len(late) < count && tries < 4*count; tries++ {
			if d, w, cut := cancelled(within, f); cut {
				late, worked = append(late, d), append(worked, w)
			}
		}
		if len(late) < count {
			slow(t, "%s: only %d of %d were cut short", name, len(late), count)
		}
		for range 100 {
			if runtime.NumGoroutine() <= before {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%s: %d goroutines, %d before", name, n, before)
		}
		slices.Sort(late)
		slices.Sort(worked)
		n := len(late)
		if n == 0 {
			return
		}
		p99 := late[n*99/100]
		if p99 > 50*time.Millisecond {
			slow(t, "%s: 1 of 100 outlives its context by %v", name, p99)
		}
		if w := worked[n*99/100]; w > 50*time.Millisecond {
			t.Errorf("%s: 1 of 100 works on for %v", name, w)
		}
		const us = time.Microsecond
		figure(t, "%s: %d cancelled, late by %v in the middle, %v of 99 in 100, %v at most; of the processor's time %v, %v, %v",
			name, n, late[n/2].Round(us), p99.Round(us), late[n-1].Round(us), worked[n/2], worked[n*99/100], worked[n-1])
	}

	dir := filepath.Join(t.TempDir(), "model")
	if err := WriteRandom(dir, flat(16000, presetStack(512, 2048, 4, 8)), 1, "BF16"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := Load(dir); err != nil {
		t.Fatal(err)
	}
	measure("load", time.Since(began), func(ctx context.Context) error {
		_, err := Load(dir, WithContext(ctx))
		return err
	})

	s := m.NewSession()
	check := func() {
		t.Helper()
		if s.Len() == len(text) {
			near(t, "logits after a prompt in pieces", s.Logits(), whole.Logits(), 0)
			s = m.NewSession()
		}
	}
	measure("prompt", 20*time.Millisecond, func(ctx context.Context) error {
		err := s.Append(ctx, text[s.Len():]...)
		if !slices.Equal(s.ids, text[:s.Len()]) {
			t.Fatal("the text is another")
		}
		check()
		return err
	})
	if err := s.Append(background, text[s.Len():]...); err != nil {
		t.Fatal(err)
	}
	check()

	alone := func(ids []int, from int) []int {
		s := m.NewSession(noEnd(m), MaxTokens(len(ids)-from))
		if err := s.Append(background, ids[:from]...); err != nil {
			t.Fatal(err)
		}
		drawn := listen(t, s, 0, s.Generate(background)).ids
		return slices.Concat(ids[:from], drawn)
	}
	s = m.NewSession(noEnd(m), MaxTokens(-1))
	if err := s.Append(background, text[:50]...); err != nil {
		t.Fatal(err)
	}
	measure("decode", 10*time.Millisecond, func(ctx context.Context) error { return firstError(s.Generate(ctx)) })
	if want := alone(s.ids, 50); !slices.Equal(s.ids, want) {
		t.Errorf("the text of many cancelled calls differs from that of one")
	}

	b := m.NewBatcher()
	var sessions []*Session
	for i := range 4 {
		s := m.NewSession()
		if err := s.Append(background, text[:10+i]...); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	measure("batch", 10*time.Millisecond, func(ctx context.Context) error {
		errs := make([]error, len(sessions))
		var all sync.WaitGroup
		for i, s := range sessions {
			all.Go(func() {
				errs[i] = firstError(b.Generate(ctx, Request{Session: s, Options: []Option{noEnd(m), MaxTokens(-1)}}))
			})
		}
		all.Wait()
		return errors.Join(errs...)
	})
	b.Close()
	for i, s := range sessions {
		if want := alone(s.ids, 10+i); !slices.Equal(s.ids, want) {
			t.Errorf("text %d of many cancelled batches differs from that of one call", i)
		}
	}
}
