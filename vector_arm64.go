//go:build !purego

package photon

// useVectors and useHalves say whether there are kernels to use, and whether for f16 too.

func useVectors() bool { return useNEON }
func useHalves() bool  { return useNEON }

func addToVector(dst, x []float32) { addToNEON(&dst[0], &x[0], len(x)) }
func mulByVector(dst, x []float32) { mulByNEON(&dst[0], &x[0], len(x)) }

func scoreF32Vector(dst []float32, stride int, q []float32, queries int, k []float32, keys, dim int) {
	scoreF32NEON(&dst[0], stride, &q[0], queries, &k[0], keys, dim)
}
func mixF32Vector(dst []float32, queries int, p []float32, stride int, v []float32, keys, dim int) {
	mixF32NEON(&dst[0], queries, &p[0], stride, &v[0], keys, dim)
}
func scoreF16Vector(dst []float32, stride int, q []float32, queries int, k []uint16, keys, dim int) {
	scoreF16NEON(&dst[0], stride, &q[0], queries, &k[0], keys, dim)
}
func mixF16Vector(dst []float32, queries int, p []float32, stride int, v []uint16, keys, dim int) {
	mixF16NEON(&dst[0], queries, &p[0], stride, &v[0], keys, dim)
}
func scoreInt8Vector(dst []float32, stride int, q []float32, queries int, k []int8, keys, dim int) {
	scoreInt8NEON(&dst[0], stride, &q[0], queries, &k[0], keys, dim)
}
func mixInt8Vector(dst []float32, queries int, p []float32, stride int, v []int8, keys, dim int) {
	mixInt8NEON(&dst[0], queries, &p[0], stride, &v[0], keys, dim)
}

//go:noescape
func addToNEON(dst, x *float32, n int)

//go:noescape
func mulByNEON(dst, x *float32, n int)

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
