// Package serve answers HTTP requests with a photon model, as OpenAI's API does: /v1/completions, /v1/chat/completions
// and /v1/models, and beside them /tokenize, /detokenize, /tokenizer_info, /health, /metrics and, at /, a page to try
// it.
//
//	model, err := photon.LoadFS(models.Stories())
//	if err != nil { … }
//	err = http.ListenAndServe("127.0.0.1:8080", serve.Handler(model))
//
// Texts of all requests run together in one photon.Batcher. A text ends within a step when its client disconnects, and
// a client that reads slowly holds up nobody.
//
// # The API
//
// What a request asks for is done or refused by name: a field that is not known, in a message too, is an error, never
// ignored, and so is one that stands twice. Fields that change no text, such as user and metadata, are taken; one that
// is null is not there. Text is to be Unicode: what is not UTF-8, or half of a surrogate pair, is refused. Beyond
// OpenAI's there are top_k, min_p and repeat_penalty, as in llama.cpp.
//
// Every error is a JSON object as OpenAI's API words it, that of an unknown path or method too.
//
// Without a seed every prompt gets a random one; with one, a text is that of photon.Seed(seed) and photon.Sample(i),
// for the i-th of n choices, whatever else runs.
//
// Token lists of /v1/completions hold every token drawn, also the one that ended the text, so that a client that counts
// on one entry for each token, such as lm-evaluation-harness, finds it. With echo they begin with the prompt's, whose
// first has a log-probability if the model predicts it, else null.
//
// # Limits
//
// MaxBody, MaxTokens, MaxTexts, MaxTime and MaxStateBytes bound what a request may ask for; a request for more texts
// than there may be is refused before anything is made of its prompts. Besides, a request has up to 32 stop strings, of
// 16 KiB in all, 65,536 messages and as many parts in each. With echo an answer repeats up to 16 MiB of prompts and
// 1,048,576 of their log-probabilities, counted for each choice. /detokenize, and /tokenize with return_token_strs,
// spell out as many tokens as a text may have, of 16 MiB in all. Reading a request takes up to 12 times its body, and
// encoding a text some 64 bytes for each token.
package serve

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/photon-lm/photon"
)

// An Option says how to serve. A bad one is reported by every answer.
type Option func(*options)

type options struct {
	name             string
	token            string
	body             int64
	tokens           int
	time             time.Duration
	running, waiting int
	state, prefixes  int64
	chat             ChatForm
	defaults         []photon.Option
	stall            time.Duration // how long a client may take to send its request, or to read anything of the answer
}

// Name sets what the model is called in answers, and by requests. Default "photon".
func Name(name string) Option { return func(o *options) { o.name = name } }

// BearerToken refuses requests without this token in their Authorization header, but for / and /health. Default "":
// anyone who can reach the server is answered.
func BearerToken(token string) Option { return func(o *options) { o.token = token } }

// MaxBody bounds the bytes of a request. Default 4 MiB.
func MaxBody(bytes int64) Option { return func(o *options) { o.body = bytes } }

// MaxTokens bounds the tokens of a text, prompt included. A longer prompt is refused; a text that reaches the bound
// ends with finish_reason "length". Default 32768.
func MaxTokens(n int) Option { return func(o *options) { o.tokens = n } }

// MaxTime bounds how long a request may take. Texts that have begun by then end with finish_reason "length"; if none
// has, the answer is 503. Default 10 minutes.
func MaxTime(d time.Duration) Option { return func(o *options) { o.time = d } }

// MaxTexts bounds how many texts run at a time, and how many more wait for their turn; a request has a text for each of
// its choices. What comes on top is refused with 429 and Retry-After. Default 64 and 256.
func MaxTexts(running, waiting int) Option {
	return func(o *options) { o.running, o.waiting = running, waiting }
}

// MaxStateBytes bounds the state of all texts that run: see photon.MaxStateBytes. Default 0: no bound.
func MaxStateBytes(n int64) Option { return func(o *options) { o.state = n } }

// KeepPrefixes keeps the states of texts that were read in so many bytes, so that requests that begin alike, such as
// the turns of a conversation, do not read the same again: see photon.KeepPrefixes. Default 0: none. A request for
// several texts (n) reads its prompt once, by itself.
func KeepPrefixes(n int64) Option { return func(o *options) { o.prefixes = n } }

// Chat sets how conversations are laid out. Default none: /v1/chat/completions is refused.
func Chat(form ChatForm) Option { return func(o *options) { o.chat = form } }

// Defaults sets how texts are drawn where a request does not say. Without it that is what OpenAI's API documents:
// temperature 1, and no other filter. A chat form's Stop replaces this one's; MaxTokens, Seed and Sample are each
// request's own.
func Defaults(opts ...photon.Option) Option { return func(o *options) { o.defaults = opts } }

