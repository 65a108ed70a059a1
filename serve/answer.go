package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/photon-lm/photon"
)

// piece is what a step adds to a text, or all of them together.
type piece struct {
	text   int     // index among the choices
	begins bool    // it is the text's first
	s      string  // text
	tokens []token // where log-probabilities were asked for
	drawn  int     // tokens, also the one that ended the text
	finish string  // finish_reason, on the last
	err    error   // what ended the request; with finish, only this text
	thrown any     // by a function of the server's options
}

// token is an entry of a text's log-probabilities.
type token struct {
	photon.TokenProb // NaN where nothing predicts the token
	top              *likely
	prompt           bool
	silent           bool // its spelling is no part of the text
}

// likely are the tokens that are most likely in one place; those of a prompt are the same for each of its texts.
type likely struct {
	tokens []photon.TokenProb
	worded json.RawMessage // as completions word them, made by the first that does
}

// shape is how an API words its answers.
type shape interface {
	object(stream bool) string
	// choice words a piece of a stream, or a whole text.
	choice(p *piece, stream bool) any
}

// envelope is the JSON object around choices.
type envelope struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
	Choices []any  `json:"choices"`
	Usage   *usage `json:"usage,omitempty"`
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

// answer writes the texts of a query, whole or as they come.
func (s *server) answer(w http.ResponseWriter, r *http.Request, q *query) {
	release, err := s.admit(len(q.prompts) * q.n)
	if err != nil {
		s.fail(w, err)
		return
	}
	defer release()
	// gone ends with the client, work also with the time. Nothing of the work outlives this function.
	gone, leave := context.WithCancel(r.Context())
	defer leave()
	work, stop := context.WithDeadline(gone, q.arrived.Add(s.o.time))
	defer stop()
	rooms := make([]int, len(q.prompts)) // how many tokens may follow each prompt
	for i := range q.prompts {
		if err = work.Err(); err == nil {
			q.prompts[i] = q.encode(i)
			rooms[i], err = s.room(q, q.prompts[i])
		}
		if err == nil {
			err = s.checkEcho(q, i)
		}
		if err != nil {
			s.fail(w, err)
			return
		}
	}
	pieces := make(chan piece, aheadPieces)
	go func() {
		defer close(pieces)
		s.write(work, q, rooms, func(p piece) bool {
			select {
			case pieces <- p:
				return true
			case <-gone.Done():
				return false
			}
		})
	}()
	defer func() {
		leave()
		for range pieces {
		}
	}()
	out := envelope{ID: q.id, Object: q.shape.object(q.stream), Created: q.arrived.Unix(), Model: s.o.name}
	if q.stream {
		err = s.stream(w, q, out, pieces)
	} else {
		err = s.whole(w, q, out, gone, pieces)
	}
	if err != nil {
		s.fail(w, err)
	}
}

func (q *query) usage(drawn int) *usage {
	u := &usage{Completion: drawn}
	for _, ids := range q.prompts {
		u.Prompt += len(ids)
	}
	u.Total = u.Prompt + drawn
	return u
}

// whole answers when all texts are complete.
func (s *server) whole(w http.ResponseWriter, q *query, out envelope, gone context.Context, pieces <-chan piece) error {
	texts, written := make([]piece, len(q.prompts)*q.n), make([]strings.Builder, len(q.prompts)*q.n)
	drawn := 0
	var late error
	for p := range pieces {
		if p.thrown != nil {
			panic(p.thrown)
		}
		if p.err != nil && p.finish == "" {
			return p.err
		} else if p.err != nil {
			late = p.err
		}
		t := &texts[p.text]
		written[p.text].WriteString(p.s)
		t.tokens = append(t.tokens, p.tokens...)
		t.finish = p.finish
		drawn += p.drawn
	}
	if err := gone.Err(); err != nil {
		return err
	}
	if late != nil && drawn == 0 {
		return late
	}
	for i := range texts {
		t := &texts[i]
		t.text, t.begins, t.s = i, true, written[i].String()
		out.Choices = append(out.Choices, q.shape.choice(t, false))
	}
	out.Usage = q.usage(drawn)
	s.json(w, http.StatusOK, out)
	return nil
}

