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

// kvRows stores keys or values in the form of a CacheType. Values are an array [heads][rows][headDim]. Keys stand side
// by side in panels, [heads][rows/panel][headDim][panel], so that a query's scores with them are sums of rows too,
// without any across a row.
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

// grow returns s with length n, with room to spare when a larger array had to be made; the contents are then
// unspecified.
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

// kvCache holds the keys and values of one stack for one text, or of one memory: in every layer the rows … next-1, as
// many as its window sees.
type kvCache struct {
	typ            CacheType
	heads, headDim int
	begin, next    int // the positions of the first row that was neither reset nor dropped, and of the one to come
	layers         []kvRing
	read, written  int64 // bytes that attention read and that were stored, ever
}

// kvRing is one layer of a cache: row p stands at slot p mod capacity. The ring grows with the text, up to the window
// if there is one; from then on a row takes the place of the oldest.
type kvRing struct {
	kvLayer
	window   int // 0: unbounded
	capacity int // rows that the arrays hold, whole panels
}

func newKVCache(t CacheType, s StackConfig) *kvCache {
	c := &kvCache{typ: t, heads: s.KVHeads, headDim: s.HeadDim, layers: make([]kvRing, s.Layers)}
	for i := range c.layers {
		c.layers[i].window = s.window(i)
	}
	return c
}

// empty is a new cache of the same shape, which goes on counting bytes.
func (c *kvCache) empty() *kvCache {
	d := &kvCache{typ: c.typ, heads: c.heads, headDim: c.headDim, read: c.read, written: c.written}
	d.layers = make([]kvRing, len(c.layers))
	for i := range d.layers {
		d.layers[i].window = c.layers[i].window
	}
	return d
}

// layerBytes is what one row costs in one layer: keys and values of all heads.
func (c *kvCache) layerBytes() int64 { return 2 * int64(c.heads) * c.typ.headBytes(c.headDim) }

// rowBytes is what one row costs in all layers.
func (c *kvCache) rowBytes() int64 { return int64(len(c.layers)) * c.layerBytes() }

// bytes is what the rows held cost.
func (c *kvCache) bytes() int64 {
	rows := 0
	for i := range c.layers {
		rows += c.next - c.first(i)
	}
	return int64(rows) * c.layerBytes()
}

// first is the position of the oldest row that a layer holds.
func (c *kvCache) first(layer int) int {
	if w := c.layers[layer].window; w > 0 {
		return max(c.begin, c.next-w)
	}
	return c.begin
}

// oldest is the position of the oldest row that any layer holds.
func (c *kvCache) oldest() int {
	oldest := c.next
	for i := range c.layers {
		oldest = min(oldest, c.first(i))
	}
	return oldest
}

// reset forgets every row; the next one will be at position.
func (c *kvCache) reset(position int) { c.begin, c.next = position, position }

// drop forgets the rows before position.
func (c *kvCache) drop(position int) { c.begin = max(c.begin, min(position, c.next)) }

// reserve makes room for n more rows.
func (c *kvCache) reserve(n int) {
	for i := range c.layers {
		need, y := c.next-c.first(i)+n, &c.layers[i]
		if y.window > 0 {
			need = min(need, y.window)
		}
		if need <= y.capacity {
			continue
		}
		capacity := max(need, 2*y.capacity)
		if y.window > 0 {
			capacity = min(capacity, y.window)
		}
		c.move(i, capacity)
	}
}

// fits says whether n more rows would take the place of none that the first of them sees.
func (c *kvCache) fits(layer, n int) bool {
	sees, y := c.next-c.first(layer), &c.layers[layer]
	if y.window > 0 {
		sees = min(sees, y.window-1)
	}
	return sees+n <= y.capacity
}

// move puts the rows of a layer into new arrays of that capacity, rounded up to whole panels.
func (c *kvCache) move(layer, capacity int) {
	capacity = wholePanels(capacity)
	y, old := &c.layers[layer], c.layers[layer]
	y.kvLayer, y.capacity = kvLayer{}, capacity
	y.resize(c.typ, c.heads, capacity, c.headDim)
	for j := range 2 {
		to, from := y.half(j), old.half(j)
		for p := c.first(layer); p < c.next; {
			a, b := p%old.capacity, p%capacity
			run := min(c.next-p, old.capacity-a, capacity-b)
			for h := range c.heads {
				copyRows(c.typ, c.headDim, to, h*capacity+b, from, h*old.capacity+a, run)
			}
			p += run
		}
	}
}

// commit stores n rows from position on in head h of a layer, from fresh, which has slots rows a head, beginning at
// row at. Of more rows than the cache has room for only the last are kept. Calls for different heads may run at the
// same time.
func (c *kvCache) commit(layer, h, position int, fresh *kvLayer, slots, at, n int) {
	y := &c.layers[layer]
	for p := max(0, n-y.capacity); p < n; {
		slot := (position + p) % y.capacity
		run := min(n-p, y.capacity-slot)
		for j := range 2 {
			copyRows(c.typ, c.headDim, y.half(j), h*y.capacity+slot, fresh.half(j), h*slots+at+p, run)
		}
		p += run
	}
}

// advance counts n rows that every layer has stored, or will not be asked for.
func (c *kvCache) advance(n int) { c.next += n }

// span is a run of rows that stand side by side: row numbers of a kvRows, within one head's part.
type span struct{ at, n int }

// spans are the places of rows lo … hi-1, oldest first: one run, or two where the ring wraps.
func (y *kvRing) spans(lo, hi int) (a, b span) {
	n := hi - lo
	if n <= 0 {
		return
	}
	at := lo % y.capacity
	run := min(n, y.capacity-at)
	return span{at, run}, span{0, n - run}
}

// clone copies the cache; the copy has room for no more than its rows.
func (c *kvCache) clone() *kvCache {
	d := *c
	d.layers = slices.Clone(c.layers)
	for i := range d.layers {
		d.move(i, c.next-c.first(i))
	}
	return &d
}

// save returns a copy to go back to after more rows have been added. Where none of the old ones gives way to them,
// because the cache grows and a layer has no window, it shares their arrays.
func (c *kvCache) save(grows bool) *kvCache {
	d := *c
	d.layers = slices.Clone(c.layers)
	for i := range d.layers {
		if !grows || d.layers[i].window > 0 {
			d.move(i, c.next-c.first(i))
		}
	}
	return &d
}

// overflowed tells of an infinity or a NaN among keys or values that are held in 16 bits.
func (s *sequence) overflowed() bool {
	over := func(c *kvCache) bool {
		for i := range c.layers {
			for _, r := range [...][]uint16{c.layers[i].k.f16, c.layers[i].v.f16} {
				if c.next > c.begin && slices.ContainsFunc(r, func(v uint16) bool { return v&0x7c00 == 0x7c00 }) {
					return true
				}
			}
		}
		return false
	}
	return slices.ContainsFunc(s.enc, over) || slices.ContainsFunc(s.dec, func(d decoderState) bool { return over(d.cache) })
}
