package photon

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// Benchmarks are named KIND/FORM/SHAPE/TIER and run on GOMAXPROCS threads: GOMAXPROCS=1 go test -bench . -cpu 1 (with -cpu alone
// the first figure is taken before the flag has its effect, since b.Loop runs only once). The best tier does every
// shape, the lower ones a few.
//
// A multiplication and an addition count as two FLOP, those of integers too. What a benchmark reaches is set beside what the machine
// gives as many threads: of-FMA-peak is its share of the rate of float32 multiply-adds (fmaPeak), which integer and bfloat16
// instructions exceed where the processor has them; of-bandwidth its share of the rate at which as many bytes as it reads can be
// read over and over (readBandwidth), so that of the level of memory in which they stay.

const (
	beyondCaches = 128 << 20             // bytes
	limitTime    = 20 * time.Millisecond // for which a limit of the machine is measured
)

// readBandwidth is the best rate, in bytes a second, at which the workers of c together read size bytes that they have read before. The reader
// is bytes.Equal, of two halves that are: the standard library has it in assembly, and it does nothing else.
func readBandwidth(c *crew, size int) float64 {
	if readBuffer == nil {
		readBuffer = bytes.Repeat([]byte{1}, beyondCaches) // written, or else it could be one page many times
	}
	share := min(size, beyondCaches) / c.workers
	t := readTask{times: 1 + 1<<18/share}
	for i := range c.workers {
		t.shares = append(t.shares, readBuffer[i*share:][:share])
	}
	best := 0.0
	c.run(&t, c.workers)
	for begin := time.Now(); time.Since(begin) < limitTime; {
		start := time.Now()
		c.run(&t, c.workers)
		best = max(best, float64(c.workers*t.times*share)/time.Since(start).Seconds())
	}
	return best
}

var readBuffer []byte

type readTask struct {
	shares [][]byte
	times  int
}

func (t *readTask) part(i int) {
	s := t.shares[i]
	for range t.times {
		if half := len(s) / 2; !bytes.Equal(s[:half], s[half:2*half]) {
			panic("photon: equal halves differ")
		}
	}
}

// fmaPeak is the sum of the best rates, in FLOP a second, that the workers of c have at the best f32 kernel's block with everything in the first-level
// cache, which it multiplies from registers: next to nothing but multiply-adds. bench/peak.c has no load at all.
func fmaPeak(c *crew) float64 {
	if peaks[c.workers] == 0 {
		tier := currentKernel
		setKernel("")
		defer setKernel(tier)
		t := blockTask{rows: 12, k: 192}
		t.w = make([]float32, t.k*panelWidth)
		for range c.workers {
			t.x = append(t.x, make([]float32, t.rows*t.k))
			t.dst = append(t.dst, make([]float32, t.rows*panelWidth))
			t.best = append(t.best, 0)
		}
		for begin := time.Now(); time.Since(begin) < 5*limitTime; {
			c.run(&t, c.workers)
		}
		for _, rate := range t.best {
			peaks[c.workers] += rate
		}
	}
	return peaks[c.workers]
}

var peaks = map[int]float64{} // by workers

type blockTask struct {
	rows, k int
	w       []float32
	x, dst  [][]float32 // of each part
	best    []float64
}

func (t *blockTask) part(i int) {
	const times = 200
	begin := time.Now()
	for range times {
		mulBlockF32(t.dst[i], panelWidth, t.x[i], t.k, t.rows, t.w, false)
	}
	t.best[i] = max(t.best[i], 2*float64(times*t.rows*t.k*panelWidth)/time.Since(begin).Seconds())
}

// measure runs step over and over and reports what it has reached: flop is the work of one, size the bytes that it reads, all its
// bytes when it goes through more of them than stay in the caches. The bandwidth is measured before and after, for it changes.
func measure(b *testing.B, c *crew, flop float64, size int64, all int, step func()) {
	var bandwidth float64
	if size > 0 {
		bandwidth = readBandwidth(c, all)
	}
	for b.Loop() {
		step()
	}
	perSecond := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(flop*perSecond/1e9, "GFLOP/s")
	b.ReportMetric(flop*perSecond/fmaPeak(c), "of-FMA-peak")
	if size > 0 {
		bandwidth = (bandwidth + readBandwidth(c, all)) / 2
		b.ReportMetric(float64(size)*perSecond/bandwidth, "of-bandwidth")
	}
}

// onTiers runs f for the best tier, and for the others too if the shape is one of theirs.
func onTiers(b *testing.B, lower bool, f func(b *testing.B, c *crew)) {
	tiers := kernelTiers()
	if !lower {
		tiers = tiers[:1]
	}
	for _, tier := range tiers {
		b.Run(tier, func(b *testing.B) {
			withKernel(b, tier)
			c := newTestCrew(runtime.GOMAXPROCS(0))
			c.begin()
			defer c.end()
			f(b, c)
		})
	}
}

