//go:build !js && !wasip1

package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/photon-lm/photon"
)

// Every test at every depth, with the sizes that sessions of such texts have.
func TestBench(t *testing.T) {
	for name, dir := range map[string]string{
		"hierarchical": "../../testdata/golden/photon-local-f32", "flat": "../../testdata/golden/flat-gqa-f32", "ends": makeModel(t, hierarchical),
	} {
		t.Run(name, func(t *testing.T) {
			m, err := photon.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			flat := 0
			if m.Config().Flat() {
				flat = 1
			}
			type want struct {
				test                 string
				depth, texts, tokens int // tokens: those a text has in the end
			}
			wants := []want{
				{"pp40", 0, 1, 40}, {"tg20", 0, 1, 20 + flat}, {"tb20x3", 0, 3, 20 + flat},
				{"pp40", 70, 1, 110}, {"tg20", 70, 1, 90}, {"tb20x3", 70, 3, 90},
			}
			out, _ := call(t, 0, "", "bench", "-model", dir, "-p", "40", "-n", "20", "-b", "3", "-d", "70,0,70", "-threads", "2", "-cache", "f16", "-weights", "int8", "-json")
			lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
			if len(lines) != len(wants) {
				t.Fatalf("%d rows, want %d:\n%s", len(lines), len(wants), out)
			}
			for i, w := range wants {
				var r benchRow
				d := json.NewDecoder(strings.NewReader(lines[i]))
				d.DisallowUnknownFields()
				if err := d.Decode(&r); err != nil {
					t.Fatal(err)
				}
				if r.Test != w.test || r.Depth != w.depth || r.Repetitions != 3 || r.Model != dir || r.Kernel != m.Kernel() || r.Threads != 2 || r.Weights != "int8" || r.Cache != "f16" {
					t.Errorf("row %d: %+v, want %+v", i, r, w)
				}
				if !(0 < r.Min && r.Min <= r.TokensPerSecond && r.TokensPerSecond <= r.Max) {
					t.Errorf("%s at %d: %g … %g … %g tokens/s", r.Test, r.Depth, r.Min, r.TokensPerSecond, r.Max)
				}
				if most := int64(w.texts) * m.Config().StateBytes(w.tokens, photon.CacheF16); r.StateBytes <= 0 || r.StateBytes > most {
					t.Errorf("%s at %d: state %d, of at most %d", r.Test, r.Depth, r.StateBytes, most)
				}
				if r.KVReadBytes <= 0 {
					t.Errorf("%s at %d: %d bytes of keys and values read a token", r.Test, r.Depth, r.KVReadBytes)
				}
			}
			var fields map[string]any
			if err := json.Unmarshal([]byte(lines[0]), &fields); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"test", "depth", "tokens_per_second", "min", "max", "repetitions", "state_bytes", "kv_read_bytes", "model", "kernel", "threads", "weights", "cache"} {
				if _, ok := fields[name]; !ok {
					t.Errorf("no field %q in %s", name, lines[0])
				}
			}
		})
	}
}

// A flat model's attention reads the rows before each token, which can be counted by hand.
func TestBenchTraffic(t *testing.T) {
	dir := makeModel(t, flat)
	row := int64(2 * 4 * tinyStack.KVHeads * tinyStack.HeadDim) // f32 keys and values
	for depth, want := range map[int]int64{0: row * (2 + 9) / 2, 100: row * (101 + 108) / 2} {
		var r benchRow
		out, _ := call(t, 0, "", "bench", "-model", dir, "-p", "0", "-n", "8", "-d", strconv.Itoa(depth), "-json")
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if state := row * int64(max(depth, 1)+8); r.StateBytes != state || r.KVReadBytes != want {
			t.Errorf("depth %d: state %d, %d read a token; want %d, %d", depth, r.StateBytes, r.KVReadBytes, state, want)
		}
	}
}

