package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/photon-lm/photon"
)

// samplingFlags are the options of generation that run knows.
type samplingFlags struct {
	tokens, topK                           int
	temperature, topP, minP, repeatPenalty float64
	seed                                   uint64
	stop                                   []string
	mode                                   photon.GenMode
	flags                                  *flag.FlagSet
}

// wantTokens is what bounds a text may have; mostTokens is the highest.
const wantTokens = "a whole number of at most 2147483647; below 0: no bound"

var modes = map[string]photon.GenMode{"hiergen": photon.HierGen, "recgen": photon.RecGen}

func (s *samplingFlags) declare(f *flag.FlagSet) {
	s.flags = f
	s.tokens = 256
	f.Func("n", "write at most this many `tokens`; -1: no bound (default 256)", func(v string) error {
		n, err := strconv.ParseInt(v, 0, strconv.IntSize)
		if err != nil || n > mostTokens {
			return errors.New("want " + wantTokens)
		}
		s.tokens = int(n)
		return nil
	})
	f.Float64Var(&s.temperature, "temp", 0.8, "temperature; 0: always the most likely token; what "+
		"generation_config.json says goes before this default and those of the filters")
	f.IntVar(&s.topK, "top-k", 40, "draw from the k most likely tokens; 0: all")
	f.Float64Var(&s.topP, "top-p", 0.95, "draw from the most likely tokens whose probabilities reach p; 1: all")
	f.Float64Var(&s.minP, "min-p", 0.05, "draw from tokens at least p times as likely as the most likely one; 0: all")
	f.Float64Var(&s.repeatPenalty, "repeat-penalty", 1, "make the last 64 tokens less likely; 1: off")
	f.Uint64Var(&s.seed, "seed", 0, "seed of the draws; the same seed gives the same text")
	f.Func("stop", "stop before this `string`; may be given several times", func(v string) error {
		s.stop = append(s.stop, v)
		return nil
	})
	f.Func("mode", "`way` to generate: hiergen (exact) or recgen (faster, approximate: its text can drift) (default hiergen)", choice(&s.mode, modes))
}

// options leaves what was not given to the model.
func (s *samplingFlags) options() []photon.Option {
	options := []photon.Option{photon.MaxTokens(s.tokens), photon.Seed(s.seed), photon.Stop(s.stop...),
		photon.Mode(s.mode)}
	filters := map[string]photon.Option{
		"temp": photon.Temperature(s.temperature), "top-k": photon.TopK(s.topK), "top-p": photon.TopP(s.topP),
		"min-p": photon.MinP(s.minP), "repeat-penalty": photon.RepeatPenalty(s.repeatPenalty),
	}
	s.flags.Visit(func(f *flag.Flag) { options = append(options, filters[f.Name]) })
	return options
}

// given are the flags of generation that were given.
func (s *samplingFlags) given() (names []string) {
	own := flag.NewFlagSet("", flag.ContinueOnError)
	new(samplingFlags).declare(own)
	s.flags.Visit(func(f *flag.Flag) {
		if own.Lookup(f.Name) != nil {
			names = append(names, f.Name)
		}
	})
	return names
}

// drawn is what was given of how to draw.
func (s *samplingFlags) drawn() string {
	text := ""
	s.flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "temp", "top-k", "top-p", "min-p", "repeat-penalty":
			text += fmt.Sprintf(", %s %v", f.Name, f.Value)
		}
	})
	return text
}

