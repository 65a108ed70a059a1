//go:build !js && !wasip1

package serve_test

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
	"github.com/photon-lm/photon/serve"
)

// A program serves a model below a path of its own, and asks it as any client does.
func ExampleHandler() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	mux := http.NewServeMux()
	mux.Handle("/stories/", http.StripPrefix("/stories", serve.Handler(model, serve.Name("stories"), serve.MaxTexts(8,
		32))))
	server := httptest.NewServer(mux)
	defer server.Close()

	answer, err := http.Post(server.URL+"/stories/v1/completions", "application/json",
		strings.NewReader(`{"model":"stories","prompt":"Once upon a","max_tokens":1,"temperature":0}`))
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	var body struct{ Choices []struct{ Text string } }
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q\n", body.Choices[0].Text)
	// Output: " time"
}
