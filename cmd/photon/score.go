package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/photon-lm/photon"
)

// score is how well a model predicts some text. Tokens and bytes are those that have a score: a flat model without a beginning-of-text token cannot predict
// the first token of a document, which is then left out of all four sums, with its bytes.
type score struct {
	Nats        float64 `json:"nats"`
	BitsPerByte float64 `json:"bits_per_byte"`
	Perplexity  float64 `json:"perplexity"`
	Tokens      int     `json:"tokens"`
	Bytes       int     `json:"bytes"`
	Documents   int     `json:"documents"`
	Unscored    int     `json:"unscored_tokens"` // the first tokens left out
}

func setupScore(f *flag.FlagSet) func(c *console, args []string) error {
	var model modelFlags
	model.declare(f)
	asJSON := f.Bool("json", false, "print one JSON object")
	verbose := f.Bool("v", false, "print progress on standard error")
	return func(c *console, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("wants one file of text, or - for standard input; documents end with a line %s", endOfDocument)}
		}
		text, name := io.Reader(c.stdin), "standard input"
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("%w: give a file of text", err)
			}
			defer file.Close()
			text, name = file, args[0]
		}
		m, err := model.loadForText()
		if err != nil {
			return err
		}
		defer m.Close()
		progress := io.Discard
		if *verbose {
			progress = c.stderr
		}
		s, err := scoreText(interruptible(), m, text, progress)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if *asJSON {
			return writeJSON(c.stdout, s)
		}
		fmt.Fprintf(c.stdout, "nats           %.2f\nbits per byte  %.4f\nperplexity     %.3f\ntokens         %s\nbytes          %s\ndocuments      %s\n",
			s.Nats, s.BitsPerByte, s.Perplexity, count(s.Tokens), count(s.Bytes), count(s.Documents))
		if s.Unscored > 0 {
			fmt.Fprintf(c.stdout, "not counted    the first token of each document: this model has no beginning-of-text token to predict it from\n")
		}
		return nil
	}
}

// scoreText adds up the documents of text, each of them read as a text of its own.
func scoreText(ctx context.Context, m *photon.Model, text io.Reader, progress io.Writer) (*score, error) {
	s := &score{}
	start, shown := time.Now(), time.Now()
	for document, err := range documents(text) {
		if err != nil {
			return nil, err
		}
		if err := s.add(ctx, m, document); err != nil {
			return nil, fmt.Errorf("document %d: %w", s.Documents+1, err)
		}
		if time.Since(shown) > time.Second {
			shown = time.Now()
			fmt.Fprintf(progress, "%s documents, %s tokens, %.4f bits per byte, %s tokens/s\n",
				count(s.Documents), count(s.Tokens), s.bitsPerByte(), rate(s.Tokens, time.Since(start).Seconds()))
		}
	}
	if s.Tokens == 0 {
		return nil, errors.New("there is no text to score in it")
	}
	s.BitsPerByte, s.Perplexity = s.bitsPerByte(), math.Exp(s.Nats/float64(s.Tokens))
	if math.IsInf(s.Perplexity, 0) {
		return nil, fmt.Errorf("the model gives a token of the text no probability at all (%g nats in %d tokens): check it with photon verify", s.Nats, s.Tokens)
	}
	return s, nil
}

func (s *score) bitsPerByte() float64 { return s.Nats / math.Ln2 / float64(s.Bytes) }

// add scores one document.
func (s *score) add(ctx context.Context, m *photon.Model, document string) error {
	ids, skipped := m.Tokenizer().Encode(document), 0
	if bos := m.Config().BOSTokenID; bos >= 0 && len(ids) > 0 && ids[0] == bos {
		skipped = 1 // the tokenizer put it there: it is no part of the text
	}
	logProbs, err := m.Score(ctx, ids)
	if err != nil {
		return err
	}
	tokens, size := len(ids)-skipped, len(document)
	for i, p := range logProbs[skipped:] {
		switch {
		case p == p:
			s.Nats -= float64(p)
		case i == 0:
			tokens--
			size -= min(size, len(m.Tokenizer().Decode(ids[skipped:skipped+1])))
			s.Unscored++
		default:
			return fmt.Errorf("token %d has no probability but NaN: check the model with photon verify: %w", i, photon.ErrCorrupt)
		}
	}
	s.Tokens += tokens
	s.Bytes += size
	s.Documents++
	return nil
}

const endOfDocument = "<|endoftext|>"

// documents yields the documents of text that are not empty: the lines before a line endOfDocument, or before the end of text, without the newline that
// ends the last of them.
func documents(text io.Reader) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		r := bufio.NewReaderSize(text, 1<<16)
		if magic, _ := r.Peek(6); bytes.Equal(magic, []byte("\xfd7zXZ\x00")) {
			yield("", errors.New("it is compressed: use xz -dc FILE | photon score -"))
			return
		}
		var document strings.Builder
		for line := 1; ; line++ {
			text, err := r.ReadString('\n')
			if err != nil && err != io.EOF {
				yield("", err)
				return
			}
			if !utf8.ValidString(text) {
				yield("", fmt.Errorf("line %d is not valid UTF-8: convert it first", line))
				return
			}
			end := strings.TrimRight(text, "\r\n") == endOfDocument
			if !end {
				document.WriteString(text)
			}
			if end || err == io.EOF {
				d := strings.TrimSuffix(document.String(), "\n")
				document.Reset()
				if blank := err == io.EOF && strings.TrimSpace(d) == ""; d != "" && !blank && !yield(d, nil) {
					return
				}
			}
			if err == io.EOF {
				return
			}
		}
	}
}