// newBenchMatrix is a matrix of random weights; its panels are alike.
func newBenchMatrix(out, in int, form WeightType) *matrix {
	w := newMatrix(out, in, form)
	w.setRows(0, randomValues(rand.New(rand.NewPCG(9, uint64(form))), panelWidth*in))
	repeat(w.f32, w.panels())
	repeat(w.bf16, w.panels())
	repeat(w.quant, w.panels())
	return w
}

// repeat copies the first n-th of s to the others.
func repeat[T any](s []T, n int) {
	for first := s[:len(s)/n]; len(s) > 0; s = s[len(first):] {
		copy(s, first)
	}
}

func benchmarkProduct(b *testing.B, w *matrix, rows int, lower bool) {
	x, dst := randomValues(rand.New(rand.NewPCG(10, 0)), rows*w.in), make([]float32, rows*w.out)
	onTiers(b, lower, func(b *testing.B, c *crew) {
		var task mulTask
		w.mul(c, &task, dst, x, rows)
		b.SetBytes(w.bytes())
		size := w.bytes()
		if rows > 1 {
			size = 0 // the weights are read more than once, or are not the limit
		}
		measure(b, c, 2*float64(rows)*float64(w.in)*float64(w.out), size, int(w.bytes()), func() { w.mul(c, &task, dst, x, rows) })
	})
}

// BenchmarkMatvec/FORM/INPUTSxOUTPUTS/TIER: one row; the last shape of a form is beyond the caches. Bytes are those of the weights.
func BenchmarkMatvec(b *testing.B) {
	beyond := map[WeightType]int{F32: 8192, BF16: 16384, bf16Rounded: 16384, Int8: 32768, Int4: 65536}
	for _, form := range matrixForms {
		b.Run(form.String(), func(b *testing.B) {
			for _, s := range [][2]int{{256, 1024}, {1024, 1024}, {2048, 2048}, {4096, 4096}, {4096, beyond[form]}} {
				in, out := s[0], s[1]
				b.Run(fmt.Sprintf("%dx%d", in, out), func(b *testing.B) {
					if testing.Short() && in*out > 1<<22 {
						b.Skip("large, and -short")
					}
					benchmarkProduct(b, newBenchMatrix(out, in, form), 1, in == 1024)
				})
			}
		})
	}
}

// BenchmarkMatmul/FORM/ROWSxOUTPUTSxINPUTS/TIER: thin products and square ones. Bytes are those of the weights.
func BenchmarkMatmul(b *testing.B) {
	for _, form := range matrixForms {
		var shapes [][2]int // rows, inputs and outputs
		for _, side := range []int{1024, 2048, 4096} {
			for rows := 2; rows <= 64 && (side == 1024 || form == F32); rows *= 2 {
				shapes = append(shapes, [2]int{rows, side})
			}
		}
		shapes = append(shapes, [2]int{512, 512}, [2]int{1024, 1024})
		if form == F32 {
			shapes = append(shapes, [2]int{2048, 2048})
		}
		b.Run(form.String(), func(b *testing.B) {
			for _, s := range shapes {
				rows, side := s[0], s[1]
				b.Run(fmt.Sprintf("%dx%dx%d", rows, side, side), func(b *testing.B) {
					if testing.Short() && (side > 2048 || rows > 512) {
						b.Skip("large, and -short")
					}
					benchmarkProduct(b, newBenchMatrix(side, side, form), rows, rows == 8 && side == 1024 || rows == 512)
				})
			}
		})
	}
}

// BenchmarkAttention/decode/FORM/ROWSxHEADSxDIM/TIER: one row that sees ROWS, the layers in turn; HEADS is 8k2 for eight of queries
// over two of keys. Bytes are those of the keys and values.
// BenchmarkAttention/prefill/…: the last 256 of ROWS.
func BenchmarkAttention(b *testing.B) {
	for _, kind := range []struct {
		name  string
		fresh int
		rows  []int
	}{{"decode", 1, []int{512, 8192}}, {"prefill", 256, []int{512, 4096}}} {
		for _, form := range []CacheType{CacheF32, CacheF16, CacheInt8} {
			for _, rows := range kind.rows {
				for _, c := range []StackConfig{
					{Heads: 6, KVHeads: 6, HeadDim: 64, Layers: 1},
					{Heads: 8, KVHeads: 2, HeadDim: 128, Layers: 1},
					{Heads: 8, KVHeads: 1, HeadDim: 64, Layers: 1},
				} {
					heads := fmt.Sprint(c.Heads)
					if c.KVHeads < c.Heads {
						heads = fmt.Sprintf("%dk%d", c.Heads, c.KVHeads)
					}
					b.Run(fmt.Sprintf("%s/%v/%dx%sx%d", kind.name, form, rows, heads, c.HeadDim), func(b *testing.B) {
						size := int64(rows) * 2 * int64(c.KVHeads) * form.headBytes(c.HeadDim)
						if testing.Short() && rows > 512 {
							b.Skip("large, and -short")
						}
						if rows == 8192 {
							c.Layers = int(beyondCaches / size)
						}
						benchmarkAttention(b, c, form, rows-kind.fresh, kind.fresh, size)
					})
				}
			}
		}
	}
}

