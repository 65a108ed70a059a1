// Package photon runs PHOTON language models (Parallel Hierarchical Operation for TOp-down Networks, arXiv 2512.20687)
// and ordinary LLaMA-like ones inside a Go program: no cgo, no server, no other process.
//
//	model, err := photon.LoadFS(models.Stories(), photon.WithWeights(photon.Int8)) // or photon.Load("path/to/model")
//	if err != nil { … }
//	for token, err := range model.Generate(ctx, "Once upon a time", photon.MaxTokens(100)) {
//		if err != nil { … }
//		fmt.Print(token.Text)
//	}
//
// A PHOTON model keeps a hierarchy of latent streams in place of one flat scan over tokens. Bottom up, the encoder of
// level l makes one unit of every C_l units below it; top down, light decoders with bounded attention bring the tokens
// back. A block transformer is a PHOTON of one level, and an ordinary LLaMA transformer one of none: all three run
// here, on the same code. docs/guide.md of the repository has a picture, what takes how much memory, what is fast, and
// answers to common questions; docs/formats.md the models of others that run.
//
// # What to call
//
//   - [Load] and [LoadFS] make a [Model] of a directory, a GGUF file or any fs.FS; [LoadOption] says how it is held.
//   - [Model.Generate] streams a text as [Token]s, [Model.Complete] collects it in a [Result]; [Option] says how.
//   - [Model.NewSession] begins a [Session], a text that goes on: [Session.AppendText], [Session.Generate],
//     [Session.Fork], [Session.WriteTo] and [Model.ReadSession].
//   - [Model.GenerateBatch] runs a list of [Request]s together; a [Batcher] those that come and go.
//   - [Model.Score], [Session.Score] and [Model.Logits] tell what a model makes of a text.
//   - A [Tokenizer] turns text into ids and back, a [StreamDecoder] ids into text one at a time.
//   - [Inspect], [CheckWeights], [Quantize] and [WriteRandom] work on model files; [Config] is an architecture.
//
// # Concurrency
//
// A [Model], its [Tokenizer] and a [Batcher] are safe for concurrent use. A [Session] is the state of one text and
// belongs to one goroutine at a time; many sessions of one model may run at once, forks of one text among them. Helper
// goroutines live only as long as the call that needs them; a Batcher's lives while it has requests.
//
// # Memory
//
// A model holds its weights, as [WithWeights] says, and scratch for each call that runs; [WithMemoryLimit] refuses a
// model that takes more than its bytes with one call. A session holds keys and values: [Config.StateBytes] of its
// tokens, in the form of [WithCache]. Forks share those that they have in common ([Stats]). A Batcher bounds those of
// its texts by [MaxStateBytes].
//
// # Contexts and errors
//
// A call ends within a few milliseconds of its context's end, with its error, and leaves a session that goes on as if
// nothing had happened. Every error matches, by errors.Is, one of [ErrCorrupt], [ErrUnsupported], [ErrMismatch],
// [ErrMemoryLimit], [ErrClosed] and [ErrInvalid], or an error of the system below.
//
// # Determinism
//
// On one machine the same tokens come out every time: results do not depend on the number of threads, on how a prompt
// was cut into calls of Append, on a Fork or a snapshot in between, or on what else runs in a batch. Machines whose
// kernels differ ([Model.Kernel]) round differently.
package photon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
)

// Model is a loaded model, of Load or LoadFS. It is immutable and safe for concurrent use.
type Model struct {
	cfg       Config
	tokenizer *Tokenizer
	cacheType CacheType
	weights   WeightType
	threads   int
	defaults  options // of sessions
	held      []array // all weights, in an order that follows from the config

	encoderTable table      // [vocab × d_e]
	tokenEncoder *stack     // over the tokens; nil: none
	encoders     []*encoder // level 1 first
	decoders     []*decoder // level 1 first; a flat model has one, and no encoder
	decoderTable table      // [vocab × W_1]; empty where the content is states
	startLatent  []float32  // [D_L]
	head         *matrix    // [vocab × W_1]
	empty        *sequence  // the state before the first token
	reach        int        // tokens before the last that decoders have to follow
	families     atomic.Int64

	identify sync.Once
	identity [sha256.Size]byte // see fingerprint

	closed atomic.Bool
	mu     sync.Mutex
	idle   []*workspace
}

// A LoadOption says how to load a model. A bad value is reported by Load, with an error that matches ErrInvalid; of one
// option given twice the later counts.
type LoadOption func(*loadOptions)

