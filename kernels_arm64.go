//go:build !purego

package photon

import "golang.org/x/sys/cpu"

// What the processor has: every bit that a family of kernels uses. NEON with fused products is part of every arm64.
var (
	cpuNEON    = cpu.ARM64.HasASIMD
	cpuDotProd = cpuNEON && cpu.ARM64.HasASIMDDP
	cpuI8MM    = cpuDotProd && cpu.ARM64.HasI8MM
	cpuBF16    = cpuNEON && cpu.ARM64.HasCPUID && instructionSet1()>>44&15 != 0
)

// What the kernels may use: the processor's, or less.
var useNEON, useDotProd, useI8MM, useBF16 bool

// kernelTiers are the names that setKernel takes here, best first.
func kernelTiers() []string {
	var names []string
	if cpuNEON {
		names = append(names, "neon")
	}
	if cpuI8MM || cpuBF16 && cpuDotProd {
		names = append(names, "neon-dotprod") // neon without I8MM and BF16
	}
	if cpuDotProd || cpuBF16 {
		names = append(names, "neon-base") // neon without DotProd either
	}
	return append(names, "generic")
}

func useKernel(name string) {
	useNEON = name != "generic"
	useDotProd = cpuDotProd && (name == "neon" || name == "neon-dotprod")
	useI8MM = cpuI8MM && name == "neon"
	useBF16 = cpuBF16 && name == "neon"
}

// kernelName names the kernels in use.
func kernelName() string {
	if useNEON {
		return "neon"
	}
	return "generic"
}

// tileRows is the number of rows up to which the kernels read the weights once, from wherever they are.
func tileRows() int { return 1 }

// floatBlock is the number of inputs of an f32 panel that stay in the cache while so many rows use them.
func floatBlock(rows int) int { return 128 }

// multipliesPairs says whether mulBlockPairs has a kernel.
func multipliesPairs() bool { return useBF16 }

