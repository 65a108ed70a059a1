package photon

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWriteRandom(t *testing.T) {
	cfg := photonConfig()
	for _, dtype := range []string{"BF16", "F32"} {
		dir := filepath.Join(t.TempDir(), "new", "model")
		if err := WriteRandom(dir, cfg, 7, dtype); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 {
			t.Fatalf("the directory has %v, %v", entries, err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(cfg, got); diff != "" {
			t.Error(diff)
		}
		values, err := readAll(os.DirFS(dir), specsOf(cfg))
		if err != nil {
			t.Fatal(err)
		}
		ckpt, err := openCheckpoint(os.DirFS(dir), maxTensors)
		if err != nil {
			t.Fatal(err)
		}
		for name, x := range values {
			if stored, _ := ckpt.dtypeOf(name); stored.String() != dtype {
				t.Errorf("%s is %v, want %s", name, stored, dtype)
			}
			var sum, squares float64
			for _, v := range x {
				sum += float64(v)
				squares += float64(v) * float64(v)
			}
			n := float64(len(x))
			mean, deviation := sum/n, math.Sqrt(squares/n)
			switch {
			case strings.HasSuffix(name, "norm.weight"):
				if mean != 1 || deviation != 1 {
					t.Errorf("%s is not 1", name)
				}
				continue
			case strings.HasSuffix(name, ".bias"):
				if squares != 0 {
					t.Errorf("%s is not 0", name)
				}
				continue
			}
			want := 0.02
			if strings.Contains(name, "o_proj") || strings.Contains(name, "down_proj") {
				layers := 1.0
				if strings.HasPrefix(name, "levels.0.encoder") || strings.HasPrefix(name, "levels.1.decoder") {
					layers = 2
				}
				want /= math.Sqrt(2 * layers)
			}
			if math.Abs(mean) > 5*want/math.Sqrt(n) || math.Abs(deviation-want) > 5*want/math.Sqrt(2*n) {
				t.Errorf("%s: mean %g, deviation %g of %g elements, want 0 and %g", name, mean, deviation, n, want)
			}
		}
		if cmp.Equal(values["decoder.embed_tokens.weight"], values["lm_head.weight"]) {
			t.Error("two tensors are the same")
		}
	}
}

func TestWriteRandomSeed(t *testing.T) {
	cfg := flat(50, presetStack(16, 24, 2, 2))
	write := func(seed uint64) []byte {
		dir := t.TempDir()
		if err := WriteRandom(dir, cfg, seed, "BF16"); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, weightsFile))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	first := write(1)
	if !cmp.Equal(first, write(1)) {
		t.Error("one seed, two files")
	}
	if cmp.Equal(first, write(2)) {
		t.Error("two seeds, one file")
	}
	// The same on every machine.
	if got, want := crc32.ChecksumIEEE(first), uint32(0x4b492f94); got != want {
		t.Errorf("checksum %#08x, want %#08x", got, want)
	}
}

func TestWriteRandomRefuses(t *testing.T) {
	dir := t.TempDir()
	cfg := photonConfig()
	checkRefused(t, WriteRandom(dir, cfg, 0, "F64"), ErrInvalid, `"F64"`)
	bad := cfg
	bad.VocabSize = 0
	checkRefused(t, WriteRandom(dir, bad, 0, "F32"), ErrInvalid, "vocab_size is 0")
	checkRefused(t, WriteRandom("", cfg, 0, "F32"), ErrInvalid, "empty")
	if err := WriteRandom(dir, bad, 0, "F32"); strings.Contains(err.Error(), "corrupt") {
		t.Errorf("%v: nothing is read", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("a refused model leaves %v", entries)
	}
	for _, name := range []string{"config.json", weightsFile, indexFile} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o666); err != nil {
			t.Fatal(err)
		}
		checkRefused(t, WriteRandom(dir, cfg, 0, "F32"), fs.ErrExist, name, dir)
		if data, _ := os.ReadFile(filepath.Join(dir, name)); string(data) != "mine" {
			t.Errorf("%s is overwritten", name)
		}
	}
}

// Cut short, it leaves of the directories only those that were there.
func TestWriteRandomCancelled(t *testing.T) {
	dir := t.TempDir()
	cfg := flat(300, presetStack(64, 128, 2, 2))
	cancelled := &looking{Context: background, n: 2}
	err := WriteRandomContext(cancelled, filepath.Join(dir, "a", "b", "c"), cfg, 1, "F32")
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// A model of the second format: what writes to the residual stream counts the layers of its own stack.
func TestWriteRandom2(t *testing.T) {
	cfg, dir := format2Config(), filepath.Join(t.TempDir(), "model")
	if err := WriteRandom(dir, cfg, 7, "F32"); err != nil {
		t.Fatal(err)
	}
	values, err := readAll(os.DirFS(dir), specsOf(cfg))
	if err != nil {
		t.Fatal(err)
	}
	for name, layers := range map[string]float64{
		"token_encoder.layers.1.self_attn.o_proj.weight": 2, "levels.0.encoder.layers.0.mlp.down_proj.weight": 1,
		"levels.0.decoder.layers.2.memory_attn.0.o_proj.weight": 3, "levels.0.decoder.memories.0.sink": .5,
		"levels.0.decoder.memories.0.k_proj.weight": .5,
	} {
		squares, n := 0.0, float64(len(values[name]))
		for _, v := range values[name] {
			squares += float64(v) * float64(v)
		}
		want := 0.02 / math.Sqrt(2*layers)
		if got := math.Sqrt(squares / n); !(math.Abs(got-want) <= 5*want/math.Sqrt(2*n)) {
			t.Errorf("%s: deviation %g, want %g", name, got, want)
		}
	}
	m, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	logits, err := m.Logits(background, []int{1, 2, 3, 4, 5})
	if err != nil || len(logits) != 6*cfg.VocabSize || logits[0] != logits[0] {
		t.Errorf("%v, %v", len(logits), err)
	}
}

// A write that fails leaves nothing behind, and not half of the name.
func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "x")
	full := errors.New("disk full")
	err := writeFile(name, func(w io.Writer) error {
		w.Write(make([]byte, 3<<20))
		return full
	})
	checkRefused(t, err, full, name)
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("it leaves %v", entries)
	}
}
