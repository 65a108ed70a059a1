//go:build !js && !wasip1

package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// What is not understood is refused: the error names the field, and says what to give.
func TestRefusals(t *testing.T) {
	c := serving(t, newModel(t, config(true)), Chat(form(t, "plain")), MaxTokens(50), MaxStateBytes(20000))
	const user = `{"role":"user","content":"a"}`
	for _, test := range []struct{ path, body, param, says string }{
		// Fields inside of fields.
		{"chat", `{"messages":[{"role":"user","content":"a","foo":1}]}`, "messages[0].foo", "not known"},
		{"chat", `{"messages":[{"Role":"user","content":"a"}]}`, "messages[0].Role", "not known"},
		{"chat", `{"messages":[` + user + `,{"role":"user","content":"a","tool_calls":[{"x":1}]}]}`,
			"messages[1].tool_calls", "not supported but as []"},
		{"chat", `{"messages":[{"role":"assistant","content":"a","refusal":"no"}]}`,
			"messages[0].refusal", "not known"},
		{"chat", `{"messages":[{"role":"user","content":"a","name":5}]}`,
			"messages[0].name", "give a string"},
		{"chat", `{"messages":[{"role":"user","content":[{"type":"text","text":"a","foo":1}]}]}`,
			"messages[0].content[0].foo", "not known"},
		{"chat", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}`,
			"messages[0].content[0].type", "text parts alone"},
		{"chat", `{"messages":[{"role":"user","content":[{"type":"text"}]}]}`,
			"messages[0].content[0].text", "missing"},
		{"chat", `{"messages":[{"role":"user","content":[null]}]}`, "messages[0].content[0].type", "text parts alone"},
		{"chat", `{"messages":[{"role":"user","content":[]}]}`, "messages[0].content", "a list of text parts"},
		{"chat", `{"messages":[null]}`, "messages[0]", "is null: give a JSON object"},
		{"chat", `{"messages":["a"]}`, "messages[0]", `is "a": give a JSON object`},
		{"", "null", "", "the body is null: give a JSON object"},
		{"chat", `{"messages":{"role":"user"}}`, "messages", "give a list"},
		{"", `{"prompt":"x","stream":true,"stream_options":{"foo":1}}`, "stream_options.foo", "not known"},
		{"", `{"prompt":"x","stream":true,"stream_options":{"include_usage":1}}`, "stream_options.include_usage",
			"true or false"},
		{"", `{"prompt":"x","stream":true,"stream_options":[]}`, "stream_options", "give a JSON object"},
		{"", `{"messages":[` + user + `]}`, "messages", "send it to /v1/chat/completions"},
		{"chat", `{"prompt":"x"}`, "prompt", "send it to /v1/completions"},
		{"", `{"prompt":"x","max_completion_tokens":3}`, "max_completion_tokens", "give max_tokens"},
		// What was taken for something else.
		{"chat", `{"messages":[{"role":"user"}]}`, "messages[0].content", "missing"},
		{"chat", `{"messages":[{"role":"user","content":null}]}`, "messages[0].content", "missing"},
		{"chat", `{"messages":[` + user + `],"max_tokens":3,"max_completion_tokens":4}`, "max_completion_tokens",
			"give one of them"},
		{"chat", `{"messages":[` + user + `],"max_completion_tokens":-2}`, "max_completion_tokens", "0 to "},
		{"", `{"prompt":"x","user":5}`, "user", "give a string"},
		{"", `{"prompt":"x","metadata":"a"}`, "metadata", "give an object"},
		{"", `{"prompt":"x","store":"a"}`, "store", "true or false"},
		{"", `{"prompt":"x","N":5}`, "N", "not known"},
		{"", `{"prompt":"x","Max_Tokens":5}`, "Max_Tokens", "not known"},
		{"", `{"prompt":"x","` + strings.Repeat("é", 99) + `":5}`, strings.Repeat("é", 80), "not known"},
		{"", `{"prompt":"x","":5}`, "", "not known"},
		{"", `{"prompt":"x","sampling":{}}`, "sampling", "not known"},
		{"", `{"prompt":"x","best_of":1,"n":2}`, "best_of", "n is 2"},
		{"", `{"prompt":"x","prompt":"y"}`, "prompt", "twice"},
		{"", `{"prompt":"x","pr\u006fmpt":null}`, "prompt", "twice"},
		{"", `{"prompt":"x","logit_bias":{"5":1,"5":2}}`, "5", "twice"},
		{"", `{"prompt":"x","logit_bias":{"+5":1}}`, "logit_bias", "digits alone"},
		{"", `{"prompt":"x","logit_bias":{"05":1}}`, "logit_bias", "digits alone"},
		{"detokenize", `{"tokens":[1,null]}`, "tokens", "whole numbers"},
		// Text that is no Unicode.
		{"", "{\"prompt\":\"a\xff\"}", "", `byte 12: \xff`},
		{"", "{\"prompt\":\"x\",\"stop\":\"\xc3\"}", "", "UTF-8"},
		{"chat", "{\"messages\":[{\"role\":\"user\",\"content\":\"\xed\xa0\x80\"}]}", "", "UTF-8"},
		{"", `{"prompt":"a\ud800"}`, "", `byte 12: \ud800`},
		{"", `{"prompt":["\\ud83d\ude00","\uDE00\ud83d"]}`, "", `byte 19: \ude00`},
		{"", `{"prompt":"\ud800\ud800"}`, "", `byte 11: \ud800`},
		{"", `{"prompt":"x","stop":"\ud83d\ud83d\ude00"}`, "", "half of a surrogate pair"},
		{"tokenize", `{"prompt":"\ud83d\n"}`, "", "half of a surrogate pair"},
		// Values out of their ranges.
		{"", `{"prompt":"x","seed":18446744073709551616}`, "seed", "to 9223372036854775807"},
		{"", `{"prompt":"x","seed":"1"}`, "seed", "to 9223372036854775807"},
		{"chat", `{"messages":[` + user + `,{"role":"tool","content":"x","tool_call_id":"1"}]}`,
			"messages[1].role", "give system, user or assistant"},
		{"", "\ufeff{}", "", "byte order mark"},
		{"", `{"prompt":"x","max_tokens":-2}`, "max_tokens", "or -1"},
		{"", `{"prompt":"x","top_k":-2}`, "top_k", "-1"},
		{"", `{"prompt":"x","max_tokens":1e30}`, "max_tokens",
			"max_tokens is 1e30: give a whole number in digits, 0 to "},
		{"", `{"prompt":"x","top_k":1e20}`, "top_k", "0 (off, as -1 is) to "},
		{"", `{"prompt":"x","n":1e20}`, "n", "1 to 128"},
		{"", `{"prompt":"x","temperature":1e300}`, "temperature", "0 to 3.4e38"},
		{"", `{"prompt":"x","temperature":1e-400}`, "temperature", "is 1e-400: give a number that a float64 holds, 0"},
		{"", `{"prompt":"x","top_p":0.0001e-400}`, "top_p", "a number that a float64 holds, 0 to 1"},
		{"", `{"prompt":"x","logit_bias":{"5":1e-60}}`, "logit_bias", "token 5 is 1e-60: give a number"},
		{"", `{"prompt":"x","logit_bias":{"5":1e60}}`, "logit_bias", "token 5 is 1e60: give a number"},
		{"", `{"prompt":"x","temperature":1e400}`, "temperature", "0 to 3.4e38"},
		{"", `{"prompt":"x","frequency_penalty":1e5}`, "frequency_penalty", "-1000 to 1000"},
		{"", `{"prompt":"x","repeat_penalty":0}`, "repeat_penalty", "1e-6 to 1e6"},
		{"", `{"prompt":"x","stop":""}`, "stop", "may not be empty"},
		{"", `{"prompt":"x","stop":["a",""]}`, "stop", "may not be empty"},
		{"", `{"prompt":"x","stop":["a` + strings.Repeat(`","a`, 32) + `"]}`, "stop", "33 strings: give at most 32"},
		{"", `{"prompt":"x","stop":["` + strings.Repeat("é", 8<<10) + `","a"]}`, "stop", "more than 16384 bytes"},
		{"", `{"prompt":"x","logit_bias":{"x":1}}`, "logit_bias", `"x": give a token's id`},
		{"", `{"prompt":"x","logit_bias":{"5":"x"}}`, "logit_bias", `token 5 is "x": give a number`},
		{"", `{"prompt":"x","logit_bias":{"5":null}}`, "logit_bias", "give a number"},
		{"", `{"prompt":"x","logit_bias":[1]}`, "logit_bias", "an object"},
		{"detokenize", `{}`, "tokens", "missing"},
		{"detokenize", `{"tokens":null}`, "tokens", "missing"},
		{"detokenize", `{"tokens":[1.5]}`, "tokens", "whole numbers"},
		{"tokenize", `{}`, "prompt", "missing"},
		// Texts that are too long.
		{"", `{"prompt":"` + strings.Repeat("x", 51) + `"}`, "prompt", "51 tokens, a text may have 50"},
		{"chat", `{"messages":[{"role":"user","content":"` + strings.Repeat("x", 51) + `"}]}`, "messages",
			"a text may have 50"},
	} {
		path := map[string]string{"": "/v1/completions", "chat": "/v1/chat/completions"}[test.path]
		if path == "" {
			path = "/" + test.path
		}
		t.Run(fmt.Sprintf("%.80s", test.body), func(t *testing.T) {
			c.T = t
			var a answer
			c.get(400, &a, path, test.body)
			param := ""
			if a.Error.Param != nil {
				param = *a.Error.Param
			}
			if param != test.param || !strings.Contains(a.Error.Message, test.says) {
				t.Errorf("%q: %s; want %q: …%s…", param, a.Error.Message, test.param, test.says)
			}
		})
	}
}

