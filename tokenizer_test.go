package photon

import (
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

var tokenizerCases = flag.String("tokenizers", "testdata/tokenizer", "folder of KIND.json and KIND.cases.json, made by oracle.mjs")

func loadTokenizer(t testing.TB, path string) *Tokenizer {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := parseTokenizer(background, data)
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer
}

// Hugging Face's own JavaScript says what is right.
func TestTokenizerOracle(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(*tokenizerCases, "*.cases.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases in %s: %v", *tokenizerCases, err)
	}
	for _, path := range paths {
		kind := strings.TrimSuffix(path, ".cases.json")
		t.Run(filepath.Base(kind), func(t *testing.T) {
			tokenizer := loadTokenizer(t, kind+".json")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var cases struct {
				Encoded []struct {
					Text    string
					IDs     []int
					Decoded *string // nil: the text
				}
				Decoded []struct {
					IDs     []int
					Decoded string
				}
			}
			if err := json.Unmarshal(data, &cases); err != nil {
				t.Fatal(err)
			}
			if len(cases.Encoded) < 100 || len(cases.Decoded) < 20 {
				t.Fatalf("only %d and %d cases", len(cases.Encoded), len(cases.Decoded))
			}
			for _, c := range cases.Encoded {
				if ids := tokenizer.Encode(c.Text); !slices.Equal(ids, c.IDs) {
					t.Errorf("Encode(%q)\n got %v\nwant %v", c.Text, ids, c.IDs)
				}
				want := c.Text
				if c.Decoded != nil {
					want = *c.Decoded
				}
				if text := tokenizer.Decode(c.IDs); text != want {
					t.Errorf("Decode(%v)\n got %q\nwant %q", c.IDs, text, want)
				}
			}
			for _, c := range cases.Decoded {
				if text := tokenizer.Decode(c.IDs); text != c.Decoded {
					t.Errorf("Decode(%v)\n got %q\nwant %q", c.IDs, text, c.Decoded)
				}
			}
		})
	}
}

const tokenizerFolder = "testdata/tokenizer/"

// object is a JSON object.
type object = map[string]any

