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

// softmax is the state of a softmax over scores that come in blocks. Of n finite scores no weight is further than 2 + n/8 units
// in the last place from the exact one. A NaN or +Inf among them makes the sum NaN, and so does a block of nothing but -Inf;
// besides finite ones a -Inf weighs nothing.
type softmax struct {
	top float32 // the largest score
	sum float32 // Σ e^(score - top)
}

// weigh turns a block of scores into their weights e^(score - top).
func weigh(scores []float32) softmax {
	top := maximum(scores)
	var l lanes
	expSum(scores, top, &l)
	return softmax{top, l.sum()}
}

// join adds the next block to s. What was weighted before must be multiplied by shrink, and what the block weighted by weight.
func (s *softmax) join(next softmax) (shrink, weight float32) {
	shrink, weight = 1, 1
	if next.top <= s.top {
		weight = exp32(next.top - s.top)
	} else {
		shrink = exp32(s.top - next.top)
		s.top = next.top
	}
	s.sum = float32(s.sum*shrink) + float32(next.sum*weight)
	return shrink, weight
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

// mixShape is the shape of a kernel of attention: sums dst_i (+)= Σ_s p[i, s]·w_s of rows w_s, s ascending. Both of attention's
// products are such: values mixed by a query's weights, and, for the scores, the elements of many keys mixed by a query's own.
type mixShape struct {
	queries int  // i
	stride  int  // from a row of dst to the next
	pStride int  // from a row of p to the next
	steps   int  // s
	step    int  // from a row of w to the next
	panel   int  // from 64 elements of a row of w to the next 64
	lanes   int  // elements of a row
	begin   bool // the sums begin here, not with what dst holds
}

const keyPanel = 64

// valueMix mixes keys rows of dim elements, one behind the other.
func valueMix(queries, pStride, keys, dim int) mixShape {
	return mixShape{queries: queries, stride: dim, pStride: pStride, steps: keys, step: dim, panel: keyPanel, lanes: dim}
}

// keyMix mixes panels of keys [panels][dim][panel] by queries of dim elements. Of the last panel it takes what makes keys.
func keyMix(queries, stride, keys, panel, dim int) mixShape {
	return mixShape{queries: queries, stride: stride, pStride: dim, steps: dim, step: panel, panel: dim * panel, lanes: keys, begin: true}
}

// extent is the number of elements of w from the first to the last.
func (m *mixShape) extent() int {
	return (m.lanes-1)/keyPanel*m.panel + (m.steps-1)*m.step + (m.lanes-1)%keyPanel + 1
}

// mixF32Generic is the reference of every kernel of attention.
func mixF32Generic(dst, p, w []float32, m *mixShape) {
	for i := range m.queries {
		weights := p[i*m.pStride:][:m.steps]
		for at := 0; at < m.lanes; at += 8 {
			out := dst[i*m.stride+at:][:min(8, m.lanes-at)]
			if m.begin {
				clear(out)
			}
			rows := w[at/keyPanel*m.panel+at%keyPanel:]
			if len(out) < 8 {
				for s, a := range weights {
					for j, v := range rows[s*m.step:][:len(out)] {
						out[j] += a * v
					}
				}
				continue
			}
			a0, a1, a2, a3, a4, a5, a6, a7 := out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7]
			for s, a := range weights {
				v := rows[s*m.step:][:8]
				a0 += a * v[0]
				a1 += a * v[1]
				a2 += a * v[2]
				a3 += a * v[3]
				a4 += a * v[4]
				a5 += a * v[5]
				a6 += a * v[6]
				a7 += a * v[7]
			}
			out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7] = a0, a1, a2, a3, a4, a5, a6, a7
		}
	}
}

func mixF16Generic(dst, p []float32, w []uint16, m *mixShape) { mixWidened(dst, p, w, m, true) }
func mixInt8Generic(dst, p []float32, w []int8, m *mixShape)  { mixWidened(dst, p, w, m, true) }

// mixWidened widens some steps of a few lanes, exactly, for all queries, and mixes those by mixF32 or its reference.
func mixWidened[T uint16 | int8](dst, p []float32, w []T, m *mixShape, generic bool) {
	const lanes, steps = 32, 16
	var wide [steps * lanes]float32
	for at := 0; at < m.lanes; at += lanes {
		rows := w[at/keyPanel*m.panel+at%keyPanel:]
		for s := 0; s < m.steps; s += steps {
			part := *m
			part.lanes, part.steps, part.step, part.begin = min(lanes, m.lanes-at), min(steps, m.steps-s), lanes, m.begin && s == 0
			for j := range part.steps {
				widen(wide[j*lanes:], rows[(s+j)*m.step:][:part.lanes])
			}
			if generic {
				mixF32Generic(dst[at:], p[s:], wide[:], &part)
			} else {
				mixF32(dst[at:], p[s:], wide[:], &part)
			}
		}
	}
}

func widen[T uint16 | int8](wide []float32, w []T) {
	wide = wide[:len(w)]
	switch w := any(w).(type) {
	case []uint16:
		for i, v := range w {
			wide[i] = f16ToF32(v)
		}
	case []int8:
		for i, v := range w {
			wide[i] = float32(v)
		}
	}
}
