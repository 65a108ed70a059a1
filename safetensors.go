package photon

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/photon-lm/photon/internal/regular"
	"github.com/photon-lm/photon/internal/strictjson"
)

const (
	weightsFile   = "model.safetensors"
	indexFile     = "model.safetensors.index.json"
	maxHeaderSize = 16 << 20
	maxRank       = 8
	scalesSuffix  = ".scales"
	scaleGroup    = 32 // inputs that share a scale
)

type dtype uint8

const (
	dtypeF32 dtype = iota
	dtypeF16
	dtypeBF16
	dtypeI8
	dtypeI4   // U8 in the file: two to a byte
	dtypeQ8x0 // of GGUF, as what follows; blocks of 32: a scale, float16, and 32 integers
	dtypeQ4x0 // blocks of 32: a scale, float16, and 16 bytes, the second half of the numbers in their high halves
	dtypeQ6K  // blocks of 256: the low 4 bits, the high 2, 16 int8 scales, and a float16 that scales those
)

var dtypes = [...]struct {
	name        string
	block, size int // elements and bytes
}{dtypeF32: {"F32", 1, 4}, dtypeF16: {"F16", 1, 2}, dtypeBF16: {"BF16", 1, 2}, dtypeI8: {"I8", 1, 1},
	dtypeI4:   {"U8", 1, 1},
	dtypeQ8x0: {"Q8_0", 32, 34}, dtypeQ4x0: {"Q4_0", 32, 18}, dtypeQ6K: {"Q6_K", 256, 210}}

func (d dtype) String() string { return dtypes[d].name }
func (d dtype) block() int     { return dtypes[d].block }
func (d dtype) size() int      { return dtypes[d].size }

// tensorData is one tensor's values as stored, row-major. It is valid until the callback that got it returns.
type tensorData struct {
	name   string
	dtype  dtype
	shape  []int
	data   []byte
	scales []float32 // I8, I4: [out × ceil(in/32)], one for 32 neighbours along in; nil for other dtypes
	stored int64     // bytes in the file, scales included
}

// float32s writes elements first … first+n-1 to dst, exactly; an I8 value is its integer times its scale.
func (t tensorData) float32s(dst []float32, first, n int) {
	dst = dst[:n]
	switch t.dtype {
	case dtypeF32:
		data := t.data[4*first:][:4*n]
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
	case dtypeF16:
		data := t.data[2*first:][:2*n]
		for i := range dst {
			dst[i] = f16ToF32(binary.LittleEndian.Uint16(data[2*i:]))
		}
	case dtypeBF16:
		data := t.data[2*first:][:2*n]
		for i := range dst {
			dst[i] = bf16ToF32(binary.LittleEndian.Uint16(data[2*i:]))
		}
	case dtypeI8:
		data := t.data[first:][:n]
		in := t.shape[1]
		groups := (in + scaleGroup - 1) / scaleGroup
		for i := 0; i < n; { // group by group
			row, column := (first+i)/in, (first+i)%in
			scale := t.scales[row*groups+column/scaleGroup]
			end := min(n, i+scaleGroup-column%scaleGroup, i+in-column)
			for ; i < end; i++ {
				dst[i] = float32(int8(data[i])) * scale
			}
		}
	case dtypeI4:
		in := t.shape[1]
		groups := (in + scaleGroup - 1) / scaleGroup
		for i := range dst {
			row, column := (first+i)/in, (first+i)%in
			group, at := row*groups+column/scaleGroup, column%scaleGroup
			q := t.data[group*scaleGroup/2+at%(scaleGroup/2)] >> (at / (scaleGroup / 2) * 4) & 15
			dst[i] = float32(int(q)-8) * t.scales[group]
		}
	case dtypeQ8x0, dtypeQ4x0, dtypeQ6K:
		size, bytes := t.dtype.block(), t.dtype.size()
		var block [256]float32
		for len(dst) > 0 {
			at := first % size
			t.dtype.unpack(block[:size], t.data[first/size*bytes:][:bytes])
			n := copy(dst, block[at:size])
			dst, first = dst[n:], first+n
		}
	}
}

