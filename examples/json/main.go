// Command json has the model fill in a form: what it writes is JSON of one shape, whatever the weights would say.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"strings"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

// A hero is what the model makes up.
type hero struct {
	Name string `json:"name"`
	Age  int    `json:"age"`
	Home string `json:"home"`
}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
)

// form is the shape: texts as they stand, and rows of 1 to `most` characters. What follows a row does not begin with a
// character of it, so that there is one way to read every text.
var form = []part{
	{text: `{"name": "`}, {chars: letters, most: 12}, {text: `", "age": `}, {chars: digits[1:], most: 2},
	{text: `, "home": "the `}, {chars: letters, most: 16}, {text: `"}`},
}

type part struct {
	text  string
	chars string
	most  int
}

// place is how far a text has come: characters of a part.
type place struct{ part, n int }

// next reads a character; false: it does not fit.
func (p place) next(c byte) (place, bool) {
	if p.part == len(form) {
		return p, false
	}
	switch f := form[p.part]; {
	case f.text != "":
		if f.text[p.n] != c {
			return p, false
		}
		if p.n++; p.n == len(f.text) {
			p = place{p.part + 1, 0}
		}
		return p, true
	case p.n < f.most && strings.IndexByte(f.chars, c) >= 0:
		return place{p.part, p.n + 1}, true
	case p.n > 0:
		return place{p.part + 1, 0}.next(c)
	}
	return p, false
}

func (p place) read(text []byte) (place, bool) {
	for _, c := range text {
		var fits bool
		if p, fits = p.next(c); !fits {
			return p, false
		}
	}
	return p, true
}

// fill has the model write a hero behind a prompt.
func fill(ctx context.Context, model *photon.Model, prompt string, opts ...photon.Option) (hero, error) {
	tokenizer, ends := model.Tokenizer(), model.Config().EOSTokenIDs
	isEnd := map[int]bool{}
	for _, id := range ends {
		isEnd[id] = true
	}
	var at place
	read := 0
	opts = append(opts, photon.MaxTokens(-1), photon.LogitsFunc(func(drawn []int, logits []float32) {
		for ; read < len(drawn); read++ {
			at, _ = at.read(tokenizer.Bytes(drawn[read])) // it fitted when it was allowed
		}
		for id := range logits {
			piece := tokenizer.Bytes(id)
			_, fits := at.read(piece)
			if isEnd[id] {
				fits = at.part == len(form)
			} else {
				fits = fits && len(piece) > 0
			}
			if !fits {
				logits[id] = float32(math.Inf(-1))
			}
		}
	}))
	var h hero
	result, err := model.Complete(ctx, prompt, opts...)
	if err == nil {
		err = json.Unmarshal([]byte(result.Text), &h)
	}
	return h, err
}

func main() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	for seed := range uint64(3) {
		h, err := fill(context.Background(), model, "Once upon a time there was a hero. ", photon.Seed(seed))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%+v\n", h)
	}
}
