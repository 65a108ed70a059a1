package photon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var background = context.Background()

// golden is a tiny random model with what train/golden.py, or train/flats.py, computed for it in float64.
type golden struct {
	dir     string
	ids     []int
	ints    map[string][]int
	floats  map[string][]float32
	largest float64 // of the logits
}

func goldens(t testing.TB) (list []golden) {
	t.Helper()
	dirs, err := filepath.Glob("testdata/golden/*")
	if err != nil || len(dirs) < 8 {
		t.Fatalf("testdata/golden holds %d models: run train/golden.py (%v)", len(dirs), err)
	}
	flats, err := filepath.Glob("testdata/flats/*")
	if err != nil || len(flats) < 8 {
		t.Fatalf("testdata/flats holds %d models: run train/flats.py (%v)", len(flats), err)
	}
	for _, dir := range flats {
		if !testing.Short() || !strings.HasSuffix(dir, "-f32") { // the others have all that these have
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		g := readGolden(t, filepath.Join(dir, "golden.safetensors"))
		g.dir = dir
		g.ids = g.ints["ids"]
		for _, v := range g.floats["logits"] {
			g.largest = max(g.largest, math.Abs(float64(v)))
		}
		list = append(list, g)
	}
	return list
}

// readGolden reads the numbers of a file of tensors, I32 and F32.
func readGolden(t testing.TB, path string) golden {
	t.Helper()
	g := golden{ints: map[string][]int{}, floats: map[string][]float32{}}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	header := map[string]struct {
		Dtype   string
		Offsets [2]int `json:"data_offsets"`
	}{}
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	for name, tensor := range header {
		if name == "__metadata__" {
			continue
		}
		for b := data[8+int(n):][tensor.Offsets[0]:tensor.Offsets[1]]; len(b) > 0; b = b[4:] {
			v := binary.LittleEndian.Uint32(b)
			if tensor.Dtype == "I32" {
				g.ints[name] = append(g.ints[name], int(v))
			} else {
				g.floats[name] = append(g.floats[name], math.Float32frombits(v))
			}
		}
	}
	return g
}

// eachGolden runs f on every golden model.
func eachGolden(t *testing.T, f func(t *testing.T, g golden, m *Model), opts ...LoadOption) {
	for _, g := range goldens(t) {
		t.Run(filepath.Base(g.dir), func(t *testing.T) {
			m, err := Load(g.dir, opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			f(t, g, m)
		})
	}
}

// near fails unless got and want agree to tolerance.
func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	worst, at := 0.0, 0
	for i := range got {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= worst) {
			worst, at = d, i
		}
	}
	if !(worst <= tolerance) {
		t.Fatalf("%s: value %d is %v, want %v (tolerance %.2g)", what, at, got[at], want[at], tolerance)
	}
}

const agreement = 1e-4 // of the largest logit

func TestGoldenLogits(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		got, err := m.Logits(background, g.ids)
		if err != nil {
			t.Fatal(err)
		}
		want := g.floats["logits"] // of a flat model row i is of the token after ids[:i+1], else of that after ids[:i]
		if vocab := m.Config().VocabSize; m.Config().Flat() {
			if bos := m.Config().BOSTokenID; bos < 0 && got[0] == got[0] {
				t.Errorf("nothing predicts the first token, but it has %v", got[0])
			} else if bos >= 0 {
				alone, err := m.Logits(background, []int{bos})
				if err != nil {
					t.Fatal(err)
				}
				near(t, "the row after the beginning of text", got[:vocab], alone[vocab:], 0)
			}
			got = got[vocab:]
		} else if got = got[:len(want)]; len(got) != len(g.ids)*vocab {
			t.Fatalf("%d logits", len(got))
		}
		near(t, "logits", got, want, agreement*g.largest)
	})
}

// TestGoldenStates compares every level's X and X̂.
func TestGoldenStates(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		ws := m.acquire()
		defer m.release(ws)
		s := m.newSequence()
		one := []*sequence{s}
		m.encode(ws, one, [][]int{g.ids})
		largest := func(v []float32) (top float64) {
			for _, x := range v {
				top = max(top, math.Abs(float64(x)))
			}
			return top
		}
		for l := range m.encoders {
			want := g.floats["X"+string(rune('1'+l))]
			got := s.states[l].rows
			near(t, "X", got, want[:len(got)], agreement*largest(want))
			if whole := len(g.ids) / m.spanOf(l+1); whole*m.encoders[l].width() != len(got) {
				t.Errorf("level %d has %d rows, want %d", l+1, len(got)/m.encoders[l].width(), whole)
			}
		}
		m.makePlan(s, true)
		var conds []float32
		for l := len(m.decoders) - 1; l >= 0; l-- {
			if l == len(m.encoders)-1 {
				conds = m.topConditions(ws, one)
			}
			conds = m.decode(ws, one, l, conds)
			want := g.floats["Xhat"+string(rune('0'+l))]
			n := min(len(want), len(conds))
			if n < len(g.ids)/m.spanOf(l)*m.decoders[l].width() {
				t.Fatalf("X̂ of level %d: %d values, golden has %d", l, len(conds), len(want))
			}
			near(t, "X̂", conds[:n], want[:n], agreement*largest(want))
		}
	})
}

// spanOf is the number of tokens in a unit of level l.
func (m *Model) spanOf(l int) int {
	span := 1
	for _, e := range m.encoders[:l] {
		span *= e.chunk
	}
	return span
}

