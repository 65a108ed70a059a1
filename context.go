package photon

import (
	"context"
	"io"
	"time"
)

// ended is the error of a context that has ended. It knows by itself that a deadline has passed: the timer that tells
// the context may not get to run.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// contextReader reads, a little at a time, until ctx ends; contextWriter writes until then.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := ended(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(b[:min(len(b), 1<<20)])
}

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(b []byte) (int, error) {
	if err := ended(c.ctx); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}