// unpack writes the values of a block.
func (d dtype) unpack(dst []float32, block []byte) {
	switch d {
	case dtypeQ8x0:
		scale := f16ToF32(binary.LittleEndian.Uint16(block))
		for i, q := range block[2:34] {
			dst[i] = float32(int8(q)) * scale
		}
	case dtypeQ4x0:
		scale := f16ToF32(binary.LittleEndian.Uint16(block))
		for i, q := range block[2:18] {
			dst[i], dst[i+16] = float32(int(q&15)-8)*scale, float32(int(q>>4)-8)*scale
		}
	case dtypeQ6K:
		low, high, scales := block[:128], block[128:192], block[192:208]
		scale := f16ToF32(binary.LittleEndian.Uint16(block[208:]))
		for i := range dst {
			half, in := i/128, i%128 // each half has four rows of 32
			l := low[64*half+in%64] >> (in / 64 * 4) & 15
			h := high[32*half+in%32] >> (in / 32 * 2) & 3
			dst[i] = float32(int(l|h<<4)-32) * (scale * float32(int8(scales[i/16])))
		}
	}
}

// checkInt8 holds an I8 tensor to its form: -127 is the lowest integer, so that each has its negative, and no scale
// turns signs around. Whether the scales are finite is for CheckWeights to say, as of other tensors.
func (t tensorData) checkInt8() error {
	if t.dtype == dtypeI4 {
		return nil // all of its integers have a sense, and its scales may have either sign
	}
	if at := bytes.IndexByte(t.data, 0x80); at >= 0 {
		return fmt.Errorf("tensor %.200q: integer %d is -128, below -127: quantize the weights again: %w",
			t.name, at, ErrCorrupt)
	}
	for i, scale := range t.scales {
		if scale < 0 {
			return fmt.Errorf("tensor %.200q: scale %d is %g, below 0: quantize the weights again: %w",
				t.name, i, scale, ErrCorrupt)
		}
	}
	return nil
}

type storedTensor struct {
	name       string
	dtype      dtype
	shape      []int
	begin, end int64 // offsets in the file
	file       int
	partner    int  // I8, I4: the index of its scales; scales: of their tensor; else -1
	ignored    bool // a buffer that old exporters left in the file

	// Rows of one head that stand together in the file: those that rotate together are neighbours there, and half a head
	// apart in the arithmetic here. 0: as they are.
	interleaved int
}

func (t *storedTensor) isScales() bool { return t.partner >= 0 && !t.dtype.scaled() }

// scaled tells of integers whose scales are a tensor of their own.
func (d dtype) scaled() bool { return d == dtypeI8 || d == dtypeI4 }

// fits holds a tensor against a shape. Integers of 4 bits stand in rows of whole groups; after it they have the shape.
func (t *storedTensor) fits(shape []int) bool {
	if t.dtype == dtypeI4 && len(shape) == 2 {
		if t.shape[0] != shape[0] || t.shape[1] != (shape[1]+scaleGroup-1)/scaleGroup*scaleGroup/2 {
			return false
		}
		t.shape = shape
	}
	return slices.Equal(t.shape, shape)
}

// readHeader reads the length and the JSON text of the header, which must lie within the file.
func readHeader(r io.Reader, size int64) ([]byte, error) {
	var length [8]byte
	n, err := io.ReadFull(r, length[:])
	if err != nil {
		return nil, regular.Truncated(err, ErrCorrupt, "%d bytes, where the length of the header takes 8", n)
	}
	if bytes.HasPrefix([]byte(lfsMagic), length[:]) {
		return nil, errLFSPointer
	}
	claimed := binary.LittleEndian.Uint64(length[:])
	if claimed > maxHeaderSize {
		return nil, fmt.Errorf("the header claims %d bytes, more than %d: this is no safetensors file: %w", claimed, maxHeaderSize, ErrCorrupt)
	}
	if int64(claimed) > size-8 {
		return nil, fmt.Errorf("the header claims %d bytes, the file has %d: download it again: %w", claimed, size, ErrCorrupt)
	}
	header, err := regular.Append(r, regular.Room(r, int64(claimed), 8+int64(claimed)), int64(claimed))
	if err != nil {
		return nil, regular.Truncated(err, ErrCorrupt, "ends after %d of %d bytes of the header", len(header), claimed)
	}
	return header, nil
}

const lfsMagic = "version https://git-lfs"

var errLFSPointer = fmt.Errorf("a Git LFS pointer, not the file itself: run git lfs pull: %w", ErrCorrupt)

func checkLFSPointer(data []byte) error {
	if bytes.HasPrefix(data, []byte(lfsMagic)) {
		return errLFSPointer
	}
	return nil
}

