package photon

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/photon-lm/photon/models"
)

// stories is the embedded model. Where a processor is emulated it would take hours; the golden models are small.
func stories(t testing.TB, opts ...LoadOption) *Model {
	t.Helper()
	if testing.Short() && os.Getenv("PHOTON_TEST_FEATURES") != "" {
		t.Skip("the embedded model on an emulated processor")
	}
	m, err := LoadFS(models.Stories(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestTextIsWhole: texts of tokens join to the decoded text, each is UTF-8 of its own, and Complete says the same.
func TestTextIsWhole(t *testing.T) {
	m := stories(t)
	opts := []Option{MaxTokens(40), Temperature(3), TopK(0), TopP(1), MinP(0), Seed(5)} // hot: broken runes come up
	var ids []int
	var text strings.Builder
	for token, err := range m.Generate(background, "A cat", opts...) {
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.ValidString(token.Text) {
			t.Errorf("part of a rune: %q", token.Text)
		}
		ids = append(ids, token.ID)
		text.WriteString(token.Text)
	}
	if want := m.Tokenizer().Decode(ids); text.String() != want {
		t.Errorf("%q, want %q", text.String(), want)
	}
	r, err := m.Complete(background, "A cat", opts...)
	if err != nil || r.Text != text.String() || !slices.Equal(r.IDs, ids) || r.Stop != StopMaxTokens {
		t.Errorf("Complete: %q, %v, %v", r.Text, r.Stop, err)
	}
}

func TestStops(t *testing.T) {
	m := stories(t)
	all, err := m.Complete(background, "Once upon a time", Temperature(0), MaxTokens(40))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{1, 5, len(all.Text) / 2} {
		for _, n := range []int{1, 3, 9} {
			stop := all.Text[at:min(at+n, len(all.Text))]
			if !utf8.ValidString(stop) {
				continue
			}
			r, err := m.Complete(background, "Once upon a time", Temperature(0), MaxTokens(40), Stop("no such string", stop))
			if want := all.Text[:strings.Index(all.Text, stop)]; err != nil || r.Stop != StopString || r.Text != want {
				t.Errorf("stop %q: %q, %v, %v; want %q", stop, r.Text, r.Stop, err, want)
			}
		}
	}
	r, err := m.Complete(background, "Once upon a time", Temperature(0), MaxTokens(40), StopTokens(all.IDs[7]))
	if at := slices.Index(all.IDs, all.IDs[7]); err != nil || r.Stop != StopToken || len(r.IDs) != at {
		t.Errorf("stop token: %d tokens, %v, %v; want %d", len(r.IDs), r.Stop, err, at)
	}
	prompt := len(m.Tokenizer().Encode("Once upon a time"))
	force := LogitsFunc(func(drawn []int, logits []float32) {
		if prompt+len(drawn) == 9 {
			logits[m.Config().EOSTokenIDs[0]] = 1e6
		}
	})
	r, err = m.Complete(background, "Once upon a time", Temperature(0), force)
	if n := 9 - prompt; err != nil || r.Stop != StopEOS || len(r.IDs) != n {
		t.Errorf("end of text: %d tokens, %v, %v; want %d", len(r.IDs), r.Stop, err, n)
	}
	r, err = m.Complete(background, "Once upon a time", MaxTokens(0))
	if err != nil || r.Stop != StopMaxTokens || r.Text != "" {
		t.Errorf("no tokens: %q, %v, %v", r.Text, r.Stop, err)
	}
}

func TestGenerateRefuses(t *testing.T) {
	m := stories(t)
	cancelled, cancel := context.WithCancel(background)
	cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		prompt string
		opts   []Option
		want   error
	}{
		"UTF-8":     {background, "Once \xff upon", nil, ErrInvalid},
		"option":    {background, "Once", []Option{TopP(-1)}, ErrInvalid},
		"RecGen":    {background, "Once", []Option{Mode(RecGen)}, ErrUnsupported},
		"cancelled": {cancelled, "Once", nil, context.Canceled},
		"masked": {background, "Once", []Option{LogitsFunc(func(_ []int, logits []float32) {
			for i := range logits {
				logits[i] = float32(math.Inf(-1))
			}
		})}, ErrInvalid},
	} {
		r, err := m.Complete(c.ctx, c.prompt, c.opts...)
		if !errors.Is(err, c.want) || r.Stop != Going {
			t.Errorf("%s: %v, %v; want %v", name, r.Stop, err, c.want)
		}
		n := 0
		for _, err := range m.Generate(c.ctx, c.prompt, c.opts...) {
			if n++; !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d rounds", name, n)
		}
	}
}

// TestGeneratedLogProbs compares with Score.
func TestGeneratedLogProbs(t *testing.T) {
	m := stories(t)
	prompt := m.Tokenizer().Encode("The sun")
	s := m.NewSession(LogProbs(3), MaxTokens(12))
	if err := s.Append(background, prompt...); err != nil {
		t.Fatal(err)
	}
	ids := slices.Clone(prompt)
	var got []float32
	for token, err := range s.Generate(background) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, token.ID)
		got = append(got, token.LogProb)
		if len(token.Top) != 3 || token.Top[0].LogProb < token.Top[2].LogProb || token.LogProb > token.Top[0].LogProb {
			t.Errorf("top %v, chosen %v", token.Top, token.LogProb)
		}
	}
	want, err := m.Score(background, ids)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "log-probabilities", got, want[len(prompt):], 1e-5)
}

