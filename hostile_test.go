package photon

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// A hostileFile is one file of a golden model, changed by somebody who means no good, and what it is refused for.
type hostileFile struct {
	model, file string
	what        string
	data        []byte
	kind        error
}

// TestHostileFiles: more than 120 kinds of them, each is refused by its kind, at once and in little memory.
func TestHostileFiles(t *testing.T) {
	files := append(hostileConfigs(t), hostileWeights(t)...)
	files = append(files, hostileIndices()...)
	files = append(files, hostileTokenizers(t)...)
	seen, slowest, largest := map[string]bool{}, time.Duration(0), int64(0)
	for _, h := range files {
		name := h.model + "/" + h.file + "/" + h.what
		if seen[name] {
			t.Fatalf("%s is there twice", name)
		}
		seen[name] = true
		t.Run(name, func(t *testing.T) {
			dir := readModel(t, filepath.Join("testdata/golden", h.model))
			dir[h.file] = &fstest.MapFile{Data: h.data}
			size := int64(0)
			for _, f := range dir {
				size += int64(len(f.Data))
			}
			var err error
			begin := time.Now()
			took := int64(allocated(func() { _, err = LoadFS(dir, WithThreads(1)) }))
			for again := 0; again < 3 && time.Since(begin) > 50*time.Millisecond; again++ { // the machine has other work
				begin = time.Now()
				_, err = LoadFS(dir, WithThreads(1))
			}
			elapsed := time.Since(begin)
			checkRefused(t, err, h.kind)
			for _, other := range []error{ErrCorrupt, ErrUnsupported, ErrMismatch} {
				if other != h.kind && errors.Is(err, other) {
					t.Errorf("%v is %q too", err, other)
				}
			}
			if took > size+4<<20 && !raceEnabled {
				t.Errorf("%d bytes allocated for files of %d", took, size)
			}
			if elapsed > 50*time.Millisecond {
				slow(t, "refused after %v", elapsed)
			}
			slowest, largest = max(slowest, elapsed), max(largest, took-size)
		})
	}
	n := len(seen) + hostileSnapshots(t)
	if n < 120 {
		t.Errorf("%d kinds", n)
	}
	figure(t, "%d kinds are refused, within %v and %d bytes above the files' size", n, slowest, largest)
}

