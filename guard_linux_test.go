package photon

import (
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guarded is a copy of s that ends at an unreadable page, or begins after one.
func guarded[T any](t *testing.T, s []T, atEnd bool) []T {
	t.Helper()
	size := len(s) * int(unsafe.Sizeof(s[0]))
	page := unix.Getpagesize()
	inner := (size + page - 1) / page * page
	m, err := unix.Mmap(-1, 0, inner+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	for _, guard := range [][]byte{m[:page], m[page+inner:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	first := page
	if atEnd {
		first += inner - size
	}
	c := unsafe.Slice((*T)(unsafe.Pointer(&m[first])), len(s))
	copy(c, s)
	return c
}

// The kernels touch nothing outside their slices.
func TestMatrixGuardPages(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	eachKernel(t, func(t *testing.T) {
		for _, form := range matrixForms {
			r := rand.New(rand.NewPCG(10, uint64(form)))
			for _, s := range [][3]int{{1, 32, 1}, {2, 64, 31}, {3, 33, 32}, {4, 31, 33}, {5, 96, 64}, {6, 40, 100}, {7, 32, 129}, {9, 96, 64}, {11, 64, 96}, {14, 64, 257}} {
				rows, out, in := s[0], s[1], s[2]
				plain := newTestMatrix(r, out, in, form)
				x := randomValues(r, rows*in)
				want := make([]float32, rows*out)
				var task mulTask
				plain.mul(newTestCrew(1), &task, want, x, rows)
				for _, atEnd := range []bool{false, true} {
					w, scratch := *plain, task
					switch form {
					case F32:
						w.f32 = guarded(t, w.f32, atEnd)
					case BF16, bf16Rounded:
						w.bf16 = guarded(t, w.bf16, atEnd)
					default:
						w.quant = guarded(t, w.quant, atEnd)
					}
					if task.padded != nil {
						scratch.padded = guarded(t, task.padded, atEnd)
					}
					if task.half != nil {
						scratch.half = guarded(t, task.half, atEnd)
					}
					if task.quant != nil {
						scratch.quant = guarded(t, task.quant, atEnd)
					}
					if task.edge != nil {
						scratch.edge = guarded(t, task.edge, atEnd)
					}
					dst := guarded(t, make([]float32, rows*out), atEnd)
					w.mul(newTestCrew(1), &scratch, dst, guarded(t, x, atEnd), rows)
					if !sameBits(dst, want) {
						t.Fatalf("%v %d×%d, %d rows: another result between guard pages", form, out, in, rows)
					}
				}
			}
		}
	})
}
