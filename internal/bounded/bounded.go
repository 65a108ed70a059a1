// Package bounded holds what tests call to the time and the memory that it may take.
package bounded

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// Run calls f, which is to take a second of the processor and most bytes of allocation at most, whatever the input that
// a fuzz target has for it.
func Run(t testing.TB, most int, f func()) {
	t.Helper()
	begin := Processor()
	n := Allocated(f)
	if took := Processor() - begin; took > time.Second {
		Slow(t, "it took %v, want a second at most", took)
	}
	if n > uint64(most) {
		t.Fatalf("%d bytes are allocated, want %d at most", n, most)
	}
}

// Allocated returns the bytes that f allocates.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Slow tells of something that took too long. Machines are shared, so it is an error only where PHOTON_TEST_TIMES asks
// for that.
func Slow(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("PHOTON_TEST_TIMES") != "" {
		t.Errorf(format, args...)
	} else {
		t.Logf("slow: "+format, args...)
	}
}
