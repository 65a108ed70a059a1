//go:build !purego

package photon

import (
	"github.com/viterin/vek/vek32"
	"golang.org/x/sys/cpu"
)

// What the processor has: every bit that a family of kernels uses.
var (
	cpuAVX2    = cpu.X86.HasAVX && cpu.X86.HasAVX2 && cpu.X86.HasFMA
	cpuAVX512  = cpuAVX2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL
	cpuVNNI    = cpuAVX512 && cpu.X86.HasAVX512VNNI
	cpuAVXVNNI = cpuAVX2 && cpu.X86.HasAVXVNNI // AVX-VNNI, the same in registers of AVX2
	cpuBF16    = cpuAVX512 && cpu.X86.HasAVX512BF16
	cpuF16C    = cpu.X86.HasF16C

	// quickPairs says whether VDPBF16PS does more than VFMADD231PS in the same time. It does on Zen 4; Emerald Rapids takes two
	// cycles for it, so that the kernels of float32 with the same weights are the faster ones, and other processors of Intel's,
	// not measured, are taken to be like it.
	quickPairs = cpuBF16 && !isIntel()
)

// What the kernels may use: the processor's, or less.
var useAVX2, useAVX512, useVNNI, useAVXVNNI, useBF16 bool

// kernelTiers are the names that setKernel takes here, best first.
func kernelTiers() []string {
	var names []string
	if cpuAVX512 {
		names = append(names, "avx512")
	}
	if cpuBF16 && !quickPairs {
		names = append(names, "avx512bf16") // avx512 with VDPBF16PS although it is slow
	}
	if cpuVNNI || cpuBF16 {
		names = append(names, "avx512f") // avx512 without VNNI and BF16
	}
	if cpuAVXVNNI {
		names = append(names, "avx2vnni")
	}
	if cpuAVX2 {
		names = append(names, "avx2") // without AVX-VNNI
	}
	return append(names, "generic")
}

func useKernel(name string) {
	useAVX512 = name == "avx512" || name == "avx512bf16" || name == "avx512f"
	useAVX2 = useAVX512 || name == "avx2vnni" || name == "avx2"
	useAVXVNNI = name == "avx2vnni"
	useVNNI = cpuVNNI && name != "avx512f" && useAVX512
	useBF16 = quickPairs && name == "avx512" || cpuBF16 && name == "avx512bf16"
}

// kernelName names the kernels in use.
func kernelName() string {
	switch {
	case useAVX512:
		return "avx512"
	case useAVX2:
		return "avx2"
	}
	return "generic"
}

// tileRows is the number of rows up to which the kernels read the weights once, from wherever they are.
func tileRows() int {
	switch {
	case useAVX512:
		return 6
	case useAVX2:
		return 2
	}
	return 1
}

// floatBlock is the number of inputs of an f32 panel that stay in the cache while so many rows use them: the first-level one,
// or the second-level one under tiles so high that they read little of it.
func floatBlock(rows int) int {
	if useAVX512 && rows > 3*mostRows {
		return 384
	}
	return 128
}

// multipliesPairs says whether mulBlockPairs has a kernel to use.
func multipliesPairs() bool { return useBF16 }

