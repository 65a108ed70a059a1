package photon

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	programCount = flag.Int("programs", 30, "random programs that TestRandomPrograms runs")
	programFirst = flag.Uint64("programs.first", 0, "the seed of the first")
	programSteps = flag.Int("programs.steps", 12, "operations in each")
	programTime  = flag.Duration("programs.time", 0, "stop after so long; 0: never")
)

// Random programs over the whole face: a model of a random architecture of any format, with sizes of every kind, in a
// random form, and texts that grow, fork, generate, score, join batches and leave them, are saved, cancelled and
// switched to RecGen. The one-pass logits are held against the float64 reference, and everything else against them,
// bit for bit.
func TestRandomPrograms(t *testing.T) {
	count := *programCount
	if testing.Short() {
		count = min(count, 10)
	}
	began, operations := time.Now(), map[string]int{}
	for seed := *programFirst; seed < *programFirst+uint64(count); seed++ {
		if *programTime > 0 && time.Since(began) > *programTime {
			break
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runProgram(t, seed, operations) })
		operations["architectures"]++
	}
	t.Logf("%v in %v", operations, time.Since(began).Round(time.Second))
}

// A program is a model, the texts that stand, and what became of them.
type program struct {
	t      *testing.T
	r      *rand.Rand
	m      *Model
	f      *reference
	exact  bool // the model computes what the reference does
	most   int  // tokens of a text
	texts  []*programText
	did    map[string]int
	trace  []string
	passes map[string][]float32 // one pass of a text
}

type programText struct {
	s   *Session
	ids []int
}

