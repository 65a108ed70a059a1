package photon

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A jsonReader reads JSON of unknown origin strictly, pulled value by value: RFC 8259 and nothing more, valid UTF-8, no key twice
// in an object at any depth, keys compared exactly. It allocates no more than a small multiple of what it has read.
type jsonReader struct {
	data  string // one copy, so that what is read without escapes can be a part of it
	pos   int
	depth int
	spare []map[string]struct{} // of objects that have ended
	until *deadline             // nil: none
}

const maxJSONDepth = 64

// newJSONReader checks the encoding once, so that everything after may take the bytes for UTF-8.
func newJSONReader(data []byte) (*jsonReader, error) {
	r := &jsonReader{data: string(data)}
	if utf8.ValidString(r.data) {
		return r, nil
	}
	for {
		c, n := utf8.DecodeRuneInString(r.data[r.pos:])
		if c == utf8.RuneError && n == 1 {
			return nil, r.errorf("invalid UTF-8")
		}
		r.pos += n
	}
}

func (r *jsonReader) errorf(format string, args ...any) error {
	return fmt.Errorf("byte %d: %s: %w", r.pos, fmt.Sprintf(format, args...), ErrCorrupt)
}

// peek skips white space and returns the first byte of the next token, 0 at the end.
func (r *jsonReader) peek() byte {
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
func (r *jsonReader) accept(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.pos++
	return true
}

// unexpected is the error for a value of the wrong kind.
func (r *jsonReader) unexpected(want string) error {
	found := "the end of the text"
	if c := r.peek(); r.pos < len(r.data) {
		switch {
		case c == '{':
			found = "an object"
		case c == '[':
			found = "a list"
		case c == '"':
			found = "a string"
		case c == 't' || c == 'f':
			found = "a boolean"
		case c == 'n':
			found = "null"
		case c == '-' || isDigit(c):
			found = "a number"
		default:
			found = strconv.QuoteRune(rune(c))
		}
	}
	return r.errorf("want %s, found %s", want, found)
}

// enter takes the bracket that opens a list or an object.
func (r *jsonReader) enter(open byte, want string) error {
	if !r.accept(open) {
		return r.unexpected(want)
	}
	if r.depth++; r.depth > maxJSONDepth {
		return r.errorf("nested deeper than %d", maxJSONDepth)
	}
	return nil
}

// next reports whether another item of a list or an object begins here, behind its comma; otherwise it takes the
// bracket that ends it.
func (r *jsonReader) next(end byte, first bool) (bool, error) {
	if r.accept(end) {
		r.depth--
		return false, nil
	}
	if !first && !r.accept(',') {
		return false, r.unexpected("a comma or " + strconv.QuoteRune(rune(end)))
	}
	if err := r.until.passed(); err != nil {
		return false, err
	}
	return true, nil
}

// object calls value for every key; value reads what stands after the colon. The key may be a part of the whole text,
// which it then keeps in memory.
func (r *jsonReader) object(value func(key string) error) error {
	if err := r.enter('{', "an object"); err != nil {
		return err
	}
	var keys keySet
	for first := true; ; first = false {
		if more, err := r.next('}', first); !more {
			r.reuse(keys.all)
			return err
		}
		key, err := r.text()
		if err != nil {
			return err
		}
		if !keys.add(r, key) {
			return r.errorf("key %.80q stands twice", key)
		}
		if !r.accept(':') {
			return r.unexpected("a colon")
		}
		if err := value(key); err != nil {
			return err
		}
	}
}

// A keySet is the keys of one object: a few, so that an object of few allocates nothing, and then all.
type keySet struct {
	n   int
	few [32]string
	all map[string]struct{}
}

// add reports whether the key is new.
func (s *keySet) add(r *jsonReader, key string) bool {
	if s.all == nil {
		for _, k := range s.few[:s.n] {
			if k == key {
				return false
			}
		}
		if s.n < len(s.few) {
			s.few[s.n] = key
			s.n++
			return true
		}
		if n := len(r.spare); n > 0 {
			s.all, r.spare = r.spare[n-1], r.spare[:n-1]
		} else {
			s.all = map[string]struct{}{}
		}
		for _, k := range s.few {
			s.all[k] = struct{}{}
		}
	}
	before := len(s.all)
	s.all[key] = struct{}{}
	return len(s.all) > before
}

// reuse keeps the keys' memory for another object, unless it would take longer to clear than that object to read.
func (r *jsonReader) reuse(keys map[string]struct{}) {
	if n := len(keys); n > 0 && n <= 256 {
		clear(keys)
		r.spare = append(r.spare, keys)
	}
}

// array calls item for every element; item reads it.
func (r *jsonReader) array(item func(i int) error) error {
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

// string reads a string, which has memory of its own.
func (r *jsonReader) string() (string, error) {
	text, err := r.text()
	return strings.Clone(text), err
}

// text reads a string, which may be a part of the whole text.
func (r *jsonReader) text() (string, error) {
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
			return r.escapedText(start)
		case c < ' ':
			return "", r.errorf("control character in a string")
		}
	}
	return "", r.errorf("string without an end")
}

