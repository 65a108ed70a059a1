package photon

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/photon-lm/photon/internal/bounded"
)

// spell has a model draw exactly these tokens.
func spell(ids []int) Option {
	return LogitsFunc(func(drawn []int, logits []float32) {
		if len(drawn) < len(ids) {
			logits[ids[len(drawn)]] = 1e9
		}
	})
}

// letters are the tokens of single bytes.
func letters(t testing.TB, m *Model, text string) (ids []int) {
	t.Helper()
	for i := range len(text) {
		for id := 0; ; id++ {
			if id == m.Tokenizer().VocabSize() {
				t.Fatalf("no token is byte %q", text[i])
			}
			if b := m.Tokenizer().Bytes(id); len(b) == 1 && b[0] == text[i] {
				ids = append(ids, id)
				break
			}
		}
	}
	return ids
}

// heard is what came of a stream.
type heard struct {
	ids   []int // of the text
	texts []string
	stop  StopReason
	err   error
}

func (h *heard) text() string { return strings.Join(h.texts, "") }

// listen collects a stream, of whose values it takes at most most, and checks what holds of every stream.
func listen(t testing.TB, s *Session, most int, seq func(func(Token, error) bool)) (h heard) {
	t.Helper()
	before, ended := s.Len(), false
	for token, err := range seq {
		if ended {
			t.Fatal("a value after the last")
		}
		h.texts = append(h.texts, token.Text)
		if h.err = err; err != nil {
			ended = true
			continue
		}
		if h.stop = token.Stop; h.stop == StopEOS || h.stop == StopToken {
			ended = true
		} else {
			h.ids = append(h.ids, token.ID)
			ended = h.stop != Going
		}
		if got := s.ids[before:]; s.Len() != before+len(h.ids) || !slices.Equal(got, h.ids) {
			t.Fatalf("the session holds %v, yielded were %v", got, h.ids)
		}
		if len(h.texts) == most {
			break
		}
	}
	if got := s.ids[before:]; !slices.Equal(got, h.ids) {
		t.Fatalf("the session holds %v, yielded were %v", got, h.ids)
	}
	return h
}

func TestStream(t *testing.T) {
	m := stories(t)
	eos := m.Config().EOSTokenIDs[0]
	special, _ := m.Tokenizer().Token(eos)
	for _, c := range []struct {
		name  string
		text  string // one token a byte
		eos   int    // end the model's text after so many; 0: never
		opts  []Option
		texts []string
		stop  StopReason
	}{
		{"all", "abc", 0, []Option{MaxTokens(3)}, []string{"a", "b", "c"}, StopMaxTokens},
		{"end of text", "abc", 2, nil, []string{"a", "b", ""}, StopEOS},
		{"a stop token", "abc", 0, []Option{StopTokens(letters(t, m, "c")...)}, []string{"a", "b", ""}, StopToken},
		{"held, then not", "abcde", 0, []Option{MaxTokens(5), Stop("abcX")}, []string{"", "", "", "abcd", "e"}, StopMaxTokens},
		{"held to the last", "xab", 0, []Option{MaxTokens(3), Stop("abc")}, []string{"x", "", "ab"}, StopMaxTokens},
		{"held to the end of text", "xab", 3, []Option{Stop("abc")}, []string{"x", "", "", "ab"}, StopEOS},
		{"stopped", "xxabcde", 0, []Option{Stop("q", "abc")}, []string{"x", "x", "", "", ""}, StopString},
		{"the first to be complete", "abcd", 0, []Option{Stop("bc", "abcd")}, []string{"", "", "a"}, StopString},
		{"the longest at one byte", "abcd", 0, []Option{Stop("c", "abc")}, []string{"", "", ""}, StopString},
		{"no more held than may stop", "aaaaab", 0, []Option{MaxTokens(6), Stop("aaaX")}, []string{"", "", "", "a", "a", "aaab"}, StopMaxTokens},
		{"overlapping", "ababac", 0, []Option{Stop("abac")}, []string{"", "", "", "ab", "", ""}, StopString},
		{"a rune", "a🦊b", 0, []Option{MaxTokens(6)}, []string{"a", "", "", "", "🦊", "b"}, StopMaxTokens},
		{"an open rune waits", "a🦊"[:3], 0, []Option{MaxTokens(3)}, []string{"a", "", ""}, StopMaxTokens},
		{"runes in a stop string", "a🦊b", 0, []Option{Stop("🦊b")}, []string{"a", "", "", "", "", ""}, StopString},
		{"what is no rune", "a\x9fb", 0, []Option{MaxTokens(3)}, []string{"a", "\uFFFD", "b"}, StopMaxTokens},
		{"a special token's text", "ab", 0, []Option{Stop(special)}, []string{"a", "b", ""}, StopEOS},
	} {
		t.Run(c.name, func(t *testing.T) {
			ids := letters(t, m, c.text)
			if c.eos > 0 || strings.HasPrefix(c.name, "a special") {
				ids = append(ids[:cmp.Or(c.eos, len(ids))], eos)
			}
			for _, way := range []string{"alone", "batch", "batcher"} {
				s := m.NewSession(append(c.opts, Temperature(0))...)
				if err := s.AppendText(background, "Once"); err != nil {
					t.Fatal(err)
				}
				var h heard
				switch way {
				case "alone":
					h = listen(t, s, 0, s.Generate(background, spell(ids)))
				case "batch":
					h = listen(t, s, 0, func(yield func(Token, error) bool) {
						for token, err := range m.GenerateBatch(background, []Request{{Session: s, Options: []Option{spell(ids)}}}) {
							if !yield(token.Token, err) {
								return
							}
						}
					})
				case "batcher":
					b := m.NewBatcher()
					h = listen(t, s, 0, b.Generate(background, Request{Session: s, Options: []Option{spell(ids)}}))
					b.Close()
				}
				if h.err != nil || h.stop != c.stop || !slices.Equal(h.texts, c.texts) {
					t.Errorf("%s: %q, %v, %v; want %q, %v", way, h.texts, h.stop, h.err, c.texts, c.stop)
				}
			}
		})
	}
}

