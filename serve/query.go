package serve

import (
	"crypto/rand"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/photon-lm/photon"
)

// sampling are the fields that completions and chats share.
type sampling struct {
	Model            string          `json:"model"`
	N                *int            `json:"n"`
	Stream           bool            `json:"stream"`
	StreamOptions    *streamOptions  `json:"stream_options"`
	Stop             stops           `json:"stop"`
	Seed             *int64          `json:"seed"`
	MaxTokens        *int            `json:"max_tokens"`
	Temperature      *float64        `json:"temperature"`
	TopP             *float64        `json:"top_p"`
	TopK             *int            `json:"top_k"`
	MinP             *float64        `json:"min_p"`
	RepeatPenalty    *float64        `json:"repeat_penalty"`
	FrequencyPenalty *float64        `json:"frequency_penalty"`
	PresencePenalty  *float64        `json:"presence_penalty"`
	LogitBias        map[int]float32 `json:"logit_bias"`
}

type streamOptions struct {
	IncludeUsage       bool `json:"include_usage"`
	IncludeObfuscation bool `json:"include_obfuscation"` // of lengths, by padding: there is none
}

// query is a request that has been understood: n texts for each prompt.
type query struct {
	id        string
	arrived   time.Time
	prompts   [][]int
	written   []string // the prompts as they were given; nil where they are token ids
	n         int
	seed      *int64
	most      int // tokens to draw; negative: no bound
	options   []photon.Option
	logProbs  int // likely tokens to tell beside each; negative: no log-probabilities
	echo      bool
	stream    bool
	withUsage bool // at the end of a stream
	shape     shape
}

const (
	mostChoices  = 128
	mostLogProbs = 20
)

// query checks the shared fields; most is max_tokens where it is not given.
func (s *server) query(f *sampling, most int) (*query, error) {
	q := &query{id: rand.Text(), arrived: time.Now(), n: 1, seed: f.Seed, most: most, logProbs: -1,
		stream: f.Stream, withUsage: f.StreamOptions != nil && f.StreamOptions.IncludeUsage}
	if err := s.known(f.Model); err != nil {
		return nil, err
	}
	if f.StreamOptions != nil && !f.Stream {
		return nil, badRequest("stream_options", "stream_options without stream: leave them out, or ask for a stream")
	}
	if f.N != nil {
		if q.n = *f.N; q.n < 1 || q.n > mostChoices {
			return nil, outOf("n", q.n, "1 to 128")
		}
	}
	if f.MaxTokens != nil {
		if q.most = *f.MaxTokens; q.most < 0 {
			return nil, outOf("max_tokens", q.most, "0 or more")
		}
	}
	q.options = append(q.options, photon.Temperature(1), photon.TopP(1), photon.TopK(0), photon.MinP(0),
		photon.RepeatPenalty(1), photon.RepeatLast(64))
	q.options = append(q.options, s.o.defaults...)
	for _, number := range []struct {
		name      string
		value     *float64
		low, high float64
		want      string
		option    func(float64) photon.Option
	}{
		{"temperature", f.Temperature, 0, math.MaxFloat32, "0 or more", photon.Temperature},
		{"top_p", f.TopP, 0, 1, "0 to 1", photon.TopP},
		{"min_p", f.MinP, 0, 1, "0 to 1", photon.MinP},
		{"repeat_penalty", f.RepeatPenalty, 0x1p-20, 0x1p20, "1 or a little more", photon.RepeatPenalty},
		{"frequency_penalty", f.FrequencyPenalty, -1000, 1000, "-2 to 2", photon.FrequencyPenalty},
		{"presence_penalty", f.PresencePenalty, -1000, 1000, "-2 to 2", photon.PresencePenalty},
	} {
		if number.value == nil {
			continue
		}
		if v := *number.value; v < number.low || v > number.high {
			return nil, outOf(number.name, v, number.want)
		}
		q.options = append(q.options, number.option(*number.value))
	}
	if f.TopK != nil {
		if *f.TopK < 0 {
			return nil, outOf("top_k", *f.TopK, "0 (off) or more")
		}
		q.options = append(q.options, photon.TopK(*f.TopK))
	}
	for id := range f.LogitBias {
		if id < 0 || id >= s.m.Config().VocabSize {
			return nil, badRequest("logit_bias", "logit_bias of token %d: the vocabulary is 0 … %d", id,
				s.m.Config().VocabSize-1)
		}
	}
	if len(f.LogitBias) > 0 {
		q.options = append(q.options, photon.LogitBias(f.LogitBias))
	}
	q.options = append(q.options, photon.Stop(f.Stop...))
	return q, nil
}

// askLogProbs has the query tell the n most likely tokens beside each.
func (q *query) askLogProbs(name string, n int) error {
	if n < 0 || n > mostLogProbs {
		return outOf(name, n, "0 to 20")
	}
	q.logProbs = n
	q.options = append(q.options, photon.LogProbs(n))
	return nil
}

// room checks a prompt, and returns how many tokens may follow it.
func (s *server) room(q *query, ids []int) (most int, err error) {
	vocab := s.m.Config().VocabSize
	if i := slices.IndexFunc(ids, func(id int) bool { return id < 0 || id >= vocab }); i >= 0 {
		return 0, badRequest("prompt", "token %d of the prompt is %d: the vocabulary is 0 … %d", i, ids[i], vocab-1)
	}
	room := s.o.tokens - len(ids)
	if room < 0 || room == 0 && q.most != 0 {
		e := badRequest("prompt", "the prompt has %d tokens, a text may have %d here: cut the prompt", len(ids), s.o.tokens)
		e.code = "context_length_exceeded"
		return 0, e
	}
	if q.most >= 0 {
		room = min(room, q.most)
	}
	return room, nil
}

// optionsFor are those of a prompt's i-th text.
func (q *query) optionsFor(i, most int, seed uint64) []photon.Option {
	return append(slices.Clip(q.options), photon.MaxTokens(most), photon.Seed(seed), photon.Sample(uint64(i)))
}

// seedOf is the seed of a prompt's texts.
func (q *query) seedOf() uint64 {
	if q.seed != nil {
		return uint64(*q.seed)
	}
	return mathrand.Uint64()
}
