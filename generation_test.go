package photon

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/photon-lm/photon/internal/bounded"
)

// TestGenerationConfig: what the file says are a session's defaults, and its ends are the model's.
func TestGenerationConfig(t *testing.T) {
	set := func(change func(*options)) options {
		o := defaultOptions()
		change(&o)
		return o
	}
	published := func(o *options) { o.temperature, o.topK, o.topP, o.minP = 1, 50, 1, 0 }
	for _, test := range []struct {
		text string
		want options
		ends []int
	}{
		{`{}`, defaultOptions(), nil},
		{`{"bos_token_id": 1, "eos_token_id": [2, 5, 7], "transformers_version": "4.51.0", "max_new_tokens": 20}`,
			defaultOptions(), []int{2, 5, 7}},
		{`{"eos_token_id": 2, "do_sample": true, "temperature": 0.6, "top_p": 0.9}`,
			set(func(o *options) { published(o); o.temperature, o.topP = 0.6, 0.9 }), []int{2}},
		{`{"repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "do_sample": true, "min_p": null}`,
			set(func(o *options) {
				o.temperature, o.topP, o.topK, o.minP, o.repeatPenalty, o.repeatLast = 0.7, 0.8, 20, 0, 1.05, -1
			}), nil},
		{`{"eos_token_id": []}`, defaultOptions(), nil},
		{`{"do_sample": false, "eos_token_id": null}`, set(func(o *options) { o.temperature = 0 }), nil},
		{`{"do_sample": false, "temperature": 0.7}`, set(func(o *options) { published(o); o.temperature = 0 }), nil},
		{`{"top_k": 0}`, set(func(o *options) { published(o); o.topK = 0 }), nil},
		{`{"repetition_penalty": 1.0}`, defaultOptions(), nil},
	} {
		got, ends, err := readGeneration(fstest.MapFS{"generation_config.json": {Data: []byte(test.text)}})
		if err != nil || !reflect.DeepEqual(got, test.want) || !reflect.DeepEqual(ends, test.ends) {
			t.Errorf("%s: %+v, ends %v, %v", test.text, got, ends, err)
		}
	}
	for text, says := range map[string]string{
		`{"temperature": -1}`:          "temperature",
		`{"temperature": "warm"}`:      "temperature",
		`{"top_p": 1.5}`:               "top_p",
		`{"top_k": -1}`:                "top_k",
		`{"repetition_penalty": 0}`:    "repetition_penalty",
		`{"eos_token_id": ["</s>"]}`:   "eos_token_id",
		`{"temperature": 1} {}`:        "byte",
		`version https://git-lfs.gi`:   "",
		`{"top_k": 1, "top_k": 2}`:     "top_k",
		`{"do_sample": 1}`:             "do_sample",
		"{\"temperature\": 1,\xff: 2}": "UTF-8",
	} {
		_, _, err := readGeneration(fstest.MapFS{"generation_config.json": {Data: []byte(text)}})
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}

	files := fstest.MapFS{}
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join("testdata/flats/qwen3-f32", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	files["generation_config.json"] = &fstest.MapFile{Data: []byte(`{"eos_token_id": [7, 9], "do_sample": false}`)}
	m, err := LoadFS(files)
	if err != nil {
		t.Fatal(err)
	}
	if ends := m.Config().EOSTokenIDs; !reflect.DeepEqual(ends, []int{7, 9}) {
		t.Errorf("ends %v", ends)
	}
	s := m.NewSession(LogProbs(1), MaxTokens(5))
	if err := s.Append(background, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	for token, err := range s.Generate(background) {
		if err != nil {
			t.Fatal(err)
		}
		if token.ID != token.Top[0].ID {
			t.Errorf("token %d is not the most likely, %d", token.ID, token.Top[0].ID)
		}
	}
	files["generation_config.json"] = &fstest.MapFile{Data: []byte(`{"eos_token_id": 61}`)}
	if _, err := LoadFS(files); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(),
		"generation_config.json: eos_token_id is 61") {
		t.Errorf("%v", err)
	}
}

func FuzzGeneration(f *testing.F) {
	for _, text := range []string{`{"eos_token_id":[1,2],"temperature":0.7,"top_k":5,"top_p":0.9,"min_p":0.1}`,
		`{"do_sample":false,"repetition_penalty":1.1,"photon_weights":"int8"}`,
		`{"eos_token_id":null,"stop_strings":["a"]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var o options
		var err error
		files := fstest.MapFS{generationFile: {Data: data}}
		bounded.Run(t, 8*len(data)+1<<20, func() { o, _, err = readGeneration(files) })
		if err != nil {
			if errorKind(err) == nil {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		again := []Option{Temperature(o.temperature), TopK(o.topK), TopP(o.topP), MinP(o.minP),
			RepeatPenalty(o.repeatPenalty)}
		if _, err := resolve(defaultOptions(), again); err != nil {
			t.Fatalf("%s says what no option may: %v", data, err)
		}
	})
}
