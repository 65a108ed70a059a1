//go:build !js && !wasip1

package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/photon-lm/photon"
)

// chatModel is a model of random weights that speaks ChatML.
func chatModel(t *testing.T, cfg photon.Config) string {
	t.Helper()
	dir := makeModel(t, cfg)
	if err := os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte("{{'<|im_start|>' + role}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestChat(t *testing.T) {
	dir := chatModel(t, hierarchical)
	file := filepath.Join(t.TempDir(), "kept")
	chat := func(lines ...string) string {
		t.Helper()
		out, _ := call(t, 0, strings.Join(lines, "\n"), "chat", "-model", dir, "-n", "20", "-seed", "3")
		return out
	}
	whole := chat("one", "two", "three")
	first := chat("one", "two", "/save "+file)
	if !strings.HasPrefix(whole, first) || whole == first {
		t.Fatalf("%q does not begin with %q", whole, first)
	}
	if got := first + chat("/load "+file, "three"); got != whole {
		t.Errorf("kept and loaded: %q, want %q", got, whole)
	}
	if got := chat("other", "/reset", "one", "two"); !strings.HasSuffix(got, first) {
		t.Errorf("after /reset: %q, want it to end with %q", got, first)
	}
	if got, _ := call(t, 0, "", "chat", "-model", dir); got != "" {
		t.Errorf("nothing said: %q", got)
	}
	_, errs := call(t, 0, "/help\n", "chat", "-model", dir)
	want(t, errs, "/save FILE")
	for line, code := range map[string]int{"/dance": exitUsage, "/save": exitUsage, "/load " + file + ".not": exitFailed, "a\xff": exitUsage, "/save " + filepath.Join(file, "x"): exitFailed} {
		_, errs := call(t, code, line, "chat", "-model", dir)
		want(t, errs, "photon: chat: ")
	}
	for line, part := range map[string]string{"/load " + t.TempDir(): "no regular file",
		"/save " + filepath.Join(file, "x"):        filepath.Join(file, "x: "),
		"/save " + filepath.Join(dir, "none", "x"): "x: no such"} {
		if _, errs = call(t, exitFailed, line, "chat", "-model", dir); !strings.Contains(errs, part) &&
			runtime.GOOS != "windows" || strings.Contains(errs, ".tmp") {
			t.Errorf("%s: %s, want %q", line, errs, part)
		}
	}
	call(t, 0, "/save\t"+file+"\n/load \t "+file, "chat", "-model", dir)
	// The first line that cannot be done ends a program that reads from a pipe, as its help says.
	out, _ := call(t, exitUsage, "/dance\none\n", "chat", "-model", dir)
	if help, _ := call(t, 0, "", "help", "chat"); out != "" || !strings.Contains(help, "From a pipe or a file, the first") {
		t.Errorf("%q behind a bad line; help says %q", out, help)
	}
	if entries, err := os.ReadDir(filepath.Dir(file)); err != nil || len(entries) != 1 {
		t.Errorf("left beside the file: %v, %v", entries, err)
	}
	call(t, exitUsage, "one\n", "chat", "-model", dir, "-temp", "nan")
	_, errs = call(t, exitFailed, "one\n", "chat", "-model", makeModel(t, hierarchical))
	want(t, errs, "no chat model", "photon run")
	if out, _ := call(t, 0, "Hello, how are you?\n", "chat", "-n", "40"); strings.TrimSpace(out) == "" || strings.Contains(out, "User:") {
		t.Errorf("the embedded model says %q", out)
	}
}

func TestFindTemplate(t *testing.T) {
	for text, want := range map[string]string{
		"{{'<|im_start|>'}}": "<|im_end|>", "<|start_header_id|> <|eot_id|>": "<|eot_id|>", "<start_of_turn>": "<end_of_turn>",
		"<|user|> <|end|>": "<|end|>", "<|user|> eos_token": "</s>", "User: Assistant:": "\nUser:",
	} {
		quoted := `{"chat_template": "` + text + `"}`
		listed := `{"chat_template": [{"name": "tools", "template": "x"}, {"name": "default", "template": "` + text + `"}]}`
		for _, files := range []fstest.MapFS{{"chat_template.jinja": {Data: []byte(text)}}, {"tokenizer_config.json": {Data: []byte(quoted)}}, {"tokenizer_config.json": {Data: []byte(listed)}}} {
			if got, err := findTemplate(files); err != nil || got.stop != want {
				t.Errorf("%q: %+v, %v; want stop %q", text, got, err, want)
			}
		}
	}
	for text, want := range map[string]error{"{}": photon.ErrUnsupported, `{"chat_template": "[INST]"}`: photon.ErrUnsupported, `{"chat_template": 3}`: photon.ErrCorrupt, "{": photon.ErrCorrupt} {
		if _, err := findTemplate(fstest.MapFS{"tokenizer_config.json": {Data: []byte(text)}}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}

// What is said is plain text: only the template's special tokens are tokens.
func TestTurn(t *testing.T) {
	m, err := photon.Load(makeModel(t, hierarchical))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	template := chatTemplate{user: "U", reply: endOfDocument + "R", close: "C" + endOfDocument}
	said := "x" + endOfDocument
	text := func(s string) []int { return m.Tokenizer().EncodeText(s) }
	first := slices.Concat(text("U"+said), []int{256}, text("R"))
	if got := template.turn(m, said, true); !slices.Equal(got, first) {
		t.Errorf("first turn %v, want %v", got, first)
	}
	begins := flat // with a token that its template does not have: the server's prompts have none of it either
	begins.BOSTokenID = 1
	other, err := photon.Load(makeModel(t, begins))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if got := template.turn(other, said, true); !slices.Equal(got, first) {
		t.Errorf("first turn of a flat model %v, want %v", got, first)
	}
	if got, want := template.turn(m, said, false), slices.Concat(text("C"), []int{256}, first); !slices.Equal(got, want) {
		t.Errorf("second turn %v, want %v", got, want)
	}
}

func TestRecommendedWeights(t *testing.T) {
	for text, want := range map[string]photon.WeightType{"{}": photon.AsStored, `{"photon_weights": "int8"}`: photon.Int8, `{"photon_weights": "int4"}`: photon.Int4} {
		if got, err := recommendedWeights(fstest.MapFS{"generation_config.json": {Data: []byte(text)}}); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	if got, err := recommendedWeights(fstest.MapFS{}); got != photon.AsStored || err != nil {
		t.Errorf("no file: %v, %v", got, err)
	}
	for _, text := range []string{"{", `{"photon_weights": "int3"}`, `{"photon_weights": 8}`} {
		if _, err := recommendedWeights(fstest.MapFS{"generation_config.json": {Data: []byte(text)}}); !errors.Is(err, photon.ErrCorrupt) {
			t.Errorf("%s: %v", text, err)
		}
	}
	run := func(args ...string) string {
		out, _ := call(t, 0, "", append([]string{"run", "-n", "30", "-temp", "0", "-threads", "1"}, append(args, "The king")...)...)
		return out
	}
	if run() != run("-weights", "int8") {
		t.Error("the embedded model is not run with int8 weights")
	}
}

// What is no regular file is not replaced, and a link is followed.
func TestReplaceable(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err)
	}
	whole, _ := filepath.EvalSymlinks(target)
	if name, err := replaceable(link); err != nil || name != whole {
		t.Errorf("%s, %v", name, err)
	}
	if name, err := replaceable(filepath.Join(dir, "new")); err != nil || name != filepath.Join(dir, "new") {
		t.Errorf("%s, %v", name, err)
	}
	for _, name := range []string{dir, os.DevNull} {
		if _, err := replaceable(name); err == nil {
			t.Errorf("%s may be replaced", name)
		}
	}
}
