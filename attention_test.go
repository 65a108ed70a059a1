package photon

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/photon-lm/photon/internal/bounded"
)

var cacheTypes = []CacheType{CacheF32, CacheF16, CacheInt8}

// newTestRows stores n random numbers, as values.
func newTestRows(t CacheType, x []float32) *kvRows {
	var l kvLayer
	l.resize(t, 1, len(x), 1)
	for i := range x {
		l.v.set(t, i, x[i:i+1])
	}
	return &l.v
}

// number is number i of r, without a scale.
func (r *kvRows) number(t CacheType, i int) float64 {
	switch t {
	case CacheF16:
		return float64(f16ToF32(r.f16[i]))
	case CacheInt8:
		return float64(r.i8[i])
	}
	return float64(r.f32[i])
}

// place is where r holds element d of a row.
func (r *kvRows) place(row, d, dim int) int {
	if r.panel > 0 {
		return (row/r.panel*dim+d)*r.panel + row%r.panel
	}
	return row*dim + d
}

func mixForm(t CacheType, dst, p []float32, w *kvRows, m *mixShape) {
	switch t {
	case CacheF32:
		mixF32(dst, p, w.f32, m)
	case CacheF16:
		mixF16(dst, p, w.f16, m)
	case CacheInt8:
		mixInt8(dst, p, w.i8, m)
	}
}

// from is what begins at number i.
func (r *kvRows) from(t CacheType, i int) *kvRows {
	switch t {
	case CacheF32:
		return &kvRows{f32: r.f32[i:]}
	case CacheF16:
		return &kvRows{f16: r.f16[i:]}
	}
	return &kvRows{i8: r.i8[i:]}
}

// mixShapes are values and keys in every small number of queries and steps, and of every length up to 513 (in short tests one in five).
func mixShapes(r *rand.Rand) (list []mixShape) {
	step := 1
	if testing.Short() {
		step = 5
	}
	add := func(queries, steps, lanes int) {
		list = append(list, valueMix(queries, steps+r.IntN(20), steps, lanes))
		if keys := (lanes + 15) &^ 15; keys <= 208 {
			list = append(list, keyMix(queries, keys+r.IntN(20), keys, wholePanels(keys)/((keys+63)/64), steps))
		}
	}
	for lanes := 1; lanes <= 140; lanes++ {
		add(1+lanes%13, 1+lanes%9, lanes)
	}
	for queries := 1; queries <= 13; queries++ {
		for steps := 1; steps <= 9; steps++ {
			add(queries, steps, 4*(1+(queries+steps)%40))
		}
	}
	for n := 1; n <= 513; n += step {
		add(1+n%7, n, 8*(1+n%5))
		add(1+n%4, 1+n%5, n)
	}
	return list
}

