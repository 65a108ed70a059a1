//go:build !js && !wasip1

package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/internal/bounded"
)

// endless is a stream that ends with the client only.
const endless = `{"prompt":"Hello","max_tokens":1000000,"stream":true}`

func forever() Option { return MaxTokens(1 << 30) }

// drawn is the number of tokens drawn so far.
func (c *client) drawn() int {
	c.s.metrics.mu.Lock()
	defer c.s.metrics.mu.Unlock()
	return c.s.metrics.tokens
}

// begin starts a request, and returns when its first line is there.
func (c *client) begin(path, body string) (lines *bufio.Reader, leave func()) {
	c.Helper()
	ctx, cancel := context.WithCancel(background)
	r, err := http.NewRequestWithContext(ctx, "POST", c.URL+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	answer, err := c.Client().Do(r)
	if err != nil {
		c.Fatal(err)
	}
	lines = bufio.NewReader(answer.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
		c.Fatalf("status %d, %q, %v", answer.StatusCode, line, err)
	}
	return lines, func() { cancel(); answer.Body.Close() }
}

func TestMalformed(t *testing.T) {
	c := serving(t, newModel(t, config(true)), MaxBody(5000), MaxTokens(50), MaxTexts(1, 3))
	for body, status := range map[string]int{
		"{":                                400,
		"null":                             400,
		"[]":                               400,
		"3":                                400,
		`{"prompt":"x"} {}`:                400,
		`{"prompt":"x"`:                    400,
		"\xff\xfe":                         400,
		`{"prompt":3}`:                     400,
		`{"prompt":[]}`:                    400,
		`{"prompt":["a",1]}`:               400,
		`{"prompt":[1,"a"]}`:               400,
		`{"prompt":["a",null]}`:            400,
		`{"prompt":[1,null]}`:              400,
		`{"prompt":[[1],null]}`:            400,
		`{"prompt":[1.5]}`:                 400,
		`{"prompt":[-1]}`:                  400,
		`{"prompt":[[1,262]]}`:             400,
		`{"prompt":{"a":1}}`:               400,
		`{"prompt":"x","n":0}`:             400,
		`{"prompt":"x","n":129}`:           400,
		`{"prompt":"x","n":5}`:             400, // more than wait and run
		`{"prompt":"x","n":"1"}`:           400,
		`{"prompt":"x","max_tokens":-2}`:   400,
		`{"prompt":"x","max_tokens":1.5}`:  400,
		`{"prompt":"x","max_tokens":1e30}`: 400,
		`{"prompt":"x","temperature":-1}`:  400,
		`{"prompt":"x","temperature":"a"}`: 400,
		`{"prompt":"x","top_p":2}`:         400,
		`{"prompt":"x","top_k":-2}`:        400,
		`{"prompt":"x","min_p":-1}`:        400,
		`{"prompt":"x","logprobs":-1}`:     400,
		`{"prompt":"x","logprobs":21}`:     400,
		`{"prompt":"x","logprobs":true}`:   400,
		`{"prompt":"x","stop":3}`:          400,
		`{"prompt":"x","stop":[""]}`:       400,
		`{"prompt":"x","stop":""}`:         400,
		`{"prompt":"x","stop":[null]}`:     400,
		`{"prompt":"x","stream_options":{"include_usage":true}}`:               400,
		`{"prompt":"x","logit_bias":{"262":1}}`:                                400,
		`{"prompt":"x","logit_bias":{"a":1}}`:                                  400,
		`{"prompt":"x","seed":1.5}`:                                            400,
		`{"prompt":"x","best_of":2}`:                                           400,
		`{"prompt":"x","suffix":"y"}`:                                          400,
		`{"prompt":"x","frobnicate":true}`:                                     400,
		`{"prompt":"x","model":"gpt-4"}`:                                       404,
		`{"prompt":"` + strings.Repeat("x", 51) + `"}`:                         400,
		`{"prompt":"` + strings.Repeat("x", 5000) + `"}`:                       413,
		`{"prompt":` + strings.Repeat("[", 4000) + `}`:                         400,
		`{"prompt":"x","seed":-3,"logit_bias":{"97":-100},"max_tokens":2}`:     200,
		`{"prompt":"\ud800","max_tokens":2}`:                                   400,
		`{"prompt":"` + strings.Repeat("x", 50) + `","max_tokens":0}`:          200,
		`{"prompt":[],"prompt":[[1,2],[3]],"max_tokens":2,"n":2,"echo":true}`:  400,
		`{"prompt":[[1,2],[]],"max_tokens":2,"n":2,"echo":true,"logprobs":20}`: 200,
	} {
		t.Run(fmt.Sprintf("%.50s", body), func(t *testing.T) {
			c.T = t
			var a answer
			c.get(status, &a, "/v1/completions", body)
			if status != 200 && (a.Error == nil || a.Error.Message == "" || a.Error.Type != "invalid_request_error") {
				t.Errorf("%+v", a.Error)
			}
		})
	}
	c.T = t
	var a answer
	c.get(200, &a, "/v1/completions", `{"prompt":"Hello","max_tokens":100,"logit_bias":{"256":-100}}`)
	if *a.Choices[0].Finish != "length" || a.Usage.Total_tokens != 50 {
		t.Errorf("%+v, want a text of 50 tokens", a.Usage)
	}
	c.get(405, nil, "/v1/completions", "")
	c.get(400, nil, "/v1/completions", `{"prompt":"`+strings.Repeat("x", 51)+`","stream":true}`)
}

// A text ends within a step when its client goes, whether it is streamed or not, and also while it waits.
func TestDisconnect(t *testing.T) {
	c := serving(t, newModel(t, config(false)), forever(), MaxTexts(2, 10))
	for _, n := range []int{1, 2} {
		_, leave := c.begin("/v1/completions", fmt.Sprintf(`{"prompt":"Hello","n":%d,"max_tokens":1000000,"stream":true}`, n))
		leave()
		c.until("the text ends", func() bool { return c.s.running() == 0 })
	}
	at := c.drawn()
	time.Sleep(20 * time.Millisecond)
	if now := c.drawn(); now != at {
		t.Errorf("%d tokens after the end", now-at)
	}
	_, leave := c.begin("/v1/completions", `{"prompt":"Hello","n":2,"max_tokens":1000000,"stream":true}`)
	defer leave()
	for _, body := range []string{`{"prompt":"Hello","max_tokens":1000000}`, endless,
		`{"prompt":"Hello","max_tokens":1000000,"n":3}`,
		`{"prompt":"` + strings.Repeat("x", 1<<20) + `","echo":true,"logprobs":1,"max_tokens":1}`} {
		ctx, cancel := context.WithTimeout(background, 30*time.Millisecond)
		r, _ := http.NewRequestWithContext(ctx, "POST", c.URL+"/v1/completions", strings.NewReader(body))
		if answer, err := c.Client().Do(r); err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
			if answer.Body.Close(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%.40s: %v", body, err)
			}
		}
		cancel()
		c.until("only the stream is left", func() bool { return c.s.running() == 2 })
	}
}

