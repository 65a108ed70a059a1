package photon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/photon-lm/photon/internal/bounded"
)

// TestSnapshotDamage: of every golden model, any flipped bit and any cut is refused, and any other model.
func TestSnapshotDamage(t *testing.T) {
	list := goldens(t)
	other, err := Load(list[0].dir)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(83, 0))
	flips, cuts := 0, 0
	eachBit, eachCut := times(13, 1), times(100, 1)
	if testing.Short() { // an emulated processor takes minutes for more
		eachBit, eachCut = 601, 1009
	}
	for _, cache := range []CacheType{CacheF32, CacheF16, CacheInt8} {
		eachGolden(t, func(t *testing.T, g golden, m *Model) {
			s := m.NewSession()
			if err := s.Append(background, g.ids[:21]...); err != nil {
				t.Fatal(err)
			}
			data := snapshotOf(t, s)
			flip := func(bit int) {
				data[bit/8] ^= 1 << (bit % 8)
				if _, err := m.ReadSession(bytes.NewReader(data)); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrMismatch) {
					t.Fatalf("bit %d flipped: %v", bit, err)
				}
				data[bit/8] ^= 1 << (bit % 8)
				flips++
			}
			for bit := r.IntN(eachBit); bit < 8*len(data); bit += eachBit {
				flip(bit)
			}
			for at := r.IntN(eachCut); at < len(data); at += eachCut {
				if _, err := m.ReadSession(bytes.NewReader(data[:at])); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("cut at %d: %v", at, err)
				}
				cuts++
			}
			if g.dir != list[0].dir {
				_, err := other.ReadSession(bytes.NewReader(data))
				checkRefused(t, err, ErrMismatch, "another model")
			}
			m.cacheType = (cache + 1) % 3
			_, err := m.ReadSession(bytes.NewReader(data))
			checkRefused(t, err, ErrMismatch, "caches")
			m.cacheType = cache
			whole := bytes.NewReader(append(data, "more"...))
			if _, err := m.ReadSession(whole); err != nil || whole.Len() != 4 {
				t.Errorf("%v, and %d bytes are left of 4", err, whole.Len())
			}
		}, WithCache(cache))
	}
	figure(t, "%d flipped bits and %d cuts of snapshots are refused", flips, cuts)
}

