//go:build !purego

package photon

import (
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// PHOTON_TEST_FEATURES names what the processor under test has, such as "neon dotprod i8mm bf16", and PHOTON_TEST_KERNEL what
// kernels must be in use, such as "neon dotprod": under an emulator nothing may go untested silently.
func TestFeatures(t *testing.T) {
	has := list(cpuNEON, cpuDotProd, cpuI8MM, cpuBF16)
	uses := list(useNEON, useDotProd, useI8MM, useBF16)
	t.Logf("processor: %s; kernels %s: %s", has, currentKernel, uses)
	if want, ok := os.LookupEnv("PHOTON_TEST_FEATURES"); ok && has != want {
		t.Errorf("the processor has %q, want %q", has, want)
	}
	if want, ok := os.LookupEnv("PHOTON_TEST_KERNEL"); ok && uses != want {
		t.Errorf("the kernels use %q, want %q", uses, want)
	}
	if name := kernelName(); name != "neon" && useNEON || name != "generic" && !useNEON {
		t.Errorf("kernels that use %q are called %s", uses, name)
	}
}

func list(neon, dotProd, i8mm, bf16 bool) string {
	var names []string
	for i, has := range []bool{neon, dotProd, i8mm, bf16} {
		if has {
			names = append(names, []string{"neon", "dotprod", "i8mm", "bf16"}[i])
		}
	}
	return strings.Join(names, " ")
}

// Every set of features has kernels of its own; each lower tier leaves out what the one above has.
func TestTiers(t *testing.T) {
	want := map[string]string{
		"neon":         list(cpuNEON, cpuDotProd, cpuI8MM, cpuBF16),
		"neon-dotprod": "neon dotprod",
		"neon-base":    "neon",
		"generic":      "",
	}
	eachKernel(t, func(t *testing.T) {
		if uses := list(useNEON, useDotProd, useI8MM, useBF16); uses != want[currentKernel] {
			t.Errorf("%s uses %q, want %q", currentKernel, uses, want[currentKernel])
		}
	})
}

// Any weights, also those that the packers do not make, and activations of the largest size, give the bits of the generic
// kernels: nothing saturates or wraps.
func TestIntegerLimits(t *testing.T) {
	const groups, stride, xStride, most = 3, 35, 4, 9
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(20, 0))
		for round := range 60 {
			for _, form := range []WeightType{Int8, Int4} {
				size, offset := int8Group, int32(-128)
				if form == Int4 {
					size, offset = int4Group, -8
				}
				w := make([]byte, groups*size)
				for g := range groups {
					fill(r, round, w[g*size:][2*panelWidth:size])
					for j := range panelWidth {
						w[g*size+2*j+1] = byte(0x3c + j%8) // a scale, with any fraction
						w[g*size+2*j] = byte(r.Uint32())
					}
				}
				x := make([]quantGroup, most*xStride)
				for i := range x {
					x[i].scale = r.Float32()
					for k := range x[i].q {
						x[i].q[k] = [...]int8{127, -127, int8(r.IntN(255) - 127)}[max(0, round%5-2)]
						x[i].bias += offset * int32(x[i].q[k])
					}
				}
				rows := 1 + round%most
				start := randomValues(r, most*stride)
				got, want := append([]float32(nil), start...), append([]float32(nil), start...)
				if form == Int8 {
					mulBlockInt8(got, stride, x, xStride, rows, w, round%2 == 0)
					mulBlockInt8Generic(want, stride, x, xStride, rows, w, round%2 == 0)
				} else {
					mulBlockInt4(got, stride, x, xStride, rows, w, round%2 == 0)
					mulBlockInt4Generic(want, stride, x, xStride, rows, w, round%2 == 0)
				}
				if !sameBits(got, want) {
					t.Fatalf("%v, round %d, %d rows: not the bits of the generic kernel", form, round, rows)
				}
			}
		}
	})
}

// fill makes bytes that are all least, all most, or any.
func fill(r *rand.Rand, round int, w []byte) {
	for i := range w {
		switch round % 3 {
		case 0:
			w[i] = 0
		case 1:
			w[i] = 255
		case 2:
			w[i] = byte(r.Uint32())
		}
	}
}

// Float kernels add to what dst holds, leave what lies between its rows alone, and compute a row as if it were alone.
func TestFloatBlocks(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(21, 0))
		for k := 2; k <= 40; k += 2 {
			for rows := 1; rows <= 14; rows++ {
				stride, xStride := panelWidth+k%5, k+2*(rows%3)
				x, half := randomValues(r, rows*xStride), make([]uint16, rows*xStride)
				narrowRowGeneric(half, x)
				w, w16 := randomValues(r, k*panelWidth), make([]uint16, k*panelWidth)
				narrowRowGeneric(w16, w)
				start := randomValues(r, rows*stride)
				for _, add := range []bool{false, true} {
					for name, mul := range map[string]func(dst []float32, first, rows int){
						"f32": func(dst []float32, first, rows int) {
							mulBlockF32(dst, stride, x[first*xStride:], xStride, rows, w, add)
						},
						"bf16": func(dst []float32, first, rows int) {
							mulBlockBF16(dst, stride, x[first*xStride:], xStride, rows, w16, add)
						},
						"pairs": func(dst []float32, first, rows int) {
							if multipliesPairs() {
								mulBlockPairs(dst, stride, half[first*xStride:], xStride, rows, w16, add)
							}
						},
					} {
						got, want := append([]float32(nil), start...), append([]float32(nil), start...)
						mul(got, 0, rows)
						for i := range rows {
							mul(want[i*stride:], i, 1)
						}
						if !sameBits(got, want) {
							t.Fatalf("%s: %d rows of %d inputs differ from the same rows alone", name, rows, k)
						}
						for i := range got {
							if i%stride >= panelWidth && got[i] != start[i] {
								t.Fatalf("%s: %d rows of %d inputs: wrote between the rows", name, rows, k)
							}
						}
					}
				}
			}
		}
	})
}

// Groups at the borders of what can be quantised become what the generic code makes of them.
func TestQuantizeBorders(t *testing.T) {
	inf := float32(math.Inf(1))
	borders := []float32{
		0, float32(math.Copysign(0, -1)), inf, -inf, float32(math.NaN()), math.MaxFloat32, -math.MaxFloat32,
		tinyAmax, -tinyAmax, math.Nextafter32(tinyAmax, 0), math.Nextafter32(tinyAmax, 1), 0x1p-126, 0x1p-149, 127, -63.5,
	}
	eachKernel(t, func(t *testing.T) {
		for _, a := range borders {
			for _, b := range borders {
				x := make([]float32, groupSize)
				for i := range x {
					x[i] = b * float32(i) / 64
				}
				x[5], x[30] = a, b
				for _, offset := range []int32{-128, -8} {
					var got, want [1]quantGroup
					got[0].bias = 1
					quantizeRow(got[:], x, offset)
					quantizeRowGeneric(want[:], x, offset)
					if got[0].q != want[0].q || got[0].bias != want[0].bias || math.Float32bits(got[0].scale) != math.Float32bits(want[0].scale) {
						t.Fatalf("%g and %g: %v, want %v", a, b, got, want)
					}
				}
			}
		}
	})
}
