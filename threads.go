package photon

import (
	"sync"
	"sync/atomic"
	"time"
)

// task is work that falls into independent parts. A part writes only its own outputs, so that neither the number of
// workers nor the order of the parts can change a result.
type task interface{ part(i int) }

// crew shares the parts of a task between the calling goroutine and helpers that live from begin to end.
//
// The caller never waits for a helper that has not claimed a part: if the operating system takes a core away, the caller
// does the work itself. A helper that finds nothing to do looks for spinTime and then sleeps.
//
// A crew belongs to one caller at a time.
type crew struct {
	workers int // the caller included
	depth   int // begin may be nested

	// ticket = epoch<<32 | parts<<16 | next. A helper claims part next by compare-and-swap, which fails when the epoch
	// has moved on; the task of an epoch cannot change while a claimed part is unfinished.
	ticket atomic.Uint64
	task   task
	done   atomic.Int32 // finished parts of this epoch

	waiting atomic.Bool   // the caller sleeps until the last part is done
	last    chan struct{} // and is told here
	alone   time.Time     // until then the caller does without helpers

	quit     atomic.Bool
	sleeping atomic.Int32
	wake     chan struct{}
	finished sync.WaitGroup
	loop     func() // the helpers' body, made once: starting a goroutine then allocates nothing
}

const (
	maxParts = 1<<16 - 1
	spinTime = 30 * time.Microsecond // how long a helper looks for work before it sleeps

	aloneTimes = 4     // how many times what was lost to a slow helper the caller works without
	waitSpins  = 20000 // looks at the parts that others have, some 10 µs, before the caller sleeps
)

func (c *crew) init(workers int) {
	c.workers = max(1, workers)
	c.wake = make(chan struct{}, c.workers)
	c.last = make(chan struct{}, 1)
	c.loop = c.help
}

// begin starts the helpers; end stops them and returns when the last is gone.
func (c *crew) begin() {
	c.depth++
	if c.depth > 1 || c.workers == 1 {
		return
	}
	c.quit.Store(false)
	c.finished.Add(c.workers - 1)
	for range c.workers - 1 {
		go c.loop()
	}
}

func (c *crew) end() {
	c.depth--
	if c.depth > 0 || c.workers == 1 {
		return
	}
	c.quit.Store(true)
	for range c.workers - 1 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	c.finished.Wait()
	for len(c.wake) > 0 {
		<-c.wake
	}
}

// run does parts 0 … parts-1 of t and returns when all are done.
func (c *crew) run(t task, parts int) {
	var start time.Time
	if c.workers > 1 && c.depth > 0 && parts > 1 {
		start = time.Now()
	}
	if !start.After(c.alone) {
		for i := range parts {
			t.part(i)
		}
		return
	}
	if parts > maxParts {
		panic("photon: too many parts in one task")
	}
	c.task = t
	c.done.Store(0)
	epoch := c.ticket.Load()>>32 + 1
	c.ticket.Store(epoch<<32 | uint64(parts)<<16)
	for range min(int(c.sleeping.Load()), parts-1) {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	for c.work() {
	}
	c.wait(parts, start)
	c.task = nil
}

// wait returns when all parts are done. If the last takes long, the operating system may have taken the core of the helper that
// has it: the caller sleeps, so that the helper can go on here. If that took longer than the work, which began at start, the
// caller works alone for some time, so that a machine with other things to do costs the helpers' share and little more.
func (c *crew) wait(parts int, start time.Time) {
	for range waitSpins {
		if int(c.done.Load()) == parts {
			return
		}
	}
	began := time.Now()
	c.waiting.Store(true)
	if int(c.done.Load()) < parts || !c.waiting.CompareAndSwap(true, false) {
		<-c.last
	}
	if lost := time.Since(began); lost > max(began.Sub(start), spinTime) {
		c.alone = time.Now().Add(aloneTimes * lost)
	}
}

// work claims and does one part; false when none is left to claim.
func (c *crew) work() bool {
	for {
		t := c.ticket.Load()
		next, parts := int(t&maxParts), int(t>>16&maxParts)
		if next >= parts {
			return false
		}
		if c.ticket.CompareAndSwap(t, t+1) {
			c.task.part(next)
			if int(c.done.Add(1)) == parts && c.waiting.CompareAndSwap(true, false) {
				c.last <- struct{}{}
			}
			return true
		}
	}
}

func (c *crew) help() {
	defer c.finished.Done()
	var idle time.Time // since when there was nothing to do
	for !c.quit.Load() {
		if c.work() {
			idle = time.Time{}
			continue
		}
		if idle.IsZero() {
			idle = time.Now()
		}
		for range 100 {
			if t := c.ticket.Load(); t&maxParts < t>>16&maxParts {
				break
			}
		}
		if time.Since(idle) < spinTime {
			continue
		}
		c.sleeping.Add(1)
		if t := c.ticket.Load(); t&maxParts >= t>>16&maxParts && !c.quit.Load() {
			<-c.wake
		}
		c.sleeping.Add(-1)
		idle = time.Time{}
	}
}
