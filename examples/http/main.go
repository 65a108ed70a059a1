// Command http streams stories to browsers and curl as server-sent events. All readers share the passes over the
// weights, and a reader that leaves costs nothing more.
//
//	go run ./examples/http &
//	curl -N 'http://127.0.0.1:8090/story?begin=Once+upon+a+time'
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func main() {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Addr: "127.0.0.1:8090", Handler: handler(model.NewBatcher()),
		ReadHeaderTimeout: 10 * time.Second}
	log.Println("http://" + server.Addr + "/story?begin=Once+upon+a+time")
	log.Fatal(server.ListenAndServe())
}

func handler(stories *photon.Batcher) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /story", func(w http.ResponseWriter, r *http.Request) {
		request := photon.Request{
			Prompt:  cmp.Or(r.FormValue("begin"), "Once upon a time"),
			Options: []photon.Option{photon.MaxTokens(200), photon.Seed(1)},
		}
		w.Header().Set("Content-Type", "text/event-stream") // of what goes well: http.Error sets its own
		begun := false
		for token, err := range stories.Generate(r.Context(), request) { // ends when the client is gone
			switch {
			case err != nil && begun:
				return // all that is left to tell is the missing end
			case errors.Is(err, photon.ErrInvalid):
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			case err != nil:
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			begun = true
			text, _ := json.Marshal(token.Text) // on one line
			if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
		fmt.Fprint(w, "event: end\ndata:\n\n")
	})
	return mux
}
