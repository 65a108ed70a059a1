package photon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/fstest"
	"time"

	"github.com/photon-lm/photon/internal/regular"
)

// zeroModel is a directory of weights that are all 0, and its size.
func zeroModel(t *testing.T, c Config) (fstest.MapFS, int) {
	t.Helper()
	text, err := c.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	data := safetensorsHeader(specsOf(c), dtypeF32)
	data = append(data, make([]byte, 4*c.Parameters())...)
	return fstest.MapFS{configFile: {Data: text}, weightsFile: {Data: data}}, len(data)
}

// narrow is a model of one level that is one wide, with what change makes of it.
func narrow(change func(c *Config, l *LevelConfig)) Config {
	one := testStack(1, 1, 1, 1, 1, 1, 0, 0)
	c := Config{ModelType: modelTypePhoton, FormatVersion: 2, VocabSize: 2, EmbeddingSize: 1, RMSNormEps: 1e-5, BOSTokenID: -1,
		Levels: []LevelConfig{{ChunkSize: 2, PrefixLength: 1, Chunker: chunkerLinear, Encoder: one, Decoder: one}}}
	change(&c, &c.Levels[0])
	return c
}

// TestHostileSizes: what is small on disk and large at work is refused at once, by the name of what makes it so.
func TestHostileSizes(t *testing.T) {
	tests := map[string]struct {
		c    Config
		says string
	}{
		"query heads": {narrow(func(c *Config, l *LevelConfig) { l.Decoder.Heads = 1 << 20 }),
			"levels[0].decoder.num_attention_heads"},
		"query heads of an encoder": {narrow(func(c *Config, l *LevelConfig) { l.Encoder.Heads = 1 << 20 }),
			"levels[0].encoder.num_attention_heads"},
		"query heads of a token encoder": {narrow(func(c *Config, l *LevelConfig) {
			s := testStack(1, 1, 1<<20, 1, 1, 1, 0, 0)
			c.TokenEncoder = &s
		}), "token_encoder.num_attention_heads"},
		"query heads of a memory": {narrow(func(c *Config, l *LevelConfig) {
			l.Decoder.Memories = []MemoryConfig{{Layers: []int{0}, Heads: 1 << 20, KVHeads: 1, HeadDim: 1}}
		}), "levels[0].decoder.memories[0].num_attention_heads"},
		"query heads of a flat model": {flat(2, testStack(1, 1, 1<<20, 1, 1, 1, 0, 0)), "num_attention_heads"},
		"one output of many inputs":   {flat(2, testStack(1, 1, 1, 1, 1, 1<<23, 0, 0)), "intermediate_size"},
		"outputs of a memory": {narrow(func(c *Config, l *LevelConfig) {
			l.Decoder.Memories = []MemoryConfig{{Layers: []int{0}, Heads: 1 << 21, KVHeads: 1 << 21, HeadDim: 1}}
		}), "levels[0].decoder.memories[0]."},
	}
	for _, n := range []int{1 << 17, 1 << 20} {
		tests[fmt.Sprint("prefix_length ", n)] = struct {
			c    Config
			says string
		}{narrow(func(c *Config, l *LevelConfig) { l.PrefixLength = n }), "levels[0].prefix_length"}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fsys, size := zeroModel(t, test.c)
			var err error
			begin := time.Now()
			took := allocated(func() { _, err = LoadFS(fsys) })
			checkRefused(t, err, ErrUnsupported, test.says, "make it smaller")
			if took > uint64(32<<20) {
				t.Errorf("%d bytes allocated for a file of %d", took, size)
			}
			if d := time.Since(begin); d > 500*time.Millisecond {
				slow(t, "refused after %v", d)
			}
		})
	}
}

