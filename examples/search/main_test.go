package main

import (
	"context"
	"strings"
	"testing"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func TestRank(t *testing.T) {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	index, err := read(ctx, model, texts)
	if err != nil {
		t.Fatal(err)
	}
	for question, want := range map[string]string{"a ship on the waves": "ship", "a cake with sugar": "baker",
		"a fox in the trees":  "fox",
		"a song on the piano": "piano"} {
		found, err := index.rank(ctx, question)
		if err != nil || len(found) != len(texts) || !strings.Contains(found[0].text, want) {
			t.Errorf("%s: %v, %v", question, found, err)
		}
	}
}
