package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/photon-lm/photon"
)

// golden is golden.json: logits of a text, as a separate implementation computed them in float64 from the weights as stored.
type golden struct {
	IDs       []int       `json:"ids"`
	Rows      []int       `json:"rows"`      // of the logits
	Indices   [][]int     `json:"indices"`   // of each row
	Values    [][]float64 `json:"values"`    // at the indices
	LogSumExp []float64   `json:"logsumexp"` // of each row, over the vocabulary
	Tolerance float64     `json:"tolerance"` // times the largest of the values
}

func setupVerify(f *flag.FlagSet) func(c *console, args []string) error {
	threads := f.Int("threads", 0, "worker threads; 0: one a processor")
	return func(c *console, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return usageError{fmt.Errorf("wants one model directory, or .gguf file")}
		}
		return verify(interruptible(), c, modelFlags{dir: args[0], threads: *threads})
	}
}

// verify checks the files from the outside in, printing what holds; the first thing that does not is the error.
func verify(ctx context.Context, c *console, model modelFlags) error {
	w := c.stdout
	invalid := func(err error) error { return modelError{fmt.Errorf("%s: %w", model.name(), err)} }
	files, err := model.files()
	if err != nil {
		return err
	}
	info, err := photon.Inspect(files)
	if err != nil {
		return invalid(err)
	}
	fmt.Fprintf(w, "files      %s bytes of weights in %d tensors, all that config.json asks for\n", count(info.WeightBytes), info.Tensors)
	switch n, err := checkSums(ctx, files); {
	case errors.Is(err, errNoSums):
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return invalid(fmt.Errorf("%s: %w", sumsFile, err))
	default:
		fmt.Fprintf(w, "hashes     %d files are as %s says\n", n, sumsFile)
	}
	p := c.progress()
	_, err = photon.CheckWeights(files, func(done, total int64) { p.share("checking weights", done, total) })
	p.done()
	if err != nil {
		return invalid(err)
	}
	fmt.Fprintf(w, "weights    %s, all finite\n", count(info.Config.Parameters()))

	// The golden logits are those of the weights as stored, so the matrices are held in the one form that is exact for every file.
	model.weights = photon.F32
	m, err := model.load(ctx, c)
	if err != nil {
		return err
	}
	defer m.Close()
	if t := m.Tokenizer(); t != nil {
		fmt.Fprintf(w, "tokenizer  %s tokens for a vocabulary of %s\n", count(t.VocabSize()), count(info.Config.VocabSize))
	} else {
		fmt.Fprintln(w, "tokenizer  none: this model cannot read or write text")
	}
	g, err := readGolden(files, info.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintln(w, "logits     not checked: there is no golden.json (train/export.py writes it)")
		return nil
	case err != nil:
		return invalid(fmt.Errorf("golden.json: %w", err))
	}
	worst, err := g.compare(m)
	if err != nil {
		return invalid(err)
	}
	fmt.Fprintf(w, "logits     agree with golden.json to %.1e of the largest, on %s; %.1e is allowed\n", worst, m.Kernel(), g.Tolerance)
	return nil
}

// What golden.json may ask for: train/export.py writes 37 ids and a tolerance of 1e-4.
const (
	maxGoldenSize   = 1 << 20 // bytes
	maxGoldenIDs    = 1 << 10
	maxGoldenLogits = 1 << 26 // ids times vocabulary, which are computed at once
	maxTolerance    = 1e-2    // beyond it, wrong weights may pass
)

func readGolden(files fs.FS, cfg photon.Config) (*golden, error) {
	data, err := readRegular(files, "golden.json")
	if err != nil {
		return nil, err
	}
	g := &golden{}
	if err := json.Unmarshal(data, g); err != nil {
		return nil, fmt.Errorf("%w: %w", err, photon.ErrCorrupt)
	}
	within := func(ids []int, n int) bool {
		return len(ids) > 0 && slices.Min(ids) >= 0 && slices.Max(ids) < n
	}
	ok := within(g.IDs, cfg.VocabSize) && within(g.Rows, len(g.IDs)) && len(g.Indices) == len(g.Rows) && len(g.Values) == len(g.Rows) &&
		len(g.LogSumExp) == len(g.Rows)
	for i := 0; ok && i < len(g.Rows); i++ {
		ok = within(g.Indices[i], cfg.VocabSize) && len(g.Values[i]) == len(g.Indices[i])
	}
	if !ok {
		return nil, fmt.Errorf("its lists do not fit each other or config.json: write it again with train/export.py: %w", photon.ErrCorrupt)
	}
	switch n := len(g.IDs); {
	case n > maxGoldenIDs || n*cfg.VocabSize > maxGoldenLogits:
		return nil, fmt.Errorf("%d ids with a vocabulary of %d: want at most %d, and %d logits in all: %w",
			n, cfg.VocabSize, maxGoldenIDs, maxGoldenLogits, photon.ErrUnsupported)
	case !(g.Tolerance > 0 && g.Tolerance <= maxTolerance):
		return nil, fmt.Errorf("tolerance is %g, want it above 0 and at most %g: %w", g.Tolerance, maxTolerance, photon.ErrCorrupt)
	}
	return g, nil
}

