package photon

import (
	"iter"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that stands beside the vocabulary of the model: the text is searched for it before anything else is done with it.
type addedToken struct {
	id         int
	content    string
	singleWord bool // only where no letter or digit touches it
	lstrip     bool // takes the white space before it
	rstrip     bool // takes the white space after it
	normalized bool // looked for after normalization
	special    bool
}

// addedTokens finds added tokens in a text: the leftmost, of these the longest.
type addedTokens struct {
	tokens  map[string]addedToken
	lengths [256][]int // by first byte, the lengths of the tokens that start so, longest first
}

// add makes token be found where the text reads content. The first token of a content counts, an empty content is never found.
func (a *addedTokens) add(content string, token addedToken) {
	if _, found := a.tokens[content]; found || content == "" {
		return
	}
	if a.tokens == nil {
		a.tokens = map[string]addedToken{}
	}
	a.tokens[content] = token
	lengths := &a.lengths[content[0]]
	at, found := slices.BinarySearchFunc(*lengths, len(content), func(have, want int) int { return want - have })
	if !found {
		*lengths = slices.Insert(*lengths, at, len(content))
	}
}

// match returns the token that text begins with and the bytes that it takes, 0 if there is none.
func (a *addedTokens) match(text string) (addedToken, int) {
	for _, n := range a.lengths[text[0]] {
		if n <= len(text) {
			if token, found := a.tokens[text[:n]]; found {
				return token, n
			}
		}
	}
	return addedToken{}, 0
}

// split cuts text into added tokens, each with its id, and what lies between them, with -1. No piece without an id is empty.
func (a *addedTokens) split(text string) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		done, taken := 0, 0 // taken: how far white space was last taken; what a later token finds before that is white space too
		for at := 0; at < len(text) && len(a.tokens) > 0; {
			token, n := a.match(text[at:])
			if n == 0 {
				at++
				continue
			}
			start, end := at, at+n
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