// TestRuneAcrossTokens: a rune of several tokens comes out once, with the last of them.
func TestRuneAcrossTokens(t *testing.T) {
	m := stories(t)
	ids := m.Tokenizer().Encode("x🦊y🦊")
	next := 0
	spell := LogitsFunc(func(_ []int, logits []float32) {
		logits[ids[next]] = 1e9
		next++
	})
	var texts []string
	for token, err := range m.Generate(background, "A", Temperature(0), MaxTokens(len(ids)-1), spell) {
		if err != nil {
			t.Fatal(err)
		}
		if token.Text != "" {
			texts = append(texts, token.Text)
		}
	}
	if want := []string{"x", "🦊", "y", "\uFFFD"}; !slices.Equal(texts, want) {
		t.Errorf("%q, want %q", texts, want)
	}
}

// A cache that cannot hold what the model makes is told as what it is, and as what helps.
func TestCacheOverflow(t *testing.T) {
	files := readModel(t, "testdata/golden/flat-gqa-f32")
	c, err := openCheckpoint(files, maxTensors)
	if err != nil {
		t.Fatal(err)
	}
	for _, tensor := range c.tensors {
		if strings.HasSuffix(tensor.name, "v_proj.weight") {
			data := files[weightsFile].Data[tensor.begin:tensor.end]
			for at := 0; at < len(data); at += 4 {
				w := math.Float32frombits(binary.LittleEndian.Uint32(data[at:]))
				binary.LittleEndian.PutUint32(data[at:], math.Float32bits(w*1e8))
			}
		}
	}
	for typ, want := range map[CacheType]error{CacheF32: nil, CacheF16: ErrUnsupported} {
		m, err := LoadFS(files, WithCache(typ))
		if err != nil {
			t.Fatal(err)
		}
		request := Request{IDs: []int{1, 2, 3}, Options: []Option{MaxTokens(3)}}
		b := m.NewBatcher()
		if err := firstError(b.Generate(background, request)); want == nil && err != nil {
			t.Error(err)
		} else if want != nil {
			checkRefused(t, err, want, "f16", "65504", "WithCache(CacheF32)")
		}
		b.Close()
	}
}

func TestValidPrefix(t *testing.T) {
	for text, want := range map[string]int{"": 0, "aä": 3, "a\ufffdb": 5, "a\ufffd\xff": 4, "\xffa": 0, "ab\xc3": 2} {
		if got := validPrefix(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestNamesOfReasons(t *testing.T) {
	for reason, want := range map[StopReason]string{
		-1: "StopReason(-1)", Going: "going", StopFull: "full", StopFull + 1: "StopReason(6)",
	} {
		if got := reason.String(); got != want {
			t.Errorf("%d is %q, want %q", int(reason), got, want)
		}
	}
}

// Without a number of others to report, a token has its probability and no list.
func TestLogProbsOfNoOthers(t *testing.T) {
	r, err := stories(t).Complete(background, "Once", MaxTokens(3), LogProbs(0))
	if err != nil || len(r.Tokens) != len(r.IDs) {
		t.Fatal(err, r)
	}
	for _, token := range r.Tokens {
		if token.Top != nil || !(token.LogProb <= 0) {
			t.Errorf("%+v", token)
		}
	}
}

// MinP(1) leaves the most likely token.
func TestMinPOfOne(t *testing.T) {
	m := stories(t)
	want, err := m.Complete(background, "Once", MaxTokens(5), Temperature(0))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Complete(background, "Once", MaxTokens(5), Temperature(1), TopK(0), TopP(1), MinP(1))
	if err != nil || !slices.Equal(got.IDs, want.IDs) {
		t.Errorf("%v, %v; want %v", got.IDs, err, want.IDs)
	}
}
