package photon

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"
)

var cacheTypes = []CacheType{CacheF32, CacheF16, CacheInt8}

// newTestRows stores x [rows × dim] as one head.
func newTestRows(t CacheType, x []float32, dim int) *kvRows {
	r := new(kvRows)
	r.resize(t, 1, len(x)/dim, dim)
	for i := range len(x) / dim {
		r.set(t, i, x[i*dim:][:dim])
	}
	return r
}

// value is element d of row j, without the row's scale.
func (r *kvRows) value(t CacheType, j, d, dim int) float64 {
	switch t {
	case CacheF16:
		return float64(f16ToF32(r.f16[j*dim+d]))
	case CacheInt8:
		return float64(r.i8[j*dim+d])
	}
	return float64(r.f32[j*dim+d])
}

func scoreForm(t CacheType, dst []float32, stride int, q []float32, k *kvRows, dim int) {
	switch t {
	case CacheF32:
		scoreF32(dst, stride, q, k.f32, dim)
	case CacheF16:
		scoreF16(dst, stride, q, k.f16, dim)
	case CacheInt8:
		scoreInt8(dst, stride, q, k.i8, dim)
	}
}

func mixForm(t CacheType, dst, p []float32, stride int, v *kvRows, dim int) {
	switch t {
	case CacheF32:
		mixF32(dst, p, stride, v.f32, dim)
	case CacheF16:
		mixF16(dst, p, stride, v.f16, dim)
	case CacheInt8:
		mixInt8(dst, p, stride, v.i8, dim)
	}
}

// attentionShapes are queries, keys, dim: every small number of each, and every length up to 513 (in short tests one in five).
func attentionShapes() (list [][3]int) {
	step := 1
	if testing.Short() {
		step = 5
	}
	for dim := 1; dim <= 140; dim++ {
		list = append(list, [3]int{1 + dim%13, 1 + dim%9, dim})
	}
	for queries := 1; queries <= 13; queries++ {
		for keys := 1; keys <= 9; keys++ {
			list = append(list, [3]int{queries, keys, 4 * (1 + (queries+keys)%20)})
		}
	}
	for n := 1; n <= 513; n += step {
		list = append(list, [3]int{1 + n%3, n, 8 * (1 + n%2)}, [3]int{1 + n%4, 1 + n%5, n})
	}
	return list
}

// Scores and sums against float64, for all shapes; what lies around the results stays as it was; and a query's bits are those that
// it has alone, a key's those that it has alone, and sums may stop anywhere and go on.
func TestAttentionKernels(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for _, form := range cacheTypes {
			r := rand.New(rand.NewPCG(11, uint64(form)))
			for _, s := range attentionShapes() {
				queries, keys, dim := s[0], s[1], s[2]
				what := fmt.Sprintf("%v: %d queries, %d keys of %d", form, queries, keys, dim)
				q := randomValues(r, queries*dim)
				k := newTestRows(form, randomValues(r, keys*dim), dim)
				stride := keys + r.IntN(20)
				scores := randomValues(r, (queries-1)*stride+keys+1)
				before := append([]float32(nil), scores...)
				scoreForm(form, scores, stride, q, k, dim)
				for i := range scores {
					if i%stride < keys && i/stride < queries {
						checkDot(t, what, scores[i], dim, func(d int) (a, b float64) {
							return float64(q[i/stride*dim+d]), k.value(form, i%stride, d, dim)
						})
					} else if scores[i] != before[i] {
						t.Fatalf("%s: writes outside its rows", what)
					}
				}
				alone := make([]float32, keys)
				i, j := r.IntN(queries), r.IntN(keys)
				scoreForm(form, alone, keys, q[i*dim:][:dim], k, dim)
				if !sameBits(alone, scores[i*stride:][:keys]) {
					t.Fatalf("%s: query %d has other scores alone", what, i)
				}
				scoreForm(form, alone, keys, q[i*dim:][:dim], k.slice(form, j, 1, dim), dim)
				if !sameBits(alone[:1], scores[i*stride+j:][:1]) {
					t.Fatalf("%s: key %d has another score alone", what, j)
				}

				out := randomValues(r, queries*dim+1)
				first := append([]float32(nil), out...)
				mixForm(form, out[:queries*dim], scores, stride, k, dim)
				for n := range queries * dim {
					checkDot(t, what, out[n], keys+1, func(j int) (a, b float64) {
						if j == keys {
							return 1, float64(first[n])
						}
						return float64(scores[n/dim*stride+j]), k.value(form, j, n%dim, dim)
					})
				}
				if out[queries*dim] != first[queries*dim] {
					t.Fatalf("%s: writes behind its sums", what)
				}
				part := first[i*dim:][:dim]
				mixForm(form, part, scores[i*stride:], stride, k.slice(form, 0, j, dim), dim)
				mixForm(form, part, scores[i*stride+j:], stride, k.slice(form, j, keys-j, dim), dim)
				if !sameBits(part, out[i*dim:][:dim]) {
					t.Fatalf("%s: query %d has another sum alone and in two parts", what, i)
				}
			}
		}
	})
}

