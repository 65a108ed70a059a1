package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/photon-lm/photon"
)

// What a text, and a machine, can have at most.
const (
	mostTokens = 1<<31 - 1
	mostTexts  = 1 << 20 // that run together
)

// bench is what to measure.
type bench struct {
	model       modelFlags
	preset      string
	prompt      int   // tokens of a prefill
	tokens      int   // tokens to decode
	depths      []int // tokens before those
	texts       []int // decoded together
	apart       bool  // which have nothing in common
	repetitions int
	mode        photon.GenMode
	progress    *progress
	paper       paper
}

// benchRow is one measurement.
type benchRow struct {
	Test            string  `json:"test"` // pp512, tg128; tb128x8: of 8 texts together; ta128x8: that begin differently
	Depth           int     `json:"depth"`
	TokensPerSecond float64 `json:"tokens_per_second"` // the median
	Min             float64 `json:"min"`
	Max             float64 `json:"max"`
	Repetitions     int     `json:"repetitions"`
	StateBytes      int64   `json:"state_bytes"`   // keys and values held at the end, of all texts
	KVReadBytes     int64   `json:"kv_read_bytes"` // keys and values that attention reads, a token
	Model           string  `json:"model"`
	Kernel          string  `json:"kernel"`
	Threads         int     `json:"threads"`
	Weights         string  `json:"weights"`
	Cache           string  `json:"cache"`

	tokens  int
	seconds []float64 // of each repetition
}

func setupBench(f *flag.FlagSet) func(c *console, args []string) error {
	b := bench{depths: []int{0}}
	b.model.declare(f)
	f.Func("preset", "measure random weights of an architecture that init knows, by `name`", filled(&b.preset))
	f.IntVar(&b.prompt, "p", 512, "prefill this many tokens; 0: none")
	f.IntVar(&b.tokens, "n", 128, "decode this many tokens; 0: none")
	f.Func("d", "measure behind texts of so many `tokens`, as in 0,2048,8192 (default 0)", numbers(&b.depths))
	f.Func("b", "decode so many `texts` together too, as in 8,32,128 (default 1)", numbers(&b.texts))
	f.BoolVar(&b.apart, "apart", false, "the texts of -b have nothing in common; else they are forks of one and share "+
		"what is before them")
	f.Func("mode", "`way` to decode one text: hiergen, as tg, or recgen, as rg (default hiergen)", choice(&b.mode, modes))
	f.IntVar(&b.repetitions, "r", 3, "repetitions after a warm-up, 3 or more: their median, minimum and maximum are told")
	formats := []struct {
		chosen *bool
		rows   rowPrinter
	}{
		{f.Bool("json", false, "print one JSON object a row"), jsonRows},
		{f.Bool("csv", false, "print comma-separated values"), csvRows},
		{f.Bool("bench", false, "print lines for benchstat, one a repetition"), benchstatRows},
	}
	b.paper.declare(f)
	return func(c *console, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("does not know what to do with %q: give a model with -model", args[0])}
		}
		given := map[string]bool{}
		f.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if err := b.paper.check(given); err != nil {
			return usageError{err}
		}
		if b.paper.on {
			b.paper.model, b.paper.depths = b.model, b.depths
			return b.paper.run(interruptible(), c, given)
		}
		if b.preset != "" && b.model.dir != "" {
			return usageError{fmt.Errorf("-model and -preset exclude each other")}
		}
		rows, chosen := rowPrinter(tableRows), 0
		for _, format := range formats {
			if *format.chosen {
				rows, chosen = format.rows, chosen+1
			}
		}
		if chosen > 1 {
			return usageError{fmt.Errorf("-json, -csv and -bench exclude each other")}
		}
		if err := b.check(); err != nil {
			return usageError{err}
		}
		ctx := interruptible()
		m, err := b.load(ctx, c)
		if err != nil {
			return err
		}
		defer m.Close()
		// What the model does not do is told ahead of any output.
		if err := m.NewSession(photon.Mode(b.mode)).Append(ctx); err != nil {
			return err
		}
		b.progress = c.progress()
		defer b.progress.done()
		return b.run(ctx, m, rows(c.stdout))
	}
}

// numbers reads numbers with commas between them. They are measured in ascending order, each once.
func numbers(to *[]int) func(list string) error {
	return func(list string) error {
		*to = nil
		for _, text := range strings.Split(list, ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 || n > mostTokens {
				return fmt.Errorf("want numbers from 0 to %d with commas between them, as in 0,2048", mostTokens)
			}
			*to = append(*to, n)
		}
		slices.Sort(*to)
		*to = slices.Compact(*to)
		return nil
	}
}

