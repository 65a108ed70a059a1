package photon

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Token is one generated token.
type Token struct {
	ID      int
	Text    string      // what it completed: never part of a rune, empty while a rune or a possible stop string is open
	LogProb float32     // natural log of its probability before any option had its way; NaN unless LogProbs was given
	Top     []TokenProb // the LogProbs(n) most likely tokens, best first; valid until the next token
}

// StopReason says why a text ended.
type StopReason int

const (
	StopMaxTokens StopReason = iota // MaxTokens were generated
	StopEOS                         // the model ended the text
	StopToken                       // a token of StopTokens came
	StopString                      // a string of Stop came
	StopCaller                      // the loop was left, or an error ended it
)

func (r StopReason) String() string {
	return [...]string{"max tokens", "end of text", "stop token", "stop string", "caller"}[r]
}

// Result is a collected generation.
type Result struct {
	Text   string
	IDs    []int
	Reason StopReason
	Stats  Stats
}

// Generate continues prompt, one token at a time; breaking out of the loop stops the work. No goroutine outlives the loop. The tokens that end a text, and the text of a
// stop string, are not part of what comes. An error ends the loop: ErrUnsupported for a model without a tokenizer, the context's own, ErrInvalid for bad options.
func (m *Model) Generate(ctx context.Context, prompt string, opts ...Option) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		s, err := m.prompted(ctx, prompt, opts)
		if err != nil {
			yield(Token{}, err)
			return
		}
		s.generate(ctx, nil, false, yield)
	}
}

// Complete is Generate collected: the text, why it stopped, what it cost. On an error the result holds what came before it.
func (m *Model) Complete(ctx context.Context, prompt string, opts ...Option) (Result, error) {
	s, err := m.prompted(ctx, prompt, opts)
	if err != nil {
		return Result{Reason: StopCaller}, err
	}
	var r Result
	var text strings.Builder
	r.Reason = s.generate(ctx, nil, false, func(t Token, e error) bool {
		if err = e; e == nil {
			text.WriteString(t.Text)
			r.IDs = append(r.IDs, t.ID)
		}
		return true
	})
	r.Text, r.Stats = text.String(), s.Stats()
	return r, err
}

// prompted is a new session that holds the prompt.
func (m *Model) prompted(ctx context.Context, prompt string, opts []Option) (*Session, error) {
	s := m.NewSession(opts...)
	if err := s.ready(); err != nil {
		return nil, err
	}
	ids, err := m.encodePrompt(prompt)
	if err != nil {
		return nil, err
	}
	return s, s.Append(ctx, ids...)
}

func (m *Model) encodePrompt(prompt string) ([]int, error) {
	if m.tokenizer == nil {
		return nil, fmt.Errorf("photon: the model has no tokenizer.json, so text cannot be encoded: put one beside config.json, or use NewSession and Append with ids: %w", ErrUnsupported)
	}
	if !utf8.ValidString(prompt) {
		return nil, fmt.Errorf("photon: the prompt is not UTF-8 from byte %d on: convert it, or encode it with Tokenizer.Encode, which takes any bytes: %w", validPrefix(prompt), ErrInvalid)
	}
	ids := m.tokenizer.Encode(prompt)
	if len(ids) == 0 && m.cfg.Flat() && m.cfg.BOSTokenID >= 0 {
		ids = append(ids, m.cfg.BOSTokenID)
	}
	return ids, nil
}

// validPrefix is the length of the text before the first byte that is not UTF-8.
func validPrefix(text string) int {
	for i, r := range text {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n == 1 {
				return i
			}
		}
	}
	return len(text)
}

// Generate continues the text; opts override the session's. The tokens that it yields are part of the text afterwards, so that Append or
// another Generate goes on from there; the token that ended it is not.
func (s *Session) Generate(ctx context.Context, opts ...Option) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) { s.generate(ctx, opts, true, yield) }
}

// generate draws tokens and yields them. With keep the session holds every yielded token in the end; without, the last step is saved.
func (s *Session) generate(ctx context.Context, opts []Option, keep bool, yield func(Token, error) bool) StopReason {
	fail := func(err error) StopReason {
		yield(Token{}, err)
		return StopCaller
	}
	if err := s.ready(); err != nil {
		return fail(err)
	}
	o, err := resolve(s.options, opts)
	if err == nil {
		err = s.m.checkMode(o.mode)
	}
	if err != nil {
		return fail(err)
	}
	ws := s.m.acquire()
	defer s.m.release(ws)
	begin := time.Now()
	defer func() { s.stats.Seconds += time.Since(begin).Seconds() }()

	out := newOutlet(s.m.tokenizer, o.stop)
	for n := 0; o.maxTokens < 0 || n < o.maxTokens; n++ {
		if err := ctx.Err(); err != nil {
			out.finish(yield)
			return fail(err)
		}
		token, err := s.draw(ws, &o)
		if err != nil {
			out.finish(yield)
			return fail(err)
		}
		if reason, end := s.m.ends(&o, token.ID); end {
			out.finish(yield)
			return reason
		}
		s.stats.Tokens++
		more, stopped := out.push(token, yield)
		last := !more || stopped || n+1 == o.maxTokens
		if !last || keep {
			s.accept(ws, token.ID)
		}
		if stopped {
			return StopString
		}
		if !more {
			return StopCaller
		}
	}
	out.finish(yield)
	return StopMaxTokens
}