// A special token that does not end the text is no text; a stop string may cross it, or spell it out.
func TestStopsAndSpecialTokens(t *testing.T) {
	m := stories(t)
	special := m.Config().EOSTokenIDs[0]
	name, _ := m.Tokenizer().Token(special)
	m.cfg.EOSTokenIDs = nil
	text := letters(t, m, "xabc")
	ids := []int{text[0], text[1], special, text[2], text[3]}
	for _, c := range []struct {
		stop string
		text string
		n    int
	}{{name, "xa", 3}, {"a" + name, "x", 3}, {"a" + name + "b", "x", 4}, {"a" + name + "bc", "x", 5}, {"ab", "x", 4}, {"abd", "xabc", 5}, {name + "c", "xabc", 5}} {
		s := m.NewSession(Temperature(0), MaxTokens(5), Stop(c.stop))
		if err := s.AppendText(background, "Once"); err != nil {
			t.Fatal(err)
		}
		h := listen(t, s, 0, s.Generate(background, spell(ids)))
		if h.text() != c.text || len(h.ids) != c.n || (h.stop == StopString) != (c.text != "xabc") {
			t.Errorf("stop %q: %q after %d tokens, %v; want %q after %d", c.stop, h.text(), len(h.ids), h.stop, c.text, c.n)
		}
	}
}

