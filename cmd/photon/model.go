package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/internal/regular"
	"github.com/photon-lm/photon/internal/strictjson"
	"github.com/photon-lm/photon/models"
)

// modelFlags say which model to load, and how to hold it.
type modelFlags struct {
	dir     string
	threads int
	weights photon.WeightType
	chosen  bool // -weights was given
	cache   photon.CacheType
}

var (
	weightTypes = map[string]photon.WeightType{"stored": photon.AsStored, "f32": photon.F32, "bf16": photon.BF16, "int8": photon.Int8, "int4": photon.Int4}
	cacheTypes  = map[string]photon.CacheType{"f32": photon.CacheF32, "f16": photon.CacheF16, "int8": photon.CacheInt8}
)

func (m *modelFlags) declare(f *flag.FlagSet) {
	m.declareDir(f)
	f.IntVar(&m.threads, "threads", 0, "worker threads; 0: one a processor")
	f.Func("weights", "`form` to hold weights in: stored, f32, bf16, int8, int4 (default stored; where text\n"+
		"is written, what photon_weights in generation_config.json says: int8 for the embedded\n"+
		"model)", func(name string) error {
		m.chosen = true
		return choice(&m.weights, weightTypes)(name)
	})
	f.Func("cache", "`form` to hold keys and values in: f32, f16, int8 (default f32)", choice(&m.cache, cacheTypes))
}

func (m *modelFlags) declareDir(f *flag.FlagSet) {
	f.Func("model", "model `directory`, or .gguf file; without it, the model that is part of this program",
		filled(&m.dir))
}

// filled parses a flag that wants a value: an empty one is that of a variable which somebody forgot to set.
func filled(dst *string) func(value string) error {
	return func(value string) error {
		if value == "" {
			return errors.New("it is empty: give a name, or leave the flag out")
		}
		*dst = value
		return nil
	}
}

// choice parses a flag that is one of a few names.
func choice[T any](dst *T, values map[string]T) func(string) error {
	return func(name string) error {
		v, ok := values[name]
		if !ok {
			return fmt.Errorf("want one of %s", strings.Join(sortedKeys(values), ", "))
		}
		*dst = v
		return nil
	}
}

// name is what to call the model in a report.
func (m *modelFlags) name() string {
	if m.dir == "" {
		return "stories (embedded)"
	}
	return m.dir
}

// files returns the model's directory, or what a GGUF file stands for.
func (m *modelFlags) files() (fs.FS, error) {
	if m.dir == "" {
		return models.Stories(), nil
	}
	files, err := photon.Files(m.dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: give the directory that holds config.json, or a .gguf file", err)
	}
	if err != nil {
		return nil, modelError{err}
	}
	return files, nil
}

// load reads the model until ctx ends.
func (m *modelFlags) load(ctx context.Context, c *console) (*photon.Model, error) {
	if m.threads < 0 {
		return nil, usageError{fmt.Errorf("-threads %d: want 0 or more", m.threads)}
	}
	files, err := m.files()
	if err != nil {
		return nil, err
	}
	p := c.progress()
	defer p.done()
	opts := []photon.LoadOption{photon.WithWeights(m.weights), photon.WithCache(m.cache), photon.WithContext(ctx),
		photon.WithProgress(func(done, total int64) { p.share("loading "+m.name(), done, total) })}
	if m.threads > 0 {
		opts = append(opts, photon.WithThreads(m.threads))
	}
	model, err := photon.LoadFS(files, opts...)
	if err != nil {
		err = fmt.Errorf("%s: %w", m.name(), err)
		if errors.Is(err, photon.ErrInvalid) { // of the options or the environment
			return nil, err
		}
		return nil, modelError{err}
	}
	return model, nil
}

// loadForText also wants a tokenizer.
func (m *modelFlags) loadForText(ctx context.Context, c *console) (*photon.Model, error) {
	model, err := m.load(ctx, c)
	if err == nil && model.Tokenizer() == nil {
		err = modelError{fmt.Errorf("%s has no tokenizer.json: it cannot read or write text: %w",
			m.name(), photon.ErrUnsupported)}
		err = errors.Join(err, model.Close())
	}
	return model, err
}

// loadToWrite also takes the form of the weights that the model's maker recommends, where -weights does not say one.
func (m *modelFlags) loadToWrite(ctx context.Context, c *console) (*photon.Model, error) {
	if err := m.recommend(); err != nil {
		return nil, err
	}
	return m.loadForText(ctx, c)
}

// recommend has the weights held as the model's maker recommends, where -weights does not say how.
func (m *modelFlags) recommend() error {
	if m.chosen {
		return nil
	}
	files, err := m.files()
	if err != nil {
		return err
	}
	if m.weights, err = recommendedWeights(files); err != nil {
		return modelError{fmt.Errorf("%s: %w", m.name(), err)}
	}
	return nil
}

// recommendedWeights is the key photon_weights of generation_config.json: the smallest form of the weights with which a
// held-out text was measured to cost no more than with the stored ones. Without the key it is the stored form.
func recommendedWeights(files fs.FS) (photon.WeightType, error) {
	const name = "generation_config.json"
	data, err := readSmall(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return photon.AsStored, nil
	}
	if err != nil {
		return photon.AsStored, fmt.Errorf("%s: %w", name, err)
	}
	text := "stored"
	r, err := strictjson.New(data, photon.ErrCorrupt)
	if err == nil {
		err = r.Fields(strictjson.May("photon_weights", r.OrNull(strictjson.Into(&text, r.String))))
	}
	if err == nil {
		err = r.End()
	}
	if err != nil {
		return photon.AsStored, fmt.Errorf("%s: %w", name, err)
	}
	var weights photon.WeightType
	if err := choice(&weights, weightTypes)(text); err != nil {
		return weights, fmt.Errorf("%s: photon_weights %.40q: %w: %w", name, text, err, photon.ErrCorrupt)
	}
	return weights, nil
}

// maxSmall is the most bytes that a file beside a model's weights may have.
const maxSmall = 1 << 20

// readSmall reads a file beside a model's weights. Only one that is not there is fs.ErrNotExist: a link that leads
// nowhere is there, and whoever made it means the file to count.
func readSmall(files fs.FS, name string) ([]byte, error) {
	return regular.Read(files, name, maxSmall, photon.ErrCorrupt)
}

// openRegular opens a file that can be read more than once. Another kind is refused before it is opened: a pipe would
// wait until somebody writes.
func openRegular(name string) (*os.File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	return os.Open(name)
}

// ofFile is an error of a temporary file as one of the file that somebody named.
func ofFile(name string, err error) error { return fmt.Errorf("%s: %w", name, cause(err)) }

// cause is an error of a file without the name that it says.
func cause(err error) error {
	if wrong := new(fs.PathError); errors.As(err, &wrong) {
		return wrong.Err
	}
	return err
}

// replaceable is the file that a name stands for, links followed, where it may be replaced by a rename: it is a
// regular file, or is not there yet.
func replaceable(name string) (string, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return name, nil
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is no regular file: give another name", name)
	}
	return filepath.EvalSymlinks(name)
}