// benchmarkAttention is of fresh rows after old ones, all of one text; size is the keys and values that they see in a layer.
func benchmarkAttention(b *testing.B, cfg StackConfig, form CacheType, old, fresh int, size int64) {
	ws := &workspace{cacheType: form}
	s, cache := newStack(cfg, 1e-5), newKVCache(form, cfg)
	ws.stack, ws.shape = s, &s.shape
	step := func(rows int) {
		ws.segments = []segment{{cache: cache, rows: rows}}
		ws.qkv = randomValues(rand.New(rand.NewPCG(11, 0)), rows*(cfg.Heads+2*cfg.KVHeads)*cfg.HeadDim)
		ws.mixed = grow(ws.mixed, rows*cfg.Heads*cfg.HeadDim)
		ws.place(0, cfg.SlidingWindow, rows)
		ws.cos, ws.sin = ws.turns(&s.shape, ws.rows, ws.cos, ws.sin)
		for ws.layer = range cfg.Layers {
			keepRows(ws, 0, rows)
		}
	}
	for n := old; n > 0; n -= min(n, 256) {
		rows := min(n, 256)
		step(rows)
		cache.advance(rows)
	}
	step(fresh)
	sees := fresh*old + fresh*(fresh+1)/2 // (row, position) pairs
	onTiers(b, old+fresh == 8192, func(b *testing.B, c *crew) {
		ws.crew.init(c.workers)
		ws.crew.begin()
		defer ws.crew.end()
		ws.attend(ws.shape, ws.rows, ws.layer, ws.shape.qkvWidth(), false)
		if fresh == 1 {
			b.SetBytes(size)
		} else {
			size = 0
		}
		measure(b, c, 4*float64(sees)*float64(cfg.Heads*cfg.HeadDim), size, int(size)*cfg.Layers, func() {
			ws.layer = (ws.layer + 1) % cfg.Layers
			ws.attend(ws.shape, ws.rows, ws.layer, ws.shape.qkvWidth(), false)
		})
	})
}

// benchmarkStories runs f for the embedded model in every form, on every tier; tokens is what an iteration takes or makes.
func benchmarkStories(b *testing.B, tokens int, f func(b *testing.B, m *Model)) {
	for _, form := range []WeightType{AsStored, F32, BF16, Int8, Int4} {
		b.Run(fmt.Sprintf("%v/%d", form, tokens), func(b *testing.B) {
			m := stories(b, WithWeights(form), WithThreads(runtime.GOMAXPROCS(0)))
			for _, tier := range kernelTiers() {
				b.Run(tier, func(b *testing.B) {
					withKernel(b, tier)
					f(b, m)
					b.ReportMetric(float64(tokens*b.N)/b.Elapsed().Seconds(), "tok/s")
				})
			}
		})
	}
}

// randomText is the beginning of one and the same text of random tokens.
func randomText(m *Model, tokens int) []int {
	ids, r := make([]int, tokens), rand.New(rand.NewPCG(12, 0))
	for i := range ids {
		ids[i] = r.IntN(m.cfg.VocabSize)
	}
	return ids
}

// BenchmarkPrefill/FORM/TOKENS/TIER appends a prompt to an empty text.
func BenchmarkPrefill(b *testing.B) {
	benchmarkStories(b, 512, func(b *testing.B, m *Model) {
		ids := randomText(m, 512)
		for b.Loop() {
			if err := m.NewSession().Append(background, ids...); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDecode/FORM/TOKENS/TIER continues a text of 512 tokens, or up to its end.
func BenchmarkDecode(b *testing.B) {
	benchmarkStories(b, 64, func(b *testing.B, m *Model) {
		prompt := m.NewSession(Temperature(0))
		if err := prompt.Append(background, randomText(m, 512)...); err != nil {
			b.Fatal(err)
		}
		ws := m.acquire()
		defer m.release(ws)
		for b.Loop() {
			b.StopTimer()
			r, err := prompt.Fork().stream(nil, false)
			if err != nil {
				b.Fatal(err)
			}
			r.begin()
			b.StartTimer()
			for range 64 {
				if _, err := r.next(background, ws); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkBatch/TEXTS decodes many texts together behind 256 tokens each.
func BenchmarkBatch(b *testing.B) {
	m := stories(b, WithWeights(Int8), WithCache(CacheF16), WithThreads(2))
	for _, texts := range []int{1, 8, 32, 128} {
		b.Run(fmt.Sprint(texts), func(b *testing.B) {
			prompt := m.NewSession(Temperature(0), MaxTokens(64), LogitBias(map[int]float32{m.cfg.EOSTokenIDs[0]: negInf}))
			if err := prompt.Append(background, randomText(m, 256)...); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				b.StopTimer()
				requests := make([]Request, texts)
				for i := range requests {
					requests[i].Session = prompt.Fork()
				}
				b.StartTimer()
				for _, err := range m.GenerateBatch(background, requests) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(64*texts*b.N)/b.Elapsed().Seconds(), "tok/s")
		})
	}
}