func (b *bench) check() error {
	switch {
	case b.prompt < 0 || b.prompt > mostTokens:
		return fmt.Errorf("-p %d: want 0 to %d", b.prompt, mostTokens)
	case b.tokens < 0 || b.tokens > mostTokens:
		return fmt.Errorf("-n %d: want 0 to %d", b.tokens, mostTokens)
	case max(b.prompt, b.tokens) > mostTokens-slices.Max(b.depths):
		return fmt.Errorf("-d %d: a text has at most %d tokens, those of -p or -n included",
			slices.Max(b.depths), mostTokens)
	case b.prompt == 0 && b.tokens == 0:
		return fmt.Errorf("-p 0 -n 0 leaves nothing to measure")
	case slices.Contains(b.texts, 0):
		return fmt.Errorf("-b 0: want 1 or more")
	case len(b.texts) > 0 && slices.Max(b.texts) > mostTexts:
		return fmt.Errorf("-b %d: want at most %d", slices.Max(b.texts), mostTexts)
	case b.tokens == 0 && len(b.texts) > 0 && slices.Max(b.texts) > 1:
		return fmt.Errorf("-b %d decodes nothing with -n 0", slices.Max(b.texts))
	case b.mode == photon.RecGen && (b.tokens == 0 || len(b.texts) > 0 && slices.Max(b.texts) > 1):
		return fmt.Errorf("-mode recgen decodes one text: leave -b out, and give -n 1 or more")
	case b.repetitions < 3:
		return fmt.Errorf("-r %d: want 3 or more, for a median", b.repetitions)
	}
	return nil
}

func (b *bench) load(ctx context.Context, c *console) (*photon.Model, error) {
	if b.preset == "" {
		return b.model.load(ctx, c)
	}
	cfg, err := photon.Preset(b.preset)
	if err != nil {
		return nil, usageError{err}
	}
	dir, err := os.MkdirTemp("", "photon-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := writeRandom(ctx, c, dir, cfg, 0, "BF16"); err != nil {
		return nil, err
	}
	files := b.model
	files.dir = dir
	return files.load(ctx, c)
}

// speedTest is what a row measures: do takes or makes n tokens of each text.
type speedTest struct {
	name    string
	n, warm int // tokens, and those of the warm-up
	texts   int
	after   int // tokens that a text must have: a flat model predicts nothing before its first
	do      func(ctx context.Context, texts []*photon.Session, n int) error
}

func (b *bench) tests(m *photon.Model) (list []speedTest) {
	if b.prompt > 0 {
		list = append(list, speedTest{fmt.Sprintf("pp%d", b.prompt), b.prompt, b.prompt, 1, 0, prefill(m)})
	}
	after := 0
	if m.Config().Flat() {
		after = 1
	}
	if warm := min(b.tokens, 16); warm > 0 && b.mode == photon.RecGen {
		list = append(list, speedTest{fmt.Sprintf("rg%d", b.tokens), b.tokens, warm, 1, after, decodeRecGen(m)})
	} else if warm > 0 {
		list = append(list, speedTest{fmt.Sprintf("tg%d", b.tokens), b.tokens, warm, 1, after, decode})
		for _, texts := range b.texts {
			if texts > 1 {
				name := "tb%dx%d"
				if b.apart {
					name = "ta%dx%d"
				}
				list = append(list, speedTest{fmt.Sprintf(name, b.tokens, texts), b.tokens, warm, texts, after, decodeTogether(m)})
			}
		}
	}
	return list
}

// lastTokens of the text before come before the clock starts but after the fork, so that its caches have grown.
const lastTokens = 64

