//go:build !js && !wasip1

package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/internal/bounded"
)

// goldenTensor reads one tensor of golden.safetensors as numbers, and its shape.
func goldenTensor(t *testing.T, dir, name string) ([]float64, []int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	n := 8 + int(binary.LittleEndian.Uint64(data))
	var header map[string]struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(data[8:n], &header); err != nil {
		t.Fatal(err)
	}
	h, ok := header[name]
	if !ok {
		t.Fatalf("%s has no %s", dir, name)
	}
	var values []float64
	for data := data[n+h.Offsets[0] : n+h.Offsets[1]]; len(data) > 0; data = data[4:] {
		bits := binary.LittleEndian.Uint32(data)
		if h.DType == "I32" {
			values = append(values, float64(int32(bits)))
		} else {
			values = append(values, float64(math.Float32frombits(bits)))
		}
	}
	return values, h.Shape
}

// writeGolden makes golden.json, which train/export.py writes for real models, from a golden model's vectors.
func writeGolden(t *testing.T, from, dir string, change func(g *golden)) {
	t.Helper()
	ids, _ := goldenTensor(t, from, "ids")
	logits, shape := goldenTensor(t, from, "logits")
	g := &golden{Tolerance: 1e-4}
	for _, id := range ids {
		g.IDs = append(g.IDs, int(id))
	}
	vocab := shape[1]
	for _, n := range []int{0, 1, len(ids) - 1} {
		row := logits[n*vocab:][:vocab]
		indices, values, sum := []int{0, vocab / 2, vocab - 1}, []float64{}, 0.0
		for _, i := range indices {
			values = append(values, row[i])
		}
		top := slices.Max(row)
		for _, v := range row {
			sum += math.Exp(v - top)
		}
		g.Rows, g.Indices, g.Values = append(g.Rows, n), append(g.Indices, indices), append(g.Values, values)
		g.LogSumExp = append(g.LogSumExp, top+math.Log(sum))
	}
	if change != nil {
		change(g)
	}
	data, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "golden.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	dirs, err := filepath.Glob("../../testdata/golden/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no golden models", err)
	}
	for _, from := range dirs {
		dir := copyModel(t, from)
		out, _ := call(t, 0, "", "verify", dir)
		want(t, out, "all finite", "not checked")
		writeGolden(t, from, dir, nil)
		out, _ = call(t, 0, "", "verify", dir)
		want(t, out, "agree with golden.json")
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	const from = "../../testdata/golden/photon-local-f32"
	dir := copyModel(t, from)
	for name, change := range map[string]func(g *golden){
		"a logit":                   func(g *golden) { g.Values[1][1] += 1e-2 },
		"a NaN of the logits":       func(g *golden) { g.LogSumExp[2] += 1e-2 },
		"rows beyond the text":      func(g *golden) { g.Rows[1] = len(g.IDs) },
		"ids beyond the vocabulary": func(g *golden) { g.IDs[0] = 1 << 20 },
		"negative indices":          func(g *golden) { g.Indices[0][0] = -1 },
		"lists of unequal length":   func(g *golden) { g.Values = g.Values[:1] },
		"no tolerance":              func(g *golden) { g.Tolerance = 0 },
		"a tolerance of anything":   func(g *golden) { g.Tolerance, g.Values[1][1] = 1e308, 7 },
		"a tolerance of a share":    func(g *golden) { g.Tolerance = 0.5 },
		"a book":                    func(g *golden) { g.IDs = slices.Repeat(g.IDs, 1<<10) },
		"a huge value":              func(g *golden) { g.Values[1][1] = 1e308 },
	} {
		writeGolden(t, from, dir, change)
		_, errs := call(t, exitInvalidModel, "", "verify", dir)
		want(t, errs, "golden.json")
		if t.Failed() {
			t.Fatal(name)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "golden.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	call(t, exitInvalidModel, "", "verify", dir)
	path := filepath.Join(dir, "golden.json")
	for name, make := range map[string]func() error{
		"an endless file": func() error { return os.Symlink("/dev/zero", path) },
		"a directory":     func() error { return os.Mkdir(path, 0o755) },
		"4 MiB of ids": func() error {
			return os.WriteFile(path, []byte(`{"ids":[`+strings.Repeat("0,", 2<<20)+`0]}`), 0o644)
		},
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := make(); err != nil {
			t.Logf("%s: %v", name, err)
		}
		_, errs := call(t, exitInvalidModel, "", "verify", dir)
		want(t, errs, "golden.json")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}

	weights := filepath.Join(dir, "model.safetensors")
	data, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	for _, bits := range []uint32{0x7fc00000, 0xff800000} { // NaN, -Inf
		bad := slices.Clone(data)
		binary.LittleEndian.PutUint32(bad[len(bad)-4:], bits)
		if err := os.WriteFile(weights, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		_, errs := call(t, exitInvalidModel, "", "verify", dir)
		want(t, errs, "1 of ", "not finite", "tensor")
	}
	if err := os.WriteFile(weights, data[:len(data)-1], 0o644); err != nil {
		t.Fatal(err)
	}
	_, errs := call(t, exitInvalidModel, "", "verify", dir)
	want(t, errs, "truncated")
}

// Any flipped bit of any file shows in its hash.
func TestVerifySums(t *testing.T) {
	dir := copyModel(t, "../../testdata/golden/photon-shards-bf16")
	names := []string{"config.json", "model-00002-of-00003.safetensors", "model.safetensors.index.json"}
	sums := filepath.Join(dir, sumsFile)
	var list strings.Builder
	for i, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&list, "%x %s%s\n", sha256.Sum256(data), []string{" ", "*"}[i%2], name)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(sums, list.String())
	out, _ := call(t, 0, "", "verify", dir)
	want(t, out, "3 files are as SHA256SUMS says")

	r := rand.New(rand.NewPCG(84, 0))
	files := os.DirFS(dir)
	found := 0
	for range *flips {
		path := filepath.Join(dir, names[r.IntN(len(names))])
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bit := r.IntN(8 * len(data))
		data[bit/8] ^= 1 << (bit % 8)
		write(path, string(data))
		if _, err := checkSums(t.Context(), files); !errors.Is(err, photon.ErrMismatch) || !strings.Contains(err.Error(), filepath.Base(path)) {
			t.Fatalf("bit %d of %s: %v", bit, path, err)
		}
		data[bit/8] ^= 1 << (bit % 8)
		write(path, string(data))
		found++
	}
	t.Logf("figure: %d flipped bits are found", found)

	for text, says := range map[string]string{
		"":                                      "empty",
		"\n":                                    "line 1 is not",
		"00  x\n":                               "line 1 is not",
		list.String() + strings.Repeat("0", 64): "line 4 is not",
		list.String() + strings.Repeat("0", 64) + "  ../config.json": "line 4 is not",
		strings.Repeat("0", 64) + "  config.json\n":                  "want 0000",
		strings.Repeat("0", 64) + "  .\n":                            "not a regular file",
	} {
		write(sums, text)
		_, errs := call(t, exitInvalidModel, "", "verify", dir)
		want(t, errs, "SHA256SUMS", says)
	}
	write(sums, list.String()+strings.Repeat("0", 64)+"  none\n")
	_, errs := call(t, exitNotFound, "", "verify", dir)
	want(t, errs, `SHA256SUMS: line 4: "none": `)
}

var flips = flag.Int("flips", 100, "bits that TestVerifySums flips")

func FuzzGolden(f *testing.F) {
	f.Add([]byte(`{"ids":[1,2],"rows":[0,2],"indices":[[0],[3,4]],"values":[[0.5],[1,-1]],` +
		`"logsumexp":[3,4],"tolerance":1e-4}`))
	f.Add([]byte(`{"ids":[1],"rows":[],"tolerance":1e308}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var g *golden
		var err error
		files := fstest.MapFS{"golden.json": {Data: data}}
		bounded.Run(t, 8*len(data)+1<<20, func() { g, err = readGolden(files, photon.Config{VocabSize: 61}) })
		if err != nil {
			if !errors.Is(err, photon.ErrCorrupt) && !errors.Is(err, photon.ErrUnsupported) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if len(g.IDs) == 0 || len(g.IDs) > maxGoldenIDs || !(g.Tolerance > 0 && g.Tolerance <= maxTolerance) {
			t.Fatalf("%d ids, tolerance %g", len(g.IDs), g.Tolerance)
		}
	})
}
