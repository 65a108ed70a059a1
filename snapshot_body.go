package photon

import (
	"encoding/binary"
	"fmt"
	"math"
)

const codedValues = 1 << 10 // that are coded at a time

// coder writes values to data, or reads them from its front: one description of the body serves both ways. A value
// stands in one block.
type coder struct {
	data    []byte
	flush   func(block []byte) error // writes data
	fill    func() ([]byte, error)   // is what comes behind data
	reading bool
	traffic int64 // bytes that caches counted, together
	err     error
}

func (c *coder) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format+": %w", append(args, ErrCorrupt)...)
	}
}

// take returns the next n bytes to be read or written, at most a block; nil after an error.
func (c *coder) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if c.reading {
		if len(c.data) == 0 && n > 0 {
			c.data, c.err = c.fill()
		}
		if n > len(c.data) {
			c.fail("the body ends early")
			return nil
		}
		b := c.data[:n]
		c.data = c.data[n:]
		return b
	}
	if len(c.data)+n > snapshotBlock {
		if c.err = c.flush(c.data); c.err != nil {
			return nil
		}
		c.data = c.data[:0]
	}
	at := len(c.data)
	c.data = append(c.data, make([]byte, n)...)
	return c.data[at:]
}

// count codes an integer from 0 to most.
func (c *coder) count(name string, v *int, most int) {
	wide := int64(*v)
	c.number(name, &wide, int64(most))
	*v = int(wide)
}

// number is count for 64 bits.
func (c *coder) number(name string, v *int64, most int64) {
	b := c.take(8)
	switch {
	case b == nil:
	case !c.reading:
		binary.LittleEndian.PutUint64(b, uint64(*v))
	default:
		if n := binary.LittleEndian.Uint64(b); n <= uint64(most) {
			*v = int64(n)
		} else {
			c.fail("%s is %d, the most is %d", name, n, most)
		}
	}
}

// floats codes a slice of a length that both sides know.
func (c *coder) floats(v []float32) {
	for len(v) > 0 {
		some := v[:min(len(v), codedValues)]
		b := c.take(4 * len(some))
		if b == nil {
			return
		}
		for i := range some {
			if c.reading {
				some[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
			} else {
				binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(some[i]))
			}
		}
		v = v[len(some):]
	}
}

// some codes a slice of at most most values, which grows with those that are there.
func (c *coder) some(name string, v *[]float32, most int) {
	n := len(*v)
	c.count(name, &n, most)
	if !c.reading {
		c.floats(*v)
		return
	}
	*v = nil
	for len(*v) < n && c.err == nil {
		at := len(*v)
		*v = append(*v, make([]float32, min(n-at, codedValues))...)
		c.floats((*v)[at:])
	}
}

// exactly codes n values.
func (c *coder) exactly(name string, v *[]float32, n int) {
	c.some(name, v, n)
	if c.err == nil && len(*v) != n {
		c.fail("%s: %d values, want %d", name, len(*v), n)
	}
}

// ids codes at most most token ids.
func (c *coder) ids(name string, v *[]int, most, vocab int) {
	n := len(*v)
	c.count(name, &n, most)
	if c.reading {
		*v = nil
	}
	for i := 0; i < n && c.err == nil; i++ {
		if c.reading {
			*v = append(*v, 0)
		}
		c.count(name, &(*v)[i], vocab-1)
	}
}

