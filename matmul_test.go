package photon

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/photon-lm/photon/internal/bounded"
)

var matrixForms = []WeightType{F32, BF16, bf16Rounded, Int8, Int4}

// TestKernelChosen: the kernels are those that PHOTON_TEST_KERNEL names, where it does: .ci/run knows the processor.
func TestKernelChosen(t *testing.T) {
	if want := os.Getenv("PHOTON_TEST_KERNEL"); want != "" && kernelName() != want {
		t.Errorf("%s, want %s", kernelName(), want)
	}
}

// eachKernel runs f with every tier that this machine has.
func eachKernel(t *testing.T, f func(t *testing.T)) {
	for _, name := range kernelTiers() {
		t.Run(name, func(t *testing.T) {
			withKernel(t, name)
			f(t)
		})
	}
}

func withKernel(t testing.TB, name string) {
	before := currentKernel
	if err := setKernel(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { setKernel(before) })
}

func newTestCrew(workers int) *crew {
	c := new(crew)
	c.init(workers)
	return c
}

func randomValues(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func newTestMatrix(r *rand.Rand, out, in int, form WeightType) *matrix {
	w := newMatrix(out, in, form)
	w.setRows(0, randomValues(r, out*in))
	return w
}

// weight is w[j, k] as the kernels use it.
func (w *matrix) weight(j, k int) float64 {
	panel, lane := j/panelWidth, j%panelWidth
	switch w.form {
	case F32:
		return float64(w.f32[(panel*w.in+k)*panelWidth+lane])
	case BF16, bf16Rounded:
		return float64(bf16ToF32(w.bf16[((panel*w.pairs()+k/2)*panelWidth+lane)*2+k%2]))
	}
	size := int8Group
	if w.form == Int4 {
		size = int4Group
	}
	group := w.quant[(panel*w.groups()+k/groupSize)*size:][:size]
	scale := float64(bf16ToF32(uint16(group[2*lane]) | uint16(group[2*lane+1])<<8))
	k %= groupSize
	if w.form == Int8 {
		return scale * float64(int(group[2*panelWidth+(k/4*panelWidth+lane)*4+k%4])-128)
	}
	b := group[2*panelWidth+(k%16/4*panelWidth+lane)*4+k%4]
	return scale * float64(int(b>>(k/16*4)&15)-8)
}

// activation is the row x as the kernels of a form use it.
func activation(form WeightType, x []float32) []float64 {
	v := make([]float64, len(x))
	groups := make([]quantGroup, (len(x)+groupSize-1)/groupSize)
	quantizeRowGeneric(groups, x, 0)
	for k := range v {
		switch form {
		case F32, BF16:
			v[k] = float64(x[k])
		case bf16Rounded:
			v[k] = float64(bf16ToF32(f32ToBF16(x[k])))
		default:
			g := &groups[k/groupSize]
			v[k] = float64(g.scale) * float64(g.q[k%groupSize])
		}
	}
	return v
}

// weights are all w[j, k].
func (w *matrix) weights() []float64 {
	v := make([]float64, w.out*w.in)
	for i := range v {
		v[i] = w.weight(i/w.in, i%w.in)
	}
	return v
}

// checkProduct compares dst with the product in float64 of what the form holds. Each rounding of a sum is within 2^-24 of the
// magnitudes added so far; flushed denormals add less than 2^-126 each.
func checkProduct(t *testing.T, w *matrix, weights []float64, dst, x []float32, rows int) {
	t.Helper()
	for r := range rows {
		v := activation(w.form, x[r*w.in:][:w.in])
		for j := range w.out {
			sum, size := 0.0, 0.0
			for k, weight := range weights[j*w.in:][:w.in] {
				p := v[k] * weight
				sum += p
				size += math.Abs(p)
			}
			bound := size*float64(w.in+3)*0x1p-24 + float64(w.in)*0x1p-126
			if got := float64(dst[r*w.out+j]); !(math.Abs(got-sum) <= bound) {
				t.Fatalf("%v %d×%d, %d rows: row %d output %d is %g, want %g ± %g", w.form, w.out, w.in, rows, r, j, got, sum, bound)
			}
		}
	}
}

func sameBits(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) && !(a[i] != a[i] && b[i] != b[i]) {
			return false
		}
	}
	return true
}

