package photon

import (
	"fmt"
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
			token := addedToken{id: id, content: content, spelling: content, special: random.IntN(2) == 0}
			tokens = append(tokens, token)
		}
		text, plain := word(40), random.IntN(2) == 0
		type piece struct {
			text string
			id   int
		}
		var want []piece
		from := 0
		for at := 0; at < len(text); {
			best := addedToken{}
			for _, token := range tokens {
				if plain && token.special {
					continue
				}
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
		added, err := newAddedTokens(slices.Clone(tokens), 6*12)
		if err != nil {
			t.Fatal(err)
		}
		var got []piece
		for text, id := range added.split(text, plain) {
			got = append(got, piece{text, id})
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q with %v: got %v, want %v", text, tokens, got, want)
		}
		if len(added.tokens) > 0 && len(added.nodes) != cap(added.nodes) {
			t.Fatalf("%d nodes, counted %d", len(added.nodes), cap(added.nodes))
		}
	}
}

// Added tokens take some 20 bytes for each of theirs, whatever they are.
func TestAddedTokensMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates more")
	}
	r := rand.New(rand.NewPCG(5, 6))
	for _, size := range []int{4, 60, 1000, 30000} {
		var file strings.Builder
		file.WriteString(`{"model":{"vocab":{"a":0},"merges":[]},"decoder":{"type":"ByteLevel"},"added_tokens":[`)
		spelled := 0
		for id := 1; file.Len() < 1<<19; id++ {
			spelled += 4 + size
			content := make([]byte, size)
			for i := range content {
				content[i] = byte('a' + r.IntN(26))
			}
			fmt.Fprintf(&file, `{"id":%d,"content":"%04x%s","special":%v},`, id, id, content, id%2 == 0)
		}
		data := []byte(strings.TrimSuffix(file.String(), ",") + "]}")
		n := allocated(func() { mustParseTokenizer(t, data) })
		if n > uint64(8*len(data)+25*spelled+1<<20) {
			t.Errorf("tokens of %d bytes: %d bytes allocated for a file of %d", size, n, len(data))
		}
	}
}
