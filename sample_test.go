package photon

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"github.com/photon-lm/photon/internal/bounded"
)

func mustResolve(t testing.TB, opts ...Option) options {
	t.Helper()
	o, err := resolve(defaultOptions(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// slowProbabilities is the sampler's definition, written as directly as it can be: the probability of every token after each step, over the whole
// vocabulary, with a full sort and math.Exp.
func slowProbabilities(o options, model []float32, history []int, position int) []float64 {
	logits := slices.Clone(model)
	for id, bias := range o.bias {
		logits[id] += bias
	}
	for _, f := range o.logits {
		f(nil, logits)
	}
	if o.repeatLast >= 0 && len(history) > o.repeatLast {
		history = history[len(history)-o.repeatLast:]
	}
	seen := map[int]int{}
	for _, id := range history {
		seen[id]++
	}
	l := make([]float64, len(logits))
	for id, v := range logits {
		l[id] = float64(v)
		if n := seen[id]; n > 0 {
			if v > 0 {
				l[id] /= o.repeatPenalty
			} else {
				l[id] *= o.repeatPenalty
			}
			l[id] = float64(float32(l[id])) - float64(float64(n)*o.frequency) - o.presence
			l[id] = float64(float32(l[id]))
		}
		if math.IsNaN(l[id]) {
			l[id] = math.Inf(-1)
		}
	}
	rank := make([]int, len(l))
	for i := range rank {
		rank[i] = i
	}
	sort.SliceStable(rank, func(a, b int) bool { return l[rank[a]] > l[rank[b]] })
	best := l[rank[0]]
	p := make([]float64, len(l))
	if math.IsInf(best, -1) {
		return p
	}
	exp := func(id int, temperature float64) float64 {
		if l[id] == best {
			return 1
		}
		return math.Exp((l[id] - best) / temperature)
	}
	if o.temperature < greedyBelow {
		p[rank[0]] = 1
		return p
	}
	if o.topK > 0 && o.topK < len(rank) {
		rank = rank[:o.topK]
	}
	if o.topP < 1 {
		total, sum := 0.0, 0.0
		for _, id := range rank {
			total += exp(id, 1)
		}
		for i, id := range rank {
			if sum += exp(id, 1); sum >= o.topP*total {
				rank = rank[:i+1]
				break
			}
		}
	}
	total := 0.0
	for _, id := range rank {
		if exp(id, 1) >= o.minP {
			p[id] = exp(id, o.temperature)
			total += p[id]
		}
	}
	for id := range p {
		p[id] /= total
	}
	return p
}

func randomLogits(r *rand.Rand, n int) []float32 {
	logits := make([]float32, n)
	scale := math.Exp(3 * r.NormFloat64())
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * scale)
		switch r.IntN(12) {
		case 0: // ties
			logits[i] = logits[r.IntN(i+1)]
		case 1:
			if r.IntN(4) == 0 {
				logits[i] = float32(math.Inf(-1))
			}
		case 2:
			if r.IntN(8) == 0 {
				logits[i] = float32(math.NaN())
			}
		}
	}
	return logits
}

func randomOptions(r *rand.Rand, vocab int) []Option {
	pick := func(values ...float64) float64 { return values[r.IntN(len(values))] }
	opts := []Option{
		Temperature(pick(0, 0.1, 0.8, 1, 1.7, 30)),
		TopK(int(pick(0, 1, 2, 40, float64(vocab-1), float64(vocab), float64(3*vocab)))),
		TopP(pick(0, 0.3, 0.95, 0.999, 1)),
		MinP(pick(0, 0.01, 0.05, 0.5, 1)),
		RepeatPenalty(pick(1, 1, 1.1, 0.7, 3)), RepeatLast(int(pick(64, 64, 0, 1, 3, -1))),
		FrequencyPenalty(pick(0, 0, 0.3, -0.5)), PresencePenalty(pick(0, 0, 1, -0.5)),
		LogitBias(map[int]float32{r.IntN(vocab): float32(pick(0, 3, -3, math.Inf(-1)))}),
		Seed(r.Uint64()), Sample(r.Uint64N(4)),
	}
	if r.IntN(4) == 0 {
		opts = append(opts, LogitsFunc(func(drawn []int, logits []float32) {
			for i := len(drawn) % 3; i < len(logits); i += 3 {
				logits[i] -= 2
			}
		}))
	}
	return opts
}

// The set of tokens that can be drawn and the interval of the random number that belongs to each are those of the definition.
func TestSamplerAgainstDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s sampler
	for range 3000 {
		vocab := 1 + r.IntN(300)
		logits := randomLogits(r, vocab)
		o := mustResolve(t, randomOptions(r, vocab)...)
		history := make([]int, r.IntN(100))
		for i := range history {
			history[i] = r.IntN(vocab)
		}
		position := len(history)
		want := slowProbabilities(o, logits, history, position)
		id, _ := s.next(&o, slices.Clone(logits), history, position, nil)
		if slices.Max(want) == 0 {
			if id != -1 {
				t.Fatalf("no token is possible, got %d", id)
			}
			continue
		}
		// Walk the definition's distribution in the order the sampler documents: by rank where a ranking was needed, else by id.
		order := make([]int, vocab)
		for i := range order {
			order[i] = i
		}
		if o.topK > 0 && o.topK < vocab || o.topP < 1 {
			sort.SliceStable(order, func(a, b int) bool { return want[order[a]] > want[order[b]] })
		}
		u, sum := hashUniform(o.seed, o.sample, position), 0.0
		ok := false
		for _, i := range order {
			if i == id && want[i] > 0 && u >= sum-1e-9 && u <= sum+want[i]+1e-9 {
				ok = true
			}
			sum += want[i]
		}
		if !ok {
			t.Fatalf("vocab %d, %+v: token %d of probability %g does not belong to u = %g", vocab, o, id, want[max(id, 0)], u)
		}
	}
}