// escapedText goes on with a string from its first escape, at pos.
func (r *jsonReader) escapedText(start int) (string, error) {
	text := append([]byte(nil), r.data[start:r.pos]...)
	for r.pos < len(r.data) {
		c := r.data[r.pos]
		r.pos++
		switch {
		case c == '"':
			return string(text), nil
		case c < ' ':
			r.pos--
			return "", r.errorf("control character in a string")
		case c == '\\':
			char, err := r.escape()
			if err != nil {
				return "", err
			}
			text = utf8.AppendRune(text, char)
		default:
			text = append(text, c)
		}
	}
	return "", r.errorf("string without an end")
}

// escape reads what follows a backslash.
func (r *jsonReader) escape() (rune, error) {
	if r.pos == len(r.data) {
		return 0, r.errorf("string without an end")
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
		return 0, r.errorf("half of a surrogate pair")
	}
	return 0, r.errorf("unknown escape")
}

func (r *jsonReader) hex4() (rune, error) {
	if r.pos+4 > len(r.data) {
		return 0, r.errorf("string without an end")
	}
	var value rune
	for _, c := range []byte(r.data[r.pos : r.pos+4]) {
		switch {
		case isDigit(c):
			value = value<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			value = value<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, r.errorf("want four hexadecimal digits")
		}
	}
	r.pos += 4
	return value, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number reads a number's text; whole tells whether it has neither fraction nor exponent.
func (r *jsonReader) number() (text string, whole bool, err error) {
	if c := r.peek(); c != '-' && !isDigit(c) {
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
		return "", false, r.errorf("malformed number")
	}
	return r.data[start:r.pos], whole, nil
}

// integer reads a number without fraction or exponent that an int64 holds.
func (r *jsonReader) integer() (int64, error) {
	text, whole, err := r.number()
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseInt(text, 10, 64)
	switch {
	case !whole:
		return 0, r.errorf("want an integer, found %.40s", text)
	case err != nil:
		return 0, r.errorf("integer %.40s is out of range", text)
	}
	return value, nil
}

func (r *jsonReader) float() (float64, error) {
	text, _, err := r.number()
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(value, 0) {
		return 0, r.errorf("number %.40s is out of range", text)
	}
	return value, nil
}

// word takes true, false or null.
func (r *jsonReader) word(w string) bool {
	r.peek()
	if len(r.data)-r.pos < len(w) || r.data[r.pos:r.pos+len(w)] != w {
		return false
	}
	r.pos += len(w)
	return true
}

func (r *jsonReader) null() bool { return r.word("null") }

func (r *jsonReader) bool() (bool, error) {
	if r.word("true") {
		return true, nil
	}
	if r.word("false") {
		return false, nil
	}
	return false, r.unexpected("true or false")
}

// skip reads any value and checks it all the same.
func (r *jsonReader) skip() error {
	var err error
	switch r.peek() {
	case '{':
		err = r.object(func(string) error { return r.skip() })
	case '[':
		err = r.array(func(int) error { return r.skip() })
	case '"':
		_, err = r.text()
	case 't', 'f':
		_, err = r.bool()
	case 'n':
		if !r.null() {
			err = r.unexpected("a value")
		}
	default:
		_, _, err = r.number()
	}
	return err
}

// end checks that nothing but white space is left.
func (r *jsonReader) end() error {
	if r.peek(); r.pos < len(r.data) {
		return r.errorf("something stands after the end of the value")
	}
	return nil
}

// A jsonField says how to read the value of one key.
type jsonField struct {
	key      string
	read     func() error
	required bool
}

// fields reads an object of known keys. Unknown keys are checked and ignored; a required key that is absent is an error.
func (r *jsonReader) fields(fields ...jsonField) error {
	found := uint64(0) // bit i: field i; no object has 64

	err := r.object(func(key string) error {
		for i, f := range fields {
			if f.key == key {
				found |= 1 << i
				if err := f.read(); err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
				return nil
			}
		}
		return r.skip()
	})
	if err != nil {
		return err
	}
	for i, f := range fields {
		if f.required && found>>i&1 == 0 {
			return fmt.Errorf("%s is missing: %w", f.key, ErrCorrupt)
		}
	}
	return nil
}
