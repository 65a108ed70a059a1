package photon

import (
	"math"
	"slices"
)

// CacheType is how keys and values are held.
type CacheType int

const (
	CacheF32  CacheType = iota // 4 bytes an element
	CacheF16                   // 2 bytes an element
	CacheInt8                  // 1 byte an element and one float32 scale a row and head
)

func (t CacheType) String() string { return nameOf("CacheType", int(t), "f32", "f16", "int8") }

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

// kvRows stores keys or values in the form of a CacheType. Values are an array [heads][rows][headDim]. Keys stand side by side in
// panels, [heads][rows/panel][headDim][panel], so that a query's scores with them are sums of rows too, without any across a row.
type kvRows struct {
	panel int // keys: 64, or as many as there are rows at all, 16 or 32; values: 0
	f32   []float32
	f16   []uint16
	i8    []int8
	scale []float32 // [heads][rows], int8 only
}

type kvLayer struct{ k, v kvRows }

// half is the keys (0) or the values (1).
func (l *kvLayer) half(i int) *kvRows {
	if i == 0 {
		return &l.k
	}
	return &l.v
}

// resize makes room for as many rows, whole panels of them, of which it keeps none.
func (l *kvLayer) resize(t CacheType, heads, rows, headDim int) {
	l.k.panel = min(rows, keyPanel)
	n := heads * rows * headDim
	for i := range 2 {
		r := l.half(i)
		switch t {
		case CacheF32:
			r.f32 = grow(r.f32, n)
		case CacheF16:
			r.f16 = grow(r.f16, n)
		case CacheInt8:
			r.i8, r.scale = grow(r.i8, n), grow(r.scale, heads*rows)
		}
	}
}

// grow returns s with length n, with room to spare when a larger array had to be made; the contents are then unspecified.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, 2*cap(s)))
	}
	return s[:n]
}

// wholePanels is the rows of as many panels as hold n.
func wholePanels(n int) int {
	panel := 16
	for panel < min(n, keyPanel) {
		panel *= 2
	}
	return (n + panel - 1) / panel * panel
}

// set stores the vector x as row number at (head·rows + row), rounding it to the cache's form.
func (r *kvRows) set(t CacheType, at int, x []float32) {
	switch t {
	case CacheF32:
		setRow(r.panel, r.f32, at, x, len(x), 0)
	case CacheF16:
		var half [64]uint16
		for d := 0; d < len(x); d += len(half) {
			part := half[:min(len(half), len(x)-d)]
			narrowF16(part, x[d:][:len(part)])
			setRow(r.panel, r.f16, at, part, len(x), d)
		}
	case CacheInt8:
		amax := magnitude(x)
		r.scale[at] = amax / 127
		finite := amax >= 1e-30 && amax <= math.MaxFloat32 // or else the inverse would overflow, or the scale says it all
		var bytes [64]int8
		for d := 0; d < len(x); d += len(bytes) {
			part := bytes[:min(len(bytes), len(x)-d)]
			if finite {
				narrowInt8(part, x[d:][:len(part)], 127/amax)
			}
			setRow(r.panel, r.i8, at, part, len(x), d)
		}
	}
}

// setRow stores x as the elements from d on of row at, which has dim.
func setRow[T any](panel int, rows []T, at int, x []T, dim, d int) {
	if panel == 0 {
		copy(rows[at*dim+d:], x)
		return
	}
	place := (at/panel*dim+d)*panel + at%panel
	for _, v := range x {
		rows[place] = v
		place += panel
	}
}

// getRow is setRow the other way, for a whole row.
func getRow[T any](panel int, rows []T, at int, x []T) {
	if panel == 0 {
		copy(x, rows[at*len(x):])
		return
	}
	place := at/panel*len(x)*panel + at%panel
	for i := range x {
		x[i] = rows[place]
		place += panel
	}
}

// copyRows copies n rows of one head.
func copyRows(t CacheType, dim int, to *kvRows, toAt int, from *kvRows, fromAt, n int) {
	switch t {
	case CacheF32:
		copyForm(to.panel, to.f32, toAt, from.panel, from.f32, fromAt, n, dim)
	case CacheF16:
		copyForm(to.panel, to.f16, toAt, from.panel, from.f16, fromAt, n, dim)
	case CacheInt8:
		copyForm(to.panel, to.i8, toAt, from.panel, from.i8, fromAt, n, dim)
		copy(to.scale[toAt:][:n], from.scale[fromAt:])
	}
}