// run measures every test at every depth. The text before is prefilled once; what is measured are forks of it.
func (b *bench) run(ctx context.Context, m *photon.Model, print func(benchRow) error) error {
	base := m.NewSession(photon.Temperature(0))
	for _, depth := range b.depths {
		for shared := depth - lastTokens; base.Len() < shared; {
			b.progress.share("reading the text before", int64(base.Len()), int64(shared))
			if err := base.Append(ctx, randomIDs(m, int64(base.Len()), min(shared-base.Len(), 1<<12))...); err != nil {
				return err
			}
		}
		base = base.Fork() // the copy holds no room to grow
		for _, test := range b.tests(m) {
			row, err := b.measure(ctx, m, base, depth, test)
			if err != nil {
				return err
			}
			b.progress.done()
			if err := print(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure repeats a test at a depth, of whose tokens base has all but the lastTokens.
func (b *bench) measure(ctx context.Context, m *photon.Model, base *photon.Session, depth int, test speedTest) (benchRow, error) {
	r := benchRow{Test: test.name, Depth: depth, Repetitions: b.repetitions, Model: b.model.name(), Kernel: m.Kernel(),
		Threads: b.model.threads, Weights: b.model.weights.String(), Cache: b.model.cache.String(), tokens: test.n * test.texts}
	if b.preset != "" {
		r.Model = b.preset
	}
	if r.Threads == 0 {
		r.Threads = runtime.GOMAXPROCS(0)
	}
	for i := range b.repetitions + 1 {
		b.progress.show("%s behind %s tokens: %d of %d", test.name, count(depth), i, b.repetitions)
		runtime.GC() // the forks of the last repetition make room for these
		texts := make([]*photon.Session, test.texts)
		var before photon.Stats
		for j := range texts {
			texts[j] = base.Fork()
			if b.apart && j > 0 && base.Len() > 0 {
				texts[j] = m.NewSession(photon.Temperature(0))
				if err := texts[j].Append(ctx, randomIDs(m, int64(j)<<20, base.Len())...); err != nil {
					return r, err
				}
			}
			if at := max(depth, test.after); at > 0 {
				ids := randomIDs(m, int64(base.Len()), at-base.Len())
				ids[len(ids)-1] = randomIDs(m, int64(at-1)+int64(j), 1)[0]
				if err := texts[j].Append(ctx, ids...); err != nil {
					return r, err
				}
			}
			before.KVReadBytes += texts[j].Stats().KVReadBytes
		}
		n := test.n
		if i == 0 {
			n = test.warm
		}
		begin := time.Now()
		if err := test.do(ctx, texts, n); err != nil {
			return r, err
		}
		seconds := time.Since(begin).Seconds()
		if i == 0 {
			continue
		}
		r.seconds = append(r.seconds, seconds)
		r.StateBytes, r.KVReadBytes = 0, -before.KVReadBytes
		for _, s := range texts {
			r.StateBytes += s.Stats().StateBytes
			r.KVReadBytes += s.Stats().KVReadBytes
		}
		r.KVReadBytes /= int64(r.tokens)
	}
	sorted := slices.Sorted(slices.Values(r.seconds))
	median := (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
	r.TokensPerSecond = float64(r.tokens) / median
	r.Min, r.Max = float64(r.tokens)/sorted[len(sorted)-1], float64(r.tokens)/sorted[0]
	return r, nil
}

// randomIDs are tokens first … first+n-1 of one and the same pseudo-random text.
func randomIDs(m *photon.Model, first int64, n int) []int {
	ids, vocab := make([]int, n), uint64(m.Config().VocabSize)
	for i := range ids {
		ids[i] = int(rand.NewPCG(1, uint64(first)+uint64(i)).Uint64() % vocab)
	}
	return ids
}

// prefill appends a text of up to a million tokens at once.
func prefill(m *photon.Model) func(ctx context.Context, texts []*photon.Session, n int) error {
	return func(ctx context.Context, texts []*photon.Session, n int) error {
		s := texts[0]
		for end := s.Len() + n; s.Len() < end; {
			if err := s.Append(ctx, randomIDs(m, int64(s.Len()), min(end-s.Len(), 1<<20))...); err != nil {
				return err
			}
		}
		return nil
	}
}

// decode makes n tokens with Generate, always the most likely one. It does not end with the text: the token that would end it is appended like
// any other.
func decode(ctx context.Context, texts []*photon.Session, n int) error {
	s := texts[0]
	for n > 0 {
		for token, err := range s.Generate(ctx, photon.MaxTokens(n)) {
			if err != nil {
				return err
			}
			if token.Stop == photon.StopEOS {
				break
			}
			n--
		}
		if n > 0 {
			if err := s.Append(ctx, mostLikely(s.Logits())); err != nil {
				return err
			}
			n--
		}
	}
	s.Logits() // has the model read the last token too
	return nil
}

// decodeRecGen makes n tokens by RecGen, behind which nothing can be appended: the tokens that end a text are forbidden.
func decodeRecGen(m *photon.Model) func(ctx context.Context, texts []*photon.Session, n int) error {
	opts := append(endless(m), photon.Mode(photon.RecGen))
	return func(ctx context.Context, texts []*photon.Session, n int) error {
		for _, err := range texts[0].Generate(ctx, append(opts, photon.MaxTokens(n))...) {
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// endless forbids the tokens that end a text.
func endless(m *photon.Model) (opts []photon.Option) {
	if ends := m.Config().EOSTokenIDs; len(ends) > 0 {
		opts = append(opts, photon.LogitsFunc(func(_ []int, logits []float32) {
			for _, id := range ends {
				logits[id] = float32(math.Inf(-1))
			}
		}))
	}
	return opts
}

func mostLikely(logits []float32) int {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	return best
}

// decodeTogether makes n tokens of each text with GenerateBatch, and has the model read the last ones too. The tokens that end a text are forbidden, or else the batch would shrink.
func decodeTogether(m *photon.Model) func(ctx context.Context, texts []*photon.Session, n int) error {
	opts := endless(m)
	return func(ctx context.Context, texts []*photon.Session, n int) error {
		requests := make([]photon.Request, len(texts))
		for i, s := range texts {
			requests[i] = photon.Request{Session: s}
		}
		for _, n := range []int{n, 0} {
			for _, err := range m.GenerateBatch(ctx, requests, append(opts, photon.MaxTokens(n))...) {
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// A rowPrinter prints rows as they come.
type rowPrinter func(w io.Writer) func(r benchRow) error

func jsonRows(w io.Writer) func(r benchRow) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return func(r benchRow) error { return e.Encode(r) }
}

// tableRows is for people.
func tableRows(w io.Writer) func(r benchRow) error {
	begun := false
	line := func(cells ...any) error {
		_, err := fmt.Fprintf(w, "%-12s %9s %11s %11s %11s %11s %15s\n", cells...)
		return err
	}
	return func(r benchRow) error {
		if !begun {
			begun = true
			fmt.Fprintf(w, "%s: kernel %s, threads %d, weights %s, cache %s; tokens/s are medians of %d repetitions\n\n",
				r.Model, r.Kernel, r.Threads, r.Weights, r.Cache, r.Repetitions)
			line("test", "depth", "tokens/s", "min", "max", "state", "kv read/token")
		}
		return line(r.Test, count(r.Depth), perSecond(r.TokensPerSecond), perSecond(r.Min), perSecond(r.Max), size(r.StateBytes), size(r.KVReadBytes))
	}
}

// csvRows prints the fields of -json, under their names.
func csvRows(w io.Writer) func(r benchRow) error {
	begun := false
	return func(r benchRow) error {
		out := csv.NewWriter(w)
		if !begun {
			begun = true
			out.Write([]string{"test", "depth", "tokens_per_second", "min", "max", "repetitions", "state_bytes", "kv_read_bytes",
				"model", "kernel", "threads", "weights", "cache"})
		}
		number := func(x float64) string { return strconv.FormatFloat(x, 'f', 3, 64) }
		out.Write([]string{r.Test, strconv.Itoa(r.Depth), number(r.TokensPerSecond), number(r.Min), number(r.Max), strconv.Itoa(r.Repetitions),
			strconv.FormatInt(r.StateBytes, 10), strconv.FormatInt(r.KVReadBytes, 10), r.Model, r.Kernel, strconv.Itoa(r.Threads), r.Weights, r.Cache})
		out.Flush()
		return out.Error()
	}
}

// benchstatRows prints every repetition in the format of go test -bench.
func benchstatRows(w io.Writer) func(r benchRow) error {
	begun := false
	return func(r benchRow) error {
		if !begun {
			begun = true
			fmt.Fprintf(w, "goos: %s\ngoarch: %s\nmodel: %s\nkernel: %s\nthreads: %d\nweights: %s\ncache: %s\n",
				runtime.GOOS, runtime.GOARCH, r.Model, r.Kernel, r.Threads, r.Weights, r.Cache)
		}
		for _, seconds := range r.seconds {
			_, err := fmt.Fprintf(w, "BenchmarkPhoton/%s/d%d 1 %.0f ns/op %.3f tok/s %d state-bytes %d kv-bytes/tok\n",
				r.Test, r.Depth, seconds*1e9, float64(r.tokens)/seconds, r.StateBytes, r.KVReadBytes)
			if err != nil {
				return err
			}
		}
		return nil
	}
}
