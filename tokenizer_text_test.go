package photon

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// EncodeText knows no special tokens and no template, and gives the text back.
func TestEncodeText(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(*tokenizerCases, "*.cases.json"))
	if err != nil || len(paths) == 0 {
		t.Fatal(err)
	}
	for _, path := range paths {
		kind := strings.TrimSuffix(path, ".cases.json")
		k := loadTokenizer(t, kind+".json")
		for id := range k.VocabSize() {
			name, ok := k.Token(id)
			if back, known := k.TokenID(name); ok && (!known || back != id) {
				t.Fatalf("%s: token %d is %q, which is %d", kind, id, name, back)
			}
			if ok && string(k.Bytes(id)) != k.piece(id) {
				t.Fatalf("%s: token %d has the bytes %q", kind, id, k.Bytes(id))
			}
			if !ok || !k.special[id] {
				continue
			}
			text := "a" + name + "b"
			ids := k.EncodeText(text)
			if slices.ContainsFunc(k.EncodeText("a<"), k.isSpecial) || slices.ContainsFunc(k.EncodeText(">b"), k.isSpecial) {
				continue // the vocabulary has not these characters
			}
			if slices.ContainsFunc(ids, k.isSpecial) {
				t.Errorf("%s: %q becomes %v", kind, text, ids)
			}
			if got := k.Decode(ids); strings.TrimSpace(got) != text && k.bpe.allBytes {
				t.Errorf("%s: %q comes back as %q", kind, text, got)
			}
			if got := k.DecodeText(k.Encode(text)); strings.Contains(got, name) {
				t.Errorf("%s: DecodeText spells out %q: %q", kind, name, got)
			}
		}
		if _, ok := k.Token(-1); ok || k.Bytes(-1) != nil || k.Bytes(k.VocabSize()) != nil {
			t.Errorf("%s: there is a token -1", kind)
		}
		// Plain text without the template is what stands between the template's tokens.
		text := "Hello, World 123"
		if got, want := k.EncodeText(text), k.Encode(text); !slices.Equal(slices.Concat(k.prefix, got, k.suffix), want) {
			t.Errorf("%s: %v, want %v without its template", kind, got, want)
		}
	}
}

// The template comes at the beginning of a text only, by AppendText and by a request.
func TestTemplateOnce(t *testing.T) {
	m := stories(t)
	k := m.tokenizer
	k.prefix = []int{7}
	plain, more := k.EncodeText("Once upon"), k.EncodeText(" a time")
	want := slices.Concat([]int{7}, plain, more)
	s := m.NewSession(MaxTokens(0))
	for _, text := range []string{"Once upon", " a time"} {
		if err := s.AppendText(background, text); err != nil {
			t.Fatal(err)
		}
	}
	q := m.NewSession()
	for _, text := range []string{"Once upon", " a time"} {
		for _, err := range m.GenerateBatch(background, []Request{{Session: q, Prompt: text}}, MaxTokens(0)) {
			t.Fatal(err)
		}
	}
	if !slices.Equal(s.ids, want) || !slices.Equal(q.ids, want) {
		t.Errorf("%v and %v, want %v", s.ids, q.ids, want)
	}
}

// A session with nothing but special tokens is at the beginning of its text: what a Llama 2 vocabulary drops there is dropped.
func TestTextBeginsAfterSpecialTokens(t *testing.T) {
	k := loadTokenizer(t, filepath.Join(*tokenizerCases, "llama2.json"))
	ids := k.Encode("Once upon a time")
	bos := len(k.prefix)
	if bos == 0 {
		t.Fatal("no template")
	}
	o := newOutlet(k, nil, ids[:bos], bos, 0)
	text := ""
	for _, id := range ids[bos:] {
		piece, _ := o.push(id)
		text += piece
	}
	if text != "Once upon a time" {
		t.Errorf("%q", text)
	}
	// Nor is what was dropped a part of stop strings, wherever the text is taken up.
	for cut := bos; cut < len(ids); cut++ {
		for _, c := range []struct {
			stop string
			ends bool
		}{{" Once upon a time", false}, {"Once upon a time", true}} {
			o, stopped := newOutlet(k, newStopStrings(c.stop), ids[:cut], bos, 0), false
			for _, id := range ids[cut:] {
				_, stop := o.push(id)
				stopped = stopped || stop
			}
			if stopped != c.ends {
				t.Errorf("stop %q, taken up after %d tokens: %v", c.stop, cut-bos, stopped)
			}
		}
	}
}
