package photon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/photon-lm/photon/internal/regular"
	"github.com/photon-lm/photon/internal/strictjson"
)

// A checkpoint is the table of contents of model.safetensors, or of the shards that the index file names. Its files are closed.
//
// Every tensor lies inside its file, the tensors cover the file exactly, and every I8 tensor has its scales.
type checkpoint struct {
	fsys    fs.FS
	most    int // tensors
	files   []weightFile
	tensors []storedTensor // by file, then by offset
	byName  map[string]int
	ctx     context.Context // ends the walks over the tensors; nil: never
}

type weightFile struct {
	name  string
	size  int64
	data  int64 // where the tensors begin
	first int   // its tensors are tensors[first : first+count]
	count int
}

// largest is the number of bytes of the file's largest tensor.
func (w *weightFile) largest(tensors []storedTensor) (most int64) {
	for _, t := range tensors[w.first:][:w.count] {
		if !t.ignored {
			most = max(most, t.end-t.begin)
		}
	}
	return most
}

// openCheckpoint reads and checks the headers of a model directory's weights, as far as they have no more than most
// tensors: an empty one takes more memory than its line of the header. It touches no data.
func openCheckpoint(fsys fs.FS, most int) (*checkpoint, error) {
	c := &checkpoint{fsys: fsys, most: min(most, maxTensors)}
	names := []string{weightsFile}
	var placed shardIndex
	if _, err := fs.Lstat(fsys, weightsFile); errors.Is(err, fs.ErrNotExist) {
		if placed, err = readIndex(fsys, c.most); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("photon: neither %s nor %s is in the model directory: %w", weightsFile, indexFile, fs.ErrNotExist)
		} else if err != nil {
			return nil, fmt.Errorf("photon: %s: %w", indexFile, err)
		}
		names = slices.Sorted(slices.Values(placed.shards))
	}
	for _, name := range names {
		if err := c.addFile(name); err != nil {
			return nil, fmt.Errorf("photon: %s: %w", name, err)
		}
	}
	if placed.of != nil {
		if err := c.checkPlaces(placed); err != nil {
			return nil, fmt.Errorf("photon: %s: %w", indexFile, err)
		}
	}
	return c, c.pairScales()
}

// addFile reads the header of one file.
func (c *checkpoint) addFile(name string) error {
	f, size, err := regular.Open(c.fsys, name, ErrCorrupt)
	if err != nil {
		return err
	}
	defer f.Close()
	header, err := readHeader(f, size)
	if err != nil {
		return err
	}
	file := weightFile{name: name, size: size, data: 8 + int64(len(header)), first: len(c.tensors)}
	tensors, err := parseHeader(header, len(c.tensors), c.most)
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	file.count = len(tensors)
	if err := file.place(tensors); err != nil {
		return err
	}
	switch room := cap(c.tensors) - len(c.tensors); {
	case c.byName == nil: // the first file's are copied to where they are, and are often all
		c.tensors, c.byName = tensors[:0], make(map[string]int, len(tensors))
	case room < len(tensors):
		c.tensors = slices.Grow(c.tensors, max(len(tensors), len(c.tensors)))
	}
	for _, t := range tensors {
		if other, twice := c.byName[t.name]; twice {
			return fmt.Errorf("tensor %.200q is also in %s: %w", t.name, c.files[c.tensors[other].file].name, ErrMismatch)
		}
		t.file = len(c.files)
		c.byName[t.name] = len(c.tensors)
		c.tensors = append(c.tensors, t)
	}
	c.files = append(c.files, file)
	return nil
}

// A shardIndex tells the shard of every tensor.
type shardIndex struct {
	shards []string
	of     map[string]int32 // of a tensor, which of them
}

const maxShards = 4096

