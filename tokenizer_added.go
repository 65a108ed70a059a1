package photon

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that stands beside the vocabulary of the model: the text is searched for it before anything
// else is done with it.
type addedToken struct {
	id         int
	content    string
	spelling   string // content, normalized if the token is
	singleWord bool   // only where no letter or digit touches it
	lstrip     bool   // takes the white space before it
	rstrip     bool   // takes the white space after it
	normalized bool   // looked for after normalization
	special    bool
}

// What the added tokens of a file may take.
const (
	maxTokenText = 1 << 16 // bytes of one token, here and in the vocabulary
	maxAddedText = 4 << 20 // bytes of all added tokens
)

// addedTokens finds added tokens in a text: the leftmost, of these the longest.
//
// It is an Aho-Corasick automaton of the tokens spelled backwards. Run over a text from its end to its start, it knows
// at each byte the longest token that begins there, so that neither the number of tokens nor their lengths multiply the
// time.
type addedTokens struct {
	tokens []addedToken
	nodes  []addedNode // breadth first, then one that ends the last one's children; none if there are no tokens
	root   [256]int32  // the root's children, 0 where there is none
}

// addedNode is a string that some tokens end with.
type addedNode struct {
	// Its children, each longer by a byte in front, are the nodes from here to the next node's first, in the order of
	// these bytes.
	first int32
	back  int32 // the longest shorter node that it begins with
	token int32 // the longest token that it begins with, -1 if there is none
	char  byte  // the byte in front
}

// newAddedTokens makes each token be found where the text reads its spelling. The first token of a spelling counts, an
// empty one is never found.
func newAddedTokens(tokens []addedToken) (*addedTokens, error) {
	total := 0
	for _, token := range tokens {
		if total += len(token.spelling); len(token.spelling) > maxTokenText || total > maxAddedText {
			return nil, fmt.Errorf("added token %.80q: more than %d bytes, or %d for all: %w",
				token.content, maxTokenText, maxAddedText, ErrUnsupported)
		}
	}
	a := &addedTokens{}
	seen := map[string]bool{"": true}
	for _, token := range tokens {
		if !seen[token.spelling] {
			seen[token.spelling] = true
			a.tokens = append(a.tokens, token)
		}
	}
	slices.SortFunc(a.tokens, func(x, y addedToken) int { return compareBackwards(x.spelling, y.spelling) })
	a.build()
	return a, nil
}

// compareBackwards is the order of strings read from their ends.
func compareBackwards(x, y string) int {
	for len(x) > 0 && len(y) > 0 {
		a, b := x[len(x)-1], y[len(y)-1]
		if a != b {
			return int(a) - int(b)
		}
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	return len(x) - len(y)
}

// build makes the nodes of the tokens, which are sorted. Those that end with a node's string stand side by side.
func (a *addedTokens) build() {
	if len(a.tokens) == 0 {
		return
	}
	type span struct{ from, to, size int32 } // the tokens that end with a node's string, of so many bytes
	spans := []span{{0, int32(len(a.tokens)), 0}}
	a.nodes = []addedNode{{token: -1}}
	for i := int32(0); int(i) < len(a.nodes); i++ {
		s := spans[i]
		a.nodes[i].first = int32(len(a.nodes))
		a.nodes[i].token = a.nodes[a.nodes[i].back].token
		if len(a.tokens[s.from].spelling) == int(s.size) { // it is the shortest of them, so the first
			a.nodes[i].token = s.from
			s.from++
		}
		for s.from < s.to {
			char := a.charAt(s.from, s.size)
			end := s.from + 1
			for end < s.to && a.charAt(end, s.size) == char {
				end++
			}
			child := addedNode{char: char}
			if i > 0 {
				child.back = a.step(a.nodes[i].back, char)
			} else {
				a.root[char] = int32(len(a.nodes))
			}
			a.nodes = append(a.nodes, child)
			spans = append(spans, span{s.from, end, s.size + 1})
			s.from = end
		}
	}
	a.nodes = append(a.nodes, addedNode{first: int32(len(a.nodes))})
}

// charAt is the byte of a token before its last n.
func (a *addedTokens) charAt(token, n int32) byte {
	spelling := a.tokens[token].spelling
	return spelling[len(spelling)-1-int(n)]
}

// step returns the longest node that a byte in front of node's string begins.
func (a *addedTokens) step(node int32, char byte) int32 {
	for node != 0 {
		low, high := a.nodes[node].first, a.nodes[node+1].first
		for low < high {
			middle := (low + high) / 2
			if a.nodes[middle].char < char {
				low = middle + 1
			} else {
				high = middle
			}
		}
		if low < a.nodes[node+1].first && a.nodes[low].char == char {
			return low
		}
		node = a.nodes[node].back
	}
	return a.root[char]
}

// addedMatch is the longest token that begins somewhere in a text.
type addedMatch struct {
	at    int
	token int32
}

// find returns the matches of text, from its end to its start.
func (a *addedTokens) find(text string) []addedMatch {
	if a == nil || len(a.nodes) == 0 {
		return nil
	}
	var matches []addedMatch
	node := int32(0)
	for at := len(text) - 1; at >= 0; at-- {
		node = a.step(node, text[at])
		if token := a.nodes[node].token; token >= 0 {
			matches = append(matches, addedMatch{at, token})
		}
	}
	return matches
}

// split cuts text into added tokens, each with its id, and what lies between them, with -1. No piece without an id is
// empty.
func (a *addedTokens) split(text string) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		done, taken := 0, 0 // taken: how far white space was last taken; what a later token finds before that is white space too
		at := 0
		for _, match := range slices.Backward(a.find(text)) {
			if match.at < at {
				continue
			}
			token := a.tokens[match.token]
			start, end := match.at, match.at+len(token.spelling)
			at = end
			if token.singleWord && (endsInWord(text[:start]) || startsWithWord(text[end:])) {
				continue
			}
			if token.lstrip && done < start {
				start = done + len(strings.TrimRightFunc(text[done:start], unicode.IsSpace))
			}
			if token.rstrip {
				end = max(end, taken)
				end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
				taken = end
			}
			if done < start && !yield(text[done:start], -1) {
				return
			}
			if !yield(token.content, token.id) {
				return
			}
			done = end
		}
		if done < len(text) {
			yield(text[done:], -1)
		}
	}
}

func startsWithWord(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return text != "" && isWord(r)
}

func endsInWord(text string) bool {
	r, _ := utf8.DecodeLastRuneInString(text)
	return text != "" && isWord(r)
}

// isWord is \w of a Unicode regular expression.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}