// Sums against float64, for all shapes; what lies around the results stays as it was; and a query's bits are those that it has alone,
// a lane's those that it has in a band of its own, and sums may stop anywhere and go on.
func TestAttentionKernels(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for _, form := range cacheTypes {
			r := rand.New(rand.NewPCG(11, uint64(form)))
			for _, m := range mixShapes(r) {
				what := fmt.Sprintf("%v: %+v", form, m)
				p, w := randomValues(r, (m.queries-1)*m.pStride+m.steps), newTestRows(form, randomValues(r, m.extent()))
				dst := randomValues(r, (m.queries-1)*m.stride+m.lanes+1)
				first := append([]float32(nil), dst...)
				element := func(s, lane int) float64 { return w.number(form, lane/64*m.panel+s*m.step+lane%64) }
				mixForm(form, dst, p, w, &m)
				for n := range dst {
					i, lane := n/m.stride, n%m.stride
					if lane >= m.lanes || i >= m.queries {
						if dst[n] != first[n] {
							t.Fatalf("%s: writes outside its rows", what)
						}
						continue
					}
					checkDot(t, what, dst[n], m.steps+1, func(s int) (a, b float64) {
						switch {
						case s < m.steps:
							return float64(p[i*m.pStride+s]), element(s, lane)
						case m.begin:
							return 0, 0
						}
						return 1, float64(first[n])
					})
				}

				alone := m
				i, stop := r.IntN(m.queries), r.IntN(m.steps)
				alone.queries = 1
				got, p := first[i*m.stride:][:m.lanes], p[i*m.pStride:]
				if stop > 0 {
					alone.steps = stop
					mixForm(form, got, p, w, &alone)
					alone.begin = false
				}
				alone.steps = m.steps - stop
				mixForm(form, got, p[stop:], w.from(form, stop*m.step), &alone)
				if !sameBits(got, dst[i*m.stride:][:m.lanes]) {
					t.Fatalf("%s: query %d has other sums alone and in two parts", what, i)
				}
				if at := r.IntN((m.lanes+15)/16) * 16; m.begin {
					alone.begin, alone.steps, alone.lanes = true, m.steps, 16
					mixForm(form, got, p, w.from(form, at/64*m.panel+at%64), &alone)
					if !sameBits(got[:16], dst[i*m.stride+at:][:16]) {
						t.Fatalf("%s: lanes from %d on of query %d have other sums alone", what, at, i)
					}
				}
			}
		}
	})
}

// checkDot compares a sum of n products with float64: each rounding is within 2^-24 of the magnitudes added so far.
func checkDot(t *testing.T, what string, got float32, n int, factors func(i int) (a, b float64)) {
	t.Helper()
	sum, size := 0.0, 0.0
	for i := range n {
		a, b := factors(i)
		sum += a * b
		size += math.Abs(a * b)
	}
	if bound := size*float64(n+3)*0x1p-24 + float64(n)*0x1p-126; !(math.Abs(float64(got)-sum) <= bound) {
		t.Fatalf("%s: %g, want %g ± %g", what, got, sum, bound)
	}
}

// Slices that begin anywhere within 64 bytes.
func TestAttentionMisaligned(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for _, form := range cacheTypes {
			for _, m := range []mixShape{valueMix(5, 7, 7, 52), valueMix(7, 9, 9, 116), keyMix(3, 112, 112, 64, 20), keyMix(8, 48, 48, 64, 12)} {
				r := rand.New(rand.NewPCG(12, uint64(form)))
				p, w := randomValues(r, m.queries*m.pStride), newTestRows(form, randomValues(r, m.extent()))
				want := make([]float32, m.queries*m.stride)
				mixForm(form, want, p, w, &m)
				for shift := range 64 {
					moved1 := &kvRows{f32: moved(w.f32, shift%16), f16: moved(w.f16, shift%32), i8: moved(w.i8, shift)}
					got := moved(make([]float32, len(want)), shift*7%16)
					mixForm(form, got, moved(p, shift%16), moved1, &m)
					if !sameBits(got, want) {
						t.Fatalf("%v: another result when slices begin %d bytes later", form, shift)
					}
				}
			}
		}
	})
}

// Rows come back from a cache's arrays as they were, wherever they are copied from and to.
func TestCopyRows(t *testing.T) {
	const dim, rows = 5, 70
	for _, form := range cacheTypes {
		r := rand.New(rand.NewPCG(16, uint64(form)))
		var a, b kvLayer
		a.resize(form, 1, wholePanels(rows), dim)
		b.resize(form, 1, wholePanels(rows), dim)
		for range 300 {
			n := r.IntN(rows + 1)
			from, to := r.IntN(rows-n+1), r.IntN(rows-n+1)
			if r.IntN(3) == 0 {
				to = from
			}
			for half := range 2 {
				a, b := a.half(half), b.half(half)
				for i := range rows {
					a.set(form, i, randomValues(r, dim))
					b.set(form, i, randomValues(r, dim))
				}
				before := kvRows{f32: slices.Clone(b.f32), f16: slices.Clone(b.f16), i8: slices.Clone(b.i8)}
				copyRows(form, dim, b, to, a, from, n)
				for i := range rows {
					for d := range dim {
						want := before.number(form, b.place(i, d, dim))
						if i >= to && i < to+n {
							want = a.number(form, a.place(from+i-to, d, dim))
						}
						if got := b.number(form, b.place(i, d, dim)); got != want {
							t.Fatalf("%v, half %d: %d rows from %d to %d: row %d has %g, want %g", form, half, n, from, to, i, got, want)
						}
					}
				}
			}
		}
	}
}

