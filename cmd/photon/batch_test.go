//go:build !js && !wasip1

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/photon-lm/photon"
)

// lines writes a file of lines, and returns its name.
func lines(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "in.jsonl")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

func prompts(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf(`{"id":"p%d","prompt":"text %d of many"}`, i, i*i))
	}
	return out
}

func contents(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// byIndex are the rows of several files, in the order of the lines that they answer.
func byIndex(t *testing.T, names ...string) string {
	t.Helper()
	var rows []string
	for _, name := range names {
		rows = append(rows, strings.SplitAfter(strings.TrimSuffix(contents(t, name), "\n"), "\n")...)
	}
	index := func(row string) (n int) {
		fmt.Sscanf(row, `{"index":%d`, &n)
		return n
	}
	sort.Slice(rows, func(i, j int) bool { return index(rows[i]) < index(rows[j]) })
	return strings.ReplaceAll(strings.Join(rows, "\n"), "\n\n", "\n")
}

func TestBatchOfAnyShards(t *testing.T) {
	model, in := makeModel(t, hierarchical), lines(t, prompts(15)...)
	one := filepath.Join(t.TempDir(), "one")
	call(t, 0, "", "batch", "-model", model, "-n", "9", "-seed", "3", in, one)
	if rows := strings.Count(contents(t, one), "\n"); rows != 15 {
		t.Fatalf("%d rows of 15 lines", rows)
	}
	for _, shards := range []int{2, 7} {
		var names []string
		for i := range shards {
			name := filepath.Join(t.TempDir(), "part")
			call(t, 0, "", "batch", "-model", model, "-n", "9", "-seed", "3", "-texts", "3", "-shard", fmt.Sprintf("%d/%d", i, shards), in, name)
			names = append(names, name)
		}
		if got, want := byIndex(t, names...), byIndex(t, one); got != want {
			t.Errorf("%d shards:\n%s\nwant\n%s", shards, got, want)
		}
	}

	// A line is the text of a run of its own.
	var row batchRow
	if err := json.Unmarshal([]byte(strings.SplitN(contents(t, one), "\n", 6)[4]), &row); err != nil {
		t.Fatal(err)
	}
	alone, _ := call(t, 0, "", "run", "-model", model, "-n", "9", "-seed", "7", "-echo=false", "text 16 of many")
	if row.Index != 4 || row.Text == nil || strings.TrimSuffix(alone, "\n") != strings.TrimSuffix(*row.Text, "\n") {
		t.Errorf("line 4 is %+v, alone it is %q", row, alone)
	}
}

func TestBatchResumes(t *testing.T) {
	model, in, dir := makeModel(t, hierarchical), lines(t, prompts(9)...), t.TempDir()
	whole, part := filepath.Join(dir, "whole"), filepath.Join(dir, "part")
	arguments := []string{"batch", "-model", model, "-n", "5", "-resume", in}
	call(t, 0, "", append(arguments, whole)...)
	want := contents(t, whole)
	job := contents(t, whole+".job")
	for _, cut := range []int{0, 1, len(want) / 3, len(want) / 2, len(want) - 1, len(want)} {
		os.WriteFile(part, []byte(want[:cut]), 0o666)
		os.WriteFile(part+".job", []byte(job), 0o666)
		call(t, 0, "", append(arguments, part)...)
		if got := contents(t, part); got != want {
			t.Errorf("resumed at byte %d:\n%s\nwant\n%s", cut, got, want)
		}
	}

	_, errs := call(t, exitFailed, "", "batch", "-model", model, in, part)
	if !strings.Contains(errs, "-resume") {
		t.Errorf("an output that exists: %s", errs)
	}
	_, errs = call(t, exitUsage, "", "batch", "-model", model, "-n", "6", "-resume", in, part)
	if !strings.Contains(errs, "same flags") {
		t.Errorf("other flags: %s", errs)
	}
	os.WriteFile(in, []byte(contents(t, in)+"{}\n"), 0o666)
	if _, errs = call(t, exitUsage, "", append(arguments, part)...); !strings.Contains(errs, "SHA-256") {
		t.Errorf("another input: %s", errs)
	}
	os.WriteFile(in, []byte(strings.TrimSuffix(contents(t, in), "{}\n")), 0o666)
	os.WriteFile(part, []byte("a poem\n"), 0o666)
	if _, errs = call(t, exitFailed, "", append(arguments, part)...); !strings.Contains(errs, "byte 0") {
		t.Errorf("another file: %s", errs)
	}
}

// What goes on is the same model on the same kernels, and a line that failed before has failed.
func TestBatchResumesTheSame(t *testing.T) {
	model, out := makeModel(t, hierarchical), filepath.Join(t.TempDir(), "out")
	in := lines(t, `{"prompt":"a"}`, `{"prompt":"a\xff"}`)
	arguments := []string{"batch", "-model", model, "-n", "2", "-resume", in, out}
	for range 2 {
		_, errs := call(t, exitFailed, "", arguments...)
		want(t, errs, "1 of 2 lines had errors")
	}
	if err := photon.WriteRandom(filepath.Join(model, "new"), hierarchical, 8, "F32"); err != nil {
		t.Fatal(err)
	}
	const weights = "model.safetensors"
	if err := os.Rename(filepath.Join(model, "new", weights), filepath.Join(model, weights)); err != nil {
		t.Fatal(err)
	}
	_, errs := call(t, exitUsage, "", arguments...)
	want(t, errs, "was begun by")
}

// A text of no tokens says so, and a stream is no file.
func TestBatchOfNothing(t *testing.T) {
	in, out := lines(t, `{"prompt":"a","n":0}`), filepath.Join(t.TempDir(), "out")
	call(t, 0, "", "batch", "-model", makeModel(t, hierarchical), in, out)
	want(t, contents(t, out), `"text":""`, `"tokens":0`, `"stop":"max tokens"`)
	in, out = lines(t, "{\"prompt\":\"a\xff\"}"), filepath.Join(t.TempDir(), "out")
	call(t, exitFailed, "", "batch", "-model", makeModel(t, hierarchical), in, out)
	want(t, contents(t, out), "invalid UTF-8")
	for _, files := range [][]string{{"-", out}, {in, "-"}} {
		if _, errs := call(t, exitUsage, "a", append([]string{"batch"}, files...)...); !strings.Contains(errs, "wants files") {
			t.Error(errs)
		}
	}
}

// Nothing of a line is ignored.
func TestBatchLines(t *testing.T) {
	for line, part := range map[string]string{
		`{"prompt":"a","n":"x"}`:           `"n" is "x": want a whole number`,
		`{"prompt":"a","n":1.5}`:           "whole number",
		`{"prompt":"a","seed":-1}`:         "0 or more",
		`{"prompt":3}`:                     "want a string",
		`{"prompt":"a","N":2}`:             `"N" is not known`,
		`{"prompt":"a","temperature":0}`:   `"temperature" is not known`,
		`{"prompt":"a","prompt":"b"}`:      "stands twice",
		`{"prompt":"a","\u0070rompt":"b"}`: "stands twice",
		`{"prompt":"a\ud800"}`:             "surrogate",
		`{"prompt":"\udc00\ud800"}`:        "surrogate",
		`{"prompt":"\\\ud800x"}`:           "surrogate",
		"{\"prompt\":\"a\xff\"}":           `byte 12: \xff is invalid UTF-8`,
		"\ufeff{}":                         "byte order mark",
		`[1]`:                              "not a JSON object",
		`null`:                             "not a JSON object",
		`{"prompt":"a"} x`:                 "byte 15: something stands after the end",
		`nonsense`:                         "byte 0: want a value, found 'n'",
		`{"prompt":"a","text":"b"}`:        "a prompt and a text",
		`{"prompt":"a","custom_id":"b"}`:   "goes into id",
	} {
		if _, err := parseLine([]byte(line)); err == nil || !strings.Contains(err.Error(), part) ||
			strings.Contains(err.Error(), "json:") || strings.Contains(err.Error(), "batchLine") {
			t.Errorf("%s: %v, want %q", line, err, part)
		}
	}
	for text, want := range map[string]string{
		`a\ud83d\uDE00`: "a\U0001f600", `\\ud800`: `\ud800`, `\u005cud800`: `\ud800`, `\ufffd`: "\ufffd", ``: "",
	} {
		line, err := parseLine([]byte(`{"id":[7],"prompt":"` + text + `","n":3,"seed":4,"text":null}`))
		if err != nil || *line.Prompt != want || string(line.ID) != "[7]" || *line.N != 3 || *line.Seed != 4 ||
			line.Text != nil {
			t.Errorf("%s: %+v, %v", text, line, err)
		}
	}
	if line, err := parseLine([]byte(`{"text":"a","meta":{"pile_set_name":"b"}}`)); err != nil || *line.Text != "a" {
		t.Errorf("what a corpus says of a text: %+v, %v", line, err)
	}
	if _, err := parseLine([]byte(`{"text":"a","id":{"b":1,"b":2},"meta":[{"c":1,"c":2}]}`)); err != nil {
		t.Errorf("an id and a meta of any JSON: %v", err)
	}
	if line, err := parseLine([]byte(`{"prompt":"a","n":"x","id":5}`)); err == nil || string(line.ID) != "5" {
		t.Errorf("a bad line has the ID %s, %v", line.ID, err)
	}
}

// OUT has the rows of IN's lines from the first; blank lines have none.
func TestBatchResumesInOrder(t *testing.T) {
	model, in, out := makeModel(t, hierarchical), lines(t, prompts(9)...), filepath.Join(t.TempDir(), "out")
	text := strings.Split(contents(t, in), "\n")
	text[3] = "  "
	os.WriteFile(in, []byte(strings.Join(text, "\n")), 0o666)
	arguments := []string{"batch", "-model", model, "-n", "2", "-shard", "1/2", "-resume", in, out}
	call(t, 0, "", arguments...)
	whole := contents(t, out)
	rows := strings.SplitAfter(whole, "\n") // of 1, 5 and 7, and what is behind them
	if len(rows) != 4 {
		t.Fatalf("%q", rows)
	}
	for _, part := range []string{"", rows[0], rows[0] + rows[1] + rows[2][:5], whole} {
		os.WriteFile(out, []byte(part), 0o666)
		call(t, 0, "", arguments...)
		if got := contents(t, out); got != whole {
			t.Errorf("behind %q: %q, want %q", part, got, whole)
		}
	}
	for _, part := range []string{rows[1], rows[0] + rows[2], rows[1] + rows[0], whole + rows[2], rows[0] + rows[0]} {
		os.WriteFile(out, []byte(part), 0o666)
		_, errs := call(t, exitFailed, "", arguments...)
		want(t, errs, "give another file")
		if got := contents(t, out); got != part {
			t.Errorf("%q has become %q", part, got)
		}
	}
}

func TestBatchRefuses(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	in, model := lines(t, prompts(1)...), makeModel(t, hierarchical)
	for _, test := range []struct {
		code int
		part string
		args []string
	}{
		{exitUsage, "two files", []string{in, ""}},
		{exitUsage, "two files", []string{"", "out"}},
		{exitUsage, "-texts", []string{"-texts", "999999999999", in, "out"}},
		{exitUsage, "0/4", []string{"-shard", " 0/1", in, "out"}},
		{exitUsage, "0/4", []string{"-shard", "+0/1", in, "out"}},
		{exitUsage, "0/4", []string{"-shard", "0/1/2", in, "out"}},
		{exitUsage, "0/4", []string{"-shard", "1/1", in, "out"}},
		{exitUsage, "leave out -n, -stop, -temp",
			[]string{"-score", "-temp", "0.5", "-stop", "x", "-n", "5", in, "out"}},
		{exitFailed, "no regular file", []string{in, dir}},
		{exitFailed, "no regular file", []string{"-resume", in, dir}},
		{exitFailed, "no regular file", []string{in, os.DevNull}},
		{exitFailed, "no regular file", []string{dir, "out"}},
		{exitFailed, filepath.Join("none", "out.job: "), []string{in, filepath.Join("none", "out")}},
	} {
		_, errs := call(t, test.code, "", append([]string{"batch", "-model", model}, test.args...)...)
		want(t, errs, test.part)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestBatchWithoutItsJob(t *testing.T) {
	model, in, out := makeModel(t, hierarchical), lines(t, prompts(2)...), filepath.Join(t.TempDir(), "out")
	call(t, 0, "", "batch", "-model", model, "-n", "2", in, out)
	os.Remove(out + ".job")
	if _, errs := call(t, exitFailed, "", "batch", "-model", model, "-n", "2", "-resume", in, out); !strings.Contains(errs, "out.job") {
		t.Error(errs)
	}
}

// A worker that is killed leaves a file from which the next one goes on.
func TestBatchKilled(t *testing.T) {
	model, in, dir := makeModel(t, hierarchical), lines(t, prompts(60)...), t.TempDir()
	whole, part := filepath.Join(dir, "whole"), filepath.Join(dir, "part")
	arguments := []string{"batch", "-model", model, "-n", "60", "-texts", "2", "-resume", in}
	call(t, 0, "", append(arguments, whole)...)
	for delay := 5 * time.Millisecond; ; delay *= 2 {
		worker := program(t, "", append(arguments, part)...)
		if err := worker.Start(); err != nil {
			t.Fatal(err)
		}
		killed := time.AfterFunc(delay, func() { worker.Process.Kill() })
		if worker.Wait() == nil {
			killed.Stop()
			break
		}
	}
	if got, want := contents(t, part), contents(t, whole); got != want {
		t.Errorf("after the kills:\n%s\nwant\n%s", got, want)
	}
}

func TestBatchScores(t *testing.T) {
	model := makeModel(t, hierarchical)
	in, out := lines(t, `{"text":"a text"}`, `{"text":""}`, `{"prompt":"x"}`, `nonsense`, `{"id":[1],"text":"a text"}`), filepath.Join(t.TempDir(), "out")
	_, errs := call(t, exitFailed, "", "batch", "-model", model, "-score", in, out)
	if !strings.Contains(errs, "2 of 5 lines") {
		t.Errorf("stderr %q", errs)
	}
	rows := strings.Split(contents(t, out), "\n")
	scored, _ := call(t, 0, "a text", "score", "-model", model, "-json", "-")
	var all, first batchRow
	json.Unmarshal([]byte(scored), &all)
	if err := json.Unmarshal([]byte(rows[0]), &first); err != nil || *first.Nats != *all.Nats || *first.Tokens != 6 || *first.BitsPerByte != *all.BitsPerByte {
		t.Errorf("%s, score says %s", rows[0], scored)
	}
	for i, part := range []string{
		`"bytes":6`, `"nats":0,"tokens":0,"bytes":0}`, `no \"text\"`, "want a value", `"id":[1]`,
	} {
		want(t, rows[i], fmt.Sprintf(`{"index":%d`, i), part)
	}
}

// A text has 2³¹-1 tokens at most, and -1 is no bound.
func TestTokenBound(t *testing.T) {
	model, in, dir := makeModel(t, hierarchical), lines(t, `{"prompt":"a"}`), t.TempDir()
	for _, n := range []string{"2147483648", "1000000000000", "1e3", "x"} {
		line, err := parseLine([]byte(`{"prompt":"a","n":` + n + `,"seed":1}`))
		if n != "x" && (err == nil || !strings.Contains(err.Error(), "want a whole number of at most 2147483647")) {
			t.Errorf("n of %s: %+v, %v", n, line, err)
		}
		for _, args := range [][]string{{"run", "-n", n, "a"}, {"batch", "-n", n, in, filepath.Join(dir, "out")}} {
			_, errs := call(t, exitUsage, "", slices.Insert(args, 1, "-model", model)...)
			want(t, errs, "whole number of at most 2147483647")
		}
	}
	for _, n := range []int{-1, 0, math.MaxInt32} {
		text, _ := json.Marshal(map[string]any{"prompt": "a", "n": n})
		if line, err := parseLine(text); err != nil || *line.N != n {
			t.Errorf("n of %d: %+v, %v", n, line, err)
		}
	}
}
