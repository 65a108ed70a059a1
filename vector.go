package photon

import "math"

// The functions of this file and softmax give the same bits on every machine and tier: elements are independent, and products are
// rounded before they are added. Sums run in eight lanes: lane j takes elements j, j+8, …, and the lanes are added pairwise.
type lanes [8]float32

func (s *lanes) sum() float32 {
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

// callElements bounds what one call of a kernel works through: the scheduler cannot interrupt it. A multiple of eight.
const callElements = 1 << 14

// rmsNorm writes x / sqrt(mean(x²) + eps) · weight to dst, which may be x.
func rmsNorm(dst, x, weight []float32, eps float32) {
	var s lanes
	for rest := x; len(rest) > 0; rest = rest[min(callElements, len(rest)):] {
		sumSquares(rest[:min(callElements, len(rest))], &s)
	}
	scale := float32(1 / math.Sqrt(float64(s.sum()/float32(len(x)))+float64(eps)))
	for i := 0; i < len(x); i += callElements {
		end := min(i+callElements, len(x))
		mulScaled(dst[i:end], x[i:end], weight[i:end], scale)
	}
}

// siluGate writes silu(gate) ⊙ up to dst, which may be gate. silu(x) = x / (1 + e^-x) is within 4 units in the last place.
func siluGate(dst, gate, up []float32) {
	for i := 0; i < len(gate); i += callElements {
		end := min(i+callElements, len(gate))
		mulSilu(dst[i:end], gate[i:end], up[i:end])
	}
}

// add adds x to dst; they do not overlap.
func add(dst, x []float32) {
	for i := 0; i < len(x); i += callElements {
		end := min(i+callElements, len(x))
		addTo(dst[i:end], x[i:end])
	}
}

// rotate applies RoPE to one head, half-split: (x_i, x_(i+h)) turns by the angle whose cosine and sine stand at i.
func rotate(x, cos, sin []float32) {
	half := len(cos)
	rotatePairs(x[:half], x[half:2*half], cos, sin[:half])
}

// softmax is a softmax in progress over scores that come in blocks. Of n finite scores no weight is further than 2 + n/8 units
// in the last place from the exact one. A NaN or +Inf among them makes the sum NaN, and so does a block of nothing but -Inf;
// besides finite ones a -Inf weighs nothing.
type softmax struct {
	top float32 // the largest score so far
	sum float32 // Σ e^(score - top)
}

func newSoftmax() softmax { return softmax{top: float32(math.Inf(-1))} }

// extend turns a block of scores into their weights e^(score - top). What was weighted before must be multiplied by shrink.
func (s *softmax) extend(scores []float32) (shrink float32) {
	shrink = 1
	if top := maximum(scores); !(top <= s.top) {
		shrink = exp32(s.top - top)
		s.top = top
	}
	var l lanes
	expSum(scores, s.top, &l)
	s.sum = float32(s.sum*shrink) + l.sum()
	return shrink
}

// exp32 is e^x for x ≤ 0, within 1.25 units in the last place: x = n·ln2 + r with |r| ≤ ln2/2, and a polynomial for e^r. Below
// -87.33 it is 0; NaN stays NaN.
func exp32(x float32) float32 {
	y := x
	if x < expLowest {
		y = expLowest
	}
	t := float32(y*expLog2E) + expRound // the low bits of t are n
	n := t - expRound
	r := y - float32(n*expLn2Hi)
	r -= float32(n * expLn2Lo)
	square := float32(r * r)
	a := float32(expC3*r) + expC2
	b := float32(expC5*r) + expC4
	b = float32(expC6*square) + b
	p := float32(b*square) + a
	p = float32(p*square) + r
	p++
	if x < expLowest {
		return 0
	}
	return p * math.Float32frombits(math.Float32bits(t)<<23+math.Float32bits(1))
}

const (
	expLowest = -87.33
	expLog2E  = math.Log2E
	expRound  = 3 << 22
	expLn2Hi  = 0.693145751953125
	expLn2Lo  = 1.42860682030941723212e-6
	expC2     = 0.499999934 // minimax on |r| ≤ ln2/2
	expC3     = 0.166665206
	expC4     = 0.041668388
	expC5     = 0.00836871689
	expC6     = 0.00138145985
)