// Two calls give the text of one, whatever is open between them: a rune, begun by the prompt too, or a stop string.
func TestStreamOverCalls(t *testing.T) {
	m := stories(t)
	text := "a🦊bcstopped" // the stop string is longer than a rune
	ids := letters(t, m, text)
	for cut := range len(ids) {
		for _, fork := range []bool{false, true} {
			s := m.NewSession(Temperature(0), Stop("stopped"))
			if err := s.AppendText(background, "Once"); err != nil {
				t.Fatal(err)
			}
			h := listen(t, s, 0, s.Generate(background, spell(ids), MaxTokens(cut)))
			if fork {
				var file bytes.Buffer
				if _, err := s.Fork().WriteTo(&file); err != nil {
					t.Fatal(err)
				}
				var err error
				if s, err = m.ReadSession(&file, Temperature(0), Stop("stopped")); err != nil {
					t.Fatal(err)
				}
			}
			rest := listen(t, s, 0, s.Generate(background, spell(ids[cut:])))
			want := "a🦊bc"
			if given := text[:cut]; cut > len(want) { // what has been given out stays so
				want = given
			}
			if got := h.text() + rest.text(); got != want || rest.stop != StopString || len(h.ids)+len(rest.ids) != len(ids) {
				t.Errorf("cut at %d: %q, %v; want %q", cut, got, rest.stop, want)
			}
			// Left early, the text that was held comes with the next call.
			s = m.NewSession(Temperature(0), Stop("🦊bcX"))
			if err := s.AppendText(background, "Once"); err != nil {
				t.Fatal(err)
			}
			got := ""
			if cut > 0 {
				first := listen(t, s, cut, s.Generate(background, spell(ids)))
				got = first.text()
			}
			rest = listen(t, s, 0, s.Generate(background, spell(ids[cut:]), MaxTokens(len(ids)-cut)))
			if got += rest.text(); got != text {
				t.Errorf("left at %d: %q, want %q", cut, got, text)
			}
		}
	}
	s := m.NewSession(Temperature(0), MaxTokens(3))
	if err := s.Append(background, letters(t, m, "x🦊"[:3])...); err != nil {
		t.Fatal(err)
	}
	if h := listen(t, s, 0, s.Generate(background, spell(letters(t, m, "x🦊y"[3:])))); h.text() != "🦊y" {
		t.Errorf("a rune begun by the prompt: %q", h.texts)
	}
	// What is appended is no part of a stop string, be it a prompt or come between two calls.
	s = m.NewSession(Temperature(0), MaxTokens(3), Stop("abc"))
	for i, text := range []string{"cab", "cxa"} {
		if err := s.Append(background, letters(t, m, []string{"xab", "bcab"}[i])...); err != nil {
			t.Fatal(err)
		}
		if h := listen(t, s, 0, s.Generate(background, spell(letters(t, m, text)))); h.text() != text || h.stop != StopMaxTokens {
			t.Errorf("a stop string over what was appended: %q, %v", h.texts, h.stop)
		}
	}
}

// What has stopped one call is no part of the next one's stop string.
func TestStopOnce(t *testing.T) {
	m := stories(t)
	s := m.NewSession(Temperature(0), MaxTokens(2), Stop("aa"))
	if err := s.AppendText(background, "Once"); err != nil {
		t.Fatal(err)
	}
	first := listen(t, s, 0, s.Generate(background, spell(letters(t, m, "aa"))))
	next := listen(t, s, 0, s.Generate(background, spell(letters(t, m, "ab"))))
	if first.stop != StopString || next.text() != "ab" || next.stop != StopMaxTokens {
		t.Errorf("%v, then %q, %v", first.stop, next.texts, next.stop)
	}
}

// After an Append that was cancelled a stop string is found as after one that was not; and where it has added nothing,
// the text goes on as if it had not been, with what was held back and the token that the model has not read.
func TestStopAfterCancel(t *testing.T) {
	m := stories(t)
	cancelled, cancel := context.WithCancel(background)
	cancel()
	defer func(n int) { stepRows = n }(stepRows)
	stepRows = 4
	for _, fork := range []bool{false, true} {
		s := m.NewSession(Temperature(0), MaxTokens(2), Stop("stop"))
		if err := s.AppendText(background, "Once"); err != nil {
			t.Fatal(err)
		}
		before, more := s.Len(), longIDs(m, 4*m.pieceTokens())
		err := s.Append(&cancelAfter{background, 1}, more...)
		if added := s.Len() - before; !errors.Is(err, context.Canceled) || added == 0 || added == len(more) {
			t.Fatalf("%v, %d of %d tokens were added", err, added, len(more))
		}
		if fork {
			var file bytes.Buffer
			if _, err := s.WriteTo(&file); err != nil {
				t.Fatal(err)
			}
			var err error
			if s, err = m.ReadSession(&file, Temperature(0), MaxTokens(2), Stop("stop")); err != nil {
				t.Fatal(err)
			}
		}
		first := listen(t, s, 0, s.Generate(background, spell(letters(t, m, "st"))))
		ids := slices.Clone(s.ids)
		if err := s.Append(cancelled, 1, 2, 3); !errors.Is(err, context.Canceled) || !slices.Equal(s.ids, ids) {
			t.Errorf("cancelled at once: %v, the session holds %v, want %v", err, s.ids, ids)
		}
		rest := listen(t, s, 0, s.Generate(background, spell(letters(t, m, "op"))))
		if first.text() != "st" || rest.text() != "" || rest.stop != StopString {
			t.Errorf("%q, %v, then %q, %v", first.texts, first.stop, rest.texts, rest.stop)
		}
		left := listen(t, s, 3, s.Generate(background, spell(letters(t, m, "xsto")), MaxTokens(4)))
		if err := s.Append(cancelled, 1, 2, 3); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		rest = listen(t, s, 0, s.Generate(background, spell(letters(t, m, "of"))))
		if left.text() != "x" || rest.text() != "stof" {
			t.Errorf("left early with %q, then %q", left.texts, rest.texts)
		}
	}
}