func mulBlockF32(dst []float32, stride int, x []float32, xStride, rows int, w []float32, add bool) {
	k := len(w) / panelWidth
	if !useNEON || k == 0 {
		mulBlockF32Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	checkBlock(len(dst), stride, len(x), xStride, rows, k)
	beginRows(dst, stride, rows, add)
	for r, n := 0, 0; r < rows; r += n {
		d, a := &dst[r*stride], &x[r*xStride]
		switch n = tileOf(rows - r); n {
		case 1:
			mul1F32NEON(d, a, &w[0], k)
		case 2:
			mul2F32NEON(d, stride, a, xStride, &w[0], k)
		case 3:
			mul3F32NEON(d, stride, a, xStride, &w[0], k)
		}
	}
}

func mulBlockBF16(dst []float32, stride int, x []float32, xStride, rows int, w []uint16, add bool) {
	pairs := len(w) / (2 * panelWidth)
	if !useNEON || pairs == 0 {
		mulBlockBF16Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	checkBlock(len(dst), stride, len(x), xStride, rows, 2*pairs)
	beginRows(dst, stride, rows, add)
	for r, n := 0, 0; r < rows; r += n {
		d, a := &dst[r*stride], &x[r*xStride]
		switch n = tileOf(rows - r); n {
		case 1:
			mul1BF16NEON(d, a, &w[0], pairs)
		case 2:
			mul2BF16NEON(d, stride, a, xStride, &w[0], pairs)
		case 3:
			mul3BF16NEON(d, stride, a, xStride, &w[0], pairs)
		}
	}
}

// mulBlockPairs is mulBlockBF16 for activations in bfloat16. xStride is even.
func mulBlockPairs(dst []float32, stride int, x []uint16, xStride, rows int, w []uint16, add bool) {
	pairs := len(w) / (2 * panelWidth)
	checkBlock(len(dst), stride, len(x), xStride, rows, 2*pairs)
	beginRows(dst, stride, rows, add)
	r := 0
	for steps := pairs / 2; steps > 0 && rows-r >= 6; r += 6 {
		for half := range 2 {
			mul6PairsBF16(&dst[r*stride+16*half], stride, &x[r*xStride], xStride/2, &w[32*half], steps)
		}
		if last := 2 * (pairs - 1); pairs%2 != 0 {
			mul3PairsBF16(&dst[r*stride], stride, &x[r*xStride+last], xStride/2, &w[last*panelWidth], 1)
			mul3PairsBF16(&dst[(r+3)*stride], stride, &x[(r+3)*xStride+last], xStride/2, &w[last*panelWidth], 1)
		}
	}
	for n := 0; r < rows; r += n {
		d, a := &dst[r*stride], &x[r*xStride]
		switch n = tileOf(rows - r); n {
		case 1:
			mul1PairsBF16(d, a, &w[0], pairs)
		case 2:
			mul2PairsBF16(d, stride, a, xStride/2, &w[0], pairs)
		case 3:
			mul3PairsBF16(d, stride, a, xStride/2, &w[0], pairs)
		}
	}
}

func mulBlockInt8(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	groups := len(w) / int8Group
	if !useNEON || groups == 0 {
		mulBlockInt8Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	checkBlock(len(dst), stride, len(x), xStride, rows, groups)
	beginRows(dst, stride, rows, add)
	r := 0
	for ; useDotProd && rows-r >= 4; r += 4 {
		if useI8MM {
			mul4Int8I8MM(&dst[r*stride], stride, &x[r*xStride], xStride, &w[0], groups)
		} else {
			mul4Int8DotProd(&dst[r*stride], stride, &x[r*xStride], xStride, &w[0], groups)
		}
	}
	for ; r < rows; r++ {
		if useDotProd {
			mul1Int8DotProd(&dst[r*stride], &x[r*xStride], &w[0], groups)
		} else {
			mul1Int8NEON(&dst[r*stride], &x[r*xStride], &w[0], groups)
		}
	}
}

func mulBlockInt4(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	groups := len(w) / int4Group
	if !useNEON || groups == 0 {
		mulBlockInt4Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	checkBlock(len(dst), stride, len(x), xStride, rows, groups)
	beginRows(dst, stride, rows, add)
	r := 0
	for ; useDotProd && rows-r >= 4; r += 4 {
		if useI8MM {
			mul4Int4I8MM(&dst[r*stride], stride, &x[r*xStride], xStride, &w[0], groups)
		} else {
			mul4Int4DotProd(&dst[r*stride], stride, &x[r*xStride], xStride, &w[0], groups)
		}
	}
	for ; r < rows; r++ {
		if useDotProd {
			mul1Int4DotProd(&dst[r*stride], &x[r*xStride], &w[0], groups)
		} else {
			mul1Int4NEON(&dst[r*stride], &x[r*xStride], &w[0], groups)
		}
	}
}

// rowPanels is the number of panels that a product of one row takes at once. One has chains enough for every pipe.
func (w *matrix) rowPanels() int { return 1 }

func mulRowBF16(dst, x []float32, w, v []uint16, add bool) {
	panic("photon: no kernel takes two panels here")
}
func mulRowPairs(dst []float32, x, w, v []uint16, add bool) {
	panic("photon: no kernel takes two panels here")
}

// tileOf is the number of rows of the next float tile: three, but four rows go two by two.
func tileOf(rows int) int {
	if rows == 4 {
		return 2
	}
	return min(rows, 3)
}

// beginRows clears the rows that kernels are going to add to, unless there is something in them.
func beginRows(dst []float32, stride, rows int, add bool) {
	for r := 0; r < rows && !add; r++ {
		clear(dst[r*stride:][:panelWidth])
	}
}

// narrowRow rounds x to bfloat16.
func narrowRow(dst []uint16, x []float32) {
	if n := len(x) &^ 7; useNEON && n > 0 {
		_ = dst[n-1]
		narrowNEON(&dst[0], &x[0], n)
		dst, x = dst[n:], x[n:]
	}
	narrowRowGeneric(dst, x)
}

// instructionSet1 is ID_AA64ISAR1_EL1, which a program may read where cpu.ARM64.HasCPUID: bits 47…44 tell of BF16, of which
// the cpu package says nothing.
func instructionSet1() uint64

//go:noescape
func mul1F32NEON(dst, x, w *float32, k int)

//go:noescape
func mul2F32NEON(dst *float32, stride int, x *float32, xStride int, w *float32, k int)

//go:noescape
func mul3F32NEON(dst *float32, stride int, x *float32, xStride int, w *float32, k int)

//go:noescape
func mul1BF16NEON(dst, x *float32, w *uint16, pairs int)

//go:noescape
func mul2BF16NEON(dst *float32, stride int, x *float32, xStride int, w *uint16, pairs int)

//go:noescape
func mul3BF16NEON(dst *float32, stride int, x *float32, xStride int, w *uint16, pairs int)

//go:noescape
func mul1PairsBF16(dst *float32, x, w *uint16, pairs int)

//go:noescape
func mul2PairsBF16(dst *float32, stride int, x *uint16, xStride int, w *uint16, pairs int)

//go:noescape
func mul3PairsBF16(dst *float32, stride int, x *uint16, xStride int, w *uint16, pairs int)

//go:noescape
func mul6PairsBF16(dst *float32, stride int, x *uint16, xStride int, w *uint16, steps int)

//go:noescape
func mul1Int8NEON(dst *float32, x *quantGroup, w *byte, groups int)

//go:noescape
func mul1Int4NEON(dst *float32, x *quantGroup, w *byte, groups int)

//go:noescape
func mul1Int8DotProd(dst *float32, x *quantGroup, w *byte, groups int)

//go:noescape
func mul1Int4DotProd(dst *float32, x *quantGroup, w *byte, groups int)

//go:noescape
func mul4Int8DotProd(dst *float32, stride int, x *quantGroup, xStride int, w *byte, groups int)

//go:noescape
func mul4Int4DotProd(dst *float32, stride int, x *quantGroup, xStride int, w *byte, groups int)

//go:noescape
func mul4Int8I8MM(dst *float32, stride int, x *quantGroup, xStride int, w *byte, groups int)

//go:noescape
func mul4Int4I8MM(dst *float32, stride int, x *quantGroup, xStride int, w *byte, groups int)

//go:noescape
func quantizeGroupsNEON(dst *quantGroup, x *float32, groups int, offset int32)

//go:noescape
func roundNEON(dst, x *float32, n int)

//go:noescape
func narrowNEON(dst *uint16, x *float32, n int)

// useVectors and useHalves say whether there are kernels to use, and whether for f16 too.

func useVectors() bool { return useNEON }
func useHalves() bool  { return useNEON }

func quantizeGroups(dst *quantGroup, x *float32, groups int, offset int32) {
	quantizeGroupsNEON(dst, x, groups, offset)
}
func roundVector(dst, x *float32, n int) { roundNEON(dst, x, n) }

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
