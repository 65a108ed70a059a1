//go:build (amd64 || arm64) && !purego

package photon

import "math"

// The wrappers that amd64 and arm64 share. What stands in kernels_amd64.go and kernels_arm64.go chooses among the
// kernels of each machine.

// checkBlock panics unless dst and x hold what a product's kernel will touch: at least one row, k steps of x in each.
func checkBlock(dst, stride, x, xStride, rows, k int) {
	if rows < 1 || stride < panelWidth || xStride < k || dst < (rows-1)*stride+panelWidth || x < (rows-1)*xStride+k {
		panic("photon: matrix kernel: slice too short")
	}
}

// quantizeRow fills dst [ceil(len(x)/32)] from x.
func quantizeRow(dst []quantGroup, x []float32, offset int32) {
	whole := len(x) / groupSize
	if !useVectors() || whole == 0 {
		quantizeRowGeneric(dst, x, offset)
		return
	}
	_ = dst[whole-1]
	quantizeGroups(&dst[0], &x[0], whole, offset)
	quantizeRowGeneric(dst[whole:], x[whole*groupSize:], offset)
}

// roundRow rounds x to bfloat16, in float32.
func roundRow(dst, x []float32) {
	if n := len(x) &^ 7; useVectors() && n > 0 {
		_ = dst[n-1]
		roundVector(&dst[0], &x[0], n)
		dst, x = dst[n:], x[n:]
	}
	roundRowGeneric(dst, x)
}

// The kernels take whole vectors of eight; what is left over is done by their references, which round the same.

func sumSquares(x []float32, s *lanes) {
	if n := len(x) &^ 7; useVectors() && n > 0 {
		raceRead(x[:n])
		sumSquaresVector(&x[0], n, s)
		x = x[n:]
	}
	sumSquaresGeneric(x, s)
}

func mulScaled(dst, x, weight []float32, scale float32) {
	if n := len(x) &^ 7; useVectors() && n > 0 {
		_, _ = dst[n-1], weight[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		raceRead(weight[:n])
		mulScaledVector(&dst[0], &x[0], &weight[0], n, scale)
		dst, x, weight = dst[n:], x[n:], weight[n:]
	}
	mulScaledGeneric(dst, x, weight, scale)
}

func mulSilu(dst, gate, up []float32) {
	if n := len(gate) &^ 7; useVectors() && n > 0 {
		_, _ = dst[n-1], up[n-1]
		raceWrite(dst[:n])
		raceRead(gate[:n])
		raceRead(up[:n])
		mulSiluVector(&dst[0], &gate[0], &up[0], n)
		dst, gate, up = dst[n:], gate[n:], up[n:]
	}
	mulSiluGeneric(dst, gate, up)
}

func addTo(dst, x []float32) {
	if n := len(x) &^ 7; useVectors() && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		addToVector(dst[:n], x[:n])
		dst, x = dst[n:], x[n:]
	}
	addToGeneric(dst, x)
}

func mulBy(dst, x []float32) {
	if n := len(x) &^ 7; useVectors() && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		mulByVector(dst[:n], x[:n])
		dst, x = dst[n:], x[n:]
	}
	mulByGeneric(dst, x)
}

func scale(dst, x []float32, a float32) {
	if n := len(x) &^ 7; useVectors() && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		scaleVector(&dst[0], &x[0], n, a)
		dst, x = dst[n:], x[n:]
	}
	scaleGeneric(dst, x, a)
}

func rotatePairs(a, b, cos, sin []float32) {
	if n := len(a) &^ 7; useVectors() && n > 0 {
		_, _, _ = b[n-1], cos[n-1], sin[n-1]
		raceWrite(a[:n])
		raceWrite(b[:n])
		raceRead(cos[:n])
		raceRead(sin[:n])
		rotatePairsVector(&a[0], &b[0], &cos[0], &sin[0], n)
		a, b, cos, sin = a[n:], b[n:], cos[n:], sin[n:]
	}
	rotatePairsGeneric(a, b, cos, sin)
}

