package photon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/photon-lm/photon/internal/bounded"
)

func TestOddArguments(t *testing.T) {
	model := readModel(t, "testdata/golden/flat-gqa-f32")
	load := func(fsys fs.FS, opts ...LoadOption) error { _, err := LoadFS(fsys, opts...); return err }
	_, inspect := Inspect(nil)
	_, check := CheckWeights(nil, nil)
	_, empty := Load("")
	_, nul := Load("a\x00b")
	for name, err := range map[string]error{
		"LoadFS(nil)": load(nil), "Inspect(nil)": inspect, "CheckWeights(nil)": check,
		"no threads": load(model, WithThreads(0)), "a million threads": load(model, WithThreads(1<<20)), "-1 threads": load(model, WithThreads(-1)),
		"no name": empty, "no possible name": nul,
		"no such weights": load(model, WithWeights(99)), "no such cache": load(model, WithCache(-1)),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := load(model, nil, WithThreads(maxThreads)); err != nil {
		t.Error(err)
	}
}

// Names from a file that are none, or that would do something to whoever reads the error.
func TestIndexNames(t *testing.T) {
	for _, name := range []string{"\x00", "a\x00b", "a\nb", "\x1b[2Jx", "\u202ex", "\u2028", "\u00a0", strings.Repeat("x", 256), "", ".", "..", "a/b", `a\b`, "c:x", "/x"} {
		if isFileName(name) {
			t.Errorf("%q is taken for a file name", name)
		}
		quoted := fmt.Sprintf("%+q", name)
		quoted = strings.NewReplacer(`\x`, `\u00`, `\a`, `\u0007`).Replace(quoted)
		index := fmt.Sprintf(`{"weight_map":{"w":%s}}`, quoted)
		_, err := readAll(fstest.MapFS{indexFile: {Data: []byte(index)}}, nil)
		checkRefused(t, err, ErrCorrupt, "is no file of this directory")
		if strings.ContainsAny(err.Error(), "\x00\x1b\n\u202e\u2028") {
			t.Errorf("error %q shows the name as it is", err)
		}
	}
	for _, name := range []string{"model.safetensors", "model-00001-of-00002.safetensors", "x", "größe 1", strings.Repeat("x", 255)} {
		if !isFileName(name) {
			t.Errorf("%q is not taken for a file name", name)
		}
	}
}

// eachModelFiles runs f with every golden model in memory.
func eachModelFiles(t *testing.T, f func(t *testing.T, files fstest.MapFS)) {
	for _, dir := range goldenDirs(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) { f(t, readModel(t, dir)) })
	}
}

func goldenDirs(t testing.TB) []string {
	dirs, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no golden models", err)
	}
	return dirs
}

// No file of a model that ends early passes, wherever it ends: the error is of a kind, and says which file and where.
func TestGoldenPrefixes(t *testing.T) {
	prefixes := 0
	eachModelFiles(t, func(t *testing.T, files fstest.MapFS) {
		delete(files, "golden.safetensors")
		for name, file := range files {
			original := file.Data
			whole := original
			if strings.HasSuffix(name, ".json") {
				whole = bytes.TrimRight(whole, "\n")
			}
			n, header := 0, len(whole)
			if strings.HasSuffix(name, ".safetensors") {
				header = 8 + int(binary.LittleEndian.Uint64(whole))
			}
			for n < len(whole) {
				file.Data = whole[:n]
				_, err := LoadFS(files)
				if kind := errorKind(err); kind == nil || !strings.Contains(err.Error(), name) || !place.MatchString(err.Error()) {
					t.Fatalf("the first %d of %d bytes of %s: %v", n, len(whole), name, err)
				}
				prefixes++
				if n++; testing.Short() {
					n += len(whole) / 50
				} else if n > header+64 && !*campaign {
					n += 61
				}
			}
			file.Data = original
		}
	})
	figure(t, "%d prefixes are refused with file and place", prefixes)
}

// place is where in a file something is, as errors say it.
var place = regexp.MustCompile(`\bbytes? [0-9]+|\b[0-9]+ (of [0-9]+ )?bytes`)

// errorKind is what an error of bad files matches.
func errorKind(err error) error {
	for _, kind := range []error{ErrCorrupt, ErrUnsupported, ErrMismatch} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return nil
}

