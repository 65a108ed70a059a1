//go:build !js && !wasip1

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

// TestRestarts: a conversation that is left and taken up after each line is the one that is not.
func TestRestarts(t *testing.T) {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		t.Fatal(err)
	}
	turns := []string{"Tell me about a fox.", "What did it eat?", "And then?"}
	file := filepath.Join(t.TempDir(), "conversation")
	var whole, parts bytes.Buffer
	if err := chat(model, file+"1", strings.NewReader(strings.Join(turns, "\n")), &whole); err != nil {
		t.Fatal(err)
	}
	for _, turn := range turns {
		again, err := photon.LoadFS(models.Stories()) // as another process would
		if err != nil {
			t.Fatal(err)
		}
		if err := chat(again, file+"2", strings.NewReader(turn), &parts); err != nil {
			t.Fatal(err)
		}
	}
	if whole.String() != parts.String() || strings.Count(whole.String(), "\n") != len(turns) {
		t.Errorf("%q\n%q", whole.String(), parts.String())
	}
	first, err1 := os.ReadFile(file + "1")
	second, err2 := os.ReadFile(file + "2")
	if err1 != nil || err2 != nil || !bytes.Equal(first, second) {
		t.Errorf("the conversations that are kept differ: %v, %v", err1, err2)
	}
	if err := chat(model, file+"3", strings.NewReader(strings.Repeat("word ", 1<<18)), &parts); err == nil {
		t.Error("a line that is too long was left out in silence")
	}
	if err := os.WriteFile(file+"1", []byte("no session"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := chat(model, file+"1", strings.NewReader("Hello"), &parts); err == nil {
		t.Error("a file that is no conversation was taken")
	}
}
