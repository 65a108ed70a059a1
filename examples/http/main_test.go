//go:build !js && !wasip1

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

func TestStory(t *testing.T) {
	model, err := photon.LoadFS(models.Stories())
	if err != nil {
		t.Fatal(err)
	}
	batcher := model.NewBatcher()
	defer batcher.Close()
	server := httptest.NewServer(handler(batcher))
	defer server.Close()

	read := func(ctx context.Context, events int) (story string, ended bool) {
		t.Helper()
		request, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/story?begin=The+fox", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" {
			t.Fatalf("%s", kind)
		}
		lines := bufio.NewScanner(answer.Body)
		for n := 0; n < events && lines.Scan(); {
			line := lines.Text()
			if ended = ended || line == "event: end"; ended || line == "" {
				continue
			}
			var text string
			if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &text); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			story += text
			n++
		}
		if err := lines.Err(); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return story, ended
	}
	whole, ended := read(context.Background(), 1<<20)
	want, err := model.Complete(context.Background(), "The fox", photon.MaxTokens(200), photon.Seed(1))
	if err != nil || whole != want.Text || !ended {
		t.Errorf("%q, ended %v; alone %q, %v", whole, ended, want.Text, err)
	}

	bad, err := http.Get(server.URL + "/story?begin=%ff")
	if err != nil {
		t.Fatal(err)
	}
	bad.Body.Close()
	if bad.StatusCode != http.StatusBadRequest {
		t.Errorf("a prompt that is not UTF-8: %s", bad.Status)
	}

	// A client that leaves ends its text: soon nothing of it runs.
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()
	ctx, leave := context.WithCancel(context.Background())
	if _, ended := read(ctx, 2); ended {
		t.Fatal("the story had two tokens")
	}
	leave()
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before the client left", runtime.NumGoroutine(), before)
		}
	}
}
