package photon

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/photon-lm/photon/models"
)

// Inside its own loop a session answers with the token just yielded, and refuses what would disturb the loop.
func TestInsideTheLoop(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		prompt := g.ids[:13]
		want := greedy(t, m, prompt, 12)
		s := m.NewSession(Temperature(0), MaxTokens(12))
		if err := s.Append(background, prompt...); err != nil {
			t.Fatal(err)
		}
		var got []int
		for token, err := range s.Generate(background) {
			if err != nil {
				t.Fatal(err)
			}
			if token.Stop == StopEOS {
				break
			}
			got = append(got, token.ID)
			if s.Len() != len(prompt)+len(got) {
				t.Fatalf("%d tokens, want %d", s.Len(), len(prompt)+len(got))
			}
			if err := s.Append(background, 1); !errors.Is(err, ErrInvalid) {
				t.Errorf("Append: %v", err)
			}
			for _, err := range s.Generate(background) {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("Generate: %v", err)
				}
			}
			rest := len(want) - len(got)
			forked := s.Fork()
			if len(got)%3 == 0 {
				whole := m.NewSession()
				if err := whole.Append(background, append(slices.Clone(prompt), got...)...); err != nil {
					t.Fatal(err)
				}
				near(t, "logits inside the loop", s.Logits(), whole.Logits(), 0)
			}
			var file bytes.Buffer
			if _, err := s.WriteTo(&file); err != nil {
				t.Fatal(err)
			}
			again, err := m.ReadSession(&file, Temperature(0))
			if err != nil {
				t.Fatal(err)
			}
			for name, f := range map[string]*Session{"fork": forked, "snapshot": again} {
				h := listen(t, f, 0, f.Generate(background, MaxTokens(rest)))
				if !slices.Equal(h.ids, want[len(got):]) {
					t.Fatalf("%s: %v, want %v", name, h.ids, want[len(got):])
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// A function of the caller that panics leaves nothing behind.
func TestPanics(t *testing.T) {
	m := stories(t)
	b := m.NewBatcher()
	bad := LogitsFunc(func(drawn []int, _ []float32) {
		if len(drawn) == 3 {
			panic("mine")
		}
	})
	s := m.NewSession(Temperature(0), MaxTokens(8))
	want := greedy(t, m, nil, 8)
	for name, run := range map[string]func(){
		"WithProgress": func() {
			LoadFS(models.Stories(), WithProgress(func(int64, int64) { panic("mine") }))
		},
		"Logits": func() {
			m.EachLogits(background, []int{1, 2, 3}, func([]float32) { panic("mine") })
		},
		"LogitsFunc": func() {
			for range s.Generate(background, bad) {
			}
		},
		"yield": func() {
			for range s.Fork().Generate(background) {
				panic("mine")
			}
		},
		"batch": func() {
			reqs := []Request{{Session: s.Fork()}, {Session: s.Fork(), Options: []Option{bad}}}
			for range m.GenerateBatch(background, reqs) {
			}
		},
		"batcher": func() {
			for range b.Generate(background, Request{Options: []Option{bad, MaxTokens(8)}}) {
			}
		},
		"batcher's yield": func() {
			for range b.Generate(background, Request{Session: s.Fork()}) {
				panic("mine")
			}
		},
	} {
		func() {
			defer func() {
				if got := recover(); got != "mine" {
					t.Errorf("%s: recovered %v", name, got)
				}
			}()
			run()
		}()
	}
	s = s.Fork()
	before := slices.Clone(s.ids)
	rest := listen(t, s, 0, s.Generate(background, MaxTokens(8-len(before))))
	if got := append(before, rest.ids...); !slices.Equal(got, want) {
		t.Errorf("afterwards: %v, want %v", got, want)
	}
	r := m.NewSession(Temperature(0), MaxTokens(8))
	h := listen(t, r, 0, b.Generate(background, Request{Session: r}))
	if h.err != nil || len(h.ids) != 8 || !slices.Equal(h.ids, want) {
		t.Errorf("afterwards, in the batcher: %v, %v", h.ids, h.err)
	}
	b.Close()
}

// A grammar that follows drawn forces a text through a Stop, and several functions compose in order.
func TestLogitsFuncs(t *testing.T) {
	m := stories(t)
	ids := letters(t, m, `{"a":""}`)
	var seen [][]int
	order := ""
	r, err := m.Complete(background, "x", Temperature(0), MaxTokens(len(ids)), Stop(`"""`),
		LogitsFunc(func(drawn []int, logits []float32) {
			seen, order = append(seen, slices.Clone(drawn)), order+"1"
			logits[0] = 7
		}), spell(ids),
		LogitsFunc(func(_ []int, logits []float32) {
			if order += "2"; logits[0] != 7 {
				t.Error("the functions do not compose")
			}
		}))
	if err != nil || r.Text != `{"a":""}` || !strings.HasPrefix(order, "1212") {
		t.Errorf("%q, %v, order %s", r.Text, err, order)
	}
	for i, drawn := range seen {
		if !slices.Equal(drawn, ids[:i]) {
			t.Errorf("token %d: drawn are %v", i, drawn)
		}
	}
	r, err = m.Complete(background, "x", Temperature(0), MaxTokens(3), LogitBias(map[int]float32{ids[0]: 1e9}))
	if err != nil || !slices.Equal(r.IDs, []int{ids[0], ids[0], ids[0]}) {
		t.Errorf("a bias gives %v, %v", r.IDs, err)
	}
}

// A NaN that a LogitsFunc makes is told, with the function's name and the token's id; one of the model's own is passed
// over.
func TestLogitsFuncNaN(t *testing.T) {
	m := stories(t)
	bad := LogitsFunc(func(drawn []int, logits []float32) {
		if len(drawn) == 2 {
			logits[77] = nan32
		}
	})
	prompt := m.Tokenizer().Encode("Once")
	idle := LogitsFunc(func([]int, []float32) {})
	for _, opts := range [][]Option{{bad}, {noEnd(m), RepeatPenalty(1.2), LogProbs(1), bad}, {bad, idle}} {
		s := m.NewSession(append(opts, MaxTokens(5), Seed(1))...)
		if err := s.Append(background, prompt...); err != nil {
			t.Fatal(err)
		}
		h := listen(t, s, 0, s.Generate(background))
		if len(h.ids) != 2 {
			t.Errorf("%d tokens, want 2", len(h.ids))
		}
		where := fmt.Sprintf("position %d of the text:", len(prompt)+2)
		checkRefused(t, h.err, ErrInvalid, "LogitsFunc", "token id 77", where)
	}
	s := m.NewSession(Temperature(0))
	logits := []float32{1, nan32, 3}
	o := mustResolve(t, Temperature(0), LogitsFunc(func(_ []int, l []float32) { l[2]-- }))
	m.cfg.EOSTokenIDs = nil
	ws := m.acquire()
	defer m.release(ws)
	if token, err := s.choose(ws, &stream{s: s, o: o}, logits); err != nil || token.ID != 2 {
		t.Errorf("a NaN of the model's: %v, %v", token, err)
	}
}

// Top is the caller's own, and the end has a probability too.
func TestTopIsKept(t *testing.T) {
	m := stories(t)
	eos := m.Config().EOSTokenIDs[0]
	r, err := m.Complete(background, "The sun", LogProbs(4), Temperature(0), spell(append(letters(t, m, "abc"), eos)))
	if err != nil || len(r.IDs) != 3 || len(r.Tokens) != 4 || r.Stop != StopEOS ||
		r.Tokens[3].Stop != StopEOS || r.Tokens[3].ID != eos {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, token := range r.Tokens {
		if len(token.Top) != 4 || !(token.LogProb < 0) || i > 0 && &token.Top[0] == &r.Tokens[i-1].Top[0] {
			t.Errorf("token %d: %+v", i, token)
		}
	}
	want, err := m.Score(background, append(append(m.Tokenizer().Encode("The sun"), r.IDs...), eos))
	if err != nil {
		t.Fatal(err)
	}
	var got []float32
	for _, token := range r.Tokens {
		got = append(got, token.LogProb)
	}
	near(t, "log-probabilities", got, want[len(want)-4:], 1e-5)
}

// RecGen obeys options that change inside a meta-context.
func TestRecGenOptions(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		if m.checkMode(RecGen) != nil {
			return
		}
		m.cfg.EOSTokenIDs = nil
		prompt := g.ids[:2*m.Config().MetaContext()]
		meta := m.Config().MetaContext()
		force := g.ids[:3*meta]
		s := m.NewSession(Mode(RecGen), Temperature(1), LogProbs(0))
		if err := s.Append(background, prompt...); err != nil {
			t.Fatal(err)
		}
		first := listen(t, s, 0, s.Generate(background, MaxTokens(3)))
		forced := listen(t, s, 0, s.Generate(background, MaxTokens(len(force)), spell(force), Temperature(0)))
		if !slices.Equal(forced.ids, force) || len(first.ids) != 3 {
			t.Errorf("forced %v, got %v", force, forced.ids)
		}
		if err := firstError(s.Generate(background, Mode(HierGen))); !errors.Is(err, ErrUnsupported) {
			t.Errorf("HierGen behind RecGen: %v", err)
		}
		// What is forced token by token is what is forced at once: the logits follow the tokens that are there.
		texts := [2][]float32{}
		for i, piece := range []int{1, 1 << 20} {
			s := m.NewSession(Mode(RecGen), Temperature(0), LogProbs(0))
			if err := s.Append(background, prompt...); err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(force); {
				most := MaxTokens(min(piece, len(force)-at))
				for token, err := range s.Fork().Generate(background, spell(force[at:]), most) {
					if err != nil || token.ID != force[at] {
						t.Fatal(token.ID, err)
					}
					texts[i] = append(texts[i], token.LogProb)
					at++
					for range s.Generate(background, spell([]int{token.ID}), MaxTokens(1)) {
					}
				}
			}
		}
		if !slices.Equal(texts[0], texts[1]) {
			t.Errorf("%v, want %v", texts[0], texts[1])
		}
	})
}

// A LogitsFunc that panics within a meta-context of RecGen leaves the tokens that were yielded and no other, and the
// text goes on as if nothing had happened.
func TestRecGenPanic(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		if m.checkMode(RecGen) != nil {
			return
		}
		m.cfg.EOSTokenIDs = nil
		n := 2*m.Config().MetaContext() + 3
		prompt := g.ids[:m.Config().MetaContext()+1]
		want := greedy(t, m, prompt, n, Mode(RecGen))
		for at := range n {
			s := m.NewSession(Mode(RecGen), Temperature(0), MaxTokens(n))
			if err := s.Append(background, prompt...); err != nil {
				t.Fatal(err)
			}
			var got []int
			func() {
				defer func() {
					if recover() == nil {
						t.Fatal("no panic")
					}
				}()
				for token, err := range s.Generate(background, LogitsFunc(func(drawn []int, _ []float32) {
					if len(drawn) == at {
						panic("mine")
					}
				})) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, token.ID)
				}
			}()
			if !slices.Equal(got, want[:at]) || !slices.Equal(s.ids[len(prompt):], got) {
				t.Fatalf("a panic after %d: %v were yielded, the session holds %v; want %v",
					at, got, s.ids[len(prompt):], want[:at])
			}
			if h := listen(t, s, 0, s.Generate(background, MaxTokens(n-at))); !slices.Equal(h.ids, want[at:]) {
				t.Fatalf("after a panic at %d: %v, want %v", at, h.ids, want[at:])
			}
		}
	})
}