// session codes a text. Reading, s is a new session of the model, and whatever does not follow from the number of
// tokens is checked against it.
func (c *coder) session(s *Session) {
	m, q := s.m, s.seq
	const most = math.MaxInt / 8 // of rows
	c.count("tokens", &q.n, maxText)
	if c.reading {
		q.synced = q.n
	}
	c.count("prompt tokens", &s.stats.PromptTokens, most)
	c.count("generated tokens", &s.stats.Tokens, most)
	c.ids("text", &s.ids, maxText, m.cfg.VocabSize)
	c.count("text for stop strings", &s.since, len(s.ids))
	c.count("text not given out", &s.held, maxText)

	started := 0
	if s.rec.started {
		started = 1
	}
	c.count("RecGen", &started, 1)
	if s.rec.started = started == 1; s.rec.started {
		if err := m.checkMode(RecGen); err != nil {
			c.fail("a RecGen snapshot of a model that cannot run it")
			return
		}
	}
	out, top := len(q.out), len(q.top)
	c.count("prediction", &out, m.decoders[0].width())
	if c.reading {
		q.out = make([]float32, out)
		if out != 0 && out != m.decoders[0].width() || out == 0 && q.n > 0 {
			c.fail("prediction is %d wide", out)
		}
	}
	c.floats(q.out)
	c.count("condition", &top, len(m.startLatent))
	if c.reading && top != len(m.startLatent) {
		c.fail("condition is %d wide", top)
		return
	}
	c.floats(q.top)
	if c.err == nil && !s.rec.started {
		c.waiting(m, q)
	}
	if q.tokens != nil {
		c.cache("token encoder", q.tokens, most)
	}
	for l, cache := range q.enc {
		c.cache(fmt.Sprintf("encoder %d", l+1), cache, most)
	}
	for l := range q.dec {
		c.count("decoder row", &q.dec[l].next, most)
		c.cache(fmt.Sprintf("decoder %d", l+1), q.dec[l].cache, most)
		for e, cache := range q.dec[l].memories {
			c.cache(fmt.Sprintf("memory %d of decoder %d", e, l+1), cache, most)
		}
		if d := m.decoders[l]; d.added {
			c.exactly("condition", &q.dec[l].slices, d.slices()*d.width())
		}
	}
	if c.reading && c.err == nil {
		c.checkPlaces(m, s)
	}
}

// waiting codes the tokens and states that are not yet a whole chunk.
func (c *coder) waiting(m *Model, q *sequence) {
	span := 1
	for l, e := range m.encoders {
		whole := q.n / (span * e.chunk) * e.chunk
		n := q.n/span - whole
		if l == 0 {
			if c.reading {
				q.ids, q.token = idRun{first: whole}, stateRun{first: whole}
			}
			c.ids("waiting tokens", &q.ids.ids, e.chunk-1, m.cfg.VocabSize)
			if len(q.ids.ids) != n {
				c.fail("%d tokens wait, want %d", len(q.ids.ids), n)
			}
			if m.tokenEncoder != nil {
				c.exactly("waiting token states", &q.token.rows, n*e.below)
			}
		} else {
			width := m.encoders[l-1].width()
			if c.reading {
				q.states[l-1] = stateRun{first: whole}
			}
			c.some("waiting states", &q.states[l-1].rows, (e.chunk-1)*width)
			if len(q.states[l-1].rows) != n*width {
				c.fail("level %d: %d values wait, want %d rows", l, len(q.states[l-1].rows), n)
			}
		}
		span *= e.chunk
	}
	if top := len(m.encoders) - 1; c.reading && top >= 0 {
		q.states[top] = stateRun{first: q.n / span}
	}
	if c.reading && len(m.encoders) == 0 {
		q.ids = idRun{first: q.n}
	}
}

// cache codes the rows that a cache holds, some of them at a time.
func (c *coder) cache(name string, k *kvCache, most int) {
	read := c.counted(name+" bytes read", k.read)
	written := c.counted(name+" bytes written", k.written)
	first, next := k.oldest(), k.next
	c.count(name+" next row", &next, most)
	c.count(name+" first row", &first, next)
	if c.err != nil {
		return
	}
	held := make([]int, len(k.layers)) // the first row of each layer
	if c.reading {
		k.reset(first)
		k.read, k.written = read, written
	}
	k.next = next
	for i := range held {
		held[i] = k.first(i)
	}
	if k.oldest() != first {
		c.fail("%s begins at row %d, the windows at %d", name, first, k.oldest())
		return
	}
	var spans []keySpan
	rows := max(1, snapshotBlock/int(min(k.rowBytes(), snapshotBlock)))
	for at := first; at < next && c.err == nil; at += rows {
		end := min(at+rows, next)
		if c.reading { // only now is it certain that those before are there
			k.next = at
			k.reserve(end - at)
			k.next = end
		}
		for i := range k.layers {
			for j := range 2 {
				for h := range k.heads {
					spans = k.layers[i].spans(spans[:0], h, max(at, held[i]), end)
					c.rows(k, j, spans)
				}
			}
		}
	}
}

// counted codes a counter of bytes. All of them together are at most 2⁶⁰, so that those of a text that goes on from
// here do not overflow.
func (c *coder) counted(name string, n int64) int64 {
	most := 1<<60 - c.traffic
	n = min(n, most)
	c.number(name, &n, most)
	c.traffic += n
	return n
}

