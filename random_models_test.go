package photon

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// randomModel draws weights of a size at which every part of a model can be told from its absence.
func randomModel(t testing.TB, r *rand.Rand, c Config, opts ...LoadOption) (*Model, *reference) {
	t.Helper()
	files, f := randomFiles(t, r, c, dtypeF32)
	m, err := LoadFS(files, opts...)
	if err != nil {
		t.Fatalf("%v\n%s", err, files[configFile].Data)
	}
	return m, f
}

// specsOf lists every tensor that a checkpoint must hold.
func specsOf(c Config) []tensorSpec { return slices.Collect(c.tensors()) }

// randomFiles is randomModel's directory, with weights stored as F32, F16 or BF16.
func randomFiles(t testing.TB, r *rand.Rand, c Config, stored dtype) (fstest.MapFS, *reference) {
	t.Helper()
	f := &reference{c, map[string][]float32{}}
	data := safetensorsHeader(specsOf(c), stored)
	for spec := range c.tensors() {
		values := randomValues(r, int(spec.elements()))
		for i := range values {
			switch {
			case strings.HasSuffix(spec.name, "norm.weight"):
				values[i] = 1 + values[i]/4
			case len(spec.shape) == 2 && !strings.Contains(spec.name, "embed_tokens"):
				values[i] *= float32(0.9 / math.Sqrt(float64(spec.shape[1])))
			}
			switch stored {
			case dtypeF16:
				half := f32ToF16(values[i])
				values[i], data = f16ToF32(half), binary.LittleEndian.AppendUint16(data, half)
			case dtypeBF16:
				half := f32ToBF16(values[i])
				values[i], data = bf16ToF32(half), binary.LittleEndian.AppendUint16(data, half)
			default:
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(values[i]))
			}
		}
		f.w[spec.name] = values
	}
	text, err := c.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{configFile: {Data: text}, weightsFile: {Data: data}}, f
}

// randomConfig draws from all that the two formats and the flat models have, in small sizes.
func randomConfig(r *rand.Rand) Config {
	return drawConfig(r, func(least, most int) int { return least + r.IntN(most-least+1) })
}

// drawConfig is randomConfig with sizes, from least to about most, that size draws.
func drawConfig(r *rand.Rand, size func(least, most int) int) Config {
	coin := func() bool { return r.IntN(2) == 0 }
	theta := func() float64 { return []float64{0, 100, 10000}[r.IntN(3)] }
	stack := func(hidden int) StackConfig {
		s := StackConfig{HiddenSize: hidden, Layers: 1 + r.IntN(3), KVHeads: size(1, 2), HeadDim: size(1, 10),
			IntermediateSize: size(1, 24), RopeTheta: theta()}
		if s.RopeTheta > 0 {
			s.HeadDim += s.HeadDim % 2
		}
		s.Heads = s.KVHeads * size(1, 3)
		return s
	}
	// windows draws none, one or a list, none below least.
	windows := func(s *StackConfig, least int) {
		one := func() int { return least + size(0, 8) }
		switch r.IntN(3) {
		case 0:
			s.SlidingWindow = one()
		case 1:
			for range s.Layers {
				s.Windows = append(s.Windows, []int{0, one(), one()}[r.IntN(3)])
			}
		}
	}
	c := Config{VocabSize: size(20, 49), RMSNormEps: 1e-5, BOSTokenID: -1,
		TieWordEmbeddings: coin(), EmbeddingSize: size(4, 12)}
	levels := r.IntN(4)
	if levels == 0 {
		c.Transformer = stack(c.EmbeddingSize)
		c.ModelType = []string{"llama", "mistral", "ministral", "qwen2", "qwen3", "smollm3"}[r.IntN(6)]
		drawFlat(r, c.ModelType, &c.Transformer, size(1, 12))
		return c
	}
	c.ModelType, c.FormatVersion = "photon", 2
	if coin() {
		s := stack(c.EmbeddingSize)
		windows(&s, 1)
		c.TokenEncoder = &s
	}
	c.Content = []string{"", "embedding", "states", "states"}[r.IntN(4)]
	below := c.EmbeddingSize
	for i := range levels {
		l := LevelConfig{ChunkSize: size(1, 4), PrefixLength: size(0, 2), Chunker: "linear"}
		width := size(4, 15)
		if coin() {
			l.Chunker, width = "concat", below*l.ChunkSize
		}
		l.Encoder = stack(width)
		windows(&l.Encoder, 1)
		l.Decoder = stack(below)
		if i == 0 && c.Content != "states" {
			l.Decoder = stack(size(4, 15))
		}
		windows(&l.Decoder, l.PrefixLength+l.ChunkSize)
		for range r.IntN(3) {
			e := MemoryConfig{Level: i + r.IntN(levels-i+1), KVHeads: size(1, 2), HeadDim: size(1, 10),
				SlidingWindow: r.IntN(2) * size(1, 6), RopeTheta: theta()}
			if e.RopeTheta > 0 {
				e.HeadDim += e.HeadDim % 2
			}
			e.Heads, e.Unpack = e.KVHeads*size(1, 3), e.Level > i && coin()
			for n := range l.Decoder.Layers {
				if coin() || n == l.Decoder.Layers-1 && e.Layers == nil {
					e.Layers = append(e.Layers, n)
				}
			}
			l.Decoder.Memories = append(l.Decoder.Memories, e)
		}
		c.Levels = append(c.Levels, l)
		below = width
	}
	return c
}

