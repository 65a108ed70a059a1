package photon

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/photon-lm/photon/internal/bounded"
)

func TestCheckpointReads(t *testing.T) {
	tensors := sampleTensors()
	reversed := make([]testTensor, 0, len(tensors))
	for i := range tensors {
		reversed = append(reversed, tensors[len(tensors)-1-i])
	}
	index := `{"metadata": {"total_size": 1}, "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors",
		"q": "1.safetensors", "q.scales": "2.safetensors", "r": "2.safetensors", "r.scales": "1.safetensors"}}`
	shards := fstest.MapFS{
		indexFile:       {Data: []byte(index)},
		"1.safetensors": {Data: testFile(tensors[1], tensors[3], tensors[4], tensors[6])},
		"2.safetensors": {Data: testFile(tensors[0], tensors[2], tensors[5])},
	}
	padded := testFile(tensors...)
	headerEnd := 8 + binary.LittleEndian.Uint64(padded)
	padded = rawFile(string(padded[8:headerEnd])+"     ", padded[headerEnd:])
	for name, files := range map[string]fs.FS{
		"one file":          fstest.MapFS{weightsFile: {Data: testFile(tensors...)}},
		"reversed":          fstest.MapFS{weightsFile: {Data: testFile(reversed...)}},
		"padded":            fstest.MapFS{weightsFile: {Data: padded}},
		"shards":            shards,
		"an index unneeded": fstest.MapFS{weightsFile: {Data: testFile(tensors...)}, indexFile: {Data: []byte("{")}},
	} {
		for form, fsys := range map[string]fs.FS{"map": files, "disk": onDisk(t, files), "stored": zipped(t, files, zip.Store), "deflated": zipped(t, files, zip.Deflate)} {
			t.Run(name+"/"+form, func(t *testing.T) {
				got, err := readAll(fsys, sampleSpecs)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(sampleValues(), got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// Wherever files are cut, also between a matrix and its scales, and whichever comes first.
func TestCheckpointShards(t *testing.T) {
	tensors := sampleTensors()
	for turn := range 2 * len(tensors) {
		if turn == len(tensors) {
			slices.Reverse(tensors)
		}
		tensors = append(tensors[1:len(tensors):len(tensors)], tensors[0])
		for cut := 1; cut < len(tensors); cut++ {
			places := map[string]string{}
			for i, x := range tensors {
				places[x.name] = []string{"1", "2"}[min(1, i/cut)]
			}
			index, _ := json.Marshal(map[string]any{"weight_map": places})
			files := fstest.MapFS{
				indexFile: {Data: index},
				"1":       {Data: testFile(tensors[:cut]...)}, "2": {Data: testFile(tensors[cut:]...)},
			}
			for form, fsys := range map[string]fs.FS{"map": files, "deflated": zipped(t, files, zip.Deflate)} {
				got, err := readAll(fsys, sampleSpecs)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(sampleValues(), got); diff != "" {
					t.Errorf("%s, turn %d, cut at %d: %s", form, turn, cut, diff)
				}
			}
		}
	}
}

func TestCheckpointIgnoresInvFreq(t *testing.T) {
	tensors := []testTensor{
		{"model.layers.0.self_attn.rotary_emb.inv_freq", dtypeF32, []int{1}, make([]byte, 4)},
		{"model.x", dtypeF32, []int{1}, []byte{0, 0, 128, 63}},
		{"model.rotary_emb.inv_freq", dtypeF16, []int{1}, make([]byte, 2)},
	}
	files := fstest.MapFS{weightsFile: {Data: testFile(tensors...)}}
	for _, fsys := range []fs.FS{files, zipped(t, files, zip.Deflate)} {
		got, err := readAll(fsys, []tensorSpec{{"model.x", []int{1}}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string][]float32{"model.x": {1}}, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCheckpointRefuses(t *testing.T) {
	data := func(n int) []byte { return make([]byte, n) }
	f32 := func(name string, shape ...int) testTensor {
		return testTensor{name, dtypeF32, shape, data(4 * int(tensorSpec{shape: shape}.elements()))}
	}
	i8 := testTensor{"w", dtypeI8, []int{2, 33}, data(66)}
	length := func(n uint64, rest string) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), rest...) }
	entry := func(dtype, shape, offsets string) string {
		return fmt.Sprintf(`{"dtype":%q,"shape":%s,"data_offsets":%s}`, dtype, shape, offsets)
	}
	good := entry("F32", "[2]", "[0,8]")
	many := func() string {
		var b strings.Builder
		b.WriteString("{")
		for i := range maxTensors + 1 {
			if i > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, `"%d":%s`, i, entry("F32", "[0]", "[0,0]"))
		}
		return b.String() + "}"
	}
	want := []tensorSpec{{"w", []int{2}}}
	tests := []struct {
		name string
		file []byte
		kind error
		says string
	}{
		{"empty", nil, ErrCorrupt, "truncated"},
		{"seven bytes", data(7), ErrCorrupt, "7 bytes"},
		{"no header", data(8), ErrCorrupt, "not an object"},
		{"LFS pointer", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"), ErrCorrupt, "git lfs pull"},
		{"header of 2^64-1", length(math.MaxUint64, "{}"), ErrCorrupt, "claims 18446744073709551615"},
		{"header of 2^63", length(1<<63, "{}"), ErrCorrupt, "claims"},
		{"header beyond the limit", length(maxHeaderSize+1, "{}"), ErrCorrupt, "claims 16777217"},
		{"header beyond the file", length(3, "{}"), ErrCorrupt, "claims 3 bytes"},
		{"list", rawFile("[]", nil), ErrCorrupt, "not an object"},
		{"leading space", rawFile(` {"w":`+good+`}`, data(8)), ErrCorrupt, "not an object"},
		{"newline padding", rawFile(`{"w":`+good+"}\n", data(8)), ErrCorrupt, "not an object"},
		{"NUL padding", rawFile(`{"w":`+good+"}\x00", data(8)), ErrCorrupt, "not an object"},
		{"two objects", rawFile(`{"w":`+good+"} {}", data(8)), ErrCorrupt, "after the end"},
		{"not UTF-8", rawFile("{\"w\xff\":"+good+"}", data(8)), ErrCorrupt, "invalid UTF-8"},
		{"tensor twice", rawFile(`{"w":`+good+`,"w":`+good+"}", data(8)), ErrCorrupt, `"w" stands twice`},
		{"tensor twice, escaped", rawFile(`{"w":`+good+`,"\u0077":`+good+"}", data(8)), ErrCorrupt, `"w" stands twice`},
		{"key twice", rawFile(`{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, data(8)), ErrCorrupt, `"dtype" stands twice`},
		{"metadata twice", rawFile(`{"__metadata__":{"a":"1","a":"2"},"w":`+good+`}`, data(8)), ErrCorrupt, `"a" stands twice`},
		{"metadata number", rawFile(`{"__metadata__":{"a":1},"w":`+good+`}`, data(8)), ErrCorrupt, "__metadata__"},
		{"metadata string", rawFile(`{"__metadata__":"a","w":`+good+`}`, data(8)), ErrCorrupt, "__metadata__"},
		{"key case", rawFile(`{"w":{"DTYPE":"F32","shape":[2],"data_offsets":[0,8]}}`, data(8)), ErrCorrupt, `unknown key "DTYPE"`},
		{"further key", rawFile(`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":0}}`, data(8)), ErrCorrupt, `unknown key "x"`},
		{"no dtype", rawFile(`{"w":{"shape":[2],"data_offsets":[0,8]}}`, data(8)), ErrCorrupt, `tensor "w": want dtype`},
		{"no shape", rawFile(`{"w":{"dtype":"F32","data_offsets":[0,4]}}`, data(4)), ErrCorrupt, `tensor "w": want dtype`},
		{"F64", rawFile(`{"w":`+entry("F64", "[1]", "[0,8]")+`}`, data(8)), ErrUnsupported, `tensor "w": dtype "F64"`},
		{"dtype case", rawFile(`{"w":`+entry("f32", "[2]", "[0,8]")+`}`, data(8)), ErrUnsupported, `dtype "f32"`},
		{"dtype a number", rawFile(`{"w":{"dtype":32,"shape":[2],"data_offsets":[0,8]}}`, data(8)), ErrCorrupt, "want a string"},
		{"tensor a list", rawFile(`{"w":[]}`, nil), ErrCorrupt, `tensor "w": byte`},
		{"negative dimension", rawFile(`{"w":`+entry("F32", "[-2]", "[0,8]")+`}`, data(8)), ErrCorrupt, "dimension of -2"},
		{"fractional dimension", rawFile(`{"w":`+entry("F32", "[2.0]", "[0,8]")+`}`, data(8)), ErrCorrupt, "want an integer"},
		{"dimension of 2^63", rawFile(`{"w":`+entry("F32", "[9223372036854775808]", "[0,8]")+`}`, data(8)), ErrCorrupt, "out of range"},
		{"shape overflows to 8", rawFile(`{"w":`+entry("F32", "[2147483647,2147483647,2147483647]", "[0,8]")+`}`, data(8)), ErrCorrupt, "overflows"},
		{"shape overflows to 0", rawFile(`{"w":`+entry("F32", "[1073741824,1073741824,16]", "[0,0]")+`}`, nil), ErrCorrupt, "overflows"},
		{"rank 9", rawFile(`{"w":`+entry("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]")+`}`, data(4)), ErrUnsupported, "more than 8 dimensions"},
		{"size and offsets", rawFile(`{"w":`+entry("F32", "[2]", "[0,7]")+`}`, data(7)), ErrCorrupt, "takes 8 bytes"},
		{"one offset", rawFile(`{"w":`+entry("F32", "[2]", "[8]")+`}`, data(8)), ErrCorrupt, "data_offsets"},
		{"three offsets", rawFile(`{"w":`+entry("F32", "[2]", "[0,8,8]")+`}`, data(8)), ErrCorrupt, "data_offsets"},
		{"negative offset", rawFile(`{"w":`+entry("F32", "[2]", "[-8,0]")+`}`, data(8)), ErrCorrupt, "data_offsets"},
		{"offsets backwards", rawFile(`{"w":`+entry("F32", "[2]", "[8,0]")+`}`, data(8)), ErrCorrupt, "data_offsets"},
		{"offsets at 2^63-1", rawFile(`{"w":`+entry("F32", "[2]", "[9223372036854775799,9223372036854775807]")+`}`, data(8)), ErrCorrupt, "begins at byte"},
		{"hole before", rawFile(`{"w":`+entry("F32", "[2]", "[4,12]")+`}`, data(12)), ErrCorrupt, "begins at byte 4"},
		{"hole between", rawFile(`{"w":`+good+`,"x":`+entry("F32", "[1]", "[9,13]")+`}`, data(13)), ErrCorrupt, `tensor "x" begins at byte 9`},
		{"overlap", rawFile(`{"w":`+good+`,"x":`+entry("F32", "[1]", "[4,8]")+`}`, data(8)), ErrCorrupt, `tensor "x" begins at byte 4`},
		{"same place twice", rawFile(`{"w":`+good+`,"x":`+good+`}`, data(8)), ErrCorrupt, `tensor "x" begins at byte 0`},
		{"short", rawFile(`{"w":`+good+`}`, data(7)), ErrCorrupt, `tensor "w" ends at byte 8`},
		{"long", rawFile(`{"w":`+good+`}`, data(9)), ErrCorrupt, "1 bytes stand behind"},
		{"no tensors but data", rawFile(`{}`, data(1)), ErrCorrupt, "1 bytes stand behind"},
		{"too many tensors", rawFile(many(), nil), ErrUnsupported, "more than 65536 tensors"},
		{"deep", rawFile(`{"__metadata__":`+strings.Repeat(`{"a":`, 1000)+"}", nil), ErrCorrupt, "__metadata__"},

		{"missing tensor", testFile(), ErrMismatch, `tensor "w" is missing`},
		{"renamed tensor", testFile(f32("W", 2)), ErrMismatch, `tensor "w" is missing`},
		{"further tensor", testFile(f32("w", 2), f32("x", 1)), ErrMismatch, `tensor "x" is not one`},
		{"further empty tensor", testFile(f32("w", 2), f32("x", 0)), ErrMismatch, `tensor "x" is not one`},
		{"scales of nothing", testFile(f32("w", 2), f32("w.scales", 1)), ErrMismatch, `tensor "w.scales" is not one`},
		{"inv_freq outside a flat model", testFile(f32("w", 2), f32("levels.0.rotary_emb.inv_freq", 1)), ErrMismatch, "inv_freq"},
		{"misshapen", testFile(f32("w", 3)), ErrMismatch, `tensor "w" has shape [3], config.json wants [2]`},
		{"other rank", testFile(f32("w", 2, 1)), ErrMismatch, `tensor "w" has shape [2 1]`},
		{"I8 without scales", testFile(i8), ErrMismatch, `tensor "w": I8 without w.scales`},
		{"I8 of rank 1", testFile(testTensor{"w", dtypeI8, []int{2}, data(2)}, f32("w.scales", 1)), ErrMismatch, `tensor "w": I8 with shape [2]`},
		{"scales misshapen", testFile(i8, f32("w.scales", 2, 1)), ErrMismatch, "its scales are F32 [2 1], want F32, F16 or BF16 [2 2]"},
		{"scales of integers", testFile(i8, testTensor{"w.scales", dtypeI8, []int{2, 2}, data(4)}), ErrMismatch, "its scales are I8"},
		{"I8 misshapen", testFile(i8, f32("w.scales", 2, 2)), ErrMismatch, `tensor "w" has shape [2 33]`},
		{"endless name", testFile(f32(strings.Repeat("x", 1<<20), 2)), ErrMismatch, "is missing"},
		{"endless key", rawFile(`{"w":{"`+strings.Repeat("x", 1<<20)+`":1}}`, nil), ErrCorrupt, "unknown key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := readAll(fstest.MapFS{weightsFile: {Data: test.file}}, want)
			checkRefused(t, err, test.kind, weightsFile+": ", test.says)
		})
	}
}

func TestIndexRefuses(t *testing.T) {
	one := testTensor{"w", dtypeF32, []int{1}, make([]byte, 4)}
	two := testTensor{"x", dtypeF32, []int{1}, make([]byte, 4)}
	file := func(tensors ...testTensor) *fstest.MapFile { return &fstest.MapFile{Data: testFile(tensors...)} }
	shards := func(index string) fstest.MapFS {
		return fstest.MapFS{indexFile: {Data: []byte(index)}, "1": file(one), "2": file(two)}
	}
	tests := []struct {
		name  string
		files fstest.MapFS
		kind  error
		says  string
	}{
		{"nothing", fstest.MapFS{}, fs.ErrNotExist, "neither model.safetensors nor"},
		{"a folder", fstest.MapFS{weightsFile + "/x": {}}, ErrCorrupt, "a directory, not a regular file"},
		{"empty", shards(""), ErrCorrupt, "index.json: byte 0"},
		{"LFS pointer", shards("version https://git-lfs.github.com/spec/v1\n"), ErrCorrupt, "git lfs pull"},
		{"too large", shards(strings.Repeat(" ", maxHeaderSize+1)), ErrCorrupt, "16777217 bytes"},
		{"not UTF-8", shards("\xff"), ErrCorrupt, "invalid UTF-8"},
		{"no map", shards(`{}`), ErrCorrupt, "weight_map is missing"},
		{"empty map", shards(`{"weight_map":{}}`), ErrCorrupt, "weight_map is empty"},
		{"map of numbers", shards(`{"weight_map":{"w":1}}`), ErrCorrupt, `tensor "w"`},
		{"tensor twice", shards(`{"weight_map":{"w":"1","w":"2"}}`), ErrCorrupt, `"w" stands twice`},
		{"more behind", shards(`{"weight_map":{"w":"1","x":"2"}} x`), ErrCorrupt, "after the end"},
		{"parent folder", shards(`{"weight_map":{"w":"../1","x":"2"}}`), ErrCorrupt, `shard "../1" is no file of this directory`},
		{"folder", shards(`{"weight_map":{"w":"a/1","x":"2"}}`), ErrCorrupt, "is no file"},
		{"backslash", shards(`{"weight_map":{"w":"a\\1","x":"2"}}`), ErrCorrupt, "is no file"},
		{"drive", shards(`{"weight_map":{"w":"c:1","x":"2"}}`), ErrCorrupt, "is no file"},
		{"root", shards(`{"weight_map":{"w":"/etc/passwd","x":"2"}}`), ErrCorrupt, "is no file"},
		{"dot", shards(`{"weight_map":{"w":".","x":"2"}}`), ErrCorrupt, "is no file"},
		{"no name", shards(`{"weight_map":{"w":"","x":"2"}}`), ErrCorrupt, "is no file"},
		{"missing shard", shards(`{"weight_map":{"w":"1","x":"3"}}`), fs.ErrNotExist, "photon: 3: "},
		{"shards swapped", shards(`{"weight_map":{"w":"2","x":"1"}}`), ErrMismatch, "the index names"},
		{"tensor in no shard", shards(`{"weight_map":{"w":"1","x":"2","y":"2"}}`), ErrMismatch, `tensor "y" is not in 2`},
		{"tensor not in the index", fstest.MapFS{indexFile: {Data: []byte(`{"weight_map":{"w":"1"}}`)}, "1": file(one, two)}, ErrMismatch, `tensor "x" is in 1`},
		{"tensor in two shards", fstest.MapFS{indexFile: {Data: []byte(`{"weight_map":{"w":"1","x":"2"}}`)}, "1": file(one), "2": file(one, two)},
			ErrMismatch, `2: tensor "w" is also in 1`},
		{"broken shard", fstest.MapFS{indexFile: {Data: []byte(`{"weight_map":{"w":"1"}}`)}, "1": {Data: []byte("x")}}, ErrCorrupt, "photon: 1: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := readAll(test.files, []tensorSpec{{"w", []int{1}}, {"x", []int{1}}})
			checkRefused(t, err, test.kind, test.says)
		})
	}
}

func TestCheckpointTruncatedAndExtended(t *testing.T) {
	file := testFile(sampleTensors()...)
	for n := range len(file) {
		fsys := fstest.MapFS{weightsFile: {Data: file[:n]}}
		if _, err := readAll(fsys, sampleSpecs); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(file), err)
		}
	}
	fsys := fstest.MapFS{weightsFile: {Data: append(file, 0)}}
	if _, err := readAll(fsys, sampleSpecs); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("one byte more: %v", err)
	}
}

// With the names, shapes and dtypes that the config wants, no flipped bit of the header passes for the model.
func TestCheckpointHeaderBitFlips(t *testing.T) {
	file := testFile(sampleTensors()...)
	header := 8 + int(binary.LittleEndian.Uint64(file))
	for bit := range 8 * header {
		flipped := bytes.Clone(file)
		flipped[bit/8] ^= 1 << (bit % 8)
		_, err := readAll(fstest.MapFS{weightsFile: {Data: flipped}}, sampleSpecs)
		if err == nil {
			t.Errorf("bit %d of byte %d (%q): passes", bit%8, bit/8, file[bit/8])
		} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrMismatch) {
			t.Errorf("bit %d of byte %d: error of no kind: %v", bit%8, bit/8, err)
		}
	}
}

// A lyingFS says that its files are larger than they are, as the directory of a zip can.
type lyingFS struct {
	data []byte
	size int64
	seek bool
}

type lyingFile struct {
	*bytes.Reader
	size int64
}

type lyingStream struct{ file lyingFile }

func (l lyingFS) Open(name string) (fs.File, error) {
	if name != weightsFile {
		return nil, fs.ErrNotExist
	}
	f := lyingFile{bytes.NewReader(l.data), l.size}
	if l.seek {
		return f, nil
	}
	return lyingStream{f}, nil
}

func (f lyingFile) Stat() (fs.FileInfo, error)   { return f, nil }
func (f lyingFile) Close() error                 { return nil }
func (f lyingFile) Name() string                 { return weightsFile }
func (f lyingFile) Size() int64                  { return f.size }
func (f lyingFile) Mode() fs.FileMode            { return 0o444 }
func (f lyingFile) ModTime() time.Time           { return time.Time{} }
func (f lyingFile) IsDir() bool                  { return false }
func (f lyingFile) Sys() any                     { return nil }
func (s lyingStream) Stat() (fs.FileInfo, error) { return s.file, nil }
func (s lyingStream) Read(p []byte) (int, error) { return s.file.Read(p) }
func (s lyingStream) Close() error               { return nil }

// What is allocated follows the bytes that are there, whatever the file claims.
func TestCheckpointAllocation(t *testing.T) {
	const shape = 50_000
	const claimed = int64(4 * shape * shape)
	header := fmt.Sprintf(`{"w":{"dtype":"F32","shape":[%d,%d],"data_offsets":[0,%d]}}`, shape, shape, claimed)
	file := rawFile(header, make([]byte, 8))
	size := int64(8+len(header)) + claimed
	specs := []tensorSpec{{"w", []int{shape, shape}}}
	for name, fsys := range map[string]fs.FS{
		"claims 10 GB":               fstest.MapFS{weightsFile: {Data: file}},
		"claims 10 GB, stat agrees":  lyingFS{file, size, true},
		"claims 10 GB, a stream":     lyingFS{file, size, false},
		"header of 16 MiB":           fstest.MapFS{weightsFile: {Data: append([]byte{0, 0, 0, 1}, make([]byte, 96)...)}},
		"header of 16 MiB, a stream": lyingFS{append([]byte{0, 0, 0, 1}, make([]byte, 96)...), 1 << 30, false},
		"index of 16 MiB":            fstest.MapFS{indexFile: {Data: []byte("{")}},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			got := allocated(func() { _, err = readAll(fsys, specs) })
			if !errors.Is(err, ErrCorrupt) && (strconv.IntSize == 64 || !errors.Is(err, ErrUnsupported)) {
				t.Errorf("error %v, want one that is %q", err, ErrCorrupt)
			}
			if got > 1<<20 {
				t.Errorf("%d bytes allocated", got)
			}
		})
	}
}

