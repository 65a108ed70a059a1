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

// String returns "f32", "f16" or "int8".
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

// leastRows is the rows of the smallest panel.
const leastRows = 16

// wholePanels is the rows of as many panels as hold n.
func wholePanels(n int) int {
	panel := leastRows
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

// kvRing is one layer of a cache. With a window it is one part, a ring that grows with the text up to the window; from
// then on a row takes the place of the oldest. Without, it is a list of parts, in the order of their positions: a full
// one stays as it is, and another is begun.
//
// Copies of a cache share its parts. What was there when the last copy was made is frozen: parts that begin before
// shared are only read, and a cache that has to add to one of them copies its last few rows, or all of a window.
type kvRing struct {
	window int       // 0: unbounded
	parts  []*kvPart // the last takes the rows to come
	shared int       // a position
}

// kvPart holds the rows from position from on, up to those of the next part: row p in slot (p-from) mod capacity.
type kvPart struct {
	kvLayer
	from     int // a multiple of leastRows; 0 in a ring
	capacity int // rows, whole panels
}

func (p *kvPart) slot(position int) int { return (position - p.from) % p.capacity }

// part is where a position stands that the ring holds.
func (y *kvRing) part(position int) *kvPart {
	i := len(y.parts) - 1
	for y.parts[i].from > position {
		i--
	}
	return y.parts[i]
}

// own says whether no other cache reads the rows of a part.
func (y *kvRing) own(p *kvPart) bool { return p.from >= y.shared }

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

// bytes is what the rows held cost, and those of them that copies may hold too.
func (c *kvCache) bytes() (held, shared int64) {
	for i := range c.layers {
		first := c.first(i)
		held += int64(c.next-first) * c.layerBytes()
		shared += int64(max(0, min(c.next, c.layers[i].shared)-first)) * c.layerBytes()
	}
	return held, shared
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
	if n == 0 {
		return
	}
	for i := range c.layers {
		if c.layers[i].window > 0 {
			c.reserveRing(i, n)
		} else {
			c.reserveParts(i, n)
		}
	}
}

// reserveRing is reserve for a layer with a window.
func (c *kvCache) reserveRing(layer, n int) {
	y, first := &c.layers[layer], c.first(layer)
	need, capacity := min(c.next-first+n, y.window), 0
	if len(y.parts) > 0 {
		if capacity = y.parts[0].capacity; need <= capacity && y.own(y.parts[0]) {
			return
		}
	}
	if need > capacity {
		capacity = min(max(need, 2*capacity), y.window)
	}
	part := c.newPart(0, wholePanels(capacity))
	if first < c.next {
		c.copyRows(part, y.parts[0], first, c.next)
	}
	y.parts, y.shared = append(y.parts[:0], part), 0
}

// reserveParts is reserve for a layer without one.
func (c *kvCache) reserveParts(layer, n int) {
	y, end := &c.layers[layer], c.next+n
	begin := c.begin &^ (keyPanel - 1)
	most := min(wholePanels(end-begin), attentionBlock) // rows of a part
	spare := y.forget(c.begin, c.next, begin)
	for {
		var last *kvPart
		if len(y.parts) > 0 {
			last = y.parts[len(y.parts)-1]
		}
		switch {
		case last == nil:
			y.parts = append(y.parts, c.newPart(begin, min(wholePanels(end-begin), attentionBlock)))
			y.shared = 0
		case !y.own(last): // go on in a copy of a few rows
			from := y.branch(c.next)
			part := c.newPart(from, wholePanels(min(end-from, attentionBlock)))
			c.copyRows(part, last, max(from, c.begin), c.next)
			if y.shared = from; from == last.from {
				y.parts = y.parts[:len(y.parts)-1]
			}
			y.parts = append(y.parts, part)
		case last.from+last.capacity >= end:
			return
		case last.capacity < most:
			part := c.newPart(last.from, min(max(2*last.capacity, wholePanels(end-last.from)), attentionBlock))
			c.copyRows(part, last, max(last.from, c.begin), min(c.next, last.from+last.capacity))
			y.parts[len(y.parts)-1] = part
		default:
			from := last.from + last.capacity
			capacity := max(min(last.capacity, most), min(wholePanels(end-from), attentionBlock))
			if spare != nil && spare.capacity >= capacity {
				spare.from = from
				y.parts, spare = append(y.parts, spare), nil
			} else {
				y.parts = append(y.parts, c.newPart(from, capacity))
			}
		}
	}
}

// branch is where the part begins in which a copy goes on at position next, of rows that it shares: so that keys begin
// a run of 16, and with all of a small part, or there would be many.
func (y *kvRing) branch(next int) (from int) {
	if last := y.parts[len(y.parts)-1]; next-last.from < keyPanel {
		return last.from
	}
	return next &^ (leastRows - 1)
}

// forget drops the parts of which all rows are before position begin, and returns one whose arrays can be used again.
// Where no row is left the last part begins anew, at from.
func (y *kvRing) forget(begin, next, from int) (spare *kvPart) {
	n := 0
	for n+1 < len(y.parts) && y.parts[n+1].from <= begin {
		n++
	}
	if n > 0 {
		if y.own(y.parts[0]) {
			spare = y.parts[0]
		}
		y.parts = slices.Delete(y.parts, 0, n)
	}
	if begin < next || len(y.parts) == 0 {
		return spare
	}
	last := y.parts[len(y.parts)-1]
	y.parts = y.parts[:0]
	if y.own(last) {
		last.from = from
		y.parts = append(y.parts, last)
	}
	y.shared = 0
	return spare
}

func (c *kvCache) newPart(from, capacity int) *kvPart {
	p := &kvPart{from: from, capacity: capacity}
	p.resize(c.typ, c.heads, capacity, c.headDim)
	return p
}

// copyRows copies the rows at positions lo … hi-1 from one part to another.
func (c *kvCache) copyRows(to, from *kvPart, lo, hi int) {
	for lo < hi {
		a, b := from.slot(lo), to.slot(lo)
		run := min(hi-lo, from.capacity-a, to.capacity-b)
		for j := range 2 {
			for h := range c.heads {
				copyRows(c.typ, c.headDim, to.half(j), h*to.capacity+b, from.half(j), h*from.capacity+a, run)
			}
		}
		lo += run
	}
}

// fits says whether n more rows, for which there is room, would take the place of none that the first of them sees.
func (c *kvCache) fits(layer, n int) bool {
	y := &c.layers[layer]
	return y.window == 0 || n == 0 || min(c.next-c.first(layer), y.window-1)+n <= y.parts[0].capacity
}

// commit stores n rows from position on in head h of a layer with a window, from fresh, which has slots rows a head,
// beginning at row at. Of more rows than the cache has room for only the last are kept. Calls for different heads may
// run at the same time.
func (c *kvCache) commit(layer, h, position int, fresh *kvLayer, slots, at, n int) {
	y := c.layers[layer].parts[0]
	for p := max(0, n-y.capacity); p < n; {
		slot := y.slot(position + p)
		run := min(n-p, y.capacity-slot)
		for j := range 2 {
			copyRows(c.typ, c.headDim, y.half(j), h*y.capacity+slot, fresh.half(j), h*slots+at+p, run)
		}
		p += run
	}
}

// advance counts n rows that every layer has stored, or will not be asked for.
func (c *kvCache) advance(n int) { c.next += n }

// keySpan is a run of positions whose keys and values stand side by side.
type keySpan struct {
	layer    *kvLayer
	from, to int // positions
	base     int // position p stands in row base+p
}

// spans appends to list the places of the rows lo … hi-1 of head h, in order.
func (y *kvRing) spans(list []keySpan, h, lo, hi int) []keySpan {
	if lo >= hi {
		return list
	}
	i := len(y.parts) - 1
	for y.parts[i].from > lo {
		i--
	}
	for ; lo < hi; i++ {
		part, end := y.parts[i], hi
		if i+1 < len(y.parts) {
			end = min(hi, y.parts[i+1].from)
		}
		for lo < end {
			slot := part.slot(lo)
			run := min(end-lo, part.capacity-slot)
			list = append(list, keySpan{&part.kvLayer, lo, lo + run, h*part.capacity + slot - lo})
			lo += run
		}
	}
	return list
}

// clone returns a copy that shares the rows; from now on neither changes them.
func (c *kvCache) clone() *kvCache {
	for i := range c.layers {
		if y := &c.layers[i]; y.shared < c.next && c.begin < c.next { // that of an empty text is cloned by many at a time
			y.parts, y.shared = y.before(c.next), c.next
		}
	}
	return c.save(true)
}

// save returns a copy to go back to after more rows have been added. Unless the cache only grows, which it does but for
// its windows, that is a clone.
func (c *kvCache) save(grows bool) *kvCache {
	if !grows {
		return c.clone()
	}
	d := *c
	d.layers = slices.Clone(c.layers)
	for i := range d.layers {
		y := &d.layers[i]
		if c.begin == c.next {
			y.parts = nil
			continue
		}
		if y.window > 0 && y.shared < c.next {
			c.layers[i].shared, y.shared = c.next, c.next
		}
		y.parts = slices.Clone(y.before(c.next))
	}
	return &d
}

// before is the parts that begin before a position.
func (y *kvRing) before(position int) []*kvPart {
	n := len(y.parts)
	for n > 0 && y.parts[n-1].from >= position {
		n--
	}
	return y.parts[:n]
}

// overflowed tells of an infinity or a NaN among keys or values that are held in 16 bits.
func (s *sequence) overflowed() (over bool) {
	infinite := func(v uint16) bool { return v&0x7c00 == 0x7c00 }
	s.caches(func(c *kvCache) {
		for i := range c.layers {
			for _, p := range c.layers[i].parts {
				over = over || c.next > c.begin && (slices.ContainsFunc(p.k.f16, infinite) || slices.ContainsFunc(p.v.f16, infinite))
			}
		}
	})
	return over
}
