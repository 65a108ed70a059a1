package photon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
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

// noGoroutines fails unless there are again as many goroutines as before.
func noGoroutines(t *testing.T, before int) {
	t.Helper()
	if runtime.GOOS == "js" {
		before++ // the runtime's own, for events
	}
	for range 200 { // one that has said it is done may still be on its way out
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
}

// A reader that sleeps holds up nobody, and one that is gone leaves nothing behind.
func TestBatcherSlowReaders(t *testing.T) {
	m := stories(t)
	before := runtime.NumGoroutine()
	b := m.NewBatcher(MaxTexts(2)) // the room of those who sleep
	asleep, wake := make(chan bool), make(chan bool)
	var all sync.WaitGroup
	for _, s := range []*Session{nil, m.NewSession()} {
		all.Go(func() {
			n := 0
			for token, err := range b.Generate(background, Request{Session: s, Prompt: "A cat", Options: []Option{MaxTokens(40), spell(letters(t, m, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"))}}) {
				if err != nil || token.Text != "a" {
					t.Error(token, err)
				}
				if n++; n == 2 {
					asleep <- true
					<-wake
				}
			}
			if n != 40 {
				t.Errorf("%d tokens", n)
			}
		})
	}
	<-asleep
	<-asleep
	for range 3 {
		n := 0
		for _, err := range b.Generate(background, Request{Prompt: "The king", Options: []Option{MaxTokens(60), LogitBias(map[int]float32{m.cfg.EOSTokenIDs[0]: -1e9})}}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 60 {
			t.Errorf("%d tokens while others sleep", n)
		}
	}
	close(wake)
	all.Wait()
	noGoroutines(t, before) // without Close: there are no requests
	for range b.Generate(background, Request{Prompt: "The king", Options: []Option{MaxTokens(-1)}}) {
		break
	}
	noGoroutines(t, before)
	b.Close()
	b.Close()
	for _, err := range b.Generate(background, Request{Prompt: "x"}) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// Texts that come back when others have taken their room take turns with them.
func TestBatcherTurns(t *testing.T) {
	m := stories(t)
	b := m.NewBatcher(MaxTexts(2))
	turns := map[*lane]int{}
	for range 5 {
		l, err := m.lane(background, Request{Prompt: "Once"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.lanes = append(b.lanes, l)
	}
	for range 10 {
		run, more := b.take(nil)
		if len(run) != 2 || !more {
			t.Fatalf("%d texts run, more: %v", len(run), more)
		}
		for _, l := range run {
			turns[l]++
		}
	}
	for i, l := range b.lanes {
		if turns[l] != 4 {
			t.Errorf("text %d has had %d turns, want 4", i, turns[l])
		}
	}
}

// What a reader that sleeps has not read is bounded, whatever others do meanwhile.
func TestBatcherAhead(t *testing.T) {
	m := stories(t)
	b := m.NewBatcher()
	defer b.Close()
	var drawn atomic.Int64
	count := LogitsFunc(func([]int, []float32) { drawn.Add(1) })
	read := 0
	for _, err := range b.Generate(background, Request{Prompt: "A cat", Options: []Option{MaxTokens(-1), noEnd(m), count}}) {
		if err != nil {
			t.Fatal(err)
		}
		if read++; read%5 == 1 { // sleeps while others write
			if err := firstError(b.Generate(background, Request{Prompt: "The king", Options: []Option{MaxTokens(60), noEnd(m)}})); err != nil {
				t.Fatal(err)
			}
		}
		if n := int(drawn.Load()); n > read+aheadTokens {
			t.Fatalf("%d tokens are drawn, of which %d have been read", n, read)
		}
		if read == 12 {
			break
		}
	}
}

// Close ends what runs, from inside a loop too.
func TestBatcherClose(t *testing.T) {
	m := stories(t)
	before := runtime.NumGoroutine()
	b := m.NewBatcher(MaxTexts(2))
	var all sync.WaitGroup
	started := make(chan bool, 5)
	for range 5 {
		all.Go(func() {
			var last error
			for _, err := range b.Generate(background, Request{Prompt: "Once", Options: []Option{MaxTokens(-1), LogitBias(map[int]float32{m.cfg.EOSTokenIDs[0]: -1e9})}}) {
				if last = err; err == nil {
					select {
					case started <- true:
					default:
					}
				}
			}
			if !errors.Is(last, ErrClosed) {
				t.Errorf("ended with %v", last)
			}
		})
	}
	<-started
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	noGoroutines(t, before)
}

// Requests wait for room, in their order, and a text that would outgrow all room ends.
func TestBatcherRoom(t *testing.T) {
	m := stories(t)
	bytes := func(n int) int64 { return m.Config().StateBytes(n, CacheF32) }
	prompt := m.Tokenizer().Encode("Once upon a time")
	endless := []Option{MaxTokens(-1), LogitBias(map[int]float32{m.cfg.EOSTokenIDs[0]: -1e9})}
	b := m.NewBatcher(MaxStateBytes(bytes(len(prompt) + 40)))
	defer b.Close()
	s := m.NewSession(endless...)
	if err := s.Append(background, prompt...); err != nil {
		t.Fatal(err)
	}
	h := listen(t, s, 0, b.Generate(background, Request{Session: s}))
	if h.err != nil || h.stop != StopFull || s.Len() < len(prompt)+40 || bytes(s.Len()) > bytes(len(prompt)+40) {
		t.Errorf("%v, %v after %d tokens", h.stop, h.err, s.Len())
	}
	for _, err := range b.Generate(background, Request{IDs: slices.Repeat(prompt, 100)}) {
		if !errors.Is(err, ErrMemoryLimit) {
			t.Errorf("a prompt beyond all room: %v", err)
		}
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	running, most := 0, 0
	for range 6 {
		all.Go(func() {
			n := 0
			for token, err := range b.Generate(background, Request{IDs: prompt, Options: []Option{MaxTokens(40)}}) {
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				if n++; n == 1 {
					running++
				}
				most = max(most, running)
				if token.Stop != Going {
					running--
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if most > 2 { // one runs; another's last tokens may not have been read
		t.Errorf("%d texts at a time in the room of one", most)
	}
}

// Long prompts come in slices, which they share, and a text that runs draws a token after each.
func TestPrefillSlice(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		run := batch{m: m, ws: m.acquire(), slice: 16}
		defer m.release(run.ws)
		begin := func(n int) *lane {
			l, err := m.lane(background, Request{IDs: longIDs(m, n), Options: []Option{MaxTokens(-1), LogitBias(endless(m))}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		short, long := begin(3), []*lane{begin(200), begin(150)}
		run.pass([]*lane{short}) // its prompt
		for passes := 0; ; passes++ {
			if !short.ready() {
				t.Fatalf("after %d passes the text that runs waits", passes)
			}
			if _, err := short.next(run.ws); err != nil {
				t.Fatal(err)
			}
			if len(long[0].todo) == 0 {
				if least := (200 - 50 + 7) / 8; passes < least {
					t.Errorf("%d passes, want %d", passes, least)
				}
				break
			}
			before := []int{len(long[0].todo), len(long[1].todo)}
			run.pass([]*lane{short, long[0], long[1]})
			read := []int{before[0] - len(long[0].todo), before[1] - len(long[1].todo)}
			if before[1] > 0 && (read[0] != 8 || read[1] != min(8, before[1])) || read[0] > 16 || read[0] == 0 {
				t.Fatalf("pass %d reads %v tokens of prompts with %v to come", passes, read, before)
			}
		}
	})
}

// Of many requests no more than MaxTexts run at a time, and they are let in as they came.
func TestBatcherOrder(t *testing.T) {
	m := stories(t)
	for _, texts := range []int{1, 2} {
		b := m.NewBatcher(MaxTexts(texts))
		var order []int // of first tokens, and those that run; both belong to the Batcher's goroutine
		running, most := 0, 0
		open := make(chan bool)
		var all sync.WaitGroup
		for i := range 8 {
			r := Request{Prompt: "Once", Options: []Option{MaxTokens(8), noEnd(m), LogitsFunc(func(drawn []int, _ []float32) {
				switch len(drawn) {
				case 0:
					order = append(order, i)
					running++
					most = max(most, running)
					<-open // until all have come
				case 7:
					running--
				}
			})}}
			all.Go(func() {
				if err := firstError(b.Generate(background, r)); err != nil {
					t.Error(err)
				}
			})
			for come := 0; come <= i; time.Sleep(time.Millisecond) {
				b.mu.Lock()
				come = len(b.waiting) + len(b.lanes)
				b.mu.Unlock()
			}
		}
		close(open)
		all.Wait()
		b.Close()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4, 5, 6, 7}) || most != texts {
			t.Errorf("MaxTexts(%d): %d run at a time, let in as %v", texts, most, order)
		}
	}
}

func TestBatcherRefuses(t *testing.T) {
	m := stories(t)
	first := func(b *Batcher, r Request) error {
		for _, err := range b.Generate(background, r) {
			return err
		}
		return nil
	}
	for i, opt := range []BatcherOption{MaxTexts(0), MaxStateBytes(-1), KeepPrefixes(-1), PrefillSlice(-1)} {
		if err := first(m.NewBatcher(opt), Request{Prompt: "x"}); !errors.Is(err, ErrInvalid) {
			t.Errorf("option %d: %v", i, err)
		}
	}
	other := stories(t)
	for i, c := range []struct {
		r    Request
		want error
	}{
		{Request{Prompt: "x", IDs: []int{1}}, ErrInvalid},
		{Request{Prompt: "\xff"}, ErrInvalid},
		{Request{IDs: []int{-1}}, ErrInvalid},
		{Request{Session: other.NewSession()}, ErrMismatch},
		{Request{Prompt: "x", Options: []Option{StopTokens(99999)}}, ErrInvalid},
		{Request{Prompt: "x", Options: []Option{LogitBias(map[int]float32{99999: 1})}}, ErrInvalid},
		{Request{Prompt: "x", Options: []Option{Mode(RecGen)}}, ErrUnsupported},
	} {
		if err := first(m.NewBatcher(), c.r); !errors.Is(err, c.want) {
			t.Errorf("request %d: %v, want %v", i, err, c.want)
		}
		for token, err := range m.GenerateBatch(background, []Request{c.r}) {
			if !errors.Is(err, c.want) || token.Request != 0 {
				t.Errorf("request %d in a batch: %v, want %v", i, err, c.want)
			}
		}
	}
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

// TestFairness: of 32 texts each gets as many rows as the others, also while a long prompt is read between their steps.
func TestFairness(t *testing.T) {
	m := stories(t)
	b := m.NewBatcher()
	defer b.Close()
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	const texts = 32
	stats := make([]Stats, texts)
	var begun, all sync.WaitGroup
	begun.Add(texts)
	for i := range texts {
		all.Go(func() {
			started := sync.OnceFunc(begun.Done)
			defer started()
			r := Request{Prompt: "Once", Options: []Option{MaxTokens(-1), Temperature(1), noEnd(m), Seed(uint64(i))}, Stats: &stats[i]}
			for _, err := range b.Generate(ctx, r) {
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				started()
			}
		})
	}
	begun.Wait()
	for _, err := range b.Generate(background, Request{IDs: longIDs(m, 1500), Options: []Option{MaxTokens(20)}}) {
		if err != nil {
			t.Error(err)
		}
	}
	cancel()
	all.Wait()
	var sum int64
	for _, s := range stats {
		sum += s.KVWriteBytes
	}
	for i, s := range stats {
		if share := float64(s.KVWriteBytes) * texts / float64(sum); s.Tokens < 20 || share < 0.8 || share > 1.2 {
			t.Errorf("text %d: %d tokens, %.2f times its share of the rows", i, s.Tokens, share)
		}
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
