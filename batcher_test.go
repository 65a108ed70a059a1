package photon

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
	spelled := slices.Repeat(letters(t, m, "a"), 40)
	for _, s := range []*Session{nil, m.NewSession()} {
		all.Go(func() {
			n := 0
			r := Request{Session: s, Prompt: "A cat", Options: []Option{MaxTokens(40), spell(spelled)}}
			for token, err := range b.Generate(background, r) {
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
		r := Request{Prompt: "The king", Options: []Option{MaxTokens(60), noEnd(m)}}
		for _, err := range b.Generate(background, r) {
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
	r := Request{Prompt: "A cat", Options: []Option{MaxTokens(-1), noEnd(m), count}}
	for _, err := range b.Generate(background, r) {
		if err != nil {
			t.Fatal(err)
		}
		if read++; read%5 == 1 { // sleeps while others write
			r := Request{Prompt: "The king", Options: []Option{MaxTokens(60), noEnd(m)}}
			if err := firstError(b.Generate(background, r)); err != nil {
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
			r := Request{Prompt: "Once", Options: []Option{MaxTokens(-1), noEnd(m)}}
			for _, err := range b.Generate(background, r) {
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

// Close may be called by a function of a request, which the worker waits for.
func TestBatcherCloseWithin(t *testing.T) {
	m := stories(t)
	before := runtime.NumGoroutine()
	for _, s := range []*Session{nil, m.NewSession()} {
		b := m.NewBatcher()
		closing := LogitsFunc(func([]int, []float32) { b.Close() })
		var other sync.WaitGroup
		other.Go(func() {
			r := Request{IDs: []int{7}, Options: []Option{MaxTokens(-1), noEnd(m)}}
			if err := firstError(b.Generate(background, r)); !errors.Is(err, ErrClosed) {
				t.Errorf("another text: %v", err)
			}
		})
		r := Request{Session: s, IDs: []int{5}, Options: []Option{closing}}
		if err := firstError(b.Generate(background, r)); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		other.Wait()
		if err := firstError(b.Generate(background, Request{IDs: []int{5}})); !errors.Is(err, ErrClosed) {
			t.Errorf("a request after Close: %v", err)
		}
	}
	noGoroutines(t, before)
}

// A function that ends its goroutine ends its request, and no other.
func TestBatcherGoexit(t *testing.T) {
	m := stories(t)
	before := runtime.NumGoroutine()
	b := m.NewBatcher()
	want := ""
	for token := range m.Generate(background, "Once", MaxTokens(40), Temperature(0), noEnd(m)) {
		want += token.Text
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			opts := []Option{MaxTokens(40), Temperature(0), noEnd(m)}
			if i%2 == 1 {
				opts = append(opts, LogitsFunc(func(drawn []int, _ []float32) {
					if len(drawn) == 5*i {
						runtime.Goexit()
					}
				}))
			}
			n, text, failed := 0, "", error(nil)
			for token, err := range b.Generate(background, Request{Prompt: "Once", Options: opts}) {
				if failed = err; err == nil {
					n, text = n+1, text+token.Text
				}
			}
			switch {
			case i%2 == 1 && (!errors.Is(failed, ErrInvalid) || n != 5*i):
				t.Errorf("after %d tokens: %v", n, failed)
			case i%2 == 0 && (failed != nil || text != want):
				t.Errorf("another text: %v, %q, want %q", failed, text, want)
			}
		})
	}
	all.Wait()
	if err := firstError(b.Generate(background, Request{IDs: []int{5}})); err != nil {
		t.Errorf("a request after it: %v", err)
	}
	b.Close()
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
			r := Request{IDs: longIDs(m, n), Options: []Option{MaxTokens(-1), LogitBias(endless(m))}}
			l, err := m.lane(background, r, nil)
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
			count := LogitsFunc(func(drawn []int, _ []float32) {
				switch len(drawn) {
				case 0:
					order = append(order, i)
					running++
					most = max(most, running)
					<-open // until all have come
				case 7:
					running--
				}
			})
			r := Request{Prompt: "Once", Options: []Option{MaxTokens(8), noEnd(m), count}}
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
			opts := []Option{MaxTokens(-1), Temperature(1), noEnd(m), Seed(uint64(i))}
			r := Request{Prompt: "Once", Options: opts, Stats: &stats[i]}
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

// What texts share takes room too.
// Close waits for a draw, unless that calls functions of the caller: one of these may call Close.
func TestCalls(t *testing.T) {
	f := LogitsFunc(func([]int, []float32) {})
	for _, c := range []struct {
		opts []Option
		want bool
	}{{nil, false}, {[]Option{Temperature(0)}, false}, {[]Option{f}, true}} {
		o, err := resolve(defaultOptions(), c.opts)
		l := lane{stream: &stream{o: o}}
		if got := l.calls(); err != nil || got != c.want {
			t.Errorf("%d options: %v, %v", len(c.opts), got, err)
		}
	}
}

func TestBatcherFits(t *testing.T) {
	b := Batcher{reserved: 40}
	b.shared.bytes = 30
	for _, c := range []struct {
		state, need int64
		want        bool
	}{{0, 1 << 40, true}, {100, 30, true}, {100, 31, false}} {
		b.o.state = c.state
		var l lane
		l.need = c.need
		if got := b.fits(&l); got != c.want {
			t.Errorf("%d bytes beside 70 of %d fit: %v", c.need, c.state, got)
		}
	}
}
