//go:build !js && !wasip1

package serve

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/photon-lm/photon"
	"github.com/photon-lm/photon/models"
)

const streamTokens = 128

// waits are the times between tokens, in milliseconds, of all streams.
type waits struct {
	sync.Mutex
	of []float64
}

// stream returns a function to call at each token of one stream.
func (w *waits) stream() func() {
	var last time.Time
	return func() {
		now := time.Now()
		if !last.IsZero() {
			w.Lock()
			w.of = append(w.of, float64(now.Sub(last).Microseconds())/1000)
			w.Unlock()
		}
		last = now
	}
}

// BenchmarkStreams writes texts of 128 tokens with the embedded model: by the library, for one reader and for many, and
// through a server, whose clients are a process of their own on the same processors. wait-p99 is how long a reader
// waits for a token at most, but for 1 % of them.
func BenchmarkStreams(b *testing.B) {
	m, err := photon.LoadFS(models.Stories())
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	request := func(i int) photon.Request {
		return photon.Request{Prompt: "Once upon a time", Options: []photon.Option{photon.MaxTokens(streamTokens),
			photon.Seed(uint64(i)), photon.LogitBias(map[int]float32{4095: -100})}}
	}
	for _, streams := range []int{1, 16, 32} {
		measure := func(name string, round func(b *testing.B, w *waits)) {
			b.Run(fmt.Sprintf("%s/%d", name, streams), func(b *testing.B) {
				var w waits
				for b.Loop() {
					round(b, &w)
				}
				slices.Sort(w.of)
				b.ReportMetric(w.of[len(w.of)*99/100], "wait-p99-ms")
				b.ReportMetric(w.of[len(w.of)/2], "wait-p50-ms")
				b.ReportMetric(float64(b.N*streams*streamTokens)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
		measure("library", func(b *testing.B, w *waits) {
			reqs, told := make([]photon.Request, streams), make([]func(), streams)
			for i := range reqs {
				reqs[i], told[i] = request(i), w.stream()
			}
			for t, err := range m.GenerateBatch(background, reqs) {
				if err != nil {
					b.Fatal(err)
				}
				told[t.Request]()
			}
		})
		texts := m.NewBatcher()
		measure("batcher", func(b *testing.B, w *waits) {
			each(streams, func(i int) {
				told := w.stream()
				for _, err := range texts.Generate(background, request(i)) {
					if err != nil {
						b.Error(err)
					}
					told()
				}
			})
		})
		texts.Close()
		server := httptest.NewServer(Handler(m, Defaults()))
		clients, round := startClients(b, server.URL, streams)
		measure("server", func(b *testing.B, w *waits) {
			of, err := round()
			if err != nil {
				b.Fatal(err)
			}
			w.of = append(w.of, of...)
		})
		clients()
		server.Close()
	}
}

// each runs f(0) … f(n-1) at once.
func each(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// startClients starts a process with a client for each stream; round has each read one text, and returns how long they
// waited.
func startClients(b *testing.B, url string, streams int) (stop func(), round func() ([]float64, error)) {
	c := exec.Command(os.Args[0], "-test.run=^TestStreamClients$")
	c.Env = append(os.Environ(), "PHOTON_STREAM_URL="+url, fmt.Sprintf("PHOTON_STREAMS=%d", streams))
	c.Stderr = os.Stderr
	in, err1 := c.StdinPipe()
	out, err2 := c.StdoutPipe()
	if err := c.Start(); err1 != nil || err2 != nil || err != nil {
		b.Fatal(err1, err2, err)
	}
	answers := json.NewDecoder(out)
	round = func() (of []float64, err error) {
		if _, err := io.WriteString(in, "\n"); err != nil {
			return nil, err
		}
		return of, answers.Decode(&of)
	}
	return func() { in.Close(); c.Process.Kill(); c.Wait() }, round
}

// TestStreamClients is the clients' process of BenchmarkStreams: for each line that it reads, each client reads a text.
// They speak HTTP by hand: what is measured is the server, and a client that parses takes more of the processors than
// it.
func TestStreamClients(t *testing.T) {
	url, streams := os.Getenv("PHOTON_STREAM_URL"), 0
	if url == "" {
		t.Skip("a part of BenchmarkStreams")
	}
	fmt.Sscan(os.Getenv("PHOTON_STREAMS"), &streams)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var w waits
		each(streams, func(i int) {
			if err := readStream(strings.TrimPrefix(url, "http://"), i, w.stream()); err != nil {
				t.Error(err)
			}
		})
		if err := json.NewEncoder(os.Stdout).Encode(w.of); err != nil {
			t.Fatal(err)
		}
	}
}

// readStream asks for the text of seed i, and calls told for each of its tokens.
func readStream(host string, i int, told func()) error {
	c, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	defer c.Close()
	body := fmt.Sprintf(`{"prompt":"Once upon a time","seed":%d,"max_tokens":%d,"stream":true,`+
		`"temperature":0.8,"top_k":40,"top_p":0.95,"min_p":0.05,"logit_bias":{"4095":-100}}`, i, streamTokens)
	if _, err := fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"+
		"Connection: close\r\nContent-Length: %d\r\n\r\n%s", host, len(body), body); err != nil {
		return err
	}
	event, events := []byte("data: {"), 0
	rest := 0 // bytes of the piece before that may begin an event
	buf := make([]byte, 16<<10)
	for {
		n, err := c.Read(buf[rest:])
		piece := buf[:rest+n]
		for range bytes.Count(piece, event) {
			events++
			told()
		}
		if err == io.EOF && events < streamTokens/2 {
			return fmt.Errorf("only %d events, the last of them: %s", events, piece)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		rest = copy(buf, piece[max(0, len(piece)-len(event)+1):])
	}
}
