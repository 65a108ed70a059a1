package main

import (
	"context"
	"testing"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func TestFill(t *testing.T) {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(6) {
		h, err := fill(context.Background(), model, "Once upon a time there was a hero. ", photon.Seed(seed),
			photon.Temperature(1.5))
		if err != nil || h.Name == "" || h.Age < 1 || h.Age > 99 || h.Home == "" || len(h.Name) > 12 {
			t.Errorf("seed %d: %+v, %v", seed, h, err)
		}
	}
}

func TestForm(t *testing.T) {
	for text, fits := range map[string]bool{
		``:                           true,
		`{"name": "`:                 true,
		`{"name": ""`:                false,
		`{"name": "Ann", "age": 7, `: true,
		`{"name": "Ann", "age": 07`:  false,
		`{"name": "Ann", "age": 123`: false,
		`{"name": "Ann", "age": 12, "home": "the sea"}`:  true,
		`{"name": "Ann", "age": 12, "home": "the sea"} `: false,
	} {
		if _, ok := (place{}).read([]byte(text)); ok != fits {
			t.Errorf("%q fits: %v", text, ok)
		}
	}
}