// parseHeader reads the JSON text, whose tensors come to those that others have, and are most with these. Offsets are
// still those of the header, from the end of it.
func parseHeader(header []byte, have, most int) ([]storedTensor, error) {
	// Padding is spaces only, and only behind the object, so that no two headers say the same.
	text := bytes.TrimRight(header, " ")
	if len(text) == 0 || text[0] != '{' || text[len(text)-1] != '}' {
		return nil, fmt.Errorf("not an object padded with spaces: %w", ErrCorrupt)
	}
	r, err := strictjson.New(text, ErrCorrupt)
	if err != nil {
		return nil, err
	}
	room := r.Room(len(`"w":{"dtype":"F32","shape":[],"data_offsets":[0,0]}`))
	tensors := make([]storedTensor, 0, min(room, most-have))
	err = r.Object(func(key string) error {
		if key == "__metadata__" {
			if err := r.Object(func(string) error { _, err := r.String(); return err }); err != nil {
				return fmt.Errorf("__metadata__: %w", err)
			}
			return nil
		}
		if have+len(tensors) == most {
			return tooManyTensors(most)
		}
		t := storedTensor{name: key, partner: -1}
		if err := t.read(r); err != nil {
			return fmt.Errorf("tensor %.200q: %w", key, err)
		}
		tensors = append(tensors, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return tensors, r.End()
}

func (t *storedTensor) read(r *strictjson.Reader) error {
	var offsets []int64
	found := 0
	err := r.Object(func(key string) error {
		found++
		switch key {
		case "dtype":
			name, err := r.String()
			if err != nil {
				return err
			}
			for d := range dtypes[:dtypeI4+1] {
				if dtypes[d].name == name {
					t.dtype = dtype(d)
					return nil
				}
			}
			return fmt.Errorf("dtype %.40q, want F32, F16, BF16, I8 or U8: convert the weights: %w", name, ErrUnsupported)
		case "shape":
			t.shape = make([]int, 0, min(r.Room(2), maxRank))
			return r.Array(func(i int) error {
				if i == maxRank {
					return fmt.Errorf("more than %d dimensions: %w", maxRank, ErrUnsupported)
				}
				size, err := r.Integer()
				if err == nil && (size < 0 || size > maxSize) {
					err = fmt.Errorf("shape has a dimension of %d: %w", size, ErrCorrupt)
				}
				t.shape = append(t.shape, int(size))
				return err
			})
		case "data_offsets":
			return r.Array(func(i int) error {
				at, err := r.Integer()
				if err == nil && (i == 2 || at < 0) {
					err = fmt.Errorf("data_offsets want two numbers from 0: %w", ErrCorrupt)
				}
				offsets = append(offsets, at)
				return err
			})
		}
		return fmt.Errorf("unknown key %.80q: %w", key, ErrCorrupt)
	})
	if err != nil {
		return err
	}
	if found != 3 || len(offsets) != 2 {
		return fmt.Errorf("want dtype, shape and two data_offsets: %w", ErrCorrupt)
	}
	t.begin, t.end = offsets[0], offsets[1]
	need := uint64(t.dtype.size())
	for _, size := range t.shape {
		high, low := bits.Mul64(need, uint64(size))
		if high != 0 {
			return fmt.Errorf("shape %v overflows: %w", t.shape, ErrCorrupt)
		}
		need = low
	}
	if t.end < t.begin || uint64(t.end-t.begin) != need {
		return fmt.Errorf("%v %v takes %d bytes, data_offsets %v hold %d: %w", t.dtype, t.shape, need, offsets, t.end-t.begin, ErrCorrupt)
	}
	return nil
}

// place sorts the tensors by offset and checks that they cover the file's data without hole or overlap.
func (f *weightFile) place(tensors []storedTensor) error {
	slices.SortFunc(tensors, func(a, b storedTensor) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), strings.Compare(a.name, b.name))
	})
	at := int64(0)
	for i := range tensors {
		t := &tensors[i]
		if t.begin != at {
			return fmt.Errorf("tensor %.200q begins at byte %d of the data, the tensor before it ends at %d: %w", t.name, t.begin, at, ErrCorrupt)
		}
		at = t.end
		if at > f.size-f.data {
			return fmt.Errorf("tensor %.200q ends at byte %d of the data, the file has %d: it is truncated, download it again: %w", t.name, at, f.size-f.data, ErrCorrupt)
		}
		if t.end-t.begin > math.MaxInt {
			return fmt.Errorf("tensor %.200q has %d bytes, more than 32 bits can address: use a 64-bit platform: %w",
				t.name, t.end-t.begin, ErrUnsupported)
		}
		t.begin, t.end = t.begin+f.data, t.end+f.data
	}
	if at != f.size-f.data {
		return fmt.Errorf("%d bytes stand behind the last tensor: %w", f.size-f.data-at, ErrCorrupt)
	}
	return nil
}
