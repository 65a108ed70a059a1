//go:build !purego

package photon

import (
	"math/rand/v2"
	"runtime/debug"
	"testing"
)

// Blocks of every number of rows, whose slices end where their last element does, touch nothing beyond.
func TestBlockGuardPages(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(22, 0))
		const stride, most = panelWidth + 3, 8
		for rows := 1; rows <= most; rows++ {
			for _, atEnd := range []bool{false, true} {
				dst := guarded(t, make([]float32, (rows-1)*stride+panelWidth), atEnd)
				for k := 2; k <= 14; k += 2 {
					xStride := k + 2
					n := (rows-1)*xStride + k
					x := guarded(t, randomValues(r, n), atEnd)
					mulBlockF32(dst, stride, x, xStride, rows, guarded(t, make([]float32, k*panelWidth), atEnd), false)
					mulBlockF32(dst, stride, x[1:], xStride, rows, guarded(t, make([]float32, (k-1)*panelWidth), atEnd), false)
					w := guarded(t, make([]uint16, k*panelWidth), atEnd)
					mulBlockBF16(dst, stride, x, xStride, rows, w, false)
					if multipliesPairs() {
						mulBlockPairs(dst, stride, guarded(t, make([]uint16, n), atEnd), xStride, rows, w, false)
					}
				}
				for groups := 1; groups <= 2; groups++ {
					xStride := groups + 1
					x := guarded(t, make([]quantGroup, (rows-1)*xStride+groups), atEnd)
					mulBlockInt8(dst, stride, x, xStride, rows, guarded(t, make([]byte, groups*int8Group), atEnd), false)
					mulBlockInt4(dst, stride, x, xStride, rows, guarded(t, make([]byte, groups*int4Group), atEnd), false)
					values := guarded(t, make([]float32, groups*groupSize), atEnd)
					quantizeRow(x[:groups], values, -8)
					roundRow(guarded(t, make([]float32, len(values)), atEnd), values)
					narrowRow(guarded(t, make([]uint16, len(values)), atEnd), values)
				}
			}
		}
	})
}
