//go:build !purego

package photon

import (
	"github.com/viterin/vek/vek32"
	"golang.org/x/sys/cpu"
)

var cpuF16C = cpu.X86.HasF16C

// useVectors and useHalves say whether there are kernels to use, and whether for f16 too.

func useVectors() bool { return useAVX2 }
func useHalves() bool  { return useAVX2 && cpuF16C }

func addToVector(dst, x []float32) { vek32.Add_Inplace(dst, x) }
func mulByVector(dst, x []float32) { vek32.Mul_Inplace(dst, x) }

// evenQueries is the number of queries for the kernels on AVX-512, which take them by twos and are worth it from four on. Those
// on AVX2 do what is left.
func evenQueries(queries int) int {
	if !useAVX512 || queries < 4 {
		return 0
	}
	return queries &^ 1
}

// evenScores is evenQueries where scores on AVX-512 have something to do: they take keys and dimensions by eights.
func evenScores(queries, keys, dim int) (even, eights int) {
	if keys < 8 || dim%8 != 0 {
		return 0, 0
	}
	return evenQueries(queries), keys &^ 7
}

func scoreF32Vector(dst []float32, stride int, q []float32, queries int, k []float32, keys, dim int) {
	even, eights := evenScores(queries, keys, dim)
	if even > 0 {
		scoreF32AVX512(&dst[0], stride, &q[0], even, &k[0], eights, dim)
		if eights < keys {
			scoreF32AVX2(&dst[eights], stride, &q[0], even, &k[eights*dim], keys-eights, dim)
		}
	}
	if even < queries {
		scoreF32AVX2(&dst[even*stride], stride, &q[even*dim], queries-even, &k[0], keys, dim)
	}
}

func mixF32Vector(dst []float32, queries int, p []float32, stride int, v []float32, keys, dim int) {
	even := evenQueries(queries)
	if even > 0 {
		mixF32AVX512(&dst[0], even, &p[0], stride, &v[0], keys, dim)
	}
	if even < queries {
		mixF32AVX2(&dst[even*dim], queries-even, &p[even*stride], stride, &v[0], keys, dim)
	}
}

func scoreF16Vector(dst []float32, stride int, q []float32, queries int, k []uint16, keys, dim int) {
	even, eights := evenScores(queries, keys, dim)
	if even > 0 {
		scoreF16AVX512(&dst[0], stride, &q[0], even, &k[0], eights, dim)
		if eights < keys {
			scoreF16AVX2(&dst[eights], stride, &q[0], even, &k[eights*dim], keys-eights, dim)
		}
	}
	if even < queries {
		scoreF16AVX2(&dst[even*stride], stride, &q[even*dim], queries-even, &k[0], keys, dim)
	}
}

func mixF16Vector(dst []float32, queries int, p []float32, stride int, v []uint16, keys, dim int) {
	even := evenQueries(queries)
	if even > 0 {
		mixF16AVX512(&dst[0], even, &p[0], stride, &v[0], keys, dim)
	}
	if even < queries {
		mixF16AVX2(&dst[even*dim], queries-even, &p[even*stride], stride, &v[0], keys, dim)
	}
}

func scoreInt8Vector(dst []float32, stride int, q []float32, queries int, k []int8, keys, dim int) {
	even, eights := evenScores(queries, keys, dim)
	if even > 0 {
		scoreInt8AVX512(&dst[0], stride, &q[0], even, &k[0], eights, dim)
		if eights < keys {
			scoreInt8AVX2(&dst[eights], stride, &q[0], even, &k[eights*dim], keys-eights, dim)
		}
	}
	if even < queries {
		scoreInt8AVX2(&dst[even*stride], stride, &q[even*dim], queries-even, &k[0], keys, dim)
	}
}

func mixInt8Vector(dst []float32, queries int, p []float32, stride int, v []int8, keys, dim int) {
	even := evenQueries(queries)
	if even > 0 {
		mixInt8AVX512(&dst[0], even, &p[0], stride, &v[0], keys, dim)
	}
	if even < queries {
		mixInt8AVX2(&dst[even*dim], queries-even, &p[even*stride], stride, &v[0], keys, dim)
	}
}

//go:noescape
func scoreF32AVX2(dst *float32, stride int, q *float32, queries int, k *float32, keys, dim int)

//go:noescape
func scoreF16AVX2(dst *float32, stride int, q *float32, queries int, k *uint16, keys, dim int)

//go:noescape
func scoreInt8AVX2(dst *float32, stride int, q *float32, queries int, k *int8, keys, dim int)

//go:noescape
func mixF32AVX2(dst *float32, queries int, p *float32, stride int, v *float32, keys, dim int)

//go:noescape
func mixF16AVX2(dst *float32, queries int, p *float32, stride int, v *uint16, keys, dim int)

//go:noescape
func mixInt8AVX2(dst *float32, queries int, p *float32, stride int, v *int8, keys, dim int)

//go:noescape
func scoreF32AVX512(dst *float32, stride int, q *float32, queries int, k *float32, keys, dim int)

//go:noescape
func scoreF16AVX512(dst *float32, stride int, q *float32, queries int, k *uint16, keys, dim int)

//go:noescape
func scoreInt8AVX512(dst *float32, stride int, q *float32, queries int, k *int8, keys, dim int)

//go:noescape
func mixF32AVX512(dst *float32, queries int, p *float32, stride int, v *float32, keys, dim int)

//go:noescape
func mixF16AVX512(dst *float32, queries int, p *float32, stride int, v *uint16, keys, dim int)

//go:noescape
func mixInt8AVX512(dst *float32, queries int, p *float32, stride int, v *int8, keys, dim int)