// stream answers with server-sent events. An error is returned before the first of them, and an event after.
func (s *server) stream(w http.ResponseWriter, q *query, out envelope, pieces <-chan piece) error {
	events := events{w: w, c: http.NewResponseController(w), stall: s.o.stall}
	open, drawn := make(map[int]bool), 0
	for i := range len(q.prompts) * q.n {
		open[i] = true
	}
	for p := range pieces {
		if p.thrown != nil {
			panic(p.thrown)
		}
		if p.err != nil && !events.begun {
			return p.err
		} else if p.err != nil && p.finish == "" {
			events.send(asAPIError(p.err))
			return nil
		}
		drawn += p.drawn
		if p.finish != "" {
			delete(open, p.text)
		}
		if p.s != "" || len(p.tokens) > 0 || p.finish != "" || p.begins { // else the token has no text yet
			out.Choices = []any{q.shape.choice(&p, true)}
			events.add(out)
		}
		if len(pieces) > 0 && events.lines.Len() < mostLines {
			continue // one write for all that there is
		}
		if events.flush() != nil {
			return nil // the client has gone
		}
	}
	switch {
	case len(open) > 0 && !events.begun:
		return context.Canceled
	case len(open) > 0:
		events.send(asAPIError(context.Canceled))
		return nil
	case q.withUsage:
		out.Choices, out.Usage = []any{}, q.usage(drawn)
		if events.send(out) != nil {
			return nil
		}
	}
	events.end()
	return nil
}

// events writes server-sent events.
type events struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	stall time.Duration
	begun bool
	lines bytes.Buffer // not yet written
}

const (
	aheadPieces = 16      // that a text may be ahead of what is written
	mostLines   = 4 << 10 // bytes of events that wait for one another
)

func (e *events) add(v any) {
	if !e.begun {
		e.begun = true
		e.w.Header().Set("Content-Type", "text/event-stream")
		e.w.Header().Set("Cache-Control", "no-cache")
		e.w.Header().Set("X-Accel-Buffering", "no")
	}
	e.lines.WriteString("data: ")
	if err := json.NewEncoder(&e.lines).Encode(v); err != nil {
		panic(err) // every value here has JSON
	}
	e.lines.WriteByte('\n')
}

func (e *events) send(v any) error {
	e.add(v)
	return e.flush()
}

func (e *events) end() {
	e.lines.WriteString("data: [DONE]\n\n")
	e.flush()
}