// A header with a flipped bit is refused, or says the same as before.
func TestGoldenHeaderFlips(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	refused, same := 0, 0
	eachModelFiles(t, func(t *testing.T, files fstest.MapFS) {
		_, want, err := inspect(files)
		if err != nil {
			t.Fatal(err)
		}
		flip := func(name string, bit int) {
			file := files[name].Data
			file[bit/8] ^= 1 << (bit % 8)
			_, got, err := inspect(files)
			file[bit/8] ^= 1 << (bit % 8)
			switch {
			case err == nil && !reflect.DeepEqual(got.tensors, want.tensors):
				t.Fatalf("bit %d of %s: other tensors pass", bit, name)
			case err == nil:
				same++
			case errorKind(err) == nil:
				t.Fatalf("bit %d of %s: %v matches no sentinel", bit, name, err)
			default:
				refused++
			}
		}
		for _, w := range want.files {
			if *campaign {
				for bit := range 8 * int(w.data) {
					flip(w.name, bit)
				}
			}
			for range times(1000, 0) {
				flip(w.name, random.IntN(8*int(w.data)))
			}
		}
	})
	figure(t, "of %d flipped bits of headers %d are refused, %d change nothing", refused+same, refused, same)
}

// Weights with a flipped bit load or are refused by a kind; what loads runs, and is not taken for the model that it
// was.
func TestGoldenDataFlips(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	loaded, refused := 0, 0
	eachModelFiles(t, func(t *testing.T, files fstest.MapFS) {
		whole, err := LoadFS(files, WithThreads(1))
		if err != nil {
			t.Fatal(err)
		}
		_, weights, err := inspect(files)
		if err != nil {
			t.Fatal(err)
		}
		for range times(20, 10000/len(goldenDirs(t))+1) {
			w := weights.files[random.IntN(len(weights.files))]
			file := files[w.name].Data
			at := w.data + random.Int64N(w.size-w.data)
			bit := byte(1) << random.IntN(8)
			file[at] ^= bit
			m, err := LoadFS(files, WithThreads(1))
			file[at] ^= bit
			switch {
			case err == nil && m.fingerprint() == whole.fingerprint():
				t.Fatalf("byte %d of %s: flipped, and the same model", at, w.name)
			case err == nil:
				loaded++
				if _, err := m.Logits(background, []int{0, 1, 2, 0, 1, 2, 0}); err != nil {
					t.Fatalf("byte %d of %s: %v", at, w.name, err)
				}
			case errorKind(err) == nil:
				t.Fatalf("byte %d of %s: %v matches no sentinel", at, w.name, err)
			default:
				refused++
			}
		}
	})
	figure(t, "of %d flipped bits of weights %d load as another model, %d are refused", loaded+refused, loaded, refused)
}

// The int8 form excludes -128 and scales that turn signs around, in a file that seeks and in one that does not.
func TestInt8Bounds(t *testing.T) {
	data := make([]byte, 66)
	for i := range data {
		data[i] = byte(i) - 33
	}
	scales := func(last float32) []byte {
		b := make([]byte, 16)
		for i, s := range []float32{0, 1, 0.5, last} {
			dtypeF32.put(b[4*i:], s)
		}
		return b
	}
	for _, c := range []struct {
		integer byte
		scale   float32
		says    string
	}{{0x81, 2, ""}, {0x7f, 0, ""}, {0x80, 2, "integer 65 is -128"}, {1, -0.25, "scale 3 is -0.25"}} {
		data[65] = c.integer
		i8 := testTensor{"w", dtypeI8, []int{2, 33}, data}
		s := testTensor{"w.scales", dtypeF32, []int{2, 2}, scales(c.scale)}
		for _, file := range [][]byte{testFile(i8, s), testFile(s, i8)} {
			for _, seek := range []bool{true, false} {
				_, err := readAll(lyingFS{file, int64(len(file)), seek}, []tensorSpec{{"w", []int{2, 33}}})
				if c.says == "" && err != nil {
					t.Errorf("%v: %v", c, err)
				} else if c.says != "" {
					checkRefused(t, err, ErrCorrupt, weightsFile, c.says)
				}
			}
		}
	}
}