// hostileConfigs change one value of a config.json each, or its text.
func hostileConfigs(t *testing.T) (list []hostileFile) {
	set := func(model string, kind error, path string, values ...string) {
		for _, value := range values {
			text := editedConfig(t, model, path, value)
			what := path + " " + value
			if len(what) > 80 {
				what = what[:80]
			}
			list = append(list, hostileFile{model, configFile, what, text, kind})
		}
	}
	const huge, beyond, far = "2147483648", "9223372036854775808", "1000000000"
	const p, m, f = "photon-local-f32", "memory2-prefix-local-f16", "flat-gqa-f32"
	for _, path := range []string{"vocab_size", "embedding_size", "levels.0.chunk_size", "levels.1.encoder.hidden_size",
		"levels.0.decoder.num_hidden_layers", "levels.0.encoder.num_attention_heads", "levels.1.decoder.num_key_value_heads",
		"levels.0.decoder.head_dim", "levels.1.encoder.intermediate_size"} {
		set(p, ErrCorrupt, path, "0", "-4", "1.5", `"4"`, "null", beyond)
		set(p, ErrUnsupported, path, huge)
	}
	set(p, ErrCorrupt, "rms_norm_eps", "0", "-1", "1e-60", "1", "1e400", `"x"`)
	set(p, ErrCorrupt, "levels", "[]", "{}", "[7]", "absent")
	level := string(valueAt(t, p, "levels.0"))
	set(p, ErrUnsupported, "levels", "["+strings.Repeat(level+",", 64)+"{}]")
	set(p, ErrCorrupt, "levels.0.prefix_length", "-1", "null")
	set(p, ErrUnsupported, "levels.0.prefix_length", far)
	set(p, ErrUnsupported, "levels.0.chunk_size", "1048577")
	set(p, ErrCorrupt, "levels.0.chunk_size", "1048576")
	set(p, ErrUnsupported, "levels.1.chunk_size", "1048576")
	set(p, ErrUnsupported, "levels.0.chunker", `"mean"`, `""`)
	set(p, ErrUnsupported, "levels.0.decoder.num_hidden_layers", far, "65536")
	set(p, ErrCorrupt, "levels.0.decoder.sliding_window", "-1", "1")
	set(p, ErrUnsupported, "levels.0.decoder.sliding_window", "[9]")
	set(m, ErrCorrupt, "levels.0.decoder.sliding_window", "[9]", "[9,9,9]", "[9,-1]")
	set(m, ErrUnsupported, "levels.0.decoder.sliding_window", "[9,2147483648]")
	set(p, ErrCorrupt, "levels.0.encoder.rope_theta", "-1", "0.5", "1e400", "1e-400", "-0.1e-999")
	set(p, ErrCorrupt, "levels.1.encoder.num_key_value_heads", "3")
	set(p, ErrCorrupt, "levels.1.encoder.head_dim", "9")
	set(p, ErrMismatch, "levels.1.encoder.head_dim", "12")
	set(p, ErrMismatch, "vocab_size", "62", "16777216")
	set(p, ErrUnsupported, "vocab_size", "16777217")
	set(p, ErrUnsupported, "format_version", "3", "0", "-1")
	set(p, ErrCorrupt, "format_version", "absent", `"1"`)
	set(p, ErrCorrupt, "model_type", "absent", "7")
	set(p, ErrUnsupported, "model_type", `"gpt2"`, `"PHOTON"`, `"`+strings.Repeat("x", 1<<16)+`"`)
	set(p, ErrCorrupt, "tie_word_embeddings", `"no"`, "0")
	set(p, ErrCorrupt, "eos_token_id", "61", "[2,-1]", "true")
	set(p, ErrCorrupt, "bos_token_id", "61", "-2")
	set(p, ErrUnsupported, "quantization_config", `{"quant_method":"gptq"}`)
	set(p, ErrUnsupported, "content", `"states"`)
	set(m, ErrUnsupported, "content", `"both"`)
	const memory = "levels.0.decoder.memories.0."
	set(m, ErrCorrupt, memory+"level", "-1", "3", "null")
	set(m, ErrCorrupt, memory+"layers", "[]", "[1,0]", "[2]", "[0,0]", "7")
	set(m, ErrCorrupt, memory+"sliding_window", "-1")
	set(m, ErrCorrupt, memory+"num_key_value_heads", "0", "3")
	set(m, ErrUnsupported, memory+"head_dim", huge)
	one := string(valueAt(t, m, "levels.0.decoder.memories.0"))
	set(m, ErrUnsupported, "levels.0.decoder.memories", "["+strings.Repeat(one+",", 64)+"{}]")
	set(m, ErrCorrupt, "token_encoder", "{}")
	set(p, ErrMismatch, "levels.0.decoder.num_hidden_layers", "2000", "7200") // of their tensors the file has a few
	set(f, ErrMismatch, "num_hidden_layers", "2000", "3600")
	set(f, ErrUnsupported, "rope_scaling", `{"rope_type":"yarn","factor":4}`, `{"type":"dynamic","factor":2}`)
	set(f, ErrUnsupported, "hidden_act", `"gelu"`)
	set(f, ErrMismatch, "attention_bias", "true")
	set(f, ErrMismatch, "mlp_bias", "true")
	set(f, ErrUnsupported, "sliding_window", "4096")
	set(f, ErrUnsupported, "layer_types", `["sliding_attention","full_attention"]`)
	set(f, ErrCorrupt, "layer_types", `["full_attention"]`)
	set(f, ErrUnsupported, "num_attention_heads", huge)
	set(f, ErrCorrupt, "head_dim", "0", "7")
	set(f, ErrCorrupt, "num_key_value_heads", "3")
	set(f, ErrMismatch, "tie_word_embeddings", "true")
	set("flat-mistral-f32", ErrCorrupt, "sliding_window", "-3", "absent")

	whole, err := json.Marshal(json.RawMessage(editedConfig(t, p, "vocab_size", "61")))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"empty": "", "spaces": "   ", "null": "null", "list": "[]", "string": `"photon"`, "open": "{", "comma": string(whole[:len(whole)-1]) + ",}",
		"BOM": "\xef\xbb\xbf" + string(whole), "UTF-16": "\xff\xfe{\x00}\x00", "NUL": string(whole) + "\x00", "two": string(whole) + "{}",
		"comment": "// x\n" + string(whole), "single quotes": strings.ReplaceAll(string(whole), `"`, "'"), "YAML": "model_type: photon\n",
		"LFS pointer":   lfsMagic + ".github.com/spec/v1\noid sha256:00\nsize 1\n",
		"HTML":          "<!DOCTYPE html><html></html>",
		"deep lists":    `{"x":` + strings.Repeat("[", 1<<18),
		"deep objects":  strings.Repeat(`{"x":`, 1<<17),
		"endless key":   `{"` + strings.Repeat("x", 1<<19),
		"endless digit": `{"vocab_size":` + strings.Repeat("9", 1<<18) + "}",
		"beyond 1 MiB":  string(whole) + strings.Repeat(" ", 1<<20),
		"key twice":     `{"vocab_size":61,` + string(whole[1:]),
		"escaped twice": `{"vocab\u005fsize":61,` + string(whole[1:]),
		"surrogate":     `{"x":"\ud800",` + string(whole[1:]),
		"bad escape":    `{"x":"\q",` + string(whole[1:]),
		"bad UTF-8":     "{\"x\":\"\xc0\x80\"," + string(whole[1:]),
		"control":       "{\"x\":\"\n\"," + string(whole[1:]),
		"NaN":           `{"x":NaN,` + string(whole[1:]),
		"leading zero":  `{"x":01,` + string(whole[1:]),
		"plus":          `{"x":+1,` + string(whole[1:]),
		"many objects":  `{"x":[` + strings.Repeat("{},", 1<<17) + `{}]}`,
	} {
		list = append(list, hostileFile{p, configFile, what, []byte(text), ErrCorrupt})
	}
	return list
}