func TestSamplerDistribution(t *testing.T) {
	logits := []float32{2, 1, 0.5, 2, -1, -3, 1.5, float32(math.Inf(-1)), 0, 0.2}
	const draws = 40000
	for name, opts := range map[string][]Option{
		"defaults":    nil,
		"pure":        {Temperature(1), TopK(0), TopP(1), MinP(0)},
		"hot":         {Temperature(2), TopK(0), TopP(1), MinP(0)},
		"top-k":       {Temperature(1), TopK(4), TopP(1), MinP(0)},
		"top-p":       {Temperature(1), TopK(0), TopP(0.7), MinP(0)},
		"min-p":       {Temperature(1), TopK(0), TopP(1), MinP(0.3)},
		"penalty":     {Temperature(1), RepeatPenalty(1.5)},
		"another one": {Seed(77), Sample(3)},
	} {
		t.Run(name, func(t *testing.T) {
			o := mustResolve(t, opts...)
			history := []int{0, 3, 3}
			want := slowProbabilities(o, logits, history, 0)
			count := make([]float64, len(logits))
			var s sampler
			for position := range draws {
				id, _ := s.next(&o, slices.Clone(logits), history, position, nil)
				count[id]++
			}
			chi2, degrees := 0.0, -1
			for id, p := range want {
				if p == 0 {
					if count[id] > 0 {
						t.Errorf("token %d is filtered out, but was drawn %g times", id, count[id])
					}
					continue
				}
				degrees++
				d := count[id] - p*draws
				chi2 += d * d / (p * draws)
			}
			// Wilson and Hilferty's normal approximation of the chi-square quantile, 4 standard deviations out.
			n := float64(degrees)
			if limit := n * math.Pow(1-2/(9*n)+4*math.Sqrt(2/(9*n)), 3); degrees < 1 || chi2 > limit {
				t.Errorf("chi-square %.1f with %d degrees of freedom, limit %.1f", chi2, degrees, limit)
			}
		})
	}
}

