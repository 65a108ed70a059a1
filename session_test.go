package photon

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/photon-lm/photon/models"
)

// TestSessionStateBytes: what the caches hold is the formula of Config.StateBytes, whatever way the text came in.
func TestSessionStateBytes(t *testing.T) {
	for _, cache := range []CacheType{CacheF32, CacheF16, CacheInt8} {
		eachGolden(t, func(t *testing.T, g golden, m *Model) {
			s := m.NewSession()
			for n := 0; n == 0 || !testing.Short() || n < 40; n++ {
				whole := m.NewSession()
				if err := whole.Append(background, g.ids[:n]...); err != nil {
					t.Fatal(err)
				}
				want := m.Config().StateBytes(n, cache)
				if got := s.Stats().StateBytes; got != want {
					t.Errorf("%d tokens one by one hold %d bytes, want %d", n, got, want)
				}
				if got := whole.Stats().StateBytes; got > want {
					t.Errorf("%d tokens at once hold %d bytes, want at most %d", n, got, want)
				}
				if n == len(g.ids) {
					break
				}
				if err := s.Append(background, g.ids[n]); err != nil {
					t.Fatal(err)
				}
			}
		}, WithCache(cache))
	}
}

// TestLongPrompt: a prompt of many pieces, in which decoders leave out what no window sees, ends in the same bits as the whole pass.
func TestLongPrompt(t *testing.T) {
	defer func(n int) { stepRows = n }(stepRows)
	stepRows = 24
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		var ids []int
		for len(ids) < 3*m.pieceTokens()+11 {
			ids = append(ids, g.ids...)
		}
		vocab := m.Config().VocabSize
		pass, err := m.Logits(background, ids)
		if err != nil {
			t.Fatal(err)
		}
		last := pass[len(pass)-vocab:]
		for _, cut := range []int{0, 1, 50, m.pieceTokens() + 3} {
			s := m.NewSession()
			if err := s.Append(background, ids[:cut]...); err != nil {
				t.Fatal(err)
			}
			if err := s.Append(background, ids[cut:]...); err != nil {
				t.Fatal(err)
			}
			near(t, "the last row", s.Logits(), last, 0)
			if kept := len(s.seq.ids.ids); kept >= m.Config().MetaContext()+1 {
				t.Errorf("%d tokens are kept", kept)
			}
		}
	})
}

// cancelAfter is a context that ends at its n-th look.
type cancelAfter struct {
	context.Context
	n int
}

func (c *cancelAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// TestCancel: a prompt that is cut short leaves a session that is whole, and goes on to the same bits.
func TestCancel(t *testing.T) {
	defer func(n int) { stepRows = n }(stepRows)
	stepRows = 24
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		var ids []int
		for len(ids) < 2*m.pieceTokens()+9 {
			ids = append(ids, g.ids...)
		}
		want := m.NewSession()
		if err := want.Append(background, ids...); err != nil {
			t.Fatal(err)
		}
		s := m.NewSession()
		if err := s.Append(&cancelAfter{background, 1}, ids...); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v", err)
		}
		if s.Len() == 0 || s.Len() == len(ids) {
			t.Fatalf("%d of %d tokens were taken", s.Len(), len(ids))
		}
		if err := s.Append(background, ids[s.Len():]...); err != nil {
			t.Fatal(err)
		}
		near(t, "the last row", s.Logits(), want.Logits(), 0)
	})
}

// TestScore compares Score with the log-softmax of Logits in float64.
func TestScore(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		got, err := m.Score(background, g.ids)
		if err != nil || len(got) != len(g.ids) {
			t.Fatal(len(got), err)
		}
		vocab := m.Config().VocabSize
		for i, id := range g.ids {
			row := i
			if m.Config().Flat() {
				if row--; row < 0 {
					if bos := m.Config().BOSTokenID; (bos < 0 || bos == id) && !math.IsNaN(float64(got[0])) {
						t.Errorf("the first token of a flat model scores %v", got[0])
					}
					continue
				}
				if m.Config().BOSTokenID >= 0 {
					return
				}
			}
			sum, logits := 0.0, g.floats["logits"][row*vocab:][:vocab]
			for _, v := range logits {
				sum += math.Exp(float64(v))
			}
			if want := float64(logits[id]) - math.Log(sum); math.Abs(float64(got[i])-want) > 1e-3 {
				t.Fatalf("token %d scores %v, want %v", i, got[i], want)
			}
		}
	})
}

