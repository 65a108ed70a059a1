//go:build !purego

package photon

// The kernels take whole vectors of eight; what is left over is done by their references, which round the same.

func sumSquares(x []float32, s *lanes) {
	if n := len(x) &^ 7; useNEON && n > 0 {
		raceRead(x[:n])
		sumSquaresNEON(&x[0], n, s)
		x = x[n:]
	}
	sumSquaresGeneric(x, s)
}

func mulScaled(dst, x, weight []float32, scale float32) {
	if n := len(x) &^ 7; useNEON && n > 0 {
		_, _ = dst[n-1], weight[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		raceRead(weight[:n])
		mulScaledNEON(&dst[0], &x[0], &weight[0], n, scale)
		dst, x, weight = dst[n:], x[n:], weight[n:]
	}
	mulScaledGeneric(dst, x, weight, scale)
}

func mulSilu(dst, gate, up []float32) {
	if n := len(gate) &^ 7; useNEON && n > 0 {
		_, _ = dst[n-1], up[n-1]
		raceWrite(dst[:n])
		raceRead(gate[:n])
		raceRead(up[:n])
		mulSiluNEON(&dst[0], &gate[0], &up[0], n)
		dst, gate, up = dst[n:], gate[n:], up[n:]
	}
	mulSiluGeneric(dst, gate, up)
}

func addTo(dst, x []float32) {
	if n := len(x) &^ 7; useNEON && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		addToNEON(&dst[0], &x[0], n)
		dst, x = dst[n:], x[n:]
	}
	addToGeneric(dst, x)
}

func mulBy(dst, x []float32) {
	if n := len(x) &^ 7; useNEON && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		mulByNEON(&dst[0], &x[0], n)
		dst, x = dst[n:], x[n:]
	}
	mulByGeneric(dst, x)
}

func scale(dst, x []float32, a float32) {
	if n := len(x) &^ 7; useNEON && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		scaleNEON(&dst[0], &x[0], n, a)
		dst, x = dst[n:], x[n:]
	}
	scaleGeneric(dst, x, a)
}

func rotatePairs(a, b, cos, sin []float32) {
	if n := len(a) &^ 7; useNEON && n > 0 {
		_, _, _ = b[n-1], cos[n-1], sin[n-1]
		raceWrite(a[:n])
		raceWrite(b[:n])
		raceRead(cos[:n])
		raceRead(sin[:n])
		rotatePairsNEON(&a[0], &b[0], &cos[0], &sin[0], n)
		a, b, cos, sin = a[n:], b[n:], cos[n:], sin[n:]
	}
	rotatePairsGeneric(a, b, cos, sin)
}

// narrowF16 rounds x to half precision.
func narrowF16(dst []uint16, x []float32) {
	if n := len(x) &^ 7; useNEON && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		narrowF16NEON(&dst[0], &x[0], n)
		dst, x = dst[n:], x[n:]
	}
	narrowF16Generic(dst, x)
}

func maximum(x []float32) float32 {
	n := len(x) &^ 7
	if !useNEON || n == 0 {
		return maximumGeneric(x)
	}
	raceRead(x[:n])
	return max(maximumNEON(&x[0], n), maximumGeneric(x[n:]))
}

func expSum(x []float32, top float32, s *lanes) {
	if n := len(x) &^ 7; useNEON && n > 0 {
		raceWrite(x[:n])
		expSumNEON(&x[0], n, top, s)
		x = x[n:]
	}
	expSumGeneric(x, top, s)
}

func scoreF32(dst []float32, stride int, q, k []float32, dim int) {
	queries, keys := len(q)/dim, len(k)/dim
	if !useNEON || dim%4 != 0 || queries*keys == 0 {
		scoreF32Generic(dst, stride, q, k, dim)
		return
	}
	_ = dst[(queries-1)*stride+keys-1]
	raceWriteRows(dst, stride, keys, queries)
	raceRead(q)
	raceRead(k)
	scoreF32NEON(&dst[0], stride, &q[0], queries, &k[0], keys, dim)
}

