package photon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/photon-lm/photon/internal/regular"
)

// Whatever a bound is of, what meets it exactly is taken, and one more is refused.
func TestBounds(t *testing.T) {
	const tail = `"decoder":{"type":"ByteLevel"}`
	const vocab = `{"model":{"vocab":{"a":%d},"merges":[]},%s}`
	index := `{"weight_map":{"w":"1"}}`
	one := testFile(testTensor{"w", dtypeF32, []int{1}, make([]byte, 4)})
	tokenizer := func(format string, args ...any) error {
		_, err := parseTokenizer(background, fmt.Appendf(nil, format, args...))
		return err
	}
	for name, test := range map[string]struct {
		kind error
		most int
		load func(n int) error
	}{
		"a config's bytes": {ErrCorrupt, maxConfigSize, func(n int) error {
			_, err := parseConfig([]byte(photonConfigText + strings.Repeat(" ", n-len(photonConfigText))))
			return err
		}},
		"an index's bytes": {ErrCorrupt, maxHeaderSize, func(n int) error {
			data := []byte(index + strings.Repeat(" ", n-len(index)))
			files := fstest.MapFS{indexFile: {Data: data}, "1": {Data: one}}
			_, err := openCheckpoint(files, maxTensors)
			return err
		}},
		"a small file's bytes": {ErrCorrupt, 77, func(n int) error {
			_, err := readSmall(fstest.MapFS{"x": {Data: make([]byte, n)}}, "x", 77)
			return err
		}},
		"a dimension": {ErrCorrupt, maxSize, func(n int) error {
			header := `{"w":{"dtype":"F32","shape":[0,%d],"data_offsets":[0,0]}}`
			data := rawFile(fmt.Sprintf(header, n), nil)
			_, err := openCheckpoint(fstest.MapFS{weightsFile: {Data: data}}, maxTensors)
			return err
		}},
		"a token's id": {ErrCorrupt, len(fmt.Sprintf(vocab, 1<<15, tail))/8 + 1<<15, func(n int) error {
			return tokenizer(vocab, n, tail)
		}},
		"the bytes of added tokens": {ErrUnsupported, 30, func(n int) error {
			_, err := newAddedTokens([]addedToken{{spelling: "abc"}, {spelling: strings.Repeat("x", n-3)}}, 30)
			return err
		}},
		"the bytes of an added token": {ErrUnsupported, maxTokenText, func(n int) error {
			_, err := newAddedTokens([]addedToken{{spelling: strings.Repeat("x", n)}}, 1<<20)
			return err
		}},
		"a template's ids": {ErrUnsupported, maxInsert, func(n int) error {
			c := component{specials: map[string][]int{"x": make([]int, n)}}
			_, err := c.templateIDs([]string{"x"}, 1)
			return err
		}},
		"a rewritten text": {ErrUnsupported, 64, func(n int) error {
			return tokenizer(`{"normalizer":{"type":"Replace","pattern":{"String":"ab"},"content":"%s"},`+
				`"model":{"vocab":{"a":0},"merges":[]},%s}`, strings.Repeat("x", 2*n), tail)
		}},
		"a text's tokens": {ErrUnsupported, 30, func(n int) error {
			defer func(most int) { maxText = most }(maxText)
			maxText = 30
			m := stories(t)
			s := m.NewSession()
			if err := s.Append(background, make([]int, 23)...); err != nil {
				return err
			}
			return s.Append(background, make([]int, n-23)...)
		}},
	} {
		if err := test.load(test.most); err != nil {
			t.Errorf("%s: %d are refused: %v", name, test.most, err)
		}
		if err := test.load(test.most + 1); !errors.Is(err, test.kind) {
			t.Errorf("%s: %d: %v, want %v", name, test.most+1, err, test.kind)
		}
	}
}