func setupRun(f *flag.FlagSet) func(c *console, args []string) error {
	var model modelFlags
	var sampling samplingFlags
	model.declare(f)
	sampling.declare(f)
	echo := f.Bool("echo", true, "print the prompt ahead of its continuation")
	verbose := f.Bool("v", false, "print statistics on standard error")
	return func(c *console, args []string) error {
		prompt := strings.Join(args, " ")
		if len(args) == 1 && args[0] == "-" || len(args) == 0 && !isTerminal(c.stdin) {
			data, err := io.ReadAll(c.stdin)
			if err != nil {
				return fmt.Errorf("reading the prompt from standard input: %w", err)
			}
			prompt = string(data)
		}
		if !utf8.ValidString(prompt) {
			return usageError{fmt.Errorf("the prompt is not valid UTF-8: convert it first")}
		}
		ctx := interruptible()
		m, err := model.loadToWrite(ctx, c)
		if err != nil {
			return err
		}
		defer m.Close()
		g := generation{console: c, model: m, session: m.NewSession(sampling.options()...), prompt: prompt, echo: *echo}
		err = g.write(ctx)
		if *verbose {
			g.report(model, sampling)
		}
		return err
	}
}

// generation is one run of the model, and what is to be said about it.
type generation struct {
	*console
	model   *photon.Model
	session *photon.Session
	prompt  string
	echo    bool
}

// write streams the text to standard output. What has been written stays there whatever happens.
func (g *generation) write(ctx context.Context) (err error) {
	last := ""
	put := func(text string) error {
		if text == "" {
			return nil
		}
		last = text
		_, err := io.WriteString(g.stdout, text)
		return err
	}
	defer func() {
		if last != "" && !strings.HasSuffix(last, "\n") {
			fmt.Fprintln(g.stdout)
		}
	}()
	ids, err := encode(ctx, g.model, g.prompt)
	if err != nil {
		return err
	}
	if cfg := g.model.Config(); len(ids) == 0 && cfg.Flat() && cfg.BOSTokenID >= 0 {
		ids = []int{cfg.BOSTokenID} // a flat model predicts nothing before its first token
	}
	if err := g.session.Append(ctx); err != nil { // a bad option, ahead of any text
		return err
	}
	if g.echo {
		if err := put(g.prompt); err != nil {
			return err
		}
	}
	if err := g.appendIDs(ctx, g.session, ids); err != nil {
		return err
	}
	for token, err := range g.session.Generate(ctx) {
		if err := cmp.Or(put(token.Text), err); err != nil {
			return err
		}
	}
	return nil
}

func (g *generation) report(model modelFlags, s samplingFlags) {
	stats := g.session.Stats()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(g.stderr, "%-8s "+format+"\n", append([]any{name}, args...)...)
	}
	line("model", "%s, %s parameters, kernel %s", model.name(), count(g.model.Config().Parameters()), g.model.Kernel())
	line("draws", "seed %d%s, %v", s.seed, s.drawn(), s.mode)
	line("prompt", "%s tokens in %.3f s, %s tokens/s", count(stats.PromptTokens), stats.PromptTime.Seconds(), rate(stats.PromptTokens, stats.PromptTime.Seconds()))
	line("text", "%s tokens in %.3f s, %s tokens/s", count(stats.Tokens), stats.Time.Seconds(), rate(stats.Tokens, stats.Time.Seconds()))
	line("state", "%s; attention read %s of keys and values, and wrote %s", size(stats.StateBytes), size(stats.KVReadBytes), size(stats.KVWriteBytes))
}

// encode gives the tokens of a text that may be long: ctx ends the waiting.
func encode(ctx context.Context, m *photon.Model, text string) ([]int, error) {
	done := make(chan []int, 1)
	go func() { done <- m.Tokenizer().Encode(text) }()
	select {
	case ids := <-done:
		return ids, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// appendIDs appends tokens to a text, in pieces where somebody looks on: the pieces change nothing of what follows.
func (c *console) appendIDs(ctx context.Context, s *photon.Session, ids []int) error {
	p := c.progress()
	defer p.done()
	piece := len(ids)
	if p.w != nil {
		piece = min(piece, 512)
	}
	for at := 0; at < len(ids); at += piece {
		p.share("reading the prompt", int64(at), int64(len(ids)))
		if err := s.Append(ctx, ids[at:min(at+piece, len(ids))]...); err != nil {
			return err
		}
	}
	return nil
}
