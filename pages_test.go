//go:build !js && !wasip1

package photon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// TestPages vets the Go code of README.md and docs/guide.md in a stranger's module: a block is a program, or what
// stands in a function that has a context and a session.
func TestPages(t *testing.T) {
	path, err := exec.LookPath("go")
	if err != nil || runtime.GOOS != "linux" || testing.Short() {
		t.Skip("takes the go command, and seconds")
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	read := func(file string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	write := func(text string, parts ...string) {
		file := filepath.Join(append([]string{folder}, parts...)...)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(read("testdata/consumer/go.mod"), "=> ../..", "=> "+root, 1), "go.mod")
	write(read("testdata/consumer/go.sum"), "go.sum")
	for page, least := range map[string]int{"README.md": 1, "docs/guide.md": 3} {
		blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(read(page), -1)
		if len(blocks) < least {
			t.Errorf("%s has %d blocks of Go, want %d", page, len(blocks), least)
		}
		for i, block := range blocks {
			code := block[1]
			if !strings.HasPrefix(code, "package ") {
				code = `package page
import ("context"; "errors"; "fmt"; "time"; "github.com/photon-lm/photon")
var _, _, _ = errors.Is, fmt.Print, time.Second
func block(ctx context.Context, session *photon.Session) error {
` + code + "return nil\n}\n"
			}
			write(code, fmt.Sprintf("%s_%d", strings.TrimSuffix(filepath.Base(page), ".md"), i), "main.go")
		}
	}
	command := exec.Command(path, "vet", "./...")
	command.Dir = folder
	command.Env = append(command.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
