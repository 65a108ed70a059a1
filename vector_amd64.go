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

func expSumVector(x *float32, n int, top float32, s *lanes) {
	if useAVX512 {
		expSumAVX512(x, n, top, s)
	} else {
		expSumAVX2(x, n, top, s)
	}
}

func mulSiluVector(dst, gate, up *float32, n int) {
	if useAVX512 {
		mulSiluAVX512(dst, gate, up, n)
	} else {
		mulSiluAVX2(dst, gate, up, n)
	}
}

func mixF32Vector(dst, p, w *float32, m *mixShape) {
	if useAVX512 {
		mixF32AVX512(dst, p, w, m)
	} else {
		mixF32AVX2(dst, p, w, m)
	}
}

func mixF16Vector(dst, p *float32, w *uint16, m *mixShape) {
	if useAVX512 {
		mixF16AVX512(dst, p, w, m)
	} else {
		mixF16AVX2(dst, p, w, m)
	}
}

func mixInt8Vector(dst, p *float32, w *int8, m *mixShape) {
	if useAVX512 {
		mixInt8AVX512(dst, p, w, m)
	} else {
		mixInt8AVX2(dst, p, w, m)
	}
}

//go:noescape
func mixF32AVX2(dst, p, w *float32, m *mixShape)

//go:noescape
func mixF16AVX2(dst, p *float32, w *uint16, m *mixShape)

//go:noescape
func mixInt8AVX2(dst, p *float32, w *int8, m *mixShape)

//go:noescape
func mixF32AVX512(dst, p, w *float32, m *mixShape)

//go:noescape
func mixF16AVX512(dst, p *float32, w *uint16, m *mixShape)

//go:noescape
func mixInt8AVX512(dst, p *float32, w *int8, m *mixShape)

//go:noescape
func expSumAVX2(x *float32, n int, top float32, s *lanes)

//go:noescape
func expSumAVX512(x *float32, n int, top float32, s *lanes)

//go:noescape
func mulSiluAVX2(dst, gate, up *float32, n int)

//go:noescape
func mulSiluAVX512(dst, gate, up *float32, n int)
