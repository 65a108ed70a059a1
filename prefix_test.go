package photon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// audit fails unless the kept states are within their bound, and their bytes those that are counted.
func (b *Batcher) audit(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &b.prefixes
	seen, bytes, extra := map[*kvPart]bool{}, int64(0), int64(0)
	for _, x := range p.list {
		extra += x.extra
		for _, u := range x.state.parts(nil) {
			if !seen[u.part] {
				seen[u.part] = true
				bytes += u.bytes
			}
		}
		if x.hash != hashOn(0, x.ids) || x.state.n != len(x.ids) {
			t.Errorf("a state of %d tokens is kept for %d", x.state.n, len(x.ids))
		}
	}
	if bytes != p.held.bytes || extra != p.ids || len(seen) != len(p.held.of) {
		t.Errorf("%d and %d bytes of %d parts are kept, %d and %d of %d are counted", bytes, extra, len(seen), p.held.bytes, p.ids, len(p.held.of))
	}
	if bytes+extra > p.most {
		t.Errorf("%d bytes are kept, %d are allowed", bytes+extra, p.most)
	}
}

// kept is the number of states that are kept.
func (b *Batcher) kept() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.prefixes.list)
}

// TestKeepPrefixes: whatever states a Batcher has kept, and of whatever texts that came and went at random, a request
// gets what it gets alone, in ids, text and log-probabilities.
func TestKeepPrefixes(t *testing.T) {
	for _, typ := range cacheTypes {
		if (raceEnabled || testing.Short()) && typ != CacheF16 {
			continue
		}
		eachGolden(t, func(t *testing.T, g golden, m *Model) {
			r := rand.New(rand.NewPCG(uint64(typ), 11))
			text := longIDs(m, 700)
			var whole []int
			prompt := func() []int { // that begins as others do
				ids := slices.Clone(text[:1+r.IntN(300)])
				for range r.IntN(2) {
					from := r.IntN(300)
					ids = append(ids, text[from:from+1+r.IntN(150)]...)
				}
				if r.IntN(4) == 0 {
					ids = slices.Clone(whole[:min(len(whole), 1+r.IntN(1+len(whole)))])
				}
				if r.IntN(4) == 0 {
					return text[: 64*(1+r.IntN(4)) : 700] // states may be kept of all of it
				}
				return append(ids, text[r.IntN(20)])
			}
			for _, most := range []int64{1 << 30, 200 << 10, 1} {
				b := m.NewBatcher(KeepPrefixes(most), MaxTexts(3), PrefillSlice(200))
				reused := 0
				for range 4 {
					var all sync.WaitGroup
					var mu sync.Mutex
					prompts := [][]int{prompt(), prompt(), prompt()}
					for _, ids := range prompts {
						opts := append(randomOptions(r, m.Config().VocabSize), MaxTokens(r.IntN(30)), LogProbs(1), TopP(1), TopK(0), MinP(0))
						if m.checkMode(RecGen) == nil && r.IntN(3) == 0 {
							opts = append(opts, Mode(RecGen))
						}
						if m.tokenizer != nil && r.IntN(2) == 0 {
							opts = append(opts, Stop("e", "the ", ". The"))
						}
						leave, before := r.IntN(20), time.Duration(r.IntN(3000))*time.Microsecond
						all.Go(func() {
							ctx, cancel := context.WithCancel(background)
							defer cancel()
							if leave == 1 { // in the middle of the prompt, it may be
								time.AfterFunc(before, cancel)
							}
							alone := m.NewSession(opts...)
							if err := alone.Append(background, ids...); err != nil {
								t.Error(err)
							}
							var want, got []Token
							for token, err := range alone.Generate(background) {
								if err != nil {
									t.Error(err)
								}
								want = append(want, token)
							}
							var stats Stats
							for token, err := range b.Generate(ctx, Request{IDs: ids, Options: opts, Stats: &stats}) {
								if err != nil {
									if ctx.Err() == nil {
										t.Error(err)
									}
									return
								}
								if got = append(got, token); len(got) == leave {
									return
								}
							}
							if fmt.Sprint(got) != fmt.Sprint(want) {
								t.Errorf("%d tokens, of which %d are known: %v, alone %v", len(ids), stats.ReusedTokens, got, want)
							}
							if len(want) > 0 && (stats.PromptTokens != len(ids) || stats.ReusedTokens > len(ids)) {
								t.Errorf("%d tokens, %d and %d are told", len(ids), stats.PromptTokens, stats.ReusedTokens)
							}
							mu.Lock()
							defer mu.Unlock()
							reused += stats.ReusedTokens
							whole = alone.ids
						})
					}
					all.Wait()
					b.audit(t)
				}
				var again Stats // of a text that was read just before
				for range 2 {
					r := Request{IDs: text[:300], Options: []Option{MaxTokens(1)}, Stats: &again}
					for _, err := range b.Generate(background, r) {
						if err != nil {
							t.Error(err)
						}
					}
				}
				kept := b.kept()
				switch {
				case most == 1 && (kept > 0 || reused > 0):
					t.Errorf("%d states, %d tokens of them used, in one byte", kept, reused)
				case most == 1<<30 && again.ReusedTokens == 0:
					t.Errorf("none of %d states was used", kept)
				}
				b.Close()
				if n := b.kept(); n > 0 {
					t.Errorf("%d states after Close", n)
				}
			}
		}, WithCache(typ))
	}
}

