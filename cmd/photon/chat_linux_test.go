package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/photon-lm/photon"
)

// terminal opens a pseudo-terminal.
func terminal(t *testing.T) (keys, tty *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { keys.Close() })
	var unlock, n int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlock, syscall.TIOCGPTN: &n} {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, keys.Fd(), request, uintptr(unsafe.Pointer(value))); e != 0 {
			t.Skip("no pseudo-terminals here: ", e)
		}
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { tty.Close() })
	return keys, tty
}

// Ctrl-C stops the text, and the conversation goes on; Ctrl-D ends the program, and so does SIGTERM.
func TestChatInterrupt(t *testing.T) {
	t.Run("Ctrl-D", func(t *testing.T) {
		chatInterrupt(t, 0, func(_ *os.Process, keys *os.File) { keys.Write([]byte{4}) })
	})
	t.Run("SIGTERM", func(t *testing.T) {
		chatInterrupt(t, 143, func(p *os.Process, _ *os.File) { p.Signal(syscall.SIGTERM) })
	})
	t.Run("SIGTERM in a text", func(t *testing.T) {
		chatInterrupt(t, 143, func(p *os.Process, keys *os.File) {
			fmt.Fprintln(keys, "Hello")
			p.Signal(syscall.SIGTERM)
		})
	})
}

func chatInterrupt(t *testing.T, code int, end func(p *os.Process, keys *os.File)) {
	cfg := hierarchical
	cfg.EOSTokenIDs = nil
	keys, tty := terminal(t)
	cmd := program(t, "", "chat", "-model", chatModel(t, cfg), "-n", "-1")
	cmd.Stdin = tty
	var out, errs sharedBuffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	wait := func(what string, reached func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !reached(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				cmd.Process.Kill()
				t.Fatalf("%s never came:\n%s", what, errs.String())
			}
		}
	}
	prompts := func(n int) func() bool { return func() bool { return strings.Count(errs.String(), "> ") == n } }
	wait("the prompt", prompts(1))
	for i := range 2 {
		before := len(out.String())
		fmt.Fprintln(keys, "Hello")
		wait("text", func() bool { return len(out.String()) > before+200 })
		cmd.Process.Signal(os.Interrupt)
		wait("the next prompt", prompts(i+2))
	}
	end(cmd.Process, keys)
	if cmd.Wait(); cmd.ProcessState.ExitCode() != code {
		t.Fatalf("exit code %d, want %d: %s", cmd.ProcessState.ExitCode(), code, errs.String())
	}
}

// sharedBuffer may be read while it is written.
type sharedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *sharedBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(data)
}

func (b *sharedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var kills = flag.Int("kills", 12, "times that TestChatSaveKilled kills the program")

// Killed at any moment, the file holds the conversation that was there or a newer one, as a program writes them that
// nobody kills.
func TestChatSaveKilled(t *testing.T) {
	const turns = 60
	dir, folder := chatModel(t, hierarchical), t.TempDir()
	file := filepath.Join(folder, "kept")
	lines := func(name func(i int) string) string {
		var b strings.Builder
		for i := range turns {
			fmt.Fprintf(&b, "two\n/save %s\n", name(i))
		}
		return b.String()
	}
	each := func(i int) string { return fmt.Sprint(file, i) }
	call(t, 0, lines(each), "chat", "-model", dir, "-n", "4")
	m, err := photon.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	whole := map[string]int{}
	for i := range turns {
		data, err := os.ReadFile(each(i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.ReadSession(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		whole[string(data)] = i
	}
	if err := os.Rename(each(turns-1), file); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(85, 0))
	before, old, replaced, unfinished := turns-1, 0, 0, 0
	again := lines(func(int) string { return file })
	for range *kills {
		cmd := program(t, again, "chat", "-model", dir, "-n", "4")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(r.IntN(120_000)) * time.Microsecond
		time.Sleep(after)
		cmd.Process.Kill()
		cmd.Wait()
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		now, ok := whole[string(data)]
		if !ok {
			t.Fatalf("killed after %v: the file is none that was saved", after)
		}
		if now == before {
			old++
		} else {
			replaced++
		}
		before = now
		left, _ := filepath.Glob(filepath.Join(folder, ".*.tmp")) // cut off while they were written
		for _, name := range left {
			os.Remove(name)
		}
		unfinished += len(left)
	}
	t.Logf("figure: killed %d times: %d left the old file, %d a newer one; %d in the middle of writing", *kills, old, replaced,
		unfinished)
}

// Nothing that could not be written counts as done.
func TestWriteErrors(t *testing.T) {
	dir := makeModel(t, hierarchical)
	for _, args := range [][]string{{"help"}, {"help", "run"}, {"version"}, {"run", "-model", dir, "x"}, {"show", "-model", dir}, {"show", "-json", "-model", dir},
		{"score", "-model", dir, "main.go"}, {"verify", dir}, {"bench", "-model", dir, "-p", "8", "-n", "8"}, {"bench", "-bench", "-model", dir, "-p", "8", "-n", "8"}} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip(err)
		}
		cmd := program(t, "", args...)
		var errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &errs
		cmd.Run()
		full.Close()
		if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%v: exit code %d, %s", args, code, errs.String())
		}
	}
}