// Decoding makes all its tokens, greedily, though the model ends the text again and again.
func TestBenchPastTheEnd(t *testing.T) {
	ctx := context.Background()
	cfg := hierarchical
	cfg.EOSTokenIDs = nil
	for id := range 200 {
		cfg.EOSTokenIDs = append(cfg.EOSTokenIDs, id)
	}
	m, err := photon.Load(makeModel(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const n = 30
	by, ends := m.NewSession(), 0
	for range n {
		id := mostLikely(by.Logits())
		if id < 200 {
			ends++
		}
		if err := by.Append(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	s := m.NewSession(photon.Temperature(0))
	if err := decode(ctx, []*photon.Session{s}, n); err != nil {
		t.Fatal(err)
	}
	if ends == 0 || ends == n || s.Len() != n || !slices.Equal(s.Logits(), by.Logits()) {
		t.Errorf("%d tokens, want the %d that are most likely; %d of them are ends", s.Len(), n, ends)
	}
	texts := []*photon.Session{m.NewSession(photon.Temperature(0)), m.NewSession(photon.Temperature(0))}
	if err := decodeTogether(m)(ctx, texts, n); err != nil {
		t.Fatal(err)
	}
	for _, s := range texts {
		if s.Len() != n {
			t.Errorf("%d tokens of a text of the batch, want %d", s.Len(), n)
		}
	}
}

func TestBenchFormats(t *testing.T) {
	args := []string{"bench", "-model", "../../testdata/golden/photon-local-f32", "-p", "8", "-n", "4", "-r", "5", "-threads", "1"}
	out, errs := call(t, 0, "", args...)
	want(t, out, "photon-local-f32: kernel ", ", threads 1, weights as stored, cache f32", "medians of 5", "pp8", "tg4", "tokens/s", "state")
	if errs != "" || strings.Contains(out, "tb4") {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}

	out, _ = call(t, 0, "", append(args, "-csv")...)
	records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(records) != 3 || records[0][0] != "test" || records[1][0] != "pp8" || records[2][0] != "tg4" || records[2][5] != "5" {
		t.Errorf("%v, %q", err, records)
	}

	out, _ = call(t, 0, "", append(args, "-bench")...)
	want(t, out, "goos: ", "kernel: ", "BenchmarkPhoton/pp8/d0 1 ", "BenchmarkPhoton/tg4/d0 1 ")
	for _, unit := range []string{" ns/op ", " tok/s ", " state-bytes ", " kv-bytes/tok\n"} {
		if n := strings.Count(out, unit); n != 10 { // 5 repetitions of 2 tests
			t.Errorf("%d × %q in %s", n, unit, out)
		}
	}
}

func TestBenchPreset(t *testing.T) {
	if testing.Short() {
		t.Skip("writes the weights of a preset")
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	out, _ := call(t, 0, "", "bench", "-preset", "flat-20m", "-p", "4", "-n", "2", "-csv")
	want(t, out, "flat-20m")
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBenchErrors(t *testing.T) {
	dir := makeModel(t, hierarchical)
	for _, args := range []string{
		"x", "-p -1", "-n -1", "-p 0 -n 0", "-b 0", "-b 2 -n 0", "-r 2", "-d 1,x", "-d -1", "-d ,",
		"-json -csv", "-csv -bench", "-weights int3", "-threads -1", "-preset flat-20m",
		"-p 99999999999 -n 0", "-n 2147483648", "-d 99999999999", "-d 5 -n 2147483647", "-b 99999999",
	} {
		out, errs := call(t, exitUsage, "", append([]string{"bench", "-model", dir}, strings.Fields(args)...)...)
		if out != "" || !strings.HasPrefix(errs, "photon: bench: ") {
			t.Errorf("photon bench %s: stdout %q, stderr %q", args, out, errs)
		}
	}
	_, errs := call(t, exitUsage, "", "bench", "-preset", "no-such")
	want(t, errs, "flat-20m")
	_, errs = call(t, exitNotFound, "", "bench", "-model", dir+"/no-such")
	want(t, errs, "no-such", "photon: bench: ")
}

func TestBenchRecGen(t *testing.T) {
	out, _ := call(t, 0, "", "bench", "-model", makeModel(t, hierarchical), "-mode", "recgen", "-p", "0", "-n", "20", "-d", "0,33", "-json")
	if strings.Count(out, "\"test\":\"rg20\"") != 2 {
		t.Error(out)
	}
	call(t, exitUsage, "", "bench", "-mode", "recgen", "-b", "8")
	if out, _ := call(t, exitFailed, "", "bench", "-mode", "recgen", "-model", makeModel(t, flat)); out != "" {
		t.Errorf("%q before the model is refused", out)
	}
}

// Texts that have nothing in common hold as much state as those that do, and are as deep.
func TestBenchApart(t *testing.T) {
	dir := makeModel(t, flat)
	var states []int64
	for _, apart := range []string{"-apart=false", "-apart"} {
		out, _ := call(t, 0, "", "bench", "-model", dir, "-p", "0", "-n", "20", "-b", "3", "-d", "300", apart, "-json")
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		var r benchRow
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil || r.Depth != 300 {
			t.Fatal(err, out)
		}
		if want := map[string]string{"-apart": "ta20x3", "-apart=false": "tb20x3"}[apart]; r.Test != want {
			t.Errorf("%s, want %s", r.Test, want)
		}
		states = append(states, r.StateBytes)
	}
	if states[0] != states[1] {
		t.Errorf("state bytes %v", states)
	}
}
