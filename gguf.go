package photon

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/photon-lm/photon/internal/regular"
)

const (
	ggufMagic     = "GGUF"
	ggufExtension = ".gguf"
	ggufAlignment = 32
	maxGGUFHeader = maxHeaderSize + maxTokenizerSize
	maxGGUFKeys   = 4096
	maxGGUFName   = 256 // bytes of a key or of a tensor's name
	maxGGUFRank   = 4
	leastTensor   = 8 + 1 + 4 + 8 + 4 + 8 // bytes of its line in the header
)

// A ggufFile is what stands in a GGUF file ahead of its tensors' data.
type ggufFile struct {
	values  map[string]ggufValue
	tensors []storedTensor // in the order of the file; offsets are of the file
	size    int64
	data    int64 // where the tensors begin
}

// A ggufValue is a number, a bool, a string, or a list of one of these.
type ggufValue struct {
	kind ggufKind
	list bool
	n    int      // of a list
	raw  []byte   // numbers and bools, little-endian
	text []string // strings
}

type ggufKind uint32

const (
	ggufBool   ggufKind = 7
	ggufString ggufKind = 8
	ggufArray  ggufKind = 9
)

// ggufSizes are the bytes of a value by kind; 0: it is none of a fixed size.
var ggufSizes = [...]int{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}

// The types of tensors that are read; of the others, the names of those that are met most.
var (
	ggufTypes = map[uint32]dtype{0: dtypeF32, 1: dtypeF16, 2: dtypeQ4x0, 8: dtypeQ8x0, 14: dtypeQ6K, 30: dtypeBF16}
	ggufNames = map[uint32]string{3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
		16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 20: "IQ4_NL", 23: "IQ4_XS", 39: "MXFP4"}
)

// ggufReader reads the header from front to back. It allocates no more than a small multiple of what it has read.
type ggufReader struct {
	r    *bufio.Reader
	at   int64 // bytes read
	end  int64 // of what may be read
	sure int64 // of what is there, 0 where that is not known
	buf  [8]byte
}

// room is for how many of n items of least bytes, or more, memory may be taken before they are read.
func (r *ggufReader) room(n int, least int64) int {
	return int(max(0, min(int64(n), (r.sure-r.at)/least)))
}

func readGGUF(f io.Reader, size int64) (*ggufFile, error) {
	r := &ggufReader{r: bufio.NewReaderSize(f, 1<<16), end: min(size, maxGGUFHeader)}
	if regular.Reaches(f, r.end) {
		r.sure = r.end
	}
	g := &ggufFile{values: map[string]ggufValue{}, size: size}
	if err := g.read(r); err != nil {
		if r.at >= maxGGUFHeader-8 && size > maxGGUFHeader {
			err = fmt.Errorf("the header has more than %d bytes: %w", maxGGUFHeader, ErrUnsupported)
		}
		return nil, err
	}
	return g, nil
}

