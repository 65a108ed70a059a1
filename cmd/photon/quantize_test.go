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

// What is wrong with the arguments is told before anything is written, under the name that was given.
func TestQuantizeRefuses(t *testing.T) {
	dir, temp := makeModel(t, hierarchical), t.TempDir()
	silent := copyModel(t, dir)
	os.Remove(filepath.Join(silent, "tokenizer.json"))
	full, text := filepath.Join(temp, "full"), filepath.Join(temp, "text")
	os.Mkdir(full, 0o777)
	empty := filepath.Join(temp, "empty")
	if err := os.WriteFile(empty, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{text, filepath.Join(full, "tokenizer.json")} {
		if err := os.WriteFile(name, []byte("a text"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(temp, "above", "out")
	for _, test := range []struct {
		code int
		part string
		args []string
	}{
		{exitUsage, "directory", []string{"", out}},
		{exitUsage, "directory", []string{dir, ""}},
		{exitFailed, "full is not empty, it holds tokenizer.json", []string{dir, full}},
		{exitFailed, filepath.Join(text, "out"), []string{dir, filepath.Join(text, "out")}},
		{exitFailed, "none", []string{dir, out, filepath.Join(temp, "none")}},
		{exitFailed, "no regular file", []string{dir, out, temp}},
		{exitFailed, "no text to score", []string{dir, out, empty}},
		{exitInvalidModel, "tokenizer.json", []string{silent, out, text}},
	} {
		printed, errs := call(t, test.code, "", append([]string{"quantize"}, test.args...)...)
		if want(t, errs, test.part); printed != "" {
			t.Errorf("%v: %q", test.args, printed)
		}
	}
	if left, _ := os.ReadDir(temp); len(left) != 3 {
		t.Errorf("%v are left", left)
	}
	call(t, 0, "", "quantize", dir, out, text)
	call(t, exitFailed, "", "quantize", dir, out)
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
