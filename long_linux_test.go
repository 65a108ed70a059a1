package photon

import (
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFarPositions: what a window sees of a text gives the same logits a million tokens later, for a rotation is turned
// back by an earlier one, whatever max_position_embeddings says.
func TestFarPositions(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("reads a million tokens")
	}
	const far = 1<<20 + 1<<18
	windowed := testStack(16, 2, 2, 1, 8, 16, 8, 10000)
	unit := testStack(16, 1, 2, 2, 8, 16, 0, 10000)
	hierarchy := narrow(func(c *Config, l *LevelConfig) {
		c.VocabSize, c.EmbeddingSize = 30, 16
		l.ChunkSize, l.Encoder, l.Decoder = 2, windowed, unit
	})
	for name, c := range map[string]Config{"flat": flatWindow(8), "a level": hierarchy} {
		m, _ := randomModel(t, rand.New(rand.NewPCG(89, 0)), c)
		tail := randomText(m, 200)
		short, long := m.NewSession(), m.NewSession()
		if err := short.Append(background, tail...); err != nil {
			t.Fatal(err)
		}
		if err := long.Append(background, append(longIDs(m, far), tail...)...); err != nil {
			t.Fatal(err)
		}
		largest := 0.0
		for _, v := range short.Logits() {
			largest = max(largest, math.Abs(float64(v)))
		}
		near(t, name, long.Logits(), short.Logits(), agreement*largest)
		// And there what is read token by token is what is read at once.
		again := long.Fork()
		for _, id := range tail[:20] {
			if err := again.Append(background, id); err != nil {
				t.Fatal(err)
			}
			again.Logits()
		}
		if err := long.Append(background, tail[:20]...); err != nil {
			t.Fatal(err)
		}
		near(t, name+", bits", again.Logits(), long.Logits(), 0)
	}
	files := readModel(t, "testdata/golden/flat-gqa-f32")
	before, err := LoadFS(files)
	if err != nil {
		t.Fatal(err)
	}
	files[configFile].Data = editedConfig(t, "flat-gqa-f32", "max_position_embeddings", "16")
	m, err := LoadFS(files)
	if err != nil {
		t.Fatal(err)
	}
	text := randomText(m, 100)
	got, err := m.Logits(background, text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := before.Logits(background, text)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "beyond max_position_embeddings", got[61:], want[61:], 0) // the first row is of nothing
}

// TestLongSession: a text that is written token by token for long is, bit for bit, the one that is read at once.
func TestLongSession(t *testing.T) {
	if raceEnabled {
		t.Skip("takes minutes")
	}
	n := times(1000, 20_000)
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		s := m.NewSession(MaxTokens(-1), Temperature(3))
		if err := s.Append(background, g.ids...); err != nil {
			t.Fatal(err)
		}
		for s.Len() < n {
			for _, err := range s.Generate(background) {
				if err != nil {
					t.Fatal(err)
				}
				if s.Len() == n {
					break
				}
			}
			if s.Len() < n { // it has ended itself
				if err := s.Append(background, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		whole := m.NewSession()
		if err := whole.Append(background, s.ids...); err != nil {
			t.Fatal(err)
		}
		near(t, "logits", s.Logits(), whole.Logits(), 0)
		if got, most := s.Stats().StateBytes, m.cfg.StateBytes(s.Len(), m.cacheType); got > most {
			t.Errorf("%d bytes of state, %d at most", got, most)
		}
	}, WithThreads(1))
	figure(t, "%d models, texts of %d tokens", len(goldenDirs(t)), n)
}

var soakTime = flag.Duration("soak", time.Second, "how long TestSoak runs")

// TestSoak: models are loaded, used at random by 8 goroutines, and closed, for as long as -soak says. Memory,
// goroutines and descriptors are those of its first tenth.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("a second and more")
	}
	dirs := goldenDirs(t)
	began := time.Now()
	r := rand.New(rand.NewPCG(90, 0))
	var operations atomic.Int64
	var first [3]int64 // resident bytes, goroutines, descriptors
	descriptors := func() int64 {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return int64(len(list))
	}
	measure := func() [3]int64 {
		runtime.GC()
		now, _ := resident(t)
		return [3]int64{now, int64(runtime.NumGoroutine()), descriptors()}
	}
	models := 0
	for last := began; time.Since(began) < *soakTime && !t.Failed(); models++ {
		m, err := Load(dirs[r.IntN(len(dirs))], WithThreads(2), WithCache(cacheTypes[r.IntN(3)]))
		if err != nil {
			t.Fatal(err)
		}
		b := m.NewBatcher(MaxTexts(1+r.IntN(8)), PrefillSlice(r.IntN(9)))
		end := time.Now().Add(min(10*time.Second, *soakTime/20))
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				w := &sessionWorker{t: t, m: m, b: b, r: rand.New(rand.NewPCG(uint64(models), uint64(i)))}
				for w.begin(); time.Now().Before(end) && !t.Failed(); {
					w.operation()
				}
				operations.Add(int64(w.operations))
			})
		}
		all.Wait()
		b.Close()
		m.Close()
		if first[0] == 0 && time.Since(began) > *soakTime/10 {
			first = measure()
		}
		if time.Since(last) > 5*time.Minute {
			last = time.Now()
			t.Logf("after %v: %v", time.Since(began).Round(time.Second), measure())
		}
	}
	now := measure()
	if now[0] > first[0]*5/4+16<<20 || now[1] > first[1] || now[2] > first[2] {
		t.Errorf("resident bytes, goroutines, descriptors: %v, in the beginning %v", now, first)
	}
	figure(t, "%v: %d models, %d operations; resident bytes, goroutines, descriptors %v, in the beginning %v",
		time.Since(began).Round(time.Second), models, operations.Load(), now, first)
}

// TestCompany: a text's bits are the same with any number of threads, and in a batch of any size.
func TestCompany(t *testing.T) {
	most := times(16, 64)
	for _, dir := range goldenDirs(t) {
		var want [][]int
		for _, threads := range []int{1, 2, 3, 8} {
			m, err := Load(dir, WithThreads(threads))
			if err != nil {
				t.Fatal(err)
			}
			request := func(i int) Request {
				return Request{IDs: longIDs(m, 90)[i%50:][:1+i%37], Options: []Option{MaxTokens(12), Seed(uint64(i)), Temperature(2)}}
			}
			if want == nil {
				for i := range most {
					q := request(i)
					s := m.NewSession(q.Options...)
					if err := s.Append(background, q.IDs...); err != nil {
						t.Fatal(err)
					}
					ids, failed := collect(s, -1, nil)
					if failed != "" {
						t.Fatal(failed)
					}
					want = append(want, ids)
				}
			}
			for size := 1; size <= most; size += 1 + size/times(2, most+1) {
				var list []Request
				for i := range size {
					list = append(list, request((i+size)%most))
				}
				got := make([][]int, size)
				for token, err := range m.GenerateBatch(background, list) {
					if err != nil {
						t.Fatal(err)
					}
					if token.Stop != StopEOS {
						got[token.Request] = append(got[token.Request], token.ID)
					}
				}
				for i := range got {
					if want := want[(i+size)%most]; !slices.Equal(got[i], want) {
						t.Fatalf("%s: %d threads, text %d of %d: %v, alone %v", filepath.Base(dir), threads, i, size, got[i], want)
					}
				}
			}
			m.Close()
		}
	}
	figure(t, "threads 1, 2, 3, 8, batches of 1 … %d, %d models: the same tokens", most, len(goldenDirs(t)))
}
