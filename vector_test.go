package photon

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/photon-lm/photon/internal/bounded"
)

// anyFloat is an ordinary value, or sometimes a special one.
func anyFloat(r *rand.Rand) float32 {
	special := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 0x1p-149, -0x1p-127, math.MaxFloat32, -math.MaxFloat32,
		float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), -87.33, -87.4, -88.5, -103.9, -104.1, 88.5, 89}
	if r.IntN(4) == 0 {
		return special[r.IntN(len(special))]
	}
	return float32(r.NormFloat64() * 20)
}

// The kernels give the bits of their references: every length, any values, any place, and nothing behind the slices moves.
func TestVectorKernels(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(21, 0))
		for n := 0; n <= 513; n++ {
			shift := n % 16
			make4 := func() (v [4][]float32) {
				for i := range v {
					v[i] = make([]float32, shift*(i+1)%16+n+8)[shift*(i+1)%16:]
					for j := range v[i] {
						v[i][j] = float32(r.NormFloat64())
						if n%3 == 0 {
							v[i][j] = anyFloat(r)
						}
					}
				}
				return v
			}
			check := func(what string, kernel, reference func(x, a, b, c []float32) float32) {
				t.Helper()
				got := make4()
				var want [4][]float32
				for i := range got {
					want[i] = append([]float32(nil), got[i]...)
				}
				a := kernel(got[0][:n], got[1][:n], got[2][:n], got[3][:n])
				b := reference(want[0][:n], want[1][:n], want[2][:n], want[3][:n])
				for i := range got {
					if !sameBits(got[i], want[i]) {
						t.Fatalf("%s of %d: argument %d is not what the reference makes of it", what, n, i)
					}
				}
				if a != b && !(a != a && b != b) {
					t.Fatalf("%s of %d is %g, want %g", what, n, a, b)
				}
			}
			check("sumSquares", func(x, _, _, _ []float32) float32 {
				s := lanes{3: 1}
				sumSquares(x, &s)
				return s.sum()
			}, func(x, _, _, _ []float32) float32 {
				s := lanes{3: 1}
				sumSquaresGeneric(x, &s)
				return s.sum()
			})
			check("mulScaled", func(x, a, b, _ []float32) float32 { mulScaled(x, a, b, 0.3); return 0 },
				func(x, a, b, _ []float32) float32 { mulScaledGeneric(x, a, b, 0.3); return 0 })
			check("mulScaled in place", func(x, a, _, _ []float32) float32 { mulScaled(x, x, a, 0.3); return 0 },
				func(x, a, _, _ []float32) float32 { mulScaledGeneric(x, x, a, 0.3); return 0 })
			check("mulSilu", func(x, a, b, _ []float32) float32 { mulSilu(x, a, b); return 0 },
				func(x, a, b, _ []float32) float32 { mulSiluGeneric(x, a, b); return 0 })
			check("mulSilu in place", func(x, a, _, _ []float32) float32 { mulSilu(x, x, a); return 0 },
				func(x, a, _, _ []float32) float32 { mulSiluGeneric(x, x, a); return 0 })
			check("addTo", func(x, a, _, _ []float32) float32 { addTo(x, a); return 0 },
				func(x, a, _, _ []float32) float32 { addToGeneric(x, a); return 0 })
			check("mulBy", func(x, a, _, _ []float32) float32 { mulBy(x, a); return 0 },
				func(x, a, _, _ []float32) float32 { mulByGeneric(x, a); return 0 })
			check("scale", func(x, a, _, _ []float32) float32 { scale(x, a, -1.7); return 0 },
				func(x, a, _, _ []float32) float32 { scaleGeneric(x, a, -1.7); return 0 })
			check("scale in place", func(x, _, _, _ []float32) float32 { scale(x, x, -1.7); return 0 },
				func(x, _, _, _ []float32) float32 { scaleGeneric(x, x, -1.7); return 0 })
			check("rotatePairs", func(x, a, b, c []float32) float32 { rotatePairs(x, a, b, c); return 0 },
				func(x, a, b, c []float32) float32 { rotatePairsGeneric(x, a, b, c); return 0 })
			narrow := func(f func(dst []uint16, x []float32)) func(x, a, _, _ []float32) float32 {
				return func(x, a, _, _ []float32) float32 {
					halves := make([]uint16, n+1)
					f(halves[:n], a)
					if halves[n] != 0 {
						return 1
					}
					for i, h := range halves[:n] {
						x[i] = math.Float32frombits(uint32(h))
					}
					return 0
				}
			}
			check("narrowF16", narrow(narrowF16), narrow(narrowF16Generic))
			check("magnitude", func(x, _, _, _ []float32) float32 { return magnitude(x) },
				func(x, _, _, _ []float32) float32 { return magnitudeGeneric(x) })
			narrowInt := func(f func(dst []int8, x []float32, inverse float32)) func(x, a, _, _ []float32) float32 {
				return func(x, a, _, _ []float32) float32 {
					whole := make([]int8, n+1)
					for i, v := range a {
						a[i] = min(max(v, -100), 100)
						if v != v {
							a[i] = 0
						}
					}
					f(whole[:n], a, 1.27)
					for i, q := range whole {
						if i < n {
							x[i] = float32(q)
						}
					}
					return float32(whole[n])
				}
			}
			check("narrowInt8", narrowInt(narrowInt8), narrowInt(narrowInt8Generic))
			if n%3 != 0 { // of NaNs the largest may be anything
				check("maximum", func(x, _, _, _ []float32) float32 { return maximum(x) },
					func(x, _, _, _ []float32) float32 { return maximumGeneric(x) })
			}
			for _, top := range []float32{0, 3, 200} {
				exps := func(f func(x []float32, top float32, s *lanes)) func(x, _, _, _ []float32) float32 {
					return func(x, _, _, _ []float32) float32 {
						for i, v := range x {
							x[i] = min(v, top)
						}
						s := lanes{1: 2}
						f(x, top, &s)
						return s.sum()
					}
				}
				check("expSum", exps(expSum), exps(expSumGeneric))
			}
		}
	})
}

