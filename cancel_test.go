package photon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/photon-lm/photon/models"
)

// longIDs are tokens of a long text.
func longIDs(m *Model, n int) []int {
	r := rand.New(rand.NewPCG(1, 2))
	ids := make([]int, n)
	for i := range ids {
		ids[i] = r.IntN(m.cfg.VocabSize)
	}
	return ids
}

// lateness runs f under contexts that end after various times, and returns by how much it outlived each that it did not
// finish in.
func lateness(t *testing.T, times int, most time.Duration, f func(ctx context.Context) error) (late []time.Duration) {
	t.Helper()
	for i := range times {
		after := time.Duration(i+1) * most / time.Duration(times)
		begin := time.Now()
		var ctx context.Context
		var cancel context.CancelFunc
		if i%2 == 0 {
			ctx, cancel = context.WithTimeout(background, after)
		} else {
			ctx, cancel = context.WithCancel(background)
			time.AfterFunc(after, cancel)
		}
		err := f(ctx)
		took := time.Since(begin)
		cancel()
		if err == nil {
			continue // it was done before
		}
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		late = append(late, took-after)
	}
	slices.Sort(late)
	return late
}

// Every call returns soon after its context has ended, wherever it is.
func TestCancelIsPrompt(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("times mean nothing here")
	}
	m := stories(t, WithThreads(1))
	ids := longIDs(m, 30000)
	text := strings.Repeat("The king has a daughter, and she is clever. ", 200000)
	head := m.NewSession()
	if err := head.Append(background, ids[:20000]...); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(ctx context.Context) error{
		"Append":        func(ctx context.Context) error { return m.NewSession().Append(ctx, ids...) },
		"Append at 20k": func(ctx context.Context) error { return head.Fork().Append(ctx, ids[20000:]...) },
		"Logits":        func(ctx context.Context) error { _, err := m.Logits(ctx, ids[:6000]); return err },
		"Score":         func(ctx context.Context) error { _, err := m.Score(ctx, ids); return err },
		"Session.Score": func(ctx context.Context) error { _, err := head.Score(ctx, ids...); return err },
		"Load":          func(ctx context.Context) error { _, err := LoadFS(models.Stories(), WithContext(ctx)); return err },
		"WriteRandom":   func(ctx context.Context) error { return writeFlat(ctx, filepath.Join(t.TempDir(), "model")) },
		"Generate":      func(ctx context.Context) error { return firstError(m.Generate(ctx, "Once", MaxTokens(-1), noEnd(m))) },
		"a long prompt": func(ctx context.Context) error { return firstError(head.Fork().Generate(ctx, MaxTokens(-1), noEnd(m))) },
		"a long text":   func(ctx context.Context) error { return firstError(m.Generate(ctx, text)) },
		"its tokens":    func(ctx context.Context) error { return m.NewSession().AppendText(ctx, text) },
		"in a batch":    func(ctx context.Context) error { return batcherError(ctx, m, Request{Prompt: text}) },
		"GenerateBatch": func(ctx context.Context) error { return batchError(ctx, m, ids) },
		"Batcher":       func(ctx context.Context) error { return batcherError(ctx, m, Request{IDs: ids}) },
		"Batcher, owned": func(ctx context.Context) error {
			return batcherError(ctx, m, Request{IDs: ids, Session: m.NewSession()})
		},
	} {
		late := lateness(t, 8, 200*time.Millisecond, f)
		if name == "Load" {
			continue // it is over too soon here; see TestLoadCancelled
		}
		if len(late) < 4 {
			slow(t, "%s: only %d of 8 were cancelled", name, len(late))
		} else if middle := late[len(late)/2]; middle > 50*time.Millisecond {
			slow(t, "%s: outlives its context by %v", name, late)
		}
		t.Logf("%s: %v", name, late)
	}
	if !slices.Equal(head.ids, ids[:20000]) {
		t.Error("the text has changed")
	}
}

// noEnd keeps a text from ending.
func noEnd(m *Model) Option {
	bias := map[int]float32{}
	for _, id := range m.cfg.EOSTokenIDs {
		bias[id] = negInf
	}
	return LogitBias(bias)
}

func firstError(seq func(func(Token, error) bool)) (err error) {
	for _, err = range seq {
		if err != nil {
			break
		}
	}
	return err
}

func batchError(ctx context.Context, m *Model, ids []int) error {
	for _, err := range m.GenerateBatch(ctx, []Request{{IDs: ids}, {Prompt: "Once"}, {IDs: ids[5:]}}, MaxTokens(-1), noEnd(m)) {
		if err != nil {
			return err
		}
	}
	return nil
}

