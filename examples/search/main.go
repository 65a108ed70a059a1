// Command search ranks texts by how likely they make a question: each text is read once, and then any number of
// questions are scored behind it.
//
//	go run ./examples/search a fox in the trees
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

var texts = []string{
	"The little fox ran through the forest and hid under a tall tree.",
	"The baker made bread and a big cake with sugar for the party.",
	"The old ship sailed over the sea, and the waves were very high.",
	"The girl played the piano, and everyone in the room sang a song.",
}

func main() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	index, err := read(ctx, model, texts)
	if err != nil {
		log.Fatal(err)
	}
	question := cmp.Or(strings.Join(os.Args[1:], " "), "a ship on the waves")
	found, err := index.rank(ctx, question)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range found {
		fmt.Printf("%8.3f  %s\n", f.nats, f.text)
	}
}

// An index holds texts as the model has read them.
type index struct {
	model    *photon.Model
	texts    []string
	sessions []*photon.Session
	empty    *photon.Session // what the question is likely to be anyway
}

const before = " This story is about"

func read(ctx context.Context, model *photon.Model, texts []string) (*index, error) {
	x := &index{model: model, texts: texts, empty: model.NewSession()}
	for _, text := range texts {
		s := model.NewSession()
		if err := s.AppendText(ctx, text+before); err != nil {
			return nil, err
		}
		x.sessions = append(x.sessions, s)
	}
	return x, x.empty.AppendText(ctx, before)
}

type match struct {
	text string
	nats float64 // by which the text makes the question likelier
}

// rank returns the texts, the best first.
func (x *index) rank(ctx context.Context, question string) ([]match, error) {
	ids := x.model.Tokenizer().EncodeText(" " + question)
	likelihood := func(s *photon.Session) (sum float64, err error) {
		scores, err := s.Score(ctx, ids...)
		for _, nats := range scores {
			sum += float64(nats)
		}
		return sum, err
	}
	anyway, err := likelihood(x.empty)
	if err != nil {
		return nil, err
	}
	var found []match
	for i, s := range x.sessions {
		nats, err := likelihood(s)
		if err != nil {
			return nil, err
		}
		found = append(found, match{x.texts[i], nats - anyway})
	}
	slices.SortStableFunc(found, func(a, b match) int { return cmp.Compare(b.nats, a.nats) })
	return found, nil
}