func readIndex(fsys fs.FS, most int) (placed shardIndex, err error) {
	f, size, err := regular.Open(fsys, indexFile, ErrCorrupt)
	if err != nil {
		return placed, err
	}
	defer f.Close()
	if size > maxHeaderSize {
		return placed, fmt.Errorf("%d bytes, more than %d: %w", size, maxHeaderSize, ErrCorrupt)
	}
	data, err := regular.Append(f, regular.Room(f, size, size), size)
	if err != nil {
		return placed, regular.Truncated(err, ErrCorrupt, "ends after %d of %d bytes", len(data), size)
	}
	if err := checkLFSPointer(data); err != nil {
		return placed, err
	}
	r, err := strictjson.New(data, ErrCorrupt)
	if err != nil {
		return placed, err
	}
	numbers := map[string]int32{} // of shards
	err = r.Fields(strictjson.Need("weight_map", func() error {
		placed.of = make(map[string]int32, min(r.Room(len(`"abc":"1"`)), most))
		return r.Table(func(tensor string) (isNew bool, err error) {
			before := len(placed.of)
			shard, err := r.Text()
			if err != nil {
				return false, fmt.Errorf("tensor %.200q: %w", tensor, err)
			}
			if !isFileName(shard) {
				return false, fmt.Errorf("tensor %.200q: shard %.200q is no file of this directory: %w", tensor, shard,
					ErrCorrupt)
			}
			n, known := numbers[shard]
			if !known {
				if n = int32(len(numbers)); n == maxShards {
					return false, fmt.Errorf("more than %d shards: %w", maxShards, ErrUnsupported)
				}
				numbers[shard], placed.shards = n, append(placed.shards, shard)
			}
			placed.of[tensor] = n
			if len(placed.of) > most {
				return false, tooManyTensors(most)
			}
			return len(placed.of) > before, nil
		})
	}))
	if err == nil {
		err = r.End()
	}
	if err == nil && len(placed.of) == 0 {
		err = fmt.Errorf("weight_map is empty: %w", ErrCorrupt)
	}
	return placed, err
}

func tooManyTensors(most int) error {
	if most < maxTensors {
		return fmt.Errorf("more tensors than config.json asks for: the files are of different models: %w", ErrMismatch)
	}
	return fmt.Errorf("more than %d tensors: %w", maxTensors, ErrUnsupported)
}

// checkPlaces holds the shards against the index: every tensor in the shard named, and no other.
func (c *checkpoint) checkPlaces(placed shardIndex) error {
	for i := range c.tensors {
		t := &c.tensors[i]
		file, indexed := c.files[t.file].name, ""
		if n, ok := placed.of[t.name]; ok {
			indexed = placed.shards[n]
		}
		if indexed != file {
			return fmt.Errorf("tensor %.200q is in %s, the index names %q: %w", t.name, file, indexed, ErrMismatch)
		}
	}
	if len(placed.of) == len(c.tensors) {
		return nil
	}
	missing, first := 0, ""
	for name := range placed.of {
		if _, ok := c.byName[name]; !ok {
			if missing++; missing == 1 || name < first {
				first = name
			}
		}
	}
	return fmt.Errorf("tensor %.200q is not in %s, which the index names (%d such tensors): %w", first,
		placed.shards[placed.of[first]], missing, ErrMismatch)
}

// pairScales finds the scales of every tensor of integers.
func (c *checkpoint) pairScales() error {
	for i := range c.tensors {
		t := &c.tensors[i]
		if !t.dtype.scaled() {
			continue
		}
		fail := func(format string, args ...any) error {
			return fmt.Errorf("photon: %s: tensor %.200q: %s: %w", c.files[t.file].name, t.name, fmt.Sprintf(format, args...), ErrMismatch)
		}
		if len(t.shape) != 2 {
			return fail("%v with shape %v, want [out in]", t.dtype, t.shape)
		}
		j, ok := c.byName[t.name+scalesSuffix]
		if !ok {
			return fail("%v without %s%s", t.dtype, t.name, scalesSuffix)
		}
		s := &c.tensors[j]
		want := []int{t.shape[0], (t.shape[1] + scaleGroup - 1) / scaleGroup}
		if t.dtype == dtypeI4 {
			if want[1] = t.shape[1] / (scaleGroup / 2); t.shape[1]%(scaleGroup/2) != 0 {
				return fail("U8 with rows of %d, want whole groups of %d bytes", t.shape[1], scaleGroup/2)
			}
		}
		if s.dtype.scaled() || !slices.Equal(s.shape, want) {
			return fail("its scales are %v %v, want F32, F16 or BF16 %v", s.dtype, s.shape, want)
		}
		t.partner, s.partner = j, i
	}
	return nil
}

