package serve

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// metrics are what /metrics tells.
type metrics struct {
	mu       sync.Mutex
	answers  map[answered]int
	prompt   int // tokens read
	tokens   int // tokens drawn
	first    histogram
	between  histogram
	answerIn histogram
}

type answered struct {
	pattern string // of the route
	status  int
}

// bounds are the upper ends of a histogram's buckets, in seconds.
var bounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// histogram counts times.
type histogram struct {
	counts [len(bounds) + 1]int
	sum    float64
}

func (h *histogram) add(d time.Duration) {
	at, _ := slices.BinarySearch(bounds[:], d.Seconds())
	h.counts[at]++
	h.sum += d.Seconds()
}

// read counts the tokens of a prompt, drawn a token and how long it took to come; first: of its text.
func (m *metrics) read(tokens int) {
	m.mu.Lock()
	m.prompt += tokens
	m.mu.Unlock()
}

func (m *metrics) drawn(first bool, after time.Duration) {
	m.mu.Lock()
	m.tokens++
	if first {
		m.first.add(after)
	} else {
		m.between.add(after)
	}
	m.mu.Unlock()
}

// counted counts the answers of next.
func (s *server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin, rec := time.Now(), &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		pattern := r.Pattern
		if pattern == "" || pattern == "/" {
			pattern = "other"
		}
		m := &s.metrics
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.answers == nil {
			m.answers = map[answered]int{}
		}
		m.answers[answered{pattern, rec.status}]++
		m.answerIn.add(time.Since(begin))
	})
}

// recorder remembers an answer's status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (s *server) writeMetrics(w http.ResponseWriter, r *http.Request) {
	var out bytes.Buffer
	metric := func(name, kind, help string) {
		fmt.Fprintf(&out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	number := func(name, kind, help string, value int) {
		metric(name, kind, help)
		fmt.Fprintf(&out, "%s %d\n", name, value)
	}
	m := &s.metrics
	m.mu.Lock()
	metric("photon_model_info", "gauge", "The model that is served.")
	fmt.Fprintf(&out, "photon_model_info{model=%s,kernel=%s} 1\n", label(s.o.name), label(s.m.Kernel()))
	number("photon_texts", "gauge", "Texts that run or wait.", s.running())
	number("photon_texts_limit", "gauge", "Texts that may run or wait.", s.o.running+s.o.waiting)
	number("photon_prompt_tokens_total", "counter", "Tokens of prompts.", m.prompt)
	number("photon_generated_tokens_total", "counter", "Tokens drawn.", m.tokens)
	metric("photon_requests_total", "counter", "Requests answered.")
	keys := make([]answered, 0, len(m.answers))
	for key := range m.answers {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b answered) int {
		if a.pattern != b.pattern {
			return strings.Compare(a.pattern, b.pattern)
		}
		return a.status - b.status
	})
	for _, key := range keys {
		fmt.Fprintf(&out, "photon_requests_total{route=%s,code=\"%d\"} %d\n", label(key.pattern), key.status, m.answers[key])
	}
	for _, h := range []struct {
		name, help string
		*histogram
	}{
		{"photon_first_token_seconds", "From a request's arrival to the first token of each text.", &m.first},
		{"photon_token_seconds", "From the token before to each further one.", &m.between},
		{"photon_request_seconds", "From a request's arrival to the end of its answer.", &m.answerIn},
	} {
		metric(h.name, "histogram", h.help)
		total := 0
		for i, n := range h.counts {
			total += n
			end := "+Inf"
			if i < len(bounds) {
				end = strconv.FormatFloat(bounds[i], 'g', -1, 64)
			}
			fmt.Fprintf(&out, "%s_bucket{le=\"%s\"} %d\n", h.name, end, total)
		}
		fmt.Fprintf(&out, "%s_sum %g\n%s_count %d\n", h.name, h.sum, h.name, total)
	}
	m.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(out.Bytes())
}

// label quotes a label's value.
func label(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
