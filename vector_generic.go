package photon

import "math"

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
