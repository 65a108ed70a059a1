package photon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// WriteRandom makes dir a model directory of random weights: model.safetensors in dtype "BF16" or "F32", and
// config.json; no tokenizer. The same cfg, seed and dtype give the same bytes on every machine. Weights are normal
// with deviation 0.02, those that write to the residual stream less by the square root of twice their stack's layers;
// norms are 1, biases 0.
//
// It takes constant memory, and replaces no model: where dir has one, the error matches fs.ErrExist. A bad cfg or dtype
// matches ErrInvalid. It may be called from several goroutines, for different directories.
func WriteRandom(dir string, cfg Config, seed uint64, dtype string) error {
	return WriteRandomContext(context.Background(), dir, cfg, seed, dtype)
}

// WriteRandomContext is WriteRandom until ctx ends: then it returns the context's error within a few milliseconds,
// and leaves behind neither a file nor a directory that it made.
func WriteRandomContext(ctx context.Context, dir string, cfg Config, seed uint64, dtype string) error {
	as := dtypeBF16
	switch dtype {
	case "BF16":
	case "F32":
		as = dtypeF32
	default:
		return fmt.Errorf("photon: dtype %.40q, want BF16 or F32: %w", dtype, ErrInvalid)
	}
	if err := cfg.validateGiven(); err != nil {
		return err
	}
	if err := ended(ctx); err != nil {
		return err
	}
	configJSON, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return fmt.Errorf("photon: config: %w", err)
	}
	if dir == "" {
		return fmt.Errorf("photon: the directory's name is empty: give one, such as model: %w", ErrInvalid)
	}
	for _, name := range []string{configFile, weightsFile, indexFile} {
		_, err := os.Lstat(filepath.Join(dir, name))
		if err == nil {
			return fmt.Errorf("photon: %s holds a model, its %s: choose another directory: %w", dir, name, fs.ErrExist)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("photon: %w", err)
		}
	}
	if err := writeWeights(ctx, dir, func(w io.Writer) error { return writeRandomTensors(w, cfg, seed, as) }); err != nil {
		return err
	}
	// The config comes last: without it the directory is no model yet.
	return writeFile(filepath.Join(dir, configFile), func(w io.Writer) error {
		_, err := w.Write(append(configJSON, '\n'))
		return err
	})
}