// Reading allocates no more than a small multiple of the largest tensor, not of the file.
func TestCheckpointReusesItsBuffer(t *testing.T) {
	var tensors []testTensor
	for i := range 64 {
		tensors = append(tensors, testTensor{fmt.Sprintf("t%02d", i), dtypeF32, []int{1 << 16}, make([]byte, 1<<18)})
	}
	for _, seek := range []bool{true, false} {
		file := testFile(tensors...)
		c, err := openCheckpoint(lyingFS{file, int64(len(file)), seek}, maxTensors)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err = c.each(func(tensorData) error { return nil })
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("seek %v: %d bytes allocated for tensors of %d", seek, got, 1<<18)
		}
	}
}

func TestCheckpointChangesWhileOpen(t *testing.T) {
	file := testFile(sampleTensors()...)
	files := fstest.MapFS{weightsFile: {Data: file}}
	c, err := openCheckpoint(files, maxTensors)
	if err != nil {
		t.Fatal(err)
	}
	files[weightsFile] = &fstest.MapFile{Data: file[:len(file)-1]}
	err = c.each(func(tensorData) error { return nil })
	checkRefused(t, err, ErrCorrupt, weightsFile, "load it again")
	delete(files, weightsFile)
	err = c.each(func(tensorData) error { return nil })
	checkRefused(t, err, fs.ErrNotExist, weightsFile)
}