// readRegular reads no more than golden.json or SHA256SUMS can have, from nothing but a file.
func readRegular(files fs.FS, name string) ([]byte, error) {
	f, err := openRegularFS(files, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxGoldenSize+1))
	if err == nil && len(data) > maxGoldenSize {
		err = fmt.Errorf("more than %d bytes: %w", maxGoldenSize, photon.ErrCorrupt)
	}
	return data, err
}

func openRegularFS(files fs.FS, name string) (fs.File, error) {
	info, err := fs.Stat(files, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file: %w", photon.ErrCorrupt)
	}
	return files.Open(name)
}

// sumsFile may stand beside a model, with the SHA-256 of its files as sha256sum writes them.
const sumsFile = "SHA256SUMS"

var errNoSums = errors.New("there is none")

// checkSums holds files against what SHA256SUMS says of them, and returns how many these are.
func checkSums(ctx context.Context, files fs.FS) (n int, err error) {
	list, err := readRegular(files, sumsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errNoSums
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(list)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		sum, name, ok := strings.Cut(line, " ")
		if name = strings.TrimLeft(name, " *"); !ok || len(sum) != 2*sha256.Size || !fs.ValidPath(name) {
			return 0, fmt.Errorf("line %d is not a SHA-256 and a name: write it with sha256sum: %w", n, photon.ErrCorrupt)
		}
		f, err := openRegularFS(files, name)
		if err != nil {
			return 0, fmt.Errorf("line %d: %s: %w", n, name, err)
		}
		h := sha256.New()
		_, err = io.Copy(h, untilDone{ctx, f})
		f.Close()
		if err != nil {
			return 0, fmt.Errorf("line %d: %s: %w", n, name, err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, sum) {
			return 0, fmt.Errorf("%s has the SHA-256 %s, want %s: the file is damaged or another, download it again: %w",
				name, got, sum, photon.ErrMismatch)
		}
	}
	if n == 0 {
		return 0, fmt.Errorf("it is empty: write it with sha256sum: %w", photon.ErrCorrupt)
	}
	return n, nil
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (r untilDone) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// compare computes the logits and returns the largest difference, as a share of the largest value.
func (g *golden) compare(m *photon.Model) (float64, error) {
	logits, err := m.Logits(context.Background(), g.IDs)
	if err != nil {
		return 0, err
	}
	vocab, largest, worst, where := m.Config().VocabSize, 0.0, 0.0, ""
	if m.Config().Flat() {
		logits = logits[vocab:] // row n of a flat model's golden.json is of the token after the first n+1
	}
	for _, values := range g.Values {
		for _, v := range values {
			largest = max(largest, math.Abs(v))
		}
	}
	check := func(got, want float64, format string, args ...any) {
		// A NaN is worse than any number, and stays.
		if d := math.Abs(got-want) / largest; !(d <= worst) && !math.IsNaN(worst) {
			worst, where = d, fmt.Sprintf(format, args...)+fmt.Sprintf(" is %g, want %g", got, want)
		}
	}
	for i, n := range g.Rows {
		row := logits[n*vocab:][:vocab]
		for j, id := range g.Indices[i] {
			check(float64(row[id]), g.Values[i][j], "logit %d of row %d", id, n)
		}
		check(logSumExp(row), g.LogSumExp[i], "the logsumexp of row %d", n)
	}
	if !(worst <= g.Tolerance) {
		return worst, fmt.Errorf("golden.json: %s, which differs by %.1e of the largest value where %.1e is allowed: weights and golden.json do not belong together, or a kernel (%s) is wrong: %w",
			where, worst, g.Tolerance, m.Kernel(), photon.ErrMismatch)
	}
	return worst, nil
}

func logSumExp(row []float32) float64 {
	best, sum := float64(slices.Max(row)), 0.0
	for _, v := range row {
		sum += math.Exp(float64(v) - best)
	}
	return best + math.Log(sum)
}
