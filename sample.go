package photon

import (
	"math"
	"slices"
)

// TokenProb is a token and the natural logarithm of its probability.
type TokenProb struct {
	ID      int
	LogProb float32
}

// sampler chooses the next token from a row of logits. It owns the scratch memory, so that a warm sampler does not
// allocate; one sampler serves one text at a time.
//
// The steps and their order are llama.cpp's (common/sampling.cpp): bias, penalties, top-k, top-p, min-p, temperature,
// draw.
//   - repeat penalty: Keskar et al. 2019, "CTRL", arXiv 1909.05858
//   - top-k: Fan et al. 2018, "Hierarchical Neural Story Generation", arXiv 1805.04833
//   - top-p (nucleus): Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration", arXiv 1904.09751
//   - min-p: Nguyen et al. 2024, "Turning Up the Heat", arXiv 2407.01082
//
// Probabilities are float64, summed in a fixed order with an exponential whose bits are the same on every machine: the
// same logits give the same token everywhere.
type sampler struct {
	candidates []candidate
	raw        []float32   // the logits as the model gave them, kept for log-probabilities
	top        []TokenProb // the most likely tokens of the last call, best first; valid until the next
	counts     []int32     // [vocab], how often a token is among the last ones; all 0 between calls
}

// candidate is a token that may still be drawn.
type candidate struct {
	logit float32
	id    int32
}

// before reports whether a ranks before b: by logit, equal ones by id.
func (a candidate) before(b candidate) bool {
	return a.logit > b.logit || a.logit == b.logit && a.id < b.id
}

// next chooses a token from logits [vocab], which it overwrites where the options change them. text is what the
// penalties look at, position the index in the text of the token to be chosen, drawn the tokens of this call.
//
// logProb is the token's log-probability under the model itself, before any option had its way; it is NaN unless
// LogProbs asked for it, and then s.top holds the most likely tokens. A NaN among the logits counts as -Inf. If no
// token is possible, because every logit is NaN or -Inf, id is -1.
func (s *sampler) next(o *options, logits []float32, text []int, position int, drawn []int) (id int, logProb float32) {
	s.top = s.top[:0]
	if o.logProbs >= 0 {
		s.raw = append(s.raw[:0], logits...)
	}
	for id, bias := range o.bias {
		logits[id] += bias
	}
	for _, f := range o.logits {
		f(drawn, logits)
	}
	s.penalise(o, logits, text)

	best := mostLikely(logits)
	if best < 0 {
		return -1, float32(math.NaN())
	}
	id = best
	if o.temperature >= greedyBelow {
		id = s.draw(o, logits, logits[best], hashUniform(o.seed, o.sample, position))
	}
	if o.logProbs < 0 {
		return id, float32(math.NaN())
	}
	return id, s.report(id, o.logProbs)
}

// greedyBelow is the temperature under which the most likely token is taken without a draw.
const greedyBelow = 1e-6

// changes says whether next writes to the logits.
func (o *options) changes() bool { return len(o.bias) > 0 || len(o.logits) > 0 || o.penalises() }

func (o *options) penalises() bool {
	return o.repeatPenalty != 1 || o.frequency != 0 || o.presence != 0
}

// penalise makes the tokens among the last ones of the text less likely: a positive logit is divided by the repeat
// penalty, a negative one multiplied; then the presence penalty is taken from it, and the frequency penalty as often as
// the token occurs.
func (s *sampler) penalise(o *options, logits []float32, text []int) {
	if !o.penalises() {
		return
	}
	if o.repeatLast >= 0 {
		text = text[max(0, len(text)-o.repeatLast):]
	}
	if len(s.counts) < len(logits) {
		s.counts = make([]int32, len(logits))
	}
	known := func(id int) bool { return id >= 0 && id < len(logits) }
	for _, id := range text {
		if known(id) {
			s.counts[id]++
		}
	}
	for _, id := range text {
		if !known(id) {
			continue
		}
		n := s.counts[id]
		if n == 0 {
			continue // done
		}
		s.counts[id] = 0
		v := float64(logits[id])
		if v > 0 {
			v /= o.repeatPenalty
		} else {
			v *= o.repeatPenalty
		}
		v = float64(float32(v)) // the conversions keep the products from being fused into the sums
		logits[id] = float32(v - float64(float64(n)*o.frequency) - o.presence)
	}
}