// Every shape against float64: all short inputs, outputs around the panels, few rows and many. Int8 and int4 besides against
// the bits of the generic kernels.
func TestMatrixProduct(t *testing.T) {
	var shapes [][3]int // rows, out, in
	for in := 1; in <= 130; in++ {
		shapes = append(shapes, [3]int{1 + in%9, 1 + in*7%97, in})
	}
	for out := 1; out <= 130; out++ {
		shapes = append(shapes, [3]int{1 + out%4, out, 33 + out%64})
	}
	for rows := 1; rows <= 20; rows++ {
		shapes = append(shapes, [3]int{rows, 40, 70})
	}
	if !testing.Short() {
		shapes = append(shapes, [][3]int{{7, 70, 4096 + 100}, {250, 33, 300}, {500, 34, 1100}, {13, 64, 2050}, {1, 32, 9000}}...)
	}
	r := rand.New(rand.NewPCG(1, 0))
	for _, form := range matrixForms {
		for _, s := range shapes {
			rows, out, in := s[0], s[1], s[2]
			w := newTestMatrix(r, out, in, form)
			weights := w.weights()
			x := randomValues(r, rows*in)
			want := make([]float32, rows*out)
			withKernel(t, "generic")
			var task mulTask
			w.mul(newTestCrew(1), &task, want, x, rows)
			for _, tier := range kernelTiers() {
				withKernel(t, tier)
				dst := randomValues(r, rows*out)
				w.mul(newTestCrew(1), &task, dst, x, rows)
				if rows <= 20 || tier != "generic" {
					checkProduct(t, w, weights, dst, x, rows)
				}
				if (form == Int8 || form == Int4) && !sameBits(dst, want) {
					t.Fatalf("%s: %v %d×%d, %d rows: not the bits of the generic kernel", tier, form, out, in, rows)
				}
			}
		}
	}
}

// A row's bits do not depend on its company: alone, among 2 … 40 rows and among hundreds, on 1, 2 and 3 threads.
func TestMatrixRowAlone(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		shapes := [][2]int{{100, 200}, {64, 1000}, {33, 77}, {3, 40}, {70, 4200}}
		counts := []int{600, 241}
		if testing.Short() || kernelName() == "generic" {
			shapes, counts = shapes[2:4], nil
		}
		for rows := 40; rows > 0; rows-- {
			counts = append(counts, rows)
		}
		for _, form := range matrixForms {
			r := rand.New(rand.NewPCG(2, uint64(form)))
			for _, s := range shapes {
				out, in := s[0], s[1]
				w := newTestMatrix(r, out, in, form)
				most := counts[0]
				x := randomValues(r, most*in)
				var task mulTask
				alone := make([]float32, most*out)
				for i := range most {
					w.mul(newTestCrew(1), &task, alone[i*out:], x[i*in:], 1)
				}
				for threads := 1; threads <= 3; threads++ {
					c := newTestCrew(threads)
					c.begin()
					for _, rows := range counts {
						if in > 2000 && rows%7 != 3 {
							continue
						}
						dst := make([]float32, rows*out)
						w.mul(c, &task, dst, x, rows)
						if !sameBits(dst, alone[:rows*out]) {
							t.Fatalf("%v %d×%d: %d rows on %d threads differ from the same rows alone", form, out, in, rows, threads)
						}
					}
					c.end()
				}
			}
		}
	})
}

// moved is s at a place shift elements further on.
func moved[T any](s []T, shift int) []T {
	return append(make([]T, shift, shift+len(s)), s...)[shift:]
}

