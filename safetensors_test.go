package photon

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/photon-lm/photon/internal/bounded"
)

// A testTensor is one of a file that the tests make.
type testTensor struct {
	name  string
	dtype dtype
	shape []int
	data  []byte
}

// testFile is a safetensors file of these tensors, in this order.
func testFile(tensors ...testTensor) []byte {
	var entries []string
	var data []byte
	for _, t := range tensors {
		shape := strings.ReplaceAll(fmt.Sprint(t.shape), " ", ",")
		entries = append(entries, fmt.Sprintf(`%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`,
			t.name, t.dtype, shape, len(data), len(data)+len(t.data)))
		data = append(data, t.data...)
	}
	return rawFile("{"+strings.Join(entries, ",")+"}", data)
}

func rawFile(header string, data []byte) []byte {
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), data...)
}

func sampleTensors() []testTensor {
	random := rand.New(rand.NewPCG(1, 2))
	values := func(d dtype, n int) []byte {
		data := make([]byte, n*d.size())
		for i := range n {
			d.put(data[i*d.size():], float32(random.NormFloat64()))
		}
		return data
	}
	scales := func(d dtype, n int) []byte {
		data := make([]byte, n*d.size())
		for i := range n {
			d.put(data[i*d.size():], float32(random.Float64()))
		}
		return data
	}
	integers := make([]byte, 3*70)
	for i := range integers {
		integers[i] = byte(random.IntN(255) - 127)
	}
	return []testTensor{
		{"a", dtypeF32, []int{2, 3}, values(dtypeF32, 6)},
		{"b", dtypeF16, []int{5}, values(dtypeF16, 5)},
		{"q.scales", dtypeBF16, []int{3, 3}, scales(dtypeBF16, 9)},
		{"c", dtypeBF16, []int{4, 1}, values(dtypeBF16, 4)},
		{"q", dtypeI8, []int{3, 70}, integers},
		{"r", dtypeI8, []int{1, 32}, integers[:32]},
		{"r.scales", dtypeF32, []int{1, 1}, scales(dtypeF32, 1)},
	}
}

var sampleSpecs = []tensorSpec{{"a", []int{2, 3}}, {"b", []int{5}}, {"c", []int{4, 1}}, {"q", []int{3, 70}}, {"r", []int{1, 32}}}

// sampleValues is what the sample tensors mean, worked out element by element.
func sampleValues() map[string][]float32 {
	byName := map[string]testTensor{}
	for _, t := range sampleTensors() {
		byName[t.name] = t
	}
	value := func(t testTensor, i int) float32 {
		switch t.dtype {
		case dtypeF32:
			return math.Float32frombits(binary.LittleEndian.Uint32(t.data[4*i:]))
		case dtypeF16:
			return f16ToF32(binary.LittleEndian.Uint16(t.data[2*i:]))
		case dtypeBF16:
			return bf16ToF32(binary.LittleEndian.Uint16(t.data[2*i:]))
		}
		return float32(int8(t.data[i]))
	}
	all := map[string][]float32{}
	for _, spec := range sampleSpecs {
		t := byName[spec.name]
		for i := range int(spec.elements()) {
			x := value(t, i)
			if t.dtype == dtypeI8 {
				scales := byName[t.name+".scales"]
				x *= value(scales, i/t.shape[1]*scales.shape[1]+i%t.shape[1]/32)
			}
			all[t.name] = append(all[t.name], x)
		}
	}
	return all
}

// readAll opens, matches and reads a checkpoint.
func readAll(fsys fs.FS, specs []tensorSpec, copies ...map[string]string) (map[string][]float32, error) {
	c, err := openCheckpoint(fsys, maxTensors)
	if err != nil {
		return nil, err
	}
	copied := map[string]string{}
	for _, c := range copies {
		maps.Copy(copied, c)
	}
	if err := c.match(slices.Values(specs), copied); err != nil {
		return nil, err
	}
	all := map[string][]float32{}
	read := int64(0)
	err = c.each(func(t tensorData) error {
		n := int(tensorSpec{shape: t.shape}.elements())
		values := make([]float32, n)
		t.float32s(values, 0, n)
		all[t.name] = values
		if stored, ok := c.dtypeOf(t.name); !ok || stored != t.dtype || (t.scales != nil) != (t.dtype == dtypeI8) {
			return fmt.Errorf("%s arrives as %v with %d scales, stored as %v, %v", t.name, t.dtype, len(t.scales), stored, ok)
		}
		read += int64(len(t.data))
		if t.dtype == dtypeI8 {
			stored, _ := c.dtypeOf(t.name + ".scales")
			read += int64(len(t.scales) * stored.size())
		}
		return nil
	})
	if err == nil && read != c.bytes() {
		err = fmt.Errorf("bytes() is %d, read %d", c.bytes(), read)
	}
	return all, err
}

