package photon

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPeakResident: a process that loads a model with its plan as the limit, and reads and writes a text, never has
// more than 1.1 times that and the text's state resident, beside what it had before.
func TestPeakResident(t *testing.T) {
	if dir := os.Getenv("PHOTON_TEST_RESIDENT"); dir != "" {
		residentChild(t, dir)
		return
	}
	if raceEnabled || testing.Short() {
		t.Skip("writes some 200 MB")
	}
	wide := presetStack(512, 2048, 4, 8)
	for name, c := range map[string]Config{
		"flat":       flat(16000, wide),
		"vocabulary": flat(60000, presetStack(256, 512, 1, 4)),
		"levels": narrow(func(c *Config, l *LevelConfig) {
			c.VocabSize, c.EmbeddingSize = 16000, 128
			l.ChunkSize, l.PrefixLength, l.Encoder, l.Decoder = 4, 2, wide, wide
			l.Decoder.Memories = []MemoryConfig{{Level: 1, Layers: []int{0, 3}, Heads: 8, KVHeads: 8, HeadDim: 64}}
		}),
	} {
		dir := filepath.Join(t.TempDir(), "model")
		if err := WriteRandom(dir, c, 1, "F32"); err != nil {
			t.Fatal(err)
		}
		for _, form := range []WeightType{AsStored, Int8, Int4} {
			cmd := exec.Command(os.Args[0], "-test.run=^TestPeakResident$", "-test.v")
			cmd.Env = append(os.Environ(), "PHOTON_TEST_RESIDENT="+dir, "PHOTON_TEST_FORM="+strconv.Itoa(int(form)))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
			var plan, state, before, peak int64
			at := strings.Index(string(out), "resident: ")
			if _, err := fmt.Sscanf(string(out)[max(at, 0):], "resident: %d %d %d %d", &plan, &state, &before, &peak); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			share := float64(peak-before) / float64(plan+state)
			figure(t, "%s, %v: planned %d, of the text %d, before %d, at most %d: %.2f of it", name, form, plan, state, before, peak, share)
			if share > 1.1 {
				t.Errorf("%s, %v: %.2f times the plan is resident", name, form, share)
			}
		}
	}
}

func residentChild(t *testing.T, dir string) {
	number, err := strconv.Atoi(os.Getenv("PHOTON_TEST_FORM"))
	if err != nil {
		t.Fatal(err)
	}
	load := func(limit int64) (*Model, error) {
		return Load(dir, WithWeights(WeightType(number)), WithThreads(2), WithMemoryLimit(limit))
	}
	plan := int64(0)
	if _, err = load(1); !errors.Is(err, ErrMemoryLimit) {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(err.Error(), "photon: the model takes %d bytes", &plan); err != nil {
		t.Fatal(err)
	}
	if _, err := load(plan - 1); !errors.Is(err, ErrMemoryLimit) {
		t.Fatalf("one byte less than the plan: %v", err)
	}
	before, _ := resident(t)
	m, err := load(plan)
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewSession(Temperature(0), MaxTokens(20))
	if err := s.Append(background, randomText(m, 300)...); err != nil {
		t.Fatal(err)
	}
	if err := firstError(s.Generate(background)); err != nil {
		t.Fatal(err)
	}
	_, peak := resident(t)
	fmt.Println("resident:", plan, s.Stats().StateBytes, before, peak)
}

// resident is the process's memory now, and the most that it has had.
func resident(t testing.TB) (now, most int64) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &now)
		fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &most)
	}
	return now << 10, most << 10
}