// Of newlines no more are held than "\n\nUser:" may begin with.
func TestNoMoreIsHeldThanMayStop(t *testing.T) {
	m := stories(t)
	stop := "\n\nUser:"
	ids := letters(t, m, strings.Repeat("\n", 300))
	s := m.NewSession(Temperature(0), MaxTokens(300), Stop(stop))
	if err := s.AppendText(background, "Once"); err != nil {
		t.Fatal(err)
	}
	given, drawn := 0, 0
	for token, err := range s.Generate(background, spell(ids)) {
		if err != nil {
			t.Fatal(err)
		}
		drawn++
		given += len(token.Text)
		if held, may := drawn-given, strings.Count(stop, "\n"); token.Stop == Going && held != min(drawn, may) {
			t.Fatalf("%d bytes are held after %d, want those that %q may begin with", held, drawn, stop)
		}
	}
	if given != 300 {
		t.Errorf("%d newlines", given)
	}
}

// However much text is held, a token costs what its own bytes cost.
func TestHeldTextIsReadOnce(t *testing.T) {
	m := stories(t)
	a := letters(t, m, "a")[0]
	const tokens = 1 << 16
	last := func(stop int) time.Duration { // what a thousand tokens cost behind many
		o := newOutlet(m.tokenizer, newStopStrings(strings.Repeat("a", stop)+"X"), nil, 0, 0)
		var begin time.Time
		for i := range tokens {
			if i == tokens-1000 {
				begin = time.Now()
			}
			if text, stopped := o.push(a); stopped || (text == "") != (i < stop) {
				t.Fatalf("token %d of %d that may be held: %q", i, stop, text)
			}
		}
		return time.Since(begin)
	}
	short, long := last(16), last(tokens)
	for range 4 { // the best of five, of each
		short, long = min(short, last(16)), min(long, last(tokens))
	}
	if figure(t, "1000 tokens behind 16 bytes %v, behind %d bytes %v", short, tokens, long); long > 5*short {
		slow(t, "a token behind %d bytes that are held takes %v, behind 16 %v", tokens, long/1000, short/1000)
	}
}

