package photon

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sort"
	"sync"
	"time"
)

// Batcher serves many streams with shared passes over the weights: they join and leave at every step. It is made by
// Model.NewBatcher and safe for concurrent use. Its work is done by one goroutine, which lives only while there are
// requests.
type Batcher struct {
	m     *Model
	o     batcherOptions
	opts  error
	mu    sync.Mutex
	wake  chan struct{} // the worker may have something to do
	ended chan struct{} // the worker that runs has ended; nil: none runs

	// Guarded by mu.
	closed   bool
	calling  bool    // the worker is in a function of the caller
	fled     bool    // which has ended the worker's goroutine
	waiting  []*lane // in the order in which they came
	lanes    []*lane
	reserved int64     // bytes of state that the lanes may come to hold, each for itself
	shared   partCount // and those of which several may have a part
	turn     int       // the lane that the next pass begins with, where it cannot take all
	prefixes prefixes
}

// A BatcherOption sets a bound of a Batcher.
type BatcherOption func(*batcherOptions)

type batcherOptions struct {
	texts, slice    int
	state, prefixes int64
}

// MaxTexts bounds how many requests run at a time; others wait their turn. One whose reader has not come back for 100
// ms does not count until it does. Default 128.
func MaxTexts(n int) BatcherOption { return func(o *batcherOptions) { o.texts = n } }

// MaxStateBytes bounds the keys and values that the texts that run may come to hold, by Config.StateBytes of the prompt
// and MaxTokens; what forks share counts once. Other requests wait their turn. A text that reaches the bound by itself
// ends with StopFull, and a prompt beyond it is an error that matches ErrMemoryLimit. Default: no bound.
func MaxStateBytes(n int64) BatcherOption { return func(o *batcherOptions) { o.state = n } }

// KeepPrefixes keeps the states of texts that requests without a Session have read, at borders of units in their
// prompts and where they ended, in n bytes of memory. A request that begins with the same tokens, such as those of an
// instruction, of a document or of the conversation so far, starts from the longest that fits, and gets the tokens that
// it would get without, bit for bit; Stats.ReusedTokens says how many it did not have to read. Of those that do not fit
// into n bytes, texts that were not used for longest go first, and of one text those in its middle, so that the whole
// of it stays longest. A state takes Config.StateBytes of its tokens; what grows with a text is shared by those of one
// text. Default 0: none.
func KeepPrefixes(n int64) BatcherOption { return func(o *batcherOptions) { o.prefixes = n } }

// PrefillSlice sets how many tokens of prompts are read between two steps of the other texts. Default 0: as many as
// take about 25 ms, or 8 if these take longer.
func PrefillSlice(tokens int) BatcherOption { return func(o *batcherOptions) { o.slice = tokens } }

// NewBatcher returns a Batcher without requests. A bad option is reported by every call of Generate.
func (m *Model) NewBatcher(opts ...BatcherOption) *Batcher {
	b := &Batcher{m: m, o: batcherOptions{texts: 128}, wake: make(chan struct{}, 1)}
	for _, set := range opts {
		if set != nil {
			set(&b.o)
		}
	}
	switch {
	case b.o.texts < 1:
		b.opts = fmt.Errorf("photon: MaxTexts(%d): give 1 or more: %w", b.o.texts, ErrInvalid)
	case b.o.state < 0:
		b.opts = fmt.Errorf("photon: MaxStateBytes(%d): give 1 or more, or 0 for no bound: %w", b.o.state, ErrInvalid)
	case b.o.prefixes < 0:
		b.opts = fmt.Errorf("photon: KeepPrefixes(%d): give 1 or more, or 0 to keep none: %w", b.o.prefixes, ErrInvalid)
	case b.o.slice < 0:
		b.opts = fmt.Errorf("photon: PrefillSlice(%d): give 1 or more, or 0 for as many as take about %v: %w", b.o.slice, sliceTime, ErrInvalid)
	}
	b.prefixes.most = b.o.prefixes
	return b
}