// Random numbers of neighbouring seeds, samples and positions are uniform and do not go together.
func TestHashUniform(t *testing.T) {
	const n, bins = 20000, 16
	series := map[string]func(i int) float64{
		"seeds":         func(i int) float64 { return hashUniform(uint64(i), 0, 0) },
		"samples":       func(i int) float64 { return hashUniform(0, uint64(i), 0) },
		"positions":     func(i int) float64 { return hashUniform(0, 0, i) },
		"far positions": func(i int) float64 { return hashUniform(1<<63, 1<<40, i+1<<30) },
	}
	limit := 255 * math.Pow(1-2/(9*255.0)+4*math.Sqrt(2/(9*255.0)), 3)
	for name, f := range series {
		var pairs [bins][bins]float64
		for i := range n {
			u, v := f(i), f(i+1)
			if u < 0 || u >= 1 {
				t.Fatalf("%s: %g is outside [0, 1)", name, u)
			}
			pairs[int(u*bins)][int(v*bins)]++
		}
		chi2, want := 0.0, float64(n)/bins/bins
		for _, row := range pairs {
			for _, c := range row {
				chi2 += (c - want) * (c - want) / want
			}
		}
		if chi2 > limit {
			t.Errorf("%s: chi-square of successive pairs %.0f, limit %.0f", name, chi2, limit)
		}
	}
	if hashUniform(1, 2, 3) == hashUniform(2, 1, 3) || hashUniform(1, 2, 3) == hashUniform(1, 3, 2) {
		t.Error("seed, sample and position are interchangeable")
	}
}

// The values are part of the promise that a seed gives the same text everywhere and in every release.
func TestDrawIsFixed(t *testing.T) {
	for _, c := range []struct {
		seed, sample uint64
		position     int
		want         uint64
	}{
		{0, 0, 0, 0x11b7d70e09208d}, {1, 0, 0, 0x41be7d01aaa1a}, {0, 1, 0, 0x17163b235738bc}, {0, 0, 1, 0x146916a2869d57}, {math.MaxUint64, 7, 1 << 20, 0x1b631f77a02f0c},
	} {
		if got := uint64(hashUniform(c.seed, c.sample, c.position) * 0x1p53); got != c.want {
			t.Errorf("hashUniform(%d, %d, %d)·2^53 = %#x, want %#x", c.seed, c.sample, c.position, got, c.want)
		}
	}
	hash := uint64(14695981039346656037) // FNV-1a over the bits, so that every architecture is held to the same ones
	for i := range 100000 {
		hash = (hash ^ math.Float64bits(expNegative(-float64(i)*0.00701))) * 1099511628211
	}
	if want := uint64(0xeaf1382926ee00b8); hash != want {
		t.Errorf("bits of expNegative: %#x, want %#x", hash, want)
	}
}

func TestExpNegative(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 200000 {
		x := -r.Float64() * 700
		if i%2 == 0 {
			x = -math.Exp(-10 * r.Float64())
		}
		if got, want := expNegative(x), math.Exp(x); math.Abs(got-want) > 1e-14*want {
			t.Fatalf("expNegative(%g) = %g, want %g", x, got, want)
		}
	}
	if expNegative(0) != 1 || expNegative(math.Inf(-1)) != 0 || expNegative(-1e300) != 0 {
		t.Error("expNegative is wrong at 0 or far below")
	}
}

