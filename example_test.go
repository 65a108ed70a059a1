package photon_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math"
	"regexp"
	"strings"
	"sync"

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

// A Batcher serves readers that come and go, such as the handlers of an HTTP server: each reads its own stream, and all share the passes over the weights.
func ExampleBatcher() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	batcher := model.NewBatcher(photon.MaxTexts(32))
	defer batcher.Close()
	handle := func(ctx context.Context, w io.Writer, prompt string) error {
		for token, err := range batcher.Generate(ctx, photon.Request{Prompt: prompt, Options: []photon.Option{photon.MaxTokens(8)}}) {
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, token.Text); err != nil { // the reader has gone: leaving the loop ends the request
				return err
			}
		}
		return nil
	}
	var readers sync.WaitGroup
	stories := make([]strings.Builder, 3)
	for i, prompt := range []string{"A dragon", "The king", "One day"} {
		readers.Go(func() {
			if err := handle(context.Background(), &stories[i], prompt); err != nil {
				log.Fatal(err)
			}
		})
	}
	readers.Wait()
	fmt.Println(stories[0].Len() > 0, stories[1].Len() > 0, stories[2].Len() > 0)
	// Output: true true true
}

// Requests that begin alike, with the same instruction or document, read it once.
func ExampleKeepPrefixes() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	batcher := model.NewBatcher(photon.KeepPrefixes(64 << 20))
	defer batcher.Close()
	document := strings.Repeat("The old king had a garden. In the garden stood a tree with golden apples. ", 10)
	for _, question := range []string{"One day", "At night"} {
		var stats photon.Stats
		request := photon.Request{Prompt: document + question, Options: []photon.Option{photon.MaxTokens(8)}, Stats: &stats}
		for _, err := range batcher.Generate(context.Background(), request) {
			if err != nil {
				log.Fatal(err)
			}
		}
		fmt.Println(stats.ReusedTokens > stats.PromptTokens/2)
	}
	// Output:
	// false
	// true
}

// A chat appends each turn to the session; the model reads nothing twice.
func ExampleSession_AppendText() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	session := model.NewSession(photon.MaxTokens(12), photon.Stop("\n"))
	for _, turn := range []string{"One day, a bird said:", " The fox answered:"} {
		if err := session.AppendText(ctx, turn); err != nil {
			log.Fatal(err)
		}
		for token, err := range session.Generate(ctx) {
			if err != nil {
				log.Fatal(err)
			}
			_ = token.Text // show it
		}
	}
	stats := session.Stats()
	fmt.Println(session.Len() == stats.PromptTokens+stats.Tokens)
	// Output: true
}

// Score ranks candidates for the rest of a text, which is read once.
func ExampleSession_Score() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	session := model.NewSession()
	if err := session.AppendText(ctx, "The little girl was very happy. She had a big smile on her"); err != nil {
		log.Fatal(err)
	}
	best, bestScore := "", math.Inf(-1)
	for _, candidate := range []string{" spoon", " face", " because"} {
		scores, err := session.Score(ctx, model.Tokenizer().EncodeText(candidate)...)
		if err != nil {
			log.Fatal(err)
		}
		sum := 0.0
		for _, nats := range scores {
			sum += float64(nats)
		}
		if sum > bestScore {
			best, bestScore = candidate, sum
		}
	}
	fmt.Println(best)
	// Output: face
}

// A LogitsFunc holds the text to a grammar: it follows the tokens drawn so far and forbids those that do not fit.
func ExampleLogitsFunc() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	tokenizer := model.Tokenizer()
	list := regexp.MustCompile(`^[1-9](, [1-9])*$`) // a list of digits
	fits := func(text string) bool {                // as the beginning of one
		return text == "" || list.MatchString(text) || list.MatchString(text+"1") || list.MatchString(text+" 1")
	}
	grammar := photon.LogitsFunc(func(drawn []int, logits []float32) {
		text := ""
		for _, id := range drawn {
			text += string(tokenizer.Bytes(id))
		}
		for id := range logits {
			if piece := tokenizer.Bytes(id); len(piece) == 0 || !fits(text+string(piece)) {
				logits[id] = float32(math.Inf(-1))
			}
		}
	})
	result, err := model.Complete(context.Background(), "My numbers are ", grammar, photon.MaxTokens(7))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(fits(result.Text))
	// Output: true
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