func (o *options) check(m *photon.Model) error {
	invalid := func(name string, value any, want string) error {
		return fmt.Errorf("serve: option %s(%v): give %s: %w", name, value, want, photon.ErrInvalid)
	}
	switch {
	case o.name == "" || strings.ContainsAny(o.name, "\x00\r\n"):
		return invalid("Name", o.name, "a name of one line")
	case o.body < 1:
		return invalid("MaxBody", o.body, "1 or more bytes")
	case o.tokens < 1:
		return invalid("MaxTokens", o.tokens, "1 or more")
	case o.time <= 0:
		return invalid("MaxTime", o.time, "a time that is not over at once")
	case o.running < 1 || o.waiting < 0:
		return invalid("MaxTexts", fmt.Sprint(o.running, ", ", o.waiting), "1 or more, and 0 or more")
	case o.state < 0:
		return invalid("MaxStateBytes", o.state, "1 or more, or 0 for no bound")
	case o.prefixes < 0:
		return invalid("KeepPrefixes", o.prefixes, "1 or more, or 0 to keep none")
	}
	if err := m.NewSession(o.defaults...).Append(context.Background()); err != nil && !errors.Is(err, photon.ErrClosed) {
		return fmt.Errorf("serve: option Defaults: %w", err)
	}
	return o.chat.Check(m.Tokenizer())
}

// server is what the handlers share.
type server struct {
	m       *photon.Model
	o       options
	err     error
	cfg     photon.Config // the model's
	batcher *photon.Batcher
	created int64
	reading chan struct{} // held by who reads a prompt outside the batcher: one at a time, lest streams starve
	metrics metrics

	prefix, suffix []int // of the tokenizer's template

	mu    sync.Mutex
	texts int // that run or wait
}

//go:embed page.html
var page []byte

// Handler serves a model. It starts nothing: goroutines live as long as the requests they work for, so that shutting
// down the http.Server is all there is to shut down. It is to be mounted at the root, or below http.StripPrefix. It
// panics if the model is nil.
func Handler(model *photon.Model, opts ...Option) http.Handler {
	if model == nil {
		panic("serve: Handler(nil): there is no model to serve: load one, and see whether that failed")
	}
	return newServer(model, opts).handler()
}

func newServer(model *photon.Model, opts []Option) *server {
	s := &server{m: model, cfg: model.Config(), created: time.Now().Unix(), reading: make(chan struct{}, 1), o: options{
		name: "photon", body: 4 << 20, tokens: 32768, time: 10 * time.Minute, running: 64, waiting: 256,
		stall: 30 * time.Second,
	}}
	for _, set := range opts {
		if set != nil {
			set(&s.o)
		}
	}
	s.err = s.o.check(model)
	s.batcher = model.NewBatcher(photon.MaxTexts(max(1, s.o.running)), photon.MaxStateBytes(max(0, s.o.state)),
		photon.KeepPrefixes(max(0, s.o.prefixes)))
	s.prefix, s.suffix = template(model.Tokenizer())
	return s
}

func (s *server) handler() http.Handler {
	open, mux := http.NewServeMux(), http.NewServeMux()
	route := func(on *http.ServeMux, method, path string, handler http.HandlerFunc) {
		on.HandleFunc(method+" "+path, handler)
		on.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Replace(method, "GET", "GET, HEAD", 1))
			s.fail(w, &apiError{status: http.StatusMethodNotAllowed, kind: "invalid_request_error",
				message: fmt.Sprintf("%s does not answer %s: send %s", r.URL.Path, r.Method, method)})
		})
	}
	route(open, "GET", "/{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; "+
			"script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'")
		w.Write(page)
	})
	route(open, "GET", "/health", s.health)
	open.Handle("/", s.allowed(mux))
	route(mux, "POST", "/v1/completions", s.completions)
	route(mux, "POST", "/v1/chat/completions", s.chat)
	route(mux, "GET", "/v1/models", s.models)
	route(mux, "GET", "/v1/models/{name...}", s.models)
	route(mux, "POST", "/tokenize", s.tokenize)
	route(mux, "POST", "/detokenize", s.detokenize)
	route(mux, "GET", "/tokenizer_info", s.tokenizerInfo)
	route(mux, "GET", "/metrics", s.writeMetrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, &apiError{status: http.StatusNotFound, kind: "invalid_request_error",
			message: fmt.Sprintf("nothing is served at %s: ask /v1/completions or another path of the API",
				r.URL.Path)})
	})
	// A page of another origin could make a browser post here, unseen.
	own := http.NewCrossOriginProtection()
	own.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, &apiError{status: http.StatusForbidden, kind: "invalid_request_error",
			message: "the request comes from a page of another origin: send it from a page of this server, or from a " +
				"program"})
	}))
	return s.counted(own.Handler(open))
}