func mixF32(dst, p []float32, stride int, v []float32, dim int) {
	queries, keys := len(dst)/dim, len(v)/dim
	if !useNEON || dim%4 != 0 || queries*keys == 0 {
		mixF32Generic(dst, p, stride, v, dim)
		return
	}
	_ = p[(queries-1)*stride+keys-1]
	raceWrite(dst)
	raceReadRows(p, stride, keys, queries)
	raceRead(v)
	mixF32NEON(&dst[0], queries, &p[0], stride, &v[0], keys, dim)
}

func scoreF16(dst []float32, stride int, q []float32, k []uint16, dim int) {
	queries, keys := len(q)/dim, len(k)/dim
	if !useNEON || dim%4 != 0 || queries*keys == 0 {
		scoreF16Generic(dst, stride, q, k, dim)
		return
	}
	_ = dst[(queries-1)*stride+keys-1]
	raceWriteRows(dst, stride, keys, queries)
	raceRead(q)
	raceRead(k)
	scoreF16NEON(&dst[0], stride, &q[0], queries, &k[0], keys, dim)
}

func mixF16(dst, p []float32, stride int, v []uint16, dim int) {
	queries, keys := len(dst)/dim, len(v)/dim
	if !useNEON || dim%4 != 0 || queries*keys == 0 {
		mixF16Generic(dst, p, stride, v, dim)
		return
	}
	_ = p[(queries-1)*stride+keys-1]
	raceWrite(dst)
	raceReadRows(p, stride, keys, queries)
	raceRead(v)
	mixF16NEON(&dst[0], queries, &p[0], stride, &v[0], keys, dim)
}

func scoreInt8(dst []float32, stride int, q []float32, k []int8, dim int) {
	queries, keys := len(q)/dim, len(k)/dim
	if !useNEON || dim%4 != 0 || queries*keys == 0 {
		scoreInt8Generic(dst, stride, q, k, dim)
		return
	}
	_ = dst[(queries-1)*stride+keys-1]
	raceWriteRows(dst, stride, keys, queries)
	raceRead(q)
	raceRead(k)
	scoreInt8NEON(&dst[0], stride, &q[0], queries, &k[0], keys, dim)
}

func mixInt8(dst, p []float32, stride int, v []int8, dim int) {
	queries, keys := len(dst)/dim, len(v)/dim
	if !useNEON || dim%4 != 0 || queries*keys == 0 {
		mixInt8Generic(dst, p, stride, v, dim)
		return
	}
	_ = p[(queries-1)*stride+keys-1]
	raceWrite(dst)
	raceReadRows(p, stride, keys, queries)
	raceRead(v)
	mixInt8NEON(&dst[0], queries, &p[0], stride, &v[0], keys, dim)
}

//go:noescape
func sumSquaresNEON(x *float32, n int, s *lanes)

//go:noescape
func mulScaledNEON(dst, x, weight *float32, n int, scale float32)

//go:noescape
func mulSiluNEON(dst, gate, up *float32, n int)

//go:noescape
func addToNEON(dst, x *float32, n int)

//go:noescape
func mulByNEON(dst, x *float32, n int)

//go:noescape
func scaleNEON(dst, x *float32, n int, a float32)

//go:noescape
func rotatePairsNEON(a, b, cos, sin *float32, n int)

//go:noescape
func narrowF16NEON(dst *uint16, x *float32, n int)

//go:noescape
func maximumNEON(x *float32, n int) float32

//go:noescape
func expSumNEON(x *float32, n int, top float32, s *lanes)

//go:noescape
func scoreF32NEON(dst *float32, stride int, q *float32, queries int, k *float32, keys, dim int)

//go:noescape
func scoreF16NEON(dst *float32, stride int, q *float32, queries int, k *uint16, keys, dim int)

//go:noescape
func scoreInt8NEON(dst *float32, stride int, q *float32, queries int, k *int8, keys, dim int)

//go:noescape
func mixF32NEON(dst *float32, queries int, p *float32, stride int, v *float32, keys, dim int)

//go:noescape
func mixF16NEON(dst *float32, queries int, p *float32, stride int, v *uint16, keys, dim int)

//go:noescape
func mixInt8NEON(dst *float32, queries int, p *float32, stride int, v *int8, keys, dim int)
