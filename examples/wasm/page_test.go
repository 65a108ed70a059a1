//go:build !js && !wasip1

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/photon-lm/photon"
)

// TestPage: what the page's files name is there: each other, and the ids of index.html.
func TestPage(t *testing.T) {
	page := map[string]string{}
	for _, name := range []string{"index.html", "page.js", "worker.js", "offline.js"} {
		data, err := os.ReadFile(filepath.Join("page", name))
		if err != nil {
			t.Fatal(err)
		}
		page[name] = string(data)
	}
	for _, m := range regexp.MustCompile(`\$\("([a-z-]+)"\)`).FindAllStringSubmatch(page["page.js"], -1) {
		if strings.Count(page["index.html"], `id="`+m[1]+`"`) != 1 {
			t.Errorf("page.js uses the element %q, which index.html must have once", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`"([a-z_]+\.js)"`).FindAllStringSubmatch(page["index.html"]+page["page.js"]+page["worker.js"], -1) {
		if page[m[1]] == "" && m[1] != "wasm_exec.js" {
			t.Errorf("the page loads %s, which is not there", m[1])
		}
		if m[1] != "offline.js" && !strings.Contains(page["offline.js"], `"`+m[1]+`"`) {
			t.Errorf("offline.js does not keep %s", m[1])
		}
	}
	// What the worker says the page must hear.
	for _, m := range regexp.MustCompile(`postMessage\(\{is: "(\w+)"`).FindAllStringSubmatch(page["worker.js"], -1) {
		if !regexp.MustCompile(`\n  ` + m[1] + `\(\{`).MatchString(page["page.js"]) {
			t.Errorf("page.js does not hear %q", m[1])
		}
	}
}

type text struct {
	Text                         string
	Calls, Last, Tokens, Written int
	Why                          string
	FirstToken, Rate             float64
}

// TestProtocol runs the program as the worker does, under node.
func TestProtocol(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the program")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node")
	}
	program := filepath.Join(t.TempDir(), "photon.wasm")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	wasmExec := filepath.Join(strings.TrimSpace(string(goroot)), "lib", "wasm", "wasm_exec.js")
	run := exec.Command(node, filepath.Join("testdata", "protocol.js"), wasmExec, program, filepath.Join("..", "..", "models", "stories"))
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	var seen struct {
		Unloaded, Empty, Cut, Hot, Word, Busy, Stopped string
		Nothing, NaN, Thrown, Reloaded                 string
		None                                           text
		Loaded                                         struct{ Parameters, FlatParameters int64 }
		First, Again, Other, Half, Rest, Prompt, After text
		StopTook                                       int
		State                                          [][]int64
	}
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	for _, e := range []struct{ got, want string }{
		{seen.Unloaded, "call load first"},
		{seen.Empty, "config.json: file does not exist"},
		{seen.Cut, "model.safetensors"},
		{seen.Hot, "temperature"},
		{seen.Word, "seed is a string: give a number"},
		{seen.Nothing, "prompt is a undefined: give a string"},
		{seen.NaN, "maxTokens is NaN: give a whole number"},
		{seen.Thrown, "mine"},
		{seen.Reloaded, "a text is being written"},
		{seen.None.Why, "max tokens"},
		{seen.Busy, "call stop first"},
		{seen.Stopped, "stopped"},
	} {
		if !strings.Contains(strings.ToLower(e.got), strings.ToLower(e.want)) {
			t.Errorf("%q, want %q", e.got, e.want)
		}
	}
	if f := seen.First; f.Calls != 24 || f.Written != 24 || f.Tokens != 28 || f.Last != 28 || f.Why != "max tokens" || f.FirstToken <= 0 || f.Rate <= 0 {
		t.Errorf("the text: %+v", f)
	}
	if seen.Again.Text != seen.First.Text || seen.After.Text != seen.First.Text {
		t.Errorf("one seed, several texts: %q, %q, and after a stop %q", seen.First.Text, seen.Again.Text, seen.After.Text)
	}
	if seen.Other.Text == seen.First.Text {
		t.Errorf("two seeds, one text: %q", seen.Other.Text)
	}
	if got := seen.Half.Text + seen.Rest.Text; got != seen.First.Text {
		t.Errorf("in two parts: %q, want %q", got, seen.First.Text)
	}
	if seen.Prompt.Why != "stopped" || seen.Prompt.Written != 0 {
		t.Errorf("a prompt that was stopped: %+v", seen.Prompt)
	}
	t.Logf("stop took %d ms", seen.StopTook)

	info, err := photon.Inspect(os.DirFS(filepath.Join("..", "..", "models", "stories")))
	if err != nil {
		t.Fatal(err)
	}
	flat, err := photon.Preset("flat-15m")
	if err != nil {
		t.Fatal(err)
	}
	rival, err := photon.Preset("rival-15m")
	if err != nil {
		t.Fatal(err)
	}
	if l := seen.Loaded; l.Parameters != info.Config.Parameters() || l.FlatParameters != flat.Parameters() {
		t.Errorf("the model is %+v", l)
	}
	var want [][]int64
	for _, n := range []int{0, 304, 4096, 32768} {
		var row []int64
		for _, c := range []photon.Config{info.Config, flat, rival} {
			row = append(row, c.StateBytes(n, photon.CacheF32))
		}
		want = append(want, row)
	}
	if diff := cmp.Diff(want, seen.State); diff != "" {
		t.Errorf("state bytes (-want +got):\n%s", diff)
	}
}

