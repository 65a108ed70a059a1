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

// Token is a step of a stream: a token that was drawn, the text that it settled, and whether the text ends with it.
type Token struct {
	ID int // -1 beside an error
	// Text is what the token settled: whole runes, and nothing that may still become a stop string. It is often empty,
	// and what is settled later comes with a later token.
	Text string
	// Stop is Going until the last value. With StopEOS and StopToken the token is no part of the text, and the session
	// does not hold it.
	Stop StopReason
	// LogProb is the natural log of the token's probability before any option had its way; NaN unless LogProbs was
	// given.
	LogProb float32
	Top     []TokenProb // the LogProbs(n) most likely tokens, best first
}

// StopReason says why a text ended.
type StopReason int

const (
	Going         StopReason = iota // it has not ended, or an error or the caller ended it
	StopMaxTokens                   // MaxTokens were generated
	StopEOS                         // the model ended the text
	StopToken                       // a token of StopTokens came
	StopString                      // a string of Stop is complete
	StopFull                        // the text has as many tokens as a session, or a Batcher's MaxStateBytes, can hold
)

// String returns "going", "max tokens", "end of text", "stop token", "stop string" or "full".
func (r StopReason) String() string {
	return nameOf("StopReason", int(r), "going", "max tokens", "end of text", "stop token", "stop string", "full")
}

// nameOf is the String of an enumeration.
func nameOf(kind string, value int, names ...string) string {
	if value < 0 || value >= len(names) {
		return fmt.Sprintf("%s(%d)", kind, value)
	}
	return names[value]
}

// Result is a collected generation.
type Result struct {
	Text   string
	IDs    []int // of the text
	Stop   StopReason
	Tokens []Token // where LogProbs was given, every value of the stream: also the token that ended the text
	Stats  Stats
}

// Generate continues prompt, one token at a time; breaking out of the loop stops the work. The prompt is encoded as
// Tokenizer.Encode does, special tokens in it included. Each token comes in the step that drew it, and the last value
// says why the text ended. An error ends the loop, with the rest of the text: ErrUnsupported for a model without a
// tokenizer, the context's own, ErrInvalid for bad options and for a prompt that is not UTF-8, ErrClosed. The context's
// end is obeyed within a few milliseconds. No goroutine outlives the loop. It may be called from several goroutines.
func (m *Model) Generate(ctx context.Context, prompt string, opts ...Option) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		s, err := m.prompted(ctx, prompt, opts)
		if err != nil {
			yield(noToken(""), err)
			return
		}
		s.generate(ctx, nil, true, yield)
	}
}

// Complete is Generate collected: the text, why it stopped, what it cost. On an error, which is one of Generate's, the
// result holds what came before it. It may be called from several goroutines.
func (m *Model) Complete(ctx context.Context, prompt string, opts ...Option) (Result, error) {
	var r Result
	s, err := m.prompted(ctx, prompt, opts)
	if err != nil {
		return r, err
	}
	var text strings.Builder
	from := s.Len()
	r.Stop = s.generate(ctx, nil, true, func(t Token, e error) bool {
		text.WriteString(t.Text)
		if err = e; err == nil && s.options.logProbs >= 0 {
			r.Tokens = append(r.Tokens, t)
		}
		return true
	})
	r.Text, r.IDs, r.Stats = text.String(), slices.Clone(s.ids[from:]), s.Stats()
	return r, err
}

// noToken comes with an error, and has the rest of the text.
func noToken(text string) Token { return Token{ID: -1, Text: text, LogProb: nan32} }

// prompted is a new session that holds the prompt.
func (m *Model) prompted(ctx context.Context, prompt string, opts []Option) (*Session, error) {
	s := m.NewSession(opts...)
	if err := s.ready(); err != nil {
		return nil, err
	}
	ids, err := s.encodePrompt(ctx, prompt)
	if err != nil {
		return nil, err
	}
	return s, s.Append(ctx, ids...)
}

// encodePrompt is Encode where the text begins, EncodeText in its middle.
func (s *Session) encodePrompt(ctx context.Context, prompt string) ([]int, error) {
	if s.Len() > 0 {
		return s.m.encodeText(ctx, prompt)
	}
	if err := s.m.checkText(prompt); err != nil {
		return nil, err
	}
	ids := s.m.tokenizer.encodeWhole(&deadline{ctx: ctx}, prompt)
	if err := ended(ctx); err != nil {
		return nil, err
	}
	if len(ids) == 0 && s.m.cfg.Flat() && s.m.cfg.BOSTokenID >= 0 {
		ids = append(ids, s.m.cfg.BOSTokenID)
	}
	return ids, nil
}

