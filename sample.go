package photon

import (
	"fmt"
	"math"
	"slices"
)

// TokenProb is a token and the natural logarithm of its probability.
type TokenProb struct {
	ID      int
	LogProb float32
}

// sampler chooses the next token from a row of logits. It owns the scratch memory, so that a warm sampler does not allocate; one sampler serves one
// text at a time.
//
// The steps and their order are llama.cpp's (common/sampling.cpp): repeat penalty, top-k, top-p, min-p, temperature, draw.
//   - repeat penalty: Keskar et al. 2019, "CTRL", arXiv 1909.05858
//   - top-k: Fan et al. 2018, "Hierarchical Neural Story Generation", arXiv 1805.04833
//   - top-p (nucleus): Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration", arXiv 1904.09751
//   - min-p: Nguyen et al. 2024, "Turning Up the Heat", arXiv 2407.01082
//
// Probabilities are float64, summed in a fixed order with an exponential whose bits are the same on every machine: the same logits give the same token
// everywhere.
type sampler struct {
	candidates []candidate
	raw        []float32   // the logits as the model gave them, kept for log-probabilities
	top        []TokenProb // the most likely tokens of the last call, best first; valid until the next
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

// next chooses a token from logits [vocab], which it overwrites. history is the text so far, position the index in the text of the token to be chosen.
//
// logProb is the token's log-probability under the model itself, before any option had its way; it is NaN unless LogProbs asked for it, and then s.top
// holds the most likely tokens. A NaN among the logits counts as -Inf. If no token is possible, because every logit is NaN or -Inf, id is -1.
func (s *sampler) next(o *options, logits []float32, history []int, position int) (id int, logProb float32) {
	s.top = s.top[:0]
	if o.logProbs >= 0 {
		s.raw = append(s.raw[:0], logits...)
	}
	if o.logits != nil {
		o.logits(position, logits)
	}
	penalise(logits, history[max(0, len(history)-o.repeatLast):], o.repeatPenalty)

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

// penalise makes the tokens of recent less likely, each of them once: a positive logit is divided by the penalty, a negative one multiplied.
func penalise(logits []float32, recent []int, penalty float64) {
	if penalty == 1 {
		return
	}
	for i, id := range recent {
		switch {
		case id < 0 || id >= len(logits) || slices.Contains(recent[:i], id):
		case logits[id] > 0:
			logits[id] = float32(float64(logits[id]) / penalty)
		default:
			logits[id] = float32(float64(logits[id]) * penalty)
		}
	}
}

// mostLikely returns the index of the largest logit, the lowest one of equals, or -1 if all are NaN or -Inf.
func mostLikely(logits []float32) int {
	best, id := float32(math.Inf(-1)), -1
	for i, v := range logits {
		if v > best {
			best, id = v, i
		}
	}
	return id
}

// draw filters the tokens and draws one of those left; u in [0, 1) decides. best is the largest logit.
// Every filter keeps a head of the ranking, and probabilities are relative to the most likely token's.
func (s *sampler) draw(o *options, logits []float32, best float32, u float64) int {
	c := s.filter(o, logits, best)
	if o.minP > 0 {
		kept := c[:0]
		for _, t := range c {
			if odds(t.logit, best, 1) >= o.minP {
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

// nucleus returns how many of the ranked candidates it takes to reach the share p of total: one at least, all of them if they do not reach it.
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

// rank returns the n best tokens, best first; fewer if fewer have a probability. It reads the vocabulary once, with a heap of the n best so far whose
// root is the worst of them: most tokens cost one comparison.
func (s *sampler) rank(logits []float32, n int) []candidate {
	c := s.candidates[:0]
	threshold := negInf
	for i, v := range logits {
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
		} else if n > 0 {
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

// odds is a token's probability relative to the most likely token's: exp((logit-best)/temperature). It is 1 for the best, be it +Inf.
func odds(logit, best float32, temperature float64) float64 {
	if logit == best {
		return 1
	}
	return expNegative((float64(logit) - float64(best)) / temperature)
}

// expNegative is exp(x) for x <= 0, within 1e-14 of it, 0 below -700. math.Exp is not used because its last bits differ between architectures; the
// conversions keep the compiler from fusing a product into a sum, which would have the same effect.
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

// hashUniform returns the random number in [0, 1) that belongs to a position: a hash of the three numbers and not the next of a stream, so that no other work
// can shift it. The mixer is that of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"; constants by D. Stafford).
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

// An Option says how to generate: how much, how to choose each token, when to stop. Options are given to a session or to one call; later ones override earlier
// ones. Bad values are reported by the call that generates, with an error that matches ErrInvalid.
//
// Without options a token is drawn as llama.cpp draws it by default: top-k 40, then top-p 0.95, then min-p 0.05, then temperature 0.8; no repeat penalty;
// seed 0; at most 256 tokens.
type Option func(*options)

// options are what Options set. The zero value is not the default: see defaultOptions.
type options struct {
	maxTokens     int // negative: no bound
	temperature   float64
	topK          int // 0: off
	topP, minP    float64
	repeatPenalty float64
	repeatLast    int // how many tokens back the penalty looks
	seed, sample  uint64
	stop          []string
	stopTokens    []int
	logProbs      int // negative: not asked for
	mode          GenMode
	logits        func(position int, logits []float32)
}

func defaultOptions() options {
	return options{
		maxTokens:     256,
		temperature:   0.8,
		topK:          40,
		topP:          0.95,
		minP:          0.05,
		repeatPenalty: 1,
		repeatLast:    64,
		logProbs:      -1,
	}
}

// resolve applies opts to base, and checks the outcome: an error matches ErrInvalid.
func resolve(base options, opts []Option) (options, error) {
	o := base
	for _, set := range opts {
		if set != nil {
			set(&o)
		}
	}
	return o, o.check()
}

// check reports the first value that is out of its range. The comparisons are written so that a NaN fails them.
func (o *options) check() error {
	invalid := func(name string, value any, want string) error {
		return fmt.Errorf("photon: option %s: %v is out of range: give %s: %w", name, value, want, ErrInvalid)
	}
	switch {
	case !(o.temperature >= 0 && o.temperature <= math.MaxFloat32):
		return invalid("Temperature", o.temperature, "0 (always the most likely token) or more")
	case o.topK < 0:
		return invalid("TopK", o.topK, "0 (off) or more")
	case !(o.topP >= 0 && o.topP <= 1):
		return invalid("TopP", o.topP, "0 to 1 (off)")
	case !(o.minP >= 0 && o.minP <= 1):
		return invalid("MinP", o.minP, "0 (off) to 1")
	case !(o.repeatPenalty > 0 && o.repeatPenalty <= math.MaxFloat32):
		return invalid("RepeatPenalty", o.repeatPenalty, "1 (off) or a little more")
	case o.mode != HierGen && o.mode != RecGen:
		return invalid("Mode", int(o.mode), "HierGen or RecGen")
	case slices.Contains(o.stop, ""):
		return invalid("Stop", `""`, "strings that are not empty")
	}
	for _, id := range o.stopTokens {
		if id < 0 {
			return invalid("StopTokens", id, "token ids of the model")
		}
	}
	return nil
}

// MaxTokens bounds how many tokens are generated. Default 256; negative: no bound.
func MaxTokens(n int) Option { return func(o *options) { o.maxTokens = n } }

// Temperature divides the logits of the tokens that the filters left, so that values below 1 make likely tokens likelier. Default 0.8. At 0 the most
// likely token is always taken, and of equals the one with the lowest id.
func Temperature(t float64) Option { return func(o *options) { o.temperature = t } }

// TopK keeps the k most likely tokens; of equals the lower id goes first. Default 40; 0: all.
func TopK(k int) Option { return func(o *options) { o.topK = k } }

// TopP keeps the smallest number of most likely tokens whose probabilities, among those that TopK left, reach p; one at least. Default 0.95; 1: all.
func TopP(p float64) Option { return func(o *options) { o.topP = p } }

// MinP keeps the tokens that are at least p times as likely as the most likely one. Default 0.05; 0: all.
func MinP(p float64) Option { return func(o *options) { o.minP = p } }

// RepeatPenalty makes each token that is among the last 64 of the text, prompt included, less likely, before anything else is done: its logit is divided
// by p if positive and multiplied by p if negative. Default 1: off.
func RepeatPenalty(p float64) Option { return func(o *options) { o.repeatPenalty = p } }

// Seed chooses the random numbers of a text. Default 0. The draw of a token depends on its logits, the seed, Sample and the token's position in the text,
// and on nothing else: the same seed gives the same text again.
func Seed(s uint64) Option { return func(o *options) { o.seed = s } }

// Sample tells several texts of one seed apart: Sample(0), Sample(1), … of the same prompt are independent draws. Default 0.
func Sample(n uint64) Option { return func(o *options) { o.sample = n } }

// Stop ends the text before the first occurrence of any of these strings, which is not part of the text. Default: none. It replaces earlier ones.
func Stop(strings ...string) Option {
	strings = slices.Clone(strings)
	return func(o *options) { o.stop = strings }
}

// StopTokens ends the text before any of these tokens, besides the model's own end-of-text tokens. Default: none. It replaces earlier ones.
func StopTokens(ids ...int) Option {
	ids = slices.Clone(ids)
	return func(o *options) { o.stopTokens = ids }
}

// LogProbs asks for the log-probability of each token chosen, and for the n most likely tokens beside it. They are natural logarithms of the probabilities that
// the model gives, before penalties, filters, temperature and LogitsFunc. LogProbs(0) asks for the chosen token's alone. Default -1: not computed (NaN), since
// it costs an exponential for each token of the vocabulary.
func LogProbs(n int) Option { return func(o *options) { o.logProbs = n } }

// LogitsFunc has f edit the logits of the next token, [vocab], in place, before anything else looks at them: a mask (-Inf forbids a token), a bias, a
// grammar. position is the index in the text of the token to be chosen. f must not keep the slice. It is called from the goroutine that generates.
// Default: none.
func LogitsFunc(f func(position int, logits []float32)) Option {
	return func(o *options) { o.logits = f }
}

// GenMode is how a hierarchical model generates.
type GenMode int

const (
	// HierGen generates exactly: each token is drawn from its probability given the whole text so far.
	HierGen GenMode = iota
	// RecGen is the paper's approximation (Definition A.3): the units of a meta-context are decoded side by side from what the level above predicts,
	// and what was chosen never reaches a later meta-context. It is fast for the same weights, and its text can drift: compare the quality before
	// you rely on it. It needs two levels or more and chunk-local decoders; other models are refused with an error that matches ErrUnsupported.
	RecGen
)

// Mode chooses how a hierarchical model generates: HierGen (default) or RecGen. A flat model knows HierGen only.
func Mode(m GenMode) Option { return func(o *options) { o.mode = m } }

// String returns "HierGen" or "RecGen".
func (m GenMode) String() string {
	switch m {
	case HierGen:
		return "HierGen"
	case RecGen:
		return "RecGen"
	}
	return fmt.Sprintf("GenMode(%d)", int(m))
}
