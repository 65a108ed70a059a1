package photon

import (
	"math"
	"testing"
)

func TestFloat16EveryHalf(t *testing.T) {
	for h := range 1 << 16 {
		h := uint16(h)
		got := f16ToF32(h)
		exponent, fraction := int(h>>10&0x1f), float64(h&0x3ff)
		want := math.Ldexp(1+fraction/1024, exponent-15)
		switch {
		case exponent == 0:
			want = math.Ldexp(fraction, -24)
		case exponent == 31 && fraction == 0:
			want = math.Inf(1)
		case exponent == 31:
			want = math.NaN()
		}
		want = math.Copysign(want, 1-2*float64(h>>15))
		if math.IsNaN(want) {
			if math.Float32bits(got) != uint32(h&0x8000)<<16|0x7f800000|uint32(h&0x3ff)<<13 {
				t.Fatalf("NaN %#04x: becomes %#08x", h, math.Float32bits(got))
			}
			if got == got || f32ToF16(got)&0x7fff <= 0x7c00 || f32ToF16(got)>>15 != h>>15 {
				t.Fatalf("NaN %#04x: becomes %v, then %#04x", h, got, f32ToF16(got))
			}
			continue
		}
		if math.Float64bits(float64(got)) != math.Float64bits(want) {
			t.Fatalf("f16ToF32(%#04x) = %v, want %v", h, got, want)
		}
		if back := f32ToF16(got); back != h {
			t.Fatalf("f32ToF16(%v) = %#04x, want %#04x", got, back, h)
		}
	}
}

// Between two neighbours, everything below the middle goes down and everything above goes up; the middle goes to the even one.
func TestFloat16RoundsToNearestEven(t *testing.T) {
	formats := []struct {
		name     string
		infinity uint16
		widen    func(uint16) float32
		narrow   func(float32) uint16
		overflow float64 // what the value after the largest would be
	}{
		{"F16", 0x7c00, f16ToF32, f32ToF16, 65536},
		{"BF16", 0x7f80, bf16ToF32, f32ToBF16, math.Ldexp(1, 128)},
	}
	for _, f := range formats {
		for low := range f.infinity {
			below, above := float64(f.widen(low)), float64(f.widen(low+1))
			if low+1 == f.infinity {
				above = f.overflow
			}
			middle := float32((below + above) / 2)
			even := low + low&1
			for _, c := range []struct {
				x    float32
				want uint16
			}{{middle, even}, {math.Nextafter32(middle, 0), low}, {math.Nextafter32(middle, math.MaxFloat32), low + 1}} {
				if float64(middle) != (below+above)/2 {
					t.Fatalf("%s: the middle above %#04x is no float32", f.name, low)
				}
				if c.x == middle {
					c.want = even
				}
				if got := f.narrow(c.x); got != c.want {
					t.Fatalf("%s: %v becomes %#04x, want %#04x", f.name, c.x, got, c.want)
				}
				if got := f.narrow(-c.x); got != c.want|0x8000 {
					t.Fatalf("%s: %v becomes %#04x, want %#04x", f.name, -c.x, got, c.want|0x8000)
				}
			}
		}
		if got := f.narrow(float32(math.Inf(-1))); got != f.infinity|0x8000 {
			t.Errorf("%s: -Inf becomes %#04x", f.name, got)
		}
		for _, nan := range []uint32{0x7f800001, 0x7fffffff, 0xff800001, 0x7fc00000} {
			if got := f.narrow(math.Float32frombits(nan)); got&0x7fff <= f.infinity || got>>15 != uint16(nan>>31) {
				t.Errorf("%s: NaN %#08x becomes %#04x", f.name, nan, got)
			}
		}
	}
}
