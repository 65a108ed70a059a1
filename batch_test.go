package photon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"weak"
)

// script is a request of a random schedule, and what it gives alone.
type script struct {
	prompt []int
	given  int // of the prompt, in the session before
	opts   []Option
	leave  int // the reader leaves after so many values; 0: never
	want   []Token
	over   []Token // the same where the text ends with the request: a rune that is open comes out too
}

// randomScript draws a request that uses every option.
func randomScript(t testing.TB, r *rand.Rand, m *Model, text []int) script {
	var s script
	start := r.IntN(len(text) / 2)
	s.prompt = text[start : start+1+r.IntN(len(text)/2)]
	s.given = r.IntN(len(s.prompt) + 1)
	if m.Config().Flat() {
		s.given = max(1, s.given)
	}
	s.opts = append(randomOptions(r, m.Config().VocabSize), MaxTokens(r.IntN(20)), LogProbs(r.IntN(4)-1), TopP(1), TopK(0), MinP(0))
	if m.tokenizer != nil && r.IntN(2) == 0 {
		s.opts = append(s.opts, Stop("e", "the ", "\n\nUser:", ". The"))
	}
	if r.IntN(2) == 0 {
		s.opts = append(s.opts, StopTokens(r.IntN(m.Config().VocabSize)))
	}
	if m.checkMode(RecGen) == nil && r.IntN(3) == 0 {
		s.opts = append(s.opts, Mode(RecGen))
	}
	if r.IntN(4) == 0 {
		s.leave = 1 + r.IntN(5)
	}
	for over, want := range map[bool]*[]Token{false: &s.want, true: &s.over} {
		alone := m.NewSession(s.opts...)
		if err := alone.Append(background, s.prompt...); err != nil {
			t.Fatal(err)
		}
		alone.generate(background, nil, over, func(token Token, err error) bool {
			if err != nil {
				t.Fatal(err)
			}
			*want = append(*want, token)
			return len(*want) != s.leave
		})
	}
	return s
}

// session holds the part of the prompt that is given before.
func (s *script) session(t testing.TB, m *Model) *Session {
	q := m.NewSession()
	if err := q.Append(background, s.prompt[:s.given]...); err != nil {
		t.Error(err)
	}
	return q
}

// check compares what came, and then the session's next logits.
func (s *script) check(t testing.TB, name string, m *Model, q *Session, got []Token) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(s.want); g != w {
		t.Errorf("%s: %s, alone %s", name, g, w)
		return
	}
	ids := slices.Clone(s.prompt)
	for _, token := range s.want {
		if token.Stop != StopEOS && token.Stop != StopToken {
			ids = append(ids, token.ID)
		}
	}
	if !slices.Equal(q.ids, ids) {
		t.Errorf("%s: the session holds %v, want %v", name, q.ids, ids)
		return
	}
	if q.rec.started {
		return
	}
	whole := m.NewSession()
	if err := whole.Append(background, ids...); err != nil {
		t.Error(err)
	} else if !slices.Equal(q.Logits(), whole.Logits()) {
		t.Errorf("%s: the session's logits are not those of its text", name)
	}
}