// rowsOf is Logits by way of a session: pieces are the lengths in which the text is appended.
func rowsOf(t *testing.T, s *Session, ids []int, pieces ...int) (rows []float32, at []int) {
	t.Helper()
	keep := func() {
		if l := s.Logits(); l != nil {
			rows = append(rows, l...)
			at = append(at, s.Len())
		}
	}
	if s.Len() == 0 {
		keep()
	}
	for i := 0; len(ids) > 0; i++ {
		n := min(len(ids), pieces[i%len(pieces)])
		if err := s.Append(background, ids[:n]...); err != nil {
			t.Fatal(err)
		}
		ids = ids[n:]
		keep()
	}
	return rows, at
}

// TestIncremental: token by token, in ragged pieces, after Fork and after a snapshot, with every cache type, the logits are the
// same bits as those of one pass.
func TestIncremental(t *testing.T) {
	for _, cache := range []CacheType{CacheF32, CacheF16, CacheInt8} {
		t.Run(cache.String(), func(t *testing.T) {
			eachGolden(t, func(t *testing.T, g golden, m *Model) {
				vocab := m.Config().VocabSize
				pass, err := m.Logits(background, g.ids)
				if err != nil {
					t.Fatal(err)
				}
				check := func(t *testing.T, what string, rows []float32, at []int) {
					t.Helper()
					for i, n := range at {
						if got, want := rows[i*vocab:][:vocab], pass[n*vocab:][:vocab]; !slices.Equal(got, want) {
							near(t, what+", bits of the row after "+string(rune('0'+n/10))+string(rune('0'+n%10)), got, want, 0)
						}
					}
				}
				for _, pieces := range [][]int{{1}, {len(g.ids)}, {2, 1, 5, 3, 13, 1, 29}, {17}} {
					rows, at := rowsOf(t, m.NewSession(), g.ids, pieces...)
					check(t, "pieces", rows, at)
				}
				for _, cut := range []int{0, 1, 7, 16, 37} {
					s := m.NewSession()
					rowsOf(t, s, g.ids[:cut], 5, 1)
					f := s.Fork()
					rows, at := rowsOf(t, f, g.ids[cut:], 3)
					check(t, "fork", rows, at)
					rows, at = rowsOf(t, s, g.ids[cut:], 1)
					check(t, "forked", rows, at)

					s = m.NewSession()
					rowsOf(t, s, g.ids[:cut], 4)
					var buf bytes.Buffer
					if n, err := s.WriteTo(&buf); err != nil || n != int64(buf.Len()) {
						t.Fatal(n, err)
					}
					buf.WriteString("what follows is not read")
					r, err := m.ReadSession(&buf)
					if err != nil {
						t.Fatal(err)
					}
					if buf.String() != "what follows is not read" || r.Len() != cut || !slices.Equal(r.Logits(), s.Logits()) {
						t.Fatal("a snapshot did not come back as it was")
					}
					rows, at = rowsOf(t, r, g.ids[cut:], 2)
					check(t, "snapshot", rows, at)
				}
			}, WithCache(cache))
		})
	}
}

func TestThreads(t *testing.T) {
	for _, g := range goldens(t) {
		var want []float32
		for _, n := range []int{1, 2, 3, 8} {
			m, err := Load(g.dir, WithThreads(n))
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Logits(background, g.ids)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			near(t, g.dir, got, want, 0)
		}
	}
}

// TestEachLogits: the rows are those of Logits, and an end of the context is obeyed between them.
func TestEachLogits(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		ids := g.ints["prompt"]
		all, err := m.Logits(background, ids)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		vocab, n := m.Config().VocabSize, 0
		if err := m.EachLogits(ctx, ids, func(row []float32) {
			if len(row) != vocab || cap(row) != vocab || !sameBits(row, all[n*vocab:][:vocab]) {
				t.Errorf("row %d is another", n)
			}
			n++
		}); err != nil || n != len(ids)+1 {
			t.Errorf("%d rows of %d, %v", n, len(ids)+1, err)
		}
		if err := m.EachLogits(ctx, ids, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("no function: %v", err)
		}
		if err := m.EachLogits(ctx, ids, func([]float32) { cancel() }); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// TestGoldenGreedy continues prompts as the reference does, by HierGen and by RecGen.
func TestGoldenGreedy(t *testing.T) {
	found := 0
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		for _, c := range []struct {
			prompt, want string
			mode         GenMode
		}{{"prompt", "hiergen_tokens", HierGen}, {"prompt", "recgen_tokens", RecGen}, {"ragged_prompt", "ragged_tokens", RecGen}} {
			want := g.ints[c.want]
			if len(want) == 0 {
				continue
			}
			found++
			s := m.NewSession(Temperature(0), Mode(c.mode), MaxTokens(len(want)))
			if err := s.Append(background, g.ints[c.prompt]...); err != nil {
				t.Fatal(err)
			}
			var got []int
			rows := map[int][]float32{}
			hook := LogitsFunc(func(drawn []int, logits []float32) { rows[s.Len()] = slices.Clone(logits) })
			for token, err := range s.Generate(background, hook) {
				if err != nil {
					t.Fatal(err)
				}
				if token.Stop != StopEOS {
					got = append(got, token.ID)
				}
			}
			if end := slices.IndexFunc(want, func(id int) bool { return slices.Contains(m.Config().EOSTokenIDs, id) }); end >= 0 {
				want = want[:end]
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", c.want, got, want)
			}
			if c.want == "recgen_tokens" {
				vocab, wide := m.Config().VocabSize, g.floats["recgen_logits"]
				for i := range want {
					near(t, "RecGen logits", rows[len(g.ints[c.prompt])+i], wide[i*vocab:][:vocab], agreement*g.largest)
				}
			}
		}
	})
	if found < 4 {
		t.Errorf("%d continuations were compared", found)
	}
}
