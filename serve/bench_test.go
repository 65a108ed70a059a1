//go:build !js && !wasip1

package serve

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

// BenchmarkStreams writes texts of 64 tokens with the embedded model: by the library, and through a server and its
// clients, which share the processors. wait-p99 is how long a client waits for a token at most, but for 1 % of them.
func BenchmarkStreams(b *testing.B) {
	const tokens = 64
	m, err := photon.LoadFS(models.Stories())
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for _, streams := range []int{1, 16, 32} {
		var mu sync.Mutex
		var waits []float64
		report := func(b *testing.B) {
			slices.Sort(waits)
			b.ReportMetric(waits[len(waits)*99/100], "wait-p99-ms")
			b.ReportMetric(waits[len(waits)/2], "wait-p50-ms")
			b.ReportMetric(float64(b.N*streams*tokens)/b.Elapsed().Seconds(), "tokens/s")
			waits = waits[:0]
		}
		wait := func(last *time.Time, first bool) {
			if now := time.Now(); first {
				*last = now
			} else {
				mu.Lock()
				waits = append(waits, float64(now.Sub(*last).Microseconds())/1000)
				mu.Unlock()
				*last = now
			}
		}
		b.Run(fmt.Sprintf("library/%d", streams), func(b *testing.B) {
			for b.Loop() {
				reqs, lasts := make([]photon.Request, streams), make([]time.Time, streams)
				for i := range reqs {
					reqs[i] = photon.Request{Prompt: "Once upon a time", Options: []photon.Option{photon.MaxTokens(tokens),
						photon.Seed(uint64(i)),
						photon.LogitBias(map[int]float32{4095: -100})}}
				}
				for t, err := range m.GenerateBatch(background, reqs) {
					if err != nil {
						b.Fatal(err)
					}
					wait(&lasts[t.Request], lasts[t.Request].IsZero())
				}
			}
			report(b)
		})
		b.Run(fmt.Sprintf("server/%d", streams), func(b *testing.B) {
			server := httptest.NewServer(Handler(m, Defaults()))
			defer server.Close()
			server.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = streams
			for b.Loop() {
				var all sync.WaitGroup
				for i := range streams {
					all.Go(func() {
						body := fmt.Sprintf(`{"prompt":"Once upon a time","seed":%d,"max_tokens":%d,"stream":true,"temperature":0.8,`+
							`"top_k":40,"top_p":0.95,"min_p":0.05,"logit_bias":{"4095":-100}}`, i, tokens)
						answer, err := server.Client().Post(server.URL+"/v1/completions", "application/json", strings.NewReader(body))
						if err != nil {
							b.Error(err)
							return
						}
						defer answer.Body.Close()
						var last time.Time
						for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
							if strings.HasPrefix(lines.Text(), "data: {") {
								wait(&last, last.IsZero())
							}
						}
					})
				}
				all.Wait()
			}
			report(b)
		})
	}
}