// encodeText is Tokenizer.EncodeText, of a text that is checked, until ctx ends.
func (m *Model) encodeText(ctx context.Context, text string) ([]int, error) {
	if err := m.checkText(text); err != nil {
		return nil, err
	}
	ids := m.tokenizer.encodeText(&deadline{ctx: ctx}, text)
	return ids, ended(ctx)
}

func (m *Model) checkText(text string) error {
	if m.tokenizer == nil {
		return fmt.Errorf("photon: the model has no tokenizer.json, so text cannot be encoded: put one beside config.json, or use NewSession and Append "+
			"with ids: %w", ErrUnsupported)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("photon: the text is not UTF-8 from byte %d on: convert it, or give the ids of "+
			"Tokenizer.EncodeText, which takes any bytes: %w", validPrefix(text), ErrInvalid)
	}
	return nil
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

// Generate continues the text; opts override the session's. Each token that it yields is part of the text from then on,
// also inside the loop: for Len, Fork and WriteTo there, and for Append or another Generate after it, which inside the
// loop are ErrInvalid. Two calls give the text that one would have given: a rune that is open at the end of the first
// comes with the second. What a loop that was left early has not given out comes with the next call, unless Append
// comes between.
func (s *Session) Generate(ctx context.Context, opts ...Option) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) { s.generate(ctx, opts, false, yield) }
}

// generate draws tokens and yields them. over: the text ends with the call.
func (s *Session) generate(ctx context.Context, opts []Option, over bool, yield func(Token, error) bool) StopReason {
	r, err := s.stream(opts, over)
	if err != nil {
		yield(noToken(""), err)
		return Going
	}
	defer r.end()
	r.begin()
	ws := s.m.acquire()
	defer s.m.release(ws)
	for r.drawn() != r.o.maxTokens {
		t, err := r.next(ctx, ws)
		if err != nil {
			yield(noToken(r.finish()), err)
			return Going
		}
		if !yield(t, nil) || t.Stop != Going {
			return t.Stop
		}
	}
	return StopMaxTokens
}

// stream is a running call of Generate.
type stream struct {
	s    *Session
	o    options
	from int // the length of the text where it began
	most int // tokens that the text may have
	over bool
	*outlet
}

// maxText is the most tokens of a text: positions are numbers of 31 bits.
var maxText = 1<<31 - 1 // a variable for the tests' sake

// stream prepares a call: begin begins it where the text ends then, end ends it.
func (s *Session) stream(opts []Option, over bool) (*stream, error) {
	if err := s.still("Generate"); err != nil {
		return nil, err
	}
	o, err := s.m.resolve(s.options, opts)
	if err != nil {
		return nil, err
	}
	if s.rec.started && o.mode != RecGen {
		return nil, fmt.Errorf("photon: RecGen has dropped the lower encoders, so HierGen cannot go on: give "+
			"Mode(RecGen), or begin a new session with the text's ids: %w", ErrUnsupported)
	}
	s.running = true
	return &stream{s: s, o: o, most: maxText, over: over}, nil
}

func (r *stream) begin() {
	r.from, r.outlet = len(r.s.ids), newOutlet(r.s.m.tokenizer, r.o.stop, r.s.ids, r.s.since, r.s.held)
}

func (r *stream) end() { r.s.running = false }

// drawn is the number of tokens so far.
func (r *stream) drawn() int { return len(r.s.ids) - r.from }

// next runs the model over what it has not read yet, and draws a token.
func (r *stream) next(ctx context.Context, ws *workspace) (Token, error) {
	begin := time.Now()
	defer func() { r.s.stats.Time += time.Since(begin) }()
	ws.crew.giveWay()
	if err := r.s.catchUp(ctx, ws); err != nil {
		return Token{}, err
	}
	return r.draw(ws)
}