// greedy continues a prompt by n tokens.
func greedy(t *testing.T, m *Model, prompt []int, n int, opts ...Option) []int {
	t.Helper()
	s := m.NewSession(append([]Option{Temperature(0), MaxTokens(n)}, opts...)...)
	if err := s.Append(background, prompt...); err != nil {
		t.Fatal(err)
	}
	var ids []int
	for token, err := range s.Generate(background) {
		if err != nil {
			t.Fatal(err)
		}
		if token.Stop != StopEOS {
			ids = append(ids, token.ID)
		}
	}
	return ids
}

// TestBatch: every request gets the tokens that it would get alone.
func TestBatch(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		var reqs []Request
		var want [][]int
		for i, n := range []int{1, 16, 3, 40, 29, 8} {
			opts := []Option{MaxTokens(10 + 3*i), Seed(uint64(i)), Temperature(float64(i % 2))}
			want = append(want, greedy(t, m, g.ids[:n], 0, opts...))
			r := Request{IDs: g.ids[:n], Options: opts}
			if i%3 == 1 {
				r.Session = m.NewSession()
				if err := r.Session.Append(background, g.ids[:2]...); err != nil {
					t.Fatal(err)
				}
				r.IDs = r.IDs[2:]
			}
			reqs = append(reqs, r)
		}
		got := make([][]int, len(reqs))
		for token, err := range m.GenerateBatch(background, reqs) {
			if err != nil {
				t.Fatal(err)
			}
			if token.Stop != StopEOS {
				got[token.Request] = append(got[token.Request], token.ID)
			}
		}
		for i := range reqs {
			if !slices.Equal(got[i], want[i]) {
				t.Errorf("request %d: %v, alone %v", i, got[i], want[i])
			}
			if s := reqs[i].Session; s != nil {
				after := m.NewSession()
				if err := after.Append(background, append(slices.Concat(g.ids[:2], reqs[i].IDs), got[i]...)...); err != nil {
					t.Fatal(err)
				}
				if s.Len() != after.Len() {
					t.Errorf("request %d: its session has %d tokens, want %d", i, s.Len(), after.Len())
				} else {
					near(t, "the session's logits", s.Logits(), after.Logits(), 0)
				}
			}
		}
	})
}

func TestBatchErrors(t *testing.T) {
	g := goldens(t)[0]
	m, err := Load(g.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewSession()
	reqs := []Request{
		{IDs: []int{-1}},
		{IDs: g.ids[:5], Options: []Option{MaxTokens(3)}},
		{Prompt: "text"},
		{IDs: g.ids[:5], Options: []Option{Temperature(-1)}},
		{IDs: g.ids[:5], Session: s, Options: []Option{MaxTokens(0)}},
		{IDs: g.ids[:5], Session: s},
	}
	failed := map[int]error{}
	tokens := 0
	for token, err := range m.GenerateBatch(background, reqs) {
		if err != nil {
			failed[token.Request] = err
		} else if tokens++; token.Request != 1 {
			t.Errorf("request %d yields a token", token.Request)
		}
	}
	for i, want := range map[int]error{0: ErrInvalid, 2: ErrUnsupported, 3: ErrInvalid, 5: ErrInvalid} {
		if !errors.Is(failed[i], want) {
			t.Errorf("request %d: %v, want %v", i, failed[i], want)
		}
	}
	if len(failed) != 4 || tokens == 0 {
		t.Errorf("%d errors, %d tokens", len(failed), tokens)
	}
}

// TestGenerateThenAppend: what was generated is part of the session; leaving the loop early does not lose the last token.
func TestGenerateThenAppend(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		for _, leave := range []int{1, 2, 7, 100} {
			s := m.NewSession(Temperature(0), MaxTokens(9))
			if err := s.Append(background, g.ids[:10]...); err != nil {
				t.Fatal(err)
			}
			text := slices.Clone(g.ids[:10])
			for token, err := range s.Generate(background) {
				if err != nil {
					t.Fatal(err)
				}
				if token.Stop == StopEOS {
					break
				}
				if text = append(text, token.ID); len(text) == 10+leave {
					break
				}
			}
			if s.Len() != len(text) {
				t.Fatalf("%d tokens, want %d", s.Len(), len(text))
			}
			other := m.NewSession()
			if err := other.Append(background, text...); err != nil {
				t.Fatal(err)
			}
			near(t, "logits", s.Logits(), other.Logits(), 0)
		}
	})
}