// testAttention is a step of one stack: segments of some lengths with or without rows before them.
type testAttention struct {
	ws   *workspace
	rows int
}

// newTestAttention puts before[i] random rows into a cache of segment i (none where before is negative) and new rows after them.
func newTestAttention(r *rand.Rand, c StackConfig, typ CacheType, workers int, before, rows []int) *testAttention {
	ws := &workspace{cacheType: typ}
	ws.crew.init(workers)
	s := newStack(c, 1e-5)
	ws.stack = s
	total := 0
	for i, n := range rows {
		seg := segment{rows: n}
		if before[i] >= 0 {
			seg.cache = newKVCache(typ, c)
			feed(r, seg.cache, before[i])
		}
		ws.segments = append(ws.segments, seg)
		total += n
	}
	ws.qkv = randomValues(r, total*(c.Heads+2*c.KVHeads)*c.HeadDim)
	ws.mixed = make([]float32, total*c.Heads*c.HeadDim)
	ws.shape = &s.shape
	ws.placeAll(total)
	return &testAttention{ws, total}
}

// placeAll gives the rows of ws.segments their places, and keeps their keys and values.
func (ws *workspace) placeAll(rows int) {
	ws.place(0, ws.stack.cfg.SlidingWindow, rows)
	ws.cos, ws.sin = ws.turns(ws.shape, ws.rows, ws.cos, ws.sin)
	keepRows(ws, 0, rows)
}

// attendAll is attention of layer 0 for them.
func (ws *workspace) attendAll() { ws.attend(ws.shape, ws.rows, 0, ws.shape.qkvWidth(), false) }

// feed appends n random rows to a cache.
func feed(r *rand.Rand, c *kvCache, n int) {
	most := min(512, wholePanels(n))
	values := randomValues(r, most*c.headDim+1000)
	for n > 0 {
		rows := min(n, most)
		var fresh kvLayer
		fresh.resize(c.typ, c.heads, most, c.headDim)
		for _, kv := range []*kvRows{&fresh.k, &fresh.v} {
			for h := range c.heads {
				from := values[r.IntN(1000):]
				for i := range rows {
					kv.set(c.typ, h*most+i, from[i*c.headDim:][:c.headDim])
				}
			}
		}
		c.reserve(rows)
		for l := range c.layers {
			y := &c.layers[l]
			for h := range c.heads {
				if y.window > 0 {
					c.commit(l, h, c.next, &fresh, most, 0, rows)
					continue
				}
				for _, s := range y.spans(nil, h, c.next, c.next+rows) {
					for j := range 2 {
						copyRows(c.typ, c.headDim, s.layer.half(j), s.base+s.from, fresh.half(j), h*most+s.from-c.next, s.to-s.from)
					}
				}
			}
		}
		c.advance(rows)
		n -= rows
	}
}

