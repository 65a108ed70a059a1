package photon

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCheckWeights(t *testing.T) {
	dirs, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no golden models", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			info, err := Inspect(os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, "model*.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			onDisk := int64(0) // all but the headers
			for _, name := range files {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				onDisk += int64(len(data)) - 8 - int64(binary.LittleEndian.Uint64(data))
			}
			sum := int64(0)
			for _, n := range info.DTypes {
				sum += n
			}
			if info.WeightBytes != onDisk || sum != onDisk || info.Tensors < len(specsOf(info.Config)) {
				t.Errorf("%d bytes in %d tensors, %v by dtype; the files hold %d", info.WeightBytes, info.Tensors, info.DTypes, onDisk)
			}
			var done, total int64
			if _, err := CheckWeights(os.DirFS(dir), func(d, n int64) { done, total = d, n }); err != nil {
				t.Error(err)
			}
			if done != onDisk || total != onDisk {
				t.Errorf("progress ended at %d of %d, want %d", done, total, onDisk)
			}
		})
	}
}

// readModel reads a model directory into memory.
func readModel(t testing.TB, dir string) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = &fstest.MapFile{Data: data}
	}
	return files
}

func TestCheckWeightsFindsDamage(t *testing.T) {
	for dir, nan := range map[string]func(data []byte, at int){ // what a NaN is in each number format
		"photon-local-f32": func(data []byte, at int) {
			binary.LittleEndian.PutUint32(data[at:], math.Float32bits(float32(math.NaN())))
		},
		"flat-tied-f16":      func(data []byte, at int) { binary.LittleEndian.PutUint16(data[at:], 0x7e00) },
		"photon-stream-bf16": func(data []byte, at int) { binary.LittleEndian.PutUint16(data[at:], 0xff80) },
	} {
		files := readModel(t, filepath.Join("testdata/golden", dir))
		c, err := openCheckpoint(files, maxTensors)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.tensors { // the last weight of each tensor, one tensor at a time
			stored := c.tensors[i]
			file := files[c.files[stored.file].name]
			whole := file.Data
			file.Data = append([]byte(nil), whole...)
			nan(file.Data, int(stored.end)-stored.dtype.size())
			if _, err := CheckWeights(files, nil); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), `"`+stored.name+`"`) {
				t.Fatalf("%s: a NaN in %s: %v", dir, stored.name, err)
			}
			file.Data = whole
		}
	}
	files := readModel(t, "testdata/golden/photon-local-f32")
	weights := files[weightsFile]
	delete(files, weightsFile)
	if _, err := Inspect(files); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no weights: %v", err)
	}
	files[weightsFile] = weights
	files[configFile] = readModel(t, "testdata/golden/block-f32")[configFile]
	if _, err := Inspect(files); !errors.Is(err, ErrMismatch) {
		t.Errorf("another model's config: %v", err)
	}
	delete(files, configFile)
	if _, err := Inspect(files); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no config: %v", err)
	}
}