// drawFlat draws what the layers of a kind may have.
func drawFlat(r *rand.Rand, kind string, s *StackConfig, window int) {
	coin := func() bool { return r.IntN(2) == 0 }
	if kind == "mistral" {
		s.SlidingWindow = window
	}
	if kind == "ministral" || kind != "llama" && kind != "mistral" && coin() {
		for range s.Layers {
			s.Windows = append(s.Windows, window*r.IntN(2))
		}
		if kind != "ministral" && slices.Max(s.Windows) == 0 {
			s.Windows = nil
		}
	}
	switch kind {
	case "qwen2":
		s.QKVBias = true
	case "llama", "qwen3", "smollm3":
		s.QKVBias = coin()
		s.OutBias = s.QKVBias
	}
	s.MLPBias = (kind == "llama" || kind == "smollm3") && coin()
	s.QKNorm = kind == "qwen3"
	for n := range s.Layers {
		if kind == "smollm3" && coin() {
			s.NoRope = append(s.NoRope, n)
		}
	}
	if s.RopeTheta == 0 {
		return
	}
	switch r.IntN(4) {
	case 0:
		s.RopeScaling = RopeScaling{Type: "linear", Factor: 1 + 3*r.Float64()}
	case 1:
		s.RopeScaling = RopeScaling{Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 16 + r.IntN(64)}
	case 2:
		s.RopeScaling = RopeScaling{Type: "factors"}
		for range s.HeadDim / 2 {
			s.RopeScaling.Factors = append(s.RopeScaling.Factors, 1+3*r.Float64())
		}
	}
}

// agrees holds the rows of one pass against the reference's.
func agrees(t *testing.T, c Config, pass, want []float32, tolerance float64) {
	t.Helper()
	near(t, "logits", pass, want, tolerance)
}

// Random models of every form: one pass agrees with the reference, and whatever way a text comes in, the bits are
// those of one pass.
func TestRandomModels(t *testing.T) {
	defer func(n int) { stepRows = n }(stepRows)
	models := 150
	if testing.Short() {
		models = 40
	}
	for seed := range models {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(77, uint64(seed)))
			c := randomConfig(r)
			stepRows = []int{3, 7, 256}[r.IntN(3)]
			text, err := c.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if parsed, err := parseConfig(text); err != nil || fmt.Sprint(specsOf(parsed)) != fmt.Sprint(specsOf(c)) {
				t.Fatalf("%s comes back as %+v, %v", text, parsed, err)
			}
			cache := cacheTypes[max(0, r.IntN(5)-2)]
			m, f := randomModel(t, r, c, WithThreads(1+r.IntN(2)), WithCache(cache))
			defer m.Close()
			ids := make([]int, 40+r.IntN(30))
			for i := range ids {
				ids[i] = r.IntN(c.VocabSize)
			}
			defer func() {
				if t.Failed() {
					t.Logf("steps of %d rows, %s", stepRows, text)
				}
			}()
			pass, err := m.Logits(background, ids)
			if err != nil {
				t.Fatal(err)
			}
			pass = referenceRows(m, pass)
			want := f.run(ids)
			largest := 0.0
			for _, v := range want {
				largest = max(largest, math.Abs(float64(v)))
			}
			if cache == CacheF32 {
				agrees(t, c, pass, want, agreement*largest)
			}
			checkWays(t, r, m, ids, pass)
		})
	}
}