func batcherError(ctx context.Context, m *Model, r Request) error {
	b := m.NewBatcher()
	defer b.Close()
	r.Options = []Option{MaxTokens(-1), noEnd(m)}
	return firstError(b.Generate(ctx, r))
}

func writeFlat(ctx context.Context, dir string) error {
	cfg := flat(32000, presetStack(512, 2048, 8, 8))
	err := WriteRandomContext(ctx, dir, cfg, 1, "F32")
	if _, gone := os.Lstat(dir); err != nil && !errors.Is(gone, fs.ErrNotExist) {
		return errors.New("a directory is left behind")
	}
	return err
}

// Cut short anywhere, a text goes on to the same bits, and nothing is drawn from what is no more.
func TestCancelAnywhere(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		defer func(n int) { stepRows = n }(stepRows)
		stepRows = 24
		ids := slices.Repeat(g.ids, 1+(2*m.pieceTokens()+9)/len(g.ids))
		whole := m.NewSession(Temperature(0), MaxTokens(20))
		if err := whole.Append(background, ids...); err != nil {
			t.Fatal(err)
		}
		looks := &looking{Context: background, n: 1 << 30}
		probe := m.NewSession()
		if err := probe.Append(looks, ids...); err != nil {
			t.Fatal(err)
		}
		total := 1<<30 - looks.n
		f := whole.Fork()
		want := listen(t, f, 0, f.Generate(background))
		r := rand.New(rand.NewPCG(3, 4))
		for range 12 {
			s := m.NewSession(Temperature(0), MaxTokens(20))
			first := r.IntN(9) + 1
			if err := s.Append(background, ids[:first]...); err != nil {
				t.Fatal(err)
			}
			for tries := 0; s.Len() < len(ids) && tries < 4; tries++ {
				err := s.Append(&looking{Context: background, n: r.IntN(total)}, ids[s.Len():]...)
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if !slices.Equal(s.ids, ids[:s.Len()]) {
					t.Fatal("the text is not what was appended")
				}
				if r.IntN(3) == 0 { // from a text that was cut short, what is drawn is what it would be otherwise
					clean := m.NewSession(Temperature(0), MaxTokens(4))
					if err := clean.Append(background, s.ids...); err != nil {
						t.Fatal(err)
					}
					f := s.Fork()
					if got, want := listen(t, f, 0, f.Generate(background, MaxTokens(4))), listen(t, clean, 0, clean.Generate(background)); !slices.Equal(got.ids, want.ids) {
						t.Fatalf("after a cancel at %d: %v, want %v", s.Len(), got.ids, want.ids)
					}
				}
				if _, err := s.Score(&looking{Context: background, n: r.IntN(total)}, ids...); err != nil && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
			if err := s.Append(background, ids[s.Len():]...); err != nil {
				t.Fatal(err)
			}
			near(t, "logits", s.Logits(), whole.Logits(), 0)
			if h := listen(t, s, 0, s.Generate(background)); !slices.Equal(h.ids, want.ids) {
				t.Fatalf("%v, want %v", h.ids, want.ids)
			}
		}
	}, WithThreads(2))
}

// A step of a few tokens looks at its context once, before it; a longer one all the way.
func TestAppendLooks(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		s := m.NewSession()
		n := 0
		for _, more := range []int{shortStep, shortStep + 1, 40, 1, 2, 3, 1, 1, 60, 5} {
			ids := slices.Repeat([]int{1}, more)
			behind := m.behind(s.seq)
			looks := &looking{Context: background, n: 1 << 30}
			if err := s.Append(looks, ids...); err != nil {
				t.Fatal(err)
			}
			looked := 1<<30 - looks.n
			if short := more+behind <= shortStep; short != (looked <= 3) {
				t.Errorf("%d tokens behind %d, decoders %d behind: looked %d times", more, n, behind, looked)
			}
			n += more
		}
	}, WithThreads(1))
}

// looking is a context that ends at its n-th look, and can end.
type looking struct {
	context.Context
	n int
}

func (c *looking) Done() <-chan struct{} { return make(chan struct{}) }

