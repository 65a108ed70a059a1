package photon

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/photon-lm/photon/internal/bounded"
)

// counted counts how often each part was done; a part in slow takes some time.
type counted struct {
	parts []atomic.Int32
	slow  int
}

func (t *counted) part(i int) {
	if i == t.slow {
		time.Sleep(2 * time.Millisecond)
	}
	t.parts[i].Add(1)
}

// Every part of every task is done once, when run returns; sleeping helpers wake, a slow one is waited for.
func TestCrew(t *testing.T) {
	for workers := 1; workers <= 5; workers++ {
		c := newTestCrew(workers)
		for call := range 3 {
			c.begin()
			for round := range 300 {
				task := &counted{parts: make([]atomic.Int32, 1+round*7%23), slow: -1}
				if round%100 == 50 {
					task.slow = round % len(task.parts)
				}
				c.run(task, len(task.parts))
				for i := range task.parts {
					if n := task.parts[i].Load(); n != 1 {
						t.Fatalf("%d workers, call %d, task %d: part %d done %d times", workers, call, round, i, n)
					}
				}
				if round%60 == 30 {
					time.Sleep(2 * spinTime)
				}
			}
			c.end()
		}
	}
}

// Nothing runs after end, however deep begin was nested, and a crew that never began works alone.
func TestCrewLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	c := newTestCrew(4)
	task := &counted{parts: make([]atomic.Int32, 10), slow: -1}
	c.run(task, 10)
	c.begin()
	c.begin()
	c.run(task, 10)
	c.end()
	c.run(task, 10)
	c.end()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines, %d before", now, before)
	}
	for i := range task.parts {
		if n := task.parts[i].Load(); n != 3 {
			t.Errorf("part %d done %d times, want 3", i, n)
		}
	}
}

// slow and allocated are short for what tests call often.
var (
	slow      = bounded.Slow
	allocated = bounded.Allocated
)