// Slices that begin anywhere within 64 bytes.
func TestMatrixMisaligned(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for _, form := range matrixForms {
			r := rand.New(rand.NewPCG(3, uint64(form)))
			const rows, out, in = 3, 65, 70
			w := newTestMatrix(r, out, in, form)
			x := randomValues(r, rows*in)
			want := make([]float32, rows*out)
			var task mulTask
			w.mul(newTestCrew(1), &task, want, x, rows)
			for shift := range 64 {
				v := *w
				v.f32, v.bf16, v.quant = moved(w.f32, shift%16), moved(w.bf16, shift%32), moved(w.quant, shift)
				dst := make([]float32, rows*out+16)[15-shift%16:][:rows*out]
				v.mul(newTestCrew(1), &task, dst, moved(x, shift%16), rows)
				if !sameBits(dst, want) {
					t.Fatalf("%v: another result when slices begin %d bytes later", form, shift)
				}
			}
		}
	})
}

// What is not a number in one row stays there; a row of zeros gives zeros; tiny and huge values keep the bound.
func TestMatrixExtremes(t *testing.T) {
	const out, in = 40, 96
	eachKernel(t, func(t *testing.T) {
		for _, form := range matrixForms {
			r := rand.New(rand.NewPCG(4, uint64(form)))
			w := newTestMatrix(r, out, in, form)
			x := randomValues(r, 8*in)
			for k := range in {
				x[0*in+k] = 0
				x[1*in+k] *= 0x1p-110
				x[2*in+k] *= 0x1p-135
				x[3*in+k] *= 0x1p90
				x[5*in+k] *= 0x1p-99
			}
			x[4*in+50] = float32(math.NaN())
			x[6*in+3] = float32(math.Inf(-1))
			dst, want := make([]float32, 8*out), make([]float32, 8*out)
			var task mulTask
			w.mul(newTestCrew(1), &task, dst, x, 8)
			for j := range out {
				if dst[j] != 0 {
					t.Fatalf("%v: a row of zeros gives %g", form, dst[j])
				}
				if v := dst[4*out+j]; v == v {
					t.Fatalf("%v: a row with a NaN gives %g", form, v)
				}
				if v := float64(dst[6*out+j]); v == v && !math.IsInf(v, 0) {
					t.Fatalf("%v: a row with an infinity gives %g", form, v)
				}
			}
			for _, row := range []int{1, 2, 3, 5, 7} {
				checkProduct(t, w, w.weights(), dst[row*out:][:out], x[row*in:][:in], 1)
			}
			tier := currentKernel
			withKernel(t, "generic")
			w.mul(newTestCrew(1), &task, want, x, 8)
			withKernel(t, tier)
			if (form == Int8 || form == Int4) && !sameBits(dst, want) {
				t.Fatalf("%v: not the bits of the generic kernel", form)
			}
		}
	})
}

// The kernels that convert activations give the bits of the generic ones: ordinary values, ties, any bits at all.
func TestConvertActivations(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 0))
		for n := 1; n <= 513; n++ {
			x := randomValues(r, n)
			for i := range x {
				switch n % 5 {
				case 1:
					x[i] = float32(math.Round(float64(x[i])*8) / 2)
					x[0] = 63.5
				case 2:
					x[i] = math.Float32frombits(r.Uint32())
				case 3:
					x[i] = math.Float32frombits(r.Uint32()&^0x7fff | 0x8000*uint32(i%2))
				}
			}
			groups, groupsWant := make([]quantGroup, (n+31)/32), make([]quantGroup, (n+31)/32)
			quantizeRow(groups, x, -128)
			quantizeRowGeneric(groupsWant, x, -128)
			for g, want := range groupsWant {
				if got := groups[g]; got.q != want.q || got.bias != want.bias || math.Float32bits(got.scale) != math.Float32bits(want.scale) {
					t.Fatalf("%d values, group %d: %v, want %v", n, g, got, want)
				}
			}
			rounded, half := make([]float32, n), make([]uint16, n)
			roundRow(rounded, x)
			narrowRow(half, x)
			for i, v := range x {
				if want := f32ToBF16(v); half[i] != want || math.Float32bits(rounded[i]) != uint32(want)<<16 {
					t.Fatalf("%08x rounds to %08x and %04x, want %04x", math.Float32bits(v), math.Float32bits(rounded[i]), half[i], want)
				}
			}
		}
	})
}

