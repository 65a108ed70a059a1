package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/photon-lm/photon"
)

// lastWords is how well a model predicts the last word of texts (LAMBADA).
type lastWords struct {
	Accuracy   float64 `json:"accuracy"`   // share of texts whose whole target is what greedy decoding writes
	Perplexity float64 `json:"perplexity"` // exp(nats / texts)
	Nats       float64 `json:"nats"`       // of all targets
	Tokens     int     `json:"tokens"`     // of all targets
	Correct    int     `json:"correct"`
	Texts      int     `json:"texts"`
}

func (s *lastWords) print(w io.Writer) {
	fmt.Fprintf(w, "accuracy    %.4f\nperplexity  %.4g\nnats        %.2f\n", s.Accuracy, s.Perplexity, s.Nats)
	fmt.Fprintf(w, "texts       %s\ncorrect     %s\n", count(s.Texts), count(s.Correct))
	fmt.Fprintf(w, "tokens      %s\n", count(s.Tokens))
}

// scoreLambada reads JSON objects with a text each, one behind the other.
func scoreLambada(ctx context.Context, m *photon.Model, lines io.Reader, progress io.Writer) (*lastWords, error) {
	s := &lastWords{}
	start, shown := time.Now(), time.Now()
	for in := json.NewDecoder(bufio.NewReader(lines)); ; {
		var line struct {
			Text *string `json:"text"`
		}
		err := in.Decode(&line)
		if err == io.EOF {
			break
		}
		if err == nil && line.Text == nil {
			err = errors.New("it has no text")
		}
		if err != nil {
			return nil, fmt.Errorf("object %d: %w: want lines {\"text\": ...}; decompress with xz -dc", s.Texts+1, err)
		}
		if err := s.add(ctx, m, *line.Text); err != nil {
			return nil, fmt.Errorf("text %d: %w", s.Texts+1, err)
		}
		if time.Since(shown) > time.Second {
			shown = time.Now()
			fmt.Fprintf(progress, "%s texts, accuracy %.4f, %s texts/s\n",
				count(s.Texts), float64(s.Correct)/float64(s.Texts), rate(s.Texts, time.Since(start).Seconds()))
		}
	}
	if s.Texts == 0 {
		return nil, errors.New("there is no text to score in it")
	}
	s.Accuracy = float64(s.Correct) / float64(s.Texts)
	s.Perplexity = min(math.Exp(s.Nats/float64(s.Texts)), math.MaxFloat64)
	return s, nil
}

// add scores the last word of one text.
func (s *lastWords) add(ctx context.Context, m *photon.Model, text string) error {
	given, target, err := splitTarget(m, text)
	if err != nil {
		return err
	}
	session, greedy := m.NewSession(), true
	for i, id := range target {
		if err := session.Append(ctx, given...); err != nil {
			return err
		}
		nats, best := predict(session.Logits(), id)
		if nats != nats {
			return fmt.Errorf("token %d of the target: %w", i, errNaN)
		}
		s.Nats += nats
		greedy = greedy && best
		given = target[i : i+1]
	}
	if greedy {
		s.Correct++
	}
	s.Tokens += len(target)
	s.Texts++
	return nil
}

// splitTarget cuts a text before the space ahead of its last word. The target's tokens are those of the whole text
// behind what the rest has in common with it.
func splitTarget(m *photon.Model, text string) (given, target []int, err error) {
	text = strings.TrimRight(text, " \t\r\n")
	space := strings.LastIndexByte(text, ' ')
	if space < 1 {
		return nil, nil, fmt.Errorf("%.40q has no last word: want two or more, with a space between", text)
	}
	whole, rest, n := m.Tokenizer().Encode(text), m.Tokenizer().Encode(text[:space]), 0
	for n < min(len(rest), len(whole)-1) && rest[n] == whole[n] {
		n++
	}
	given, target = whole[:n:n], whole[n:]
	if cfg := m.Config(); cfg.Flat() && cfg.BOSTokenID >= 0 && whole[0] != cfg.BOSTokenID {
		given = append([]int{cfg.BOSTokenID}, given...)
	}
	if m.Config().Flat() && len(given) == 0 {
		return nil, nil, fmt.Errorf("%.40q: no token stands before its last word, and this model needs one", text)
	}
	return given, target, nil
}

// predict is minus the log-probability of id, and whether nothing is more likely.
func predict(logits []float32, id int) (nats float64, best bool) {
	top := float64(logits[0])
	for _, v := range logits {
		top = max(top, float64(v))
	}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	own := float64(logits[id])
	return top + math.Log(sum) - own, own == top
}
