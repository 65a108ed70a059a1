//go:build (!amd64 && !arm64 && !(wasm && goexperiment.simd && go1.27)) || purego

package photon

func mulBlockF32(dst []float32, stride int, x []float32, xStride, rows int, w []float32, add bool) {
	mulBlockF32Generic(dst, stride, x, xStride, rows, w, add)
}
func mulBlockBF16(dst []float32, stride int, x []float32, xStride, rows int, w []uint16, add bool) {
	mulBlockBF16Generic(dst, stride, x, xStride, rows, w, add)
}
func mulBlockPairs(dst []float32, stride int, x []uint16, xStride, rows int, w []uint16, add bool) {
	panic("photon: no kernel multiplies pairs here")
}
func mulBlockInt8(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	mulBlockInt8Generic(dst, stride, x, xStride, rows, w, add)
}
func mulBlockInt4(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	mulBlockInt4Generic(dst, stride, x, xStride, rows, w, add)
}

// rowPanels is the number of panels that a product of one row takes at once. Only a kernel that takes two needs mulRow….
func (w *matrix) rowPanels() int { return 1 }

func mulRowBF16(dst, x []float32, w, v []uint16, add bool) {
	panic("photon: no kernel takes two panels here")
}
func mulRowPairs(dst []float32, x, w, v []uint16, add bool) {
	panic("photon: no kernel takes two panels here")
}

func quantizeRow(dst []quantGroup, x []float32, offset int32) { quantizeRowGeneric(dst, x, offset) }
func roundRow(dst, x []float32)                               { roundRowGeneric(dst, x) }
func narrowRow(dst []uint16, x []float32)                     { narrowRowGeneric(dst, x) }

func multipliesPairs() bool { return false }

// tileRows is the number of rows up to which the kernels read the weights once, from wherever they are.
func tileRows() int { return 1 }

// floatBlock is the number of inputs of an f32 panel that stay in the cache while so many rows use them.
func floatBlock(rows int) int { return 128 }

// kernelTiers are the names that setKernel takes here, best first.
func kernelTiers() []string { return []string{"generic"} }
func useKernel(name string) {}
func kernelName() string    { return "generic" }

func sumSquares(x []float32, s *lanes)                    { sumSquaresGeneric(x, s) }
func mulScaled(dst, x, weight []float32, scale float32)   { mulScaledGeneric(dst, x, weight, scale) }
func mulSilu(dst, gate, up []float32)                     { mulSiluGeneric(dst, gate, up) }
func addTo(dst, x []float32)                              { addToGeneric(dst, x) }
func mulBy(dst, x []float32)                              { mulByGeneric(dst, x) }
func scale(dst, x []float32, a float32)                   { scaleGeneric(dst, x, a) }
func rotatePairs(a, b, cos, sin []float32)                { rotatePairsGeneric(a, b, cos, sin) }
func narrowF16(dst []uint16, x []float32)                 { narrowF16Generic(dst, x) }
func narrowInt8(dst []int8, x []float32, inverse float32) { narrowInt8Generic(dst, x, inverse) }
func magnitude(x []float32) float32                       { return magnitudeGeneric(x) }
func maximum(x []float32) float32                         { return maximumGeneric(x) }
func expSum(x []float32, top float32, s *lanes)           { expSumGeneric(x, top, s) }

func mixF32(dst, p, w []float32, m *mixShape)          { mixF32Generic(dst, p, w, m) }
func mixF16(dst, p []float32, w []uint16, m *mixShape) { mixF16Generic(dst, p, w, m) }
func mixInt8(dst, p []float32, w []int8, m *mixShape)  { mixInt8Generic(dst, p, w, m) }