type loadOptions struct {
	threads     int
	weights     WeightType
	cache       CacheType
	memoryLimit int64
	progress    func(done, total int64)
	ctx         context.Context
}

// WithThreads sets how many goroutines share the arithmetic of one call, 1 to 1024; the default is GOMAXPROCS. It does
// not change results.
func WithThreads(n int) LoadOption { return func(o *loadOptions) { o.threads = n } }

// WithWeights sets how matrices are held in memory; the default is AsStored.
func WithWeights(t WeightType) LoadOption { return func(o *loadOptions) { o.weights = t } }

// WithCache sets how keys and values are held; the default is CacheF32.
func WithCache(t CacheType) LoadOption { return func(o *loadOptions) { o.cache = t } }

// WithMemoryLimit refuses, before any weight is read, a model that would take more than this many bytes: its weights
// as they are held, the tensor that is being read, the scratch of one call, and a session without tokens. The error
// matches ErrMemoryLimit and says what takes how much. The state of texts comes on top (see Config.StateBytes), and
// for every further call that runs at the same time, its scratch. Default 0: no limit, but that every model is
// refused, with an error that matches ErrUnsupported, that would take over 256 MiB and 8 times its files, or of
// which a token would take over 2³² multiply-adds and 256 for each weight.
func WithMemoryLimit(bytes int64) LoadOption { return func(o *loadOptions) { o.memoryLimit = bytes } }

// WithProgress has f called while weights are read, with bytes done and in total, from the goroutine that loads.
func WithProgress(f func(done, total int64)) LoadOption {
	return func(o *loadOptions) { o.progress = f }
}

// WithContext has loading stop within a few milliseconds of the context's end, with its error. The model does not keep
// it.
func WithContext(ctx context.Context) LoadOption { return func(o *loadOptions) { o.ctx = ctx } }

// Load opens a model: a directory with config.json, model.safetensors (or shards, with model.safetensors.index.json),
// and tokenizer.json and generation_config.json if they are there; or a GGUF file, with its tokenizer. A missing file
// matches fs.ErrNotExist; ErrCorrupt, ErrUnsupported, ErrMismatch and ErrMemoryLimit tell of the rest. What is no
// regular file, such as a named pipe or a device, is ErrCorrupt and is not waited for; a path to a file of another
// kind, and a bad option, are ErrInvalid. The files are read and closed, and may go afterwards. It may be called from
// several goroutines.
func Load(path string, opts ...LoadOption) (*Model, error) {
	files, err := Files(path)
	if err != nil {
		return nil, err
	}
	m, err := LoadFS(files, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, path)
	}
	return m, nil
}

// LoadFS is Load on any file system: go:embed, a zip archive, a map in a test. Without a config.json, its one .gguf
// file is the model.
func LoadFS(fsys fs.FS, opts ...LoadOption) (*Model, error) {
	o := loadOptions{threads: min(runtime.GOMAXPROCS(0), maxThreads), ctx: context.Background()}
	for _, set := range opts {
		if set != nil {
			set(&o)
		}
	}
	if err := cmp.Or(errKernel, o.check(), checkFS(fsys), ended(o.ctx)); err != nil {
		return nil, err
	}
	files := &witness{fsys, map[string]fs.FileInfo{}}
	c, err := openContents(files)
	if err != nil {
		return nil, err
	}
	cfg := c.info.Config
	tokenizer, err := c.tokenizer(o.ctx)
	if err != nil {
		return nil, err
	}
	if tokenizer != nil && tokenizer.VocabSize() > cfg.VocabSize {
		return nil, fmt.Errorf("photon: the tokenizer has %d tokens, vocab_size is %d: the files are of different models: %w",
			tokenizer.VocabSize(), cfg.VocabSize, ErrMismatch)
	}
	if err := ended(o.ctx); err != nil {
		return nil, fmt.Errorf("photon: loading: %w", err)
	}
	m := &Model{cfg: cfg, tokenizer: tokenizer, cacheType: o.cache, weights: o.weights, threads: o.threads,
		defaults: c.defaults}
	if err := m.readWeights(c.weights, o); err != nil {
		return nil, err
	}
	if err := files.unchanged(); err != nil {
		return nil, err
	}
	m.begin()
	return m, nil
}

const maxThreads = 1 << 10