func copyForm[T any](toPanel int, to []T, toAt, fromPanel int, from []T, fromAt, n, dim int) {
	if toPanel == 0 {
		copy(to[toAt*dim:][:n*dim], from[fromAt*dim:])
		return
	}
	for n > 0 {
		i, j := toAt%toPanel, fromAt%fromPanel
		run := min(n, toPanel-i, fromPanel-j)
		to, from := to[(toAt-i)*dim+i:], from[(fromAt-j)*dim+j:]
		switch {
		case run == toPanel && run == fromPanel:
			copy(to[:run*dim], from)
		case run == 1:
			for a, b := 0, 0; a < dim*toPanel; a, b = a+toPanel, b+fromPanel {
				to[a] = from[b]
			}
		default:
			for d := range dim {
				copy(to[d*toPanel:][:run], from[d*fromPanel:])
			}
		}
		toAt, fromAt, n = toAt+run, fromAt+run, n-run
	}
}

// kvCache holds the keys and values of one stack for one text: the rows first … next-1, a ring in which row p stands at slot p mod capacity. The ring grows
// with the text, up to the window if there is one; from then on a row takes the place of the oldest.
type kvCache struct {
	typ            CacheType
	heads, headDim int
	window         int // 0: unbounded
	capacity       int // rows that the arrays hold, whole panels
	first, next    int // the positions held
	layers         []kvLayer
	read, written  int64 // bytes that attention read and that were stored, ever
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
	capacity := max(need, 2*c.capacity)
	if c.window > 0 {
		capacity = min(capacity, c.window)
	}
	c.move(capacity)
}

// fits says whether n more rows would take the place of none that the first of them sees.
func (c *kvCache) fits(n int) bool {
	sees := c.rows()
	if c.window > 0 {
		sees = min(sees, c.window-1)
	}
	return sees+n <= c.capacity
}

// move puts the rows into new arrays of that capacity, rounded up to whole panels.
func (c *kvCache) move(capacity int) {
	capacity = wholePanels(capacity)
	old := c.layers
	c.layers = make([]kvLayer, len(old))
	for i := range c.layers {
		c.layers[i].resize(c.typ, c.heads, capacity, c.headDim)
		for j := range 2 {
			to, from := c.layers[i].half(j), old[i].half(j)
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

// commit appends n rows to head h of a layer from fresh, which has slots rows a head, beginning at row at. Of more rows than the cache
// has room for only the last are kept. Calls for different heads may run at the same time.
func (c *kvCache) commit(layer, h int, fresh *kvLayer, slots, at, n int) {
	for p := max(0, n-c.capacity); p < n; {
		slot := (c.next + p) % c.capacity
		run := min(n-p, c.capacity-slot)
		for j := range 2 {
			copyRows(c.typ, c.headDim, c.layers[layer].half(j), h*c.capacity+slot, fresh.half(j), h*slots+at+p, run)
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

// spans are the places of rows lo … hi-1, oldest first: one run, or two where the ring wraps.
func (c *kvCache) spans(lo, hi int) (a, b span) {
	n := hi - lo
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

// save returns a copy to go back to after more rows have been added. Where none of the old ones gives way to them, it shares their arrays.
func (c *kvCache) save(grows bool) *kvCache {
	if !grows {
		return c.clone()
	}
	d := *c
	return &d
}

// overflowed tells of an infinity or a NaN among keys or values that are held in 16 bits.
func (s *sequence) overflowed() bool {
	over := func(c *kvCache) bool {
		for i := range c.layers {
			for _, r := range [...][]uint16{c.layers[i].k.f16, c.layers[i].v.f16} {
				if c.rows() > 0 && slices.ContainsFunc(r, func(v uint16) bool { return v&0x7c00 == 0x7c00 }) {
					return true
				}
			}
		}
		return false
	}
	return slices.ContainsFunc(s.enc, over) || slices.ContainsFunc(s.dec, func(d decoderState) bool { return over(d.cache) })
}
