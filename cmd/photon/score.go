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

// score is how well a model predicts some text. Tokens and bytes are those that have a score: a flat model without a
// beginning-of-text token cannot predict the first token of a window, which is then left out of nats, tokens and bytes
// where no window before has scored it.
type score struct {
	Nats           float64 `json:"nats"`
	BitsPerByte    float64 `json:"bits_per_byte"`
	Perplexity     float64 `json:"perplexity"`
	WordPerplexity float64 `json:"word_perplexity,omitempty"` // none without words
	Tokens         int     `json:"tokens"`
	Words          int     `json:"words"`
	Bytes          int     `json:"bytes"`
	Documents      int     `json:"documents"`
	Unscored       int     `json:"unscored_tokens"` // the first tokens left out
	ByPosition     []span  `json:"by_position,omitempty"`

	windows windows
}

// span is what the tokens that have From to To-1 tokens of their document before them cost.
type span struct {
	From   int     `json:"from"`
	To     int     `json:"to"`
	Tokens int     `json:"tokens"`
	Nats   float64 `json:"nats_per_token"`
}

// windows is how a document is cut: `context` tokens each, the next one `stride` tokens further on. 0: one window.
type windows struct{ context, stride int }

func (w *windows) check() error {
	switch {
	case w.context < 0 || w.stride < 0:
		return fmt.Errorf("-context %d -stride %d: want 0 or more", w.context, w.stride)
	case w.stride > 0 && w.context == 0:
		return fmt.Errorf("-stride %d without -context: give the length of the windows", w.stride)
	case w.stride > w.context:
		return fmt.Errorf("-stride %d is more than -context %d: it would leave tokens out", w.stride, w.context)
	case w.stride == 0:
		w.stride = w.context
	}
	return nil
}

const scoreNotes = `
Each document is scored on its own, from its first token, given all the tokens before; documents end with a line
<|endoftext|>. Perplexity is exp(nats / tokens). Word perplexity is exp(nats / words), words being what white space
separates.
-context and -stride score as papers do whose models read a bounded text: windows of -context tokens begin -stride
tokens apart, each is a text of its own, and only tokens that the window before has not scored count.
-lambada reads lines {"text": ...}. The last word of each is the target, with the space before it: accuracy is the
share of texts whose target is what the model would write, its most likely token each time; perplexity is
exp(nats / texts), nats those of the targets.
`

func setupScore(f *flag.FlagSet) func(c *console, args []string) error {
	var model modelFlags
	var cut windows
	byPosition := false
	model.declare(f)
	asJSON := f.Bool("json", false, "print one JSON object")
	verbose := f.Bool("v", false, "print figures while it goes on, on standard error")
	lambada := f.Bool("lambada", false, "the file is LAMBADA: print accuracy and perplexity of last words")
	f.IntVar(&cut.context, "context", 0, "score windows of this many tokens; 0: whole documents")
	f.IntVar(&cut.stride, "stride", 0, "begin windows this many tokens apart; 0: one behind the other")
	by := map[string]bool{"position": true}
	f.Func("by", "also print where the nats fall, by `what`: position, of a token in its document",
		choice(&byPosition, by))
	f.Usage = func() { fmt.Fprint(f.Output(), scoreNotes) }
	return func(c *console, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("wants one file of text, or - for standard input; documents end with a line %s", endOfDocument)}
		}
		if err := cut.check(); err != nil {
			return usageError{err}
		}
		if *lambada && (cut.context > 0 || byPosition) {
			return usageError{errors.New("-lambada goes without -context, -stride and -by")}
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
		ctx := interruptible()
		text = promptly(ctx, text)
		m, err := model.loadForText(ctx, c)
		if err != nil {
			return err
		}
		defer m.Close()
		progress := io.Discard
		if *verbose {
			progress = c.stderr
		}
		if !*verbose {
			p := c.progress()
			defer p.done()
			defer p.during("scoring " + name)()
		}
		var report interface{ print(w io.Writer) }
		if *lambada {
			report, err = scoreLambada(ctx, m, text, progress)
		} else {
			report, err = scoreText(ctx, m, text, cut, byPosition, progress)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if *asJSON {
			return writeJSON(c.stdout, report)
		}
		report.print(c.stdout)
		return nil
	}
}