func (o *loadOptions) check() error {
	switch {
	case o.threads < 1 || o.threads > maxThreads:
		return fmt.Errorf("photon: WithThreads(%d): give 1 to %d: %w", o.threads, maxThreads, ErrInvalid)
	case o.weights < AsStored || o.weights > Int4:
		return fmt.Errorf("photon: WithWeights(%d): no such type: %w", o.weights, ErrInvalid)
	case o.cache < CacheF32 || o.cache > CacheInt8:
		return fmt.Errorf("photon: WithCache(%d): no such type: %w", o.cache, ErrInvalid)
	case o.memoryLimit < 0:
		return fmt.Errorf("photon: WithMemoryLimit(%d): give the bytes that the model may take, or 0 for no limit: %w", o.memoryLimit, ErrInvalid)
	}
	return nil
}

// begin computes the state before the first token, which every new session starts from.
func (m *Model) begin() {
	ws := m.acquire()
	defer m.release(ws)
	m.beginSinks(ws)
	m.empty = m.newSequence()
	m.follow(ws, []*sequence{m.empty}, false)
	n := len(m.decoders)
	m.reach = m.behind(&sequence{n: maxText, dec: make([]decoderState, n), plan: make([]plan, n)})
	m.empty = m.empty.clone() // the first marks what is shared; NewSession, on any goroutine, only reads that
}

// Config returns the model's architecture, a copy.
func (m *Model) Config() Config { return m.cfg.clone() }

// Tokenizer returns the model's tokenizer, nil if its directory has none.
func (m *Model) Tokenizer() *Tokenizer { return m.tokenizer }

// Kernel names the arithmetic that was chosen for this machine: "avx512", "avx2", "neon", "simd128" (WebAssembly) or
// "generic", which is plain Go.
func (m *Model) Kernel() string { return kernelName() }

// Close makes every later use of the model an error that matches ErrClosed. Streams that run end with it at their next
// token; other calls that run are not disturbed. The memory goes with the last reference to the model or a session of
// it. It may be called from any goroutine, more than once, and returns nil.
func (m *Model) Close() error {
	m.closed.Store(true)
	m.mu.Lock()
	m.idle = nil
	m.mu.Unlock()
	return nil
}

func (m *Model) check() error {
	if m.closed.Load() {
		return fmt.Errorf("photon: the model was closed: load it again: %w", ErrClosed)
	}
	return nil
}

// checkIDs reports the first token that the model does not have.
func (m *Model) checkIDs(ids []int) error {
	for i, id := range ids {
		if id < 0 || id >= m.cfg.VocabSize {
			return fmt.Errorf("photon: token %d is %d: the vocabulary is 0 … %d: %w", i, id, m.cfg.VocabSize-1, ErrInvalid)
		}
	}
	return nil
}

// acquire takes an idle workspace, or makes one, and starts its crew.
func (m *Model) acquire() *workspace {
	m.mu.Lock()
	var ws *workspace
	if n := len(m.idle); n > 0 {
		ws, m.idle = m.idle[n-1], m.idle[:n-1]
	}
	m.mu.Unlock()
	if ws == nil {
		ws = &workspace{cacheType: m.cacheType}
		ws.crew.init(m.threads)
	}
	ws.crew.begin()
	return ws
}

// maxIdle is how many workspaces a model keeps. After many calls at once the others are left to the garbage collector.
const maxIdle = 2

func (m *Model) release(ws *workspace) {
	ws.crew.end()
	ws.forget()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed.Load() && len(m.idle) < maxIdle {
		m.idle = append(m.idle, ws)
	}
}

// What went wrong, for errors.Is. Every error of this package wraps one of these, or an error of the
// system below it: a file that is not there matches fs.ErrNotExist, a cancelled context context.Canceled.
var (
	// ErrCorrupt marks bytes that are not what their format says: a truncated file, a hostile header, a config with a
	// zero size.
	ErrCorrupt = errors.New("corrupt data")
	// ErrUnsupported marks a valid thing that this library does not run: another architecture, another number format,
	// absurd sizes.
	ErrUnsupported = errors.New("not supported")
	// ErrMismatch marks parts that do not belong together: a tensor and the config, a snapshot and the model.
	ErrMismatch = errors.New("mismatch")
	// ErrMemoryLimit marks a model that needs more memory than WithMemoryLimit allows.
	ErrMemoryLimit = errors.New("memory limit")
	// ErrClosed marks the use of a closed model.
	ErrClosed = errors.New("closed")
	// ErrInvalid marks an argument out of range: a token id, an option, a context that is nil.
	ErrInvalid = errors.New("invalid argument")
)
