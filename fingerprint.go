package photon

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash"
	"math"
	"sync"
	"sync/atomic"
)

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