// served is what a lane of a Batcher shares with its reader, guarded by the Batcher's mu.
type served struct {
	visible bool          // the session is the caller's: it must hold the tokens that were yielded and no other
	tokens  []drawnToken  // not yet read
	rest    string        // the text that is held back behind those that have been read
	asked   bool          // the reader waits
	late    bool          // the last time it came back too late to be waited for
	busy    bool          // the worker has the lane
	gone    bool          // the reader has left
	stopped bool          // nothing more will be drawn
	err     error         // that ended the text
	last    string        // the rest of the text, with err
	thrown  any           // by a function of the caller
	told    chan struct{} // something of this has changed
	since   time.Time     // when a token was drawn last, or the lane let in
	need    int64         // bytes of state that the text may come to have for itself
	parts   []partUse     // and what it has in common with forks
	cost    Stats
}

// drawnToken is a token on its way to the reader, with the text that is held back behind it.
type drawnToken struct {
	Token
	held string
}

const (
	aheadTokens = 16                     // that a reader may be behind
	restTime    = 100 * time.Millisecond // after which a text whose reader does not come back makes room for another
	mostGrace   = 2 * time.Millisecond   // for which the others wait for a reader whose session they may not run ahead of
)

// Generate yields the tokens, texts and probabilities that r would get alone, bit for bit. ctx ends this request only,
// within a few milliseconds. A reader that is slow or gone holds up nobody: its text rests.
//
// Functions of r's options, such as a LogitsFunc, are called from the Batcher's goroutine, where all texts wait for
// them, so that they cannot wait for a text of this Batcher; what one of them throws comes out of the loop, and one
// that calls runtime.Goexit, as testing's FailNow does, ends its request with ErrInvalid.
//
// Errors are those of Model.Generate and Session.Append, and besides ErrMismatch for a session of another model,
// ErrMemoryLimit for a prompt beyond MaxStateBytes, ErrClosed after Close, and ErrInvalid for a bad BatcherOption.
func (b *Batcher) Generate(ctx context.Context, r Request) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		l, err := b.join(ctx, r)
		if err != nil {
			yield(noToken(""), err)
			return
		}
		defer b.leave(l)
		for {
			t, more, err := b.await(ctx, l)
			if err != nil || t.Stop != Going {
				b.account(l)
			}
			if err != nil {
				yield(t, err)
				return
			}
			if !more || !yield(t, nil) || t.Stop != Going {
				return
			}
		}
	}
}

// Close ends every request with an error that matches ErrClosed, and returns when no work is being done any more. Later
// requests get that error too. While a function of a request's options runs, which may be what calls Close, it does not
// wait: the work ends after that function.
func (b *Batcher) Close() error {
	b.mu.Lock()
	b.closed, b.prefixes = true, prefixes{}
	running := b.ended
	if b.calling {
		running = nil
	}
	b.mu.Unlock()
	b.rouse()
	if running != nil {
		<-running
	}
	return nil
}

func errBatcherClosed() error {
	return fmt.Errorf("photon: the Batcher was closed: make another: %w", ErrClosed)
}