// editTokenizer returns the file of a kind after edit had its way with it.
func editTokenizer(t testing.TB, kind string, edit func(file object)) []byte {
	t.Helper()
	data, err := os.ReadFile(tokenizerFolder + kind + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var file object
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	edit(file)
	if data, err = json.Marshal(file); err != nil {
		t.Fatal(err)
	}
	return data
}

func mustParseTokenizer(t testing.TB, data []byte) *Tokenizer {
	t.Helper()
	tokenizer, err := parseTokenizer(background, data)
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer
}

// spelled returns the tokens of ids as text, one by one.
func spelled(t *Tokenizer, ids []int) []string {
	var list []string
	for _, id := range ids {
		list = append(list, t.piece(id))
	}
	return list
}

func TestTokenizerAddedTokens(t *testing.T) {
	tokenizer := mustParseTokenizer(t, editTokenizer(t, "gpt2", func(file object) {
		file["added_tokens"] = []object{
			{"id": 700, "content": "cat", "single_word": true},
			{"id": 701, "content": "<a>"},
			{"id": 702, "content": "<a>b"},
			{"id": 703, "content": "[l]", "lstrip": true},
			{"id": 704, "content": "[r]", "rstrip": true},
			{"id": 705, "content": " x"},
			{"id": 706, "content": ""},
			{"id": 707, "content": "\n\n"},
			{"id": 708, "content": "\t", "lstrip": true, "rstrip": true},
		}
	}))
	for _, c := range []struct {
		text string
		want []string // pieces between added tokens joined; added tokens in brackets
	}{
		{"a cat.", []string{"a ", "{cat}", "."}},
		{"concat cat", []string{"concat ", "{cat}"}},
		{"cats cat_ cat\u0301 écat cat\u200d", []string{"cats cat_ cat\u0301 écat cat\u200d"}},
		{"cat", []string{"{cat}"}},
		{"<a><a>b<a", []string{"{<a>}", "{<a>b}", "<a"}},
		{"u \u2003[l] v", []string{"u", "{[l]}", " v"}},
		{"u [r]\n v", []string{"u ", "{[r]}", "v"}},
		{"u[r] [l]", []string{"u", "{[r]}", "{[l]}"}},
		{"u[r] x", []string{"u", "{[r]}", "{ x}"}}, // the space is taken twice, as in the Rust library
		{"[r]", []string{"{[r]}"}},
		{"[r]\n\n\nv", []string{"{[r]}", "{\n\n}", "\nv"}},
		{"u \t \t v\t", []string{"u", "{\t}", "{\t}", "v", "{\t}"}},
		{strings.Repeat("\t", 1<<16), slices.Repeat([]string{"{\t}"}, 1<<16)}, // not in square time
		{"", nil},
	} {
		var got []string
		text := ""
		for _, id := range tokenizer.Encode(c.text) {
			if id < 700 {
				text += tokenizer.piece(id)
				continue
			}
			if text != "" {
				got, text = append(got, text), ""
			}
			got = append(got, "{"+tokenizer.piece(id)+"}")
		}
		if text != "" {
			got = append(got, text)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}

func TestTokenizerIDs(t *testing.T) {
	tokenizer := loadTokenizer(t, tokenizerFolder+"gpt2.json")
	eos, ok := tokenizer.TokenID("<|endoftext|>")
	if !ok || eos != tokenizer.VocabSize()-1 {
		t.Errorf("<|endoftext|> is %d of %d, %v", eos, tokenizer.VocabSize(), ok)
	}
	the, ok := tokenizer.TokenID("Ġthe")
	if !ok || !slices.Equal(tokenizer.Encode(" the"), []int{the}) {
		t.Errorf("Ġthe is %d, %v; \" the\" is %d", the, ok, tokenizer.Encode(" the"))
	}
	if id, ok := tokenizer.TokenID("no such token"); ok {
		t.Errorf("an unknown token has id %d", id)
	}
	if text := tokenizer.Decode([]int{-1, the, math.MaxInt, tokenizer.VocabSize(), eos}); text != " the<|endoftext|>" {
		t.Errorf("ids out of range decode to %q", text)
	}
}

// What no vocabulary of the oracle's has.
func TestTokenizerSettings(t *testing.T) {
	metaspace := func(settings object) func(object) {
		return func(file object) {
			settings["type"], settings["replacement"] = "Metaspace", "▁"
			file["pre_tokenizer"] = settings
			vocab := object{"▁": 0, "a": 1, "b": 2, "▁a": 3, "a▁": 4, "<unk>": 5, "▁▁": 6}
			file["model"] = object{"vocab": vocab, "merges": []string{"#version: 0.2", "a ▁", "▁ a", "▁ ▁"}, "unk_token": "<unk>"}
			file["added_tokens"] = []object{}
		}
	}
	split := func(behavior string, invert bool) func(object) {
		return func(file object) {
			part := file["pre_tokenizer"].(object)["pretokenizers"].([]any)[0].(object)
			part["behavior"], part["invert"] = behavior, invert
		}
	}
	for _, c := range []struct {
		name, kind string
		edit       func(object)
		text       string
		want       []string
	}{
		{"metaspace always", "metaspace", metaspace(object{"split": false}), "ba a", []string{" ", "b", "a ", "a"}},
		{"metaspace never", "metaspace", metaspace(object{"split": false, "prepend_scheme": "never"}), "ba a", []string{"b", "a ", "a"}},
		{"metaspace splits", "metaspace", metaspace(object{}), "ba a  a", []string{" ", "b", "a", " a", " ", " a"}},
		{"metaspace of an older file, never", "metaspace", metaspace(object{"split": false, "add_prefix_space": false}), "ba a", []string{"b", "a ", "a"}},
		{"metaspace of an older file, always", "metaspace", metaspace(object{"split": false, "add_prefix_space": true}), "ba a", []string{" ", "b", "a ", "a"}},
		{"unknown token among the added ones", "metaspace", func(file object) {
			metaspace(object{"split": false})(file)
			file["model"].(object)["unk_token"] = "<other>"
			file["added_tokens"] = []object{{"id": 7, "content": "<other>"}}
		}, "xb", []string{" ", "<other>", "b"}},
		{"unknown token that is nowhere and never needed", "gpt2", func(file object) {
			file["model"].(object)["unk_token"] = "<nothing>"
		}, "the\xff", []string{"the", "\xff"}},
		{"unknown, not fused", "metaspace", metaspace(object{"split": false}), "xyb", []string{" ", "<unk>", "<unk>", "b"}},
		{"nothing for the unknown", "metaspace", func(file object) {
			metaspace(object{"split": false})(file)
			delete(file["model"].(object), "unk_token")
		}, "xyb", []string{" ", "b"}},
		{"remove the rest", "llama3", split("Removed", true), "x 12345", []string{"<|begin_of_text|>", "x", " ", "12", "3", "4", "5"}},
		{"rows of digits", "digits", func(file object) {
			file["pre_tokenizer"].(object)["pretokenizers"].([]any)[0].(object)["individual_digits"] = false
		}, "x5٣½y", []string{" ", "x", " ", "5", "\xd9", "\xa3", "\xc2", "\xbd", " ", "y"}},
		{"merged with previous", "llama3", func(file object) {
			file["pre_tokenizer"].(object)["pretokenizers"].([]any)[0] = object{"type": "Split", "pattern": object{"String": "e"}, "behavior": "MergedWithPrevious", "invert": false}
		}, "there the", []string{"<|begin_of_text|>", "the", "re", " the"}},
		{"template on both sides", "gpt2", func(file object) {
			file["post_processor"] = object{"type": "Sequence", "processors": []object{
				{"type": "ByteLevel"},
				{"type": "TemplateProcessing", "single": []object{
					{"SpecialToken": object{"id": "B", "type_id": 0}}, {"Sequence": object{"id": "A", "type_id": 0}}, {"SpecialToken": object{"id": "E", "type_id": 0}},
				}, "special_tokens": object{"B": object{"id": "B", "ids": []int{1, 2}}, "E": object{"id": "E", "ids": []int{3}}}},
			}}
		}, "the", []string{"\x01", "\x02", "the", "\x03"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tokenizer := mustParseTokenizer(t, editTokenizer(t, c.kind, c.edit))
			if got := spelled(tokenizer, tokenizer.Encode(c.text)); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTokenizerInvalidUTF8(t *testing.T) {
	texts := []string{
		"\xff", "a\xe2\x82b", "\xe2\x82", "\xed\xa0\x80", "\xf0\x9f\x98", "x\xc3 y\xa9z", "\xf4\x90\x80\x80", "\u0301\xcc", "<|endof\x80<|endof", "\xc0\x80 \xfe",
	}
	for _, kind := range []string{"gpt2", "llama3", "qwen2", "digits", "llama2"} {
		tokenizer := loadTokenizer(t, tokenizerFolder+kind+".json")
		for _, text := range texts {
			ids := tokenizer.Encode(text)
			bytes := strings.Join(spelled(tokenizer, ids[len(tokenizer.prefix):]), "")
			if kind == "digits" || kind == "llama2" {
				bytes = strings.TrimPrefix(bytes, " ")
			}
			if bytes != text {
				t.Errorf("%s: %q became the bytes %q", kind, text, bytes)
			}
			if text := tokenizer.Decode(ids); !utf8.ValidString(text) {
				t.Errorf("%s: Decode gave %q", kind, text)
			}
		}
	}
	// This vocabulary has no bytes.
	tokenizer := loadTokenizer(t, tokenizerFolder+"metaspace.json")
	for _, text := range texts {
		if got, want := tokenizer.Encode(text), tokenizer.Encode(wellFormed(text)); !slices.Equal(got, want) {
			t.Errorf("metaspace: %q became %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"a\xe2\x82b": "a\ufffdb", "\xff\xff": "\ufffd\ufffd", "\xed\xa0\x80": "\ufffd\ufffd\ufffd", "\xf0\x9f\x98": "\ufffd", "\xf0\x9f\x98é": "\ufffdé", "é": "é",
	} {
		if got := wellFormed(text); got != want {
			t.Errorf("wellFormed(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestStreamDecoder(t *testing.T) {
	tokenizer := loadTokenizer(t, tokenizerFolder+"gpt2.json")
	eos, _ := tokenizer.TokenID("<|endoftext|>")
	the, _ := tokenizer.TokenID("Ġthe")
	// Ids below 256 of this vocabulary are bytes.
	for _, c := range []struct {
		ids  []int
		want []string // of each Next
		last string   // of Flush
	}{
		{[]int{the, 'x'}, []string{" the", "x"}, ""},
		{[]int{0xf0, 0x9f, 0x98, 0x80}, []string{"", "", "", "😀"}, ""},
		{[]int{0xf0, 0x9f, the}, []string{"", "", "\ufffd the"}, ""},
		{[]int{0xff, 0x80, 0xc3, 0xc3, 0xa9}, []string{"\ufffd", "\ufffd", "", "\ufffd", "é"}, ""},
		{[]int{0xe0, 0x80, 0x80}, []string{"", "\ufffd\ufffd", "\ufffd"}, ""},
		{[]int{0xe2, 0x82}, []string{"", ""}, "\ufffd"},
		{[]int{0xc3, eos, -1, 1 << 30, 0xa9}, []string{"", "", "", "", "é"}, ""},
	} {
		decoder := tokenizer.NewDecoder()
		for range 2 {
			var got []string
			for _, id := range c.ids {
				got = append(got, decoder.Next(id))
			}
			if last := decoder.Flush(); !slices.Equal(got, c.want) || last != c.last {
				t.Errorf("%v: got %q and %q, want %q and %q", c.ids, got, last, c.want, c.last)
			}
			decoder.Reset()
		}
	}

	decoder := tokenizer.NewDecoder()
	decoder.Next(0xe2)
	decoder.Reset()
	if text := decoder.Next(0x82) + decoder.Flush(); text != "\ufffd" {
		t.Errorf("after Reset: %q", text)
	}
	if n := testing.AllocsPerRun(100, func() { decoder.Next(the) }); n != 0 {
		t.Errorf("a token that is text of its own allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { decoder.Next(0xc3); decoder.Next(0xa9) }); n > 1 {
		t.Errorf("a rune of two tokens allocates %v times", n)
	}

	// One space is dropped, at the start of a text only.
	llama := loadTokenizer(t, tokenizerFolder+"llama2.json")
	decoder = llama.NewDecoder()
	ids := llama.Encode("the the")
	for range 2 {
		text := ""
		for _, id := range ids {
			text += decoder.Next(id)
		}
		for _, id := range ids {
			text += decoder.Next(id)
		}
		if text != "the the the the" {
			t.Errorf("got %q", text)
		}
		decoder.Reset()
	}
}

func TestNFC(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                                "plain",
		"e\u0301":                              "é",
		"\u212b\u2126":                         "ÅΩ",
		"\uf900":                               "\u8c48",
		"q\u0307\u0323\u0323":                  "q\u0323\u0323\u0307",
		"a\u0315\u0300\u05ae\u0300b":           "à\u05ae\u0300\u0315b",
		"\u1100\u1161\u11a8\u11a8":             "각\u11a8",
		"가\u11a8\u1161":                        "각\u1161",
		"\u1112\u1175\u11c2 \u1102\u1162":      "\ud7a3 \ub0b4",
		"\u1113\u1161\u1100\u1176":             "\u1113\u1161\u1100\u1176",
		"a\u0310\u0301":                        "a\u0310\u0301", // a mark of the same class stands between
		"\u0958":                               "\u0915\u093c",  // never put together
		"\u0344x":                              "\u0308\u0301x",
		"\u0f73\u0f71":                         "\u0f71\u0f71\u0f72",
		"\u0cc6\u0cc2\u0cd5":                   "\u0ccb",
		"e\u0301\xff\u0301\xe2\x82e\u0301":     "é\xff\u0301\xe2\x82é",
		"\u1e9b\u0323 \U0001d15e \ufffd\u0301": "\u1e9b\u0323 \U0001d157\U0001d165 \ufffd\u0301",
	} {
		if got := nfc(text); got != want {
			t.Errorf("nfc(%+q) = %+q, want %+q", text, got, want)
		}
	}
	// A row of marks is sorted in less than square time.
	n := 1 << 17
	if got, want := nfc("a"+strings.Repeat("\u0307\u0323", n)), "\u1ea1"+strings.Repeat("\u0323", n-1)+strings.Repeat("\u0307", n); got != want {
		t.Errorf("a row of marks is not sorted")
	}
}

// What golang.org/x/text/unicode/norm makes otherwise, see docs/formats.md. Expected values are those of ICU 17, but for the last two: ICU takes no bytes
// that are not text, and knows Unicode 16.
func TestNFCIsNotNorm(t *testing.T) {
	tokenizer := loadTokenizer(t, tokenizerFolder+"qwen2.json")
	marks := func(n int) string { return strings.Repeat("\u0301", n) }
	for text, want := range map[string]string{
		"a" + marks(31):            "á" + marks(30),
		"a" + marks(31) + "\u0323": "\u1ea1" + marks(31),
		"\xf0\u0341":               "\xf0\u0301",
		"\U000105d2\u0307":         "\U000105d2\u0307",
	} {
		if got := nfc(text); got != want {
			t.Errorf("nfc(%+q) = %+q, want %+q", text, got, want)
		}
		if got := tokenizer.Decode(tokenizer.Encode(text)); got != strings.ToValidUTF8(want, "\ufffd") {
			t.Errorf("%+q comes back as %+q, want %+q", text, got, want)
		}
	}
}

func TestEncodeLongWord(t *testing.T) {
	// Every second merge of "aa" takes part in "aaaa": at a square cost this would not end.
	tokenizer := mustParseTokenizer(t, editTokenizer(t, "gpt2", func(file object) {
		model := file["model"].(object)
		model["vocab"].(object)["aa"], model["vocab"].(object)["aaaa"] = 701, 702
		model["merges"] = append([]any{"a a", "aa aa"}, model["merges"].([]any)...)
	}))
	n := 1 << 19
	want := append(slices.Repeat([]int{702}, n/4), 701, 'a')
	if got := tokenizer.Encode(strings.Repeat("a", n+3)); !slices.Equal(got, want) {
		t.Errorf("got %d ids, want %d", len(got), len(want))
	}
}

// One long piece, of whatever, takes time in proportion to its length.
func TestEncodeTime(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time")
	}
	hostile := func(file object) {
		var tokens []object
		delete(file["model"].(object)["vocab"].(object), "a")
		file["model"].(object)["merges"] = []any{}
		for n := 1; n < 2000; n++ {
			for _, end := range []string{"", "b"} {
				tokens = append(tokens, object{"id": 1000 + len(tokens), "content": strings.Repeat("a", n) + end, "single_word": n%3 == 0, "normalized": n%2 == 0})
			}
		}
		tokens = append(tokens, object{"id": 1000 + len(tokens), "content": strings.Repeat("a", maxTokenText-1) + "c"})
		file["added_tokens"] = tokens
	}
	for _, c := range []struct {
		name, kind, unit string
		edit             func(object)
	}{
		{"letters", "gpt2", "a", nil}, {"spaces", "gpt2", " ", nil}, {"carets", "gpt2", "^", nil}, {"emoji", "gpt2", "😀", nil},
		{"letters, characters", "llama2", "a", nil}, {"spaces, characters", "llama2", " ", nil}, {"emoji, characters", "llama2", "😀", nil},
		{"marks", "qwen2", "\u0323\u0307", nil}, {"quotes", "llama3", "'s", nil}, {"lines", "llama3", "\n   ", nil},
		{"letters, hostile tokens", "gpt2", "a", hostile}, {"words, hostile tokens", "gpt2", strings.Repeat("a", 1999) + "x", hostile},
		{"tokens", "llama3", "<|a|>", nil}, {"half tokens", "llama3", "<|a|", nil},
		{"capitals", "tekken", "A", nil}, {"capitals and kana", "tekken", "オA", nil}, {"marks and capitals", "o200k", "\u0301A", nil},
		{"control characters", "deepseek3", "\x00", nil}, {"digits", "deepseek3", "1", nil}, {"Chinese", "deepseek3", "漢1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			edit := c.edit
			if edit == nil {
				edit = func(object) {}
			}
			tokenizer := mustParseTokenizer(t, editTokenizer(t, c.kind, edit))
			encode := func(size int) time.Duration {
				text := strings.Repeat(c.unit, size/len(c.unit))
				best := time.Hour
				for range 2 {
					start := time.Now()
					tokenizer.Encode(text)
					best = min(best, time.Since(start))
				}
				return best
			}
			// At most 2.2 times for each of two doublings, and what fresh memory takes, in one of a few tries, since
			// others may use the machine.
			for size := times(1<<18, 1<<10); size < times(1<<20, 1<<22); size *= 4 {
				for try := 1; ; try++ {
					small, large := encode(size), encode(4*size)
					linear := large <= small*484/100+30*time.Millisecond
					if linear && large < time.Second*time.Duration(max(1, size>>18)) {
						figure(t, "%d KiB %v, %d KiB %v", size>>10, small, size>>8, large)
						break
					}
					if try == 5 {
						slow(t, "%d KiB take %v, %d KiB %v", size>>10, small, size>>8, large)
						break
					}
				}
			}
		})
	}
}

func TestTokenizerConcurrent(t *testing.T) {
	tokenizer := loadTokenizer(t, tokenizerFolder+"qwen2.json")
	text := "The robot didn't e\u0301 " + strings.Repeat("12 ", 50)
	want := tokenizer.Encode(text)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				if ids := tokenizer.Encode(text); !slices.Equal(ids, want) || tokenizer.Decode(ids) != nfc(text) {
					t.Error("another result beside other goroutines")
					return
				}
			}
		})
	}
	group.Wait()
}

func BenchmarkEncode(b *testing.B) {
	tokenizer := loadTokenizer(b, tokenizerFolder+"gpt2.json")
	for _, c := range []struct{ name, text string }{
		{"text", strings.Repeat("Once upon a time there was a small robot who didn't know the sea. ", 1<<20/66)},
		{"letter", strings.Repeat("e", 1<<20)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.text)))
			for b.Loop() {
				tokenizer.Encode(c.text)
			}
		})
	}
}

// Ids begin at 0, also those of added tokens, and end below the vocabulary's size.
func TestTokenizerBounds(t *testing.T) {
	tokenizer := mustParseTokenizer(t, []byte(`{"model":{"type":"BPE","vocab":{"a":1,"b":2},"merges":[]},
		"added_tokens":[{"id":0,"content":"ab","special":true}],"decoder":{"type":"ByteLevel"}}`))
	if got := tokenizer.Encode("aabb"); !slices.Equal(got, []int{1, 0, 2}) {
		t.Errorf("ids %v", got)
	}
	if got := tokenizer.EncodeText("aabb"); !slices.Equal(got, []int{1, 1, 2, 2}) {
		t.Errorf("ids of text %v", got)
	}
	for _, normalized := range []string{"false", "true"} { // text has added tokens that are not special
		plain := mustParseTokenizer(t, []byte(`{"model":{"type":"BPE","vocab":{"a":1,"b":2},"merges":[]},
			"added_tokens":[{"id":0,"content":"ab","normalized":`+normalized+`}],"decoder":{"type":"ByteLevel"}}`))
		for _, encode := range []func(string) []int{plain.Encode, plain.EncodeText} {
			if got := encode("aabb"); !slices.Equal(got, []int{1, 0, 2}) {
				t.Errorf("normalized %s: ids %v", normalized, got)
			}
		}
	}
	for id, want := range map[int]string{-1: "", 0: "ab", 1: "a", 2: "b", 3: ""} {
		got, ok := tokenizer.Token(id)
		bytes, special := string(tokenizer.Bytes(id)), tokenizer.isSpecial(id)
		if got != want || ok != (want != "") || bytes != want || special != (id == 0) {
			t.Errorf("id %d: %q, %v, %q, special %v", id, got, ok, bytes, special)
		}
	}
}

func TestTokenizerSequenceWithin(t *testing.T) {
	for inner, ok := range map[string]bool{`{"type":"NFC"}`: true, ``: false} {
		_, err := parseTokenizer(background, []byte(`{"model":{"type":"BPE","vocab":{"a":0},"merges":[]},
			"decoder":{"type":"ByteLevel"},
			"normalizer":{"type":"Sequence","normalizers":[{"type":"Sequence","normalizers":[`+inner+`]}]}}`))
		if (err == nil) != ok || !ok && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q within two sequences: %v", inner, err)
		}
	}
}

func TestByteLevelText(t *testing.T) {
	for b := range 256 {
		if got, ok := byteLevelText(string(byteRune(byte(b)))); !ok || got != string([]byte{byte(b)}) {
			t.Errorf("byte %#x comes back as %q, %v", b, got, ok)
		}
	}
	for _, text := range []string{" ", "\x7f", "\u0080", "\u00a0", "\u00ad", "\u0144", "a b", "\n"} {
		if got, ok := byteLevelText(text); ok {
			t.Errorf("%q is %q", text, got)
		}
	}
}
