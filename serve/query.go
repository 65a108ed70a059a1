package serve

import (
	"crypto/rand"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/internal/strictjson"
)

// sampling are the fields that completions and chats share.
type sampling struct {
	passive
	Model            string         `json:"model"`
	N                *int           `json:"n"`
	BestOf           *int           `json:"best_of"`
	Stream           bool           `json:"stream"`
	StreamOptions    *streamOptions `json:"stream_options"`
	Stop             stops          `json:"stop"`
	Seed             *int64         `json:"seed"`
	MaxTokens        *int           `json:"max_tokens"`
	Temperature      *float64       `json:"temperature"`
	TopP             *float64       `json:"top_p"`
	TopK             *int           `json:"top_k"`
	MinP             *float64       `json:"min_p"`
	RepeatPenalty    *float64       `json:"repeat_penalty"`
	FrequencyPenalty *float64       `json:"frequency_penalty"`
	PresencePenalty  *float64       `json:"presence_penalty"`
	LogitBias        biases         `json:"logit_bias"`
}

// sampling are the fields before they are read, with what they may have.
func (s *server) sampling() sampling { return sampling{LogitBias: biases{vocab: s.cfg.VocabSize}} }

// passive are fields that change no text: they are taken, and do nothing.
type passive struct {
	Metadata             object `json:"metadata"`
	ParallelToolCalls    bool   `json:"parallel_tool_calls"`
	PromptCacheKey       string `json:"prompt_cache_key"`
	PromptCacheRetention string `json:"prompt_cache_retention"`
	SafetyIdentifier     string `json:"safety_identifier"`
	ServiceTier          string `json:"service_tier"`
	Store                bool   `json:"store"`
	User                 string `json:"user"`
}

type streamOptions struct {
	IncludeUsage       bool `json:"include_usage"`
	IncludeObfuscation bool `json:"include_obfuscation"` // of lengths, by padding: there is none
}

func (o *streamOptions) read(path func() string, r *strictjson.Reader) error {
	return decodeFields(path, r, o, nil)
}

// ranges says in words which numbers a field takes.
var ranges = map[string]string{
	"n":                     "1 to 128",
	"best_of":               "the same as n",
	"seed":                  fmt.Sprint(int64(math.MinInt64), " to ", int64(math.MaxInt64)),
	"max_tokens":            fmt.Sprint("0 to ", math.MaxInt, ", or -1 for as many as there is room for"),
	"max_completion_tokens": fmt.Sprint("0 to ", math.MaxInt, ", or -1 for as many as there is room for"),
	"logprobs":              "0 to 20",
	"top_logprobs":          "0 to 20",
	"temperature":           "0 to 3.4e38",
	"top_p":                 "0 to 1",
	"top_k":                 fmt.Sprint("0 (off, as -1 is) to ", math.MaxInt),
	"min_p":                 "0 to 1",
	"repeat_penalty":        "1e-6 to 1e6: 1 (off) or a little more",
	"frequency_penalty":     "-1000 to 1000: as a rule -2 to 2",
	"presence_penalty":      "-1000 to 1000: as a rule -2 to 2",
}

// query is a request that has been understood: n texts for each prompt.
type query struct {
	id        string
	arrived   time.Time
	prompts   [][]int           // those that encode has made
	encode    func(i int) []int // makes the i-th prompt, when there is a place for its texts
	written   []string          // the prompts as they were given; nil where they are token ids
	n         int
	seed      *int64
	most      int // tokens to draw; negative: no bound
	options   []photon.Option
	logProbs  int // likely tokens to tell beside each; negative: no log-probabilities
	echo      bool
	stream    bool
	withUsage bool // at the end of a stream
	shape     shape
	source    string // the field that the prompts come from
	echoed    struct{ bytes, logProbs int64 }
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
			return nil, outOf("n", q.n, ranges["n"])
		}
	}
	if f.BestOf != nil && *f.BestOf != q.n {
		return nil, badRequest("best_of", "best_of is %d, n is %d: give the same, or leave it out", *f.BestOf, q.n)
	}
	if f.MaxTokens != nil {
		if q.most = *f.MaxTokens; q.most < -1 {
			return nil, outOf("max_tokens", q.most, ranges["max_tokens"])
		}
	}
	q.options = append(q.options, photon.Temperature(1), photon.TopP(1), photon.TopK(0), photon.MinP(0),
		photon.RepeatPenalty(1), photon.RepeatLast(64))
	q.options = append(q.options, s.o.defaults...)
	for _, number := range []struct {
		name      string
		value     *float64
		low, high float64
		option    func(float64) photon.Option
	}{
		{"temperature", f.Temperature, 0, math.MaxFloat32, photon.Temperature},
		{"top_p", f.TopP, 0, 1, photon.TopP},
		{"min_p", f.MinP, 0, 1, photon.MinP},
		{"repeat_penalty", f.RepeatPenalty, 1e-6, 1e6, photon.RepeatPenalty},
		{"frequency_penalty", f.FrequencyPenalty, -1000, 1000, photon.FrequencyPenalty},
		{"presence_penalty", f.PresencePenalty, -1000, 1000, photon.PresencePenalty},
	} {
		if number.value == nil {
			continue
		}
		if v := *number.value; v < number.low || v > number.high {
			return nil, outOf(number.name, v, ranges[number.name])
		}
		q.options = append(q.options, number.option(*number.value))
	}
	if f.TopK != nil {
		if *f.TopK < -1 {
			return nil, outOf("top_k", *f.TopK, ranges["top_k"])
		}
		q.options = append(q.options, photon.TopK(max(0, *f.TopK)))
	}
	if len(f.LogitBias.of) > 0 {
		q.options = append(q.options, photon.LogitBias(f.LogitBias.of))
	}
	if len(f.Stop) > 0 && s.m.Tokenizer() == nil {
		return nil, badRequest("stop", "this model has no tokenizer, so that its tokens have no text: leave stop out")
	}
	if len(f.Stop) > 0 {
		q.options = append(q.options, photon.Stop(f.Stop...))
	}
	return q, nil
}

// askLogProbs has the query tell the n most likely tokens beside each.
func (q *query) askLogProbs(name string, n int) error {
	if n < 0 || n > mostLogProbs {
		return outOf(name, n, ranges[name])
	}
	q.logProbs = n
	q.options = append(q.options, photon.LogProbs(n))
	return nil
}

// room checks a prompt, and returns how many tokens may follow it.
func (s *server) room(q *query, ids []int) (most int, err error) {
	vocab := s.cfg.VocabSize
	if i := slices.IndexFunc(ids, func(id int) bool { return id < 0 || id >= vocab }); i >= 0 {
		return 0, badRequest(q.source, "token %d of the prompt is %d: the vocabulary is 0 … %d", i, ids[i], vocab-1)
	}
	if len(ids) == 0 && q.most != 0 && s.cfg.Flat() {
		return 0, badRequest(q.source,
			"the prompt is empty, this model predicts nothing before a first token: give one")
	}
	room := s.o.tokens - len(ids)
	if room < 0 || room == 0 && q.most != 0 {
		e := badRequest(q.source, "the prompt has %d tokens, a text may have %d here, its answer included: send less",
			len(ids), s.o.tokens)
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