// editedConfig is a golden model's config.json with the value at a path of keys and indices set, or "absent".
func editedConfig(t *testing.T, model, path, value string) []byte {
	t.Helper()
	var root any
	if err := json.Unmarshal(readModel(t, filepath.Join("testdata/golden", model))[configFile].Data, &root); err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndexByte(path, '.')
	above, last := path[:max(at, 0)], path[at+1:]
	object := walk(root, above).(map[string]any)
	if object[last] = json.RawMessage(value); value == "absent" {
		delete(object, last)
	}
	text, err := json.Marshal(root)
	if err != nil {
		t.Fatal(path, err)
	}
	return text
}

// valueAt is what stands at a path of a golden model's config.json.
func valueAt(t *testing.T, model, path string) []byte {
	t.Helper()
	var root any
	if err := json.Unmarshal(readModel(t, filepath.Join("testdata/golden", model))[configFile].Data, &root); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(walk(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func walk(at any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		if i, err := strconv.Atoi(key); err == nil {
			at = at.([]any)[i]
		} else if key != "" {
			at = at.(map[string]any)[key]
		}
	}
	return at
}

// hostileWeights change the header of a golden model's weights, or what it stands before.
func hostileWeights(t *testing.T) (list []hostileFile) {
	const f, i8 = "flat-gqa-f32", "photon-local-i8"
	add := func(model, what string, kind error, data []byte) {
		list = append(list, hostileFile{model, weightsFile, what, data, kind})
	}
	read := func(model string) []byte {
		return readModel(t, filepath.Join("testdata/golden", model))[weightsFile].Data
	}
	whole := read(f)
	end := 8 + int(binary.LittleEndian.Uint64(whole))
	header, data := string(whole[8:end]), whole[end:]
	text := strings.TrimRight(header, " ")
	length := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), whole[8:]...) }
	for what, n := range map[string]uint64{"0": 0, "1": 1, "one short": uint64(len(text)) - 1, "one long": uint64(len(header)) + 1,
		"file": uint64(len(whole)), "16 MiB": maxHeaderSize, "beyond 16 MiB": maxHeaderSize + 1, "2^31": 1 << 31, "2^32": 1 << 32,
		"2^63": 1 << 63, "2^64-8": math.MaxUint64 - 7, "2^64-1": math.MaxUint64} {
		add(f, "length "+what, ErrCorrupt, length(n))
	}
	for what, data := range map[string][]byte{
		"empty": nil, "seven bytes": whole[:7], "eight bytes": whole[:8], "header alone": whole[:end], "one byte less": whole[:len(whole)-1],
		"one byte more": append(bytes.Clone(whole), 0), "zeros": make([]byte, len(whole)), "LFS": []byte(lfsMagic + "/v1\n"),
		"a zip": []byte("PK\x03\x04" + strings.Repeat("\x00", 100)), "a pickle": []byte("\x80\x02}q\x00" + strings.Repeat("X", 100)),
		"GGUF": []byte("GGUF\x03\x00\x00\x00" + strings.Repeat("\x00", 100)), "HTML": []byte("<!DOCTYPE html><html></html>"),
		"newline padding": rawFile(text+"\n", data), "NUL padding": rawFile(text+"\x00", data), "space before": rawFile(" "+text, data),
		"tail": rawFile(text+" {}", data), "list": rawFile("["+text+"]", data),
		"deep":             rawFile(`{"__metadata__":`+strings.Repeat(`{"a":`, 1<<16), data),
		"metadata deep":    rawFile(`{"__metadata__":{"a":{}},`+text[1:], data),
		"metadata number":  rawFile(`{"__metadata__":{"a":1},`+text[1:], data),
		"metadata twice":   rawFile(`{"__metadata__":{},"__metadata__":{},`+text[1:], data),
		"not UTF-8":        rawFile("{\"__metadata__\":{\"a\":\"\xff\"},"+text[1:], data),
		"a megabyte's key": rawFile(`{"`+strings.Repeat("x", 1<<20), data),
	} {
		add(f, what, ErrCorrupt, data)
	}
	const norm = `"model.norm.weight"`
	if !strings.Contains(text, norm) {
		t.Fatal(text)
	}
	edit := func(what string, kind error, old, new string) {
		if !strings.Contains(text, old) {
			t.Fatalf("%s: %q is not in %s", what, old, text)
		}
		add(f, what, kind, rawFile(strings.Replace(text, old, new, 1), data))
	}
	edit("another name", ErrMismatch, norm, `"model.Norm.weight"`)
	edit("a name of controls", ErrMismatch, norm, `"\u001b[2J"`)
	edit("a long name", ErrMismatch, norm, `"`+strings.Repeat("x", 1<<16)+`"`)
	edit("a name twice", ErrCorrupt, norm, `"lm_head.weight"`)
	edit("F64", ErrUnsupported, `"F32"`, `"F64"`)
	edit("lower case", ErrUnsupported, `"F32"`, `"f32"`)
	edit("dtype number", ErrCorrupt, `"F32"`, `32`)
	edit("I8 for F32", ErrCorrupt, `"F32"`, `"I8"`)
	edit("DTYPE", ErrCorrupt, `"dtype"`, `"DTYPE"`)
	edit("another key", ErrCorrupt, `"dtype"`, `"x":0,"dtype"`)
	edit("shape negative", ErrCorrupt, `"shape":[`, `"shape":[-1,`)
	edit("shape 2^31", ErrCorrupt, `"shape":[`, `"shape":[2147483648,`)
	edit("shape overflow", ErrCorrupt, `"shape":[`, `"shape":[2147483647,2147483647,2147483647,`)
	edit("shape of 0", ErrCorrupt, `"shape":[`, `"shape":[0,`)
	edit("shape of 1", ErrMismatch, `"shape":[`, `"shape":[1,`)
	edit("rank 9", ErrUnsupported, `"shape":[`, `"shape":[1,1,1,1,1,1,1,1,`)
	edit("shape string", ErrCorrupt, `"shape":[`, `"shape":["1",`)
	edit("offset -1", ErrCorrupt, `"data_offsets":[0,`, `"data_offsets":[-1,`)
	edit("offset 4", ErrCorrupt, `"data_offsets":[0,`, `"data_offsets":[4,`)
	edit("offset 2^63", ErrCorrupt, `"data_offsets":[0,`, `"data_offsets":[9223372036854775808,`)
	edit("three offsets", ErrCorrupt, `"data_offsets":[0,`, `"data_offsets":[0,0,`)
	edit("exponent", ErrCorrupt, `"data_offsets":[0,`, `"data_offsets":[0e0,`)
	var many strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&many, `"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},`, i)
	}
	add(f, "empty tensors", ErrMismatch, rawFile("{"+many.String()+text[1:], data))
	add(f, "of another model", ErrMismatch, read(i8))

	quant := read(i8)
	c, err := openCheckpoint(fstest.MapFS{weightsFile: {Data: quant}}, maxTensors)
	if err != nil {
		t.Fatal(err)
	}
	change := func(what string, f func(integers, scales []byte, d dtype)) {
		changed := bytes.Clone(quant)
		for _, x := range c.tensors {
			if x.dtype == dtypeI8 {
				s := c.tensors[x.partner]
				f(changed[x.begin:x.end], changed[s.begin:s.end], s.dtype)
				break
			}
		}
		add(i8, what, ErrCorrupt, changed)
	}
	change("-128", func(integers, _ []byte, _ dtype) { integers[len(integers)-1] = 0x80 })
	change("negative scale", func(_, scales []byte, d dtype) { d.put(scales, -1) })
	change("scale of -Inf", func(_, scales []byte, d dtype) { d.put(scales, float32(math.Inf(-1))) })
	at := bytes.Index(quant, []byte(scalesSuffix))
	renamed := bytes.Clone(quant)
	renamed[at+1] = 'S'
	add(i8, "no scales", ErrMismatch, renamed)
	return list
}