// promptly reads r, and no longer than ctx: also while r, which may be a pipe, has nothing to give.
func promptly(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	return out
}

func (s *score) print(w io.Writer) {
	fmt.Fprintf(w, "nats             %.2f\n", s.Nats)
	fmt.Fprintf(w, "bits per byte    %.4f\nperplexity       %.3f\n", s.BitsPerByte, s.Perplexity)
	if s.Words > 0 {
		fmt.Fprintf(w, "word perplexity  %.4g\n", s.WordPerplexity)
	}
	fmt.Fprintf(w, "tokens           %s\nwords            %s\nbytes            %s\ndocuments        %s\n",
		count(s.Tokens), count(s.Words), count(s.Bytes), count(s.Documents))
	if s.Unscored > 0 {
		fmt.Fprintf(w, "not counted      %s first tokens: this model has no beginning-of-text token ahead of them\n",
			count(s.Unscored))
	}
	if len(s.ByPosition) > 0 {
		fmt.Fprintf(w, "\n%-16s %10s  nats a token\n", "position", "tokens")
	}
	for _, p := range s.ByPosition {
		fmt.Fprintf(w, "%-16s %10s  %.4f\n", fmt.Sprintf("%s-%s", count(p.From), count(p.To)), count(p.Tokens), p.Nats)
	}
}

// scoreText adds up the documents of text, each of them read as a text of its own.
func scoreText(ctx context.Context, m *photon.Model, text io.Reader, cut windows, byPosition bool, progress io.Writer,
) (*score, error) {
	s := &score{windows: cut}
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
	if s.Words > 0 {
		s.WordPerplexity = min(math.Exp(s.Nats/float64(s.Words)), math.MaxFloat64) // a word may be of any length
	}
	if !byPosition {
		s.ByPosition = nil
	}
	for i := range s.ByPosition {
		s.ByPosition[i].Nats /= float64(max(1, s.ByPosition[i].Tokens))
	}
	return s, nil
}

func (s *score) bitsPerByte() float64 { return s.Nats / math.Ln2 / float64(s.Bytes) }

// add scores one document.
func (s *score) add(ctx context.Context, m *photon.Model, document string) error {
	ids, first := m.Tokenizer().Encode(document), 0
	if bos := m.Config().BOSTokenID; bos >= 0 && len(ids) > 0 && ids[0] == bos {
		first = 1 // the tokenizer put it there: it is no part of the text
	}
	s.Bytes += len(document)
	length, stride := len(ids), len(ids)
	if s.windows.context > 0 {
		length, stride = s.windows.context, s.windows.stride
	}
	for begin, next := 0, first; next < len(ids); begin += stride {
		end := min(begin+length, len(ids))
		logProbs, err := m.Score(ctx, ids[begin:end])
		if err != nil {
			return err
		}
		for ; next < end; next++ {
			p := float64(logProbs[next-begin])
			switch {
			case p == p:
				s.count(next-first, -p)
			case next == begin:
				s.Bytes -= min(len(document), len(m.Tokenizer().Decode(ids[next:next+1])))
				s.Unscored++
			default:
				return fmt.Errorf("token %d: %w", next, errNaN)
			}
		}
	}
	s.Words += len(strings.Fields(document))
	s.Documents++
	return nil
}

// errNaN is what a token of a broken model has.
var errNaN = fmt.Errorf("its probability is NaN: check the model with photon verify: %w", photon.ErrCorrupt)

// count adds a token that costs so many nats at a position of its document: below 64, or up to 4 times the last bound.
func (s *score) count(position int, nats float64) {
	s.Nats += nats
	s.Tokens++
	i, from, to := 0, 0, 64
	for ; position >= to; i++ {
		from, to = to, 4*to
	}
	for len(s.ByPosition) <= i {
		s.ByPosition = append(s.ByPosition, span{})
	}
	s.ByPosition[i] = span{from, to, s.ByPosition[i].Tokens + 1, s.ByPosition[i].Nats + nats}
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