// ulps is the distance from got to want in units in the last place of float32 at want.
func ulps(got float32, want float64) float64 {
	_, exponent := math.Frexp(want)
	return math.Abs(float64(got)-want) / math.Ldexp(1, max(exponent-24, -149))
}

func TestExp(t *testing.T) {
	if exp32(0) != 1 || exp32(float32(math.Inf(-1))) != 0 || exp32(-87.5) != 0 || exp32(-math.MaxFloat32) != 0 {
		t.Error("exp32 of 0, -Inf or something far below is wrong")
	}
	if v := exp32(float32(math.NaN())); v == v {
		t.Errorf("exp32(NaN) is %g", v)
	}
	worst := 0.0
	for b := math.Float32bits(-87.33); b > math.Float32bits(-0x1p-40); b -= 997 {
		x := math.Float32frombits(b)
		worst = max(worst, ulps(exp32(x), math.Exp(float64(x))))
	}
	if !(worst <= 1.25) {
		t.Errorf("exp32 is off by %g units in the last place, want at most 1.25", worst)
	}
}

func TestSiluGate(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(22, 0))
		x, one := make([]float32, 40000), make([]float32, 40000)
		for i := range x {
			x[i], one[i] = float32(r.NormFloat64()*20), 1
		}
		copy(x, []float32{0, -87.3, -90, 1e30, -1e30, 0x1p-140})
		out := make([]float32, len(x))
		siluGate(out, x, one)
		for i, v := range x {
			want := float64(v) / (1 + math.Exp(-float64(v)))
			if !(ulps(out[i], want) <= 4) && !(math.Abs(float64(out[i])-want) <= 0x1p-119) {
				t.Fatalf("silu(%g) is %g, want %g", v, out[i], want)
			}
		}
		for in, want := range map[float32]float64{float32(math.Inf(1)): math.Inf(1), float32(math.Inf(-1)): math.NaN(), float32(math.NaN()): math.NaN()} {
			var got [9]float32
			siluGate(got[:], []float32{1, 1, in, 1, 1, 1, 1, 1, in}, one[:9])
			if !sameBits([]float32{got[2], got[8]}, []float32{float32(want), float32(want)}) || got[1] != got[3] || got[1] != got[7] {
				t.Errorf("silu(%g) is %g, want %g", in, got, want)
			}
		}
	})
}

