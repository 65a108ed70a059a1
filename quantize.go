package photon

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Quantize writes the model in files to the directory dir, which it makes if need be, with its matrices in the int8 or
// the int4 form of docs/formats.md; form is Int8 or Int4. Vectors stay as they are stored, and with Int4 the embedding
// tables take the int8 form. config.json, the tokenizer and the chat template are copied, and generation_config.json
// says that the weights are best held in this form. A file that is there is replaced. When ctx ends, nothing is left of
// the weights, and its error is returned. A GGUF file matches ErrUnsupported: its own tools quantize it.
func Quantize(ctx context.Context, dir string, files fs.FS, form WeightType) error {
	if form != Int8 && form != Int4 {
		return fmt.Errorf("photon: Quantize to %v: give Int8 or Int4: %w", form, ErrInvalid)
	}
	if files == nil {
		return fmt.Errorf("photon: the file system is nil: %w", ErrInvalid)
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
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("photon: %w", err)
	}
	q := &quantizer{weights: c.weights, form: form, copies: c.info.Config.copies()}
	c.weights.ctx = ctx
	if err := writeFile(filepath.Join(dir, weightsFile), func(w io.Writer) error {
		return q.write(contextWriter{ctx,
			w})
	}); err != nil {
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