func runProgram(t *testing.T, seed uint64, operations map[string]int) {
	r := rand.New(rand.NewPCG(80, seed))
	oldRows := stepRows
	defer func() { stepRows = oldRows }()
	stepRows = []int{3, 7, 24, 256}[r.IntN(4)]
	tiers := kernelTiers()
	withKernel(t, tiers[r.IntN(len(tiers))])
	c, most := programConfig(r)
	stored := []dtype{dtypeF32, dtypeF32, dtypeBF16, dtypeF16}[r.IntN(4)]
	weights := []WeightType{AsStored, AsStored, F32, F32, BF16, Int8, Int4}[r.IntN(7)]
	cache := cacheTypes[max(0, r.IntN(5)-2)]
	threads := 1 + r.IntN(3)
	p := &program{t: t, r: r, most: most, did: operations, exact: (weights == AsStored || weights == F32) && cache == CacheF32}
	text, _ := c.MarshalJSON()
	defer func() {
		if e := recover(); e != nil || t.Failed() {
			t.Errorf("seed %d: %v: kernel %s, steps of %d rows, weights %v held %v, cache %v, %d threads, %s\n%s",
				seed, e, currentKernel, stepRows, stored, weights, cache, threads, text, strings.Join(p.trace, "\n"))
			if e != nil {
				panic(e)
			}
		}
	}()
	files, f := randomFiles(t, r, c, stored)
	m, err := LoadFS(files, WithThreads(threads), WithWeights(weights), WithCache(cache))
	if errors.Is(err, ErrUnsupported) && strings.Contains(err.Error(), "make it smaller") {
		p.note("refused")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	p.m, p.f = m, f
	defer p.m.Close()
	p.passes = map[string][]float32{}
	p.begin()
	for range *programSteps {
		p.operation()
	}
	for _, x := range p.texts {
		p.check("at the end", x)
	}
	p.reference()
}

// programConfig draws an architecture that a float64 pass over most tokens can follow in some 50 ms.
func programConfig(r *rand.Rand) (c Config, most int) {
	odd := []int{1, 1, 2, 3, 5, 13, 17, 31, 32, 33, 63, 64, 65, 129, 255, 256, 257, 300, 513, 1000, 4097}
	size := func(least, most int) int {
		if n := odd[r.IntN(len(odd))]; r.IntN(6) == 0 { // also below least, which is 0 or more
			return n
		}
		return least + r.IntN(most-least+1)
	}
	for {
		c = drawConfig(r, size)
		if r.IntN(3) == 0 {
			forRecGen(&c, r)
		}
		most = min(30+3*c.MetaContext(), 700)
		for ; most >= 20; most /= 2 {
			if c.validate() == nil && referenceCost(c, most) < 3e7 {
				return c, most
			}
		}
	}
}

// forRecGen leaves out what RecGen does not run.
func forRecGen(c *Config, r *rand.Rand) {
	if len(c.Levels) < 2 {
		return
	}
	c.FormatVersion, c.TokenEncoder, c.Content = 1, nil, ""
	for i := range c.Levels {
		l := &c.Levels[i]
		l.PrefixLength = max(l.PrefixLength, 1)
		if l.Encoder.Windows != nil {
			l.Encoder.SlidingWindow, l.Encoder.Windows = 1+r.IntN(9), nil
		}
		l.Decoder.SlidingWindow, l.Decoder.Windows, l.Decoder.Memories = 0, nil, nil
	}
}

// referenceCost is about the multiply-adds of a reference pass.
func referenceCost(c Config, tokens int) float64 {
	stack := func(s StackConfig, rows, seen float64) float64 {
		d, q := float64(s.HiddenSize), float64(s.Heads*s.HeadDim)
		return float64(s.Layers) * rows * (d*(2*q+2*float64(s.kvWidth())+3*float64(s.IntermediateSize)) + 2*q*seen)
	}
	n := float64(tokens)
	if c.Flat() {
		return stack(c.Transformer, n, n) + n*float64(c.VocabSize*c.EmbeddingSize)
	}
	cost := 0.0
	if c.TokenEncoder != nil {
		cost += stack(*c.TokenEncoder, n, n)
	}
	rows, units := n, n
	for _, l := range c.Levels {
		units = rows/float64(l.ChunkSize) + 1
		own, other := float64(l.Encoder.HiddenSize), float64(l.Decoder.HiddenSize)
		cost += stack(l.Encoder, units, units)
		all := units * float64(l.PrefixLength+l.ChunkSize)
		seen := float64(l.PrefixLength + l.ChunkSize)
		if l.Decoder.stream() {
			seen = all
		}
		cost += stack(l.Decoder, all, seen) + units*own*other*float64(l.slices())
		for _, e := range l.Decoder.Memories {
			wide := float64(e.Heads * e.HeadDim)
			cost += all * (float64(len(e.Layers)) * wide * (2*other + 2*rows))
			cost += 2 * n * float64(e.KVHeads*e.HeadDim*c.width(e.rowLevel()))
			if e.Unpack {
				cost += n * float64(c.width(e.Level)*c.width(e.rowLevel())*c.Levels[e.Level-1].ChunkSize)
			}
		}
		rows = units
	}
	return cost + n*float64(c.VocabSize*c.Levels[0].Decoder.HiddenSize)
}

func (p *program) fatal(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf(format, args...)
}

func (p *program) note(name string, args ...any) {
	p.did[name]++
	p.trace = append(p.trace, name+fmt.Sprint(args...))
}

func (p *program) ids(n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = p.r.IntN(p.m.cfg.VocabSize)
	}
	return ids
}

func (p *program) begin() *programText {
	x := &programText{s: p.m.NewSession()}
	p.texts = append(p.texts, x)
	if p.m.cfg.Flat() { // nothing predicts its first token
		p.append(x, 1)
	}
	return x
}

func (p *program) any() *programText { return p.texts[p.r.IntN(len(p.texts))] }

// room is how many tokens a text may still take.
func (p *program) room(x *programText) int { return max(0, p.most-len(x.ids)) }

func (p *program) length(x *programText) int {
	meta := p.m.cfg.MetaContext()
	n := []int{0, 1, 1, 2, 3, p.r.IntN(9), meta - 1, meta, meta + 1, p.r.IntN(2*meta + 1), p.most}[p.r.IntN(11)]
	return min(n, p.room(x))
}

// pass is one pass of a text: the logits of what follows it.
func (p *program) pass(ids []int) []float32 {
	key := fmt.Sprint(ids)
	row, ok := p.passes[key]
	if !ok {
		all, err := p.m.Logits(background, ids)
		if err != nil {
			p.fatal("Logits: %v", err)
		}
		row = all[len(ids)*p.m.cfg.VocabSize:]
		p.passes[key] = row
	}
	return row
}