// slice is rows at … at+n-1.
func (r *kvRows) slice(t CacheType, at, n, dim int) *kvRows {
	var s kvRows
	switch t {
	case CacheF32:
		s.f32 = r.f32[at*dim:][:n*dim]
	case CacheF16:
		s.f16 = r.f16[at*dim:][:n*dim]
	case CacheInt8:
		s.i8 = r.i8[at*dim:][:n*dim]
	}
	return &s
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
	const queries, keys, dim = 5, 7, 52
	eachKernel(t, func(t *testing.T) {
		for _, form := range cacheTypes {
			r := rand.New(rand.NewPCG(12, uint64(form)))
			q, k := randomValues(r, queries*dim), newTestRows(form, randomValues(r, keys*dim), dim)
			wantScores, wantOut := make([]float32, queries*keys), make([]float32, queries*dim)
			scoreForm(form, wantScores, keys, q, k, dim)
			mixForm(form, wantOut, wantScores, keys, k, dim)
			for shift := range 64 {
				m := &kvRows{f32: moved(k.f32, shift%16), f16: moved(k.f16, shift%32), i8: moved(k.i8, shift)}
				scores, out := moved(make([]float32, queries*keys), 15-shift%16), moved(make([]float32, queries*dim), shift*7%16)
				scoreForm(form, scores, keys, moved(q, shift%16), m, dim)
				mixForm(form, out, scores, keys, m, dim)
				if !sameBits(scores, wantScores) || !sameBits(out, wantOut) {
					t.Fatalf("%v: another result when slices begin %d bytes later", form, shift)
				}
			}
		}
	})
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
	ws.place(s, total)
	keepRows(ws, 0, total)
	return &testAttention{ws, total}
}

