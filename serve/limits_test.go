//go:build !js && !wasip1

package serve

import (
	"context"
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