// What clients send that asks for nothing is taken.
func TestIdleFields(t *testing.T) {
	c := serving(t, newModel(t, config(true)), Chat(form(t, "plain")))
	for _, body := range []string{
		`"max_tokens":3,"max_completion_tokens":3`,
		`"max_completion_tokens":3,"n":2,"best_of":2,"user":"me","metadata":{"a":"b"},"store":true`,
		`"max_completion_tokens":3,"tools":[],"tool_choice":"auto","response_format":{"type": "text"},` +
			`"service_tier":"auto"`,
		`"max_completion_tokens":3,"stream_options":null,"logit_bias":{"97":-100},"stop":"\ud83d\ude00\\ud800"`,
		`"max_tokens":3,"logprobs":false,"top_logprobs":0,"top_k":-1,"repetition_penalty":1.0,"ignore_eos":false,` +
			`"min_tokens":0`,
		`"max_tokens":3,"skip_special_tokens":true,"functions":[],"function_call":"none"`,
	} {
		c.get(200, nil, "/v1/chat/completions", `{"messages":[`+
			`{"role":"user","content":"a","name":"Ann","type":"text"},`+
			`{"role":"assistant","content":"\u00e9","refusal":null,"tool_calls":null,"function_call":null,`+
			`"audio":null,"annotations":[],"reasoning_content":""},`+
			`{"role":"user","content":[{"type":"text","text":"b"}],"tool_calls":[]}],`+body+`}`)
	}
}

