//go:build !js && !wasip1

package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

// slowNats is minus the log-probability of a document, from the logits of its one pass. A flat model says nothing of the first token.
func slowNats(t *testing.T, m *photon.Model, document string) (nats float64, tokens int) {
	t.Helper()
	for _, n := range tokenNats(t, m, m.Tokenizer().Encode(document)) {
		if n == n {
			nats, tokens = nats+n, tokens+1
		}
	}
	return nats, tokens
}

// tokenNats is minus the log-probability of each token of a text; NaN where a flat model says nothing.
func tokenNats(t *testing.T, m *photon.Model, ids []int) (nats []float64) {
	t.Helper()
	logits, err := m.Logits(context.Background(), ids)
	if err != nil {
		t.Fatal(err)
	}
	vocab := m.Config().VocabSize
	if m.Config().Flat() {
		nats, ids, logits = append(nats, math.NaN()), ids[1:], logits[vocab:]
	}
	for i, id := range ids {
		row := logits[i*vocab:][:vocab]
		sum := 0.0
		for _, v := range row {
			sum += math.Exp(float64(v))
		}
		nats = append(nats, math.Log(sum)-float64(row[id]))
	}
	return nats
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

// scoreJSON runs photon score -json.
func scoreJSON[T any](t *testing.T, text string, args ...string) (s T) {
	t.Helper()
	out, _ := call(t, 0, text, append([]string{"score", "-json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Each token is scored once, in the first window that holds it: what that shares with the window before is its context.
func TestScoreWindows(t *testing.T) {
	text := strings.Repeat("A text, of some length; ", 15)
	for name, cfg := range map[string]photon.Config{"hierarchical": hierarchical, "flat": flat} {
		dir := makeModel(t, cfg)
		m, err := photon.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		ids := m.Tokenizer().Encode(text)
		all := len(ids)
		for _, cut := range []windows{{64, 64}, {64, 63}, {100, 37}, {50, 1}, {all - 1, 5}, {all, 7}, {1000, 10}} {
			var sum float64
			var tokens, unscored int
			for begin, end := 0, 0; end < len(ids); begin += cut.stride {
				done := end
				end = min(begin+cut.context, len(ids))
				for _, n := range tokenNats(t, m, ids[begin:end])[done-begin:] {
					if n == n {
						sum, tokens = sum+n, tokens+1
					} else {
						unscored++
					}
				}
			}
			context, stride := strconv.Itoa(cut.context), strconv.Itoa(cut.stride)
			s := scoreJSON[score](t, text, "-model", dir, "-context", context, "-stride", stride, "-")
			if math.Abs(s.Nats-sum) > 1e-5*sum || s.Tokens != tokens || s.Unscored != unscored || s.Bytes != tokens {
				t.Errorf("%s, %v: %+v, want %g nats, %d tokens, %d unscored", name, cut, s, sum, tokens, unscored)
			}
		}
		beside := scoreJSON[score](t, text, "-model", dir, "-context", "50", "-")
		same := scoreJSON[score](t, text, "-model", dir, "-context", "50", "-stride", "50", "-")
		if same.Nats != beside.Nats {
			t.Errorf("%s: stride 50: %v, the default for windows of 50: %v", name, same, beside)
		}
	}
}

func TestScoreByPosition(t *testing.T) {
	dir := makeModel(t, hierarchical)
	m, err := photon.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	docs := []string{strings.Repeat("long ", 60), "short"} // 300 tokens and 5
	want := []span{{0, 64, 69, 0}, {64, 256, 192, 0}, {256, 1024, 44, 0}}
	for _, d := range docs {
		for i, n := range tokenNats(t, m, m.Tokenizer().Encode(d)) {
			for j := range want {
				if want[j].From <= i && i < want[j].To {
					want[j].Nats += n / float64(want[j].Tokens)
				}
			}
		}
	}
	text := docs[0] + "\n<|endoftext|>\n" + docs[1]
	s := scoreJSON[score](t, text, "-model", dir, "-by", "position", "-")
	if len(s.ByPosition) != len(want) {
		t.Fatalf("%v, want %v", s.ByPosition, want)
	}
	for i, got := range s.ByPosition {
		if math.Abs(got.Nats-want[i].Nats) > 1e-5 {
			t.Errorf("%v, want %v", got, want[i])
		}
		if got.Nats = want[i].Nats; got != want[i] {
			t.Errorf("%v, want %v", got, want[i])
		}
	}
	if s.Words != 61 || math.Abs(s.WordPerplexity-math.Exp(s.Nats/61)) > 1e-9*s.WordPerplexity {
		t.Errorf("%d words, word perplexity %g, want 61, exp(%g / 61)", s.Words, s.WordPerplexity, s.Nats)
	}
	out, _ := call(t, 0, text, "score", "-model", dir, "-by", "position", "-")
	if !strings.Contains(out, "256-1,024") || strings.Contains(out, "1,024-4,096") {
		t.Error(out)
	}
}

func TestScoreUsage(t *testing.T) {
	for args, why := range map[string]string{
		"-stride 5 -":             "without -context",
		"-context 5 -stride 6 -":  "more than -context",
		"-context -1 -":           "0 or more",
		"-by weight -":            "position",
		"-lambada -by position -": "-lambada goes without",
		"-lambada -context 50 - ": "-lambada goes without",
		"-context 5":              "one file of text",
	} {
		_, errs := call(t, exitUsage, "", append([]string{"score"}, strings.Fields(args)...)...)
		want(t, errs, why)
	}
	out, _ := call(t, 0, "", "help", "score")
	want(t, out, "exp(nats / words)", "-stride")
}

func TestScoreLambada(t *testing.T) {
	text := `{"text": "Once upon a time"}` + "\n" + `{"id": 7, "text": "Once upon a rhinoceros\n"}` + "\n"
	m, err := photon.LoadFS(models.Stories())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	nats, tokens := 0.0, 0
	given := len(m.Tokenizer().Encode("Once upon a"))
	for _, text := range []string{"Once upon a time", "Once upon a rhinoceros"} {
		ids := m.Tokenizer().Encode(text)
		for _, n := range tokenNats(t, m, ids)[given:] {
			nats, tokens = nats+n, tokens+1
		}
	}
	s := scoreJSON[lastWords](t, text, "-lambada", "-")
	if math.Abs(s.Nats-nats) > 1e-4 || s.Tokens != tokens || s.Texts != 2 || s.Correct != 1 || s.Accuracy != 0.5 {
		t.Errorf("%+v, want %g nats, %d tokens, 1 of 2 correct", s, nats, tokens)
	}
	if want := math.Exp(s.Nats / 2); math.Abs(s.Perplexity-want) > 1e-9*want {
		t.Errorf("perplexity %g, want %g", s.Perplexity, want)
	}
	out, _ := call(t, 0, text, "score", "-lambada", "-")
	want(t, out, "accuracy    0.5000", "perplexity", "texts       2")
	for text, why := range map[string]string{
		"":                              "no text",
		`{"text": "one"}`:               "no last word",
		`{"text": "one two"} {"no": 1}`: "object 2",
		"plain text":                    "object 1",
		"\xfd7zXZ\x00\x00 rest":         "xz -dc",
	} {
		_, errs := call(t, exitFailed, text, "score", "-lambada", "-")
		want(t, errs, why)
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
