package photon

import "math"

// dot is Σ a[i]·b[i] in eight interleaved sums, added pairwise.
func dot(a, b []float32) float32 {
	b = b[:len(a)]
	var s [8]float32
	i := 0
	for ; i+8 <= len(a); i += 8 {
		x, y := a[i:i+8:i+8], b[i:i+8:i+8]
		s[0] += x[0] * y[0]
		s[1] += x[1] * y[1]
		s[2] += x[2] * y[2]
		s[3] += x[3] * y[3]
		s[4] += x[4] * y[4]
		s[5] += x[5] * y[5]
		s[6] += x[6] * y[6]
		s[7] += x[7] * y[7]
	}
	for j := 0; i < len(a); i, j = i+1, j+1 {
		s[j] += a[i] * b[i]
	}
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

// axpy adds a·x to dst.
func axpy(dst []float32, a float32, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] += a * x[i]
	}
}

// add adds x to dst.
func add(dst, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] += x[i]
	}
}

// rmsNorm writes x / sqrt(mean(x²) + eps) · weight to dst, which may be x. (model: RMSNorm in float32)
func rmsNorm(dst, x, weight []float32, eps float32) {
	scale := float32(1 / math.Sqrt(float64(dot(x, x)/float32(len(x)))+float64(eps)))
	for i, w := range weight {
		dst[i] = x[i] * scale * w
	}
}

// siluGate writes silu(gate) ⊙ up to dst, which may be gate.
func siluGate(dst, gate, up []float32) {
	for i, g := range gate {
		dst[i] = g / (1 + exp32(-g)) * up[i]
	}
}

// softmax turns x into exp(x - max(x)) and returns their sum.
func softmax(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		top = max(top, v)
	}
	var s [8]float32
	for i, v := range x {
		e := exp32(v - top)
		x[i] = e
		s[i&7] += e
	}
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

// exp32 is e^x within 2 units in the last place: x = n·ln2 + r with |r| ≤ ln2/2, and a polynomial for e^r.
// Below -87.33 it is 0, above 88.72 it is +Inf; NaN stays NaN.
func exp32(x float32) float32 {
	const (
		ln2Hi = 0.693145751953125
		ln2Lo = 1.42860682030941723212e-6
	)
	switch {
	case x != x:
		return x
	case x > 88.722839:
		return float32(math.Inf(1))
	case x < -87.336545:
		return 0
	}
	n := float32(math.RoundToEven(float64(x * math.Log2E)))
	r := float32(x - float32(n*ln2Hi))
	r = float32(r - float32(n*ln2Lo))
	p := float32(1.0 / 5040)
	p = float32(p*r) + 1.0/720
	p = float32(p*r) + 1.0/120
	p = float32(p*r) + 1.0/24
	p = float32(p*r) + 1.0/6
	p = float32(p*r) + 0.5
	p = float32(p*r) + 1
	p = float32(p*r) + 1
	// 2^n in two factors: n may be 128.
	half := int32(n) / 2
	return p * math.Float32frombits(uint32(half+127)<<23) * math.Float32frombits(uint32(int32(n)-half+127)<<23)
}

// rotate applies RoPE to one head, half-split: (x_i, x_(i+h)) turns by the angle whose cosine and sine stand at i.
func rotate(x, cos, sin []float32) {
	half := len(cos)
	a, b := x[:half], x[half:2*half]
	for i, c := range cos {
		s := sin[i]
		u, v := a[i], b[i]
		a[i] = float32(u*c) - float32(v*s)
		b[i] = float32(v*c) + float32(u*s)
	}
}