// The state of a prompt that is larger than the server takes is the request's fault, in words that say so.
func TestStateTooLarge(t *testing.T) {
	c := serving(t, newModel(t, config(true)), MaxStateBytes(20000))
	for _, more := range []string{"", `,"n":2`, `,"stream":true`, `,"echo":true,"logprobs":1`} {
		var a answer
		c.get(400, &a, "/v1/completions", `{"prompt":"`+strings.Repeat("x", 1000)+`"`+more+`}`)
		if a.Error.Code == nil || *a.Error.Code != "context_length_exceeded" ||
			!strings.Contains(a.Error.Message, "1000 tokens") {
			t.Errorf("%s: %+v", more, a.Error)
		}
	}
}

// What is nowhere, or takes another method, is answered as any error is.
func TestPaths(t *testing.T) {
	c := serving(t, newModel(t, config(true)))
	for _, test := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/no-such", 404, ""},
		{"POST", "/v1", 404, ""},
		{"GET", "/v1/completions", 405, "POST"},
		{"DELETE", "/v1/chat/completions", 405, "POST"},
		{"OPTIONS", "/tokenize", 405, "POST"},
		{"POST", "/v1/models", 405, "GET, HEAD"},
		{"DELETE", "/v1/models/photon", 405, "GET, HEAD"},
		{"POST", "/health", 405, "GET, HEAD"},
		{"PUT", "/metrics", 405, "GET, HEAD"},
		{"POST", "/", 405, "GET, HEAD"},
	} {
		r, _ := http.NewRequest(test.method, c.URL+test.path, nil)
		got, err := c.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(got.Body)
		got.Body.Close()
		var a answer
		if err := json.Unmarshal(data, &a); err != nil || got.StatusCode != test.status || a.Error == nil ||
			a.Error.Type != "invalid_request_error" || got.Header.Get("Allow") != test.allow {
			t.Errorf("%s %s: %d, Allow %q: %s", test.method, test.path, got.StatusCode, got.Header.Get("Allow"), data)
		}
	}
	var a answer
	c.get(415, &a, "/v1/completions", "\x1f\x8b", "Content-Encoding", "gzip")
	if a.Error == nil || !strings.Contains(a.Error.Message, "encoded as gzip") {
		t.Errorf("a body that is compressed: %+v", a.Error)
	}
	c.get(200, nil, "/v1/completions", `{"prompt":"x"}`, "Content-Encoding", "identity")
	a = answer{}
	if c.get(403, &a, "/v1/completions", `{"prompt":"x"}`, "Sec-Fetch-Site", "cross-site"); a.Error == nil {
		t.Error("a request of another origin: no error in JSON")
	}
}