func TestRMSNorm(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(23, 0))
		for _, n := range []int{1, 2, 7, 8, 9, 52, 384, 1664, callElements + 3, 3 * callElements} {
			x, weight, out := randomValues(r, n), randomValues(r, n), make([]float32, n)
			rmsNorm(out, x, weight, 1e-5)
			sum := 0.0
			for _, v := range x {
				sum += float64(v) * float64(v)
			}
			for i, v := range x {
				want := float64(v) / math.Sqrt(sum/float64(n)+1e-5) * float64(weight[i])
				if math.Abs(float64(out[i])-want) > math.Abs(want)*float64(n/8+12)*0x1p-24 {
					t.Fatalf("%d values: element %d is %g, want %g", n, i, out[i], want)
				}
			}
			rmsNorm(x, x, weight, 1e-5)
			if !sameBits(x, out) {
				t.Fatalf("%d values: another result in place", n)
			}
		}
	})
}

// softmaxOf is the softmax of x, block by block.
func softmaxOf(x []float32, block int) []float32 {
	w := append([]float32(nil), x...)
	s := weigh(w[:min(block, len(w))])
	for i := block; i < len(w); i += block {
		part := w[i:min(i+block, len(w))]
		shrink, weight := s.join(weigh(part))
		scale(w[:i], w[:i], shrink)
		scale(part, part, weight)
	}
	scale(w, w, 1/s.sum)
	return w
}

func checkSoftmax(t *testing.T, x []float32, block int) {
	t.Helper()
	top, sum := math.Inf(-1), 0.0
	for _, v := range x {
		top = max(top, float64(v))
	}
	for _, v := range x {
		sum += math.Exp(float64(v) - top)
	}
	// Besides exp32's own error, v - top is rounded, each block rounds once more, and so does each step of a lane.
	for i, got := range softmaxOf(x, block) {
		d := math.Abs(float64(x[i]) - top)
		want := math.Exp(-d) / sum
		if want == 0 {
			d = 0
		}
		bound := want*(d+10+4*float64(len(x)/block)+float64(len(x))/8)*0x1p-23 + 0x1p-125
		if !(math.Abs(float64(got)-want) <= bound) {
			t.Fatalf("%d scores in blocks of %d: weight %d is %g, want %g ± %g", len(x), block, i, got, want, bound)
		}
	}
}

func TestSoftmax(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(24, 0))
		for n := 1; n <= 513; n++ {
			x := randomValues(r, n)
			scale(x, x, float32(math.Ldexp(1, n%12)))
			checkSoftmax(t, x, n)
			checkSoftmax(t, x, 1+n/3)
		}
		checkSoftmax(t, randomValues(r, 50000), 1024)
		checkSoftmax(t, append(make([]float32, 20), -89, -3e38, -inf, -inf, 1), 8) // where other exponentials fail
		for n := 1; n < 40; n++ {
			for _, bad := range []float32{nan, inf} {
				x := randomValues(r, n)
				x[r.IntN(n)] = bad
				for i, v := range softmaxOf(x, 16) {
					if v == v {
						t.Fatalf("%d scores, %g among them: weight %d is %g", n, bad, i, v)
					}
				}
			}
		}
		if w := softmaxOf([]float32{-inf, -inf}, 2); w[0] == w[0] {
			t.Errorf("nothing but -Inf gives %g", w)
		}
	})
}

