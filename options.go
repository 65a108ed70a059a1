package photon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/photon-lm/photon/internal/strictjson"
)

// An Option says how to generate: how much, how to choose each token, when to stop. Options are given to a session or
// to one call; later ones override earlier ones. Bad values are reported by the call that generates, with an error that
// matches ErrInvalid.
//
// Without options a token is drawn as the model's generation_config.json says (do_sample, temperature, top_k, top_p,
// min_p, repetition_penalty); where that says nothing, as llama.cpp draws it by default: top-k 40, then top-p 0.95,
// then min-p 0.05, then temperature 0.8; no repeat penalty; seed 0; at most 256 tokens.
type Option func(*options)

// readGeneration reads what generation_config.json says of how to draw and where a text ends; nil ends: it does not.
// A file that names a filter or the temperature means the others as Hugging Face has them by default, and one that says
// do_sample false means the most likely token.
func readGeneration(fsys fs.FS) (o options, ends []int, err error) {
	const name = generationFile
	o = defaultOptions()
	data, err := readSmall(fsys, name, maxConfigSize)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil, nil
	} else if err != nil {
		return o, nil, err
	}
	const absent = -1.0
	temperature, topK, topP, minP, penalty := absent, -1, absent, absent, absent
	sample := true
	number := func(r *strictjson.Reader, key string, dst *float64, least, most float64) strictjson.Field {
		return strictjson.May(key, r.OrNull(func() error {
			if err := strictjson.Into(dst, r.Float)(); err != nil {
				return err
			}
			if !(*dst >= least && *dst <= most) {
				return fmt.Errorf("%g, want %g to %g: %w", *dst, least, most, ErrCorrupt)
			}
			return nil
		}))
	}
	err = checkLFSPointer(data)
	var r *strictjson.Reader
	if err == nil {
		r, err = strictjson.New(data, ErrCorrupt)
	}
	if err == nil {
		err = r.Fields(
			strictjson.May("eos_token_id", r.OrNull(readInts(r, &ends))),
			strictjson.May("do_sample", r.OrNull(strictjson.Into(&sample, r.Bool))),
			number(r, "temperature", &temperature, 0, math.MaxFloat32),
			number(r, "top_p", &topP, 0, 1),
			number(r, "min_p", &minP, 0, 1),
			number(r, "repetition_penalty", &penalty, 0x1p-20, math.MaxFloat32),
			strictjson.May("top_k", r.OrNull(func() error {
				if err := readInt(r, &topK)(); err != nil {
					return err
				}
				if topK < 0 {
					return fmt.Errorf("%d, want 0 (off) or more: %w", topK, ErrCorrupt)
				}
				return nil
			})),
		)
	}
	if err == nil {
		err = r.End()
	}
	if err != nil {
		return o, nil, fmt.Errorf("photon: %s: %w", name, err)
	}
	if temperature >= 0 || topK >= 0 || topP >= 0 || minP >= 0 {
		o.temperature, o.topK, o.topP, o.minP = 1, 50, 1, 0
	}
	for _, set := range []struct {
		to    *float64
		value float64
	}{{&o.temperature, temperature}, {&o.topP, topP}, {&o.minP, minP}} {
		if set.value >= 0 {
			*set.to = set.value
		}
	}
	if topK >= 0 {
		o.topK = topK
	}
	if penalty > 0 && penalty != 1 {
		o.repeatPenalty, o.repeatLast = penalty, -1 // theirs looks at the whole text
	}
	if !sample {
		o.temperature = 0
	}
	return o, ends, nil
}

// options are what Options set. The zero value is not the default: see defaultOptions.
type options struct {
	maxTokens     int // negative: no bound
	temperature   float64
	topK          int // 0: off
	topP, minP    float64
	repeatPenalty float64
	repeatLast    int // how many tokens back the penalties look; negative: all
	frequency     float64
	presence      float64
	bias          map[int]float32
	seed, sample  uint64
	stop          []stopString
	stopTokens    []int
	logProbs      int // negative: not asked for
	mode          GenMode
	logits        []func(drawn []int, logits []float32)
}

func defaultOptions() options {
	return options{
		maxTokens:     256,
		temperature:   0.8,
		topK:          40,
		topP:          0.95,
		minP:          0.05,
		repeatPenalty: 1,
		repeatLast:    64,
		logProbs:      -1,
	}
}