func writeRandomTensors(w io.Writer, cfg Config, seed uint64, as dtype) error {
	specs := slices.Collect(cfg.tensors())
	if _, err := w.Write(safetensorsHeader(specs, as)); err != nil {
		return err
	}
	normal := normalQuantiles()
	encoded := make([]byte, len(normal)*as.size()) // what the stream's 16-bit draws stand for
	buf := make([]byte, 0, 1<<16)
	for i, spec := range specs {
		mean, deviation := cfg.initial(spec.name)
		for q, x := range normal {
			as.put(encoded[q*as.size():], mean+float32(deviation*x))
		}
		// Every tensor has a stream of its own.
		stream := rand.NewPCG(seed, uint64(i))
		for left := spec.elements(); left > 0; {
			buf = buf[:0]
			for ; left > 0 && len(buf)+4*as.size() <= cap(buf); left -= min(left, 4) {
				bits := stream.Uint64()
				for range min(left, 4) {
					at := int(uint16(bits)) * as.size()
					buf = append(buf, encoded[at:at+as.size()]...)
					bits >>= 16
				}
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// normalQuantiles cuts the standard normal distribution into 65,536 equally likely pieces and returns the middle of
// each. They are rounded to multiples of 2^-20, so that no machine's floating point shows.
func normalQuantiles() []float32 {
	q := make([]float32, 1<<16)
	for i := range q {
		x := math.Sqrt2 * math.Erfinv(float64(2*i+1)/float64(len(q))-1)
		q[i] = float32(math.Round(x*(1<<20)) / (1 << 20))
	}
	return q
}

// initial is the mean and the deviation of a tensor's elements before training.
func (c Config) initial(tensor string) (mean, deviation float32) {
	switch {
	case strings.HasSuffix(tensor, "norm.weight"):
		return 1, 0
	case strings.HasSuffix(tensor, ".bias"):
		return 0, 0
	case strings.HasSuffix(tensor, ".o_proj.weight"), strings.HasSuffix(tensor, ".down_proj.weight"):
		return 0, float32(0.02 / math.Sqrt(2*float64(c.stackOf(tensor).Layers)))
	}
	return 0, 0.02
}

// stackOf returns the stack that a layer's tensor is part of.
func (c Config) stackOf(tensor string) StackConfig {
	if c.Flat() {
		return c.Transformer
	}
	if strings.HasPrefix(tensor, "token_encoder.") {
		return *c.TokenEncoder
	}
	parts := strings.SplitN(tensor, ".", 4) // levels, number, encoder or decoder
	level, _ := strconv.Atoi(parts[1])
	if parts[2] == "encoder" {
		return c.Levels[level].Encoder
	}
	return c.Levels[level].Decoder
}

// put writes one value, rounded to nearest.
func (d dtype) put(dst []byte, x float32) {
	switch d {
	case dtypeF32:
		binary.LittleEndian.PutUint32(dst, math.Float32bits(x))
	case dtypeF16:
		binary.LittleEndian.PutUint16(dst, f32ToF16(x))
	case dtypeBF16:
		binary.LittleEndian.PutUint16(dst, f32ToBF16(x))
	}
}

// Quantize writes the model in files to the directory dir, which it makes if need be, with its matrices in the int8 or
// the int4 form of docs/formats.md; form is Int8 or Int4. Vectors stay as they are stored, and with Int4 the embedding
// tables take the int8 form. config.json, the tokenizer and the chat template are copied, and generation_config.json
// says that the weights are best held in this form. A directory that has anything in it matches fs.ErrExist, for the
// files of two models would mix. When ctx ends, nothing is left of the weights, and its error is returned. A GGUF file
// matches ErrUnsupported: its own tools quantize it. Another form, or no files, matches ErrInvalid; other errors are
// those of Load. It may be called from several goroutines, for different directories.
func Quantize(ctx context.Context, dir string, files fs.FS, form WeightType) error {
	if form != Int8 && form != Int4 {
		return fmt.Errorf("photon: Quantize to %v: give Int8 or Int4: %w", form, ErrInvalid)
	}
	if files == nil {
		return fmt.Errorf("photon: the file system is nil: %w", ErrInvalid)
	}
	if err := ended(ctx); err != nil {
		return err
	}
	config, err := readSmall(files, configFile, maxConfigSize)
	if errors.Is(err, fs.ErrNotExist) {
		if name, _ := findGGUF(files); name != "" {
			return fmt.Errorf("photon: %s: a GGUF file is quantized with llama-quantize: %w", name, ErrUnsupported)
		}
	}
	if err != nil {
		return err
	}
	c, err := openContents(files)
	if err != nil {
		return err
	}
	if there, err := os.ReadDir(dir); len(there) > 0 {
		return fmt.Errorf("photon: %s is not empty, it holds %s: choose another directory, or remove it: %w", dir,
			there[0].Name(), fs.ErrExist)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("photon: %w", err)
	}
	q := &quantizer{weights: c.weights, form: form, copies: c.info.Config.copies()}
	c.weights.ctx = ctx
	if err := writeWeights(ctx, dir, q.write); err != nil {
		return err
	}
	generation, err := recommend(files, form)
	if err != nil {
		return err
	}
	copied := map[string][]byte{configFile: config, generationFile: generation}
	for _, name := range []string{tokenizerFileName, "tokenizer_config.json", templateFile} {
		data, err := readSmall(files, name, maxTokenizerSize)
		if err == nil {
			copied[name] = data
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for name, data := range copied {
		err := writeFile(filepath.Join(dir, name), func(w io.Writer) error { _, err := w.Write(data); return err })
		if err != nil {
			return err
		}
	}
	return nil
}

// writeWeights makes dir and those above it, if need be, and in it the file of weights, until ctx ends. Where that
// fails, none is left.
func writeWeights(ctx context.Context, dir string, write func(io.Writer) error) (err error) {
	var made []string
	for d := filepath.Clean(dir); d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Lstat(d); err == nil {
			break
		}
		made = append(made, d)
	}
	defer func() {
		for i := 0; err != nil && i < len(made); i++ {
			os.Remove(made[i]) // stays where someone else has put something there
		}
	}()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("photon: %w", err)
	}
	return writeFile(filepath.Join(dir, weightsFile), func(w io.Writer) error { return write(contextWriter{ctx, w}) })
}

// recommend is generation_config.json with photon_weights.
func recommend(files fs.FS, form WeightType) ([]byte, error) {
	keys := map[string]json.RawMessage{}
	data, err := readSmall(files, generationFile, maxConfigSize)
	if err == nil {
		if err := json.Unmarshal(data, &keys); err != nil {
			return nil, fmt.Errorf("photon: %s: %w: %w", generationFile, err, ErrCorrupt)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	keys["photon_weights"], _ = json.Marshal(form.String())
	return json.MarshalIndent(keys, "", " ")
}

// A quantizer writes tensors in the order in which they are read.
type quantizer struct {
	weights *checkpoint
	form    WeightType
	copies  map[string]string
	order   []quantizedTensor
	row     []float32
	out     []byte
}

// quantizedTensor is what a tensor becomes.
type quantizedTensor struct {
	name  string
	form  WeightType // Int8, Int4, or AsStored
	dtype dtype      // as stored
	shape []int
}

func (t *quantizedTensor) rows() (rows, groups int) {
	return t.shape[0], (t.shape[1] + groupSize - 1) / groupSize
}

func (q *quantizer) write(w io.Writer) error {
	for i := range q.weights.tensors {
		t := &q.weights.tensors[i]
		if t.ignored || t.isScales() || q.copies[t.name] != "" || q.copies[strings.TrimSuffix(t.name, scalesSuffix)] != "" {
			continue
		}
		to := quantizedTensor{t.name, AsStored, t.dtype, t.shape}
		if len(t.shape) == 2 {
			to.form = q.form
			if strings.HasSuffix(t.name, "embed_tokens.weight") {
				to.form = Int8
			}
		}
		q.order = append(q.order, to)
	}
	if _, err := w.Write(q.header()); err != nil {
		return err
	}
	n := 0
	return q.weights.each(func(t tensorData) error {
		if q.copies[t.name] != "" {
			return nil
		}
		if q.order[n].name != t.name {
			return fmt.Errorf("the tensors come in another order than the file's, as from a compressed one: unpack it: %w",
				ErrUnsupported)
		}
		n++
		_, err := w.Write(q.quantize(&q.order[n-1], t))
		return err
	})
}

// header is that of the tensors, the scales of each matrix ahead of its integers.
func (q *quantizer) header() []byte {
	var h headerWriter
	for i := range q.order {
		t := &q.order[i]
		if t.form == AsStored {
			h.add(t.dtype, t.name, t.shape...)
			continue
		}
		rows, groups := t.rows()
		h.add(dtypeBF16, t.name+scalesSuffix, rows, groups)
		if t.form == Int8 {
			h.add(dtypeI8, t.name, t.shape...)
		} else {
			h.add(dtypeI4, t.name, rows, groups*groupSize/2)
		}
	}
	return h.finish()
}

// quantize returns the bytes of a tensor, those of its scales first.
func (q *quantizer) quantize(to *quantizedTensor, t tensorData) []byte {
	if to.form == AsStored {
		return t.data
	}
	rows, groups := to.rows()
	in := to.shape[1]
	q.row = grow(q.row, in)
	scales, integers := make([]byte, 0, 2*rows*groups), q.out[:0]
	var group [groupSize]int8
	for r := range rows {
		t.float32s(q.row, r*in, in)
		for g := range groups {
			values := q.row[g*groupSize : min((g+1)*groupSize, in)]
			if to.form == Int4 {
				scales = binary.LittleEndian.AppendUint16(scales, quantizeInt4(&group, values))
				for k := range groupSize / 2 {
					integers = append(integers, nibbles(&group, k))
				}
				continue
			}
			scales = binary.LittleEndian.AppendUint16(scales, quantizeInt8(&group, values))
			for k := range values {
				integers = append(integers, byte(group[k]))
			}
		}
	}
	q.out = integers
	return append(scales, integers...)
}

// writeFile writes beside the file and renames, so that the name never stands for half of it.
func writeFile(name string, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return fmt.Errorf("photon: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			if !strings.HasPrefix(err.Error(), "photon: ") { // as one of the model that is read does
				err = fmt.Errorf("photon: %s: %w", name, err)
			}
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// safetensorsHeader is what stands before the data of these tensors, all of one dtype.
func safetensorsHeader(specs []tensorSpec, as dtype) []byte {
	var h headerWriter
	for _, spec := range specs {
		h.add(as, spec.name, spec.shape...)
	}
	return h.finish()
}

// headerWriter writes the header of a safetensors file, tensor by tensor in the order of their data.
type headerWriter struct {
	b  bytes.Buffer
	at int64
}

func (h *headerWriter) add(as dtype, name string, shape ...int) {
	end := h.at + tensorSpec{name, shape}.elements()*int64(as.size())
	list := strings.ReplaceAll(strings.Trim(fmt.Sprint(shape), "[]"), " ", ",")
	fmt.Fprintf(&h.b, `,%q:{"dtype":%q,"shape":[%s],"data_offsets":[%d,%d]}`, name, as, list, h.at, end)
	h.at = end
}

func (h *headerWriter) finish() []byte {
	text := append([]byte(`{"__metadata__":{"format":"pt"}`), h.b.Bytes()...)
	text = append(text, '}')
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
}
