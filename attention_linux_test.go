package photon

import (
	"math/rand/v2"
	"runtime/debug"
	"testing"
)

// The attention kernels touch nothing outside their slices.
func TestAttentionGuardPages(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	eachKernel(t, func(t *testing.T) {
		for _, typ := range cacheTypes {
			r := rand.New(rand.NewPCG(31, uint64(typ)))
			for n := 1; n <= 80; n++ {
				queries, steps := 1+n%7, 1+n%10
				for _, m := range []mixShape{valueMix(queries, steps, steps, n), keyMix(queries, 16*steps, 16*steps, wholePanels(16*steps)/((16*steps+63)/64), n)} {
					p, w := randomValues(r, queries*m.pStride), newTestRows(typ, randomValues(r, m.extent()))
					want := make([]float32, queries*m.stride)
					mixForm(typ, want, p, w, &m)
					for _, atEnd := range []bool{false, true} {
						var in kvRows
						switch typ {
						case CacheF32:
							in.f32 = guarded(t, w.f32, atEnd)
						case CacheF16:
							in.f16 = guarded(t, w.f16, atEnd)
						case CacheInt8:
							in.i8 = guarded(t, w.i8, atEnd)
						}
						got := guarded(t, make([]float32, len(want)), atEnd)
						mixForm(typ, got, guarded(t, p, atEnd), &in, &m)
						if !sameBits(got, want) {
							t.Fatalf("%v: %+v: another result between guard pages", typ, m)
						}
					}
				}
			}
		}
	})
}

// The vector kernels touch nothing outside their slices.
func TestVectorGuardPages(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(32, 0))
		for n := 1; n <= 70; n++ {
			for _, atEnd := range []bool{false, true} {
				var v [4][]float32
				for i := range v {
					v[i] = guarded(t, randomValues(r, n), atEnd)
				}
				rmsNorm(v[0], v[1], v[2], 1e-5)
				siluGate(v[0], v[1], v[2])
				add(v[0], v[1])
				mulBy(v[0], v[1])
				scale(v[0], v[1], 0.5)
				rotatePairs(v[0], v[1], v[2], v[3])
				narrowF16(guarded(t, make([]uint16, n), atEnd), v[1])
				narrowInt8(guarded(t, make([]int8, n), atEnd), v[2], 1/magnitude(v[2]))
				weigh(v[3])
			}
		}
	})
}