// flush writes the events; an error means that the client has gone, or has read nothing for too long.
func (e *events) flush() error {
	if e.lines.Len() == 0 {
		return nil
	}
	e.c.SetWriteDeadline(time.Now().Add(e.stall))
	_, err := e.w.Write(e.lines.Bytes())
	e.lines.Reset()
	if err != nil {
		return err
	}
	if err := e.c.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// write runs all texts of a query, and returns when they have ended. emit reports whether anyone listens.
func (s *server) write(ctx context.Context, q *query, rooms []int, emit func(piece) bool) {
	var all sync.WaitGroup
	defer all.Wait()
	for i := range q.prompts {
		all.Go(func() {
			defer catch(emit)
			if err := s.writePrompt(ctx, q, i, rooms[i], emit); err != nil {
				emit(piece{err: err})
			}
		})
	}
}

// catch has a panic go on where the request is answered: net/http expects it there.
func catch(emit func(piece) bool) {
	if v := recover(); v != nil {
		emit(piece{thrown: v})
	}
}

// writePrompt runs the texts of one prompt.
func (s *server) writePrompt(ctx context.Context, q *query, index, most int, emit func(piece) bool) error {
	ids := q.prompts[index]
	s.metrics.read(len(ids))
	var echo piece
	if q.echo {
		echo.s = s.spell(q, index)
		if q.logProbs >= 0 {
			var err error
			if echo.tokens, err = s.readPrompt(ctx, q, ids); err != nil {
				return err
			}
		}
	}
	if most == 0 {
		for i := range q.n {
			p := echo
			p.text, p.begins, p.finish = index*q.n+i, true, "length"
			emit(p)
		}
		return nil
	}
	session, begun, err := s.shared(ctx, q, ids)
	if err != nil {
		return err
	}
	seed := q.seedOf()
	var texts sync.WaitGroup
	defer texts.Wait()
	for i := range q.n {
		r := photon.Request{IDs: ids, Options: q.optionsFor(i, most, seed)}
		if session != nil {
			r.IDs, r.Session = nil, session.Fork()
		}
		first := echo
		first.text, first.tokens = index*q.n+i, slices.Clip(echo.tokens)
		texts.Go(func() {
			defer catch(emit)
			defer begun()
			s.writeText(ctx, q, r, first, begun, emit)
		})
	}
	return nil
}

// shared reads a prompt once where several texts go on from it; otherwise the batcher does. An empty one too is a
// session's: the batcher takes a request without ids for one of text. begun is to be called when the first of them has
// begun: until then no other prompt is read so, lest the states of those that wait add up.
func (s *server) shared(ctx context.Context, q *query, ids []int) (_ *photon.Session, begun func(), err error) {
	if q.n == 1 && len(ids) > 0 {
		return nil, func() {}, nil
	}
	if err := s.alone(ctx); err != nil {
		return nil, nil, err
	}
	begun = sync.OnceFunc(func() { <-s.reading })
	session := s.m.NewSession()
	if err := session.Append(ctx, ids...); err != nil {
		begun()
		return nil, nil, err
	}
	return session, begun, nil
}

// alone waits until nobody else reads a prompt outside the batcher.
func (s *server) alone(ctx context.Context) error {
	select {
	case s.reading <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writeText runs one text, which begins with first, and calls begun when it has.
func (s *server) writeText(
	ctx context.Context, q *query, r photon.Request, first piece, begun func(), emit func(piece) bool,
) {
	p, last := first, q.arrived
	var open *photon.StreamDecoder // has the rune that is open at a session's end, where nothing will come any more
	if t := s.m.Tokenizer(); r.Session != nil && t != nil {
		open = t.NewDecoder()
		for _, id := range q.prompts[first.text/q.n] {
			open.Next(id)
		}
	}
	p.begins = true
	for t, err := range s.batcher.Generate(ctx, r) {
		begun()
		p.s += t.Text
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			if p.finish = "length"; p.begins {
				p.err = err
			}
		case err != nil:
			p.err = err
		default:
			p.drawn, p.finish = 1, finishReason(t.Stop)
			if q.logProbs >= 0 {
				p.tokens = append(p.tokens, token{TokenProb: photon.TokenProb{ID: t.ID, LogProb: t.LogProb},
					top: &likely{tokens: t.Top}, silent: t.Stop == photon.StopEOS || t.Stop == photon.StopToken})
			}
			s.metrics.drawn(p.begins, time.Since(last))
		}
		if open != nil && err == nil && t.Stop != photon.StopEOS && t.Stop != photon.StopToken {
			open.Next(t.ID)
		}
		if open != nil && p.finish != "" && t.Stop != photon.StopString {
			p.s += open.Flush()
		}
		ended := p.finish != "" || p.err != nil
		if !emit(p) || ended {
			return
		}
		p, last = piece{text: first.text}, time.Now()
	}
}

func finishReason(r photon.StopReason) string {
	switch r {
	case photon.Going:
		return ""
	case photon.StopMaxTokens, photon.StopFull:
		return "length"
	}
	return "stop"
}

// spell is a prompt's text.
func (s *server) spell(q *query, index int) string {
	switch t := s.m.Tokenizer(); {
	case q.written != nil:
		return q.written[index]
	case t != nil:
		return t.Decode(q.prompts[index])
	}
	return ""
}

// readPrompt returns the log-probabilities of a prompt's tokens.
func (s *server) readPrompt(ctx context.Context, q *query, ids []int) ([]token, error) {
	if err := s.alone(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.reading }()
	// The last token predicts no other of the prompt.
	tokens := make([]token, 0, len(ids))
	err := s.m.EachLogits(ctx, ids[:max(0, len(ids)-1)], func(row []float32) {
		if at := len(tokens); at < len(ids) {
			around := at < len(s.prefix) || at >= len(ids)-len(s.suffix)
			tokens = append(tokens, token{prompt: true, silent: q.written != nil && around})
			tokens[at].top = &likely{}
			tokens[at].TokenProb, tokens[at].top.tokens = probabilities(row, ids[at], q.logProbs)
		}
	})
	return tokens, err
}

// probabilities is the log-softmax of row at id, and at its n largest, in order; NaN where row is.
func probabilities(row []float32, id, n int) (photon.TokenProb, []photon.TokenProb) {
	best := make([]photon.TokenProb, 0, n+1)
	peak := math.Inf(-1)
	for i, v := range row {
		peak = max(peak, float64(v))
		if len(best) == n && (n == 0 || !(v > best[n-1].LogProb)) {
			continue
		}
		at := len(best)
		for best = append(best, photon.TokenProb{}); at > 0 && v > best[at-1].LogProb; at-- {
			best[at] = best[at-1]
		}
		best[at] = photon.TokenProb{ID: i, LogProb: v}
		best = best[:min(len(best), n)]
	}
	sum := 0.0
	for _, v := range row {
		sum += math.Exp(float64(v) - peak)
	}
	norm := peak + math.Log(sum)
	if math.IsNaN(norm) {
		return photon.TokenProb{ID: id, LogProb: float32(norm)}, nil
	}
	for i := range best {
		best[i].LogProb = float32(float64(best[i].LogProb) - norm)
	}
	return photon.TokenProb{ID: id, LogProb: float32(float64(row[id]) - norm)}, best
}