// TestRandomSchedules: whatever joins, leaves, is cancelled, comes slowly or is forked, every text is what it is alone,
// in ids, text and log-probabilities, under every option.
func TestRandomSchedules(t *testing.T) {
	run := func(t *testing.T, m *Model, text []int, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		scripts := make([]script, 6+r.IntN(10))
		for i := range scripts {
			scripts[i] = randomScript(t, r, m, text)
		}
		var requests []Request
		for i := range scripts {
			requests = append(requests, Request{IDs: scripts[i].prompt[scripts[i].given:], Session: scripts[i].session(t, m), Options: scripts[i].opts})
		}
		got := make([][]Token, len(scripts))
		for token, err := range m.GenerateBatch(background, requests) {
			if err != nil {
				t.Fatal(err)
			}
			got[token.Request] = append(got[token.Request], token.Token)
		}
		for i := range scripts {
			if s := &scripts[i]; s.leave == 0 {
				s.check(t, fmt.Sprintf("batch, seed %d, request %d", seed, i), m, requests[i].Session, got[i])
			}
		}

		b := m.NewBatcher(MaxTexts(1+r.IntN(8)), PrefillSlice(r.IntN(9)))
		defer b.Close()
		var all sync.WaitGroup
		for i := range scripts {
			s := &scripts[i]
			visible, slow, cancelled := r.IntN(3) > 0, r.IntN(4) == 0, r.IntN(5) == 0
			all.Go(func() {
				name := fmt.Sprintf("batcher, seed %d, request %d", seed, i)
				q := s.session(t, m)
				request := Request{IDs: s.prompt[s.given:], Session: q, Options: s.opts}
				if !visible {
					request.IDs, request.Session = s.prompt, nil
				}
				ctx, cancel := context.WithCancel(background)
				defer cancel()
				var got []Token
				for token, err := range b.Generate(ctx, request) {
					if cancelled && errors.Is(err, context.Canceled) {
						break
					}
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					got = append(got, token)
					if slow {
						time.Sleep(time.Millisecond)
					}
					if visible && len(got) == 2 && token.Stop == Going {
						f := q.Fork()
						if err := f.Append(background, 1); err != nil && !f.rec.started {
							t.Errorf("%s: fork: %v", name, err)
						}
					}
					if len(got) == s.leave {
						break
					}
					if cancelled && len(got) == 3 {
						cancel()
					}
				}
				want := s.want
				if !visible {
					want = s.over
				}
				switch {
				case cancelled && (len(got) > len(want) || fmt.Sprint(got) != fmt.Sprint(want[:len(got)])):
					t.Errorf("%s: cancelled after %v, alone %v", name, got, want)
				case !cancelled && visible:
					s.check(t, name, m, q, got)
				case !cancelled && fmt.Sprint(got) != fmt.Sprint(want):
					t.Errorf("%s: %v, alone %v", name, got, want)
				}
			})
		}
		all.Wait()
	}
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		for seed := range seeds {
			run(t, m, g.ids, uint64(seed))
		}
	})
	t.Run("stories", func(t *testing.T) {
		m := stories(t)
		text := m.Tokenizer().Encode("Once upon a time there was a little girl. The girl had a cat, and the cat had a hat.\n\nUser: tell me more.")
		for seed := range seeds {
			run(t, m, text, uint64(seed))
		}
	})
}