func TestLogProbs(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var s sampler
	for range 300 {
		vocab := 2 + r.IntN(200)
		logits := randomLogits(r, vocab)
		for i := range logits {
			if math.IsInf(float64(logits[i]), 0) || logits[i] != logits[i] {
				logits[i] = -1
			}
		}
		n := r.IntN(vocab + 5)
		o := mustResolve(t, append(randomOptions(r, vocab), LogProbs(n))...)
		id, logProb := s.next(&o, slices.Clone(logits), []int{0, 1}, 2, nil)

		best := float64(slices.Max(logits))
		sum := new(big.Float)
		for _, v := range logits {
			sum.Add(sum, big.NewFloat(math.Exp(float64(v)-best)))
		}
		total, _ := sum.Float64()
		want := func(i int) float64 { return float64(logits[i]) - best - math.Log(total) }
		near := func(got float32, want float64) bool { return math.Abs(float64(got)-want) <= 1e-6*(1+math.Abs(want)) }
		if !near(logProb, want(id)) {
			t.Fatalf("token %d: log-probability %g, want %g", id, logProb, want(id))
		}
		if len(s.top) != min(n, vocab) {
			t.Fatalf("%d most likely tokens, want %d", len(s.top), min(n, vocab))
		}
		rank := make([]int, vocab)
		for i := range rank {
			rank[i] = i
		}
		sort.SliceStable(rank, func(a, b int) bool { return logits[rank[a]] > logits[rank[b]] })
		for i, p := range s.top {
			if p.ID != rank[i] || !near(p.LogProb, want(rank[i])) {
				t.Fatalf("rank %d: got %+v, want token %d with %g", i, p, rank[i], want(rank[i]))
			}
		}
	}
	o := mustResolve(t)
	if _, logProb := s.next(&o, []float32{1, 2}, nil, 0, nil); logProb == logProb || len(s.top) != 0 {
		t.Errorf("without LogProbs: %g and %d tokens, want NaN and none", logProb, len(s.top))
	}
}

func TestSamplerEdges(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	greedy, pure := []Option{Temperature(0)}, []Option{Temperature(1), TopK(0), TopP(1), MinP(0)}
	for _, c := range []struct {
		name   string
		opts   []Option
		logits []float32
		want   int
	}{
		{"greedy takes the lowest of equals", greedy, []float32{0, 3, 3}, 1},
		{"a tiny temperature is greedy", []Option{Temperature(1e-9)}, []float32{3, 0, 3}, 0},
		{"NaN is skipped", greedy, []float32{nan, -5, nan}, 1},
		{"all NaN", greedy, []float32{nan, nan}, -1},
		{"all NaN, drawn", nil, []float32{nan, nan}, -1},
		{"all -Inf", pure, []float32{-inf, -inf}, -1},
		{"no vocabulary", nil, nil, -1},
		{"+Inf is certain", pure, []float32{0, inf, 5, nan}, 1},
		{"+Inf is certain with filters", nil, []float32{0, inf, 5, -inf}, 1},
		{"top-k 1", []Option{TopK(1), Temperature(100)}, []float32{0, 1, 1}, 1},
		{"top-p 0", []Option{TopP(0), TopK(0), Temperature(100)}, []float32{0, 1, 1}, 1},
		{"min-p 1", []Option{MinP(1), Temperature(100)}, []float32{0, 1.1, 1}, 1},
		{"a mask decides", append(pure, LogitsFunc(func(_ []int, l []float32) { l[0], l[1] = -inf, -inf })), []float32{9, 9, -9}, 2},
		{"a penalty decides", []Option{Temperature(0), RepeatPenalty(2)}, []float32{1, 2, 1.5}, 2},
		{"a penalty makes negative logits more so", []Option{Temperature(0), RepeatPenalty(2)}, []float32{-3, -1, -1.5}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := mustResolve(t, c.opts...)
			var s sampler
			for position := range 50 {
				if got, _ := s.next(&o, slices.Clone(c.logits), []int{1, -7, 99, 1}, position, nil); got != c.want {
					t.Fatalf("position %d: got %d, want %d", position, got, c.want)
				}
			}
		})
	}
	t.Run("the penalty forgets after 64 tokens", func(t *testing.T) {
		o := mustResolve(t, Temperature(0), RepeatPenalty(2))
		history := make([]int, 65)
		history[0] = 1
		var s sampler
		if got, _ := s.next(&o, []float32{0, 2, 1.5}, history, 65, nil); got != 1 {
			t.Errorf("got %d, want 1: it lies 65 tokens back", got)
		}
		history[1] = 1
		if got, _ := s.next(&o, []float32{0, 2, 1.5}, history, 65, nil); got != 2 {
			t.Errorf("got %d, want 2: token 1 lies 64 tokens back", got)
		}
	})
}

