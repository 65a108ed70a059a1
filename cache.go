package photon

import "math"

// CacheType is how keys and values are held.
type CacheType int

const (
	CacheF32  CacheType = iota // 4 bytes an element
	CacheF16                   // 2 bytes an element
	CacheInt8                  // 1 byte an element and one float32 scale a row and head
)

func (t CacheType) String() string { return [...]string{"f32", "f16", "int8"}[t] }

// headBytes is the size of one head's key (or value) of one row.
func (t CacheType) headBytes(headDim int) int64 {
	switch t {
	case CacheF16:
		return 2 * int64(headDim)
	case CacheInt8:
		return int64(headDim) + 4
	}
	return 4 * int64(headDim)
}

// kvRows stores keys or values: a [heads][rows][headDim] array in the form of a CacheType.
type kvRows struct {
	f32   []float32
	f16   []uint16
	i8    []int8
	scale []float32 // [heads][rows], int8 only
}

func (r *kvRows) resize(t CacheType, heads, rows, headDim int) {
	n := heads * rows * headDim
	switch t {
	case CacheF32:
		r.f32 = grow(r.f32, n)
	case CacheF16:
		r.f16 = grow(r.f16, n)
	case CacheInt8:
		r.i8, r.scale = grow(r.i8, n), grow(r.scale, heads*rows)
	}
}

// grow returns s with length n, with room to spare when a larger array had to be made; the contents are then unspecified.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, 2*cap(s)))
	}
	return s[:n]
}

// set stores the vector x as row number at (head·rows + row), rounding it to the cache's form.
func (r *kvRows) set(t CacheType, at int, x []float32) {
	switch t {
	case CacheF32:
		copy(r.f32[at*len(x):], x)
	case CacheF16:
		narrowF16(r.f16[at*len(x):][:len(x)], x)
	case CacheInt8:
		amax := magnitude(x)
		r.scale[at] = amax / 127
		to := r.i8[at*len(x):][:len(x)]
		if !(amax >= 1e-30 && amax <= math.MaxFloat32) { // the inverse would overflow, or the scale says it all
			clear(to)
			return
		}
		narrowInt8(to, x, 127/amax)
	}
}

// copyRows copies n rows of one head.
func copyRows(t CacheType, headDim int, to *kvRows, toAt int, from *kvRows, fromAt, n int) {
	switch t {
	case CacheF32:
		copy(to.f32[toAt*headDim:][:n*headDim], from.f32[fromAt*headDim:])
	case CacheF16:
		copy(to.f16[toAt*headDim:][:n*headDim], from.f16[fromAt*headDim:])
	case CacheInt8:
		copy(to.i8[toAt*headDim:][:n*headDim], from.i8[fromAt*headDim:])
		copy(to.scale[toAt:][:n], from.scale[fromAt:])
	}
}

// kvCache holds the keys and values of one stack for one text: the rows first … next-1, a ring in which row p stands at slot p mod capacity. The ring grows
// with the text, up to the window if there is one; from then on a row takes the place of the oldest.
type kvCache struct {
	typ            CacheType
	heads, headDim int
	window         int // 0: unbounded
	capacity       int // rows that the arrays hold
	first, next    int // the positions held
	layers         []kvLayer
	read, written  int64 // bytes that attention read and that were stored, ever
}

type kvLayer struct{ k, v kvRows }

// half is the keys (0) or the values (1).
func (l *kvLayer) half(i int) *kvRows {
	if i == 0 {
		return &l.k
	}
	return &l.v
}

func newKVCache(t CacheType, s StackConfig) *kvCache {
	return &kvCache{typ: t, heads: s.KVHeads, headDim: s.HeadDim, window: s.SlidingWindow, layers: make([]kvLayer, s.Layers)}
}

// empty is a new cache of the same shape, which goes on counting bytes.
func (c *kvCache) empty() *kvCache {
	return &kvCache{typ: c.typ, heads: c.heads, headDim: c.headDim, window: c.window, layers: make([]kvLayer, len(c.layers)), read: c.read, written: c.written}
}

// rowBytes is what one row costs: keys and values of all heads and layers.
func (c *kvCache) rowBytes() int64 {
	return 2 * int64(len(c.layers)) * int64(c.heads) * c.typ.headBytes(c.headDim)
}

func (c *kvCache) rows() int { return c.next - c.first }

// reset forgets every row; the next one will be at position.
func (c *kvCache) reset(position int) { c.first, c.next = position, position }

// reserve makes room for n more rows.
func (c *kvCache) reserve(n int) {
	need := c.rows() + n
	if c.window > 0 {
		need = min(need, c.window)
	}
	if need <= c.capacity {
		return
	}
	capacity := max(need, 2*c.capacity, 8)
	if c.window > 0 {
		capacity = min(capacity, c.window)
	}
	c.move(capacity)
}

// move puts the rows into new arrays of that capacity.
func (c *kvCache) move(capacity int) {
	old := c.layers
	c.layers = make([]kvLayer, len(old))
	for i := range c.layers {
		for j := range 2 {
			to, from := c.layers[i].half(j), old[i].half(j)
			to.resize(c.typ, c.heads, capacity, c.headDim)
			for p := c.first; p < c.next; {
				a, b := p%c.capacity, p%capacity
				run := min(c.next-p, c.capacity-a, capacity-b)
				for h := range c.heads {
					copyRows(c.typ, c.headDim, to, h*capacity+b, from, h*c.capacity+a, run)
				}
				p += run
			}
		}
	}
	c.capacity = capacity
}

// commit appends n rows to head h of a layer from fresh [heads][freshRows][headDim], beginning at fresh row at. Of more rows than a window holds only the
// last are kept. Calls for different heads may run at the same time.
func (c *kvCache) commit(layer, h int, fresh *kvLayer, freshRows, at, n int) {
	for p := max(0, n-c.capacity); p < n; {
		slot := (c.next + p) % c.capacity
		run := min(n-p, c.capacity-slot)
		for j := range 2 {
			copyRows(c.typ, c.headDim, c.layers[layer].half(j), h*c.capacity+slot, fresh.half(j), h*freshRows+at+p, run)
		}
		p += run
	}
}

// advance counts n rows that every layer has committed.
func (c *kvCache) advance(n int) {
	c.written += int64(n) * c.rowBytes()
	c.next += n
	if c.window > 0 {
		c.first = max(c.first, c.next-c.window)
	}
}

// span is a run of rows that stand side by side: row numbers of a kvRows, within one head's part.
type span struct{ at, n int }

// spans are the places of rows lo … next-1, oldest first: one run, or two where the ring wraps.
func (c *kvCache) spans(lo int) (a, b span) {
	n := c.next - lo
	if n <= 0 {
		return
	}
	at := lo % c.capacity
	run := min(n, c.capacity-at)
	return span{at, run}, span{0, n - run}
}

// clone copies the cache; the copy has room for no more than its rows.
func (c *kvCache) clone() *kvCache {
	d := *c
	d.move(c.rows())
	return &d
}
