//go:build !js && !wasip1

package serve

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/photon-lm/photon/internal/bounded"
)

// A name of another case is another name: as null it is not there, and takes nothing from the one that is known.
func TestNullOfAnotherCase(t *testing.T) {
	c := serving(t, newModel(t, config(true)))
	const body = `{"prompt":"Hello","n":3,"max_tokens":2,"seed":7,"temperature":5,"logit_bias":{"256":-100}`
	var want, got answer
	c.get(200, &want, "/v1/completions", body+`}`)
	c.get(200, &got, "/v1/completions", body+`,"N":null,"MAX_TOKENS":null,"Seed":null,"TEMPERATURE":null,`+
		`"Prompt":null,"max_toKens":null}`)
	texts := func(a answer) (list []string) {
		for _, choice := range a.Choices {
			list = append(list, choice.Text)
		}
		return list
	}
	if len(texts(want)) != 3 || !slices.Equal(texts(got), texts(want)) || *got.Usage != *want.Usage {
		t.Errorf("%q, %+v; want %q, %+v", texts(got), got.Usage, texts(want), want.Usage)
	}
}

// Prompts are counted before anything is made of them.
func TestManyPrompts(t *testing.T) {
	handler := Handler(newModel(t, config(true)), MaxTexts(2, 1))
	for _, prompt := range []string{`""`, `[]`, `[1]`} {
		body := `{"prompt":[` + strings.Repeat(prompt+",", 1<<18) + prompt + `]}`
		w := httptest.NewRecorder()
		bounded.Run(t, 8*len(body)+1<<20, func() {
			handler.ServeHTTP(w, httptest.NewRequest("POST", "/v1/completions", strings.NewReader(body)))
		})
		if says := "262145 prompts in one request, this server takes 3 texts"; w.Code != 400 ||
			!strings.Contains(w.Body.String(), says) {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	}
}

// A prompt is encoded when there is a place for its texts, and while its client is there.
func TestEncodesInPlace(t *testing.T) {
	s := newServer(newModel(t, config(true)), []Option{MaxTexts(2, 2)})
	ctx, leave := context.WithCancel(background)
	encoded := 0
	q, err := s.query(&sampling{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	q.prompts, q.encode = make([][]int, 3), func(int) []int {
		encoded++
		leave()
		return nil
	}
	ask := func() int {
		w := httptest.NewRecorder()
		s.answer(w, httptest.NewRequest("POST", "/v1/completions", nil).WithContext(ctx), q)
		return w.Code
	}
	release, err := s.admit(2)
	if err != nil {
		t.Fatal(err)
	}
	if status := ask(); status != 429 || encoded != 0 {
		t.Errorf("without a place: status %d, %d prompts are encoded", status, encoded)
	}
	release()
	if status := ask(); status != 503 || encoded != 1 || s.running() != 0 {
		t.Errorf("status %d, %d prompts are encoded, %d places are held", status, encoded, s.running())
	}
}

// A token may be a long text: what an answer spells out of them is counted before it is made.
func TestLongTokens(t *testing.T) {
	defer func(s []string) { specials = s }(specials)
	const long = 65_000
	specials = append(slices.Clone(specials), strings.Repeat("x", long-1)+"|")
	c := serving(t, newModel(t, config(true)), MaxTokens(1000))
	last := len(specials) + 255
	ids := func(n int) string { return "[" + strings.Repeat(fmt.Sprint(last, ","), n-1) + fmt.Sprint(last) + "]" }
	for _, test := range []struct{ path, body, param string }{
		{"/detokenize", `{"tokens":` + ids(mostText/long+1) + `}`, "tokens"},
		{"/detokenize", `{"tokens":[1` + strings.Repeat(",1", 1000) + `]}`, "tokens"},
		{"/tokenize", `{"prompt":"` + strings.Repeat("x", 1001) + `","return_token_strs":true}`, "prompt"},
		{"/v1/completions", `{"prompt":` + ids(mostText/long/100+1) + `,"n":100,"max_tokens":0,"echo":true}`, "echo"},
		{"/v1/completions", `{"prompt":[` + strings.Repeat(ids(9)+",", 30) + `[]],"max_tokens":0,"echo":true}`, "echo"},
	} {
		var a answer
		if n := bounded.Allocated(func() { c.get(400, &a, test.path, test.body) }); n > 2*mostText {
			t.Errorf("%s: %d bytes are allocated to refuse it", test.path, n)
		}
		if a.Error.Param == nil || *a.Error.Param != test.param {
			t.Errorf("%s: %+v", test.path, a.Error)
		}
	}
	var got struct {
		Prompt string
		Count  int
	}
	if c.get(200, &got, "/detokenize", `{"tokens":`+ids(20)+`}`); len(got.Prompt) != 20*long {
		t.Errorf("%d bytes, want %d", len(got.Prompt), 20*long)
	}
	c.get(200, &got, "/tokenize", `{"prompt":"`+strings.Repeat("x", 1000)+`","return_token_strs":true}`)
	if c.get(200, &got, "/tokenize", `{"prompt":"`+strings.Repeat("x", 1001)+`"}`); got.Count != 1001 {
		t.Errorf("%d tokens are counted", got.Count)
	}
	c.get(200, nil, "/v1/completions", `{"prompt":`+ids(2)+`,"n":100,"max_tokens":0,"echo":true}`)
}

// The log-probabilities that an answer repeats its prompts with are bounded, and those of a prompt are kept once.
func TestEchoedLogProbs(t *testing.T) {
	handler := Handler(newModel(t, config(true)))
	ask := func(prompt string, n, logProbs int) (w *httptest.ResponseRecorder, allocated uint64) {
		body := fmt.Sprintf(`{"prompt":%s,"n":%d,"max_tokens":0,"echo":true,"logprobs":%d}`, prompt, n, logProbs)
		w = httptest.NewRecorder()
		allocated = bounded.Allocated(func() {
			handler.ServeHTTP(w, httptest.NewRequest("POST", "/v1/completions", strings.NewReader(body)))
		})
		return w, allocated
	}
	ids := func(n int) string { return "[" + strings.Repeat("1,", n-1) + "1]" }
	for _, test := range []struct {
		prompt      string
		n, logProbs int
	}{{ids(400), 128, 20}, {"[" + ids(200) + "," + ids(200) + "]", 128, 20}} {
		if w, n := ask(test.prompt, test.n, test.logProbs); w.Code != 400 || n > 1<<20 ||
			!strings.Contains(w.Body.String(), "or more, an answer may have 1048576") {
			t.Errorf("%d bytes are allocated, status %d: %s", n, w.Code, w.Body)
		}
	}
	one, few := ask(ids(300), 1, 20)
	many, all := ask(ids(300), 128, 20)
	if n := uint64(many.Body.Len()); one.Code != 200 || many.Code != 200 || all > few+12*n {
		t.Errorf("status %d, and %d: %d bytes are allocated for an answer of %d", one.Code, many.Code, all, n)
	}
}
