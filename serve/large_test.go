//go:build !js && !wasip1 && !race

package serve

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/photon-lm/photon/internal/bounded"
)

// Whatever a large body is made of, reading it takes a small multiple of it. What is encoded takes more: some 64 bytes
// for each token, of which this model has one for each byte. (The race detector's code allocates more.)
func TestLargeBodies(t *testing.T) {
	handler := Handler(newModel(t, config(true)), Chat(form(t, "plain")))
	const size = 1 << 20
	list := func(item string) string { return strings.Repeat(item+",", size/(len(item)+1)) + item }
	numbered := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			fmt.Fprintf(&b, format+",", i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	const chat, complete = "/v1/chat/completions", "/v1/completions"
	const part = `{"type":"text","text":""}`
	for name, test := range map[string]struct {
		path, body string
		most       int
	}{
		"stop strings":    {complete, `{"prompt":"x","stop":[` + list(`"a"`) + `]}`, 12},
		"a stop string":   {complete, `{"prompt":"x","stop":"` + strings.Repeat("a", size) + `"}`, 12},
		"biases":          {complete, `{"prompt":"x","logit_bias":{` + numbered(`"%d":1`) + `}}`, 12},
		"metadata":        {complete, `{"prompt":"x","max_tokens":1,"metadata":{` + numbered(`"%x":1`) + `}}`, 12},
		"unknown keys":    {complete, `{"prompt":"x",` + numbered(`"%x":1`) + `}`, 12},
		"null keys":       {complete, `{"prompt":"x","max_tokens":1,` + numbered(`"%x":null`) + `}`, 12},
		"a name":          {complete, `{"prompt":"x","` + strings.Repeat("a", size) + `":1}`, 12},
		"a user":          {complete, `{"prompt":"x","user":"` + strings.Repeat(`\n`, size/2) + `"}`, 12},
		"prompts":         {complete, `{"prompt":[` + list(`""`) + `]}`, 12},
		"lists of ids":    {complete, `{"prompt":[` + list(`[]`) + `]}`, 12},
		"ids":             {complete, `{"prompt":[` + list(`1`) + `]}`, 12},
		"messages":        {chat, `{"messages":[` + list(`{"role":"user","content":""}`) + `]}`, 48},
		"short messages":  {chat, `{"messages":[` + list(`{}`) + `]}`, 12},
		"parts":           {chat, `{"messages":[{"role":"user","content":[` + list(part) + `]}]}`, 12},
		"ids to decode":   {"/detokenize", `{"tokens":[` + list(`1`) + `]}`, 12},
		"a prompt":        {complete, `{"prompt":"` + strings.Repeat("a", size) + `"}`, 80},
		"text to encode":  {"/tokenize", `{"prompt":"` + strings.Repeat("a", size) + `","return_token_strs":true}`, 80},
		"text to measure": {"/tokenize", `{"prompt":"` + strings.Repeat("a", size) + `"}`, 96},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			bounded.Run(t, test.most*len(test.body), func() {
				handler.ServeHTTP(w, httptest.NewRequest("POST", test.path, strings.NewReader(test.body)))
			})
			if w.Code != 200 && w.Code != 400 || w.Code == 400 && w.Body.Len() > 1000 {
				t.Errorf("%d: %d bytes: %.200s", w.Code, w.Body.Len(), w.Body)
			}
		})
	}
}