// hangUp is a client that goes away in the middle of the answer.
type hangUp struct {
	*httptest.ResponseRecorder
	writes int
	leave  func()
}

func (h *hangUp) Write(data []byte) (int, error) {
	if h.writes++; h.writes == 5 {
		h.leave()
	}
	return len(data), nil
}

// The step that runs when the client goes is the text's last.
func TestLastStep(t *testing.T) {
	for _, body := range []string{endless, `{"prompt":"Hello","n":2,"max_tokens":1000000,"stream":true}`} {
		var steps, then atomic.Int32
		slow := Defaults(photon.LogitsFunc(func([]int, []float32) {
			time.Sleep(5 * time.Millisecond)
			steps.Add(1)
		}))
		handler := Handler(newModel(t, config(false)), forever(), slow)
		ctx, cancel := context.WithCancel(background)
		w := &hangUp{httptest.NewRecorder(), 0, func() { then.Store(steps.Load()); cancel() }}
		handler.ServeHTTP(w, httptest.NewRequest("POST", "/v1/completions", strings.NewReader(body)).WithContext(ctx))
		time.Sleep(50 * time.Millisecond)
		texts := int32(1 + strings.Count(body, `"n":2`))
		if more := steps.Load() - then.Load(); w.writes < 5 || more > 2*texts {
			t.Errorf("%d writes, %d tokens of %d texts after the client has gone", w.writes, more, texts)
		}
	}
}