// referenceRows are those of Logits that the reference computes: of the tokens after the first for a flat model, and of the text's for others.
func referenceRows(m *Model, pass []float32) []float32 {
	if m.cfg.Flat() {
		return pass[m.cfg.VocabSize:]
	}
	return pass[:len(pass)-m.cfg.VocabSize]
}

// Every kernel agrees with the reference, and with itself in pieces, whatever shapes a model has.
func TestRandomModelsOnKernels(t *testing.T) {
	for seed := range 12 {
		r := rand.New(rand.NewPCG(78, uint64(seed)))
		c := randomConfig(r)
		m, f := randomModel(t, r, c, WithThreads(2))
		ids := make([]int, 60)
		for i := range ids {
			ids[i] = r.IntN(c.VocabSize)
		}
		want := f.run(ids)
		largest := 0.0
		for _, v := range want {
			largest = max(largest, math.Abs(float64(v)))
		}
		eachKernel(t, func(t *testing.T) {
			m.empty = nil
			m.begin() // it was made with another kernel
			pass, err := m.Logits(background, ids)
			if err != nil {
				t.Fatal(err)
			}
			pass = referenceRows(m, pass)
			agrees(t, c, pass, want, agreement*largest)
			checkWays(t, r, m, ids, pass)
		})
	}
}

// checkWays holds the logits of a text that comes in every way against those of one pass, and its state against
// Config.StateBytes.
func checkWays(t *testing.T, r *rand.Rand, m *Model, ids []int, pass []float32) {
	t.Helper()
	vocab, shift := m.cfg.VocabSize, 0
	if m.cfg.Flat() {
		shift = 1
	}
	check := func(what string, s *Session) {
		t.Helper()
		if got, want := s.Stats().StateBytes, m.cfg.StateBytes(s.Len(), m.cacheType); got > want {
			t.Fatalf("%s, %d tokens: the state has %d bytes, want %d", what, s.Len(), got, want)
		}
		if row := s.Len() - shift; row >= 0 && row < len(ids) && !slices.Equal(s.Logits(), pass[row*vocab:][:vocab]) {
			near(t, fmt.Sprintf("%s, bits after %d tokens", what, s.Len()), s.Logits(), pass[row*vocab:][:vocab], 0)
		}
	}
	add := func(s *Session, n int) {
		t.Helper()
		if err := s.Append(background, ids[s.Len():min(s.Len()+n, len(ids))]...); err != nil {
			t.Fatal(err)
		}
	}
	steps := m.NewSession()
	for range ids {
		check("token by token", steps)
		if got, want := steps.Stats().StateBytes, m.cfg.StateBytes(steps.Len(), m.cacheType); got != want {
			t.Fatalf("%d tokens one by one: the state has %d bytes, want %d", steps.Len(), got, want)
		}
		add(steps, 1)
	}
	for range 4 { // ragged, through forks and snapshots
		s := m.NewSession()
		for s.Len() < len(ids) {
			check("pieces", s)
			switch r.IntN(4) {
			case 0:
				old := s
				s = s.Fork()
				add(old, 5) // goes its own way
			case 1:
				var b bytes.Buffer
				if _, err := s.WriteTo(&b); err != nil {
					t.Fatal(err)
				}
				read, err := m.ReadSession(&b)
				if err != nil {
					t.Fatal(err)
				}
				s = read
				check("snapshot", s)
			}
			add(s, []int{1, 2, 1 + r.IntN(9), len(ids)}[r.IntN(4)])
		}
		check("pieces", s)
	}
	// A batch of texts at different places.
	ws := m.acquire()
	defer m.release(ws)
	var seqs []*sequence
	for range 3 {
		seqs = append(seqs, m.newSequence())
	}
	for round := 0; seqs[0].n < len(ids) || seqs[1].n < len(ids) || seqs[2].n < len(ids); round++ {
		var now []*sequence
		var pieces [][]int
		var from []int
		for _, s := range seqs {
			if n := min(r.IntN(8), len(ids)-s.n); n > 0 {
				now, pieces, from = append(now, s), append(pieces, ids[s.n:s.n+n]), append(from, s.synced+1)
			}
		}
		if len(now) == 0 {
			continue
		}
		m.encode(ws, now, pieces)
		all := r.IntN(2) == 0
		out := m.follow(ws, now, all)
		width := m.decoders[0].width()
		logits := make([]float32, len(out)/width*vocab)
		m.head.mul(&ws.crew, &ws.mulTask, logits, out, len(out)/width)
		for i, s := range now {
			first := s.n
			if all {
				first = from[i]
			}
			for row := max(first-shift, 0); row <= s.n-shift; row++ {
				if row < len(ids) && !slices.Equal(logits[:vocab], pass[row*vocab:][:vocab]) {
					t.Fatalf("batch: other bits in row %d of a text of %d tokens", row, s.n)
				}
				logits = logits[vocab:]
			}
		}
	}
	for _, n := range []int{1, 3} {
		m.threads = n
		m.idle = nil
		got, err := m.Logits(background, ids)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "threads", referenceRows(m, got), pass, 0)
	}
}