// A prompt of no ids is the empty text's, without what a tokenizer would put around it; flat models cannot begin there.
func TestNoIDs(t *testing.T) {
	c := serving(t, load(t, "../testdata/golden/photon-local-f32"))
	var one, two answer
	const more = `,"max_tokens":9,"seed":1,"logprobs":0}`
	c.get(200, &one, "/v1/completions", `{"prompt":[[]]`+more)
	c.get(200, &two, "/v1/completions", `{"prompt":[[]],"n":2`+more)
	if got, want := one.Choices[0].LogProbs.Tokens, two.Choices[0].LogProbs.Tokens; !slices.Equal(got, want) {
		t.Errorf("alone %v, as one of two %v", got, want)
	}
	var a answer
	c.get(400, &a, "/v1/completions", `{"prompt":[1],"stop":"x"}`)
	if a.Error.Param == nil || *a.Error.Param != "stop" {
		t.Errorf("%+v", a.Error)
	}
	flat := serving(t, load(t, "../testdata/golden/flat-gqa-f32"))
	for _, more := range []string{"", `,"n":2`} {
		flat.get(400, &a, "/v1/completions", `{"prompt":[[]]`+more+`}`)
		if a.Error.Param == nil || *a.Error.Param != "prompt" {
			t.Errorf("%+v", a.Error)
		}
	}
}

func TestNoModel(t *testing.T) {
	defer func() {
		if v := recover(); !strings.Contains(fmt.Sprint(v), "no model to serve") {
			t.Errorf("panic: %v", v)
		}
	}()
	Handler(nil).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/health", nil))
}
