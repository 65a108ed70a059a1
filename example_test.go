package photon_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

// Load the embedded model and print a text while it is written.
func Example() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	var story strings.Builder
	for token, err := range model.Generate(context.Background(), "Once upon a time", photon.MaxTokens(20)) {
		if err != nil {
			log.Fatal(err)
		}
		story.WriteString(token.Text) // or fmt.Print(token.Text)
	}
	fmt.Println(story.Len() > 20)
	// Output: true
}

// Complete collects a whole text, and says why it ended and what it cost.
func ExampleModel_Complete() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	result, err := model.Complete(context.Background(), "The little fox", photon.MaxTokens(8), photon.Temperature(0))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(result.IDs), "tokens:", result.Stop)
	fmt.Println("key and value bytes held:", result.Stats.StateBytes > 0)
	// Output:
	// 8 tokens: max tokens
	// key and value bytes held: true
}

// Two continuations of one prompt: the prompt is read once, and each fork goes its own way.
func ExampleSession_Fork() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	prompt := model.NewSession(photon.MaxTokens(5))
	if err := prompt.Append(ctx, model.Tokenizer().Encode("In the deep blue sea")...); err != nil {
		log.Fatal(err)
	}
	for seed := range uint64(2) {
		branch := prompt.Fork()
		for _, err := range branch.Generate(ctx, photon.Seed(seed)) {
			if err != nil {
				log.Fatal(err)
			}
		}
		fmt.Println(branch.Len() - prompt.Len())
	}
	// Output:
	// 5
	// 5
}

// A session can be put aside and taken up again, in another process too.
func ExampleSession_WriteTo() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	session := model.NewSession()
	if err := session.Append(context.Background(), model.Tokenizer().Encode("Once upon a time")...); err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := session.WriteTo(&file); err != nil {
		log.Fatal(err)
	}
	again, err := model.ReadSession(&file)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(again.Len() == session.Len())
	// Output: true
}

// Many texts share each pass over the weights; every request gets the tokens that it would get alone.
func ExampleModel_GenerateBatch() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	requests := []photon.Request{{Prompt: "A dragon"}, {Prompt: "The king", Options: []photon.Option{photon.Seed(7)}}}
	tokens := make([]int, len(requests))
	for token, err := range model.GenerateBatch(context.Background(), requests, photon.MaxTokens(6)) {
		if err != nil {
			log.Fatal(err)
		}
		tokens[token.Request]++
	}
	fmt.Println(tokens)
	// Output: [6 6]
}

// Score tells how likely a model finds a text: here in bits per byte.
func ExampleModel_Score() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	bits := func(text string) (sum float64) {
		scores, err := model.Score(context.Background(), model.Tokenizer().Encode(text))
		if err != nil {
			log.Fatal(err)
		}
		for _, nats := range scores {
			sum -= float64(nats) / 0.6931471805599453
		}
		return sum / float64(len(text))
	}
	fmt.Println(bits("Once upon a time, there was a little girl.") < bits("Girl little a was there, time a upon once."))
	// Output: true
}
