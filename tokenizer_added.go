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

// addedTokens finds added tokens in a text: the leftmost, of these the longest; all of them, or those that are not
// special.
//
// It is an Aho-Corasick automaton of the tokens spelled backwards. Run over a text from its end to its start, it knows
// at each byte the longest token that begins there, so that neither the number of tokens nor their lengths multiply the
// time.
type addedTokens struct {
	tokens []addedToken // in the order of their spellings read backwards
	nodes  []addedNode  // breadth first, then one that ends the last one's children; none if there are no tokens
	root   [256]int32   // the root's children, 0 where there is none
}

// addedNode is a string that some tokens end with.
type addedNode struct {
	// Its children, each longer by a byte in front, are the nodes from here to the next node's first, in the order of
	// these bytes.
	first int32
	back  int32 // the longest shorter node that it begins with
	token int32 // the longest token that it begins with, -1 if there is none
	plain int32 // the same of those that are not special
	char  byte  // the byte in front
}

// newAddedTokens makes each token be found where the text reads its spelling; their spellings have at most most bytes.
// The first token of a spelling counts, an empty one is never found. It sorts tokens.
func newAddedTokens(tokens []addedToken, most int) (*addedTokens, error) {
	total := 0
	for _, token := range tokens {
		if total += len(token.spelling); len(token.spelling) > maxTokenText || total > most {
			return nil, fmt.Errorf("added token %.80q: more than %d bytes, or %d for all: %w",
				token.content, maxTokenText, most, ErrUnsupported)
		}
	}
	slices.SortStableFunc(tokens, func(x, y addedToken) int { return compareBackwards(x.spelling, y.spelling) })
	a := &addedTokens{tokens: make([]addedToken, 0, len(tokens))}
	last, plain := "", true // the spelling before, and whether a token of it is not special
	for _, token := range tokens {
		if token.spelling != last {
			last, plain = token.spelling, false
		} else if plain || token.special {
			continue
		}
		plain = plain || !token.special
		a.tokens = append(a.tokens, token)
	}
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

// nodeCount is how many strings there are that tokens end with, the empty one included.
func (a *addedTokens) nodeCount() int {
	n, last := 1, ""
	for _, token := range a.tokens {
		same, spelling := 0, token.spelling
		for same < min(len(last), len(spelling)) && last[len(last)-1-same] == spelling[len(spelling)-1-same] {
			same++
		}
		n += len(spelling) - same
		last = spelling
	}
	return n
}

// build makes the nodes of the tokens, which are sorted. Those that end with a node's string stand side by side: until
// it is the node's turn, first and token are where they begin and end.
func (a *addedTokens) build() {
	if len(a.tokens) == 0 {
		return
	}
	a.nodes = make([]addedNode, 1, a.nodeCount()+1)
	a.nodes[0].token = int32(len(a.tokens))
	size, longer := int32(0), int32(1) // of the node's string; the first node of longer ones
	for i := int32(0); int(i) < len(a.nodes); i++ {
		if i == longer {
			size, longer = size+1, int32(len(a.nodes))
		}
		n := &a.nodes[i]
		from, to := n.first, n.token
		n.first, n.token, n.plain = int32(len(a.nodes)), -1, -1
		if i > 0 {
			n.token, n.plain = a.nodes[n.back].token, a.nodes[n.back].plain
		}
		if len(a.tokens[from].spelling) == int(size) { // its own token is the shortest of them, so the first
			n.token = from
		}
		for ; from < to && len(a.tokens[from].spelling) == int(size); from++ {
			if !a.tokens[from].special {
				n.plain = from
			}
		}
		for from < to {
			char := a.charAt(from, size)
			end := from + 1
			for end < to && a.charAt(end, size) == char {
				end++
			}
			child := addedNode{first: from, token: end, char: char}
			if i > 0 {
				child.back = a.step(a.nodes[i].back, char)
			} else {
				a.root[char] = int32(len(a.nodes))
			}
			a.nodes = append(a.nodes, child)
			from = end
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

// find returns the matches of text, from its end to its start; plain: of no special token.
func (a *addedTokens) find(text string, plain bool) []addedMatch {
	if a == nil || len(a.nodes) == 0 {
		return nil
	}
	var matches []addedMatch
	node := int32(0)
	for at := len(text) - 1; at >= 0; at-- {
		node = a.step(node, text[at])
		token := a.nodes[node].token
		if plain {
			token = a.nodes[node].plain
		}
		if token >= 0 {
			matches = append(matches, addedMatch{at, token})
		}
	}
	return matches
}

// split cuts text into added tokens, each with its id, and what lies between them, with -1. No piece without an id is
// empty. plain: special tokens are text.
func (a *addedTokens) split(text string, plain bool) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		done, taken := 0, 0 // taken: how far white space was last taken; what a later token finds before that is white space too
		at := 0
		for _, match := range slices.Backward(a.find(text, plain)) {
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
