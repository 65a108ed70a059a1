package photon

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/photon-lm/photon/internal/bounded"
)

// What long lists and objects of many keys take: fuzzing finds what is short.
func TestReadersAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates more")
	}
	nfcTables() // which stay
	list := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			if strings.Contains(format, "%") {
				fmt.Fprintf(&b, format, i)
			} else {
				b.WriteString(format)
			}
		}
		return b.String()
	}
	object := func(n int, format string) string { return "{" + list(n, format) + "}" }
	escaped := func(n int) string { return `"\n` + strings.Repeat("a", 30*n) + `"` }
	readers := map[string]func(text string) error{
		"config": func(text string) error { _, err := parseConfig([]byte(text)); return err },
		"generation": func(text string) error {
			_, _, err := readGeneration(fstest.MapFS{generationFile: {Data: []byte(text)}})
			return err
		},
		"header": func(text string) error {
			_, err := openCheckpoint(fstest.MapFS{weightsFile: {Data: rawFile(text, nil)}}, maxTensors)
			return err
		},
		"index": func(text string) error {
			_, err := openCheckpoint(fstest.MapFS{indexFile: {Data: []byte(text)}, "s": {Data: testFile()}}, maxTensors)
			return err
		},
		"tokenizer": func(text string) error {
			_, err := parseTokenizer(background, []byte(text+`,"decoder":{"type":"ByteLevel"}}`))
			return err
		},
	}
	for _, n := range []int{1000, 7000, 25000, 60000} {
		for _, test := range []struct{ reader, text string }{
			{"config", `{"model_type":"llama","eos_token_id":[` + list(n, "1") + `]}`},
			{"config", `{"model_type":"llama","architectures":[` + list(n, `"%d"`) + `]}`},
			{"config", `{"model_type":"qwen3","layer_types":[` + list(n, `"full_attention"`) + `]}`},
			{"config", `{"model_type":"qwen3","layer_types":[` + list(n, `""`) + `]}`},
			{"config", `{"model_type":"llama","rope_scaling":{"type":"factors","factors":[` + list(n, "1") + `]}}`},
			{"config", `{"model_type":"llama","other":` + object(n, `"%x":1`) + `}`},
			{"config", `{"model_type":"photon","format_version":1,"levels":[` + list(n, `{"chunk_size":2}`) + `]}`},
			{"config", `{"model_type":"llama","other":[` + list(n/100, object(193, `"%x":1`)) + `]}`},
			{"config", `{"model_type":"llama",` + escaped(n) + `:1}`},
			{"config", `{"model_type":` + escaped(n) + `}`},
			{"generation", `{"eos_token_id":[` + list(n, "7") + `]}`},
			{"generation", `{"sequence_bias":[` + list(n, "[[%d],1.0]") + `]}`},
			{"header", object(n, `"w%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`)},
			{"header", object(n, `"w%x":{"dtype":"F32","shape":[0,1,1,1,1,1,1,1],"data_offsets":[0,0]}`)},
			{"header", object(n, `"":0`)},
			{"header", `{` + escaped(n) + `:{"dtype":` + escaped(n) + `}}`},
			{"header", `{"__metadata__":` + object(n, `"%x":"a"`) + `}`},
			{"index", `{"weight_map":` + object(n, `"w%x":"s%[1]x"`) + `}`},
			{"index", `{"weight_map":` + object(n, `"w%x":"s"`) + `}`},
			{"index", `{"weight_map":` + object(n, `"":0`) + `}`},
			{"index", `{"weight_map":{` + escaped(n) + `:"s"}}`},
			{"tokenizer", `{"added_tokens":[` + list(n, "0") + `]`},
			{"tokenizer", `{"model":{"merges":[],"vocab":` + object(n, `"":0`) + `}`},
			{"tokenizer", `{"model":{"vocab":{"a":0},"merges":[` + escaped(n) + `]}`},
			{"tokenizer", `{"model":{"vocab":{"a":0},"merges":[` + list(n/100, object(193, `"%x":1`)) + `]}`},
			{"tokenizer", `{"model":{"merges":[],"vocab":` + object(n, `"%x":%[1]d`) + `}`},
			{"tokenizer", `{"model":{"merges":[` + list(n, `"a a"`) + `],"vocab":{"a":0,"aa":1}}`},
			{"tokenizer", `{"other":` + object(n, `"%x":[]`) + `,"model":{"merges":[],"vocab":{"a":0}}`},
		} {
			t.Run(fmt.Sprintf("%s/%.40s/%d", test.reader, test.text, n), func(t *testing.T) {
				bounded.Run(t, 8*len(test.text)+1<<20, func() { _ = readers[test.reader](test.text) })
			})
		}
	}
}

func TestGGUFAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates more")
	}
	const n = 30000
	keys, tensors, strings := ggufHead(0, maxGGUFKeys), ggufHead(n, 0), ggufHead(0, 1)
	strings.put("a").put(uint32(9), uint32(8), uint64(n))
	for i := range n {
		if i < maxGGUFKeys {
			keys.put(fmt.Sprint(i)).put(uint32(4), uint32(1))
		}
		tensors.put(fmt.Sprint(i), uint32(1), []uint64{32}, uint32(0), uint64(0))
		strings.put("")
	}
	for name, file := range map[string]*ggufMaker{"keys": keys, "tensors": tensors, "strings": strings} {
		data := file.Bytes()
		t.Run(name, func(t *testing.T) { bounded.Run(t, 8*len(data)+1<<20, func() { _ = loadGGUFBytes(data) }) })
	}
}