// hostileIndices are of shards.
func hostileIndices() (list []hostileFile) {
	const model = "photon-shards-bf16"
	for what, text := range map[string]string{
		"empty": "", "list": "[]", "no map": "{}", "empty map": `{"weight_map":{}}`, "map of numbers": `{"weight_map":{"a":1}}`,
		"map twice": `{"weight_map":{"a":"x"},"weight_map":{"a":"x"}}`, "tensor twice": `{"weight_map":{"a":"x","a":"y"}}`,
		"above": `{"weight_map":{"a":"../x"}}`, "root": `{"weight_map":{"a":"/etc/passwd"}}`, "folder": `{"weight_map":{"a":"a/b"}}`,
		"itself": `{"weight_map":{"a":"."}}`, "nothing": `{"weight_map":{"a":""}}`, "NUL": `{"weight_map":{"a":"a\u0000"}}`,
		"escape": `{"weight_map":{"a":"\u001b[2J"}}`, "drive": `{"weight_map":{"a":"C:x"}}`, "backslash": `{"weight_map":{"a":"..\\x"}}`,
		"long name":  `{"weight_map":{"a":"` + strings.Repeat("x", 256) + `"}}`,
		"the config": `{"weight_map":{"a":"config.json"}}`, "LFS": lfsMagic + "\n",
		"many": `{"weight_map":{` + strings.Repeat(`"a":"x",`, 1<<16),
	} {
		list = append(list, hostileFile{model, indexFile, what, []byte(text), ErrCorrupt})
	}
	return append(list, hostileFile{model, indexFile, "another shard",
		[]byte(`{"weight_map":{"lm_head.weight":"model-00001-of-00003.safetensors"}}`), ErrMismatch})
}

