//go:build js

package photon

import (
	"context"
	"errors"
	"syscall/js"
	"testing"
	"time"
)

// In a page a stream and a prompt give way to the event loop: timers fire while they work, those of JavaScript too, and
// a deadline ends them.
func TestEventLoop(t *testing.T) {
	m := stories(t)
	ctx, cancel := context.WithTimeout(background, 500*time.Millisecond)
	defer cancel()
	fired := 0
	ticker := time.AfterFunc(50*time.Millisecond, func() { fired++ })
	defer ticker.Stop()
	pageFired := 0
	page := js.FuncOf(func(js.Value, []js.Value) any { pageFired++; return nil })
	defer page.Release()
	defer js.Global().Call("clearInterval", js.Global().Call("setInterval", page, 50))
	begin := time.Now()
	err := firstError(m.Generate(ctx, "Once", MaxTokens(-1), noEnd(m)))
	if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || fired != 1 {
		t.Errorf("a stream: %v after %v, %d timers fired", err, took, fired)
	} else if took > 800*time.Millisecond {
		slow(t, "a deadline of 500 ms ends a stream after %v", took)
	}
	if pageFired < 2 {
		t.Errorf("a timer of JavaScript that is due every 50 ms fired %d times in a stream of 500 ms", pageFired)
	}
	stop, press := context.WithCancel(background)
	time.AfterFunc(200*time.Millisecond, press)
	begin = time.Now()
	err = m.NewSession().Append(stop, longIDs(m, 30000)...)
	if took := time.Since(begin); !errors.Is(err, context.Canceled) {
		t.Errorf("a prompt: %v after %v", err, took)
	} else if took > 500*time.Millisecond {
		slow(t, "a prompt ends %v after it was to stop at 200 ms", took)
	}
}
