//go:build !js && !wasip1

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/photon-lm/photon"
)

// readPaper returns the rows of a file by test, mode, depth and texts.
func readPaper(t *testing.T, file string) *paperRows {
	t.Helper()
	rows, err := openPaperRows(file, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// Every row of a model of two levels, with the sizes that such texts have; what is there is not measured again.
func TestPaper(t *testing.T) {
	dir, file := makeModel(t, hierarchical), filepath.Join(t.TempDir(), "rows.csv")
	args := append([]string{"bench", "-paper", "-model", dir, "-to", file}, strings.Fields(
		"-d 0,300 -seconds 0.5 -memory 0.0005 -rate 2000 -threads 1")...)
	out, errs := call(t, 0, "", args...)
	if out != "" || strings.Count(errs, "\n") != 14 {
		t.Fatalf("stdout %q, stderr %q: want a line a row", out, errs)
	}
	const memory = 1 << 29 / 1000
	state := func(tokens int) int64 { return hierarchical.StateBytes(tokens, photon.CacheF16) }
	holds := func(tokens int) int { return memory / int(state(tokens)) }
	if holds(2176) < 4 || holds(2176) > 16 {
		t.Fatalf("the memory holds %d texts: change it", holds(2176))
	}
	rows := readPaper(t, file)
	for _, w := range []struct {
		test, mode          string
		depth, wanted, made int
		text                int // tokens of a text in the end
	}{
		{"pf", "hiergen", 2048, 1, 128, 2175}, {"pf", "recgen", 2048, 1, 128, 0},
		{"de", "hiergen", 128, 1, 2048, 2175}, {"de", "recgen", 128, 1, 2048, 0},
		{"pf-many", "hiergen", 2048, holds(2176), 128, 2175}, {"de-many", "hiergen", 128, holds(2176), 2048, 2175},
		{"samples", "hiergen", 2048, 1, 128, 0}, {"samples", "hiergen", 2048, 8, 128, 0},
		{"samples", "hiergen", 2048, 32, 128, 0}, {"samples", "hiergen", 2048, 128, 128, 0},
		{"arrivals", "hiergen", 512, 64, 64, 575},
		{"long", "hiergen", 0, 1, 512, 0}, {"long", "hiergen", 300, 1, 512, 300},
		{"long-many", "hiergen", 300, holds(300), 17, 0},
	} {
		i := rows.find(&paperRow{Preset: dir, Mode: w.mode, Weights: "int8", Cache: "f16", Threads: 1,
			Test: w.test, Depth: w.depth, Wanted: w.wanted})
		if i < 0 {
			t.Errorf("no row of %+v", w)
			continue
		}
		r := rows.rows[i]
		fewer := r.Texts < r.Wanted || r.Made < w.made
		if r.Texts < 1 || r.Texts > r.Wanted || r.Made > w.made || fewer != strings.Contains(string(r.Note), " of ") {
			t.Errorf("%+v: want %+v, or a note", r, w)
		}
		if r.Made == w.made && w.text > 0 && r.StateText != state(w.text) {
			t.Errorf("%s %d: a text holds %d bytes, want %d", r.Test, r.Depth, r.StateText, state(w.text))
		}
		decodes := r.DecodePerSecond > 0 || w.test == "arrivals"
		if !decodes || r.PerSecond <= 0 || r.Seconds <= 0 || r.Kernel == "" || r.TPM <= 0 {
			t.Errorf("%s: %+v", w.test, r)
		}
		if runtime.GOOS == "linux" && (r.PeakBytes < r.ModelBytes/2 || r.ModelBytes <= 0) {
			t.Errorf("%s: %d bytes at most, with the model %d", w.test, r.PeakBytes, r.ModelBytes)
		}
	}
	if out, errs := call(t, 0, "", args...); out != "" || !strings.Contains(errs, "has 14 of these rows already") {
		t.Errorf("measured again: %q, %q", out, errs)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	fewer := strings.Join(append(lines[:3:3], lines[4:]...), "")
	if err := os.WriteFile(file, []byte(fewer), 0o666); err != nil {
		t.Fatal(err)
	}
	out, errs = call(t, 0, "", args...)
	if out != "" || strings.Count(errs, "\n") != 2 || len(readPaper(t, file).rows) != 14 {
		t.Errorf("one row was missing: %q, %q", out, errs)
	}
}

// A flat model has no RecGen, and where its state or the time ends, its rows say so.
func TestPaperEnds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rows.csv")
	dir := makeModel(t, flat)
	call(t, 0, "", append([]string{"bench", "-paper", "-model", dir, "-to", file}, strings.Fields(
		"-only pf,long,long-many -d 0,64,1000 -seconds 0.3 -memory 0.00002 -weights f32 -cache f32")...)...)
	rows := readPaper(t, file).rows
	if len(rows) != 6 {
		t.Fatalf("%d rows, want 6: %+v", len(rows), rows)
	}
	for _, r := range rows {
		ended := r.Test != "pf" && r.Depth == 1000
		if ended != strings.Contains(string(r.Note), "more than -memory") || ended != (r.Texts == 0) {
			t.Errorf("%+v", r)
		}
		if r.Mode != "hiergen" || r.Weights != "f32" || r.Cache != "f32" {
			t.Errorf("%+v", r)
		}
	}
	out, _ := call(t, 0, "", "bench", "-paper", "-model", dir, "-only", "long", "-d", "16", "-seconds", "0.1")
	if lines := strings.Split(out, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "preset,mode,weights,") {
		t.Errorf("without a file: %q", out)
	}
}

// Models take turns: the rows of a load stand together, and long texts grow.
func TestPaperTurns(t *testing.T) {
	p := paper{only: paperTests, depths: []int{0, 500}, memory: 1, rows: &paperRows{}}
	models := []*paperModel{{name: "a"}, {name: "b"}}
	var turns []turn
	for i, cfg := range []photon.Config{flat, hierarchical} {
		for _, r := range p.missing(cfg, models[i].name) {
			turns = append(turns, turn{models[i], r})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return a.order(&b) })
	var got []string
	for _, u := range turns {
		got = append(got, fmt.Sprintf("%s %s %s %d", u.row.Preset, u.row.Test, u.row.Mode, u.row.Depth))
	}
	want := []string{"a pf hiergen 2048", "b pf hiergen 2048", "b pf recgen 2048",
		"a pf-many hiergen 2048", "b pf-many hiergen 2048",
		"a de hiergen 128", "b de hiergen 128", "b de recgen 128", "a de-many hiergen 128", "b de-many hiergen 128",
		"a samples hiergen 2048", "b samples hiergen 2048", "a samples hiergen 2048", "b samples hiergen 2048",
		"a samples hiergen 2048", "b samples hiergen 2048", "a samples hiergen 2048", "b samples hiergen 2048",
		"a arrivals hiergen 512", "b arrivals hiergen 512", "a long hiergen 0", "b long hiergen 0",
		"a long hiergen 500", "b long hiergen 500", "a long-many hiergen 500", "b long-many hiergen 500"}
	if !slices.Equal(got, want) {
		t.Errorf("%q,\nwant %q", got, want)
	}
}

func TestPaperErrors(t *testing.T) {
	dir, file := makeModel(t, hierarchical), filepath.Join(t.TempDir(), "other.csv")
	if err := os.WriteFile(file, []byte("a,b\n1,2\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"-to x", "-only pf", "-paper -only x", "-paper -presets x", "-paper -presets vanilla-600m",
		"-paper -seconds 0", "-paper -memory -1", "-paper -rate 0",
		"-paper -p 5", "-paper -json", "-paper -mode recgen", "-paper -b 4", "-paper -to " + file,
	} {
		out, errs := call(t, exitUsage, "", append([]string{"bench", "-model", dir}, strings.Fields(args)...)...)
		if out != "" || !strings.HasPrefix(errs, "photon: bench: ") {
			t.Errorf("photon bench %s: stdout %q, stderr %q", args, out, errs)
		}
	}
}

// The rates of stamps that are known.
func TestPaperTimes(t *testing.T) {
	at := time.Unix(0, 0)
	text := func(begin int, tokens ...int) stamps { // milliseconds
		s := stamps{begin: at.Add(time.Duration(begin) * time.Millisecond)}
		for _, ms := range tokens {
			s.tokens = append(s.tokens, at.Add(time.Duration(ms)*time.Millisecond))
		}
		return s
	}
	var r paperRow
	r.times([]stamps{text(0, 100, 110, 120, 130), text(100, 400, 440, 480, 500)})
	for i, pair := range [][2]float64{{r.Seconds, 0.5}, {r.PerSecond, 16}, {r.DecodePerSecond, 30},
		{r.FirstToken50, 300}, {r.FirstToken99, 300}, {r.Token50, 20}, {r.Token99, 40},
		{r.TextRate50, 100}, {r.TextRate1, 30}, {r.Fairness, 130. * 130 / (2 * (100*100 + 30*30))}} {
		if math.Abs(pair[0]-pair[1]) > 1e-9 {
			t.Errorf("value %d is %g, want %g", i, pair[0], pair[1])
		}
	}
	if r.Texts != 2 || r.Made != 4 {
		t.Errorf("%d texts of %d tokens", r.Texts, r.Made)
	}
}

// A row survives its file; one that was disturbed is wanted again, and its place is taken.
func TestPaperRows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rows.csv")
	rows, err := openPaperRows(file, nil, 0.2)
	if err != nil {
		t.Fatal(err)
	}
	r := paperRow{Preset: "a", Mode: "hiergen", Weights: "int8", Cache: "f16", Threads: 2, Test: "pf", Depth: 3, Wanted: 4,
		Texts: 2, PerSecond: 1.5, StateText: 1 << 40, Others: 0.25, Note: `2 of 4 texts: "more"`}
	other := r
	other.Depth, other.Others = 5, 0.1
	for _, r := range []paperRow{r, other} {
		if err := rows.put(r); err != nil {
			t.Fatal(err)
		}
	}
	rows, err = openPaperRows(file, nil, 0.2)
	if err != nil || len(rows.rows) != 2 || rows.rows[0] != r || rows.rows[1] != other {
		t.Fatalf("%v, %+v", err, rows)
	}
	if rows.has(r) || !rows.has(other) {
		t.Error("the first was disturbed, the second was not")
	}
	r.Others, r.Texts = 0, 3
	if err := rows.put(r); err != nil || !rows.has(r) || len(rows.rows) != 2 {
		t.Errorf("%v, %+v", err, rows.rows)
	}
}

// TestPaperFile: a file that cannot be written is refused before anything is measured.
func TestPaperFile(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.csv")
	if err := os.WriteFile(empty, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if rows, err := openPaperRows(empty, nil, 1); err != nil || len(rows.rows) != 0 {
		t.Errorf("an empty file: %v", err)
	}
	_, errs := call(t, 2, "", "bench", "-paper", "-presets", "flat-15m", "-to", filepath.Join(dir, "none", "rows.csv"))
	if !strings.Contains(errs, "-to: open ") {
		t.Error(errs)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%v are left", files)
	}
}

func TestKilobytes(t *testing.T) {
	data := []byte("Name:\tphoton\nVmHWM:\t   12345 kB\nVmRSS:\t 7 kB\n")
	if got := kilobytes(data, "VmHWM"); got != 12345<<10 {
		t.Errorf("%d", got)
	}
	if got := kilobytes(data, "VmSwap"); got != 0 {
		t.Errorf("%d of a field that is not there", got)
	}
}

// The program's own work is not taken for that of others.
func TestOthers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("is known on Linux only")
	}
	_, before := processorTicks()
	for begin := time.Now(); time.Since(begin) < 200*time.Millisecond; {
	}
	all, mine := processorTicks()
	if mine <= before || all < mine {
		t.Errorf("%d ticks of %d, %d before", mine, all, before)
	}
}
