//go:build !js && !wasip1

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/internal/bounded"
)

const goldenModel = "../../testdata/golden/photon-local-f32"

// A link that leads nowhere is no file that is absent.
func TestDanglingLinks(t *testing.T) {
	dir := chatModel(t, hierarchical)
	for name, verb := range map[string][]string{
		sumsFile:                 {"verify", dir},
		"golden.json":            {"verify", dir},
		"chat_template.jinja":    {"chat", "-model", dir},
		"tokenizer_config.json":  {"serve", "-model", dir, "-addr", "127.0.0.1:0"},
		"generation_config.json": {"run", "-model", dir, "a"},
		"tokenizer.json":         {"quantize", dir, filepath.Join(t.TempDir(), "out"), lines(t, "a text")},
	} {
		path := filepath.Join(dir, name)
		if name == "tokenizer_config.json" {
			os.Remove(filepath.Join(dir, "chat_template.jinja"))
		}
		before, err := os.ReadFile(path)
		os.Remove(path)
		if err := os.Symlink("nowhere", path); err != nil {
			t.Skip(err)
		}
		_, errs := call(t, exitInvalidModel, "", verb...)
		want(t, errs, name, "a link to a file that does not exist")
		os.Remove(path)
		if err == nil {
			os.WriteFile(path, before, 0o644)
		}
	}
}

// What SHA256SUMS says of names cannot steer a terminal, and each file is read once.
func TestHostileSums(t *testing.T) {
	const evil = "x\x1b[2J\x1b[31mEVIL\u202e"
	files := fstest.MapFS{"a": {Data: []byte("a")}, evil: {Data: []byte("b")}}
	sum := func(name string) string { return fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte("a")), name) }
	for list, test := range map[string]struct {
		says string
		kind error
	}{
		sum("a") + sum(evil+"none"):             {`line 2: "x\x1b[2J\x1b[31mEVIL\u202enone": `, fs.ErrNotExist},
		sum(evil):                               {`"x\x1b[2J\x1b[31mEVIL\u202e" has the SHA-256`, photon.ErrMismatch},
		strings.Repeat("\x1b[2J", 16) + "  a\n": {"line 1 is not a SHA-256", photon.ErrCorrupt},
		sum("a") + sum("a"):                     {`line 2: "a" is already in line 1`, photon.ErrCorrupt},
		sum("a") + sum("*a"):                    {`line 2: "a" is already in line 1`, photon.ErrCorrupt},
		strings.Repeat(sum("a"), 1<<14):         {"more than 1048576", photon.ErrCorrupt},
	} {
		files[sumsFile] = &fstest.MapFile{Data: []byte(list)}
		_, err := checkSums(t.Context(), files)
		if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) ||
			strings.ContainsAny(err.Error(), "\x1b\u202e") {
			t.Errorf("%.200q: %v, want %q", list, err, test.says)
		}
	}
	if got := message(errors.New("photon: " + evil + "\u009b\xff\tä\nb")); got !=
		`x\x1b[2J\x1b[31mEVIL\u202e\u009b`+"\ufffd"+`\tä`+"\nb" {
		t.Errorf("an error is shown as %q", got)
	}
}

// golden.json says everything once, under exact keys, and is read in bounded memory.
func TestHostileGolden(t *testing.T) {
	const rest = `"rows":[0],"indices":[[0]],"values":[[0.5]],"logsumexp":[3],"tolerance":1e-4}`
	long := func(item string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
	}
	for text, test := range map[string]struct {
		says string
		kind error
	}{
		`{"ids":[1],` + rest:                               {},
		`{"ids":[1],"IDS":[70],"more":{},` + rest:          {},
		`{"ids":[1],"ids":[2],` + rest:                     {`"ids" stands twice`, photon.ErrCorrupt},
		`{"IDS":[1],` + rest:                               {"ids is missing", photon.ErrCorrupt},
		`{"ids":[1],` + rest + `{}`:                        {"something stands after", photon.ErrCorrupt},
		`{"ids":[4294967297],` + rest:                      {"ids: byte", photon.ErrCorrupt},
		`{"ids":` + long("1", maxGoldenIDs) + `,` + rest:   {},
		`{"ids":` + long("1", maxGoldenIDs+1) + `,` + rest: {"1025, want at most 1024", photon.ErrUnsupported},
		`{"indices":` + long("[]", 1<<18) + `}`:            {"262144, want at most 1024", photon.ErrUnsupported},
		`{"indices":[` + long("0", 1<<19-10) + `]}`:        {"ids is missing", photon.ErrCorrupt},
		`{"values":[` + long("0", 1<<19-10) + `]}`:         {"ids is missing", photon.ErrCorrupt},
	} {
		var err error
		files := fstest.MapFS{"golden.json": {Data: []byte(text)}}
		bounded.Run(t, 8*len(text)+1<<20, func() { _, err = readGolden(files, photon.Config{VocabSize: 61}) })
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) ||
			test.kind != nil && !errors.Is(err, test.kind) {
			t.Errorf("%.100s: %v, want %q", text, err, test.says)
		}
	}

	// Ids times vocabulary are 2³².
	files := fstest.MapFS{"golden.json": {Data: []byte(`{"ids":` + long("1", maxGoldenIDs) + `,` + rest)}}
	if _, err := readGolden(files, photon.Config{VocabSize: 1 << 22}); !errors.Is(err, photon.ErrUnsupported) {
		t.Errorf("2³² logits: %v", err)
	}
}

// A liar is a file that has more bytes than its size.
type liar struct{ fs.FS }

func (l liar) Open(name string) (fs.File, error) {
	f, err := l.FS.Open(name)
	return liarFile{f}, err
}

type liarFile struct{ fs.File }

func (liarFile) Read(b []byte) (int, error)   { clear(b); return len(b), nil }
func (f liarFile) Stat() (fs.FileInfo, error) { return f.File.Stat() }

func TestEndlessFile(t *testing.T) {
	files := liar{fstest.MapFS{"generation_config.json": {Data: []byte("{}")}}}
	bounded.Run(t, 8*maxSmall, func() {
		if _, err := recommendedWeights(files); !errors.Is(err, photon.ErrCorrupt) {
			t.Errorf("a file without an end: %v", err)
		}
	})
}

// The comparison ends with its context.
func TestCompareEnds(t *testing.T) {
	dir := copyModel(t, goldenModel)
	writeGolden(t, goldenModel, dir, nil)
	m, err := photon.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	g, err := readGolden(os.DirFS(dir), m.Config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.compare(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("compared behind the end of the context: %v", err)
	}
}
