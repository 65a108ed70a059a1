package photon

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/photon-lm/photon/internal/regular"
)

// TestQuantize: what is written is what holding the weights in that form makes of them, and it stays so when it is
// quantized again.
func TestQuantize(t *testing.T) {
	for _, dir := range []string{"testdata/golden/photon-local-f32", "testdata/golden/flat-tied-f16",
		"testdata/golden/photon-shards-bf16",
		"testdata/golden/three-unpack-bf16", "testdata/flats/qwen2-bf16", "testdata/flats/llama-linear-biases-f16",
		"testdata/flats/llama3-stored-head-bf16"} {
		for _, form := range []WeightType{Int8, Int4} {
			t.Run(filepath.Base(dir)+" "+form.String(), func(t *testing.T) {
				out, again := t.TempDir(), t.TempDir()
				files, err := Files(dir)
				if err != nil {
					t.Fatal(err)
				}
				if err := Quantize(background, out, files, form); err != nil {
					t.Fatal(err)
				}
				if err := Quantize(background, again, regular.Dir(out), form); err != nil {
					t.Fatal(err)
				}
				first, err1 := os.ReadFile(filepath.Join(out, weightsFile))
				second, err2 := os.ReadFile(filepath.Join(again, weightsFile))
				if form == Int8 && (err1 != nil || err2 != nil || !bytes.Equal(first, second)) {
					t.Errorf("quantized again it is another: %v, %v", err1, err2)
				}
				if text, err := os.ReadFile(filepath.Join(out, generationFile)); err != nil ||
					!strings.Contains(string(text), form.String()) {
					t.Errorf("%s, %v", text, err)
				}
				load := func(dir string, form WeightType) *Model {
					m, err := Load(dir, WithWeights(form))
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { m.Close() })
					return m
				}
				held, read := load(dir, form), load(out, form)
				for i, d := range held.decoders {
					for n := range d.stack.layers {
						a, b := &d.stack.layers[n], &read.decoders[i].stack.layers[n]
						for _, pair := range [][2]*matrix{{a.qkv, b.qkv}, {a.out, b.out}, {a.gateUp, b.gateUp}, {a.down, b.down}} {
							if !bytes.Equal(pair[0].quant, pair[1].quant) {
								t.Fatalf("level %d, layer %d: a matrix is another", i+1, n)
							}
						}
					}
				}
				g := readGolden(t, filepath.Join(dir, "golden.safetensors"))
				exact, err := load(dir, F32).Logits(background, g.ints["ids"])
				if err != nil {
					t.Fatal(err)
				}
				vocab := held.Config().VocabSize
				exact = exact[vocab:] // the first row may be none
				got, err := load(out, F32).Logits(background, g.ints["ids"])
				if err != nil {
					t.Fatal(err)
				}
				limit := map[WeightType]float64{Int8: 0.1, Int4: 0.8}[form] // the matrices are exactly as they should be
				if d := distance(got[vocab:], exact) / distance(exact, make([]float32, len(exact))); d > limit || d == 0 {
					t.Errorf("the logits are off by %.3g of their size", d)
				}
			})
		}
	}
}

func TestQuantizeRefuses(t *testing.T) {
	small := regular.Dir("testdata/flats/qwen3-f32")
	ended, cancel := context.WithCancel(background)
	cancel()
	for _, test := range []struct {
		ctx   context.Context
		files fs.FS
		form  WeightType
		want  error
	}{
		{background, small, BF16, ErrInvalid},
		{background, nil, Int8, ErrInvalid},
		{background, fstest.MapFS{}, Int8, fs.ErrNotExist},
		{background, fstest.MapFS{"model.gguf": {}}, Int8, ErrUnsupported},
		{ended, small, Int4, context.Canceled},
	} {
		dir := t.TempDir()
		if err := Quantize(test.ctx, dir, test.files, test.form); !errors.Is(err, test.want) {
			t.Errorf("%v, want %v", err, test.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%v is left, %v", left, err)
		}
	}
}

// A directory that holds anything, be it of another model, stays as it is.
func TestQuantizeIntoAnother(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, tokenizerFileName)
	if err := os.WriteFile(name, []byte("another's"), 0o666); err != nil {
		t.Fatal(err)
	}
	err := Quantize(background, dir, regular.Dir("testdata/flats/qwen3-f32"), Int8)
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), dir) ||
		!strings.Contains(err.Error(), tokenizerFileName) {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v is left, %v", left, err)
	}
	if err := Quantize(background, name, regular.Dir("testdata/flats/qwen3-f32"), Int8); err == nil {
		t.Error("a file is taken for a directory")
	}
}

// What is wrong with the model that is read is told as Load tells it, and nothing of the other is left.
func TestQuantizeDamaged(t *testing.T) {
	files := readModel(t, "testdata/golden/photon-local-i8")
	c, err := openCheckpoint(files, maxTensors)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.tensors, func(t storedTensor) bool { return t.dtype == dtypeI8 })
	files[weightsFile].Data[c.tensors[i].begin] = 0x80 // no integer of this form
	dir := t.TempDir()
	checkRefused(t, Quantize(background, dir, files, Int8), ErrCorrupt, weightsFile, c.tensors[i].name, "-128")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestInt4Form holds the reading of the int4 form to its definition, and refuses what is none.
func TestInt4Form(t *testing.T) {
	weights := func(rows, columns int) []byte { return bytes.Repeat([]byte{0x9f}, rows*columns) } // 7 and 1
	scales := testTensor{"w.scales", dtypeF32, []int{1, 2}, floats(2, 3)}
	c, err := openCheckpoint(fstest.MapFS{weightsFile: {Data: testFile(testTensor{"w", dtypeI4, []int{1, 32},
		weights(1, 32)}, scales)}}, maxTensors)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.match(slices.Values([]tensorSpec{{"w", []int{1, 40}}}), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.each(func(d tensorData) error {
		row := make([]float32, 40)
		d.float32s(row, 0, 40)
		for i, v := range row {
			want := float32([]int{7, 1}[i%32/16]) * []float32{2, 3}[i/32]
			if v != want {
				t.Errorf("weight %d is %v, want %v", i, v, want)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"half a group":  testFile(testTensor{"w", dtypeI4, []int{1, 24}, weights(1, 24)}, scales),
		"few scales":    testFile(testTensor{"w", dtypeI4, []int{1, 48}, weights(1, 48)}, scales),
		"no scales":     testFile(testTensor{"w", dtypeI4, []int{1, 32}, weights(1, 32)}),
		"bytes of rank": testFile(testTensor{"w", dtypeI4, []int{32}, weights(1, 32)}, scales),
	} {
		if _, err := openCheckpoint(fstest.MapFS{weightsFile: {Data: file}}, maxTensors); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, shape := range [][]int{{1, 65}, {1, 32}, {2, 40}} {
		if err := c.match(slices.Values([]tensorSpec{{"w", shape}}), nil); !errors.Is(err, ErrMismatch) {
			t.Errorf("as %v: %v", shape, err)
		}
	}
}

func floats(values ...float32) []byte {
	data := make([]byte, 4*len(values))
	for i, v := range values {
		dtypeF32.put(data[4*i:], v)
	}
	return data
}