// TestBrowser drives the page in Chromium, by playwright-core: PHOTON_PLAYWRIGHT is the directory where npm has put it.
func TestBrowser(t *testing.T) {
	playwright := os.Getenv("PHOTON_PLAYWRIGHT")
	chromium, err := exec.LookPath("chromium")
	if playwright == "" || err != nil {
		t.Skip("wants PHOTON_PLAYWRIGHT=DIR, after npm install playwright-core in DIR, and chromium")
	}
	dist, pictures := t.TempDir(), os.Getenv("PHOTON_PICTURES")
	if pictures == "" {
		pictures = t.TempDir()
	}
	if out, err := exec.Command("go", "run", "./build", "-o", dist).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dist)))
	defer server.Close()
	run := exec.Command("node", filepath.Join("testdata", "browser.js"),
		filepath.Join(playwright, "node_modules", "playwright-core"), chromium, server.URL, pictures)
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	type story struct {
		Text, Status, State string
		First, Rate         float64
		Tokens              int
	}
	var seen struct {
		Size, Broken, Stopped, Stored string
		Story, Again, Offline         story
		Loaded, Wide, StopTook        int
		Invalid                       bool
		Problems                      []string
	}
	if err := json.Unmarshal(out, &seen); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, e := range []struct{ got, want string }{
		{seen.Size, " MB to download"}, {seen.Broken, "Check the connection"}, {seen.Story.Status, "tokens written"},
		{seen.Story.State, "B"}, {seen.Stopped, "stopped"}, {seen.Stored, "nothing has to be downloaded"},
	} {
		if !strings.Contains(e.got, e.want) {
			t.Errorf("%q, want %q", e.got, e.want)
		}
	}
	if s := seen.Story; len(s.Text) < 400 || s.Tokens < 100 || s.First <= 0 || s.Rate <= 0 {
		t.Errorf("the story: %+v", s)
	}
	if seen.Again.Text != seen.Story.Text || seen.Offline.Text != seen.Story.Text {
		t.Errorf("one seed, several texts: %q, %q, %q", seen.Story.Text, seen.Again.Text, seen.Offline.Text)
	}
	if seen.Wide > 0 || !seen.Invalid || len(seen.Problems) > 0 {
		t.Errorf("%d pixels too wide; a bad temperature is refused: %t; %q", seen.Wide, seen.Invalid, seen.Problems)
	}
	t.Logf("loaded in %d ms; first token %v ms, %v tokens/s; stopped in %d ms", seen.Loaded, seen.Again.First, seen.Again.Rate, seen.StopTook)
}