// resolve applies opts to base, and checks the outcome: an error matches ErrInvalid.
func resolve(base options, opts []Option) (options, error) {
	o := base
	for _, set := range opts {
		if set != nil {
			set(&o)
		}
	}
	return o, o.check()
}

// check reports the first value that is out of its range. The comparisons are written so that a NaN fails them.
func (o *options) check() error {
	invalid := func(name string, value any, want string) error {
		return fmt.Errorf("photon: option %s: %v is out of range: give %s: %w", name, value, want, ErrInvalid)
	}
	switch {
	case !(o.temperature >= 0 && o.temperature <= math.MaxFloat32):
		return invalid("Temperature", o.temperature, "0 (always the most likely token) or more")
	case o.topK < 0:
		return invalid("TopK", o.topK, "0 (off) or more")
	case !(o.topP >= 0 && o.topP <= 1):
		return invalid("TopP", o.topP, "0 to 1 (off)")
	case !(o.minP >= 0 && o.minP <= 1):
		return invalid("MinP", o.minP, "0 (off) to 1")
	case !(o.repeatPenalty > 0 && o.repeatPenalty <= math.MaxFloat32):
		return invalid("RepeatPenalty", o.repeatPenalty, "1 (off) or a little more")
	case !(math.Abs(o.frequency) <= math.MaxFloat32):
		return invalid("FrequencyPenalty", o.frequency, "0 (off) or a finite number")
	case !(math.Abs(o.presence) <= math.MaxFloat32):
		return invalid("PresencePenalty", o.presence, "0 (off) or a finite number")
	case o.logProbs < -1:
		return invalid("LogProbs", o.logProbs, "-1 (off), 0 (the chosen token's) or how many likely tokens to tell")
	case o.mode != HierGen && o.mode != RecGen:
		return invalid("Mode", int(o.mode), "HierGen or RecGen")
	}
	for _, stop := range o.stop {
		if stop.text == "" || !utf8.ValidString(stop.text) {
			return invalid("Stop", strconv.Quote(stop.text), "strings of UTF-8 that are not empty")
		}
	}
	for _, id := range o.stopTokens {
		if id < 0 {
			return invalid("StopTokens", id, "token ids of the model")
		}
	}
	for id, bias := range o.bias {
		if bias != bias || bias > math.MaxFloat32 || id < 0 {
			return invalid("LogitBias", fmt.Sprintf("%v of token %d", bias, id),
				"a finite number, or -Inf, for token ids of the model")
		}
	}
	return nil
}

// resolve is resolve, held against the model too.
func (m *Model) resolve(base options, opts []Option) (options, error) {
	o, err := resolve(base, opts)
	if err == nil {
		err = m.checkMode(o.mode)
	}
	if err == nil && len(o.stop) > 0 && m.tokenizer == nil {
		err = fmt.Errorf("photon: option Stop: the model has no tokenizer.json, so its tokens have no text: use StopTokens: %w", ErrUnsupported)
	}
	known := func(name string, id int) {
		if err == nil && id >= m.cfg.VocabSize {
			err = fmt.Errorf("photon: option %s: token %d: the vocabulary is 0 … %d: %w", name, id, m.cfg.VocabSize-1, ErrInvalid)
		}
	}
	for _, id := range o.stopTokens {
		known("StopTokens", id)
	}
	for id := range o.bias {
		known("LogitBias", id)
	}
	return o, err
}

// MaxTokens bounds how many tokens are generated. Default 256; negative: no bound.
func MaxTokens(n int) Option { return func(o *options) { o.maxTokens = n } }

// Temperature divides the logits of the tokens that the filters left, so that values below 1 make likely tokens
// likelier. Default 0.8. At 0 the most likely token is always taken, and of equals the one with the lowest id.
func Temperature(t float64) Option { return func(o *options) { o.temperature = t } }

// TopK keeps the k most likely tokens; of equals the lower id goes first. Default 40; 0: all.
func TopK(k int) Option { return func(o *options) { o.topK = k } }

// TopP keeps the smallest number of most likely tokens whose probabilities, among those that TopK left, reach p; one at
// least. Default 0.95; 1: all.
func TopP(p float64) Option { return func(o *options) { o.topP = p } }

// MinP keeps the tokens that are at least p times as likely as the most likely one. Default 0.05; 0: all.
func MinP(p float64) Option { return func(o *options) { o.minP = p } }

// RepeatPenalty makes each token that is among the last of the text (see RepeatLast), prompt included, less likely,
// before the filters: its logit is divided by p if positive and multiplied by p if negative. Default 1: off.
func RepeatPenalty(p float64) Option { return func(o *options) { o.repeatPenalty = p } }