// A directory of any bytes is a model that works, or an error of a kind.
func FuzzLoad(f *testing.F) {
	tokenizer := []byte(`{"model":{"vocab":{"a":0},"merges":[]},"decoder":{"type":"ByteLevel"}}`)
	for _, name := range []string{"photon-local-f32", "photon-local-i8", "flat-tied-f16", "block-linear-stream-bf16"} {
		files := readModel(f, filepath.Join("testdata/golden", name))
		f.Add(files[configFile].Data, files[weightsFile].Data, tokenizer)
	}
	f.Add([]byte(llamaConfigText), testFile(), []byte("{}"))
	nfcTables()
	f.Fuzz(func(t *testing.T, config, weights, tokenizer []byte) {
		files := fstest.MapFS{configFile: {Data: config}, weightsFile: {Data: weights}, tokenizerFileName: {Data: tokenizer}}
		var m *Model
		var err error
		size := len(config) + len(weights) + len(tokenizer)
		bounded.Run(t, 8*size+1<<20, func() { m, err = LoadFS(files, WithThreads(1)) })
		if err != nil {
			if m != nil || errorKind(err) == nil {
				t.Fatalf("%v matches no sentinel", err)
			}
			return
		}
		ids := []int{0, m.Config().VocabSize - 1, 0}
		var logits []float32
		bounded.Run(t, 8*size+1<<20, func() { logits, err = m.Logits(t.Context(), ids) })
		if err != nil || len(logits) != (len(ids)+1)*m.Config().VocabSize {
			t.Fatalf("%d logits, %v", len(logits), err)
		}
		if m.Tokenizer() != nil {
			bounded.Run(t, 1<<20, func() { m.Tokenizer().Encode("a b") })
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A changingFS has a file that is written again when it is opened so many times.
type changingFS struct {
	fstest.MapFS
	name   string
	opened int
}

func (c *changingFS) Open(name string) (fs.File, error) {
	if name == c.name {
		if c.opened--; c.opened == 0 {
			file := *c.MapFS[name]
			file.ModTime = file.ModTime.Add(time.Second)
			c.MapFS[name] = &file
		}
	}
	return c.MapFS.Open(name)
}

// A file that is not, in the end, what it was when it was first opened is no model's.
func TestFileChanges(t *testing.T) {
	for _, name := range []string{configFile, weightsFile} {
		for opened, ok := range map[int]bool{1: true, 2: name == configFile} { // weights are opened twice
			files := &changingFS{readModel(t, "testdata/golden/photon-local-f32"), name, opened}
			if _, err := LoadFS(files); (err == nil) != ok || err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s is written before it is opened %d times: %v", name, opened, err)
			}
		}
	}
}

// A timedFile was last written at another time whenever it is looked at.
type timedFile struct {
	fs.File
	times *[]time.Time
}

func (f timedFile) Stat() (fs.FileInfo, error) {
	now := (*f.times)[0]
	*f.times = (*f.times)[1:]
	return fstest.MapFS{"x": {ModTime: now}}.Stat("x")
}

// A file that was just written is looked at again, until it was not, or is written on and on.
func TestSettled(t *testing.T) {
	now := time.Now()
	before, behind := now.Add(-time.Hour), now.Add(time.Hour)
	for _, test := range []struct {
		times []time.Time
		want  int // which of them
	}{{[]time.Time{before}, 0}, {[]time.Time{behind}, 0}, {[]time.Time{{}}, 0}, {[]time.Time{now, before}, 1}} {
		left := slices.Clone(test.times)
		info, err := settled(timedFile{times: &left})
		if err != nil || len(left) > 0 || !info.ModTime().Equal(test.times[test.want]) {
			t.Errorf("%v: %v, %d not looked at, %v", test.times, info.ModTime(), len(left), err)
		}
	}
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := settled(f); err != nil || time.Since(info.ModTime()) < 15*time.Millisecond {
		t.Errorf("written %v ago, %v", time.Since(info.ModTime()), err)
	}
}

// inspect is what Inspect reads, and where it lies.
func inspect(fsys fs.FS) (Info, *checkpoint, error) {
	c, err := openContents(fsys)
	return c.info, c.weights, err
}
