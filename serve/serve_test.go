//go:build !js && !wasip1

package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

var (
	background = context.Background()
	tiny       = photon.StackConfig{HiddenSize: 32, Layers: 1, Heads: 4, KVHeads: 2, HeadDim: 8, IntermediateSize: 48,
		RopeTheta: 10000}
	specials = []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
		"<|eot_id|>"}
)

// config is a PHOTON of two levels over bytes and special tokens; eos: the first of them ends a text.
func config(eos bool) photon.Config {
	c := photon.Config{ModelType: "photon", FormatVersion: 1, VocabSize: 256 + len(specials), EmbeddingSize: 8,
		RMSNormEps: 1e-5,
		BOSTokenID: -1, Levels: []photon.LevelConfig{
			{ChunkSize: 4, PrefixLength: 2, Chunker: "concat", Encoder: tiny, Decoder: tiny},
			{ChunkSize: 4, PrefixLength: 2, Chunker: "linear", Encoder: tiny, Decoder: tiny}}}
	if eos {
		c.EOSTokenIDs = []int{256}
	}
	return c
}

// newModel is a model of random weights; its tokens are the bytes and the special ones.
func newModel(t testing.TB, cfg photon.Config) *photon.Model {
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
	var added []any
	for i, s := range specials {
		added = append(added, map[string]any{"id": 256 + i, "content": s, "special": true, "single_word": false,
			"lstrip": false,
			"rstrip": false, "normalized": false})
	}
	data, err := json.Marshal(map[string]any{
		"version": "1.0", "added_tokens": added, "normalizer": nil, "post_processor": nil,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
			"use_regex": true},
		"decoder": map[string]any{"type": "ByteLevel"},
		"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "vocab": vocab,
			"merges": []string{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return load(t, dir)
}

func load(t testing.TB, dir string) *photon.Model {
	t.Helper()
	m, err := photon.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// client talks to a server that serves m.
type client struct {
	*testing.T
	*httptest.Server
	m *photon.Model
	s *server
}

// serving starts a server. At the end of the test no goroutine may be left.
func serving(t *testing.T, m *photon.Model, opts ...Option) *client {
	t.Helper()
	before := runtime.NumGoroutine()
	s := newServer(m, opts)
	c := &client{t, httptest.NewServer(s.handler()), m, s}
	t.Cleanup(func() {
		c.Server.CloseClientConnections()
		c.Server.Close()
		c.Client().CloseIdleConnections()
		http.DefaultClient.CloseIdleConnections()
		c.until("no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
		if n := c.s.running(); n != 0 {
			t.Errorf("%d texts are still counted", n)
		}
	})
	return c
}

// until waits for a condition.
func (c *client) until(what string, f func() bool) {
	c.Helper()
	for range 1000 {
		if f() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	c.Errorf("not within 5 s: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
}

// do posts a body, or gets where that is "".
func (c *client) do(path, body string, header ...string) *http.Response {
	c.Helper()
	method := "POST"
	if body == "" {
		method = "GET"
	}
	r, err := http.NewRequest(method, c.URL+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := c.Client().Do(r)
	if err != nil {
		c.Fatal(err)
	}
	return answer
}

// get wants an answer of this status, and reads its JSON into v.
func (c *client) get(status int, v any, path, body string, header ...string) *http.Response {
	c.Helper()
	answer := c.do(path, body, header...)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		c.Fatal(err)
	}
	if answer.StatusCode != status {
		c.Fatalf("%s %s: status %d, want %d: %s", path, body, answer.StatusCode, status, data)
	}
	if v != nil {
		if err := json.Unmarshal(data, v); err != nil {
			c.Fatalf("%s: %v: %s", path, err, data)
		}
	}
	return answer
}

// answer is what clients read of both APIs.
type answer struct {
	ID, Object, Model string
	Created           int64
	Choices           []struct {
		Index          int
		Text           string
		Message, Delta struct{ Role, Content string }
		Finish         *string `json:"finish_reason"`
		LogProbs       *struct {
			Tokens  []string
			Own     []*float32           `json:"token_logprobs"`
			Top     []map[string]float32 `json:"top_logprobs"`
			Offsets []int                `json:"text_offset"`
			Content []struct {
				Token   string
				LogProb float32
				Bytes   []byte
				Top     []struct {
					Token   string
					LogProb float32
				} `json:"top_logprobs"`
			}
		}
	}
	Usage *struct{ Prompt_tokens, Completion_tokens, Total_tokens int }
	Error *struct {
		Message, Type string
		Param, Code   *string
	}
}

// readEvents reads a stream: the answers, and whether it ended with [DONE].
func readEvents(t testing.TB, r io.Reader) (list []answer, done bool) {
	t.Helper()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := lines.Text()
		data, ok := strings.CutPrefix(line, "data: ")
		var a answer
		switch {
		case line == "":
			continue
		case done || !ok:
			t.Fatalf("line %q", line)
		case data == "[DONE]":
			done = true
			continue
		}
		if err := json.Unmarshal([]byte(data), &a); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		list = append(list, a)
	}
	return list, done
}

func (c *client) stream(path, body string) []answer {
	c.Helper()
	answer := c.do(path, body)
	defer answer.Body.Close()
	list, done := readEvents(c, answer.Body)
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" || !done {
		c.Fatalf("status %d, %s, done %v", answer.StatusCode, answer.Header.Get("Content-Type"), done)
	}
	return list
}

// A text is the library's, whole and streamed, alone and among others.
func TestCompletions(t *testing.T) {
	c := serving(t, newModel(t, config(true)), Name("tiny"))
	want := func(prompt string, sample int, opts ...photon.Option) photon.Result {
		r, err := c.m.Complete(background, prompt, append([]photon.Option{photon.Temperature(1), photon.TopK(0),
			photon.TopP(1),
			photon.MinP(0), photon.Seed(3), photon.Sample(uint64(sample)), photon.MaxTokens(16)}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	finish := map[photon.StopReason]string{photon.StopMaxTokens: "length", photon.StopEOS: "stop",
		photon.StopString: "stop"}
	for name, test := range map[string]struct {
		body string
		opts []photon.Option
	}{
		"defaults": {`"seed":3`, nil},
		"nulls": {`"seed":3,"n":null,"temperature":null,"stop":null,"logprobs":null,"suffix":null,"unheard":null`,
			nil},
		"greedy": {`"temperature":0,"seed":3,"max_tokens":40`, []photon.Option{photon.Temperature(0),
			photon.MaxTokens(40)}},
		"filters": {`"seed":3,"top_k":9,"top_p":0.9,"min_p":0.01`, []photon.Option{photon.TopK(9), photon.TopP(.9),
			photon.MinP(.01)}},
		"penalties": {`"seed":3,"frequency_penalty":1,"presence_penalty":-1,"repeat_penalty":1.5`,
			[]photon.Option{photon.FrequencyPenalty(1), photon.PresencePenalty(-1), photon.RepeatPenalty(1.5)}},
		"bias": {`"seed":3,"logit_bias":{"97":100},"stop":["aaaaa","x"]`,
			[]photon.Option{photon.LogitBias(map[int]float32{97: 100}), photon.Stop("aaaaa", "x")}},
		"end of text": {`"seed":3,"logit_bias":{"256":100}`, []photon.Option{photon.LogitBias(map[int]float32{256: 100})}},
		"stop of one": {`"seed":3,"logit_bias":{"97":9},"stop":"a"`,
			[]photon.Option{photon.LogitBias(map[int]float32{97: 9}), photon.Stop("a")}},
		"hot": {`"seed":3,"temperature":5,"max_tokens":200`, []photon.Option{photon.Temperature(5),
			photon.MaxTokens(200)}},
		"what is idle": {`"seed":3,"user":"me","store":false,"best_of":1,"suffix":""`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.T = t
			var a answer
			c.get(200, &a, "/v1/completions", `{"model":"tiny","prompt":"Hello",`+test.body+`}`)
			r := want("Hello", 0, test.opts...)
			drawn := len(r.IDs)
			if r.Stop == photon.StopEOS {
				drawn++
			}
			if a.Object != "text_completion" || a.Model != "tiny" || !strings.HasPrefix(a.ID, "cmpl-") || len(a.Choices) != 1 {
				t.Fatalf("%+v", a)
			}
			if got := a.Choices[0]; got.Text != r.Text || *got.Finish != finish[r.Stop] || got.LogProbs != nil {
				t.Errorf("%q, %s; want %q, %v", got.Text, *got.Finish, r.Text, r.Stop)
			}
			if u := *a.Usage; u.Prompt_tokens != 5 || u.Completion_tokens != drawn || u.Total_tokens != 5+drawn {
				t.Errorf("usage %+v, want 5 and %d", u, drawn)
			}
			list := c.stream("/v1/completions",
				`{"stream":true,"stream_options":{"include_usage":true},"prompt":"Hello",`+test.body+`}`)
			text, ended := "", ""
			for _, part := range list[:len(list)-1] {
				if len(part.Choices) != 1 || part.Usage != nil || ended != "" || part.ID != list[0].ID {
					t.Fatalf("%+v", part)
				}
				if text += part.Choices[0].Text; part.Choices[0].Finish != nil {
					ended = *part.Choices[0].Finish
				}
			}
			if text != r.Text || ended != finish[r.Stop] {
				t.Errorf("streamed %q, %s; want %q, %v", text, ended, r.Text, r.Stop)
			}
			if last := list[len(list)-1]; len(last.Choices) != 0 || *last.Usage != *a.Usage {
				t.Errorf("at the end %+v", last)
			}
		})
	}
	c.T = t
	t.Run("many", func(t *testing.T) {
		for _, stream := range []bool{false, true} {
			body := fmt.Sprintf(`{"prompt":["Hello","","Hello"],"n":3,"seed":3,"echo":true,"stream":%v}`, stream)
			texts, ends := make([]string, 9), make([]int, 9)
			list := []answer{{}}
			if stream {
				list = c.stream("/v1/completions", body)
			} else {
				c.get(200, &list[0], "/v1/completions", body)
			}
			for _, part := range list {
				for _, choice := range part.Choices {
					if texts[choice.Index] += choice.Text; choice.Finish != nil {
						ends[choice.Index]++
					}
				}
			}
			for i, prompt := range []string{"Hello", "", "Hello"} {
				for j := range 3 {
					if got, want := texts[3*i+j], prompt+want(prompt, j).Text; got != want || ends[3*i+j] != 1 {
						t.Errorf("stream %v: text %d of %q: %q, want %q (%d ends)", stream, j, prompt, got, want, ends[3*i+j])
					}
				}
			}
		}
	})
	t.Run("no seed", func(t *testing.T) {
		var a answer
		c.get(200, &a, "/v1/completions", `{"prompt":["Hello","Hello"],"n":2,"max_tokens":40}`)
		seen := map[string]bool{}
		for _, choice := range a.Choices {
			seen[choice.Text] = true
		}
		if len(seen) != 4 {
			t.Errorf("%d different texts of 4", len(seen))
		}
	})
	t.Run("no tokens", func(t *testing.T) {
		var a answer
		c.get(200, &a, "/v1/completions", `{"prompt":"Hello","max_tokens":0,"n":2,"echo":true,"logprobs":0}`)
		for _, choice := range a.Choices {
			if choice.Text != "Hello" || *choice.Finish != "length" || len(choice.LogProbs.Tokens) != 5 ||
				len(choice.LogProbs.Top[4]) != 1 {
				t.Errorf("%+v", choice)
			}
		}
		if len(a.Choices) != 2 || a.Usage.Completion_tokens != 0 {
			t.Errorf("%+v", a)
		}
	})
}

// evaluate is how lm-evaluation-harness's local-completions scores continuations: it posts token ids, and reads
// token_logprobs[context:-1] and top_logprobs[context:-1].
func evaluate(c *client, texts [][]int, contexts []int, more string) (scores []float64, greedy []bool) {
	ids, _ := json.Marshal(texts)
	var a answer
	c.get(200, &a, "/v1/completions",
		fmt.Sprintf(`{"model":"photon","prompt":%s,"temperature":0,"max_tokens":1,"logprobs":1,"seed":1234,"echo":true%s}`,
			ids, more))
	for i, choice := range a.Choices {
		end, sum, best := len(choice.LogProbs.Own)-1, 0.0, true
		if len(choice.LogProbs.Top) != end+1 || len(choice.LogProbs.Tokens) != end+1 ||
			len(choice.LogProbs.Offsets) != end+1 {
			c.Fatalf("lists of different lengths: %+v", choice.LogProbs)
		}
		for at := contexts[i]; at < end; at++ {
			own, most := *choice.LogProbs.Own[at], float32(-math.MaxFloat32)
			for _, p := range choice.LogProbs.Top[at] {
				most = max(most, p)
			}
			sum += float64(own)
			best = best && own == most
		}
		scores, greedy = append(scores, sum), append(greedy, best)
	}
	return scores, greedy
}

func TestEvaluationHarness(t *testing.T) {
	for _, name := range []string{"photon-local-f32", "flat-gqa-f32", "memory-states-bare-i8"} {
		t.Run(name, func(t *testing.T) {
			m := load(t, "../testdata/golden/"+name)
			c := serving(t, m)
			vocab := m.Config().VocabSize
			var texts [][]int
			var contexts []int
			for i := range 12 {
				var text []int
				for j := range 5 + 3*i {
					text = append(text, (7+i*j*j+3*j)%vocab)
				}
				if i%2 == 0 { // the last token is what the model would write
					logits, err := m.Logits(background, text)
					if err != nil {
						t.Fatal(err)
					}
					last := logits[len(text)*vocab:]
					text = append(text, slices.Index(last, slices.Max(last)))
				}
				texts, contexts = append(texts, text), append(contexts, len(text)-1-i%2)
			}
			// Where the model ends the text at once, its end still counts as a token.
			for _, more := range []string{"", `,"logit_bias":{"2":1000}`} {
				scores, greedy := evaluate(c, texts, contexts, more)
				for i, text := range texts {
					logits, err := m.Logits(background, text)
					if err != nil {
						t.Fatal(err)
					}
					want, best := 0.0, true
					for at := contexts[i]; at < len(text); at++ {
						row := logits[at*vocab:][:vocab]
						sum := 0.0
						for _, v := range row {
							sum += math.Exp(float64(v))
						}
						want += float64(row[text[at]]) - math.Log(sum)
						best = best && slices.Max(row) == row[text[at]]
					}
					if math.Abs(scores[i]-want) > 1e-5*float64(len(text)) || greedy[i] != best {
						t.Errorf("text %d: %g, %v; want %g, %v", i, scores[i], greedy[i], want, best)
					}
				}
			}
		})
	}
}

// Token lists: offsets are those of the text, names tell bytes apart, and both APIs say the same.
func TestLogProbs(t *testing.T) {
	c := serving(t, newModel(t, config(true)), Chat(form(t, "plain")))
	for _, stream := range []bool{false, true} {
		body := fmt.Sprintf(`{"prompt":"<|endoftext|>é wörld","seed":5,"temperature":3,"max_tokens":60,`+
			`"logprobs":3,"echo":true,"stream":%v}`, stream)
		list := []answer{{}}
		if stream {
			list = c.stream("/v1/completions", body)
		} else {
			c.get(200, &list[0], "/v1/completions", body)
		}
		text, tokens, offsets, entries := "", []string{}, []int{}, 0
		for _, a := range list {
			for _, choice := range a.Choices {
				text += choice.Text
				l := choice.LogProbs
				if l == nil {
					continue
				}
				tokens, offsets = append(tokens, l.Tokens...), append(offsets, l.Offsets...)
				for i, p := range l.Own {
					entries++
					if own, ok := l.Top[i][l.Tokens[i]]; p == nil || !ok || own != *p || len(l.Top[i]) < 3 || len(l.Top[i]) > 4 {
						t.Errorf("entry %d: %v, %v", i, p, l.Top[i])
					}
				}
			}
		}
		runes := []rune(text)
		if entries != len(tokens) || tokens[0] != "<|endoftext|>" || !strings.HasPrefix(tokens[1], `bytes:\xc3`) {
			t.Fatalf("%d entries of tokens %q", entries, tokens)
		}
		for i, token := range tokens {
			if strings.HasPrefix(token, "bytes:") || strings.HasPrefix(token, "<|") && i > 0 {
				continue
			}
			if at := offsets[i]; at > len(runes) || !strings.HasPrefix(string(runes[at:]), token) {
				t.Errorf("stream %v: token %d, %q, is not at %d of %q", stream, i, token, at, text)
			}
		}
	}
	var whole answer
	c.get(200, &whole, "/v1/chat/completions",
		`{"messages":[{"role":"user","content":"Hi"}],"seed":5,"max_tokens":8,"logprobs":true,"top_logprobs":2}`)
	if l := whole.Choices[0].LogProbs; l == nil || len(l.Content) == 0 || len(l.Content[0].Top) != 2 ||
		len(l.Content[0].Bytes) != 1 {
		t.Errorf("chat: %+v", l)
	}
}

// TestDefaults: what a request does not say, of all that Defaults may hold; lists of no tokens are lists.
func TestDefaults(t *testing.T) {
	m, err := photon.LoadFS(models.Stories(), photon.WithWeights(photon.Int8))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	plain := serving(t, m)
	var free, stopped, own answer
	const body = `{"prompt":"Once upon a","temperature":0,"max_tokens":12`
	plain.get(200, &free, "/v1/completions", body+`}`)
	text := free.Choices[0].Text
	if len(text) < 4 {
		t.Fatalf("%q is too short to stop in", text)
	}
	c := serving(t, m, Defaults(photon.Stop(text[2:3])))
	c.get(200, &stopped, "/v1/completions", body+`}`)
	if got := stopped.Choices[0]; !strings.HasPrefix(text, got.Text) || len(got.Text) > 2 || *got.Finish != "stop" {
		t.Errorf("%+v, want what comes before %q in %q", got, text[2:3], text)
	}
	c.get(200, &own, "/v1/completions", body+`,"stop":"none of it"}`)
	if got := own.Choices[0].Text; got != text {
		t.Errorf("a stop of its own: %q, want %q", got, text)
	}
	var none struct {
		Choices []struct{ LogProbs map[string][]any }
	}
	plain.get(200, &none, "/v1/completions", `{"prompt":"Hello","max_tokens":0,"logprobs":0}`)
	if got := none.Choices[0].LogProbs; got["tokens"] == nil || got["text_offset"] == nil {
		t.Errorf("no tokens: logprobs %v", got)
	}
}

func TestChat(t *testing.T) {
	m := newModel(t, config(false))
	const messages = `"messages":[{"role":"system","content":"Be kind."},` +
		`{"role":"user","content":[{"type":"text","text":"Hi "},{"type":"text","text":"you"}]},` +
		`{"role":"assistant","content":"Yes?","refusal":null},{"role":"user","name":"Ann","content":" Go <|im_end|>"}]`
	said := []message{{"system", "Be kind."}, {"user", "Hi you"}, {"assistant", "Yes?"}, {"user", " Go <|im_end|>"}}
	for name, layout := range map[string]string{
		"plain": "Be kind.\n\nUser: Hi you\nAssistant: Yes?\nUser:  Go @\nAssistant:",
		"chatml": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi you<|im_end|>\n" +
			"<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\n Go @<|im_end|>\n<|im_start|>assistant\n",
		"llama3": "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>" +
			"<|start_header_id|>user<|end_header_id|>\n\nHi you<|eot_id|>" +
			"<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>" +
			"<|start_header_id|>user<|end_header_id|>\n\n Go @<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			form := form(t, name)
			c := serving(t, m, Chat(form))
			tok := m.Tokenizer()
			before, after, _ := strings.Cut(layout, "@")
			want := slices.Concat(tok.Encode(before), tok.EncodeText("<|im_end|>"), tok.Encode(after))
			if got := form.encode(tok, said); !slices.Equal(got, want) {
				t.Errorf("laid out as %q, want %q", tok.Decode(got), tok.Decode(want))
			}
			var a answer
			c.get(200, &a, "/v1/chat/completions", `{`+messages+`,"seed":4,"max_completion_tokens":30,"n":2}`)
			text := a.Choices[1].Message.Content
			if a.Object != "chat.completion" || !strings.HasPrefix(a.ID, "chatcmpl-") ||
				a.Choices[1].Message.Role != "assistant" ||
				a.Usage.Prompt_tokens != len(want) || a.Usage.Completion_tokens > 60 || text == "" {
				t.Errorf("%+v", a)
			}
			streamed, roles := "", 0
			for _, part := range c.stream("/v1/chat/completions",
				`{`+messages+`,"seed":4,"max_tokens":30,"n":2,"stream":true}`) {
				if part.Object != "chat.completion.chunk" {
					t.Errorf("%+v", part)
				}
				if d := part.Choices[0]; d.Index == 1 {
					streamed += d.Delta.Content
					roles += len(d.Delta.Role)
				}
			}
			if streamed != text || roles != len("assistant") {
				t.Errorf("streamed %q, want %q", streamed, text)
			}
			// The form's own end of an answer ends it, and is no part of it.
			spelled := tok.EncodeText(" Yes\nUser: and")
			if name != "plain" {
				spelled = tok.Encode("Yes" + form.Stop)
			}
			spelling := serving(t, m, Chat(form), Defaults(photon.LogitsFunc(func(drawn []int, logits []float32) {
				logits[spelled[min(len(drawn), len(spelled)-1)]] = 1e9
			})))
			for _, more := range []string{"", `,"stop":"or"`} {
				a = answer{}
				spelling.get(200, &a, "/v1/chat/completions", `{`+messages+`,"max_tokens":20`+more+`}`)
				if choice := a.Choices[0]; *choice.Finish != "stop" || choice.Message.Content != "Yes" {
					t.Errorf("%+v, want Yes", choice)
				}
			}
			for _, body := range []string{`{}`, `{"messages":[]}`, `{"messages":[{"role":"tool","content":"x"}]}`,
				`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}`,
				`{"messages":[{"role":"user","content":3}]}`, `{"messages":"hi"}`, `{` + messages +
					`,"tools":[{"type":"function"}]}`,
				`{` + messages + `,"max_completion_tokens":-2}`,
				`{` + messages + `,"top_logprobs":2}`, `{` + messages + `,"logprobs":true,"top_logprobs":21}`,
				`{` + messages + `,"response_format":{"type":"json_object"}}`} {
				a = answer{}
				if c.get(400, &a, "/v1/chat/completions", body); a.Error == nil || a.Error.Message == "" {
					t.Errorf("%s: %+v", body, a.Error)
				}
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		var a answer
		serving(t, m).get(400, &a, "/v1/chat/completions", `{`+messages+`}`)
		if a.Error == nil || *a.Error.Code != "no_chat_form" || !strings.Contains(a.Error.Message, "/v1/completions") {
			t.Errorf("%+v", a.Error)
		}
	})
	for template, name := range map[string]string{"{{'<|im_start|>' + message.role}}": "chatml",
		"<|user|> … eos_token": "zephyr",
		"<|user|> … <|end|>":   "phi3", "User: … Assistant:": "plain", "<start_of_turn>": "gemma"} {
		if got, err := ChatFormOf(template); got != form(t, name) || err != nil {
			t.Errorf("%s: %+v, %v", template, got, err)
		}
	}
	if _, err := ChatFormOf("[INST]"); !errors.Is(err, photon.ErrUnsupported) {
		t.Errorf("[INST]: %v", err)
	}
	if _, err := NamedChatForm("alpaca"); !errors.Is(err, photon.ErrInvalid) {
		t.Errorf("alpaca: %v", err)
	}
}

func form(t testing.TB, name string) ChatForm {
	t.Helper()
	f, err := NamedChatForm(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
