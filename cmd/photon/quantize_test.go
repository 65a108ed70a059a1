//go:build !js && !wasip1

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestQuantize(t *testing.T) {
	const dir = "../../models/stories"
	out := filepath.Join(t.TempDir(), "out")
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("Once upon a time there was a small robot who lived in a lighthouse."),
		0o644); err != nil {
		t.Fatal(err)
	}
	printed, _ := call(t, 0, "", "quantize", "-weights", "int4", dir, out, text)
	for _, want := range []string{dir, out, "bits per byte", "held int4"} {
		if !strings.Contains(printed, want) {
			t.Errorf("%q is not in\n%s", want, printed)
		}
	}
	printed, _ = call(t, 0, "", "run", "-model", out, "-n", "5", "-temp", "0", "Once upon a time")
	if !strings.HasPrefix(printed, "Once upon a time") || len(printed) < 20 {
		t.Errorf("%q", printed)
	}
	call(t, exitUsage, "", "quantize", out)
	call(t, exitUsage, "", "quantize", out, out)
	call(t, exitUsage, "", "quantize", "-weights", "bf16", dir, out)
	call(t, exitNotFound, "", "quantize", filepath.Join(out, "none"), out)
	call(t, exitInvalidModel, "", "quantize", "../../testdata/gguf/qwen3-bf16.gguf", filepath.Join(out, "more"))
}

func TestGGUF(t *testing.T) {
	const file = "../../testdata/gguf/qwen3-bf16.gguf"
	printed, _ := call(t, 0, "", "show", "-model", file)
	want(t, printed, "flat transformer, qwen3; norms of q and k")
	if printed, _ = call(t, 0, "", "run", "-model", file, "-n", "3", "the robot"); !strings.HasPrefix(printed,
		"the robot") {
		t.Errorf("%q", printed)
	}
}