// want is attention of row r, query head g in float64.
func (a *testAttention) want(r, g int) []float64 {
	ws, c := a.ws, &a.ws.stack.cfg
	dim, h := c.HeadDim, g/(c.Heads/c.KVHeads)
	p := ws.rows[r]
	begin := p.position - (r - p.start)
	first := 0
	if p.cache != nil {
		first = p.cache.first(0)
	}
	if c.SlidingWindow > 0 {
		first = max(first, p.position+1-c.SlidingWindow)
	}
	out := make([]float64, dim)
	var scores []float64
	top := math.Inf(-1)
	row := func(i int) (k, v *kvRows, at int) {
		if i < begin || !p.fresh {
			part := p.cache.layers[0].part(i)
			return &part.k, &part.v, h*part.capacity + part.slot(i)
		}
		return &ws.fresh.k, &ws.fresh.v, h*ws.slots + p.slot - p.position + i
	}
	scaleOf := func(r *kvRows, at int) float64 {
		if ws.cacheType == CacheInt8 {
			return float64(r.scale[at])
		}
		return 1
	}
	for i := first; i <= p.position; i++ {
		k, _, at := row(i)
		s := 0.0
		for d := range dim {
			s += float64(ws.qkv[(r*(c.Heads+2*c.KVHeads)+g)*dim+d]) * k.number(ws.cacheType, k.place(at, d, dim))
		}
		s *= scaleOf(k, at) / math.Sqrt(float64(dim))
		scores = append(scores, s)
		top = max(top, s)
	}
	sum := 0.0
	for i := first; i <= p.position; i++ {
		_, v, at := row(i)
		e := math.Exp(scores[i-first] - top)
		sum += e
		for d := range dim {
			out[d] += e * scaleOf(v, at) * v.number(ws.cacheType, v.place(at, d, dim))
		}
	}
	for d := range out {
		out[d] /= sum
	}
	return out
}

// Whole attention against float64: grouped heads, windows that wrap, segments with and without a cache, blocks of positions; and on
// any number of threads the same bits.
func TestAttention(t *testing.T) {
	cases := []struct {
		c            StackConfig
		before, rows []int
	}{
		{StackConfig{Heads: 2, KVHeads: 2, HeadDim: 16, Layers: 1, RopeTheta: 10000}, []int{-1}, []int{40}},
		{StackConfig{Heads: 4, KVHeads: 2, HeadDim: 52, Layers: 1}, []int{0, 5, -1, 1, 30}, []int{7, 1, 5, 14, 1}},
		{StackConfig{Heads: 3, KVHeads: 1, HeadDim: 10, Layers: 1, SlidingWindow: 9}, []int{3, 20, 0, 8}, []int{30, 9, 4, 1}},
		{StackConfig{Heads: 8, KVHeads: 1, HeadDim: 24, Layers: 1, SlidingWindow: 3}, []int{50, -1}, []int{14, 6}},
		{StackConfig{Heads: 26, KVHeads: 2, HeadDim: 8, Layers: 1}, []int{1020}, []int{9}},
		{StackConfig{Heads: 1, KVHeads: 1, HeadDim: 64, Layers: 1, SlidingWindow: 1500}, []int{2040}, []int{30}},
		{StackConfig{Heads: 2, KVHeads: 1, HeadDim: 32, Layers: 1}, []int{2100, 1023, 1024, 1025}, []int{1, 1, 1, 1}},
		{StackConfig{Heads: 12, KVHeads: 1, HeadDim: 16, Layers: 1}, []int{2100}, []int{1}}, // threads share the positions of one tile
	}
	eachKernel(t, func(t *testing.T) {
		for n, test := range cases {
			for _, typ := range cacheTypes {
				var first []float32
				for workers := 1; workers <= 3; workers++ {
					a := newTestAttention(rand.New(rand.NewPCG(13, uint64(n))), test.c, typ, workers, test.before, test.rows)
					a.ws.crew.begin()
					a.ws.attendAll()
					a.ws.crew.end()
					if first == nil {
						first = a.ws.mixed
					} else if !sameBits(first, a.ws.mixed) {
						t.Fatalf("case %d, %v: other bits on %d threads", n, typ, workers)
					}
					if workers > 1 {
						continue
					}
					dim := test.c.HeadDim
					for r := range a.rows {
						for g := range test.c.Heads {
							for d, want := range a.want(r, g) {
								if got := a.ws.mixed[(r*test.c.Heads+g)*dim+d]; !(math.Abs(float64(got)-want) <= 2e-5) {
									t.Fatalf("case %d, %v: row %d head %d element %d is %g, want %g", n, typ, r, g, d, got, want)
								}
							}
						}
					}
				}
			}
		}
	})
}