// TestPrefixesLeave: of two conversations and an instruction that both begin with, what is used stays; a cancelled
// request leaves what it has read.
func TestPrefixesLeave(t *testing.T) {
	m := stories(t, WithCache(CacheF16))
	text := longIDs(m, 4000)
	first := text[:1000]
	probe := m.NewBatcher(KeepPrefixes(1 << 40))
	reusedTokens(t, probe, first)
	probe.mu.Lock()
	b := m.NewBatcher(KeepPrefixes(2 * (probe.prefixes.held.bytes + probe.prefixes.ids)))
	probe.mu.Unlock()
	probe.Close()
	defer b.Close()
	if n := reusedTokens(t, b, first); n != 0 {
		t.Errorf("%d tokens of a new text", n)
	}
	if n := reusedTokens(t, b, append(slices.Clip(first[:990]), 5, 6, 7)); n < 900 {
		t.Errorf("%d tokens of 990", n)
	}
	for i := range 5 { // others come and go
		if n := reusedTokens(t, b, text[1000+300*i:][:300]); n != 0 {
			t.Errorf("%d tokens of a new text", n)
		}
		if n := reusedTokens(t, b, append(slices.Clip(first), i)); n < 900 {
			t.Errorf("%d tokens of 1,000, after %d others", n, i+1)
		}
	}
	if n := reusedTokens(t, b, append(slices.Clip(text[1000:1300]), 1)); n != 0 {
		t.Errorf("%d tokens of a text that has had to leave", n)
	}

	c := m.NewBatcher(KeepPrefixes(64<<20), PrefillSlice(128))
	defer c.Close()
	ctx, cancel := context.WithCancel(background)
	go func() {
		for c.kept() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	for _, err := range c.Generate(ctx, Request{IDs: text}) {
		if err == nil {
			t.Error("not cancelled")
		}
	}
	if n := reusedTokens(t, c, text[:3000]); n == 0 {
		t.Error("a cancelled request has left nothing")
	}
}

// reusedTokens is how many tokens of a prompt a Batcher knew.
func reusedTokens(t *testing.T, b *Batcher, ids []int) int {
	t.Helper()
	var stats Stats
	for _, err := range b.Generate(background, Request{IDs: ids, Options: []Option{MaxTokens(1)}, Stats: &stats}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	b.audit(t)
	return stats.ReusedTokens
}

// TestPrefixesOfAGrowingText: in room for two states the whole of a conversation is kept, in room for more also what a
// sibling shares.
func TestPrefixesOfAGrowingText(t *testing.T) {
	m := stories(t, WithCache(CacheF16))
	text := longIDs(m, 2000)
	for states := range int64(4) {
		b := m.NewBatcher(KeepPrefixes((2 + states) * (m.Config().StateBytes(2000, CacheF16) + 1<<15)))
		for n, before := 1500, 0; n < 2000; n, before = n+97, n {
			if got := reusedTokens(t, b, text[:n]); got != before {
				t.Errorf("room for %d states: %d tokens of %d are known, %d had been read", 2+states, got, n, before)
			}
		}
		if got := reusedTokens(t, b, append(slices.Clip(text[:1900]), 5)); states > 0 && got < 1500 {
			t.Errorf("room for %d states: %d tokens of a sibling's 1,900", 2+states, got)
		}
		b.Close()
	}
}

// TestPrefixesAndStops: a stop string does not reach back into a prompt, though all of that is known already.
func TestPrefixesAndStops(t *testing.T) {
	m := stories(t)
	prompt := letters(t, m, strings.Repeat("xxab", 64))
	b := m.NewBatcher(KeepPrefixes(1 << 30))
	defer b.Close()
	for i := range 3 {
		text, stats := "", Stats{}
		r := Request{IDs: prompt, Options: []Option{Temperature(0), MaxTokens(3), Stop("abc"), spell(letters(t, m, "cab"))}, Stats: &stats}
		for token, err := range b.Generate(background, r) {
			if err != nil {
				t.Fatal(err)
			}
			text += token.Text
		}
		if text != "cab" || (stats.ReusedTokens == len(prompt)) != (i > 0) {
			t.Errorf("request %d: %q, %d tokens of %d are known", i, text, stats.ReusedTokens, len(prompt))
		}
	}
}

// TestPrefixSpeed: behind the same 8,192 tokens the second request's first token comes far sooner.
func TestPrefixSpeed(t *testing.T) {
	m := stories(t, WithWeights(Int8), WithCache(CacheF16))
	text := longIDs(m, 9000)
	var ratios []float64
	for i := range 3 {
		b := m.NewBatcher(KeepPrefixes(1 << 28))
		first := func(ids []int) time.Duration {
			begin := time.Now()
			for _, err := range b.Generate(background, Request{IDs: ids, Options: []Option{MaxTokens(1)}}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(begin)
		}
		long := first(append(text[:8192:8192], text[8192:8212]...))
		again := first(append(text[:8192:8192], text[8300+i:8330]...))
		ratios = append(ratios, float64(long)/float64(again))
		t.Logf("first token after %v, again after %v", long, again)
		b.Close()
	}
	slices.Sort(ratios)
	if t.Logf("%.0f times sooner", ratios[1]); ratios[1] < 50 && os.Getenv("PHOTON_TEST_TIMES") != "" {
		t.Errorf("%.0f times sooner, want 50", ratios[1])
	}
}

// TestSharedStateCounts: forks of a long text run together in little more room than one of them.
func TestSharedStateCounts(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		if !m.cfg.Flat() || m.decoders[0].stack.cfg.window(0) > 0 {
			t.Skip("not all of it is shared")
		}
		bytes := func(n int) int64 { return m.cfg.StateBytes(n, CacheF32) }
		base := m.NewSession(MaxTokens(20), LogitBias(endless(m)))
		if err := base.Append(background, longIDs(m, 400)...); err != nil {
			t.Fatal(err)
		}
		const texts = 8
		b := m.NewBatcher(MaxStateBytes(bytes(400) + texts*bytes(20+leastRows)))
		defer b.Close()
		var all sync.WaitGroup
		together := make(chan bool)
		for i := range texts {
			s := base.Fork()
			all.Go(func() {
				n := 0
				for _, err := range b.Generate(background, Request{Session: s}) {
					if err != nil {
						t.Error(err)
					}
					if n++; n == 1 { // nobody goes on before all run
						if i == 0 {
							for range texts - 1 {
								together <- true
							}
						} else {
							<-together
						}
					}
				}
				if n != 20 {
					t.Errorf("%d tokens", n)
				}
			})
		}
		all.Wait()
		for _, err := range b.Generate(background, Request{Prompt: "", IDs: []int{1}, Options: []Option{MaxTokens(1)}}) {
			if err != nil {
				t.Error(err)
			}
		}
		b.mu.Lock()
		worker := b.ended
		b.mu.Unlock()
		if worker != nil { // it counts what has ended when it next looks
			<-worker
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.reserved != 0 || b.shared.bytes != 0 {
			t.Errorf("%d and %d bytes are still counted", b.reserved, b.shared.bytes)
		}
	})
}

// endless is a bias against every token that ends a text.
func endless(m *Model) map[int]float32 {
	bias := map[int]float32{}
	for _, id := range m.cfg.EOSTokenIDs {
		bias[id] = negInf
	}
	return bias
}

// TestRoomNeverExceeded: up to where a text may grow its state is within the bound, though it falls where a unit ends,
// and one token more could exceed it.
func TestRoomNeverExceeded(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		bytes := func(n int) int64 { return m.cfg.StateBytes(n, CacheF32) }
		top := bytes(60)
		for room := bytes(10) + 1; room < top; room += max(1, top/97) {
			b := m.NewBatcher(MaxStateBytes(room))
			l, err := m.lane(background, Request{IDs: longIDs(m, 3)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.reserve(l); err != nil {
				continue
			}
			for n := 3; n <= min(l.most, 500); n++ {
				if bytes(n) > room {
					t.Fatalf("in %d bytes %d tokens, but %d take %d", room, l.most, n, bytes(n))
				}
			}
			if meta := m.cfg.MetaContext(); l.most < 500 {
				over := false
				for n := l.most; n <= l.most+meta; n++ {
					over = over || bytes(n) > room
				}
				if !over {
					t.Fatalf("in %d bytes only %d tokens", room, l.most)
				}
			}
		}
	})
}

// States are kept at borders whatever the slices in which a prompt is read, also in its last 64 tokens.
func TestPrefixesOfAnySlice(t *testing.T) {
	m := stories(t)
	ids := longIDs(m, 200)
	for _, slice := range []int{1, 5, 63, 64, 100, 1000} {
		b := m.NewBatcher(KeepPrefixes(1<<30), PrefillSlice(slice))
		for _, prompt := range [][]int{ids[:173], append(slices.Clip(ids[:170]), 5, 6)} {
			var stats Stats
			request := Request{IDs: prompt, Options: []Option{MaxTokens(1)}, Stats: &stats}
			for _, err := range b.Generate(background, request) {
				if err != nil {
					t.Fatal(err)
				}
			}
			if want := 128 * (173 - len(prompt)); stats.ReusedTokens != want {
				t.Errorf("slices of %d: %d tokens of %d are reused, want %d", slice, stats.ReusedTokens, len(prompt), want)
			}
		}
		b.Close()
	}
}