// Units of every size, up to several steps of a stack: one pass, pieces and single tokens agree, in level 1 and above
// a stream.
func TestLongUnits(t *testing.T) {
	defer func(n int) { stepRows = n }(stepRows)
	stack := func(hidden, window int) StackConfig {
		return testStack(hidden, 1, 1, 1, 4, 4, window, 100)
	}
	model := func(t *testing.T, chunk, prefix int, above bool) {
		c := Config{ModelType: "photon", FormatVersion: 2, VocabSize: 11, EmbeddingSize: 3, RMSNormEps: 1e-5, BOSTokenID: -1}
		if above {
			c.Levels = append(c.Levels, LevelConfig{ChunkSize: 2, PrefixLength: 1, Chunker: "linear",
				Encoder: stack(4, 3), Decoder: stack(6, 4)})
		}
		c.Levels = append(c.Levels, LevelConfig{ChunkSize: chunk, PrefixLength: prefix, Chunker: "linear",
			Encoder: stack(4, 0), Decoder: stack(4, 0)})
		r := rand.New(rand.NewPCG(uint64(chunk), uint64(prefix)))
		m, _ := randomModel(t, r, c)
		ids := make([]int, (2*chunk+1+r.IntN(chunk))*m.cfg.MetaContext()/chunk)
		for i := range ids {
			ids[i] = r.IntN(c.VocabSize)
		}
		pass, err := m.Logits(background, ids)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range []int{1, chunk/2 + 1, chunk + 3, len(ids)} {
			s := m.NewSession()
			for s.Len() < len(ids) {
				if err := s.Append(background, ids[s.Len():min(s.Len()+piece, len(ids))]...); err != nil {
					t.Fatal(err)
				}
				if n := s.Len(); n < len(ids) && !slices.Equal(s.Logits(), pass[n*11:][:11]) {
					t.Fatalf("chunks of %d, prefix %d, pieces of %d, steps of %d: other bits after %d tokens",
						chunk, prefix, piece, stepRows, n)
				}
			}
		}
	}
	stepRows = 8
	for chunk := 1; chunk <= 40; chunk++ {
		for prefix := range 3 {
			model(t, chunk, prefix, false)
			model(t, chunk, prefix, true)
		}
	}
	stepRows = 256
	for _, chunk := range []int{255, 256, 257, 300, 513} {
		model(t, chunk, 1, false)
		model(t, chunk, 0, true)
	}
}