func (c *looking) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// Load stops wherever its context ends, with a large model too.
func TestLoadCancelled(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("times mean nothing here")
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := WriteRandom(dir, flat(32000, presetStack(1024, 4096, 2, 8)), 1, "BF16"); err != nil {
		t.Fatal(err)
	}
	for _, form := range []WeightType{AsStored, Int8, Int4} {
		late := lateness(t, 8, 150*time.Millisecond, func(ctx context.Context) error {
			_, err := Load(dir, WithContext(ctx), WithWeights(form), WithThreads(1))
			return err
		})
		if len(late) > 0 && late[len(late)/2] > 50*time.Millisecond {
			slow(t, "%v: outlives its context by %v", form, late)
		}
		t.Logf("%v: %v", form, late)
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := loadError(dir, WithContext(ctx)); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

// A long prompt does not stop the texts that run: they go on between its slices.
func TestLongPromptStopsNobody(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("times mean nothing here")
	}
	t.Run("embedded", func(t *testing.T) { stopsNobody(t, stories(t), 32000, 50*time.Millisecond) })
	if os.Getenv("PHOTON_TEST_TIMES") == "" {
		return // what follows writes a gigabyte
	}
	for _, name := range []string{"vanilla-600m", "memory-600m"} {
		t.Run(name, func(t *testing.T) {
			cfg, err := Preset(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := WriteRandom(dir, cfg, 1, "BF16"); err != nil {
				t.Fatal(err)
			}
			m, err := Load(dir, WithWeights(Int8), WithCache(CacheF16))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			stopsNobody(t, m, 2000, 250*time.Millisecond)
		})
	}
}

func stopsNobody(t *testing.T, m *Model, prompt int, most time.Duration) {
	b := m.NewBatcher()
	defer b.Close()
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	gaps := make([][]time.Duration, 15)
	var all, run sync.WaitGroup
	run.Add(len(gaps))
	for i := range gaps {
		all.Go(func() {
			var last time.Time
			for _, err := range b.Generate(ctx, Request{IDs: longIDs(m, 3), Options: []Option{MaxTokens(-1), noEnd(m)}}) {
				switch now := time.Now(); {
				case err != nil:
				case last.IsZero():
					run.Done()
					last = now
				default:
					gaps[i] = append(gaps[i], now.Sub(last))
					last = now
				}
			}
		})
	}
	run.Wait()
	for _, err := range b.Generate(ctx, Request{IDs: longIDs(m, prompt), Options: []Option{MaxTokens(1)}}) {
		if err != nil {
			t.Error(err)
		}
	}
	cancel()
	all.Wait()
	least := prompt / (2 * m.pieceTokens()) // a slice is at most a piece
	for i, g := range gaps {
		if len(g) <= least {
			t.Fatalf("text %d: %d tokens while a long prompt was read, want more than %d", i, len(g), least)
		}
		slices.Sort(g)
		if late := g[len(g)-1-len(g)/10]; late > most { // of the others some are the machine's
			slow(t, "text %d: of its %d tokens one in ten comes after %v or more, the last after %v", i, len(g), late, g[len(g)-1])
		}
	}
	t.Logf("%d tokens, the longest gap is %v", len(gaps[0]), gaps[0][len(gaps[0])-1])
}

// TestTokenizerCancelled: a large tokenizer.json is given up wherever the context ends, and is looked up from often.
func TestTokenizerCancelled(t *testing.T) {
	const tokens, merges = 60000, 20000
	var file strings.Builder
	file.WriteString(`{"added_tokens":[],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{`)
	for i := range 256 {
		fmt.Fprintf(&file, "%q:%d,", string(byteRune(byte(i))), i)
	}
	for i := range tokens {
		fmt.Fprintf(&file, `"a%db":%d,`, i, 256+i)
	}
	fmt.Fprintf(&file, `"ab":%d},"merges":["a b"`, 256+tokens)
	for range merges {
		file.WriteString(`,"a b"`)
	}
	file.WriteString(`]}}`)
	data := []byte(strings.ReplaceAll(file.String(), `"a b"`, `["a","b"]`))
	count := &looking{Context: background, n: 1 << 30}
	if _, err := parseTokenizer(count, data); err != nil {
		t.Fatal(err)
	}
	looks := 1<<30 - count.n
	if looks < (3*tokens+2*merges)/300 {
		t.Errorf("a file of %d bytes looks at its context %d times", len(data), looks)
	}
	for n := range 20 {
		after := n * (looks - 1) / 19
		if tokenizer, err := parseTokenizer(&looking{Context: background, n: after}, data); tokenizer != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("after %d of %d looks: %v", after, looks, err)
		}
	}
	if _, err := parseTokenizer(&looking{Context: background, n: looks}, data); err != nil {
		t.Errorf("a context that ends after it is done: %v", err)
	}
}
