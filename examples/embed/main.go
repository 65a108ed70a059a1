// Command embed is a program with a language model in it: the model is part of the binary.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func main() {
	model, err := photon.LoadFS(models.Stories()) // any fs.FS: an embed.FS of your own
	if err != nil {
		log.Fatal(err)
	}
	for token, err := range model.Generate(context.Background(), "Once upon a time", photon.MaxTokens(12),
		photon.Temperature(0)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(token.Text)
	}
	fmt.Println()
}