// zipped is a file system that cannot seek.
func zipped(t testing.TB, files fs.FS, method uint16) fs.FS {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	names, _ := fs.Glob(files, "*")
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		f.Write(data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func onDisk(t testing.TB, files fs.FS) fs.FS {
	dir := t.TempDir()
	if err := os.CopyFS(dir, files); err != nil {
		t.Fatal(err)
	}
	return os.DirFS(dir)
}

// Any run of elements is what the whole says.
func TestTensorDataFloat32s(t *testing.T) {
	c, err := openCheckpoint(fstest.MapFS{weightsFile: {Data: testFile(sampleTensors()...)}}, maxTensors)
	if err != nil {
		t.Fatal(err)
	}
	want := sampleValues()
	if err := c.each(func(d tensorData) error {
		all := want[d.name]
		for first := range all {
			for n := range len(all) - first + 1 {
				got := make([]float32, n+1)
				d.float32s(got, first, n)
				if got[n] != 0 {
					return fmt.Errorf("%s: elements %d+%d: wrote past the end", d.name, first, n)
				}
				if !slices.Equal(got[:n], all[first:first+n]) {
					return fmt.Errorf("%s: elements %d+%d are %v, want %v", d.name, first, n, got[:n], all[first:first+n])
				}
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(testFile(sampleTensors()...), true)
	f.Add(testFile(sampleTensors()...), false)
	f.Add(testFile(), true)
	f.Add(rawFile(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}  `, make([]byte, 4)), true)
	f.Add([]byte("version https://git-lfs.github.com/spec/v1\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, seek bool) {
		fsys := lyingFS{data, int64(len(data)), seek}
		var c *checkpoint
		var err error
		bounded.Run(t, 8*len(data)+1<<20, func() { c, err = openCheckpoint(fsys, maxTensors) })
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrMismatch) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		bounded.Run(t, len(data)*11/10+1<<20, func() { c.each(func(tensorData) error { return nil }) })
		// What is accepted is covered by its tensors, to the byte, and can be read.
		read := int64(0)
		err = c.each(func(d tensorData) error {
			n := tensorSpec{shape: d.shape}.elements()
			if int64(len(d.data)) != n*int64(d.dtype.size()) {
				t.Fatalf("%s: %d bytes for %v %v", d.name, len(d.data), d.dtype, d.shape)
			}
			d.float32s(make([]float32, n), 0, int(n))
			read += int64(len(d.data))
			if d.dtype == dtypeI8 {
				stored, _ := c.dtypeOf(d.name + ".scales")
				read += int64(len(d.scales) * stored.size())
			}
			return nil
		})
		if errors.Is(err, ErrCorrupt) && slices.ContainsFunc(c.tensors, func(s storedTensor) bool { return s.dtype == dtypeI8 }) {
			return // integers or scales out of range
		}
		if err != nil {
			t.Fatal(err)
		}
		if header := 8 + int64(binary.LittleEndian.Uint64(data)); read != int64(len(data))-header || read != c.bytes() {
			t.Fatalf("%d bytes of tensors, bytes() %d, in a file of %d with a header of %d", read, c.bytes(), len(data), header)
		}
		var specs []tensorSpec
		for i := range c.tensors {
			if s := &c.tensors[i]; !s.isScales() {
				specs = append(specs, tensorSpec{s.name, s.shape})
			}
		}
		if err := c.match(slices.Values(specs), nil); err != nil {
			t.Fatal(err)
		}
	})
}

var _ io.ReaderAt = lyingFile{}
