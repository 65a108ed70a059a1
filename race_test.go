//go:build race

package photon

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// racy are kernels of two goroutines of which one writes what the other reads or writes.
var racy = map[string]func(side int, shared, own []float32){
	"add":     func(side int, shared, own []float32) { add(shared, own) },
	"rmsNorm": func(side int, shared, own []float32) { rmsNorm([][]float32{shared, own}[side], shared, own, 1e-5) },
	"scores": func(side int, shared, own []float32) {
		m := keyMix(2, 16, 16, 16, 2)
		mixF32([][]float32{shared, make([]float32, 32)}[side], own, [][]float32{own, shared}[side], &m)
	},
	"product": func(side int, shared, own []float32) {
		var task mulTask
		w := newTestMatrix(rand.New(rand.NewPCG(1, 2)), 16, 16, F32)
		w.mul(newTestCrew(1), &task, [][]float32{shared, own}[side], [][]float32{own, shared}[side], 2)
	},
	"sums": func(side int, shared, own []float32) {
		m := valueMix(4, 4, 4, 8)
		mixF32(shared, own, own, &m)
	},
}

// The race detector sees what kernels in assembly read and write. A process that it finds racing fails, so each is one of its own.
func TestRaceHooks(t *testing.T) {
	if do := racy[os.Getenv("PHOTON_TEST_RACE")]; do != nil {
		shared := make([]float32, 64)
		var both sync.WaitGroup
		for side := range 2 {
			both.Go(func() { do(side, shared, make([]float32, 64)) })
		}
		both.Wait()
		return
	}
	for name := range racy {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRaceHooks$")
		cmd.Env = append(os.Environ(), "PHOTON_TEST_RACE="+name)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "DATA RACE") {
			t.Errorf("%s: a race that is not seen: %v\n%s", name, err, out)
		}
	}
}
