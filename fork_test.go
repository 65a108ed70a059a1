package photon

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// A cacheModel says what a cache should hold: of every layer the rows by position, each of one number.
type cacheModel struct {
	c    *kvCache
	rows []float32 // of positions 0 …
}

// append adds n rows, one step after another, as a stack does.
func (m *cacheModel) append(r *rand.Rand, n int) {
	c := m.c
	c.reserve(n)
	for l := range c.layers {
		y := &c.layers[l]
		if y.window > 0 && !c.fits(l, n) {
			var fresh kvLayer
			fresh.resize(c.typ, c.heads, wholePanels(n), c.headDim)
			for i := range n {
				for h := range c.heads {
					setBoth(c, &fresh, h*wholePanels(n)+i, m.value(c.next+i, r))
				}
			}
			for h := range c.heads {
				c.commit(l, h, c.next, &fresh, wholePanels(n), 0, n)
			}
			continue
		}
		for p := c.next; p < c.next+n; p++ {
			part := y.part(p)
			for h := range c.heads {
				setBoth(c, &part.kvLayer, h*part.capacity+part.slot(p), m.value(p, r))
			}
		}
	}
	c.advance(n)
}

// value is that of a position, drawn when it is first asked for.
func (m *cacheModel) value(p int, r *rand.Rand) float32 {
	for len(m.rows) <= p {
		m.rows = append(m.rows, float32(1+r.IntN(1000)))
	}
	return m.rows[p]
}

func setBoth(c *kvCache, l *kvLayer, at int, v float32) {
	row := slices.Repeat([]float32{v}, c.headDim)
	l.k.set(c.typ, at, row)
	l.v.set(c.typ, at, row)
}

func (m *cacheModel) check(t *testing.T, what string) {
	t.Helper()
	c := m.c
	for l := range c.layers {
		first := c.first(l)
		for h := range c.heads {
			next := first
			for _, s := range c.layers[l].spans(nil, h, first, c.next) {
				if s.from != next || s.to <= s.from {
					t.Fatalf("%s: a span of %d … %d, want one from %d", what, s.from, s.to, next)
				}
				for next = s.from; next < s.to; next++ {
					for half := range 2 {
						r, at := s.layer.half(half), s.base+next
						got := r.number(c.typ, r.place(at, 0, c.headDim))
						if c.typ == CacheInt8 {
							got *= float64(r.scale[at])
						}
						if want := float64(m.rows[next]); got < want*0.999 || got > want*1.001 {
							t.Fatalf("%s, layer %d, head %d: row %d is %g, want %g", what, l, h, next, got, want)
						}
					}
				}
			}
			if next != c.next {
				t.Fatalf("%s, layer %d: spans end at %d, want %d", what, l, next, c.next)
			}
		}
	}
}

// A window that is full goes on in the same memory.
func TestFullRingStays(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	m := &cacheModel{c: newKVCache(CacheF32, StackConfig{Layers: 2, KVHeads: 2, HeadDim: 2, Windows: []int{32, 37}})}
	m.append(r, 100)
	before := []*kvPart{m.c.layers[0].parts[0], m.c.layers[1].parts[0]}
	for range 50 {
		m.append(r, 1)
		m.check(t, "a full ring")
	}
	for l, part := range before {
		if m.c.layers[l].parts[0] != part {
			t.Errorf("layer %d was made anew", l)
		}
	}
}

// TestCacheCopies: whatever is added to copies of a cache, copies of those and their origin, each keeps its own rows.
func TestCacheCopies(t *testing.T) {
	for _, typ := range cacheTypes {
		for seed := range uint64(12) {
			r := rand.New(rand.NewPCG(seed, uint64(typ)))
			s := StackConfig{Layers: 3, KVHeads: 2, HeadDim: 2, Windows: []int{0, 37, 150}}
			if seed%3 == 0 { // as a memory
				s.Layers, s.Windows = 1, nil
			}
			all := []*cacheModel{{c: newKVCache(typ, s)}}
			for range 150 {
				m := all[r.IntN(len(all))]
				switch n := r.IntN(12); {
				case n == 0:
					m.append(r, keyPanel-m.c.next%keyPanel)
				case n < 6:
					m.append(r, 1+r.IntN(3))
				case n == 6:
					m.append(r, 1+r.IntN(200))
				case n == 7 && r.IntN(2) == 0: // room that is not used yet
					m.c.reserve(1 + r.IntN(1500))
				case n == 7:
					m.append(r, 1+r.IntN(1500))
				case n == 8 && s.Layers == 1:
					m.c.drop(m.c.next - 1 - r.IntN(100))
				case n == 9 && r.IntN(4) == 0:
					position := r.IntN(500)
					m.c.reset(position)
					m.rows = m.rows[:min(position, len(m.rows))]
				case n == 10: // tried, and taken back
					before, rows := m.c.save(s.Layers > 1), len(m.rows)
					for range 3 {
						m.append(r, 1+r.IntN(100))
					}
					m.c, m.rows = before, m.rows[:rows]
				case len(all) < 8:
					all = append(all, &cacheModel{m.c.clone(), slices.Clone(m.rows)})
				default: // another text is dropped, of which parts may live on
					all[0] = &cacheModel{m.c.clone(), slices.Clone(m.rows)}
				}
				for _, m := range all {
					if m.c.next > 6000 {
						m.c.reset(0)
						m.rows = m.rows[:0]
					}
				}
			}
			for _, m := range all {
				m.check(t, typ.String())
			}
		}
	}
}