func snapshotOf(t testing.TB, s *Session) []byte {
	t.Helper()
	var b bytes.Buffer
	if n, err := s.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("%d of %d bytes, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// TestSnapshotIdentity: a snapshot is of weights as stored and of kernels. Weights that differ by a multiple of CRC-32C's
// polynomial, which that sum does not see, are others.
func TestSnapshotIdentity(t *testing.T) {
	g := goldens(t)[0]
	data, err := os.ReadFile(filepath.Join(g.dir, weightsFile))
	if err != nil {
		t.Fatal(err)
	}
	load := func(data []byte) *Model {
		m, err := LoadFS(mapFS(t, g.dir, data))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := load(data)
	changed := slices.Clone(data)
	at := len(changed) - 64
	sum := crc32.Checksum(changed[at:], castagnoli)
	binary.LittleEndian.PutUint64(changed[at:], binary.LittleEndian.Uint64(changed[at:])^crcPolynomial)
	if crc32.Checksum(changed[at:], castagnoli) != sum {
		t.Fatal("the change shows in the CRC")
	}
	if load(changed).fingerprint() == m.fingerprint() {
		t.Error("other weights, the same fingerprint")
	}
	for _, threads := range []int{1, 3, 64} {
		same, err := LoadFS(mapFS(t, g.dir, data), WithThreads(threads))
		if err != nil || same.fingerprint() != m.fingerprint() {
			t.Errorf("the same weights on %d threads, another fingerprint: %v", threads, err)
		}
	}
	if held, err := LoadFS(mapFS(t, g.dir, data), WithWeights(Int8)); err != nil || held.fingerprint() == m.fingerprint() {
		t.Errorf("weights held as int8, the same fingerprint: %v", err)
	}
	s := m.NewSession()
	if err := s.Append(background, g.ids[:9]...); err != nil {
		t.Fatal(err)
	}
	snapshot := snapshotOf(t, s)
	for _, name := range kernelTiers()[1:] {
		t.Run(name, func(t *testing.T) {
			withKernel(t, name)
			_, err := m.ReadSession(bytes.NewReader(snapshot))
			checkRefused(t, err, ErrMismatch, "/"+name, "PHOTON_KERNEL")
		})
	}
}

// crcPolynomial is x³² + … of CRC-32C, its bits in the order of a little-endian CRC: adding it changes no sum.
const crcPolynomial = 1 | 0x82f63b78<<1

func mapFS(t *testing.T, dir string, weights []byte) fstest.MapFS {
	fsys := fstest.MapFS{weightsFile: {Data: weights}}
	for _, name := range []string{configFile, tokenizerFileName} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			fsys[name] = &fstest.MapFile{Data: data}
		}
	}
	return fsys
}

// limitedWriter takes so many bytes, and of the rest a part of one call without an error, or fails.
type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(b []byte) (int, error) {
	n := min(w.left, len(b))
	w.left -= n
	if n < len(b) {
		return n, w.err
	}
	return n, nil
}

// TestSnapshotWriters: a writer that takes less than it is given is an error, whatever it says.
func TestSnapshotWriters(t *testing.T) {
	g := goldens(t)[0]
	m, err := Load(g.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewSession()
	if err := s.Append(background, g.ids...); err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	size := len(snapshotOf(t, s))
	for left := range size {
		if n, err := s.WriteTo(&limitedWriter{left: left}); err != io.ErrShortWrite || n != int64(left) {
			t.Fatalf("a writer of %d bytes: %d, %v", left, n, err)
		}
		if n, err := s.WriteTo(&limitedWriter{left: left, err: full}); err != full || n != int64(left) {
			t.Fatalf("a full writer of %d bytes: %d, %v", left, n, err)
		}
	}
	broken := io.MultiReader(bytes.NewReader(snapshotOf(t, s)[:100]), iotest.ErrReader(full))
	if _, err := m.ReadSession(broken); !errors.Is(err, full) || errors.Is(err, ErrCorrupt) {
		t.Errorf("a reader that fails: %v", err)
	}
}

// TestSnapshotReaders: what is no reader or writer, or gives nothing, is an error.
func TestSnapshotReaders(t *testing.T) {
	m := stories(t)
	s := m.NewSession()
	if err := s.Append(background, 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteTo(nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no writer: %v", err)
	}
	data := snapshotOf(t, s)
	for _, c := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"no reader", nil, ErrInvalid},
		{"nothing, and no end", reading(func([]byte) (int, error) { return 0, nil }), io.ErrNoProgress},
		{"less than nothing", reading(func([]byte) (int, error) { return -1, nil }), ErrInvalid},
		{"more than asked for", reading(func(b []byte) (int, error) { return len(b) + 1, nil }), ErrInvalid},
		{"an error", iotest.ErrReader(io.ErrClosedPipe), io.ErrClosedPipe},
		{"a byte at a time", iotest.OneByteReader(bytes.NewReader(data)), nil},
		{"the end beside the last bytes", iotest.DataErrReader(bytes.NewReader(data)), nil},
		{"a timeout", iotest.TimeoutReader(bytes.NewReader(data)), iotest.ErrTimeout},
	} {
		if _, err := m.ReadSession(c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	_, err := m.ReadSession(iotest.OneByteReader(bytes.NewReader(data[:snapshotHeader+2])))
	checkRefused(t, err, ErrCorrupt, fmt.Sprintf("ends after %d bytes", snapshotHeader+2))
}

type reading func([]byte) (int, error)

func (f reading) Read(b []byte) (int, error) { return f(b) }

// TestSnapshotMemory: writing takes next to no memory, reading next to none beside the session, and a snapshot that
// claims more than it has takes no more than it has.
func TestSnapshotMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's code allocates")
	}
	c := flat(50, testStack(64, 4, 4, 4, 16, 64, 0, 10000))
	m, _ := randomModel(t, rand.New(rand.NewPCG(81, 0)), c)
	s := m.NewSession()
	if err := s.Append(background, randomText(m, 8192)...); err != nil {
		t.Fatal(err)
	}
	data := snapshotOf(t, s)
	if took := allocated(func() { s.WriteTo(io.Discard) }); took > uint64(len(data)/10) {
		t.Errorf("writing %d bytes allocates %d", len(data), took)
	}
	var held *Session
	live := retained(func() { held, _ = m.ReadSession(bytes.NewReader(data)) })
	if held == nil || live > int64(len(data))*11/10 {
		t.Errorf("a snapshot of %d bytes becomes a session of %d", len(data), live)
	}
	// Rows are there only when they have come.
	var body []byte
	k := coder{flush: func(b []byte) error { body = append(body, b...); return nil }}
	k.session(s)
	few := coder{data: body[:1<<20], reading: true, fill: func() ([]byte, error) { return nil, nil }}
	took := allocated(func() { few.session(m.NewSession()) })
	if few.err == nil || took > 4<<20 {
		t.Errorf("1 MiB of %d allocate %d: %v", len(data), took, few.err)
	}
}

// retained is what f leaves on the heap.
func retained(f func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// TestSnapshotRings: rows come back wherever a ring began that held them, in every form. The caches of a text that has
// grown are larger than those of one that was read, and begin elsewhere.
func TestSnapshotRings(t *testing.T) {
	for _, cache := range cacheTypes {
		m, _ := randomModel(t, rand.New(rand.NewPCG(82, 0)), flatWindow(20), WithCache(cache))
		text := randomText(m, 150)
		s, whole := m.NewSession(), m.NewSession()
		if err := whole.Append(background, text[:90]...); err != nil {
			t.Fatal(err)
		}
		for n := range 90 {
			if err := s.Append(background, text[n]); err != nil {
				t.Fatal(err)
			}
			s = s.Fork() // which has room for no more than its rows
			read, err := m.ReadSession(bytes.NewReader(snapshotOf(t, s)))
			if err != nil {
				t.Fatal(err)
			}
			if err := read.Append(background, text[n+1:90]...); err != nil {
				t.Fatal(err)
			}
			near(t, fmt.Sprintf("%v, read after %d tokens", cache, n+1), read.Logits(), whole.Logits(), 0)
		}
	}
}

// TestSnapshotRingsOfManyBlocks: where a block ends does not depend on where a ring's rows are cut in two.
func TestSnapshotRingsOfManyBlocks(t *testing.T) {
	c := flat(30, testStack(64, 1, 8, 8, 8, 8, 600, 100))
	c.ModelType = modelTypeMistral
	for _, cache := range cacheTypes {
		m, _ := randomModel(t, rand.New(rand.NewPCG(83, 0)), c, WithCache(cache))
		text := randomText(m, 1300)
		s := m.NewSession()
		for s.Len() < len(text) {
			if err := s.Append(background, text[s.Len():][:5]...); err != nil {
				t.Fatal(err)
			}
			snapshot := snapshotOf(t, s)
			read, err := m.ReadSession(bytes.NewReader(snapshot))
			if err != nil {
				t.Fatalf("%v, after %d tokens: %v", cache, s.Len(), err)
			}
			if !bytes.Equal(snapshotOf(t, read), snapshot) {
				t.Errorf("%v, after %d tokens: what was read writes another snapshot", cache, s.Len())
			}
		}
	}
}

func flatWindow(window int) Config {
	c := flat(30, testStack(12, 2, 2, 1, 6, 8, window, 100))
	c.ModelType = modelTypeMistral
	return c
}

// TestSnapshotCounters: counters at their limits are refused or go on, and none overflows.
func TestSnapshotCounters(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden, m *Model) {
		s := m.NewSession()
		if err := s.Append(background, g.ids[:9]...); err != nil {
			t.Fatal(err)
		}
		s.seq.caches(func(c *kvCache) { c.read, c.written = math.MaxInt64-1, math.MaxInt64-1 })
		s.stats.Tokens = math.MaxInt / 8
		read, err := m.ReadSession(bytes.NewReader(snapshotOf(t, s)))
		if err != nil {
			t.Fatal(err)
		}
		if firstError(read.Generate(background, MaxTokens(5))) != nil || read.Append(background, g.ids...) != nil {
			t.Fatal("it does not go on")
		}
		if st := read.Stats(); st.KVReadBytes < 0 || st.KVWriteBytes < 0 || st.Tokens < 0 {
			t.Errorf("%+v", st)
		}
	})
}