// Texts wait for their turn up to a number, and more are refused.
// TestWaitingPrompts: of those who wait with several texts each, one has read its prompt.
func TestWaitingPrompts(t *testing.T) {
	c := serving(t, newModel(t, config(false)), forever(), MaxTexts(1, 100))
	_, leave := c.begin("/v1/completions", endless)
	var waiting sync.WaitGroup
	for range 5 {
		waiting.Go(func() { c.get(200, nil, "/v1/completions", `{"prompt":"Hello","max_tokens":3,"n":2}`) })
	}
	c.until("all wait", func() bool { return c.s.running() == 11 })
	for range 10 { // it goes on to hold the place of those that read
		time.Sleep(10 * time.Millisecond)
		c.until("one has read", func() bool { return len(c.s.reading) == 1 })
	}
	leave()
	waiting.Wait()
}

func TestWaiting(t *testing.T) {
	c := serving(t, newModel(t, config(false)), forever(), MaxTexts(1, 2))
	_, leave := c.begin("/v1/completions", endless)
	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() { c.get(200, nil, "/v1/completions", `{"prompt":"Hello","max_tokens":3}`) })
	}
	c.until("two wait", func() bool { return c.s.running() == 3 })
	var a answer
	refused := c.get(429, &a, "/v1/completions", `{"prompt":"Hello"}`)
	if refused.Header.Get("Retry-After") == "" || a.Error.Type != "rate_limit_error" {
		t.Errorf("%v, %+v", refused.Header, a.Error)
	}
	c.get(200, nil, "/health", "")
	leave()
	waiting.Wait()
	c.get(200, nil, "/v1/completions", `{"prompt":"Hello","max_tokens":3}`)
}

func TestTime(t *testing.T) {
	c := serving(t, newModel(t, config(false)), forever(), MaxTexts(1, 9), MaxTime(200*time.Millisecond))
	var a answer
	c.get(200, &a, "/v1/completions", `{"prompt":"Hello","max_tokens":1000000}`)
	if *a.Choices[0].Finish != "length" || a.Usage.Completion_tokens == 0 {
		t.Errorf("%+v", a)
	}
	list := c.stream("/v1/completions", endless)
	if last := list[len(list)-1]; *last.Choices[0].Finish != "length" {
		t.Errorf("%+v", last)
	}
	// One text of two may run: the other ends when it has not begun.
	a = answer{}
	c.get(200, &a, "/v1/completions", `{"prompt":["Hello","you"],"max_tokens":1000000}`)
	if len(a.Choices) != 2 || *a.Choices[0].Finish != "length" || *a.Choices[1].Finish != "length" {
		t.Errorf("%+v", a)
	}
	var both sync.WaitGroup
	for i, body := range []string{endless, `{"prompt":"Hello"}`} {
		both.Go(func() {
			if i == 1 {
				time.Sleep(20 * time.Millisecond)
			}
			answer := c.do("/v1/completions", body)
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if i == 1 && answer.StatusCode != 503 && answer.StatusCode != 200 { // 200: let in just when the first ended
				t.Errorf("status %d", answer.StatusCode)
			}
		})
	}
	both.Wait()
}

