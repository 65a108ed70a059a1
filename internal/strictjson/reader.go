package strictjson

import (
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Reader reads a text, pulled value by value, and allocates no more than a small multiple of what it has read.
type Reader struct {
	Until func() error // asked before each item, and its error ends the reading; nil: there is none

	data  string // one copy, so that what is read without escapes can be a part of it
	kind  error
	pos   int
	depth int
	once  int // objects nested deeper than this may have a key twice
	key   int // where the last key that was read begins
	seed  maphash.Seed
}

const maxDepth = 64 // of lists and objects, which take up to 1 KiB of stack each

// New returns a Reader of data, whose errors are kind. It checks the encoding once, so that everything after may take
// the bytes for UTF-8.
func New(data []byte, kind error) (*Reader, error) {
	r := &Reader{data: string(data), kind: kind, once: maxDepth, seed: maphash.MakeSeed()}
	if len(data) > math.MaxInt32 {
		return nil, r.Errorf("the text has %d bytes, more than %d", len(data), math.MaxInt32)
	}
	if utf8.ValidString(r.data) {
		return r, nil
	}
	for {
		c, n := utf8.DecodeRuneInString(r.data[r.pos:])
		if c == utf8.RuneError && n == 1 {
			return nil, r.Errorf(`\x%02x is invalid UTF-8`, r.data[r.pos])
		}
		r.pos += n
	}
}

// Copy returns a Reader that reads on from the same place, on its own. It is for what is read twice: keys that stand
// twice are the Reader's to tell.
func (r *Reader) Copy() *Reader {
	c := *r
	c.once = 0
	return &c
}

// Len is how many items the list or the object has that comes next, as its commas say: nothing is read, and what is
// wrong is not told.
func (r *Reader) Len() int {
	n, _ := r.count()
	return n
}

// Room is Len, or less where so many items of least bytes do not fit. It is for memory that is taken at once.
func (r *Reader) Room(least int) int {
	n, bytes := r.count()
	return min(n, bytes/least+1)
}

// count returns Len, and the bytes of the list or the object.
func (r *Reader) count() (n, bytes int) {
	if c := r.Peek(); c != '[' && c != '{' {
		return 0, 0
	}
	inner := Reader{data: r.data, pos: r.pos + 1}
	if c := inner.Peek(); c != ']' && c != '}' {
		n = 1
	}
	depth, at := 0, r.pos
	for ; at < len(r.data); at++ {
		switch r.data[at] {
		case '"':
			at = r.closing(at + 1)
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 1 {
				n++
			}
		}
		if depth == 0 {
			break
		}
	}
	return n, at - r.pos
}

// closing is where the string ends whose text goes on at a byte: its closing quote, or the end of all.
func (r *Reader) closing(at int) int {
	for at < len(r.data) && r.data[at] != '"' {
		if r.data[at] == '\\' {
			at++
		}
		at++
	}
	return min(at, len(r.data))
}

// Errorf is an error of the place that is reached.
func (r *Reader) Errorf(format string, args ...any) error {
	return r.failed("", fmt.Sprintf(format, args...))
}

func (r *Reader) failed(field, what string) error {
	return &Error{field, fmt.Sprintf("byte %d: %s: %v", r.pos, what, r.kind), r.kind}
}

// Peek skips white space and returns the first byte of the next token, 0 at the end.
func (r *Reader) Peek() byte {
	for ; r.pos < len(r.data); r.pos++ {
		switch c := r.data[r.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// accept takes the next token if it is c.
func (r *Reader) accept(c byte) bool {
	if r.Peek() != c {
		return false
	}
	r.pos++
	return true
}

// unexpected is the error for a value of the wrong kind.
func (r *Reader) unexpected(want string) error {
	var found string
	c := r.Peek()
	switch rest := r.data[r.pos:]; {
	case rest == "":
		found = "the end of the text"
	case c == '{':
		found = "an object"
	case c == '[':
		found = "a list"
	case c == '"':
		found = "a string"
	case strings.HasPrefix(rest, "true") || strings.HasPrefix(rest, "false"):
		found = "a boolean"
	case strings.HasPrefix(rest, "null"):
		found = "null"
	case c == '-' || isDigit(c):
		found = "a number"
	case strings.HasPrefix(rest, "\ufeff"):
		found = "a byte order mark"
	default:
		char, _ := utf8.DecodeRuneInString(rest)
		found = strconv.QuoteRune(char)
	}
	return r.Errorf("want %s, found %s", want, found)
}

// enter takes the bracket that opens a list or an object.
func (r *Reader) enter(open byte, want string) error {
	if !r.accept(open) {
		return r.unexpected(want)
	}
	if r.depth++; r.depth > maxDepth {
		return r.Errorf("nested deeper than %d", maxDepth)
	}
	return nil
}

// next reports whether another item of a list or an object begins here, behind its comma; otherwise it takes the
// bracket that ends it.
func (r *Reader) next(end byte, first bool) (bool, error) {
	if r.accept(end) {
		r.depth--
		return false, nil
	}
	if !first && !r.accept(',') {
		return false, r.unexpected("a comma or " + strconv.QuoteRune(rune(end)))
	}
	if r.Until == nil {
		return true, nil
	}
	err := r.Until()
	return err == nil, err
}

// Object calls value for every key; value reads what stands after the colon. The key may be a part of the whole text,
// which it then keeps in memory.
func (r *Reader) Object(value func(key string) error) error {
	var keys keySet
	return r.Table(func(key string) (bool, error) {
		if r.depth <= r.once && !keys.add(r, key) {
			return false, nil
		}
		return true, value(key)
	})
}

// Table is Object for a caller that keeps all keys itself, and so tells by value whether a key is new.
func (r *Reader) Table(value func(key string) (isNew bool, err error)) error {
	if err := r.enter('{', "an object"); err != nil {
		return err
	}
	for first := true; ; first = false {
		if more, err := r.next('}', first); !more {
			return err
		}
		r.Peek()
		r.key = r.pos
		key, err := r.Text()
		if err != nil {
			return err
		}
		behind := r.pos
		if !r.accept(':') {
			return r.unexpected("a colon")
		}
		isNew, err := value(key)
		if err != nil {
			return err
		}
		if !isNew {
			r.pos = behind
			return r.failed(strings.Clone(key), fmt.Sprintf("key %.80q stands twice", key))
		}
	}
}

// A keySet tells where the keys of one object stand, by their hashes: each has its own slot, or the next that was free.
// An object of few keys allocates nothing, one of many some 40 bytes for each.
type keySet struct {
	n    int
	few  [32]slot
	many []slot // instead of few; a power of two of them
}

// A slot has a key's hash, and where it begins in the text; 0: it is free.
type slot struct{ hash, at uint32 }

// add reports whether the key that has just been read is new.
func (s *keySet) add(r *Reader, key string) bool {
	slots := s.many
	if slots == nil {
		slots = s.few[:]
	}
	if s.n == len(slots)/4*3 {
		s.many = make([]slot, 2*len(slots))
		for _, old := range slots {
			if old.at > 0 {
				s.many[free(s.many, old.hash)] = old
			}
		}
		slots = s.many
	}
	hash := uint32(maphash.String(r.seed, key))
	at := int(hash % uint32(len(slots)))
	for ; slots[at].at > 0; at = (at + 1) % len(slots) {
		if slots[at].hash == hash && r.keyAt(slots[at].at) == key {
			return false
		}
	}
	slots[at] = slot{hash, uint32(r.key)}
	s.n++
	return true
}

// free is the slot for a key that is new.
func free(slots []slot, hash uint32) int {
	at := int(hash % uint32(len(slots)))
	for slots[at].at > 0 {
		at = (at + 1) % len(slots)
	}
	return at
}

func (r *Reader) keyAt(at uint32) string {
	c := Reader{data: r.data, pos: int(at)}
	key, _ := c.Text()
	return key
}

// Array calls item for every element; item reads it.
func (r *Reader) Array(item func(i int) error) error {
	if err := r.enter('[', "a list"); err != nil {
		return err
	}
	for i := 0; ; i++ {
		if more, err := r.next(']', i == 0); !more {
			return err
		}
		if err := item(i); err != nil {
			return err
		}
	}
}

// String reads a string, which has memory of its own.
func (r *Reader) String() (string, error) {
	text, err := r.Text()
	return strings.Clone(text), err
}

// Text reads a string, which may be a part of the whole text.
func (r *Reader) Text() (string, error) { return r.text(true) }

// text reads a string, or checks it alone, where it is not to be kept.
func (r *Reader) text(keep bool) (string, error) {
	if !r.accept('"') {
		return "", r.unexpected("a string")
	}
	start := r.pos
	for ; r.pos < len(r.data); r.pos++ {
		switch c := r.data[r.pos]; {
		case c == '"':
			r.pos++
			return r.data[start : r.pos-1], nil
		case c == '\\':
			return r.escapedText(start, keep)
		case c < ' ':
			return "", r.Errorf("control character in a string")
		}
	}
	return "", r.Errorf("string without an end")
}

// escapedText goes on with a string from its first escape, at pos.
func (r *Reader) escapedText(start int, keep bool) (string, error) {
	var text strings.Builder
	if keep {
		text.Grow(r.closing(r.pos) - start) // no escape is shorter than what it stands for
		text.WriteString(r.data[start:r.pos])
	}
	for r.pos < len(r.data) {
		c := r.data[r.pos]
		r.pos++
		switch {
		case c == '"':
			return text.String(), nil
		case c < ' ':
			r.pos--
			return "", r.Errorf("control character in a string")
		case c == '\\':
			char, err := r.escape()
			if err != nil {
				return "", err
			}
			if keep {
				text.WriteRune(char)
			}
		case keep:
			text.WriteByte(c)
		}
	}
	return "", r.Errorf("string without an end")
}

// escape reads what follows a backslash.
func (r *Reader) escape() (rune, error) {
	if r.pos == len(r.data) {
		return 0, r.Errorf("string without an end")
	}
	c := r.data[r.pos]
	r.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		start := r.pos - 2
		high, err := r.hex4()
		if err != nil || high < 0xd800 || high > 0xdfff {
			return high, err
		}
		if high < 0xdc00 && r.pos+2 <= len(r.data) && r.data[r.pos:r.pos+2] == `\u` {
			r.pos += 2
			low, err := r.hex4()
			if err != nil {
				return 0, err
			}
			if low >= 0xdc00 && low <= 0xdfff {
				return 0x10000 + (high-0xd800)<<10 + low - 0xdc00, nil
			}
		}
		r.pos = start
		return 0, r.Errorf("%s is half of a surrogate pair", r.data[start:start+6])
	}
	return 0, r.Errorf("unknown escape")
}

func (r *Reader) hex4() (rune, error) {
	if r.pos+4 > len(r.data) {
		return 0, r.Errorf("string without an end")
	}
	var value rune
	for _, c := range []byte(r.data[r.pos : r.pos+4]) {
		switch {
		case isDigit(c):
			value = value<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			value = value<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, r.Errorf("want four hexadecimal digits")
		}
	}
	r.pos += 4
	return value, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number reads a number's text; whole tells whether it has neither fraction nor exponent.
func (r *Reader) number() (text string, whole bool, err error) {
	if c := r.Peek(); c != '-' && !isDigit(c) {
		return "", false, r.unexpected("a number")
	}
	start := r.pos
	digits := func() bool {
		from := r.pos
		for r.pos < len(r.data) && isDigit(r.data[r.pos]) {
			r.pos++
		}
		return r.pos > from
	}
	is := func(set string) bool {
		for i := range set {
			if r.pos < len(r.data) && r.data[r.pos] == set[i] {
				r.pos++
				return true
			}
		}
		return false
	}
	is("-")
	whole = true
	ok := is("0") || digits()
	if ok && is(".") {
		whole, ok = false, digits()
	}
	if ok && is("eE") {
		whole = false
		is("+-")
		ok = digits()
	}
	if !ok || r.pos < len(r.data) && isDigit(r.data[r.pos]) {
		return "", false, r.Errorf("malformed number")
	}
	return r.data[start:r.pos], whole, nil
}

// Integer reads a number without fraction or exponent that an int64 holds.
func (r *Reader) Integer() (int64, error) {
	text, whole, err := r.number()
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseInt(text, 10, 64)
	switch {
	case !whole:
		return 0, r.Errorf("want an integer, found %.40s", text)
	case err != nil:
		return 0, r.Errorf("integer %.40s is out of range", text)
	}
	return value, nil
}

// Float reads a number that a float64 holds, rounded: not to an infinity, nor to 0 where it is another.
func (r *Reader) Float() (float64, error) {
	text, _, err := r.number()
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseFloat(text, 64)
	digits := text[:len(text)-len(strings.TrimLeft(text, "-.0123456789"))]
	if err != nil || math.IsInf(value, 0) || value == 0 && strings.ContainsAny(digits, "123456789") {
		return 0, r.Errorf("number %.40s is out of range", text)
	}
	return value, nil
}

// word takes true, false or null.
func (r *Reader) word(w string) bool {
	r.Peek()
	if len(r.data)-r.pos < len(w) || r.data[r.pos:r.pos+len(w)] != w {
		return false
	}
	r.pos += len(w)
	return true
}

// Null takes null, if that is the next token.
func (r *Reader) Null() bool { return r.word("null") }

// Bool reads true or false.
func (r *Reader) Bool() (bool, error) {
	if r.word("true") {
		return true, nil
	}
	if r.word("false") {
		return false, nil
	}
	return false, r.unexpected("true or false")
}

// Skip reads any value and checks it all the same.
func (r *Reader) Skip() error {
	var err error
	switch c := r.Peek(); {
	case c == '{':
		err = r.Object(func(string) error { return r.Skip() })
	case c == '[':
		err = r.Array(func(int) error { return r.Skip() })
	case c == '"':
		_, err = r.text(false)
	case c == '-' || isDigit(c):
		_, _, err = r.number()
	case r.word("true"), r.word("false"), r.word("null"):
	default:
		err = r.unexpected("a value")
	}
	return err
}

// Raw is Skip, and returns the text of the value, which is a part of the whole text.
func (r *Reader) Raw() (string, error) {
	r.Peek()
	begin := r.pos
	err := r.Skip()
	return r.data[begin:r.pos], err
}

// End checks that nothing but white space is left.
func (r *Reader) End() error {
	if r.Peek(); r.pos < len(r.data) {
		return r.Errorf("something stands after the end of the value")
	}
	return nil
}
