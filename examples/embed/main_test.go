//go:build !js && !wasip1

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

// TestOutput holds what the program prints to what the model writes at once.
func TestOutput(t *testing.T) {
	name := filepath.Join(t.TempDir(), "output")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func(stdout *os.File) { os.Stdout = stdout }(os.Stdout)
	os.Stdout = file
	main()
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	printed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		t.Fatal(err)
	}
	want, err := model.Complete(context.Background(), "Once upon a time", photon.MaxTokens(12), photon.Temperature(0))
	if err != nil || string(printed) != want.Text+"\n" || len(printed) < 12 {
		t.Errorf("%q, want %q, %v", printed, want.Text, err)
	}
}
