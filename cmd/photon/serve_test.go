//go:build !js && !wasip1

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startServer runs photon serve, and returns its address and what ends it: with the signal, after which it wants code.
func startServer(t *testing.T, env string, args ...string) (url string, end func(s os.Signal, code int)) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a program cannot send Ctrl-C to another there")
	}
	cmd := program(t, "", append([]string{"serve", "-addr", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(cmd.Env, env)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() { watchdog.Stop(); cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	_, url, ok := strings.Cut(strings.TrimSpace(line), " on ")
	if err != nil || !ok {
		t.Fatalf("%q, %v: %s", line, err, errs.String())
	}
	return url, func(s os.Signal, code int) {
		t.Helper()
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("exit code %d, want %d: %s", got, code, errs.String())
		}
	}
}

func ask(t *testing.T, url, body string, header ...string) (int, io.ReadCloser) {
	t.Helper()
	r, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return answer.StatusCode, answer.Body
}

func TestServe(t *testing.T) {
	cfg := hierarchical
	cfg.EOSTokenIDs = nil
	dir := makeModel(t, cfg)
	url, end := startServer(t, "PHOTON_TOKEN=", "-model", dir, "-chat", "plain", "-grace", "200ms", "-max-tokens",
		"100000000")
	status, body := ask(t, url+"v1/completions", `{"model":"model","prompt":"Hello","max_tokens":20,"temperature":0}`)
	var answer struct{ Choices []struct{ Text string } }
	if err := json.NewDecoder(body).Decode(&answer); err != nil || status != 200 {
		t.Fatalf("%d, %v", status, err)
	}
	greedy, _ := call(t, 0, "", "run", "-model", dir, "-n", "20", "-temp", "0", "-echo=false", "Hello")
	if got := answer.Choices[0].Text; got != strings.TrimSuffix(greedy, "\n") {
		t.Errorf("%q, want %q", got, greedy)
	}
	if status, _ := ask(t, url+"v1/chat/completions",
		`{"messages":[{"role":"user","content":"Hi"}],"max_tokens":3}`); status != 200 {
		t.Errorf("chat: %d", status)
	}
	for host, want := range map[string]int{"evil.example": 421, "evil.example:80": 421, "localhost:99": 200,
		"LocalHost.": 200, "localhost.evil.example": 421,
		"[::1]:99": 200, "[::1]": 200, "127.0.0.1": 200} {
		if status, _ := ask(t, url+"tokenize", `{"prompt":"x"}`, "Host", host); status != want {
			t.Errorf("host %s: %d, want %d", host, status, want)
		}
	}
	// A stream that would go on for ever ends with the server.
	status, body = ask(t, url+"v1/completions", `{"prompt":"Hello","max_tokens":90000000,"stream":true}`)
	if _, err := io.ReadFull(body, make([]byte, 100)); status != 200 || err != nil {
		t.Fatalf("%d, %v", status, err)
	}
	done := make(chan []byte)
	go func() {
		rest, _ := io.ReadAll(body)
		done <- rest
	}()
	end(syscall.SIGTERM, 0)
	if rest := <-done; !bytes.Contains(rest, []byte("shutting down")) {
		t.Errorf("ended with %q", rest[max(0, len(rest)-200):])
	}
}

func TestServeToken(t *testing.T) {
	url, end := startServer(t, "PHOTON_TOKEN=secret", "-model", makeModel(t, hierarchical))
	for token, want := range map[string]int{"": 401, "Bearer other": 401, "Bearer secret": 200} {
		if status, _ := ask(t, url+"v1/completions", `{"prompt":"x"}`, "Authorization", token); status != want {
			t.Errorf("%q: %d, want %d", token, status, want)
		}
	}
	end(os.Interrupt, 0)
}

func TestServeRefuses(t *testing.T) {
	dir := makeModel(t, hierarchical)
	for _, args := range [][]string{{"x"}, {"-chat", "alpaca"}, {"-texts", "0"}, {"-max-time", "-1s"}} {
		call(t, exitUsage, "", append([]string{"serve", "-model", dir, "-addr", "127.0.0.1:0"}, args...)...)
	}
	_, errs := call(t, exitFailed, "", "serve", "-model", dir, "-chat", "chatml")
	want(t, errs, "<|im_start|>")
	if strings.Contains(errs, "serve: serve:") {
		t.Error(errs)
	}
	for part, args := range map[string][]string{
		"-texts 0: want more than 0": {"-texts", "0"}, "-grace -1s: want 0 or more": {"-grace", "-1s"},
		"-max-time 0s": {"-max-time", "0"}, "-waiting -1": {"-waiting", "-1"},
		"-max-state 1": {"-addr", "127.0.0.1:0", "-max-state", "1"},
		"-addr here":   {"-addr", "here"}, "-addr : ": {"-addr", ""},
		"invalid port": {"-addr", ":99999"}, `photon: serve: no chat form "foo"`: {"-chat", "foo"},
	} {
		_, errs := call(t, exitUsage, "", append([]string{"serve", "-model", dir}, args...)...)
		want(t, errs, part)
	}
	call(t, exitFailed, "", "serve", "-model", dir, "-addr", "no.such.host.invalid:1")
	call(t, exitNotFound, "", "serve", "-model", dir+"-none")
	for _, token := range []string{" ", "a ", "a\t", "a\n", "a\x7fb"} {
		t.Setenv("PHOTON_TOKEN", token)
		_, errs := call(t, exitUsage, "", "serve", "-model", dir, "-addr", "127.0.0.1:0")
		want(t, errs, "PHOTON_TOKEN")
	}
}
