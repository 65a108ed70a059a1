package photon

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestRecGenSession(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		s := m.NewSession(Mode(RecGen), Temperature(0), MaxTokens(40))
		if len(g.ints["recgen_tokens"]) == 0 {
			if err := s.Append(background, 1); !errors.Is(err, ErrUnsupported) && m.checkMode(RecGen) != nil {
				t.Errorf("RecGen on this model: %v", err)
			}
			return
		}
		prompt := g.ints["ragged_prompt"]
		want := greedy(t, m, prompt, 40, Mode(RecGen))
		if err := s.Append(background, prompt...); err != nil {
			t.Fatal(err)
		}
		var got []int
		collect := func(s *Session, n int) (ids []int) {
			for token, err := range s.Generate(background, MaxTokens(n)) {
				if err != nil {
					t.Fatal(err)
				}
				if token.Stop != StopEOS {
					ids = append(ids, token.ID)
				}
			}
			return ids
		}
		for _, n := range []int{3, 1, 12, 7} { // by way of a fork and a snapshot each
			got = append(got, collect(s, n)...)
			if s.Len() != len(prompt)+len(got) {
				t.Fatalf("%d tokens, want %d", s.Len(), len(prompt)+len(got))
			}
			rest := len(want) - len(got)
			if f := append(slices.Clone(got), collect(s.Fork(), rest)...); !slices.Equal(f, want) {
				t.Errorf("fork: %v, want %v", f, want)
			}
			var buf bytes.Buffer
			if _, err := s.WriteTo(&buf); err != nil {
				t.Fatal(err)
			}
			r, err := m.ReadSession(&buf)
			if err != nil {
				t.Fatal(err)
			}
			r.options = s.options
			if f := append(slices.Clone(got), collect(r, rest)...); !slices.Equal(f, want) {
				t.Errorf("snapshot: %v, want %v", f, want)
			}
		}
		if err := s.Append(background, 1); !errors.Is(err, ErrUnsupported) {
			t.Errorf("Append after RecGen: %v", err)
		}
	})
}

// RecGen decodes again what it guessed otherwise than was drawn, and only that: the logits are those of a session that
// decodes all again.
func TestRecGenGuesses(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		if len(g.ints["recgen_tokens"]) == 0 {
			t.Skip("no model for RecGen")
		}
		var logits [2][]float32
		for again := range logits {
			// A coin of the caller's decides between two tokens, of which the guesses know nothing.
			coin := rand.New(rand.NewPCG(7, 0))
			s := m.NewSession(Mode(RecGen), Temperature(50), LogitBias(map[int]float32{1: 5000, 2: 5000}),
				LogitsFunc(func(_ []int, now []float32) {
					logits[again] = append(logits[again], now...)
					now[1+coin.IntN(2)] += 5000
				}))
			if err := s.Append(background, g.ints["ragged_prompt"]...); err != nil {
				t.Fatal(err)
			}
			for range 200 {
				if again == 1 {
					clear(s.rec.known)
				}
				for _, err := range s.Generate(background, MaxTokens(1)) {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if !sameBits(logits[0], logits[1]) {
			t.Error("logits differ where all is decoded again")
		}
	})
}

// RecGen's own caches count too.
func TestRecGenTraffic(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		if len(g.ints["recgen_tokens"]) == 0 {
			t.Skip("no model for RecGen")
		}
		s := m.NewSession(Mode(RecGen), Temperature(0), LogitBias(forbidEnds(m)))
		if err := s.Append(background, g.ints["ragged_prompt"]...); err != nil {
			t.Fatal(err)
		}
		last := s.Stats()
		for range 3 {
			for _, err := range s.Generate(background, MaxTokens(m.Config().MetaContext())) {
				if err != nil {
					t.Fatal(err)
				}
			}
			now := s.Stats()
			if now.KVReadBytes <= last.KVReadBytes || now.KVWriteBytes <= last.KVWriteBytes {
				t.Errorf("%d and %d bytes, %d and %d before", now.KVReadBytes, now.KVWriteBytes,
					last.KVReadBytes, last.KVWriteBytes)
			}
			last = now
		}
	})
}