// draw chooses the next token by the options.
func (s *Session) draw(ws *workspace, o *options) (Token, error) {
	if o.mode == RecGen || s.rec.started {
		return s.drawRec(ws, o)
	}
	if len(s.logits) == 0 {
		return Token{}, fmt.Errorf("photon: a flat model predicts nothing before its first token: append a prompt or the beginning-of-text token: %w", ErrInvalid)
	}
	return s.choose(ws, o, s.logits, s.recent, s.seq.n)
}

// choose draws from logits, which stay as they are.
func (s *Session) choose(ws *workspace, o *options, logits []float32, history []int, position int) (Token, error) {
	ws.logits = append(ws.logits[:0], logits...)
	id, p := s.sampler.next(o, ws.logits, history, position)
	if id < 0 && o.logits != nil {
		return Token{}, fmt.Errorf("photon: token %d: the LogitsFunc leaves no token possible: keep at least one logit finite: %w", position, ErrInvalid)
	}
	if id < 0 {
		return Token{}, fmt.Errorf("photon: token %d: every logit is NaN or -Inf: check the weights with photon verify: %w", position, ErrCorrupt)
	}
	return Token{ID: id, LogProb: p, Top: s.sampler.top}, nil
}

// accept makes a drawn token part of the text. It does not look at a context: a step is short, and a session is never left in the middle of one.
func (s *Session) accept(ws *workspace, id int) {
	if s.rec.started {
		s.rec.take++
		return
	}
	ws.oneID[0] = id
	s.append(context.Background(), ws, ws.oneID[:])
}

// ends tells whether a token ends the text.
func (m *Model) ends(o *options, id int) (StopReason, bool) {
	switch {
	case slices.Contains(m.cfg.EOSTokenIDs, id):
		return StopEOS, true
	case slices.Contains(o.stopTokens, id):
		return StopToken, true
	}
	return 0, false
}

// outlet gives tokens their text. It holds tokens back while a rune or a possible stop string is open, so that their text can
// still be settled; each token comes out once.
type outlet struct {
	decoder *StreamDecoder // nil without a tokenizer
	stop    []string
	text    string // of the tokens held back
	held    []Token
}

func newOutlet(t *Tokenizer, stop []string) *outlet {
	o := &outlet{stop: stop}
	if t != nil {
		o.decoder = t.NewDecoder()
		o.decoder.started = true
	}
	return o
}

// push takes a token and yields those whose text is settled; more is what yield said. stopped: a stop string came.
func (o *outlet) push(t Token, yield func(Token, error) bool) (more, stopped bool) {
	if o.decoder == nil {
		return yield(t, nil), false
	}
	text := o.decoder.Next(t.ID)
	if len(o.held) == 0 && len(o.stop) == 0 && o.decoder.held == 0 {
		t.Text = text
		return yield(t, nil), false
	}
	if t.Top != nil {
		t.Top = slices.Clone(t.Top)
	}
	o.held = append(o.held, t)
	o.text += text
	end := len(o.text)
	for _, stop := range o.stop {
		if i := strings.Index(o.text, stop); i >= 0 && (i < end || !stopped) {
			end, stopped = i, true
		}
	}
	if stopped {
		o.text = o.text[:end]
		return o.release(yield), true
	}
	open := 0 // bytes at the end that may begin a stop string
	for _, stop := range o.stop {
		for n := min(len(stop)-1, len(o.text)); n > open; n-- {
			if strings.HasSuffix(o.text, stop[:n]) {
				open = n
			}
		}
	}
	if open > 0 || o.decoder.held > 0 {
		return true, false
	}
	return o.release(yield), false
}

// finish yields what is held back.
func (o *outlet) finish(yield func(Token, error) bool) {
	if len(o.held) > 0 {
		o.text += o.decoder.Flush()
		o.release(yield)
	}
}

func (o *outlet) release(yield func(Token, error) bool) bool {
	o.held[len(o.held)-1].Text = o.text
	for _, t := range o.held {
		if !yield(t, nil) {
			return false
		}
	}
	o.held, o.text = o.held[:0], ""
	return true
}
