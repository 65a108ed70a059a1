// Command consumer uses photon as a stranger's program would, from a module of its own: every part of the face that a
// program needs, through its exported names alone.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx := context.Background()
	info, err := photon.Inspect(models.Stories())
	if err != nil {
		return err
	}
	model, err := photon.LoadFS(models.Stories(), photon.WithWeights(photon.Int8), photon.WithThreads(1))
	if err != nil {
		return err
	}
	defer model.Close()
	fmt.Println("levels", len(model.Config().Levels) > 0, "tensors", info.Tensors > 0)

	// A text, by itself and among others.
	alone, err := model.Complete(ctx, "The little fox", photon.MaxTokens(8), photon.Seed(3))
	if err != nil {
		return err
	}
	requests := []photon.Request{{Prompt: "A dragon"}, {Prompt: "The little fox",
		Options: []photon.Option{photon.Seed(3)}}}
	texts := make([]string, len(requests))
	for token, err := range model.GenerateBatch(ctx, requests, photon.MaxTokens(8)) {
		if err != nil {
			return err
		}
		texts[token.Request] += token.Text
	}
	fmt.Println("the same in a batch", texts[1] == alone.Text)

	// A session: forked, kept and restored.
	session := model.NewSession(photon.Temperature(0), photon.MaxTokens(5))
	if err := session.AppendText(ctx, "Once upon a time"); err != nil {
		return err
	}
	var kept bytes.Buffer
	if _, err := session.WriteTo(&kept); err != nil {
		return err
	}
	restored, err := model.ReadSession(&kept, photon.Temperature(0), photon.MaxTokens(5))
	if err != nil {
		return err
	}
	var lines [3]string
	for i, s := range []*photon.Session{session.Fork(), session, restored} {
		for token, err := range s.Generate(ctx) {
			if err != nil {
				return err
			}
			lines[i] += token.Text
		}
	}
	fmt.Println("forked and restored", lines[0] != "" && lines[0] == lines[1] && lines[1] == lines[2])

	// Errors have names.
	_, err = photon.Load("no/such/model")
	fmt.Println("a missing model", errors.Is(err, fs.ErrNotExist))
	_, err = model.Complete(ctx, "", photon.Temperature(-1))
	fmt.Println("a bad option", errors.Is(err, photon.ErrInvalid))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = model.Complete(cancelled, "The end")
	fmt.Println("a cancelled call", errors.Is(err, context.Canceled))
	return nil
}
