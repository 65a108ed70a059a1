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
	"testing"
	"time"
)

// TestReplacedWhileLoading: while a model is loaded, its files are replaced, rewritten in their place, cut off and
// taken away at random moments. What comes out is the old model, the new one, or an error, and never one of both.
func TestReplacedWhileLoading(t *testing.T) {
	base := t.TempDir()
	c := flat(3000, presetStack(128, 512, 4, 4))
	random := func(name string, seed uint64, c Config) (dir string) {
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
	old, fresh := random("old", 1, c), random("new", 2, turned)
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
	third := filepath.Join(base, "third") // the old config with the new weights
	if err := os.CopyFS(third, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(third, weightsFile), weights)
	sums := map[[32]byte]string{fingerprint(old): "old", fingerprint(fresh): "new", fingerprint(third): "third"}
	began := time.Now()
	fingerprint(old)
	took := time.Since(began)

	r := rand.New(rand.NewPCG(88, 0))
	outcomes := map[string]int{}
	for round := range times(40, 1000) {
		// The model is a link to a folder that is as old as a model's files are.
		dir, folder := filepath.Join(base, "model"), filepath.Join(base, fmt.Sprint(round))
		if err := os.CopyFS(folder, os.DirFS(old)); err != nil {
			t.Fatal(err)
		}
		past := time.Now().Add(-time.Hour)
		for _, name := range []string{configFile, weightsFile} {
			if err := os.Chtimes(filepath.Join(folder, name), past, past); err != nil {
				t.Fatal(err)
			}
		}
		link := func(to string) error {
			return errors.Join(os.Symlink(to, dir+".tmp"), os.Rename(dir+".tmp", dir))
		}
		if err := link(folder); err != nil {
			t.Fatal(err)
		}
		kind := []string{"folder", "replaced", "rewritten", "truncated", "removed"}[r.IntN(5)]
		becomes := "third"
		if kind == "folder" {
			becomes = "new"
		}
		wait, lead := time.Duration(r.Int64N(int64(took))), time.Duration(r.Int64N(int64(took)))
		cut := r.Int64N(int64(len(weights)))
		changed := beside(func() error {
			time.Sleep(wait)
			path := filepath.Join(folder, weightsFile)
			switch kind {
			case "folder":
				return link(fresh)
			case "replaced":
				return errors.Join(os.WriteFile(path+".tmp", weights, 0o644), os.Rename(path+".tmp", path))
			case "truncated":
				return os.Truncate(path, cut)
			case "removed":
				return os.Remove(path)
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			for at := 0; at < len(weights) && err == nil; at += 1 << 18 {
				_, err = f.WriteAt(weights[at:min(len(weights), at+1<<18)], int64(at))
			}
			return errors.Join(err, f.Close())
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
		case sums[m.fingerprint()] == "old" || sums[m.fingerprint()] == becomes:
			outcomes["the "+sums[m.fingerprint()]+" model"]++
		default:
			t.Fatalf("round %d: %s after %v of %v, and the model is neither the old nor the new: %q", round, kind, wait, took,
				sums[m.fingerprint()])
		}
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
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