// FuzzSnapshot has bodies with a valid checksum: whatever they say, no panic and no allocation beyond their size.
func FuzzSnapshot(f *testing.F) {
	var models []*Model
	for _, g := range goldens(f) {
		m, err := Load(g.dir)
		if err != nil {
			f.Fatal(err)
		}
		s := m.NewSession()
		if err := s.Append(background, g.ids[:23]...); err != nil {
			f.Fatal(err)
		}
		var body []byte
		c := coder{flush: func(block []byte) error { body = append(body, block...); return nil }}
		c.session(s)
		f.Add(len(models), append(body, c.data...))
		models = append(models, m)
	}
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		m := models[uint(i)%uint(len(models))]
		s := m.NewSession()
		c := coder{data: body, reading: true, fill: func() ([]byte, error) { return nil, nil }}
		bounded.Run(t, 8*len(body)+1<<20, func() { c.session(s) })
		if c.err == nil && len(c.data) == 0 {
			bounded.Run(t, 8*len(body)+1<<20, func() { s.Append(background, 1, 2, 3) })
		}
	})
}

// Weights held as bfloat16 are multiplied in pairs on some processors, and a snapshot tells those apart. Others it does not.
func TestSnapshotOfPairs(t *testing.T) {
	names := map[string]bool{}
	for _, held := range []WeightType{BF16, Int8} {
		for _, pairs := range []bool{false, true} {
			name := arithmetic(held, kernelTiers()[0], pairs)
			if names[name] = true; len(name) > kernelBytes {
				t.Errorf("%q does not fit a snapshot", name)
			}
		}
	}
	if len(names) != 2 {
		t.Errorf("%v", names)
	}
}
