package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// progress is one line on a terminal that says how far something is which takes over a second. It is for one goroutine at a time.
type progress struct {
	w            io.Writer // nil: nobody looks
	begin, shown time.Time
}

func (c *console) progress() *progress {
	p := &progress{begin: time.Now()}
	if isTerminal(c.stderr) {
		p.w = c.stderr
	}
	return p
}

// show writes the line anew, ten times a second at most.
func (p *progress) show(format string, args ...any) {
	now := time.Now()
	if p.w == nil || now.Sub(p.begin) < time.Second || now.Sub(p.shown) < time.Second/10 {
		return
	}
	p.shown = now
	fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
}

// share shows how much of something is done.
func (p *progress) share(what string, done, total int64) {
	p.show("%s: %.0f%%", what, 100*float64(done)/float64(max(total, 1)))
}

// during shows what is being done, and how long, until the function that it returns is called.
func (p *progress) during(what string) (stop func()) {
	if p.w == nil {
		return func() {}
	}
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(time.Second / 10)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				p.show("%s: %.0f s", what, time.Since(p.begin).Seconds())
			}
		}
	}()
	return func() { close(quit); <-gone }
}

// done takes the line away.
func (p *progress) done() {
	if !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = time.Time{}
	}
}

// isTerminal says whether f is one.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && isTerminalFile(file)
}

// An outputError ends every verb: nobody can read what it says.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

// output remembers the first error of writing, so that no verb has to look at each: see main.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(data []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(data)
	if err != nil {
		o.err = outputError{fmt.Errorf("writing standard output: %w", err)}
	}
	return n, o.err
}