// mostLikely returns the index of the largest logit, the lowest one of equals, or -1 if all are NaN or -Inf.
func mostLikely(logits []float32) int {
	best, id := negInf, -1
	if hasNaN(logits) {
		for i, v := range logits {
			if v > best {
				best, id = v, i
			}
		}
		return id
	}
	for at := 0; at < len(logits); at += sampleBlock {
		if top := maximum(logits[at:min(at+sampleBlock, len(logits))]); top > best {
			best, id = top, at
		}
	}
	if id >= 0 {
		id += slices.Index(logits[id:], best)
	}
	return id
}

// sampleBlock is the logits that are looked at one by one only where the largest of them matters.
const sampleBlock = 128

// hasNaN tells of a NaN: its magnitude is beyond all others, while a maximum may or may not be one.
func hasNaN(x []float32) bool {
	m := magnitude(x)
	return m != m
}

// draw filters the tokens and draws one of those left; u in [0, 1) decides. best is the largest logit.
// Every filter keeps a head of the ranking, and probabilities are relative to the most likely token's.
func (s *sampler) draw(o *options, logits []float32, best float32, u float64) int {
	c := s.filter(o, logits, best)
	if o.minP > 0 {
		kept := c[:0]
		far := 1e-9 - math.Log(o.minP) // most tokens are: of them no exponential is needed
		for _, t := range c {
			if !(float64(best)-float64(t.logit) > far) && odds(t.logit, best, 1) >= o.minP {
				kept = append(kept, t)
			}
		}
		c = kept
	}
	total := 0.0
	for _, t := range c {
		total += odds(t.logit, best, o.temperature)
	}
	id, sum := -1, 0.0
	for _, t := range c {
		w := odds(t.logit, best, o.temperature)
		if w == 0 {
			continue
		}
		id = int(t.id)
		if sum += w; sum > u*total {
			break
		}
	}
	return id
}

// filter applies top-k and top-p. What is left is in order of rank, or of id where neither is asked for.
func (s *sampler) filter(o *options, logits []float32, best float32) []candidate {
	if o.topK > 0 && o.topK < len(logits) {
		c := s.rank(logits, o.topK)
		total := 0.0
		for _, t := range c {
			total += odds(t.logit, best, 1)
		}
		return c[:nucleus(c, best, o.topP, total)]
	}
	if o.topP >= 1 {
		return s.all(logits)
	}
	total := 0.0
	for _, v := range logits {
		if v == v {
			total += odds(v, best, 1)
		}
	}
	// The nucleus is mostly a small part of the vocabulary: rank no more than it takes to find its end.
	for n := 64; ; n *= 8 {
		c := s.rank(logits, n)
		if end := nucleus(c, best, o.topP, total); end < len(c) || n >= len(logits) {
			return c[:end]
		}
	}
}

// nucleus returns how many of the ranked candidates it takes to reach the share p of total: one at least, all of them
// if they do not reach it.
func nucleus(c []candidate, best float32, p, total float64) int {
	if p >= 1 {
		return len(c)
	}
	sum := 0.0
	for i, t := range c {
		if sum += odds(t.logit, best, 1); sum >= p*total {
			return i + 1
		}
	}
	return len(c)
}

// all returns every token that has a probability, in order of id.
func (s *sampler) all(logits []float32) []candidate {
	c := s.candidates[:0]
	for i, v := range logits {
		if v > negInf {
			c = append(c, candidate{v, int32(i)})
		}
	}
	s.candidates = c
	return c
}