// Texts share what is made of a stop string, however long it is.
func TestTextsShareStopStrings(t *testing.T) {
	m := stories(t)
	cost := func(opts ...Option) uint64 {
		return bounded.Allocated(func() {
			for range 8 {
				if _, err := m.Complete(background, "Once", append(opts, MaxTokens(1))...); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	stop := Stop(strings.Repeat("a", 1<<20))
	if without, with := cost(), cost(stop); with > without+1<<20 {
		t.Errorf("%d bytes are allocated, %d without the stop string", with, without)
	}
}

// An error comes once, after everything that was yielded, with the text that was held; nothing comes after a break.
func TestStreamErrors(t *testing.T) {
	m := stories(t)
	ids := letters(t, m, "hiabcdefgh")
	failing := map[string]func() (context.Context, []Option, error){
		"cancelled": func() (context.Context, []Option, error) {
			ctx, cancel := context.WithCancel(background)
			return ctx, []Option{LogitsFunc(func(drawn []int, _ []float32) {
				if len(drawn) == 4 {
					cancel()
				}
			})}, context.Canceled
		},
		"nothing left": func() (context.Context, []Option, error) {
			return background, []Option{LogitsFunc(func(drawn []int, logits []float32) {
				for i := range logits {
					if len(drawn) == 5 {
						logits[i] = float32(math.Inf(-1))
					}
				}
			})}, ErrInvalid
		},
	}
	for name, fail := range failing {
		for _, way := range []string{"alone", "batch", "batcher"} {
			ctx, opts, want := fail()
			s := m.NewSession(Temperature(0), Stop("abcX"))
			if err := s.AppendText(background, "Once"); err != nil {
				t.Fatal(err)
			}
			opts = append([]Option{spell(ids)}, opts...)
			stream := s.Generate(ctx, opts...)
			b := m.NewBatcher()
			switch way {
			case "batch":
				stream = func(yield func(Token, error) bool) {
					for token, err := range m.GenerateBatch(ctx, []Request{{Session: s, Options: opts}}) {
						if !yield(token.Token, err) || err != nil {
							return
						}
					}
				}
			case "batcher":
				stream = b.Generate(ctx, Request{Session: s, Options: opts})
			}
			h := listen(t, s, 0, stream)
			if !errors.Is(h.err, want) || h.text() != "hiabc" || len(h.ids) != 5 {
				t.Errorf("%s, %s: %q, %v", name, way, h.texts, h.err)
			}
			b.Close()
			if rest := listen(t, s, 0, s.Generate(background, spell(ids[5:]), MaxTokens(2))); rest.text() != "de" || rest.err != nil {
				t.Errorf("%s, %s, afterwards: %q, %v", name, way, rest.texts, rest.err)
			}
		}
	}
	s := m.NewSession(Temperature(0), Stop("abcX"))
	if err := s.AppendText(background, "Once"); err != nil {
		t.Fatal(err)
	}
	if h := listen(t, s, 1, s.Generate(background, spell(ids[2:]))); len(h.ids) != 1 || s.Len() != 1+len(m.Tokenizer().Encode("Once")) {
		t.Errorf("left at the first token: %v", h.ids)
	}
}

// A rune that is open when the context ends waits in a session, and is U+FFFD beside the error where the text is over;
// a loop that breaks on the error hears nothing more.
func TestOpenRuneCancelled(t *testing.T) {
	m := stories(t)
	ids := letters(t, m, "hi🦊")
	b := m.NewBatcher()
	defer b.Close()
	for _, way := range []string{"alone", "batch", "batcher"} {
		for _, owned := range []bool{true, false} {
			ctx, cancel := context.WithCancel(background)
			opts := []Option{Temperature(0), spell(ids)}
			var s *Session
			request := Request{Prompt: "Once", Options: opts}
			if owned {
				s = m.NewSession()
				if err := s.AppendText(background, "Once"); err != nil {
					t.Fatal(err)
				}
				request = Request{Session: s, Options: opts}
			}
			stream := m.Generate(ctx, "Once", opts...)
			switch {
			case way == "batch":
				stream = func(yield func(Token, error) bool) {
					for token, err := range m.GenerateBatch(ctx, []Request{request}) {
						if !yield(token.Token, err) {
							return
						}
					}
				}
			case way == "batcher":
				stream = b.Generate(ctx, request)
			case owned:
				stream = s.Generate(ctx, opts...)
			}
			text, n := "", 0
			var failed error
			for token, err := range stream {
				text += token.Text
				if failed = err; err != nil {
					break
				}
				if n++; n == 4 { // in the middle of the rune
					cancel()
				}
			}
			want := "hi\uFFFD"
			if owned {
				want = "hi"
			}
			if text != want || n > 5 || n < 4 || !errors.Is(failed, context.Canceled) {
				t.Errorf("%s, session %v: %q after %d tokens, %v; want %q", way, owned, text, n, failed, want)
			}
			if owned {
				rest := s.ids[s.Len()-n:]
				if !slices.Equal(rest, ids[:n]) {
					t.Errorf("%s: the session holds %v, want %v", way, rest, ids[:n])
				}
				if h := listen(t, s, 0, s.Generate(background, spell(ids[n:]), MaxTokens(len(ids)-n))); h.text() != "🦊" {
					t.Errorf("%s: afterwards %q", way, h.texts)
				}
			}
			cancel()
		}
	}
}

// Text that is held comes with the next call, also where an Append between was cancelled before it added anything, and
// not where tokens came between.
func TestHeldTextAndAppend(t *testing.T) {
	m := stories(t)
	ids := letters(t, m, "a🦊bc")
	gone, cancel := context.WithCancel(background)
	cancel()
	for _, added := range []bool{false, true} {
		s := m.NewSession(Temperature(0), Stop("🦊bcX"))
		if err := s.AppendText(background, "Once"); err != nil {
			t.Fatal(err)
		}
		first := listen(t, s, 3, s.Generate(background, spell(ids)))
		got, want := first.text(), "a🦊bc"
		if added {
			want = "a"
			if err := s.Append(background, ids[3]); err != nil {
				t.Fatal(err)
			}
		} else if err := s.Append(gone, ids[3]); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		rest := listen(t, s, 0, s.Generate(background, spell(ids[3:]), MaxTokens(len(ids)-3)))
		got += rest.text()
		if !added && got != want || added && (!strings.HasPrefix(got, want) || strings.Contains(got, "🦊")) {
			t.Errorf("added %v: %q, want %q", added, got, want)
		}
	}
}