// hostileTokenizers multiply work, or name what is not there.
func hostileTokenizers(t *testing.T) (list []hostileFile) {
	const model = "flat-gqa-f32"
	add := func(what string, kind error, format string, args ...any) {
		list = append(list, hostileFile{model, tokenizerFileName, what, fmt.Appendf(nil, format, args...), kind})
	}
	const good = `"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"decoder":{"type":"ByteLevel"}`
	with := func(what string, kind error, key, value string) { add(what, kind, `{%q:%s,%s}`, key, value, good) }
	repeat := func(n int, item string) string { return strings.Repeat(item+",", n-1) + item }
	threefold := `{"type":"Replace","pattern":{"String":"a"},"content":"aaa"}`
	with("3^32", ErrUnsupported, "normalizer", `{"type":"Sequence","normalizers":[`+repeat(32, threefold)+`]}`)
	with("NFC and Replace", ErrUnsupported, "normalizer", `{"type":"Sequence","normalizers":[`+
		repeat(16, `{"type":"NFC"},`+threefold)+`]}`)
	with("long Prepend", ErrUnsupported, "normalizer", `{"type":"Prepend","prepend":"`+strings.Repeat("a", 1<<16)+`"}`)
	with("Replace by regex", ErrUnsupported, "normalizer", `{"type":"Replace","pattern":{"Regex":"(a*)*b"},"content":"x"}`)
	with("Lowercase", ErrUnsupported, "normalizer", `{"type":"Lowercase"}`)
	with("Precompiled", ErrUnsupported, "normalizer", `{"type":"Precompiled","precompiled_charsmap":"AAAA"}`)
	with("no type", ErrCorrupt, "normalizer", `{}`)
	with("65 parts", ErrUnsupported, "normalizer", `{"type":"Sequence","normalizers":[`+repeat(65, `{"type":"NFC"}`)+`]}`)
	with("65 parts, nested", ErrUnsupported, "normalizer", `{"type":"Sequence","normalizers":[`+
		repeat(33, `{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"NFC"}]}`)+`]}`)
	with("deep sequence", ErrCorrupt, "normalizer", strings.Repeat(`{"type":"Sequence","normalizers":[`, 1<<14))
	with("a regex of its own", ErrUnsupported, "pre_tokenizer", `{"type":"Split","pattern":{"Regex":"(a|a)*b"},"behavior":"Isolated","invert":false}`)
	with("splitters that double", ErrUnsupported, "pre_tokenizer", `{"type":"Sequence","pretokenizers":[`+repeat(16,
		`{"type":"Metaspace","replacement":"a"},{"type":"Split","pattern":{"String":"a"},"behavior":"MergedWithPrevious","invert":false}`)+`]}`)
	with("Whitespace", ErrUnsupported, "pre_tokenizer", `{"type":"Whitespace"}`)
	with("a template of many", ErrUnsupported, "post_processor", `{"type":"TemplateProcessing","single":[`+
		repeat(100, `{"SpecialToken":{"id":"S"}}`)+`,{"Sequence":{"id":"A"}}],"special_tokens":{"S":{"ids":[0]}}}`)
	with("a template's ids", ErrUnsupported, "post_processor", `{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}],`+
		`"special_tokens":{"S":{"ids":[`+repeat(1<<16, "0")+`]}}}`)
	with("a template of nothing", ErrCorrupt, "post_processor", `{"type":"TemplateProcessing","single":[{}]}`)
	with("an added id far above", ErrCorrupt, "added_tokens", `[{"id":16777215,"content":"x"}]`)
	with("an added id of 2^24", ErrCorrupt, "added_tokens", `[{"id":16777216,"content":"x"}]`)
	with("an added id of -1", ErrCorrupt, "added_tokens", `[{"id":-1,"content":"x"}]`)
	with("an added id that is taken", ErrCorrupt, "added_tokens", `[{"id":1,"content":"x"}]`)
	with("an added token twice", ErrCorrupt, "added_tokens", `[{"id":3,"content":"x"},{"id":3,"content":"x"}]`)
	with("an added book", ErrUnsupported, "added_tokens", `[{"id":3,"content":"`+strings.Repeat("x", maxTokenText+1)+`"}]`)
	with("more tokens than the model", ErrMismatch, "added_tokens", `[{"id":61,"content":"x"}]`)
	tail := `"decoder":{"type":"ByteLevel"}`
	add("no model", ErrCorrupt, `{%s}`, tail)
	add("no merges", ErrCorrupt, `{"model":{"vocab":{"a":0}},%s}`, tail)
	add("no tokens", ErrCorrupt, `{"model":{"vocab":{},"merges":[]},%s}`, tail)
	add("Unigram", ErrUnsupported, `{"model":{"type":"Unigram","vocab":[["a",0]]},%s}`, tail)
	add("WordPiece", ErrUnsupported, `{"model":{"type":"WordPiece","vocab":{"a":0}},%s}`, tail)
	add("an id twice", ErrCorrupt, `{"model":{"vocab":{"a":0,"b":0},"merges":[]},%s}`, tail)
	add("an id of 2^63", ErrCorrupt, `{"model":{"vocab":{"a":9223372036854775808},"merges":[]},%s}`, tail)
	add("an id of 1e3", ErrCorrupt, `{"model":{"vocab":{"a":1e3},"merges":[]},%s}`, tail)
	add("a merge of strangers", ErrCorrupt, `{"model":{"vocab":{"a":0},"merges":["x y"]},%s}`, tail)
	add("a merge into a stranger", ErrCorrupt, `{"model":{"vocab":{"a":0},"merges":["a a"]},%s}`, tail)
	add("a merge of three", ErrCorrupt, `{"model":{"vocab":{"a":0},"merges":[["a","a","a"]]},%s}`, tail)
	add("a book of a token", ErrUnsupported, `{"model":{"vocab":{"%s":0},"merges":[]},%s}`, strings.Repeat("x", maxTokenText+1), tail)
	add("dropout", ErrUnsupported, `{"model":{"vocab":{"a":0},"merges":[],"dropout":0.5},%s}`, tail)
	add("no decoder", ErrUnsupported, `{"model":{"vocab":{"a":0},"merges":[]}}`)
	add("a decoder that doubles", ErrUnsupported, `{"model":{"vocab":{"a":0},"merges":[]},"decoder":{"type":"Sequence","decoders":[%s]}}`,
		repeat(20, `{"type":"Replace","pattern":{"String":"a"},"content":"aa"}`))
	add("vocabulary beyond the model", ErrMismatch, `{"model":{"vocab":{"a":61},"merges":[]},%s}`, tail)
	add("one merge, often", ErrCorrupt, `{"model":{"vocab":{"a":0,"aa":1},"merges":[%s]},%s`, repeat(1<<15, `"a a"`), tail)
	add("an LFS pointer", ErrCorrupt, lfsMagic+"\n")
	add("a SentencePiece model", ErrCorrupt, "\n\x0e\n\x05<unk>")
	return list
}