func TestRotate(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(25, 0))
		for half := 1; half < 100; half++ {
			x := randomValues(r, 2*half)
			before := append([]float32(nil), x...)
			cos, sin := make([]float32, half), make([]float32, half)
			for i := range cos {
				s, c := math.Sincos(r.Float64() * 7)
				cos[i], sin[i] = float32(c), float32(s)
			}
			rotate(x, cos, sin)
			for i := range half {
				u, v, c, s := float64(before[i]), float64(before[half+i]), float64(cos[i]), float64(sin[i])
				bound := (math.Abs(u) + math.Abs(v)) * 0x1p-23
				if math.Abs(float64(x[i])-(u*c-v*s)) > bound || math.Abs(float64(x[half+i])-(v*c+u*s)) > bound {
					t.Fatalf("half %d: pair %d is (%g, %g)", half, i, x[i], x[half+i])
				}
			}
		}
	})
}

func FuzzSoftmax(f *testing.F) {
	f.Add(uint64(1), uint16(1), uint16(1), int8(0))
	f.Add(uint64(2), uint16(513), uint16(100), int8(6))
	f.Fuzz(func(t *testing.T, seed uint64, n, block uint16, exponent int8) {
		if n == 0 || block == 0 || n > 5000 || exponent > 100 {
			return
		}
		x := randomValues(rand.New(rand.NewPCG(seed, 26)), int(n))
		scale(x, x, float32(math.Ldexp(1, int(exponent))))
		bounded.Run(t, 1<<20, func() { checkSoftmax(t, x, int(block)) })
	})
}

func FuzzExp(f *testing.F) {
	for _, x := range []float32{0, -1, -87.33, -87.34, -88.7, -103.97, 0x1p-149} {
		f.Add(math.Float32bits(x))
	}
	f.Fuzz(func(t *testing.T, bits uint32) {
		x := math.Float32frombits(bits | 1<<31)
		var got float32
		v := []float32{x, x, x, x, x, x, x, x, x}
		bounded.Run(t, 1<<20, func() {
			got = exp32(x)
			expSum(v, 0, new(lanes))
		})
		switch {
		case x != x:
			if got == got {
				t.Errorf("exp32(%g) is %g", x, got)
			}
		case x < -87.33:
			if got != 0 {
				t.Errorf("exp32(%g) is %g, want 0", x, got)
			}
		case !(ulps(got, math.Exp(float64(x))) <= 1.25):
			t.Errorf("exp32(%g) is %g, want %g", x, got, math.Exp(float64(x)))
		}
		if !sameBits(v, []float32{got, got, got, got, got, got, got, got, got}) {
			t.Errorf("exp32(%g) is %g, the kernel has %g", x, got, v)
		}
	})
}

// BenchmarkVector/NAME/LENGTH/TIER
func BenchmarkVector(b *testing.B) {
	for _, n := range []int{64, 1024, 8192} {
		x, y, w := make([]float32, n), make([]float32, n), make([]float32, n)
		for _, bench := range []struct {
			name   string
			arrays int
			f      func()
		}{
			{"softmax", 2, func() { weigh(x) }},
			{"silu", 3, func() { siluGate(y, x, w) }},
			{"rmsnorm", 3, func() { rmsNorm(y, x, w, 1e-5) }},
			{"add", 3, func() { add(y, x) }},
			{"rotate", 3, func() { rotate(x, y[:n/2], w[:n/2]) }},
		} {
			for _, tier := range kernelTiers() {
				b.Run(fmt.Sprintf("%s/%d/%s", bench.name, n, tier), func(b *testing.B) {
					withKernel(b, tier)
					b.SetBytes(int64(4 * n * bench.arrays))
					for b.Loop() {
						bench.f()
					}
				})
			}
		}
	}
}
