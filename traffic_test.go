package photon

import (
	"math"
	"strings"
	"testing"
)

// TestTraffic holds what a text reads and stores, token by token, against the definition of the model: what each part
// of it runs for a meta-context, and which rows those see.
func TestTraffic(t *testing.T) {
	for _, cache := range []CacheType{CacheF32, CacheInt8} {
		eachGolden(t, func(t *testing.T, g golden, m *Model) {
			s := m.NewSession()
			next := func() {
				t.Helper()
				if err := s.Append(background, g.ids[s.Len()%len(g.ids)]); err != nil {
					t.Fatal(err)
				}
			}
			round := m.Config().MetaContext()
			for range 2 { // after which every row has the company that it has from then on
				for range round {
					next()
				}
			}
			for range 4 {
				before, from := s.Stats(), s.Len()
				for range round * max(1, 24/round) {
					next()
				}
				after := s.Stats()
				read, written := traffic(m.Config(), cache, from, s.Len())
				if got := after.KVReadBytes - before.KVReadBytes; got != read {
					t.Errorf("tokens %d … %d read %d bytes of keys and values, want %d", from, s.Len()-1, got, read)
				}
				if got := after.KVWriteBytes - before.KVWriteBytes; got != written {
					t.Errorf("tokens %d … %d store %d bytes of keys and values, want %d", from, s.Len()-1, got, written)
				}
				if got, want := after.WeightReadBytes-before.WeightReadBytes, weightReads(m, s.Len()-from); got != want {
					t.Errorf("tokens %d … %d read %d bytes of weights, want %d", from, s.Len()-1, got, want)
				}
			}
		}, WithCache(cache))
	}
}

// Texts that go on together read the weights once.
func TestTrafficTogether(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		round := m.Config().MetaContext()
		var requests []Request
		for i := range 3 {
			s := m.NewSession(Temperature(0), LogitBias(forbidEnds(m)))
			if err := s.Append(background, g.ids[:2*round]...); err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				s = requests[0].Session.Fork()
			}
			requests = append(requests, Request{Session: s})
		}
		before := requests[0].Session.Stats().WeightReadBytes
		for _, err := range m.GenerateBatch(background, requests, MaxTokens(round+1)) { // the last is drawn, not read
			if err != nil {
				t.Fatal(err)
			}
		}
		sum := int64(0)
		for _, r := range requests {
			sum += r.Session.Stats().WeightReadBytes - before
		}
		if want := weightReads(m, round); sum != want {
			t.Errorf("3 texts of %d tokens read %d bytes of weights, want %d, as one does", round, sum, want)
		}
	})
}

func forbidEnds(m *Model) map[int]float32 {
	bias := map[int]float32{}
	for _, id := range m.Config().EOSTokenIDs {
		bias[id] = float32(math.Inf(-1))
	}
	return bias
}