// check holds a text against the one pass.
func (p *program) check(what string, x *programText) {
	p.t.Helper()
	if !slices.Equal(x.s.ids, x.ids) {
		p.fatal("%s: the text is %v, want %v", what, x.s.ids, x.ids)
	}
	if x.s.rec.started || p.m.cfg.Flat() && len(x.ids) == 0 {
		return
	}
	x.s.Logits() // has all of the text read
	if got, want := x.s.Stats().StateBytes, p.m.cfg.StateBytes(x.s.Len(), p.m.cacheType); got > want {
		p.fatal("%s: %d tokens hold %d bytes, want %d at most", what, x.s.Len(), got, want)
	}
	if want := p.pass(x.ids); !equalBits(x.s.Logits(), want) {
		near(p.t, what+": bits", x.s.Logits(), want, 0)
	}
}

func equalBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
}

func (p *program) append(x *programText, n int) {
	if x.s.rec.started {
		if err := x.s.Append(background, 0); !errors.Is(err, ErrUnsupported) {
			p.fatal("Append after RecGen: %v", err)
		}
		return
	}
	more := p.ids(n)
	if err := x.s.Append(background, more...); err != nil {
		p.fatal("Append: %v", err)
	}
	x.ids = append(x.ids, more...)
}

func (p *program) operation() {
	x := p.any()
	switch p.r.IntN(12) {
	case 0:
		if len(p.texts) < 5 {
			p.note("session")
			p.begin()
		}
	case 1, 2, 3:
		n := p.length(x)
		p.note("append ", n, " to ", len(x.ids))
		p.append(x, n)
	case 4:
		p.note("fork of ", len(x.ids))
		y := &programText{s: x.s.Fork(), ids: slices.Clone(x.ids)}
		p.texts = append(p.texts, y)
		p.append(x, min(2, p.room(x)))
		p.check("the fork", y)
	case 5:
		p.note("bad token")
		bad := []int{-1, p.m.cfg.VocabSize, math.MaxInt}[p.r.IntN(3)]
		if err := x.s.Append(background, 0, bad); err == nil {
			p.fatal("token %d is taken", bad)
		}
	case 6:
		p.generate(x)
	case 7:
		p.score(x)
	case 8:
		p.snapshot(x)
	case 9:
		p.cancel(x)
	case 10:
		p.batch()
	case 11:
		if p.m.checkMode(RecGen) == nil {
			p.note("RecGen")
			p.generate(x, Mode(RecGen))
		} else if err := firstError(x.s.Generate(background, Mode(RecGen))); !errors.Is(err, ErrUnsupported) {
			p.fatal("RecGen: %v", err)
		}
	}
	p.check("after", x)
}

// options are random ones, for n tokens.
func (p *program) options(n int, opts ...Option) []Option {
	return slices.Concat([]Option{MaxTokens(n)}, randomOptions(p.r, p.m.cfg.VocabSize), opts)
}

// collect generates; leave > 0 leaves the loop after so many.
func collect(s *Session, leave int, opts []Option) (ids []int, failed string) {
	for token, err := range s.Generate(background, opts...) {
		switch {
		case err != nil:
			return ids, err.Error()
		case token.Stop != StopEOS && token.Stop != StopToken:
			ids = append(ids, token.ID)
		}
		if len(ids) == leave {
			break
		}
	}
	return ids, ""
}