// A client that reads nothing holds up nobody, and is dropped in the end; so is one that does not send its request.
func TestSlow(t *testing.T) {
	stall := func(o *options) { o.stall = 500 * time.Millisecond }
	c := serving(t, newModel(t, config(false)), forever(), MaxTexts(4, 4), stall)
	dial := func(head string) net.Conn {
		conn, err := net.Dial("tcp", c.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.(*net.TCPConn).SetReadBuffer(1 << 10)
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	body := `{"prompt":"Hello","max_tokens":1000000,"stream":true,"logprobs":20}`
	head := "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
	silent := dial(fmt.Sprintf("%s%d\r\n\r\n%s", head, len(body), body))
	defer silent.Close()
	half := dial(fmt.Sprintf("%s%d\r\n\r\n{", head, len(body)))
	defer half.Close()
	c.until("it runs", func() bool { return c.s.running() == 1 && c.drawn() > 0 })
	begin := time.Now()
	for range 5 {
		c.get(200, nil, "/v1/completions", `{"prompt":"Hello","max_tokens":30}`)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("held up for %v", took)
	}
	c.until("the silent client is dropped", func() bool { return c.s.running() == 0 })
	half.SetReadDeadline(time.Now().Add(5 * time.Second))
	if answer, err := http.ReadResponse(bufio.NewReader(half), nil); err != nil || answer.StatusCode != 408 {
		t.Errorf("half a request: %v, %v", answer, err)
	}
}

// 64 streams at once: each is the text that it is alone, and those that go away disturb none.
func TestLoad(t *testing.T) {
	m := newModel(t, config(false))
	c := serving(t, m, MaxTexts(32, 64))
	wants := map[int]string{}
	for seed := range 8 {
		r, err := m.Complete(background, "Hello", photon.Temperature(1), photon.TopK(0), photon.TopP(1), photon.MinP(0),
			photon.Seed(uint64(seed)), photon.MaxTokens(40))
		if err != nil {
			t.Fatal(err)
		}
		wants[seed] = r.Text
	}
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			if i%8 == 7 {
				_, leave := c.begin("/v1/completions", endless)
				leave()
				return
			}
			answer := c.do("/v1/completions", fmt.Sprintf(`{"prompt":"Hello","stream":true,"seed":%d,"max_tokens":40}`, i%8))
			defer answer.Body.Close()
			if i%8 == 6 { // goes in the middle
				io.CopyN(io.Discard, answer.Body, 500)
				return
			}
			text := ""
			list, done := readEvents(t, answer.Body)
			for _, part := range list {
				text += part.Choices[0].Text
			}
			if !done || text != wants[i%8] {
				t.Errorf("stream %d: %q, want %q", i, text, wants[i%8])
			}
		})
	}
	all.Wait()
	c.until("all have ended", func() bool { return c.s.running() == 0 })
}

// Streams that run when the server shuts down are told so.
func TestShutdown(t *testing.T) {
	m := newModel(t, config(false))
	base, cancel := context.WithCancel(background)
	server := httptest.NewUnstartedServer(Handler(m, forever()))
	server.Config.BaseContext = func(net.Listener) context.Context { return base }
	server.Start()
	defer server.Close()
	c := &client{T: t, Server: server, m: m}
	lines, leave := c.begin("/v1/completions", endless)
	defer leave()
	cancel()
	rest, err := io.ReadAll(lines)
	if err != nil || !strings.Contains(string(rest), "shutting down") || strings.Contains(string(rest), "[DONE]") {
		t.Errorf("%q, %v", rest[max(0, len(rest)-300):], err)
	}
}

// A panic of a function of the caller's ends its request, as of any handler, and no other.
func TestPanic(t *testing.T) {
	c := serving(t, newModel(t, config(true)), Defaults(photon.LogitsFunc(func(drawn []int, logits []float32) {
		if len(drawn) == 3 {
			panic(http.ErrAbortHandler) // which net/http does not log
		}
	})))
	for _, more := range []string{"", `,"n":2`, `,"stream":true`} {
		r, err := c.Client().Post(c.URL+"/v1/completions", "application/json",
			strings.NewReader(`{"prompt":"Hello","logit_bias":{"256":-100}`+more+`}`))
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: an answer", more)
		}
		c.get(200, nil, "/v1/completions", `{"prompt":"Hello","max_tokens":3}`)
	}
}