// Packing loses no more than it must, and int8 that was packed once packs to itself.
func TestPackGroups(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 0))
	limits := map[WeightType]float64{Int8: 0.008, Int4: 0.1}
	for form, limit := range limits {
		for _, in := range []int{1, 31, 32, 33, 100, 1000} {
			values := randomValues(r, 3*in)
			w := newMatrix(3, in, form)
			w.setRows(0, values)
			held := make([]float32, 3*in)
			sum, size := 0.0, 0.0
			for i, v := range w.weights() {
				held[i] = float32(v)
				sum += (v - float64(values[i])) * (v - float64(values[i]))
				size += float64(values[i]) * float64(values[i])
			}
			if got := math.Sqrt(sum / size); got > limit {
				t.Errorf("%v of %d inputs: relative error %.4f, want at most %g", form, in, got, limit)
			}
			again := newMatrix(3, in, form)
			again.setRows(0, held)
			for i, v := range again.weights() {
				if form == Int8 && float32(v) != held[i] {
					t.Fatalf("%v of %d inputs: %g packs to %g", form, in, held[i], v)
				}
			}
		}
		w := newMatrix(1, 3, form)
		for _, values := range [][]float32{{0, 0, 0}, {0x1p-140, 0, 0}} {
			w.setRows(0, values)
			for k, got := range w.weights() {
				if math.Abs(got) > 0x1p-140 {
					t.Errorf("%v: %g is held as %g", form, values[k], got)
				}
			}
		}
		w.setRows(0, []float32{1, float32(math.NaN()), 2})
		if got := w.weight(0, 0); got == got {
			t.Errorf("%v: a group with a NaN is held as %g", form, got)
		}
	}
}

func TestMatrixAllocatesNothing(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for _, form := range matrixForms {
			r := rand.New(rand.NewPCG(7, uint64(form)))
			w := newTestMatrix(r, 130, 131, form)
			for _, rows := range []int{1, 20} {
				x, dst := randomValues(r, rows*w.in), make([]float32, rows*w.out)
				c := newTestCrew(2)
				c.begin()
				var task mulTask
				if n := testing.AllocsPerRun(20, func() { w.mul(c, &task, dst, x, rows) }); n != 0 {
					t.Errorf("%v, %d rows: %v allocations", form, rows, n)
				}
				c.end()
			}
		}
	})
}

func FuzzMatrixProduct(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint8(32), uint16(64), uint8(0))
	f.Add(uint64(2), uint8(7), uint8(33), uint16(33), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, rows, out uint8, in uint16, form uint8) {
		if rows == 0 || out == 0 || in == 0 || rows > 50 || in > 1200 {
			return
		}
		r := rand.New(rand.NewPCG(seed, 8))
		w := newTestMatrix(r, int(out), int(in), matrixForms[int(form)%len(matrixForms)])
		x, dst := randomValues(r, int(rows)*w.in), make([]float32, int(rows)*w.out)
		for i := range x { // magnitudes of every size that leaves the sums finite
			x[i] *= float32(math.Ldexp(1, r.IntN(80)-40))
		}
		var task mulTask
		bounded.Run(t, 1<<20, func() { w.mul(newTestCrew(1), &task, dst, x, int(rows)) })
		checkProduct(t, w, w.weights(), dst, x, int(rows))
	})
}