func TestSamplerDoesNotAllocate(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	logits, scratch, history := make([]float32, 5000), make([]float32, 5000), make([]int, 80)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	for name, opts := range map[string][]Option{
		"greedy":   {Temperature(0)},
		"defaults": {RepeatPenalty(1.1)},
		"no top-k": {TopK(0)},
		"pure":     {TopK(0), TopP(1), MinP(0)},
		"logprobs": {LogProbs(5)},
	} {
		o := mustResolve(t, opts...)
		var s sampler
		position := 0
		if n := testing.AllocsPerRun(50, func() {
			copy(scratch, logits)
			s.next(&o, scratch, history, position, nil)
			position++
		}); n != 0 {
			t.Errorf("%s: %g allocations a token", name, n)
		}
	}
}

func TestOptions(t *testing.T) {
	o := mustResolve(t, nil, TopK(3), Stop("a", "b"), TopK(5), StopTokens(1, 2), MaxTokens(-1), Mode(RecGen), Seed(9), Sample(4))
	if o.topK != 5 || fmt.Sprint(o.stop) != fmt.Sprint(newStopStrings("a", "b")) ||
		!slices.Equal(o.stopTokens, []int{1, 2}) || o.maxTokens != -1 ||
		o.mode != RecGen || o.seed != 9 || o.sample != 4 || o.temperature != 0.8 {
		t.Errorf("resolved to %+v", o)
	}
	if later, err := resolve(o, []Option{TopP(0.5), Stop()}); err != nil || later.topK != 5 || later.topP != 0.5 || later.stop != nil && len(later.stop) > 0 {
		t.Errorf("options on top of options: %+v, %v", later, err)
	}
	if o.topP != 0.95 {
		t.Error("resolve changed its base")
	}
	nan, inf := math.NaN(), math.Inf(1)
	for i, opt := range []Option{
		Temperature(nan), Temperature(-1), Temperature(inf), TopK(-1), TopP(nan), TopP(-0.1), TopP(1.1), MinP(nan), MinP(-1), MinP(2),
		RepeatPenalty(nan), RepeatPenalty(0), RepeatPenalty(-1), RepeatPenalty(inf), Mode(7), Mode(-1), Stop("x", ""), StopTokens(3, -1),
		Stop("\xff"), FrequencyPenalty(nan), PresencePenalty(inf), LogProbs(-2), LogitBias(map[int]float32{-1: 1}),
		LogitBias(map[int]float32{1: float32(nan)}), LogitBias(map[int]float32{1: float32(inf)}),
	} {
		if _, err := resolve(defaultOptions(), []Option{opt}); !errors.Is(err, ErrInvalid) {
			t.Errorf("bad option %d: error %v, want ErrInvalid", i, err)
		}
	}
	if got := fmt.Sprint(HierGen, RecGen, GenMode(5)); got != "HierGen RecGen GenMode(5)" {
		t.Errorf("modes print as %q", got)
	}
}

