package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/internal/regular"
	"github.com/photon-lm/photon/internal/strictjson"
)

// golden is golden.json: logits of a text, as a separate implementation computed them in float64 from the weights as
// stored.
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
	fmt.Fprintf(w, "files      %s bytes of weights in %d tensors, all that config.json asks for\n",
		count(info.WeightBytes), info.Tensors)
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

	// The golden logits are those of the weights as stored, so the matrices are held in the one form that is exact for
	// every file.
	model.weights = photon.F32
	m, err := model.load(ctx, c)
	if err != nil {
		return err
	}
	defer m.Close()
	if t := m.Tokenizer(); t != nil {
		fmt.Fprintf(w, "tokenizer  %s tokens for a vocabulary of %s\n",
			count(t.VocabSize()), count(info.Config.VocabSize))
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
	worst, err := g.compare(ctx, m)
	if err != nil {
		return invalid(err)
	}
	fmt.Fprintf(w, "logits     agree with golden.json to %.1e of the largest, on %s; %.1e is allowed\n",
		worst, m.Kernel(), g.Tolerance)
	return nil
}

// What golden.json may ask for: train/export.py writes 37 ids and a tolerance of 1e-4.
const (
	maxGoldenIDs    = 1 << 10 // and rows
	maxGoldenLogits = 1 << 26 // ids times vocabulary, which are computed at once
	maxTolerance    = 1e-2    // beyond it, wrong weights may pass
)

func readGolden(files fs.FS, cfg photon.Config) (*golden, error) {
	data, err := readSmall(files, "golden.json")
	if err != nil {
		return nil, err
	}
	g := &golden{}
	if err := g.read(data); err != nil {
		return nil, err
	}
	within := func(ids []int, n int) bool {
		return len(ids) > 0 && slices.Min(ids) >= 0 && slices.Max(ids) < n
	}
	ok := within(g.IDs, cfg.VocabSize) && within(g.Rows, len(g.IDs)) && len(g.Indices) == len(g.Rows) &&
		len(g.Values) == len(g.Rows) && len(g.LogSumExp) == len(g.Rows)
	for i := 0; ok && i < len(g.Rows); i++ {
		ok = within(g.Indices[i], cfg.VocabSize) && len(g.Values[i]) == len(g.Indices[i])
	}
	if !ok {
		return nil, fmt.Errorf("its lists do not fit each other or config.json: write it again with "+
			"train/export.py: %w", photon.ErrCorrupt)
	}
	switch n := len(g.IDs); {
	case int64(n)*int64(cfg.VocabSize) > maxGoldenLogits:
		return nil, fmt.Errorf("%d ids with a vocabulary of %d: want at most %d logits in all, give fewer ids: %w",
			n, cfg.VocabSize, maxGoldenLogits, photon.ErrUnsupported)
	case !(g.Tolerance > 0 && g.Tolerance <= maxTolerance):
		return nil, fmt.Errorf("tolerance is %g, want it above 0 and at most %g: %w",
			g.Tolerance, maxTolerance, photon.ErrCorrupt)
	}
	return g, nil
}

// read reads the text of golden.json.
func (g *golden) read(data []byte) error {
	r, err := strictjson.New(data, photon.ErrCorrupt)
	if err != nil {
		return err
	}
	integer := func() (int, error) {
		n, err := r.Integer()
		if err == nil && (n < 0 || n > math.MaxInt32) {
			err = r.Errorf("%d, want 0 to %d", n, math.MaxInt32)
		}
		return int(n), err
	}
	// A row's lists are bounded by the size of the file alone; there can be a logit for each token.
	ids, numbers := listOf(r, maxGoldenIDs, integer), listOf(r, maxGoldenIDs, r.Float)
	indices, values := listOf(r, maxSmall, integer), listOf(r, maxSmall, r.Float)
	if err := r.Fields(
		strictjson.Need("ids", strictjson.Into(&g.IDs, ids)),
		strictjson.Need("rows", strictjson.Into(&g.Rows, ids)),
		strictjson.Need("indices", strictjson.Into(&g.Indices, listOf(r, maxGoldenIDs, indices))),
		strictjson.Need("values", strictjson.Into(&g.Values, listOf(r, maxGoldenIDs, values))),
		strictjson.Need("logsumexp", strictjson.Into(&g.LogSumExp, numbers)),
		strictjson.Need("tolerance", strictjson.Into(&g.Tolerance, r.Float)),
	); err != nil {
		return err
	}
	return r.End()
}

// listOf reads a list of no more than most items.
func listOf[T any](r *strictjson.Reader, most int, item func() (T, error)) func() ([]T, error) {
	return func() ([]T, error) {
		n := r.Len()
		if n > most {
			return nil, fmt.Errorf("a list of %d, want at most %d: %w", n, most, photon.ErrUnsupported)
		}
		list := make([]T, 0, n)
		err := r.Array(func(int) error {
			value, err := item()
			list = append(list, value)
			return err
		})
		return list, err
	}
}

// sumsFile may stand beside a model, with the SHA-256 of its files as sha256sum writes them.
const sumsFile = "SHA256SUMS"

var errNoSums = errors.New("there is none")

// checkSums holds files against what SHA256SUMS says of them, and returns how many these are.
func checkSums(ctx context.Context, files fs.FS) (n int, err error) {
	list, err := readSmall(files, sumsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errNoSums
	}
	if err != nil {
		return 0, err
	}
	lines := map[string]int{} // of each file: named many times, it would be as much work each time
	for line := range strings.Lines(string(list)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		text, name, _ := strings.Cut(line, " ")
		sum, err := hex.DecodeString(text)
		if name = strings.TrimLeft(name, " *"); err != nil || len(sum) != sha256.Size || !fs.ValidPath(name) {
			return 0, fmt.Errorf("line %d is not a SHA-256 and a name: write it with sha256sum: %w",
				n, photon.ErrCorrupt)
		}
		if before := lines[name]; before > 0 {
			return 0, fmt.Errorf("line %d: %.200q is already in line %d: name each file once: %w",
				n, name, before, photon.ErrCorrupt)
		}
		lines[name] = n
		got, err := hashFile(ctx, files, name)
		if err != nil {
			return 0, fmt.Errorf("line %d: %.200q: %w", n, name, cause(err))
		}
		if !bytes.Equal(got, sum) {
			return 0, fmt.Errorf("%.200q has the SHA-256 %x, want %x: the file is damaged or another, "+
				"download it again: %w", name, got, sum, photon.ErrMismatch)
		}
	}
	if n == 0 {
		return 0, fmt.Errorf("it is empty: write it with sha256sum: %w", photon.ErrCorrupt)
	}
	return n, nil
}

func hashFile(ctx context.Context, files fs.FS, name string) ([]byte, error) {
	f, _, err := regular.Open(files, name, photon.ErrCorrupt)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, untilDone{ctx, f})
	return h.Sum(nil), err
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
func (g *golden) compare(ctx context.Context, m *photon.Model) (float64, error) {
	logits, err := m.Logits(ctx, g.IDs)
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
		return worst, fmt.Errorf("golden.json: %s, which differs by %.1e of the largest value where %.1e is allowed: "+
			"weights and golden.json do not belong together, or a kernel (%s) is wrong: %w",
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
