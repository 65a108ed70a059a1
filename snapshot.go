package photon

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// A snapshot is, little-endian: magic, the model's fingerprint, the cache type, the length of the body, the body, and a CRC-32C of all
// that. The body is what snapshotBody and its helpers write: the text's counters, the rows that wait, and every cache oldest row first.
const snapshotMagic = "PHOTON-SESSION-2"

const snapshotHeader = len(snapshotMagic) + 32 + 1 + 8

// WriteTo writes a snapshot of the text: bound to the model and to how its weights and caches are held, and checksummed. Options are not part of it.
func (s *Session) WriteTo(w io.Writer) (int64, error) {
	if err := s.ready(); err != nil {
		return 0, err
	}
	s.Logits() // has the model read all of the text
	var body coder
	body.session(s)
	out := append([]byte(snapshotMagic), s.m.fingerprint[:]...)
	out = append(out, byte(s.m.cacheType))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(body.data)))
	out = append(out, body.data...)
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
	n, err := w.Write(out)
	return int64(n), err
}

// ReadSession reads a snapshot that a session of the same model wrote; the text goes on as if it had never been put aside. It reads no further than the snapshot's end. A
// snapshot of another model, or of the same with weights or caches held differently, matches ErrMismatch; a damaged one ErrCorrupt.
func (m *Model) ReadSession(r io.Reader, opts ...Option) (*Session, error) {
	s := m.NewSession(opts...)
	if err := s.ready(); err != nil {
		return nil, err
	}
	header := make([]byte, snapshotHeader)
	if n, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("photon: snapshot: ends after %d of the header's %d bytes: %w", n, len(header), ErrCorrupt)
	}
	if string(header[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("photon: snapshot: does not begin with %q: this is no snapshot of a session: %w", snapshotMagic, ErrCorrupt)
	}
	at := header[len(snapshotMagic):]
	if !bytes.Equal(at[:32], m.fingerprint[:]) {
		return nil, fmt.Errorf("photon: snapshot: written with another model, or with its weights held differently: load that one: %w", ErrMismatch)
	}
	if CacheType(at[32]) != m.cacheType {
		return nil, fmt.Errorf("photon: snapshot: its caches are not %v: load the model with the cache type it was written with: %w", m.cacheType, ErrMismatch)
	}
	size := binary.LittleEndian.Uint64(at[33:])
	if size > math.MaxInt64-4 {
		return nil, fmt.Errorf("photon: snapshot: claims %d bytes: %w", size, ErrCorrupt)
	}
	var rest bytes.Buffer // grows with what is really there
	if n, err := io.CopyN(&rest, r, int64(size)+4); err != nil {
		return nil, fmt.Errorf("photon: snapshot: ends after %d of %d bytes: %w", n, size+4, ErrCorrupt)
	}
	body, sum := rest.Bytes()[:size], binary.LittleEndian.Uint32(rest.Bytes()[size:])
	if got := crc32.Update(crc32.Checksum(header, castagnoli), castagnoli, body); got != sum {
		return nil, fmt.Errorf("photon: snapshot: checksum %08x, want %08x: the bytes were changed: %w", got, sum, ErrCorrupt)
	}
	c := coder{data: body, reading: true}
	c.session(s)
	if c.err == nil && len(c.data) > 0 {
		c.fail("%d bytes too many", len(c.data))
	}
	if c.err != nil {
		return nil, fmt.Errorf("photon: snapshot: %w", c.err)
	}
	return s, nil
}

// coder writes values to data, or reads them from its front: one description of the body serves both ways.
type coder struct {
	data    []byte
	reading bool
	err     error
}

func (c *coder) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format+": %w", append(args, ErrCorrupt)...)
	}
}

// take returns the next n bytes to be read or written; nil after an error.
func (c *coder) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if c.reading {
		if n < 0 || n > len(c.data) {
			c.fail("the body ends early")
			return nil
		}
		b := c.data[:n]
		c.data = c.data[n:]
		return b
	}
	at := len(c.data)
	c.data = append(c.data, make([]byte, n)...)
	return c.data[at:]
}

// count codes an integer from 0 to most.
func (c *coder) count(name string, v *int, most int) {
	b := c.take(8)
	switch {
	case b == nil:
	case !c.reading:
		binary.LittleEndian.PutUint64(b, uint64(*v))
	default:
		if n := binary.LittleEndian.Uint64(b); n <= uint64(most) {
			*v = int(n)
		} else {
			c.fail("%s is %d, the most is %d", name, n, most)
		}
	}
}