// match holds the checkpoint against what the config wants: the same names, the same shapes, nothing missing and nothing else.
// After it, each leaves out what a Hugging Face directory may hold beside the weights.
//
// copies are tensors that may be there, with the shape of those that they are copies of.
func (c *checkpoint) match(specs iter.Seq[tensorSpec], copies map[string]string) error {
	fail := func(format string, args ...any) error {
		where := weightsFile
		if len(c.files) > 1 {
			where = indexFile
		}
		return fmt.Errorf("photon: %s: %s: %w", where, fmt.Sprintf(format, args...), ErrMismatch)
	}
	wanted := make([]bool, len(c.tensors))
	for spec := range specs {
		i, ok := c.byName[spec.name]
		if !ok {
			return fail("tensor %q is missing; config.json wants it with shape %v", spec.name, spec.shape)
		}
		if t := &c.tensors[i]; !t.fits(spec.shape) {
			return fail("tensor %q has shape %v, config.json wants %v", spec.name, t.shape, spec.shape)
		}
		wanted[i] = true
	}
	for i := range c.tensors {
		t := &c.tensors[i]
		switch {
		case wanted[i] || t.ignored || t.isScales() && (wanted[t.partner] || copies[c.tensors[t.partner].name] != ""):
		case copies[t.name] != "" && t.fits(c.tensors[c.byName[copies[t.name]]].shape):
		case strings.HasPrefix(t.name, "model.") && strings.HasSuffix(t.name, ".rotary_emb.inv_freq"):
			t.ignored = true // follows from rope_theta
		default:
			return fail("tensor %.200q is not one that config.json asks for", t.name)
		}
	}
	return nil
}

// bytes is the number of bytes that each will read.
func (c *checkpoint) bytes() int64 {
	var n int64
	for i := range c.tensors {
		if t := &c.tensors[i]; !t.ignored {
			n += t.end - t.begin
		}
	}
	return n
}

// dtypeOf returns how a tensor is stored.
func (c *checkpoint) dtypeOf(name string) (dtype, bool) {
	i, ok := c.byName[name]
	if !ok {
		return 0, false
	}
	return c.tensors[i].dtype, true
}

// each reads all tensors in the order of the files, from front to back, and hands them to f one at a time, each I8 tensor together
// with its scales. It needs no seeking, and allocates no more than the bytes that have been read. In a file that cannot seek
// (a compressed one), whichever of an I8 tensor and its scales comes first is held back until the other is read.
func (c *checkpoint) each(f func(t tensorData) error) error {
	e := &tensorReader{checkpoint: c, held: map[int][]byte{}}
	for i := range c.files {
		if err := e.file(&c.files[i], f); err != nil {
			return err
		}
	}
	return nil
}

// A tensorReader is one walk over a checkpoint.
type tensorReader struct {
	*checkpoint
	buf    []byte // the tensor at hand
	aside  []byte // its partner, where the file can seek
	scales []float32
	held   map[int][]byte // by index
}

