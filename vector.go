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

// The references of the vector and attention kernels.

func sumSquaresGeneric(x []float32, s *lanes) {
	for ; len(x) >= 8; x = x[8:] {
		s[0] += float32(x[0] * x[0])
		s[1] += float32(x[1] * x[1])
		s[2] += float32(x[2] * x[2])
		s[3] += float32(x[3] * x[3])
		s[4] += float32(x[4] * x[4])
		s[5] += float32(x[5] * x[5])
		s[6] += float32(x[6] * x[6])
		s[7] += float32(x[7] * x[7])
	}
	for i, v := range x {
		s[i] += float32(v * v)
	}
}

func mulScaledGeneric(dst, x, weight []float32, scale float32) {
	dst, weight = dst[:len(x)], weight[:len(x)]
	for i, v := range x {
		dst[i] = float32(v*scale) * weight[i]
	}
}

// mulSiluGeneric has e = e^-|g|, so that silu(g) is g/(1+e) or, where g is negative, g·e/(1+e).
func mulSiluGeneric(dst, gate, up []float32) {
	dst, up = dst[:len(gate)], up[:len(gate)]
	for i, g := range gate {
		bits := math.Float32bits(g)
		e := exp32(math.Float32frombits(bits | 1<<31))
		if bits>>31 != 0 {
			g *= e
		}
		dst[i] = g / (1 + e) * up[i]
	}
}

func addToGeneric(dst, x []float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] += v
	}
}

func mulByGeneric(dst, x []float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] *= v
	}
}

func scaleGeneric(dst, x []float32, a float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] = v * a
	}
}

func rotatePairsGeneric(a, b, cos, sin []float32) {
	b, cos, sin = b[:len(a)], cos[:len(a)], sin[:len(a)]
	for i, u := range a {
		v, c, s := b[i], cos[i], sin[i]
		a[i] = float32(u*c) - float32(v*s)
		b[i] = float32(v*c) + float32(u*s)
	}
}

func narrowF16Generic(dst []uint16, x []float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] = f32ToF16(v)
	}
}

// narrowInt8Generic rounds x·inverse, at most 127 in magnitude, to the nearest integers, ties to even.
func narrowInt8Generic(dst []int8, x []float32, inverse float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] = int8(roundToInt(float32(v * inverse)))
	}
}

// magnitudeGeneric is the largest magnitude; NaN beats infinity.
func magnitudeGeneric(x []float32) float32 {
	most := uint32(0)
	for _, v := range x {
		most = max(most, math.Float32bits(v)&^(1<<31))
	}
	return math.Float32frombits(most)
}

func maximumGeneric(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		top = max(top, v)
	}
	return top
}

func expSumGeneric(x []float32, top float32, s *lanes) {
	for i, v := range x {
		e := exp32(v - top)
		x[i] = e
		s[i&7] += e
	}
}

// dot is Σ a[i]·b[i] in eight lanes.
func dot(a, b []float32) float32 {
	var s lanes
	for ; len(a) >= 8 && len(b) >= 8; a, b = a[8:], b[8:] {
		s[0] += a[0] * b[0]
		s[1] += a[1] * b[1]
		s[2] += a[2] * b[2]
		s[3] += a[3] * b[3]
		s[4] += a[4] * b[4]
		s[5] += a[5] * b[5]
		s[6] += a[6] * b[6]
		s[7] += a[7] * b[7]
	}
	for i, v := range a {
		s[i] += v * b[i]
	}
	return s.sum()
}

// axpy adds a·x to dst.
func axpy(dst []float32, a float32, x []float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] += a * v
	}
}

// scoreF32Generic writes dst[i, j] = q_i · k_j. q is [queries × dim], k [keys × dim], dst has rows stride apart.
func scoreF32Generic(dst []float32, stride int, q, k []float32, dim int) {
	for j := range len(k) / dim {
		for i := range len(q) / dim {
			dst[i*stride+j] = dot(q[i*dim:][:dim], k[j*dim:][:dim])
		}
	}
}

// mixF32Generic adds Σ_j p[i, j]·v_j to dst_i, j ascending. dst is [queries × dim], v [keys × dim], p has rows stride apart.
func mixF32Generic(dst, p []float32, stride int, v []float32, dim int) {
	for j := range len(v) / dim {
		for i := range len(dst) / dim {
			axpy(dst[i*dim:][:dim], p[i*stride+j], v[j*dim:][:dim])
		}
	}
}

// The other forms are widened, exactly, some elements at a time.
const widened = 128

func scoreF16Generic(dst []float32, stride int, q []float32, k []uint16, dim int) {
	var wide [widened]float32
	for j := range len(k) / dim {
		for at := 0; at < dim; at += widened {
			scorePart(dst[j:], stride, q, widenF16(&wide, k[j*dim+at:(j+1)*dim]), at, dim)
		}
	}
}

func mixF16Generic(dst, p []float32, stride int, v []uint16, dim int) {
	var wide [widened]float32
	for j := range len(v) / dim {
		for at := 0; at < dim; at += widened {
			mixPart(dst, p[j:], stride, widenF16(&wide, v[j*dim+at:(j+1)*dim]), at, dim)
		}
	}
}

func scoreInt8Generic(dst []float32, stride int, q []float32, k []int8, dim int) {
	var wide [widened]float32
	for j := range len(k) / dim {
		for at := 0; at < dim; at += widened {
			scorePart(dst[j:], stride, q, widenInt8(&wide, k[j*dim+at:(j+1)*dim]), at, dim)
		}
	}
}

func mixInt8Generic(dst, p []float32, stride int, v []int8, dim int) {
	var wide [widened]float32
	for j := range len(v) / dim {
		for at := 0; at < dim; at += widened {
			mixPart(dst, p[j:], stride, widenInt8(&wide, v[j*dim+at:(j+1)*dim]), at, dim)
		}
	}
}

func widenF16(wide *[widened]float32, x []uint16) []float32 {
	n := min(len(x), widened)
	for i, v := range x[:n] {
		wide[i] = f16ToF32(v)
	}
	return wide[:n]
}

func widenInt8(wide *[widened]float32, x []int8) []float32 {
	n := min(len(x), widened)
	for i, v := range x[:n] {
		wide[i] = float32(v)
	}
	return wide[:n]
}

// scorePart begins or adds to the scores of one key whose elements from at on are k.
func scorePart(dst []float32, stride int, q, k []float32, at, dim int) {
	for i := range len(q) / dim {
		s := dot(q[i*dim+at:][:len(k)], k)
		if at > 0 {
			s += dst[i*stride]
		}
		dst[i*stride] = s
	}
}

func mixPart(dst, p []float32, stride int, v []float32, at, dim int) {
	for i := range len(dst) / dim {
		axpy(dst[i*dim+at:][:len(v)], p[i*stride], v)
	}
}
