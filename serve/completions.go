package serve

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/photon-lm/photon"
)

// completionRequest is the body of /v1/completions.
type completionRequest struct {
	sampling
	Prompt   prompts `json:"prompt"`
	Echo     bool    `json:"echo"`
	LogProbs *int    `json:"logprobs"`
}

func (s *server) completions(w http.ResponseWriter, r *http.Request) {
	body := completionRequest{sampling: s.sampling(), Prompt: prompts{most: s.places()}}
	if err := s.read(w, r, &body); err != nil {
		s.fail(w, err)
		return
	}
	q, err := s.query(&body.sampling, 16)
	if err == nil && body.LogProbs != nil {
		err = q.askLogProbs("logprobs", *body.LogProbs)
	}
	if err == nil {
		err = s.takePrompts(q, &body.Prompt)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	q.source, q.echo = "prompt", body.Echo
	q.id, q.shape = "cmpl-"+q.id, &completion{t: s.m.Tokenizer(), ends: map[int]*textEnd{}, logProbs: q.logProbs >= 0}
	s.answer(w, r, q)
}

// takePrompts has the query answer prompts: token ids, or texts, of which there is an empty one where nothing is given.
func (s *server) takePrompts(q *query, p *prompts) error {
	if p.ids != nil {
		q.prompts, q.encode = make([][]int, len(p.ids)), func(i int) []int { return p.ids[i] }
		return nil
	}
	if q.written = p.texts; q.written == nil {
		q.written = []string{""}
	}
	t := s.m.Tokenizer()
	if t == nil {
		return badRequest("prompt", "this model has no tokenizer: give the prompt as a list of token ids")
	}
	q.prompts, q.encode = make([][]int, len(q.written)), func(i int) []int {
		ids := t.Encode(q.written[i])
		if len(ids) == 0 && s.cfg.Flat() && s.cfg.BOSTokenID >= 0 {
			ids = append(ids, s.cfg.BOSTokenID) // a flat model predicts nothing before its first token
		}
		return ids
	}
	return nil
}

// mostEchoed bounds the log-probabilities that an answer repeats its prompts with, for all of its texts.
const mostEchoed = 1 << 20

// checkEcho reports that the query's first prompts, up to index, are more than an answer repeats.
func (s *server) checkEcho(q *query, index int) error {
	if !q.echo {
		return nil
	}
	ids := q.prompts[index]
	if q.written != nil {
		q.echoed.bytes += int64(q.n) * int64(len(q.written[index]))
	} else {
		q.echoed.bytes += int64(q.n) * int64(s.textBytes(ids))
	}
	if q.echoed.bytes > mostText {
		return badRequest("echo", "echo of the prompts, for each of their choices, has more than %d bytes: leave it "+
			"out, or ask for fewer choices", mostText)
	}
	q.echoed.logProbs += int64(q.n) * int64(len(ids)) * int64(q.logProbs+1)
	if q.echoed.logProbs > mostEchoed {
		return badRequest("logprobs", "echo with logprobs, of the prompts for each of their choices, has %d "+
			"log-probabilities or more, an answer may have %d: ask for fewer of them, or for fewer choices",
			q.echoed.logProbs, mostEchoed)
	}
	return nil
}

// completion words the answers of /v1/completions.
type completion struct {
	t    *photon.Tokenizer
	ends map[int]*textEnd

	logProbs bool // asked for
}

// textEnd is where a text has got to: what token lists count their offsets from.
type textEnd struct {
	decoder *photon.StreamDecoder
	runes   int
}

type completionChoice struct {
	Text     string              `json:"text"`
	Index    int                 `json:"index"`
	LogProbs *completionLogProbs `json:"logprobs"`
	Finish   *string             `json:"finish_reason"`
}

type completionLogProbs struct {
	Tokens  []string          `json:"tokens"`
	Own     []*float32        `json:"token_logprobs"`
	Top     []json.RawMessage `json:"top_logprobs"` // objects; the token itself is among them
	Offsets []int             `json:"text_offset"`  // in code points
}

func (c *completion) object(bool) string { return "text_completion" }

func (c *completion) choice(p *piece, stream bool) any {
	out := completionChoice{Text: p.s, Index: p.text, Finish: orNull(p.finish)}
	if len(p.tokens) == 0 {
		if c.logProbs && !stream {
			out.LogProbs = &completionLogProbs{[]string{}, []*float32{}, []json.RawMessage{}, []int{}}
		}
		return out
	}
	end := c.ends[p.text]
	if end == nil {
		end = &textEnd{}
		if c.t != nil {
			end.decoder = c.t.NewDecoder()
		}
		c.ends[p.text] = end
	}
	l := &completionLogProbs{}
	for _, t := range p.tokens {
		name := tokenName(c.t, t.ID)
		l.Tokens = append(l.Tokens, name)
		l.Offsets = append(l.Offsets, end.pass(c.t, t))
		if math.IsNaN(float64(t.LogProb)) {
			l.Own, l.Top = append(l.Own, nil), append(l.Top, nil)
			continue
		}
		own := finite(t.LogProb)
		if t.top.worded == nil {
			top := map[string]float32{name: own}
			for _, other := range t.top.tokens {
				top[tokenName(c.t, other.ID)] = finite(other.LogProb)
			}
			t.top.worded, _ = json.Marshal(top)
		}
		l.Own, l.Top = append(l.Own, &own), append(l.Top, t.top.worded)
	}
	out.LogProbs = l
	return out
}

// pass goes past a token, and returns where it begins.
func (e *textEnd) pass(t *photon.Tokenizer, k token) (offset int) {
	if t == nil || k.silent {
		return e.runes
	}
	text, own := e.decoder.Next(k.ID), t.Bytes(k.ID)
	if text == "" && k.prompt && utf8.Valid(own) && t.DecodeText([]int{k.ID}) == "" {
		text = string(own) // a special token, which a prompt spells out
	}
	runes := utf8.RuneCountInString(text)
	if offset = e.runes; utf8.Valid(own) { // behind a rune that it leaves incomplete
		offset += max(0, runes-utf8.RuneCount(own))
	}
	e.runes += runes
	return offset
}

// tokenName is a token's text, as OpenAI's API gives it where it is no whole runes: bytes:\xe2\x80.
func tokenName(t *photon.Tokenizer, id int) string {
	if t == nil {
		return "token_id:" + strconv.Itoa(id)
	}
	b := t.Bytes(id)
	switch {
	case b == nil:
		return "token_id:" + strconv.Itoa(id)
	case utf8.Valid(b):
		return string(b)
	}
	var name strings.Builder
	name.WriteString("bytes:")
	for _, c := range b {
		fmt.Fprintf(&name, `\x%02x`, c)
	}
	return name.String()
}

// finite is a log-probability that JSON can hold: OpenAI's API calls the impossible -9999.
func finite(p float32) float32 { return max(p, -9999) }

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// template returns the token ids that a tokenizer puts before and behind a text.
func template(t *photon.Tokenizer) (prefix, suffix []int) {
	if t == nil {
		return nil, nil
	}
	around, text, full := t.Encode(""), t.EncodeText("a"), t.Encode("a")
	for n := range len(around) + 1 {
		if len(full)-n >= len(text) && slices.Equal(full[n:n+len(text)], text) {
			return around[:n], around[n:]
		}
	}
	return nil, nil
}