// generate holds a text against a session that has read it at once, or is a fork, and draws the tokens in two calls.
func (p *program) generate(x *programText, opts ...Option) {
	n := min(p.r.IntN(12), p.room(x))
	opts = p.options(n, opts...)
	p.note("generate ", n, " after ", len(x.ids))
	other := x.s.Fork()
	if !x.s.rec.started && p.r.IntN(2) == 0 {
		other = p.m.NewSession()
		if err := other.Append(background, x.ids...); err != nil {
			p.fatal("Append: %v", err)
		}
	}
	want, failed := collect(other, -1, opts)
	leave := p.r.IntN(n + 1)
	var got []int
	again := failed
	if leave > 0 {
		got, again = collect(x.s, leave, opts)
	}
	if rest := n - len(got); again == "" && len(got) == leave && rest > 0 && len(want) > leave {
		var more []int
		more, again = collectAfter(x.s, got, rest, opts)
		got = append(got, more...)
	} else if leave == 0 {
		got, again = collect(x.s, -1, opts)
	}
	x.ids = append(x.ids, got...)
	if !slices.Equal(got, want) && failed == "" {
		p.fatal("generated %v %q, at once %v %q", got, again, want, failed)
	}
	if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
		p.fatal("generated %v, at once %v", got, want)
	}
}

// collectAfter goes on after drawn tokens. Penalties and LogitsFuncs look at the text and at what the call has drawn,
// so that the second is told of what the first has.
func collectAfter(s *Session, drawn []int, rest int, opts []Option) ([]int, string) {
	o, err := resolve(defaultOptions(), opts)
	if err != nil {
		return nil, err.Error()
	}
	more := slices.Concat(opts, []Option{MaxTokens(rest), LogitsFunc(nil)})
	for _, f := range o.logits {
		more = append(more, LogitsFunc(func(now []int, logits []float32) { f(slices.Concat(drawn, now), logits) }))
	}
	return collect(s, -1, more)
}

func (p *program) score(x *programText) {
	more := p.ids(min(p.r.IntN(9), p.room(x)))
	p.note("score ", len(more), " after ", len(x.ids))
	got, err := x.s.Score(background, more...)
	if x.s.rec.started {
		if !errors.Is(err, ErrUnsupported) {
			p.fatal("Score after RecGen: %v", err)
		}
		return
	}
	if err != nil {
		p.fatal("Score: %v", err)
	}
	text := slices.Clone(x.ids)
	for i, id := range more {
		if want := logProb(p.pass(text), id); math.Float32bits(got[i]) != math.Float32bits(want) {
			p.fatal("token %d after %d scores %v, want %v", i, len(x.ids), got[i], want)
		}
		text = append(text, id)
	}
}

func (p *program) snapshot(x *programText) {
	p.note("snapshot of ", len(x.ids))
	var b bytes.Buffer
	if n, err := x.s.WriteTo(&b); err != nil || n != int64(b.Len()) {
		p.fatal("WriteTo: %d of %d bytes, %v", n, b.Len(), err)
	}
	first := slices.Clone(b.Bytes())
	s, err := p.m.ReadSession(&b)
	if err != nil {
		p.fatal("ReadSession: %v", err)
	}
	var again bytes.Buffer
	if _, err := s.WriteTo(&again); err != nil || !bytes.Equal(first, again.Bytes()) {
		p.fatal("the session that was read writes another snapshot: %v", err)
	}
	x.s = s
}

func (p *program) cancel(x *programText) {
	n := p.length(x)
	p.note("cancel ", n, " after ", len(x.ids))
	more := p.ids(n)
	err := x.s.Append(&cancelAfter{background, p.r.IntN(40)}, more...)
	if x.s.rec.started {
		return
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		p.fatal("Append: %v", err)
	}
	took := x.s.Len() - len(x.ids)
	if err == nil && took != n || took < 0 || took > n {
		p.fatal("Append took %d of %d tokens, %v", took, n, err)
	}
	x.ids = append(x.ids, more[:took]...)
}