// Time counts the library's work and not what the caller's loop does.
func TestStatsTime(t *testing.T) {
	m := stories(t)
	s := m.NewSession(MaxTokens(5), Temperature(0))
	if err := s.AppendText(background, "Once upon a time"); err != nil {
		t.Fatal(err)
	}
	var cost, company Stats
	var slept time.Duration
	reader := func() { // takes its time, which is not the library's
		begin := time.Now()
		time.Sleep(30 * time.Millisecond)
		slept += time.Since(begin)
	}
	opts := []Option{MaxTokens(5), Temperature(0)}
	most := map[*Stats]time.Duration{}
	begin := time.Now()
	for range s.Generate(background) {
		reader()
	}
	alone := s.Stats()
	most[&alone] = time.Since(begin) - slept
	begin, slept = time.Now(), 0
	for range m.GenerateBatch(background, []Request{{Prompt: "Once upon a time", Stats: &cost, Options: opts}}) {
		reader()
	}
	most[&cost] = time.Since(begin) - slept
	b := m.NewBatcher()
	defer b.Close()
	begin, slept = time.Now(), 0
	for range b.Generate(background, Request{Prompt: "Once upon a time", Stats: &company, Options: opts}) {
		reader()
	}
	most[&company] = time.Since(begin) // it works while the reader sleeps
	for st, most := range most {
		if st.Time > most {
			t.Errorf("five tokens take %v, of %v without the reader's time", st.Time, most)
		}
		if st.Time <= 0 || st.PromptTime <= 0 || st.Tokens != 5 || st.PromptTokens == 0 {
			t.Errorf("%+v", st)
		}
	}
}
