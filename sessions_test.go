package photon

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var manyTime = flag.Duration("sessions.time", 0, "how long TestManySessions runs; 0: 2 s, or 5 min in a campaign")

// TestManySessions: 64 goroutines on one model and one Batcher append, fork, generate, save, score, cancel, leave
// early and panic. Every text is what it would be alone, no workspace, lock or goroutine is lost, and Close while
// they generate gives ErrClosed.
func TestManySessions(t *testing.T) {
	const workers = 64
	each := *manyTime
	switch {
	case each > 0:
	case *campaign:
		each = 5 * time.Minute
	default:
		each = 2 * time.Second
	}
	dirs := []string{"photon-local-f32", "flat-mistral-f32", "three-stream-nope-i8", "memory-window-rope-stream-bf16"}
	if !*campaign {
		dirs = dirs[:2]
	}
	goroutines := runtime.NumGoroutine()
	var operations, panics, cancels atomic.Int64
	for _, dir := range dirs {
		m, err := Load(filepath.Join("testdata/golden", dir), WithThreads(2))
		if err != nil {
			t.Fatal(err)
		}
		b := m.NewBatcher(MaxTexts(24), PrefillSlice(5))
		end := time.Now().Add(each / time.Duration(len(dirs)))
		var all sync.WaitGroup
		for i := range workers {
			all.Go(func() {
				w := &sessionWorker{t: t, m: m, b: b, r: rand.New(rand.NewPCG(87, uint64(i)))}
				w.begin()
				for time.Now().Before(end) && !t.Failed() {
					w.operation()
				}
				operations.Add(int64(w.operations))
				panics.Add(int64(w.panics))
				cancels.Add(int64(w.cancels))
			})
		}
		all.Wait()
		m.mu.Lock() // which nobody holds
		if idle := len(m.idle); idle == 0 || idle > maxIdle {
			t.Errorf("%d workspaces are idle", idle)
		}
		m.mu.Unlock()

		// Close, while all of them generate.
		b.Close()
		b = m.NewBatcher()
		closed := make([]error, workers)
		var running sync.WaitGroup
		running.Add(workers)
		for i := range workers {
			all.Go(func() {
				told := false
				for _, err := range neverEnding(m, b, i) {
					if !told {
						told = true
						running.Done()
					}
					if closed[i] = err; err != nil {
						return
					}
				}
			})
		}
		running.Wait()
		m.Close()
		all.Wait()
		for i, err := range closed {
			if !errors.Is(err, ErrClosed) {
				t.Fatalf("worker %d: Close while it generates: %v", i, err)
			}
		}
		if err := m.NewSession().Append(background, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("a session of a closed model: %v", err)
		}
		b.Close()
	}
	for range 100 {
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	figure(t, "%d sessions in %v: %d operations, %d panics of the caller's functions, %d cancelled", workers, each,
		operations.Load(), panics.Load(), cancels.Load())
}

// neverEnding generates without an end, by a session of its own or by the Batcher.
func neverEnding(m *Model, b *Batcher, i int) func(func(Token, error) bool) {
	opts := []Option{MaxTokens(-1), LogitsFunc(func(_ []int, logits []float32) {
		for _, id := range m.cfg.EOSTokenIDs {
			logits[id] = negInf
		}
	})}
	if i%2 == 0 {
		s := m.NewSession(opts...)
		if err := s.Append(background, 1+i%9); err != nil {
			return func(yield func(Token, error) bool) { yield(Token{}, err) }
		}
		return s.Generate(background)
	}
	return b.Generate(background, Request{IDs: []int{1 + i%9}, Options: opts})
}

// A sessionWorker has one text, and does to it what programs do.
type sessionWorker struct {
	t                           *testing.T
	m                           *Model
	b                           *Batcher
	r                           *rand.Rand
	s                           *Session
	ids                         []int
	operations, panics, cancels int
}

func (w *sessionWorker) begin() {
	w.s, w.ids = w.m.NewSession(), nil
	w.append(1 + w.r.IntN(20))
}

func (w *sessionWorker) some(n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = w.r.IntN(w.m.cfg.VocabSize)
	}
	return ids
}

