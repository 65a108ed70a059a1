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
			for dim := 1; dim <= 68; dim++ {
				queries, keys := 1+dim%7, 1+dim%10
				q, k := randomValues(r, queries*dim), newTestRows(typ, randomValues(r, keys*dim), dim)
				scores, out := make([]float32, queries*keys), make([]float32, queries*dim)
				scoreForm(typ, scores, keys, q, k, dim)
				mixForm(typ, out, scores, keys, k, dim)
				for _, atEnd := range []bool{false, true} {
					var in kvRows
					switch typ {
					case CacheF32:
						in.f32 = guarded(t, k.f32, atEnd)
					case CacheF16:
						in.f16 = guarded(t, k.f16, atEnd)
					case CacheInt8:
						in.i8 = guarded(t, k.i8, atEnd)
					}
					gotScores, got := guarded(t, make([]float32, queries*keys), atEnd), guarded(t, make([]float32, queries*dim), atEnd)
					scoreForm(typ, gotScores, keys, guarded(t, q, atEnd), &in, dim)
					mixForm(typ, got, gotScores, keys, &in, dim)
					if !sameBits(gotScores, scores) || !sameBits(got, out) {
						t.Fatalf("%v: %d queries, %d keys of %d: another result between guard pages", typ, queries, keys, dim)
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
				s := newSoftmax()
				s.extend(v[3])
			}
		}
	})
}
