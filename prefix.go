package photon

import (
	"cmp"
	"slices"
)

// prefixes keeps the states of texts that a Batcher has read, so that one that begins like them starts from the longest
// that fits. A state shares its keys and values with those of the same text and with the texts that run; what all hold
// together stays below a bound. A Batcher's mu guards it.
type prefixes struct {
	most  int64 // bytes
	held  partCount
	ids   int64 // bytes beside those: tokens and rows
	list  []*prefix
	clock int64
}

// prefix is the state of a text after ids. Nothing changes it.
type prefix struct {
	ids   []int
	hash  uint64
	state *sequence
	parts []partUse
	extra int64 // bytes beside the parts
	used  int64 // when a text last began like it
}

// prefixBorder is the least distance of two states of one prompt.
const prefixBorder = 64

// border is a distance in tokens at which units of all levels end.
func (m *Model) border() int {
	meta := m.cfg.MetaContext()
	return (prefixBorder + meta - 1) / meta * meta
}

// find returns the longest of the states that ids begin with, or nil.
func (p *prefixes) find(ids []int, hashes []uint64) (best *prefix) {
	for _, x := range slices.Backward(p.use(len(ids), hashes)) { // the last kept is mostly the longest
		if (best == nil || len(x.ids) > len(best.ids)) && slices.Equal(x.ids, ids[:len(x.ids)]) {
			best = x
		}
	}
	return best
}

// use counts as used, and returns, the states of at most n tokens that a text whose beginnings have these hashes begins
// with, but for texts that have the same hash.
func (p *prefixes) use(n int, hashes []uint64) (list []*prefix) {
	p.clock++
	for _, x := range p.list {
		if m := len(x.ids); m <= n && m < len(hashes) && x.hash == hashes[m] {
			x.used = p.clock
			list = append(list, x)
		}
	}
	return list
}

// hashes are those of the first 0, 1, … of ids.
func hashes(ids []int) []uint64 {
	h := make([]uint64, len(ids)+1)
	for i := range ids {
		h[i+1] = hashOn(h[i], ids[i:i+1])
	}
	return h
}