// Attention of any shape, over values of unit variance, is within 2e-5 of that in float64 on every tier.
func FuzzAttention(f *testing.F) {
	for tier := range uint64(4) {
		f.Add(64*tier, uint8(2), uint8(3), uint8(16), uint8(0), uint16(1030), uint8(1), uint8(1))
		f.Add(64*tier+2, uint8(1), uint8(8), uint8(64), uint8(9), uint16(40), uint8(14), uint8(2))
	}
	f.Fuzz(func(t *testing.T, seed uint64, kvHeads, group, dim, window uint8, before uint16, rows, form uint8) {
		c := StackConfig{KVHeads: 1 + int(kvHeads)%4, HeadDim: 2 + 2*int(dim)%130, Layers: 1, SlidingWindow: int(window)}
		c.Heads = c.KVHeads * (1 + int(group)%13)
		cached, fresh := int(before)%2100, 1+int(rows)%15
		if seed%64 != 0 { // many rows of a long text take 20 ms
			cached, fresh = cached%50, 1+fresh%3
		}
		tiers := kernelTiers()
		tier := tiers[seed/64%uint64(len(tiers))]
		withKernel(t, tier)
		r := rand.New(rand.NewPCG(19, seed))
		a := newTestAttention(r, c, cacheTypes[int(form)%len(cacheTypes)], 2, []int{cached}, []int{fresh})
		bounded.Run(t, 1<<20, a.ws.attendAll)
		row, g := int(seed%uint64(a.rows)), int(seed/64%uint64(c.Heads))
		for d, want := range a.want(row, g) {
			if got := a.ws.mixed[(row*c.Heads+g)*c.HeadDim+d]; !(math.Abs(float64(got)-want) <= 2e-5) {
				t.Fatalf("%s: row %d head %d element %d is %g, want %g", tier, row, g, d, got, want)
			}
		}
	})
}

// The kernels of both machines that have assembly give the same bits, these; WebAssembly's those of the generic ones,
// which cannot fuse a product and a sum there either.
func TestAttentionBits(t *testing.T) {
	assembly := map[CacheType]uint64{CacheF32: 0x6b5a0d4f5e49a7c0, CacheF16: 0x85c0b6bc442e247c, CacheInt8: 0x27704a4af5656729}
	eachKernel(t, func(t *testing.T) {
		kernel := kernelName()
		for typ, want := range assembly {
			got := attentionBits(typ)
			switch kernel {
			case "generic":
				continue
			case "simd128":
				withKernel(t, "generic")
				want = attentionBits(typ)
				withKernel(t, kernel)
			}
			if got != want {
				t.Errorf("%v: %#x, want %#x", typ, got, want)
			}
		}
	})
}

func attentionBits(typ CacheType) uint64 {
	r := rand.New(rand.NewPCG(17, uint64(typ)))
	sum := fnv.New64a()
	for dim := 4; dim <= 132; dim += 4 {
		for _, m := range []mixShape{valueMix(11, 21, 21, dim), keyMix(11, 112, 112, 64, dim)} {
			values := make([]float32, m.queries*m.pStride+m.extent())
			for i := range values {
				values[i] = r.Float32() - 0.5
			}
			out := make([]float32, m.queries*m.stride)
			mixForm(typ, out, values, newTestRows(typ, values[m.queries*m.pStride:]), &m)
			binary.Write(sum, binary.LittleEndian, out)
		}
	}
	return sum.Sum64()
}

