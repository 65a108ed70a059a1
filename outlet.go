package photon

import "unicode/utf8"

// outlet gives the tokens of a stream their text when it is settled: whole runes, and nothing that may still become a
// stop string.
//
// Stop strings are looked for in two readings of the text: the one that is given out, and the one in which special
// tokens are spelled out. A stop string ends the text when it is complete; of several that end at one byte the longest
// counts.
type outlet struct {
	decoder *StreamDecoder // nil without a tokenizer: there is no text then
	stops   []matcher      // in the text given out
	spelled []matcher      // in the text with special tokens
	shown   []int          // bytes of the former before each of the latter's last, longest to twice as many
	longest int            // bytes of a stop string
	total   int            // and of those in all
	held    []byte         // settled but for stop strings
}

// newOutlet is at the end of ids, of which those from since on are one text for stop strings, and whose last held bytes
// of text have not been given out.
func newOutlet(t *Tokenizer, stop []stopString, ids []int, since, held int) *outlet {
	o := &outlet{}
	if t == nil {
		return o
	}
	o.decoder = t.NewDecoder()
	for _, s := range stop {
		o.stops, o.spelled = append(o.stops, matcher{stopString: s}), append(o.spelled, matcher{stopString: s})
		o.longest = max(o.longest, len(s.text))
	}
	// What matters of the text before is whether it has begun, the rune that is open at its end, and what a stop string
	// may begin with.
	from, bytes := len(ids), 0
	for ; from > 0 && bytes < utf8.UTFMax; from-- {
		bytes += len(t.text(ids[from-1]))
	}
	first := from // of the tokens that stop strings and held text reach back to
	for visible := 0; first > since && (visible < o.longest+held+utf8.UTFMax || len(ids)-first < o.longest); first-- {
		visible += len(t.text(ids[first-1]))
	}
	from = min(from, first)
	for i := 0; i < from && !o.decoder.started; i++ {
		o.decoder.started = len(t.text(ids[i])) > 0
	}
	for i := from; i < len(ids); i++ {
		if text, shown := o.read(ids[i]); i >= since {
			o.take(text, shown, true)
		}
	}
	o.held = o.held[len(o.held)-min(held, len(o.held)):]
	return o
}

// read returns the text of a token, and whether it is given out.
func (o *outlet) read(id int) (text string, shown bool) {
	if t := o.decoder.tokenizer; t.isSpecial(id) {
		return t.pieces[id], false
	}
	return o.decoder.Next(id), true
}

// take reads the text of a token; stopped: a stop string is complete, and held is what comes before it. In the past
// nothing stops.
func (o *outlet) take(text string, shown, past bool) (stopped bool) {
	for i := range len(text) {
		if shown {
			o.held = append(o.held, text[i])
		}
		if cut, stop := o.match(text[i], shown); stop && !past {
			o.held = o.held[:len(o.held)-min(cut, len(o.held))]
			return true
		}
	}
	return false
}

// match reads a byte; stop: a stop string ends with it, whose bytes that are given out are the last cut.
func (o *outlet) match(c byte, shown bool) (cut int, stop bool) {
	if len(o.stops) == 0 {
		return 0, false
	}
	if len(o.shown) == 2*o.longest {
		o.shown = o.shown[:copy(o.shown, o.shown[o.longest:])]
	}
	o.shown = append(o.shown, o.total)
	if shown {
		o.total++
	}
	for i := range o.stops {
		if m := &o.spelled[i]; m.next(c) {
			cut, stop = max(cut, o.visible(len(m.text))), true
		}
		if m := &o.stops[i]; shown && m.next(c) {
			cut, stop = max(cut, len(m.text)), true
		}
	}
	return cut, stop
}

// visible is how many of the last n bytes, special tokens spelled out, are given out.
func (o *outlet) visible(n int) int {
	if n == 0 {
		return 0
	}
	return o.total - o.shown[len(o.shown)-n]
}

// push takes a token and returns the text that it settles; stopped: a stop string is complete.
func (o *outlet) push(id int) (text string, stopped bool) {
	if o.decoder == nil {
		return "", false
	}
	text, shown := o.read(id)
	whole := len(o.held) == 0 && shown // the token's text may be what comes out
	if whole && len(o.stops) == 0 {
		return text, false
	}
	if o.take(text, shown, false) {
		return o.release(0), true
	}
	open := 0 // bytes at the end that may begin a stop string
	for i := range o.stops {
		open = max(open, o.stops[i].length, o.visible(o.spelled[i].length))
	}
	if whole && open == 0 {
		o.held = o.held[:0]
		return text, false
	}
	return o.release(open), false
}

// release gives out all but the last keep bytes.
func (o *outlet) release(keep int) string {
	n := len(o.held) - min(keep, len(o.held))
	text := string(o.held[:n])
	o.held = o.held[:copy(o.held, o.held[n:])]
	return text
}

// peek is finish, of a text that is over, without effect.
func (o *outlet) peek() string {
	if o.decoder == nil {
		return ""
	}
	text := string(o.held)
	if o.decoder.held > 0 {
		text += string(utf8.RuneError)
	}
	return text
}

// finish returns what is held back. A rune that is open stays so, unless the text is over.
func (o *outlet) finish(over bool) string {
	if o.decoder == nil {
		return ""
	}
	text := o.release(0)
	if over {
		text += o.decoder.Flush()
	}
	return text
}

// stopString is a stop string with the table that finds it, which all texts that look for it share.
type stopString struct {
	text   string
	border []int // border[n]: the longest proper prefix of the first n bytes that they end with
}

func newStopStrings(texts ...string) []stopString {
	list := make([]stopString, len(texts))
	for i, text := range texts {
		border := make([]int, len(text)+1)
		for n, length := 1, 0; n < len(text); n++ {
			for length > 0 && text[n] != text[length] {
				length = border[length]
			}
			if text[n] == text[length] {
				length++
			}
			border[n+1] = length
		}
		list[i] = stopString{text, border}
	}
	return list
}

// matcher finds a stop string in a text that comes byte by byte, each byte in constant time on average (Knuth, Morris,
// Pratt 1977).
type matcher struct {
	stopString
	length int // the longest beginning of the stop string that the text ends with
}

// next reads a byte and tells whether the stop string is complete.
func (m *matcher) next(c byte) bool {
	for m.length > 0 && m.text[m.length] != c {
		m.length = m.border[m.length]
	}
	if m.text[m.length] == c {
		m.length++
	}
	if m.length < len(m.text) {
		return false
	}
	m.length = m.border[m.length]
	return true
}
