// Package beam runs PHOTON models over collections in Apache Beam pipelines: prompts are continued, texts are scored,
// on any runner that the Beam Go SDK has. A worker process loads a model once, whatever runs in it side by side, and
// texts that it has at the same time share their passes over the weights.
//
//	p, s := beam.NewPipelineWithRoot()
//	prompts := … // beam.PCollection of KV<string, string>: a key and a prompt
//	texts := photonbeam.Generate(s, photonbeam.Model{Dir: "/models/m"}, photonbeam.Options{MaxTokens: 100}, prompts)
//
// A result depends on the key and the text alone: not on bundles, workers or retries.
package beam

import (
	"context"
	"hash/fnv"
	"math"
	"strings"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func init() {
	register.DoFn3x3[context.Context, string, string, string, string, error](&generateFn{})
	register.DoFn3x3[context.Context, string, string, string, Scored, error](&scoreFn{})
}

// Model says which model the workers load.
type Model struct {
	Dir     string // on every worker; empty: the model embedded in package models
	Weights photon.WeightType
	Cache   photon.CacheType
	Threads int // 0: one a processor
}

// Options are those of the draws. Where a number is 0 it is the library's default.
type Options struct {
	MaxTokens   int
	Temperature float64
	Greedy      bool // always the most likely token
	TopK        int
	TopP, MinP  float64
	Stop        []string
	Seed        uint64 // with a prompt's key it decides the prompt's draws
}

// Generate continues prompts, KV<string, string> of keys and prompts, and returns KV<string, string> of keys and
// continuations.
func Generate(s beam.Scope, m Model, o Options, prompts beam.PCollection) beam.PCollection {
	return beam.ParDo(s.Scope("photon.Generate"), &generateFn{Model: m, Options: o}, prompts)
}

// Scored is how well a model predicts a text. Tokens that it has no prediction for (the first of a flat model without a
// beginning-of-text token) count nowhere.
type Scored struct {
	Nats   float64
	Tokens int
	Bytes  int
}

// BitsPerByte is NaN of an empty text.
func (s Scored) BitsPerByte() float64 { return s.Nats / math.Ln2 / float64(s.Bytes) }

// Score scores texts, KV<string, string> of keys and texts, each from its first token, and returns KV<string, Scored>.
func Score(s beam.Scope, m Model, texts beam.PCollection) beam.PCollection {
	return beam.ParDo(s.Scope("photon.Score"), &scoreFn{Model: m}, texts)
}

type generateFn struct {
	Model   Model
	Options Options
	loaded  *loaded
}

func (f *generateFn) Setup() (err error) {
	f.loaded, err = load(f.Model)
	return err
}

func (f *generateFn) ProcessElement(ctx context.Context, key, prompt string) (string, string, error) {
	var text strings.Builder
	for token, err := range f.loaded.texts.Generate(ctx, photon.Request{Prompt: prompt, Options: f.Options.of(key)}) {
		if err != nil {
			return key, "", err
		}
		text.WriteString(token.Text)
	}
	return key, text.String(), nil
}

// of are the options of the text with a key.
func (o Options) of(key string) []photon.Option {
	hash := fnv.New64a()
	hash.Write([]byte(key))
	options := []photon.Option{photon.Seed(o.Seed ^ hash.Sum64()), photon.Stop(o.Stop...)}
	if o.MaxTokens != 0 {
		options = append(options, photon.MaxTokens(o.MaxTokens))
	}
	switch {
	case o.Greedy:
		options = append(options, photon.Temperature(0))
	case o.Temperature != 0:
		options = append(options, photon.Temperature(o.Temperature))
	}
	if o.TopK != 0 {
		options = append(options, photon.TopK(o.TopK))
	}
	if o.TopP != 0 {
		options = append(options, photon.TopP(o.TopP))
	}
	if o.MinP != 0 {
		options = append(options, photon.MinP(o.MinP))
	}
	return options
}

type scoreFn struct {
	Model  Model
	loaded *loaded
}

func (f *scoreFn) Setup() (err error) {
	f.loaded, err = load(f.Model)
	return err
}

func (f *scoreFn) ProcessElement(ctx context.Context, key, text string) (string, Scored, error) {
	m := f.loaded.model
	ids := m.Tokenizer().Encode(text)
	logProbs, err := m.Score(ctx, ids)
	if err != nil {
		return key, Scored{}, err
	}
	s := Scored{Bytes: len(text)}
	for i, p := range logProbs {
		switch {
		case i == 0 && ids[0] == m.Config().BOSTokenID: // no part of the text
		case math.IsNaN(float64(p)):
			s.Bytes -= min(s.Bytes, len(m.Tokenizer().Decode(ids[i:i+1])))
		default:
			s.Nats -= float64(p)
			s.Tokens++
		}
	}
	return key, s, nil
}

// loaded is a model that the DoFns of this process share. It stays until the process ends: runners keep their DoFns.
type loaded struct {
	once  sync.Once
	err   error
	model *photon.Model
	texts *photon.Batcher
}

var all = struct {
	sync.Mutex
	models map[Model]*loaded
}{models: map[Model]*loaded{}}

func load(of Model) (*loaded, error) {
	all.Lock()
	l := all.models[of]
	if l == nil {
		l = &loaded{}
		all.models[of] = l
	}
	all.Unlock()
	l.once.Do(func() {
		options := []photon.LoadOption{photon.WithWeights(of.Weights), photon.WithCache(of.Cache)}
		if of.Threads != 0 {
			options = append(options, photon.WithThreads(of.Threads))
		}
		if of.Dir != "" {
			l.model, l.err = photon.Load(of.Dir, options...)
		} else {
			l.model, l.err = photon.LoadFS(models.Stories(), options...)
		}
		if l.err == nil {
			l.texts = l.model.NewBatcher()
		}
	})
	return l, l.err
}
