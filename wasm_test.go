//go:build js

package photon

import (
	"context"
	"errors"
	"testing"
	"time"
)

// In a page a stream and a prompt give way to the event loop: a timer fires while they work, and a deadline ends them.
func TestEventLoop(t *testing.T) {
	m := stories(t)
	ctx, cancel := context.WithTimeout(background, 500*time.Millisecond)
	defer cancel()
	fired := 0
	ticker := time.AfterFunc(50*time.Millisecond, func() { fired++ })
	defer ticker.Stop()
	begin := time.Now()
	err := firstError(m.Generate(ctx, "Once", MaxTokens(-1), noEnd(m)))
	if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || fired != 1 || took > 800*time.Millisecond {
		t.Errorf("a stream: %v after %v, %d timers fired", err, took, fired)
	}
	stop, press := context.WithCancel(background)
	time.AfterFunc(200*time.Millisecond, press)
	begin = time.Now()
	err = m.NewSession().Append(stop, longIDs(m, 30000)...)
	if took := time.Since(begin); !errors.Is(err, context.Canceled) || took > 500*time.Millisecond {
		t.Errorf("a prompt: %v after %v", err, took)
	}
}