// batch has requests with and without sessions join a Batcher, or run in one GenerateBatch, and leave at any time.
func (p *program) batch() {
	type request struct {
		Request
		leave int
		of    *programText
		want  []int
		got   []int
	}
	var list []*request
	for i := range 1 + p.r.IntN(4) {
		q := &request{leave: p.r.IntN(8)}
		n := p.r.IntN(10)
		q.Options = p.options(n, LogitsFunc(nil), LogitBias(nil))
		alone := p.m.NewSession()
		if i < len(p.texts) && p.r.IntN(2) == 0 && p.room(p.texts[i]) > 20 {
			if p.texts[i].s.rec.started { // which no batch goes on with
				for _, err := range p.m.GenerateBatch(background, []Request{{Session: p.texts[i].s}}) {
					if !errors.Is(err, ErrUnsupported) {
						p.fatal("GenerateBatch after RecGen: %v", err)
					}
				}
			} else {
				q.of = p.texts[i]
				q.Session, alone = q.of.s, q.of.s.Fork()
			}
		}
		q.IDs = p.ids(1 + p.r.IntN(6))
		if err := alone.Append(background, q.IDs...); err != nil {
			p.fatal("Append: %v", err)
		}
		if q.leave == 0 {
			q.leave = -1
		}
		var failed string
		if q.want, failed = collect(alone, q.leave, q.Options); failed != "" {
			p.fatal("alone: %s", failed)
		}
		list = append(list, q)
	}
	slow := p.r.IntN(2) == 0
	p.note("batch of ", len(list), ", Batcher ", slow)
	if slow {
		b := p.m.NewBatcher(MaxTexts(1+p.r.IntN(4)), PrefillSlice(p.r.IntN(4)))
		var wait sync.WaitGroup
		for _, q := range list {
			wait.Go(func() {
				for token, err := range b.Generate(background, q.Request) {
					if err != nil {
						p.t.Errorf("Batcher: %v", err)
						return
					}
					if token.Stop != StopEOS {
						q.got = append(q.got, token.ID)
					}
					if len(q.got) == q.leave {
						return
					}
				}
			})
		}
		wait.Wait()
		b.Close()
	} else {
		var reqs []Request
		for _, q := range list {
			q.leave = -1 // all run to their ends
			alone := p.m.NewSession()
			if q.Session != nil {
				alone = q.Session.Fork()
			}
			if len(q.IDs) > 0 {
				if err := alone.Append(background, q.IDs...); err != nil {
					p.fatal("Append: %v", err)
				}
			}
			q.want, _ = collect(alone, -1, q.Options)
			reqs = append(reqs, q.Request)
		}
		for token, err := range p.m.GenerateBatch(background, reqs) {
			if err != nil {
				p.fatal("GenerateBatch: %v", err)
			}
			if token.Stop != StopEOS {
				list[token.Request].got = append(list[token.Request].got, token.ID)
			}
		}
	}
	for i, q := range list {
		if !slices.Equal(q.got, q.want) {
			p.fatal("request %d of %d generates %v, alone %v", i, len(list), q.got, q.want)
		}
		if q.of != nil {
			q.of.ids = slices.Concat(q.of.ids, q.IDs, q.got)
			p.check("after a batch", q.of)
		}
	}
}

// reference holds one pass over the longest text against float64.
func (p *program) reference() {
	text := p.texts[0].ids
	for _, x := range p.texts {
		if len(x.ids) > len(text) {
			text = x.ids
		}
	}
	if !p.exact || len(text) < 2 {
		return
	}
	p.note("reference of ", len(text))
	pass, err := p.m.Logits(background, text)
	if err != nil {
		p.fatal("Logits: %v", err)
	}
	want, largest := p.f.run(text), 0.0
	for _, v := range want {
		largest = max(largest, math.Abs(float64(v)))
	}
	got := referenceRows(p.m, pass)
	for i := range got {
		if !(math.Abs(float64(got[i])-float64(want[i])) <= agreement*largest) {
			near(p.t, "logits", got, want, max(agreement*largest, p.condition(text, want)))
			p.note("ill-conditioned")
			return
		}
	}
}

// condition is how far the logits of a text move when every weight does by about the rounding of a float32: a norm of
// one value is a sign, and one of few is nearly that.
func (p *program) condition(text []int, want []float32) float64 {
	worst := 0.0
	for range 3 {
		moved := &reference{p.f.cfg, map[string][]float32{}}
		for spec := range p.f.cfg.tensors() {
			values := slices.Clone(p.f.w[spec.name])
			for i := range values {
				values[i] *= 1 + float32(p.r.IntN(5)-2)/(1<<23)
			}
			moved.w[spec.name] = values
		}
		for i, v := range moved.run(text) {
			worst = max(worst, math.Abs(float64(v)-float64(want[i])))
		}
	}
	return 5 * worst
}