// An interrupted verb leaves behind neither a file nor a directory.
func TestInterruptedFiles(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	call(t, 0, "", "init", "-preset", "flat-134m", large)
	type signals = []syscall.Signal
	for _, test := range []struct {
		signals signals
		code    int
		args    []string
	}{
		{signals{syscall.SIGINT}, exitInterrupted, []string{"init", "-preset", "photon-600m", "OUT"}},
		{signals{syscall.SIGINT}, exitInterrupted, []string{"bench", "-preset", "photon-600m"}},
		{signals{syscall.SIGTERM}, 143, []string{"init", "-preset", "photon-600m", "OUT"}},
		{signals{syscall.SIGTERM}, 143, []string{"bench", "-preset", "photon-600m"}},
		{signals{syscall.SIGTERM, syscall.SIGTERM}, 143, []string{"quantize", large, "OUT"}}, // as timeout(1) does
		{signals{syscall.SIGHUP}, 129, []string{"quantize", large, "OUT"}},
	} {
		if signal.Ignored(test.signals[0]) {
			t.Logf("%v is ignored here, as under nohup, and so by what is started", test.signals[0])
			continue
		}
		code, left := interrupted(t, test.args, test.signals)
		for try := 0; code == 0 && try < 20; try++ { // it was over before the signal came
			code, left = interrupted(t, test.args, test.signals)
		}
		if code != test.code || len(left) > 0 {
			t.Errorf("%v: exit code %d, want %d; left are %v", test.args, code, test.code, left)
		}
	}
}

// interrupted starts a verb, whose OUT is in a folder of its own, and sends it signals once there is something in that.
// left is what is there at the end.
func interrupted(t *testing.T, args []string, signals []syscall.Signal) (code int, left []string) {
	temp := t.TempDir()
	args = slices.Clone(args)
	if last := len(args) - 1; args[last] == "OUT" {
		args[last] = filepath.Join(temp, "above", "model")
	}
	cmd := program(t, "", args...)
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if names, _ := filepath.Glob(filepath.Join(temp, "*", "*")); len(names) > 0 {
			break
		}
	}
	for _, s := range signals {
		cmd.Process.Signal(s)
	}
	cmd.Wait()
	left, _ = filepath.Glob(filepath.Join(temp, "*"))
	return cmd.ProcessState.ExitCode(), left
}

// A program that nohup started stays when the terminal goes.
func TestNoHangup(t *testing.T) {
	dir := makeModel(t, hierarchical)
	cmd := program(t, "", "-c", `trap "" HUP; exec "$0" "$@"`, os.Args[0], "bench", "-model", dir,
		"-n", "2147483647", "-p", "1", "-json")
	cmd.Path = "/bin/sh"
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	if _, err := out.Read(make([]byte, 1)); err != nil { // the first row: it goes on to the next
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGHUP)
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("exit code %d", code)
	}
}