func (g *ggufFile) read(r *ggufReader) error {
	magic, err := r.bytes(4)
	if err != nil {
		return err
	}
	if string(magic) != ggufMagic {
		if strings.HasPrefix(lfsMagic, string(magic)) {
			return errLFSPointer
		}
		return fmt.Errorf("begins with %q, not with %q: this is no GGUF file: %w", magic, ggufMagic, ErrCorrupt)
	}
	version, err := r.uint32()
	if err != nil {
		return err
	}
	if version != 2 && version != 3 {
		return fmt.Errorf("version %d, want 2 or 3, little-endian: convert it again: %w", version, ErrUnsupported)
	}
	tensors, err := r.count("tensors", maxTensors)
	if err != nil {
		return err
	}
	keys, err := r.count("keys", maxGGUFKeys)
	if err != nil {
		return err
	}
	for i := range keys {
		key, err := r.name()
		if err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		if _, twice := g.values[key]; twice {
			return fmt.Errorf("key %q stands there twice: %w", key, ErrCorrupt)
		}
		if g.values[key], err = r.value(); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	seen := make(map[string]bool, r.room(tensors, leastTensor))
	g.tensors = make([]storedTensor, 0, r.room(tensors, leastTensor))
	for i := range tensors {
		t, err := r.tensor()
		if err != nil {
			return fmt.Errorf("tensor %d: %w", i, err)
		}
		if seen[t.name] {
			return fmt.Errorf("tensor %q stands there twice: %w", t.name, ErrCorrupt)
		}
		seen[t.name] = true
		g.tensors = append(g.tensors, t)
	}
	return g.place(r.at)
}

// place turns offsets into those of the file, and checks that each tensor begins at the first multiple of the alignment
// behind the one before.
func (g *ggufFile) place(header int64) error {
	alignment := int64(ggufAlignment)
	if v, ok := g.values["general.alignment"]; ok {
		n, err := v.uint()
		if err != nil || n < 8 || n > 1<<16 || bits.OnesCount64(uint64(n)) != 1 {
			return fmt.Errorf("general.alignment is %d, want a power of two from 8 to 65536: %w", n, ErrCorrupt)
		}
		alignment = n
	}
	up := func(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }
	g.data = up(header)
	at := int64(0)
	for i := range g.tensors {
		t := &g.tensors[i]
		if t.begin != at {
			return fmt.Errorf("tensor %q begins at byte %d of the data, want %d: %w", t.name, t.begin, at, ErrCorrupt)
		}
		end := at + t.end // t.end is its size, at most 2³⁵
		if end > g.size-g.data {
			return fmt.Errorf("tensor %q ends at byte %d of the data, the file has %d: it is truncated, download it again: %w",
				t.name, end, g.size-g.data, ErrCorrupt)
		}
		at = up(end)
		t.begin, t.end = t.begin+g.data, end+g.data
	}
	if behind := g.size - g.data - at; behind > 0 {
		return fmt.Errorf("%d bytes stand behind the last tensor: %w", behind, ErrCorrupt)
	}
	return nil
}

// bytes reads n bytes; what it returns follows what is there.
func (r *ggufReader) bytes(n int64) ([]byte, error) {
	if n > r.end-r.at {
		return nil, fmt.Errorf("%d bytes at byte %d, the file, or what is read of it, has %d: it is truncated, "+
			"download it again: %w",
			n, r.at, r.end, ErrCorrupt)
	}
	buf := r.buf[:0]
	if n > int64(len(r.buf)) {
		buf = nil
	}
	buf, err := regular.Append(r.r, buf, n)
	r.at += int64(len(buf))
	if err != nil {
		return nil, regular.Truncated(err, ErrCorrupt, "ends at byte %d", r.at)
	}
	return buf, nil
}

func (r *ggufReader) uint32() (uint32, error) {
	b, err := r.bytes(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (r *ggufReader) uint64() (uint64, error) {
	b, err := r.bytes(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// count reads how many of something there are.
func (r *ggufReader) count(what string, most uint64) (int, error) {
	n, err := r.uint64()
	if err == nil && n > most {
		err = fmt.Errorf("%d %s, more than %d: %w", n, what, most, ErrUnsupported)
	}
	return int(n), err
}

func (r *ggufReader) string(most uint64) (string, error) {
	n, err := r.uint64()
	if err != nil {
		return "", err
	}
	if n > most {
		return "", fmt.Errorf("a string of %d bytes at byte %d, more than %d: %w", n, r.at, most, ErrCorrupt)
	}
	b, err := r.bytes(int64(n))
	if err == nil && !utf8.Valid(b) {
		err = fmt.Errorf("the string at byte %d is not UTF-8: %w", r.at-int64(n), ErrCorrupt)
	}
	return string(b), err
}

func (r *ggufReader) name() (string, error) {
	name, err := r.string(maxGGUFName)
	if err == nil && name == "" {
		err = fmt.Errorf("has no name: %w", ErrCorrupt)
	}
	return name, err
}

func (r *ggufReader) value() (v ggufValue, err error) {
	kind, err := r.uint32()
	if err != nil {
		return v, err
	}
	if v.list = ggufKind(kind) == ggufArray; v.list {
		if kind, err = r.uint32(); err != nil {
			return v, err
		}
		if v.n, err = r.count("values", maxGGUFHeader); err != nil {
			return v, err
		}
	}
	v.kind = ggufKind(kind)
	switch {
	case v.kind == ggufString && !v.list:
		text, err := r.string(maxGGUFHeader)
		v.text = []string{text}
		return v, err
	case v.kind == ggufString:
		v.text = make([]string, 0, r.room(v.n, 8))
		for range v.n {
			text, err := r.string(maxGGUFHeader)
			if err != nil {
				return v, err
			}
			v.text = append(v.text, text)
		}
		return v, nil
	case int(v.kind) >= len(ggufSizes) || ggufSizes[v.kind] == 0:
		return v, fmt.Errorf("a value of kind %d, which is not read: %w", v.kind, ErrUnsupported)
	}
	n := int64(ggufSizes[v.kind])
	if v.list {
		n *= int64(v.n)
	}
	raw, err := r.bytes(n)
	v.raw = slices.Clone(raw)
	return v, err
}

func (r *ggufReader) tensor() (storedTensor, error) {
	t := storedTensor{partner: -1}
	name, err := r.name()
	if err != nil {
		return t, err
	}
	t.name = name
	fail := func(kind error, format string, args ...any) (storedTensor, error) {
		return t, fmt.Errorf("%q: %s: %w", name, fmt.Sprintf(format, args...), kind)
	}
	rank, err := r.uint32()
	if err != nil {
		return t, err
	}
	if rank < 1 || rank > maxGGUFRank {
		return fail(ErrCorrupt, "%d dimensions, want 1 to %d", rank, maxGGUFRank)
	}
	elements := uint64(1)
	for range rank {
		n, err := r.uint64()
		if err != nil {
			return t, err
		}
		if n < 1 || n > maxSize/elements {
			return fail(ErrUnsupported, "a dimension of %d: empty, or more than %d elements", n, maxSize)
		}
		elements *= n
		t.shape = append(t.shape, int(n))
	}
	slices.Reverse(t.shape) // the file has the innermost first
	kind, err := r.uint32()
	if err != nil {
		return t, err
	}
	known := false
	if t.dtype, known = ggufTypes[kind]; !known {
		name := ggufNames[kind]
		if name == "" {
			name = "unknown here"
		}
		return fail(ErrUnsupported, "type %d (%s), want F32, F16, BF16, Q8_0, Q4_0 or Q6_K: quantize the weights "+
			"to one of these", kind, name)
	}
	if row := t.shape[rank-1]; row%t.dtype.block() != 0 {
		return fail(ErrCorrupt, "rows of %d, where %v has blocks of %d", row, t.dtype, t.dtype.block())
	}
	offset, err := r.uint64()
	if err != nil {
		return t, err
	}
	if offset > math.MaxInt64/2 {
		return fail(ErrCorrupt, "begins at byte %d of the data", offset)
	}
	t.begin, t.end = int64(offset), int64(elements)/int64(t.dtype.block())*int64(t.dtype.size())
	return t, nil
}

// What a value is, by its key. A value of another kind is an error; the second result tells of one that is not there.

func (v ggufValue) integer(i int) (int64, bool) {
	size := ggufSizes[v.kind]
	b := v.raw[i*size:][:size]
	switch v.kind {
	case 0:
		return int64(b[0]), true
	case 1:
		return int64(int8(b[0])), true
	case 2:
		return int64(binary.LittleEndian.Uint16(b)), true
	case 3:
		return int64(int16(binary.LittleEndian.Uint16(b))), true
	case 4:
		return int64(binary.LittleEndian.Uint32(b)), true
	case 5:
		return int64(int32(binary.LittleEndian.Uint32(b))), true
	case 10, 11:
		return int64(binary.LittleEndian.Uint64(b)), true
	}
	return 0, false
}

func (v ggufValue) real(i int) (float64, bool) {
	switch v.kind {
	case 6:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(v.raw[4*i:]))), true
	case 12:
		return math.Float64frombits(binary.LittleEndian.Uint64(v.raw[8*i:])), true
	}
	return 0, false
}

func (v ggufValue) uint() (int64, error) {
	if !v.list && v.kind != ggufString {
		if n, ok := v.integer(0); ok && n >= 0 && n <= maxSize {
			return n, nil
		}
	}
	return 0, fmt.Errorf("not a whole number from 0 to %d: %w", maxSize, ErrCorrupt)
}

// A ggufKeys reads values by key, and keeps the first failure.
type ggufKeys struct {
	g   *ggufFile
	err error
}

func (k *ggufKeys) fail(key string, err error) {
	if k.err == nil {
		k.err = fmt.Errorf("key %q: %w", key, err)
	}
}

func (k *ggufKeys) has(key string) bool { _, ok := k.g.values[key]; return ok }

// int returns a number, or absent where the key is not there; a negative absent is a key that must be.
func (k *ggufKeys) int(key string, absent int) int {
	v, ok := k.g.values[key]
	if !ok {
		if absent < 0 {
			k.fail(key, fmt.Errorf("is missing: %w", ErrCorrupt))
		}
		return absent
	}
	n, err := v.uint()
	if err != nil {
		k.fail(key, err)
	}
	return int(n)
}

// id returns a token, -1 where the key is not there.
func (k *ggufKeys) id(key string) int {
	if !k.has(key) {
		return -1
	}
	return k.int(key, 0)
}

func (k *ggufKeys) float(key string, absent float64) float64 {
	v, ok := k.g.values[key]
	if !ok {
		return absent
	}
	if !v.list && v.kind != ggufString {
		if f, ok := v.real(0); ok {
			return f
		}
	}
	k.fail(key, fmt.Errorf("not a floating-point number: %w", ErrCorrupt))
	return absent
}

func (k *ggufKeys) bool(key string, absent bool) bool {
	v, ok := k.g.values[key]
	if !ok {
		return absent
	}
	if v.kind != ggufBool || v.list {
		k.fail(key, fmt.Errorf("not a bool: %w", ErrCorrupt))
		return absent
	}
	return v.raw[0] != 0
}

func (k *ggufKeys) string(key string) string {
	v, ok := k.g.values[key]
	if ok && (v.kind != ggufString || v.list) {
		k.fail(key, fmt.Errorf("not a string: %w", ErrCorrupt))
		return ""
	}
	if !ok {
		return ""
	}
	return v.text[0]
}

func (k *ggufKeys) strings(key string) []string {
	v, ok := k.g.values[key]
	if ok && (v.kind != ggufString || !v.list) {
		k.fail(key, fmt.Errorf("not a list of strings: %w", ErrCorrupt))
		return nil
	}
	return v.text
}

// numbers returns a list that must have n numbers, or is not there.
func (k *ggufKeys) numbers(key string, n int) []float64 {
	v, ok := k.g.values[key]
	if !ok {
		return nil
	}
	if !v.list || v.kind == ggufString || v.n != n {
		k.fail(key, fmt.Errorf("not a list of %d numbers: %w", n, ErrMismatch))
		return nil
	}
	out := make([]float64, n)
	for i := range out {
		f, real := v.real(i)
		if whole, ok := v.integer(i); ok {
			f, real = float64(whole), true
		}
		if !real || f != f {
			k.fail(key, fmt.Errorf("number %d is none: %w", i, ErrCorrupt))
			return nil
		}
		out[i] = f
	}
	return out
}

// findGGUF returns the name of the one GGUF file of a model directory that has no config.json; "": there is none.
func findGGUF(fsys fs.FS) (string, error) {
	names, err := fs.Glob(fsys, "*"+ggufExtension)
	if err != nil || len(names) == 0 {
		return "", nil
	}
	if len(names) > 1 {
		return "", fmt.Errorf("photon: %d GGUF files, %s and %s among them: say which one to load: %w", len(names),
			names[0], names[1], ErrInvalid)
	}
	return names[0], nil
}