// narrowF16 rounds x to half precision.
func narrowF16(dst []uint16, x []float32) {
	if n := len(x) &^ 7; useHalves() && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		narrowF16Vector(&dst[0], &x[0], n)
		dst, x = dst[n:], x[n:]
	}
	narrowF16Generic(dst, x)
}

// narrowInt8 rounds x·inverse to whole numbers.
func narrowInt8(dst []int8, x []float32, inverse float32) {
	if n := len(x) &^ 7; useVectors() && n > 0 {
		_ = dst[n-1]
		raceWrite(dst[:n])
		raceRead(x[:n])
		narrowInt8Vector(&dst[0], &x[0], n, inverse)
		dst, x = dst[n:], x[n:]
	}
	narrowInt8Generic(dst, x, inverse)
}

// magnitude is the largest magnitude.
func magnitude(x []float32) float32 {
	n := len(x) &^ 7
	if !useVectors() || n == 0 {
		return magnitudeGeneric(x)
	}
	raceRead(x[:n])
	most := math.Float32bits(magnitudeVector(&x[0], n))
	return math.Float32frombits(max(most, math.Float32bits(magnitudeGeneric(x[n:]))))
}

func maximum(x []float32) float32 {
	n := len(x) &^ 7
	if !useVectors() || n == 0 {
		return maximumGeneric(x)
	}
	raceRead(x[:n])
	return max(maximumVector(&x[0], n), maximumGeneric(x[n:]))
}

func expSum(x []float32, top float32, s *lanes) {
	if n := len(x) &^ 7; useVectors() && n > 0 {
		raceWrite(x[:n])
		expSumVector(&x[0], n, top, s)
		x = x[n:]
	}
	expSumGeneric(x, top, s)
}

// The kernels of attention take whole vectors of four.

func mixF32(dst, p, w []float32, m *mixShape) {
	if !useVectors() || m.lanes%4 != 0 || m.empty() {
		mixF32Generic(dst, p, w, m)
		return
	}
	beginMix(dst, p, w, m)
	mixF32Vector(&dst[0], &p[0], &w[0], m)
}

func mixF16(dst, p []float32, w []uint16, m *mixShape) {
	if !useHalves() || m.lanes%4 != 0 || m.empty() {
		mixF16Generic(dst, p, w, m)
		return
	}
	beginMix(dst, p, w, m)
	mixF16Vector(&dst[0], &p[0], &w[0], m)
}

func mixInt8(dst, p []float32, w []int8, m *mixShape) {
	if !useVectors() || m.lanes%4 != 0 || m.empty() {
		mixInt8Generic(dst, p, w, m)
		return
	}
	beginMix(dst, p, w, m)
	mixInt8Vector(&dst[0], &p[0], &w[0], m)
}

func (m *mixShape) empty() bool { return m.queries <= 0 || m.steps <= 0 || m.lanes <= 0 }

// beginMix panics if a slice ends before the kernel does, and tells the race detector what the kernel touches.
func beginMix[T any](dst, p []float32, w []T, m *mixShape) {
	_ = p[(m.queries-1)*m.pStride+m.steps-1]
	_ = dst[(m.queries-1)*m.stride+m.lanes-1]
	raceRead(w[:m.extent()])
	raceReadRows(p, m.pStride, m.steps, m.queries)
	raceWriteRows(dst, m.stride, m.lanes, m.queries)
}

//go:noescape
func sumSquaresVector(x *float32, n int, s *lanes)

//go:noescape
func mulScaledVector(dst, x, weight *float32, n int, scale float32)

//go:noescape
func scaleVector(dst, x *float32, n int, a float32)

//go:noescape
func rotatePairsVector(a, b, cos, sin *float32, n int)

//go:noescape
func narrowF16Vector(dst *uint16, x *float32, n int)

//go:noescape
func narrowInt8Vector(dst *int8, x *float32, n int, inverse float32)

//go:noescape
func magnitudeVector(x *float32, n int) float32

//go:noescape
func maximumVector(x *float32, n int) float32
