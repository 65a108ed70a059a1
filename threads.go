package photon

import (
	"context"
	"runtime"
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

	// ticket = epoch<<32 | end<<16 | next: the parts next … end-1 are to be claimed. The caller claims next, a helper end-1, so that
	// in a run of tasks over the same rows each finds in its caches what it left there. They claim by compare-and-swap, which
	// fails when the epoch has moved on; the task of an epoch cannot change while a claimed part is unfinished.
	ticket atomic.Uint64
	task   task
	left   atomic.Int32 // unfinished parts of this epoch

	waiting atomic.Bool   // the caller sleeps until the last part is done
	last    chan struct{} // and is told here
	alone   time.Time     // until then the caller does without helpers
	penalty time.Duration // for how long it did the last time
	back    time.Time     // since when it has helpers that were not slow
	missed  time.Duration // for how long the caller has worked without a helper claiming a part

	until   context.Context // when it ends, what is left of the work is left out; nil: never
	aborted atomic.Bool     // that has happened
	gave    time.Time       // when the caller last gave way

	quit     atomic.Bool
	sleeping atomic.Int32
	wake     chan struct{}
	finished sync.WaitGroup
	loop     func() // the helpers' body, made once: starting a goroutine then allocates nothing
}

const (
	maxParts = 1<<16 - 1
	spinTime = 100 * time.Microsecond // how long a helper looks for work before it sleeps

	gainTimes  = 4                      // how many times what is lost to slow helpers they must have helped before
	aloneTimes = 4                      // else, how many times that the caller works without at first
	mostAlone  = 200 * time.Millisecond // and for how long at most
	mostMissed = time.Millisecond       // for which the caller lets helpers that do not come be woken
	waitSpins  = 100000                 // looks at the parts that others have, some 50 µs, before the caller sleeps: longer than a part should take
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
	c.missed = 0
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

// over says whether the work is to end early. The caller asks before each part of its own.
func (c *crew) over() bool {
	c.giveWay()
	if c.until != nil && !c.aborted.Load() && ended(c.until) != nil {
		c.aborted.Store(true)
	}
	return c.aborted.Load()
}

// giveWay lets the event loop of a web page run now and then: its timers and clicks wait for as long as a goroutine works.
func (c *crew) giveWay() {
	if runtime.GOARCH == "wasm" && time.Since(c.gave) > wayTime {
		// Long enough not to be over before the runtime is idle, for only then does it return to the page; a timer of the
		// page waits for a whole millisecond in any case.
		time.Sleep(time.Millisecond / 2)
		c.gave = time.Now()
	}
}

const wayTime = 20 * time.Millisecond

// run does parts 0 … parts-1 of t and returns when all are done.
func (c *crew) run(t task, parts int) {
	var start time.Time
	if c.workers > 1 && c.depth > 0 && parts > 1 {
		start = time.Now()
	}
	if !start.After(c.alone) {
		for i := range parts {
			if c.over() {
				return
			}
			t.part(i)
		}
		return
	}
	if parts > maxParts {
		panic("photon: too many parts in one task")
	}
	c.task = t
	c.left.Store(int32(parts))
	epoch := c.ticket.Load()>>32 + 1
	c.ticket.Store(epoch<<32 | uint64(parts)<<16)
	for range min(int(c.sleeping.Load()), parts-1) {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	mine := 0
	for c.work(true) {
		mine++
	}
	if mine < parts {
		c.missed = 0
		c.wait(start)
	} else if c.missed += time.Since(start); c.missed > mostMissed {
		c.goAlone(c.missed)
	}
	c.task = nil
}

// wait returns when all parts are done. If the last takes long, the operating system may have taken the core of the helper that
// has it: the caller sleeps, so that the helper can go on here. If that took longer than the work, which began at start, the
// caller goes alone.
func (c *crew) wait(start time.Time) {
	for range waitSpins {
		if c.left.Load() == 0 {
			return
		}
	}
	began := time.Now()
	c.waiting.Store(true)
	if c.left.Load() > 0 || !c.waiting.CompareAndSwap(true, false) {
		<-c.last
	}
	if lost := time.Since(began); lost > max(began.Sub(start), 2*spinTime) {
		c.goAlone(lost)
	}
}

// goAlone lets the caller do without helpers for some time, after so much was lost to them, unless they have helped for
// long enough before: longer when that happens again. On a machine that has other things to do all the time a helper
// that is awake only takes turns with the caller, who would lose more than the helper's share; where it has now and
// then, as a server's clients do, the helper is worth more than what is lost.
func (c *crew) goAlone(lost time.Duration) {
	now := time.Now()
	helped := now.Sub(c.back) - lost
	c.missed = 0
	if c.back = now; helped >= gainTimes*lost {
		c.penalty = 0
		return
	}
	c.penalty = min(max(2*c.penalty, aloneTimes*lost), mostAlone)
	c.alone = now.Add(c.penalty)
	c.back = c.alone
}

// work claims and does one part, for the caller or for a helper; false when none is left to claim.
func (c *crew) work(caller bool) bool {
	for {
		t := c.ticket.Load()
		if !claimable(t) {
			return false
		}
		i, rest := int(t&maxParts), t+1
		if !caller {
			i, rest = int(t>>16&maxParts)-1, t-1<<16
		}
		if c.ticket.CompareAndSwap(t, rest) {
			if caller && !c.over() || !caller && !c.aborted.Load() {
				c.task.part(i)
			}
			if c.left.Add(-1) == 0 && c.waiting.CompareAndSwap(true, false) {
				c.last <- struct{}{}
			}
			return true
		}
	}
}

// claimable says whether a ticket has parts to claim.
func claimable(ticket uint64) bool { return ticket&maxParts < ticket>>16&maxParts }

func (c *crew) help() {
	defer c.finished.Done()
	var idle time.Time // since when there was nothing to do
	for !c.quit.Load() {
		if c.work(false) {
			idle = time.Time{}
			continue
		}
		if idle.IsZero() {
			idle = time.Now()
		}
		for range 100 {
			if claimable(c.ticket.Load()) {
				break
			}
		}
		if time.Since(idle) < spinTime {
			continue
		}
		c.sleeping.Add(1)
		if !claimable(c.ticket.Load()) && !c.quit.Load() {
			<-c.wake
		}
		c.sleeping.Add(-1)
		idle = time.Time{}
	}
}
