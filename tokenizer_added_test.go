package photon

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The leftmost of the longest, as a search that tries every token at every place finds them.
func TestAddedTokensSplit(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	word := func(most int) string {
		b := make([]byte, random.IntN(most+1))
		for i := range b {
			b[i] = "abc"[random.IntN(1+random.IntN(3))]
		}
		return string(b)
	}
	for range 3000 {
		var tokens []addedToken
		for id := range random.IntN(12) {
			content := word(6)
			tokens = append(tokens, addedToken{id: id, content: content, spelling: content})
		}
		text := word(40)
		type piece struct {
			text string
			id   int
		}
		var want []piece
		from := 0
		for at := 0; at < len(text); {
			best := addedToken{}
			for _, token := range tokens {
				if strings.HasPrefix(text[at:], token.spelling) && len(token.spelling) > len(best.spelling) {
					best = token
				}
			}
			if best.spelling == "" {
				at++
				continue
			}
			if from < at {
				want = append(want, piece{text[from:at], -1})
			}
			at += len(best.spelling)
			from = at
			want = append(want, piece{best.content, best.id})
		}
		if from < len(text) {
			want = append(want, piece{text[from:], -1})
		}
		added, err := newAddedTokens(tokens)
		if err != nil {
			t.Fatal(err)
		}
		var got []piece
		for text, id := range added.split(text) {
			got = append(got, piece{text, id})
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q with %v: got %v, want %v", text, tokens, got, want)
		}
	}
}