// The callback's error comes back as it is, and ends the reading; a broken read is an error too.
func TestCheckpointEachStops(t *testing.T) {
	file := testFile(sampleTensors()...)
	stop := errors.New("stop")
	for _, seek := range []bool{true, false} {
		c, err := openCheckpoint(lyingFS{file, int64(len(file)), seek}, maxTensors)
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		if err := c.each(func(tensorData) error { calls++; return stop }); err != stop || calls != 1 {
			t.Errorf("seek %v: error %v after %d calls", seek, err, calls)
		}
		c.fsys = brokenFS{lyingFS{file, int64(len(file)), seek}}
		err = c.each(func(tensorData) error { return nil })
		checkRefused(t, err, errBroken, weightsFile)
	}
}

// A brokenFS opens files that cannot be read.
type brokenFS struct{ lyingFS }

type brokenFile struct{ lyingStream }

var errBroken = errors.New("input/output error")

func (b brokenFS) Open(name string) (fs.File, error) {
	return brokenFile{lyingStream{lyingFile{bytes.NewReader(b.data), b.size}}}, nil
}
func (brokenFile) Read([]byte) (int, error) { return 0, errBroken }

// A compressed file whose bytes are not those that were packed is noticed, though no tensor's size is wrong.
func TestCheckpointZipChecksum(t *testing.T) {
	file := testFile(sampleTensors()...)
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	f, err := w.CreateHeader(&zip.FileHeader{Name: weightsFile, Method: zip.Store})
	if err != nil {
		t.Fatal(err)
	}
	f.Write(file)
	w.Close()
	data := buf.Bytes()
	at := bytes.Index(data, file)
	data[at+len(file)-1] ^= 1
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = readAll(r, sampleSpecs)
	checkRefused(t, err, zip.ErrChecksum, weightsFile)
}

func FuzzIndex(f *testing.F) {
	shard := testFile(testTensor{"w", dtypeF32, []int{1}, make([]byte, 4)})
	for _, index := range []string{
		`{"metadata":{"total_size":4},"weight_map":{"w":"1"}}`, `{"weight_map":{"w":"1","x":"2"}}`, `{"weight_map":{}}`,
	} {
		f.Add([]byte(index), shard)
	}
	f.Fuzz(func(t *testing.T, index, shard []byte) {
		var err error
		files := fstest.MapFS{indexFile: {Data: index}, "1": {Data: shard}, "2": {Data: testFile()}}
		bounded.Run(t, 8*(len(index)+len(shard))+1<<20, func() { _, err = openCheckpoint(files, maxTensors) })
		if err != nil && errorKind(err) == nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("error of no kind: %v", err)
		}
	})
}