// A row's bits do not depend on its company: the rows of a text one by one, in pieces and all at once, over a cache that ends before
// or at a block of positions, with a window that wraps, one beside another text.
func TestAttentionRowAlone(t *testing.T) {
	const rows = 37
	eachKernel(t, func(t *testing.T) {
		for n, c := range []StackConfig{
			{Heads: 2, KVHeads: 2, HeadDim: 16, Layers: 1},
			{Heads: 6, KVHeads: 2, HeadDim: 20, Layers: 1, SlidingWindow: 13},
			{Heads: 5, KVHeads: 1, HeadDim: 64, Layers: 1, SlidingWindow: 1030},
			{Heads: 14, KVHeads: 1, HeadDim: 12, Layers: 1, RopeTheta: 10000},
		} {
			for _, typ := range cacheTypes {
				for _, before := range []int{0, 3, 1010, 1024, 2040} {
					// run takes the rows in pieces; company is the number of rows of another text in each step.
					run := func(piece, company int) (out []float32) {
						r := rand.New(rand.NewPCG(18, uint64(n)))
						a := newTestAttention(r, c, typ, 1, []int{before}, []int{rows})
						ws, cache := a.ws, a.ws.segments[0].cache
						width := len(ws.qkv) / rows
						qkv := ws.qkv
						for at := 0; at < rows; at += piece {
							n := min(piece, rows-at)
							ws.segments = append(ws.segments[:0], segment{rows: company}, segment{cache: cache, rows: n})
							ws.qkv = append(randomValues(r, company*width), qkv[at*width:][:n*width]...)
							ws.mixed = make([]float32, (company+n)*c.Heads*c.HeadDim)
							ws.placeAll(company + n)
							ws.attendAll()
							ws.commit(company + n)
							cache.advance(n)
							out = append(out, ws.mixed[company*c.Heads*c.HeadDim:]...)
						}
						return out
					}
					if kernelName() == "generic" && before > 1010 { // as slow as it is simple
						continue
					}
					want := run(rows, 0)
					for _, piece := range []int{1, 5, 17} {
						if !sameBits(run(piece, piece%3), want) {
							t.Fatalf("case %d, %v after %d rows: other bits in pieces of %d", n, typ, before, piece)
						}
					}
				}
			}
		}
	})
}

// What is not finite in one row does not reach the rows before it, nor other texts.
func TestAttentionNotFinite(t *testing.T) {
	c := StackConfig{Heads: 2, KVHeads: 1, HeadDim: 8, Layers: 1, SlidingWindow: 6}
	eachKernel(t, func(t *testing.T) {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			const poisoned = 9 // of 20 rows; the last 5 are another text
			run := func(poison bool) *testAttention {
				a := newTestAttention(rand.New(rand.NewPCG(14, 0)), c, CacheF32, 1, []int{4, 0}, []int{15, 5})
				if poison {
					for i := range 2 {
						layer, _, slot := a.ws.home(&a.ws.rows[poisoned])
						rows := layer.half(i)
						rows.f32[rows.place(slot, 3, 8)] = bad
					}
				}
				a.ws.attendAll()
				return a
			}
			clean, dirty := run(false), run(true)
			for r := range 20 {
				same := sameBits(clean.ws.mixed[r*16:][:16], dirty.ws.mixed[r*16:][:16])
				if sees := r >= poisoned && r < poisoned+6; same == sees {
					t.Errorf("%g in row %d: row %d same is %v", bad, poisoned, r, same)
				}
			}
		}
	})
}

func TestAttentionAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("what the race detector is told of leaves the stack")
	}
	c := StackConfig{Heads: 4, KVHeads: 2, HeadDim: 24, Layers: 1}
	eachKernel(t, func(t *testing.T) {
		for _, typ := range cacheTypes {
			a := newTestAttention(rand.New(rand.NewPCG(15, 0)), c, typ, 2, []int{100, 3}, []int{30, 1})
			a.ws.crew.begin()
			if n := testing.AllocsPerRun(20, func() { a.ws.attendAll() }); n != 0 {
				t.Errorf("%v: %v allocations", typ, n)
			}
			a.ws.crew.end()
		}
	})
}