// hostileSnapshots have checksums that are right, and returns how many they are.
func hostileSnapshots(t *testing.T) int {
	g := goldens(t)[0]
	m, err := Load(g.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s := m.NewSession()
	if err := s.Append(background, g.ids[:21]...); err != nil {
		t.Fatal(err)
	}
	whole := snapshotOf(t, s)
	sealed := func(body ...[]byte) []byte { // blocks with their sums
		data := bytes.Clone(whole[:snapshotHeader])
		for _, block := range body {
			data = binary.LittleEndian.AppendUint32(data, uint32(len(block)))
			data = append(data, block...)
			data = binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
		}
		return data
	}
	var body []byte
	c := coder{flush: func(b []byte) error { body = append(body, b...); return nil }}
	c.session(s)
	body = append(body, c.data...)
	if len(body) > snapshotBlock || !bytes.Equal(sealed(body, nil), whole) {
		t.Fatal("a snapshot is sealed otherwise")
	}
	var astray []byte // a decoder that stands at another row
	c = coder{flush: func(b []byte) error { astray = append(astray, b...); return nil }}
	s.seq.dec[0].next++
	c.session(s)
	astray = append(astray, c.data...)
	s.seq.dec[0].next--
	header := func(at int, b ...byte) []byte {
		changed := bytes.Clone(whole)
		copy(changed[at:], b)
		return changed
	}
	number := func(at int, n uint64) []byte {
		changed := bytes.Clone(body)
		binary.LittleEndian.PutUint64(changed[at:], n)
		return sealed(changed, nil)
	}
	text := binary.LittleEndian.AppendUint64(nil, 21)
	text = binary.LittleEndian.AppendUint64(text, uint64(g.ids[0]))
	ids := bytes.Index(body, text) + 8
	if ids < 8 {
		t.Fatal("the ids stand elsewhere")
	}
	kinds := map[string]struct {
		data []byte
		kind error
	}{
		"nothing": {nil, ErrCorrupt}, "text": {[]byte(strings.Repeat("hello ", 100)), ErrCorrupt},
		"version 2":             {header(0, []byte("PHOTON-SESSION-2")...), ErrCorrupt},
		"version 9":             {header(0, []byte("PHOTON-SESSION-9")...), ErrCorrupt},
		"model":                 {header(len(snapshotMagic), 1, 2, 3), ErrMismatch},
		"cache":                 {header(len(snapshotMagic)+32, 9), ErrMismatch},
		"kernel":                {header(len(snapshotMagic)+33, []byte("z80/none")...), ErrMismatch},
		"block of 2^32-1":       {header(snapshotHeader, 255, 255, 255, 255), ErrCorrupt},
		"block of 64 KiB and 1": {header(snapshotHeader, 1, 0, 1, 0), ErrCorrupt},
		"no blocks":             {sealed(), ErrCorrupt},
		"an empty body":         {sealed(nil), ErrCorrupt},
		"no end":                {sealed(body), ErrCorrupt},
		"half a body":           {sealed(body[:len(body)/2], nil), ErrCorrupt},
		"a longer body":         {sealed(append(bytes.Clone(body), 0), nil), ErrCorrupt},
		"a body and more":       {sealed(body, body, nil), ErrCorrupt},
		"zeros":                 {sealed(make([]byte, len(body)), nil), ErrCorrupt},
		"ones":                  {sealed(bytes.Repeat([]byte{255}, len(body)), nil), ErrCorrupt},
		"blocks of one":         {sealed(body[:1], body[1:2], nil), ErrCorrupt},
		"a decoder astray":      {sealed(astray, nil), ErrCorrupt},
		"an id too large":       {number(ids, uint64(m.cfg.VocabSize)), ErrCorrupt},
	}
	for at := 0; at+8 <= min(len(body), 128); at += 8 {
		kinds[fmt.Sprintf("2^64-1 at %d", at)] = struct {
			data []byte
			kind error
		}{number(at, math.MaxUint64), ErrCorrupt}
	}
	for name, k := range kinds {
		t.Run("snapshot/"+name, func(t *testing.T) {
			var err error
			begin := time.Now()
			took := allocated(func() { _, err = m.ReadSession(bytes.NewReader(k.data)) })
			checkRefused(t, err, k.kind, "snapshot")
			if took > uint64(len(k.data)+4<<20) && !raceEnabled {
				t.Errorf("%d bytes allocated for %d", took, len(k.data))
			}
			if d := time.Since(begin); d > 50*time.Millisecond {
				slow(t, "refused after %v", d)
			}
		})
	}
	return len(kinds)
}