// rows codes the keys (half 0) or values (1) of one head that stand in spans: how these are cut must not show.
func (c *coder) rows(k *kvCache, half int, spans []keySpan) {
	for _, s := range spans {
		r, at, n := s.layer.half(half), s.base+s.from, s.to-s.from
		switch k.typ {
		case CacheF32:
			eachCoded(c, r.panel, r.f32, at, n, k.headDim, c.floats)
		case CacheF16:
			eachCoded(c, r.panel, r.f16, at, n, k.headDim, c.halves)
		case CacheInt8:
			eachCoded(c, r.panel, r.i8, at, n, k.headDim, c.bytes)
		}
	}
	if k.typ == CacheInt8 {
		for _, s := range spans {
			scales := s.layer.half(half).scale[s.base+s.from:][:s.to-s.from]
			for i := range scales { // each by itself: a block may end between two, wherever the ring is cut
				c.floats(scales[i:][:1])
			}
		}
	}
}

func (c *coder) halves(v []uint16) {
	for len(v) > 0 {
		some := v[:min(len(v), codedValues)]
		for i, b := 0, c.take(2*len(some)); i < len(b); i += 2 {
			if c.reading {
				some[i/2] = binary.LittleEndian.Uint16(b[i:])
			} else {
				binary.LittleEndian.PutUint16(b[i:], some[i/2])
			}
		}
		v = v[len(some):]
	}
}

func (c *coder) bytes(v []int8) {
	for len(v) > 0 {
		some := v[:min(len(v), codedValues)]
		for i, b := 0, c.take(len(some)); i < len(b); i++ {
			if c.reading {
				some[i] = int8(b[i])
			} else {
				b[i] = byte(some[i])
			}
		}
		v = v[len(some):]
	}
}

// eachCoded codes rows at … at+n-1 with code, which takes one.
func eachCoded[T any](c *coder, panel int, rows []T, at, n, dim int, code func([]T)) {
	row := make([]T, dim)
	for i := at; i < at+n; i++ {
		if c.reading {
			code(row)
			setRow(panel, rows, i, row, dim, 0)
		} else {
			getRow(panel, rows, i, row)
			code(row)
		}
	}
}

// checkPlaces holds every cache against the number of tokens.
func (c *coder) checkPlaces(m *Model, s *Session) {
	q, span := s.seq, 1
	if ahead := len(s.ids) - q.n; ahead != 0 && !s.rec.started || ahead < 0 || ahead > m.cfg.MetaContext() {
		c.fail("the text has %d tokens, the model has read %d", len(s.ids), q.n)
	}
	if s.rec.started && q.n%m.cfg.MetaContext() != 0 {
		c.fail("RecGen stands at token %d", q.n)
	}
	if e := m.tokenEncoder; e != nil && (q.tokens.next != q.n || e.cfg.unbounded() && q.tokens.begin != 0) {
		c.fail("the cache of the token encoder ends at row %d, want %d", q.tokens.next, q.n)
	}
	for l, d := range m.decoders {
		cache, want := q.dec[l].cache, d.row(q.n/span)+1
		if s.rec.started {
			want = 0
		} else if q.dec[l].next != want {
			c.fail("decoder %d stands at row %d, want %d", l+1, q.dec[l].next, want)
		}
		if d.local && want > 0 {
			want = (want-1)%d.unit() + 1
		}
		if cache.next != want || (d.local || d.seesAll()) && cache.begin != 0 {
			c.fail("the cache of decoder %d ends at row %d, want %d", l+1, cache.next, want)
		}
		for e, y := range d.stack.memories {
			cache, want := q.dec[l].memories[e], y.rows(q.n/span)
			if cache.next != want || cache.begin != y.firstKept(want) {
				c.fail("memory %d of decoder %d ends at row %d, want %d", e, l+1, cache.next, want)
			}
		}
		span *= d.chunk
		if l >= len(m.encoders) {
			return
		}
		cache, want = q.enc[l], q.n/span
		if s.rec.started {
			want = 0
			if l == len(m.encoders)-1 {
				want = q.n / span
			}
		}
		if cache.next != want || m.encoders[l].stack.cfg.unbounded() && cache.begin != 0 {
			c.fail("the cache of encoder %d ends at row %d, want %d", l+1, cache.next, want)
		}
	}
}