// TestForkUnderPenalty: parent and fork go on side by side, and neither hears of the other's tokens.
func TestForkUnderPenalty(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		m.cfg.EOSTokenIDs = nil
		opts := []Option{Temperature(0), RepeatPenalty(1.7), FrequencyPenalty(0.2), RepeatLast(-1), MaxTokens(1)}
		texts := [3]*Session{m.NewSession(opts...)}
		for _, id := range g.ids[:20] { // one by one, so that the text's array has room to spare
			if err := texts[0].Append(background, id); err != nil {
				t.Fatal(err)
			}
		}
		texts[1] = texts[0].Fork()
		texts[2] = texts[1].Fork()
		for range 30 {
			for i, s := range texts {
				for _, err := range s.Generate(background, Temperature(float64(i)), Seed(uint64(i))) {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for i, s := range texts {
			alone := m.NewSession(opts...)
			if err := alone.Append(background, g.ids[:20]...); err != nil {
				t.Fatal(err)
			}
			h := listen(t, alone, 0, alone.Generate(background, Temperature(float64(i)), Seed(uint64(i)), MaxTokens(30)))
			if !slices.Equal(s.ids[20:], h.ids) {
				t.Errorf("text %d: %v, alone %v", i, s.ids[20:], h.ids)
			}
		}
	})
}

// 64 calls at once leave no more scratch behind than a few.
func TestIdleScratch(t *testing.T) {
	m := stories(t)
	var all, together sync.WaitGroup
	together.Add(64)
	for range 64 {
		all.Go(func() {
			for range m.Generate(background, "Once upon a time", MaxTokens(2)) {
				together.Done()
				together.Wait()
				break
			}
		})
	}
	all.Wait()
	if len(m.idle) > maxIdle {
		t.Errorf("%d workspaces are kept", len(m.idle))
	}
}

// TestPenaltiesSeeTheText: alone and in a batch, the penalties look at the whole text, prompt and drawn tokens, as far
// back as they are told to, by a definition of their own.
func TestPenaltiesSeeTheText(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		m.cfg.EOSTokenIDs = nil
		for _, last := range []int{-1, 1, 5, 64} {
			opts := []Option{Temperature(0), RepeatPenalty(1.9), FrequencyPenalty(0.4), PresencePenalty(0.1), RepeatLast(last), MaxTokens(80)}
			o := mustResolve(t, opts...)
			prompt := g.ids[:11]
			by := m.NewSession()
			if err := by.Append(background, prompt...); err != nil {
				t.Fatal(err)
			}
			text := slices.Clone(prompt)
			for range 80 {
				p := slowProbabilities(o, by.Logits(), text, len(text))
				id := slices.Index(p, 1)
				if err := by.Append(background, id); err != nil {
					t.Fatal(err)
				}
				text = append(text, id)
			}
			alone := m.NewSession(opts...)
			if err := alone.Append(background, prompt...); err != nil {
				t.Fatal(err)
			}
			if h := listen(t, alone, 0, alone.Generate(background)); !slices.Equal(h.ids, text[11:]) {
				t.Errorf("alone, RepeatLast(%d): %v, want %v", last, h.ids, text[11:])
			}
			var ids []int
			for token, err := range m.GenerateBatch(background, []Request{{IDs: prompt, Options: opts}}) {
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, token.ID)
			}
			if !slices.Equal(ids, text[11:]) {
				t.Errorf("batch, RepeatLast(%d): %v, want %v", last, ids, text[11:])
			}
		}
	})
}

// An idle workspace keeps no text alive.
func TestTextsAreForgotten(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		use := func() weak.Pointer[sequence] {
			s := m.NewSession(MaxTokens(3))
			if err := s.Append(background, g.ids[:20]...); err != nil {
				t.Fatal(err)
			}
			for range s.Generate(background) {
			}
			for range m.GenerateBatch(background, []Request{{Session: s}, {IDs: g.ids}}) {
			}
			return weak.Make(s.seq)
		}
		text := use()
		runtime.GC()
		runtime.GC()
		if text.Value() != nil && len(m.idle) > 0 {
			t.Error("the text is still there")
		}
	})
}

// TestPromptWithinUnit: a prompt behind a text that ends in the middle of a long unit.
func TestPromptWithinUnit(t *testing.T) {
	one := testStack(4, 1, 1, 1, 4, 4, 0, 100)
	c := Config{ModelType: modelTypePhoton, FormatVersion: 2, VocabSize: 11, EmbeddingSize: 4, RMSNormEps: 1e-5, BOSTokenID: -1,
		Levels: []LevelConfig{{ChunkSize: 300, PrefixLength: 1, Chunker: "linear", Encoder: one, Decoder: one}}}
	m, _ := randomModel(t, rand.New(rand.NewPCG(83, 0)), c)
	text := randomText(m, 290)
	for _, n := range []int{10, 100, 250, 289} {
		whole := m.NewSession(Temperature(0), MaxTokens(12))
		if err := whole.Append(background, text...); err != nil {
			t.Fatal(err)
		}
		s := m.NewSession(Temperature(0), MaxTokens(12))
		if err := s.Append(background, text[:n]...); err != nil {
			t.Fatal(err)
		}
		b := m.NewBatcher(PrefillSlice(1))
		if err := firstError(b.Generate(background, Request{Session: s, IDs: text[n:]})); err != nil {
			t.Fatal(err)
		}
		b.Close()
		if err := firstError(whole.Generate(background)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.ids, whole.ids) {
			t.Errorf("behind %d tokens: %v, want %v", n, s.ids[290:], whole.ids[290:])
		}
	}
}