// Numbers in messages are the right ones.
func TestNumbersInMessages(t *testing.T) {
	stream, err := Load("testdata/golden/local-below-stream-nope-tied-f32")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	short := testFile(sampleTensors()...)
	short = short[:len(short)-5]
	long := testFile(sampleTensors()...)
	tiny := tinyGGUF("llama")
	g, err := readGGUF(bytes.NewReader(tiny), int64(len(tiny)))
	if err != nil {
		t.Fatal(err)
	}
	read := func(f lyingFS) error { _, err := readAll(f, sampleSpecs); return err }
	snapshot := func(spoil func(s *Session)) error {
		m, err := Load("testdata/golden/photon-local-f32")
		if err != nil {
			return err
		}
		defer m.Close()
		s := m.NewSession()
		if err := s.Append(background, make([]int, 21)...); err != nil { // a state waits at level 1
			return err
		}
		spoil(s)
		var data bytes.Buffer
		if _, err = s.WriteTo(&data); err == nil {
			_, err = m.ReadSession(&data)
		}
		return err
	}
	cut, lies := tiny[:len(tiny)-64], lyingFS{append(long, 0), int64(len(long)), false}
	_, id := tokenID(-1, "a")
	data := fmt.Sprintf("the data, the file has %d:", len(cut)-int(g.data))
	for says, err := range map[string]error{
		"level 1: 0 values wait, want 1":          snapshot(func(s *Session) { s.seq.states[0].rows = nil }),
		"decoder 2 stands at row":                 snapshot(func(s *Session) { s.seq.dec[1].next++ }),
		"encoder 2 bytes read":                    snapshot(func(s *Session) { s.seq.enc[1].read = -1 }),
		"the one of level 2 is a stream":          stream.checkMode(RecGen),
		fmt.Sprintf("want 0 to %d", maxTokenID-1): id,
		"ends after 31 of 32 bytes":               read(lyingFS{short, int64(len(short) + 5), false}),
		fmt.Sprint(len(long)+1, " bytes or more"): read(lies),
		data: loadGGUFBytes(cut),
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want one that says %q", err, says)
		}
	}
}

// A GGUF file that has gone since it was opened, or is another, is told of.
func TestGGUFGone(t *testing.T) {
	files := ggufFiles{regular.Dir(t.TempDir()), "gone.gguf"}
	if _, err := files.Open(templateFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want %v", err, fs.ErrNotExist)
	}
	if err := os.WriteFile(filepath.Join(string(files.dir), files.name), []byte("another file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Open(templateFile); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want %v", err, ErrCorrupt)
	}
}

// A token without characters stands for none, and not for U+FFFD.
func TestEmptyToken(t *testing.T) {
	tokenizer := mustParseTokenizer(t, []byte(`{"model":{"vocab":{"":0,"a":1},"merges":[]},"decoder":{"type":"Fuse"}}`))
	if got := tokenizer.Encode("a\ufffda"); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("%v", got)
	}
}

// A head that is stored beside the embedding that it is tied to may have scales, as that has.
func TestTiedIntegers(t *testing.T) {
	const embedding, head = "model.embed_tokens.weight", "lm_head.weight"
	c, err := openCheckpoint(fstest.MapFS{weightsFile: {Data: testFile(integers(embedding), scalesOf(embedding),
		integers(head), scalesOf(head))}}, maxTensors)
	if err != nil {
		t.Fatal(err)
	}
	specs := slices.Values([]tensorSpec{{embedding, []int{1, 32}}})
	if err := c.match(specs, map[string]string{head: embedding}); err != nil {
		t.Error(err)
	}
	if err := c.match(specs, nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("a head that is not tied: %v", err)
	}
}

func integers(name string) testTensor {
	return testTensor{name, dtypeI8, []int{1, 32}, make([]byte, 32)}
}

func scalesOf(name string) testTensor {
	return testTensor{name + scalesSuffix, dtypeF32, []int{1, 1}, make([]byte, 4)}
}

// Of what can be read anywhere nothing is held back: a matrix of integers has its scales read when it comes.
func TestNothingIsHeldBack(t *testing.T) {
	files := fstest.MapFS{weightsFile: {Data: testFile(integers("a"), integers("b"), scalesOf("b"), scalesOf("a"))}}
	c, err := openCheckpoint(files, maxTensors)
	if err != nil {
		t.Fatal(err)
	}
	e, n := &tensorReader{checkpoint: c, held: map[int][]byte{}}, 0
	err = e.file(&c.files[0], func(tensorData) error {
		if n++; len(e.held) > 0 {
			t.Errorf("%d tensors are held back", len(e.held))
		}
		return nil
	})
	if err != nil || n != 2 {
		t.Errorf("%d tensors, %v", n, err)
	}
}