func FuzzSampler(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 192, 127}, 40, 0.95, 0.05, 0.8, 1.1, uint64(3))
	f.Add([]byte{0, 0, 128, 255}, 0, 1.0, 0.0, 1e30, 1e-30, uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, topK int, topP, minP, temperature, penalty float64, seed uint64) {
		o, err := resolve(defaultOptions(), []Option{TopK(topK), TopP(topP), MinP(minP), Temperature(temperature), RepeatPenalty(penalty), Seed(seed), LogProbs(3)})
		if err != nil {
			return
		}
		logits := make([]float32, len(data)/4)
		for i := range logits {
			logits[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
		history := []int{0, 1, len(logits)}
		var s sampler
		var id int
		var logProb float32
		bounded.Run(t, 8*len(data)+1<<20, func() { id, logProb = s.next(&o, slices.Clone(logits), history, 1, nil) })
		s.penalise(&o, logits, history)
		best := float32(math.Inf(-1))
		for _, v := range logits {
			if v > best {
				best = v
			}
		}
		switch {
		case math.IsInf(float64(best), -1):
			if id != -1 {
				t.Fatalf("no token is possible, got %d", id)
			}
			return
		case id < 0 || id >= len(logits):
			t.Fatalf("token %d of %d", id, len(logits))
		case logits[id] != best && !(math.Exp(float64(logits[id])-float64(best)) >= minP*(1-1e-12)):
			t.Fatalf("token %d with logit %g cannot be drawn: the best is %g", id, logits[id], best)
		}
		if logProb > 0 {
			t.Fatalf("log-probability %g", logProb)
		}
	})
}

// A nucleus of many tokens is found as one of few is: the fewest of the ranking that reach the share.
func TestWideNucleus(t *testing.T) {
	r := rand.New(rand.NewPCG(91, 0))
	logits := make([]float32, 5000)
	for i := range logits {
		logits[i] = float32(r.NormFloat64()) / 8
	}
	ranked := slices.Clone(logits)
	slices.SortFunc(ranked, func(a, b float32) int { return cmp.Compare(b, a) })
	total := 0.0
	for _, v := range ranked {
		total += math.Exp(float64(v) - float64(ranked[0]))
	}
	for _, p := range []float64{0.01, 0.013, 0.1, 0.5, 0.9, 0.999} {
		want, sum := 0, 0.0
		for sum < p*total {
			sum += math.Exp(float64(ranked[want]) - float64(ranked[0]))
			want++
		}
		o := defaultOptions()
		o.topK, o.topP = 0, p
		var s sampler
		got := s.filter(&o, slices.Clone(logits), ranked[0])
		if len(got) < want-1 || len(got) > want+1 { // the sums are rounded
			t.Fatalf("a share of %g takes %d tokens, want %d", p, len(got), want)
		}
		for i, c := range got {
			if c.logit != ranked[i] {
				t.Fatalf("a share of %g: token %d of the ranking has logit %g, want %g", p, i, c.logit, ranked[i])
			}
		}
	}
}

// TestRankInBlocks: the best tokens of many, with equal, infinite and missing logits among them, are those that sorting
// finds.
func TestRankInBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	nan, special := float32(math.NaN()), []float32{negInf, -negInf, 0, float32(math.Copysign(0, -1)), 5}
	for range 2000 {
		logits := randomValues(r, 1+r.IntN(1000))
		for range r.IntN(4) {
			from := r.IntN(len(logits))
			x := special[r.IntN(len(special))]
			if r.IntN(3) == 0 {
				x = nan
			}
			for i := range logits[from:min(len(logits), from+1+r.IntN(300))] {
				logits[from+i] = x
			}
		}
		var want []candidate
		for i, v := range logits {
			if v > negInf {
				want = append(want, candidate{v, int32(i)})
			}
		}
		slices.SortStableFunc(want, func(a, b candidate) int { return cmp.Compare(b.logit, a.logit) })
		best := -1
		if len(want) > 0 {
			best = int(want[0].id)
		}
		if got := mostLikely(logits); got != best {
			t.Fatalf("%v: the most likely is %d, want %d", logits, got, best)
		}
		var s sampler
		n := 1 + r.IntN(60)
		if got := s.rank(logits, n); !slices.Equal(got, want[:min(n, len(want))]) {
			t.Fatalf("%v: %v, want %v", logits, got, want[:min(n, len(want))])
		}
	}
}