// RecGen names what it cannot run.
func TestRecGenRefusesFormat2(t *testing.T) {
	local := func(change func(c *Config)) Config {
		c := photonConfig()
		c.FormatVersion = 2
		c.Levels[0].Decoder.SlidingWindow = 0
		change(&c)
		return c
	}
	for says, c := range map[string]Config{
		"token_encoder": local(func(c *Config) {
			s := testStack(6, 1, 1, 1, 6, 8, 0, 0)
			c.TokenEncoder = &s
		}),
		`content "states"`:          local(func(c *Config) { c.Content, c.Levels[0].Decoder.HiddenSize = "states", 6 }),
		"levels[1].prefix_length 0": local(func(c *Config) { c.Levels[1].PrefixLength = 0 }),
		"levels[0].decoder.memories": local(func(c *Config) {
			c.Levels[0].Decoder.Memories = format2Config().Levels[0].Decoder.Memories[1:]
			c.Levels[0].Decoder.Memories[0].Layers = []int{0}
		}),
		"levels[0].encoder.sliding_window, a list": local(func(c *Config) {
			c.Levels[0].Encoder.SlidingWindow, c.Levels[0].Encoder.Windows = 0, []int{7, 0}
		}),
	} {
		m, _ := randomModel(t, rand.New(rand.NewPCG(1, 2)), c)
		checkRefused(t, m.NewSession(Mode(RecGen)).Append(background, 1), ErrUnsupported, says, "HierGen")
		if err := m.NewSession(Mode(HierGen)).Append(background, 1); err != nil {
			t.Error(err)
		}
	}
	m, _ := randomModel(t, rand.New(rand.NewPCG(1, 2)), local(func(c *Config) {}))
	if err := m.NewSession(Mode(RecGen)).Append(background, 1); err != nil {
		t.Errorf("format 2 that uses nothing of it: %v", err)
	}
}

// A memory of several blocks of positions, whose rows threads share: near the reference, and the same bits in every way.
func TestDeepMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("2,600 tokens, row by row")
	}
	decoder := testStack(12, 2, 2, 1, 4, 8, 8, 100)
	decoder.Memories = []MemoryConfig{
		{Level: 0, Layers: []int{0, 1}, Heads: 13, KVHeads: 1, HeadDim: 4, RopeTheta: 1000},
		{Level: 0, Layers: []int{1}, Heads: 2, KVHeads: 2, HeadDim: 6, SlidingWindow: 1500},
		{Level: 1, Layers: []int{1}, Heads: 2, KVHeads: 1, HeadDim: 6, Unpack: true},
	}
	c := Config{ModelType: "photon", FormatVersion: 2, VocabSize: 13, EmbeddingSize: 12, Content: "states", RMSNormEps: 1e-5, BOSTokenID: -1,
		Levels: []LevelConfig{{ChunkSize: 4, Chunker: "linear", Encoder: testStack(6, 1, 1, 1, 4, 8, 16, 100), Decoder: decoder}}}
	r := rand.New(rand.NewPCG(79, 0))
	m, f := randomModel(t, r, c, WithThreads(3))
	ids := make([]int, 2600)
	for i := range ids {
		ids[i] = r.IntN(c.VocabSize)
	}
	pass, err := m.Logits(background, ids)
	if err != nil {
		t.Fatal(err)
	}
	agrees(t, c, referenceRows(m, pass), f.run(ids), 1e-3) // of logits of up to 10
	for _, threads := range []int{1, 3} {
		m.threads, m.idle = threads, nil
		s := m.NewSession()
		for _, n := range []int{1000, 7, 17, 1, 1, 1000, 24, 1, 500, 48} { // 1,024 and 2,048 rows among them
			if err := s.Append(background, ids[s.Len():s.Len()+n]...); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Logits(), pass[s.Len()*13:][:13]) {
				t.Errorf("%d threads: other bits after %d tokens", threads, s.Len())
			}
		}
	}
}
