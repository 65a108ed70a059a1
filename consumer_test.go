//go:build !js && !wasip1

package photon

import (
	"os/exec"
	"runtime"
	"testing"
)

// TestConsumer builds and runs a module that uses this one as a stranger's does.
func TestConsumer(t *testing.T) {
	path, err := exec.LookPath("go")
	if err != nil || runtime.GOOS != "linux" || testing.Short() {
		t.Skip("takes the go command, and seconds")
	}
	command := exec.Command(path, "run", ".")
	command.Dir = "testdata/consumer"
	command.Env = append(command.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := command.CombinedOutput()
	const want = `levels true tensors true
the same in a batch true
forked and restored true
a missing model true
a bad option true
a cancelled call true
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}