// A pipe into which nobody writes holds up neither Ctrl-C nor a conversation.
func TestPipes(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	dir := chatModel(t, hierarchical)
	for _, test := range []struct {
		code int
		line string
		args []string
	}{
		{exitFailed, "/load " + pipe, []string{"chat", "-model", dir}},
		{exitFailed, "", []string{"quantize", dir, pipe + ".out", pipe}},
		{exitFailed, "", []string{"batch", "-model", dir, pipe, pipe + ".out"}},
	} {
		_, errs := call(t, test.code, test.line, test.args...)
		want(t, errs, "pipe is no regular file")
	}
	writer, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	fmt.Fprintln(writer, "a text")
	keys, tty := terminal(t) // which shows that the text is being read
	cmd := program(t, "", "score", "-model", dir, pipe)
	cmd.Stderr = tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var shown sharedBuffer
	go io.Copy(&shown, keys)
	watchdog := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	for end := time.Now().Add(time.Minute); !strings.Contains(shown.String(), "scoring") && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, shown.String())
	}
}

// The null device is no terminal: nobody types there.
func TestChatWithNobody(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := program(t, "", "chat", "-model", chatModel(t, hierarchical))
	cmd.Stdin = null
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
	if _, tty := terminal(t); isTerminal(null) || !isTerminal(tty) {
		t.Errorf("the null device is a terminal: %v, a terminal: %v", isTerminal(null), isTerminal(tty))
	}
}

// Ctrl-C in a long prompt, while it is encoded or read, ends the program at once: what it does after the signal takes
// little of a processor, however long a busy machine lets it wait for one.
func TestInterruptedPrompt(t *testing.T) {
	text := strings.Repeat("The king has a daughter, and she is clever. ", 50000)
	interrupted := 0
	for i := range 6 {
		cmd := program(t, text, "run", "-n", "1", "-")
		cmd.Stdout = nil
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(300+100*i) * time.Millisecond)
		before := processTime(t, cmd.Process.Pid)
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if cmd.ProcessState.ExitCode() != exitInterrupted {
			continue // it was done, or had not begun
		}
		interrupted++
		used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime() - before
		if t.Logf("%v of a processor after Ctrl-C", used); used > 150*time.Millisecond {
			t.Errorf("%v of a processor after Ctrl-C", used)
		}
	}
	if interrupted == 0 {
		t.Error("none was interrupted")
	}
}

// processTime is the time of processors that a process has taken.
func processTime(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range files {
		var ns int64
		data, _ := os.ReadFile(name)
		fmt.Sscan(string(data), &ns)
		sum += time.Duration(ns)
	}
	return sum
}

// What takes over a second shows on a terminal how far it is, and elsewhere nothing.
func TestProgress(t *testing.T) {
	text := strings.Repeat("The king has a daughter, and she is clever. ", 30000)
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		says  string
		stdin string
		args  []string
	}{
		{"reading the prompt: ", text, []string{"run", "-threads", "1", "-n", "1", "-"}},
		{"scoring", "", []string{"score", "-threads", "1", file}},
		{"writing", "", []string{"init", "-preset", "photon-600m"}},
		{"", "", []string{"bench", "-preset", "photon-600m"}},
	} {
		t.Run(test.args[0], func(t *testing.T) {
			temp := t.TempDir()
			if test.args[0] == "init" {
				test.args = append(test.args, filepath.Join(temp, "model"))
			}
			keys, tty := terminal(t)
			cmd := program(t, test.stdin, test.args...)
			cmd.Env = append(cmd.Env, "TMPDIR="+temp)
			cmd.Stderr = tty
			var shown sharedBuffer
			go io.Copy(&shown, keys) // until the terminal is closed
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			line := regexp.MustCompile(`\r\x1b\[K` + test.says + `[^\r]*\d( s|%)`)
			for end := time.Now().Add(time.Minute); !line.MatchString(shown.String()); time.Sleep(10 * time.Millisecond) {
				if len(ended) > 0 || time.Now().After(end) {
					cmd.Process.Kill()
					t.Fatalf("%v: no progress, but %q", test.args, shown.String())
				}
			}
			cmd.Process.Signal(os.Interrupt)
			<-ended
			t.Logf("%q", line.FindString(shown.String()))
		})
	}
}