// rouse has the worker look for work.
func (b *Batcher) rouse() { poke(b.wake) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// join puts a request into the queue, and starts the worker if there is none.
func (b *Batcher) join(ctx context.Context, r Request) (*lane, error) {
	if b.opts != nil {
		return nil, b.opts
	}
	l, err := b.m.lane(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	l.visible, l.told = r.Session != nil, make(chan struct{}, 1)
	if !l.visible && b.o.prefixes > 0 {
		b.reuse(l)
	}
	if err := b.reserve(l); err != nil {
		l.end()
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		l.end()
		return nil, errBatcherClosed()
	}
	b.waiting = append(b.waiting, l)
	if b.ended == nil {
		b.ended = make(chan struct{})
		go b.work()
	}
	b.rouse()
	return l, nil
}

// reuse has a request start from the longest state that is kept of its text.
func (b *Batcher) reuse(l *lane) {
	h := hashes(l.todo)
	l.keeping = keeping{border: b.m.border(), prompt: len(l.todo), begin: h}
	b.mu.Lock()
	p := b.prefixes.find(l.todo, h)
	b.mu.Unlock()
	if p != nil {
		l.s.start(p)
		l.todo = l.todo[len(p.ids):]
		l.keeping.at, l.keeping.hash = len(p.ids), p.hash
	}
}

// keep keeps the state of a text that stands at a border of its prompt, or has ended.
func (b *Batcher) keep(l *lane) {
	s, k := l.s, &l.keeping
	n := s.seq.n
	if k.border == 0 || n == k.at || s.rec.started || !l.stopped && (!k.due(n) || l.settles()) {
		return
	}
	k.hash, k.at = hashOn(k.hash, s.ids[k.at:n]), n
	state := s.seq.clone()
	b.mu.Lock()
	b.prefixes.keep(s.ids[:n], k.hash, k.begin, state)
	b.mu.Unlock()
}

// reserve finds how much state a text may come to hold, and where it has to end for that.
func (b *Batcher) reserve(l *lane) error {
	if b.o.state == 0 {
		return nil
	}
	bytes := func(tokens int) int64 { return b.m.cfg.stateBytes(tokens, b.m.cacheType, true) }
	n := len(l.s.ids) + len(l.todo)
	if need := bytes(n); need > b.o.state {
		return fmt.Errorf("photon: the state of a prompt of %d tokens takes %d bytes, MaxStateBytes is %d: raise it or cut the prompt: %w",
			n, need, b.o.state, ErrMemoryLimit)
	}
	most := maxText - n
	if l.o.maxTokens >= 0 {
		most = min(most, l.o.maxTokens)
	}
	most = sort.Search(most, func(more int) bool { return bytes(n+more+1) > b.o.state })
	l.need, l.most = bytes(n+most), n+most
	l.parts = l.s.seq.frozen(nil)
	for _, u := range l.parts {
		l.need -= u.bytes
	}
	return nil
}

// fits says whether there is room for the state of a text beside those that run.
func (b *Batcher) fits(l *lane) bool {
	return b.o.state == 0 || b.reserved+b.shared.bytes+l.need+b.shared.cost(l.parts) <= b.o.state
}

// leave ends a request. When it returns, the worker does not touch the caller's session any more.
func (b *Batcher) leave(l *lane) {
	b.mu.Lock()
	l.gone = true
	for l.visible && l.busy {
		b.mu.Unlock()
		<-l.told
		b.mu.Lock()
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(other *lane) bool { return other == l })
	if l.visible {
		l.end()
	}
	b.mu.Unlock()
	b.account(l)
	b.rouse()
}

// account tells the request what it has cost.
func (b *Batcher) account(l *lane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.stats != nil {
		*l.stats = l.cost
	}
}

// await returns the next token, no more, or the error that ended the text, with the rest of it.
func (b *Batcher) await(ctx context.Context, l *lane) (t Token, more bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.late = !l.since.IsZero() && time.Since(l.since) > mostGrace
	for {
		err := ended(ctx)
		l.gone = l.gone || err != nil // or the worker would take the lane again and again
		for err != nil && l.visible && l.busy {
			b.mu.Unlock()
			<-l.told
			b.mu.Lock()
		}
		switch {
		case err != nil && l.visible && len(l.tokens) > 0: // the session holds it already
		case err != nil && l.visible:
			return noToken(l.finish()), false, err
		case err != nil:
			return noToken(l.rest), false, err
		}
		if len(l.tokens) > 0 {
			t, l.rest = l.tokens[0].Token, l.tokens[0].held
			l.tokens = l.tokens[:copy(l.tokens, l.tokens[1:])]
			l.asked = false
			return t, true, nil
		}
		if l.thrown != nil {
			panic(l.thrown)
		}
		if l.err != nil {
			return noToken(l.last), false, l.err
		}
		if l.stopped {
			return t, false, nil
		}
		if !l.asked || !l.visible {
			l.asked = true
			b.rouse()
		}
		b.mu.Unlock()
		select {
		case <-l.told:
		case <-ctx.Done():
		}
		b.mu.Lock()
	}
}

// work runs until there are no requests.
func (b *Batcher) work() {
	run := batch{m: b.m, slice: b.o.slice, ws: b.m.acquire()}
	defer b.m.release(run.ws)
	over := false
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch {
		case over:
		case b.fled: // the others go on
			b.fled = false
			for _, l := range b.lanes {
				l.busy = false
				poke(l.told)
			}
			go b.work()
		default:
			b.failAll()
		}
	}()
	for {
		lanes, more := b.take(run.lanes[:0])
		if over = !more; over {
			return
		}
		run.lanes = lanes
		if len(lanes) == 0 { // every reader rests
			select {
			case <-b.wake:
			case <-time.After(restTime):
			}
			continue
		}
		run.ws.crew.giveWay()
		begin := time.Now()
		run.pass(lanes)
		for _, l := range lanes {
			b.draw(l, run.ws)
			b.keep(l)
		}
		b.mu.Lock()
		for _, l := range lanes {
			l.busy = false
			poke(l.told)
		}
		b.mu.Unlock()
		runtime.Gosched() // readers first: else the next pass's helpers would wait behind them for a core
		b.waitFor(lanes, min(mostGrace, time.Since(begin)/4))
	}
}

// take drops the lanes that are done, lets others in, and appends to list those that can go on. more: there are
// requests.
func (b *Batcher) take(list []*lane) (lanes []*lane, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lanes = slices.DeleteFunc(b.lanes, func(l *lane) bool {
		if l.gone || l.stopped {
			b.reserved -= l.need
			b.shared.drop(l.parts)
		}
		return l.gone || l.stopped
	})
	now, active := time.Now(), 0
	for _, l := range b.lanes {
		if l.runs() || now.Sub(l.since) < restTime {
			active++
		}
	}
	for len(b.waiting) > 0 && active < b.o.texts && b.fits(b.waiting[0]) {
		l := b.waiting[0]
		b.lanes, b.waiting = append(b.lanes, l), slices.Delete(b.waiting, 0, 1)
		b.reserved += l.need
		b.shared.add(l.parts)
		l.since = now
		active++
	}
	if len(b.lanes) == 0 && len(b.waiting) == 0 || b.closed {
		b.failAll()
		return nil, false
	}
	for i := range b.lanes {
		at := (b.turn + i) % len(b.lanes)
		if l := b.lanes[at]; l.runs() {
			if len(list) == b.o.texts {
				b.turn = at
				break
			}
			l.busy = true
			list = append(list, l)
		}
	}
	return list, true
}

// runs says whether a lane can go on.
func (l *lane) runs() bool {
	if l.visible {
		return l.asked && len(l.tokens) == 0
	}
	return len(l.tokens) < aheadTokens
}

// calls says whether a draw calls functions of the caller.
func (l *lane) calls() bool { return len(l.o.logits) > 0 }

// failAll ends every request there still is, and the worker.
func (b *Batcher) failAll() {
	close(b.ended)
	b.ended = nil
	for _, l := range slices.Concat(b.lanes, b.waiting) {
		l.busy = false
		if !l.stopped {
			l.stopped, l.err = true, errBatcherClosed()
		}
		poke(l.told)
	}
	b.lanes, b.waiting = b.lanes[:0], b.waiting[:0]
	b.reserved, b.shared = 0, partCount{}
}

// draw takes a token from a lane, if one can be drawn.
func (b *Batcher) draw(l *lane, ws *workspace) {
	var d drawnToken
	var err error
	drawn, returned := false, false
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.calling = false
		if !returned {
			l.stopped = true
			if l.thrown = recover(); l.thrown == nil {
				b.fled, l.err = true, errFled()
			}
		}
		if l.stats != nil {
			l.cost = l.s.Stats()
		}
		switch {
		case err != nil:
			l.stopped, l.err, l.last = true, err, d.Text
		case drawn:
			l.tokens = append(l.tokens, d)
			l.stopped = d.Stop != Going
			l.asked, l.since = false, time.Now()
		}
	}()
	if l.over() {
		b.mu.Lock()
		l.stopped = true
		b.mu.Unlock()
	} else if l.ready() {
		b.mu.Lock()
		b.calling = l.calls()
		b.mu.Unlock()
		d.Token, err = l.next(ws)
		d.held, drawn = l.peek(), true
	}
	returned = true
}

func errFled() error {
	return fmt.Errorf("photon: a function of the request's options has ended its goroutine, by runtime.Goexit or a "+
		"test's FailNow: have it return, or panic: %w", ErrInvalid)
}

// waitFor gives the readers of lanes whose sessions cannot be run ahead of some time to come back, unless they were
// late the last time: else these lanes would fall out of step with the others.
func (b *Batcher) waitFor(lanes []*lane, grace time.Duration) {
	var timer *time.Timer
	for {
		b.mu.Lock()
		missing := slices.ContainsFunc(lanes, func(l *lane) bool {
			return l.visible && !l.asked && !l.late && !l.gone && !l.stopped
		})
		b.mu.Unlock()
		if !missing {
			break
		}
		if timer == nil {
			timer = time.NewTimer(grace)
			defer timer.Stop()
		}
		select {
		case <-b.wake:
		case <-timer.C:
			return
		}
	}
}