// rank returns the n best tokens, 1 or more, best first; fewer if fewer have a probability. It reads the vocabulary
// once, with a heap of the n best so far whose root is the worst of them: most tokens cost one comparison.
func (s *sampler) rank(logits []float32, n int) []candidate {
	c := s.candidates[:0]
	threshold := negInf
	whole := !hasNaN(logits)
	for i := 0; i < len(logits); i++ {
		if end := i + sampleBlock; whole && i%sampleBlock == 0 && end <= len(logits) && len(c) == n &&
			maximum(logits[i:end]) <= threshold {
			i = end - 1
			continue
		}
		v := logits[i]
		if !(v > threshold) { // also a NaN; an equal logit of a higher id ranks lower
			continue
		}
		t := candidate{v, int32(i)}
		if len(c) < n {
			if c = append(c, t); len(c) < n {
				continue
			}
			for root := n/2 - 1; root >= 0; root-- {
				siftDown(c, root)
			}
		} else {
			c[0] = t
			siftDown(c, 0)
		}
		threshold = c[0].logit
	}
	slices.SortFunc(c, func(a, b candidate) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	s.candidates = c
	return c
}

// siftDown restores the heap order, worst candidate at the root, below c[root].
func siftDown(c []candidate, root int) {
	for {
		child := 2*root + 1
		if child >= len(c) {
			return
		}
		if child+1 < len(c) && c[child].before(c[child+1]) {
			child++
		}
		if c[child].before(c[root]) {
			return
		}
		c[root], c[child] = c[child], c[root]
		root = child
	}
}

// report returns the log-probability of id, and puts the n most likely tokens into s.top, all by the logits in s.raw.
func (s *sampler) report(id, n int) float32 {
	best := mostLikely(s.raw)
	if best < 0 {
		return float32(math.NaN())
	}
	peak, total := s.raw[best], 0.0
	for _, v := range s.raw {
		if v == v {
			total += odds(v, peak, 1)
		}
	}
	norm := math.Log(total)
	logProb := func(v float32) float32 {
		switch {
		case v == peak:
			return float32(-norm)
		case v != v:
			return negInf
		}
		return float32(float64(v) - float64(peak) - norm)
	}
	if n > 0 {
		for _, t := range s.rank(s.raw, n) {
			s.top = append(s.top, TokenProb{int(t.id), logProb(t.logit)})
		}
	}
	return logProb(s.raw[id])
}

var negInf = float32(math.Inf(-1))

// odds is a token's probability relative to the most likely token's: exp((logit-best)/temperature). It is 1 for the
// best, be it +Inf.
func odds(logit, best float32, temperature float64) float64 {
	if logit == best {
		return 1
	}
	return expNegative((float64(logit) - float64(best)) / temperature)
}

// expNegative is exp(x) for x <= 0, within 1e-14 of it, 0 below -700. math.Exp is not used because its last bits differ
// between architectures; the conversions keep the compiler from fusing a product into a sum, which would have the same
// effect.
func expNegative(x float64) float64 {
	if x < -700 {
		return 0
	}
	const ln2Hi, ln2Lo = 6.93147180369123816490e-01, 1.90821492927058770002e-10 // ln 2 in two parts; k·ln2Hi is exact
	e := int64(float64(x*math.Log2E) - 0.5)                                     // rounded to the nearest
	k := float64(e)
	r := x - float64(k*ln2Hi) - float64(k*ln2Lo) // |r| <= ln2/2
	// Taylor's series in two halves, even and odd powers, so that they run side by side; its next term is below 3e-16.
	q := float64(r * r)
	even := float64(q*(1.0/479001600)) + 1.0/3628800
	odd := float64(q*(1.0/39916800)) + 1.0/362880
	even = float64(q*even) + 1.0/40320
	odd = float64(q*odd) + 1.0/5040
	even = float64(q*even) + 1.0/720
	odd = float64(q*odd) + 1.0/120
	even = float64(q*even) + 1.0/24
	odd = float64(q*odd) + 1.0/6
	even = float64(q*even) + 1.0/2
	odd = float64(q*odd) + 1
	p := 1 + float64(float64(q*even)+float64(r*odd))
	return p * math.Float64frombits(uint64(e+1023)<<52)
}

// hashUniform returns the random number in [0, 1) that belongs to a position: a hash of the three numbers and not the
// next of a stream, so that no other work can shift it. The mixer is that of SplitMix64 (Steele, Lea, Flood 2014, "Fast
// splittable pseudorandom number generators"; constants by D. Stafford).
func hashUniform(seed, sample uint64, position int) float64 {
	h := mix64(seed + 0x9e3779b97f4a7c15)
	h = mix64(h ^ (sample + 0xbf58476d1ce4e5b9))
	h = mix64(h ^ (uint64(position) + 0x94d049bb133111eb))
	return float64(h>>11) * 0x1p-53
}

func mix64(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