// held is the size of the arrays of all caches of some texts, what they share counted once.
func held(texts ...*Session) (n int64) {
	seen := map[*kvPart]bool{}
	for _, s := range texts {
		s.seq.caches(func(c *kvCache) {
			for _, y := range c.layers {
				for _, p := range y.parts {
					if !seen[p] {
						seen[p] = true
						n += int64(p.capacity) * c.layerBytes()
					}
				}
			}
		})
	}
	return n
}

// unbounded is a small model without windows.
func unbounded(t testing.TB, opts ...LoadOption) *Model {
	t.Helper()
	s := testStack(8, 1, 1, 1, 4, 8, 0, 10000)
	dir := t.TempDir()
	if err := WriteRandom(dir, flat(50, s), 3, "F32"); err != nil {
		t.Fatal(err)
	}
	m, err := Load(dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestForkCosts: a fork of a long text costs neither time nor memory, and many of them hold the prompt once.
func TestForkCosts(t *testing.T) {
	n := 30000
	if testing.Short() || raceEnabled {
		n = 6000
	}
	m := unbounded(t)
	prompt := m.NewSession(Temperature(1))
	if err := prompt.Append(background, longIDs(m, n)...); err != nil {
		t.Fatal(err)
	}
	state := prompt.Stats().StateBytes
	var before, after runtime.MemStats
	fastest := time.Hour
	runtime.ReadMemStats(&before)
	const times = 10
	for range times {
		begin := time.Now()
		prompt.Fork()
		fastest = min(fastest, time.Since(begin))
	}
	runtime.ReadMemStats(&after)
	if got := int64(after.TotalAlloc-before.TotalAlloc) / times; got > state/100 {
		t.Errorf("a fork allocates %d bytes, the state has %d", got, state)
	}
	if fastest > time.Millisecond {
		slow(t, "a fork takes %v", fastest)
	}

	const texts, grow = 128, 12
	all, own := []*Session{prompt}, int64(0)
	origin := held(prompt)
	var requests []Request
	for i := range texts {
		f := prompt.Fork()
		all = append(all, f)
		requests = append(requests, Request{Session: f, Options: []Option{Seed(uint64(i)), MaxTokens(grow)}})
	}
	for _, err := range m.GenerateBatch(background, requests) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range all[1:] {
		s := f.Stats()
		if want := m.cfg.StateBytes(n+grow-1, CacheF32); s.StateBytes < state || s.StateBytes > want+int64(2*want)/int64(n) {
			t.Fatalf("a fork holds %d bytes, want %d", s.StateBytes, want)
		}
		if s.SharedBytes < state-keyPanel*state/int64(n) {
			t.Fatalf("%d of %d bytes are shared", s.SharedBytes, s.StateBytes)
		}
		own += s.StateBytes - s.SharedBytes
	}
	row := state / int64(n)
	if got, most := held(all...), origin+texts*row*2*(grow+keyPanel); got > most {
		t.Errorf("%d forks and their prompt hold %d bytes, want %d and at most %d more", texts, got, origin, most-origin)
	}
	if own > texts*row*(grow+keyPanel) {
		t.Errorf("the forks own %d bytes", own)
	}
}

// TestForks: forks of forks, at any point and in any order, beside each other, after their parents are gone, cancelled
// and written down, go on as a text of their own does.
func TestForks(t *testing.T) {
	for _, typ := range cacheTypes {
		eachGolden(t, func(t *testing.T, g golden, m *Model) {
			r := rand.New(rand.NewPCG(uint64(typ), 9))
			type text struct {
				s   *Session
				ids []int
			}
			texts := []text{{m.NewSession(), nil}}
			for range 25 {
				i := r.IntN(len(texts))
				x := &texts[i]
				more := longIDs(m, 1+r.IntN(20))
				more = more[r.IntN(len(more)):]
				switch r.IntN(6) {
				case 0:
					texts = append(texts, text{x.s.Fork(), slices.Clone(x.ids)})
				case 1: // the parent is dropped
					*x = text{x.s.Fork(), slices.Clone(x.ids)}
				case 2:
					ctx := &looking{Context: background, n: r.IntN(50)}
					x.s.Append(ctx, more...)
					x.ids = append(x.ids, more[:x.s.Len()-len(x.ids)]...)
				case 3:
					var file bytes.Buffer
					if _, err := x.s.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					s, err := m.ReadSession(&file)
					if err != nil {
						t.Fatal(err)
					}
					x.s = s
				default:
					if err := x.s.Append(background, more...); err != nil {
						t.Fatal(err)
					}
					x.ids = append(x.ids, more...)
				}
			}
			var all sync.WaitGroup
			for _, x := range texts {
				all.Go(func() {
					more := longIDs(m, 5)
					if err := x.s.Append(context.Background(), more...); err != nil {
						t.Error(err)
						return
					}
					want := m.NewSession()
					if err := want.Append(background, append(slices.Clip(x.ids), more...)...); err != nil {
						t.Error(err)
						return
					}
					if !sameBits(x.s.Logits(), want.Logits()) {
						t.Errorf("a fork of %d tokens has other logits", x.s.Len())
					}
				})
			}
			all.Wait()
		}, WithCache(typ))
	}
}

// TestSessionsBeginTogether: sessions begin on many goroutines, from the caches of the empty text.
func TestSessionsBeginTogether(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		m.empty.caches(func(c *kvCache) {
			for i := range c.layers {
				if y := &c.layers[i]; c.begin < c.next && y.shared != c.next {
					t.Errorf("%d rows are shared of the %d that all texts begin with", y.shared, c.next)
				}
			}
		})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if err := m.NewSession().Append(background, g.ids[:5]...); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

// TestForksReadTogether: forks of a few texts, taken at different lengths, that go on side by side share tiles of
// attention, and each gets the bits that it would get alone.
func TestForksReadTogether(t *testing.T) {
	if testing.Short() { // an emulated processor takes minutes for more
		eachGolden(t, func(t *testing.T, g golden, m *Model) {
			forksReadTogether(t, m, 70, 7)
		}, WithCache(CacheF16), WithThreads(2))
		return
	}
	for _, typ := range cacheTypes {
		eachGolden(t, func(t *testing.T, g golden, m *Model) {
			forksReadTogether(t, m, 150, 14)
		}, WithCache(typ), WithThreads(2))
		// Over several blocks of positions, which threads share.
		eachGolden(t, func(t *testing.T, g golden, m *Model) {
			if m.cfg.Flat() {
				forksReadTogether(t, m, 1500, 3)
			}
		}, WithCache(typ), WithThreads(3))
	}
}

// forksReadTogether tests forks, each taken from one of two texts after that many tokens or more.
func forksReadTogether(t *testing.T, m *Model, tokens, forks int) {
	r := rand.New(rand.NewPCG(uint64(m.cacheType), 10))
	ids := longIDs(m, tokens+1000)
	var texts []*Session
	var prompts [][]int
	for family := range 2 {
		from, n := 20*family, tokens+r.IntN(30)
		base := m.NewSession()
		if err := base.Append(background, ids[from:from+n]...); err != nil {
			t.Fatal(err)
		}
		for range forks {
			texts = append(texts, base.Fork())
			prompts = append(prompts, slices.Clone(ids[from:from+n]))
			if r.IntN(4) == 0 {
				more := 1 + r.IntN(40)
				if err := base.Append(background, ids[from+n:from+n+more]...); err != nil {
					t.Fatal(err)
				}
				n += more
			}
		}
	}
	r.Shuffle(len(texts), func(i, j int) {
		texts[i], texts[j] = texts[j], texts[i]
		prompts[i], prompts[j] = prompts[j], prompts[i]
	})
	run := batch{m: m, ws: m.acquire()}
	defer m.release(run.ws)
	var lanes []*lane
	for _, s := range texts {
		l, err := m.lane(background, Request{Session: s, Options: []Option{Temperature(0)}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		lanes = append(lanes, l)
	}
	for range 20 {
		for i := range lanes {
			next := r.IntN(m.cfg.VocabSize)
			prompts[i] = append(prompts[i], next)
			lanes[i].todo = []int{next}
		}
		run.pass(lanes)
		// The last stack that ran is the decoder of the tokens.
		if c := texts[0].seq.dec[0].cache; c.layers[len(c.layers)-1].window == 0 && !m.decoders[0].local {
			shared := 0
			for _, tile := range run.ws.attention.tiles {
				if tile.forks {
					shared += tile.rows
				}
			}
			if shared < len(texts)/2 {
				t.Fatalf("%d of %d forks share tiles", shared, len(texts))
			}
		}
	}
	for i, s := range texts {
		want := m.NewSession()
		if err := want.Append(background, prompts[i]...); err != nil {
			t.Fatal(err)
		}
		if !sameBits(s.Logits(), want.Logits()) {
			t.Errorf("fork %d of %d tokens has other logits", i, s.Len())
		}
	}
}