func TestClosedAndInvalid(t *testing.T) {
	g := goldens(t)[0]
	m, err := Load(g.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewSession()
	for _, id := range []int{-1, m.Config().VocabSize, math.MaxInt} {
		if err := s.Append(background, 1, id); !errors.Is(err, ErrInvalid) || s.Len() != 0 {
			t.Errorf("token %d: %v, %d tokens", id, err, s.Len())
		}
		if _, err := m.Score(background, []int{id}); !errors.Is(err, ErrInvalid) {
			t.Errorf("token %d: %v", id, err)
		}
	}
	for name, err := range map[string]error{"threads": loadError(g.dir, WithThreads(0)), "cache": loadError(g.dir, WithCache(9)), "weights": loadError(g.dir, WithWeights(-1))} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := loadError(g.dir, WithMemoryLimit(1000)); !errors.Is(err, ErrMemoryLimit) {
		t.Errorf("memory limit: %v", err)
	}
	m.Close()
	if s.Logits() != nil {
		t.Error("a closed model has logits")
	}
	if err := s.Append(background, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := m.Logits(background, g.ids); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func loadError(dir string, opts ...LoadOption) error {
	_, err := Load(dir, opts...)
	return err
}

// TestConcurrent: sessions of one model in many goroutines, and none left afterwards.
func TestConcurrent(t *testing.T) {
	g := goldens(t)[3]
	m, err := Load(g.dir, WithThreads(3))
	if err != nil {
		t.Fatal(err)
	}
	want := greedy(t, m, g.ids[:9], 30)
	before := runtime.NumGoroutine()
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			s := m.NewSession(Temperature(0), MaxTokens(30))
			s.Append(background, g.ids[:9]...)
			var got []int
			for token := range s.Generate(background) {
				if token.Stop != StopEOS {
					got = append(got, token.ID)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
	wait.Wait()
	for range 100 { // a goroutine that has said it is done may still be on its way out
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// TestAllocations: a generated token allocates nothing once the session is warm, by HierGen and by RecGen. Where a
// cache without a window needs another part, which is reserved here, that is one allocation of each array in up to
// attentionBlock rows.
func TestAllocations(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		for _, mode := range []GenMode{HierGen, RecGen} {
			if m.checkMode(mode) != nil {
				continue
			}
			s := m.NewSession(MaxTokens(-1), Temperature(1), Mode(mode))
			span := m.Config().MetaContext()
			if err := s.Append(background, g.ids[:2*span]...); err != nil {
				t.Fatal(err)
			}
			for _, c := range s.seq.enc {
				c.reserve(100 * span)
			}
			for _, d := range s.seq.dec {
				d.cache.reserve(100 * span)
			}
			s.ids = slices.Grow(s.ids, 100*span)
			ws := m.acquire()
			defer m.release(ws)
			r, err := s.stream(nil, false)
			if err != nil {
				t.Fatal(err)
			}
			r.begin()
			ends := m.cfg.EOSTokenIDs
			m.cfg.EOSTokenIDs = nil
			defer func() { m.cfg.EOSTokenIDs = ends }()
			token := func() {
				if _, err := r.next(background, ws); err != nil {
					t.Fatal(err)
				}
			}
			for range 8 * span { // the encoders' logs grow for the last time
				token()
			}
			if per := testing.AllocsPerRun(10*span, token); per != 0 {
				t.Errorf("%v: %v allocations a token", mode, per)
			}
		}
	}, WithThreads(2))
}

// TestSessionScore: a continuation scores what the whole text does, at any cut, and leaves the session as it was.
func TestSessionScore(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		whole, err := m.Score(background, g.ids)
		if err != nil {
			t.Fatal(err)
		}
		withoutBOS := !m.Config().Flat() || m.Config().BOSTokenID < 0
		for _, cut := range []int{0, 1, 7, 16, 33} {
			s := m.NewSession()
			if err := s.Append(background, g.ids[:cut]...); err != nil {
				t.Fatal(err)
			}
			before := slices.Clone(s.Logits())
			for range 2 {
				got, err := s.Score(background, g.ids[cut:]...)
				if err != nil {
					t.Fatal(err)
				}
				if withoutBOS && !slices.EqualFunc(got, whole[cut:], func(a, b float32) bool { return a == b || a != a && b != b }) {
					t.Fatalf("behind %d: %v, want %v", cut, got, whole[cut:])
				}
			}
			if !slices.Equal(s.Logits(), before) || s.Len() != cut {
				t.Error("the session has changed")
			}
			// The first token is scored by what the session knows already.
			cost := s.Stats()
			if got, err := s.Score(background, g.ids[0]); err != nil || len(got) != 1 || s.Stats() != cost {
				t.Errorf("a continuation of one token: %v, %v, costs %+v, before %+v", got, err, s.Stats(), cost)
			}
			rest := m.NewSession()
			if err := rest.Append(background, g.ids...); err != nil {
				t.Fatal(err)
			}
			if err := s.Append(background, g.ids[cut:]...); err != nil {
				t.Fatal(err)
			}
			near(t, "logits", s.Logits(), rest.Logits(), 0)
		}
	})
}

// A context that is nil is the caller's mistake, wherever it is given, and harms nothing.
func TestNilContext(t *testing.T) {
	m := stories(t)
	var none context.Context
	ids := m.Tokenizer().Encode("Once upon a time")
	s := m.NewSession(Temperature(0), MaxTokens(6))
	if err := s.Append(background, ids...); err != nil {
		t.Fatal(err)
	}
	b := m.NewBatcher()
	defer b.Close()
	dir := filepath.Join(t.TempDir(), "model")
	for name, f := range map[string]func() error{
		"Append":            func() error { return s.Append(none, ids...) },
		"Append of nothing": func() error { return s.Append(none) },
		"AppendText":        func() error { return s.AppendText(none, " there was") },
		"Session.Generate":  func() error { return firstError(s.Generate(none)) },
		"Session.Score":     func() error { _, err := s.Score(none, ids...); return err },
		"Generate":          func() error { return firstError(m.Generate(none, "Once")) },
		"Complete":          func() error { _, err := m.Complete(none, "Once"); return err },
		"Logits":            func() error { _, err := m.Logits(none, ids); return err },
		"EachLogits": func() error {
			return m.EachLogits(none, ids, func([]float32) { t.Error("EachLogits hands out a row") })
		},
		"Score":                 func() error { _, err := m.Score(none, ids); return err },
		"Batcher.Generate":      func() error { return firstError(b.Generate(none, Request{IDs: ids})) },
		"Batcher, text":         func() error { return firstError(b.Generate(none, Request{Prompt: "Once"})) },
		"Batcher, with session": func() error { return firstError(b.Generate(none, Request{Session: s, IDs: ids})) },
		"GenerateBatch":         func() error { return batchError(none, m, longIDs(m, 20)) },
		"LoadFS":                func() error { _, err := LoadFS(models.Stories(), WithContext(none)); return err },
		"WriteRandom":           func() error { return writeFlat(none, dir) },
		"Quantize":              func() error { return Quantize(none, dir, models.Stories(), Int8) },
	} {
		if err := f(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "context is nil") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, reqs := range [][]Request{nil, {{Prompt: "Once"}}} {
		n := 0
		for token, err := range m.GenerateBatch(none, reqs) {
			if n++; token.Request != -1 || !errors.Is(err, ErrInvalid) {
				t.Errorf("a batch of %d: request %d: %v", len(reqs), token.Request, err)
			}
		}
		if n != 1 {
			t.Errorf("a batch of %d: %d values", len(reqs), n)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory is left behind: %v", err)
	}
	if !slices.Equal(s.ids, ids) {
		t.Fatalf("the session holds %v, want %v", s.ids, ids)
	}
	if h := listen(t, s, 0, s.Generate(background)); h.err != nil || !slices.Equal(h.ids, greedy(t, m, ids, 6)) {
		t.Errorf("afterwards: %v, %v", h.ids, h.err)
	}
}

// States that nothing reads any more are dropped, at every level.
func TestStatesAreDropped(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		s := m.NewSession()
		var kept []int
		for round := range 24 {
			for range m.Config().MetaContext() {
				if err := s.Append(background, g.ids[s.Len()%len(g.ids)]); err != nil {
					t.Fatal(err)
				}
			}
			var now []int
			for _, run := range s.seq.states {
				now = append(now, len(run.rows))
			}
			if round == 12 {
				kept = now
			} else if round > 12 && !slices.Equal(now, kept) {
				t.Fatalf("after %d meta-contexts %d numbers of states are kept, after 13 %d", round+1, now, kept)
			}
		}
	})
}