func (c *coder) uint32s(v []uint32) {
	b := c.take(4 * len(v))
	for i := 0; i < len(b); i += 4 {
		if c.reading {
			v[i/4] = binary.LittleEndian.Uint32(b[i:])
		} else {
			binary.LittleEndian.PutUint32(b[i:], v[i/4])
		}
	}
}

// floats codes a slice of a length that both sides know.
func (c *coder) floats(v []float32) {
	b := c.take(4 * len(v))
	for i := 0; i < len(b); i += 4 {
		if c.reading {
			v[i/4] = math.Float32frombits(binary.LittleEndian.Uint32(b[i:]))
		} else {
			binary.LittleEndian.PutUint32(b[i:], math.Float32bits(v[i/4]))
		}
	}
}

// some codes a slice of at most most values.
func (c *coder) some(name string, v *[]float32, most int) {
	n := len(*v)
	c.count(name, &n, most)
	if c.reading && c.err == nil {
		if 4*n > len(c.data) {
			c.fail("%s: the body ends early", name)
			return
		}
		*v = make([]float32, n)
	}
	if c.err == nil {
		c.floats((*v)[:n])
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
	if c.reading && c.err == nil {
		*v = make([]int, min(n, len(c.data)/8+1))
	}
	for i := 0; i < n && c.err == nil; i++ {
		c.count(name, &(*v)[i], vocab-1)
	}
}

// session codes a text. Reading, s is a new session of the model, and whatever does not follow from the number of tokens is checked against it.
func (c *coder) session(s *Session) {
	m, q := s.m, s.seq
	const most = math.MaxInt / 8
	c.count("tokens", &q.n, most)
	if c.reading {
		q.synced = q.n
	}
	c.count("prompt tokens", &s.stats.PromptTokens, most)
	c.count("generated tokens", &s.stats.Tokens, most)
	c.ids("text", &s.ids, most, m.cfg.VocabSize)
	c.count("text for stop strings", &s.since, len(s.ids))
	c.count("text not given out", &s.held, most)

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

// cache codes the rows that a cache holds.
func (c *coder) cache(name string, k *kvCache, most int) {
	read, written := int(k.read), int(k.written)
	c.count(name+" bytes read", &read, math.MaxInt)
	c.count(name+" bytes written", &written, math.MaxInt)
	first, next := k.oldest(), k.next
	c.count(name+" next row", &next, most)
	c.count(name+" first row", &first, next)
	if c.err != nil {
		return
	}
	if c.reading {
		if int64(next-first) > int64(len(c.data))/k.layerBytes() {
			c.fail("%s: the body ends early", name)
			return
		}
		k.reset(first)
		k.next = next
		if need, _ := k.bytes(); need > int64(len(c.data)) {
			c.fail("%s: the body ends early", name)
			return
		}
		k.next = first
		k.reserve(next - first)
		k.next, k.read, k.written = next, int64(read), int64(written)
		if k.oldest() != first {
			c.fail("%s begins at row %d, the windows at %d", name, first, k.oldest())
			return
		}
	}
	var spans []keySpan
	for i := range k.layers {
		if first := k.first(i); first < next {
			for j := range 2 {
				for h := range k.heads {
					spans = k.layers[i].spans(spans[:0], h, first, next)
					for _, s := range spans {
						c.rows(k, s.layer.half(j), s.base+s.from, s.to-s.from)
					}
				}
			}
		}
	}
}

// rows codes n rows of one head, one behind the other.
func (c *coder) rows(k *kvCache, r *kvRows, at, n int) {
	switch k.typ {
	case CacheF32:
		eachCoded(c, r.panel, r.f32, at, n, k.headDim, c.floats)
	case CacheF16:
		eachCoded(c, r.panel, r.f16, at, n, k.headDim, func(v []uint16) {
			for i, b := 0, c.take(2*len(v)); i < len(b); i += 2 {
				if c.reading {
					v[i/2] = binary.LittleEndian.Uint16(b[i:])
				} else {
					binary.LittleEndian.PutUint16(b[i:], v[i/2])
				}
			}
		})
	case CacheInt8:
		eachCoded(c, r.panel, r.i8, at, n, k.headDim, func(v []int8) {
			for i, b := 0, c.take(len(v)); i < len(b); i++ {
				if c.reading {
					v[i] = int8(b[i])
				} else {
					b[i] = byte(v[i])
				}
			}
		})
		c.floats(r.scale[at:][:n])
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