func (e *tensorReader) file(w *weightFile, f func(t tensorData) error) error {
	where := func(err error) error { return fmt.Errorf("photon: %s: %w", w.name, err) }
	file, size, err := regular.Open(e.fsys, w.name, ErrCorrupt)
	if err != nil {
		return where(err)
	}
	defer file.Close()
	if size != w.size {
		return where(fmt.Errorf("had %d bytes when it was opened, has %d now: load it again: %w", w.size, size, ErrCorrupt))
	}
	src := &source{r: file, ctx: e.ctx}
	src.at, _ = file.(io.ReaderAt)
	if largest := w.largest(e.tensors); regular.Reaches(file, w.size) && int64(cap(e.buf)) < largest {
		e.buf = make([]byte, 0, largest)
	}

	for i := w.first; i < w.first+w.count; i++ {
		t := &e.tensors[i]
		here := t.partner >= w.first && t.partner < w.first+w.count && src.at != nil // its partner can be read at any time
		if t.ignored || t.isScales() && here {
			continue
		}
		if e.buf, err = src.read(e.buf[:0], t); err != nil {
			return where(err)
		}
		if t.interleaved > 0 {
			e.aside = t.deinterleave(e.aside, e.buf)
		}
		if t.partner < 0 {
			if err := f(tensorData{name: t.name, dtype: t.dtype, shape: t.shape, data: e.buf, stored: int64(len(e.buf))}); err != nil {
				return err
			}
			continue
		}
		partner, ok := e.held[t.partner]
		if here {
			e.aside, err = src.read(e.aside[:0], &e.tensors[t.partner])
			if err != nil {
				return where(err)
			}
			partner, ok = e.aside, true
		}
		if !ok {
			e.held[i] = slices.Clone(e.buf)
			continue
		}
		delete(e.held, t.partner)
		data := e.int8Data(i, e.buf, partner)
		if err := data.checkInt8(); err != nil {
			return where(err)
		}
		if err := f(data); err != nil {
			return err
		}
	}
	if err := src.finish(w); err != nil {
		return where(err)
	}
	return nil
}

// deinterleave puts the rows of data in the order of the arithmetic, by way of scratch, which it returns: of each head,
// the even ones first.
func (t *storedTensor) deinterleave(scratch, data []byte) []byte {
	row := len(data) / t.shape[0]
	scratch = grow(scratch, row*t.interleaved)
	for ; len(data) > 0; data = data[len(scratch):] {
		for r := range t.interleaved {
			copy(scratch[(r/2+r%2*t.interleaved/2)*row:][:row], data[r*row:])
		}
		copy(data, scratch)
	}
	return scratch
}

// int8Data joins an I8 tensor and its scales; i is the index of either.
func (e *tensorReader) int8Data(i int, data, partner []byte) tensorData {
	t := &e.tensors[i]
	if t.isScales() {
		t, data, partner = &e.tensors[t.partner], partner, data
	}
	s := &e.tensors[t.partner]
	n := s.shape[0] * s.shape[1]
	e.scales = slices.Grow(e.scales[:0], n)[:n]
	tensorData{dtype: s.dtype, shape: s.shape, data: partner}.float32s(e.scales, 0, n)
	return tensorData{name: t.name, dtype: t.dtype, shape: t.shape, data: data, scales: e.scales, stored: int64(len(data) + len(partner))}
}

// A source reads pieces of a file, in any order if it has ReadAt, otherwise from front to back.
type source struct {
	r   io.Reader
	at  io.ReaderAt
	pos int64 // of r
	ctx context.Context
}

func (s *source) read(buf []byte, t *storedTensor) ([]byte, error) {
	var r io.Reader
	if s.at != nil {
		r = io.NewSectionReader(s.at, t.begin, t.end-t.begin)
	} else {
		skipped, err := io.CopyN(io.Discard, s.r, t.begin-s.pos)
		if s.pos += skipped; err != nil {
			return buf, regular.Truncated(err, ErrCorrupt, "tensor %.200q: ends at byte %d", t.name, s.pos)
		}
		r = s.r
	}
	if s.ctx != nil {
		r = contextReader{s.ctx, r}
	}
	buf, err := regular.Append(r, buf, t.end-t.begin)
	if s.at == nil {
		s.pos += int64(len(buf))
	}
	if err != nil {
		return buf, regular.Truncated(err, ErrCorrupt, "tensor %.200q: ends after %d of %d bytes", t.name, len(buf),
			t.end-t.begin)
	}
	return buf, nil
}

// finish reads a sequential file to its end: only there does a compressed one prove its checksum.
func (s *source) finish(w *weightFile) error {
	if s.at != nil {
		return nil
	}
	n, err := io.Copy(io.Discard, io.LimitReader(s.r, w.size-s.pos+1))
	if err != nil {
		return fmt.Errorf("byte %d: %w", s.pos+n, err)
	}
	if s.pos+n != w.size {
		return fmt.Errorf("%d bytes or more, its directory says %d: %w", s.pos+n, w.size, ErrCorrupt)
	}
	return nil
}
