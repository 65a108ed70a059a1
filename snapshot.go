package photon

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// A snapshot is, little-endian: magic, the model's fingerprint, the cache type, the kernels' name, and blocks, the last
// of them empty. A block is its length in 4 bytes, so many bytes of the body, and the CRC-32C of all before, so that
// each is checked before anything in it is believed, and neither side ever holds more than one. The body is what
// coder.session and its helpers write: the text's counters, the rows that wait, and every cache oldest row first.
const snapshotMagic = "PHOTON-SESSION-4"

const (
	snapshotHeader = len(snapshotMagic) + 32 + 1 + kernelBytes
	kernelBytes    = 32      // of the kernels' name, filled up with zeros
	snapshotBlock  = 1 << 16 // bytes of the body in a block, at most
)

// arithmetic names what a text's bits depend on besides the model. Kernels of one name multiply pairs of bfloat16 on some
// processors and not on others, which rounds differently.
func arithmetic(held WeightType, kernel string, pairs bool) string {
	name := runtime.GOARCH + "/" + kernel
	if held == BF16 && pairs {
		name += " in pairs"
	}
	return name
}

func (m *Model) arithmetic() string { return arithmetic(m.weights, currentKernel, multipliesPairs()) }

// header is how the model's snapshots begin.
func (m *Model) header() []byte {
	var kernel [kernelBytes]byte
	copy(kernel[:], m.arithmetic())
	fingerprint := m.fingerprint()
	header := append([]byte(snapshotMagic), fingerprint[:]...)
	return append(append(header, byte(m.cacheType)), kernel[:]...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteTo writes a snapshot of the text: bound to the model, to how its weights and caches are held and to the
// kernels, and checksummed. Options are not part of it. It needs no memory to speak of beside the session. The first
// snapshot that a model writes or reads has it hash its weights, some seconds for 10 GB.
func (s *Session) WriteTo(w io.Writer) (int64, error) {
	if err := s.ready(); err != nil {
		return 0, err
	}
	if w == nil {
		return 0, fmt.Errorf("photon: WriteTo: the writer is nil: give a file or a buffer: %w", ErrInvalid)
	}
	s.Logits() // has the model read all of the text
	out := &blockWriter{w: w}
	c := coder{flush: out.block}
	if c.err = out.write(s.m.header()); c.err == nil {
		c.session(s)
	}
	if len(c.data) > 0 && c.err == nil {
		c.err = out.block(c.data)
	}
	if c.err == nil {
		c.err = out.block(nil)
	}
	return out.n, c.err
}

// ReadSession reads a snapshot that a session of the same model wrote; the text goes on as if it had never been put
// aside. It reads no further than the snapshot's end, and needs no memory to speak of beside the session, which grows
// with what is really there. A snapshot of another model, or of the same with weights or caches held differently or with
// other kernels, matches ErrMismatch; a damaged one ErrCorrupt; an error of r is returned as it is.
func (m *Model) ReadSession(r io.Reader, opts ...Option) (*Session, error) {
	s := m.NewSession(opts...)
	if err := s.ready(); err != nil {
		return nil, err
	}
	if r == nil {
		return nil, fmt.Errorf("photon: ReadSession: the reader is nil: give a file or a buffer: %w", ErrInvalid)
	}
	in := &blockReader{r: r}
	header := make([]byte, snapshotHeader)
	if err := in.read(header); err != nil {
		return nil, fmt.Errorf("photon: snapshot: header: %w", err)
	}
	if err := m.checkHeader(header); err != nil {
		return nil, fmt.Errorf("photon: snapshot: %w", err)
	}
	c := coder{fill: in.block, reading: true}
	c.session(s)
	if c.err == nil {
		if len(c.data) > 0 {
			c.fail("%d bytes too many", len(c.data))
		} else if rest, err := in.block(); err != nil {
			c.err = err
		} else if len(rest) > 0 {
			c.fail("more behind its end")
		}
	}
	if c.err != nil {
		return nil, fmt.Errorf("photon: snapshot: %w", c.err)
	}
	return s, nil
}

func (m *Model) checkHeader(header []byte) error {
	if string(header[:len(snapshotMagic)]) != snapshotMagic {
		return fmt.Errorf("does not begin with %q: it is no snapshot of a session, or one of another version: %w",
			snapshotMagic, ErrCorrupt)
	}
	at := header[len(snapshotMagic):]
	if m.fingerprint() != [32]byte(at) {
		return fmt.Errorf("written with another model, or with its weights held differently: load that one: %w", ErrMismatch)
	}
	if CacheType(at[32]) != m.cacheType {
		return fmt.Errorf("its caches are not %v: load the model with the cache type it was written with: %w",
			m.cacheType, ErrMismatch)
	}
	kernel := strings.TrimRight(string(at[33:]), "\x00")
	if kernel != m.arithmetic() {
		return fmt.Errorf("written with the kernels %.32q, which round differently than %q here: read it on such a machine, "+
			"or with PHOTON_KERNEL set to what is behind the slash, or append its text to a new session: %w",
			kernel, m.arithmetic(), ErrMismatch)
	}
	return nil
}

// blockWriter writes to w and keeps the sum of all.
type blockWriter struct {
	w   io.Writer
	n   int64
	sum uint32
}

func (b *blockWriter) write(data []byte) error {
	n, err := b.w.Write(data)
	b.n += int64(max(0, min(n, len(data))))
	if err == nil && n != len(data) {
		err = io.ErrShortWrite
	}
	b.sum = crc32.Update(b.sum, castagnoli, data)
	return err
}

func (b *blockWriter) block(data []byte) error {
	err := b.write(binary.LittleEndian.AppendUint32(nil, uint32(len(data))))
	if err == nil && len(data) > 0 {
		err = b.write(data)
	}
	if err == nil {
		err = b.write(binary.LittleEndian.AppendUint32(nil, b.sum))
	}
	return err
}

// blockReader reads what a blockWriter wrote.
type blockReader struct {
	r   io.Reader
	n   int64
	sum uint32
	buf []byte
}

// read fills data. A reader that gives neither bytes nor an error many times in a row never will.
func (b *blockReader) read(data []byte) error {
	for n, empty := 0, 0; n < len(data); {
		got, err := b.r.Read(data[n:])
		if got < 0 || got > len(data)-n {
			return fmt.Errorf("the reader says that it has read %d of %d bytes: mend its Read: %w",
				got, len(data)-n, ErrInvalid)
		}
		n, empty, b.n = n+got, empty+1, b.n+int64(got)
		switch {
		case n == len(data):
		case err == io.EOF:
			return fmt.Errorf("ends after %d bytes: %w", b.n, ErrCorrupt)
		case err != nil:
			return err
		case got > 0:
			empty = 0
		case empty == mostEmpty:
			return io.ErrNoProgress
		}
	}
	b.sum = crc32.Update(b.sum, castagnoli, data)
	return nil
}

const mostEmpty = 100

// block returns the next block, valid until the next call.
func (b *blockReader) block() ([]byte, error) {
	var word [4]byte
	if err := b.read(word[:]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(word[:])
	if size > snapshotBlock {
		return nil, fmt.Errorf("a block of %d bytes, the most is %d: %w", size, snapshotBlock, ErrCorrupt)
	}
	b.buf = grow(b.buf, int(size))
	if err := b.read(b.buf); err != nil {
		return nil, err
	}
	want := b.sum
	if err := b.read(word[:]); err != nil {
		return nil, err
	}
	if got := binary.LittleEndian.Uint32(word[:]); got != want {
		return nil, fmt.Errorf("checksum %08x before byte %d, want %08x: the bytes were changed: %w",
			got, b.n, want, ErrCorrupt)
	}
	return b.buf, nil
}

// An array is weights as a model holds them.
type array interface{ hash(h hash.Hash) }

type vector []float32

func (v *vector) hash(h hash.Hash) { hashFloats(h, *v) }

func (t *table) hash(h hash.Hash) {
	h.Write(t.stored.data)
	hashFloats(h, t.stored.scales)
}

func (w *matrix) hash(h hash.Hash) {
	hashFloats(h, w.f32)
	hashWords(h, w.bf16)
	h.Write(w.quant)
}

// fingerprint is the SHA-256 of the config and of all weights as they are held, on which, with the kernels, a text's
// bits depend. Few programs ask for it, so it is computed when one does, by as many goroutines as a call has.
func (m *Model) fingerprint() [sha256.Size]byte {
	m.identify.Do(func() {
		sums := make([][sha256.Size]byte, len(m.held))
		var next atomic.Int64
		var all sync.WaitGroup
		for range min(m.threads, len(m.held)) {
			all.Go(func() {
				h := sha256.New()
				for i := next.Add(1) - 1; i < int64(len(sums)); i = next.Add(1) - 1 {
					h.Reset()
					m.held[i].hash(h)
					h.Sum(sums[i][:0])
				}
			})
		}
		all.Wait()
		h := sha256.New()
		config, _ := json.Marshal(m.cfg) // which was read from JSON
		h.Write(append(config, byte(m.weights)))
		for i := range sums {
			h.Write(sums[i][:])
		}
		h.Sum(m.identity[:0])
	})
	return m.identity
}

const hashedValues = 4 << 10 // that are written down at a time

func hashFloats(h hash.Hash, v []float32) {
	buf := make([]byte, 0, 4*min(len(v), hashedValues))
	for len(v) > 0 {
		some := v[:min(len(v), hashedValues)]
		buf = buf[:4*len(some)]
		for i, x := range some {
			binary.LittleEndian.PutUint32(buf[4*i:], math.Float32bits(x))
		}
		h.Write(buf)
		v = v[len(some):]
	}
}

func hashWords(h hash.Hash, v []uint16) {
	buf := make([]byte, 0, 2*min(len(v), hashedValues))
	for len(v) > 0 {
		some := v[:min(len(v), hashedValues)]
		buf = buf[:2*len(some)]
		for i, x := range some {
			binary.LittleEndian.PutUint16(buf[2*i:], x)
		}
		h.Write(buf)
		v = v[len(some):]
	}
}
