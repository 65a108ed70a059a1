//go:build !js && !wasip1

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/photon-lm/photon"
)

// The test binary is the program when it is told so: the tests run it as a user would.
func TestMain(m *testing.M) {
	if os.Getenv("PHOTON_TEST_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

func program(t *testing.T, stdin string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "PHOTON_TEST_MAIN=1")
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// call runs photon and wants this exit code; it returns both outputs.
func call(t *testing.T, code int, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := program(t, stdin, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("photon %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func want(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

// hierarchical is a tiny model of bytes and an end-of-text token, flat the same without levels and without a beginning-of-text token.
var (
	tinyStack    = photon.StackConfig{HiddenSize: 32, Layers: 1, Heads: 4, KVHeads: 2, HeadDim: 8, IntermediateSize: 48, RopeTheta: 10000}
	hierarchical = photon.Config{ModelType: "photon", FormatVersion: 1, VocabSize: 257, EmbeddingSize: 8, RMSNormEps: 1e-5, BOSTokenID: -1, EOSTokenIDs: []int{256},
		Levels: []photon.LevelConfig{
			{ChunkSize: 4, PrefixLength: 2, Chunker: "concat", Encoder: tinyStack, Decoder: tinyStack},
			{ChunkSize: 4, PrefixLength: 2, Chunker: "linear", Encoder: tinyStack, Decoder: tinyStack}}}
	flat = photon.Config{ModelType: "llama", VocabSize: 257, EmbeddingSize: 32, RMSNormEps: 1e-5, BOSTokenID: -1, EOSTokenIDs: []int{256}, Transformer: tinyStack}
)

// makeModel writes a model of random weights with a tokenizer whose tokens are the bytes.
func makeModel(t *testing.T, cfg photon.Config) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := photon.WriteRandom(dir, cfg, 7, "F32"); err != nil {
		t.Fatal(err)
	}
	vocab, next := map[string]int{}, rune(256)
	for b := range 256 { // GPT-2's spelling of bytes
		r := rune(b)
		if b <= ' ' || b >= 0x7f && b <= 0xa0 || b == 0xad {
			r, next = next, next+1
		}
		vocab[string(r)] = b
	}
	data, err := json.Marshal(map[string]any{
		"version":        "1.0",
		"added_tokens":   []any{map[string]any{"id": 256, "content": endOfDocument, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}},
		"normalizer":     nil,
		"pre_tokenizer":  map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		"post_processor": nil,
		"decoder":        map[string]any{"type": "ByteLevel"},
		"model":          map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "vocab": vocab, "merges": []string{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestHelp(t *testing.T) {
	out, _ := call(t, 0, "", "help")
	for _, v := range verbs {
		want(t, out, "photon "+v.name)
		text, _ := call(t, 0, "", "help", v.name)
		want(t, text, "photon "+v.name+" "+v.arguments)
		f := flag.NewFlagSet(v.name, flag.ContinueOnError)
		v.setup(f)
		f.VisitAll(func(f *flag.Flag) { // each on a line of its own
			if n := len(regexp.MustCompile(`(?m)^  -`+regexp.QuoteMeta(f.Name)+`\b`).FindAllString(text, -1)); n != 1 {
				t.Errorf("help of %s tells of -%s %d times", v.name, f.Name, n)
			}
		})
		if same, _ := call(t, 0, "", v.name, "-h"); same != text {
			t.Errorf("photon %s -h is not photon help %s", v.name, v.name)
		}
	}
	for _, name := range []string{"help", "version", "-h"} {
		text, _ := call(t, 0, "", "help", name)
		want(t, text, "photon "+strings.Replace(name, "-h", "help", 1))
	}
	out, _ = call(t, 0, "", "version")
	want(t, out, "photon ", "go1")
	_, errs := call(t, exitUsage, "")
	want(t, errs, "photon run")
}

func TestUsageErrors(t *testing.T) {
	dir := makeModel(t, hierarchical)
	for _, args := range [][]string{
		{"dance"}, {"help", "dance"}, {"help", "run", "x"}, {"version", "x"},
		{"run", "-no-such-flag"}, {"run", "-n", "many"}, {"run", "-weights", "int3"}, {"run", "-cache", "f8"},
		{"run", "-mode", "fast"}, {"run", "-model", dir, "-threads", "-1"}, {"run", "-model", dir, "-temp", "-1", "x"}, {"run", "-model", dir, "-top-p", "NaN", "x"},
		{"run", "-model", dir, "a\xff"}, {"show", "x"}, {"show", "-preset", "no-such"}, {"show", "-preset", "flat-20m", "-model", dir},
		{"score"}, {"score", "a", "b"}, {"verify"}, {"verify", "a", "b"}, {"init", "x"}, {"init", "-preset", "flat-20m"}, {"init", "-preset", "no-such", "x"},
		{"run", "-model", "", "x"}, {"show", "-preset", ""}, {"bench", "-preset", ""}, {"bench", "-paper", "-to", ""},
		{"init", "-preset", "", "x"},
		{"init", "-preset", "flat-20m", ""}, {"init", "-config", "main.go", "x"},
		{"init", "-config", "no-such.json", "x"}, {"init", "-preset", "flat-20m", "-config", "../../testdata/golden/block-f32/config.json", "x"},
	} {
		out, errs := call(t, exitUsage, "", args...)
		if out != "" && out != "x\n" || !strings.HasPrefix(errs, "photon: ") || strings.Count(errs, "photon: ") != 1 {
			t.Errorf("photon %q: stdout %q, stderr %q", args, out, errs)
		}
	}
}

// A mistake in the environment is the user's, like one in the arguments.
func TestNoSuchKernel(t *testing.T) {
	for _, args := range [][]string{{"run", "x"}, {"bench"}, {"run", "-model", makeModel(t, hierarchical), "x"}} {
		cmd := program(t, "", args...)
		cmd.Env = append(cmd.Env, "PHOTON_KERNEL=foo")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		cmd.Run()
		want(t, errs.String(), "photon: "+args[0], "PHOTON_KERNEL=foo", "generic")
		if code := cmd.ProcessState.ExitCode(); code != exitUsage || strings.Count(errs.String(), "photon: ") != 1 {
			t.Errorf("%v: exit code %d, %s", args, code, errs.String())
		}
	}
}

func TestModelErrors(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "no-such-model")
	for _, args := range [][]string{
		{"run", "-model", missing, "x"}, {"show", "-model", missing}, {"score", "-model", missing, text}, {"verify", missing},
		{"run", "-model", dir, "x"}, {"show", "-model", dir}, {"score", "-model", dir, text}, {"verify", dir},
	} {
		_, errs := call(t, exitNotFound, "", args...)
		want(t, errs, dir, "photon: "+args[0]+": ")
		if strings.Count(errs, "photon: ") != 1 {
			t.Errorf("%q", errs)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "photon", "format_version": 1}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"run", "-model", dir, "x"}, {"show", "-model", dir}, {"score", "-model", dir, text}, {"verify", dir}, {"verify", text},
	} {
		call(t, exitInvalidModel, "", args...)
	}
	_, errs := call(t, exitInvalidModel, "", "run", "-model", text, "x")
	want(t, errs, text+" is a file: give the directory")
}

func TestShow(t *testing.T) {
	for preset, parameters := range map[string]int64{ // the paper's counts
		"photon-600m": 646399104, "photon-900m": 907162368, "photon-1.2b": 1229531520,
	} {
		var d description
		out, _ := call(t, 0, "", "show", "-json", "-preset", preset)
		if err := json.Unmarshal([]byte(out), &struct {
			*description
			Config any
		}{&d, nil}); err != nil {
			t.Fatal(err)
		}
		if d.Parameters != parameters || d.Name != preset || d.MetaContext != 16 || d.Flat || len(d.StateBytes) != len(showLengths) {
			t.Errorf("%s: %+v", preset, d)
		}
		for _, s := range d.StateBytes { // an unbounded encoder of each level, and the prefix rows of the decoders
			if s.F32 != 2*s.F16 || s.Int8 >= s.F16 || s.F16 == 0 {
				t.Errorf("%s: state %+v", preset, s)
			}
		}
	}
	out, _ := call(t, 0, "", "show", "-preset", "photon-600m")
	want(t, out, "646,399,104", "encoder 2", "131,072 tokens", "PHOTON of 2 levels")

	dirs, err := filepath.Glob("../../testdata/golden/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no golden models", err)
	}
	for _, dir := range dirs {
		var d map[string]any
		out, _ := call(t, 0, "", "show", "-json", "-model", dir)
		if err := json.Unmarshal([]byte(out), &d); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"parameters", "start_latent", "flat", "meta_context", "tensors", "weight_bytes", "state_bytes", "config"} {
			if _, ok := d[key]; !ok {
				t.Errorf("%s: no %q in %s", dir, key, out)
			}
		}
		out, _ = call(t, 0, "", "show", "-model", dir)
		want(t, out, "parameters", "state after")
	}
	out, _ = call(t, 0, "", "show", "-model", "../../testdata/golden/memory-window-rope-stream-bf16")
	want(t, out, "memory of level 1", "in 0,2", "added", "2×all")
	out, _ = call(t, 0, "", "show", "-model", "../../testdata/golden/memory0-added-stream-f32")
	want(t, out, "token encoder", "memory of level 0", "4 11", "read as the first encoder does")
}

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "flat")
	call(t, 0, "", "init", "-preset", "flat-20m", "-seed", "3", dir)
	out, _ := call(t, 0, "", "show", "-model", dir)
	want(t, out, "BF16")
	_, errs := call(t, exitInvalidModel, "", "run", "-model", dir, "x")
	want(t, errs, "tokenizer.json")
	_, errs = call(t, exitFailed, "", "init", "-preset", "flat-20m", dir)
	want(t, errs, dir)

	other := filepath.Join(t.TempDir(), "block")
	call(t, 0, "", "init", "-config", "../../testdata/golden/block-f32/config.json", other)
	out, _ = call(t, 0, "", "show", "-model", other)
	want(t, out, "PHOTON of 1 level")
}

// The program itself holds a model.
func TestEmbeddedModel(t *testing.T) {
	var d description
	out, _ := call(t, 0, "", "show", "-json")
	if err := json.Unmarshal([]byte(out), &struct {
		*description
		Config any
	}{&d, nil}); err != nil {
		t.Fatal(err)
	}
	if d.Parameters == 0 || d.Flat {
		t.Errorf("%s", out)
	}
	out, errs := call(t, 0, "", "run", "-v", "-n", "5", "-seed", "12", "Once upon a time")
	want(t, out, "Once upon a time")
	want(t, errs, "seed 12", "kernel")
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		rest string
		n    int
	}{
		{"", "", 0}, {"a b", "a b", 0}, {"-n 1 a", "a", 1}, {"a -n 1", "a", 1}, {"a -n 1 b -n 2", "a b", 2}, {"-", "-", 0}, {"- -n 3", "-", 3},
		{"-- -n 1", "-n 1", 0}, {"a -n 2 -- -n 1", "a -n 1", 2}, {"a --", "a", 0},
	} {
		f := flag.NewFlagSet("", flag.ContinueOnError)
		n := f.Int("n", 0, "")
		rest, err := parse(f, strings.Fields(c.args))
		if err != nil || strings.Join(rest, " ") != c.rest || *n != c.n {
			t.Errorf("%q: %q, n %d, %v; want %q, n %d", c.args, rest, *n, err, c.rest, c.n)
		}
	}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	if _, err := parse(f, []string{"a", "-x"}); err == nil {
		t.Error("an unknown flag behind an argument is accepted")
	}
}

func TestFormat(t *testing.T) {
	for n, text := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", -1000: "-1,000", -999: "-999", 1234567: "1,234,567"} {
		if got := count(n); got != text {
			t.Errorf("count(%d) = %s, want %s", n, got, text)
		}
	}
	for n, text := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1.00 kB", 999499: "999 kB", 999500: "1.00 MB", 12345678: "12.3 MB", 1 << 62: "4.61 EB"} {
		if got := size(n); got != text {
			t.Errorf("size(%d) = %s, want %s", n, got, text)
		}
	}
	if got := strings.Join([]string{rate(10, 0), rate(1, 2), rate(5000, 2)}, " "); got != "- 0.5 2,500" {
		t.Errorf("rates %q", got)
	}
}

// copyModel copies a model directory, so that a test can damage it.
func copyModel(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
