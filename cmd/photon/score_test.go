//go:build !js && !wasip1

package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/photon-lm/photon"
)

// slowNats is minus the log-probability of a document, from the logits of its one pass. A flat model says nothing of the first token.
func slowNats(t *testing.T, m *photon.Model, document string) (nats float64, tokens int) {
	t.Helper()
	ids := m.Tokenizer().Encode(document)
	logits, err := m.Logits(context.Background(), ids)
	if err != nil {
		t.Fatal(err)
	}
	vocab := m.Config().VocabSize
	predicted := ids
	if m.Config().Flat() {
		predicted, logits = ids[1:], logits[vocab:]
	}
	for i, id := range predicted {
		row := logits[i*vocab:][:vocab]
		sum := 0.0
		for _, v := range row {
			sum += math.Exp(float64(v))
		}
		nats += math.Log(sum) - float64(row[id])
	}
	return nats, len(predicted)
}

func TestScore(t *testing.T) {
	docs := []string{"The first document.\n\nTwo paragraphs.", "Größe: 3 µm", "x", "The last one, without an end"}
	file := filepath.Join(t.TempDir(), "text.txt")
	text := docs[0] + "\n<|endoftext|>\n" + docs[1] + "\n<|endoftext|>\n<|endoftext|>\n" + docs[2] + "\n<|endoftext|>\n" + docs[3]
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]photon.Config{"hierarchical": hierarchical, "flat": flat} {
		t.Run(name, func(t *testing.T) {
			dir := makeModel(t, cfg)
			m, err := photon.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			var nats float64
			var tokens int
			for _, d := range docs {
				n, k := slowNats(t, m, d)
				nats, tokens = nats+n, tokens+k
			}
			size := len(strings.Join(docs, ""))
			if cfg.Flat() {
				size -= len(docs) // their first tokens, each of them a byte
			}
			out, _ := call(t, 0, "", "score", "-json", "-model", dir, file)
			var s score
			if err := json.Unmarshal([]byte(out), &s); err != nil {
				t.Fatal(err)
			}
			near := func(got, want float64) bool { return math.Abs(got-want) <= 1e-5*want }
			if !near(s.Nats, nats) || s.Tokens != tokens || s.Bytes != size || s.Documents != len(docs) {
				t.Errorf("%+v, want %g nats, %d tokens, %d bytes, %d documents", s, nats, tokens, size, len(docs))
			}
			if !near(s.BitsPerByte, nats/math.Ln2/float64(size)) || !near(s.Perplexity, math.Exp(nats/float64(tokens))) {
				t.Errorf("%+v", s)
			}
			if piped, _ := call(t, 0, text, "score", "-json", "-model", dir, "-"); piped != out {
				t.Errorf("from standard input: %s, from a file: %s", piped, out)
			}
			out, _ = call(t, 0, text, "score", "-model", dir, file)
			want(t, out, "bits per byte", "perplexity", "nats")
			if cfg.Flat() {
				want(t, out, "not counted")
			}
		})
	}
}

func TestScoreBadText(t *testing.T) {
	dir := makeModel(t, hierarchical)
	for text, why := range map[string]string{
		"":                      "no text",
		"\n\n":                  "no text",
		"<|endoftext|>\n":       "no text",
		"\xfd7zXZ\x00\x00 rest": "xz -dc",
		"good\nba\xffd\n":       "line 2",
	} {
		_, errs := call(t, exitFailed, text, "score", "-model", dir, "-")
		want(t, errs, why)
	}
	_, errs := call(t, exitFailed, "", "score", "-model", dir, filepath.Join(dir, "no-such-file"))
	want(t, errs, "no-such-file")
}

func TestDocuments(t *testing.T) {
	const end = endOfDocument
	for text, docs := range map[string][]string{
		"":                                  nil,
		"a":                                 {"a"},
		"a\n":                               {"a"},
		"a\n\n" + end + "\nb\n":             {"a\n", "b"},
		end + "\n" + end + "\na":            {"a"},
		"a\r\n" + end + "\r\nb":             {"a\r", "b"},
		"a " + end + "\nb":                  {"a " + end + "\nb"},
		"a\n" + end:                         {"a"},
		"a\n" + end + "\n \n\n":             {"a"},
		strings.Repeat("long ", 50000) + "": {strings.Repeat("long ", 50000)},
	} {
		var got []string
		for d, err := range documents(strings.NewReader(text)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, d)
		}
		if !slices.Equal(got, docs) {
			t.Errorf("%.40q: %.40q, want %.40q", text, got, docs)
		}
	}
}
