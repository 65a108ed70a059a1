package photon

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func TestOddArguments(t *testing.T) {
	model := readModel(t, "testdata/golden/flat-gqa-f32")
	load := func(fsys fs.FS, opts ...LoadOption) error { _, err := LoadFS(fsys, opts...); return err }
	_, inspect := Inspect(nil)
	_, check := CheckWeights(nil, nil)
	for name, err := range map[string]error{
		"LoadFS(nil)": load(nil), "Inspect(nil)": inspect, "CheckWeights(nil)": check,
		"no threads": load(model, WithThreads(0)), "a million threads": load(model, WithThreads(1<<20)), "-1 threads": load(model, WithThreads(-1)),
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