func (w *sessionWorker) append(n int) {
	more := w.some(n)
	if err := w.s.Append(background, more...); err != nil {
		w.t.Errorf("Append: %v", err)
	}
	w.ids = append(w.ids, more...)
}

func (w *sessionWorker) operation() {
	w.operations++
	switch w.r.IntN(10) {
	case 0:
		w.append(w.r.IntN(30))
	case 1:
		old := w.s
		w.s = w.s.Fork()
		if w.r.IntN(2) == 0 {
			old.Append(background, w.some(3)...)
		}
	case 2:
		var data bytes.Buffer
		if _, err := w.s.WriteTo(&data); err != nil {
			w.t.Errorf("WriteTo: %v", err)
		}
		s, err := w.m.ReadSession(&data)
		if err != nil {
			w.t.Errorf("ReadSession: %v", err)
			return
		}
		w.s = s
	case 3:
		if _, err := w.s.Score(background, w.some(5)...); err != nil {
			w.t.Errorf("Score: %v", err)
		}
	case 4:
		w.cancel()
	default:
		w.generate(w.r.IntN(3) == 0, w.r.IntN(2) == 0)
	}
	if !slices.Equal(w.s.ids, w.ids) {
		w.t.Errorf("the text is %v, want %v", w.s.ids, w.ids)
		return
	}
	if w.r.IntN(8) == 0 {
		alone := w.m.NewSession()
		if err := alone.Append(background, w.ids...); err != nil {
			w.t.Errorf("Append: %v", err)
		}
		if !equalBits(alone.Logits(), w.s.Logits()) {
			w.t.Errorf("a text of %d tokens has other logits than alone", len(w.ids))
		}
	}
	if len(w.ids) > 250 {
		w.begin()
	}
}

func (w *sessionWorker) cancel() {
	ctx, stop := context.WithCancel(background)
	timer := time.AfterFunc(time.Duration(w.r.IntN(3000))*time.Microsecond, stop)
	defer timer.Stop()
	defer stop()
	if w.r.IntN(2) == 0 {
		ctx = &looking{background, w.r.IntN(6)}
	}
	more := w.some(40)
	err := w.s.Append(ctx, more...)
	if err != nil {
		if w.cancels++; !errors.Is(err, context.Canceled) {
			w.t.Errorf("Append: %v", err)
		}
	}
	took := w.s.Len() - len(w.ids)
	w.ids = append(w.ids, more[:max(0, min(took, len(more)))]...)
}

// generate holds what is drawn, in the batch or alone, to the end or not, against a fork that draws it alone.
// Half-way the caller's function may panic, and the text goes on from there.
func (w *sessionWorker) generate(panics, batched bool) {
	n := 1 + w.r.IntN(10)
	opts := []Option{MaxTokens(n), Seed(w.r.Uint64()), Temperature(1.5)}
	want, failed := collect(w.s.Fork(), -1, opts)
	if failed != "" {
		w.t.Errorf("alone: %s", failed)
	}
	leave := w.r.IntN(n + 3)
	kind := w.r.IntN(2)
	if panics && kind == 0 {
		opts = append(opts, LogitsFunc(func(drawn []int, _ []float32) {
			if len(drawn) == leave {
				panic(leave)
			}
		}))
	}
	var got []int
	func() {
		defer func() {
			if e := recover(); e != nil {
				if w.panics++; e != leave || !panics {
					panic(e)
				}
			}
		}()
		stream := w.s.Generate(background, opts...)
		if batched {
			stream = w.b.Generate(background, Request{Session: w.s, Options: opts})
		}
		for token, err := range stream {
			if err != nil {
				w.t.Errorf("batched %v: %v", batched, err)
				return
			}
			if token.Stop == StopEOS {
				return
			}
			got = append(got, token.ID)
			if len(got) == leave && !(panics && kind == 0) {
				if panics {
					panic(leave)
				}
				return
			}
		}
	}()
	if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
		w.t.Errorf("batched %v: drew %v, alone %v", batched, got, want)
	}
	w.ids = append(w.ids, got...)
}