func TestToken(t *testing.T) {
	c := serving(t, newModel(t, config(true)), BearerToken("secret"))
	for _, header := range []string{"", "secret", "Bearer", "Bearer ", "Bearer Secret", "Bearer secret2",
		"Basic secret", "Bearersecret"} {
		var a answer
		for _, path := range []string{"/v1/models", "/metrics", "/tokenizer_info", "/no-such"} {
			if c.get(401, &a, path, "", "Authorization", header); *a.Error.Code != "invalid_api_key" {
				t.Errorf("%+v", a.Error)
			}
		}
		c.get(401, &a, "/v1/completions", `{"prompt":"x"}`, "Authorization", header)
	}
	for _, header := range []string{"Bearer secret", "bearer secret", "BEARER  secret"} {
		c.get(200, nil, "/v1/completions", `{"prompt":"x"}`, "Authorization", header)
	}
	c.get(200, nil, "/metrics", "", "Authorization", "Bearer secret").Body.Close()
	c.get(200, nil, "/health", "")
	c.get(200, nil, "/", "")
}

// A page of another site cannot have a browser post here.
func TestCrossOrigin(t *testing.T) {
	c := serving(t, newModel(t, config(true)))
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://example.com"}} {
		c.get(403, nil, "/v1/completions", `{"prompt":"x"}`, header...)
	}
	c.get(200, nil, "/v1/completions", `{"prompt":"x"}`, "Sec-Fetch-Site", "same-origin", "Origin", c.URL)
}

func TestRest(t *testing.T) {
	m := newModel(t, config(true))
	c := serving(t, m, Name("acme/tiny"))
	var models struct {
		Object string
		Data   []struct{ ID, Object string }
	}
	if c.get(200, &models, "/v1/models", ""); models.Object != "list" || len(models.Data) != 1 ||
		models.Data[0].ID != "acme/tiny" {
		t.Errorf("%+v", models)
	}
	c.get(200, nil, "/v1/models/acme/tiny", "")
	c.get(404, nil, "/v1/models/other", "")
	c.get(404, nil, "/no-such", "")

	var tokens struct {
		Count   int
		Tokens  []int
		Strings []string `json:"token_strs"`
		Prompt  string
	}
	c.get(200, &tokens, "/tokenize", `{"prompt":"hé<|endoftext|>","add_special_tokens":false,"return_token_strs":true}`)
	if fmt.Sprint(tokens.Count, tokens.Tokens,
		tokens.Strings) != `4 [104 195 169 256] [h bytes:\xc3 bytes:\xa9 <|endoftext|>]` {
		t.Errorf("%+v", tokens)
	}
	c.get(200, &tokens, "/detokenize", `{"tokens":[104,195,169,256]}`)
	if tokens.Prompt != "hé<|endoftext|>" {
		t.Errorf("%+v", tokens)
	}
	for path, body := range map[string]string{"/tokenize": `{}`, "/detokenize": `{"tokens":[300]}`} {
		c.get(400, nil, path, body)
		c.get(404, nil, path, `{"model":"other"}`)
	}
	var info map[string]any
	if c.get(200, &info, "/tokenizer_info", ""); info["eos_token"] != "<|endoftext|>" || info["bos_token"] != nil {
		t.Errorf("%v", info)
	}

	c.get(200, nil, "/v1/completions", `{"prompt":"Hello","max_tokens":5,"n":2,"logit_bias":{"256":-100}}`)
	answer := c.do("/metrics", "")
	text, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	for _, line := range []string{"photon_prompt_tokens_total 5", "photon_generated_tokens_total 10", "photon_texts 0",
		`photon_requests_total{route="POST /v1/completions",code="200"} 1`,
		`photon_requests_total{route="other",code="404"} 1`,
		"photon_first_token_seconds_count 2", "photon_token_seconds_count 8", `photon_token_seconds_bucket{le="+Inf"} 8`,
		"# TYPE photon_first_token_seconds histogram"} {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}

	answer = c.do("/", "")
	text, _ = io.ReadAll(answer.Body)
	answer.Body.Close()
	if !strings.Contains(string(text), "v1/completions") || strings.Contains(string(text), "http://") ||
		strings.Contains(string(text), "https://") {
		t.Error("the page asks for something else than this server")
	}
}