func mulBlockF32(dst []float32, stride int, x []float32, xStride, rows int, w []float32, add bool) {
	k := len(w) / panelWidth
	if !useAVX2 || k == 0 {
		mulBlockF32Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	checkBlock(len(dst), stride, len(x), xStride, rows, k)
	if useAVX512 {
		mulBlockF32AVX512(&dst[0], stride, &x[0], xStride, rows, &w[0], k, add)
	} else {
		mulBlockF32AVX2(&dst[0], stride, &x[0], xStride, rows, &w[0], k, add)
	}
}

func mulBlockBF16(dst []float32, stride int, x []float32, xStride, rows int, w []uint16, add bool) {
	pairs := len(w) / (2 * panelWidth)
	if !useAVX2 || pairs == 0 {
		mulBlockBF16Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	checkBlock(len(dst), stride, len(x), xStride, rows, 2*pairs)
	if useAVX512 {
		mulBlockBF16AVX512(&dst[0], stride, &x[0], xStride, rows, &w[0], pairs, add)
	} else {
		mulBlockBF16AVX2(&dst[0], stride, &x[0], xStride, rows, &w[0], pairs, add)
	}
}

// mulBlockPairs is mulBlockBF16 for activations in bfloat16.
func mulBlockPairs(dst []float32, stride int, x []uint16, xStride, rows int, w []uint16, add bool) {
	pairs := len(w) / (2 * panelWidth)
	checkBlock(len(dst), stride, len(x), xStride, rows, 2*pairs)
	mulBlockPairsAVX512(&dst[0], stride, &x[0], xStride, rows, &w[0], pairs, add)
}

func mulBlockInt8(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	groups := len(w) / int8Group
	if !useAVX2 || groups == 0 {
		mulBlockInt8Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	checkBlock(len(dst), stride, len(x), xStride, rows, groups)
	switch {
	case useVNNI:
		mulBlockInt8AVX512(&dst[0], stride, &x[0], xStride, rows, &w[0], groups, add)
	case useAVXVNNI:
		mulBlockInt8AVXVNNI(&dst[0], stride, &x[0], xStride, rows, &w[0], groups, add)
	default:
		mulBlockInt8AVX2(&dst[0], stride, &x[0], xStride, rows, &w[0], groups, add)
	}
}

func mulBlockInt4(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	groups := len(w) / int4Group
	if !useAVX2 || groups == 0 {
		mulBlockInt4Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	checkBlock(len(dst), stride, len(x), xStride, rows, groups)
	switch {
	case useVNNI:
		mulBlockInt4AVX512(&dst[0], stride, &x[0], xStride, rows, &w[0], groups, add)
	case useAVXVNNI:
		mulBlockInt4AVXVNNI(&dst[0], stride, &x[0], xStride, rows, &w[0], groups, add)
	default:
		mulBlockInt4AVX2(&dst[0], stride, &x[0], xStride, rows, &w[0], groups, add)
	}
}

// rowPanels is the number of panels that a product of one row takes at once.
func (w *matrix) rowPanels() int {
	if useAVX2 && (w.form == BF16 || w.form == bf16Rounded) {
		return 2
	}
	return 1
}

// mulRowBF16 is mulBlockBF16 for one row and two panels w and v, whose outputs stand side by side.
func mulRowBF16(dst, x []float32, w, v []uint16, add bool) {
	pairs := len(w) / (2 * panelWidth)
	checkRow(len(dst), len(x), len(w), len(v), pairs)
	if useAVX512 {
		mulRowBF16AVX512(&dst[0], &x[0], &w[0], &v[0], pairs, add)
	} else {
		mulRowBF16AVX2(&dst[0], &x[0], &w[0], &v[0], pairs, add)
	}
}

// mulRowPairs is mulRowBF16 for activations in bfloat16.
func mulRowPairs(dst []float32, x, w, v []uint16, add bool) {
	pairs := len(w) / (2 * panelWidth)
	checkRow(len(dst), len(x), len(w), len(v), pairs)
	mulRowPairsAVX512(&dst[0], &x[0], &w[0], &v[0], pairs, add)
}

func checkRow(dst, x, w, v, pairs int) {
	if pairs < 1 || w != v || dst < 2*panelWidth || x < 2*pairs {
		panic("photon: matrix kernel: slice too short")
	}
}

// narrowRow rounds x to bfloat16.
func narrowRow(dst []uint16, x []float32) {
	if n := len(x) &^ 15; useAVX512 && n > 0 {
		_ = dst[n-1]
		narrowAVX512(&dst[0], &x[0], n)
		dst, x = dst[n:], x[n:]
	}
	narrowRowGeneric(dst, x)
}

// isIntel says whether the processor is Intel's.
func isIntel() bool

//go:noescape
func mulBlockF32AVX2(dst *float32, stride int, x *float32, xStride, rows int, w *float32, k int, add bool)

//go:noescape
func mulBlockBF16AVX2(dst *float32, stride int, x *float32, xStride, rows int, w *uint16, pairs int, add bool)

//go:noescape
func mulBlockInt8AVX2(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)

//go:noescape
func mulBlockInt4AVX2(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)

//go:noescape
func mulRowBF16AVX2(dst, x *float32, w, v *uint16, pairs int, add bool)

//go:noescape
func quantizeGroupsAVX2(dst *quantGroup, x *float32, groups int, offset int32)

//go:noescape
func roundAVX2(dst, x *float32, n int)

//go:noescape
func mulBlockF32AVX512(dst *float32, stride int, x *float32, xStride, rows int, w *float32, k int, add bool)

//go:noescape
func mulBlockBF16AVX512(dst *float32, stride int, x *float32, xStride, rows int, w *uint16, pairs int, add bool)

//go:noescape
func mulBlockPairsAVX512(dst *float32, stride int, x *uint16, xStride, rows int, w *uint16, pairs int, add bool)

//go:noescape
func mulBlockInt8AVXVNNI(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)

//go:noescape
func mulBlockInt8AVX512(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)

//go:noescape
func mulBlockInt4AVXVNNI(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)

//go:noescape
func mulBlockInt4AVX512(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)

//go:noescape
func mulRowBF16AVX512(dst, x *float32, w, v *uint16, pairs int, add bool)

//go:noescape
func mulRowPairsAVX512(dst *float32, x, w, v *uint16, pairs int, add bool)

//go:noescape
func narrowAVX512(dst *uint16, x *float32, n int)

// useVectors and useHalves say whether there are kernels to use, and whether for f16 too.

func useVectors() bool { return useAVX2 }
func useHalves() bool  { return useAVX2 && cpuF16C }

func quantizeGroups(dst *quantGroup, x *float32, groups int, offset int32) {
	quantizeGroupsAVX2(dst, x, groups, offset)
}
func roundVector(dst, x *float32, n int) { roundAVX2(dst, x, n) }

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