// hashOn is the hash of ids behind others.
func hashOn(h uint64, ids []int) uint64 {
	for _, id := range ids {
		h = (h ^ uint64(id) + 1) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}

// keep takes the state of the text ids, whose beginnings have these hashes, and drops others until all that is kept is
// within the bound. It counts as used, and so do those that the text begins with.
func (p *prefixes) keep(ids []int, hash uint64, begin []uint64, state *sequence) {
	p.use(len(ids), begin)
	same := func(x *prefix) bool { return x.hash == hash && slices.Equal(x.ids, ids) }
	if i := slices.IndexFunc(p.list, same); i >= 0 {
		p.list[i].used = p.clock
		return
	}
	x := &prefix{ids: slices.Clip(ids), hash: hash, state: state, parts: state.parts(nil), used: p.clock}
	x.extra = int64(8*len(ids)) + state.rowBytes()
	p.list = append(p.list, x)
	p.ids += x.extra
	p.held.add(x.parts)
	for p.held.bytes+p.ids > p.most {
		y := p.least()
		p.list = slices.DeleteFunc(p.list, func(x *prefix) bool { return x == y })
		p.ids -= y.extra
		p.held.drop(y.parts)
	}
}

// least is the state to be dropped first: of those that were not used for longest, which all are of one text, the one
// without which the distances from the text's end grow least between neighbours. So the longest stays to the last, and
// of the others more near the end, where texts that begin alike often part.
func (p *prefixes) least() *prefix {
	oldest := slices.MinFunc(p.list, func(a, b *prefix) int { return cmp.Compare(a.used, b.used) }).used
	var text []*prefix
	for _, x := range p.list {
		if x.used == oldest {
			text = append(text, x)
		}
	}
	slices.SortFunc(text, func(a, b *prefix) int { return cmp.Compare(len(a.ids), len(b.ids)) })
	least, most := text[len(text)-1], 0.0
	end := len(least.ids)
	for i, before := 0, 0; i+1 < len(text); i++ {
		// The ratio of both neighbours' distances from the end: 1 where nothing lies between them.
		near := float64(end-len(text[i+1].ids)+1) / float64(end-before+1)
		if near > most {
			least, most = text[i], near
		}
		before = len(text[i].ids)
	}
	return least
}

// start gives a new session the state of p.
func (s *Session) start(p *prefix) {
	s.seq = p.state.clone()
	s.seq.caches(func(c *kvCache) { c.read, c.written = 0, 0 })
	s.ids = p.ids
	s.since = len(s.ids)
	s.stats.PromptTokens, s.stats.ReusedTokens = len(s.ids), len(s.ids)
}

// keeping is what a request remembers whose states are kept.
type keeping struct {
	border int // at multiples of so many tokens; 0: they are not
	prompt int // tokens
	at     int // that the last one had
	hash   uint64
	begin  []uint64 // hashes of the prompt's beginnings
}

// due says whether a prompt's state after n tokens is to be kept: the nearer the end, the more are.
func (k *keeping) due(n int) bool {
	return n <= k.prompt && n%k.border == 0 && n-k.at >= max(k.border, (k.prompt-n)/16)
}

// settles says whether the decoders are to follow before more of the prompt is read: then a text that starts from the
// state that is kept here has less to do. They would have come to it, so near the end.
func (l *lane) settles() bool {
	s, k := l.s.seq, &l.keeping
	return k.border > 0 && k.due(s.n) && s.synced < s.n && len(l.todo) > 0 && len(l.todo) <= min(l.s.m.reach, 2*k.border)
}

// piece is how many tokens of the prompt, at most most, a pass reads. Where states are kept it ends with units, and the
// pieces get shorter towards the end of the prompt: texts that begin alike often differ there.
func (l *lane) piece(most int) int {
	n, border := min(len(l.todo), most), l.keeping.border
	if border == 0 {
		return n
	}
	at := len(l.s.ids)
	n = min(n, max(border, len(l.todo)/2))
	if end := (at + n) / border * border; end > at {
		return end - at
	}
	return n
}

// partUse is a part of a cache, and how many bytes of it count.
type partUse struct {
	part  *kvPart
	bytes int64
}

// partCount counts parts that several hold once: as many bytes of each as any of them has asked for.
type partCount struct {
	bytes int64
	of    map[*kvPart]*partHeld
}

type partHeld struct {
	holders int
	bytes   int64
}

// cost is what parts would add.
func (c *partCount) cost(parts []partUse) (bytes int64) {
	for _, u := range parts {
		if h := c.of[u.part]; h == nil {
			bytes += u.bytes
		} else {
			bytes += max(0, u.bytes-h.bytes)
		}
	}
	return bytes
}

func (c *partCount) add(parts []partUse) {
	if c.of == nil {
		c.of = map[*kvPart]*partHeld{}
	}
	for _, u := range parts {
		h := c.of[u.part]
		if h == nil {
			h = &partHeld{}
			c.of[u.part] = h
		}
		h.holders++
		c.bytes += max(0, u.bytes-h.bytes)
		h.bytes = max(h.bytes, u.bytes)
	}
}

func (c *partCount) drop(parts []partUse) {
	for _, u := range parts {
		h := c.of[u.part]
		if h.holders--; h.holders == 0 {
			c.bytes -= h.bytes
			delete(c.of, u.part)
		}
	}
}

// parts appends to list what the caches consist of, with all the room in it.
func (s *sequence) parts(list []partUse) []partUse {
	s.caches(func(c *kvCache) {
		for i := range c.layers {
			for _, p := range c.layers[i].parts {
				list = append(list, partUse{p, int64(p.capacity) * c.layerBytes()})
			}
		}
	})
	return list
}

// rowBytes is the size of what a text keeps beside its caches.
func (s *sequence) rowBytes() int64 {
	n := len(s.token.rows) + len(s.out) + len(s.top)
	for i := range s.states {
		n += len(s.states[i].rows)
	}
	for i := range s.dec {
		n += len(s.dec[i].slices)
	}
	return int64(4*n + 8*len(s.ids.ids))
}

// frozen appends to list what the caches that grow with the text have in common with its forks, and will have while it
// goes on, counting rows.
func (s *sequence) frozen(list []partUse) []partUse {
	s.caches(func(c *kvCache) {
		for i := range c.layers {
			y := &c.layers[i]
			if y.window > 0 {
				continue
			}
			for n, p := range y.parts {
				end := c.next
				if n+1 < len(y.parts) {
					end = y.parts[n+1].from
				} else if !y.own(p) {
					end = y.branch(c.next)
				}
				if rows := end - max(p.from, c.begin); rows > 0 && !y.own(p) {
					list = append(list, partUse{p, int64(rows) * c.layerBytes()})
				}
			}
		}
	})
	return list
}