// A model without a tokenizer is served by token ids.
func TestNoTokenizer(t *testing.T) {
	c := serving(t, load(t, "../testdata/golden/photon-local-f32"))
	var a answer
	c.get(200, &a, "/v1/completions", `{"prompt":[3,4,5],"max_tokens":4,"logprobs":0,"n":2,"seed":1}`)
	want, err := c.m.Complete(background, "x")
	if err == nil {
		t.Fatalf("%+v", want)
	}
	if l := a.Choices[1].LogProbs; len(l.Tokens) == 0 || !strings.HasPrefix(l.Tokens[0], "token_id:") ||
		a.Choices[1].Text != "" {
		t.Errorf("%+v", a.Choices[1])
	}
	for path, body := range map[string]string{"/v1/completions": `{"prompt":"Hello"}`, "/tokenize": `{"prompt":"Hello"}`,
		"/detokenize": `{"tokens":[1]}`} {
		c.get(400, nil, path, body)
	}
	c.get(400, nil, "/v1/completions", `{"prompt":[1],"stop":"x"}`)
	c.get(404, nil, "/tokenizer_info", "")
}

func TestBadOptions(t *testing.T) {
	m := load(t, "../testdata/golden/photon-local-f32")
	for name, o := range map[string]Option{"Name": Name(""), "MaxBody": MaxBody(0), "MaxTokens": MaxTokens(0),
		"MaxTime":  MaxTime(-1),
		"MaxTexts": MaxTexts(0, 1), "MaxStateBytes": MaxStateBytes(-1), "KeepPrefixes": KeepPrefixes(-1),
		"tokenizer.json": Chat(form(t, "plain")),
		"Temperature":    Defaults(photon.Temperature(-1))} {
		t.Run(name, func(t *testing.T) {
			c := serving(t, m, o)
			var a answer
			if c.get(500, &a, "/v1/completions", `{"prompt":[1]}`); !strings.Contains(a.Error.Message, name) {
				t.Errorf("%+v", a.Error)
			}
			c.get(500, nil, "/health", "")
		})
	}
	var a answer
	other := serving(t, newModel(t, config(true)), Chat(form(t, "gemma")))
	if other.get(500, &a, "/v1/models", ""); !strings.Contains(a.Error.Message, "<start_of_turn>") {
		t.Errorf("%+v", a.Error)
	}
	c := serving(t, newModel(t, config(true)))
	c.m.Close()
	c.get(503, nil, "/v1/completions", `{"prompt":"x"}`)
	c.get(503, nil, "/health", "")
}

// FuzzBody: whatever is posted, the answer is JSON, or a stream, and it is no error of the server.
func FuzzBody(f *testing.F) {
	handler := Handler(newModel(f, config(true)), Chat(form(f, "chatml")), MaxTokens(40), MaxTexts(1, 8))
	paths := []string{"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"}
	for i, body := range []string{`{"prompt":["a",""],"n":2,"echo":true,"logprobs":3,"stop":["x"],"stream":true}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"<|im_end|>"}]}],"logprobs":true,"max_tokens":3}`,
		`{"prompt":"\xff<|endoftext|>","add_special_tokens":false}`, `{"tokens":[1,256,195]}`,
		`{"prompt":[[1,2],[]],"logit_bias":{"3":-100},"temperature":1e300,"top_p":0,"seed":-1}`} {
		f.Add(i%4, []byte(body))
	}
	f.Fuzz(func(t *testing.T, path int, body []byte) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", paths[uint(path)%4], bytes.NewReader(body))
		bounded.Run(t, 8*len(body)+1<<20, func() { handler.ServeHTTP(w, r) })
		stream := w.Header().Get("Content-Type") == "text/event-stream"
		if w.Code >= 500 || !stream && !json.Valid(w.Body.Bytes()) || stream && !bytes.HasSuffix(w.Body.Bytes(),
			[]byte("data: [DONE]\n\n")) {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	})
}