// feed appends n random rows to a cache.
func feed(r *rand.Rand, c *kvCache, n int) {
	const most = 512
	values := randomValues(r, most*c.headDim+1000)
	for n > 0 {
		rows := min(n, most)
		var fresh kvLayer
		for _, kv := range []*kvRows{&fresh.k, &fresh.v} {
			kv.resize(c.typ, c.heads, rows, c.headDim)
			for h := range c.heads {
				from := values[r.IntN(1000):]
				for i := range rows {
					kv.set(c.typ, h*rows+i, from[i*c.headDim:][:c.headDim])
				}
			}
		}
		c.reserve(rows)
		for l := range c.layers {
			for h := range c.heads {
				c.commit(l, h, &fresh, rows, 0, rows)
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
		first = p.cache.first
	}
	if c.SlidingWindow > 0 {
		first = max(first, p.position+1-c.SlidingWindow)
	}
	out := make([]float64, dim)
	var scores []float64
	top := math.Inf(-1)
	row := func(i int) (k, v *kvRows, at int) {
		if i < begin {
			return &p.cache.layers[0].k, &p.cache.layers[0].v, h*p.cache.capacity + i%p.cache.capacity
		}
		return &ws.fresh.k, &ws.fresh.v, h*a.rows + p.start + i - begin
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
			s += float64(ws.qkv[(r*(c.Heads+2*c.KVHeads)+g)*dim+d]) * k.value(ws.cacheType, at, d, dim)
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
			out[d] += e * scaleOf(v, at) * v.value(ws.cacheType, at, d, dim)
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
		{StackConfig{Heads: 12, KVHeads: 1, HeadDim: 16, Layers: 1}, []int{70}, []int{1}}, // threads share the heads of one key
	}
	eachKernel(t, func(t *testing.T) {
		for n, test := range cases {
			for _, typ := range cacheTypes {
				var first []float32
				for workers := 1; workers <= 3; workers++ {
					a := newTestAttention(rand.New(rand.NewPCG(13, uint64(n))), test.c, typ, workers, test.before, test.rows)
					a.ws.crew.begin()
					a.ws.attend(0, a.rows)
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
	f.Add(uint64(1), uint8(2), uint8(3), uint8(16), uint8(0), uint16(1030), uint8(1), uint8(1))
	f.Add(uint64(2), uint8(1), uint8(8), uint8(64), uint8(9), uint16(40), uint8(14), uint8(2))
	f.Fuzz(func(t *testing.T, seed uint64, kvHeads, group, dim, window uint8, before uint16, rows, form uint8) {
		c := StackConfig{KVHeads: 1 + int(kvHeads)%4, HeadDim: 2 + 2*int(dim)%130, Layers: 1, SlidingWindow: int(window)}
		c.Heads = c.KVHeads * (1 + int(group)%13)
		for _, tier := range kernelTiers() {
			withKernel(t, tier)
			a := newTestAttention(rand.New(rand.NewPCG(19, seed)), c, cacheTypes[int(form)%len(cacheTypes)], 2, []int{int(before) % 2100}, []int{1 + int(rows)%15})
			a.ws.attend(0, a.rows)
			r, g := int(seed%uint64(a.rows)), int(seed/64%uint64(c.Heads))
			for d, want := range a.want(r, g) {
				if got := a.ws.mixed[(r*c.Heads+g)*c.HeadDim+d]; !(math.Abs(float64(got)-want) <= 2e-5) {
					t.Fatalf("%s: row %d head %d element %d is %g, want %g", tier, r, g, d, got, want)
				}
			}
		}
	})
}

// The kernels of both machines give the same bits: these, but for the generic ones.
func TestAttentionBits(t *testing.T) {
	want := map[CacheType]uint64{CacheF32: 0x41aa105052b5a81a, CacheF16: 0x6cc091fda74718fe, CacheInt8: 0x12253c5f732ad159}
	eachKernel(t, func(t *testing.T) {
		if kernelName() == "generic" {
			return
		}
		for typ, want := range want {
			r := rand.New(rand.NewPCG(17, uint64(typ)))
			sum := fnv.New64a()
			for dim := 4; dim <= 132; dim += 4 {
				const queries, keys = 11, 21
				values := make([]float32, (queries+keys)*dim)
				for i := range values {
					values[i] = r.Float32() - 0.5
				}
				k := newTestRows(typ, values[queries*dim:], dim)
				scores, out := make([]float32, queries*keys), make([]float32, queries*dim)
				scoreForm(typ, scores, keys, values[:queries*dim], k, dim)
				mixForm(typ, out, scores, keys, k, dim)
				for _, v := range append(scores, out...) {
					binary.Write(sum, binary.LittleEndian, v)
				}
			}
			if got := sum.Sum64(); got != want {
				t.Errorf("%v: %#x, want %#x", typ, got, want)
			}
		}
	})
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
							ws.segments = append(ws.segments[:0], segment{nil, company}, segment{cache, n})
							ws.qkv = append(randomValues(r, company*width), qkv[at*width:][:n*width]...)
							ws.mixed = make([]float32, (company+n)*c.Heads*c.HeadDim)
							ws.place(ws.stack, company+n)
							keepRows(ws, 0, company+n)
							ws.attend(0, company+n)
							cache.reserve(n)
							for h := range cache.heads {
								cache.commit(0, h, &ws.fresh, company+n, company, n)
							}
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
					a.ws.fresh.k.f32[poisoned*8+3] = bad
					a.ws.fresh.v.f32[poisoned*8+3] = bad
				}
				a.ws.attend(0, a.rows)
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
	c := StackConfig{Heads: 4, KVHeads: 2, HeadDim: 24, Layers: 1}
	eachKernel(t, func(t *testing.T) {
		for _, typ := range cacheTypes {
			a := newTestAttention(rand.New(rand.NewPCG(15, 0)), c, typ, 2, []int{100, 3}, []int{30, 1})
			a.ws.crew.begin()
			if n := testing.AllocsPerRun(20, func() { a.ws.attend(0, a.rows) }); n != 0 {
				t.Errorf("%v: %v allocations", typ, n)
			}
			a.ws.crew.end()
		}
	})
}
