//go:build !purego

package photon

// useVectors and useHalves say whether there are kernels to use, and whether for f16 too.

func useVectors() bool { return useNEON }
func useHalves() bool  { return useNEON }

func addToVector(dst, x []float32) { addToNEON(&dst[0], &x[0], len(x)) }
func mulByVector(dst, x []float32) { mulByNEON(&dst[0], &x[0], len(x)) }

//go:noescape
func addToNEON(dst, x *float32, n int)

//go:noescape
func mulByNEON(dst, x *float32, n int)

//go:noescape
func mixF32Vector(dst, p, w *float32, m *mixShape)

//go:noescape
func mixF16Vector(dst, p *float32, w *uint16, m *mixShape)

//go:noescape
func mixInt8Vector(dst, p *float32, w *int8, m *mixShape)

//go:noescape
func expSumVector(x *float32, n int, top float32, s *lanes)

//go:noescape
func mulSiluVector(dst, gate, up *float32, n int)