// draw chooses a token and, unless it ends the text, makes it part of the session. The model has not read it then.
func (r *stream) draw(ws *workspace) (Token, error) {
	s := r.s
	if err := s.m.check(); err != nil {
		return Token{}, err
	}
	t, err := s.draw(ws, r)
	if err != nil {
		return Token{}, err
	}
	if t.Stop = s.m.ends(&r.o, t.ID); t.Stop != Going {
		t.Text = r.finish()
		return t, nil
	}
	s.ids = append(s.ids, t.ID)
	s.current = false
	s.stats.Tokens++
	var stopped bool
	t.Text, stopped = r.push(t.ID)
	switch {
	case stopped:
		t.Stop, s.since = StopString, len(s.ids)
	case r.drawn() == r.o.maxTokens:
		t.Stop = StopMaxTokens
	case len(s.ids) >= r.most:
		t.Stop = StopFull
	}
	if t.Stop != Going && !stopped {
		if rest := r.finish(); rest != "" {
			t.Text += rest
		}
	}
	s.held = len(r.outlet.held)
	return t, nil
}

// finish is the rest of the text.
func (r *stream) finish() string {
	if r.outlet == nil { // the prompt has not been read
		return ""
	}
	r.s.held = 0
	return r.outlet.finish(r.over)
}

// ends tells whether a token ends the text, and why.
func (m *Model) ends(o *options, id int) StopReason {
	switch {
	case slices.Contains(m.cfg.EOSTokenIDs, id):
		return StopEOS
	case slices.Contains(o.stopTokens, id):
		return StopToken
	}
	return Going
}

// draw chooses the next token by the options of r.
func (s *Session) draw(ws *workspace, r *stream) (Token, error) {
	if s.rec.started || r.o.mode == RecGen && len(s.ids)%s.m.cfg.MetaContext() == 0 {
		weights := ws.mulTask.read
		logits := s.recLogits(ws, &r.o)
		s.stats.WeightReadBytes += ws.mulTask.read - weights
		return s.choose(ws, r, logits)
	}
	if len(s.logits) == 0 {
		return Token{}, fmt.Errorf("photon: a flat model predicts nothing before its first token: append a prompt or the "+
			"beginning-of-text token: %w", ErrInvalid)
	}
	return s.choose(ws, r, s.logits)
}

// choose draws from logits, which stay as they are.
func (s *Session) choose(ws *workspace, r *stream, logits []float32) (Token, error) {
	scores := logits
	if r.o.changes() {
		ws.logits = append(ws.logits[:0], logits...)
		scores = ws.logits
	}
	id, p := ws.sampler.next(&r.o, scores, s.ids, len(s.ids), slices.Clip(s.ids[r.from:]))
	if len(r.o.logits) > 0 {
		if err := s.checkNumbers(scores, logits); err != nil {
			return Token{}, err
		}
	}
	if id < 0 {
		return Token{}, s.nothingLeft(&r.o, logits)
	}
	t := Token{ID: id, LogProb: p}
	if len(ws.sampler.top) > 0 {
		t.Top = slices.Clone(ws.sampler.top)
	}
	return t, nil
}

// checkNumbers reports a NaN that a LogitsFunc has made of one of the model's logits.
func (s *Session) checkNumbers(scores, logits []float32) error {
	if !hasNaN(scores) {
		return nil
	}
	for id, v := range scores {
		if v != v && logits[id] == logits[id] {
			return s.here("a LogitsFunc has made the logit of token id %d a NaN: give a number, or -Inf to forbid the "+
				"token: %w", id, ErrInvalid)
		}
	}
	return nil
}

// nothingLeft says why no token is possible.
func (s *Session) nothingLeft(o *options, logits []float32) error {
	switch {
	case mostLikely(logits) >= 0 && len(o.logits) > 0:
		return s.here("the LogitsFunc leaves no token possible: keep at least one logit finite: %w", ErrInvalid)
	case mostLikely(logits) >= 0:
		return s.here("LogitBias leaves no token possible: forbid fewer: %w", ErrInvalid)
	case s.seq.overflowed():
		return s.here("a key or value of this model is beyond what an f16 cache holds, ±65504: load it with "+
			"WithCache(CacheF32): %w", ErrUnsupported)
	}
	return s.here("every logit is NaN or -Inf: check the weights with photon verify: %w", ErrCorrupt)
}

// here is an error that says how far the text is.
func (s *Session) here(format string, args ...any) error {
	return fmt.Errorf("photon: at position %d of the text: "+format, append([]any{len(s.ids)}, args...)...)
}
