//go:build !js && !wasip1

package main

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	for name, dir := range map[string]string{"hierarchical": makeModel(t, hierarchical), "flat": makeModel(t, flat)} {
		t.Run(name, func(t *testing.T) {
			args := []string{"run", "-model", dir, "-n", "40", "Hello", "there"}
			text, errs := call(t, 0, "", args...)
			if !strings.HasPrefix(text, "Hello there") || !strings.HasSuffix(text, "\n") || errs != "" {
				t.Errorf("text %q, errors %q", text, errs)
			}
			same := func(what string, args ...string) {
				t.Helper()
				if got, _ := call(t, 0, "", args...); got != text {
					t.Errorf("%s: %q, want %q", what, got, text)
				}
			}
			same("again", args...)
			same("seed 0", append(args, "-seed", "0")...)
			same("one thread", append(args, "-threads", "1")...)
			if out, _ := call(t, 0, "Hello there", "run", "-model", dir, "-n", "40", "-"); out != text {
				t.Errorf("from standard input: %q, want %q", out, text)
			}
			if out, _ := call(t, 0, "Hello there", "run", "-model", dir, "-n", "40"); out != text {
				t.Errorf("without a prompt, from standard input: %q, want %q", out, text)
			}
			if out, errs := call(t, exitUsage, "", append(args, "-temp", "nan")...); out != "" || strings.Count(errs, "photon: ") != 1 {
				t.Errorf("a bad option: wrote %q, errors %q", out, errs)
			}
			if out, _ := call(t, 0, "", append(args, "-seed", "1")...); out == text {
				t.Error("another seed gives the same text")
			}
			if out, _ := call(t, 0, "", append(args, "-echo=false")...); "Hello there"+out != text {
				t.Errorf("without echo: %q, of %q", out, text)
			}
			_, errs = call(t, 0, "", append(args, "-v", "-seed", "5", "-cache", "f16")...)
			want(t, errs, "seed 5", "prompt   11 tokens", "text     ", "state    ", "model    "+dir)

			greedy := append(args, "-temp", "0")
			text, _ = call(t, 0, "", greedy...)
			same("greedy with another seed", append(greedy, "-seed", "9")...)
			if tail := strings.TrimPrefix(strings.TrimSuffix(text, "\n"), "Hello there"); len(tail) > 8 {
				out, _ := call(t, 0, "", append(greedy, "-stop", tail[len(tail)-1:])...)
				if len(out) >= len(text) || !strings.HasPrefix(text, strings.TrimSuffix(out, "\n")) {
					t.Errorf("stopped: %q, of %q", out, text)
				}
			}
			if out, _ := call(t, 0, "", "run", "-model", dir, "-n", "0", "x"); out != "x\n" {
				t.Errorf("no tokens: %q", out)
			}
		})
	}
	t.Run("RecGen", func(t *testing.T) {
		dir := makeModel(t, hierarchical)
		out, errs := call(t, 0, "", "run", "-model", dir, "-mode", "recgen", "-v", "-n", "30", "Hello")
		if !strings.HasPrefix(out, "Hello") || len(out) < 8 {
			t.Errorf("wrote %q", out)
		}
		want(t, errs, "RecGen")
		out, errs = call(t, exitFailed, "", "run", "-model", makeModel(t, flat), "-mode", "recgen", "Hello")
		if out != "" {
			t.Errorf("a flat model by RecGen: wrote %q", out)
		}
		want(t, errs, "RecGen")
	})
	t.Run("empty prompt", func(t *testing.T) {
		if out, _ := call(t, 0, "", "run", "-model", makeModel(t, hierarchical), "-n", "9"); strings.TrimSpace(out) == "" {
			t.Errorf("wrote %q", out)
		}
		// A flat model without a beginning-of-text token has nothing to begin from.
		call(t, exitUsage, "", "run", "-model", makeModel(t, flat))
	})
}

// Ctrl-C ends the program with exit code 130, and what was written stays.
func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a program cannot send Ctrl-C to another there")
	}
	cfg := hierarchical
	cfg.EOSTokenIDs = nil
	cmd := program(t, "", "run", "-model", makeModel(t, cfg), "-n", "-1", "-v", "Hello")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	var text bytes.Buffer
	if _, err := io.CopyN(&text, stdout, 100); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&text, stdout); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d\n%s", code, exitInterrupted, errs.String())
	}
	if !strings.HasPrefix(text.String(), "Hello") || !strings.HasSuffix(text.String(), "\n") {
		t.Errorf("text %q", text.String())
	}
	want(t, errs.String(), "seed 0", "text     ")
}