// allowed lets through who knows the token.
func (s *server) allowed(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.o.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
		known := strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
		if s.o.token != "" && !known {
			w.Header().Set("WWW-Authenticate", "Bearer")
			s.fail(w, &apiError{status: http.StatusUnauthorized, kind: "authentication_error", code: "invalid_api_key",
				message: "the request needs the header Authorization: Bearer TOKEN, with this server's token"})
			return
		}
		if s.err != nil {
			s.fail(w, s.err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) health(w http.ResponseWriter, r *http.Request) {
	if s.err != nil {
		s.fail(w, s.err)
		return
	}
	if _, err := s.m.Score(r.Context(), nil); err != nil { // a closed model
		s.fail(w, err)
		return
	}
	s.json(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *server) models(w http.ResponseWriter, r *http.Request) {
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
		Length  int    `json:"max_model_len"`
	}
	own := model{s.o.name, "model", s.created, "photon", s.o.tokens}
	name := r.PathValue("name")
	if name == "" {
		s.json(w, http.StatusOK, map[string]any{"object": "list", "data": []model{own}})
	} else if err := s.known(name); err != nil {
		s.fail(w, err)
	} else {
		s.json(w, http.StatusOK, own)
	}
}

// known reports a model that is not the one served; a request need not name it.
func (s *server) known(name string) error {
	if name == "" || name == s.o.name {
		return nil
	}
	return &apiError{status: http.StatusNotFound, kind: "invalid_request_error", param: "model", code: "model_not_found",
		message: fmt.Sprintf("there is no model %.80q here: name %q, or none", name, s.o.name)}
}

// admit reserves the places of n texts, until release is called.
func (s *server) admit(n int) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.places()
	switch {
	case n > all:
		return nil, badRequest("n", "%d texts in one request, this server takes %d at a time: ask for fewer", n, all)
	case s.texts+n > all:
		return nil, &apiError{status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "too_many_texts",
			message: fmt.Sprintf("%d texts run or wait, this server takes %d at a time: try again later", s.texts, all)}
	}
	s.texts += n
	return func() {
		s.mu.Lock()
		s.texts -= n
		s.mu.Unlock()
	}, nil
}

// places is how many texts may run or wait.
func (s *server) places() int { return s.o.running + s.o.waiting }

// running is the number of texts that run or wait.
func (s *server) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.texts
}

// apiError is an error as OpenAI's API words it.
type apiError struct {
	status                     int
	kind, message, param, code string
}

func (e *apiError) Error() string { return e.message }

func (e *apiError) MarshalJSON() ([]byte, error) {
	body := map[string]any{"message": e.message, "type": e.kind, "param": nil, "code": nil}
	if e.param != "" {
		body["param"] = e.param
	}
	if e.code != "" {
		body["code"] = e.code
	}
	return json.Marshal(map[string]any{"error": body})
}

func badRequest(param, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: "invalid_request_error", param: param,
		message: fmt.Sprintf(format, args...)}
}

// asAPIError words any error.
func asAPIError(err error) *apiError {
	var e *apiError
	if errors.As(err, &e) {
		return e
	}
	e = &apiError{status: http.StatusInternalServerError, kind: "server_error",
		message: strings.TrimPrefix(err.Error(), "photon: ")}
	switch {
	case errors.Is(err, photon.ErrInvalid), errors.Is(err, photon.ErrUnsupported):
		e.status, e.kind = http.StatusBadRequest, "invalid_request_error"
	case errors.Is(err, photon.ErrMemoryLimit):
		e.status, e.kind, e.code = http.StatusBadRequest, "invalid_request_error", "context_length_exceeded"
	case errors.Is(err, photon.ErrClosed):
		e.status = http.StatusServiceUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		e.status, e.code = http.StatusServiceUnavailable, "timeout"
		e.message = "the time that a request may take was over before its first token: try again later"
	case errors.Is(err, context.Canceled):
		e.status, e.code = http.StatusServiceUnavailable, "cancelled"
		e.message = "the server is shutting down, or the client has gone"
	}
	return e
}

func (s *server) fail(w http.ResponseWriter, err error) {
	e := asAPIError(err)
	if s.err == err { // the server's own mistake
		e.status, e.kind = http.StatusInternalServerError, "server_error"
	}
	if e.status == http.StatusTooManyRequests || e.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	s.json(w, e.status, e)
}

func (s *server) json(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // every value here has JSON
	}
	w.Header().Set("Content-Type", "application/json")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.o.stall))
	w.WriteHeader(status)
	w.Write(data)
	w.Write([]byte{'\n'})
}

// read reads the body of a request, a JSON object, into v.
func (s *server) read(w http.ResponseWriter, r *http.Request, v any) error {
	if form := r.Header.Get("Content-Encoding"); form != "" && !strings.EqualFold(form, "identity") {
		return &apiError{status: http.StatusUnsupportedMediaType, kind: "invalid_request_error",
			message: fmt.Sprintf("the body is encoded as %s: send it without a Content-Encoding", form)}
	}
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Now().Add(s.o.stall))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.o.body))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &apiError{status: http.StatusRequestEntityTooLarge, kind: "invalid_request_error",
			message: fmt.Sprintf("the request is larger than the %d bytes that this server reads: send less", large.Limit)}
	case err != nil:
		return &apiError{status: http.StatusRequestTimeout, kind: "invalid_request_error",
			message: fmt.Sprintf("the request's body did not arrive: %v", err)}
	}
	c.SetReadDeadline(time.Time{}) // from here on a read that fails means that the client has gone
	return decode(data, v)
}