// TestLargeSizes: what is large and can be run is run in bounded time and memory, and stops with its context.
func TestLargeSizes(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute under emulators")
	}
	for name, c := range map[string]Config{
		"prefix_length 2^16-1": narrow(func(c *Config, l *LevelConfig) { l.PrefixLength = 1<<16 - 1 }),
		"chunk_size 2^20":      narrow(func(c *Config, l *LevelConfig) { l.ChunkSize = 1 << 20 }),
		"vocab_size 2^24":      narrow(func(c *Config, l *LevelConfig) { c.VocabSize = 1 << 24 }),
		"chunk_size 2^20, added": narrow(func(c *Config, l *LevelConfig) {
			l.ChunkSize, l.PrefixLength, l.Decoder.SlidingWindow = 1<<20, 0, 1<<20
		}),
	} {
		t.Run(name, func(t *testing.T) {
			fsys, size := zeroModel(t, c)
			m, err := LoadFS(fsys)
			if err != nil {
				t.Fatal(err)
			}
			ids := make([]int, 1<<18)
			if c.VocabSize > 2 {
				ids = ids[:4]
				live := retained(func() { m.Score(background, ids) })
				if live > int64(8*size) {
					t.Errorf("Score leaves %d bytes of scratch for files of %d", live, size)
				}
			}
			ctx, cancel := context.WithTimeout(background, 50*time.Millisecond)
			defer cancel()
			begin := time.Now()
			s := m.NewSession()
			err = s.Append(ctx, ids...)
			if d := time.Since(begin); d > 500*time.Millisecond && err != nil {
				slow(t, "cancelled after %v: %v", d, err)
			}
			if err := s.Append(background, 0, 1); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRecGenBound: RecGen of meta-contexts whose state would be large is refused, HierGen goes on.
func TestRecGenBound(t *testing.T) {
	c := narrow(func(c *Config, l *LevelConfig) {
		c.FormatVersion, c.VocabSize, l.ChunkSize = 1, 300, 1<<10
		c.Levels = append(c.Levels, *l)
	})
	fsys, _ := zeroModel(t, c)
	m, err := LoadFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	checkRefused(t, m.NewSession(Mode(RecGen)).Append(background, 1), ErrUnsupported, "chunk_size", "HierGen")
	if err := m.NewSession().Append(background, 1); err != nil {
		t.Error(err)
	}
}

// TestMemoryLimit: the plan is the least limit that a model loads with, of every golden model in every form, and
// loading and a first call of a larger one stay within it.
func TestMemoryLimit(t *testing.T) {
	for _, g := range goldens(t) {
		for _, form := range []WeightType{AsStored, F32, BF16, Int8, Int4} {
			m, err := Load(g.dir, WithWeights(form), WithThreads(2))
			if err != nil {
				t.Fatal(err)
			}
			_, weights, err := inspect(regular.Dir(g.dir))
			if err != nil {
				t.Fatal(err)
			}
			plan := m.plan(weights)
			need := plan.memory()
			if err := loadError(g.dir, WithWeights(form), WithThreads(2), WithMemoryLimit(need)); err != nil {
				t.Errorf("%s: %v", g.dir, err)
			}
			err = loadError(g.dir, WithWeights(form), WithThreads(2), WithMemoryLimit(need-1))
			how := map[WeightType]string{AsStored: "as stored", F32: "f32", BF16: "bf16", Int8: "int8", Int4: "int4"}[form]
			checkRefused(t, err, ErrMemoryLimit, fmt.Sprint(need), "WithMemoryLimit", " held "+how+", ")
			held := int64(0)
			for _, w := range matrices(m) {
				held += int64(4*len(w.f32) + 2*len(w.bf16) + len(w.quant))
			}
			if held > plan.weights || held < plan.weights/2 {
				t.Errorf("%s: the matrices take %d bytes, the plan says %d of weights", g.dir, held, plan.weights)
			}
		}
	}
}

// matrices are all of a model's.
func matrices(m *Model) []*matrix {
	list := []*matrix{m.head}
	add := func(s *stack) {
		if s == nil {
			return
		}
		for i := range s.layers {
			y := &s.layers[i]
			list = append(list, y.qkv, y.out, y.gateUp, y.down)
			for _, e := range y.memories {
				list = append(list, e.query, e.out)
			}
		}
		for _, y := range s.memories {
			list = append(list, y.kv)
			if y.unpack != nil {
				list = append(list, y.unpack)
			}
		}
	}
	add(m.tokenEncoder)
	for _, e := range m.encoders {
		add(e.stack)
		if e.proj != nil {
			list = append(list, e.proj)
		}
	}
	for _, d := range m.decoders {
		add(d.stack)
		if d.converter != nil {
			list = append(list, d.converter)
		}
	}
	return list
}

// TestPeakMemory: all that loading and the first call allocate, garbage included, is within the plan.
func TestPeakMemory(t *testing.T) {
	wide := testStack(256, 6, 4, 2, 64, 1024, 0, 10000)
	for name, c := range map[string]Config{
		"flat": flat(2000, wide),
		"a level": narrow(func(c *Config, l *LevelConfig) {
			c.VocabSize, c.EmbeddingSize = 2000, 64
			l.ChunkSize, l.PrefixLength, l.Encoder, l.Decoder = 4, 2, wide, wide
			l.Decoder.Memories = []MemoryConfig{{Level: 1, Layers: []int{0, 3}, Heads: 4, KVHeads: 2, HeadDim: 64}}
		}),
	} {
		for _, form := range []WeightType{AsStored, Int4} {
			fsys, _ := zeroModel(t, c)
			_, weights, err := inspect(fsys)
			if err != nil {
				t.Fatal(err)
			}
			var m *Model
			text := make([]int, 256)
			for i := range text {
				text[i] = rand.IntN(c.VocabSize)
			}
			live := retained(func() {
				if m, err = LoadFS(fsys, WithWeights(form), WithThreads(2)); err != nil {
					t.Fatal(err)
				}
				s := m.NewSession()
				if err := s.Append(background, text...); err != nil {
					t.Fatal(err)
				}
				runtime.KeepAlive(s)
			})
			plan := m.plan(weights)
			state := 2 * m.cfg.StateBytes(len(text), CacheF32)
			t.Logf("%s, %v: plan %d (weights %d, reading %d, scratch %d, state %d), live %d", name, form, plan.memory(),
				plan.weights, plan.reading, plan.scratch(), plan.state, live)
			if live > (plan.memory()+state)*11/10 {
				t.Errorf("%s, %v: %d bytes stay, the plan says %d", name, form, live, plan.memory())
			}
			if live < plan.weights {
				t.Errorf("%s, %v: %d bytes stay, the weights alone are %d", name, form, live, plan.weights)
			}
			runtime.KeepAlive(m)
		}
	}
}

// A limit that a plan cannot be held against is refused.
func TestMemoryLimitInvalid(t *testing.T) {
	if err := loadError(goldens(t)[0].dir, WithMemoryLimit(-1)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
