package photon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestReplacedWhileLoading: while a model is loaded, its files are replaced, rewritten in their place, cut off and taken
// away at random moments. What comes out is the old model, the new one, or an error, and never one of both.
func TestReplacedWhileLoading(t *testing.T) {
	base := t.TempDir()
	c := flat(3000, presetStack(128, 512, 4, 4))
	make := func(name string, seed uint64, c Config) (dir string) {
		dir = filepath.Join(base, name)
		if err := WriteRandom(dir, c, seed, "F32"); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	read := func(dir, name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	write := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	turned := c
	turned.Transformer.RopeTheta = 20000 // the same tensors, and another model
	old, fresh := make("old", 1, c), make("new", 2, turned)
	// The new weights have a header of the old one's length, but two tensors in one another's place.
	weights := read(fresh, weightsFile)
	header := weights[8 : 8+binary.LittleEndian.Uint64(weights)]
	for _, names := range [][2]string{{"layers.0.self_attn.q_proj", "layers.0.self_attn.?_proj"},
		{"layers.0.self_attn.o_proj", "layers.0.self_attn.q_proj"}, {"layers.0.self_attn.?_proj", "layers.0.self_attn.o_proj"}} {
		copy(header, bytes.Replace(header, []byte(names[0]), []byte(names[1]), 1))
	}
	write(filepath.Join(fresh, weightsFile), weights)
	fingerprint := func(dir string) [32]byte {
		m, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		return m.fingerprint()
	}
	names := []string{configFile, weightsFile}
	files := map[string]map[string][]byte{}
	for _, name := range names {
		files[name] = map[string][]byte{old: read(old, name), fresh: read(fresh, name)}
	}
	oldSum, newSum := fingerprint(old), fingerprint(fresh)
	dir := filepath.Join(base, "model")
	if err := os.CopyFS(dir, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if fingerprint(dir) != oldSum {
		t.Fatal("a copy is another model")
	}
	took := time.Since(began)

	r := rand.New(rand.NewPCG(88, 0))
	outcomes := map[string]int{}
	for round := range times(40, 1000) {
		for _, name := range names {
			path := filepath.Join(dir, name)
			write(path, files[name][old])
			past := time.Now().Add(-time.Hour) // as a model's files are
			if err := os.Chtimes(path, past, past); err != nil {
				t.Fatal(err)
			}
		}
		kind := []string{"replaced", "rewritten", "truncated", "removed"}[r.IntN(4)]
		wait, lead := time.Duration(r.Int64N(int64(took))), time.Duration(r.Int64N(int64(took)))
		changed := beside(func() error {
			time.Sleep(wait)
			for _, name := range names {
				path, data := filepath.Join(dir, name), files[name][fresh]
				var err error
				switch kind {
				case "replaced":
					write(path+".tmp", data)
					err = os.Rename(path+".tmp", path)
				case "rewritten":
					var f *os.File
					if f, err = os.OpenFile(path, os.O_WRONLY, 0); err == nil {
						for at := 0; at < len(data) && err == nil; at += 1 << 18 {
							_, err = f.WriteAt(data[at:min(len(data), at+1<<18)], int64(at))
						}
						err = errors.Join(err, f.Close())
					}
				case "truncated":
					err = os.Truncate(path, r.Int64N(int64(len(data))))
				case "removed":
					err = os.Remove(path)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		time.Sleep(lead / 2)
		m, err := Load(dir, WithThreads(1))
		if e := <-changed; e != nil {
			t.Fatal(e)
		}
		switch {
		case err != nil && errorKind(err) == nil && !errors.Is(err, fs.ErrNotExist):
			t.Fatalf("round %d, %s: %v matches no sentinel", round, kind, err)
		case err != nil:
			outcomes["an error"]++
		case m.fingerprint() == oldSum:
			outcomes["the old model"]++
		case m.fingerprint() == newSum:
			outcomes["the new model"]++
		default:
			t.Fatalf("round %d: %s after %v of %v, and the model is neither the old nor the new", round, kind, wait, took)
		}
	}
	figure(t, "%v", outcomes)
}

// beside runs f beside the caller.
func beside(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}