// The last value of a text comes when the request's Stats tell what it has cost, and so does an error.
func TestStatsAtTheEnd(t *testing.T) {
	m := stories(t)
	b := m.NewBatcher()
	defer b.Close()
	var stats, other Stats
	r := Request{Prompt: "Once", Options: []Option{MaxTokens(5), noEnd(m)}, Stats: &stats}
	for token, err := range b.Generate(background, r) {
		if err != nil || token.Stop != Going && stats.Tokens != 5 {
			t.Errorf("Batcher: %v, %d tokens", err, stats.Tokens)
		}
	}
	stats = Stats{}
	others := Request{Prompt: "Once", Options: []Option{MaxTokens(9), noEnd(m)}, Stats: &other}
	for token, err := range m.GenerateBatch(background, []Request{others, r}) {
		if err != nil || token.Stop != Going && token.Request == 1 && stats.Tokens != 5 {
			t.Errorf("GenerateBatch: %v, %d tokens", err, stats.Tokens)
		}
	}
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	stats = Stats{}
	r.Options = []Option{MaxTokens(-1), noEnd(m)}
	for _, err := range b.Generate(ctx, r) {
		if cancel(); err != nil && stats.Tokens == 0 {
			t.Error("a text that was cancelled has cost nothing")
		}
	}
	stats = Stats{}
	ctx, cancel = context.WithCancel(background)
	defer cancel()
	for _, err := range m.GenerateBatch(ctx, []Request{r}) {
		if cancel(); err != nil && stats.Tokens == 0 {
			t.Error("a batch that was cancelled has cost nothing")
		}
	}
}

// A pass that took too long makes the next smaller, one that was short and full a larger one, within bounds.
func TestPace(t *testing.T) {
	const long = sliceTime * 3 / 2
	for _, c := range []struct {
		from pace
		took time.Duration
		n    int
		want pace
	}{
		{0, sliceTime, 64, 64}, {100, 2*sliceTime + 1, 100, 50}, {100, 2 * sliceTime, 100, 75}, {100, long, 100, 75},
		{100, sliceTime, 100, 100}, {100, sliceTime * 2 / 3, 100, 100}, {100, sliceTime*2/3 - 1, 100, 150},
		{100, sliceTime / 2, 75, 150}, {100, sliceTime / 2, 74, 100}, {100, 0, 0, 100}, {100, 9 * sliceTime, 0, 100},
		{10, 9 * sliceTime, 10, leastTune}, {10, long, 10, leastTune}, {200, 0, 200, 256},
	} {
		p := c.from
		if p.tune(c.took, c.n, 256); p != c.want {
			t.Errorf("%d tokens of %d took %v: %d, want %d", c.n, c.from, c.took, p, c.want)
		}
	}
}

// The last value of a batch that is cancelled is of no request.
func TestBatchEndsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	var last BatchToken
	var failed error
	for token, err := range stories(t).GenerateBatch(ctx, []Request{{Prompt: "Once"}, {Prompt: "Twice"}}) {
		cancel()
		last, failed = token, err
	}
	if last.Request != -1 || last.Text != "" || !errors.Is(failed, context.Canceled) {
		t.Errorf("%+v, %v", last, failed)
	}
}

// The pass that reads a prompt is booked as such, and those that draw are not.
func TestBatchTimes(t *testing.T) {
	m := stories(t)
	s := m.NewSession(LogitBias(forbidEnds(m)))
	for range 2 {
		before := s.Stats()
		for _, err := range m.GenerateBatch(background, []Request{{Session: s, Prompt: "Once"}}, MaxTokens(1)) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if now := s.Stats(); now.PromptTime <= before.PromptTime {
			t.Errorf("a prompt was read in %v", now.PromptTime-before.PromptTime)
		}
	}
}
