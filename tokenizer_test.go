package photon

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var tokenizerCases = flag.String("tokenizers", "testdata/tokenizer", "folder of KIND.json and KIND.cases.json, made by oracle.mjs")

func loadTokenizer(t testing.TB, path string) *Tokenizer {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := parseTokenizer(data)
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer
}

// Hugging Face's own JavaScript says what is right.
func TestTokenizerOracle(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(*tokenizerCases, "*.cases.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases in %s: %v", *tokenizerCases, err)
	}
	for _, path := range paths {
		kind := strings.TrimSuffix(path, ".cases.json")
		t.Run(filepath.Base(kind), func(t *testing.T) {
			tokenizer := loadTokenizer(t, kind+".json")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var cases struct {
				Encoded []struct {
					Text    string
					IDs     []int
					Decoded *string // nil: the text
				}
				Decoded []struct {
					IDs     []int
					Decoded string
				}
			}
			if err := json.Unmarshal(data, &cases); err != nil {
				t.Fatal(err)
			}
			if len(cases.Encoded) < 100 || len(cases.Decoded) < 20 {
				t.Fatalf("only %d and %d cases", len(cases.Encoded), len(cases.Decoded))
			}
			for _, c := range cases.Encoded {
				if ids := tokenizer.Encode(c.Text); !slices.Equal(ids, c.IDs) {
					t.Errorf("Encode(%q)\n got %v\nwant %v", c.Text, ids, c.IDs)
				}
				want := c.Text
				if c.Decoded != nil {
					want = *c.Decoded
				}
				if text := tokenizer.Decode(c.IDs); text != want {
					t.Errorf("Decode(%v)\n got %q\nwant %q", c.IDs, text, want)
				}
			}
			for _, c := range cases.Decoded {
				if text := tokenizer.Decode(c.IDs); text != c.Decoded {
					t.Errorf("Decode(%v)\n got %q\nwant %q", c.IDs, text, c.Decoded)
				}
			}
		})
	}
}