// RepeatLast sets how many tokens back the three penalties look. Default 64; negative: at the whole text; 0: at
// nothing.
func RepeatLast(n int) Option { return func(o *options) { o.repeatLast = n } }

// FrequencyPenalty takes p from a token's logit for each time that it is among the last of the text (see RepeatLast).
// Default 0: off.
func FrequencyPenalty(p float64) Option { return func(o *options) { o.frequency = p } }

// PresencePenalty takes p from the logit of each token that is among the last of the text (see RepeatLast). Default 0:
// off.
func PresencePenalty(p float64) Option { return func(o *options) { o.presence = p } }

// LogitBias adds to the logits of tokens, by id, before anything else is done; -Inf forbids a token. Default: none. It
// replaces an earlier one.
func LogitBias(bias map[int]float32) Option {
	bias = maps.Clone(bias)
	return func(o *options) { o.bias = bias }
}

// Seed chooses the random numbers of a text. Default 0. The draw of a token depends on its logits, the seed, Sample and
// the token's position in the text, and on nothing else: the same seed gives the same text again.
func Seed(s uint64) Option { return func(o *options) { o.seed = s } }

// Sample tells several texts of one seed apart: Sample(0), Sample(1), … of the same prompt are independent draws.
// Default 0.
func Sample(n uint64) Option { return func(o *options) { o.sample = n } }

// Stop ends the text before the first of these strings to be complete, which is not part of the text. It may cross
// tokens, and calls of Generate where nothing was appended between them; the text of a special token, such as
// "<|im_end|>", is found too. Its tokens have been yielded, and the session holds them: what is appended next comes
// behind the stop string. A chat that stops at "\nUser:" goes on by appending what the user says; one that must not
// keep the stop string begins a new session with the text's ids before it. Text that a call which ended by MaxTokens
// has given out is not taken back by a later one. Default: none. It replaces earlier ones.
func Stop(strings ...string) Option {
	stop := newStopStrings(strings...)
	return func(o *options) { o.stop = stop }
}

// StopTokens ends the text before any of these tokens, besides the model's own end-of-text tokens. Default: none. It
// replaces earlier ones.
func StopTokens(ids ...int) Option {
	ids = slices.Clone(ids)
	return func(o *options) { o.stopTokens = ids }
}

// LogProbs asks for the log-probability of each token chosen, and for the n most likely tokens beside it. They are
// natural logarithms of the probabilities that the model gives, before penalties, filters, temperature and LogitsFunc.
// LogProbs(0) asks for the chosen token's alone. Default -1: not computed (NaN), since it costs an exponential for each
// token of the vocabulary; an n beyond the vocabulary is all of it.
func LogProbs(n int) Option { return func(o *options) { o.logProbs = n } }

// LogitsFunc has f edit the logits of the next token, [vocab], in place, after LogitBias and before anything else
// looks at them: a mask (-Inf forbids a token, a NaN is ErrInvalid), a grammar. drawn are the ids that this call of
// Generate has drawn so far, all of them. f must not keep or change drawn, nor keep logits. It is called once for each
// token, from the goroutine that generates, which is a Batcher's own. Several are called in the order in which they
// were given, those of a session first; nil takes back the earlier ones. Default: none.
func LogitsFunc(f func(drawn []int, logits []float32)) Option {
	return func(o *options) {
		if f == nil {
			o.logits = nil
			return
		}
		o.logits = append(slices.Clip(o.logits), f)
	}
}

// GenMode is how a hierarchical model generates.
type GenMode int

const (
	// HierGen generates exactly: each token is drawn from its probability given the whole text so far.
	HierGen GenMode = iota
	// RecGen is the paper's approximation (Definition A.3): the units of a meta-context are decoded side by side from
	// what the level above predicts, and what was chosen never reaches a later meta-context. It is fast for the same
	// weights, and its text can drift: compare the quality before you rely on it. It needs two levels or more and
	// chunk-local decoders; other models are refused with an error that matches ErrUnsupported.
	RecGen
)

// Mode chooses how a hierarchical model generates: HierGen (default) or RecGen. A flat model knows HierGen only, and a
// text that has begun to go on by RecGen, RecGen only.
func Mode(m GenMode) Option { return func(o *options) { o.mode = m } }

// String returns "HierGen" or "RecGen".
func (m GenMode) String() string { return nameOf("GenMode", int(m), "HierGen", "RecGen") }