// traffic is the bytes of keys and values that tokens from … to-1 read and store, one after another: whole
// meta-contexts behind others.
func traffic(c Config, cache CacheType, from, to int) (read, written int64) {
	row := func(s StackConfig) int64 { return 2 * int64(s.KVHeads) * cache.headBytes(s.HeadDim) }
	// One row of a stack, which sees so many with itself. A row that predicts nothing has no use for the last layer.
	add := func(s StackConfig, rows int, predicts bool) {
		for n := range s.Layers {
			if seen := rows; predicts || n+1 < s.Layers {
				if w := s.window(n); w > 0 {
					seen = min(seen, w)
				}
				read += int64(seen) * row(s)
			}
			written += row(s)
		}
	}
	run := func(s StackConfig, from, to int) {
		for r := from; r < to; r++ {
			add(s, r+1, true)
		}
	}
	if c.Flat() {
		run(c.Transformer, from, to)
		return read, written
	}
	if c.TokenEncoder != nil {
		run(*c.TokenEncoder, from, to)
	}
	spans := []int{1} // tokens in a unit, by level
	for i, l := range c.Levels {
		spans = append(spans, spans[i]*l.ChunkSize)
	}
	for i, l := range c.Levels {
		span := spans[i+1]
		run(l.Encoder, from/span, to/span)
		lead, unit := max(1, l.PrefixLength), l.PrefixLength+l.ChunkSize // rows until the first child is predicted, and all
		begin := from / span * unit
		for r := begin + lead; r < to/span*unit+lead; r++ {
			place := r % unit
			local, last := !l.Decoder.stream(), l.PrefixLength > 0 && place == unit-1
			if local && last {
				continue // is not needed
			}
			seen := r + 1
			if local {
				seen = place + 1
			}
			add(l.Decoder, seen, place >= lead-1 && !last)
			for _, e := range l.Decoder.Memories {
				before := (r/unit*l.ChunkSize + max(0, place-lead+1)) * spans[i] // tokens before what it predicts
				seen := 1 + before/spans[e.Level]*e.rowsPerUnit(c.Levels)
				if e.SlidingWindow > 0 {
					seen = min(seen, e.SlidingWindow)
				}
				read += int64(seen) * int64(len(e.Layers)) * row(e.stack())
			}
		}
	}
	for _, l := range c.Levels {
		for _, e := range l.Decoder.Memories {
			written += int64((to-from)/spans[e.Level]*e.rowsPerUnit(c.Levels)) * row(e.stack())
		}
	}
	return read, written
}

// weightReads is the bytes of weights that so many tokens read, whole meta-contexts of one text, one token after
// another: a stack reads its weights once for each time that it runs.
func weightReads(m *Model, tokens int) int64 {
	weights := func(s *stack) (n int64) {
		for _, l := range s.layers {
			n += l.qkv.bytes() + l.out.bytes() + l.gateUp.bytes() + l.down.bytes()
			for _, y := range l.memories {
				n += y.query.bytes() + y.out.bytes()
			}
		}
		return n
	}
	sum := int64(tokens) * m.head.bytes()
	if m.tokenEncoder != nil {
		sum += int64(tokens) * weights(m.tokenEncoder)
	}
	children, units := tokens, []int{tokens} // by level
	for l, d := range m.decoders {
		sum += int64(children) * weights(d.stack) // once for each child
		if l < len(m.encoders) {
			e := m.encoders[l]
			children /= e.chunk
			units = append(units, children)
			sum += int64(children) * (weights(e.stack) + d.converter.bytes())
			if e.proj != nil {
				sum += int64(children) * e.proj.bytes()
			}
		}
	}
	for _, d := range m.decoders {
		for _, y := range d.stack.memories {
			sum += int64(units[y.level]) * y.kv.bytes()
			if y.unpack != nil {
				sum += int64(units[y.level]) * y.unpack.bytes()
			}
		}
	}
	return sum
}

// TestPresetWork: the 600M forms that are compared take the same multiply-adds for a token, to a percent.
func TestPresetWork(t *testing.T) {
	work := func(name string) (sum float64) {
		c, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		for spec := range c.tensors() {
			if len(spec.shape) != 2 || strings.HasSuffix(spec.name, "embed_tokens.weight") {
				continue
			}
			tokens := 1.0 // for one run
			if strings.HasPrefix(spec.name, "levels.") && !strings.Contains(spec.name, "decoder.layers") {
				tokens = float64(c.MetaContext()) // of the one level; a memory's keys, too, are made a unit at a time
			}
			sum += float64(spec.elements()) / tokens
		}
		return sum
	}
	flat := work("vanilla-600m")
	for _, name := range []string{"rival-600m", "memory-600m"} {
		if got := work(name); math.Abs(got/flat-1) > 0.01 {
			t.Errorf("%s takes %.1fM multiply-adds a token, vanilla-600m %.1fM", name, got/1e6, flat/1e6)
		}
	}
}
